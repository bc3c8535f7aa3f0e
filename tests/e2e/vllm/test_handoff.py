"""Disaggregated serving in the scheduler's half: what the server that computes tells of a prompt,
and how the one that answers waits for it. A stand-in of the Reprise client answers when told.
"""

from __future__ import annotations

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here: ./dev test installs it")

from reprise.engines.vllm import handoff, nesting  # noqa: E402
from reprise.engines.vllm.connector import RepriseConnector  # noqa: E402
from reprise.engines.vllm.messages import SaveOutcome, StepMetadata, WorkerReport  # noqa: E402
from reprise.engines.vllm.settings import Settings  # noqa: E402
from reprise.engines.vllm.worker_side import IDLE_WAIT_S, WorkerSide  # noqa: E402
from test_from_the_engine import TOKENS  # noqa: E402
from test_scheduler_side import Stage, part  # noqa: E402

COMPUTE = {"kv_transfer_params": {"do_remote_decode": True, "do_remote_prefill": False}}


def handed(blocks: int, **more):
    return {
        "kv_transfer_params": {
            "do_remote_prefill": True,
            "reprise": {"handoff": {"tokens": blocks * TOKENS}, **more},
        }
    }


def computed(stage: Stage, tokens: int, **attributes):
    """What is told of a prompt that was computed in one step, with one token of an answer."""
    request = stage.request(tokens, **attributes)
    stage.ask(request)
    for question in stage.client.questions:
        question.answer(0)
    assert stage.ask(request) == (0, False)
    ids = stage.blocks(tokens // TOKENS + 1).ids
    stage.step(r1=(tokens, ids))
    request.num_computed_tokens = tokens
    request.append_output_token_ids([1])
    return stage.side.finished(request, ids)


def to_compute(blocks: int):
    """A prompt of whole blocks for another server, and where the engine keeps it and its answer."""
    stage = Stage()
    request = stage.request(blocks * TOKENS, **COMPUTE)
    stage.side.track(request)
    return stage, request, stage.blocks(blocks + 2).ids


def short(stage: Stage) -> float:
    return stage.side.stats.data.get("handoffs|short", 0)


def later(stage: Stage) -> None:
    stage.clock.now += handoff.ASK_AGAIN_S


# ---- The server that computes


def test_the_server_that_computes_tells_how_many_tokens_it_stores():
    told = computed(Stage(), 5 * TOKENS + 3, **COMPUTE)
    assert told["do_remote_prefill"] is True and told["do_remote_decode"] is False
    assert told["reprise"]["handoff"] == {"tokens": 5 * TOKENS}


def test_the_answers_own_tokens_are_no_part_of_it():
    stage, request, ids = to_compute(2)
    stage.step(r1=(2 * TOKENS, ids))
    request.append_output_token_ids(list(range(TOKENS + 1)))
    request.num_computed_tokens = 3 * TOKENS
    told = stage.side.finished(request, ids)
    assert told["reprise"]["saved_tokens"] == 3 * TOKENS
    assert told["reprise"]["handoff"] == {"tokens": 2 * TOKENS}


@pytest.mark.parametrize(
    "attributes",
    [
        {"kv_transfer_params": {"do_remote_decode": False}},
        {"kv_transfer_params": {"do_remote_decode": "yes"}},
        {"kv_transfer_params": {"do_remote_decode": True, "reprise": {"save": False}}},
    ],
    ids=["not asked", "not a flag", "nothing stored"],
)
def test_nothing_is_handed_over_that_nobody_wants_or_nobody_stores(attributes):
    told = computed(Stage(), 5 * TOKENS, **attributes)
    assert "do_remote_prefill" not in told and "handoff" not in told["reprise"]


def test_what_a_failed_save_left_out_is_not_promised():
    stage, request, ids = to_compute(3)
    save = stage.step(r1=(3 * TOKENS, ids)).saves[0]
    stage.side.worker_reported(WorkerReport({save.save_id: SaveOutcome(1, False)}))
    stage.side.pins.capacity = lambda fraction: 0
    stage.side._save_of[99] = "another's"
    request.num_computed_tokens = 3 * TOKENS
    request.append_output_token_ids([1])
    assert "handoff" not in stage.side.finished(request, ids)["reprise"]


def test_a_server_that_only_answers_promises_nothing():
    stage = Stage()
    stage.side._produces = False
    assert "handoff" not in computed(stage, 5 * TOKENS, **COMPUTE)["reprise"]


# ---- The server that answers


def test_a_server_that_only_computes_waits_for_nothing():
    stage = Stage()
    stage.side._consumes = False
    assert stage.ask(stage.request(8 * TOKENS + 1, **handed(8))) == (0, False)
    assert not stage.client.questions


def test_it_asks_until_all_that_was_computed_is_found():
    stage = Stage()
    request = stage.request(8 * TOKENS + 1, **handed(8))
    for number, found in enumerate((0, 3, 7)):
        assert stage.ask(request) == (None, False)
        assert len(stage.client.questions) == number + 1
        stage.client.questions[-1].answer(found)
        assert stage.ask(request) == (None, False), f"{found} of 8 blocks are there"
        assert stage.client.questions[-1].run.released, "a question that is over holds no lease"
        assert stage.ask(request) == (None, False)
        assert len(stage.client.questions) == number + 1, "not again before its time"
        assert stage.step().pausing
        later(stage)
    assert stage.ask(request) == (None, False)
    stage.client.questions[-1].answer(8)
    assert stage.ask(request) == (8 * TOKENS, True)
    assert not stage.client.questions[-1].run.released
    data = stage.side.stats.data
    assert data["handoffs|whole"] == 1 and not short(stage)
    assert data["lookups|hit"] == 1 and "lookups|miss" not in data, "one question, as users count"
    told = stage.side.finished(request, ([],))
    assert {"action_type": "handoff", "outcome": "applied"} in told["reprise"]["outcomes"]


def test_what_is_found_when_the_time_is_over_is_loaded_and_the_rest_computed(caplog):
    stage = Stage(handoff_wait_ms=1000)
    request = stage.request(8 * TOKENS + 1, **handed(8))
    stage.ask(request)
    stage.client.questions[0].answer(2)
    assert stage.ask(request) == (None, False)
    stage.clock.now += 1.0
    stage.ask(request)
    stage.client.questions[1].answer(5)
    assert stage.ask(request) == (5 * TOKENS, True)
    assert short(stage) == 1
    assert f"{5 * TOKENS} of {8 * TOKENS} tokens were found" in caplog.text
    assert "handoff_wait_ms = 1000" in caplog.text
    (told,) = stage.side.finished(request, ([],))["reprise"]["outcomes"]
    assert told["outcome"] == "missing" and f"{5 * TOKENS} of {8 * TOKENS}" in told["reason"]


def test_a_cache_that_is_down_is_not_waited_for():
    stage = Stage()
    request = stage.request(8 * TOKENS + 1, **handed(8))
    stage.ask(request)
    stage.client.questions[0].answer(0, error="UNAVAILABLE")
    assert stage.ask(request) == (0, False)
    late = stage.request(8 * TOKENS + 1, "r2", **handed(8))
    stage.ask(late)
    stage.clock.now += stage.side.settings.lookup_budget_ms / 1000
    assert stage.ask(late) == (0, False)
    assert short(stage) == 2


def test_the_last_token_is_computed_here_and_so_not_waited_for():
    stage = Stage()
    request = stage.request(8 * TOKENS, **handed(8))
    stage.ask(request)
    stage.client.questions[0].answer(7)
    assert stage.ask(request) == (7 * TOKENS, True)


def test_what_the_engine_has_itself_is_not_waited_for():
    stage = Stage()
    request = stage.request(8 * TOKENS + 1, **handed(4))
    stage.ask(request, computed=4 * TOKENS)
    stage.client.questions[0].answer(4)
    assert stage.ask(request, computed=4 * TOKENS) == (0, False)
    assert stage.side.stats.data["handoffs|whole"] == 1


def test_every_rank_has_to_have_it():
    stage = Stage([[part(0, 0)], [part(0, 1)]])
    request = stage.request(8 * TOKENS + 1, **handed(8))
    stage.ask(request)
    first, second = stage.client.questions
    first.answer(8)
    second.answer(7)
    assert stage.ask(request) == (None, False)
    assert first.run.released and second.run.released


def test_a_request_that_ends_while_it_waits_leaves_nothing():
    stage = Stage()
    request = stage.request(8 * TOKENS + 1, **handed(8))
    stage.ask(request)
    stage.client.questions[0].answer(1)
    stage.ask(request)
    stage.side.finished(request, ([],))
    assert not stage.side._requests and not stage.side.busy
    assert stage.client.questions[0].run.released


def test_a_request_that_stays_out_waits_for_nothing():
    stage = Stage()
    request = stage.request(8 * TOKENS + 1, **handed(8, load=False))
    assert stage.ask(request) == (0, False)
    assert not stage.client.questions and not stage.step().pausing


def test_others_do_not_pause_and_are_not_counted():
    stage = Stage()
    request = stage.request(8 * TOKENS + 1)
    stage.ask(request)
    assert not stage.step().pausing
    stage.client.questions[0].answer(8)
    assert stage.ask(request) == (8 * TOKENS, True)
    assert not [name for name in stage.side.stats.data if name.startswith("handoffs")]


def test_a_step_pauses_for_those_that_it_asked_for_alone():
    stage = Stage()
    request = stage.request(8 * TOKENS + 1, **handed(8))
    stage.ask(request)
    stage.client.questions[0].answer(1)
    stage.ask(request)
    stage.ask(request)
    assert stage.step().pausing
    assert not stage.step().pausing


@pytest.mark.parametrize(
    ("idle", "pausing", "waits"), [(True, True, 1), (True, False, 0), (False, True, 0)]
)
def test_workers_wait_a_moment_in_a_step_that_has_nothing_but_a_pause(idle, pausing, waits):
    connector = object.__new__(RepriseConnector)
    connector._connector_metadata = StepMetadata(idle=idle, pausing=pausing)
    connector._worker = WorkerSide(Settings(router=("r",)), None)
    waited = []
    connector._worker._ended.wait = waited.append
    connector.get_transfer_results(set())
    connector._worker.close()
    assert waited == [IDLE_WAIT_S] * waits


def test_the_second_server_goes_on_with_the_firsts_session():
    stage = Stage()
    stage.ask(stage.request(8 * TOKENS + 1, "r1", **handed(8, session="s-1")))
    stage.ask(stage.request(8 * TOKENS + 1, "r2", session_id="own", **handed(8, session="s-1")))
    told = {"kv_transfer_params": {"reprise": {"session": "s-1"}}}
    stage.ask(stage.request(8 * TOKENS + 1, "r3", **told))
    assert [q.session for q in stage.client.questions] == ["s-1", "own", None]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (8, "handoff = 8: it is an object"),
        ({}, "tokens = None"),
        ({"tokens": -1}, "tokens = -1"),
        ({"tokens": True}, "tokens = True"),
        ({"tokens": float("nan")}, "tokens = nan"),
        ({"tokens": 64.0}, "tokens = 64.0"),
        ({"tokens": "64"}, "tokens = '64'"),
        ([64], "handoff = [64]: it is an object"),
        ({"tokens": 8, "blocks": 1}, "unknown member 'blocks'"),
    ],
)
def test_a_handoff_that_makes_no_sense_is_rejected_by_name_and_not_waited_for(given, why):
    stage = Stage()
    request = stage.request(8 * TOKENS + 1, kv_transfer_params={"reprise": {"handoff": given}})
    stage.ask(request)
    stage.client.questions[0].answer(0)
    assert stage.ask(request) == (0, False)
    (told,) = stage.side.finished(request, ([],))["reprise"]["outcomes"]
    assert (told["action_type"], told["outcome"]) == ("handoff", "rejected")
    assert why in told["reason"]


