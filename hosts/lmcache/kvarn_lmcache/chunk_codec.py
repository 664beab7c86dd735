"""Chunks to stored chunks and back, in the caller's memory. Knows numpy and the codec, neither LMCache nor torch."""

import dataclasses
import threading

import kvarn
import numpy as np

from . import chunk_format
from .chunk_format import Coding, Damaged, Tiling, plan_chunk

_ROWS = {"bfloat16": np.uint16, "float16": np.float16, "float32": np.float32}


def coding_of(preset, head_dim, level="fast", fields="half"):
    """A preset's name ("k4v4", "balanced", "f16", ...) as a coding. Raises ValueError for what there is not."""
    if level not in chunk_format.LEVELS:
        raise ValueError(f"there is no level '{level}'; take one of {', '.join(chunk_format.LEVELS)}")
    if fields not in chunk_format.FIELDS.values():
        raise ValueError(f"there are no fields '{fields}'; take half or byte")
    if fields == "byte" and level not in ("default", "fast", "best"):
        raise ValueError(f"level '{level}' writes no fields of one byte; take fast or best, or fields of half")
    try:
        config = kvarn.Config(preset)
    except kvarn.Error as error:
        raise ValueError(f"there is no preset '{preset}'; k4v4, k4v2, k8v8 ... or near-lossless, balanced, small, smallest, f16") from error
    if not 16 <= head_dim <= 1024 or head_dim % 16 != 0:
        raise ValueError(f"head_dim must be a multiple of 16 from 16 to 1024, not {head_dim}")
    coding = Coding(config.k_bits, config.v_bits, head_dim, level, fields)
    return dataclasses.replace(coding, fields="half") if coding.exact else coding


