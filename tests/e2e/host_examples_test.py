"""llama.cpp's own example programs, and its tests of threads and rollback, with tiles small enough to be sealed in them."""

import re
import tempfile

import pytest

from host_runs import THREADS, long, run

SMALL_TILES = {"tile": 16, "sink": 0, "tail": 0}
PRESETS = [long("f16"), long("k8v8"), "k4v4"]


def example(paths, preset, program, *options, model=None, timeout=600, folder=None):
    result = run(paths, preset, [paths.engine_bin / program, "-m", model or paths.smollm2, "-t", THREADS, *options], timeout=timeout, folder=folder,
                 **(SMALL_TILES if preset else {}))
    text = plain(result)
    assert result.returncode == 0, text[-3000:]
    return text


def plain(result):
    """What a program wrote, without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", result.stdout + result.stderr)


@pytest.mark.parametrize("preset", PRESETS)
def test_contexts_on_several_threads(paths, preset):
    """Two models, each with three contexts that decode at the same time; the second model's caches are the plugin's."""
    text = example(paths, preset, "test-thread-safety", "-ngl", 99, "-p", "The meaning of life is", "-n", 48, "-c", 256, "-ub", 32, "-np", 3)
    assert "All threads finished without errors" in text
    # An answer may have paragraphs: it ends where the next line of the log begins.
    answers = re.findall(r"Model 2/2, Context \d/3: (.*?)\n\n(?=\d+\.\d+\.\d+\.\d+ )", text, re.S)
    assert len(answers) == 3 and all(len(answer) > 40 for answer in answers), text[-3000:]


@pytest.mark.parametrize("group", [long(1), 2])
@pytest.mark.parametrize("preset", PRESETS)
def test_passkey_is_found_in_sealed_tiles(paths, preset, group):
    """About 800 tokens; with groups of two the host rotates keys that are in the cache, sealed or not, to half their position."""
    text = example(paths, preset, "llama-passkey", "--junk", 30, "--pos", 10, "--grp-attn-n", group)
    passkey = re.search(r"passkey = (\d+)", text).group(1)
    # The question is in the log, the answer is what the program prints first.
    assert text.lstrip().startswith(passkey), text[:300]


@pytest.mark.parametrize("preset", PRESETS)
def test_batched_sequences_share_their_prompt(paths, f32, preset):
    """Greedy, so that all sequences write the same text from the same shared cells: to the end where nothing is rounded; otherwise until
    the tiles that they started at the fork, the first one's at another token than the others', tell. In f32, where small differences of
    a cache stay small."""
    prompt = "Once upon a time there was a small house by the sea, and in it lived an old woman and her cat"
    text = example(paths, preset, "llama-batched", "-p", prompt, "-n", 64, "-np", 3, "-kvu", "--top-k", 1, model=f32["smollm2"])
    sequences = re.findall(r"sequence \d:\n\n(.*?)\n\n", text, re.S)
    compared = None if preset == "f16" else len(prompt) + 60
    assert len(sequences) == 3 and len({sequence.strip()[:compared] for sequence in sequences}) == 1, sequences
    assert all(len(sequence) > len(prompt) + 100 for sequence in sequences)


@pytest.mark.parametrize("options", [long([]), ["-pps"]], ids=["own prompts", "shared prompt"])
@pytest.mark.parametrize("preset", PRESETS)
def test_parallel_clients_take_turns_in_one_cache(paths, preset, options):
    """Six requests of four clients; with a shared prompt, every one starts from copied cells."""
    text = example(paths, preset, "llama-parallel", "-np", 4, "-ns", 6, "-n", 20, "-c", 4096, "--temp", 0, "--seed", 1, *options)
    answers = re.findall(r"Response: (.*?)\n", text)
    assert len(answers) == 6 and all(answers), text[-3000:]
    assert "Cache misses:             0" in text


def accepted_share(text):
    return float(re.search(r"accept\s+= ([\d.]+)%", text).group(1)) / 100


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("draft", [long("itself"), "poor"])
def test_speculation_with_a_good_and_a_poor_draft(paths, preset, draft, poor_draft, tmp_path):
    prompt = tmp_path / "prompt.txt"
    prompt.write_text(paths.text.read_text()[40_000:40_800])
    model = paths.smollm2 if draft == "itself" else poor_draft
    text = example(paths, preset, "llama-speculative-simple", "-md", model, "--spec-type", "draft-simple", "--spec-draft-n-max", 5, "-f", prompt,
                   "-n", 48, "--temp", 0, "-c", 1024)
    assert accepted_share(text) > 0.8 if draft == "itself" else accepted_share(text) < 0.4


@pytest.mark.long
def test_recurrent_states_roll_back_as_on_the_host(paths, tmp_path):
    """Tiny random models of all architectures, made by the host's own test; those without recurrent state are skipped by it."""
    preload = ["env", f"LD_PRELOAD={paths.program.parent / 'load_backends.so'}", f"LD_LIBRARY_PATH={paths.engine_bin}"]
    with tempfile.TemporaryDirectory(dir=tmp_path) as models:
        made = run(paths, None, [*preload, paths.engine_bin / "test-llama-archs", "-o", models])
        assert made.returncode == 0, made.stderr[-2000:]
        result = run(paths, "k4v4", [*preload, paths.engine_bin / "test-recurrent-state-rollback", "--models", models, "-t", THREADS],
                     **SMALL_TILES)
    text = plain(result)
    assert result.returncode == 0 and "FAIL" not in text, text[-3000:]
    assert len(re.findall(r"PASS +PASS", text)) >= 5, text[-3000:]
