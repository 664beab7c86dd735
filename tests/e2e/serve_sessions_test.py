"""Sessions by name in front of the unmodified llama-server: parked when others need the slot, resumed by name, across restarts."""

import json
import sys
import urllib.request

import pytest

from host_runs import THREADS, environment
from host_server import Server, answer, completion
from server_process import server_process

SLOTS = 2
NAMES = ["ada", "bob", "cy", "dan"]


def proxy(paths, preset, folder, sessions):
    """The server behind the proxy; preset None: without the plugin."""
    script = paths.root / "hosts/llama_server/session_proxy.py"
    command = [sys.executable, "-B", script, "--sessions", sessions, "--", paths.engine_bin / "llama-server", "-m", paths.smollm2,
               "-c", 2048 * SLOTS, "-np", SLOTS, "-t", THREADS, "--cache-ram", 0]
    return server_process(command, environment(paths, preset), folder, Server)


def ask(running, session, prompt, tokens=8):
    status, reply = running.post("/completion", completion(prompt, tokens, -1) | {"n_probs": 2, "session": session})
    assert status == 200, reply
    return answer(reply), reply["timings"]


def call(running, method, path):
    with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{running.port}{path}", method=method), timeout=60) as reply:
        return json.load(reply)


@pytest.fixture(name="prompts", scope="module")
def fixture_prompts(paths):
    text = paths.text.read_text()
    return {name: text[40_000 + 50_000 * at:][:1800] for at, name in enumerate(NAMES)}


def test_more_sessions_than_slots_go_on_by_name_and_after_a_restart(paths, tmp_path, prompts):
    with proxy(paths, "k4v4", tmp_path, tmp_path / "sessions") as running:
        first = {name: ask(running, name, prompts[name])[0] for name in NAMES}
        for name in NAMES:
            longer = prompts[name] + first[name].text + " And then"
            _, timings = ask(running, name, longer)
            assert timings["prompt_n"] < 10, f"{name} was read again: {timings}"
        listed = call(running, "GET", "/sessions")
        assert [one["name"] for one in listed] == NAMES and sum(one["in_slot"] for one in listed) == SLOTS
    with proxy(paths, "k4v4", tmp_path, tmp_path / "sessions") as running:
        for name in NAMES:
            _, timings = ask(running, name, prompts[name] + first[name].text + " And then")
            assert timings["prompt_n"] < 20, f"{name} was read again: {timings}"
        call(running, "DELETE", "/sessions/bob")
        assert "bob" not in [one["name"] for one in call(running, "GET", "/sessions")]
        _, timings = ask(running, "bob", prompts["bob"])
        assert timings["prompt_n"] > 100


def test_clients_without_a_name_and_with_odd_ones(paths, tmp_path, prompts):
    with proxy(paths, "k4v4", tmp_path, tmp_path / "sessions") as running:
        ask(running, "ada", prompts["ada"])
        for _ in range(3):
            status, reply = running.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4})
            assert status == 200 and reply["choices"], reply
        _, timings = ask(running, "ada", prompts["ada"])
        assert timings["prompt_n"] < 10, "a client without a name took the session's slot"
        for name in ("../ada", "", "a" * 101, 7):
            status, reply = running.post("/completion", completion("Hello", 4, -1) | {"session": name})
            assert status == 400 and "session's name" in reply["error"]["message"], reply
        assert not list(tmp_path.glob("*.slot"))


def test_damaged_session_is_refused_and_can_be_forgotten(paths, tmp_path, prompts):
    sessions = tmp_path / "sessions"
    with proxy(paths, "k4v4", tmp_path, sessions) as running:
        ask(running, "ada", prompts["ada"])
    file = sessions / "ada.slot"
    file.write_bytes(file.read_bytes()[:5000])
    with proxy(paths, "k4v4", tmp_path, sessions) as running:
        status, reply = running.post("/completion", completion("Hello", 4, -1) | {"session": "ada"})
        assert status == 409 and "cannot be restored" in reply["error"]["message"], reply
        call(running, "DELETE", "/sessions/ada")
        ask(running, "ada", prompts["ada"])
