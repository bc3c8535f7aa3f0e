"""The scheduler's half: vLLM's own requests and block pool, and a stand-in of the Reprise client
that answers when told.
"""

from __future__ import annotations

import types

import numpy as np
import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here: ./dev test installs it")

from reprise import CacheSpec, HintAnswer  # noqa: E402
from reprise.engines.vllm.groups import Group  # noqa: E402
from reprise.engines.vllm.messages import RankParts, SaveOutcome, WorkerReport  # noqa: E402
from reprise.engines.vllm.scheduler_side import SchedulerSide  # noqa: E402
from reprise.engines.vllm.settings import Settings  # noqa: E402
from reprise.engines.vllm.spec_from_engine import Part  # noqa: E402
from test_from_the_engine import TOKENS, make_request  # noqa: E402
from vllm.utils.hashing import get_hash_fn_by_name  # noqa: E402
from vllm.v1.core import kv_cache_utils  # noqa: E402
from vllm.v1.core.block_pool import BlockPool  # noqa: E402

SHA = get_hash_fn_by_name("sha256")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Run:
    def __init__(self, blocks: int, error: str | None = None) -> None:
        self.blocks, self.error, self.released = blocks, error, 0

    def release(self) -> None:
        self.released += 1


class Question:
    def __init__(self, spec, keys, first_block: int, session) -> None:
        self.spec, self.keys, self.first_block, self.session = spec, keys, first_block, session
        self.run: Run | None = None
        self.cancelled = False

    def answer(self, blocks: int, error: str | None = None) -> None:
        self.run = Run(blocks, error)

    def done(self) -> bool:
        return self.run is not None

    def wait(self, seconds: float) -> bool:
        return self.done()

    def result(self) -> Run:
        assert self.run is not None
        return self.run

    def cancel(self) -> None:
        self.cancelled = True


class Hinted:
    def __init__(self, spec, keys, hint, session) -> None:
        self.spec, self.keys, self.hint, self.session = spec, keys, hint, session
        self.given: HintAnswer | None = None
        self.cancelled = self.closed = False

    def answer(self, outcome: str = "applied", blocks: int = 0, ttl: float = 0.0) -> None:
        self.given = HintAnswer(outcome, blocks, ttl, shards=1)

    def fail(self, error: Exception) -> None:
        self.given = HintAnswer("missing", 0, 0.0, shards=0, error=error)

    def done(self) -> bool:
        return self.given is not None

    def result(self) -> HintAnswer:
        assert self.given is not None, "the scheduler waits"
        return self.given

    def cancel(self) -> None:
        self.cancelled = True

    def close(self) -> None:
        self.closed = True


class FakeClient:
    def __init__(self) -> None:
        self.questions: list[Question] = []
        self.hints: list[Hinted] = []

    def hint_async(self, spec, keys, hint, *, session=None, timeout=None) -> Hinted:
        self.hints.append(Hinted(spec, keys, hint, session))
        return self.hints[-1]

    def acquire_async(self, spec, keys, *, session=None, first_block=0, timeout=None) -> Question:
        self.questions.append(Question(spec, keys, first_block, session))
        return self.questions[-1]

    def explain(self, *unused):
        return {}


def part(index: int = 0, rank: int = 0, window: int = 0, tokens: int = TOKENS) -> Part:
    spec = CacheSpec(
        "m",
        dtype="f32",
        layers=1,
        kv_heads=1,
        head_dim=64,
        block_tokens=tokens,
        window_tokens=window,
        tensor_parallel_size=2,
        tensor_parallel_rank=rank,
    )
    return Part(Group(index, ("l",), tokens, window), ("l",), spec, tokens, 1)


