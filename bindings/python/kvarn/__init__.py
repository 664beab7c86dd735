"""KVarN: a compressed KV cache for transformer models.

Codec turns tiles of keys or values into records and back; Cache keeps the keys and values of all layers of a model for many
sequences that can be cut, forked and dropped, and attends over them. Rows are numpy arrays of float16 or float32, or anything
numpy makes such arrays of. docs/guide/python.md shows how the parts fit together.
"""

from ._kvarn import (
    Cache,
    CacheAccount,
    Codec,
    Config,
    Corrupt,
    Error,
    Full,
    InvalidArgument,
    Layer,
    NonFinite,
    OutOfMemory,
    OutOfOrder,
    OutOfRange,
    Query,
    SequenceAccount,
    Step,
    __version__,
    checksum,
    choose_kernels,
    kernels,
)

__all__ = [
    "Cache",
    "CacheAccount",
    "Codec",
    "Config",
    "Corrupt",
    "Error",
    "Full",
    "InvalidArgument",
    "Layer",
    "NonFinite",
    "OutOfMemory",
    "OutOfOrder",
    "OutOfRange",
    "Query",
    "SequenceAccount",
    "Step",
    "__version__",
    "checksum",
    "choose_kernels",
    "kernels",
]
