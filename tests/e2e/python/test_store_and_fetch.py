"""What is stored comes back, byte for byte, into any kind of buffer."""

from collections.abc import Callable

import numpy as np
import pytest
import reprise
from conftest import make_spec, random_blocks
from demo.cluster import Cluster

torch = pytest.importorskip("torch")

Prompt = Callable[[int], np.ndarray]


def test_blocks_come_back_into_numpy(
    client: reprise.Client, spec: reprise.CacheSpec, prompt: Prompt
) -> None:
    tokens = prompt(100)
    keys = reprise.block_keys(tokens, spec.block_tokens)
    blocks = random_blocks(spec, len(keys))
    stored = client.store(spec, keys, blocks, tokens=tokens, session="s")
    assert (stored.stored, stored.present, stored.refused, stored.error) == (6, 0, 0, None)
    assert stored.bytes == blocks.nbytes
    with client.acquire(spec, keys, session="s") as run:
        assert (run.blocks, run.tokens, run.error) == (6, 96, None)
        back = np.zeros_like(blocks)
        result = run.fetch(back)
        assert (result.blocks, result.corrupt, result.bytes) == (6, 0, blocks.nbytes)
        assert (
            sum(result.lanes.values()) == 6 and result.tiers == {"dram": 6} and result.shards == 1
        )
        assert result.error is None
    assert np.array_equal(back, blocks)


@pytest.mark.parametrize(
    "kind", ["rows", "list", "bytearray", "memoryview", "tensor", "bf16 tensors"]
)
def test_every_kind_of_buffer_is_read_and_written(
    client: reprise.Client, spec: reprise.CacheSpec, prompt: Prompt, kind: str
) -> None:
    keys = reprise.block_keys(prompt(48), spec.block_tokens)
    blocks = random_blocks(spec, 3)
    make = {
        "rows": lambda a: a.copy(),
        "list": lambda a: [row.copy() for row in a],
        "bytearray": lambda a: [bytearray(row) for row in a],
        "memoryview": lambda a: [memoryview(bytearray(row)) for row in a],
        "tensor": lambda a: torch.from_numpy(a.copy()),
        "bf16 tensors": lambda a: [torch.from_numpy(row.copy()).view(torch.bfloat16) for row in a],
    }[kind]
    assert client.store(spec, keys, make(blocks)).stored == 3
    back = make(np.zeros_like(blocks))
    with client.acquire(spec, keys) as run:
        assert run.fetch(back).blocks == 3
    seen = [row.view(torch.uint8).numpy() if isinstance(row, torch.Tensor) else row for row in back]
    assert b"".join(bytes(row) for row in seen) == blocks.tobytes()


def test_a_run_is_the_longest_stored_prefix(
    client: reprise.Client, spec: reprise.CacheSpec, prompt: Prompt
) -> None:
    tokens = prompt(96)
    keys = reprise.block_keys(tokens, spec.block_tokens)
    blocks = random_blocks(spec, 6)
    client.store(spec, keys[:4], blocks[:4])
    with client.acquire(spec, keys) as run:
        assert run.blocks == 4
        part = np.zeros((2, spec.block_bytes), np.uint8)
        assert run.fetch(part, first=1, count=2).blocks == 2
        assert np.array_equal(part, blocks[1:3])
        with pytest.raises(ValueError, match="the run has 4 blocks"):
            run.fetch(part, first=3, count=2)
    other = tokens.copy()
    other[20] += 1
    with client.acquire(spec, reprise.block_keys(other, spec.block_tokens)) as run:
        assert run.blocks == 1


def test_blocks_that_the_worker_has_are_counted_and_not_leased(
    client: reprise.Client, spec: reprise.CacheSpec, prompt: Prompt
) -> None:
    keys = reprise.block_keys(prompt(64), spec.block_tokens)
    blocks = random_blocks(spec, 4)
    client.store(spec, keys, blocks)
    with client.acquire(spec, keys, first_block=3) as run:
        assert run.blocks == 4
        back = np.zeros((1, spec.block_bytes), np.uint8)
        assert run.fetch(back).blocks == 1
        assert np.array_equal(back[0], blocks[3])
        with pytest.raises(ValueError, match="not leased"):
            run.fetch(np.zeros((4, spec.block_bytes), np.uint8), first=0)


def test_a_chain_grows_and_what_is_stored_is_not_sent_again(
    client: reprise.Client, spec: reprise.CacheSpec, prompt: Prompt
) -> None:
    keys = reprise.block_keys(prompt(96), spec.block_tokens)
    blocks = random_blocks(spec, 6)
    assert client.store(spec, keys[:2], blocks[:2]).stored == 2
    grown = client.store(spec, keys[:4], blocks[2:4], first=2)
    assert (grown.stored, grown.present) == (2, 0)
    whole = client.store(spec, keys, blocks)
    assert (whole.stored, whole.present, whole.bytes) == (2, 4, 2 * spec.block_bytes)