class Stage:
    """A scheduler side with its stand-ins."""

    def __init__(self, ranks: list[list[Part]] | None = None, **settings) -> None:
        kv_cache_utils.init_none_hash(SHA)
        self.clock, self.client = Clock(), FakeClient()
        self.pool = BlockPool(64, True, TOKENS)
        self.side = SchedulerSide(
            Settings(router=("r",), explain_interval_ms=0, **settings),
            self.client,
            tokens_per_hash=TOKENS,
            produces=True,
            consumes=True,
            clock=self.clock,
        )
        self.side.pins.bind(self.pool)
        ranks = ranks or [[part()]]
        self.side.learn_ranks({(0, i): RankParts(tuple(parts)) for i, parts in enumerate(ranks)})

    def request(self, tokens: int, name: str = "r1", **attributes):
        request = make_request(list(range(tokens)), SHA, name)
        for key, value in attributes.items():
            setattr(request, key, value)
        return request

    def ask(self, request, computed: int = 0):
        return self.side.matched_tokens(request, computed)

    def blocks(self, count: int, groups: int = 1):
        got = tuple(self.pool.get_new_blocks(count) for _ in range(groups))
        return types.SimpleNamespace(blocks=got, ids=tuple([b.block_id for b in g] for g in got))

    def step(self, **scheduled):
        """(request, tokens, block ids) by name."""
        tables = {name: ids for name, (_, ids) in scheduled.items()}
        return self.side.plan_step(
            types.SimpleNamespace(
                num_scheduled_tokens={name: tokens for name, (tokens, _) in scheduled.items()},
                kv_connector_block_state=types.SimpleNamespace(get_block_ids=tables.get),
            )
        )


def test_a_prompt_is_asked_for_once_however_often_vllm_asks():
    stage = Stage()
    request = stage.request(10 * TOKENS)
    assert [stage.ask(request) for _ in range(5)] == [(None, False)] * 5
    assert len(stage.client.questions) == 1
    stage.client.questions[0].answer(6)
    assert [stage.ask(request) for _ in range(5)] == [(6 * TOKENS, True)] * 5
    assert len(stage.client.questions) == 1
    assert stage.client.questions[0].run.released == 0


def test_the_last_token_is_always_computed():
    stage = Stage()
    request = stage.request(4 * TOKENS)
    stage.ask(request)
    assert len(stage.client.questions[0].keys) == 3
    stage.client.questions[0].answer(3)
    assert stage.ask(request) == (3 * TOKENS, True)


def test_an_answer_that_is_late_counts_as_nothing():
    stage = Stage(lookup_budget_ms=100)
    request = stage.request(10 * TOKENS)
    assert stage.ask(request) == (None, False)
    stage.clock.now += 0.11
    assert stage.ask(request) == (0, False)
    assert stage.client.questions[0].cancelled
    stage.client.questions[0].answer(9)
    assert stage.ask(request) == (0, False), "an answer after the budget must not come back"
    assert stage.side.stats.data["lookups|late"] == 1


def test_a_prefix_counts_only_when_every_rank_and_group_has_it():
    stage = Stage([[part(0, 0), part(1, 0)], [part(0, 1), part(1, 1)]])
    request = stage.request(10 * TOKENS)
    stage.ask(request)
    assert len(stage.client.questions) == 4
    for question, blocks in zip(stage.client.questions, (9, 8, 5, 9)):
        question.answer(blocks)
    assert stage.ask(request) == (5 * TOKENS, True)


def test_ranks_that_hold_the_same_are_asked_for_once():
    stage = Stage([[part(0, 0)], [part(0, 0)]])
    stage.ask(stage.request(10 * TOKENS))
    assert len(stage.client.questions) == 1


def test_nothing_is_leased_for_a_prompt_that_the_engine_has_itself():
    stage = Stage()
    request = stage.request(10 * TOKENS)
    assert stage.ask(request, computed=9 * TOKENS) == (0, False)
    assert not stage.client.questions
    stage.ask(request, computed=4 * TOKENS)
    stage.client.questions[0].answer(4)
    assert stage.client.questions[0].first_block == 4
    assert stage.ask(request, computed=4 * TOKENS) == (0, False)
    assert stage.client.questions[0].run.released


