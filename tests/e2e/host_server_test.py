"""The unmodified llama-server with the plugin: several slots at once, the same request again, slots that are saved, restored and erased."""

import concurrent.futures
import dataclasses

import pytest

from host_runs import long
from host_server import server

PRESETS = ["f16", "k8v8", "k4v4", "k2v2"]
QUICK = ["k4v4", *map(long, ("f16", "k8v8", "k2v2"))]


@dataclasses.dataclass(frozen=True)
class Script:
    """Texts of one conversation: how it begins, how it goes on, and another one. Answers are shorter than the exact tail."""
    start: str
    longer: str
    other: str
    settings: dict
    tokens: int = 32


@pytest.fixture(name="small_tiles", scope="module")
def fixture_small_tiles(paths):
    """About 250 tokens, then 450: most of their tiles are sealed."""
    text = paths.text.read_text()
    start = text[40_000:41_000]
    return Script(start, start + text[320_000:320_900], text[160_000:161_000], {"tile": 32, "sink": 32, "tail": 64})


@pytest.fixture(name="large_tiles", scope="module")
def fixture_large_tiles(paths):
    """About 600 tokens, then 1,000, with the plugin's own sink, tail and tile."""
    text = paths.text.read_text()
    start = text[40_000:42_600]
    return Script(start, start + text[320_000:321_700], text[160_000:166_000], {}, tokens=64)


def ok(reply):
    status, body = reply
    assert status == 200, body
    return body


@dataclasses.dataclass
class Conversation:
    """The requests of a script, one at a time, all of them greedy."""
    running: object
    script: Script

    def start(self, slot):
        return self.running.complete(self.script.start, self.script.tokens, slot)

    def longer(self, slot):
        return self.running.complete(self.script.longer, self.script.tokens, slot)

    def other(self, slot):
        return self.running.complete(self.script.other, self.script.tokens, slot)


def check_one_client(paths, preset, script, folder):
    """Whatever happened to a slot in between, the same request on the same state has the same answer.

    A prompt read from its start and one whose last token alone is read again are micro-batches of different sizes, which the
    host itself rounds differently: they are compared like with like.
    """
    with server(paths, preset, folder, **script.settings) as running:
        talk = Conversation(running, script)
        cold, warm = talk.start(0), talk.start(0)
        assert talk.start(0) == warm, "repeated"
        ok(running.slot(0, "erase"))
        assert talk.start(0) == cold, "erased and read again"
        assert talk.start(0) == warm, "repeated after the erase"
        saved = ok(running.slot(0, "save"))
        assert talk.start(0) == warm, "after the save"
        longer = talk.longer(0)
        other = talk.other(0)  # the slot's cells are written anew
        assert ok(running.slot(0, "restore"))["n_restored"] == saved["n_saved"]
        assert talk.start(0) == warm, "restored"
        assert talk.longer(0) == longer, "goes on after the restore as after the save"
        assert talk.other(3) == other, "in another slot"
        ok(running.slot(2, "restore"))
        assert talk.start(2) == warm, "restored into another slot, among others' cells"
        assert talk.longer(2) == longer, "goes on in another slot"
        assert talk.other(3) == talk.other(3), "the neighbour did not change"
    with server(paths, preset, folder, **script.settings) as running:
        talk = Conversation(running, script)
        ok(running.slot(1, "restore"))
        assert talk.start(1) == warm, "restored in another process"
        assert talk.longer(1) == longer, "goes on in another process"


@pytest.mark.parametrize("preset", QUICK)
def test_one_client_gets_the_same_answers_after_save_restore_and_erase(paths, preset, small_tiles, tmp_path):
    check_one_client(paths, preset, small_tiles, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("preset", PRESETS)
def test_one_client_gets_the_same_answers_with_tiles_of_128_tokens(paths, preset, large_tiles, tmp_path):
    check_one_client(paths, preset, large_tiles, tmp_path)


def answers(paths, preset, texts, folder):
    """Answers to prompts one after the other, the same again, and all at once.

    A micro-batch reads records of the tiles that its first token has behind its tail, so tiles that lie in the tail are exact while a
    prompt is read and records when its last token is read again. Micro-batches here begin at 200 and 400, and of tiles of 128 tokens, one
    exact in front and one behind, the first becomes a record with token 384 and the next with token 512: every answer to 440 tokens, the
    first one or a repeat, begins with the same values.
    """
    with server(paths, preset, folder, "-ub", 200) as running:
        prompts = [running.tokens(text)[:440] for text in texts]
        assert {len(prompt) for prompt in prompts} == {440}
        first = [running.complete(prompt).text for prompt in prompts]
        again = [running.complete(prompt).text for prompt in prompts]
        with concurrent.futures.ThreadPoolExecutor(len(prompts)) as pool:
            together = list(pool.map(lambda prompt: running.complete(prompt).text, prompts))
    return first, again, together


def differences(runs):
    first, again, together = runs
    return sum(a != b for a, b in zip(first, again)) + sum(a != b for a, b in zip(first, together))


def test_slots_and_repeats_differ_no_more_often_than_the_host(paths, tmp_path):
    text = paths.text.read_text()
    texts = [text[start:start + 3000] for start in (40_000, 160_000, 320_000, 480_000)]
    host = answers(paths, None, texts, tmp_path)
    ours = answers(paths, "k4v4", texts, tmp_path)
    print(f"{differences(host)} of 8 answers differ on the host's own cache, {differences(ours)} on k4v4")
    assert differences(ours) <= differences(host), (host, ours)
    assert all(ours[0]), "every answer has text"
