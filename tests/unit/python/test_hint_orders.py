"""Hints on their way to the store: a stand-in of the client answers when told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from reprise import CacheSpec, Demote, Evict, HintAnswer, Pin, Release, RepriseError, Retain
from reprise.engines.vllm.hint_execution import CALLS_MAX, Chain, HintExecution, Order, Target
from reprise.engines.vllm.hint_payloads import Reading, Wish
from reprise.engines.vllm.hints import Asked
from reprise.engines.vllm.request_orders import RequestOrders

BLOCK = 32
DOWN = RepriseError(14, "no router answers")


class Call:
    def __init__(self, spec: Any, keys: Any, hint: Any, session: Any, timeout: Any) -> None:
        self.spec, self.keys, self.hint = spec, keys, hint
        self.session, self.timeout = session, timeout
        self.given: HintAnswer | None = None
        self.cancelled = self.closed = False

    def answer(
        self,
        outcome: str = "applied",
        blocks: int = 0,
        ttl: float = 0.0,
        shards: int = 1,
        why: str = "",
        error: RepriseError | None = None,
    ) -> None:
        self.given = HintAnswer(outcome, blocks, ttl, shards, why, error)

    def done(self) -> bool:
        return self.given is not None

    def result(self) -> HintAnswer:
        assert self.given is not None, "nobody may wait here"
        return self.given

    def cancel(self) -> None:
        self.cancelled = True

    def close(self) -> None:
        assert self.cancelled, "closing one waits for it"
        self.closed = True


class Store:
    def __init__(self) -> None:
        self.calls: list[Call] = []

    def hint_async(
        self, spec: Any, keys: Any, hint: Any, *, session: Any = None, timeout: Any = None
    ) -> Call:
        self.calls.append(Call(spec, keys, hint, session, timeout))
        return self.calls[-1]


class Stats:
    def __init__(self) -> None:
        self.counted: dict[str, int] = {}

    def add(self, name: str, amount: int = 1, label: str = "") -> None:
        assert name == "hints"
        self.counted[label] = self.counted.get(label, 0) + amount


def spec(tokens: int = BLOCK, rank: int = 0) -> CacheSpec:
    return CacheSpec(
        "m",
        dtype="f32",
        layers=1,
        kv_heads=1,
        head_dim=64,
        block_tokens=tokens,
        tensor_parallel_size=2,
        tensor_parallel_rank=rank,
    )


def chain(tokens: int, *blocks: int, space: str = "") -> Chain:
    """Over parts with blocks of so many tokens, the first being the unit."""
    sizes = blocks or (BLOCK,)
    tokens = tokens // sizes[0] * sizes[0]
    targets = [
        Target(spec(size, rank), size, np.zeros((tokens // size, 32), np.uint8))
        for rank, size in enumerate(sizes)
    ]
    return Chain(space, "s", tokens, sizes[0], tuple(targets))


class Stage:
    """One request over the stand-ins."""

    def __init__(self, *wishes: Wish, parts: tuple[int, ...] = (BLOCK,)) -> None:
        self.store, self.stats, self.parts = Store(), Stats(), parts
        self.execution = HintExecution(self.store, 2.0, self.stats)  # type: ignore[arg-type]
        self.orders = self.request(*wishes)

    def request(self, *wishes: Wish) -> RequestOrders:
        return RequestOrders(
            tuple(Asked({"action_type": wish.verb}, Reading((wish,))) for wish in wishes)
        )

    def begin(self, tokens: int, orders: RequestOrders | None = None) -> None:
        (orders or self.orders).begin(self.execution, self.chain, tokens)

    def end(
        self, tokens: int, saves: tuple[int, ...] = (), orders: RequestOrders | None = None
    ) -> list[dict[str, Any]]:
        self.execution.sweep()
        (orders or self.orders).end(self.execution, self.chain, tokens, saves)
        return (orders or self.orders).outcomes()

    def chain(self, tokens: int) -> Chain:
        return chain(tokens, *self.parts)

    def told_all(self) -> list[dict[str, Any]]:
        self.execution.sweep()
        return self.orders.outcomes()

    def told(self) -> dict[str, Any]:
        self.execution.sweep()
        (one,) = self.orders.outcomes()
        return one

    @property
    def hints(self) -> list[tuple[Any, int]]:
        """Each hint that the store got, and about how many blocks."""
        return [(c.hint, -1 if c.keys is None else len(c.keys)) for c in self.store.calls]


RETAIN = Wish("retain", "c", 600.0, 80)


def test_a_claim_is_placed_over_the_prompt_and_again_with_the_answer() -> None:
    stage = Stage(RETAIN)
    stage.begin(100)
    stage.begin(100)
    assert stage.hints == [(Retain("c", 600.0, 80), 3)], "vLLM asks for a prompt again and again"
    assert (stage.store.calls[0].session, stage.store.calls[0].timeout) == ("s", 2.0)
    stage.store.calls[0].answer("deferred", 1, 600.0, why="2 of 3 blocks are not stored yet")
    assert stage.told()["outcome"] == "deferred"
    (told,) = stage.end(170)
    assert stage.hints[1] == (Retain("c", 600.0, 80), 5)
    assert told["outcome"] == "deferred" and told["blocks"] == 1 and told["claims"] == ["c"]
    assert "not answered yet" in told["reason"], "receipt is not completion"
    stage.store.calls[1].answer("applied", 5, 600.0)
    assert stage.told() == {
        "action_type": "retain",
        "outcome": "applied",
        "claims": ["c"],
        "blocks": 5,
        "ttl_seconds": 600.0,
    }
    assert stage.stats.counted == {"deferred": 1, "applied": 1}


def test_an_answer_that_is_there_at_once_stays_the_answer() -> None:
    stage = Stage(RETAIN)
    ask = stage.store.hint_async

    def answered(*given: Any, **more: Any) -> Call:
        call = ask(*given, **more)
        call.answer("applied", 3, 600.0)
        return call

    stage.store.hint_async = answered  # type: ignore[method-assign]
    stage.begin(100)
    assert stage.told()["outcome"] == "applied"
    assert stage.told()["outcome"] == "applied"
    assert stage.stats.counted == {"applied": 1}


def test_what_the_prompts_claim_got_does_not_hide_that_the_answers_is_open() -> None:
    stage = Stage(RETAIN)
    stage.begin(100)
    stage.store.calls[0].answer("applied", 3, 600.0)
    stage.execution.sweep()
    assert stage.end(170)[0]["outcome"] == "deferred"


@pytest.mark.parametrize(
    "wish, last",
    [
        (Wish("retain", "c", 9.0, covers_output=False), 3),
        (Wish("retain", "c", 9.0, end_token=70), 2),
        (Wish("pin", "c", 9.0, end_token=96, covers_output=False), 3),
    ],
)
def test_a_claim_that_ends_before_the_answer_is_placed_once(wish: Wish, last: int) -> None:
    stage = Stage(wish)
    stage.begin(100)
    (told,) = stage.end(170)
    assert [blocks for _, blocks in stage.hints] == [last]
    assert told["outcome"] == "accepted" and "not answered yet" in told["reason"]


def test_a_claim_that_ends_inside_the_answer_is_placed_so_far() -> None:
    stage = Stage(Wish("pin", "c", 9.0, end_token=140))
    stage.begin(100)
    stage.store.calls[0].answer("deferred", 3, 9.0)
    stage.end(300)
    assert stage.hints == [(Pin("c", 9.0), 3), (Pin("c", 9.0), 4)]


def test_a_prompt_shorter_than_a_block_has_nothing_to_claim_until_it_is_longer() -> None:
    stage = Stage(RETAIN)
    stage.begin(31)
    assert stage.told()["outcome"] == "missing"
    assert "no whole block of 32 tokens" in stage.told()["reason"]
    assert stage.end(40)[0]["outcome"] == "accepted"
    assert stage.hints == [(Retain("c", 600.0, 80), 1)]


def test_one_claim_is_never_asked_about_twice_at_once_and_the_last_one_wins() -> None:
    stage = Stage(RETAIN)
    stage.begin(64)
    second, third = stage.request(RETAIN), stage.request(RETAIN)
    stage.begin(96, second)
    stage.begin(128, third)
    assert len(stage.store.calls) == 1 and stage.execution.waiting
    assert "took its place" in second.outcomes()[0]["reason"]
    stage.store.calls[0].answer("applied", 2, 600.0)
    stage.execution.sweep()
    assert [blocks for _, blocks in stage.hints] == [2, 4], "the second was never needed"
    assert not stage.execution.waiting
    stage.store.calls[1].answer("applied", 4, 600.0)
    stage.execution.sweep()
    assert third.outcomes()[0]["blocks"] == 4
    assert stage.stats.counted == {"applied": 2}


def test_claims_of_other_names_and_in_other_key_spaces_do_not_wait() -> None:
    stage = Stage()
    for name, space in (("a", ""), ("b", ""), ("a", "other adapter")):
        stage.execution.place(Wish("pin", name, 1.0), chain(64, space=space))
    assert len(stage.store.calls) == 3


def test_a_release_asks_for_no_prefix_and_goes_first() -> None:
    stage = Stage(Wish("release", "old"), Wish("evict"))
    stage.begin(100)
    assert stage.hints == [(Release("old"), -1)]
    stage.end(100)
    assert len(stage.hints) == 1, "what the claim holds would stay"
    assert stage.execution.waiting
    stage.store.calls[0].answer("applied", 3)
    stage.execution.sweep()
    assert stage.hints[1] == (Evict(0), 3)


def test_what_is_to_go_goes_when_the_request_ends() -> None:
    stage = Stage(Wish("evict", first_token=33))
    stage.begin(100)
    assert not stage.hints
    assert stage.end(170)[0]["outcome"] == "accepted"
    assert stage.hints == [(Evict(2), 5)], "the block of token 33 holds token 32 too"
    stage.store.calls[0].answer("clipped", 2, why="1 block is leased")
    told = stage.told()
    assert (told["outcome"], told["blocks"], told["reason"]) == ("clipped", 2, "1 block is leased")
    assert "ttl_seconds" not in told and "claims" not in told


@pytest.mark.parametrize("first", [65, 96, 10_000])
def test_behind_the_end_there_is_nothing_to_drop(first: int) -> None:
    stage = Stage(Wish("evict", first_token=first))
    stage.begin(96)
    assert stage.end(96)[0]["outcome"] == "missing"
    assert not stage.hints


def test_a_demotion_comes_after_the_saves() -> None:
    stage = Stage(Wish("demote"))
    stage.begin(64)
    (told,) = stage.end(64, saves=(7, 8))
    assert told["outcome"] == "accepted" and "is stored" in told["reason"]
    assert not stage.hints and stage.execution.waiting
    stage.execution.saved(7)
    stage.execution.sweep()
    assert not stage.hints
    stage.execution.saved(8)
    stage.execution.sweep()
    assert stage.hints == [(Demote(0), 2)]


def test_every_part_is_asked_in_its_own_blocks_and_the_worst_is_told() -> None:
    stage = Stage(Wish("evict", first_token=64), Wish("retain", "c", 9.0), parts=(64, 16))
    stage.begin(200)
    assert stage.hints == [(Retain("c", 9.0, 50), 3), (Retain("c", 9.0, 50), 12)]
    stage.store.calls[0].answer("applied", 3, 9.0)
    assert stage.told_all()[1]["outcome"] == "accepted", "one part has not answered"
    stage.store.calls[1].answer("clipped", 9, 8.0, why="no room for more")
    told = stage.told_all()[1]
    assert (told["outcome"], told["blocks"], told["ttl_seconds"]) == ("clipped", 2, 8.0)
    assert told["reason"] == "no room for more"
    stage.end(200)
    assert len(stage.hints) == 4, "what is to go waits for the claim that is placed again"
    for call in stage.store.calls[2:]:
        call.answer("applied", 3, 9.0)
    stage.execution.sweep()
    assert [hint for hint, _ in stage.hints[4:]] == [Evict(1), Evict(4)]


def test_a_store_that_does_not_answer_is_a_failure_with_its_reason() -> None:
    stage = Stage(Wish("pin", "c", 9.0, covers_output=False), parts=(BLOCK, BLOCK))
    stage.begin(64)
    stage.store.calls[0].answer("applied", 2, 9.0)
    stage.store.calls[1].answer("missing", shards=0, error=DOWN)
    told = stage.told()
    assert told["outcome"] == "failed" and told["reason"] == str(DOWN)
    assert stage.stats.counted == {"failed": 1}


def test_a_shard_that_did_not_answer_beside_one_that_did_is_told() -> None:
    stage = Stage(Wish("pin", "c", 9.0, covers_output=False))
    stage.begin(64)
    stage.store.calls[0].answer("applied", 2, 9.0, shards=1, error=DOWN)
    told = stage.told()
    assert told["outcome"] == "applied" and str(DOWN) in told["reason"]


def test_after_a_failure_the_longer_claim_is_open_and_says_what_was() -> None:
    stage = Stage(RETAIN)
    stage.begin(64)
    stage.store.calls[0].answer("missing", shards=0, error=DOWN)
    stage.execution.sweep()
    (told,) = stage.end(96)
    assert told["outcome"] == "accepted" and str(DOWN) in told["reason"]


def test_a_call_that_is_refused_costs_the_hint_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(Wish("pin", "c", 9.0, covers_output=False))

    def refuse(*unused: Any, **unusual: Any) -> Any:
        raise RepriseError(3, "claim_id has a bad name")

    monkeypatch.setattr(stage.store, "hint_async", refuse)
    stage.begin(64)
    told = stage.told()
    assert told["outcome"] == "failed" and "claim_id has a bad name" in told["reason"]
    assert not stage.execution.waiting


def test_an_answer_that_cannot_be_read_costs_the_hint_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(Wish("pin", "c", 9.0, covers_output=False))
    stage.begin(64)
    stage.store.calls[0].answer()
    monkeypatch.setattr(stage.store.calls[0], "result", lambda: 1 // 0)
    assert stage.told()["outcome"] == "failed"


def test_a_chain_that_cannot_be_made_costs_the_hint_alone() -> None:
    stage = Stage(RETAIN)

    def broken(tokens: int) -> Chain:
        raise ZeroDivisionError

    stage.orders.begin(stage.execution, broken, 64)
    assert stage.told()["outcome"] == "failed"


def test_an_engine_without_a_spec_has_nothing_to_ask_about() -> None:
    stage = Stage(RETAIN)
    stage.orders.begin(stage.execution, lambda tokens: Chain("", None, 64, 1, ()), 64)
    assert stage.told()["outcome"] == "failed"


def test_so_many_are_under_way_and_no_more() -> None:
    stage = Stage()
    for number in range(CALLS_MAX):
        stage.execution.place(Wish("pin", str(number), 9.0), chain(64))
    order = stage.execution.place(Wish("pin", "one more", 9.0), chain(64))
    assert order.outcome is not None and order.outcome.outcome == "failed"
    assert len(stage.store.calls) == CALLS_MAX
    stage.store.calls[0].answer()
    stage.execution.sweep()
    assert stage.execution.place(Wish("pin", "now", 9.0), chain(64)).begun


def test_one_hint_is_taken_however_many_parts_it_has() -> None:
    execution = HintExecution(Store(), 2.0, Stats())  # type: ignore[arg-type]
    order = execution.place(Wish("pin", "c", 9.0), chain(64, *[BLOCK] * (CALLS_MAX + 1)))
    assert order.begun and len(order.operations) == CALLS_MAX + 1


def test_the_end_cancels_what_is_under_way_and_forgets_what_waits() -> None:
    stage = Stage(RETAIN, Wish("demote"))
    stage.begin(64)
    stage.end(96, saves=(1,))
    stage.execution.close()
    assert [call.closed for call in stage.store.calls] == [True]
    stage.execution.saved(1)
    stage.execution.sweep()
    assert not stage.execution.waiting and len(stage.store.calls) == 1


def test_orders_that_are_over_hold_nothing() -> None:
    stage = Stage()
    first = stage.execution.place(RETAIN, chain(64))
    second = stage.execution.place(RETAIN, chain(64))
    for call in (0, 1):
        stage.store.calls[call].answer()
        stage.execution.sweep()
    assert isinstance(first, Order) and first.over and second.over
    assert not first.operations and not second.after