def outcome(stage: Stage, request):
    (told,) = stage.side.finished(request, ([],))["reprise"]["outcomes"]
    return told


def test_a_wait_ends_in_time_and_asks_less_often_the_longer_it_takes():
    stage = Stage(handoff_wait_ms=2000)
    request = stage.request(8 * TOKENS + 1, **handed(8))
    began = stage.clock.now
    while (got := stage.ask(request)) == (None, False):
        if not stage.client.questions[-1].done():
            stage.client.questions[-1].answer(3)
        elif not stage.step().pausing:
            continue
        stage.clock.now += 0.001
        assert stage.clock.now < began + 3, "it waits for ever"
    assert got == (3 * TOKENS, True)
    assert stage.clock.now - began == pytest.approx(2.0, abs=0.01)
    assert 20 < len(stage.client.questions) < 60


def test_a_server_whose_bound_is_nothing_neither_waits_nor_promises():
    stage = Stage(handoff_wait_ms=0)
    request = stage.request(8 * TOKENS + 1, **handed(8))
    stage.ask(request)
    stage.client.questions[0].answer(3)
    assert stage.ask(request) == (3 * TOKENS, True)
    told = computed(Stage(handoff_wait_ms=0), 5 * TOKENS, **COMPUTE)
    assert list(told) == ["reprise"] and "handoff" not in told["reprise"]