def test_an_answer_that_is_not_used_lets_its_lease_go_and_is_asked_for_again():
    stage = Stage(lookup_hold_ms=1000)
    request = stage.request(10 * TOKENS)
    stage.ask(request)
    stage.client.questions[0].answer(6)
    assert stage.ask(request) == (6 * TOKENS, True)
    stage.clock.now += 1.1
    assert stage.ask(request) == (None, False)
    assert stage.client.questions[0].run.released and len(stage.client.questions) == 2


def loaded(stage: Stage, stored: int = 6):
    request = stage.request(10 * TOKENS)
    stage.ask(request)
    stage.client.questions[-1].answer(stored)
    stage.ask(request)
    blocks = stage.blocks(10)
    stage.side.allocated(request, blocks, stored * TOKENS)
    return request, blocks


def test_the_lease_ends_when_the_load_is_done():
    stage = Stage()
    request, blocks = loaded(stage)
    load = stage.step().loads[0]
    assert load.groups[0].block_ids == tuple(blocks.ids[0][:6]) and load.groups[0].first == 0
    assert len(load.groups[0].keys) == 6 * 32
    assert not stage.step().loads, "a load is handed over once"
    run = stage.client.questions[0].run
    assert not run.released
    stage.side.load_ended({"r1"})
    assert run.released == 1


def test_the_second_call_after_an_async_load_starts_nothing():
    stage = Stage()
    request, blocks = loaded(stage)
    stage.step()
    stage.side.load_ended({"r1"})
    stage.side.allocated(request, blocks, 0)
    assert not stage.step().loads


def test_an_aborted_load_is_cancelled_and_its_lease_ends_when_the_workers_let_go():
    from vllm.v1.request import RequestStatus

    stage = Stage()
    request, blocks = loaded(stage)
    stage.step()
    request.status = RequestStatus.FINISHED_ABORTED
    assert stage.side.finished(request, blocks.ids) is None
    assert stage.side.busy
    assert stage.step().cancelled == {"r1"}
    run = stage.client.questions[0].run
    assert not run.released
    stage.side.load_ended({"r1"})
    assert run.released == 1 and not stage.side._requests


def test_a_request_that_is_aborted_while_it_asks_leaves_nothing():
    stage = Stage()
    request = stage.request(10 * TOKENS)
    stage.ask(request)
    stage.side.finished(request, ([],))
    assert stage.client.questions[0].cancelled
    assert not stage.side._requests and stage.side.busy, (
        "nobody steps any more to drop the question"
    )
    stage.client.questions[0].answer(0)
    stage.step()
    assert not stage.side.busy


def test_users_are_told_what_came_and_not_what_was_promised():
    stage = Stage()
    request, blocks = loaded(stage)
    request.kv_transfer_params = {"anything": 1}
    request.prefill_stats.set(10 * TOKENS, 0, 6 * TOKENS)
    stage.step()
    request.num_computed_tokens = 2 * TOKENS  # vLLM cuts it at the first block that failed
    stage.side.load_ended({"r1"})
    assert request.prefill_stats.num_cached_tokens == 2 * TOKENS
    assert stage.side._requests["r1"].loaded_tokens == 2 * TOKENS


def test_a_load_that_failed_is_not_tried_again_before_a_preemption():
    stage = Stage()
    request, _ = loaded(stage)
    stage.step()
    stage.side.load_ended({"r1"})
    assert stage.ask(request) == (0, False)
    request.num_preemptions += 1
    assert stage.ask(request) == (None, False)


def test_full_blocks_are_saved_behind_the_step_and_pinned_until_the_save_ends():
    stage = Stage()
    request = stage.request(5 * TOKENS + 3)
    stage.side.track(request)
    blocks = stage.blocks(6)
    free = stage.pool.get_num_free_blocks()
    save = stage.step(r1=(5 * TOKENS + 3, blocks.ids)).saves[0]
    assert save.groups[0].block_ids == tuple(blocks.ids[0][:5]) and save.groups[0].first == 0
    request.num_computed_tokens = 5 * TOKENS + 3
    stage.pool.free_blocks(blocks.blocks[0])  # the request ends; its blocks are still being read
    assert stage.pool.get_num_free_blocks() == free + 1
    assert stage.side.busy
    stage.side.worker_reported(WorkerReport({save.save_id: SaveOutcome(1, True)}))
    assert stage.pool.get_num_free_blocks() == free + 6
    assert not stage.side.busy


