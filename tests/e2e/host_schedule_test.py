"""Random schedules over eight sequences, on the plugin's cache and on the host's own; tests/hosts/schedule_oracle.hpp says what is compared."""

import re

import pytest

from host_runs import run

PRESETS = ["f16", "k8v8", "k4v4", "k2v2"]
# Model, layout, tokens of a micro-batch (no multiple of a tile), further options.
CASES = [("dense", "unified", 37), ("dense", "separate", 7), ("window", "unified", 24), ("window", "separate", 37),
         ("window", "unified", 65, "--full-window")]


def schedule(paths, preset, *options, timeout=3000, **settings):
    """The figures of the last line of a run, or the mismatch."""
    tiles = {"tile": 16, "sink": 16, "tail": 16, **settings}
    result = run(paths, preset, [paths.program.parent / "host_schedule", *options], timeout=timeout, **tiles)
    assert result.returncode in (0, 1), result.stderr
    return result, {name: int(count) for count, name in re.findall(r"(\d+) (steps|tokens sealed|rows|outputs)", result.stdout)}


def arguments(case, seed, steps):
    model, layout, ubatch, *more = case
    return ["--model", model, "--layout", layout, "--ubatch", ubatch, "--seed", seed, "--steps", steps, *more]


def expect_no_mismatch(paths, preset, *options, **settings):
    result, figures = schedule(paths, preset, *options, **settings)
    assert result.returncode == 0, result.stderr[-6000:]
    assert figures["rows"] > figures["steps"] and figures["outputs"] > figures["steps"], result.stdout
    assert (figures["tokens sealed"] > 200) == (preset != "f16"), result.stdout


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
@pytest.mark.parametrize("preset", PRESETS)
def test_any_schedule_gives_the_hosts_rows_and_the_reference_attention(paths, preset, case):
    expect_no_mismatch(paths, preset, *arguments(case, 1 + PRESETS.index(preset), 250))


@pytest.mark.parametrize("preset", ["k4v4", "k2v2"])
def test_any_schedule_is_right_with_fields_of_one_byte(paths, preset):
    expect_no_mismatch(paths, preset, *arguments(CASES[2], 7, 250), fields="byte")


@pytest.mark.parametrize("preset, fault, check", [
    ("f16", "token", "rows"), ("f16", "token", "logits"), ("k2v2", "token", "rows"), ("k2v2", "row", "rows"), ("k8v8", "row", "attention"),
    ("k2v2", "row", "attention"), ("k4v4", "sealed", "rows"), ("k4v4", "tail", "rows")])
def test_one_fault_is_noticed_by_each_check(paths, preset, fault, check):
    result, _ = schedule(paths, preset, "--steps", 600, "--seed", 2, "--no-states", "--fault", fault, "--only", check)
    assert result.returncode == 1 and "MISMATCH" in result.stderr and "replay: host_schedule" in result.stderr, result.stdout


@pytest.mark.long
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_a_hundred_thousand_steps(paths, preset, case):
    seed = 12 if preset == "k2v2" else 11  # 12 shifts rows three times before anything reads them
    expect_no_mismatch(paths, preset, *arguments(case, seed, 100_000 // len(CASES)))


@pytest.mark.long
@pytest.mark.parametrize("preset", PRESETS)
def test_two_thousand_steps_of_a_real_model(paths, f32, preset):
    options = ["--model", f32["smollm2"], "--layout", "unified", "--context", 2048, "--longest", 400, "--steps", 2000]
    expect_no_mismatch(paths, preset, *options, "--watch-every", 8)
