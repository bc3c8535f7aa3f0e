"""Calls that are wrong are refused before anything is sent; calls to nobody are misses."""

import copy
import os
import threading
from typing import Any

import numpy as np
import pytest
import reprise
from reprise.errors import code_name

SPEC = reprise.CacheSpec("unit", dtype="f32", layers=2, kv_heads=2, head_dim=8)
KEYS = reprise.block_keys(list(range(48)))

# Nothing listens on the discard port.
NOBODY = "127.0.0.1:9"


@pytest.fixture
def client() -> Any:
    with reprise.Client(shards=[NOBODY], timeout=0.5) as opened:
        yield opened


def blocks(count: int) -> np.ndarray:
    return np.zeros((count, SPEC.block_bytes), np.uint8)


def test_a_spec_knows_its_block_and_its_fingerprint() -> None:
    assert SPEC.block_bytes == 2 * 2 * 2 * 16 * 8 * 4
    assert len(SPEC.fingerprint) == 32
    other = reprise.CacheSpec("unit", dtype="f32", layers=2, kv_heads=2, head_dim=8, revision="r2")
    assert other.fingerprint != SPEC.fingerprint and other.block_bytes == SPEC.block_bytes
    latent = reprise.CacheSpec("unit", attention="mla", dtype="bf16", layers=3, head_dim=36)
    assert latent.block_bytes == 3 * 16 * 80  # 72 bytes of data, padded to 80
    assert (SPEC.planes, latent.planes) == (4, 3)


@pytest.mark.parametrize(
    "change, field",
    [
        ({"layers": 0}, "layers"),
        ({"dtype": "f64"}, "dtype"),
        ({"attention": "linear"}, "attention"),
        ({"kv_heads": 0}, "kv_heads"),
        ({"tensor_parallel_rank": 1}, "tensor_parallel_rank"),
        ({"model": ""}, "model"),
    ],
)
def test_a_spec_that_cannot_be_is_refused_naming_the_field(
    change: dict[str, Any], field: str
) -> None:
    fields = {"model": "unit", "dtype": "f32", "layers": 2, "kv_heads": 2, "head_dim": 8, **change}
    with pytest.raises(reprise.RepriseError, match=field) as caught:
        reprise.CacheSpec(**fields).block_bytes
    assert caught.value.code_name == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    "options",
    [{"router": NOBODY, "shards": [NOBODY]}, {}, {"shards": [NOBODY], "lanes": ["pigeon"]}],
)
def test_options_that_make_no_client_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(reprise.RepriseError) as caught:
        reprise.Client(**options)
    assert caught.value.code_name == "INVALID_ARGUMENT"


def test_nobody_there_is_a_miss_with_a_reason(client: reprise.Client) -> None:
    with client.acquire(SPEC, KEYS) as run:
        assert run.blocks == 0 and run.tokens == 0
        assert run.error
        assert run.fetch([]).blocks == 0
    result = client.store(SPEC, KEYS, blocks(3))
    assert (result.stored, result.present, result.refused) == (0, 0, 3)
    assert result.error
    client.prefetch(SPEC, KEYS)
    client.note_prefill(SPEC, 4096, 0.25)


def test_tokens_computed_in_no_time_are_refused(client: reprise.Client) -> None:
    with pytest.raises(reprise.RepriseError, match="time is 0") as caught:
        client.note_prefill(SPEC, 4096, 0.0)
    assert caught.value.code_name == "INVALID_ARGUMENT"


def test_store_takes_the_blocks_it_names(client: reprise.Client) -> None:
    with pytest.raises(ValueError, match="2 buffers for 3 blocks"):
        client.store(SPEC, KEYS, list(blocks(2)))
    with pytest.raises(ValueError, match="first = 4"):
        client.store(SPEC, KEYS, blocks(3), first=4)
    with pytest.raises(ValueError, match="48 needed"):
        client.store(SPEC, KEYS, blocks(3), tokens=range(47))
    with pytest.raises(ValueError, match="first_block = 9"):
        client.acquire(SPEC, KEYS, first_block=9)
    assert client.store(SPEC, KEYS[:0], blocks(0)).error is None


