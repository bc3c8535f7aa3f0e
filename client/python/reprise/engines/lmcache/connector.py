"""LMCache's RemoteConnector over Reprise.

LMCache calls it from its storage manager's event loop, which must not wait, and asks for what is
stored from other threads too. Chunks are loaded and saved by threads of the connector's own.

A memory object that comes is LMCache's, which counts it down itself; it is held once more while a
thread reads it, because LMCache may give up a call before. One that goes is counted once, and that
is LMCache's to count down; where nobody takes it any more, it is let go here.
"""

# LMCache is there when this is imported, not when types are checked.
# mypy: disable-error-code="import-not-found,misc,unused-ignore"

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from lmcache.logging import init_logger
from lmcache.v1.storage_backend.connector.base_connector import RemoteConnector

from reprise.client import Client
from reprise.engines.transfers import transfer_s

from .chunk_form import ChunkForm
from .chunk_names import ChunkNames
from .chunk_store import ChunkStore
from .settings import Settings

# Of the time after which LMCache gives up a call, what a load may take: it ends before.
BLOCKING_SHARE = 0.9

logger = init_logger("lmcache.reprise")


class RepriseConnector(RemoteConnector):
    """Made by RepriseAdapter for each rank."""

    def __init__(self, config: Any, metadata: Any, memory: Any, settings: Settings) -> None:
        """`memory` is LMCache's LocalCPUBackend, whose memory objects are filled."""
        super().__init__(config, metadata)
        self._settings = settings
        self._blocking_s = config.blocking_timeout_secs * BLOCKING_SHARE
        self._memory = memory
        self._client = Client(
            **settings.client_arguments(f"lmcache {os.getpid()} rank {metadata.worker_id}"),
            threads=settings.load_threads + settings.save_threads,
        )
        names = ChunkNames(metadata, config, settings)
        self._store = ChunkStore(self._client, names, self._allocate, settings, logger)
        self._loads = ThreadPoolExecutor(settings.load_threads, "reprise-load")
        self._saves = ThreadPoolExecutor(settings.save_threads, "reprise-save")
        self._questions = ThreadPoolExecutor(1, "reprise-ask")  # loads do not wait for them

    def _allocate(self, form: ChunkForm, tokens: int) -> Any:
        return self._memory.allocate(
            form.shapes_of(tokens), list(form.dtypes), form.fmt, busy_loop=False
        )

    # ---- What is there

    async def exists(self, key: Any) -> bool:
        return await self.batched_async_contains("", [key]) == 1

    def exists_sync(self, key: Any) -> bool:
        return self.batched_contains([key]) == 1

    def support_batched_contains(self) -> bool:
        return True

    def batched_contains(self, keys: Sequence[Any]) -> int:
        return self._store.leading(keys, self._lookup_deadline())

    def support_batched_async_contains(self) -> bool:
        return True

    async def batched_async_contains(
        self, lookup_id: str, keys: Sequence[Any], pin: bool = False
    ) -> int:
        deadline = self._lookup_deadline()
        question = self._questions.submit(self._store.leading, keys, deadline)
        return await asyncio.wrap_future(question)

    # ---- Loading

    async def get(self, key: Any) -> Any:
        return (await self.batched_get([key]))[0]

    def support_batched_get(self) -> bool:
        return True

    async def batched_get(self, keys: Sequence[Any]) -> list[Any]:
        """A memory object for each key, None for what is computed."""
        deadline = time.monotonic() + min(
            self._settings.load_timeout_ms / 1000
            + transfer_s(len(keys) * self.full_chunk_size_bytes),
            self._blocking_s,
        )
        loads = [self._loads.submit(self._store.load, key, deadline) for key in keys]
        try:
            return list(await asyncio.gather(*map(asyncio.wrap_future, loads)))
        except BaseException:  # LMCache gave it up: nobody takes what comes
            for load in loads:
                load.add_done_callback(_let_go)
            raise

    def support_batched_get_non_blocking(self) -> bool:
        return True

    async def batched_get_non_blocking(self, lookup_id: str, keys: Sequence[Any]) -> list[Any]:
        """Memory objects of the first keys, up to the first that is computed."""
        loaded = await self.batched_get(keys)
        count = next((i for i, memory in enumerate(loaded) if memory is None), len(loaded))
        for memory in loaded[count:]:
            if memory is not None:
                memory.ref_count_down()
        return loaded[:count]

    # ---- Saving

    async def put(self, key: Any, memory_obj: Any) -> None:
        await self.batched_put([key], [memory_obj])

    def support_batched_put(self) -> bool:
        return True

    async def batched_put(self, keys: Sequence[Any], memory_objs: Sequence[Any]) -> None:
        nbytes = sum(memory.get_size() for memory in memory_objs)
        deadline = time.monotonic() + self._settings.save_timeout_ms / 1000 + transfer_s(nbytes)
        saves = [self._save(key, memory, deadline) for key, memory in zip(keys, memory_objs)]
        await asyncio.gather(*map(asyncio.wrap_future, saves))

    def _save(self, key: Any, memory: Any, deadline: float) -> Future[bool]:
        memory.ref_count_up()
        try:
            save = self._saves.submit(self._store.save, key, memory, deadline)
        except BaseException:
            memory.ref_count_down()
            raise
        # Also for one that is cancelled before a thread takes it.
        save.add_done_callback(lambda _: memory.ref_count_down())
        return save

    # ---- The rest

    def remove_sync(self, key: Any) -> bool:
        return self._store.evict(key, self._settings.lookup_timeout_ms / 1000)

    async def list(self) -> list[str]:
        """Nothing: the cache is shared by many, and knows keys by their hashes alone."""
        return []

    async def close(self) -> None:
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        pools = (self._questions, self._loads, self._saves)
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)
        self._store.close()
        self._client.close()  # what is under way ends
        for pool in pools:
            pool.shutdown()

    def stats(self) -> dict[str, Any]:
        """Counters of its client."""
        return self._client.stats()

    def _lookup_deadline(self) -> float:
        return time.monotonic() + self._settings.lookup_timeout_ms / 1000


def _let_go(load: Future[Any]) -> None:
    if not load.cancelled() and load.exception() is None and load.result() is not None:
        load.result().ref_count_down()
