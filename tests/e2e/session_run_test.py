"""`kvarn run --session`: a conversation that goes on from its file, in other processes."""

import json

import pytest

from host_runs import long
from run_command_test import kvarn

PROMPT_CHARACTERS = 3000


@pytest.fixture(name="prompt", scope="module")
def fixture_prompt(paths, tmp_path_factory):
    """Long enough that tiles are sealed, open and at the sink."""
    prompt = tmp_path_factory.mktemp("session") / "prompt.txt"
    prompt.write_text(paths.text.read_text()[40_000:40_000 + PROMPT_CHARACTERS])
    return prompt


def run(paths, *arguments):
    """The text and the figures of a run."""
    result = kvarn(paths, "-m", paths.smollm2, "--raw", "--json", *arguments)
    assert result.returncode == 0, result.stderr
    text = result.stdout[:result.stdout.index("\n\n" + paths.smollm2.name)]
    return text, json.loads(result.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize("preset", ["k4v4", "k2v2", long("f16"), long("k8v8")])
def test_resumed_text_is_that_of_one_run(paths, prompt, tmp_path, preset):
    session = tmp_path / "talk.kvarn"
    whole, _ = run(paths, "-f", prompt, "-n", 24, "--preset", preset)
    first, begun = run(paths, "-f", prompt, "-n", 8, "--preset", preset, "--session", session)
    second, resumed = run(paths, "-n", 8, "--session", session)
    third, _ = run(paths, "-n", 8, "--session", session)
    assert first + second + third == whole
    assert "resumed_tokens" in resumed["session"] and resumed["session"]["resumed_tokens"] == begun["prompt_tokens"] + 7
    assert resumed["prompt_tokens"] == 1, "the prompt was read again"
    assert resumed["session"]["written_bytes"] < begun["session"]["written_bytes"]
    if preset != "f16":
        assert resumed["bytes"]["mapped"] > 0 and resumed["cache_bytes"] < resumed["f16_bytes"]


def test_chat_goes_on_with_another_question(paths, tmp_path):
    arguments = ["-m", paths.smollm2, "-n", 12, "--session", tmp_path / "chat.kvarn", "--json"]
    first = kvarn(paths, *arguments, "-p", "My name is Ada. Say hello.")
    second = kvarn(paths, *arguments, "-p", "What is my name?")
    assert first.returncode == 0 and second.returncode == 0, first.stderr + second.stderr
    figures = json.loads(second.stdout.strip().splitlines()[-1])
    assert figures["session"]["resumed_tokens"] > 20 and 5 < figures["prompt_tokens"] < 40


def refusal(paths, *arguments):
    result = kvarn(paths, "-n", 4, *arguments)
    assert result.returncode != 0
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("kvarn: "), result.stderr
    return lines[0]


def test_what_cannot_go_on_is_said_in_one_line_and_the_file_stays(paths, prompt, tmp_path):
    session = tmp_path / "talk.kvarn"
    run(paths, "-f", prompt, "-n", 4, "--session", session)
    saved = session.read_bytes()
    assert "another model" in refusal(paths, "-m", paths.gemma3, "-p", "Hello", "--session", session)
    assert "other layers, widths or tiles" in refusal(paths, "-m", paths.smollm2, "-p", "Hello", "--preset", "k8v8", "--session", session)
    assert "needs the compressed cache" in refusal(paths, "-m", paths.smollm2, "-p", "Hello", "--preset", "off", "--session", session)
    assert session.read_bytes() == saved
    session.write_bytes(saved[:len(saved) // 2])
    assert "no complete save in it" in refusal(paths, "-m", paths.smollm2, "-p", "Hello", "--session", session)
    session.write_text("not a session at all, but long enough to be read as one" * 10)
    assert "not a session file" in refusal(paths, "-m", paths.smollm2, "-p", "Hello", "--session", session)
