"""The plugin in the real vLLM. Pages of exact rows give the very text of vLLM without the plugin, whatever the scheduler does; so
what is left to go wrong are the records, and those are judged by the log-probabilities of a real model."""

import json
import os
import pathlib
import subprocess

import pytest

HERE = pathlib.Path(__file__).parent
CACHE = pathlib.Path(os.environ["KVARN_ENGINE_CACHE"])
PYTHON, PLUGIN = os.environ["KVARN_VLLM_PYTHON"], os.environ["KVARN_VLLM_PLUGIN"]


def run(program, *arguments, plugin=True, environment=None):
    """A program in vLLM's environment; its output."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("KVARN_PRESET", "VLLM_"))} | (environment or {})
    env["PYTHONPATH"] = PLUGIN if plugin else ""
    result = subprocess.run([PYTHON, HERE / program, *map(str, arguments)], env=env, capture_output=True, text=True, timeout=1500, check=False)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout + result.stderr


def model(kind):
    folder = CACHE / kind
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        run("vllm_models.py", kind, folder, os.environ["KVARN_MODEL"], plugin=False)
    return folder


def answer(kind, scenario, kvarn=None, plugin=True, **given):
    words = [f"{key}={value}" for key, value in given.items()] + ([] if kvarn is None else [f"kvarn={json.dumps(kvarn)}"])
    output = run("vllm_run.py", model(kind), scenario, *words, plugin=plugin)
    return json.loads([line for line in output.splitlines() if line.startswith("{")][-1]) | {"log": output}


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


def test_heads_that_have_no_records_are_left_to_vllm_with_one_line():
    mine = answer("tiny24", "chunks", {"preset": "k4v4"})
    assert mine["tokens"] == answer("tiny24", "chunks", plugin=False)["tokens"]
    assert mine["log"].count("KVarN is not used") == 1 and "heads of 24 channels" in mine["log"]


@pytest.mark.parametrize("preset", ["k4v4", "k4v2"])
def test_blocks_are_the_budget_over_the_page(preset):
    found = json.loads(run("vllm_quality.py", model("tiny"), "capacity", preset).splitlines()[-1])
    assert found["blocks"] == (found["budget"] - found["hot_bytes"]) // found["page_bytes"]
    assert found["page_bytes"] == {"k4v4": 37376, "k4v2": 29184}[preset]  # docs/format/tile_record.md: 2 layers, 2 heads, D = 64


# Mean KL divergence, nats a token, at the positions after the first tile; about twice what was measured.
@pytest.mark.parametrize("preset, most", [("k4v4", 0.02), ("k4v2", 0.12)])
def test_smollm2_says_nearly_what_it_says_without_the_plugin(preset, most):
    found = json.loads(run("vllm_quality.py", model("smollm2"), "divergence", preset).splitlines()[-1])
    assert 1e-6 < found["mean_kld"] < most, found
    assert found["records_read"]
