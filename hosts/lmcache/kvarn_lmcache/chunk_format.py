"""The bytes of one stored chunk, versions 1 and 2 (docs/format/lmcache_chunk.md): places and sizes, and the header. Computes nothing
with keys and values, and knows neither LMCache nor torch.

A chunk is one object of LMCache: one or more groups, each an array of one shape and type, side by side in memory. A group
[2, layers, tokens, heads * head_dim] of keys and values becomes records, every other group is kept as it is.
"""

import dataclasses
import functools
import math
import struct

import kvarn

MAGIC = b"KVARNLMC"
FIELDS = {1: "half", 2: "byte"}  # of the records in it, by the version of a chunk
TILE_TOKENS = 128
EXACT_BITS = 16  # on both sides: nothing becomes records

_HEADER = struct.Struct("<8sIIQBBBxII28x")
_GROUP = struct.Struct("<16sBB6xQ8Q32x")
_CHECKSUM = struct.Struct("<Q")
_MOST_DIMENSIONS = 8
_RAW, _RECORDS = 0, 1

# What rows can be made of.
ROW_TYPES = ("bfloat16", "float16", "float32")
LEVELS = ("default", "official", "scaled", "fast", "best", "plain")


class Damaged(ValueError):
    """These bytes are not a chunk that can be read here: nothing of them was used."""


@dataclasses.dataclass(frozen=True)
class Group:
    """One array: its shape, the name of its type, and the bytes of one value."""

    shape: tuple
    dtype: str
    value_bytes: int

    @property
    def bytes(self):
        return math.prod(self.shape) * self.value_bytes


