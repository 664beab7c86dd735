"""Chunks of kvarn-lmcache: fixed sizes, rows as the codec gives them, whatever the type and the number of tokens; damage is refused
before anything is written. Nothing here needs LMCache."""

import hashlib
import sys
import threading

import kvarn
import numpy as np
import pytest
from kvarn_lmcache import chunk_format
from kvarn_lmcache.chunk_codec import ChunkCodec, check_stored, coding_of
from kvarn_lmcache.chunk_format import Coding, Damaged, Group

TYPES = {"bfloat16": 2, "float16": 2, "float32": 4}
RANDOM = np.random.default_rng(20)


def bytes_of_rows(rows, dtype):
    """float32 numbers as the bytes of a type; bfloat16 cuts the lower half off."""
    if dtype == "bfloat16":
        return (rows.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return rows.astype(dtype).tobytes()


def rows_of_bytes(data, dtype, shape):
    if dtype == "bfloat16":
        return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
    return np.frombuffer(data, dtype).astype(np.float32).reshape(shape)


def some_chunk(shape, dtype="float16"):
    """A group, and bytes of normally distributed numbers for it."""
    return Group(shape, dtype, TYPES[dtype]), bytes_of_rows(RANDOM.standard_normal(shape, np.float32), dtype)


def store(codec, groups, chunk):
    stored = bytearray(codec.encoded_bytes(groups))
    assert codec.encode(chunk, groups, stored) == len(stored)
    return stored


def load(codec, groups, stored):
    chunk = bytearray(sum(group.bytes for group in groups))
    codec.decode(stored, groups, chunk)
    return bytes(chunk)


@pytest.mark.parametrize("preset, share", [("k4v4", 0.28), ("k4v2", 0.22)])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_chunk_of_two_tiles_takes_this_share(preset, share, dtype):
    group, chunk = some_chunk((2, 4, 256, 2 * 128), dtype)
    codec = ChunkCodec(coding_of(preset, 128))
    stored = store(codec, (group,), chunk)
    assert len(stored) <= share * len(chunk)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("tokens", [16, 17, 127, 128, 131, 144, 255, 256, 271, 300])
def test_rows_come_back_as_the_codec_alone_gives_them_and_those_beyond_the_last_16_as_they_were(dtype, tokens):
    layers, heads, dim = 2, 3, 32
    group, chunk = some_chunk((2, layers, tokens, heads * dim), dtype)
    codec = ChunkCodec(coding_of("k8v4", dim, "official"), threads=2)
    shape = (2, layers, tokens, heads, dim)
    loaded = rows_of_bytes(load(codec, (group,), store(codec, (group,), chunk)), dtype, shape)
    rows = rows_of_bytes(chunk, dtype, shape)
    for side, bits in (("k", 8), ("v", 4)):
        for layer in range(layers):
            given, got = rows["kv".index(side), layer], loaded["kv".index(side), layer]
            at = 0
            for tile in [128] * (tokens // 128) + [tokens % 128 // 16 * 16] * (tokens % 128 >= 16):
                alone = kvarn.Codec(side, bits, dim, heads=heads, tile_tokens=tile, level="official")
                expected = np.zeros((tile, heads, dim), np.float32)
                alone.decode(alone.encode(given[at : at + tile]), out=expected)
                if dtype == "bfloat16":  # rounded once more
                    assert np.all(np.abs(got[at : at + tile] - expected) <= np.abs(expected) * 2.0**-8)
                else:
                    assert np.array_equal(got[at : at + tile], expected)
                at += tile
            assert tokens - at == tokens % 16 and np.array_equal(got[at:], given[at:])


def test_the_error_is_the_codecs():
    group, chunk = some_chunk((2, 2, 256, 4 * 128))
    rows = rows_of_bytes(chunk, "float16", group.shape)
    for preset, most in (("k4v4", 0.0105), ("k2v2", 0.14), ("k8v8", 6e-5)):  # relative, of normally distributed numbers
        codec = ChunkCodec(coding_of(preset, 128))
        loaded = rows_of_bytes(load(codec, (group,), store(codec, (group,), chunk)), "float16", group.shape)
        assert most / 2 < np.mean((loaded - rows) ** 2) / np.mean(rows**2) < most


def test_the_size_does_not_depend_on_the_values():
    group = Group((2, 3, 256, 128), "float16", 2)
    codec = ChunkCodec(coding_of("k4v2", 64))
    for value in (0.0, 1.0, -65504.0, 6e-8):
        store(codec, (group,), np.full(group.shape, value, np.float16).tobytes())


@pytest.mark.parametrize("shape, dtype, size", [
    ((2, 2, 256, 100), "float16", 2),  # not whole heads
    ((2, 2, 8, 128), "float16", 2),  # too few tokens
    ((1, 2, 256, 128), "bfloat16", 2),  # latent attention: one side
    ((2, 256, 128), "float16", 2),
    ((2, 2, 256, 128), "float8_e4m3fn", 1),
    ((2, 2, 256, 128), "uint8", 1),
    ((77,), "int64", 8),
    ((1, 1, 1, 1, 1, 1, 1, 1, 1, 3), "float32", 4),
    ((0,), "float32", 4),
])
def test_what_is_not_keys_and_values_comes_back_bit_for_bit(shape, dtype, size):
    group = Group(shape, dtype, size)
    chunk = RANDOM.bytes(group.bytes)
    codec = ChunkCodec(coding_of("k4v4", 64))
    stored = store(codec, (group,), chunk)
    assert load(codec, (group,), stored) == chunk
    assert len(stored) < group.bytes + 256


def test_exact_presets_keep_everything_even_what_is_not_finite():
    group = Group((2, 2, 256, 128), "float16", 2)
    chunk = RANDOM.bytes(group.bytes)
    codec = ChunkCodec(coding_of("f16", 64))
    assert load(codec, (group,), store(codec, (group,), chunk)) == chunk


def test_groups_of_all_kinds_share_a_chunk():
    kinds = [some_chunk((2, 2, 128, 96)), (Group((5,), "uint8", 1), b"state"), some_chunk((2, 1, 160, 64), "float32"),
             some_chunk((2, 3, 256, 64), "bfloat16")]
    groups = tuple(group for group, _ in kinds)
    codec = ChunkCodec(coding_of("k4v4", 32))
    loaded = load(codec, groups, store(codec, groups, b"".join(chunk for _, chunk in kinds)))
    at = 0
    for group, chunk in kinds:
        alone = load(codec, (group,), store(codec, (group,), chunk))
        assert loaded[at : at + group.bytes] == alone
        at += group.bytes


def test_any_memory_of_bytes_serves_whatever_its_place():
    group, chunk = some_chunk((2, 1, 128, 64))
    codec = ChunkCodec(coding_of("k4v4", 64))
    expected = store(codec, (group,), chunk)
    wide = bytearray(len(expected) + 50)
    assert codec.encode(memoryview(b"x" + chunk)[1:], (group,), memoryview(wide)[3:]) == len(expected)
    assert wide[3 : 3 + len(expected)] == expected and not any(wide[3 + len(expected) :])
    out = bytearray(len(chunk) + 1)
    codec.decode(memoryview(wide)[3:], (group,), memoryview(out)[1:])
    assert out[1:] == load(codec, (group,), expected)


def test_rows_that_are_not_finite_are_refused():
    group = Group((2, 1, 128, 64), "float16", 2)
    rows = np.zeros(group.shape, np.float16)
    rows[1, 0, 5, 7] = np.inf
    codec = ChunkCodec(coding_of("k4v4", 64))
    with pytest.raises(kvarn.NonFinite):
        store(codec, (group,), rows.tobytes())


def damaged_everywhere(stored):
    """The stored chunk with one bit turned: in every byte of the header, and here and there behind it."""
    for at in [*range(300), *RANDOM.integers(300, len(stored), 200), len(stored) - 1]:
        changed = bytearray(stored)
        changed[at] ^= 1 << RANDOM.integers(8)
        yield changed


def test_damage_is_refused_before_anything_is_written():
    group, chunk = some_chunk((2, 2, 144, 64))
    codec = ChunkCodec(coding_of("k4v4", 32))
    stored = store(codec, (group,), chunk)
    out = bytearray(len(chunk))
    for changed in damaged_everywhere(stored):
        with pytest.raises(Damaged):
            codec.decode(changed, (group,), out)
    for length in (0, 10, 63, 64, 200, len(stored) - 1):
        with pytest.raises(Damaged):
            codec.decode(stored[:length], (group,), out)
    assert not any(out)


def with_right_checksum(stored):
    chunk_format.put_checksum(stored, len(stored), kvarn.checksum(memoryview(stored)[: chunk_format.checked_bytes(len(stored))]))
    return stored


def test_lies_with_a_right_checksum_are_refused():
    """Someone else's bytes: every field of the header set to what it must not be, and scales that are not finite."""
    group, chunk = some_chunk((2, 1, 128, 64))
    codec = ChunkCodec(coding_of("k4v4", 32))
    stored = store(codec, (group,), chunk)
    out = bytearray(len(chunk))
    for at in [*range(36), *range(64, 64 + 96)]:
        for value in (0, 1, 2, 7, 16, 33, 255):
            if stored[at] == value or at == 26:  # the level is only a remark
                continue
            changed = bytearray(stored)
            changed[at] = value
            with pytest.raises(Damaged):
                codec.decode(with_right_checksum(changed), (group,), out)
    changed = bytearray(stored)
    changed[193] = 0x7C  # the first scale of the first record
    with pytest.raises(Damaged, match="no encoder"):
        codec.decode(with_right_checksum(changed), (group,), out)
    assert not any(out)


def test_other_layouts_are_refused():
    group, chunk = some_chunk((2, 2, 128, 64))
    codec = ChunkCodec(coding_of("k4v4", 32))
    stored = store(codec, (group,), chunk)
    for shape, dtype in (((2, 1, 256, 64), "float16"), ((2, 2, 128, 64), "bfloat16"), ((2, 2, 64, 128), "float16")):
        with pytest.raises(Damaged, match="shapes or types"):
            load(codec, (Group(shape, dtype, 2),), stored)


def test_a_chunk_says_itself_how_it_was_made():
    group, chunk = some_chunk((2, 1, 128, 64))
    one, other = ChunkCodec(coding_of("k4v2", 32)), ChunkCodec(coding_of("k8v8", 64, "scaled"))
    stored = store(one, (group,), chunk)
    assert load(other, (group,), stored) == load(one, (group,), stored)
    assert check_stored(stored).coding == Coding(4, 2, 32, "fast")
    short = ChunkCodec(coding_of("k4v2", 32, fields="byte"))
    stored = store(short, (group,), chunk)
    assert check_stored(stored).coding == Coding(4, 2, 32, "fast", "byte")
    assert load(one, (group,), stored) == load(short, (group,), stored)


def test_fields_of_one_byte_take_less_and_lose_hardly_more():
    group, chunk = some_chunk((2, 2, 300, 2 * 64))
    rows = rows_of_bytes(chunk, "float16", group.shape)
    sizes, errors = [], []
    for fields in ("half", "byte"):
        codec = ChunkCodec(coding_of("k4v4", 64, fields=fields))
        stored = store(codec, (group,), chunk)
        sizes.append(len(stored))
        errors.append(np.mean((rows_of_bytes(load(codec, (group,), stored), "float16", group.shape) - rows) ** 2))
    # Of each head's 300 tokens: two tiles of 128 and one of 32, channels and tokens, three fields a row and lane, a byte each.
    assert sizes[0] - sizes[1] == 2 * 2 * (2 * 3 * (64 + 128) + 3 * (64 + 32))
    assert errors[1] < errors[0] * 1.05
    assert coding_of("f16", 64, fields="byte") == coding_of("f16", 64)


def test_too_little_memory_is_refused():
    group, chunk = some_chunk((2, 1, 128, 64))
    codec = ChunkCodec(coding_of("k4v4", 64))
    stored = store(codec, (group,), chunk)
    with pytest.raises(ValueError, match="becomes"):
        codec.encode(chunk, (group,), bytearray(len(stored) - 1))
    with pytest.raises(ValueError, match="becomes"):
        codec.encode(chunk[:-1], (group,), bytearray(len(stored)))
    with pytest.raises(ValueError, match="room"):
        codec.decode(stored, (group,), bytearray(len(chunk) - 1))


@pytest.mark.parametrize("arguments", [("k4v9", 128), ("", 128), ("k4v4", 100), ("k4v4", 0), ("k4v4", 2048), ("k4v4", 128, "good"),
                                       ("k4v4", 128, "fast", "bytes"), ("k4v4", 128, "plain", "byte")])
def test_other_presets_head_sizes_and_levels_are_refused(arguments):
    with pytest.raises(ValueError):
        coding_of(*arguments)


def test_the_bytes_of_version_1_stay():
    """Files of today are read tomorrow. Rows without randomness; the level that no better search can change."""
    layers, tokens, width = 2, 150, 64
    steps = np.arange(2 * layers * tokens * width).reshape(2, layers, tokens, width)
    rows = ((steps * 7 % 61 - 30) / 16).astype(np.float16)
    group, state = Group(rows.shape, "float16", 2), Group((3,), "int16", 2)
    codec = ChunkCodec(coding_of("k4v3", 32, "official"))
    stored = store(codec, (group, state), rows.tobytes() + bytes(range(6)))
    assert hashlib.sha256(stored).hexdigest() == "95e5745efb887b484288d212e5617782165b06d3233b932d8b796eb7c7c3c839"
    assert load(codec, (group, state), stored)[-6:] == bytes(range(6))


def test_threads_that_share_a_codec_get_what_one_alone_gets():
    codec = ChunkCodec(coding_of("k4v4", 64), threads=2)
    chunks = [some_chunk((2, 2, 256, 128)) for _ in range(4)]
    expected = [load(codec, (group,), store(codec, (group,), chunk)) for group, chunk in chunks]
    right = []

    def work(index):
        group, chunk = chunks[index]
        right.append(all(load(codec, (group,), store(codec, (group,), chunk)) == expected[index] for _ in range(5)))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(chunks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * len(chunks)


def test_other_python_threads_run_while_a_chunk_is_made():
    group, chunk = some_chunk((2, 8, 512, 8 * 128))
    codec = ChunkCodec(coding_of("k4v4", 128))
    ticks, over = [], threading.Event()

    def tick():
        while not over.wait(0.001):
            ticks.append(0)

    thread = threading.Thread(target=tick)
    stored = bytearray(codec.encoded_bytes((group,)))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(100.0)  # only a call that lets the interpreter go lets the other thread run
    try:
        thread.start()
        before = len(ticks)
        codec.encode(chunk, (group,), stored)
        assert len(ticks) > before
    finally:
        sys.setswitchinterval(interval)
        over.set()
        thread.join()
