"""The plugin's compiled part with the book-keeping, and neither vLLM nor torch: a layer stores, seals and attends as a plain
computation over all rows does, and deterministic reads give the same bits however a sequence was computed."""

import ctypes
import math

import numpy as np
import pytest

ctypes.CDLL("libgomp.so.1", ctypes.RTLD_GLOBAL)  # in the engine torch has loaded it

from kvarn_vllm import _native  # noqa: E402  # pylint: disable=wrong-import-position
from kvarn_vllm.backend_arrays import step_arrays  # noqa: E402  # pylint: disable=wrong-import-position
from kvarn_vllm.hot_blocks import Batch, HotBlocks, Keep, PoolShape  # noqa: E402  # pylint: disable=wrong-import-position

TILE = _native.TILE_TOKENS
HEADS, KV_HEADS = 6, 2
BLOCKS = 24


TYPES = {"float16": _native.RowType.HALF, "uint16": _native.RowType.BFLOAT16, "float32": _native.RowType.FLOAT}


def place(rows):
    """numpy has no bfloat16: its bits are whole numbers here."""
    return rows.ctypes.data, rows.strides[0] // rows.itemsize, rows.strides[1] // rows.itemsize, TYPES[str(rows.dtype)]


def bfloat16_bits(rows):
    """To nearest even."""
    bits = rows.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def as_type(rows, name):
    return bfloat16_bits(rows) if name == "uint16" else rows.astype(name)


class Cache:
    """One layer with its pages, and sequences that are computed in parts; types of K and V, of queries, of outputs."""

    def __init__(self, preset="k8v8", dim=64, deterministic=False, keep=None, level="fast", fields="half",
                 types=("float16", "float32", "float32"), **named):
        self.dim, self.deterministic, self.types = dim, deterministic, types
        self.changed = 0  # values that no half can hold, in the next run
        bits = _native.preset_bits(preset)
        self.hot = HotBlocks(PoolShape(TILE, _native.UNIT_TOKENS, 128, 80), 0, keep or (Keep(0, 0) if deterministic else Keep()))
        self.shared = _native.Shared(80, KV_HEADS, dim, dim, *bits, fields)
        self.layer = _native.Layer(self.shared, 128, HEADS, level, 1 / math.sqrt(dim), **named)
        self.pages = np.zeros((BLOCKS, _native.bytes_per_token(KV_HEADS, dim, dim, *bits, fields) * TILE * KV_HEADS), np.uint8)

    def run(self, parts):
        """parts: (sequence, start, length, blocks); returns the outputs of each."""
        width = max(len(blocks) for _, _, _, blocks in parts)
        table = np.array([list(blocks) + [0] * (width - len(blocks)) for _, _, _, blocks in parts], np.int32)
        counts = [length - start for _, start, length, _ in parts]
        batch = Batch(np.cumsum([0] + counts).astype(np.int32), np.array([part[2] for part in parts], np.int32), table,
                      np.ones(len(parts), bool))
        step = _native.Step(step_arrays(self.hot.plan(batch), batch), self.layer.units, BLOCKS, self.deterministic)
        k, v, q = (np.concatenate([rows[start:length] for rows, (_, start, length, _) in zip(
            [getattr(part[0], side) for part in parts], parts)]) for side in "kvq")
        k, v, q = as_type(k, self.types[0]), as_type(v, self.types[0]), as_type(q, self.types[1])
        out = np.empty((len(q), HEADS, self.dim), self.types[2])
        changed = self.layer.run(step, place(k), place(v), place(q), place(out), self.pages.ctypes.data, self.pages.strides[0])
        assert changed == self.changed
        return np.split(out, np.cumsum(counts)[:-1])


class Sequence:
    def __init__(self, seed, length, dim=64):
        random = np.random.default_rng(seed)
        self.k, self.v = (random.standard_normal((length, KV_HEADS, dim)).astype(np.float16) for _ in range(2))
        self.q = random.standard_normal((length, HEADS, dim)).astype(np.float32)


def plain_attention(sequence, start, length, window=0, soft_cap=0.0, sinks=None):
    k, v = sequence.k[:length].astype(np.float64), sequence.v[:length].astype(np.float64)
    out = np.empty((length - start, HEADS, k.shape[2]))
    for head in range(HEADS):
        kv_head = head * KV_HEADS // HEADS
        scores = sequence.q[start:length, head].astype(np.float64) @ k[:, kv_head].T / math.sqrt(k.shape[2])
        if soft_cap:
            scores = soft_cap * np.tanh(scores / soft_cap)
        distance = np.arange(start, length)[:, None] - np.arange(length)[None, :]
        scores[(distance < 0) | ((distance >= window) if window else False)] = -np.inf
        weights = np.exp(scores - scores.max(1, keepdims=True))
        total = weights.sum(1, keepdims=True)
        if sinks is not None:
            total = total + np.exp(sinks[head] - scores.max(1, keepdims=True))
        out[:, head] = weights / total @ v[:, kv_head]
    return out


def error(got, expected):
    """Root mean square of what is wrong, over that of what is right; of the queries that have records to read."""
    assert np.isfinite(got).all()
    return math.sqrt(((got - expected) ** 2).mean() / (expected**2).mean())


# About twice what the widths lose on normal rows; a tile in another's place is an error of 1.
@pytest.mark.parametrize("preset, tolerance, fields", [("f16", 1e-3, "half"), ("k8v8", 0.015, "half"), ("k4v4", 0.2, "half"),
                                                       ("k4v4", 0.2, "byte")])
