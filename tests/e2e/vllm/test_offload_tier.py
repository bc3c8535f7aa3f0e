"""Reprise behind vLLM's own CPU tier: the manager half, over vLLM's base class, factory and
shared memory.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here: ./dev test installs it")

from demo.cluster import Cluster  # noqa: E402
from reprise.engines.vllm import offload_tier  # noqa: E402

# noqa: E402
from vllm.v1.kv_offload.base import LookupResult, OffloadingSpec, ReqContext, make_offload_key
from vllm.v1.kv_offload.config import (  # noqa: E402
    OffloadingCacheConfig,
    OffloadingConfig,
    OffloadingGroupConfig,
    OffloadingModelConfig,
    OffloadingParallelConfig,
)
from vllm.v1.kv_offload.cpu.shared_offload_region import SharedOffloadRegion  # noqa: E402
from vllm.v1.kv_offload.tiering.base import SecondaryTierManager, TransferJob  # noqa: E402
from vllm.v1.kv_offload.tiering.factory import SecondaryTierFactory  # noqa: E402

CHUNK_BYTES, CHUNKS, TOKENS = 16 * 4096, 16, 32


class Spec(OffloadingSpec):
    """vLLM's spec with no memory tiers of its own."""

    def get_manager(self):
        raise NotImplementedError

    def get_worker(self, kv_caches):
        raise NotImplementedError


def spec(groups: int = 1, model: str = "offloaded") -> Spec:
    return Spec(
        OffloadingConfig(
            groups=tuple(
                OffloadingGroupConfig(TOKENS, (f"model.layers.{i}.attn",), i) for i in range(groups)
            ),
            worker_kv_bytes_per_block=CHUNK_BYTES,
            enable_kv_cache_events=False,
            extra_config={},
            engine_id="e",
            model=OffloadingModelConfig(model, "float16"),
            cache=OffloadingCacheConfig(TOKENS, 1),
            parallel=OffloadingParallelConfig(0, 1, 1, 1, 1, 1, 0, 1, None, False),
        )
    )


@pytest.fixture(scope="module")
def small_cache(binaries):
    with Cluster(binaries, shards=2, dram="16MiB", replication=1) as cluster:
        yield cluster


@pytest.fixture
def engine(small_cache, request):
    """A tier made by vLLM's factory over vLLM's shared memory, with its buffer."""
    made = []

    def make(name: str, **changes):
        region = SharedOffloadRegion(f"reprise-test-{name}", CHUNKS, None, CHUNK_BYTES, CHUNK_BYTES)
        tier = SecondaryTierFactory.create_secondary_tier(
            {
                "type": "reprise",
                "module_path": "reprise.engines.vllm",
                "router": small_cache.router,
            },
            region.create_kv_memoryview(),
            spec(**changes),
        )
        made.append((tier, region))
        return tier, np.asarray(region.create_kv_memoryview()).view(np.uint8)

    yield make
    for tier, region in made:
        tier.shutdown()
        region.cleanup()


def context(name: str, count: int, group: int = 0, seed: int = 0):
    rng = np.random.default_rng(seed)
    found = [make_offload_key(rng.bytes(32), group) for _ in range(count)]
    made = ReqContext(name)
    for index, key in enumerate(found):
        made.set_offload_key_position(key, (index + 1) * TOKENS)
    return made, found


def job(number: int, keys, chunks, made, load: bool = False) -> TransferJob:
    return TransferJob(number, list(keys), np.asarray(chunks), load, made)


def finish(tier):
    tier.drain_jobs()
    return {result.job_id: result for result in tier.get_finished_jobs()}


def look(tier, key, made) -> LookupResult:
    end = time.monotonic() + 10
    while (answer := tier.lookup(key, made)) is LookupResult.RETRY and time.monotonic() < end:
        time.sleep(0.002)
    return answer


