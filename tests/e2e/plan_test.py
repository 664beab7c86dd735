"""`kvarn plan` from the outside: what it plans is what a run takes, and bad input is one line."""

import json
import subprocess

import pytest

from run_command_test import kvarn_json


def plan(paths, *arguments):
    command = [paths.program, "plan", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def planned(paths, *arguments):
    result = plan(paths, *arguments, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def row(table, preset):
    return next(line for line in table["presets"] if line["preset"] == preset)


def expect_planned(paths, model, prompt, preset):
    """A run's cache, maps included, is what the plan said for as many tokens, within 3 percent."""
    line = kvarn_json(paths, "-m", model, "-f", prompt, "--raw", "-n", 20, "--preset", preset)
    tokens = line["cells_in_use"] if model == paths.smollm2 else line["prompt_tokens"] + line["generated_tokens"] - 1
    table = planned(paths, "-m", model, "-c", tokens, "--preset", preset, "--ram", "1G")
    column = row(table, preset)["contexts"][0]
    assert column["cache_bytes"] == pytest.approx(line["cache_bytes"] + line["bytes"]["maps"], rel=0.03), (line, column)
    assert column["f16_bytes"] == pytest.approx(line["f16_bytes"], rel=0.03), (line, column)


@pytest.mark.parametrize("name,characters", [("smollm2", 9000), ("gemma3", 12_000)])
def test_a_run_takes_what_was_planned(paths, tmp_path, name, characters):
    prompt = tmp_path / "prompt.txt"
    prompt.write_text(paths.text.read_text()[:characters])
    expect_planned(paths, getattr(paths, name), prompt, "k4v4")


@pytest.mark.long
@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
@pytest.mark.parametrize("characters", [1200, 3000, 36_000])
@pytest.mark.parametrize("preset", ["f16", "k8v8", "near-lossless", "small", "smallest"])
def test_presets_and_lengths_take_what_was_planned(paths, tmp_path, name, characters, preset):
    prompt = tmp_path / "prompt.txt"
    prompt.write_text(paths.text.read_text()[:characters])
    expect_planned(paths, getattr(paths, name), prompt, preset)


def test_more_compression_and_more_memory_hold_more(paths):
    small, large = (planned(paths, "-m", paths.smollm2, "--ram", ram, "-c", "2048,8192") for ram in ("512M", "2G"))
    order = ["llama.cpp f16", "k8v8", "near-lossless", "balanced", "small", "smallest"]
    assert [line["preset"] for line in small["presets"]] == order
    for table in (small, large):
        for figure in (lambda line: line["longest_context_tokens"], lambda line: line["contexts"][0]["fit"],
                       lambda line: line["contexts"][1]["fit"], lambda line: -line["bytes_per_token"]):
            figures = [figure(row(table, preset)) for preset in order]
            assert figures == sorted(figures), figures
    assert row(large, "balanced")["contexts"][1]["fit"] > row(small, "balanced")["contexts"][1]["fit"] > 0


def test_sliding_windows_do_not_grow(paths):
    table = planned(paths, "-m", paths.gemma3, "--ram", "4G", "-c", "8192,32768")
    host = row(table, "llama.cpp f16")
    # Three of the eighteen layers see all tokens: one KV head of 256 channels, K and V, half precision.
    assert host["bytes_per_token"] == 3 * 2 * 256 * 2
    near, far = host["contexts"]
    assert far["f16_bytes"] - near["f16_bytes"] == (32768 - 8192) * 3 * 2 * 256 * 2


def test_table_names_model_memory_and_presets(paths):
    result = plan(paths, "-m", paths.smollm2, "--ram", "1.5G", "-c", 4096, "--preset", "k5v3")
    assert result.returncode == 0, result.stderr
    for text in (paths.smollm2.name, "1.5 GiB", "llama.cpp f16", "balanced", "k5v3", "contexts of 4096 tokens"):
        assert text in result.stdout


@pytest.mark.parametrize("arguments", [["--ram", "much"], ["--ram", "0"], ["-c", "0"], ["-c", "many"], ["--preset", "k9v9"],
                                       ["--sink", "-1"], ["--frobnicate"]])
def test_bad_input_is_one_line(paths, arguments):
    result = plan(paths, "-m", paths.smollm2, *arguments)
    assert result.returncode != 0 and result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1 and result.stderr.startswith("kvarn: ")


def test_file_that_is_no_whole_model_is_named(paths, tmp_path):
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(paths.smollm2.read_bytes()[:5000])
    for file, reason in ((paths.text, "not a GGUF file"), (cut, "cut.gguf"), (tmp_path / "none.gguf", "no model file")):
        result = plan(paths, "-m", file)
        assert result.returncode != 0 and reason in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1, result.stderr
