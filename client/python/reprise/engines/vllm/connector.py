"""RepriseConnector: vLLM's connector interface over the two sides. vLLM makes one instance in
the scheduler process and one in each worker process; the role decides which side it has.
"""

# vLLM is there when this is imported, not when types are checked.
# mypy: disable-error-code="import-not-found,misc,unused-ignore"

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorHandshakeMetadata,
    KVConnectorMetadata,
    KVConnectorRole,
    KVConnectorTransferResults,
    KVConnectorWorkerMetadata,
    SupportsHMA,
)
from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorStats

from reprise import Client

from . import affinity, groups, keys, nesting, versions
from .messages import RankParts, StepMetadata, WorkerReport
from .metrics import ReprisePromMetrics, RepriseStats
from .scheduler_side import SchedulerSide
from .settings import Settings
from .spec_from_engine import check_scales, parts_of_rank
from .worker_side import WorkerSide

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.kv_cache_interface import KVCacheConfig


class RepriseConnector(KVConnectorBase_V1, SupportsHMA):
    """Keeps the K/V of prompt prefixes in Reprise."""

    @property
    def requires_kv_delivery(self) -> bool:
        return False  # a save that is lost is a miss later

    def __init__(
        self, vllm_config: "VllmConfig", role: KVConnectorRole, kv_cache_config: "KVCacheConfig"
    ) -> None:
        versions.check()
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        extra_config = self._kv_transfer_config.kv_connector_extra_config
        self._settings = Settings.from_extra_config(extra_config)
        if nesting.is_part_of_another(self):
            self._settings = self._settings.beside_others(extra_config)
        groups.check_parallelism(vllm_config.parallel_config)
        check_scales(vllm_config)
        self._groups = groups.plan_groups(kv_cache_config)
        self._tokens_per_hash = kv_cache_config.hash_block_size or min(
            g.block_tokens for g in self._groups
        )
        keys.key_scheme(vllm_config.cache_config.prefix_caching_hash_algo, self._tokens_per_hash)
        if self._kv_transfer_config.kv_load_failure_policy != "recompute":
            versions.logger.warning(
                "kv_load_failure_policy is %r: a request whose blocks cannot be loaded fails. "
                "Set it "
                'to "recompute" in --kv-transfer-config.',
                self._kv_transfer_config.kv_load_failure_policy,
            )
        side = "scheduler" if role == KVConnectorRole.SCHEDULER else "worker"
        with affinity.unbound():
            self._client = Client(**self._settings.client_arguments(f"vllm-{side}-{os.getpid()}"))
        self._scheduler: SchedulerSide | None = None
        self._worker: WorkerSide | None = None
        self._rank_parts: RankParts | None = None
        self._failed_blocks: set[int] = set()
        if role == KVConnectorRole.SCHEDULER:
            self._scheduler = SchedulerSide(
                self._settings,
                self._client,
                tokens_per_hash=self._tokens_per_hash,
                produces=self._kv_transfer_config.is_kv_producer,
                consumes=self._kv_transfer_config.is_kv_consumer,
            )
        else:
            self._worker = WorkerSide(self._settings, self._client)

    # ---- Scheduler side

    @property
    def _planner(self) -> SchedulerSide:
        assert self._scheduler is not None, "called on a worker's connector"
        return self._scheduler

    def bind_gpu_block_pool(self, gpu_block_pool: Any) -> None:
        self._planner.pins.bind(gpu_block_pool)

    def set_xfer_handshake_metadata_pp_aware(
        self, metadata: dict[tuple[int, int], KVConnectorHandshakeMetadata]
    ) -> None:
        self._planner.learn_ranks(
            {rank: told for rank, told in metadata.items() if isinstance(told, RankParts)}
        )

    def on_new_request(self, request: Any) -> None:
        self._planner.track(request)

    def get_num_new_matched_tokens(
        self, request: Any, num_computed_tokens: int
    ) -> tuple[int | None, bool]:
        return self._planner.matched_tokens(request, num_computed_tokens)

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        self._planner.allocated(request, blocks, num_external_tokens)

    def build_connector_meta(self, scheduler_output: Any) -> KVConnectorMetadata:
        return self._planner.plan_step(scheduler_output)

    def update_connector_output(self, connector_output: Any) -> None:
        if isinstance(connector_output.kv_connector_worker_meta, WorkerReport):
            self._planner.worker_reported(connector_output.kv_connector_worker_meta)
        self._planner.load_ended(connector_output.finished_recving)

    def request_finished_all_groups(
        self, request: Any, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, dict[str, Any] | None]:
        return False, self._planner.finished(request, block_ids)

    def request_finished(
        self, request: Any, block_ids: list[int]
    ) -> tuple[bool, dict[str, Any] | None]:
        return False, self._planner.finished(request, (block_ids,))

    def has_pending_block_frees(self) -> bool:
        return bool(self._planner.pins)

    def has_pending_push_work(self) -> bool:
        return self._planner.busy

    def reset_cache(self) -> bool | None:
        """After this nothing that was stored before is found: vLLM asks for it when weights are
        replaced.
        """
        self._planner.forget_all()
        return True

    # ---- Worker side

    @property
    def _mover(self) -> WorkerSide:
        assert self._worker is not None, "called on the scheduler's connector"
        return self._worker

    def register_kv_caches(self, kv_caches: dict[str, Any]) -> None:
        from vllm.distributed.parallel_state import get_pp_group, get_tp_group

        tp, pp = get_tp_group(), get_pp_group()
        parts = parts_of_rank(
            self._vllm_config,
            self._groups,
            kv_caches,
            self._kv_cache_config.num_blocks,
            self._kv_cache_config,
            self._settings,
            (tp.world_size, tp.rank_in_group, pp.world_size, pp.rank_in_group),
            self._tokens_per_hash,
        )
        self._mover.place(parts, len(self._kv_cache_config.kv_cache_groups))
        self._rank_parts = RankParts(tuple(part for part, _ in parts))

    def get_handshake_metadata(self) -> KVConnectorHandshakeMetadata | None:
        return self._rank_parts

    def bind_connector_metadata(self, connector_metadata: KVConnectorMetadata) -> None:
        super().bind_connector_metadata(connector_metadata)
        assert isinstance(connector_metadata, StepMetadata)
        # Here, not in start_load_kv, which a step without synchronous loads calls after its forward
        # pass: these loads go to blocks that no running request has, so they can run beside it.
        self._mover.start_loads(connector_metadata.loads, connector_metadata.cancelled)

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        """Loads began when the step's metadata came."""

    def wait_for_layer_load(self, layer_name: str) -> None:
        """No request runs before its load is over."""

    def save_kv_layer(
        self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any
    ) -> None:
        """Blocks are saved whole, behind the step: full blocks never change again."""

    def wait_for_save(self) -> None:
        metadata = self._connector_metadata
        if isinstance(metadata, StepMetadata):
            self._mover.start_saves(metadata.saves)

    def get_transfer_results(self, finished_req_ids: set[str]) -> KVConnectorTransferResults:
        metadata = self._connector_metadata
        idle = pausing = False
        if isinstance(metadata, StepMetadata):
            idle, pausing = metadata.idle, metadata.pausing
        results = self._mover.results(idle, pausing)
        self._failed_blocks = results.failed_blocks
        return KVConnectorTransferResults(
            finished_recving=results.finished, failed_recving=results.failed
        )

    def get_block_ids_with_load_errors(self) -> set[int]:
        failed = self._failed_blocks
        self._failed_blocks = set()
        return failed

    def build_connector_worker_meta(self) -> KVConnectorWorkerMetadata | None:
        return self._mover.report()

    # ---- Both

    def get_kv_connector_stats(self) -> KVConnectorStats | None:
        return self._scheduler.stats.take() if self._scheduler is not None else self._mover.stats()

    def take_events(self) -> Iterable[Any]:
        return ()

    def shutdown(self) -> None:
        if self._worker is not None:
            self._worker.close()
        if self._scheduler is not None:
            self._scheduler.close()
        self._client.close()

    @classmethod
    def build_kv_connector_stats(
        cls, data: dict[str, Any] | None = None
    ) -> KVConnectorStats | None:
        return RepriseStats(data=dict(data or {}))

    @classmethod
    def build_prom_metrics(
        cls,
        vllm_config: Any,
        metric_types: Any,
        labelnames: list[str],
        per_engine_labelvalues: dict[int, list[object]],
    ) -> ReprisePromMetrics:
        return ReprisePromMetrics(vllm_config, metric_types, labelnames, per_engine_labelvalues)
