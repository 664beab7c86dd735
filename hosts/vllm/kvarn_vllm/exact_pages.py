"""Pages of exact rows in the model's own type, read by vLLM's own attention: nothing is saved and nothing is lost. It exists to
check everything of the plugin but the records: the text is that of vLLM without it, token for token."""

import torch

from kvarn_vllm import shim
from kvarn_vllm.hot_blocks import NONE, NULL_BLOCK


class ExactPages:
    """One layer: its units and what it does in a step."""

    def __init__(self, impl, shape, dtype):
        self.shape = shape
        units = shape.units + shape.staging_units
        self.units = torch.zeros((units, shape.unit_tokens, 2, impl.num_kv_heads, impl.head_size), dtype=dtype)

    def forward(self, impl, layer, rows, kv_cache, metadata, output):
        query, key, value = rows
        tokens = metadata.tokens
        pages = kv_cache.view(kv_cache.shape[0], self.shape.tile_tokens, 2, impl.num_kv_heads, impl.head_size)
        plan = metadata.plan
        self.seal(pages, plan.early_blocks, plan.early_units)
        self.store(plan, torch.stack([key[:tokens], value[:tokens]], 1))
        self.seal(pages, plan.seal_blocks, plan.seal_units)
        tiles, table = self.gather(pages, plan, metadata.batch)
        impl_cache = torch.empty((len(tiles), *kv_cache.shape[1:]), dtype=kv_cache.dtype)
        slots = torch.arange(len(tiles) * self.shape.tile_tokens)
        flat = tiles.flatten(0, 1)
        impl.do_kv_cache_update(layer, flat[:, 0].contiguous(), flat[:, 1].contiguous(), impl_cache, slots)
        stock = metadata.stock
        own_table, stock.block_table = stock.block_table, table
        shim.StockImpl.forward(impl, layer, query, key, value, impl_cache, stock, output)
        stock.block_table = own_table
        return output

    def store(self, plan, rows):
        unit, row = torch.from_numpy(plan.token_unit).long(), torch.from_numpy(plan.token_row).long()
        stored = unit != NONE
        self.units[unit[stored], row[stored]] = rows[stored]

    def seal(self, pages, blocks, units):
        for block, its_units in zip(blocks.tolist(), torch.from_numpy(units).long()):
            pages[block] = self.units[its_units].flatten(0, 1)

    def gather(self, pages, plan, batch):
        """All tiles of all rows of the batch, one after the other, and the block table that numbers them so."""
        tile = self.shape.tile_tokens
        tiles, table = [torch.zeros_like(pages[0])], torch.zeros(batch.block_table.shape, dtype=torch.int32)
        for row, length in enumerate(batch.seq_lens.tolist()):
            for index in range(-(-length // tile)):
                block = int(batch.block_table[row, index])
                if block == NULL_BLOCK:
                    continue
                table[row, index] = len(tiles)
                units = torch.from_numpy(plan.block_units[block]).long()
                tiles.append(self.units[units].flatten(0, 1) if plan.is_exact[block] else pages[block])
        return torch.stack(tiles), table
