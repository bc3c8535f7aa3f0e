"""Counters of the connector, in vLLM's log line and on its /metrics."""

# vLLM is there when this is imported, not when types are checked.
# mypy: disable-error-code="import-not-found,misc,unused-ignore"

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.metrics import (
    KVConnectorPromMetrics,
    KVConnectorStats,
)
from vllm.v1.metrics.utils import create_metric_per_engine

# name -> (what it counts, label names)
COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "lookups": ("Prefix lookups, by outcome: hit, miss, late, error", ("outcome",)),
    "loaded_blocks_by_tier": (
        "Blocks loaded into the engine, by the tier that had them",
        ("tier",),
    ),
    "loaded_blocks_by_lane": (
        "Blocks loaded into the engine, by the lane that carried them",
        ("lane",),
    ),
    "loaded_bytes": ("Bytes loaded into the engine", ()),
    "loads": ("Loads, by outcome: complete, short, cancelled", ("outcome",)),
    "failed_blocks": ("Blocks that were promised and did not come: computed instead", ()),
    "corrupt_blocks": ("Blocks whose checksum failed: computed instead", ()),
    "saves": ("Saves, by event: begun, ended (the difference is under way)", ("event",)),
    "saved_blocks": (
        "Blocks handed to Reprise, by outcome: stored, present, refused",
        ("outcome",),
    ),
    "saved_bytes": ("Bytes written to Reprise", ()),
    "hints": (
        "What requests asked of the store, by outcome: applied, deferred, clipped, missing, "
        "failed, unsupported, rejected",
        ("outcome",),
    ),
    "handoffs": (
        "Prompts that another server computed, by how much of them was found in time: whole, short",
        ("outcome",),
    ),
    "skipped_saves": ("Saves not begun because too many were under way", ()),
}
SEPARATOR = "|"


class RepriseStats(KVConnectorStats):
    """Counter increments since the last report: `data` maps "name" or "name|label" to a number."""

    def add(self, name: str, amount: float = 1, label: str = "") -> None:
        assert name in COUNTERS, name
        key = f"{name}{SEPARATOR}{label}" if label else name
        self.data[key] = self.data.get(key, 0) + amount

    data: dict[str, Any]

    def reset(self) -> None:
        self.data = {}

    def take(self) -> "RepriseStats | None":
        """These increments, and starts anew; None where nothing happened."""
        if not self.data:
            return None
        taken = RepriseStats(data=self.data)
        self.reset()
        return taken

    def aggregate(self, other: KVConnectorStats) -> "RepriseStats":
        for key, amount in other.data.items():
            self.data[key] = self.data.get(key, 0) + amount
        return self

    def reduce(self) -> dict[str, int | float]:
        return {
            f"reprise {key.replace(SEPARATOR, ' ')}": value
            for key, value in sorted(self.data.items())
        }

    def is_empty(self) -> bool:
        return not self.data


class ReprisePromMetrics(KVConnectorPromMetrics):
    """The same as `vllm:reprise_*_total`."""

    def __init__(
        self,
        vllm_config: Any,
        metric_types: Any,
        labelnames: list[str],
        per_engine_labelvalues: dict[int, list[object]],
    ) -> None:
        super().__init__(vllm_config, metric_types, labelnames, per_engine_labelvalues)
        self._metrics: dict[str, Any] = {}
        self._plain: dict[str, Mapping[int, Any]] = {}
        for name, (documentation, labels) in COUNTERS.items():
            metric = self._counter_cls(
                name=f"vllm:reprise_{name}",
                documentation=documentation,
                labelnames=[*labelnames, *labels],
            )
            self._metrics[name] = metric
            if not labels:
                self._plain[name] = create_metric_per_engine(metric, per_engine_labelvalues)

    def observe(self, transfer_stats_data: dict[str, Any], engine_idx: int = 0) -> None:
        for key, amount in transfer_stats_data.items():
            name, _, label = key.partition(SEPARATOR)
            if name not in COUNTERS:
                continue
            if label:
                self._metrics[name].labels(*self.per_engine_labelvalues[engine_idx], label).inc(
                    amount
                )
            else:
                self._plain[name][engine_idx].inc(amount)
