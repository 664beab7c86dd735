"""Memory of the unmodified llama-server with the plugin: addresses are not memory, and a cache that is full fails a request."""

import concurrent.futures
import contextlib
import json
import resource
import subprocess
import urllib.error
import urllib.request

import pytest

from host_runs import THREADS, environment
from host_server_test import complete, free_port, wait_until_ready


@contextlib.contextmanager
def limited_server(paths, log, *arguments, **settings):
    """Address and process of a server with these options and settings of the plugin."""
    port = free_port()
    command = [paths.engine_bin / "llama-server", "-m", paths.smollm2, "-t", THREADS, "--host", "127.0.0.1", "--port", port,
               "--no-webui", *arguments]

    with open(log, "w", encoding="utf-8") as out:
        process = subprocess.Popen([str(part) for part in command], env=environment(paths, "k4v4", **settings), stdout=out,
                                   stderr=out)
        try:
            address = f"http://127.0.0.1:{port}"
            wait_until_ready(address, process, log)
            yield address, process
        finally:
            process.terminate()
            process.wait(timeout=60)


def post(address, path, body):
    request = urllib.request.Request(address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.load(answer)


def memory_bytes(process, field):
    with open(f"/proc/{process.pid}/status", encoding="utf-8") as status:
        line = next(line for line in status if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024


def fails(address, prompt):
    """A request that must get an error; returns its message."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        complete(address, prompt, tokens=4)
    assert caught.value.code >= 400
    return json.load(caught.value)["error"]["message"]


def is_healthy(address):
    with urllib.request.urlopen(address + "/health", timeout=60) as answer:
        return answer.status == 200


def test_a_context_of_two_million_tokens_takes_addresses_only(paths, tmp_path):
    with limited_server(paths, tmp_path / "log", "-c", 2 * 2**20, "-np", 16, "--no-kv-unified", "--fit", "off") as (address, process):
        assert memory_bytes(process, "VmSize") > 40 * 2**30, "f16 rows of so many cells would be 45 GiB"
        assert memory_bytes(process, "RssAnon") < 512 * 2**20
        assert complete(address, "Once upon a time", tokens=4)


@pytest.mark.parametrize("layout", ["--kv-unified", "--no-kv-unified"])
def test_a_full_cache_fails_the_request_and_serves_the_next(paths, tmp_path, layout):
    text = paths.text.read_text()
    long_prompt, short_prompt = text[:5000], "The capital of France is"
    log = tmp_path / "log"
    options = ["-c", 16384, "-np", 2, layout, "--cache-ram", 0]
    with limited_server(paths, log, *options, limit="16M") as (address, process):
        before = complete(address, short_prompt)
        assert "error" in fails(address, long_prompt).lower()
        assert process.poll() is None and is_healthy(address)
        assert complete(address, short_prompt) == before
        fails(address, long_prompt)
        assert complete(address, short_prompt) == before
    said = [line for line in log.read_text().splitlines() if "the cache is full" in line]
    assert said and all("of 16.0 MiB, KVARN_LIMIT" in line for line in said)
    assert len(said) == 2, said


def test_fit_chooses_a_context_that_the_limit_can_hold(paths, tmp_path):
    log = tmp_path / "log"
    options = ["--fit", "on", "--fit-target", 0, "--fit-ctx", 512, "-np", 1, "--cache-ram", 0, "-b", 512]
    with limited_server(paths, log, *options, limit="28M") as (address, _):
        with urllib.request.urlopen(address + "/props", timeout=60) as answer:
            context = json.load(answer)["default_generation_settings"]["n_ctx"]
        assert 1536 <= context < 4096, "chosen for the limit, beyond what f16 would hold (1,274 tokens)"
        text = paths.text.read_text()
        tokens = post(address, "/tokenize", {"content": text[:8 * context]})["tokens"][:context - 64]
        assert complete(address, tokens, tokens=8)


def test_a_request_beside_one_that_fails_can_be_made_again(paths, tmp_path):
    text = paths.text.read_text()
    prompts = [text[start:start + 1200] for start in (50_000, 90_000)]
    options = ["-c", 16384, "-np", 3, "--no-kv-unified", "--cache-ram", 0]
    with limited_server(paths, tmp_path / "log", *options, limit="20M") as (address, process):
        alone = [complete(address, prompt, tokens=8) for prompt in prompts]
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            large = pool.submit(fails, address, text[:8000])
            for prompt in prompts:
                with contextlib.suppress(urllib.error.HTTPError):  # the server gives up the whole batch
                    complete(address, prompt, tokens=8)
            large.result()
        assert process.poll() is None
        assert [complete(address, prompt, tokens=8) for prompt in prompts] == alone


def test_a_system_without_memory_fails_the_request_and_serves_the_next(paths, tmp_path):
    log = tmp_path / "log"
    options = ["-c", 8192, "-np", 1, "--cache-ram", 0]
    with limited_server(paths, log, *options) as (address, process):
        before = complete(address, "The capital of France is")
        limit = memory_bytes(process, "VmSize") + 8 * 2**20
        resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        fails(address, paths.text.read_text()[:8000])
        resource.prlimit(process.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert process.poll() is None and is_healthy(address)
        assert complete(address, "The capital of France is") == before
    assert "out of memory" in log.read_text()
