"""The one module that names what the plugin uses of vLLM, for one minor version of it, and checks that it is all there."""

import inspect
from dataclasses import fields

import vllm
from vllm.config import get_current_vllm_config
from vllm.logger import init_logger
from vllm.v1.attention.backend import AttentionBackend, AttentionType, CommonAttentionMetadata
from vllm.v1.attention.backends import cpu_attn
from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend
from vllm.v1.kv_cache_interface import AttentionSpec, FullAttentionSpec, SlidingWindowSpec

__all__ = ["AttentionSpec", "AttentionType", "FullAttentionSpec", "SlidingWindowSpec", "StockBackend", "StockBuilder", "StockImpl",
           "WrongVersion", "check", "get_current_vllm_config", "init_logger", "ops", "override_cpu_attention"]

MINOR = "0.32"

StockBackend = cpu_attn.CPUAttentionBackend
StockBuilder = cpu_attn.CPUAttentionMetadataBuilder
StockImpl = cpu_attn.CPUAttentionBackendImpl
ops = cpu_attn.ops

IMPL_PARAMETERS = ["num_heads", "head_size", "scale", "num_kv_heads", "alibi_slopes", "sliding_window", "kv_cache_dtype",
                   "logits_soft_cap", "attn_type", "kv_sharing_target_layer_name", "sinks"]
FORWARD_PARAMETERS = ["layer", "query", "key", "value", "kv_cache", "attn_metadata", "output", "output_scale", "output_block_scale"]
METADATA_FIELDS = {"query_start_loc", "seq_lens", "num_actual_tokens", "block_table_tensor", "slot_mapping", "causal", "is_prefilling"}
SPEC_FIELDS = {"block_size", "num_kv_heads", "head_size", "head_size_v", "dtype", "state_content_bytes"}


class WrongVersion(RuntimeError):
    """This vLLM is not the one that the plugin was made for."""


def parameters(function):
    return list(inspect.signature(function).parameters)[1:]


def findings(version=vllm.__version__):
    """What is not as the plugin needs it, one line each."""
    if not version.startswith(MINOR + "."):
        return [f"this is vLLM {version}"]
    found = []
    if parameters(StockImpl.__init__) != IMPL_PARAMETERS:
        found.append("attention layers are made with other parameters")
    if parameters(StockImpl.forward) != FORWARD_PARAMETERS:
        found.append("attention is called with other parameters")
    if not METADATA_FIELDS <= {field.name for field in fields(CommonAttentionMetadata)}:
        found.append("the metadata of a step lacks fields")
    if not SPEC_FIELDS <= {field.name for field in fields(AttentionSpec)}:
        found.append("the description of a page lacks fields")
    if not callable(getattr(AttentionBackend, "customize_spec", None)):
        found.append("a backend cannot say what its pages hold")
    return found


def check():
    """Raises WrongVersion, with one line that says what to do."""
    found = findings()
    if found:
        raise WrongVersion(f"kvarn-vllm is made for vLLM {MINOR}, but {'; '.join(found)}: install the kvarn-vllm of this version, "
                           "or leave the plugin out (VLLM_PLUGINS)")


def override_cpu_attention(path):
    """vLLM's attention on CPUs is this class from now on."""
    register_backend(AttentionBackendEnum.CPU_ATTN, path)
