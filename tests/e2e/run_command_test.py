"""`kvarn run` from the outside: text, table, JSON line, and one-line errors."""

import json
import re
import subprocess

import pytest

PROMPT = "Name three colours of the rainbow."


def kvarn(paths, *arguments):
    command = [paths.program, "run", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def kvarn_json(paths, *arguments):
    result = kvarn(paths, *arguments, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.strip().splitlines()[-1])


def test_short_prompt_ends_in_text_and_table(paths):
    result = kvarn(paths, "-m", paths.smollm2, "-p", PROMPT, "-n", 24)
    assert result.returncode == 0, result.stderr
    for row in ("KVarN k4v4", "cache", "at 8192 tokens by", "bits per value", "prompt", "generation", "tokens/s"):
        assert row in result.stdout


def test_json_line_has_the_promised_figures(paths):
    line = kvarn_json(paths, "-m", paths.smollm2, "-p", PROMPT, "-n", 8)
    for name in ("cache_bytes", "f16_bytes", "bits_per_value", "prompt_tokens_per_second", "generation_tokens_per_second"):
        assert line[name] > 0, name
    # Some dozen exact rows are larger than f16; the table says what to expect of a context as long as the model's.
    assert line["cache_bytes"] > line["f16_bytes"] and line["full_context"]["tokens"] == 8192
    assert line["full_context"]["smaller_by"] > 3


def test_long_prompt_is_smaller_than_f16(paths, tmp_path):
    prompt = tmp_path / "prompt.txt"
    prompt.write_text(paths.text.read_text()[:9000])
    line = kvarn_json(paths, "-m", paths.smollm2, "-f", prompt, "--raw", "-n", 4)
    assert line["sealed_tokens"] > 0
    assert line["cache_bytes"] < 0.5 * line["f16_bytes"]
    assert line["bytes"]["slack"] < 0.03 * line["f16_bytes"]
    assert line["bits_per_value"] == pytest.approx(16 * line["cache_bytes"] / line["f16_bytes"])


def test_exact_preset_gives_the_text_of_the_hosts_own_cache(paths, f32):
    line = kvarn_json(paths, "-m", f32["smollm2"], "-p", PROMPT, "-n", 48, "--preset", "f16", "--compare")
    assert line["same_tokens"] == line["generated_tokens"] == line["host_generated_tokens"]


def test_samples_share_the_cache_of_their_prompt(paths, tmp_path):
    prompt = tmp_path / "prompt.txt"
    prompt.write_text(paths.text.read_text()[:3000])
    arguments = ["-m", paths.smollm2, "-f", prompt, "--raw", "-n", 12]
    one, four = kvarn_json(paths, *arguments), kvarn_json(paths, *arguments, "--samples", 4, "--temp", 1.5)
    assert four["samples"] == 4 and four["cells_in_use"] <= four["prompt_tokens"] + four["generated_tokens"]
    assert four["cache_bytes"] < 1.4 * one["cache_bytes"]
    assert four["separate_f16_bytes"] > 3.5 * one["f16_bytes"]


def test_first_sample_is_the_text_of_one_alone(paths):
    arguments = ["-m", paths.smollm2, "-p", PROMPT, "-n", 16, "--temp", 1.0, "--seed", 7, "--preset", "f16"]
    alone = kvarn(paths, *arguments).stdout.split("\n\n")[0].strip()
    samples = re.split(r"--- sample .*\n", kvarn(paths, *arguments, "--samples", 3).stdout)
    # Three tokens a pass round otherwise than one does, in the host itself: the first token comes from the prompt alone.
    assert len(samples) == 4 and samples[1].split()[0] == alone.split()[0]
    assert len(set(samples[1:])) == 3


def test_same_prompt_twice_gives_the_same_text(paths):
    first, second = (kvarn(paths, "-m", paths.smollm2, "-p", PROMPT, "-n", 32).stdout for _ in range(2))
    assert first.split("\n\n")[0] == second.split("\n\n")[0]


@pytest.mark.parametrize("arguments", [["--preset", "k9v9"], ["-c", 4], ["-n", "many"], ["-f", "/no/such/file"]])
def test_error_is_one_line(paths, arguments):
    result = kvarn(paths, "-m", paths.smollm2, "-p", PROMPT, *arguments)
    assert result.returncode != 0
    assert len(result.stderr.strip().splitlines()) == 1 and result.stderr.startswith("kvarn: ")


def test_file_that_is_no_model_is_named(paths):
    result = kvarn(paths, "-m", paths.text)
    assert result.returncode != 0 and "not a GGUF file" in result.stderr


@pytest.mark.long
def test_eight_thousand_tokens_take_a_third_of_f16(paths, tmp_path):
    prompt = tmp_path / "prompt.txt"
    prompt.write_text(paths.text.read_text()[:36_000])
    line = kvarn_json(paths, "-m", paths.smollm2, "-f", prompt, "--raw", "-n", 4, "-c", 8704, "--preset", "k4v4")
    assert line["prompt_tokens"] > 7500
    assert line["cache_bytes"] <= 0.33 * line["f16_bytes"]
    # What the system counts for the whole process is the cache and the engine's own buffers, nothing of f16 size.
    assert line["resident_bytes"] < line["cache_bytes"] + 64 * 2**20
