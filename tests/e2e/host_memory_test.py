"""Memory of the unmodified llama-server with the plugin: addresses are not memory, and a cache that is full fails a request."""

import concurrent.futures
import json
import resource
import urllib.request

import pytest

from host_runs import THREADS, environment
from server_process import server_process


def limited_server(paths, folder, *arguments, keeps_layers=True, **settings):
    """A server with these options and settings of the plugin; it keeps its layers on the plugin's device as ./kvarn serve says."""
    layers = ["-ngl", 999] if keeps_layers else []
    command = [paths.engine_bin / "llama-server", "-m", paths.smollm2, "-t", THREADS, *layers, *arguments]
    return server_process(command, environment(paths, "k4v4", **settings), folder)


def ask(running, prompt, tokens):
    body = {"prompt": prompt, "n_predict": tokens, "temperature": 0, "cache_prompt": True}
    return running.post("/completion", body)


def complete(running, prompt, tokens=24):
    status, reply = ask(running, prompt, tokens)
    assert status == 200, reply
    return reply["content"]


def fails(running, prompt):
    """A request that must get an error for what happens while it is computed."""
    status, reply = ask(running, prompt, 4)
    assert status == 500 and "Compute error" in reply["error"]["message"], reply


def get(running, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{running.port}{path}", timeout=60) as reply:
        return json.load(reply)


def is_healthy(running):
    return running.is_alive() and get(running, "/health")["status"] == "ok"


def address_bytes(running):
    with open(f"/proc/{running.process.pid}/status", encoding="utf-8") as status:
        line = next(line for line in status if line.startswith("VmSize:"))
    return int(line.split()[1]) * 1024


def test_a_context_of_two_million_tokens_takes_addresses_only(paths, tmp_path):
    with limited_server(paths, tmp_path, "-c", 2 * 2**20, "-np", 16, "--no-kv-unified") as running:
        assert address_bytes(running) > 40 * 2**30, "f16 rows of so many cells would be 45 GiB"
        assert running.resident_mib() < 512
        assert complete(running, "Once upon a time", tokens=4)


@pytest.mark.parametrize("layout", ["--kv-unified", "--no-kv-unified"])
def test_a_full_cache_fails_the_request_and_serves_the_next(paths, tmp_path, layout):
    text = paths.text.read_text()
    long_prompt, short_prompt = text[:5000], "The capital of France is"
    options = ["-c", 16384, "-np", 2, layout, "--cache-ram", 0]
    with limited_server(paths, tmp_path, *options, limit="16M") as running:
        before = complete(running, short_prompt)
        fails(running, long_prompt)
        assert is_healthy(running)
        assert complete(running, short_prompt) == before
        fails(running, long_prompt)
        assert complete(running, short_prompt) == before
        said = [line for line in running.output().splitlines() if "the cache is full" in line]
    assert said and all("of 16.0 MiB, KVARN_LIMIT" in line for line in said)
    assert len(said) == 2, said


def test_fit_chooses_a_context_that_the_limit_can_hold(paths, tmp_path):
    options = ["--fit", "on", "--fit-ctx", 512, "-np", 1, "--cache-ram", 0, "-b", 512]
    with limited_server(paths, tmp_path, *options, limit="28M") as running:
        context = get(running, "/props")["default_generation_settings"]["n_ctx"]
        assert 1536 <= context < 4096, "chosen for the limit, beyond what f16 would hold (1,274 tokens)"
        text = paths.text.read_text()
        tokens = running.post("/tokenize", {"content": text[:8 * context]})[1]["tokens"][:context - 64]
        assert complete(running, tokens, tokens=8)


@pytest.mark.parametrize("keeps_layers", [True, False])
def test_layers_that_fit_moves_away_are_said(paths, tmp_path, keeps_layers):
    options = ["-c", 65536, "-np", 1, "--cache-ram", 0]
    with limited_server(paths, tmp_path, *options, keeps_layers=keeps_layers, limit="16M") as running:
        assert complete(running, "Once upon a time", tokens=4)
        said = [line for line in running.output().splitlines() if "KVarN is inactive for some layers" in line]
    assert len(said) == (0 if keeps_layers else 1) and all("-ngl 999" in line for line in said)


def test_a_request_beside_one_that_fails_can_be_made_again(paths, tmp_path):
    text = paths.text.read_text()
    prompts = [text[start:start + 1200] for start in (50_000, 90_000)]
    options = ["-c", 16384, "-np", 3, "--no-kv-unified", "--cache-ram", 0]
    with limited_server(paths, tmp_path, *options, limit="20M") as running:
        alone = [complete(running, prompt, tokens=8) for prompt in prompts]
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            large = pool.submit(fails, running, text[:8000])
            for prompt in prompts:
                ask(running, prompt, 8)  # may fail: the server gives up the whole batch
            large.result()
        assert running.is_alive()
        assert [complete(running, prompt, tokens=8) for prompt in prompts] == alone


def test_a_system_without_memory_fails_the_request_and_serves_the_next(paths, tmp_path):
    options = ["-c", 8192, "-np", 1, "--cache-ram", 0]
    with limited_server(paths, tmp_path, *options) as running:
        before = complete(running, "The capital of France is")
        limit = address_bytes(running) + 8 * 2**20
        resource.prlimit(running.process.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        fails(running, paths.text.read_text()[:8000])
        resource.prlimit(running.process.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert is_healthy(running)
        assert complete(running, "The capital of France is") == before
        assert "out of memory" in running.output()
