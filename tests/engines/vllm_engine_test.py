"""The plugin in the real vLLM. Pages of exact rows give the very text of vLLM without the plugin, whatever the scheduler does; so
what is left to go wrong are the records, and those are judged by the log-probabilities of a real model."""

import json
import os
import pathlib
import socket
import subprocess
import time
import urllib.request

import pytest

HERE = pathlib.Path(__file__).parent
CACHE = pathlib.Path(os.environ["KVARN_ENGINE_CACHE"])
PYTHON, PLUGIN = os.environ["KVARN_VLLM_PYTHON"], os.environ["KVARN_VLLM_PLUGIN"]


def environment(plugin):
    env = {name: value for name, value in os.environ.items() if not name.startswith(("KVARN_PRESET", "VLLM_"))}
    return env | {"PYTHONPATH": PLUGIN if plugin else "", "HF_HUB_OFFLINE": "1", "VLLM_CPU_CI_ENV": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}


def run(program, *arguments, plugin=True, expect_failure=False):
    """A program of this folder, or -c and a text, in vLLM's environment; its output."""
    words = [PYTHON, program if program == "-c" else HERE / program, *map(str, arguments)]
    result = subprocess.run(words, env=environment(plugin), capture_output=True, text=True, timeout=1500, check=False)
    assert (result.returncode != 0) == expect_failure, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout + result.stderr


def model(kind):
    folder = CACHE / kind
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        run("vllm_models.py", kind, folder, os.environ["KVARN_MODEL"], plugin=False)
    return folder


def last_json(output):
    """The result that a program printed; libraries may print after it."""
    return json.loads([line for line in output.splitlines() if line.startswith("{")][-1])


def answer(kind, scenario, kvarn=None, plugin=True, **given):
    words = [f"{key}={value}" for key, value in given.items()] + ([] if kvarn is None else [f"kvarn={json.dumps(kvarn)}"])
    output = run("vllm_run.py", model(kind), scenario, *words, plugin=plugin)
    return last_json(output) | {"log": output}


@pytest.fixture(name="stock", scope="module")
def fixture_stock():
    """What vLLM without the plugin answers, once for each scenario."""
    answers = {}

    def of(kind, scenario, **given):
        key = (kind, scenario, *sorted(given.items()))
        if key not in answers:
            answers[key] = answer(kind, scenario, plugin=False, **given)
        return answers[key]

    return of


# What must have happened in a scenario for it to mean anything.
HAPPENED = {"shared_prefix": "hits", "mixed": "preemptions", "chunks": None, "ngram": "accepted"}


@pytest.mark.parametrize("scenario", sorted(HAPPENED))
def test_pages_of_exact_rows_give_the_text_of_vllm(stock, scenario):
    mine, its = answer("tiny", scenario, {"preset": "rows"}), stock("tiny", scenario)
    assert mine["tokens"] == its["tokens"]
    assert HAPPENED[scenario] is None or its[HAPPENED[scenario]] > 0
    assert (mine["preemptions"], mine["hits"], mine["accepted"]) == (its["preemptions"], its["hits"], its["accepted"])


def test_exact_half_precision_pages_give_the_text_of_vllm(stock):
    assert answer("tiny", "shared_prefix", {"preset": "f16"})["tokens"] == stock("tiny", "shared_prefix")["tokens"]


def test_plugin_without_a_setting_changes_nothing(stock):
    mine = answer("tiny", "chunks")
    assert mine["tokens"] == stock("tiny", "chunks")["tokens"] and "KVarN" not in mine["log"]


@pytest.mark.parametrize("kind, scenario, deterministic, words", [
    ("alibi", "chunks", False, "ALiBi"), ("tiny", "ngram", True, "deterministic reads and speculation exclude each other")])
def test_what_the_plugin_does_not_serve_is_left_to_vllm_with_one_line(stock, kind, scenario, deterministic, words):
    mine = answer(kind, scenario, {"preset": "k4v4", "deterministic": deterministic})
    assert mine["tokens"] == stock(kind, scenario)["tokens"]
    assert mine["log"].count("KVarN is not used") == 1 and words in mine["log"]


def test_another_version_of_vllm_is_refused_with_what_to_do():
    found = run("-c", "from kvarn_vllm import shim; print(shim.findings()); print(shim.findings('0.33.1')); shim.MINOR = '0.1'; shim.check()",
                expect_failure=True)
    assert "[]\n['this is vLLM 0.33.1']" in found and "install the kvarn-vllm of this version" in found


@pytest.mark.parametrize("preset", ["k4v4", "k4v2"])
def test_blocks_are_the_budget_over_the_page(preset):
    found = last_json(run("vllm_quality.py", model("tiny"), "capacity", preset))
    assert found["blocks"] == (found["budget"] - found["hot_bytes"]) // found["page_bytes"]
    assert found["page_bytes"] == {"k4v4": 37376, "k4v2": 29184}[preset]  # docs/format/tile_record.md: 2 layers, 2 heads, D = 64


# Mean KL divergence, nats a token, at the positions after the first tile; about twice what was measured.
@pytest.mark.parametrize("preset, most", [("k4v4", 0.01), ("k4v2", 0.03)])
def test_smollm2_says_nearly_what_it_says_without_the_plugin(preset, most):
    found = last_json(run("vllm_quality.py", model("smollm2"), "divergence", preset))
    assert 1e-6 < found["mean_kld"] < most, found
    assert found["sealed"] >= found["tokens"] // 256  # most of what was read lay in records


# ---- the server, as people start it


def free_port():
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]


def resident_bytes(process):
    """Of a process and its children."""
    pages = 0
    for status in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if process in (int(status.parent.name), int(fields[1])):
            pages += int(fields[21])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(name="server")
def fixture_server(tmp_path):
    """The OpenAI server with the plugin (the command vllm of vllm-cpu 0.32 looks for a package named vllm and ends); yields its address and its process."""
    port = free_port()
    options = ["--dtype", "float32", "--max-model-len", "4096", "--max-num-seqs", "64", "--enforce-eager", "--port", str(port),
               "--additional-config", json.dumps({"kvarn": {"preset": "k4v4", "deterministic": True}})]
    with open(tmp_path / "serve.log", "w", encoding="utf-8") as log:
        with subprocess.Popen([PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", model("smollm2"), *options], env=environment(True),
                              stdout=log, stderr=subprocess.STDOUT) as process:
            try:
                wait_for(f"http://127.0.0.1:{port}/health", process, tmp_path / "serve.log")
                yield f"http://127.0.0.1:{port}", process
            finally:
                process.terminate()


def wait_for(address, process, log):
    for _ in range(600):
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(1)
    raise AssertionError(log.read_text()[-3000:])


def test_requests_at_once_get_the_answers_of_a_quiet_server(server):
    address, process = server
    count, rounds = int(os.environ.get("KVARN_REQUESTS", "64")), int(os.environ.get("KVARN_ROUNDS", "2"))
    found = last_json(run("vllm_clients.py", address, count, rounds, plugin=False))
    assert found["wrong"] == [] and found["characters"] > 10 * count
    before = resident_bytes(process.pid)
    assert last_json(run("vllm_clients.py", address, count, 1, plugin=False))["wrong"] == []
    assert resident_bytes(process.pid) < before * 1.05
