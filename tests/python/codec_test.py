"""kvarn.Codec: records are those of the golden files, arrays are read and written in place, misuse has names."""

import hashlib
import pathlib
import sys
import threading

import kvarn
import numpy as np
import pytest

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"


def some_rows(tokens, heads, dim, seed=1):
    return np.random.default_rng(seed).standard_normal((tokens, heads, dim)).astype(np.float32)


@pytest.mark.parametrize("side", ["k", "v"])
def test_more_bits_leave_a_smaller_error(side):
    rows = some_rows(256, 2, 64)
    errors = []
    for bits in (2, 3, 4, 5, 6, 8):
        codec = kvarn.Codec(side, bits, 64, heads=2)
        records = codec.encode(rows)
        assert records.shape == (2, 2, codec.record_bytes) and records.dtype == np.uint8
        assert codec.bits_per_value == 8 * records.size / rows.size < bits + 0.63  # scales and zeros beside the codes
        codec.validate(records)
        decoded = codec.decode(records)
        assert decoded.shape == rows.shape and decoded.dtype == np.float16
        errors.append(float(np.sqrt(np.mean((decoded - rows) ** 2))))
    assert errors == sorted(errors, reverse=True)
    # A line of 2**b steps over a row of n(0, 1) values, about -2.5 to 2.5: a step is 5 / 255, its error step / sqrt(12).
    assert errors[-1] < 0.01 and 0.05 < errors[2] < 0.15


def golden_records():
    lines = (GOLDEN / "manifest.txt").read_text(encoding="utf-8").splitlines()
    return [line.split() for line in lines if not line.startswith("#")]


@pytest.mark.parametrize("fields", golden_records(), ids=lambda fields: fields[0])
def test_golden_records_are_written_and_read(fields):
    name, rows_name, side, tokens, dim, bits, level, version, digest = fields
    kind = {"1": "half", "2": "byte"}[version]
    codec = kvarn.Codec(side, int(bits), int(dim), tile_tokens=int(tokens), level=level, fields=kind)
    assert codec.fields == kind
    rows = np.fromfile(GOLDEN / rows_name, "<f2").reshape(int(tokens), 1, int(dim))
    record = np.fromfile(GOLDEN / name, np.uint8).reshape(1, 1, -1)
    assert np.array_equal(codec.encode(rows), record)
    assert hashlib.sha256(codec.decode(record).astype("<f2").tobytes()).hexdigest() == digest


def test_layouts_types_and_threads_give_the_same_records():
    rows = some_rows(256, 3, 48).astype(np.float16)
    codec = kvarn.Codec("v", 4, 48, heads=3)
    expected = codec.encode(rows)
    by_head = np.ascontiguousarray(rows.transpose(1, 0, 2)).transpose(1, 0, 2)
    wide = np.zeros((256, 5, 100), np.float16)
    wide[:, 1:4, 20:68] = rows
    for same in (rows.astype(np.float32), by_head, wide[:, 1:4, 20:68], rows[:, :, ::-1].copy()[:, :, ::-1],
                 rows[::-1].copy()[::-1], np.asfortranarray(rows)):
        assert np.array_equal(codec.encode(same), expected)
    for threads in (2, 5):
        assert np.array_equal(kvarn.Codec("v", 4, 48, heads=3, threads=threads).encode(rows), expected)


def test_one_row_for_all_heads_is_read_as_numpy_sees_it():
    row = some_rows(128, 1, 32)
    codec = kvarn.Codec("k", 8, 32, heads=4)
    assert np.array_equal(codec.encode(np.broadcast_to(row, (128, 4, 32))), codec.encode(np.repeat(row, 4, axis=1)))


def test_anything_with_array_is_taken():
    class Tensor:
        def __init__(self, rows):
            self.rows = rows

        def __array__(self, dtype=None, copy=None):
            return self.rows

    rows = some_rows(128, 1, 32)
    codec = kvarn.Codec("k", 4, 32)
    assert np.array_equal(codec.encode(Tensor(rows)), codec.encode(rows))


def test_out_is_written_in_place():
    codec = kvarn.Codec("k", 4, 32, heads=2)
    records = codec.encode(some_rows(128, 2, 32))
    decoded = codec.decode(records)
    place = np.full((2, 128, 40), 7.0, np.float32)
    out = place.transpose(1, 0, 2)[:, :, :32]
    codec.decode(records, out=out)
    assert np.array_equal(out, decoded.astype(np.float32))
    assert np.all(place[:, :, 32:] == 7.0)


def test_bfloat16_goes_in_and_comes_out_as_its_bits():
    codec = kvarn.Codec("v", 8, 48, heads=2)
    bits = (some_rows(128, 2, 48).view(np.uint32) >> 16).astype(np.uint16)
    numbers = (bits.astype(np.uint32) << 16).view(np.float32)
    records = codec.encode(bits, dtype="bfloat16")
    assert np.array_equal(records, codec.encode(numbers))
    out = np.zeros(numbers.shape, np.float32)
    codec.decode(records, out=out)
    narrow = codec.decode(records, dtype="bfloat16")
    assert narrow.dtype == np.uint16
    widened = (narrow.astype(np.uint32) << 16).view(np.float32)
    assert np.all(np.abs(widened - out) <= np.abs(out) * 2.0**-8)  # half a step of an 8-bit mantissa
    with pytest.raises(TypeError, match="bfloat16"):
        codec.encode(numbers, dtype="bfloat16")
    with pytest.raises(TypeError, match="float16"):
        codec.encode(bits)
    with pytest.raises(ValueError, match="dtype"):
        codec.encode(numbers, dtype="float16")


