"""KVarN for vLLM: the pages of the KV cache hold compressed records, written and read by vLLM's own attention hook. See docs/guide/vllm.md."""


def register():
    """Called by vLLM in every process (entry point group vllm.general_plugins); may be called again."""
    from kvarn_vllm import shim  # pylint: disable=import-outside-toplevel  # only a process with vLLM gets here

    shim.check()
    shim.override_cpu_attention("kvarn_vllm.backend.KvarnBackend")
