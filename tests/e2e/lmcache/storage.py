"""LMCache's StorageManager without its engine, for the forms of chunks that no engine makes on a
CPU: layer by layer, and latents (MLA).
"""

from __future__ import annotations

from typing import Any

import torch
from engine import PLUGIN, Engine
from lmcache.utils import CacheEngineKey
from lmcache.v1.config import LMCacheEngineConfig
from lmcache.v1.event_manager import EventManager
from lmcache.v1.memory_management import MemoryFormat
from lmcache.v1.metadata import LMCacheMetadata
from lmcache.v1.storage_backend.storage_manager import StorageManager

LAYERS, HEADS, HEAD_DIM, CHUNK = 4, 2, 64, 256


class Storage:
    """A storage manager over Reprise."""

    settled = Engine.settled
    allocated = Engine.allocated
    name = "storage"

    def __init__(
        self, router: str, *, mla: bool = False, heads: int = HEADS, **config: Any
    ) -> None:
        self.metadata = LMCacheMetadata(
            model_name="forms",
            world_size=1,
            local_world_size=1,
            worker_id=0,
            local_worker_id=0,
            kv_dtype=torch.bfloat16,
            kv_shape=(LAYERS, 1 if mla else 2, CHUNK, 1 if mla else heads, HEAD_DIM),
            use_mla=mla,
            chunk_size=CHUNK,
        )
        self.config = LMCacheEngineConfig.from_defaults(
            chunk_size=CHUNK,
            local_cpu=False,
            max_local_cpu_size=0.0625,
            remote_storage_plugins=["reprise"],
            extra_config={
                f"{PLUGIN}.module_path": "reprise.engines.lmcache",
                f"{PLUGIN}.class_name": "RepriseAdapter",
                f"{PLUGIN}.router": router,
            },
            **config,
        )
        self.manager = StorageManager(self.config, self.metadata, EventManager())
        self.backend: Any = self.manager.storage_backends["RemoteBackend-reprise"]

    @property
    def connector(self) -> Any:
        return self.backend.connection.getWrappedConnector()

    def key(self, number: int, **request: Any) -> CacheEngineKey:
        return CacheEngineKey("forms", 1, 0, number, torch.bfloat16, request)

    def memory(self, shape: tuple[int, ...], fmt: MemoryFormat, seed: int = 0) -> Any:
        """A memory object of random bits."""
        made = self.manager.allocate(torch.Size(shape), torch.bfloat16, fmt)
        generator = torch.Generator().manual_seed(seed)
        bits = torch.randint(0, 256, (made.get_size(),), dtype=torch.uint8, generator=generator)
        made.raw_data[: made.get_size()] = bits
        return made

    def put(self, key: Any, memory: Any) -> None:
        """Gives the memory object away, and waits until it is gone."""
        self.manager.batched_put([key], [memory])
        self.settled()

    def __enter__(self) -> Storage:
        return self

    def __exit__(self, *_: object) -> None:
        self.manager.close()
