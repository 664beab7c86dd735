"""One attention layer of the vLLM plugin beside vLLM's own attention on CPUs, in one process, turn by turn: medians and their ratio. Runs
in vLLM's environment with the plugin on PYTHONPATH:

    python bench/vllm_attention.py [--json FILE] [--runs N] [--preset k4v4] [--dtype bfloat16] [--context 4096]

A decode step is one new token for each sequence, a prompt step a chunk of one sequence behind the context; both store their rows,
attend, and seal what is full (the chunk's tiles; a decode step seals one in 128). The book-keeping of a step, which all layers share, is measured apart.
"""

import argparse
import json
import os
import statistics
import time
from dataclasses import dataclass

import numpy as np
import torch
import vllm
from vllm import _custom_ops as ops
from vllm.v1.attention.backends.cpu_attn import _get_attn_isa

from kvarn_vllm import _native
from kvarn_vllm.backend_arrays import step_arrays
from kvarn_vllm.hot_blocks import Batch, HotBlocks, PoolShape
from kvarn_vllm.layer_call import run_layer

TILE = 128


@dataclass
class Shape:
    heads: int
    kv_heads: int
    dim: int


class Problem:
    """Sequences of one length in both caches, and the next tokens of each."""

    def __init__(self, shape, sequences, context, new_tokens, dtype, preset):
        self.shape, self.dtype, self.sequences, self.new = shape, dtype, sequences, new_tokens
        self.length = context + new_tokens
        blocks_each = -(-self.length // TILE)
        self.table = np.arange(1, 1 + sequences * blocks_each, dtype=np.int32).reshape(sequences, blocks_each)
        self.pages = 1 + sequences * blocks_each
        torch.manual_seed(3)
        rows = lambda heads: torch.randn(sequences, self.length, heads, shape.dim).to(dtype)  # noqa: E731
        self.k, self.v, self.q = rows(shape.kv_heads), rows(shape.kv_heads), rows(shape.heads)[:, context:]
        self.out = torch.empty(sequences * new_tokens, shape.heads, shape.dim, dtype=dtype)
        self.make_stock()
        self.make_ours(preset)

    def make_stock(self):
        shape = self.shape
        self.cache = torch.zeros(self.pages, shape.kv_heads, 2 * TILE, shape.dim, dtype=self.dtype)
        self.k_cache, self.v_cache = self.cache.chunk(2, dim=2)
        self.isa = _get_attn_isa(self.dtype, TILE, shape.dim, "auto")
        for sequence in range(self.sequences):
            self.store(self.k[sequence], self.v[sequence], self.slots(sequence, 0))
        self.query_start = torch.arange(0, self.sequences + 1, dtype=torch.int32) * self.new
        self.seq_lens = torch.full((self.sequences,), self.length, dtype=torch.int32)
        self.scheduler = ops.cpu_attn_get_scheduler_metadata(
            num_reqs=self.sequences, num_heads=shape.heads, num_kv_heads=shape.kv_heads, head_dim=shape.dim, seq_lens=self.seq_lens,
            dtype=self.dtype, query_start_loc=self.query_start, causal=True, sliding_window_size=-1, isa=self.isa, enable_kv_split=True,
            dynamic_causal=None, kv_cache_dtype="auto")
        self.new_slots = torch.cat([self.slots(sequence, self.length - self.new) for sequence in range(self.sequences)])
        self.new_k, self.new_v = (side[:, self.length - self.new :].flatten(0, 1).contiguous() for side in (self.k, self.v))
        self.new_q = self.q.flatten(0, 1).contiguous()

    def slots(self, sequence, first):
        at = torch.arange(first, self.length)
        return torch.from_numpy(self.table[sequence].astype(np.int64))[at // TILE] * TILE + at % TILE

    def store(self, k, v, slots):
        ops.cpu_attn_reshape_and_cache(k, v, self.k_cache, self.v_cache, slots, self.isa, k_scale=1.0, v_scale=1.0, kv_cache_dtype="auto")

    def stock(self):
        self.store(self.new_k, self.new_v, self.new_slots)
        ops.cpu_attention_with_kv_cache(
            query=self.new_q, key_cache=self.k_cache, value_cache=self.v_cache, output=self.out, query_start_loc=self.query_start,
            seq_lens=self.seq_lens, scale=self.shape.dim**-0.5, causal=True, alibi_slopes=None, sliding_window=-1,
            block_table=torch.from_numpy(self.table), softcap=0, scheduler_metadata=self.scheduler, s_aux=None, dynamic_causal=None,
            k_scale=1.0, v_scale=1.0, kv_cache_dtype="auto")

    def make_ours(self, preset):
        shape, bits = self.shape, _native.preset_bits(preset)
        units = 2 * max(self.sequences, 8) * 8
        pool = PoolShape(TILE, 16, units, self.length // 16 + 2 * self.sequences + 2)
        self.hot = HotBlocks(pool)
        self.shared = _native.Shared(pool.staging_units, shape.kv_heads, shape.dim, shape.dim, *bits)
        self.layer = _native.Layer(self.shared, units, shape.heads, "fast", shape.dim**-0.5)
        per_token = _native.bytes_per_token(shape.kv_heads, shape.dim, shape.dim, *bits)
        self.kv_pages = torch.zeros(self.pages, shape.kv_heads, TILE, per_token, dtype=torch.uint8)
        for sequence in range(self.sequences):
            self.fill(sequence)
        self.step = self.plan()

    def fill(self, sequence):
        start = self.length - self.new
        batch = Batch(np.array([0, start], np.int32), np.array([start], np.int32), self.table[sequence : sequence + 1], np.array([True]))
        queries = torch.zeros(start, self.shape.heads, self.shape.dim, dtype=self.dtype)
        run_layer(self.layer, self.make_step(batch), (queries, self.k[sequence, :start], self.v[sequence, :start]), self.kv_pages, queries.clone())

    def make_step(self, batch):
        return _native.Step(step_arrays(self.hot.plan(batch), batch), self.layer.units, self.pages, False)

    def plan(self):
        batch = Batch(self.query_start.numpy(), self.seq_lens.numpy(), self.table, np.full(self.sequences, self.new > 1))
        return self.make_step(batch)

    def ours(self):
        run_layer(self.layer, self.step, (self.new_q, self.new_k, self.new_v), self.kv_pages, self.out)


def contest(problem, runs, clock):
    times = {"stock": [], "ours": []}
    for _ in range(runs + 2):
        for name in times:
            begun = clock()
            getattr(problem, name)()
            times[name].append((clock() - begun) * 1e3)
    return {name: statistics.median(found[2:]) for name, found in times.items()} | {
        "spread": max(statistics.quantiles(found[2:])[2] / statistics.quantiles(found[2:])[0] for found in times.values())}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--preset", default="k4v4")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--one-thread", action="store_true", help="count the time of one thread on its processor: for a busy machine")
    options = parser.parse_args()
    if options.one_thread:
        torch.set_num_threads(1)
    clock = time.process_time if options.one_thread else time.perf_counter
    found = []
    for shape in (Shape(9, 3, 64), Shape(32, 8, 128)):
        for kind, sequences, new in (("decode", 1, 1), ("decode", 8, 1), ("prompt", 1, 512)):
            problem = Problem(shape, sequences, options.context, new, getattr(torch, options.dtype), options.preset)
            result = {"shape": [shape.heads, shape.kv_heads, shape.dim], "step": kind, "sequences": sequences, "tokens": new,
                      **contest(problem, options.runs, clock)}
            found.append(result | {"ratio": result["stock"] / result["ours"]})
            print("({}, {}, {}) {:6} {} sequences: vLLM {:8.3f} ms, KVarN {:8.3f} ms, {:.2f}x".format(
                *result["shape"], kind, sequences, result["stock"], result["ours"], found[-1]["ratio"]), flush=True)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"vllm": vllm.__version__, "dtype": options.dtype, "preset": options.preset, "context": options.context,
                       "instruction_set": _native.instruction_set(), "threads": torch.get_num_threads(), "cores": os.cpu_count(),
                       "runs": options.runs, "unit": "ms of processor time, median" if options.one_thread else "ms, median", "results": found}, file, indent=1)


if __name__ == "__main__":
    main()
