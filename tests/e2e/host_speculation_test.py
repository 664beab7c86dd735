"""Speculative decoding in llama-server for 1,000 tokens: with the plugin, drafts change the answer no more often than on the host's cache.

A micro-batch of drafts rounds otherwise than one token does, in the host itself: 20 answers of 50 tokens are compared with those of a
server that does not speculate, and the ones that part from them are counted.
"""

import pytest

from host_server import server

PRESETS = ["f16", "k8v8", "k4v4", "k2v2"]
PROMPTS = 20
TOKENS = 50


def answers(paths, preset, folder, draft):
    """Texts, and how many drafts were made and accepted."""
    options = [] if draft is None else ["-md", draft, "--spec-type", "draft-simple", "--spec-draft-n-max", 5]
    text = paths.text.read_text()
    drafted = accepted = 0
    texts = []
    with server(paths, preset, folder, "-np", 1, "-c", 1024, *options) as running:
        for start in range(40_000, 40_000 + PROMPTS * 20_000, 20_000):
            running.slot(0, "erase")
            status, reply = running.post("/completion", {"prompt": text[start:start + 1300], "n_predict": TOKENS, "temperature": 0, "ignore_eos": True})
            assert status == 200, reply
            texts.append(reply["content"])
            drafted += reply["timings"].get("draft_n", 0)
            accepted += reply["timings"].get("draft_n_accepted", 0)
    return texts, drafted, accepted


def parted(paths, preset, folder, draft):
    """How many answers drafts change, and the share of drafts that are accepted."""
    plain, none, _ = answers(paths, preset, folder, None)
    speculative, drafted, accepted = answers(paths, preset, folder, draft)
    assert none == 0 and drafted > 0
    return sum(one != other for one, other in zip(plain, speculative)), accepted / drafted


@pytest.mark.long
@pytest.mark.parametrize("draft", ["itself", "poor"])
def test_drafts_change_the_answer_no_more_often_than_on_the_host(paths, poor_draft, draft, tmp_path):
    model = paths.smollm2 if draft == "itself" else poor_draft
    host, host_accepted = parted(paths, None, tmp_path, model)
    assert host_accepted > 0.8 if draft == "itself" else host_accepted < 0.4
    ours = {preset: parted(paths, preset, tmp_path, model) for preset in PRESETS}
    print(f"draft {draft}: host {host} of {PROMPTS} parted, {host_accepted:.2f} accepted; with the plugin {ours}")
    assert max(count for count, _ in ours.values()) <= host, (host, ours)
