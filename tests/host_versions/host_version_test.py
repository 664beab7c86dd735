"""One version of llama.cpp, whichever ./kvarn test hosts has prepared: the plugin built for it loads, writes the host's text with
exact tiles, seals, and goes on from a saved state; a plugin built for another version is refused."""

import os
import pathlib
import re
import types

import pytest

from host_runs import first_divergence, greedy, run

VARIABLES = {"plugin": "KVARN_PLUGIN", "program": "KVARN_PROGRAM", "engine_bin": "KVARN_ENGINE_BIN", "model": "KVARN_MODEL",
             "text": "KVARN_TEXT"}


@pytest.fixture(name="paths", scope="module")
def fixture_paths():
    missing = [name for name in VARIABLES.values() if not os.environ.get(name)]
    assert not missing, f"not set: {missing}; run ./kvarn test hosts"
    return types.SimpleNamespace(**{name: pathlib.Path(os.environ[variable]) for name, variable in VARIABLES.items()})


@pytest.fixture(name="f32", scope="module")
def fixture_f32(paths, tmp_path_factory):
    """The model with 32-bit weights, written by this host."""
    model = tmp_path_factory.mktemp("f32") / "model.gguf"
    result = run(paths, None, [paths.program.parent / "f32_model", paths.model, model])
    assert result.returncode == 0, result.stderr
    yield model
    model.unlink()


@pytest.fixture(name="prompt", scope="module")
def fixture_prompt(paths, tmp_path_factory):
    """A prompt of about 450 tokens: with the default sink and tail, tiles of 128 tokens seal while it is read."""
    prompt = tmp_path_factory.mktemp("prompt") / "prompt.txt"
    prompt.write_text(paths.text.read_text()[150_000:151_900])
    return prompt


def said_by(paths, prompt, preset):
    """What a short run says of KVarN."""
    result = run(paths, preset, [paths.program.parent / "greedy_text", paths.model, prompt, 8, 2048, 512, 2, "alone"])
    assert result.returncode == 0, result.stderr
    return [line for line in result.stderr.splitlines() if "KVarN" in line]


def foreign_plugin(paths, folder):
    """The plugin of the host tested before this one; for the first one, its own, which says another version."""
    other = os.environ.get("KVARN_OTHER_PLUGIN")
    if other:
        return pathlib.Path(other)
    version = os.environ["KVARN_HOST_VERSION"].encode()
    code = paths.plugin.read_bytes()
    assert code.count(b"\0" + version + b"\0") == 1
    plugin = folder / "libggml-kvarn.so"
    plugin.write_bytes(code.replace(b"\0" + version + b"\0", b"\0" + b"9" + version[1:] + b"\0"))
    return plugin


def test_exact_tiles_give_the_hosts_text(paths, f32, prompt):
    host = greedy(paths, f32, prompt, None, tokens=48)[0]
    ours = greedy(paths, f32, prompt, "f16", tokens=48)[0]
    step = first_divergence(host, ours)
    # With 32-bit weights the two differ by rounding only: a divergence must be a tie.
    assert len(host) == 48 and (step is None or min(host[step][1], ours[step][1]) < 1e-3), (step, host[step], ours[step])


def test_tiles_are_sealed(paths, prompt):
    said = "\n".join(said_by(paths, prompt, "k4v4"))
    records = [float(size) for size in re.findall(r"KVarN: cache of .*\(records ([0-9.]+),", said)]
    assert records and max(records) > 0.1, said


def test_the_same_prompt_gives_the_same_text(paths, f32, prompt):
    runs = greedy(paths, f32, prompt, "k4v4", tokens=24, repeats=2)
    assert runs[0] == runs[1]


@pytest.mark.parametrize("preset", [None, "f16", "k4v4"])
@pytest.mark.parametrize("layout", ["saved", "parked"])
def test_saved_state_goes_on_as_it_was(paths, f32, prompt, preset, layout):
    runs = greedy(paths, f32, prompt, preset, tokens=24, layout=layout, repeats=2)
    assert len(runs) == 2 and runs[0] == runs[1]


def test_plugin_of_another_version_is_refused_in_one_line(paths, prompt, tmp_path):
    foreign = types.SimpleNamespace(**{**vars(paths), "plugin": foreign_plugin(paths, tmp_path)})
    said = said_by(foreign, prompt, "k4v4")
    assert len(said) == 1 and "built for ggml" in said[0] and os.environ["KVARN_HOST_VERSION"] in said[0], said
