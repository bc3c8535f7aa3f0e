"""Models and engines of other shapes: windows beside full attention, and two tensor-parallel
ranks. Pipeline-parallel ones are in test_from_the_engine.py: vLLM 0.32 does not run them on CPUs.
"""

from __future__ import annotations

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here: ./dev test installs it")

from conftest import LOOKUP_BUDGET_MS  # noqa: E402
from conversation import alone, words  # noqa: E402
from demo.vllm_fleet import BLOCK_TOKENS, Server, full_blocks, reprise_connector  # noqa: E402
from demo.vllm_model import make_model  # noqa: E402

WINDOW = 4 * BLOCK_TOKENS
TRANSFER_TIMEOUT_MS = 60_000  # what is moved counts here, not how soon


LOADED = "vllm:reprise_loaded_blocks_by_tier_total"
TRIES = 3  # an answer that is late on a busy machine counts as nothing, as it should


def stored_then_forgotten(server: Server, prompt: list[int]):
    """The prompt's answer computed, then again with nothing but what Reprise has: the latter, and
    how many blocks it loaded.
    """
    server.complete(prompt, 6, session="again")
    server.settle()
    for _ in range(TRIES):
        server.forget_prefixes()
        before = server.metric(LOADED)
        again = server.complete(prompt, 6, session="again")
        server.settle()
        if again.cached_tokens:
            break
    return again, server.metric(LOADED) - before


@pytest.fixture(scope="module")
def servers(folder, model, cache):
    """By name. All start at once: most of a start keeps one core busy and the other idle."""
    connector = reprise_connector(
        cache.router,
        lookup_budget_ms=LOOKUP_BUDGET_MS,
        load_timeout_ms=TRANSFER_TIMEOUT_MS,
        save_timeout_ms=TRANSFER_TIMEOUT_MS,
    )
    windows = make_model(folder / "windows", window=WINDOW)
    two_ranks = ("--tensor-parallel-size", "2")
    started = {
        "windows": Server(folder, windows, "windows", connector=connector),
        "two ranks": Server(
            folder, model, "two-ranks", connector=connector, arguments=two_ranks, threads="0|1"
        ),
    }
    try:
        yield {name: server.ready() for name, server in started.items()}
    finally:
        for server in started.values():
            server.close()


def test_a_window_loads_only_its_own_blocks_and_full_attention_all(servers):
    server = servers["windows"]
    prompt = words("windows", 20 * BLOCK_TOKENS + 9)
    again, loaded = stored_then_forgotten(server, prompt)
    assert again.cached_tokens == full_blocks(len(prompt) - 1)
    assert again.tokens == alone(server, prompt, 6).tokens
    # 20 blocks of the full layers; of the windowed ones those that a window of 4 blocks reaches.
    assert 20 + 4 <= loaded <= 20 + 5


def test_each_tensor_parallel_rank_stores_and_loads_its_own_part(servers):
    server = servers["two ranks"]
    prompt = words("two ranks", 10 * BLOCK_TOKENS + 9)
    again, loaded = stored_then_forgotten(server, prompt)
    assert again.cached_tokens == full_blocks(len(prompt) - 1)
    assert again.tokens == alone(server, prompt, 6).tokens
    assert loaded == 2 * 10
