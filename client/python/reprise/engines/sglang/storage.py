"""SGLang's HiCacheStorage over Reprise: pages move between SGLang's host pools and the shards
without a copy between.

SGLang calls it from its storage threads (a query, a load and a backup thread per rank), never from
the scheduler's. It reads answers as "the first n pages": what is false is computed.
"""

# SGLang is there when this is imported, not when types are checked.
# mypy: disable-error-code="import-not-found,misc,unused-ignore"

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from sglang.srt.mem_cache.hicache_storage import (
    HiCacheStorage,
    HiCacheStorageConfig,
    HiCacheStorageExtraInfo,
    PoolHitPolicy,
    PoolName,
    PoolTransfer,
    PoolTransferResult,
)

from reprise.client import Client
from reprise.engines.complaints import Complaints
from reprise.keys import KeyArray

from . import server_spec
from .chains import chain_of
from .hooks import pass_whole_prefixes
from .host_pool import HostPool, UnsupportedPool, read_pool
from .pool_store import PoolStore
from .settings import Settings
from .traffic import Traffic
from .weights import Weights

# Pools of which a prompt keeps the last pages alone (state, sliding windows): no chain of prefixes.
TRAILING_POOLS = (PoolName.MAMBA, PoolName.SWA, PoolName.AUXILIARY_SWA, PoolName.DRAFT_SWA)

CLIENT_THREADS = 4  # SGLang asks, loads and backs up at once; one for what is let go

logger = logging.getLogger("sglang.reprise")


