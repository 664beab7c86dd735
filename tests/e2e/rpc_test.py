"""ggml-rpc-server with the plugin: an unmodified llama.cpp without it keeps model and compressed cache in the second process."""

import contextlib
import re
import socket
import subprocess
import time

import pytest

from host_runs import THREADS, environment, run
from server_process import free_port

SMALL_TILES = {"tile": 16, "sink": 16, "tail": 16}
DEVICE = "KVarN: compressed KV cache"


def wait_until_listening(port, process, log):
    for _ in range(300):
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise AssertionError("the server did not listen")


@contextlib.contextmanager
def rpc_server(paths, preset, log, **settings):
    """Address of a running server; it ends with the block."""
    port = free_port()
    command = [paths.engine_bin / "ggml-rpc-server", "-H", "127.0.0.1", "-p", port, "-t", THREADS]
    with open(log, "w", encoding="utf-8") as out:
        process = subprocess.Popen([str(part) for part in command], env=environment(paths, preset, **settings), stdout=out, stderr=out)
        try:
            wait_until_listening(port, process, log)
            yield f"127.0.0.1:{port}"
            assert process.poll() is None, log.read_text()
        finally:
            process.terminate()
            process.wait(timeout=60)


def complete(paths, address, prompt, *options, model=None, tokens=16):
    """What the client writes; the whole model is on the server."""
    command = [paths.engine_bin / "llama-completion", "-m", model or paths.smollm2, "-f", prompt, "-n", tokens, "--temp", 0, "-t", THREADS,
               "-c", 512, "-no-cnv", "--no-warmup", "--rpc", address, *options]
    result = run(paths, None, command)
    assert result.returncode == 0, result.stderr
    assert "KVarN" not in result.stderr
    return result


def account(log):
    """MiB of records and of f16 that the last cache took, as the server says when its client has gone."""
    for _ in range(300):
        found = re.findall(r"KVarN: cache of \d+ tensors, .*\(records ([0-9.]+),.*f16 would take ([0-9.]+)", log.read_text())
        if found:
            return float(found[-1][0]), float(found[-1][1])
        time.sleep(0.1)
    raise AssertionError(log.read_text())


@pytest.fixture(name="prompt")
def fixture_prompt(paths, tmp_path):
    prompt = tmp_path / "prompt.txt"
    prompt.write_text(paths.text.read_text()[150_000:150_600])
    return prompt


def test_second_process_holds_the_compressed_cache(paths, prompt, tmp_path):
    log = tmp_path / "server.log"
    with rpc_server(paths, "k4v4", log, **SMALL_TILES) as address:
        text = complete(paths, address, prompt).stdout
        records, f16 = account(log)
    assert DEVICE in log.read_text() and "inactive" not in log.read_text()
    assert 0.1 * f16 < records < 0.4 * f16
    assert len(text) > len(prompt.read_text())


def test_saved_prompt_is_restored_into_the_second_process(paths, prompt, tmp_path):
    """The first client saves; the second, a process of its own, goes on from the file without reading the prompt again."""
    saved, log = tmp_path / "prompt.cache", tmp_path / "server.log"
    with rpc_server(paths, "k4v4", log, level="fast", **SMALL_TILES) as address:
        first = complete(paths, address, prompt, "--prompt-cache", saved)
        second = complete(paths, address, prompt, "--prompt-cache", saved, "--prompt-cache-ro")
        assert account(log)[0] > 0
    assert "loaded a session with prompt size of" in second.stderr
    assert first.stdout == second.stdout


@pytest.mark.long
def test_exact_tiles_give_the_text_of_a_server_without_the_plugin(paths, prompt, tmp_path):
    f32 = tmp_path / "f32.gguf"  # with quantized weights a change of the last bit of attention moves logits by tenths
    assert run(paths, None, [paths.program.parent / "f32_model", paths.smollm2, f32]).returncode == 0
    with rpc_server(paths, None, tmp_path / "host.log") as address:
        host = complete(paths, address, prompt, model=f32)
    with rpc_server(paths, "f16", tmp_path / "ours.log") as address:
        ours = complete(paths, address, prompt, model=f32)
    f32.unlink()
    assert host.stdout == ours.stdout


@pytest.mark.long
def test_cache_that_is_not_served_stays_plain_in_the_second_process(paths, prompt, tmp_path):
    with rpc_server(paths, None, tmp_path / "host.log") as address:
        host = complete(paths, address, prompt, "-ctk", "q8_0", "-ctv", "q8_0")
    with rpc_server(paths, "k4v4", tmp_path / "ours.log") as address:
        ours = complete(paths, address, prompt, "-ctk", "q8_0", "-ctv", "q8_0")
    assert host.stdout == ours.stdout
    assert len(re.findall("KVarN is inactive", (tmp_path / "ours.log").read_text())) == 1
