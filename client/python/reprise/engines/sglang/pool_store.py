"""One host pool of this rank under one cache spec: asked for, loaded from and saved to Reprise. No
call raises for the cache's sake: what it could not do in time is a miss.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from reprise.client import Client
from reprise.engines.complaints import Complaints
from reprise.engines.miss_explainer import MissExplainer
from reprise.engines.transfers import transfer_s
from reprise.keys import KeyArray
from reprise.memory import PagedPlan
from reprise.run import Run
from reprise.spec import CacheSpec

from .chains import pages_of
from .held_runs import Held, HeldRuns
from .host_pool import HostPool
from .settings import Settings
from .traffic import Traffic

logger = logging.getLogger("sglang.reprise")


class PoolStore:
    """Thread-safe."""

    def __init__(
        self,
        client: Client,
        pool: HostPool,
        spec: CacheSpec,
        settings: Settings,
        traffic: Traffic,
        complaints: Complaints,
    ) -> None:
        self.spec = spec
        self._client = client
        self._settings = settings
        self._traffic = traffic
        self._complaints = complaints
        self._plan = PagedPlan(client, spec, pool.planes, pool.page_tokens, owners=pool.owner)
        self._held = HeldRuns(settings.lookup_hold_ms / 1000, settings.lookups_held_max)
        self._explainer = MissExplainer(client, settings.explain_interval_ms / 1000, logger)

    def leading(self, chain: KeyArray, first: int) -> int:
        """Pages stored from `first` on without a gap. They stay leased for a while, so that what
        was promised can be loaded.
        """
        run = self._acquire(chain, first, self._settings.lookup_timeout_ms / 1000)
        found = max(0, run.blocks - first)
        logger.debug("pages [%d, %d): %d stored", first, len(chain), found)
        if found:
            self._held.hold(Held(chain, run))
        else:
            run.release()
            if run.error is None and not run.blocks:
                self._explainer.consider(self.spec, chain)
        return found

    def load(self, chain: KeyArray, first: int, host_indices: Any) -> int:
        """Brings pages [first, len(chain)) into the pool; returns how many came, from the first."""
        pages = pages_of(host_indices, len(chain) - first, self._plan.page_tokens)
        deadline = self._deadline(self._settings.load_timeout_ms, len(pages))
        held = self._held.take(chain, first)
        if held is None:
            held = Held(chain, self._acquire(chain, first, self._left(deadline)))
        run = held.run
        count = max(0, min(run.blocks, len(chain)) - first)
        begun = time.monotonic()
        try:
            result = run.fetch_paged(
                self._plan, pages[:count], first=first, count=count, timeout=self._left(deadline)
            )
        except BaseException:
            run.release()
            raise
        if result.blocks == count and run.blocks > len(chain):
            self._held.hold(held)  # the next pages of a long prompt follow
        else:
            run.release()
        self._traffic.loaded(result.blocks, result.bytes, time.monotonic() - begun)
        if result.error or result.corrupt:
            self._complaints.tell(
                "load",
                "Reprise could not load all pages, the rest is computed: %s",
                result.error or f"{result.corrupt} pages failed their checksum",
            )
        return result.blocks

    def save(self, chain: KeyArray, first: int, host_indices: Any) -> int:
        """Stores pages [first, len(chain)) of the pool; returns how many are stored now."""
        pages = pages_of(host_indices, len(chain) - first, self._plan.page_tokens)
        begun = time.monotonic()
        deadline = self._deadline(self._settings.save_timeout_ms, len(pages))
        result = self._client.store_paged(
            self.spec, chain, self._plan, pages, first=first, timeout=self._left(deadline)
        )
        self._traffic.saved(result.stored, result.bytes, time.monotonic() - begun)
        logger.debug("pages [%d, %d): %s", first, len(chain), result)
        if result.error:
            self._complaints.tell("save", "Reprise did not store all pages: %s", result.error)
        return result.stored + result.present

    def retire(self) -> None:
        """Lets its leases go; calls under way end as they may."""
        self._held.close()

    def close(self) -> None:
        """Frees everything. No call may be under way."""
        self.retire()
        self._plan.close()

    def _acquire(self, chain: KeyArray, first: int, timeout: float) -> Run:
        run = self._client.acquire(self.spec, chain, first_block=first, timeout=timeout)
        if run.error:
            self._complaints.tell(
                "ask", "Reprise did not answer, the prompt is computed: %s", run.error
            )
        return run

    def _deadline(self, timeout_ms: int, pages: int) -> float:
        return time.monotonic() + timeout_ms / 1000 + transfer_s(pages * self.spec.stored_bytes)

    @staticmethod
    def _left(deadline: float) -> float:
        return max(0.001, deadline - time.monotonic())
