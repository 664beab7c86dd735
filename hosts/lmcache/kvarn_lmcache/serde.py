"""The serde "kvarn" of LMCache. Importing this module registers it; doing so again does nothing.

Proven with LMCache 0.5.6. Only this module, plugin and command import LMCache.
"""

import logging
import math

import torch
from lmcache.v1.distributed.serde import (
    AsyncSerdeProcessor,
    Deserializer,
    Serializer,
    get_registered_serde_types,
    register_serde_factory,
)

from .chunk_codec import ChunkCodec, coding_of
from .chunk_format import Group, plan_chunk

NAME = "kvarn"
_KEYS = {"preset": "k4v4", "head_dim": None, "level": "fast", "fields": "half", "threads": 1, "max_workers": 2}

_log = logging.getLogger("lmcache.kvarn")


def groups_of(shapes, dtypes):
    """A layout of LMCache as groups."""
    made = []
    for shape, dtype in zip(shapes, dtypes, strict=True):
        made.append(Group(tuple(int(size) for size in shape), str(dtype).removeprefix("torch."), torch.empty((), dtype=dtype).element_size()))
    return tuple(made)


class KvarnSerializer(Serializer):
    """Writes stored chunks. Their size depends on the layout alone, so that what is written is what was estimated: LMCache never
    loads a file of another size."""

    def __init__(self, coding, threads):
        self._codec = ChunkCodec(coding, threads)
        self._seen = set()

    def estimate_serialized_size(self, layout_desc):
        return self._codec.encoded_bytes(groups_of(layout_desc.shapes, layout_desc.dtypes))

    def serialize(self, src, dst, key=None):
        groups = groups_of(src.get_shapes(), src.get_dtypes())
        self._tell(groups)
        return self._codec.encode(src.byte_array, groups, dst.byte_array)

    def _tell(self, groups):
        """One line in the log for every layout, when it first comes."""
        if groups in self._seen:
            return
        self._seen.add(groups)
        coding = self._codec.coding
        plan = plan_chunk(groups, coding)
        for part in plan.parts:
            how = str(coding) if part.records else "as they are"
            _log.info("kvarn: %s %s: %d -> %d bytes (%.3f), %s", list(part.group.shape), part.group.dtype, part.group.bytes,
                      part.stored_bytes, part.stored_bytes / max(part.group.bytes, 1), how)
            if not part.records and not coding.exact and math.prod(part.group.shape) > 0:
                _log.warning("kvarn: %s %s is not [2, layers, tokens, heads * %d] of 16 tokens or more in float16, bfloat16 or float32:"
                             " kept as it is", list(part.group.shape), part.group.dtype, coding.head_dim)


class KvarnDeserializer(Deserializer):
    """Reads stored chunks. One that is damaged, or of another layout, raises before anything is written: LMCache counts it as not
    loaded."""

    def __init__(self, coding, threads):
        self._codec = ChunkCodec(coding, threads)

    def deserialize(self, src, dst, key=None):
        self._codec.decode(src.byte_array, groups_of(dst.get_shapes(), dst.get_dtypes()), dst.byte_array)


def options_of(given):
    """The keys of the serde's JSON, complete and of the right types. Raises ValueError."""
    unknown = set(given) - set(_KEYS)
    if unknown:
        raise ValueError(f"the serde kvarn has no key '{sorted(unknown)[0]}'; it has {', '.join(_KEYS)}")
    options = _KEYS | dict(given)
    if options["head_dim"] is None:
        raise ValueError("the serde kvarn needs head_dim, the channels of one head of the model (its config.json has head_dim, or "
                         "hidden_size / num_attention_heads)")
    for key in ("head_dim", "threads", "max_workers"):
        if isinstance(options[key], bool) or not isinstance(options[key], int):
            raise ValueError(f"{key} must be a whole number")
    for key, most in (("threads", 1024), ("max_workers", 64)):
        if not 1 <= options[key] <= most:
            raise ValueError(f"{key} must be 1 to {most}")
    return options


def create(given):
    """The factory that LMCache calls with the keys beside "type"."""
    options = options_of(given)
    coding = coding_of(options["preset"], options["head_dim"], options["level"], options["fields"])
    threads = options["threads"]
    return AsyncSerdeProcessor(KvarnSerializer(coding, threads), KvarnDeserializer(coding, threads), max_workers=options["max_workers"])


def register():
    """Makes "serde": {"type": "kvarn", ...} known to LMCache."""
    if NAME not in get_registered_serde_types():
        register_serde_factory(NAME, create)


register()
