"""What the scheduler's half does about the hints of vLLM's own requests: a stand-in of the Reprise
client answers when told.
"""

from __future__ import annotations

import types

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here: ./dev test installs it")

from reprise import Demote, Evict, Pin, Release, RepriseError, Retain  # noqa: E402
from reprise.engines.vllm.messages import SaveOutcome, WorkerReport  # noqa: E402
from test_from_the_engine import TOKENS  # noqa: E402
from test_scheduler_side import Stage, part  # noqa: E402
from vllm.v1.kv_hints import KvHintAction, KvHintsEnvelope  # noqa: E402

SESSION = {"user": "u"}
CLAIM = "session:u"


def ours(**hints):
    return {"kv_transfer_params": SESSION | {"reprise": hints}}


def routed(kind: str, **payload):
    return KvHintsEnvelope("0.1", "m", [KvHintAction("a1", kind, "1.0", payload)])


def outcomes(told) -> list[dict]:
    return [one for one in told["reprise"]["outcomes"] if one["action_type"] != "session"]


def sent(stage: Stage) -> list[tuple[object, int]]:
    """Each hint, and about how many blocks."""
    return [(h.hint, -1 if h.keys is None else len(h.keys)) for h in stage.client.hints]


def answered(stage: Stage, request, ids, output: int = TOKENS + 1):
    """The request's prompt is computed, and then an answer of so many tokens."""
    prompt = request.num_tokens
    metadata = stage.step(**{request.request_id: (prompt, ids)})
    request.num_computed_tokens = prompt
    request.append_output_token_ids(list(range(output)))
    request.num_computed_tokens = prompt + output - 1
    return metadata


def test_a_claim_is_placed_when_the_prompt_is_asked_for_and_again_with_the_answer():
    stage = Stage()
    request = stage.request(4 * TOKENS, **ours(retain={"ttl_seconds": 600, "priority": 80}))
    for _ in range(3):
        stage.ask(request)
    assert sent(stage) == [(Retain(CLAIM, 600.0, 80), 4)], "the last block of a prompt counts too"
    first = stage.client.hints[0]
    assert first.session == "u"
    assert first.keys.tobytes() == b"".join(request.block_hashes[:4])
    first.answer("deferred", 1, 600.0)
    ids = stage.blocks(6).ids
    answered(stage, request, ids)
    (told,) = outcomes(stage.side.finished(request, ids))
    assert sent(stage)[1] == (Retain(CLAIM, 600.0, 80), 5)
    assert told["outcome"] == "deferred" and "not answered yet" in told["reason"]
    assert (told["blocks"], told["ttl_seconds"], told["claims"]) == (1, 600.0, [CLAIM])
    stage.client.hints[1].answer("deferred", 4, 600.0)
    stage.step()
    assert stage.side.stats.data["hints|deferred"] == 2


def test_a_hint_that_the_store_has_not_answered_is_accepted_and_kept_until_it_is_done():
    stage = Stage()
    request = stage.request(4 * TOKENS, **ours(pin={"ttl_seconds": 60, "covers_output": False}))
    stage.ask(request)
    (told,) = outcomes(stage.side.finished(request, ([],)))
    assert told["outcome"] == "accepted" and "not answered yet" in told["reason"]
    assert "hints|applied" not in stage.side.stats.data
    stage.client.hints[0].answer("applied", 4, 60.0)
    stage.step()
    assert stage.side.stats.data["hints|applied"] == 1
    assert not stage.client.hints[0].cancelled


def test_an_answer_that_has_come_is_told():
    stage = Stage()
    request = stage.request(4 * TOKENS, **ours(pin={"ttl_seconds": 60, "covers_output": False}))
    stage.ask(request)
    stage.client.hints[0].answer("clipped", 3, 60.0)
    (told,) = outcomes(stage.side.finished(request, ([],)))
    assert told == {
        "action_type": "pin",
        "outcome": "clipped",
        "claims": [CLAIM],
        "blocks": 3,
        "ttl_seconds": 60.0,
    }


def test_a_turn_claims_behind_the_turn_before_it():
    stage = Stage()
    one = stage.request(2 * TOKENS, "r1", **ours(retain={"ttl_seconds": 60}))
    two = stage.request(4 * TOKENS, "r2", **ours(retain={"ttl_seconds": 60}))
    stage.ask(one)
    stage.ask(two)
    assert len(stage.client.hints) == 1, "it would be the last one there"
    assert stage.side.busy, "nobody steps any more to place the second"
    stage.client.hints[0].answer("applied", 2, 60.0)
    stage.step()
    assert [blocks for _, blocks in sent(stage)] == [2, 4]


