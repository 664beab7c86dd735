"""Greedy text with the plugin against the host's own cache, and against itself: repeats, micro-batches, slots, threads.

Weights are f32 where texts are compared across runs.
"""

import pytest

from host_runs import divergences, first_divergence, greedy, long

PRESETS = ["k4v4", "k2v2", *map(long, ("f16", "k8v8", "k4v2"))]


@pytest.fixture(name="prompts", scope="module")
def fixture_prompts(paths, tmp_path_factory):
    """Files with one and with four prompts of a few hundred tokens, and with one of 1,000."""
    folder = tmp_path_factory.mktemp("prompts")
    text = paths.text.read_text()
    parts = [text[start:start + length] for start, length in ((20_000, 1500), (150_000, 1900), (300_000, 1700), (500_000, 2300))]
    one, four = folder / "one.txt", folder / "four.txt"
    one.write_text(parts[1])
    four.write_text("\n===\n".join(parts))
    thousand = folder / "long.txt"
    thousand.write_text(text[60_000:64_000])
    return {"one": one, "four": four, "long": thousand}


@pytest.mark.parametrize("tokens", [64, long(256)])
@pytest.mark.parametrize("model", ["smollm2", "gemma3"])
def test_exact_tiles_give_the_hosts_text(paths, f32, prompts, model, tokens):
    host = greedy(paths, f32[model], prompts["one"], None, tokens=tokens)
    ours = greedy(paths, f32[model], prompts["one"], "f16", tokens=tokens)
    step = first_divergence(host[0], ours[0])
    # Without 8-bit activations the two differ by rounding only: a divergence must be a tie.
    assert step is None or min(host[0][step][1], ours[0][step][1]) < 1e-3, (step, host[0][step], ours[0][step])


@pytest.mark.parametrize("preset", PRESETS)
def test_the_same_prompt_twice_gives_the_same_text(paths, prompts, preset):
    runs = greedy(paths, paths.smollm2, prompts["one"], preset, tokens=40, repeats=3)
    assert runs[0] == runs[1] == runs[2]


@pytest.mark.parametrize("layout", ["saved", "parked"])
@pytest.mark.parametrize("preset", PRESETS)
def test_saved_state_goes_on_with_the_same_logits(paths, prompts, preset, layout):
    """Of the whole context, whose blob puts rows at odd addresses, and of one sequence; with tiles open, sealing and sealed."""
    saved, restored = greedy(paths, paths.smollm2, prompts["long"], preset, tokens=24, layout=layout, repeats=2)
    assert saved == restored


@pytest.mark.parametrize("layout, preset, distance", [("saved", "k4v4", 0.0), ("parked", "f16", 5e-3)])
def test_saved_state_of_sliding_windows_goes_on_with_the_same_logits(paths, f32, prompts, layout, preset, distance):
    """Nothing inside a window is sealed, before the save or after it. Of one sequence the host saves no token that has left the
    window: rows lie otherwise then, which moves the last bit of a sum, in the host's own cache too."""
    saved, restored = greedy(paths, f32["gemma3"], prompts["long"], preset, tokens=12, layout=layout, repeats=2)
    assert [token for token, _ in saved] == [token for token, _ in restored]
    assert [gap for _, gap in restored] == pytest.approx([gap for _, gap in saved], abs=distance)


def test_thread_counts_give_the_same_text(paths, f32, prompts):
    runs = [greedy(paths, f32["smollm2"], prompts["one"], "k4v4", tokens=24, threads=threads) for threads in (1, 2)]
    assert divergences(runs[0], runs[1]) == 0


@pytest.mark.parametrize("sizes", [(100,), long((32, 64))])
def test_micro_batch_sizes_diverge_no_more_often_than_the_host(paths, f32, prompts, sizes):
    def count(preset):
        runs = {ubatch: greedy(paths, f32["smollm2"], prompts["four"], preset, tokens=24, ubatch=ubatch) for ubatch in (512, *sizes)}
        return sum(divergences(runs[512], runs[ubatch]) for ubatch in sizes)
    assert count("f16") <= count(None)


@pytest.mark.parametrize("presets", [["f16", "k4v4"], long(["k8v8", "k4v2", "k2v2"])])
def test_interleaved_slots_diverge_no_more_often_than_the_host(paths, f32, prompts, presets):
    def count(preset):
        alone = greedy(paths, f32["smollm2"], prompts["four"], preset, tokens=24)
        together = greedy(paths, f32["smollm2"], prompts["four"], preset, tokens=24, context=4096, layout="unified")
        return divergences(alone, together)
    host = count(None)
    counts = {preset: count(preset) for preset in presets}
    assert max(counts.values()) <= host, (host, counts)


def test_separate_streams_give_the_text_of_one(paths, f32, prompts):
    alone = greedy(paths, f32["smollm2"], prompts["four"], "k4v4", tokens=24)
    separate = greedy(paths, f32["smollm2"], prompts["four"], "k4v4", tokens=24, layout="separate")
    host_alone = greedy(paths, f32["smollm2"], prompts["four"], None, tokens=24)
    host_separate = greedy(paths, f32["smollm2"], prompts["four"], None, tokens=24, layout="separate")
    assert divergences(alone, separate) <= divergences(host_alone, host_separate)
