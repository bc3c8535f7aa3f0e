"""What LMCache's plug-in holds between a question and its load; none of it needs LMCache."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from reprise.engines.lmcache.leased_chunks import LeasedChunks
from reprise.engines.lmcache.settings import Settings


class FakeRun:
    """A run that says when it is let go."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def release(self) -> None:
        assert not self.released.is_set(), "released twice"
        self.released.set()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def leased(clock: Clock) -> Iterator[LeasedChunks]:
    held = LeasedChunks(10.0, 3, clock)
    yield held
    held.close()


def test_what_is_taken_is_the_callers_to_release(leased: LeasedChunks) -> None:
    run = FakeRun()
    leased.hold("a", run)  # type: ignore[arg-type]
    assert leased.holds("a") and not leased.holds("b")
    assert leased.take("a") is run and leased.take("a") is None
    leased.close()
    assert not run.released.is_set()


def test_a_newer_run_takes_the_place_of_an_older_one(leased: LeasedChunks, clock: Clock) -> None:
    older, newer = FakeRun(), FakeRun()
    leased.hold("a", older)  # type: ignore[arg-type]
    clock.now += 6
    assert not leased.holds("a"), "too short for the load that follows"
    leased.hold("a", newer)  # type: ignore[arg-type]
    assert older.released.is_set() and not newer.released.is_set()
    assert leased.holds("a") and leased.take("a") is newer


def test_the_oldest_lets_go_for_more(leased: LeasedChunks) -> None:
    runs = [FakeRun() for _ in range(5)]
    for name, run in enumerate(runs):
        leased.hold(name, run)  # type: ignore[arg-type]
    assert [run.released.is_set() for run in runs] == [True, True, False, False, False]
    assert len(leased) == 3


def test_time_lets_go() -> None:
    held = LeasedChunks(0.05, 10)
    runs = [FakeRun() for _ in range(4)]
    begun = time.monotonic()
    for name, run in enumerate(runs):
        held.hold(name, run)  # type: ignore[arg-type]
    for run in runs:
        assert run.released.wait(10)
    assert time.monotonic() - begun >= 0.05 and len(held) == 0
    held.close()


def test_closing_lets_all_go_and_what_comes_later(leased: LeasedChunks) -> None:
    before, after = FakeRun(), FakeRun()
    leased.hold("a", before)  # type: ignore[arg-type]
    leased.close()
    leased.hold("b", after)  # type: ignore[arg-type]
    assert before.released.is_set() and after.released.is_set()


def test_settings_are_those_of_the_plug_in_alone() -> None:
    extra = {
        "remote_storage_plugin.reprise.module_path": "reprise.engines.lmcache",
        "remote_storage_plugin.reprise.router": "a:1",
        "remote_storage_plugin.reprise.load_timeout_ms": 5,
        "remote_storage_plugin.reprise.second.router": "b:2",
        "save_chunk_meta": False,
    }
    first = Settings.of_plugin(extra, "reprise")
    second = Settings.of_plugin(extra, "reprise.second")
    assert (first.router, first.load_timeout_ms) == (("a:1",), 5)
    assert (second.router, second.load_timeout_ms) == (("b:2",), 3000)


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        ({"lookup_hold": 1}, "unknown setting 'lookup_hold'"),
        ({"save_threads": 0}, "save_threads is 0; it must be at least 1"),
        ({"codec": "int8"}, "codec is 'int8'"),
        ({"shards": "b:2"}, "set either router"),
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, object], sentence: str) -> None:
    given = {"router": "a:1", **wrong}
    extra = {f"remote_storage_plugin.reprise.{name}": value for name, value in given.items()}
    with pytest.raises(ValueError, match="remote_storage_plugin.reprise: ") as refused:
        Settings.of_plugin(extra, "reprise")
    assert sentence in str(refused.value)
