"""Turns of one conversation alternate between two servers that have nothing in common but
Reprise.
"""

from __future__ import annotations

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here: ./dev test installs it")

from conversation import Talk, alone, words  # noqa: E402
from demo.vllm_fleet import BLOCK_TOKENS, full_blocks  # noqa: E402


def test_each_turn_continues_what_the_other_server_computed(pair):
    talk = Talk("ten turns")
    for turn in range(10):
        server = pair.both[turn % 2]
        expected = talk.cacheable() if turn else 0
        answer = talk.turn(server)
        server.settle()
        assert answer.cached_tokens == expected, f"turn {turn + 1} on server {server.name}"
    talk.check(pair.b)


def test_a_long_answer_is_stored_while_it_is_generated(pair):
    prompt = words("a long answer", 100)
    answer = pair.a.complete(prompt, 150, session="long answer")
    pair.a.settle()
    follow_up = prompt + answer.tokens + words("and then", 40)
    again = pair.b.complete(follow_up, 8, session="long answer")
    assert again.cached_tokens == full_blocks(len(prompt) + len(answer.tokens) - 1)
    assert again.tokens == alone(pair.b, follow_up, 8, salt="warm").tokens


def test_cached_tokens_and_metrics_appear_where_users_look(pair):
    before = pair.b.metric("vllm:external_prefix_cache_hits_total")
    loaded = pair.b.metric("vllm:reprise_loaded_blocks_by_tier_total")
    prompt = words("metrics", 5 * BLOCK_TOKENS + 1)
    pair.a.complete(prompt, 2, session="metrics")
    pair.a.settle()
    answer = pair.b.complete(prompt, 2, session="metrics")
    assert answer.cached_tokens == 5 * BLOCK_TOKENS
    assert pair.b.metric("vllm:external_prefix_cache_hits_total") - before == 5 * BLOCK_TOKENS
    assert pair.b.metric("vllm:reprise_loaded_blocks_by_tier_total", tier="dram") >= 5
    assert pair.b.metric("vllm:reprise_loaded_blocks_by_tier_total") - loaded == 5
    assert pair.b.metric("vllm:reprise_loaded_blocks_by_lane_total") >= 5


def test_a_prompt_of_whole_blocks_still_computes_its_last_token(pair):
    prompt = words("exactly four blocks", 4 * BLOCK_TOKENS)
    first = pair.a.complete(prompt, 3, session="whole blocks")
    pair.a.settle()
    second = pair.b.complete(prompt, 3, session="whole blocks")
    assert second.cached_tokens == 3 * BLOCK_TOKENS
    assert second.tokens == first.tokens


def test_chat_answers_are_the_same_on_both_servers(pair):
    messages = [
        {"role": "system", "content": "You keep the licence. " * 60},
        {"role": "user", "content": "Who may copy?"},
    ]
    ask = dict(
        model="tiny",
        messages=messages,
        max_tokens=10,
        temperature=0,
        extra_body={"session_id": "chat"},
    )
    first = pair.a.client().chat.completions.create(**ask)
    pair.a.settle()
    second = pair.b.client().chat.completions.create(**ask)
    assert second.choices[0].message.content == first.choices[0].message.content
    assert second.usage.prompt_tokens_details.cached_tokens == full_blocks(
        second.usage.prompt_tokens - 1
    )


def test_what_a_request_asked_for_is_answered_at_its_end(pair):
    answer = pair.a.client().completions.create(
        model="tiny",
        prompt=words("hints", 70),
        max_tokens=2,
        temperature=0,
        extra_body={
            "kv_transfer_params": {"user": "someone", "reprise": {"save": False, "load": "perhaps"}}
        },
    )
    told = answer.model_extra["kv_transfer_params"]["reprise"]
    assert told["session"] == "someone"
    assert told["saved_tokens"] == 0
    assert {"action_type": "session", "outcome": "accepted"} in told["outcomes"]
    assert any(o["action_type"] == "load" and o["outcome"] == "rejected" for o in told["outcomes"])