def test_beside_another_connector_that_hands_over_the_answers_can_be_joined():
    """vLLM's MultiConnector ends the engine where two connectors answer with the same members."""
    from vllm.distributed.kv_transfer.kv_connector.v1.multi_connector import MultiConnector

    class Others:
        def request_finished(self, request, ids):
            return False, {"do_remote_prefill": True, "do_remote_decode": False}

    class Ours:
        def request_finished(self, request, ids):
            return False, computed(Stage(handoff_wait_ms=0), 5 * TOKENS, **COMPUTE)

    both = object.__new__(MultiConnector)
    both._connectors = [Others(), Ours()]
    both._requests_to_connector = {}
    request = Stage().request(5 * TOKENS)
    _, told = both.request_finished(request, [])
    assert told["do_remote_prefill"] and told["reprise"]["saved_tokens"] == 5 * TOKENS


def test_one_of_several_connectors_leaves_handing_over_to_the_others_unless_told():
    from vllm.distributed.kv_transfer.kv_connector.v1.multi_connector import MultiConnector

    class Several(MultiConnector):
        def __init__(self):
            self.seen = nesting.is_part_of_another(object())
            self.itself = nesting.is_part_of_another(self)

    assert Several().seen and not Several().itself
    assert not nesting.is_part_of_another(object())
    for given, expected in (({}, 0), ({"handoff_wait_ms": 70}, 70)):
        given = {"router": "r:1", **given}
        settings = Settings.from_extra_config(given)
        assert settings.beside_others(given).handoff_wait_ms == expected


