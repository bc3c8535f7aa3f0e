"""RepriseConnector with a clock: what its calls add to each of vLLM's scheduler steps.

Loaded out of tree by the server that is measured (`kv_connector_module_path`); writes one record
(steps.py) for each step.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Any

from reprise.engines.vllm.connector import RepriseConnector
from steps import FILE_VARIABLE, RECORD
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorRole

FLUSH_EVERY = 32
LAST_OF_STEP = "build_connector_meta"
TIMED = (
    "on_new_request",
    "get_num_new_matched_tokens",
    "update_state_after_alloc",
    LAST_OF_STEP,
    "update_connector_output",
    "request_finished_all_groups",
    "has_pending_push_work",
    "has_pending_block_frees",
)


class TimedConnector(RepriseConnector):
    """The same, timed on the scheduler's side."""

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        self._spent = [0, 0]
        self._records = bytearray()
        self._file = None
        if role == KVConnectorRole.SCHEDULER:
            self._file = open(os.environ[FILE_VARIABLE], "ab", buffering=0)

    def _step_ended(self) -> None:
        wall, cpu = (ns / 1000 for ns in self._spent)
        self._spent = [0, 0]
        self._records += RECORD.pack(time.monotonic(), wall, cpu)
        if len(self._records) >= FLUSH_EVERY * RECORD.size and self._file is not None:
            self._file.write(self._records)
            self._records.clear()

    def shutdown(self) -> None:
        if self._file is not None:
            self._file.write(self._records)
            self._file.close()
        super().shutdown()


def _timed(name: str) -> Callable[..., Any]:
    method = getattr(RepriseConnector, name)

    @functools.wraps(method)
    def call(self: TimedConnector, *given: Any, **named: Any) -> Any:
        wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
        try:
            return method(self, *given, **named)
        finally:
            self._spent[0] += time.perf_counter_ns() - wall
            self._spent[1] += time.thread_time_ns() - cpu
            if name == LAST_OF_STEP:
                self._step_ended()

    return call


for _name in TIMED:
    setattr(TimedConnector, _name, _timed(_name))