def test_a_plan_is_checked_against_its_spec(client: reprise.Client) -> None:
    memory = np.zeros((4, 3, 16, 2, 8), np.float32)
    planes = [reprise.plane(memory[i], page=0, token=1, head=2) for i in range(4)]
    with pytest.raises(ValueError, match="3 planes .* 4 are needed"):
        reprise.PagedPlan(client, SPEC, planes[:3], 16)
    with pytest.raises(ValueError, match="must divide"):
        reprise.PagedPlan(client, SPEC, planes, 5)
    plan = reprise.PagedPlan(client, SPEC, planes, 16, owners=memory)
    with pytest.raises(ValueError, match="2 pages for 3 blocks"):
        client.store_paged(SPEC, KEYS, plan, [0, 1])
    with pytest.raises(ValueError, match="must not be negative"):
        client.store_paged(SPEC, KEYS, plan, [0, 1, -1])
    with pytest.raises(ValueError, match="integers"):
        client.store_paged(SPEC, KEYS, plan, [0.0, 1.0, 2.0])
    other = reprise.CacheSpec("other", dtype="f32", layers=2, kv_heads=2, head_dim=8)
    with pytest.raises(ValueError, match="another cache spec"):
        client.store_paged(other, KEYS, plan, [0, 1, 2])
    plan.close()
    with pytest.raises(ValueError, match="closed"):
        client.store_paged(SPEC, KEYS, plan, [0, 1, 2])


def test_an_operation_can_be_polled_waited_for_and_taken_twice(client: reprise.Client) -> None:
    operation = client.acquire_async(SPEC, KEYS)
    assert operation.wait(10.0) and operation.done()
    run = operation.result()
    assert run is operation.result()
    run.release()
    run.release()
    cancelled = client.store_async(SPEC, KEYS, blocks(3))
    cancelled.cancel()
    assert cancelled.result(timeout=10.0).error


def test_a_closed_client_says_so() -> None:
    client = reprise.Client(shards=[NOBODY], timeout=0.2)
    under_way = client.acquire_async(SPEC, KEYS)
    client.close()
    client.close()
    assert under_way.result().blocks == 0
    for call in (lambda: client.acquire(SPEC, KEYS), client.stats):
        with pytest.raises(reprise.RepriseError, match="closed") as caught:
            call()
        assert caught.value.code_name == "FAILED_PRECONDITION"


def test_a_client_that_closes_waits_for_the_calls_of_other_threads() -> None:
    for _ in range(30):
        client = reprise.Client(shards=[NOBODY], timeout=0.05)
        refused: list[str] = []

        def call(client: reprise.Client = client, refused: list[str] = refused) -> None:
            while True:
                try:
                    client.explain(SPEC, KEYS)
                except reprise.RepriseError as error:
                    if error.code_name == "FAILED_PRECONDITION":
                        refused.append(str(error))
                        return

        threads = [threading.Thread(target=call) for _ in range(4)]
        for thread in threads:
            thread.start()
        client.close()
        for thread in threads:
            thread.join()
        assert len(refused) == 4 and all("closed" in why for why in refused)


def test_a_client_from_before_a_fork_says_so_and_leaves_its_parent_alone(
    client: reprise.Client,
) -> None:
    run = client.acquire(SPEC, KEYS)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            client.acquire(SPEC, KEYS)
        except reprise.RepriseError as refused:
            right = refused.code_name == "FAILED_PRECONDITION" and "after fork" in refused.message
            run.release()
            client.close()
            status = 0 if right else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert client.acquire(SPEC, KEYS).blocks == 0


def test_stats_are_a_dictionary(client: reprise.Client) -> None:
    assert isinstance(client.stats(), dict)


def test_usage_has_openais_shape() -> None:
    assert reprise.usage_details(100, 96) == {
        "prompt_tokens": 100,
        "prompt_tokens_details": {"cached_tokens": 96},
    }
    for prompt, cached in ((10, 11), (10, -1)):
        with pytest.raises(ValueError, match="cached_tokens"):
            reprise.usage_details(prompt, cached)


def test_errors_name_their_code_and_survive_copying() -> None:
    error = copy.copy(reprise.RepriseError(3, "layers = 0"))
    assert (error.code, error.message, str(error)) == (
        3,
        "layers = 0",
        "INVALID_ARGUMENT: layers = 0",
    )
    assert code_name(99) == "CODE_99"
