"""PrefixCache's hints: what it asks of the store, over a stand-in of the client."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from reprise import Evict, HintAnswer, Pin, Retain, block_keys  # noqa: E402
from reprise.engines.transformers import PrefixCache  # noqa: E402


class Client:
    def __init__(self) -> None:
        self.asked: list[tuple[Any, bytes, Any, Any, Any]] = []

    def hint(self, spec: Any, keys: Any, hint: Any, *, session: Any, timeout: Any) -> HintAnswer:
        self.asked.append((spec, keys.tobytes(), hint, session, timeout))
        return HintAnswer("applied", len(keys), 60.0, 1)


@pytest.fixture(scope="module")
def model() -> Any:
    config = transformers.LlamaConfig(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
    )
    return transformers.LlamaForCausalLM(config)


def prefixes_of(model: Any) -> tuple[PrefixCache, Client]:
    client = Client()
    prefixes = PrefixCache(client, model, salt=b"x", timeout=3.0)  # type: ignore[arg-type]
    return prefixes, client


IDS = list(range(40))  # two full blocks of 16


def test_what_is_kept_is_a_claim_of_the_sessions_name(model: Any) -> None:
    prefixes, client = prefixes_of(model)
    answer = prefixes.keep(torch.tensor([IDS]), 60, session="s", priority=80)
    assert answer.blocks == 2
    keys = block_keys(IDS, 16, salt=b"x").tobytes()
    assert client.asked == [(prefixes.spec, keys, Retain("session:s", 60, 80), "s", 3.0)]


def test_a_pin_and_a_name_of_its_own(model: Any) -> None:
    prefixes, client = prefixes_of(model)
    prefixes.keep(IDS, 60, pin=True, claim_id="c")
    assert client.asked[0][2:4] == (Pin("c", 60), None)


def test_without_a_session_a_claim_is_its_prefixs(model: Any) -> None:
    prefixes, client = prefixes_of(model)
    prefixes.keep(IDS, 60)
    prefixes.keep(IDS[:39], 60)
    prefixes.keep(IDS[:16], 60)
    one, same, other = (hint.claim_id for _, _, hint, _, _ in client.asked)
    assert one == same != other and one.startswith("prefix:") and len(one) <= 128


def test_what_is_forgotten_is_evicted(model: Any) -> None:
    prefixes, client = prefixes_of(model)
    prefixes.forget(IDS, session="s")
    assert client.asked[0][2:4] == (Evict(), "s")


def test_fewer_tokens_than_a_block_have_nothing_to_keep(model: Any) -> None:
    prefixes, client = prefixes_of(model)
    for answer in (prefixes.keep(IDS[:15], 60), prefixes.forget(IDS[:15])):
        assert answer.outcome == "missing" and "one block" in answer.why
    assert not client.asked
