"""One of several connectors of a server: vLLM's MultiConnector, with a connector of vLLM's own."""

from __future__ import annotations

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here: ./dev test installs it")

from conftest import LOOKUP_BUDGET_MS  # noqa: E402
from conversation import alone, words  # noqa: E402
from demo.vllm_fleet import BLOCK_TOKENS, Server, reprise_connector  # noqa: E402

LOADED = "vllm:reprise_loaded_blocks_by_tier_total"


@pytest.fixture(scope="module")
def server(folder, model, cache):
    files = {
        "kv_connector": "ExampleConnector",
        "kv_role": "kv_both",
        "kv_connector_extra_config": {"shared_storage_path": str(folder / "files")},
    }
    ours = reprise_connector(cache.router, lookup_budget_ms=LOOKUP_BUDGET_MS)
    several = {
        "kv_connector": "MultiConnector",
        "kv_role": "kv_both",
        "kv_load_failure_policy": "recompute",
        "kv_connector_extra_config": {"connectors": [ours, files]},
    }
    started = Server(folder, model, "several", connector=several)
    try:
        yield started.ready()
    finally:
        started.close()


def test_prompts_are_stored_loaded_and_counted(server):
    prompt = words("one of several", 5 * BLOCK_TOKENS + 3)
    first = server.complete(prompt, 6, session="several")
    server.settle()
    server.forget_prefixes()
    before = server.metric(LOADED)
    again = server.complete(prompt, 6, session="several")
    server.settle()
    assert again.cached_tokens == 5 * BLOCK_TOKENS
    assert server.metric(LOADED) == before + 5
    assert again.tokens == first.tokens == alone(server, prompt, 6).tokens


def test_handing_over_is_left_to_the_others(server):
    told = server.prefill(words("not handed over", 3 * BLOCK_TOKENS + 3))
    assert told["reprise"]["saved_tokens"] == 3 * BLOCK_TOKENS
    assert "handoff" not in told["reprise"] and "do_remote_prefill" not in told
