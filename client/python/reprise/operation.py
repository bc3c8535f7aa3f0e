"""Operations under way: start now, poll or wait, take the result."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from reprise import _abi

if TYPE_CHECKING:
    from reprise.client import Client

T = TypeVar("T")

# Waiting happens in slices, so that Ctrl-C is heard.
_SLICE_SECONDS = 0.1


class Operation(Generic[T]):
    """A call that runs in the library's threads, without the GIL.

    It keeps the caller's buffers and plans alive until it is done. Dropping it cancels it and waits
    until the library has let go of the memory. Thread-safe.
    """

    def __init__(
        self,
        client: Client,
        handle: int,
        take: Callable[[int], T],
        keep: object,
    ) -> None:
        self._client = client
        self._handle = handle
        self._take = take
        self._keep = keep
        self._result: T | None = None
        self._waiters = 0
        self._lock = threading.Condition()
        client._adopt(self)

    @classmethod
    def finished(cls, client: Client, result: T) -> Operation[T]:
        """An operation that is done already, with `result`."""

        def nothing(handle: int) -> T:
            return result

        operation = cls(client, 0, nothing, None)
        operation._result = result
        return operation

    def done(self) -> bool:
        """Whether the result is there. Never blocks."""
        with self._lock:
            return not self._handle or self._library_done()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits up to `timeout` seconds (None: as long as it takes) and says whether it is done."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self.done():
            left = _SLICE_SECONDS if end is None else min(_SLICE_SECONDS, end - time.monotonic())
            if left <= 0:
                return False
            self._wait_slice(left)
        return True

    def result(self, timeout: float | None = None) -> T:
        """The result, waiting for it if need be. Raises TimeoutError when it is not there after
        `timeout`.

        The operation's own deadline bounds it anyway. May be called again: the answer is the same.
        """
        if not self.wait(timeout):
            raise TimeoutError(f"not done after {timeout} seconds")
        return self._finish()

    def cancel(self) -> None:
        """Asks it to end early: it is done soon, with CANCELLED unless it was done before."""
        with self._lock:
            if self._handle and self._client._usable():
                _abi.library().reprise_op_cancel(self._handle)

    def _wait_slice(self, seconds: float) -> None:
        # The handle is freed only when no thread waits on it.
        with self._lock:
            handle = self._handle
            self._waiters += 1
        try:
            if handle:
                _abi.library().reprise_op_wait(handle, max(1, int(seconds * 1e6)))
        finally:
            with self._lock:
                self._waiters -= 1
                self._lock.notify_all()

    def _library_done(self) -> bool:
        self._client._require_usable()
        return bool(_abi.library().reprise_op_done(self._handle))

    def _finish(self) -> T:
        with self._lock:
            self._lock.wait_for(lambda: not self._waiters)
            if self._handle:
                handle = self._handle
                try:
                    self._result = self._take(handle)
                finally:
                    self._handle, self._keep = 0, None
                    _abi.library().reprise_op_free(handle)
            return self._result  # type: ignore[return-value]

    def close(self) -> None:
        """Cancels it, waits until it is done, keeps its result. Then no memory is touched."""
        if not self._handle or not self._client._usable():
            return
        self.cancel()
        self.wait()
        self._finish()

    def __del__(self) -> None:
        if getattr(self, "_handle", 0):
            self.close()