def test_every_rank_and_group_is_hinted_and_the_worst_is_told():
    parts = [[part(0, 0), part(1, 0)], [part(0, 1), part(1, 1)]]
    stage = Stage(parts)
    request = stage.request(4 * TOKENS, **ours(retain={"ttl_seconds": 9, "covers_output": False}))
    stage.ask(request)
    asked = {hint.spec.fingerprint for hint in stage.client.hints}
    assert asked == {question.spec.fingerprint for question in stage.client.questions}
    assert len(stage.client.hints) == 4
    for hint, (outcome, blocks) in zip(
        stage.client.hints, [("applied", 4), ("deferred", 2), ("clipped", 3), ("applied", 4)]
    ):
        hint.answer(outcome, blocks, 9.0)
    (told,) = outcomes(stage.side.finished(request, ([],)))
    assert (told["outcome"], told["blocks"]) == ("clipped", 2)


def test_groups_of_other_block_sizes_are_hinted_in_their_own_blocks():
    stage = Stage([[part(0), part(1, tokens=2 * TOKENS)]])
    request = stage.request(5 * TOKENS, **ours(retain={"ttl_seconds": 9}))
    stage.ask(request)
    assert [blocks for _, blocks in sent(stage)] == [4, 2], "what every group has whole"


def test_what_is_to_go_is_not_saved_and_goes_at_the_end():
    stage = Stage()
    request = stage.request(4 * TOKENS, **ours(evict=True))
    stage.ask(request)
    ids = stage.blocks(6).ids
    assert not answered(stage, request, ids).saves
    assert not stage.client.hints
    (told,) = outcomes(stage.side.finished(request, ids))
    assert sent(stage) == [(Evict(0), 5)]
    assert told["outcome"] == "accepted"
    assert not stage.step().saves


def test_what_stays_of_an_eviction_is_saved():
    stage = Stage()
    request = stage.request(4 * TOKENS, **ours(evict={"first_token": 2 * TOKENS + 1}))
    stage.ask(request)
    ids = stage.blocks(6).ids
    (save,) = answered(stage, request, ids).saves
    assert len(save.groups[0].block_ids) == 2
    stage.side.finished(request, ids)
    assert sent(stage) == [(Evict(3), 5)]
    assert not stage.step().saves


def test_a_demotion_waits_for_the_saves_of_its_request():
    stage = Stage()
    request = stage.request(4 * TOKENS, **ours(demote=True))
    stage.ask(request)
    ids = stage.blocks(6).ids
    saves = answered(stage, request, ids).saves
    (told,) = outcomes(stage.side.finished(request, ids))
    assert told["outcome"] == "accepted" and "is stored" in told["reason"]
    saves += stage.step().saves
    assert len(saves) == 2
    for save in saves:
        assert not stage.client.hints and stage.side.hints.waiting
        stage.side.worker_reported(WorkerReport({save.save_id: SaveOutcome(1, True)}))
        stage.step()
    assert sent(stage) == [(Demote(0), 5)]
    assert not stage.side.hints.waiting


def test_a_claim_is_ended_before_what_it_held_is_dropped():
    stage = Stage()
    request = stage.request(4 * TOKENS, **ours(release=CLAIM, evict=True))
    stage.ask(request)
    assert sent(stage) == [(Release(CLAIM), -1)]
    stage.side.finished(request, ([],))
    assert len(stage.client.hints) == 1 and stage.side.hints.waiting
    stage.client.hints[0].answer("applied", 4)
    stage.step()
    assert sent(stage)[1] == (Evict(0), 4)
    assert not stage.side.hints.waiting, "nobody waits for the answer"


