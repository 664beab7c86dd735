"""vLLM's attention on CPUs with compressed pages: the backend, the builder of a step's metadata, and the layers. What cannot be
compressed goes to vLLM's own implementation, which all three extend."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from kvarn_vllm import _native, engine_plan, shim
from kvarn_vllm.backend_arrays import step_arrays
from kvarn_vllm.exact_pages import ExactPages
from kvarn_vllm.hot_blocks import Batch, HotBlocks
from kvarn_vllm.layer_call import run_layer

logger = shim.init_logger("vllm.kvarn")


class KvarnBackend(shim.StockBackend):
    """Takes the place of CPU_ATTN."""

    forward_includes_kv_cache_update = True

    @staticmethod
    def get_impl_cls():
        return KvarnImpl

    @staticmethod
    def get_builder_cls():
        return KvarnBuilder

    @staticmethod
    def get_supported_kernel_block_sizes(kv_cache_spec=None):
        if kv_cache_spec is not None and is_ours(kv_cache_spec):
            return [_native.TILE_TOKENS]
        return shim.StockBackend.get_supported_kernel_block_sizes(kv_cache_spec)

    @classmethod
    def customize_spec(cls, spec):
        plan = engine_plan.latest()
        if plan is None or not plan.keeps_records or spec.state_content_bytes is not None:
            return spec
        if not isinstance(spec, (shim.FullAttentionSpec, shim.SlidingWindowSpec)) or spec.head_size_v != spec.head_size:
            raise NotImplementedError(f"KVarN has no pages for {type(spec).__name__} with values of {spec.head_size_v} channels")
        return replace(spec, dtype=torch.uint8, state_content_bytes=plan.bytes_per_token(spec.num_kv_heads, spec.head_size))


def is_ours(spec):
    return spec.dtype == torch.uint8 and spec.state_content_bytes is not None


@dataclass
class KvarnMetadata:
    """Of one step, for layers that keep records: `step` is what all of them read. For pages of exact rows: the plan, and
    what vLLM's own attention wants to know."""

    step: Any = None
    plan: Any = None
    batch: Any = None
    stock: Any = None
    tokens: int = 0


class KvarnBuilder(shim.StockBuilder):
    """One for each group of layers; holds the group's hot blocks."""

    def __init__(self, kv_cache_spec, layer_names, vllm_config, device):
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        self.plan = engine_plan.current(vllm_config, logger)
        self.hot = None
        if not self.plan.is_on:
            return
        self.hot = HotBlocks(self.plan.pool_shape(), self.plan.speculative_tokens, self.plan.keep())
        self.plan.groups.append(self.hot)
        if self.plan.keeps_records:
            logger.info("%s", self.plan.summary(_native.instruction_set()))

    def build(self, common_prefix_len, common_attn_metadata, fast_build=False):
        common = common_attn_metadata
        if self.hot is None:
            return super().build(common_prefix_len, common, fast_build)
        if common.causal is not True:
            raise NotImplementedError("KVarN: this model attends to tokens that come later")
        batch = make_batch(common)
        plan = self.hot.plan(batch)
        if not self.plan.keeps_records:
            stock = super().build(common_prefix_len, common, fast_build)
            return KvarnMetadata(plan=plan, batch=batch, stock=stock, tokens=int(batch.query_start[-1]))
        shape = self.hot.shape
        step = _native.Step(step_arrays(plan, batch), shape.units + shape.staging_units, self.page_count(batch),
                            self.plan.settings.deterministic)
        return KvarnMetadata(step=step)

    def page_count(self, batch):
        return self.vllm_config.cache_config.num_gpu_blocks or int(batch.block_table.max(initial=0)) + 1


def make_batch(common):
    speaks_of_prompts = common.is_prefilling is not None
    return Batch(common.query_start_loc.numpy(), common.seq_lens.numpy(), common.block_table_tensor.numpy(),
                 common.is_prefilling.numpy() if speaks_of_prompts else common.seq_lens.numpy() < 0)


class KvarnImpl(shim.StockImpl):
    """One attention layer."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.plan = engine_plan.current(shim.get_current_vllm_config(), logger)
        self.plan.add_layer(self)
        self.pages = None
        self.changed_values = 0

    def process_weights_after_loading(self, act_dtype):
        super().process_weights_after_loading(act_dtype)
        self.plan.settle()
        if not self.plan.is_on or self.pages is not None:
            return
        shape = self.plan.pool_shape()
        if not self.plan.keeps_records:
            self.pages = ExactPages(self, shape, act_dtype)
            return
        key = engine_plan.LayerShape(self.num_kv_heads, self.head_size)
        staging_bytes = 0
        if key not in self.plan.shared:
            shared = _native.Shared(shape.staging_units, key.kv_heads, key.dim, key.dim, self.plan.k_bits, self.plan.v_bits,
                                    self.plan.settings.fields)
            self.plan.shared[key], staging_bytes = shared, shared.bytes
        sinks = [] if self.sinks is None else self.sinks.float().tolist()
        self.pages = _native.Layer(self.plan.shared[key], shape.units, self.num_heads, self.plan.settings.level, self.scale,
                                   float(self.logits_soft_cap), max(self.sliding_window, 0), sinks)
        of_head = self.plan.bytes_per_token(key.kv_heads, key.dim)
        stock = 2 * key.dim * act_dtype.itemsize
        self.plan.count_layer(self.pages.hot_bytes + staging_bytes, of_head * key.kv_heads * shape.tile_tokens,
                              stock * key.kv_heads * shape.tile_tokens)

    def forward(self, layer, query, key, value, kv_cache, attn_metadata, output, output_scale=None, output_block_scale=None):
        if not isinstance(attn_metadata, KvarnMetadata):
            if attn_metadata is not None and key is not None and self.kv_sharing_target_layer_name is None:
                self.do_kv_cache_update(layer, key, value, kv_cache, attn_metadata.slot_mapping)
            return super().forward(layer, query, key, value, kv_cache, attn_metadata, output, output_scale, output_block_scale)
        if output_scale is not None or output_block_scale is not None:
            raise NotImplementedError("KVarN: fused output quantization")
        if attn_metadata.step is None:
            return self.pages.forward(self, layer, (query, key, value), kv_cache, attn_metadata, output)
        changed = run_layer(self.pages, attn_metadata.step, (query, key, value), kv_cache, output)
        if changed:
            self.note_changed(layer, changed)
        return output

    def note_changed(self, layer, count):
        if self.changed_values == 0:
            logger.warning("KVarN: layer %s has keys or values that are not finite or beyond 65504; they are stored as the nearest "
                           "finite number, NaN as 0", getattr(layer, "layer_name", "?"))
        self.changed_values += count
