"""Threads of the connector are not bound to the core that vLLM's CPU backend binds its model to."""

from __future__ import annotations

import os
import threading

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here: ./dev test installs it")

from reprise.engines.vllm import affinity  # noqa: E402


def cores_of_a_new_thread() -> set[int]:
    seen: list[set[int]] = []
    thread = threading.Thread(target=lambda: seen.append(os.sched_getaffinity(0)))
    thread.start()
    thread.join()
    return seen[0]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core: nothing can be bound")
def test_only_threads_that_are_started_within_are_unbound():
    free = os.sched_getaffinity(os.getppid())
    before = os.sched_getaffinity(0)
    first = {min(before)}
    os.sched_setaffinity(0, first)
    try:
        with affinity.unbound():
            assert cores_of_a_new_thread() == free | first
        assert os.sched_getaffinity(0) == first
        assert cores_of_a_new_thread() == first
    finally:
        os.sched_setaffinity(0, before)
