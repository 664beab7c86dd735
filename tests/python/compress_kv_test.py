"""examples/compress_kv.py: both layouts give the same figures, and figures are those of the arrays."""

import importlib.util
import pathlib
import subprocess
import sys

import numpy as np
import pytest

PROGRAM = pathlib.Path(__file__).resolve().parents[2] / "examples" / "compress_kv.py"
SPEC = importlib.util.spec_from_file_location("compress_kv", PROGRAM)
compress_kv = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(compress_kv)


def joined(k, v):
    """[layers, heads, tokens, dim] twice to [2, layers, tokens, heads * dim]."""
    layers, heads, tokens, dim = k.shape
    return np.stack([side.transpose(0, 2, 1, 3).reshape(layers, tokens, heads * dim) for side in (k, v)])


def test_both_layouts_give_the_same_figures():
    k, v = compress_kv.made_up(layers=2, heads=3, tokens=300, dim=32)
    apart = compress_kv.compress(compress_kv.layers_of([k, v]), "k4v2")
    together = compress_kv.compress(compress_kv.layers_of([joined(k, v)], heads=3), "k4v2", threads=2)
    assert apart == pytest.approx(together)
    assert 0.02 < apart["k_error"] < 0.15 < apart["v_error"] < 0.5
    # 44 of 300 tokens are left over at 16 bits; a code of 4 or 2 bits takes about one bit more at 32 channels.
    assert 2 * 16 * 44 / 600 + 3 * 256 / 300 < apart["bits_per_value"] < 2 * 16 * 44 / 600 + 4.5 * 256 / 300


def test_arrays_are_not_copied_on_the_way():
    k, v = compress_kv.made_up(layers=2, heads=3, tokens=128, dim=32)
    array = joined(k, v)
    for layers, source in ((compress_kv.layers_of([k, v]), k), (compress_kv.layers_of([array], heads=3), array)):
        assert all(np.shares_memory(layer[0], source) for layer in layers)


def test_few_tokens_and_zeros_are_exact():
    k, v = compress_kv.made_up(layers=1, heads=1, tokens=100, dim=16)
    figures = compress_kv.compress(compress_kv.layers_of([k, v]), "k2v2")
    assert (figures["bits_per_value"], figures["k_error"]) == (16.0, 0.0)
    nothing = np.zeros((1, 1, 128, 16), np.float16)
    assert compress_kv.compress(compress_kv.layers_of([nothing, nothing]), "k2v2")["v_error"] == 0.0


def test_tensors_with_dlpack_are_taken():
    class Tensor:
        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **options):
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    k, v = compress_kv.made_up(layers=1, heads=2, tokens=128, dim=16)
    found = compress_kv.layers_of([Tensor(k), Tensor(v)])
    assert np.array_equal(found[0][0], k[0].transpose(1, 0, 2)) and np.shares_memory(found[0][0], k)


def test_torch_tensors_are_taken():
    torch = pytest.importorskip("torch")
    k, v = compress_kv.made_up(layers=1, heads=2, tokens=128, dim=16)
    found = compress_kv.layers_of([torch.from_numpy(k), torch.from_numpy(v)])
    assert np.array_equal(found[0][1], v[0].transpose(1, 0, 2))


def run(*arguments):
    return subprocess.run([sys.executable, "-B", PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_the_program_prints_a_line_for_each_preset(tmp_path):
    k, v = compress_kv.made_up(layers=1, heads=2, tokens=256, dim=32)
    np.save(tmp_path / "k.npy", k)
    np.save(tmp_path / "v.npy", v)
    np.save(tmp_path / "kv.npy", joined(k, v))
    two = run(tmp_path / "k.npy", tmp_path / "v.npy")
    one = run(tmp_path / "kv.npy", "--heads", 2)
    assert two.returncode == one.returncode == 0, two.stderr + one.stderr
    assert two.stdout == one.stdout
    assert [line.split()[0] for line in one.stdout.splitlines()] == ["preset", *compress_kv.PRESETS]
    assert len(run().stdout.splitlines()) == 1 + len(compress_kv.PRESETS)


def test_the_program_says_what_is_wrong_with_a_file(tmp_path):
    np.save(tmp_path / "kv.npy", np.zeros((3, 4), np.float32))
    wrong = run(tmp_path / "kv.npy")
    assert wrong.returncode == 2 and "[2, layers, tokens, heads * dim]" in wrong.stderr
