"""KVarN as a serde of LMCache: chunks of a KV cache go to its disk and remote tiers in a few bits a value.

chunk_format says where the bytes of a stored chunk lie, chunk_codec makes and reads them; both know neither LMCache nor torch.
serde, plugin and command fit them into LMCache; bench measures. docs/guide/lmcache.md shows how to switch it on.
"""