@pytest.mark.parametrize("dim", [64, 80])
def test_attention_over_pages_and_rows_is_attention(preset, tolerance, fields, dim):
    cache = Cache(preset, dim, keep=Keep(0, 0), fields=fields)
    one, two = Sequence(1, 700, dim), Sequence(2, 300, dim)
    mine, others = [3, 9, 4, 17, 5, 6], [8, 7, 11]
    for start, length in [(0, 100), (100, 260), (260, 261), (261, 640), (640, 641), (641, 642)]:
        got, = cache.run([(one, start, length, mine)])
        assert error(got, plain_attention(one, start, length)) < tolerance
    got = cache.run([(one, 642, 643, mine), (two, 0, 300, others)])
    assert error(got[0], plain_attention(one, 642, 643)) < tolerance
    assert error(got[1], plain_attention(two, 0, 300)) < tolerance


@pytest.mark.parametrize("types", [("uint16", "uint16", "uint16"), ("float16", "float16", "float16"), ("float32", "float32", "float32"),
                                   ("float32", "uint16", "float16")])
def test_rows_of_every_type_give_the_same_bits(types):
    """Values that all types hold exactly; the output is rounded once, at the end."""
    sequence, mine = Sequence(8, 300), [1, 2, 3]
    for side in ("k", "v", "q"):
        setattr(sequence, side, np.round(getattr(sequence, side) * 8).astype(np.float32) / 8)
    one, other = Cache("k4v4"), Cache("k4v4", types=types)
    for start, length in [(0, 100), (100, 299), (299, 300)]:
        expected, = one.run([(sequence, start, length, mine)])
        got, = other.run([(sequence, start, length, mine)])
        assert np.array_equal(got, as_type(expected, types[2]))


def test_windows_soft_caps_and_sinks_are_the_layers():
    sinks = np.linspace(-1, 2, HEADS)
    sequence, mine = Sequence(3, 500), [1, 2, 3, 4]
    for named in ({"window": 150}, {"soft_cap": 1.5}, {"sinks": sinks.tolist()}):
        cache = Cache("f16", **named)
        for start, length in [(0, 200), (200, 470), (470, 471)]:
            blocks = [0 if "window" in named and (index + 1) * TILE <= start - 149 else block for index, block in enumerate(mine)]
            got, = cache.run([(sequence, start, length, blocks)])
            expected = plain_attention(sequence, start, length, **named | ({"sinks": sinks} if "sinks" in named else {}))
            assert np.abs(got - expected).max() < 2e-3, named


@pytest.mark.parametrize("preset", ["f16", "k4v4", "k4v2", "k3v3"])
def test_deterministic_reads_do_not_depend_on_how_a_sequence_was_computed(preset):
    sequence, mine = Sequence(4, 520), [1, 2, 3, 4, 5]
    whole, = Cache(preset, deterministic=True).run([(sequence, 0, 520, mine)])
    cache, parts = Cache(preset, deterministic=True), []
    for start, length in [(0, 130), (130, 131), (131, 256), (256, 519), (519, 520)]:
        parts += cache.run([(Sequence(5, 40), 0, 40, [20]), (sequence, start, length, mine)])[1:]
    assert np.array_equal(np.concatenate(parts), whole)
    again, = cache.run([(sequence, 384, 520, mine[:3] + [9, 10])])  # another sequence that finds three tiles
    assert np.array_equal(again, whole[384:])


def test_a_prefix_that_the_same_step_seals_is_read_from_records():
    sequence = Sequence(6, 300)
    cache = Cache("k4v4", deterministic=True)
    first, second = cache.run([(sequence, 0, 300, [1, 2, 3]), (sequence, 256, 300, [1, 2, 4])])
    assert np.array_equal(first[256:], second)


@pytest.mark.parametrize("keys", ["float16", "uint16", "float32"])
def test_values_that_no_half_holds_are_counted_and_finite(keys):
    cache, sequence = Cache("k4v4", keep=Keep(0, 0), types=(keys, "float32", "float32")), Sequence(7, 130)
    sequence.k, sequence.v = sequence.k.astype(np.float32), sequence.v.astype(np.float32)
    sequence.k[5, 0, 3], sequence.v[6, 1, 2], sequence.v[8, 1, 2] = -np.inf, np.nan, 65504.0 if keys == "float32" else 65280.0
    cache.changed = 2
    cache.run([(sequence, 0, 130, [1, 2])])
    sequence.k[5, 0, 3], sequence.v[6, 1, 2] = 1, 1
    cache.changed = 0
    assert np.isfinite(cache.run([(sequence, 129, 130, [1, 2])])[0]).all()


def test_fields_of_one_byte_take_less_and_are_for_levels_that_search():
    assert [_native.bytes_per_token(8, 128, 128, 4, 4, fields) for fields in ("half", "byte")] == [140, 134]
    with pytest.raises(ValueError, match="half or byte"):
        _native.bytes_per_token(8, 128, 128, 4, 4, "bytes")
    with pytest.raises(ValueError, match="take fast or best"):
        Cache("k4v4", level="plain", fields="byte")


def test_arrays_that_do_not_fit_are_refused():
    cache, sequence = Cache(), Sequence(8, 10)
    batch = Batch(np.array([0, 10], np.int32), np.array([10], np.int32), np.array([[1]], np.int32), np.array([True]))
    good = step_arrays(cache.hot.plan(batch), batch)
    for name, value in [("token_unit", good["token_unit"] + 100000), ("token_row", good["token_row"] + 16),
                        ("seq_lens", np.array([5], np.int32)), ("seq_lens", np.array([900], np.int32)),
                        ("query_start", np.array([0, 11], np.int32)), ("block_table", np.array([[-1]], np.int32)),
                        ("seal_blocks", np.array([1], np.int32))]:
        with pytest.raises(ValueError):
            _native.Step(good | {name: value}, cache.layer.units, BLOCKS, False)
    assert len(cache.run([(sequence, 0, 10, [1])])[0]) == 10
