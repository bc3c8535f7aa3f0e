"""Pages of weights that are no more are nobody's: an update that says what the weights are called
begins anew under that name, and after one that does not no page is loaded or stored.
"""

from __future__ import annotations

import pytest

pytest.importorskip("sglang", reason="SGLang is not installed here: ./dev test installs it")

from demo.vllm_model import make_model  # noqa: E402
from prompts import words  # noqa: E402
from server import PAGE_TOKENS, full_pages  # noqa: E402
from stored import COPIES, Growth, blocks  # noqa: E402


def update(server, folder, **fields):
    answer = server.post("/update_weights_from_disk", {"model_path": str(folder), **fields})
    assert answer["success"], answer


def test_pages_of_other_weights_are_not_loaded(pair, cache, folder, model):
    other = make_model(folder / "two" / "tiny-llama", seed=1)
    prompt = words("weights", 200)
    stored = Growth(cache)
    old = pair.a.complete(prompt, 8)
    stored.reaches(COPIES * (200 // PAGE_TOKENS))

    # Nobody says what the new weights are called.
    update(pair.a, other)
    new = pair.a.complete(prompt, 8)
    assert new.cached_tokens == 0
    assert new.tokens != old.tokens, "the two models answer alike: this proves nothing"
    before = blocks(cache)
    pair.a.forget()
    assert pair.a.complete(prompt, 8).cached_tokens == 0
    assert blocks(cache) == before, "pages of nameless weights were stored"
    assert "updated without a weight_version" in pair.a.log()

    # The other server does: both have the same weights under the same name now.
    update(pair.b, other, weight_version="two")
    stored = Growth(cache)
    assert (again := pair.b.complete(prompt, 8)).cached_tokens == 0
    assert again.tokens == new.tokens
    stored.reaches(COPIES * (200 // PAGE_TOKENS))
    pair.a.post("/update_weight_version", {"new_version": "two", "abort_all_requests": False})
    pair.a.forget()
    shared = pair.a.complete(prompt, 8)
    assert (shared.tokens, shared.from_storage) == (new.tokens, full_pages(199))

    # And back again, by name: what was stored first is found.
    for server in pair.both:
        update(server, model, weight_version="default")
    back = pair.b.complete(prompt, 8)
    assert (back.tokens, back.from_storage) == (old.tokens, full_pages(199))
