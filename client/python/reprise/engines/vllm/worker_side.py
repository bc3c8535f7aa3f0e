"""The half of the connector in vLLM's worker processes: moves blocks between the engine's pages and
Reprise.

Loads and saves run on a few threads beside the model's steps; a step only hands them over and asks
what ended. Invariants: a load or save that is reported as ended touches no page any more; every
load that began is reported once.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import logging
import threading
import time
from typing import Any

import numpy as np

from reprise import PagedPlan
from reprise.memory import HOST

from . import affinity, keys
from .messages import GroupBlocks, Load, Save, SaveOutcome, WorkerReport
from .metrics import RepriseStats
from .settings import Settings
from .spec_from_engine import Part, Planes
from .staging import DeviceOrder, Stager, plan_device

logger = logging.getLogger("vllm.reprise")

# vLLM steps without a pause while a load or a save is under way. A step that has nothing else to do
# leaves the core to the threads that move bytes, and a request that comes meanwhile waits so long.
IDLE_WAIT_S = 0.001


@dataclasses.dataclass
class Results:
    """What ended since the last question."""

    finished: set[str] = dataclasses.field(default_factory=set)
    failed: set[str] = dataclasses.field(default_factory=set)
    failed_blocks: set[int] = dataclasses.field(default_factory=set)


class Place:
    """One part in this process's memory, as one spec (a LoRA adapter has its own)."""

    def __init__(self, client: Any, part: Part, planes: Planes, spec: Any) -> None:
        self.part = part
        self.spec = spec
        on_host = all(tensor.device.type == "cpu" for tensor in planes.owners)
        device = HOST if on_host else plan_device(planes.owners)
        self.stager = Stager(part, planes) if device is None else None
        self.plan = (
            None
            if device is None
            else PagedPlan(
                client, spec, planes.rows, part.page_tokens, owners=planes.owners, device=device
            )
        )
        self.lock = threading.Lock()  # of the stager: one copy at a time

    def pages(self, block_ids: tuple[int, ...]) -> np.ndarray:
        ids = np.asarray(block_ids, dtype=np.int64)
        per_block = self.part.pages_per_block
        return (
            ids if per_block == 1 else (ids[:, None] * per_block + np.arange(per_block)).reshape(-1)
        )


