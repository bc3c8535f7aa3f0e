"""Reprise as a secondary tier of vLLM's own offloading framework, behind its CPU tier:

    "secondary_tiers": [
        {"type": "reprise", "module_path": "reprise.engines.vllm", "router": "HOST:PORT"}]

A chunk of the primary tier (all workers' bytes of some blocks) is one opaque block here; a
request's chunks form the chain, in the order of their positions. Everything runs in the scheduler's
process, so every method returns at once: questions and transfers run on a few threads.
"""

# vLLM is there when this is imported, not when types are checked.
# mypy: disable-error-code="import-not-found,misc,unused-ignore"

from __future__ import annotations

import concurrent.futures
import dataclasses
import logging
import os
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from vllm.v1.kv_offload.base import (
    LookupResult,
    Medium,
    OffloadKey,
    ReqContext,
    RequestOffloadingContext,
)
from vllm.v1.kv_offload.tiering.base import JobResult, SecondaryTierManager, TransferJob

from reprise import CacheSpec, Client, Tls
from reprise.engines import digests

from . import hints, keys

logger = logging.getLogger("vllm.reprise")

GROUP_BYTES = 4  # vLLM appends the group's index to a block hash
ROW_BYTES_MAX = 65_536  # one row of a block, see proto/types/limits.h
ROW_ALIGNMENT = 16
THREADS = 4


def group_of(key: OffloadKey) -> int:
    return int.from_bytes(key[-GROUP_BYTES:], "big")


def opaque_shape(chunk_bytes: int, tokens: int) -> tuple[int, int, int]:
    """(layers, block tokens, row bytes) of a block of exactly `chunk_bytes`. Raises ValueError
    where there is none.
    """
    for block_tokens in (tokens, 1):
        for layers in range(1, 4097):
            row, rest = divmod(chunk_bytes, layers * block_tokens)
            if not rest and row <= ROW_BYTES_MAX and row % ROW_ALIGNMENT == 0 and row:
                return layers, block_tokens, row
    raise ValueError(
        f"a chunk of {chunk_bytes} bytes cannot be cut into rows of at most {ROW_BYTES_MAX} "
        f"bytes; set "
        f"another block size or blocks per chunk"
    )


def chunk_spec(offloading_spec: Any, chunk_bytes: int, group: int, scope: str) -> CacheSpec:
    """The cache spec of one group's chunks: everything that their bytes depend on, as far as
    vLLM tells a tier.
    """
    config = offloading_spec.config
    tokens = offloading_spec.tokens_per_block[group] * offloading_spec.blocks_per_chunk
    layers, block_tokens, row = opaque_shape(chunk_bytes, tokens)
    name, revision = digests.checkpoint_identity(config.model.name)
    parallel = config.parallel
    names = config.groups[group].layer_names
    layout = (
        f"vllm offload {config.kv_cache_layout} cache={config.model.dtype} "
        f"world={parallel.world_size} "
        f"tp={parallel.tp_size} pp={parallel.pp_size} dcp={parallel.dcp_size} chunk={tokens} "
        f"group={group} "
        f"replicated={config.replicated_layout} canonical={config.canonical_layout} "
        f"layers={len(names)} {digests.value_digest(list(names))[:16]}"
    )
    return CacheSpec(
        name,
        revision=revision,
        scope=scope,
        attention="mla",
        dtype="i8",
        layers=layers,
        head_dim=row,
        block_tokens=block_tokens,
        engine_layout=layout,
        key_scheme=f"vllm offload tokens={offloading_spec.tokens_per_hash}",
    )


@dataclasses.dataclass
class Question:
    """One request's longest stored chain of one group, asked once; its lease lasts as long as
    the request.
    """

    chain: list[OffloadKey]
    operation: Any
    deadline: float
    run: Any = None
    blocks: int | None = None
    failed_from: int | None = None  # a load failed here: from here on it is a miss

    def poll(self, now: float) -> int | None:
        """Blocks stored; None while the answer may still come."""
        if self.blocks is None:
            if self.operation.done():
                self.run = self.operation.result()
                self.blocks = self.run.blocks
            elif now >= self.deadline:
                self.operation.cancel()
                self.blocks = 0
        if self.blocks is None or self.failed_from is None:
            return self.blocks
        return min(self.blocks, self.failed_from)

    def close(self) -> None:
        self.operation.cancel()
        if self.run is not None:
            self.run.release()


@dataclasses.dataclass
class RequestState:
    """Kept in vLLM's ReqContext."""

    session: str | None
    questions: dict[int, Question] = dataclasses.field(default_factory=dict)


