"""A running llama-server of the unmodified host, with the plugin or without, and the requests that tests make of it."""

import dataclasses
import http.client
import json
import time
import urllib.request

from host_runs import THREADS, environment
from server_process import REQUEST_SECONDS, ServerProcess, server_process


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the server wrote, token by token: ids, and the gap in log probability between the best and the second best."""
    text: str
    tokens: tuple
    gaps: tuple


class Server(ServerProcess):
    """A server process and its greedy answers."""

    def complete(self, prompt, tokens=24, slot=-1):
        """The greedy answer to a prompt; the slot keeps what it has of the prompt from earlier requests."""
        status, reply = self.post("/completion", completion(prompt, tokens, slot) | {"n_probs": 2})
        assert status == 200, reply
        return answer(reply)

    def cancel(self, prompt, after_tokens, slot=-1):
        """Asks for a long answer and hangs up after a few tokens of it (0: before the first).

        Of any slot, 0 may be before the server has read the request. Of a slot by number, the request is in the slot by then, and the
        slot is free again afterwards: to a request for a slot that is at work the server (0.5.0) gives its state from the prompt
        cache at once, so that the answer under way goes on from another text.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=REQUEST_SECONDS)
        connection.request("POST", "/completion", json.dumps(completion(prompt, 400, slot) | {"stream": True}),
                           {"Content-Type": "application/json"})
        if after_tokens > 0 or slot >= 0:
            reply = connection.getresponse()
            for _ in range(after_tokens):
                reply.readline()
            reply.close()
        connection.close()
        while slot >= 0 and self.slots()[slot]["is_processing"]:
            time.sleep(0.02)

    def slots(self):
        """What the server says of its slots."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/slots", timeout=REQUEST_SECONDS) as reply:
            return json.load(reply)

    def slot(self, number, action, name="slot.bin"):
        """Status and reply of a save, restore or erase of a slot."""
        return self.post(f"/slots/{number}?action={action}", {"filename": name})

    def tokens(self, text):
        """The token ids of a text, which may take the place of a prompt."""
        status, reply = self.post("/tokenize", {"content": text})
        assert status == 200, reply
        return reply["tokens"]

    def last_words(self):
        return self.output()[-3000:]


def completion(prompt, tokens, slot):
    return {"prompt": prompt, "n_predict": tokens, "temperature": 0, "cache_prompt": True, "id_slot": slot, "ignore_eos": True}


def answer(reply):
    steps = reply["completion_probabilities"]
    tops = [[top["logprob"] for top in step["top_logprobs"]] for step in steps]
    return Answer(reply["content"], tuple(step["id"] for step in steps), tuple(top[0] - top[1] for top in tops))


def server(paths, preset, folder, *options, wrapper=(), **settings):
    """A server that ends with the block: 4 slots over 8,192 tokens unless the options say otherwise; its slot files are in `folder`.

    preset None: without the plugin. wrapper: a command that starts the one behind it, for limits that the server alone is to have.
    """
    command = [*wrapper, paths.engine_bin / "llama-server", "-m", paths.smollm2, "-c", 8192, "-np", 4, "-t", THREADS,
               "--slot-save-path", folder, *options]
    return server_process(command, environment(paths, preset, **settings), folder, Server)
