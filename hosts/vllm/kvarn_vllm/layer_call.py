"""The engine's tensors as the compiled part takes them."""

import torch

from kvarn_vllm._native import RowType

TYPES = {torch.float16: RowType.HALF, torch.bfloat16: RowType.BFLOAT16, torch.float32: RowType.FLOAT}


def run_layer(pages, step, rows, kv_cache, output):
    """One layer's part of a step: `rows` are queries, keys, values of the batch. Returns how many values no half could hold."""
    query, key, value = map(contiguous_heads, rows)
    target = contiguous_heads(output)
    changed = pages.run(step, place(key), place(value), place(query), place(target), kv_cache.data_ptr(), kv_cache.stride(0))
    if target is not output:
        output.copy_(target)
    return changed


def contiguous_heads(rows):
    return rows if rows.stride(2) == 1 else rows.contiguous()


def place(rows):
    """Address, strides and type of [tokens, heads, channels]."""
    return rows.data_ptr(), rows.stride(0), rows.stride(1), TYPES[rows.dtype]
