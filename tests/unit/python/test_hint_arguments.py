"""Hints: what is sent for each, what is refused before it is sent, and what an answer says."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import reprise
from reprise import _abi, hints

ROOT = Path(__file__).resolve().parents[3]
SPEC = reprise.CacheSpec("unit", dtype="f32", layers=2, kv_heads=2, head_dim=8)
KEYS = reprise.block_keys(list(range(48)))

# Nothing listens on the discard port.
NOBODY = "127.0.0.1:9"

RETAIN, PIN, RELEASE, EVICT, DEMOTE = 1, 2, 3, 4, 5  # REPRISE_HINT_*


@pytest.fixture
def client() -> Iterator[reprise.Client]:
    with reprise.Client(shards=[NOBODY], timeout=0.5) as opened:
        yield opened


@pytest.mark.parametrize(("hint", "sent"), [
    (reprise.Retain("a", 1.5), (b"a", 1_500_000, RETAIN, 50, 0)),
    (reprise.Retain("a", 60, priority=7), (b"a", 60_000_000, RETAIN, 7, 0)),
    (reprise.Pin("é", 1e-9), ("é".encode(), 1, PIN, 0, 0)),
    (reprise.Pin("a", float("inf")), (b"a", 2**62, PIN, 0, 0)),
    (reprise.Release("a"), (b"a", 0, RELEASE, 0, 0)),
    (reprise.Evict(), (None, 0, EVICT, 0, 0)),
    (reprise.Evict(3), (None, 0, EVICT, 0, 3)),
    (reprise.Demote(first_block=4), (None, 0, DEMOTE, 0, 4)),
])
def test_each_hint_is_sent_whole(hint: reprise.Hint, sent: tuple[Any, ...]) -> None:
    raw = hints._raw(hint)
    assert tuple(getattr(raw, name) for name, _ in _abi.Hint._fields_) == sent


def test_the_numbers_are_the_headers_and_the_default_is_the_shards() -> None:
    header = (ROOT / "client" / "c" / "reprise.h").read_text()
    numbers = {name: int(n) for name, n in re.findall(r"REPRISE_HINT_(\w+) = (\d)", header)}
    verbs = dict(RETAIN=RETAIN, PIN=PIN, RELEASE=RELEASE, EVICT=EVICT, DEMOTE=DEMOTE)
    outcomes = {name.upper(): number for number, name in hints._OUTCOMES.items()}
    assert numbers == verbs | outcomes
    limits = (ROOT / "proto" / "types" / "limits.h").read_text()
    assert f"kClaimPriority = {reprise.Retain('a', 1).priority};" in limits


@pytest.mark.parametrize("hint", [
    reprise.Retain("a", 60), reprise.Pin("a", 60), reprise.Release("a"), reprise.Evict(2),
    reprise.Demote(),
])
def test_a_cache_that_is_down_is_an_answer(client: reprise.Client, hint: reprise.Hint) -> None:
    answer = client.hint(SPEC, KEYS, hint, session="s")
    assert (answer.outcome, answer.blocks, answer.shards) == ("missing", 0, 0)
    assert answer.error is not None and answer.error.code_name == "UNAVAILABLE"
    assert client.hint_async(SPEC, KEYS, hint).result(timeout=10.0).error is not None


@pytest.mark.parametrize("keys", [None, KEYS[:0], b""])
def test_only_a_release_is_about_no_keys(client: reprise.Client, keys: Any) -> None:
    assert client.hint(SPEC, keys, reprise.Release("a")).error is not None
    for hint in (reprise.Retain("a", 1), reprise.Pin("a", 1), reprise.Evict(), reprise.Demote()):
        with pytest.raises(reprise.RepriseError, match="keys") as caught:
            client.hint(SPEC, keys, hint)
        assert caught.value.code_name == "INVALID_ARGUMENT"


@pytest.mark.parametrize(("hint", "error", "named"), [
    (reprise.Retain("", 1), reprise.RepriseError, "claim_id"),
    (reprise.Release("c" * 129), reprise.RepriseError, "129 bytes"),
    (reprise.Pin("a\0b", 1), ValueError, "NUL"),
    (reprise.Retain("a", 0), ValueError, "ttl = 0"),
    (reprise.Retain("a", -1.0), ValueError, "ttl = -1.0"),
    (reprise.Pin("a", float("nan")), ValueError, "ttl = nan"),
    (reprise.Retain("a", 1, priority=0), ValueError, "priority = 0"),
    (reprise.Retain("a", 1, priority=101), reprise.RepriseError, "priority = 101"),
    (reprise.Evict(-1), ValueError, "first_block = -1"),
    (reprise.Evict(2**32), ValueError, "first_block = 4294967296"),
    (reprise.Demote(3), reprise.RepriseError, "first_block = 3"),
    (reprise.Evict(1.0), TypeError, "float"),  # type: ignore[arg-type]
    ("retain", TypeError, "str"),
])
def test_a_hint_that_makes_no_sense_is_raised_by_name(
    client: reprise.Client, hint: Any, error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named):
        client.hint(SPEC, KEYS, hint)
    with pytest.raises(error, match=named):
        client.hint_async(SPEC, KEYS, hint)


def test_other_arguments_are_checked_too(client: reprise.Client) -> None:
    with pytest.raises(ValueError, match="timeout"):
        client.hint(SPEC, KEYS, reprise.Evict(), timeout=0)
    with pytest.raises(ValueError, match="multiple of 32"):
        client.hint(SPEC, b"short", reprise.Evict())
    with pytest.raises(reprise.RepriseError, match="session"):
        client.hint(SPEC, KEYS, reprise.Evict(), session="s" * 129)


def test_an_answer_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        @staticmethod
        def reprise_hint_result_take(handle: int, result: Any, error: Any) -> int:
            result._obj.outcome, result._obj.blocks, result._obj.shards = 2, 3, 1
            result._obj.ttl_us, result._obj.why = 90_500_000, "claims may keep no more".encode()
            error._obj.code, error._obj.message = 14, b"shard b is gone"
            return 14

    monkeypatch.setattr(_abi, "library", Library)
    answer = hints._take_hint(1)
    assert (answer.outcome, answer.blocks, answer.ttl, answer.shards, answer.why) == (
        "clipped", 3, 90.5, 1, "claims may keep no more")
    assert str(answer.error) == "UNAVAILABLE: shard b is gone"


def test_an_operation_that_is_cancelled_says_so(client: reprise.Client) -> None:
    operation = client.hint_async(SPEC, KEYS, reprise.Evict())
    operation.cancel()
    answer = operation.result(timeout=10.0)
    assert answer.error is not None and answer.shards == 0


def test_a_closed_client_says_so() -> None:
    client = reprise.Client(shards=[NOBODY], timeout=0.2)
    client.close()
    with pytest.raises(reprise.RepriseError, match="closed"):
        client.hint(SPEC, KEYS, reprise.Evict())
