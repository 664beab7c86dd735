"""llama-server under load: many clients with prompts that share beginnings, hang-ups, slots that are saved, restored and erased, and a
prompt cache too small for them. Every answer is compared with that of the same server when nobody else asks.

Micro-batches of another composition round differently in the host itself, so an answer may part from the quiet one where two
tokens are nearly as likely. What is wrong is parting where they are not, or more often than the host does with its own cache.
Weights are f32: with quantized ones the host without the plugin parts where tokens are 5 apart.
"""

import collections
import dataclasses
import os
import random
import threading
import time
import types

import pytest

from host_runs import first_divergence
from host_server import server

CLIENTS = 8
TOKENS = 24
# Small enough that most of a prompt is sealed, with all of its sizes in play: micro-batches, tiles and prompts do not divide each other.
SMALL_TILES = {"tile": 32, "sink": 32, "tail": 64}
OPTIONS = ["-c", 16_384, "-np", CLIENTS, "--cache-ram", 24, "-b", 256, "-ub", 96]
LAYOUTS = {"unified": ["--kv-unified"], "separate": ["--no-kv-unified"]}


def soak_seconds(tier_seconds):
    return float(os.environ.get("KVARN_SOAK_SECONDS", tier_seconds))


def make_prompts(text, longest):
    """Twelve prompts of 200 characters to `longest`: two families that share beginnings of different lengths, and four strangers."""
    lengths = [longest * step // 12 for step in range(1, 13)]
    families = [text[40_000:40_000 + lengths[length]] + text[start:start + 300]
                for length, start in ((3, 90_000), (4, 95_000), (7, 99_000), (9, 104_000))]
    families += [text[200_000:200_000 + lengths[length]] + text[start:start + 200]
                 for length, start in ((2, 210_000), (5, 220_000), (6, 230_000), (8, 240_000))]
    return families + [text[start:start + lengths[length]] for start, length in
                       ((300_000, 0), (340_000, 4), (380_000, 8), (420_000, 11))]


@dataclasses.dataclass
class Outcome:
    """What the clients of one soak saw."""
    counts: collections.Counter
    gaps: list         # of quiet answers, at the token where a loaded one parted from it
    failures: list
    resident_mib: list  # one a second

    def rate(self):
        return len(self.gaps) / max(1, self.counts["answers"])


class Client(threading.Thread):
    """Does one random thing after the other until the time is over; its random numbers depend on the seed alone."""

    def __init__(self, running, number, quiet, outcome, until, seed):
        super().__init__()
        self.running, self.number, self.quiet, self.outcome, self.until = running, number, quiet, outcome, until
        self.random = random.Random(f"{seed} {number}")
        self.prompts = list(quiet)
        self.saved = None  # the prompt that the slot's file goes back to

    def run(self):
        try:
            while time.monotonic() < self.until and self.running.is_alive():
                self.step()
        except Exception as error:  # pylint: disable=broad-exception-caught
            self.outcome.failures.append(f"client {self.number}: {error!r}")

    def step(self):
        action = self.random.choices(["ask", "ask own slot", "hang up", "save", "restore", "erase"], [6, 4, 3, 2, 2, 1])[0]
        prompt = self.random.choice(self.prompts)
        self.outcome.counts[action] += 1
        if action == "ask":
            self.compare(prompt, -1)
        elif action == "ask own slot":
            self.compare(prompt, self.number)
        elif action == "hang up":
            self.running.cancel(prompt, self.random.choice([0, 1, 5, 20]), self.random.choice([-1, self.number]))
        elif action == "save":
            self.compare(prompt, self.number)
            self.slot("save")
            self.saved = prompt
        elif action == "restore" and self.saved is not None:
            self.slot("restore")
            self.compare(self.saved, self.number)
        elif action == "erase":
            self.slot("erase")

    def slot(self, action):
        status, reply = self.running.slot(self.number, action, f"client{self.number}.bin")
        # A slot that another client has emptied saves an empty file, which is a success too.
        if status != 200:
            self.outcome.failures.append(f"{action} of slot {self.number}: {status} {reply}")

    def compare(self, prompt, slot):
        answer = self.running.complete(prompt, TOKENS, slot)
        quiet = self.quiet[prompt]
        self.outcome.counts["answers"] += 1
        step = first_divergence([(token,) for token in quiet.tokens], [(token,) for token in answer.tokens])
        if step is not None:
            self.outcome.gaps.append(quiet.gaps[step] if step < len(quiet.gaps) else float("inf"))


def soak(paths, preset, folder, prompts, seconds, *options, **settings):
    """Quiet answers first, then the clients for some seconds, then the quiet answers again."""
    with server(paths, preset, folder, *OPTIONS, *options, **settings) as running:
        quiet = {}
        for prompt in prompts:
            running.slot(0, "erase")
            quiet[prompt] = running.complete(prompt, TOKENS, 0)
        outcome = Outcome(collections.Counter(), [], [], [])
        until = time.monotonic() + seconds
        clients = [Client(running, number, quiet, outcome, until, os.environ.get("KVARN_SOAK_SEED", "1")) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        while any(client.is_alive() for client in clients):
            time.sleep(1)
            if running.is_alive():
                outcome.resident_mib.append(running.resident_mib())
        for client in clients:
            client.join()
        assert running.is_alive(), running.last_words()
        for number in range(CLIENTS):
            running.slot(number, "erase")
        for prompt in prompts:
            running.slot(0, "erase")
            if running.complete(prompt, TOKENS, 0) != quiet[prompt]:
                outcome.failures.append("after the load, an empty slot gives another answer")
    print(f"{preset or 'host'} {' '.join(map(str, options))}: {dict(outcome.counts)}, {len(outcome.gaps)} parted, "
          f"gaps {sorted(outcome.gaps)[-5:]}, resident MiB {outcome.resident_mib[::max(1, len(outcome.resident_mib) // 12)]}")
    return outcome


# Log probabilities between the best and the second best token, where a quiet answer and a loaded one may part: last bits with exact
# tiles, as in the host (0.002 seen). With codes a token is read from exact rows here and from its record there, and the error of 8 bits
# is small enough that an answer made of another state is caught at once: half of the tokens of these texts are further apart. Fewer
# bits go through the same book-keeping, and part where tokens are 2 apart, seldom: there the share of clear partings is bounded.
NEARLY_AS_LIKELY = {"f16": 0.05, "k8v8": 0.25}
CLEARLY = 0.75
SHARE_OF_CLEAR_PARTINGS = {"k4v4": 0.1, "k2v2": 0.25}


@pytest.fixture(name="exact", scope="module")
def fixture_exact(paths, f32):
    """The paths, with weights of f32."""
    return types.SimpleNamespace(**{**vars(paths), "smollm2": f32["smollm2"]})


def check_answers(outcome, preset):
    assert not outcome.failures, outcome.failures
    assert outcome.counts["answers"] > 0
    if preset in NEARLY_AS_LIKELY:
        assert max(outcome.gaps, default=0.0) <= NEARLY_AS_LIKELY[preset], sorted(outcome.gaps)
    else:
        clear = sum(gap > CLEARLY for gap in outcome.gaps)
        assert clear <= max(2, SHARE_OF_CLEAR_PARTINGS[preset] * outcome.counts["answers"]), sorted(outcome.gaps)


def check_memory_is_flat(outcome):
    """After a third of the time all slots and the prompt cache have been full."""
    third = len(outcome.resident_mib) // 3
    assert max(outcome.resident_mib[2 * third:]) <= 1.02 * max(outcome.resident_mib[third:2 * third]), outcome.resident_mib[::30]


def test_many_clients_get_the_answers_of_a_quiet_server(exact, tmp_path):
    prompts = make_prompts(exact.text.read_text(), 1200)[::2]
    check_answers(soak(exact, "k8v8", tmp_path, prompts, soak_seconds(90), *LAYOUTS["unified"], **SMALL_TILES), "k8v8")


@pytest.mark.long
def test_half_an_hour_of_load_gives_no_wrong_answer_and_takes_no_more_memory(exact, tmp_path):
    prompts = make_prompts(exact.text.read_text(), 2400)
    outcome = soak(exact, "k8v8", tmp_path, prompts, soak_seconds(1800), *LAYOUTS["unified"], **SMALL_TILES)
    check_answers(outcome, "k8v8")
    check_memory_is_flat(outcome)


@pytest.fixture(name="host_rates", scope="module")
def fixture_host_rates(exact, tmp_path_factory):
    """Share of answers that part from the quiet ones with the host's own cache, by layout."""
    folder = tmp_path_factory.mktemp("host")
    prompts = make_prompts(exact.text.read_text(), 2400)
    return {layout: soak(exact, None, folder, prompts, soak_seconds(120), *options) for layout, options in LAYOUTS.items()}


@pytest.mark.long
@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("preset", [*NEARLY_AS_LIKELY, *SHARE_OF_CLEAR_PARTINGS])
def test_load_changes_no_answer_and_exact_tiles_part_no_more_often_than_the_host(exact, tmp_path, host_rates, preset, layout):
    prompts = make_prompts(exact.text.read_text(), 2400)
    outcome = soak(exact, preset, tmp_path, prompts, soak_seconds(120), *LAYOUTS[layout], **SMALL_TILES)
    check_answers(outcome, preset)
    if preset == "f16":
        host = host_rates[layout]
        # Both shares are estimates from some hundred answers: three standard deviations of their difference.
        slack = 3 * (0.25 / outcome.counts["answers"] + 0.25 / host.counts["answers"]) ** 0.5
        assert outcome.rate() <= host.rate() + slack, (outcome.rate(), host.rate())
