"""What one server computed, another one loads: page by page, into host memory of another layout."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("sglang", reason="SGLang is not installed here: ./dev test installs it")

from prompts import words  # noqa: E402
from server import PAGE_TOKENS, full_pages  # noqa: E402
from stored import COPIES, Growth, leases  # noqa: E402


def pages(tokens: int) -> int:
    return tokens // PAGE_TOKENS


def test_what_one_server_computed_the_other_loads_and_answers_alike(pair, cache):
    prompt = words("shared", 600)
    stored = Growth(cache)
    computed = pair.a.complete(prompt, 12)
    assert computed.cached_tokens == 0
    stored.reaches(COPIES * pages(600))
    loaded = pair.b.complete(prompt, 12)
    assert loaded.tokens == computed.tokens
    assert loaded.cached == {"device": 0, "host": 0, "storage": full_pages(599)}


def test_a_server_whose_own_caches_are_empty_loads_its_own_pages(pair, cache):
    prompt = words("forgotten", 400)
    stored = Growth(cache)
    computed = pair.b.complete(prompt, 8)
    stored.reaches(COPIES * pages(400))
    pair.b.forget()
    again = pair.b.complete(prompt, 8)
    assert (again.tokens, again.from_storage) == (computed.tokens, full_pages(399))


def test_a_prompt_of_more_pages_than_sglang_moves_at_once(pair, cache):
    tokens = 140 * PAGE_TOKENS + 5  # SGLang moves 128 pages at once
    prompt = words("long", tokens)
    stored = Growth(cache)
    computed = pair.a.complete(prompt, 4)
    stored.reaches(COPIES * pages(tokens))
    loaded = pair.b.complete(prompt, 4)
    assert (loaded.tokens, loaded.from_storage) == (computed.tokens, full_pages(tokens))


def test_a_conversation_goes_from_server_to_server_and_only_what_is_new_moves(pair, cache):
    prompt = words("conversation", 200)
    known = {pair.a.name: 0, pair.b.name: 0}  # tokens whose pages the server has itself
    computed = 0  # tokens whose pages some server computed
    for turn in range(4):
        server = pair.both[turn % 2]
        stored = Growth(cache)
        answer = server.complete(prompt, 20)
        expected = min(full_pages(computed), full_pages(len(prompt) - 1))
        assert answer.cached_tokens == expected, f"turn {turn}"
        assert answer.cached["device"] == known[server.name], f"turn {turn}"
        control = server.complete(prompt, 20, cache_salt=f"control {turn}")
        assert (control.tokens, control.cached_tokens) == (answer.tokens, 0), f"turn {turn}"
        both = len(prompt) + len(answer.tokens) - 1  # the last token was never an input
        stored.reaches(COPIES * (pages(both) - pages(computed) + pages(both)))
        known[server.name], computed = full_pages(both), both
        prompt = prompt + answer.tokens + words(f"question {turn}", 45)


@pytest.mark.parametrize("name", ["cache_salt", "extra_key"])
def test_salts_and_extra_keys_share_nothing_with_others(pair, cache, name):
    prompt = words(f"kept apart by {name}", 160)
    stored = Growth(cache)
    pair.a.complete(prompt, 2, **{name: "one"})
    stored.reaches(COPIES * pages(160))
    assert pair.b.complete(prompt, 2, **{name: "another"}).cached_tokens == 0
    assert pair.b.complete(prompt, 2).cached_tokens == 0
    assert pair.b.complete(prompt, 2, **{name: "one"}).from_storage == full_pages(159)


def test_pages_that_were_loaded_are_not_leased_any_more(pair, cache):
    prompt = words("released", 320)
    stored = Growth(cache)
    pair.a.complete(prompt, 2)
    stored.reaches(COPIES * pages(320))
    assert pair.b.complete(prompt, 2).from_storage == full_pages(319)
    deadline = time.monotonic() + 5  # half of what a question that led to no load is held
    while leases(cache) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert leases(cache) == 0
