"""The unmodified llama-server with the plugin: several slots at once, the same request again, a conversation that goes on."""

import concurrent.futures
import contextlib
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request

from host_runs import THREADS, environment


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def server(paths, preset, log):
    """Base address of a running server; it ends with the block."""
    port = free_port()
    command = [paths.engine_bin / "llama-server", "-m", paths.smollm2, "-c", 8192, "-np", 4, "-t", THREADS, "--host", "127.0.0.1",
               "--port", port, "--no-webui"]
    with open(log, "w", encoding="utf-8") as out:
        process = subprocess.Popen([str(part) for part in command], env=environment(paths, preset), stdout=out, stderr=out)
        try:
            address = f"http://127.0.0.1:{port}"
            wait_until_ready(address, process, log)
            yield address
        finally:
            process.terminate()
            process.wait(timeout=60)


def wait_until_ready(address, process, log):
    for _ in range(600):
        assert process.poll() is None, open(log, encoding="utf-8").read()[-2000:]
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            with urllib.request.urlopen(address + "/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        time.sleep(0.2)
    raise AssertionError("the server did not become ready")


def complete(address, prompt, tokens=24):
    body = json.dumps({"prompt": prompt, "n_predict": tokens, "temperature": 0, "cache_prompt": True}).encode()
    request = urllib.request.Request(address + "/completion", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.load(answer)["content"]


def answers(paths, preset, prompts, log):
    """Texts of the prompts one after the other, the same again, and all at once."""
    with server(paths, preset, log) as address:
        first = [complete(address, prompt) for prompt in prompts]
        again = [complete(address, prompt) for prompt in prompts]
        with concurrent.futures.ThreadPoolExecutor(len(prompts)) as pool:
            together = list(pool.map(lambda prompt: complete(address, prompt), prompts))
    return first, again, together


def differences(runs):
    first, again, together = runs
    return sum(a != b for a, b in zip(first, again)) + sum(a != b for a, b in zip(first, together))


def test_slots_and_repeats_differ_no_more_often_than_the_host(paths, tmp_path):
    text = paths.text.read_text()
    prompts = [text[start:start + 1600] for start in (40_000, 160_000, 320_000, 480_000)]
    host = answers(paths, None, prompts, tmp_path / "host.log")
    ours = answers(paths, "k4v4", prompts, tmp_path / "ours.log")
    assert differences(ours) <= differences(host), (host, ours)
    assert all(ours[0]), "every answer has text"
