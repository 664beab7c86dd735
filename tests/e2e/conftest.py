"""What ./kvarn test hands to the end-to-end tests, as fixtures. Run them through it: it builds and downloads first."""

import os
import pathlib
import sys
import types

import pytest

from host_runs import run

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "bench"))  # server_process.py

VARIABLES = {
    "root": "KVARN_ROOT",              # this repository
    "program": "KVARN_PROGRAM",        # the built kvarn program
    "plugin": "KVARN_PLUGIN",          # libggml-kvarn.so
    "engine_bin": "KVARN_ENGINE_BIN",  # programs of the unmodified llama.cpp
    "smollm2": "KVARN_MODEL",          # SmolLM2-135M-Instruct Q4_1
    "gemma3": "KVARN_MODEL_GEMMA",     # Gemma 3 270M Q4_K_M
    "text": "KVARN_TEXT",              # the evaluation text
}


@pytest.fixture(name="paths", scope="session")
def fixture_paths():
    missing = [name for name in VARIABLES.values() if not os.environ.get(name)]
    assert not missing, f"not set: {missing}; run ./kvarn test"
    return types.SimpleNamespace(**{name: pathlib.Path(os.environ[variable]) for name, variable in VARIABLES.items()})


@pytest.fixture(name="poor_draft", scope="session")
def fixture_poor_draft(paths, tmp_path_factory):
    """SmolLM2 without two thirds of its layers: same words, other opinions. Its drafts are mostly rejected."""
    file = tmp_path_factory.mktemp("draft") / "poor.gguf"
    layers = ",".join(str(layer) for layer in range(5, 25))
    result = run(paths, None, [paths.engine_bin / "llama-quantize", "--allow-requantize", "--prune-layers", layers, paths.smollm2, file, "Q8_0"])
    assert result.returncode == 0, result.stderr[-2000:]
    return file


@pytest.fixture(name="f32", scope="session")
def fixture_f32(paths, tmp_path_factory):
    """f32 versions of both models: with quantized weights the host rounds activations to 8 bits, so that a change of the last bit
    anywhere moves logits by tenths, sometimes by more."""
    folder = tmp_path_factory.mktemp("f32")
    models = {}
    for name in ("smollm2", "gemma3"):
        models[name] = folder / f"{name}.gguf"
        result = run(paths, None, [paths.engine_bin / "llama-quantize", "--allow-requantize", getattr(paths, name), models[name], "F32"])
        assert result.returncode == 0, result.stderr
    return models
