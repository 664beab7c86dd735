"""What ./kvarn test hands to the end-to-end tests, as fixtures. Run them through it: it builds and downloads first."""

import os
import pathlib
import sys
import types

import pytest

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
