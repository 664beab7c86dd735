"""The measuring programs measure what they say: right answers, complete files, one line for what they refuse. No time is judged here."""

import json
import os
import subprocess
import sys

import pytest

from host_runs import THREADS

HOSTS = ["host f16", "host q8_0", "host q5_0", "host q4_0"]
OURS = ["f16", "k8v8", "k4v2", "k3v3:tile=32:fields=byte"]
FIELDS = {"preset", "heads", "kv_heads", "dim", "keys", "queries", "milliseconds", "min_milliseconds", "max_milliseconds", "ratio_to_f16",
          "ratio_to_q8_0", "ratio_to_q5_0", "ratio_to_q4_0", "bytes", "bandwidth_fraction", "read_milliseconds", "dot_milliseconds",
          "limit_milliseconds", "limit_fraction", "normalized_error"}
# One query, a few, and a micro-batch that sees exact rows; 300 keys end in a tile that is not complete.
TINY = ["--heads", 4, "--kv-heads", 2, "--dim", 64, "--keys", 300, "--queries", "1,3,80", "--presets", ",".join(OURS), "--runs", 1,
        "--sample-ms", 0, "--threads", THREADS]


def bench(paths, *arguments):
    command = [paths.program.parent / "kvarn-bench", *arguments]
    return subprocess.run([str(part) for part in command], text=True, capture_output=True, timeout=600, check=False, stdin=subprocess.DEVNULL)


@pytest.fixture(name="attention_file", scope="module")
def fixture_attention_file(paths, tmp_path_factory):
    file = tmp_path_factory.mktemp("bench") / "attention.json"
    result = bench(paths, "attention", *TINY, "--json", file)
    assert result.returncode == 0, result.stderr
    return file


@pytest.fixture(name="attention")
def fixture_attention(attention_file):
    return json.loads(attention_file.read_text())


def test_attention_file_is_complete(attention):
    assert {"cpu", "cores", "commit", "command", "isa", "threads"} <= set(attention["machine"])
    assert attention["machine"]["threads"] == THREADS
    assert [(row["queries"], row["preset"]) for row in attention["results"]] == [
        (queries, preset) for queries in (1, 3, 80) for preset in HOSTS + OURS]
    for row in attention["results"]:
        assert set(row) == FIELDS
        assert row["milliseconds"] > 0 and row["limit_fraction"] > 0 and row["bandwidth_fraction"] > 0
        assert all(row[ratio] > 0 for ratio in ("ratio_to_f16", "ratio_to_q8_0", "ratio_to_q4_0"))


def test_attention_gives_the_hosts_answer(attention):
    """The program refuses more than 1e-9 of exact tiles; what coarser codes may be off by follows from their steps."""
    errors = {(row["preset"], row["queries"]): row["normalized_error"] for row in attention["results"]}
    for queries in (1, 3, 80):
        assert errors["f16", queries] <= 1e-9
        assert errors["host f16", queries] <= 1e-4
        assert errors["k8v8", queries] <= 1e-3
    assert errors["f16", 1] < errors["k8v8", 1] < errors["k4v2", 1] < 1


def test_attention_counts_the_bytes_that_are_read(attention):
    sizes = {(row["preset"], row["queries"]): row["bytes"] for row in attention["results"]}
    assert sizes["f16", 1] == sizes["host f16", 1] == 300 * 2 * 64 * 2 * 2
    assert sizes["k4v2", 1] < sizes["k8v8", 1] < sizes["f16", 1]
    assert sizes["k4v2", 80] == sizes["f16", 80]  # 80 rows of the queries and the 128 before them reach into both tiles


def test_head_dimension_without_host_types_has_no_ratio(paths, tmp_path):
    file = tmp_path / "attention.json"
    options = ["--heads", 2, "--kv-heads", 1, "--dim", 80, "--keys", 128, "--runs", 1, "--sample-ms", 0, "--json", file]
    result = bench(paths, "attention", *options)
    assert result.returncode == 0, result.stderr
    rows = {row["preset"]: row for row in json.loads(file.read_text())["results"]}
    assert list(rows) == ["host f16", "k4v4"]
    assert rows["k4v4"]["ratio_to_f16"] > 0 and rows["k4v4"]["ratio_to_q4_0"] is None