# ---- Weights that are no other server's


def test_what_other_weights_computed_is_neither_promised_nor_waited_for():
    stage = Stage()
    stage.side.forget_all()
    assert "handoff" not in computed(stage, 5 * TOKENS, **COMPUTE)["reprise"]
    request = stage.request(8 * TOKENS + 1, "r2", **handed(8))
    stage.ask(request)
    stage.client.questions[-1].answer(0)
    assert stage.ask(request) == (0, False)
    assert short(stage) == 1 and outcome(stage, request)["outcome"] == "missing"


def test_a_wait_ends_when_the_weights_are_replaced():
    stage = Stage()
    request = stage.request(8 * TOKENS + 1, **handed(8))
    stage.ask(request)
    stage.client.questions[0].answer(1)
    assert stage.ask(request) == (None, False)
    stage.side.forget_all()
    later(stage)
    assert stage.ask(request) == (None, False)
    stage.client.questions[1].answer(0)
    assert stage.ask(request) == (0, False)
    assert stage.client.questions[0].run.released


# ---- What the engine finds out by itself meanwhile


def test_a_prompt_that_the_engine_has_itself_by_now_is_waited_for_no_longer():
    stage = Stage()
    request = stage.request(8 * TOKENS + 1, **handed(8))
    stage.ask(request)
    stage.client.questions[0].answer(1)
    stage.ask(request)
    later(stage)
    stage.ask(request)
    assert stage.ask(request, computed=8 * TOKENS) == (0, False)
    assert stage.client.questions[1].cancelled, "its lease would last as long as the request"
    assert stage.side.stats.data["handoffs|whole"] == 1
    assert outcome(stage, request)["outcome"] == "applied"


