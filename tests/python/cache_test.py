"""kvarn.Cache: attention is that of numpy, forks share memory, steps are whole or never were, misuse has names."""

import gc
import threading

import kvarn
import numpy as np
import pytest

HEADS, KV_HEADS, DIM = 4, 2, 32
LAYER = kvarn.Layer(HEADS, KV_HEADS, DIM)


class Model:
    """Made-up keys, values and queries: the same for a token and a layer wherever they are asked for."""

    def __init__(self, tokens, layers=2, seed=3):
        random = np.random.default_rng(seed)
        self.k = random.standard_normal((layers, tokens, KV_HEADS, DIM)).astype(np.float32)
        self.v = random.standard_normal((layers, tokens, KV_HEADS, DIM)).astype(np.float32)
        self.q = random.standard_normal((layers, tokens, HEADS, DIM)).astype(np.float32)

    def add(self, cache, sequence, first, stop, query=None):
        """Tokens first to stop; attention of the last layer."""
        with cache.begin(sequence, stop - first) as step:
            for layer in range(len(cache.layers)):
                step.append(layer, self.k[layer, first:stop], self.v[layer, first:stop])
                out = step.attend(layer, self.q[layer, first:stop], query)
        return out

    def expected(self, layer, first, stop, query=None):
        """Softmax attention over half-precision rows in float64."""
        options = query or {}
        k, v = (side[layer, :stop].astype(np.float16).astype(np.float64) for side in (self.k, self.v))
        result = np.zeros((stop - first, HEADS, DIM))
        for token in range(first, stop):
            begin = max(0, token + 1 - options["window_tokens"]) if options.get("window_tokens") else 0
            for head in range(HEADS):
                kv_head = head // (HEADS // KV_HEADS)
                scores = k[begin:token + 1, kv_head] @ self.q[layer, token, head] * (options.get("scale") or DIM**-0.5)
                if options.get("soft_cap"):
                    scores = options["soft_cap"] * np.tanh(scores / options["soft_cap"])
                weights = np.exp(scores)
                total = weights.sum() + (np.exp(options["sink_logits"][head]) if options.get("sink_logits") else 0)
                result[token - first, head] = weights @ v[begin:token + 1, kv_head] / total
        return result


def relative_error(got, expected):
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def fill(cache, model, sequence, tokens, step=128):
    for first in range(0, tokens, step):
        model.add(cache, sequence, first, min(first + step, tokens))


@pytest.mark.parametrize("query", [{}, {"window_tokens": 50}, {"scale": 0.3, "soft_cap": 2.0},
                                   {"sink_logits": [0.5, -1.0, 2.0, 0.0]}], ids=lambda query: "+".join(query) or "plain")
def test_exact_rows_attend_as_numpy_does(query):
    model = Model(400)
    cache = kvarn.Cache([LAYER] * 2, "f16")
    fill(cache, model, 0, 384)
    got = model.add(cache, 0, 384, 400, kvarn.Query(**query))
    assert got.dtype == np.float32
    # Rows are exact; queries become digits of 16 bits, weights likewise.
    assert relative_error(got, model.expected(1, 384, 400, query)) < 1e-3


@pytest.mark.parametrize("preset, low, high", [("k8v8", 1e-4, 0.02), ("k4v4", 0.02, 0.15), ("k2v2", 0.1, 0.7)])
def test_sealed_rows_attend_within_a_bound(preset, low, high):
    """A value of n(0, 1) at b bits is off by about 5 / 2**b / sqrt(12): 0.006, 0.09, 0.36. Sink and tail, here half of all
    tokens, are exact; averaging over tokens shrinks values and errors alike."""
    model = Model(1024)
    cache = kvarn.Cache([LAYER] * 2, preset)
    fill(cache, model, 0, 1008)
    got = model.add(cache, 0, 1008, 1024)
    assert cache.account(0).sealed_tokens >= 640
    assert low < relative_error(got, model.expected(1, 1008, 1024)) < high


def test_threads_change_no_bit():
    model = Model(700)
    results = []
    for threads in (1, 2, 5):
        cache = kvarn.Cache([LAYER] * 2, "k4v4", threads=threads)
        fill(cache, model, 0, 690)
        results.append((model.add(cache, 0, 690, 700), cache.read(0, 1, "k")))
    for out, rows in results[1:]:
        assert np.array_equal(out, results[0][0]) and np.array_equal(rows, results[0][1])


