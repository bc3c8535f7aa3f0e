"""Which cores our threads run on.

vLLM's CPU backend binds a worker's main thread to the first core of its OpenMP team, and a thread
inherits the cores of the one that starts it: all of ours would share that core with the model. The
process that started the worker is not bound, so what it may use is what ours may use.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


def unbind() -> None:
    """Lets the calling thread run wherever the process that started this one may."""
    try:
        cores = os.sched_getaffinity(0) | os.sched_getaffinity(os.getppid())
        os.sched_setaffinity(0, cores)
    except OSError:
        pass  # it stays where it is: slower, not wrong


@contextlib.contextmanager
def unbound() -> Iterator[None]:
    """Threads that are started within are unbound, and so are those that they start."""
    bound = os.sched_getaffinity(0)
    unbind()
    try:
        yield
    finally:
        os.sched_setaffinity(0, bound)
