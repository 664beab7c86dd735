#!/usr/bin/env python3
"""Compresses keys and values that another program saved, with every preset, and says what is lost and what it takes.

compress_kv.py                     made-up tensors
compress_kv.py KV.npy --heads 8    one array [2, layers, tokens, heads * dim]: keys, then values
compress_kv.py K.npy V.npy         two arrays [layers, heads, tokens, dim]

Arrays are float16 or float32; compress() takes tensors of other libraries too. Whole tiles of 128 tokens become records, the
tokens after the last whole tile stay float16. The error is the root of the mean square, relative to that of the rows.
"""

import argparse

import kvarn
import numpy as np

PRESETS = ("k8v8", "k6v6", "k5v5", "k4v4", "k4v2", "k3v3", "k2v2")
TILE = 128


def as_array(tensor):
    """A numpy array that shares the tensor's memory where that is possible."""
    if isinstance(tensor, np.ndarray) or not hasattr(tensor, "__dlpack__"):
        return np.asarray(tensor)
    return np.from_dlpack(tensor)


def layers_of(tensors, heads=None):
    """Pairs of keys and values [tokens, heads, dim], one a layer: views, nothing is copied here."""
    arrays = [as_array(tensor) for tensor in tensors]
    if len(arrays) == 1:
        joined = arrays[0]
        if joined.ndim != 4 or joined.shape[0] != 2 or not heads or joined.shape[3] % heads != 0:
            raise ValueError(f"one array must be [2, layers, tokens, heads * dim] with the number of heads, not {joined.shape}")
        shape = (*joined.shape[1:3], heads, joined.shape[3] // heads)
        return list(zip(joined[0].reshape(shape), joined[1].reshape(shape)))
    k, v = arrays
    if k.ndim != 4 or v.ndim != 4 or k.shape[:3] != v.shape[:3]:
        raise ValueError(f"two arrays must be [layers, heads, tokens, dim], not {k.shape} and {v.shape}")
    return list(zip(k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)))


def compress_side(rows, side, bits, threads):
    """Bytes that rows [tokens, heads, dim] take, sum of squared errors, sum of squares."""
    whole = rows.shape[0] // TILE * TILE
    exact_bytes = 2 * rows[whole:].size
    if whole == 0:
        return exact_bytes, 0.0, float(np.square(rows, dtype=np.float64).sum())
    codec = kvarn.Codec(side, bits, rows.shape[2], heads=rows.shape[1], threads=threads)
    records = codec.encode(rows[:whole])
    error = codec.decode(records).astype(np.float32) - rows[:whole]
    return exact_bytes + records.nbytes, float(np.square(error, dtype=np.float64).sum()), float(np.square(rows, dtype=np.float64).sum())


def compress(layers, preset, threads=1):
    """What a preset makes of all layers: {"bytes", "bits_per_value", "k_error", "v_error"}."""
    config = kvarn.Config(preset)
    total, values = 0, 0
    errors = {}
    for side, index, bits in (("k", 0, config.k_bits), ("v", 1, config.v_bits)):
        taken, wrong, square = map(sum, zip(*(compress_side(layer[index], side, bits, threads) for layer in layers)))
        total += taken
        values += sum(layer[index].size for layer in layers)
        errors[f"{side}_error"] = (wrong / square) ** 0.5 if square > 0 else 0.0
    return {"bytes": total, "bits_per_value": 8 * total / values, **errors}


def made_up(layers=4, heads=2, tokens=1000, dim=64, seed=1):
    """Keys with a few large channels, as models have them, and plain values; [layers, heads, tokens, dim]."""
    random = np.random.default_rng(seed)
    k, v = random.standard_normal((2, layers, heads, tokens, dim)).astype(np.float32)
    k[..., :: dim // 4] *= 6.0
    return k, v


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="none, one or two .npy files")
    parser.add_argument("--heads", type=int, help="KV heads of [2, layers, tokens, heads * dim]")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if len(options.files) > 2:
        parser.error("at most two files")
    tensors = [np.load(file) for file in options.files] or made_up()
    try:
        layers = layers_of(tensors, options.heads)
    except ValueError as error:
        parser.error(str(error))
    print(f"{'preset':8} {'bytes':>12} {'of f16':>7} {'bits/value':>10} {'K error':>9} {'V error':>9}")
    for preset in PRESETS:
        found = compress(layers, preset, options.threads)
        print(f"{preset:8} {found['bytes']:12,} {found['bits_per_value'] / 16:7.3f} {found['bits_per_value']:10.2f} "
              f"{found['k_error']:9.4f} {found['v_error']:9.4f}")


if __name__ == "__main__":
    main()