class RepriseHiCache(HiCacheStorage):
    """Made by SGLang for each rank. Raises ValueError, with what to set, for a configuration or a
    model that it cannot serve.
    """

    def __init__(self, storage_config: HiCacheStorageConfig, kwargs: Any = None) -> None:
        self._config = storage_config
        config = dict(storage_config.extra_config or {})
        self._settings = Settings.from_extra_config(config)
        args = server_spec.server_arguments()
        self._check(config, args)
        pass_whole_prefixes()
        self._checkpoint = server_spec.read_checkpoint(args, self._settings)
        rank = f"tp{storage_config.tp_rank} pp{storage_config.pp_rank}"
        self._client = Client(
            **self._settings.client_arguments(f"sglang {os.getpid()} {rank}"),
            threads=CLIENT_THREADS,
        )
        self._traffic = Traffic()
        self._complaints = Complaints(logger)
        self._lock = threading.Lock()
        self._pools: dict[str, HostPool] = {}
        self._stores: dict[str, PoolStore] = {}
        self._weights = Weights()
        self._version = self._weights.version()

    def _check(self, config: dict[str, Any], args: Any) -> None:
        where = Settings.WHERE
        if not config.get("interface_v1"):
            raise ValueError(
                f'{where}: set "interface_v1": 1, or SGLang copies each page one by one'
            )
        if not _passes_prefix_keys(args):
            raise ValueError(
                f'{where}: set "hicache_storage_pass_prefix_keys": true, or Reprise cannot tell '
                f"which prompt a page continues"
            )
        if self._config.attn_cp_size > 1 or self._config.should_split_heads:
            raise ValueError(
                "Reprise keeps pages whole: set --attn-cp-size to 1, and no tp_lcm_size"
            )

    # ---- Host pools

    def register_mem_pool_host(self, mem_pool_host: Any) -> None:
        super().register_mem_pool_host(mem_pool_host)
        self._register(PoolName.KV, mem_pool_host)

    def register_mem_host_pool_v2(self, host_pool: Any, host_pool_name: Any) -> None:
        super().register_mem_host_pool_v2(host_pool, host_pool_name)
        name = str(host_pool_name)
        if name in TRAILING_POOLS:
            raise UnsupportedPool(
                f"Reprise keeps pages of full attention, and this model has a host pool {name!r} "
                f"too: --disable-hybrid-swa-memory makes sliding windows full attention's pages; "
                f"state of linear attention cannot be kept"
            )
        self._register(name, host_pool)

    def _register(self, name: str, host_pool: Any) -> None:
        name = str(name)
        pool = read_pool(host_pool, name)
        with self._lock:
            if name in self._pools and self._pools[name].owner is pool.owner:
                return
            self._pools[name] = pool
            if name in self._stores:
                self._stores[name].retire()
            self._open(name)

    def _open(self, name: str) -> None:
        """Makes the pool's store for the weights of now. Under the lock."""
        pool = self._pools[name]
        spec = server_spec.spec_of(
            pool, name, self._checkpoint, self._config, self._settings, self._version or ""
        )
        self._stores[name] = PoolStore(
            self._client, pool, spec, self._settings, self._traffic, self._complaints
        )
        logger.info("Reprise keeps host pool %r as %s", name, spec.to_json())

    def _store(self, name: str) -> PoolStore | None:
        """The store of a pool under the weights of now; None where nobody knows them."""
        version = self._weights.version()
        with self._lock:
            if version != self._version and version is not None:
                logger.info("The weights are %r now: pages of %r are left", version, self._version)
                self._version = version
                for known in self._pools:
                    self._stores[known].retire()
                    self._open(known)
            return self._stores[str(name)] if version is not None else None

    # ---- K/V pages

    def batch_exists(
        self, keys: list[str], extra_info: HiCacheStorageExtraInfo | None = None
    ) -> int:
        return self._leading(PoolName.KV, keys, extra_info)

    def batch_get_v1(
        self,
        keys: list[str],
        host_indices: Any,
        extra_info: HiCacheStorageExtraInfo | None = None,
    ) -> list[bool]:
        return self._move(PoolStore.load, PoolName.KV, keys, host_indices, extra_info)

    def batch_set_v1(
        self,
        keys: list[str],
        host_indices: Any,
        extra_info: HiCacheStorageExtraInfo | None = None,
    ) -> list[bool]:
        return self._move(PoolStore.save, PoolName.KV, keys, host_indices, extra_info)

    # ---- Pages of several pools

    def batch_exists_v2(
        self,
        keys: list[str],
        pool_transfers: list[PoolTransfer] | None = None,
        extra_info: HiCacheStorageExtraInfo | None = None,
    ) -> PoolTransferResult:
        usable = self._leading(PoolName.KV, keys, extra_info)
        hits = {PoolName.KV: usable}
        for transfer in pool_transfers or ():
            found = 0
            if usable and transfer.hit_policy == PoolHitPolicy.ALL_PAGES:
                found = self._leading(transfer.name, keys[:usable], extra_info)
            hits[transfer.name] = found
            usable = min(usable, found)
        return PoolTransferResult(usable, hits, list(range(1, usable + 1)))

    def batch_get_v2(
        self,
        transfers: list[PoolTransfer],
        extra_info: HiCacheStorageExtraInfo | None = None,
    ) -> dict[str, list[bool]]:
        return {
            one.name: self._move(
                PoolStore.load, one.name, one.keys or [], one.host_indices, extra_info
            )
            for one in transfers
        }

    def batch_set_v2(
        self,
        transfers: list[PoolTransfer],
        extra_info: HiCacheStorageExtraInfo | None = None,
    ) -> dict[str, list[bool]]:
        return {
            one.name: self._move(
                PoolStore.save, one.name, one.keys or [], one.host_indices, extra_info
            )
            for one in transfers
        }

    # ---- One pool

    def _leading(
        self, name: str, keys: Sequence[str], extra_info: HiCacheStorageExtraInfo | None
    ) -> int:
        store, prefix = self._store(name), _prefix(extra_info)
        if store is None or not keys:
            return 0
        return store.leading(chain_of(prefix, keys), len(prefix))

    def _move(
        self,
        move: Callable[[PoolStore, KeyArray, int, Any], int],
        name: str,
        keys: Sequence[str],
        host_indices: Any,
        extra_info: HiCacheStorageExtraInfo | None,
    ) -> list[bool]:
        """Loads or saves; for each page whether it was, which is so for the first ones."""
        store, prefix = self._store(name), _prefix(extra_info)
        moved = 0
        if store is not None and keys:
            moved = move(store, chain_of(prefix, keys), len(prefix), host_indices)
        return [i < moved for i in range(len(keys))]

    # ---- Single pages: the interface before v1, which SGLang does not use with "interface_v1"

    def exists(self, key: str) -> bool:
        return self.batch_exists([key]) == 1

    def get(self, key: str, target_location: Any = None, target_sizes: Any = None) -> NoReturn:
        raise NotImplementedError(_ONE_BY_ONE)

    def batch_get(
        self, keys: list[str], target_locations: Any = None, target_sizes: Any = None
    ) -> NoReturn:
        raise NotImplementedError(_ONE_BY_ONE)

    def set(
        self, key: str, value: Any = None, target_location: Any = None, target_sizes: Any = None
    ) -> NoReturn:
        raise NotImplementedError(_ONE_BY_ONE)

    def batch_set(
        self,
        keys: list[str],
        values: Any = None,
        target_locations: Any = None,
        target_sizes: Any = None,
    ) -> NoReturn:
        raise NotImplementedError(_ONE_BY_ONE)

    # ---- Life

    def clear(self) -> NoReturn:
        raise NotImplementedError(
            "Reprise is shared by many servers and is not cleared from one of them: give this "
            'server another "scope" in hicache_storage_backend_extra_config to leave its pages '
            "behind"
        )

    def get_stats(self) -> Any:
        return self._traffic.take()

    def close(self) -> None:
        with self._lock:
            stores, self._stores = list(self._stores.values()), {}
        for store in stores:
            store.close()
        self._client.close()


_ONE_BY_ONE = 'pages move in batches: set "interface_v1": 1 in hicache_storage_backend_extra_config'


def _prefix(extra_info: HiCacheStorageExtraInfo | None) -> list[str]:
    """Hashes of the pages before those asked about."""
    return list(extra_info.prefix_keys or ()) if extra_info is not None else []


def _passes_prefix_keys(args: Any) -> bool:
    """Whether SGLang was told to say which pages come before those that it asks about. Unknown, and
    so taken as it is, for a backend attached while the server runs.
    """
    from sglang.srt.mem_cache.hybrid_cache.hybrid_cache_controller import HybridCacheController

    text = args.hicache_storage_backend_extra_config
    if args.hicache_storage_backend != "dynamic" or not text:
        return True
    return bool(HybridCacheController.parse_storage_backend_extra_config(text)[4])
