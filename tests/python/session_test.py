"""kvarn.Session and save_session: sequences come back with the same bits in another process, saves append, damage has a name."""

import io
import pathlib
import subprocess
import sys

import kvarn
import numpy as np
import pytest

HEADS, KV_HEADS, DIM = 4, 2, 32
LAYERS = [kvarn.Layer(HEADS, KV_HEADS, DIM)] * 2
CONFIG = kvarn.Config("k4v4", tile_tokens=16, sink_tokens=16, tail_tokens=16)


def rows(shape, *seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def add(cache, sequence, tokens, seed):
    """Attention of the last layer."""
    with cache.begin(sequence, tokens) as step:
        for layer in range(len(cache.layers)):
            step.append(layer, rows((tokens, KV_HEADS, DIM), seed, layer, 0), rows((tokens, KV_HEADS, DIM), seed, layer, 1))
            out = step.attend(layer, rows((tokens, HEADS, DIM), seed, layer, 2))
    return out


def filled(tokens=200, **limits):
    cache = kvarn.Cache(LAYERS, CONFIG, sequences=3, **limits)
    add(cache, 0, tokens - 20, 1)
    add(cache, 0, 20, 2)
    return cache


@pytest.fixture(name="file")
def session_file(tmp_path):
    return tmp_path / "one.kvarn"


def test_a_saved_file_tells_what_is_in_it(file):
    cache = filled()
    report = kvarn.save_session(file, cache, tokens=range(5, 205), positions=np.arange(200) * 2, model=b"m", metadata=b"notes")
    assert (report.commit, report.whole, report.new_tiles) == (1, True, 13)
    assert report.file_bytes == file.stat().st_size == report.live_bytes
    session = kvarn.Session(str(file))
    assert (session.parts, session.commit, session.version, session.length()) == (1, 1, 1, 200)
    assert (session.model, session.metadata) == (b"m", b"notes")
    ids, positions = session.tokens()
    assert ids.dtype == np.uint32 and positions.dtype == np.int32
    assert list(ids) == list(range(5, 205)) and list(positions) == list(range(0, 400, 2))
    assert [(layer.heads, layer.kv_heads, layer.dim_k, layer.dim_v) for layer in session.layers()] == [(4, 2, 32, 32)] * 2
    config = session.config()
    assert (config.k_bits, config.sink_tokens, config.tail_tokens, config.tile_tokens, config.level) == (4, 16, 16, 16, "default")
    session.verify()
    kvarn.verify_session(file)


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import kvarn
from session_test import CONFIG, LAYERS, add
cache = kvarn.Cache(LAYERS, CONFIG)
session = kvarn.load_session(sys.argv[2], cache, mapped=sys.argv[3] == "mapped")
sys.stdout.buffer.write(add(cache, 0, 30, 7).tobytes())
"""


@pytest.mark.parametrize("records", ["copied", "mapped"])
def test_another_process_goes_on_with_the_same_bits(file, records):
    cache = filled()
    cache.fork(0, 1)
    add(cache, 1, 25, 3)
    kvarn.save_session(file, cache, 1)
    done = subprocess.run([sys.executable, "-B", "-c", PROGRAM, pathlib.Path(__file__).parent, file, records],
                          capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == add(cache, 1, 30, 7).tobytes()


def test_a_longer_version_is_appended_and_mapped_caches_stay_good(file):
    cache = filled(300)
    first = kvarn.save_session(file, cache)
    mapped = kvarn.Cache(LAYERS, CONFIG)
    kvarn.Session(file).load(mapped)
    assert mapped.account().mapped_bytes > 0 and mapped.account().record_bytes == 0
    add(mapped, 0, 10, 3)
    second = kvarn.save_session(file, mapped, sync=False)
    assert second.commit == 2 and not second.whole and second.written_bytes < first.written_bytes / 4
    assert kvarn.save_session(file, mapped, compact=True).whole
    add(cache, 0, 10, 3)
    assert np.array_equal(add(mapped, 0, 5, 4), add(cache, 0, 5, 4))


def test_tiles_made_smaller_travel_as_they_are(file):
    cache = filled()
    with pytest.raises(kvarn.Full):
        cache.shrink([0], 0)
    kvarn.save_session(file, cache)
    assert kvarn.Session(file).version == 2
    kvarn.verify_session(file)
    other = kvarn.Cache(LAYERS, CONFIG)
    kvarn.load_session(file, other)
    assert np.array_equal(add(other, 0, 5, 4), add(cache, 0, 5, 4))


@pytest.mark.parametrize("smaller", [False, True])
def test_the_second_reader_finds_the_same_rows(file, smaller):
    """tests/golden/session_reader.py is written from docs/format/session.md alone."""
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "golden"))
    import session_reader  # pylint: disable=import-outside-toplevel,import-error

    cache = filled(120)
    if smaller:
        with pytest.raises(kvarn.Full):
            cache.shrink([0], 0)
    kvarn.save_session(file, cache, tokens=range(120))
    (part,) = session_reader.read_session(file.read_bytes())["parts"]
    assert [token for tile in part["tiles"] for token in tile["tokens"]] == [(at, at) for at in range(120)]
    widths = {item["bits"] for tile in part["tiles"] for item in tile["items"] if item["kind"] == session_reader.RECORDS}
    assert widths == ({2} if smaller else {4})
    for number, store in enumerate(part["stores"]):
        assert session_reader.rows_of(part, number) == cache.read(0, store["layer"], store["side"]).tobytes()


def test_a_stream_brings_the_same_sequence():
    cache = filled()
    wire = io.BytesIO()
    assert kvarn.send_session(wire.write, cache, metadata=b"x") == len(wire.getvalue())
    wire.write(b"more")
    wire.seek(0)
    session = kvarn.Session.receive(lambda size: wire.read(min(size, 1000)), 1 << 20)
    assert wire.read() == b"more" and session.metadata == b"x"
    other = kvarn.Cache(LAYERS, CONFIG, sequences=2)
    session.load(other, 1)
    assert np.array_equal(add(other, 1, 5, 4), add(cache, 0, 5, 4))
    with pytest.raises(kvarn.TooLarge):
        kvarn.Session.receive(io.BytesIO(wire.getvalue()).read, 1000)
    with pytest.raises(kvarn.Damaged, match="before it is complete"):
        kvarn.Session.receive(io.BytesIO(wire.getvalue()[:5000]).read, 1 << 20)


def test_exceptions_of_callbacks_come_through():
    def refuse(_):
        raise KeyError("no")

    with pytest.raises(KeyError):
        kvarn.send_session(refuse, filled())
    with pytest.raises(KeyError):
        kvarn.Session.receive(refuse, 1000)
    with pytest.raises(ValueError, match="more bytes"):
        kvarn.Session.receive(lambda size: bytes(size + 1), 1000)


def test_damage_has_a_name(file):
    kvarn.save_session(file, filled())
    whole = file.read_bytes()

    def problem(at):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1:])
        try:
            kvarn.verify_session(file)
        except kvarn.Error as error:
            return type(error), str(error)
        return None, ""

    assert problem(0)[0] is kvarn.NotASession
    assert problem(8)[0] is kvarn.UnknownVersion
    assert problem(20) == (kvarn.Damaged, "the header is damaged")
    assert problem(len(whole) - 30) == (kvarn.Damaged, "no complete save in it")
    assert problem(len(whole) - 200) == (kvarn.Damaged, "the index is damaged")
    assert problem(80) == (kvarn.Damaged, "the description of a tile is damaged")
    found = {problem(at)[1] for at in range(64, len(whole), 997)}
    assert {"a record is damaged", "exact rows are damaged"} <= found


def test_what_does_not_fit_is_refused(file):
    cache = filled()
    with pytest.raises(kvarn.NotFound):
        kvarn.Session(file)
    with pytest.raises(FileNotFoundError):
        kvarn.verify_session(file)
    with pytest.raises(OSError):
        kvarn.save_session("/nowhere/at/all", cache)
    with pytest.raises(ValueError, match="as many"):
        kvarn.save_session(file, cache, tokens=range(199))
    with pytest.raises(ValueError, match="32 bits"):
        kvarn.save_session(file, cache, tokens=np.arange(200) - 1)
    with pytest.raises(TypeError):
        kvarn.save_session(file, cache, tokens=np.zeros(200))
    with pytest.raises(kvarn.InvalidArgument):
        kvarn.save_session(file, cache, 9)
    with pytest.raises(kvarn.OutOfOrder), cache.begin(0, 1):
        kvarn.save_session(file, cache)
    kvarn.save_session(file, cache)
    with pytest.raises(kvarn.InvalidArgument):
        kvarn.load_session(file, cache)  # not empty
    with pytest.raises(kvarn.OtherShape):
        kvarn.load_session(file, kvarn.Cache(LAYERS, "k8v8"))
    with pytest.raises(kvarn.Full):
        kvarn.load_session(file, kvarn.Cache(LAYERS, CONFIG, tokens=100))
    with pytest.raises(kvarn.OutOfMemory):
        kvarn.load_session(file, kvarn.Cache(LAYERS, CONFIG, bytes=10000), mapped=False)
