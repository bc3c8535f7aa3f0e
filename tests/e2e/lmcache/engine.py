"""LMCache's own engine over a Reprise cache, in this process and on CPUs: its token database,
storage manager, local memory and RemoteBackend. Only what would copy between a GPU's memory and a
memory object is ours: the K/V of a prompt is a tensor here.
"""

from __future__ import annotations

import functools
import gc
import itertools
import random
import time
from types import TracebackType
from typing import Any

import torch
from lmcache.v1.cache_engine import LMCacheEngine, LMCacheEngineBuilder
from lmcache.v1.config import LMCacheEngineConfig
from lmcache.v1.gpu_connector.gpu_connectors import GPUConnectorInterface
from lmcache.v1.metadata import LMCacheMetadata

PLUGIN = "remote_storage_plugin.reprise"
CHUNK_TOKENS = 256
VOCABULARY = range(300, 2000)
_ids = itertools.count()


def tokens_of(seed: str, count: int) -> list[int]:
    """Token ids that depend on the seed alone."""
    return random.Random(seed).choices(VOCABULARY, k=count)


@functools.cache
def collect_no_module_again() -> None:
    """Each engine begins with a garbage collection, which takes longer than a test where it goes
    through all that torch and vLLM have made.
    """
    gc.freeze()


class TensorConnector(GPUConnectorInterface):
    """Copies between memory objects and `kv`, [K, V][layer][token][element]."""

    def __init__(self, layers: int, hidden: int) -> None:
        self._layers, self._hidden = layers, hidden

    def from_gpu(self, memory_obj: Any, start: int, end: int, **kwargs: Any) -> None:
        memory_obj.tensor.copy_(kwargs["kv"][:, :, start:end])

    def to_gpu(self, memory_obj: Any, start: int, end: int, **kwargs: Any) -> None:
        kwargs["kv"][:, :, start:end] = memory_obj.tensor

    def batched_from_gpu(self, memory_objs: Any, starts: Any, ends: Any, **kwargs: Any) -> None:
        for memory_obj, start, end in zip(memory_objs, starts, ends):
            self.from_gpu(memory_obj, start, end, **kwargs)

    def batched_to_gpu(
        self, memory_objs: Any = None, starts: Any = None, ends: Any = None, **kwargs: Any
    ) -> None:
        for memory_obj, start, end in zip(memory_objs, starts, ends):
            self.to_gpu(memory_obj, start, end, **kwargs)

    def get_shape(self, num_tokens: int) -> torch.Size:
        return torch.Size([2, self._layers, num_tokens, self._hidden])


class Engine:
    """One engine, as a worker has it. `settings` are the plug-in's."""

    def __init__(
        self,
        settings: dict[str, Any],
        *,
        model: str = "tiny",
        dtype: torch.dtype = torch.bfloat16,
        layers: int = 4,
        heads: int = 2,
        head_dim: int = 64,
        chunk_tokens: int = CHUNK_TOKENS,
        rank: tuple[int, int] = (0, 1),
        memory_gib: float = 0.0625,
        **config: Any,
    ) -> None:
        self.layers, self.hidden, self.dtype = layers, heads * head_dim, dtype
        worker, world = rank
        extra = {
            f"{PLUGIN}.module_path": "reprise.engines.lmcache",
            f"{PLUGIN}.class_name": "RepriseAdapter",
            **{f"{PLUGIN}.{name}": value for name, value in settings.items()},
        }
        options = dict(
            chunk_size=chunk_tokens,
            local_cpu=False,
            max_local_cpu_size=memory_gib,
            remote_storage_plugins=["reprise"],
            extra_config=extra,
            pre_caching_hash_algorithm="sha256_cbor",
        )
        metadata = LMCacheMetadata(
            model_name=model,
            world_size=world,
            local_world_size=world,
            worker_id=worker,
            local_worker_id=worker,
            kv_dtype=dtype,
            kv_shape=(layers, 2, chunk_tokens, heads, head_dim),
            chunk_size=chunk_tokens,
        )
        self.name = f"engine-{next(_ids)}"
        self.engine: LMCacheEngine = LMCacheEngineBuilder.get_or_create(
            self.name,
            LMCacheEngineConfig.from_defaults(**{**options, **config}),
            metadata,
            TensorConnector(layers, self.hidden),
            lambda tensor, rank: tensor,
            lambda value, rank: value,
        )
        self.engine.post_init()
        collect_no_module_again()

    # ---- What an engine does

    def computed(self, seed: str, tokens: int) -> torch.Tensor:
        """The K/V of a prompt, as a model would compute it."""
        generator = torch.Generator().manual_seed(random.Random(seed).getrandbits(60))
        shape = (2, self.layers, tokens, self.hidden)
        return torch.randint(0, 256, (*shape, self.dtype.itemsize), dtype=torch.uint8,
                             generator=generator).view(self.dtype).squeeze(-1)  # fmt: skip

    def store(self, tokens: list[int], kv: torch.Tensor) -> None:
        """Returns when LMCache has let go of the chunks, stored or not."""
        self.engine.store(tokens=tokens, kv=kv)
        self.settled()

    def retrieve(self, tokens: list[int]) -> tuple[int, torch.Tensor]:
        """How many tokens came, and their K/V; zeros where nothing did."""
        kv = torch.zeros(2, self.layers, len(tokens), self.hidden, dtype=self.dtype)
        mask = self.engine.retrieve(torch.tensor(tokens), kv=kv, req_id="one")
        return int(mask.sum()), kv

    def lookup(self, tokens: list[int]) -> int:
        return int(self.engine.lookup(tokens=tokens))

    # ---- What the tests look at

    @property
    def manager(self) -> Any:
        return self.engine.storage_manager

    @property
    def backend(self) -> Any:
        """LMCache's RemoteBackend."""
        return self.manager.storage_backends["RemoteBackend-reprise"]

    @property
    def connector(self) -> Any:
        """Ours, within LMCache's that measures."""
        return self.backend.connection.getWrappedConnector()

    def allocated(self) -> int:
        """Bytes of memory objects that somebody still holds."""
        allocator = self.manager.local_cpu_backend.memory_allocator
        return int(allocator.pin_allocator.address_manager.total_allocated_size)

    def settled(self, seconds: float = 20.0) -> None:
        """Waits until no memory object is held any more."""
        wait_until(lambda: self.allocated() == 0, seconds, f"{self.name} holds memory objects")

    def close(self) -> None:
        LMCacheEngineBuilder.destroy(self.name)

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors have the same bits: numbers that are none are equal to nothing."""
    return torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


def wait_until(holds: Any, seconds: float, otherwise: str) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"{otherwise} after {seconds:.0f} s"
        time.sleep(0.01)
