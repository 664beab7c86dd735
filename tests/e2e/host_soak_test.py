"""llama-server under load: many clients with prompts that share beginnings, hang-ups, slots that are saved, restored and erased, and a
prompt cache too small for them. Every answer is compared with that of the same server when nobody else asks.

Micro-batches of another composition round differently in the host itself, so an answer may part from the quiet one where two
tokens are nearly as likely, and only there. Weights are f32, so that rounding parts answers by last bits. Clients ask either always
for a slot of their own or never for a slot by number: see Server.cancel for what the host does to a slot that two requests name.
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
CELLS = 4096  # where memory is watched: enough for all clients at once
ROUNDS = 18
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
    full_mib: list  # resident after every round of load, with one text in every cell


class Client(threading.Thread):
    """Does one random thing after the other until the time is over; its random numbers depend on seed and round alone."""

    def __init__(self, running, number, quiet, outcome, until, keeps_slot):
        super().__init__()
        seed = f'{os.environ.get("KVARN_SOAK_SEED", "1")} {outcome.counts["rounds"]}'
        self.asked_slot = number if keeps_slot else -1
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
        action = self.random.choices(["ask", "hang up", "save", "restore", "erase"], [10, 3, 2, 2, 1])[0]
        prompt = self.random.choice(self.prompts)
        self.outcome.counts[action] += 1
        if action == "ask":
            self.compare(prompt)
        elif action == "hang up":
            self.running.cancel(prompt, self.random.choice([0, 1, 5, 20]), self.asked_slot)
        elif action == "save":
            self.compare(prompt)
            self.slot("save")
            self.saved = prompt
        elif action == "restore" and self.saved is not None:
            self.slot("restore")
            self.compare(self.saved)
        elif action == "erase":
            self.slot("erase")

    def slot(self, action):
        status, reply = self.running.slot(self.number, action, f"client{self.number}.bin")
        # A slot that another client has emptied saves an empty file, which is a success too.
        if status != 200:
            self.outcome.failures.append(f"{action} of slot {self.number}: {status} {reply}")

    def compare(self, prompt):
        answer = self.running.complete(prompt, TOKENS, self.asked_slot)
        quiet = self.quiet[prompt]
        self.outcome.counts["answers"] += 1
        step = first_divergence([(token,) for token in quiet.tokens], [(token,) for token in answer.tokens])
        if step is not None:
            self.outcome.gaps.append(quiet.gaps[step] if step < len(quiet.gaps) else float("inf"))


# Large blocks are given back to the system when they are freed, so that what is resident is what is in use.
GIVES_BACK = ["env", "MALLOC_MMAP_THRESHOLD_=131072"]


def erase_all(running):
    for number in range(CLIENTS):
        running.slot(number, "erase")


def answer_all(running, prompts):
    """The answers of a server that has nothing else to do and no text in its slots."""
    erase_all(running)
    answers = {}
    for prompt in prompts:
        running.slot(0, "erase")
        answers[prompt] = running.complete(prompt, TOKENS, 0)
    return answers


def mib_when_full(running, text):
    """Resident memory with the same text in (nearly) all cells. The host tells nobody that cells are free: what was in them stays until
    something else is, so that before every cell was used once, memory grows, and afterwards depends on what was last in them."""
    erase_all(running)
    running.complete(running.tokens(text[:40_000])[:CELLS - 32], 1, 0)
    return running.resident_mib()


def soak(paths, preset, folder, prompts, seconds, *options, keeps_slot, rounds=1, fill=None, **settings):
    """Quiet answers first, then the clients for some seconds and the quiet answers again, round after round; then, if there is a text to
    fill all cells with, how much memory is in use. keeps_slot: every client asks for a slot of its own; else the server chooses, and the
    slot that a client saves, restores and erases is anybody's."""
    outcome = Outcome(collections.Counter(), [], [], [])
    with server(paths, preset, folder, *OPTIONS, *options, wrapper=GIVES_BACK, **settings) as running:
        quiet = answer_all(running, prompts)
        for _ in range(rounds):
            until = time.monotonic() + seconds / rounds
            clients = [Client(running, number, quiet, outcome, until, keeps_slot) for number in range(CLIENTS)]
            for client in clients:
                client.start()
            for client in clients:
                client.join()
            assert running.is_alive(), running.last_words()
            if answer_all(running, prompts) != quiet:
                outcome.failures.append("after the load, an empty slot gives another answer")
            outcome.counts["rounds"] += 1
            if fill is not None:
                outcome.full_mib.append(mib_when_full(running, fill))
    print(f"{preset} {' '.join(map(str, options))}: {dict(outcome.counts)}, {len(outcome.gaps)} parted, "
          f"gaps {sorted(outcome.gaps)[-5:]}, resident MiB {outcome.full_mib}")
    return outcome


PRESETS = ["f16", "k8v8", "k4v4", "k2v2"]
# Log probability between the best and the second best token beyond which a parted answer is not rounding: with exact tiles 0.002 is seen.
# Fewer bits part by their codes' error too, where a token is read from exact rows here and from its record there.
CLEARLY = {"f16": 0.05, "k8v8": 0.25, "k4v4": 1.0, "k2v2": 2.0}


@pytest.fixture(name="exact", scope="module")
def fixture_exact(paths, f32):
    """The paths, with weights of f32."""
    return types.SimpleNamespace(**{**vars(paths), "smollm2": f32["smollm2"]})


def check_answers(outcome, preset):
    assert not outcome.failures, outcome.failures
    assert outcome.counts["answers"] > 0 and max(outcome.gaps, default=0) <= CLEARLY[preset], sorted(outcome.gaps)


def check_soak(exact, preset, folder, seconds, layout, keeps_slot):
    prompts = make_prompts(exact.text.read_text(), 1200)[::2]
    outcome = soak(exact, preset, folder, prompts, soak_seconds(seconds), *LAYOUTS[layout], keeps_slot=keeps_slot, **SMALL_TILES)
    check_answers(outcome, preset)


def test_clients_in_slots_of_their_own_get_the_answers_of_a_quiet_server(exact, tmp_path):
    check_soak(exact, "k8v8", tmp_path, 30, "unified", True)


@pytest.mark.long
@pytest.mark.parametrize("keeps_slot", [True, False])
@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("preset", PRESETS)
def test_many_clients_get_the_answers_of_a_quiet_server(exact, tmp_path, preset, layout, keeps_slot):
    check_soak(exact, preset, tmp_path, 90, layout, keeps_slot)


@pytest.mark.long
def test_half_an_hour_of_load_takes_no_more_memory(exact, tmp_path):
    """Without the host's prompt cache, whose 24 MiB come and go."""
    text = exact.text.read_text()
    options = ["--kv-unified", "-c", CELLS, "--cache-ram", 0]
    outcome = soak(exact, "k4v4", tmp_path, make_prompts(text, 1200)[::2], soak_seconds(1800), *options, keeps_slot=False, rounds=ROUNDS,
                   fill=text, **SMALL_TILES)
    check_answers(outcome, "k4v4")
    warm = outcome.full_mib[ROUNDS // 3:]
    assert max(warm) <= 1.02 * min(warm), outcome.full_mib
