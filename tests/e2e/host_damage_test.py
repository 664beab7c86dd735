"""Slot files that are damaged, cut off or cannot be written: no crash, no hang, and nobody else's answer changes."""

import os
import re
import signal
import sys
import threading
import time

import pytest

from host_runs import run
from host_server import server

SMALL_TILES = {"tile": 16, "sink": 0, "tail": 0}
SEED = int(os.environ.get("KVARN_MUTATION_SEED", "1"))


def mutate(paths, preset, file, mutations):
    """Counts of refused and taken files, and the numbers of those that ended the host, and after which the undamaged file moved."""
    command = ["env", "GGML_NO_BACKTRACE=1", paths.program.parent / "mutated_state", paths.smollm2, file, mutations, SEED]
    result = run(paths, preset, command, timeout=7200, **(SMALL_TILES if preset else {}))
    assert result.returncode == 0, f"seed {SEED}: {result.stderr[-2000:]}"
    return re.search(r"refused: (\d+)\ntaken: (\d+)\naborted:([ \d]*)\nmoved:([ \d]*)", result.stdout).groups()


def check_mutations(paths, preset, folder, mutations):
    """What the host's own checks of a file refuse or die of is the same without the plugin."""
    refused, taken, aborted, moved = mutate(paths, preset, folder / "state.bin", mutations)
    assert int(refused) > mutations / 10 and int(taken) > mutations / 10
    assert (refused, taken, aborted, moved) == mutate(paths, None, folder / "state.bin", mutations)


def test_damaged_slot_files_are_harmless(paths, tmp_path):
    check_mutations(paths, "k4v4", tmp_path, 60)


@pytest.mark.long
@pytest.mark.parametrize("preset", ["f16", "k8v8", "k4v4", "k2v2"])
def test_ten_thousand_damaged_slot_files_are_harmless(paths, tmp_path, preset):
    check_mutations(paths, preset, tmp_path, 2500)


@pytest.fixture(name="prompts", scope="module")
def fixture_prompts(paths):
    text = paths.text.read_text()
    return text[40_000:41_500], text[160_000:160_600]


def test_full_disk_fails_the_save_and_nothing_else(paths, tmp_path, prompts):
    """The server may write 1 MiB a file; the slot takes more."""
    first, second = prompts
    limit = [sys.executable, "-c", "import os, resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
             "resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20)); os.execv(sys.argv[1], sys.argv[1:])"]
    with server(paths, "k4v4", tmp_path, wrapper=limit, **SMALL_TILES) as running:
        cold, other = running.complete(first, slot=0), running.complete(second, slot=1)
        warm = running.complete(first, slot=0)
        running.slot(0, "save")
        assert running.is_alive(), running.last_words()
        # What reached the disk is no slot: it must be refused, or be read as nothing.
        restored, reply = running.slot(2, "restore")
        assert restored != 200 or reply["n_restored"] == 0, reply
        assert running.complete(first, slot=0) == warm
        running.slot(1, "erase")
        assert running.complete(second, slot=1) == other
        running.slot(0, "erase")
        assert running.complete(first, slot=0) == cold


def test_server_killed_during_a_save_leaves_a_file_that_is_harmless(paths, tmp_path, prompts):
    first, second = prompts
    with server(paths, "k4v4", tmp_path, **SMALL_TILES) as running:
        other = running.complete(second, slot=1)
        running.complete(first, slot=0)
        save = threading.Thread(target=swallow, args=(running.slot, 0, "save"))
        save.start()
        file = tmp_path / "slot.bin"
        while save.is_alive() and not file.exists():
            time.sleep(0.0005)
        running.process.send_signal(signal.SIGKILL)
        save.join()
    assert file.exists()
    size = file.stat().st_size
    with server(paths, "k4v4", tmp_path, **SMALL_TILES) as running:
        assert running.complete(second, slot=1) == other
        for length in (size, size // 2, size // 3 + 1):  # wherever the kill struck
            os.truncate(file, length)
            running.slot(0, "restore")
            assert running.is_alive(), running.last_words()
            assert running.complete(first, slot=0).text
        running.slot(1, "erase")
        assert running.complete(second, slot=1) == other


def swallow(function, *arguments):
    """A request whose server dies under it."""
    try:
        function(*arguments)
    except OSError:
        pass