class ChunkCodec:
    """Encodes and decodes chunks with one coding (decoding takes the coding from the chunk). `threads` threads work on each call.

    Calls from several threads take turns on the parts of a chunk; an encoder and a decoder of their own do not wait for each other.
    """

    def __init__(self, coding, threads=1):
        self.coding = coding
        self._threads = threads
        self._lock = threading.Lock()
        self._codecs = {}

    def encoded_bytes(self, groups):
        """Of every chunk of these groups, whatever its values: header and checksum included."""
        return plan_chunk(groups, self.coding).total_bytes

    def encode(self, chunk, groups, stored):
        """Writes the stored chunk to the first bytes of `stored` and returns how many: encoded_bytes(groups).

        chunk, stored: memory of bytes, which do not overlap. Raises ValueError if there is too little of either, and
        kvarn.NonFinite if keys or values hold a NaN or an infinity; `stored` holds anything then.
        """
        plan = plan_chunk(groups, self.coding)
        chunk, stored = _bytes_of(chunk), _bytes_of(stored)
        if chunk.size < plan.chunk_bytes or stored.size < plan.total_bytes:
            raise ValueError(f"a chunk of {plan.chunk_bytes} bytes becomes {plan.total_bytes}; there are {chunk.size} and {stored.size}")
        stored[: len(plan.header)] = np.frombuffer(plan.header, np.uint8)
        for part in plan.parts:
            rows, place = _part_bytes(part, chunk, stored)
            if part.records:
                self._encode_rows(part.group, self.coding, rows, place)
            else:
                place[:] = rows
        checked = chunk_format.checked_bytes(plan.total_bytes)
        chunk_format.put_checksum(stored, plan.total_bytes, kvarn.checksum(stored[:checked]))
        return plan.total_bytes

    def decode(self, stored, groups, chunk):
        """Writes the chunk that `stored` begins with. Raises Damaged, before anything is written, if its header is not that of a
        chunk of these groups or a byte is not what was stored."""
        stored, chunk = _bytes_of(stored), _bytes_of(chunk)
        summary = check_stored(stored)
        plan = plan_chunk(groups, summary.coding)
        if stored[: summary.header_bytes].tobytes() != plan.header:
            raise Damaged("the chunk holds other shapes or types than are wanted")
        if chunk.size < plan.chunk_bytes:
            raise ValueError(f"the chunk has {plan.chunk_bytes} bytes; there is room for {chunk.size}")
        for part in plan.parts:
            if part.records:
                self._validate(part, summary.coding, stored)
        for part in plan.parts:
            rows, place = _part_bytes(part, chunk, stored)
            if part.records:
                self._decode_rows(part.group, summary.coding, rows, place)
            else:
                rows[:] = place

    def _codec(self, side, coding, heads, tile_tokens):
        bits = coding.k_bits if side == "k" else coding.v_bits
        key = (side, bits, coding.head_dim, heads, tile_tokens, coding.level, coding.fields)
        with self._lock:
            if key not in self._codecs:
                self._codecs[key] = kvarn.Codec(side, bits, coding.head_dim, heads, tile_tokens=tile_tokens, level=coding.level,
                                                fields=coding.fields, threads=self._threads)
            return self._codecs[key]

    def _batches(self, group, coding, place):
        """What the records of a group are made of: (codec, [side, layer] or side of the group's rows, tokens, records). Without a
        smaller tile and a tail all layers of a side are one batch."""
        _, layers, tokens, width = group.shape
        tiling, heads, at = Tiling(tokens), width // coding.head_dim, 0
        together = tiling.tokens == tiling.whole * chunk_format.TILE_TOKENS
        for first, tiles, tile_tokens in ((0, tiling.whole, chunk_format.TILE_TOKENS),
                                          (tiling.whole * chunk_format.TILE_TOKENS, 1 if tiling.rest else 0, tiling.rest)):
            if tiles == 0:
                continue
            for side, name in enumerate("kv"):
                codec = self._codec(name, coding, heads, tile_tokens)
                size = tiles * heads * codec.record_bytes
                for layer in [slice(None)] if together else range(layers):
                    count = layers if together else 1
                    records = place[at : at + count * size].reshape(count * tiles, heads, codec.record_bytes)
                    at += count * size
                    yield codec, (side, layer, slice(first, first + tiles * tile_tokens)), records

    def _encode_rows(self, group, coding, rows, place):
        rows, dtype = _rows_of(group, coding, rows)
        for codec, where, records in self._batches(group, coding, place):
            codec.encode(rows[where].reshape(-1, *rows.shape[3:]), out=records, dtype=dtype)
        tail = _tail_of(group, rows)
        place[place.size - tail.nbytes :] = _as_bytes(tail)

    def _decode_rows(self, group, coding, rows, place):
        whole, dtype = _rows_of(group, coding, rows)
        for codec, where, records in self._batches(group, coding, place):
            codec.decode(records, out=whole[where].reshape(-1, *whole.shape[3:]), dtype=dtype)
        tail = _tail_of(group, whole)
        if tail.size:
            tail[...] = place[place.size - tail.nbytes :].view(whole.dtype).reshape(tail.shape)
        if not np.shares_memory(whole, rows):
            rows[:] = _as_bytes(whole)

    def _validate(self, part, coding, stored):
        place = stored[part.stored_start : part.stored_start + part.stored_bytes]
        try:
            for codec, _, records in self._batches(part.group, coding, place):
                codec.validate(records)
        except kvarn.Error as error:
            raise Damaged(f"records that no encoder wrote: {error}") from error


def check_stored(stored):
    """The summary of a stored chunk whose bytes are all what was written; raises Damaged otherwise."""
    stored = _bytes_of(stored)
    summary = chunk_format.read_summary(stored)
    checked = chunk_format.checked_bytes(summary.total_bytes)
    if kvarn.checksum(stored[:checked]) != chunk_format.get_checksum(stored, summary.total_bytes):
        raise Damaged("the checksum is not that of the bytes")
    return summary


def _bytes_of(memory):
    return np.frombuffer(memory, np.uint8)


def _as_bytes(array):
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _part_bytes(part, chunk, stored):
    return (chunk[part.start : part.start + part.group.bytes], stored[part.stored_start : part.stored_start + part.stored_bytes])


def _rows_of(group, coding, data):
    """The bytes of a group as rows [2, layers, tokens, heads, head_dim], and what the codec must be told of their type. A copy if
    they do not lie where such numbers can."""
    _, layers, tokens, width = group.shape
    kind = np.dtype(_ROWS[group.dtype])
    if data.ctypes.data % kind.itemsize != 0:
        data = np.frombuffer(bytearray(data.tobytes()), np.uint8)
    rows = data.view(kind).reshape(2, layers, tokens, width // coding.head_dim, coding.head_dim)
    return rows, "bfloat16" if group.dtype == "bfloat16" else None


def _tail_of(group, rows):
    return rows[:, :, group.shape[2] - Tiling(group.shape[2]).tail :]
