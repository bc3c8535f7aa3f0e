"""How long the first forward pass of a `generate` took: the prompt's, which computes its K/V."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any

import torch


class FirstForward:
    """Times the first forward pass that this thread makes of `model` inside a `with`.

    On a GPU by events, which cost the pass nothing: `seconds` waits for them, so ask when the
    answer is there anyway.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        """Nothing is timed before `with`."""
        self._model = model
        self._thread = threading.get_ident()
        self._begun: Any = None
        self._ended: Any = None
        self._hooks: list[Any] = []

    def __enter__(self) -> FirstForward:
        self._hooks = [
            self._model.register_forward_pre_hook(self._before),
            self._model.register_forward_hook(self._after),
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    def seconds(self) -> float | None:
        """None when there was no pass."""
        if self._ended is None:
            return None
        if isinstance(self._ended, float):
            return self._ended - float(self._begun)
        self._ended.synchronize()
        return float(self._begun.elapsed_time(self._ended)) / 1e3

    def _now(self) -> Any:
        device = next(self._model.parameters()).device
        if device.type != "cuda":
            return time.perf_counter()
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(device))
        return event

    def _before(self, *unused: Any) -> None:
        if self._begun is None and threading.get_ident() == self._thread:
            self._begun = self._now()

    def _after(self, *unused: Any) -> None:
        if self._ended is None and threading.get_ident() == self._thread:
            self._ended = self._now()