def test_a_save_ends_when_every_rank_has_ended_it():
    stage = Stage([[part(0, 0)], [part(0, 1)]])
    request = stage.request(2 * TOKENS)
    stage.side.track(request)
    save = stage.step(r1=(2 * TOKENS, stage.blocks(2).ids)).saves[0]
    stage.side.worker_reported(WorkerReport({save.save_id: SaveOutcome(1, True)}))
    assert stage.side.pins
    stage.side.worker_reported(WorkerReport({save.save_id: SaveOutcome(1, True)}))
    assert not stage.side.pins


def test_the_next_save_begins_where_the_last_one_ended_unless_that_one_failed():
    stage = Stage()
    request = stage.request(6 * TOKENS)
    stage.side.track(request)
    ids = stage.blocks(6).ids
    first = stage.step(r1=(2 * TOKENS, ids)).saves[0]
    request.num_computed_tokens = 2 * TOKENS
    second = stage.step(r1=(2 * TOKENS, ids)).saves[0]
    assert (second.groups[0].first, len(second.groups[0].block_ids)) == (2, 2)
    stage.side.worker_reported(
        WorkerReport({first.save_id: SaveOutcome(1, True), second.save_id: SaveOutcome(1, False)})
    )
    request.num_computed_tokens = 4 * TOKENS
    third = stage.step(r1=(2 * TOKENS, ids)).saves[0]
    assert (third.groups[0].first, len(third.groups[0].block_ids)) == (0, 6), (
        "a hole would stay for ever"
    )


def test_the_end_of_a_request_saves_the_rest_but_never_the_last_token():
    stage = Stage()
    request = stage.request(2 * TOKENS)
    stage.side.track(request)
    ids = stage.blocks(4).ids
    stage.step(r1=(2 * TOKENS, ids))
    request.num_computed_tokens = 2 * TOKENS
    request.append_output_token_ids(list(range(TOKENS)))
    request.num_computed_tokens = 3 * TOKENS - 1
    stage.side.finished(request, ids)
    assert not stage.step().saves, "the third block's last token has no K/V yet"
    request = stage.request(2 * TOKENS, "r2")
    stage.side.track(request)
    request.append_output_token_ids(list(range(TOKENS + 1)))
    request.num_computed_tokens = 3 * TOKENS
    stage.side.finished(request, ids)
    assert len(stage.step().saves[0].groups[0].block_ids) == 3


def test_blocks_that_the_window_left_behind_are_neither_saved_nor_loaded():
    stage = Stage([[part(0), part(1, window=2 * TOKENS)]])
    request = stage.request(6 * TOKENS + 1)
    stage.side.track(request)
    full, window = stage.blocks(6, groups=2).blocks
    ids = ([b.block_id for b in full], [0, 0, 0] + [b.block_id for b in window[3:]])
    save = stage.step(r1=(6 * TOKENS, ids)).saves[0]
    assert [(g.first, len(g.block_ids)) for g in save.groups] == [(0, 6), (3, 3)]
    other = stage.request(6 * TOKENS + 1, "r2")
    stage.ask(other)
    for question in stage.client.questions[-2:]:
        question.answer(6)
    assert stage.ask(other) == (6 * TOKENS, True)
    null = types.SimpleNamespace(block_id=0, is_null=True)
    window = [null, null, null, null] + list(window[4:])
    stage.side.allocated(other, types.SimpleNamespace(blocks=(full, window)), 6 * TOKENS)
    load = stage.step().loads[0]
    assert [(g.first, len(g.block_ids)) for g in load.groups] == [(0, 6), (4, 2)]