class WorkerSide:
    def __init__(self, settings: Settings, client: Any, clock: Any = time.monotonic) -> None:
        self._settings = settings
        self._client = client
        self._clock = clock
        self._parts: list[tuple[Part, Planes]] = []
        self._places: dict[tuple[int, str, str], Place] = {}
        self._lock = threading.Lock()  # guards everything below
        self._stats = RepriseStats()
        self._results = Results()
        self._report = WorkerReport()
        self._ended = threading.Condition(self._lock)  # a load or a save
        self._running: dict[str, Any] = {}  # request -> the operation to cancel, None between two
        self._saving = 0
        self._cancelled: set[str] = set()
        self._one_group = True
        self._order: DeviceOrder | None = None  # where plans are on a device
        self._loaders = self._threads("reprise-load")
        self._savers = self._threads("reprise-save")

    def _threads(self, name: str) -> concurrent.futures.ThreadPoolExecutor:
        return concurrent.futures.ThreadPoolExecutor(
            self._settings.load_threads, name, initializer=affinity.unbind
        )

    def place(self, parts: list[tuple[Part, Planes]], groups: int) -> None:
        """Where this rank's parts lie. Opens their plans, so that a layout that cannot be is
        refused at start.
        """
        self._parts = parts
        self._one_group = groups == 1
        devices = [plan_device(planes.owners) for _, planes in parts]
        on_device = next((device for device in devices if device is not None), None)
        self._order = None if on_device is None else DeviceOrder(on_device)
        for number in range(len(parts)):
            self._place(number, "", "")

    def _place(self, number: int, lora_digest: str, epoch: str) -> Place:
        with self._lock:
            key = (number, lora_digest, epoch)
            if key not in self._places:
                part, planes = self._parts[number]
                self._places[key] = Place(
                    self._client, part, planes, part.variant(lora_digest, epoch)
                )
            return self._places[key]

    # ---- Loads

    def start_loads(self, loads: list[Load], cancelled: set[str]) -> None:
        """Hands loads to the threads, behind everything that the engine has submitted; cancels
        those that no one needs any more. Never waits.
        """
        if self._order and loads:
            self._order.behind_engine()
        with self._lock:
            for load in loads:
                self._running[load.request_id] = None
            for request_id in cancelled & self._running.keys():
                self._cancelled.add(request_id)
                if self._running[request_id] is not None:
                    self._running[request_id].cancel()
        for load in loads:
            self._loaders.submit(self._load, load)

    def _load(self, load: Load) -> None:
        deadline = self._clock() + load.timeout_s
        failed: set[int] = set()
        try:
            for blocks in load.groups:
                failed |= self._load_group(load, blocks, deadline)
        except Exception:  # our own bug must not become a hung request: everything is computed
            logger.exception("loading for request %s failed", load.request_id)
            failed = {block for blocks in load.groups for block in blocks.block_ids}
        with self._lock:
            cancelled = load.request_id in self._cancelled
            self._cancelled.discard(load.request_id)
            del self._running[load.request_id]
            self._results.finished.add(load.request_id)
            self._stats.add(
                "loads", label="cancelled" if cancelled else "short" if failed else "complete"
            )
            if failed and not cancelled:
                self._stats.add("failed_blocks", len(failed))
                if self._one_group:
                    self._results.failed_blocks |= failed
                else:
                    self._results.failed.add(load.request_id)
            self._ended.notify()

    def _load_group(self, load: Load, blocks: GroupBlocks, deadline: float) -> set[int]:
        """Loads one group's blocks, part by part; returns the ids of those that did not come."""
        came = len(blocks.block_ids)
        for number, (part, _) in enumerate(self._parts):
            if part.group.index == blocks.group and came:
                place = self._place(number, load.variant.lora_digest, load.variant.epoch)
                came = min(came, self._load_part(load, blocks, place, came, deadline))
        return set(blocks.block_ids[came:])

    def _load_part(
        self, load: Load, blocks: GroupBlocks, place: Place, count: int, deadline: float
    ) -> int:
        operation = self._client.acquire_async(
            place.spec,
            keys.as_array(blocks.keys),
            session=load.session,
            first_block=blocks.first,
            timeout=self._left(deadline),
        )
        with self._await(load.request_id, operation, deadline) as run:
            if run is None:
                return 0
            count = min(count, run.blocks - blocks.first)
            if count <= 0:
                self._explain_short(load, run.error)
                return 0
            result = self._fetch(load, blocks, place, run, count, deadline)
        if result is None:
            return 0
        with self._lock:
            self._stats.add("loaded_bytes", result.bytes)
            for lane, number in result.lanes.items():
                if number:
                    self._stats.add("loaded_blocks_by_lane", number, lane)
            for tier, number in result.tiers.items():
                if number:
                    self._stats.add("loaded_blocks_by_tier", number, tier)
            if result.corrupt:
                self._stats.add("corrupt_blocks", result.corrupt)
        if result.blocks < count:
            self._explain_short(load, result.error, result.corrupt)
        return int(result.blocks)

    def _fetch(
        self, load: Load, blocks: GroupBlocks, place: Place, run: Any, count: int, deadline: float
    ) -> Any:
        pages = place.pages(blocks.block_ids[:count])
        if place.stager is None:
            with self._stream():
                operation = run.fetch_paged_async(
                    place.plan, pages, first=blocks.first, count=count, timeout=self._left(deadline)
                )
            with self._await(load.request_id, operation, deadline) as result:
                return result
        with place.lock:
            host = place.stager.buffers(count)
            operation = run.fetch_async(
                host, first=blocks.first, count=count, timeout=self._left(deadline)
            )
            with self._await(load.request_id, operation, deadline) as result:
                if result is not None and result.blocks:
                    per_block = place.part.pages_per_block
                    place.stager.scatter(pages[: result.blocks * per_block], host[: result.blocks])
                return result

    def _await(self, request_id: str, operation: Any, deadline: float) -> "_Awaited":
        return _Awaited(self, request_id, operation, deadline)

    def _stream(self) -> Any:
        return self._order.stream() if self._order else contextlib.nullcontext()

    def _left(self, deadline: float) -> float:
        return float(max(deadline - self._clock(), 0.001))

    def _explain_short(self, load: Load, error: str | None, corrupt: int = 0) -> None:
        why = error or (
            f"{corrupt} blocks failed their checksum" if corrupt else "the blocks are gone"
        )
        logger.warning(
            "Reprise could not load all blocks of request %s, which computes them: %s",
            load.request_id,
            why,
        )

    # ---- Saves

    def start_saves(self, saves: list[Save]) -> None:
        """Hands saves to the threads, behind everything that the engine has computed. Never
        waits.
        """
        if self._order and saves:
            self._order.behind_engine()
        with self._lock:
            self._saving += len(saves)
        for save in saves:
            marks = {
                place.part.group.index: place.stager.after()
                for place in self._places.values()
                if place.stager is not None
            }
            self._savers.submit(self._save, save, marks)

    def _save(self, save: Save, marks: dict[int, Any]) -> None:
        complete = True
        try:
            deadline = self._clock() + save.timeout_s
            for blocks in save.groups:
                for number, (part, _) in enumerate(self._parts):
                    if part.group.index == blocks.group:
                        place = self._place(number, save.variant.lora_digest, save.variant.epoch)
                        complete &= self._save_part(
                            save, blocks, place, marks.get(blocks.group), deadline
                        )
        except Exception:  # our own bug must not keep the engine's blocks for ever
            logger.exception("saving %d failed", save.save_id)
            complete = False
        with self._lock:
            self._saving -= 1
            self._report.saves[save.save_id] = SaveOutcome(1, complete)
            self._ended.notify()

    def _save_part(
        self, save: Save, blocks: GroupBlocks, place: Place, mark: Any, deadline: float
    ) -> bool:
        common: dict[str, Any] = dict(first=blocks.first, session=save.session)
        if (
            save.tokens is not None
            and len(save.tokens) >= len(blocks.keys) // keys.KEY_BYTES * place.spec.block_tokens * 4
        ):
            common["tokens"] = np.frombuffer(save.tokens, dtype=np.uint32)
        packed, pages = keys.as_array(blocks.keys), place.pages(blocks.block_ids)
        if place.stager is None:
            with self._stream():
                result = self._client.store_paged(
                    place.spec, packed, place.plan, pages, timeout=self._left(deadline), **common
                )
        else:
            with place.lock:
                host = place.stager.buffers(len(blocks.block_ids))
                place.stager.gather(pages, host, mark)
                result = self._client.store(
                    place.spec, packed, host, timeout=self._left(deadline), **common
                )
        with self._lock:
            for outcome in ("stored", "present", "refused"):
                if getattr(result, outcome):
                    self._stats.add("saved_blocks", getattr(result, outcome), outcome)
            if result.bytes:
                self._stats.add("saved_bytes", result.bytes)
        if result.error:
            logger.warning("Reprise did not store all blocks: %s", result.error)
        return not result.refused

    # ---- Answers

    def results(self, idle: bool = False, pausing: bool = False) -> Results:
        """`idle`: the step has nothing else to do, so an end that is near is waited for, and so is
        the time of a request that pauses.
        """
        with self._lock:
            ended = self._results.finished or self._report.saves
            if idle and not ended and (self._running or self._saving or pausing):
                self._ended.wait(IDLE_WAIT_S)
            taken, self._results = self._results, Results()
            return taken

    def report(self) -> WorkerReport | None:
        with self._lock:
            if not self._report.saves:
                return None
            taken, self._report = self._report, WorkerReport()
            return taken

    def stats(self) -> RepriseStats | None:
        with self._lock:
            return self._stats.take()

    def close(self) -> None:
        """Cancels what runs and waits for it: afterwards no page is touched."""
        with self._lock:
            for request_id, operation in self._running.items():
                self._cancelled.add(request_id)
                if operation is not None:
                    operation.cancel()
        self._loaders.shutdown(wait=True, cancel_futures=True)
        self._savers.shutdown(wait=True, cancel_futures=True)


class _Awaited:
    """Waits for an operation of a load that may be cancelled meanwhile; gives its result, None
    when cancelled.
    """

    def __init__(self, side: WorkerSide, request_id: str, operation: Any, deadline: float) -> None:
        self._side = side
        self._request_id = request_id
        self._operation = operation
        self._deadline = deadline
        self._result: Any = None

    def __enter__(self) -> Any:
        side = self._side
        with side._lock:
            cancelled = self._request_id in side._cancelled
            side._running[self._request_id] = self._operation
        if cancelled:
            self._operation.cancel()
        if not self._operation.wait(side._left(self._deadline)):
            self._operation.cancel()
        self._result = self._operation.result()
        with side._lock:
            side._running[self._request_id] = None
        return self._result

    def __exit__(self, *unused: object) -> None:
        if hasattr(self._result, "release"):
            self._result.release()
