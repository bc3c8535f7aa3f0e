"""The client: acquire, fetch and store a prefix, keep it or let it go, ask why a prompt misses."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from reprise import _abi
from reprise.errors import FAILED_PRECONDITION, RepriseError
from reprise.hints import Hint, HintAnswer, start_hint
from reprise.keys import (
    KeyArray,
    KeysLike,
    TokensLike,
    as_keys,
    keys_pointer,
    tokens_of_keys,
    tokens_pointer,
)
from reprise.memory import BlockBuffers, BuffersLike, Loan, PagedPlan, PagesLike
from reprise.operation import Operation
from reprise.run import Run
from reprise.spec import CacheSpec
from reprise.tls import Tls


_CLOSED = "this client is closed: open another one"


@dataclass(frozen=True)
class StoreResult:
    """What became of the blocks of one store: `stored + present + refused` is their number."""

    stored: int  # newly stored
    present: int  # stored before, or by another writer meanwhile
    refused: int = 0  # no space, or failed: not stored
    bytes: int = 0  # bytes sent
    error: str | None = None  # what went wrong, None: nothing


class _Closable(Protocol):
    def close(self) -> None: ...


class Client:
    """A worker's door to the cache. Thread-safe; connects when the first call needs it.

    Every call returns by its deadline: what the cache could not do in time is a miss. Close it (or
    use `with`): that ends all leases, cancels what is under way and frees plans and runs.

    Open it after fork: gRPC's threads do not survive one. A client that finds itself in a child
    process raises RepriseError (FAILED_PRECONDITION).
    """

    def __init__(
        self,
        router: str | Sequence[str] | None = None,
        *,
        shards: Sequence[str] | None = None,
        name: str | None = None,
        timeout: float = 5.0,
        lanes: Sequence[str] | None = None,
        threads: int | None = None,
        gpu: int | None = None,
        nccl_library: str | None = None,
        tls: Tls | None = None,
    ) -> None:
        """`router`: "host:port" or several; or `shards` instead, their addresses, without a router.

        `name` is for people (logs, `reprise describe`); `timeout` is the default deadline in
        seconds; `lanes` are those to use ("view", "nccl", "tcp", "stream"; None: all); `threads`
        carry operations. `gpu` is the device whose memory blocks move from and to by NCCL (None: no
        NCCL), and `nccl_library` the path of libnccl.so.2 (None: what the loader finds). `tls` says
        who this client is (None: plaintext).
        Raises RepriseError for options that the library refuses.
        """
        options: dict[str, Any] = {"timeout_ms": max(1, _abi.microseconds(timeout) // 1000)}
        if router is not None:
            options["router"] = router if isinstance(router, str) else list(router)
        if shards is not None:
            options["shards"] = list(shards)
        if name is not None:
            options["name"] = name
        if lanes is not None:
            options["lanes"] = list(lanes)
        if threads is not None:
            options["threads"] = threads
        if gpu is not None:
            options["gpu"] = gpu
        if nccl_library is not None:
            options["nccl_library"] = nccl_library
        if tls is not None:
            options.update(tls.options())
        self._handle = 0
        self._pid = os.getpid()
        self._lock = threading.RLock()  # what is collected while it is held may want it too
        self._calls = 0  # inside the library now
        self._no_calls = threading.Condition(self._lock)
        self._closing = False
        self._specs: dict[CacheSpec, int] = {}
        self._children: weakref.WeakSet[Any] = weakref.WeakSet()
        handle, error = ctypes.c_void_p(), _abi.Error()
        code = _abi.library().reprise_client_open(
            json.dumps(options).encode(), ctypes.byref(handle), ctypes.byref(error)
        )
        _abi.check(code, error)
        self._handle = handle.value or 0

    # ---- Reading

    def acquire(
        self,
        spec: CacheSpec,
        keys: KeysLike,
        *,
        session: str | None = None,
        first_block: int = 0,
        timeout: float | None = None,
    ) -> Run:
        """The longest stored prefix of `keys` over all shards, under leases. Use it in `with`.

        `keys` is the whole chain from the prompt's first block; blocks before `first_block` (the
        worker has them) are counted but not leased. `session` names the conversation, whose blocks
        live together. A cache that is down answers a run of 0 blocks with the reason in `.error`.
        Runs on the caller's thread: Ctrl-C and `close` wait for its answer, `timeout` at most.
        """
        packed = self._packed(keys, first_block)
        run, error = ctypes.c_void_p(), _abi.Error()
        with self._call() as client:
            code = _abi.library().reprise_acquire(
                client, self._spec(spec), _abi.encoded(session), keys_pointer(packed), len(packed),
                first_block, _abi.microseconds(timeout), ctypes.byref(run), ctypes.byref(error),
            )  # fmt: skip
            why = _abi.reason(code, error) if run.value else _abi.refusal(code, error)
            return Run(self, spec, run.value or 0, first_block, why)

    def acquire_async(
        self,
        spec: CacheSpec,
        keys: KeysLike,
        *,
        session: str | None = None,
        first_block: int = 0,
        timeout: float | None = None,
    ) -> Operation[Run]:
        """`acquire` without waiting. A result that is not taken is released with the operation."""
        packed = self._packed(keys, first_block)
        limit = _abi.microseconds(timeout)

        def take(operation: int) -> Run:
            run, why = ctypes.c_void_p(), _abi.Error()
            status = _abi.library().reprise_acquire_result(
                operation, ctypes.byref(run), ctypes.byref(why)
            )
            return Run(self, spec, run.value or 0, first_block, _abi.reason(status, why))

        with self._call() as client:
            spec_handle = self._spec(spec)
            handle, error = ctypes.c_void_p(), _abi.Error()
            code = _abi.library().reprise_acquire_start(
                client, spec_handle, _abi.encoded(session), keys_pointer(packed), len(packed),
                first_block, limit, ctypes.byref(handle), ctypes.byref(error),
            )  # fmt: skip
            refused = _abi.refusal(code, error)
            if refused is not None or not handle.value:
                return Operation.finished(self, Run(self, spec, 0, first_block, refused))
            return Operation(self, handle.value, take, None)

    def prefetch(self, spec: CacheSpec, keys: KeysLike, *, session: str | None = None) -> None:
        """Leases the run ahead of need: a later `acquire` of the same keys is answered at once.

        Blocks that lie elsewhere are brought to the session's home shard first.
        Best effort, never blocks; a cache that cannot is silently no help.
        """
        packed = as_keys(keys)
        error = _abi.Error()
        with self._call() as client:
            code = _abi.library().reprise_prefetch(
                client, self._spec(spec), _abi.encoded(session), keys_pointer(packed), len(packed),
                ctypes.byref(error),
            )  # fmt: skip
        _abi.refusal(code, error)

    def note_prefill(self, spec: CacheSpec, tokens: int, seconds: float) -> None:
        """Tells what computing `tokens` of a prompt in one go took this worker's engine.

        Routers weigh bringing blocks from another shard against it. Raises RepriseError
        (INVALID_ARGUMENT) when `seconds` is not above 0.
        """
        error = _abi.Error()
        with self._call() as client:
            code = _abi.library().reprise_note_prefill(
                client, self._spec(spec), tokens, seconds, ctypes.byref(error)
            )
        _abi.refusal(code, error)

    # ---- Writing

    def store(
        self,
        spec: CacheSpec,
        keys: KeysLike,
        buffers: BuffersLike,
        *,
        first: int = 0,
        tokens: TokensLike | None = None,
        session: str | None = None,
        timeout: float | None = None,
    ) -> StoreResult:
        """Stores blocks [first, len(keys)) of the chain; what is stored already is not sent again.

        `buffers` holds those blocks in the canonical layout, `spec.block_bytes` each: a list with
        one buffer per block, or one array or tensor whose first axis is the blocks. Blocks before
        `first` must be stored already. `tokens` (at least len(keys) * block_tokens of them) let
        `explain` compare.
        """
        return self.store_async(
            spec, keys, buffers, first=first, tokens=tokens, session=session, timeout=timeout
        ).result()

    def store_async(
        self,
        spec: CacheSpec,
        keys: KeysLike,
        buffers: BuffersLike,
        *,
        first: int = 0,
        tokens: TokensLike | None = None,
        session: str | None = None,
        timeout: float | None = None,
    ) -> Operation[StoreResult]:
        """`store` without waiting: the buffers must not change before it is done."""
        packed = as_keys(keys)
        count = _stored_blocks(packed, first)
        checked = BlockBuffers.of(buffers, spec.block_bytes, count, writable=False)
        return self._store(spec, packed, Loan.of_buffers(checked), first, tokens, session, timeout)

    def store_paged(
        self,
        spec: CacheSpec,
        keys: KeysLike,
        plan: PagedPlan,
        pages: PagesLike,
        *,
        first: int = 0,
        tokens: TokensLike | None = None,
        session: str | None = None,
        timeout: float | None = None,
    ) -> StoreResult:
        """`store` out of an engine's pages: `plan.pages_per_block` page indexes for each block."""
        return self.store_paged_async(
            spec, keys, plan, pages, first=first, tokens=tokens, session=session, timeout=timeout
        ).result()

    def store_paged_async(
        self,
        spec: CacheSpec,
        keys: KeysLike,
        plan: PagedPlan,
        pages: PagesLike,
        *,
        first: int = 0,
        tokens: TokensLike | None = None,
        session: str | None = None,
        timeout: float | None = None,
    ) -> Operation[StoreResult]:
        """`store_paged` without waiting: the pages must not change before it is done."""
        packed = as_keys(keys)
        count = _stored_blocks(packed, first)
        if plan.spec != spec:
            raise ValueError("the plan was made for another cache spec than the store")
        return self._store(
            spec, packed, Loan.of_pages(plan, pages, count), first, tokens, session, timeout
        )

    # ---- Keeping and letting go

    def hint(
        self,
        spec: CacheSpec,
        keys: KeysLike | None,
        hint: Hint,
        *,
        session: str | None = None,
        timeout: float | None = None,
    ) -> HintAnswer:
        """Asks to keep what is stored of `keys` (`Retain`, `Pin`), or to let it go (`Release`,
        `Evict`, `Demote`).

        `keys` is the whole chain from the prompt's first block, `session` the one it is stored
        with; None or no keys are for `Release` alone, which then asks all shards. A cache that is
        down answers with the reason in `.error`. Raises ValueError or RepriseError for a hint that
        makes no sense.
        """
        return self.hint_async(spec, keys, hint, session=session, timeout=timeout).result()

    def hint_async(
        self,
        spec: CacheSpec,
        keys: KeysLike | None,
        hint: Hint,
        *,
        session: str | None = None,
        timeout: float | None = None,
    ) -> Operation[HintAnswer]:
        """`hint` without waiting."""
        return start_hint(self, spec, keys, hint, session, timeout)

    # ---- Asking

    def explain(
        self,
        spec: CacheSpec,
        keys: KeysLike,
        tokens: TokensLike | None = None,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Why a prompt hits as far as it does and no further, over all shards.

        With `tokens`, a miss beside a stored sibling names the first token that differs. For
        people: it scans the index. Raises RepriseError where no shard could be asked.
        """
        packed = as_keys(keys)
        ids = tokens_of_keys(packed, tokens, spec.block_tokens)
        limit = _abi.microseconds(timeout)
        text, error = ctypes.c_char_p(), _abi.Error()
        with self._call() as client:
            code = _abi.library().reprise_explain(
                client, self._spec(spec), keys_pointer(packed), len(packed),
                tokens_pointer(ids), ids.size, limit, ctypes.byref(text), ctypes.byref(error),
            )  # fmt: skip
        _abi.check(code, error)
        answer: dict[str, Any] = json.loads(text.value or b"{}")
        return answer

    def stats(self) -> dict[str, Any]:
        """Counters and shard states."""
        with self._call() as client:
            text = _abi.library().reprise_client_stats(client)
        answer: dict[str, Any] = json.loads(text or b"{}")
        return answer

    # ---- Life

    def close(self) -> None:
        """Cancels what is under way, ends all leases, frees everything. Safe to call again.

        Calls of other threads that run there (`acquire`, `explain`) are waited for.
        """
        if not self._usable():
            return
        with self._lock:
            if self._closing:
                return
            self._closing = True
            self._no_calls.wait_for(lambda: not self._calls)
        # In this order: taking an acquire's result makes a run, and an operation may use a plan.
        for kind in (Operation, Run, PagedPlan):
            with self._lock:
                children = [child for child in self._children if isinstance(child, kind)]
            for child in children:
                child.close()
        with self._lock:
            handle, self._handle = self._handle, 0
            for spec in self._specs.values():
                _abi.library().reprise_spec_close(spec)
            self._specs.clear()
        _abi.library().reprise_client_close(handle)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", 0):
            self.close()

    # ---- For Run, PagedPlan and Operation

    def _usable(self) -> bool:
        """Whether handles may be touched: the client is open, in the process that opened it."""
        return bool(self._handle) and os.getpid() == self._pid

    @contextlib.contextmanager
    def _call(self) -> Iterator[int]:
        """The library's handle, which is not closed before this ends."""
        with self._lock:
            self._require_usable()
            if self._closing:
                raise RepriseError(FAILED_PRECONDITION, _CLOSED)
            self._calls += 1
        try:
            yield self._handle
        finally:
            with self._lock:
                self._calls -= 1
                self._no_calls.notify_all()

    def _require_usable(self) -> None:
        if os.getpid() != self._pid:
            raise RepriseError(
                FAILED_PRECONDITION,
                f"this client was opened in process {self._pid} and is used in its child "
                f"{os.getpid()}: open a client after fork, in each process",
            )
        if not self._handle:
            raise RepriseError(FAILED_PRECONDITION, _CLOSED)

    def _adopt(self, child: _Closable) -> None:
        """Closes `child` before the client, if it still lives."""
        with self._lock:
            self._children.add(child)

    @staticmethod
    def _packed(keys: KeysLike, first_block: int) -> KeyArray:
        packed = as_keys(keys)
        if 0 <= first_block <= len(packed):
            return packed
        raise ValueError(f"first_block = {first_block}: must be in [0, {len(packed)} keys]")

    def _spec(self, spec: CacheSpec) -> int:
        self._require_usable()
        with self._lock:
            known = self._specs.get(spec)
            if known is not None:
                return known
            handle, error = ctypes.c_void_p(), _abi.Error()
            code = _abi.library().reprise_spec_open(
                self._handle, spec.to_json().encode(), ctypes.byref(handle), ctypes.byref(error)
            )
            _abi.check(code, error)
            self._specs[spec] = handle.value or 0
            return self._specs[spec]

    def _open_plan(
        self, spec: CacheSpec, planes: Sequence[_abi.Plane], page_tokens: int, device: int
    ) -> int:
        handle, error = ctypes.c_void_p(), _abi.Error()
        code = _abi.library().reprise_plan_create_on(
            self._spec(spec), (_abi.Plane * len(planes))(*planes), len(planes), page_tokens, device,
            ctypes.byref(handle), ctypes.byref(error),
        )  # fmt: skip
        _abi.check(code, error)
        return handle.value or 0

    def _store(
        self,
        spec: CacheSpec,
        keys: KeyArray,
        loan: Loan,
        first: int,
        tokens: TokensLike | None,
        session: str | None,
        timeout: float | None,
    ) -> Operation[StoreResult]:
        ids = tokens_of_keys(keys, tokens, spec.block_tokens)
        limit = _abi.microseconds(timeout)
        count = len(keys) - first
        with self._call() as client:
            spec_handle = self._spec(spec)
            if count == 0:
                return Operation.finished(self, StoreResult(stored=0, present=0))
            handle, error = ctypes.c_void_p(), _abi.Error()
            code = _abi.library().reprise_store_start_on(
                client, spec_handle, _abi.encoded(session), keys_pointer(keys), len(keys), first,
                tokens_pointer(ids), ids.size, ctypes.byref(loan.struct), limit,
                ctypes.byref(handle), ctypes.byref(error),
            )  # fmt: skip
            refused = _abi.refusal(code, error)
            if refused is not None or not handle.value:
                return Operation.finished(self, StoreResult(0, 0, refused=count, error=refused))
            return Operation(self, handle.value, _take_store, loan)


def _take_store(handle: int) -> StoreResult:
    raw, error = _abi.StoreResult(), _abi.Error()
    code = _abi.library().reprise_store_result_take(handle, ctypes.byref(raw), ctypes.byref(error))
    return StoreResult(raw.stored, raw.present, raw.refused, raw.bytes, _abi.reason(code, error))


def _stored_blocks(keys: KeyArray, first: int) -> int:
    if not 0 <= first <= len(keys):
        raise ValueError(f"first = {first}: must be in [0, {len(keys)} keys]")
    return len(keys) - first