@dataclasses.dataclass(frozen=True)
class Coding:
    """How keys and values become records. Bits: 8, 6, 5, 4, 3 or 2, or 16 on both sides."""

    k_bits: int
    v_bits: int
    head_dim: int
    level: str = "fast"
    fields: str = "half"

    @property
    def exact(self):
        return self.k_bits == EXACT_BITS and self.v_bits == EXACT_BITS

    def __str__(self):
        byte_fields = ", fields byte" if self.fields == "byte" else ""
        return f"k{self.k_bits}v{self.v_bits}, head_dim {self.head_dim}, level {self.level}{byte_fields}"

    @property
    def version(self):
        """Of a chunk that is made so."""
        return next(version for version, fields in FIELDS.items() if fields == self.fields)


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How the tokens of one layer are cut: whole tiles, one smaller tile, rows that stay as they are."""

    tokens: int

    @property
    def whole(self):
        """Tiles of 128 tokens."""
        return self.tokens // TILE_TOKENS

    @property
    def rest(self):
        """Tokens of the smaller tile, a multiple of 16; 0: there is none."""
        return self.tokens % TILE_TOKENS // 16 * 16

    @property
    def tail(self):
        """Rows, at most 15."""
        return self.tokens % 16


@dataclasses.dataclass(frozen=True)
class Part:
    """Where the bytes of one group are in the chunk as it was, and in the stored one."""

    group: Group
    records: bool
    start: int
    stored_start: int
    stored_bytes: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """A stored chunk: its header and where everything is. total_bytes counts header and checksum too."""

    header: bytes
    parts: tuple
    chunk_bytes: int
    total_bytes: int


def becomes_records(group, coding):
    """Whether this is an array of keys and values that the codec takes: [2, layers, tokens, heads * head_dim]."""
    if coding.exact or group.dtype not in ROW_TYPES or len(group.shape) != 4:
        return False
    if not 16 <= coding.head_dim <= 1024 or coding.head_dim % 16 != 0:
        return False
    sides, layers, tokens, width = group.shape
    return sides == 2 and layers > 0 and tokens >= 16 and width > 0 and width % coding.head_dim == 0


def _record_bytes(side, bits, coding, tile_tokens):
    return kvarn.Codec(side, bits, coding.head_dim, tile_tokens=tile_tokens, fields=coding.fields).record_bytes


def _records_group_bytes(group, coding):
    _, layers, tokens, width = group.shape
    tiling = Tiling(tokens)
    total = 2 * tiling.tail * width * group.value_bytes
    for tiles, tile_tokens in ((tiling.whole, TILE_TOKENS), (1, tiling.rest)):
        if tiles == 0 or tile_tokens == 0:
            continue
        one_head = _record_bytes("k", coding.k_bits, coding, tile_tokens) + _record_bytes("v", coding.v_bits, coding, tile_tokens)
        total += tiles * width // coding.head_dim * one_head
    return layers * total


def _group_header(part):
    group = part.group
    # More dimensions than there is room for are one.
    shape = group.shape if len(group.shape) <= _MOST_DIMENSIONS else (math.prod(group.shape),)
    sizes = shape + (0,) * (_MOST_DIMENSIONS - len(shape))
    kind = _RECORDS if part.records else _RAW
    return _GROUP.pack(group.dtype.encode("ascii")[:16], kind, len(shape), part.stored_bytes, *sizes)


@functools.lru_cache(maxsize=64)
def plan_chunk(groups, coding):
    """The plan of a chunk of these groups. It depends on shapes, types and the coding alone, never on the values."""
    header_bytes = _HEADER.size + len(groups) * _GROUP.size
    parts, start, stored = [], 0, header_bytes
    for group in groups:
        records = becomes_records(group, coding)
        size = _records_group_bytes(group, coding) if records else group.bytes
        parts.append(Part(group, records, start, stored, size))
        start += group.bytes
        stored += size
    total = stored + _CHECKSUM.size
    header = _HEADER.pack(MAGIC, coding.version, header_bytes, total, coding.k_bits, coding.v_bits, LEVELS.index(coding.level),
                          coding.head_dim, len(groups))
    return Plan(header + b"".join(map(_group_header, parts)), tuple(parts), start, total)


@dataclasses.dataclass(frozen=True)
class Summary:
    """What the fixed part of a header says."""

    coding: Coding
    header_bytes: int
    total_bytes: int
    group_count: int


def read_summary(stored):
    """The fixed part of a header; raises Damaged if it is of no known version, or says more bytes than there are."""
    if len(stored) < _HEADER.size + _CHECKSUM.size:
        raise Damaged("too short for a chunk")
    magic, version, header_bytes, total, k_bits, v_bits, level, head_dim, count = _HEADER.unpack_from(stored)
    if magic != MAGIC:
        raise Damaged("not a chunk of kvarn-lmcache")
    if version not in FIELDS:
        raise Damaged(f"a chunk of version {version}; this reads versions {' and '.join(map(str, FIELDS))}")
    if total > len(stored) or total < header_bytes + _CHECKSUM.size or header_bytes != _HEADER.size + count * _GROUP.size:
        raise Damaged("the sizes of the chunk do not fit together")
    widths = (8, 6, 5, 4, 3, 2)
    if level >= len(LEVELS) or not (k_bits in widths and v_bits in widths or k_bits == v_bits == EXACT_BITS):
        raise Damaged("no such preset")
    return Summary(Coding(k_bits, v_bits, head_dim, LEVELS[level], FIELDS[version]), header_bytes, total, count)


def read_groups(stored, summary):
    """For people: (shape, type, whether it is records, stored bytes) of every group of a header."""
    found = []
    for at in range(_HEADER.size, summary.header_bytes, _GROUP.size):
        dtype, kind, dimensions, size, *sizes = _GROUP.unpack_from(stored, at)
        found.append((tuple(sizes[:dimensions]), dtype.rstrip(b"\0").decode("ascii", "replace"), kind == _RECORDS, size))
    return found


def put_checksum(stored, total_bytes, value):
    """Writes it behind everything else."""
    _CHECKSUM.pack_into(stored, total_bytes - _CHECKSUM.size, value)


def get_checksum(stored, total_bytes):
    return _CHECKSUM.unpack_from(stored, total_bytes - _CHECKSUM.size)[0]


def checked_bytes(total_bytes):
    """How many bytes from the start the checksum is of."""
    return total_bytes - _CHECKSUM.size