def test_what_one_engine_stores_another_one_loads(engine):
    a, memory_a = engine("a")
    b, memory_b = engine("b")
    assert isinstance(a, SecondaryTierManager)
    made, keys = context("r", 5, seed=1)
    memory_a[3:8] = np.random.default_rng(2).integers(0, 256, (5, CHUNK_BYTES), dtype=np.uint8)
    a.on_new_request(made)
    a.submit_store(job(1, keys, range(3, 8), made))
    assert finish(a)[1].success
    elsewhere, _ = context("s", 5, seed=1)
    b.on_new_request(elsewhere)
    assert b.lookup(keys[0], elsewhere) in (LookupResult.RETRY, LookupResult.HIT), (
        "a lookup must not wait"
    )
    assert [look(b, key, elsewhere) for key in keys] == [LookupResult.HIT] * 5
    b.submit_load(job(2, keys[1:4], [10, 0, 7], elsewhere, load=True))
    result = finish(b)[2]
    assert result.success and result.transfer_bytes == 3 * CHUNK_BYTES
    for chunk, source in zip((10, 0, 7), (4, 5, 6)):
        assert np.array_equal(memory_b[chunk], memory_a[source])
    b.on_request_finished(elsewhere)


def test_a_key_that_is_not_stored_is_a_miss_and_so_is_everything_after_it(engine):
    tier, memory = engine("c")
    made, keys = context("r", 4, seed=3)
    tier.on_new_request(made)
    tier.submit_store(job(1, keys[:2], [0, 1], made))
    assert finish(tier)[1].success
    other, _ = context("s", 4, seed=3)
    assert [look(tier, key, other) for key in keys] == [LookupResult.HIT] * 2 + [
        LookupResult.MISS
    ] * 2
    stranger = make_offload_key(bytes(32), 0)
    assert tier.lookup(stranger, other) is LookupResult.MISS


def test_a_chunk_whose_parent_is_missing_is_not_stored_and_the_job_says_so(engine):
    tier, _ = engine("d")
    made, keys = context("r", 4, seed=4)
    tier.on_new_request(made)
    tier.submit_store(job(1, keys[2:], [0, 1], made))
    assert not finish(tier)[1].success


def test_a_load_that_fails_is_not_promised_again(engine):
    tier, _ = engine("e")
    made, keys = context("r", 3, seed=5)
    tier.on_new_request(made)
    tier.submit_store(job(1, keys[:2], [0, 1], made))
    finish(tier)
    assert look(tier, keys[0], made) is LookupResult.HIT
    tier.submit_load(job(2, keys, [4, 5, 6], made, load=True))
    result = finish(tier)[2]
    assert not result.success and list(result.successful_keys) == keys[:2]
    assert look(tier, keys[2], made) is LookupResult.MISS


def test_groups_and_models_are_key_spaces_of_their_own(engine):
    tier, _ = engine("f", groups=2)
    made, keys = context("r", 2, seed=6)
    tier.on_new_request(made)
    tier.submit_store(job(1, keys, [0, 1], made))
    assert finish(tier)[1].success
    other, other_keys = context("s", 2, group=1, seed=6)
    assert [look(tier, key, other) for key in other_keys] == [LookupResult.MISS] * 2
    stranger, _ = engine("g", model="another")
    again, _ = context("t", 2, seed=6)
    assert [look(stranger, key, again) for key in keys] == [LookupResult.MISS] * 2


def test_a_chunk_is_cut_into_rows_that_make_exactly_its_bytes():
    for chunk, tokens in ((CHUNK_BYTES, TOKENS), (24 << 20, 16), (3 * 5 * 7 * 4096, 48)):
        layers, block_tokens, row = offload_tier.opaque_shape(chunk, tokens)
        assert layers * block_tokens * row == chunk and row % 16 == 0 and row <= 65536
    with pytest.raises(ValueError, match="cannot be cut"):
        offload_tier.opaque_shape(4097, 32)