def test_the_first_bytes_of_a_key_stay(
    client: reprise.Client, spec: reprise.CacheSpec, prompt: Prompt
) -> None:
    keys = reprise.block_keys(prompt(32), spec.block_tokens)
    first, second = random_blocks(spec, 2, seed=1), random_blocks(spec, 2, seed=2)
    assert client.store(spec, keys, first).stored == 2
    assert client.store(spec, keys, second).present == 2
    back = np.zeros_like(first)
    with client.acquire(spec, keys) as run:
        run.fetch(back)
    assert np.array_equal(back, first)


@pytest.mark.parametrize(
    "field", ["revision", "scope", "rope_digest", "lora_digest", "dtype", "key_scheme"]
)
def test_another_spec_is_another_key_space(
    client: reprise.Client, prompt: Prompt, field: str
) -> None:
    spec = make_spec()
    other = make_spec(**{"model": spec.model, field: "f16" if field == "dtype" else "other"})
    keys = reprise.block_keys(prompt(32), spec.block_tokens)
    client.store(spec, keys, random_blocks(spec, 2))
    with client.acquire(other, keys) as run:
        assert run.blocks == 0 and run.error is None


@pytest.mark.parametrize("lane", ["stream", "tcp", "view"])
def test_each_lane_alone_carries_the_same_bytes(
    cluster: Cluster, spec: reprise.CacheSpec, prompt: Prompt, lane: str
) -> None:
    keys = reprise.block_keys(prompt(160), spec.block_tokens)
    blocks = random_blocks(spec, 10)
    # The stream lane is what is left where the view lane is not to be had.
    lanes = ["view", "stream"] if lane == "view" else [lane]
    with reprise.Client(router=cluster.router, lanes=lanes) as client:
        assert client.store(spec, keys, blocks).stored == 10
        back = np.zeros_like(blocks)
        with client.acquire(spec, keys) as run:
            used = run.fetch(back).lanes
    assert np.array_equal(back, blocks)
    if lane == "view" and used == {"stream": 10}:
        pytest.skip("these shards offer no view lane")
    assert used == {lane: 10}


def test_operations_run_beside_the_caller(
    client: reprise.Client, spec: reprise.CacheSpec, prompt: Prompt
) -> None:
    chains = [reprise.block_keys(prompt(64) + 1000 * i, spec.block_tokens) for i in range(8)]
    blocks = [random_blocks(spec, 4, seed=i) for i in range(8)]
    stores = [client.store_async(spec, keys, data) for keys, data in zip(chains, blocks)]
    assert [operation.result().stored for operation in stores] == [4] * 8
    runs = [
        operation.result() for operation in [client.acquire_async(spec, keys) for keys in chains]
    ]
    back = [np.zeros_like(data) for data in blocks]
    fetches = [run.fetch_async(data) for run, data in zip(runs, back)]
    assert [operation.result().blocks for operation in fetches] == [4] * 8
    assert all(operation.done() for operation in fetches)
    for run in runs:
        run.release()
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(blocks, back))


def test_a_released_run_is_not_read(
    client: reprise.Client, spec: reprise.CacheSpec, prompt: Prompt
) -> None:
    keys = reprise.block_keys(prompt(32), spec.block_tokens)
    blocks = random_blocks(spec, 2)
    client.store(spec, keys, blocks)
    with client.acquire(spec, keys) as run:
        pass
    with pytest.raises(ValueError, match="released"):
        run.fetch(np.zeros_like(blocks))


def test_closing_the_client_ends_what_is_under_way(
    cluster: Cluster, spec: reprise.CacheSpec, prompt: Prompt
) -> None:
    keys = reprise.block_keys(prompt(160), spec.block_tokens)
    blocks = random_blocks(spec, 10)
    client = reprise.Client(router=cluster.router)
    client.store(spec, keys, blocks)
    run = client.acquire(spec, keys)
    back = np.zeros_like(blocks)
    fetch = run.fetch_async(back)
    client.close()
    result = fetch.result()
    # Whole blocks or none, and nothing after the end.
    assert np.array_equal(back[: result.blocks], blocks[: result.blocks])
    run.release()


def test_prefetch_and_stats_count(
    client: reprise.Client, spec: reprise.CacheSpec, prompt: Prompt
) -> None:
    keys = reprise.block_keys(prompt(32), spec.block_tokens)
    blocks = random_blocks(spec, 2)
    client.store(spec, keys, blocks)
    client.prefetch(spec, keys)
    with client.acquire(spec, keys) as run:
        assert run.fetch(np.zeros_like(blocks)).blocks == 2
    stats = client.stats()
    assert stats["blocks_stored"] == 2 and stats["blocks_fetched"] == 2 and stats["prefetches"] == 1
    assert sum(stats["blocks_fetched_by_shard"].values()) == 2


def test_salts_share_nothing(
    client: reprise.Client, spec: reprise.CacheSpec, prompt: Prompt
) -> None:
    tokens = prompt(32)
    client.store(spec, reprise.block_keys(tokens, salt=b"one"), random_blocks(spec, 2))
    with client.acquire(spec, reprise.block_keys(tokens, salt=b"two")) as run:
        assert run.blocks == 0
