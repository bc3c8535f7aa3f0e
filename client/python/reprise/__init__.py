"""Reprise: attention K/V of prompts, kept outside the workers, so that a prefix is computed once.

    import reprise

    spec = reprise.CacheSpec("my-model", dtype="f32", layers=12, kv_heads=4, head_dim=64)
    keys = reprise.block_keys(tokens, spec.block_tokens)
    with reprise.Client(router="127.0.0.1:7000") as client:
        client.store(spec, keys, blocks)
        with client.acquire(spec, keys) as run:
            result = run.fetch(buffers[: run.blocks])

Misses and failures of the cache are counts with a reason; only misuse raises.
"""

from reprise.client import Client, StoreResult
from reprise.errors import RepriseError
from reprise.hints import Demote, Evict, Hint, HintAnswer, Pin, Release, Retain
from reprise.keys import block_keys, checksum, sglang_page_keys, vllm_block_keys
from reprise.memory import PagedPlan, Plane, plane
from reprise.operation import Operation
from reprise.run import FetchResult, Run
from reprise.spec import CacheSpec
from reprise.tls import Tls
from reprise.usage import Usage, usage_details

__version__ = "0.1.0"

__all__ = [
    "CacheSpec",
    "Client",
    "Demote",
    "Evict",
    "FetchResult",
    "Hint",
    "HintAnswer",
    "Operation",
    "PagedPlan",
    "Pin",
    "Plane",
    "Release",
    "RepriseError",
    "Retain",
    "Run",
    "StoreResult",
    "Tls",
    "Usage",
    "block_keys",
    "checksum",
    "plane",
    "usage_details",
    "sglang_page_keys",
    "vllm_block_keys",
]
