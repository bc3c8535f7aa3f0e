"""The worker's half, without a model: when a step that runs no request waits, and for what."""

from __future__ import annotations

import threading

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here: ./dev test installs it")

from reprise.engines.vllm import worker_side  # noqa: E402
from reprise.engines.vllm.messages import Save, Variant  # noqa: E402
from reprise.engines.vllm.settings import Settings  # noqa: E402


class Gate:
    """The groups of a save, none, that come when the gate is opened."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def __iter__(self):
        self.open.wait()
        return iter(())


@pytest.fixture
def side():
    made = worker_side.WorkerSide(Settings(router=("127.0.0.1:1",)), client=None)
    yield made
    made.close()


def save(gate: Gate) -> Save:
    return Save(7, None, Variant(), gate, None, 1.0)


def test_a_step_that_runs_requests_does_not_wait_for_a_save(side, monkeypatch):
    monkeypatch.setattr(worker_side, "IDLE_WAIT_S", 1_000.0)
    gate = Gate()
    side.start_saves([save(gate)])
    side.results(idle=False)
    assert side.report() is None
    gate.open.set()


def test_an_idle_step_waits_until_a_save_ends(side, monkeypatch):
    monkeypatch.setattr(worker_side, "IDLE_WAIT_S", 1_000.0)
    gate = Gate()
    side.start_saves([save(gate)])
    threading.Timer(0.05, gate.open.set).start()
    side.results(idle=True)
    assert list(side.report().saves) == [7]


def test_an_idle_step_waits_for_nothing_when_nothing_is_under_way(side, monkeypatch):
    monkeypatch.setattr(worker_side, "IDLE_WAIT_S", 1_000.0)
    side.results(idle=True)
    assert side.report() is None