def test_a_prompt_that_the_engine_has_itself_from_the_start_is_told_of():
    stage = Stage()
    request = stage.request(8 * TOKENS + 1, **handed(8))
    assert stage.ask(request, computed=8 * TOKENS) == (0, False)
    assert not stage.client.questions
    assert outcome(stage, request) == {"action_type": "handoff", "outcome": "applied"}


def test_a_handoff_that_nobody_looks_for_is_told_of_as_well():
    stage = Stage()
    request = stage.request(8 * TOKENS + 1, **handed(8, load=False))
    stage.ask(request)
    told = outcome(stage, request)
    assert told["outcome"] == "accepted" and "loads nothing" in told["reason"]


def test_what_the_engine_does_not_load_after_all_is_leased_no_longer():
    """Behind MultiConnector another one may load it."""
    stage = Stage()
    request = stage.request(8 * TOKENS + 1, **handed(8))
    stage.ask(request)
    stage.client.questions[0].answer(8)
    assert stage.ask(request) == (8 * TOKENS, True)
    stage.side.allocated(request, stage.blocks(9), 0)
    assert stage.client.questions[0].run.released


# ---- A prompt that is computed in several steps


def test_every_step_of_a_prompt_counts():
    stage, request, ids = to_compute(6)
    for _ in range(3):
        stage.step(r1=(2 * TOKENS, ids))
        request.num_computed_tokens += 2 * TOKENS
    request.append_output_token_ids([1])
    told = stage.side.finished(request, ids)
    assert told["reprise"]["handoff"] == {"tokens": 6 * TOKENS}


def test_a_step_whose_save_failed_is_saved_again_and_counts():
    stage, request, ids = to_compute(6)
    save = stage.step(r1=(3 * TOKENS, ids)).saves[0]
    request.num_computed_tokens = 3 * TOKENS
    stage.side.worker_reported(WorkerReport({save.save_id: SaveOutcome(1, False)}))
    again = stage.step(r1=(3 * TOKENS, ids)).saves[0]
    assert again.groups[0].first == 0
    request.num_computed_tokens = 6 * TOKENS
    request.append_output_token_ids([1])
    told = stage.side.finished(request, ids)
    assert told["reprise"]["handoff"] == {"tokens": 6 * TOKENS}


def test_a_prompt_of_less_than_a_block_is_not_handed_over():
    assert list(computed(Stage(), TOKENS - 1, **COMPUTE)) == ["reprise"]


# ---- After the wait


def test_a_request_that_is_preempted_does_not_wait_a_second_time():
    stage = Stage()
    request = stage.request(8 * TOKENS + 1, **handed(8))
    stage.ask(request)
    stage.client.questions[0].answer(8)
    stage.ask(request)
    stage.side.allocated(request, stage.blocks(9), 8 * TOKENS)
    stage.step()
    stage.side.load_ended({"r1"})
    request.num_preemptions += 1
    assert stage.ask(request) == (None, False)
    stage.client.questions[1].answer(2)
    assert stage.ask(request) == (2 * TOKENS, True)
    assert stage.side.stats.data["handoffs|whole"] == 1 and not short(stage)


@pytest.mark.parametrize("tokens", [9 * TOKENS, 2**63 - 1, 8 * TOKENS + 1])
def test_no_more_is_waited_for_than_the_prompt_has(tokens):
    stage = Stage()
    params = {"kv_transfer_params": {"reprise": {"handoff": {"tokens": tokens}}}}
    request = stage.request(8 * TOKENS + 2, **params)
    stage.ask(request)
    stage.client.questions[0].answer(8)
    assert stage.ask(request) == (8 * TOKENS, True)


def test_less_than_a_block_is_not_waited_for():
    stage = Stage()
    params = {"kv_transfer_params": {"reprise": {"handoff": {"tokens": TOKENS - 1}}}}
    request = stage.request(8 * TOKENS + 1, **params)
    stage.ask(request)
    stage.client.questions[0].answer(0)
    assert stage.ask(request) == (0, False)
