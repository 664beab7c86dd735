"""What `./kvarn serve` picks for llama-server: `kvarn serve-choices`, which the front door runs first."""

import os
import subprocess

import pytest


def picked(paths, *arguments, **variables):
    """Words for llama-server, the limit, and the lines that explain them."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("KVARN_LIMIT", "LLAMA_ARG"))}
    command = [paths.program, "serve-choices", "-m", paths.smollm2, *map(str, arguments)]
    result = subprocess.run(command, env=environment | variables, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stderr
    words = result.stdout.split()
    limits = [int(word.split("=")[1]) for word in words if word.startswith("KVARN_LIMIT=")]
    return [word for word in words if "=" not in word], limits[0] if limits else None, result.stderr.strip().splitlines()


def test_agents_get_slots_and_contexts_that_stay_resident(paths):
    words, limit, lines = picked(paths, "--agents", 16, "--context-per-agent", 2048, "--ram", "2G")
    assert words == ["-np", "16", "-c", "32768", "--no-kv-unified", "--cache-ram", "0"]
    assert 1.5 * 2**30 < limit < 2 * 2**30
    assert 2 <= len(lines) <= 3 and all(line.startswith("kvarn: ") for line in lines)
    assert "16 agents of 2048 tokens" in lines[0] and "f16" in lines[1]


def test_contexts_are_as_long_as_fits_and_was_trained(paths):
    roomy, _, _ = picked(paths, "--agents", 4, "--ram", "8G")
    assert roomy[roomy.index("-c") + 1] == str(4 * 8192)
    tight, _, _ = picked(paths, "--agents", 4, "--ram", "300M")
    cells = int(tight[tight.index("-c") + 1])
    assert 4 * 256 <= cells < 4 * 8192 and cells % (4 * 256) == 0


@pytest.mark.parametrize("given,absent", [(["-np", "3"], "-np"), (["-c", "6144"], "-c"), (["-kvu"], "--no-kv-unified"),
                                          (["--cache-ram", "64"], "--cache-ram")])
def test_what_the_user_gives_wins(paths, given, absent):
    words, _, _ = picked(paths, "--ram", "1G", "--agents", 4, "--", *given)
    assert absent not in words
    if given[0] == "-np":
        assert words[words.index("-c") + 1] == str(3 * 8192)


def test_the_environment_of_the_server_counts_as_given(paths):
    words, limit, _ = picked(paths, "--ram", "1G", LLAMA_ARG_N_PARALLEL="2", KVARN_LIMIT="100M")
    assert "-np" not in words and limit is None


def test_more_agents_than_fit_are_said(paths):
    _, _, lines = picked(paths, "--agents", 64, "--context-per-agent", 4096, "--ram", "1G")
    assert "less than all agents need" in lines[-1]


def test_what_cannot_be_served_is_one_line(paths):
    command = [paths.program, "serve-choices", "-m", paths.smollm2, "--agents", "200", "--ram", "150M"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode != 0 and result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1 and "do not fit" in result.stderr