def test_saves_stop_at_their_share_of_the_engines_blocks():
    stage = Stage(save_pin_fraction=0.25)  # 16 of 64
    for number, name in enumerate(("r1", "r2")):
        request = stage.request(10 * TOKENS, name)
        stage.side.track(request)
        saves = stage.step(**{name: (10 * TOKENS, stage.blocks(10).ids)}).saves
        assert len(saves) == (1 if number == 0 else 0)
    assert stage.side.stats.data["skipped_saves"] == 1


def test_a_request_may_switch_loads_and_saves_off_and_is_told_what_became_of_its_hints():
    from vllm.v1.kv_hints import KvHintAction, KvHintsEnvelope

    stage = Stage()
    request = stage.request(
        4 * TOKENS, kv_transfer_params={"reprise": {"load": False, "save": False}, "user": "u"}
    )
    request.kv_hints = KvHintsEnvelope(
        "0.1",
        "m",
        [
            KvHintAction("a1", "kv.share", "1.0", {}),
            KvHintAction("a2", "kv.prefetch", "1.0", {}),
        ],
    )
    assert stage.ask(request) == (0, False)
    assert not stage.step(r1=(4 * TOKENS, stage.blocks(4).ids)).saves
    told = stage.side.finished(request, ([],))["reprise"]
    assert told["session"] == "u"
    assert [(o.get("action_id"), o["outcome"]) for o in told["outcomes"]] == [
        (None, "accepted"),
        ("a1", "unsupported"),
        ("a2", "accepted"),
    ]


def test_another_adapter_is_another_key_space(tmp_path):
    stage = Stage()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_model.safetensors").write_bytes(name.encode())
        adapter = types.SimpleNamespace(lora_name="same", lora_path=str(tmp_path / name))
        stage.ask(stage.request(4 * TOKENS, name, lora_request=adapter))
    one, two = (question.spec for question in stage.client.questions)
    assert one.lora_digest and one.lora_digest != two.lora_digest
    gone = types.SimpleNamespace(lora_name="gone", lora_path=str(tmp_path / "gone"))
    assert stage.ask(stage.request(4 * TOKENS, "gone", lora_request=gone)) == (0, False)


def test_after_the_weights_were_replaced_nothing_old_is_asked_for():
    stage = Stage()
    stage.ask(stage.request(4 * TOKENS))
    stage.side.forget_all()
    assert stage.client.questions[0].cancelled
    stage.ask(stage.request(4 * TOKENS, "r2"))
    assert stage.client.questions[1].spec.fingerprint != stage.client.questions[0].spec.fingerprint


def test_an_error_of_ours_is_a_miss_and_does_not_end_the_engine():
    stage = Stage()
    stage.client.acquire_async = lambda *unused, **unusual: 1 // 0
    request = stage.request(4 * TOKENS)
    assert [stage.ask(request), stage.ask(request)] == [(0, False)] * 2


def test_a_cache_that_is_down_is_a_miss_and_counted():
    stage = Stage()
    request = stage.request(4 * TOKENS)
    stage.ask(request)
    stage.client.questions[0].answer(0, "UNAVAILABLE: no router answers")
    assert stage.ask(request) == (0, False)
    assert stage.side.stats.data["lookups|error"] == 1


def test_reports_of_ranks_add_up():
    one = WorkerReport({1: SaveOutcome(1, True), 2: SaveOutcome(1, True)})
    two = WorkerReport({1: SaveOutcome(1, False)})
    both = one.aggregate(two)
    assert both.saves == {1: SaveOutcome(2, False), 2: SaveOutcome(1, True)}


def test_the_scheduler_spends_little_when_nothing_is_stored():
    """No timed claim: the count of calls is what keeps it cheap."""
    stage = Stage()
    request = stage.request(50 * TOKENS)
    for _ in range(100):
        stage.ask(request)
        stage.step()
    assert len(stage.client.questions) == 1
    assert np.array_equal(
        stage.client.questions[0].keys.reshape(-1)[:32],
        np.frombuffer(request.block_hashes[0], np.uint8),
    )