class RepriseTier(SecondaryTierManager):
    """Keeps chunks of the primary tier in Reprise. All methods are called from the scheduler's
    thread.
    """

    medium = Medium.STORAGE

    def __init__(
        self,
        offloading_spec: Any,
        primary_kv_view: memoryview,
        tier_type: str,
        backpressure_detector: Any = None,
        *,
        router: str | list[str] | None = None,
        shards: list[str] | None = None,
        session_key: str = "user",
        scope: str = "",
        lookup_budget_ms: float = 200,
        transfer_timeout_ms: float = 5_000,
        client: Client | None = None,
        locality: str | None = None,
        tls_ca: str = "",
        tls_cert: str = "",
        tls_key: str = "",
        tls_server_id: str | Sequence[str] = (),
    ) -> None:
        super().__init__(offloading_spec, primary_kv_view, tier_type, backpressure_detector)
        if client is None and bool(router) == bool(shards):
            raise ValueError(
                'secondary tier reprise: set either router ("HOST:PORT", or a list) or shards'
            )
        self._chunks = np.asarray(primary_kv_view).view(np.uint8).reshape(len(primary_kv_view), -1)
        self._session_key = session_key
        self._lookup_budget_s = lookup_budget_ms / 1000
        self._timeout_s = transfer_timeout_ms / 1000
        tls = {"tls_ca": tls_ca, "tls_cert": tls_cert, "tls_key": tls_key}
        self._client = client or Client(
            router,
            shards=shards,
            name=f"vllm-tier-{os.getpid()}",
            tls=Tls.from_settings({**tls, "tls_server_id": tls_server_id}),
        )
        self._specs = [
            chunk_spec(offloading_spec, self._chunks.shape[1], group, scope)
            for group in range(len(offloading_spec.tokens_per_block))
        ]
        self._pool = concurrent.futures.ThreadPoolExecutor(THREADS, "reprise-tier")
        self._jobs: dict[concurrent.futures.Future[JobResult], tuple[TransferJob, bool]] = {}
        self._open: dict[str, RequestState] = {}

    # ---- Questions

    def on_new_request(self, req_context: ReqContext) -> RequestOffloadingContext:
        params = req_context.kv_transfer_params
        named = params.get(self._session_key) if isinstance(params, dict) else None
        session = (
            named
            if isinstance(named, str) and len(named.encode()) <= hints.SESSION_BYTES_MAX
            else None
        )
        self._open[req_context.req_id] = RequestState(session)
        return RequestOffloadingContext()

    def _state(self, req_context: ReqContext) -> RequestState:
        if req_context.req_id not in self._open:
            self.on_new_request(req_context)
        return self._open[req_context.req_id]

    def _chain(self, group: int, req_context: ReqContext) -> list[OffloadKey]:
        """The request's keys of one group, from its first token."""
        positions = req_context._offload_key_positions
        return sorted(
            (key for key in positions if group_of(key) == group), key=positions.__getitem__
        )

    def lookup(self, key: OffloadKey, req_context: ReqContext) -> LookupResult:
        state, group = self._state(req_context), group_of(key)
        question = state.questions.get(group)
        if question is None or key not in question.chain:
            chain = self._chain(group, req_context)
            if key not in chain:
                return LookupResult.MISS
            if question is not None:
                question.close()
            operation = self._client.acquire_async(
                self._specs[group],
                self._packed(chain),
                session=state.session,
                timeout=self._lookup_budget_s,
            )
            question = state.questions[group] = Question(
                chain, operation, time.monotonic() + self._lookup_budget_s
            )
        stored = question.poll(time.monotonic())
        if stored is None:
            return LookupResult.RETRY
        return LookupResult.HIT if question.chain.index(key) < stored else LookupResult.MISS

    def on_request_finished(self, req_context: ReqContext) -> None:
        state = self._open.pop(req_context.req_id, None)
        for question in state.questions.values() if state is not None else ():
            question.close()

    @staticmethod
    def _packed(chain: list[OffloadKey]) -> np.ndarray:
        return keys.as_array(
            b"".join(key[:-GROUP_BYTES].ljust(keys.KEY_BYTES, b"\0") for key in chain)
        )

    # ---- Transfers

    def submit_store(self, job_metadata: TransferJob) -> None:
        self._submit(job_metadata, self._store, is_store=True)

    def submit_load(self, job_metadata: TransferJob) -> None:
        self._submit(job_metadata, self._load, is_store=False)

    def _submit(self, job: TransferJob, work: Any, *, is_store: bool) -> None:
        context = job.req_context
        state = self._state(context)
        chains = {
            group: self._chain(group, context) for group in {group_of(key) for key in job.keys}
        }
        self._jobs[self._pool.submit(work, job, chains, state.session)] = (job, is_store)

    def _runs(
        self, job: TransferJob, chains: dict[int, list[OffloadKey]]
    ) -> Iterable[tuple[int, int, list[int]]]:
        """(group, first index in the chain, chunk ids) of each stretch of consecutive blocks in
        the job.
        """
        order = {group: {key: i for i, key in enumerate(chain)} for group, chain in chains.items()}
        places = sorted(
            (group_of(key), order[group_of(key)].get(key, -1), int(chunk))
            for key, chunk in zip(job.keys, job.chunk_ids)
        )
        stretch: list[tuple[int, int, int]] = []
        for place in places:
            if place[1] < 0:
                continue  # not a key of this request: it has no chain here
            if stretch and (place[0], place[1]) != (stretch[-1][0], stretch[-1][1] + 1):
                yield stretch[0][0], stretch[0][1], [chunk for _, _, chunk in stretch]
                stretch = []
            stretch.append(place)
        if stretch:
            yield stretch[0][0], stretch[0][1], [chunk for _, _, chunk in stretch]

    def _store(
        self, job: TransferJob, chains: dict[int, list[OffloadKey]], session: str | None
    ) -> JobResult:
        begun = time.monotonic()
        kept = sent = 0
        for group, first, chunks in self._runs(job, chains):
            result = self._client.store(
                self._specs[group],
                self._packed(chains[group][: first + len(chunks)]),
                [self._chunks[c] for c in chunks],
                first=first,
                session=session,
                timeout=self._timeout_s,
            )
            kept += result.stored + result.present
            sent += result.bytes
            if result.error:
                logger.warning("Reprise did not store all chunks: %s", result.error)
        return JobResult(
            job.job_id,
            success=kept == len(job.keys),
            transfer_time=time.monotonic() - begun,
            transfer_bytes=sent,
        )

    def _load(
        self, job: TransferJob, chains: dict[int, list[OffloadKey]], session: str | None
    ) -> JobResult:
        begun = time.monotonic()
        loaded: list[OffloadKey] = []
        received = 0
        for group, first, chunks in self._runs(job, chains):
            chain = chains[group][: first + len(chunks)]
            with self._client.acquire(
                self._specs[group],
                self._packed(chain),
                session=session,
                first_block=first,
                timeout=self._timeout_s,
            ) as run:
                count = min(run.blocks - first, len(chunks))
                if count <= 0:
                    continue
                result = run.fetch(
                    [self._chunks[c] for c in chunks[:count]],
                    first=first,
                    count=count,
                    timeout=self._timeout_s,
                )
            loaded += chain[first : first + result.blocks]
            received += result.bytes
            if result.error:
                logger.warning("Reprise could not load all chunks: %s", result.error)
        success = len(loaded) == len(job.keys)
        return JobResult(
            job.job_id,
            success=success,
            successful_keys=None if success or not loaded else tuple(loaded),
            transfer_time=time.monotonic() - begun,
            transfer_bytes=received,
        )

    def get_finished_jobs(self) -> Iterable[JobResult]:
        finished = []
        for future in [f for f in self._jobs if f.done()]:
            job, is_store = self._jobs.pop(future)
            error = future.exception()
            if error is not None:
                logger.error("transfer job %d failed: %s", job.job_id, error)
                result = JobResult(job.job_id, success=False)
            else:
                result = future.result()
            if not is_store and not result.success:
                self._forget_failed(job, set(result.successful_keys or ()))
            finished.append(result)
        return finished

    def _forget_failed(self, job: TransferJob, loaded: set[OffloadKey]) -> None:
        """What failed to load is a miss for this request from now on: it must not be promised
        again.
        """
        state = self._open.get(job.req_context.req_id)
        for key in job.keys:
            question = state.questions.get(group_of(key)) if state is not None else None
            if question is not None and key not in loaded and key in question.chain:
                index = question.chain.index(key)
                question.failed_from = (
                    index if question.failed_from is None else min(question.failed_from, index)
                )

    def has_pending_work(self) -> bool:
        return bool(self._jobs)

    def drain_jobs(self) -> None:
        concurrent.futures.wait(list(self._jobs))

    def shutdown(self) -> None:
        for state in self._open.values():
            for question in state.questions.values():
                question.close()
        self._open.clear()
        self._pool.shutdown(wait=True)
        self._client.close()
