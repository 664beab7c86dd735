"""`kvarn-eval`: the file it writes, going on after a run that was cut off, one-line errors, and bounds of the published encoder."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

THREADS = 2
BOUNDS = {"k4v4@official": 0.0062, "k3v3@official": 0.0130, "k2v2@official": 0.100}
PROMISED = {"model", "text", "cache", "codec", "level", "k_bits", "v_bits", "sink", "tail", "context", "chunks", "ubatch", "positions",
            "record_bits_per_value", "bits_per_value", "mean_kld", "mean_kld_low", "mean_kld_high", "median_kld", "kld_99", "kld_99_9", "same_top",
            "perplexity", "reference_perplexity", "perplexity_ratio", "kld_by_position", "bootstrap"}
# Micro-batches of a tile, and no exact token: most of the second half is read from records.
TILE = 32
HEAD_DIM = 64
METADATA_BITS = 16 * (3 * HEAD_DIM + 3 * TILE) / (2 * HEAD_DIM * TILE)  # K: two halves a channel, one a token; V: the other way round
SHORT = ["--context", 128, "--ubatch", TILE, "--regime", "none", "--threads", 1]  # one thread: two would wait for each other on a busy machine


def command(paths, *arguments):
    model = [] if "-m" in arguments else ["-m", paths.smollm2]
    return [str(part) for part in (paths.program.parent / "kvarn-eval", *model, "--text", paths.text, *arguments)]


def evaluate(paths, folder, *arguments, name="quality.json"):
    """The rows of a run that keeps its state and its file in `folder`, by cache, and what it printed."""
    file = folder / name
    result = subprocess.run(command(paths, "--state", folder / "state", "--json", file, *arguments), env=environment(paths, arguments),
                            text=True, capture_output=True, timeout=3000, check=False, stdin=subprocess.DEVNULL)
    assert result.returncode == 0, result.stderr
    rows = json.loads(file.read_text())["results"]
    return {row["cache"]: row for row in rows}, result


def environment(paths, arguments=()):
    """Short runs have tiles that are short enough to be sealed in them."""
    variables = os.environ | {"GGML_BACKEND_PATH": str(paths.plugin)}
    return variables | {"KVARN_TILE": str(TILE)} if "none" in arguments else variables


@pytest.fixture(name="short_run", scope="module")
def fixture_short_run(paths, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quality")
    rows, result = evaluate(paths, folder, *SHORT, "--configs", "host=f16,k8v8,k2v2", "--against", "k8v8", "--greedy", 2, "--greedy-tokens", 8, "--free-run", 8,
                            "--retrieval", 2, "--accumulation", 16)
    return rows, result, folder


def test_every_row_has_the_promised_figures(short_run):
    rows, result, _ = short_run
    assert list(rows) == ["host f16", "k8v8", "k2v2"]
    for row in rows.values():
        assert PROMISED <= set(row)
        assert row["mean_kld_low"] <= row["mean_kld"] <= row["mean_kld_high"]
        assert row["median_kld"] <= row["kld_99"] <= row["kld_99_9"]
        assert row["positions"] == 63 and len(row["layers"]) == 30
        assert len(row["greedy"]["first_divergence"]) == 2 and row["free_run"]["tokens"] == 8
        assert row["retrieval"]["questions"] == 2 and row["pseudo_decode"]["positions"] == 63
    assert "| k2v2 | 0, none |" in result.stdout and "peak memory" in result.stderr


def test_host_against_itself_is_zero_and_fewer_bits_are_worse(short_run):
    rows = short_run[0]
    assert rows["host f16"]["mean_kld"] < 1e-9 and rows["host f16"]["same_top"] == 100
    assert rows["host f16"]["perplexity_ratio"] == pytest.approx(1)
    assert rows["host f16"]["greedy"]["never_diverged"] == 2
    # On these weights any other order of sums costs about 0.003.
    assert rows["k8v8"]["mean_kld"] < 0.01
    assert rows["k2v2"]["mean_kld"] > 5 * rows["k8v8"]["mean_kld"]
    assert max(error for _, error in rows["k2v2"]["layers"]) > max(error for _, error in rows["k8v8"]["layers"])


def test_one_cache_over_another_is_the_ratio_of_their_figures(short_run):
    rows, result, _ = short_run
    [ratios] = rows["k2v2"]["against"]
    assert ratios["cache"] == "k8v8" and ratios["bits_per_value"] == rows["k8v8"]["bits_per_value"]
    for name in ("mean_kld", "median_kld", "kld_99_9"):
        assert ratios[name] == pytest.approx(rows["k2v2"][name] / rows["k8v8"][name])
    assert "against" not in rows["k8v8"]
    assert "| k2v2 | 0, none |" in result.stdout.split("paired bootstrap")[1]


def test_bits_count_what_is_in_memory(short_run):
    rows = short_run[0]
    assert rows["k2v2"]["record_bits_per_value"] == pytest.approx(2 + METADATA_BITS)
    assert rows["k8v8"]["record_bits_per_value"] == pytest.approx(8 + METADATA_BITS)
    assert 2 + METADATA_BITS < rows["k2v2"]["bits_per_value"] < rows["k8v8"]["bits_per_value"] < 16.5


def test_bits_of_a_baseline_count_its_own_tiles(paths, tmp_path):
    """Of 128 tokens tiles of 48 leave 32 exact; the baseline rounds tiles that leave none."""
    rows, _ = evaluate(paths, tmp_path, *SHORT, "--no-layers", "--configs", "k4v4,k4v4:tile=48,q4_0")
    assert rows["k4v4:tile=48"]["bits_per_value"] > 7
    assert rows["q4_0"]["bits_per_value"] == pytest.approx(4.5)


def test_every_cache_of_a_sliding_window_model_is_compressed(paths, tmp_path):
    """The context is within the window: both caches of the host have as many cells, and contexts side by side four alike."""
    rows, _ = evaluate(paths, tmp_path, "-m", paths.gemma3, *SHORT, "--configs", "k8v8,k4v4")
    assert rows["k4v4"]["bits_per_value"] < rows["k8v8"]["bits_per_value"] < 16


def test_second_run_takes_what_is_stored(paths, short_run):
    rows, _, folder = short_run
    again, result = evaluate(paths, folder, *SHORT, "--configs", "host=f16,k8v8,k2v2", name="again.json")
    assert "3 of 3 results were there" in result.stderr
    assert all(again[cache]["mean_kld"] == rows[cache]["mean_kld"] for cache in rows)


def test_run_that_was_killed_goes_on(paths, tmp_path):
    arguments = [*SHORT, "--chunks", 2, "--configs", "k4v4,k3v3", "--no-layers"]
    process = subprocess.Popen(command(paths, "--state", tmp_path / "state", *arguments), env=environment(paths, arguments), stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    wait_for_results(process, tmp_path / "state", 2)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    _, result = evaluate(paths, tmp_path, *arguments)
    assert "2 of 4 results were there" in result.stderr, result.stderr


def wait_for_results(process, folder, count):
    """Until the first chunk of both caches is stored; the second one takes seconds."""
    for _ in range(6000):
        if len(list(folder.glob("*/*.json"))) >= count:
            return
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.02)
    raise AssertionError("nothing was stored")


@pytest.mark.parametrize("arguments, word", [
    (["--configs", "k9v9"], "k9v9"), (["--configs", "k4v4:tail=x"], "'x'"), (["--configs", "host=k4v4"], "k4v4"), (["--regime", "some"], "some"),
    (["--context", "many"], "many"), (["--chunks", 100000], "chunks"), (["--context", 128, "--first-position", 127], "127"),
    (["--text", "/nowhere/text"], "/nowhere/text"), (["-m", "/nowhere/model"], "/nowhere/model"), (["--json", "/nowhere/x"], "/nowhere/x"),
    (["--state", "/proc/nowhere"], "/proc/nowhere"), (["--frobnicate"], "frobnicate"), (["--configs", "k4v4", "--against", "q4_0"], "'q4_0', which is not measured"),
    (["--code", "--code-file", "/nowhere/tasks"], "/nowhere/tasks")])
def test_what_cannot_be_evaluated_is_one_line(paths, tmp_path, arguments, word):
    base = {"-m": paths.smollm2, "--text": paths.text, "--state": tmp_path}
    options = [part for name, value in base.items() if name not in arguments for part in (name, value)]
    result = subprocess.run([str(part) for part in (paths.program.parent / "kvarn-eval", *options, *arguments)], env=environment(paths),
                            text=True, capture_output=True, timeout=600, check=False, stdin=subprocess.DEVNULL)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1 and word in result.stderr, result.stderr
    assert "|" not in result.stdout


def test_report_is_one_page_with_every_cache(paths, short_run, tmp_path):
    pytest.importorskip("matplotlib", reason="installed when somebody asks for a report")
    page = tmp_path / "report.html"
    subprocess.run([sys.executable, "-B", paths.root / "bench" / "quality_report.py", short_run[2] / "quality.json", "-o", page], check=True)
    text = page.read_text()
    assert text.count("<svg") == 4 and all(f">{cache}<" in text for cache in ("k8v8", "k2v2")) and "One cache over another" in text
    assert "src=" not in text and "href=\"http" not in text, "nothing is fetched"


@pytest.mark.long
def test_published_encoder_stays_within_its_bounds(paths, tmp_path):
    rows, _ = evaluate(paths, tmp_path, "--configs", ",".join(["host=f16", *BOUNDS]), "--threads", THREADS)
    assert rows["host f16"]["mean_kld"] < 1e-5
    assert {cache: rows[cache]["mean_kld"] for cache, bound in BOUNDS.items() if rows[cache]["mean_kld"] > bound} == {}


@pytest.mark.long
def test_long_free_run_with_a_sliding_window_model(paths, tmp_path):
    """16K tokens that the reference writes itself; drift must not grow without end."""
    rows, _ = evaluate(paths, tmp_path, "-m", paths.gemma3, "--context", 1024, "--configs", "k8v8,k4v4", "--free-run", 16384)
    for cache, bound in {"k8v8": 0.05, "k4v4": 0.1}.items():
        ranges = rows[cache]["free_run"]["ranges"]
        assert ranges[-1]["last"] == 16384
        assert max(part["mean_kld"] for part in ranges) < bound, (cache, ranges)