def test_forks_share_memory_and_go_on_apart():
    model, other = Model(600), Model(600, seed=4)
    cache = kvarn.Cache([LAYER] * 2, "k4v4", sequences=9)
    fill(cache, model, 0, 520)
    alone = cache.account()
    for target in range(1, 9):
        cache.fork(0, target)
    assert cache.account().stored_tokens == alone.stored_tokens == 520
    assert cache.account().tokens == 9 * 520
    assert cache.account().row_bytes == alone.row_bytes
    assert cache.account().record_bytes == alone.record_bytes
    expected = model.add(cache, 0, 520, 530)
    assert not np.array_equal(other.add(cache, 1, 520, 530), expected)
    assert np.array_equal(model.add(cache, 2, 520, 530), expected)
    assert cache.account(3).own_bytes == 0 < cache.account(1).own_bytes < cache.account(1).held_bytes
    for target in range(1, 9):
        cache.drop(target)
    assert cache.account().tokens == 530


def test_going_back_within_the_tail_is_exact():
    model, other = Model(600), Model(600, seed=4)
    cache = kvarn.Cache([LAYER] * 2, "k4v4")
    fill(cache, model, 0, 520)
    expected = model.add(cache, 0, 520, 540)
    cache.truncate(0, 520)
    other.add(cache, 0, 520, 530)
    cache.truncate(0, 520)
    assert cache.length(0) == 520
    assert np.array_equal(model.add(cache, 0, 520, 540), expected)


def test_rows_are_read_back():
    model = Model(700)
    cache = kvarn.Cache([LAYER] * 2, "k8v4")
    fill(cache, model, 0, 700)
    exact = np.r_[0:128, 600:700]
    for side, rows in (("k", model.k[1]), ("v", model.v[1])):
        read = cache.read(0, 1, side)
        assert read.shape == (700, KV_HEADS, DIM) and read.dtype == np.float16
        assert np.array_equal(read[exact], rows[exact].astype(np.float16))
        assert not np.array_equal(read[128:256], rows[128:256].astype(np.float16))
        out = np.zeros((10, KV_HEADS, DIM), np.float32)
        assert np.array_equal(cache.read(0, 1, side, range(250, 260), out), read[250:260].astype(np.float32))
    with pytest.raises(kvarn.InvalidArgument):
        cache.read(0, 1, "k", range(699, 701))
    with pytest.raises(TypeError):
        cache.read(0, 1, "k", range(0, 10, 2))
    cache.clear()
    assert cache.read(0, 1, "k").shape == (0, KV_HEADS, DIM)


def test_a_step_serves_several_sequences():
    model = Model(40)
    cache = kvarn.Cache([LAYER] * 2, "f16", sequences=2)
    with cache.begin([(1, 10), (0, 30)]) as step:
        assert step.tokens == 40
        for layer in range(2):
            step.append(layer, model.k[layer], model.v[layer])
            out = step.attend(layer, model.q[layer])
    assert (cache.length(1), cache.length(0)) == (10, 30)
    assert relative_error(out[:10], model.expected(1, 0, 10)) < 1e-3
    other = Model(40)
    other.k, other.v, other.q = (rows[:, 10:] for rows in (model.k, model.v, model.q))
    assert relative_error(out[10:], other.expected(1, 0, 30)) < 1e-3
    assert np.array_equal(cache.read(0, 0, "k"), model.k[0, 10:].astype(np.float16))


def test_a_step_that_fails_never_was():
    model = Model(40)
    cache = kvarn.Cache([LAYER] * 2)
    with pytest.raises(KeyError):
        with cache.begin(0, 40) as step:
            step.append(0, model.k[0], model.v[0])
            raise KeyError
    assert cache.length(0) == 0
    with pytest.raises(kvarn.OutOfOrder):
        step.append(0, model.k[0], model.v[0])
    with pytest.raises(kvarn.OutOfOrder), cache.begin(0, 40) as step:
        step.append(0, model.k[0], model.v[0])  # the other layer is left out
    step.cancel()
    step = cache.begin(0, 40)
    with pytest.raises(kvarn.OutOfOrder):
        cache.begin(0, 1)
    del step
    model.add(cache, 0, 0, 40)
    assert cache.length(0) == 40


