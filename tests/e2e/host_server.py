"""A running llama-server of the unmodified host, with the plugin or without, and the requests that tests make of it."""

import contextlib
import dataclasses
import http.client
import json
import pathlib
import socket
import subprocess
import time
import urllib.error
import urllib.request

from host_runs import THREADS, environment

REQUEST_SECONDS = 600


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the server wrote, token by token: ids, and the gap in log probability between the best and the second best."""
    text: str
    tokens: tuple
    gaps: tuple


@dataclasses.dataclass(frozen=True)
class Server:
    """One server process at `address`, which writes its output to `log` and its slots to `slot_folder`."""
    port: int
    process: subprocess.Popen
    log: pathlib.Path
    slot_folder: pathlib.Path

    def post(self, path, body):
        """Status and JSON of the reply; a status that is no success is no exception."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_SECONDS) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def complete(self, prompt, tokens=24, slot=-1):
        """The greedy answer to a prompt; the slot keeps what it has of the prompt from earlier requests."""
        status, reply = self.post("/completion", completion(prompt, tokens, slot) | {"n_probs": 2})
        assert status == 200, reply
        return answer(reply)

    def cancel(self, prompt, after_tokens, slot=-1):
        """Asks for a long answer and hangs up after a few tokens of it (0: before the first)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=REQUEST_SECONDS)
        connection.request("POST", "/completion", json.dumps(completion(prompt, 400, slot) | {"stream": True}),
                           {"Content-Type": "application/json"})
        if after_tokens > 0:
            reply = connection.getresponse()
            for _ in range(after_tokens):
                reply.readline()
        connection.close()

    def slot(self, number, action, name="slot.bin"):
        """Status and reply of a save, restore or erase of a slot."""
        return self.post(f"/slots/{number}?action={action}", {"filename": name})

    def resident_mib(self):
        """Anonymous resident memory of the process: without the files it maps."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon:"))) / 1024

    def is_alive(self):
        return self.process.poll() is None

    def last_words(self):
        return self.log.read_text(encoding="utf-8", errors="replace")[-3000:]


def completion(prompt, tokens, slot):
    return {"prompt": prompt, "n_predict": tokens, "temperature": 0, "cache_prompt": True, "id_slot": slot, "ignore_eos": True}


def answer(reply):
    steps = reply["completion_probabilities"]
    tops = [[top["logprob"] for top in step["top_logprobs"]] for step in steps]
    return Answer(reply["content"], tuple(step["id"] for step in steps), tuple(top[0] - top[1] for top in tops))


@contextlib.contextmanager
def server(paths, preset, folder, *options, wrapper=(), **settings):
    """A server that ends with the block: 4 slots over 8,192 tokens unless the options say otherwise. preset None: without the plugin.

    wrapper: a command that starts the one behind it, for limits that the server alone is to have.
    """
    folder.mkdir(exist_ok=True)
    port = free_port()
    log = folder / f"{preset or 'host'}-{port}.log"
    command = [*wrapper, paths.engine_bin / "llama-server", "-m", paths.smollm2, "-c", 8192, "-np", 4, "-t", THREADS, "--host", "127.0.0.1",
               "--port", port, "--no-webui", "--slot-save-path", folder, *options]
    with open(log, "w", encoding="utf-8") as out:
        process = subprocess.Popen([str(part) for part in command], env=environment(paths, preset, **settings), stdout=out, stderr=out)
        running = Server(port, process, log, folder)
        try:
            wait_until_ready(running)
            yield running
        finally:
            process.terminate()
            process.wait(timeout=60)


def wait_until_ready(running):
    for _ in range(600):
        assert running.is_alive(), running.last_words()
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            with urllib.request.urlopen(f"http://127.0.0.1:{running.port}/health", timeout=5) as reply:
                if reply.status == 200:
                    return
        time.sleep(0.1)
    raise AssertionError("the server did not become ready")
