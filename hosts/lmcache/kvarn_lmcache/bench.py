"""kvarn-lmcache bench: how fast chunks are made and read on this machine, and for which links that pays. Needs no LMCache.

A chunk of S bytes in 16 bits takes S / link to move as it is, and S / codec + share * S / link as a stored chunk: LMCache makes a
chunk before it sends it, and reads one after it came. So storing pays on links below encode * (1 - share), loading below
decode * (1 - share).
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import statistics
import sys
import time

import kvarn
import numpy as np

from .chunk_codec import ChunkCodec, coding_of
from .chunk_format import ROW_TYPES, Group

# Bytes a second of the wire or the drive, nothing taken off for protocols.
LINKS = (("1 Gbit/s", 0.125e9), ("SATA SSD", 0.55e9), ("10 Gbit/s", 1.25e9), ("25 Gbit/s", 3.125e9), ("NVMe (PCIe 3)", 3.5e9),
         ("NVMe (PCIe 4)", 7e9), ("100 Gbit/s", 12.5e9))


@dataclasses.dataclass(frozen=True)
class Speeds:
    """Of one number of threads: bytes of the chunk in 16 bits a second, median and range of the runs. One thread: seconds of its
    processor time, which other programs do not lengthen; more: of the clock on the wall."""

    threads: int
    encode: float
    encode_range: tuple
    decode: float
    decode_range: tuple


@dataclasses.dataclass(frozen=True)
class LinkTimes:
    """Seconds for one GB of 16-bit keys and values over one link."""

    name: str
    bytes_per_second: float
    plain: float
    store: float
    load: float


def link_times(share, speeds):
    """What every link takes plain, and with chunks made and read at these speeds."""
    rows = []
    for name, link in LINKS:
        moved = share * 1e9 / link
        rows.append(LinkTimes(name, link, 1e9 / link, 1e9 / speeds.encode + moved, 1e9 / speeds.decode + moved))
    return rows


def parser():
    made = argparse.ArgumentParser(prog="kvarn-lmcache bench", description="Speed of the serde, and the links for which it pays.")
    made.add_argument("--preset", default="k4v4")
    made.add_argument("--level", default="fast")
    made.add_argument("--fields", default="half", help="half or byte: what a scale or a zero takes")
    made.add_argument("--head-dim", type=int, default=128)
    made.add_argument("--kv-heads", type=int, default=8)
    made.add_argument("--layers", type=int, default=8)
    made.add_argument("--tokens", type=int, default=256, help="of a chunk; LMCache's own default")
    made.add_argument("--dtype", choices=ROW_TYPES, default="bfloat16")
    made.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="measured beside 1 (default: all processors)")
    made.add_argument("--runs", type=int, default=9)
    made.add_argument("--kernels", help="baseline, avx2, avx512, ...: another instruction set than the best")
    made.add_argument("--json", type=pathlib.Path, metavar="FILE", help="keep all figures")
    return made


def random_chunk(options):
    """A group, and bytes of normally distributed numbers for it."""
    shape = (2, options.layers, options.tokens, options.kv_heads * options.head_dim)
    rows = np.random.default_rng(1).standard_normal(shape, np.float32)
    if options.dtype == "bfloat16":
        return Group(shape, "bfloat16", 2), (rows.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8).ravel()
    rows = rows.astype(options.dtype)
    return Group(shape, options.dtype, rows.itemsize), rows.view(np.uint8).ravel()


def measure(options, threads):
    group, chunk = random_chunk(options)
    codec = ChunkCodec(coding_of(options.preset, options.head_dim, options.level, options.fields), threads)
    stored = np.empty(codec.encoded_bytes((group,)), np.uint8)
    back = np.empty_like(chunk)
    half_bytes = np.prod(group.shape) * 2
    clock = time.thread_time if threads == 1 else time.perf_counter
    encode, decode = [], []
    for run in range(options.runs + 1):
        start = clock()
        codec.encode(chunk, (group,), stored)
        between = clock()
        codec.decode(stored, (group,), back)
        if run > 0:  # the first warms up
            encode.append(half_bytes / (between - start))
            decode.append(half_bytes / (clock() - between))
    share = stored.size / half_bytes
    return share, Speeds(threads, statistics.median(encode), (min(encode), max(encode)), statistics.median(decode), (min(decode), max(decode)))


def processor():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def show(options, share, speeds):
    print(f"{options.preset}, level {options.level}, fields {options.fields}, head_dim {options.head_dim}, {options.dtype}, "
          f"kernels {kvarn.kernels()}: {share:.3f} of 16 bits\n")
    print("One thread: processor time. More: the clock on the wall, which other programs lengthen.\n")
    print("| threads | encode GB/s | min to max | decode GB/s | min to max | storing pays below | loading pays below |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for row in speeds:
        print(f"| {row.threads} | {row.encode / 1e9:.2f} | {row.encode_range[0] / 1e9:.2f} to {row.encode_range[1] / 1e9:.2f} | "
              f"{row.decode / 1e9:.2f} | {row.decode_range[0] / 1e9:.2f} to {row.decode_range[1] / 1e9:.2f} | "
              f"{row.encode * (1 - share) * 8e-9:.1f} Gbit/s | {row.decode * (1 - share) * 8e-9:.1f} Gbit/s |")
    for row in speeds:
        print(f"\nSeconds for 1 GB of 16-bit keys and values, {row.threads} thread{'s' if row.threads > 1 else ''}:\n")
        print("| link | plain | store | load | store pays | load pays |")
        print("|---|--:|--:|--:|---|---|")
        for link in link_times(share, row):
            print(f"| {link.name} | {link.plain:.2f} | {link.store:.2f} | {link.load:.2f} | {factor(link.plain, link.store)} | "
                  f"{factor(link.plain, link.load)} |")


def factor(plain, ours):
    return f"{plain / ours:.2f}x" if ours < plain else "no"


def keep(options, share, speeds):
    machine = {"processor": processor(), "processors": os.cpu_count(), "kernels": kvarn.kernels(), "kvarn": kvarn.__version__}
    settings = {key: value for key, value in vars(options).items() if key != "json"}
    rows = [dataclasses.asdict(row) | {"links": [dataclasses.asdict(link) for link in link_times(share, row)]} for row in speeds]
    text = json.dumps({"machine": machine, "settings": settings, "share_of_16_bits": share, "speeds": rows}, indent=1)
    options.json.write_text(text + "\n", encoding="utf-8")


def main(arguments):
    options = parser().parse_args(arguments)
    try:
        if options.kernels:
            kvarn.choose_kernels(options.kernels)
        if options.runs < 1:
            raise ValueError("--runs must be at least 1")
        coding_of(options.preset, options.head_dim, options.level, options.fields)
        measured = [measure(options, threads) for threads in sorted({1, options.threads})]
    except ValueError as error:
        print(f"kvarn-lmcache bench: {error}", file=sys.stderr)
        return 2
    share, speeds = measured[0][0], [row for _, row in measured]
    show(options, share, speeds)
    if options.json:
        keep(options, share, speeds)
    return 0
