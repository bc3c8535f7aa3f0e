"""Says in the log why a whole prompt missed when the reason is another cache spec, naming the
field.

Beside the scheduler's thread and seldom: an explanation scans the shards' indexes.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from . import keys

logger = logging.getLogger("vllm.reprise")


class MissExplainer:
    def __init__(self, client: Any, interval_s: float, clock: Any = time.monotonic) -> None:
        self._client = client
        self._interval_s = interval_s
        self._clock = clock
        self._next = 0.0
        self._told: set[tuple[str, str, str]] = set()

    def consider(self, spec: Any, packed_keys: bytes) -> threading.Thread | None:
        """Looks into this miss unless the last look was too recent. Returns the thread that
        does, for tests.
        """
        now = self._clock()
        if not self._interval_s or now < self._next or not packed_keys:
            return None
        self._next = now + self._interval_s
        thread = threading.Thread(
            target=self._look, args=(spec, packed_keys), name="reprise-explain", daemon=True
        )
        thread.start()
        return thread

    def _look(self, spec: Any, packed_keys: bytes) -> None:
        try:
            answer = self._client.explain(spec, keys.as_array(packed_keys))
        except Exception as error:  # the cache is away: nothing to explain
            logger.debug("Reprise could not explain a miss: %s", error)
            return
        for one in answer.get("shards", [answer]):
            field = one.get("spec_field")
            if not field:
                continue
            told = (field, str(one.get("spec_value_asked")), str(one.get("spec_value_stored")))
            if told not in self._told:
                self._told.add(told)
                logger.warning(
                    "Blocks of this prompt are stored, but not for this engine: cache spec "
                    "field %s is %r "
                    "here and %r there. Nothing is shared between them.",
                    *told,
                )
