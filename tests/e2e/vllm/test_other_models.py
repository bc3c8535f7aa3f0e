"""Models and engines of other shapes: windows beside full attention, two tensor-parallel ranks, two
pipeline-parallel ones.
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


def stored_then_forgotten(server: Server, prompt: list[int]):
    """The prompt's answer computed, then again with nothing but what Reprise has."""
    first = server.complete(prompt, 6, session="again")
    server.settle()
    server.forget_prefixes()
    again = server.complete(prompt, 6, session="again")
    server.settle()
    return first, again


TWO_RANKS = {
    "tensor-parallel": ("--tensor-parallel-size", "2"),
    "pipeline-parallel": ("--pipeline-parallel-size", "2"),
}


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
    started = {"windows": Server(folder, windows, "windows", connector=connector)}
    for name, arguments in TWO_RANKS.items():
        started[name] = Server(
            folder, model, name, connector=connector, arguments=arguments, threads="0|1"
        )
    try:
        yield {name: server.ready() for name, server in started.items()}
    finally:
        for server in started.values():
            server.close()


def test_a_window_loads_only_its_own_blocks_and_full_attention_all(servers):
    server = servers["windows"]
    prompt = words("windows", 20 * BLOCK_TOKENS + 9)
    _, again = stored_then_forgotten(server, prompt)
    assert again.cached_tokens == full_blocks(len(prompt) - 1)
    assert again.tokens == alone(server, prompt, 6).tokens
    # 20 blocks of the full layers; of the windowed ones those that a window of 4 blocks reaches.
    assert 20 + 4 <= server.metric("vllm:reprise_loaded_blocks_by_tier_total") <= 20 + 5


@pytest.mark.parametrize("name", TWO_RANKS)
def test_each_of_two_ranks_stores_and_loads_its_own_part(servers, name):
    server = servers[name]
    prompt = words(name, 10 * BLOCK_TOKENS + 9)
    _, again = stored_then_forgotten(server, prompt)
    assert again.cached_tokens == full_blocks(len(prompt) - 1)
    assert again.tokens == alone(server, prompt, 6).tokens
    assert server.metric("vllm:reprise_loaded_blocks_by_tier_total") == 2 * 10