@pytest.mark.parametrize(
    "envelope, hint",
    [
        (
            routed("kv.retain", directives=[{"end": TOKENS, "priority": 9, "duration": 5}]),
            (Retain(CLAIM, 5.0, 9), 1),
        ),
        (
            routed(
                "vllm.set_priority",
                target="request_cached",
                location="local_g1",
                claim_id="c",
                revision=1,
                value=10,
                ttl_seconds=60,
            ),
            (Retain("c", 60.0, 10), 4),
        ),
        (
            routed(
                "kv.retain",
                priority=3,
                ttl_seconds=2.5,
                execute_at="request_completion",
                include_current_request=True,
                block_hashes=["11"],
            ),
            (Retain(CLAIM, 2.5, 3), 4),
        ),
        (routed("kv.pin", ttl_seconds=7), (Pin(CLAIM, 7.0), 4)),
    ],
)
def test_the_envelope_of_a_router_is_executed(envelope, hint):
    stage = Stage()
    request = stage.request(4 * TOKENS, kv_transfer_params=SESSION)
    request.kv_hints = envelope
    stage.ask(request)
    assert sent(stage) == [hint]
    (told,) = outcomes(stage.side.finished(request, ([],)))
    assert told["action_id"] == "a1" and told["outcome"] == "accepted"


def test_an_agents_hint_in_extra_arguments_is_executed():
    stage = Stage()
    request = stage.request(4 * TOKENS)
    request.sampling_params.extra_args = {"agent_hint": '{"cache_control": {"ttl": 120}}'}
    stage.ask(request)
    assert sent(stage) == [(Retain("request:r1", 120.0, 50), 4)]
    assert outcomes(stage.side.finished(request, ([],)))


def test_a_request_that_ends_before_it_was_scheduled_says_what_it_asked_for():
    stage = Stage()
    request = stage.request(4 * TOKENS, **ours(retain={"ttl_seconds": 60}))
    stage.side.track(request)
    (told,) = outcomes(stage.side.finished(request, ([],)))
    assert told["outcome"] == "accepted"
    assert [blocks for _, blocks in sent(stage)] == [4]


def test_hints_are_executed_for_a_request_that_loads_nothing():
    stage = Stage()
    request = stage.request(4 * TOKENS, **ours(load=False, retain={"ttl_seconds": 60}))
    assert stage.ask(request) == (0, False)
    assert len(stage.client.hints) == 1


def test_a_cache_that_is_down_fails_the_hint_and_not_the_request():
    stage = Stage()
    request = stage.request(4 * TOKENS, **ours(pin={"ttl_seconds": 60, "covers_output": False}))
    stage.ask(request)
    stage.client.hints[0].fail(RepriseError(14, "no router answers"))
    (told,) = outcomes(stage.side.finished(request, ([],)))
    assert told["outcome"] == "failed" and "UNAVAILABLE: no router answers" in told["reason"]
    assert stage.side.stats.data["hints|failed"] == 1


def test_an_error_of_ours_does_not_end_the_engine():
    stage = Stage()
    stage.client.hint_async = lambda *unused, **unusual: 1 // 0
    request = stage.request(4 * TOKENS, **ours(retain={"ttl_seconds": 60}, evict=True))
    assert stage.ask(request) == (None, False)
    told = outcomes(stage.side.finished(request, ([],)))
    assert [one["outcome"] for one in told] == ["failed", "failed"]


def test_malformed_hints_are_counted_and_the_request_goes_on():
    stage = Stage()
    request = stage.request(4 * TOKENS, **ours(retain={"ttl_seconds": -1}, retian={}))
    assert stage.ask(request) == (None, False)
    assert not stage.client.hints
    told = outcomes(stage.side.finished(request, ([],)))
    assert [one["outcome"] for one in told] == ["rejected", "unsupported"]
    assert stage.side.stats.data["hints|rejected"] == 1


def test_a_request_whose_adapter_cannot_be_read_has_no_place_to_hint_about(tmp_path):
    stage = Stage()
    gone = types.SimpleNamespace(lora_name="gone", lora_path=str(tmp_path / "gone"))
    request = stage.request(4 * TOKENS, lora_request=gone, **ours(retain={"ttl_seconds": 60}))
    assert stage.ask(request) == (0, False)
    assert not stage.client.hints, "these are other blocks than those of the model alone"
    (told,) = outcomes(stage.side.finished(request, ([],)))
    assert told["outcome"] == "failed" and "LoRA" in told["reason"]


def test_the_end_of_the_engine_leaves_no_hint_under_way():
    stage = Stage()
    request = stage.request(4 * TOKENS, **ours(retain={"ttl_seconds": 60}))
    stage.ask(request)
    stage.side.finished(request, ([],))
    stage.side.close()
    assert [hint.cancelled and hint.closed for hint in stage.client.hints] == [True]
    assert not stage.side.hints.waiting
