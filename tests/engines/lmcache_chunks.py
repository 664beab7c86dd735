"""Stores or loads chunks through LMCache's own storage manager, as its server does: one process, one job. Needs LMCache.

Usage: lmcache_chunks.py command|plugin store|load L2_ADAPTER_JSON DTYPE SEED...     one chunk a seed; prints a line of JSON

command: the serde is registered first, as the command kvarn-lmcache does; plugin: LMCache finds it through the adapter's JSON.
store: chunks of random numbers are written, and have left memory for the adapter when it ends. load: fetches them from the adapter,
and says for each whether it is there, and how far it is from what was written."""

import json
import pathlib
import sys
import time

import torch
from lmcache.v1.distributed.api import GroupedObjectKeys, MemoryLayoutDesc, ObjectKey, PrefetchTaskSpec
from lmcache.v1.distributed.config import (
    EvictionConfig,
    L1ManagerConfig,
    L1MemoryManagerConfig,
    StorageManagerConfig,
)
from lmcache.v1.distributed.l2_adapters.config import parse_args_to_l2_adapters_config
from lmcache.v1.distributed.storage_manager import StorageManager

SHAPE = (2, 4, 256, 2 * 64)


def storage_manager(adapter):
    class Arguments:
        l2_adapter = [adapter]

    memory = L1MemoryManagerConfig(size_in_bytes=64 << 20, use_lazy=False, shm_name="")
    return StorageManager(StorageManagerConfig(L1ManagerConfig(memory), EvictionConfig("LRU"),
                                               parse_args_to_l2_adapters_config(Arguments)))


def chunk_of(seed, dtype):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)).to(dtype)


def keys_of(seeds):
    return [ObjectKey(chunk_hash=seed.to_bytes(8, "little"), model_name="test/model", kv_rank=0) for seed in seeds]


def store(manager, layout, dtype, seeds):
    keys = keys_of(seeds)
    reserved = manager.reserve_write(keys, layout)
    assert len(reserved) == len(keys), reserved
    for key, seed in zip(keys, seeds):
        reserved[key].tensor.copy_(chunk_of(seed, dtype))
    manager.finish_write(keys)
    folder = pathlib.Path(manager.l2_adapters()[0][1].report_status()["base_path"])
    deadline = time.monotonic() + 20
    while (stored := len(list(folder.glob("*.data")))) < len(keys) and time.monotonic() < deadline:
        time.sleep(0.05)
    return {"stored": stored}


def load(manager, layout, dtype, seeds):
    found = []
    for key, seed in zip(keys_of(seeds), seeds):
        handle = manager.submit_prefetch_task(PrefetchTaskSpec([GroupedObjectKeys([key], 0, layout)]))
        assert manager.wait_prefetch_status(handle, 60)
        result = manager.query_prefetch_status(handle)
        if not result.hit_cells[0].test(0):
            found.append(None)
            continue
        with manager.read_prefetched_results([key], result.l1_owners) as objects:
            rows, wanted = objects[0].tensor.float(), chunk_of(seed, dtype).float()
            found.append(float(((rows - wanted) ** 2).mean() / (wanted**2).mean()))
        manager.finish_read_prefetched([key], l1_owners=result.l1_owners)
    return {"errors": found}


def main():
    way, job, adapter, dtype, *seeds = sys.argv[1:]
    if way == "command":
        import kvarn_lmcache.serde  # pylint: disable=import-outside-toplevel,unused-import
    dtype, seeds = getattr(torch, dtype), [int(seed) for seed in seeds]
    manager = storage_manager(adapter)
    layout = MemoryLayoutDesc(shapes=[torch.Size(SHAPE)], dtypes=[dtype])
    answer = {"store": store, "load": load}[job](manager, layout, dtype, seeds)
    print(json.dumps(answer), flush=True)
    manager.close()


main()
