"""LMCache's chunks in Reprise: asked for, loaded and saved. No call raises for the cache's sake:
what it could not do in time is a miss.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from reprise.client import Client
from reprise.engines.miss_explainer import MissExplainer
from reprise.engines.complaints import Complaints
from reprise.hints import Evict
from reprise.operation import Operation
from reprise.run import FetchResult, Run

from .chunk_form import ChunkForm
from .chunk_names import Chunk, ChunkNames
from .leased_chunks import LeasedChunks
from .parts import Bytes, ends, middle, read_header, write_header
from .settings import Settings
from .staging import Staging

# Chunks asked about at once: few at first, because most prompts that are not stored miss at once.
FIRST_WINDOW = 4
WINDOW_MAX = 32
ALLOCATE_RETRY_S = 0.1  # LMCache logs each try

#: Makes a memory object for so many tokens of a form; None: there is no memory now.
Allocate = Callable[[ChunkForm, int], Any]


class ChunkStore:
    """Thread-safe. Deadlines are of `time.monotonic`."""

    def __init__(
        self,
        client: Client,
        names: ChunkNames,
        allocate: Allocate,
        settings: Settings,
        logger: logging.Logger,
    ) -> None:
        self._client = client
        self._names = names
        self._allocate = allocate
        self._complaints = Complaints(logger)
        self._explainer = MissExplainer(client, settings.explain_interval_ms / 1000, logger)
        self._leased = LeasedChunks(settings.lookup_hold_ms / 1000, settings.chunks_held_max)
        self._staging = Staging(2 * (settings.load_threads + settings.save_threads))

    def leading(self, keys: Sequence[Any], deadline: float) -> int:
        """How many of the chunks are stored, from the first on without a gap. They stay leased for
        a while, so that what was promised can be loaded.
        """
        try:
            return self._leading([self._names.chunk(key) for key in keys], deadline)
        except Exception as failure:
            self._complaints.tell("ask", "Reprise cannot be asked for chunks: %s", failure)
            return 0

    def load(self, key: Any, deadline: float) -> Any:
        """The chunk as a memory object, which is the caller's; None: it is computed."""
        try:
            return self._load(self._names.chunk(key), deadline)
        except Exception as failure:
            self._not_loaded(failure)
            return None

    def save(self, key: Any, memory: Any, deadline: float) -> bool:
        """Stores the chunk that lies in a memory object; False: not all of it is stored."""
        try:
            return self._save(self._names.chunk(key), memory, deadline)
        except Exception as failure:
            self._complaints.tell("save", "Reprise did not store a chunk: %s", failure)
            return False

    def evict(self, key: Any, timeout: float) -> bool:
        """Lets go of the chunk, where nobody needs or claims it; whether there was one."""
        try:
            chunk = self._names.chunk(key)
            held = self._leased.take(chunk.name)
            if held is not None:
                held.release()
            answer = self._client.hint(chunk.kind.spec, chunk.keys, Evict(), timeout=timeout)
            return answer.blocks > 0
        except Exception as failure:
            self._complaints.tell("evict", "Reprise did not let go of a chunk: %s", failure)
            return False

    def close(self) -> None:
        """Lets its leases go. Calls under way end as they may."""
        self._leased.close()

    # ---- Asking

    def _leading(self, chunks: Sequence[Chunk], deadline: float) -> int:
        found, width = 0, FIRST_WINDOW
        while found < len(chunks) and time.monotonic() < deadline:
            window = chunks[found : found + width]
            hits = self._ask(window, deadline)
            found += hits
            if hits < len(window):
                break
            width = min(2 * width, WINDOW_MAX)
        return found

    def _ask(self, chunks: Sequence[Chunk], deadline: float) -> int:
        asked: list[Operation[Run] | None] = [
            None if self._leased.holds(chunk.name) else self._acquire(chunk, deadline)
            for chunk in chunks
        ]
        hits, whole = 0, True
        for chunk, operation in zip(chunks, asked):
            if operation is None:
                hits += whole
                continue
            run = operation.result()
            # What comes after a gap is of no use, and its lease goes.
            whole = whole and self._is_whole(chunk, run, deadline)
            if whole:
                hits += 1
                self._leased.hold(chunk.name, run)
            else:
                self._missed(chunk, run)
                run.release()
        return hits

    def _is_whole(self, chunk: Chunk, run: Run, deadline: float) -> bool:
        """Whether all parts of the chunk are there."""
        kind = chunk.kind
        if not 0 < run.blocks < kind.cut.count:
            return run.blocks > 0
        # The end was dropped, or the chunk is a short one: its header knows.
        with self._staging.lend(kind.cut.block_bytes) as first:
            tokens = self._first_part(chunk, run, first, deadline)
        return tokens is not None and run.blocks >= kind.cut.needed(tokens * kind.form.token_bytes)

    def _acquire(self, chunk: Chunk, deadline: float) -> Operation[Run]:
        return self._client.acquire_async(chunk.kind.spec, chunk.keys, timeout=_left(deadline))

    def _missed(self, chunk: Chunk, run: Run) -> None:
        if run.error:
            self._complaints.tell(
                "ask", "Reprise did not answer, what it would have is computed: %s", run.error
            )
        elif not run.blocks:
            self._explainer.consider(chunk.kind.spec, chunk.keys)

    # ---- Loading

    def _load(self, chunk: Chunk, deadline: float) -> Any:
        if time.monotonic() >= deadline:
            self._not_loaded("those before took as long as all may")
            return None
        run = self._leased.take(chunk.name) or self._acquire(chunk, deadline).result()
        with run, self._staging.lend(chunk.kind.cut.block_bytes) as first:
            if not run.blocks:
                self._missed(chunk, run)
                return None
            form, cut = chunk.kind.form, chunk.kind.cut
            tokens = self._first_part(chunk, run, first, deadline)
            if tokens is None or run.blocks < cut.needed(tokens * form.token_bytes):
                return None
            memory = self._memory(form, tokens, deadline)
            if memory is None:
                self._not_loaded("LMCache has no memory for it")
                return None
            whole = False
            try:
                whole = self._fill(chunk, run, first, _bytes_of(memory), deadline)
            finally:
                if not whole:
                    memory.ref_count_down()
            return memory if whole else None

    def _first_part(self, chunk: Chunk, run: Run, into: Bytes, deadline: float) -> int | None:
        """Brings the first part; the tokens that its header says. Raises BadHeader."""
        got = run.fetch([into], first=0, count=1, timeout=_left(deadline))
        if got.blocks == 1:
            return read_header(into, chunk.kind.form)
        self._not_loaded(_reason(got))
        return None

    def _fill(self, chunk: Chunk, run: Run, first: Bytes, data: Bytes, deadline: float) -> bool:
        """Brings the other parts into `data`, and what is in the first one; whether all came."""
        cut = chunk.kind.cut
        head, tail = ends(data, cut)
        head[:] = first[cut.lead : cut.lead + head.size]
        buffers = middle(data, cut)
        with self._staging.lend(cut.block_bytes) as last:
            count = len(buffers) + bool(tail.size)
            if tail.size:
                buffers = [*buffers, last]
            if count:
                got = run.fetch(buffers, first=1, count=count, timeout=_left(deadline))
                if got.blocks < count:
                    self._not_loaded(_reason(got))
                    return False
            tail[:] = last[: tail.size]
        return True

    def _memory(self, form: ChunkForm, tokens: int, deadline: float) -> Any:
        """A memory object: chunks that are being saved give theirs back soon, so there is a wait
        for one, and unlike LMCache's own, an end to it.
        """
        while True:
            memory = self._allocate(form, tokens)
            if memory is not None or time.monotonic() >= deadline:
                return memory
            time.sleep(ALLOCATE_RETRY_S)

    def _not_loaded(self, why: object) -> None:
        self._complaints.tell("load", "Reprise could not load a chunk, it is computed: %s", why)

    # ---- Saving

    def _save(self, chunk: Chunk, memory: Any, deadline: float) -> bool:
        kind, cut = chunk.kind, chunk.kind.cut
        tokens, data = kind.form.tokens_of(memory), _bytes_of(memory)
        count = cut.needed(data.size)
        if time.monotonic() >= deadline:
            self._complaints.tell("save", "Reprise did not store a chunk: those before took long")
            return False
        head, tail = ends(data, cut)
        with (
            self._staging.lend(cut.block_bytes) as first,
            self._staging.lend(cut.block_bytes) as last,
        ):
            write_header(first[: cut.lead], kind.form, tokens)
            _put(first, cut.lead, head)
            buffers = [first, *middle(data, cut)]
            if tail.size:
                _put(last, 0, tail)
                buffers.append(last)
            result = self._client.store(
                kind.spec, chunk.keys[:count], buffers, timeout=_left(deadline)
            )
        if result.error:
            self._complaints.tell("save", "Reprise did not store a chunk: %s", result.error)
        return result.stored + result.present == count


def _bytes_of(memory: Any) -> Bytes:
    """A memory object's bytes, those that count. Raises ValueError where they are on a device."""
    if memory.raw_data.device.type != "cpu":
        raise ValueError(f"a memory object on {memory.raw_data.device}: only host memory is taken")
    return np.frombuffer(memory.byte_array, np.uint8)


def _put(into: Bytes, at: int, data: Bytes) -> None:
    """Copies `data`, with nothing behind it: a buffer has been used before."""
    into[at : at + data.size] = data
    into[at + data.size :] = 0


def _left(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())


def _reason(got: FetchResult) -> str:
    if got.corrupt:
        return f"{got.corrupt} blocks failed their checksum"
    return got.error or "parts of it are gone"