@pytest.mark.parametrize("arguments, word", [
    (["attention", "--heads", "10", "--kv-heads", "4"], "10 query heads"), (["attention", "--dim", "40"], "40"),
    (["attention", "--presets", "k4v4,k9v1"], "k9v1"), (["attention", "--presets", "k4v4:tile=24"], "k4v4:tile=24"), (["attention", "--keys", "16", "--queries", "32"], "32 queries"),
    (["attention", "--keys", "many"], "many"), (["attention", "--shapes", "9x3"], "9x3"), (["attention", "--json", "/nowhere/x"], "/nowhere/x"),
    (["--isa", "z80", "attention"], "z80"), (["encode", "--bits", "7"], "7 bits"), (["encode", "--levels", "better"], "better"),
    (["encode", "--dims", "24"], "24"), (["steps", "-m", "/nowhere/model"], "/nowhere/model"), (["frobnicate"], "subcommand")])
def test_what_cannot_be_measured_is_one_line(paths, arguments, word):
    result = bench(paths, *arguments)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1 and word in result.stderr, result.stderr
    assert "|" not in result.stdout


def test_encode_covers_every_side_and_gives_shares(paths, tmp_path):
    file = tmp_path / "encode.json"
    engine = ["--prompt-tokens-per-second", 100, "--decode-tokens-per-second", 10, "--layers", 2, "--kv-heads", 3]
    result = bench(paths, "encode", "--dims", "64", "--bits", "4,2", "--runs", 1, "--sample-ms", 0, *engine, "--json", file)
    assert result.returncode == 0, result.stderr
    rows = json.loads(file.read_text())["results"]
    assert [(row["level"], row["bits"], row["side"]) for row in rows] == [
        (level, bits, side) for level in ("best", "fast", "official") for bits in (4, 2) for side in ("k", "v", "k+v")]
    for row in rows:
        assert row["share_of_prompt_time"] == pytest.approx(row["microseconds_per_token"] * 1e-6 * 2 * 3 * 100)
        assert row["share_of_decode_time"] == pytest.approx(row["share_of_prompt_time"] / 10)


def test_steps_times_every_step_of_both_caches(paths, tmp_path):
    file = tmp_path / "steps.json"
    options = ["-m", paths.smollm2, "--depth", 8, "--steps", 3, "--runs", 2, "--threads", THREADS, "--json", file]
    result = bench(paths, "steps", *options)
    assert result.returncode == 0, result.stderr
    rows = json.loads(file.read_text())["results"]
    assert [row["preset"] for row in rows] == ["host f16", "k4v4"]
    assert all(len(run) == 3 and min(run) > 0 for row in rows for run in row["milliseconds"])


def test_plot_shows_every_cache(paths, attention_file, tmp_path):
    pytest.importorskip("matplotlib", reason="installed when somebody asks for a plot")
    picture = tmp_path / "attention.svg"
    subprocess.run([sys.executable, "-B", paths.root / "bench" / "depth_plot.py", attention_file, picture], check=True)
    text = picture.read_text()
    assert all(f">{name}<" in text for name in HOSTS + OURS)


@pytest.mark.long
def test_e2e_measures_all_programs(paths, tmp_path):
    file = tmp_path / "e2e.json"
    command = [sys.executable, "-B", paths.root / "bench" / "e2e.py", "--depths", "0,64", "--prompt", 32, "--tokens", 4, "--sequences", "1,2",
               "--steps", 3, "--runs", 1, "--json", file]
    variables = os.environ | {"KVARN_BENCH": str(paths.program.parent / "kvarn-bench")}
    result = subprocess.run([str(part) for part in command], env=variables, text=True, capture_output=True, timeout=900, check=False)
    assert result.returncode == 0, result.stderr
    data = json.loads(file.read_text())
    assert {"cpu", "cores", "commit", "command", "isa", "threads"} <= set(data["machine"])
    tests = {(row["test"], row.get("sequences"), row["depth"]) for row in data["results"]}
    assert {("prompt", 1, 0), ("generation", 1, 64), ("batched generation", 2, 64), ("batched total", 1, 64)} <= tests
    assert any(row["test"] == "single steps" for row in data["results"])
