"""What the scheduler side and the worker side tell each other."""

# vLLM is there when this is imported, not when types are checked.
# mypy: disable-error-code="import-not-found,misc,unused-ignore"

from __future__ import annotations

import dataclasses

from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorHandshakeMetadata,
    KVConnectorMetadata,
    KVConnectorWorkerMetadata,
)

from .spec_from_engine import Part


@dataclasses.dataclass(frozen=True)
class Variant:
    """What besides the engine decides a request's key space."""

    lora_digest: str = ""
    epoch: str = ""


@dataclasses.dataclass(frozen=True)
class GroupBlocks:
    """Consecutive blocks of one group: keys of the chain from its start to their end, and the
    engine's block ids.
    """

    group: int
    keys: bytes
    first: int
    block_ids: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Load:
    request_id: str
    session: str | None
    variant: Variant
    groups: tuple[GroupBlocks, ...]
    timeout_s: float


@dataclasses.dataclass(frozen=True)
class Save:
    save_id: int
    session: str | None
    variant: Variant
    groups: tuple[GroupBlocks, ...]
    tokens: bytes | None  # uint32, for Explain
    timeout_s: float


@dataclasses.dataclass
class StepMetadata(KVConnectorMetadata):
    """Work that begins with one step."""

    loads: list[Load] = dataclasses.field(default_factory=list)
    saves: list[Save] = dataclasses.field(default_factory=list)
    cancelled: set[str] = dataclasses.field(
        default_factory=set
    )  # requests whose load no one needs any more
    idle: bool = False  # the step runs no request
    pausing: bool = False  # some request waits, and is asked for again in a moment


@dataclasses.dataclass(frozen=True)
class SaveOutcome:
    ranks: int
    complete: bool  # on these ranks every block is stored now


@dataclasses.dataclass
class WorkerReport(KVConnectorWorkerMetadata):
    """What ended on the workers since their last report."""

    saves: dict[int, SaveOutcome] = dataclasses.field(default_factory=dict)

    def aggregate(self, other: KVConnectorWorkerMetadata) -> "WorkerReport":
        assert isinstance(other, WorkerReport)
        merged = dict(self.saves)
        for save_id, outcome in other.saves.items():
            mine = merged.get(save_id)
            merged[save_id] = (
                outcome
                if mine is None
                else SaveOutcome(mine.ranks + outcome.ranks, mine.complete and outcome.complete)
            )
        return WorkerReport(merged)


@dataclasses.dataclass
class RankParts(KVConnectorHandshakeMetadata):
    """One rank's parts, told to the scheduler once at start."""

    parts: tuple[Part, ...]
