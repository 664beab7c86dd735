"""Runs of the unmodified llama.cpp with and without the plugin, for the end-to-end tests."""

import os
import subprocess

import pytest

THREADS = int(os.environ.get("KVARN_TEST_THREADS", "2"))  # 1 on a machine that others keep busy: two would wait for each other


def long(*values):
    """A case of the long tier."""
    return pytest.param(*values, marks=pytest.mark.long)


def environment(paths, preset, **settings):
    """The environment of a host program; preset None runs it without the plugin."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("KVARN_P")}
    for name in ("KVARN_SINK", "KVARN_TAIL", "KVARN_TILE", "KVARN_LEVEL", "KVARN_FIELDS", "KVARN_CODEC", "KVARN_LIMIT", "GGML_BACKEND_PATH"):
        variables.pop(name, None)
    variables["KVARN_ENGINE_BIN"] = str(paths.engine_bin)
    if preset is not None:
        variables["GGML_BACKEND_PATH"] = str(paths.plugin)
        variables["KVARN_PRESET"] = preset
        for name, value in settings.items():
            variables["KVARN_" + name.upper()] = str(value)
    return variables


def run(paths, preset, command, timeout=1200, folder=None, **settings):
    launcher = os.environ.get("KVARN_HOST_LAUNCHER", "").split()  # what starts a program that needs another C library
    return subprocess.run([*launcher, *(str(part) for part in command)], env=environment(paths, preset, **settings), text=True,
                          capture_output=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL, cwd=folder)


def greedy(paths, model, prompts, preset, *, tokens=32, context=2048, ubatch=512, threads=THREADS, layout="alone", repeats=1,
           **settings):
    """Lists of (token, gap to the second best logit), one a sequence and repeat."""
    command = [paths.program.parent / "greedy_text", model, prompts, tokens, context, ubatch, threads, layout, repeats]
    result = run(paths, preset, command, **settings)
    assert result.returncode == 0, result.stderr
    return [[(int(pair.split(":")[0]), float(pair.split(":")[1])) for pair in line.split()]
            for line in result.stdout.splitlines()]


def first_divergence(left, right):
    """The first step at which two token lists differ, or None."""
    for step, (one, other) in enumerate(zip(left, right)):
        if one[0] != other[0]:
            return step
    return None if len(left) == len(right) else min(len(left), len(right))


def divergences(left, right):
    """How many pairs of sequences differ somewhere."""
    assert len(left) == len(right)
    return sum(first_divergence(one, other) is not None for one, other in zip(left, right))
