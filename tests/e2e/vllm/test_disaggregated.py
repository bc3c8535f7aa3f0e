"""One server computes prompts, another one answers them: what vLLM's proxies do, by hand."""

from __future__ import annotations

import concurrent.futures

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here: ./dev test installs it")

from conversation import alone, words  # noqa: E402
from demo.vllm_fleet import BLOCK_TOKENS, MODEL_NAME, full_blocks  # noqa: E402

TOKENS = 8


def answered(server, prompt: list[int], handed: dict, tokens: int = TOKENS):
    extra = {"kv_transfer_params": handed, "return_token_ids": True, "ignore_eos": True}
    return server.client().completions.create(
        model=MODEL_NAME, prompt=prompt, max_tokens=tokens, temperature=0, extra_body=extra
    )


def told(answer) -> dict:
    return answer.model_extra["kv_transfer_params"]["reprise"]


@pytest.mark.parametrize("session", [None, "disaggregated"])
def test_the_second_server_computes_nothing_but_the_end(pair, session):
    prompt = words(f"handed over {session}", 9 * BLOCK_TOKENS + 5)
    handed = pair.a.prefill(prompt, session=session)
    assert handed["reprise"]["handoff"] == {"tokens": 9 * BLOCK_TOKENS}
    # At once: the first server still stores.
    answer = answered(pair.b, prompt, handed)
    assert told(answer)["loaded_tokens"] == 9 * BLOCK_TOKENS
    assert told(answer)["session"] == session
    assert {"action_type": "handoff", "outcome": "applied"} in told(answer)["outcomes"]
    assert answer.choices[0].token_ids == alone(pair.a, prompt, TOKENS).tokens


def test_usage_tells_what_the_first_server_had_cached(pair):
    start = words("a start", 3 * BLOCK_TOKENS)
    prompt = start + words("and more", 2 * BLOCK_TOKENS)
    pair.a.complete(start + words("other", 20), 2)
    handed = pair.a.prefill(prompt)
    answer = answered(pair.b, prompt, handed)
    assert told(answer)["loaded_tokens"] == full_blocks(len(prompt) - 1)
    assert answer.usage.prompt_tokens_details.cached_tokens == 3 * BLOCK_TOKENS


def test_the_second_server_waits_for_what_is_not_stored_yet(pair):
    prompt = words("not even computed", 7 * BLOCK_TOKENS + 5)
    handed = {
        "do_remote_prefill": True,
        "reprise": {"handoff": {"tokens": 7 * BLOCK_TOKENS}},
    }
    before = pair.b.metric("vllm:reprise_handoffs_total", outcome="whole")
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(answered, pair.b, prompt, handed)
        pair.a.prefill(prompt)
        answer = waiting.result(timeout=60)
    assert told(answer)["loaded_tokens"] == 7 * BLOCK_TOKENS
    assert pair.b.metric("vllm:reprise_handoffs_total", outcome="whole") == before + 1


def test_what_never_comes_is_computed(pair):
    prompt = words("never computed elsewhere", 2 * BLOCK_TOKENS + 5)
    handed = {"do_remote_prefill": True, "reprise": {"handoff": {"tokens": 2 * BLOCK_TOKENS}}}
    answer = answered(pair.b, prompt, handed)
    assert told(answer)["loaded_tokens"] == 0
    (outcome,) = [o for o in told(answer)["outcomes"] if o["action_type"] == "handoff"]
    assert outcome["outcome"] == "missing"
    assert answer.choices[0].token_ids == alone(pair.a, prompt, TOKENS).tokens
