"""The command kvarn-lmcache, without LMCache: bench counts and keeps figures, inspect knows whole chunks from others."""

import json
import pathlib
import subprocess
import sys

import kvarn
import numpy as np
import pytest
from kvarn_lmcache import bench
from kvarn_lmcache.chunk_codec import ChunkCodec, coding_of
from kvarn_lmcache.chunk_format import Group


def run(*arguments):
    return subprocess.run([sys.executable, "-B", "-m", "kvarn_lmcache", *map(str, arguments)], capture_output=True, text=True, check=False)


def test_bench_measures_and_keeps_what_it_shows(tmp_path):
    file = tmp_path / "bench.json"
    done = run("bench", "--layers", 1, "--kv-heads", 1, "--head-dim", 64, "--threads", 2, "--runs", 3, "--preset", "k4v2", "--json", file)
    assert done.returncode == 0, done.stderr
    kept = json.loads(file.read_text(encoding="utf-8"))
    assert [row["threads"] for row in kept["speeds"]] == [1, 2]
    assert kept["settings"]["preset"] == "k4v2" and kept["machine"]["kernels"] == kvarn.kernels()
    assert done.stdout.startswith("k4v2, level fast, fields half, head_dim 64, ")
    for row in kept["speeds"]:
        assert row["encode_range"][0] <= row["encode"] <= row["encode_range"][1] and row["decode"] > 0
        assert f"| {row['threads']} | {row['encode'] / 1e9:.2f} |" in done.stdout
    assert all(name in done.stdout for name, _ in bench.LINKS)


def test_a_link_pays_exactly_below_the_speed_that_is_named():
    share, speeds = 0.25, bench.Speeds(1, 1e9, (1e9, 1e9), 4e9, (4e9, 4e9))
    for link in bench.link_times(share, speeds):
        assert link.plain == pytest.approx(1e9 / link.bytes_per_second)
        assert (link.store < link.plain) == (link.bytes_per_second < 1e9 * (1 - share))
        assert (link.load < link.plain) == (link.bytes_per_second < 4e9 * (1 - share))
    assert len(bench.LINKS) == len({link for _, link in bench.LINKS})


@pytest.mark.parametrize("options", [("--preset", "k4v9"), ("--kernels", "abacus"), ("--head-dim", "100"), ("--runs", "0")])
def test_bench_says_in_a_line_what_it_cannot_do(options):
    done = run("bench", *options)
    assert done.returncode == 2 and done.stderr.startswith("kvarn-lmcache bench: ") and done.stderr.count("\n") == 1


def test_inspect_tells_whole_chunks_from_damaged_ones(tmp_path):
    group = Group((2, 2, 128, 64), "float16", 2)
    codec = ChunkCodec(coding_of("k4v2", 32))
    stored = bytearray(codec.encoded_bytes((group,)))
    codec.encode(np.ones(group.shape, np.float16).view(np.uint8).ravel(), (group,), stored)
    file = tmp_path / "chunk.data"
    file.write_bytes(stored)
    done = run("inspect", file)
    assert done.returncode == 0 and "k4v2" in done.stdout and "[2, 2, 128, 64] float16: records" in done.stdout
    stored[500] ^= 1
    file.write_bytes(stored)
    done = run("inspect", file)
    assert done.returncode == 1 and "checksum" in done.stderr
    assert run("inspect", tmp_path / "nothing").returncode == 1
    assert run("inspect").returncode == 2


def test_without_lmcache_its_commands_say_what_is_missing():
    try:
        import lmcache  # pylint: disable=import-outside-toplevel,unused-import
    except ImportError:
        done = run("server")
        assert done.returncode == 1 and "pip install lmcache" in done.stderr and done.stderr.count("\n") == 1
    else:
        pytest.skip("LMCache is here")


def test_help_names_the_commands():
    for arguments in ((), ("--help",)):
        done = run(*arguments)
        assert done.returncode == 0 and all(word in done.stdout for word in ("server", "bench", "inspect"))


def test_the_package_says_what_it_needs():
    root = pathlib.Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "setup.py", "--version", "--requires"], cwd=root / "hosts" / "lmcache", capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0 and done.stdout.strip().splitlines()[0] == kvarn.__version__
