"""Says in an engine's log why a whole prompt missed when the reason is another cache spec, naming
the field.

Beside the engine's threads and seldom: an explanation scans the shards' indexes.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from reprise.keys import KeyArray


class MissExplainer:
    """`interval_s`: how often a miss is looked into at most; 0: never."""

    def __init__(
        self,
        client: Any,
        interval_s: float,
        logger: logging.Logger,
        clock: Any = time.monotonic,
    ) -> None:
        self._client = client
        self._logger = logger
        self._interval_s = interval_s
        self._clock = clock
        self._next = 0.0
        self._told: set[tuple[str, str, str]] = set()

    def consider(self, spec: Any, chain: KeyArray) -> threading.Thread | None:
        """Looks into this miss unless the last look was too recent. Returns the thread that
        does, for tests.
        """
        now = self._clock()
        if not self._interval_s or now < self._next or not len(chain):
            return None
        self._next = now + self._interval_s
        thread = threading.Thread(
            target=self._look, args=(spec, chain), name="reprise-explain", daemon=True
        )
        thread.start()
        return thread

    def _look(self, spec: Any, chain: KeyArray) -> None:
        try:
            answer = self._client.explain(spec, chain)
        except Exception as error:  # the cache is away: nothing to explain
            self._logger.debug("Reprise could not explain a miss: %s", error)
            return
        for one in answer.get("shards", [answer]):
            field = one.get("spec_field")
            if not field:
                continue
            told = (field, str(one.get("spec_value_asked")), str(one.get("spec_value_stored")))
            if told not in self._told:
                self._told.add(told)
                self._logger.warning(
                    "Blocks of this prompt are stored, but not for this engine: cache spec "
                    "field %s is %r "
                    "here and %r there. Nothing is shared between them.",
                    *told,
                )
