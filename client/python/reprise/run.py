"""A prefix run: the stored, leased prefix of one prompt."""

from __future__ import annotations

import ctypes
import weakref
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

from reprise import _abi
from reprise.memory import BlockBuffers, BuffersLike, Loan, PagedPlan, PagesLike
from reprise.operation import Operation

if TYPE_CHECKING:
    from reprise.client import Client
    from reprise.spec import CacheSpec


@dataclass(frozen=True)
class FetchResult:
    """What a fetch brought: the first `blocks` blocks are in the caller's memory, verified."""

    blocks: int  # consecutive blocks, from the first one asked for
    corrupt: int = 0  # blocks whose checksum failed: counted as misses
    bytes: int = 0
    lanes: dict[str, int] = field(default_factory=dict)  # blocks by lane: "view", "tcp", ...
    tiers: dict[str, int] = field(default_factory=dict)  # blocks by tier: "hbm", "dram", "nvme"
    shards: int = 0  # shards that served
    error: str | None = None  # why it is fewer than asked; None: nothing went wrong


class Run:
    """The longest stored prefix of the keys asked for, under leases until `release` or the end of
    `with`.

    `blocks` counts from the chain's first block; the leased ones are `[first_block, blocks)`. A run
    that is shorter than the prompt is a miss and no error; `error` says what went wrong where
    something did. Use from one thread at a time.
    """

    def __init__(
        self, client: Client, spec: CacheSpec, handle: int, first_block: int, error: str | None
    ) -> None:
        self.spec = spec
        self.first_block = first_block
        self.error = error
        self.blocks: int = _abi.library().reprise_run_blocks(handle) if handle else 0
        self._client = client
        self._handle = handle
        self._fetches: weakref.WeakSet[Operation[FetchResult]] = weakref.WeakSet()
        client._adopt(self)

    @property
    def tokens(self) -> int:
        """Tokens that the run covers."""
        return self.blocks * self.spec.block_tokens

    def fetch(
        self,
        buffers: BuffersLike,
        first: int | None = None,
        count: int | None = None,
        timeout: float | None = None,
    ) -> FetchResult:
        """Reads blocks [first, first + count) into `buffers`, canonical layout, `spec.block_bytes`
        each.

        `buffers` is a list with one writable buffer per block, or one array or tensor whose first
        axis is the blocks. `first` defaults to the first leased block, `count` to the rest of the
        run. Returns by the deadline with what arrived. Raises ValueError or TypeError for wrong
        buffers or ranges.
        """
        return self.fetch_async(buffers, first, count, timeout).result()

    def fetch_async(
        self,
        buffers: BuffersLike,
        first: int | None = None,
        count: int | None = None,
        timeout: float | None = None,
    ) -> Operation[FetchResult]:
        """`fetch` without waiting."""
        first, count = self._range(first, count)
        checked = BlockBuffers.of(buffers, self.spec.block_bytes, count, writable=True)
        return self._start(Loan.of_buffers(checked), first, count, timeout)

    def fetch_paged(
        self,
        plan: PagedPlan,
        pages: PagesLike,
        first: int | None = None,
        count: int | None = None,
        timeout: float | None = None,
    ) -> FetchResult:
        """Reads blocks [first, first + count) into an engine's pages, `pages_per_block` each."""
        return self.fetch_paged_async(plan, pages, first, count, timeout).result()

    def fetch_paged_async(
        self,
        plan: PagedPlan,
        pages: PagesLike,
        first: int | None = None,
        count: int | None = None,
        timeout: float | None = None,
    ) -> Operation[FetchResult]:
        """`fetch_paged` without waiting."""
        first, count = self._range(first, count)
        if plan.spec != self.spec:
            raise ValueError("the plan was made for another cache spec than the run")
        return self._start(Loan.of_pages(plan, pages, count), first, count, timeout)

    def release(self) -> None:
        """Ends the leases; fetches under way are cancelled first. Safe to call again."""
        if not self._handle or not self._client._usable():
            return
        for fetch in list(self._fetches):
            fetch.close()
        handle, self._handle = self._handle, 0
        _abi.library().reprise_run_release(handle)

    close = release

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def __del__(self) -> None:
        if getattr(self, "_handle", 0):
            self.release()

    def __repr__(self) -> str:
        return f"Run(blocks={self.blocks}, tokens={self.tokens}, error={self.error!r})"

    def _range(self, first: int | None, count: int | None) -> tuple[int, int]:
        start = min(self.first_block, self.blocks) if first is None else first
        length = self.blocks - start if count is None else count
        if not 0 <= start <= start + length <= self.blocks:
            raise ValueError(
                f"blocks [{start}, {start + length}): the run has {self.blocks} blocks"
            )
        if length and start < self.first_block:
            raise ValueError(
                f"block {start} is not leased: the run was acquired from {self.first_block}"
            )
        return start, length

    def _start(
        self, loan: Loan, first: int, count: int, timeout: float | None
    ) -> Operation[FetchResult]:
        limit = _abi.microseconds(timeout)
        with self._client._call():
            if count == 0:
                return Operation.finished(self._client, FetchResult(blocks=0))
            if not self._handle:
                raise ValueError("this run is released")
            handle, error = ctypes.c_void_p(), _abi.Error()
            code = _abi.library().reprise_fetch_start_on(
                self._handle, first, count, ctypes.byref(loan.struct), limit,
                ctypes.byref(handle), ctypes.byref(error),
            )  # fmt: skip
            refused = _abi.refusal(code, error)
            if refused is not None or not handle.value:
                return Operation.finished(self._client, FetchResult(blocks=0, error=refused))
            # The operation keeps the run, and so its leases, alive.
            operation = Operation(self._client, handle.value, _take_fetch, (loan, self))
            self._fetches.add(operation)
            return operation


def _take_fetch(handle: int) -> FetchResult:
    raw, error = _abi.FetchResult(), _abi.Error()
    code = _abi.library().reprise_fetch_result_take(handle, ctypes.byref(raw), ctypes.byref(error))
    return FetchResult(
        blocks=raw.blocks,
        corrupt=raw.corrupt,
        bytes=raw.bytes,
        lanes=_counts(raw, "stream", "tcp", "view", "nccl"),
        tiers=_counts(raw, "hbm", "dram", "nvme"),
        shards=raw.shards,
        error=_abi.reason(code, error),
    )


def _counts(raw: Any, *names: str) -> dict[str, int]:
    counts = {name: int(getattr(raw, f"{name}_blocks")) for name in names}
    return {name: count for name, count in counts.items() if count}
