"""The engine's tensors as the compiled part takes them."""

import torch


def run_layer(pages, metadata, rows, kv_cache, output):
    """One layer's step: `rows` are queries, keys, values of the batch. Returns how many values no half could hold."""
    tokens = metadata.tokens
    query, key, value = (each[:tokens] for each in rows)
    k, v = contiguous_heads(key.to(torch.float16)), contiguous_heads(value.to(torch.float16))
    q = contiguous_heads(query.to(torch.float32))
    out = output[:tokens]
    target = out if out.dtype == torch.float32 and out.stride(2) == 1 else torch.empty(out.shape, dtype=torch.float32)
    changed = pages.run(metadata.step, place(k), place(v), place(q), place(target), kv_cache.data_ptr(), kv_cache.stride(0))
    if target is not out:
        out.copy_(target)
    return changed


def contiguous_heads(rows):
    return rows if rows.stride(2) == 1 else rows.contiguous()


def place(rows):
    """Address and strides of [tokens, heads, channels]."""
    return rows.data_ptr(), rows.stride(0), rows.stride(1)