def test_records_are_written_in_place():
    codec = kvarn.Codec("k", 4, 32, heads=2)
    rows = some_rows(256, 2, 32)
    memory = np.full(4 * codec.record_bytes + 3, 9, np.uint8)
    place = memory[3:].reshape(2, 2, codec.record_bytes)
    assert codec.encode(rows, out=place) is not None
    assert np.array_equal(place, codec.encode(rows)) and np.all(memory[:3] == 9)
    locked = place.copy()
    locked.flags.writeable = False
    for out in (locked, place[:1], place.reshape(1, 4, -1), np.asfortranarray(place), memory):
        with pytest.raises(ValueError):
            codec.encode(rows, out=out)
    with pytest.raises(TypeError):
        codec.encode(rows, out=place.view(np.int8))


def test_kernels_can_be_chosen_and_give_the_same_records():
    best, codec, rows = kvarn.kernels(), kvarn.Codec("k", 4, 64), some_rows(128, 1, 64)
    expected = codec.encode(rows)
    try:
        kvarn.choose_kernels("baseline" if best != "neon" and "neon_" not in best else "neon")
        assert kvarn.kernels() in ("baseline", "neon") and np.array_equal(codec.encode(rows), expected)
        with pytest.raises(kvarn.InvalidArgument):
            kvarn.choose_kernels("abacus")
    finally:
        kvarn.choose_kernels(best)


def test_the_checksum_is_xxh3():
    data = np.array([at * 7 + 3 & 255 for at in range(5000)], np.uint8)
    assert kvarn.checksum(data) == 0x799AADDD7339581D  # xxHash 0.8.1
    assert kvarn.checksum(bytes(data[:17])) == 0x714A04408E79B80F
    assert kvarn.checksum(data.view(np.uint32)) == kvarn.checksum(data)
    with pytest.raises(ValueError):
        kvarn.checksum(data[::2])


def test_out_that_cannot_be_written_is_refused():
    codec = kvarn.Codec("k", 4, 32, heads=2)
    records = codec.encode(some_rows(128, 2, 32))
    locked = np.zeros((128, 2, 32), np.float16)
    locked.flags.writeable = False
    one_place = np.lib.stride_tricks.as_strided(np.zeros((128, 32), np.float16), (128, 2, 32), (64, 0, 2))
    memory = np.zeros(128 * 2 * 32 * 2, np.uint8)
    overlapping = memory.view(np.float16).reshape(128, 2, 32)
    memory[:records.size] = records.ravel()
    for out in (locked, one_place, np.zeros((128, 2, 64), np.float16)[:, :, ::2], np.zeros((128, 2, 31), np.float16)):
        with pytest.raises(ValueError):
            codec.decode(records, out=out)
    with pytest.raises(ValueError, match="share memory"):
        codec.decode(memory[:records.size].reshape(records.shape), out=overlapping)
    with pytest.raises(TypeError):
        codec.decode(records, out=np.zeros((128, 2, 32), np.float64))


def test_errors_have_names_and_texts():
    codec = kvarn.Codec("k", 4, 32)
    rows = some_rows(128, 1, 32)
    rows[5, 0, 7] = np.nan
    with pytest.raises(kvarn.NonFinite) as caught:
        codec.encode(rows)
    assert isinstance(caught.value, (kvarn.Error, ValueError)) and str(caught.value) != ""
    with pytest.raises(kvarn.Corrupt):
        codec.validate(np.full((1, 1, codec.record_bytes), 255, np.uint8))
    with pytest.raises(kvarn.InvalidArgument):
        kvarn.Codec("k", 7, 32)
    with pytest.raises(kvarn.InvalidArgument):
        kvarn.Codec("k", 4, 33)


@pytest.mark.parametrize("rows", [np.zeros((100, 1, 32), np.float32), np.zeros((128, 32), np.float32),
                                  np.zeros((0, 1, 32), np.float32), np.zeros((128, 2, 32), np.float32)])
def test_other_shapes_are_refused(rows):
    with pytest.raises(ValueError):
        kvarn.Codec("k", 4, 32).encode(rows)


@pytest.mark.parametrize("rows", [np.zeros((128, 1, 32)), np.zeros((128, 1, 32), np.int16), np.zeros((128, 1, 32), ">f4"), None])
def test_other_types_are_refused(rows):
    with pytest.raises(TypeError):
        kvarn.Codec("k", 4, 32).encode(rows)


@pytest.mark.parametrize("arguments", [{"side": "q"}, {"level": "good"}, {"fields": "bytes"}, {"threads": 0}, {"threads": 1025}])
def test_other_options_are_refused(arguments):
    with pytest.raises(ValueError):
        kvarn.Codec(**({"side": "k", "bits": 4, "dim": 32} | arguments))
    with pytest.raises(TypeError):
        kvarn.Codec("k", 4, 32, colour="red")


def test_other_python_threads_run_during_a_call():
    codec, rows = kvarn.Codec("v", 4, 128, heads=4), some_rows(16384, 4, 128)
    ticks, over = [], threading.Event()

    def tick():
        while not over.wait(0.001):
            ticks.append(0)

    thread = threading.Thread(target=tick)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(100.0)  # only a call that lets the interpreter go lets the other thread run
    try:
        thread.start()
        before = len(ticks)
        codec.encode(rows)
        assert len(ticks) > before
    finally:
        sys.setswitchinterval(interval)
        over.set()
        thread.join()


def test_python_threads_may_share_a_codec():
    codec = kvarn.Codec("k", 4, 64, heads=2, threads=2)
    inputs = [some_rows(512, 2, 64, seed) for seed in range(4)]
    expected = [codec.encode(rows) for rows in inputs]
    right = []

    def work(index):
        right.append(all(np.array_equal(codec.encode(inputs[index]), expected[index]) for _ in range(10)))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 4
