"""What moved since the last report, for SGLang's storage metrics (`--enable-metrics`)."""

# SGLang is there when this is imported, not when types are checked.
# mypy: disable-error-code="import-not-found,misc,unused-ignore"

from __future__ import annotations

import threading
from typing import Any


class Traffic:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loaded: list[tuple[int, float]] = []  # (pages, GB/s)
        self._saved: list[tuple[int, float]] = []

    def loaded(self, pages: int, nbytes: int, seconds: float) -> None:
        self._add(self._loaded, pages, nbytes, seconds)

    def saved(self, pages: int, nbytes: int, seconds: float) -> None:
        self._add(self._saved, pages, nbytes, seconds)

    def _add(
        self, rows: list[tuple[int, float]], pages: int, nbytes: int, seconds: float
    ) -> None:
        if pages:
            with self._lock:
                rows.append((pages, nbytes / 1e9 / max(seconds, 1e-9)))

    def take(self) -> Any:
        """SGLang's StorageMetrics of what moved, and starts anew."""
        from sglang.srt.observability.metrics_collector import StorageMetrics

        with self._lock:
            loaded, self._loaded = self._loaded, []
            saved, self._saved = self._saved, []
        return StorageMetrics(
            prefetch_pgs=[pages for pages, _ in loaded],
            backup_pgs=[pages for pages, _ in saved],
            prefetch_bandwidth=[rate for _, rate in loaded],
            backup_bandwidth=[rate for _, rate in saved],
        )