def test_a_step_keeps_its_cache():
    model = Model(8, layers=1)
    cache = kvarn.Cache([LAYER])
    step = cache.begin(0, 8)
    del cache
    gc.collect()
    step.append(0, model.k[0], model.v[0])
    step.commit()


def test_limits_are_errors_and_shrinking_makes_room():
    model = Model(1100)
    cache = kvarn.Cache([LAYER] * 2, kvarn.Config("k8v8", tail_tokens=64), tokens=1100)
    fill(cache, model, 0, 1100)
    with pytest.raises(kvarn.Full):
        cache.begin(0, 1)
    before = cache.account()
    cache.shrink([0], (before.record_bytes + before.row_bytes + before.slack_bytes) * 3 // 4)
    assert cache.account().record_bytes < before.record_bytes
    with pytest.raises(kvarn.Full) as caught:
        cache.shrink([0], 1)
    assert isinstance(caught.value, kvarn.Error)
    small = kvarn.Cache([LAYER] * 2, "f16", bytes=300_000)
    with pytest.raises(MemoryError):
        fill(small, model, 0, 1100)
    assert 0 < small.length(0) < 1100


def test_configurations_are_presets_with_differences():
    config = kvarn.Config("k4v2", tail_tokens=64, level="fast", tile_tokens=32)
    assert (config.k_bits, config.v_bits, config.tail_tokens, config.sink_tokens, config.tile_tokens, config.level, config.fields) == (
        4, 2, 64, 128, 32, "fast", "half")
    assert kvarn.Config(fields="byte").fields == "byte"
    with pytest.raises(kvarn.InvalidArgument):
        kvarn.Config("k4v9")
    with pytest.raises(TypeError):
        kvarn.Config(tails=3)
    with pytest.raises(ValueError):
        kvarn.Config(level="good")
    with pytest.raises(ValueError):
        kvarn.Config(fields="bytes")
    with pytest.raises(kvarn.InvalidArgument):
        kvarn.Cache([LAYER], kvarn.Config(tile_tokens=17))
    with pytest.raises(kvarn.InvalidArgument):
        kvarn.Cache([])
    assert kvarn.Layer(8, 2, 64, 128).dim_v == 128 and LAYER.dim_v == DIM


def test_wrong_arrays_are_refused():
    model = Model(8, layers=1)
    cache = kvarn.Cache([LAYER])
    step = cache.begin(0, 8)
    k, v, q = model.k[0], model.v[0], model.q[0]
    for bad_k, bad_v in ((k[:7], v), (k, v[:, :1]), (k[:, :, :16], v)):
        with pytest.raises(ValueError):
            step.append(0, bad_k, bad_v)
    for bad_k, bad_v in ((k.astype(np.float64), v), (k.astype(np.float16), v)):
        with pytest.raises(TypeError):
            step.append(0, bad_k, bad_v)
    with pytest.raises(IndexError):
        step.append(1, k, v)
    step.append(0, k, v)
    with pytest.raises(ValueError):
        step.attend(0, q[:, :2])
    with pytest.raises(ValueError, match="share memory"):
        step.attend(0, q, out=q)
    with pytest.raises(TypeError):
        step.attend(0, q.astype(np.float16))
    with pytest.raises(ValueError):
        step.attend(0, q, kvarn.Query(sink_logits=[1.0]))
    out = np.zeros_like(q)
    assert step.attend(0, q, out=out) is out and np.any(out)


def test_layouts_by_head_are_read_in_place_and_equal():
    model = Model(64, layers=1)
    outs = []
    for turn in (lambda rows: rows, lambda rows: np.ascontiguousarray(rows.transpose(1, 0, 2)).transpose(1, 0, 2)):
        cache = kvarn.Cache([LAYER])
        with cache.begin(0, 64) as step:
            step.append(0, turn(model.k[0]), turn(model.v[0]))
            outs.append(step.attend(0, turn(model.q[0]), out=turn(np.zeros_like(model.q[0]))))
    assert np.array_equal(outs[0], outs[1])


def test_python_threads_may_share_a_cache():
    model = Model(300)
    cache = kvarn.Cache([LAYER] * 2, "k4v4", sequences=4, threads=2)
    fill(cache, model, 0, 300)
    expected = cache.read(0, 1, "v")
    right = []

    def work():
        right.append(all(np.array_equal(cache.read(0, 1, "v"), expected) and cache.account().tokens == 300 for _ in range(50)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 4
