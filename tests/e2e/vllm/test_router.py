"""vLLM's own router in front of a server that computes prompts and one that answers them."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here: ./dev test installs it")
pytest.importorskip("vllm_router", reason="vLLM's router is not here: ./dev test installs it")

import openai  # noqa: E402
from conversation import alone, words  # noqa: E402
from demo.server_process import ServerProcess, free_port  # noqa: E402
from demo.vllm_fleet import BLOCK_TOKENS, MODEL_NAME, full_blocks  # noqa: E402

TOKENS = 8
LOADED = "vllm:reprise_loaded_blocks_by_tier_total"


@pytest.fixture(scope="module")
def router(pair, folder):
    """An openai client of the router: server A computes, server B answers."""
    process = ServerProcess("vLLM's router", "router", folder)
    process.start(
        [
            sys.executable,
            "-m",
            "vllm_router.launch_router",
            *("--host", "127.0.0.1", "--port", str(process.port)),
            *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())),
            *("--vllm-pd-disaggregation", "--prefill", pair.a.url, "--decode", pair.b.url),
        ],
        {},
    )
    try:
        process.await_answer("/health", 60)
        yield openai.OpenAI(
            base_url=f"{process.url}/v1", api_key="none", timeout=60, max_retries=0
        )
    finally:
        process.close()


def ask(router, prompt: list[int], **more):
    return router.completions.create(
        model=MODEL_NAME,
        prompt=prompt,
        max_tokens=TOKENS,
        temperature=0,
        extra_body={"return_token_ids": True, "ignore_eos": True, "session_id": "routed"},
        **more,
    )


def test_the_second_server_answers_from_what_the_first_one_computed(pair, router):
    prompt = words("routed", 9 * BLOCK_TOKENS + 5)
    answer = ask(router, prompt)
    told = answer.model_extra["kv_transfer_params"]["reprise"]
    assert told["loaded_tokens"] == 9 * BLOCK_TOKENS
    assert told["session"] == "routed"
    assert {"action_type": "handoff", "outcome": "applied"} in told["outcomes"]
    assert answer.choices[0].token_ids == alone(pair.a, prompt, TOKENS).tokens


def test_streamed_answers_are_the_same(pair, router):
    prompt = words("routed and streamed", 7 * BLOCK_TOKENS + 5)
    before = pair.b.metric(LOADED)
    chunks = list(ask(router, prompt, stream=True))
    tokens = [t for chunk in chunks for one in chunk.choices for t in one.token_ids or []]
    assert tokens == alone(pair.a, prompt, TOKENS).tokens
    pair.b.settle()  # the metrics follow the answer by a moment
    assert pair.b.metric(LOADED) == before + 7


def test_chats_are_handed_over_too(pair, router):
    before = pair.b.metric(LOADED)
    answer = router.chat.completions.create(
        model=MODEL_NAME,
        messages=[{"role": "user", "content": "Who may copy? " * 90}],
        max_tokens=TOKENS,
        temperature=0,
    )
    pair.b.settle()
    expected = full_blocks(answer.usage.prompt_tokens - 1) // BLOCK_TOKENS
    assert expected > 4 and pair.b.metric(LOADED) == before + expected
