"""llama.cpp's own tests and options with the plugin loaded: nothing aborts, what is not served is said in one line."""

import re
import types

import pytest

from host_runs import THREADS, run

SMALL_TILES = {"tile": 16, "sink": 0, "tail": 0}


def completion(paths, preset, *options, model=None, **settings):
    command = [paths.engine_bin / "llama-completion", "-m", model or paths.smollm2, "-p", "Once upon a time there was a",
               "-n", 12, "--temp", 0, "-t", THREADS, "-no-cnv", *options]
    return run(paths, preset, command, **settings)


def kvarn_lines(result):
    return [line for line in result.stderr.splitlines() if "KVarN" in line]


@pytest.mark.parametrize("program", ["test-save-load-state", "test-state-restore-fragmented"])
@pytest.mark.parametrize("preset, fields", [("f16", "half"), ("k4v4", "half"), ("k2v2", "half"), ("k4v4", "byte")])
def test_state_tests_of_the_host_pass_with_tiles_that_seal(paths, program, preset, fields, tmp_path):
    command = [paths.engine_bin / program, "-m", paths.smollm2, "-t", THREADS, "-c", 1024]
    result = run(paths, preset, command, folder=tmp_path, fields=fields, **SMALL_TILES)
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]


@pytest.mark.parametrize("options", [["-fa", "off"], ["-nkvo"], ["-ngl", "0"], ["-ctk", "q8_0"], ["-ctk", "q8_0", "-ctv", "q4_0"]])
def test_what_is_not_served_runs_and_is_said_in_one_line(paths, options):
    result = completion(paths, "k4v4", *options)
    assert result.returncode == 0, result.stderr
    assert len([line for line in kvarn_lines(result) if "KVarN is inactive" in line]) == 1, result.stderr
    if options != ["-nkvo"]:  # there the host turns flash attention off, which rounds differently
        assert result.stdout == completion(paths, None, *options).stdout


@pytest.mark.parametrize("setting", [{"sink": "many"}, {"tail": -5}, {"tile": 24}, {"level": "better"}, {"fields": "wide"}, {"codec": "q4_1"},
                                     {"isa": "z80"}, {"fields": "byte", "level": "official"}])
def test_bad_setting_is_one_line_and_no_device(paths, setting):
    result = completion(paths, "k4v4", **setting)
    lines = [line for line in kvarn_lines(result) if "does not start" in line]
    assert len(lines) == 1 and next(iter(setting)).upper() in lines[0], result.stderr


def test_setting_with_line_breaks_is_quoted_in_one_line(paths):
    lines = [line for line in kvarn_lines(completion(paths, "k4v4", codec="q8_0\r\nq4_0")) if "does not start" in line]
    assert len(lines) == 1 and "q8_0??q4_0" in lines[0] and "use kvarn" in lines[0], lines


def test_unknown_preset_is_one_line_and_no_device(paths):
    lines = kvarn_lines(completion(paths, "q4_0"))
    assert len([line for line in lines if "KVARN_PRESET" in line and "does not start" in line]) == 1


def test_plugin_of_another_ggml_version_is_refused_in_one_line(paths, tmp_path):
    """The version that the plugin was built for is changed inside a copy of it; the host must go on without a device."""
    headers = re.search(rb"\x00(\d+\.\d+\.\d+)\x00", paths.plugin.read_bytes())
    assert headers, "the plugin names the ggml version it was built for"
    version = headers.group(1)
    foreign = tmp_path / "libggml-kvarn.so"
    foreign.write_bytes(paths.plugin.read_bytes().replace(b"\0" + version + b"\0", b"\0" + b"9" + version[1:] + b"\0"))
    result = completion(types.SimpleNamespace(**{**vars(paths), "plugin": foreign}), "k4v4")
    assert result.returncode == 0, result.stderr
    lines = [line for line in kvarn_lines(result) if "built for ggml 9" in line]
    assert len(lines) == 1 and version.decode() in lines[0], result.stderr


@pytest.mark.parametrize("preset", ["f16", "k4v4"])
def test_context_shift_keeps_generating(paths, preset):
    options = ["-c", "256", "-n", "400", "--context-shift", "--ignore-eos"]
    result = completion(paths, preset, *options, **SMALL_TILES)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout) > 600


def test_every_architecture_the_host_can_build_gives_the_hosts_logits(paths):
    """Random tiny models of all architectures: dense, mixture, hybrid, recurrent, MLA, sliding window, head dimension 80."""
    environment = {"LD_PRELOAD": paths.program.parent / "load_backends.so", "LD_LIBRARY_PATH": paths.engine_bin}
    command = ["env", *(f"{name}={value}" for name, value in environment.items()), paths.engine_bin / "test-llama-archs", "-b", "KVarN"]
    result = run(paths, "f16", command)
    text = re.sub(r"\x1b\[[0-9;]*m", "", result.stdout + result.stderr)
    assert result.returncode == 0, text[-3000:]
    # Not the summary: the host's logger, with our plugin or without, sometimes loses its last lines when the program ends.
    assert "FAIL" not in text and len(re.findall(r"\| +OK \(", text)) > 100, text[-3000:]


def test_backend_operations_fail_nowhere(paths):
    """The device claims operations on its own memory tensors only, which this program has none of: it must end without a failure."""
    result = run(paths, "k4v4", [paths.engine_bin / "test-backend-ops", "test", "-b", "KVarN"], timeout=1800)
    text = re.sub(r"\x1b\[[0-9;]*m", "", result.stdout + result.stderr)
    assert result.returncode == 0 and "FAIL" not in text, text[-2000:]
    assert re.search(r"Backend .*KVarN", text), "the device was tested"
