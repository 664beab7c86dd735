"""An adapter for LMCache's "type": "plugin": the way to the serde "kvarn" for an lmcache that is started as usual.

    {"type": "plugin", "module_path": "kvarn_lmcache.plugin", "class_name": "KvarnAdapter",
     "adapter_params": {"type": "fs", "base_path": "/data/kv"}, "serde": {"type": "kvarn", "head_dim": 128}}

LMCache imports this module before it looks for the serde, and importing it registers the serde.
"""

from lmcache.v1.distributed.l2_adapters import L2AdapterInterface, create_l2_adapter
from lmcache.v1.distributed.l2_adapters.config import get_l2_adapter_config_class

from . import serde  # registers the serde


class KvarnAdapter(L2AdapterInterface):
    """Stands for the adapter that its parameters describe: making one gives that adapter itself."""

    def __new__(cls, params, l1_memory_desc=None):
        serde.register()
        kind = params.get("type")
        if not isinstance(kind, str) or kind == "plugin":
            raise ValueError('adapter_params of KvarnAdapter is the spec of another adapter: {"type": "fs", "base_path": ...}')
        config = get_l2_adapter_config_class(kind).from_dict(params)
        return create_l2_adapter(config, l1_memory_desc)
