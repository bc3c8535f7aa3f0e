"""The half of the connector in vLLM's scheduler process: asks what is stored, plans loads and
saves.

Nothing here waits: a question is asked once per request and polled, work goes to the workers with
the step. Each lease ends when its load is done or failed, when its request ends, or when the answer
was not used in time.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import Any

import numpy as np

from reprise.engines.miss_explainer import MissExplainer
from reprise.engines.transfers import transfer_s

from . import keys, lookup
from .hint_execution import Chain, HintExecution
from .hints import read_hints
from .messages import GroupBlocks, Load, RankParts, Save, StepMetadata, Variant, WorkerReport
from .metrics import RepriseStats
from .pins import Pins
from .request_orders import ChainOf, RequestOrders
from .settings import Settings
from .spec_from_engine import Part
from .tracked import Tracked
from .variants import Variants

logger = logging.getLogger("vllm.reprise")


class SchedulerSide:
    def __init__(
        self,
        settings: Settings,
        client: Any,
        *,
        tokens_per_hash: int,
        produces: bool,
        consumes: bool,
        clock: Any = time.monotonic,
    ) -> None:
        """`tokens_per_hash`: one hash of the engine stands for so many tokens."""
        self.settings = settings
        self.client = client
        self.stats = RepriseStats()
        self.pins = Pins()
        self.hints = HintExecution(client, settings.hint_timeout_ms / 1000, self.stats)
        self._tokens_per_hash = tokens_per_hash
        self._produces = produces
        self._consumes = consumes
        self._clock = clock
        self._parts: list[Part] = []
        self._ranks = 0
        self._unit = 1  # tokens: what every group's blocks divide
        self._requests: dict[str, Tracked] = {}
        self._loads: list[Load] = []
        self._saves: list[Save] = []
        self._cancelled: set[str] = set()
        self._save_of: dict[int, str] = {}
        self._ranks_left: dict[int, int] = {}
        self._next_save = 0
        self._leftovers = lookup.Leftovers()
        self._variants = Variants()
        self._pausing = False  # a request waits, and is not to be asked for yet
        self._explainer = MissExplainer(client, settings.explain_interval_ms / 1000, logger)

    # ---- Start

    def learn_ranks(self, ranks: dict[tuple[int, int], RankParts]) -> None:
        """What every rank keeps. Ranks that hold the same K/V have equal parts: those are asked
        for once.
        """
        self._ranks = len(ranks)
        self._parts = list(dict.fromkeys(part for told in ranks.values() for part in told.parts))
        self._unit = int(np.lcm.reduce([part.group.block_tokens for part in self._parts]))
        for part in self._parts:
            logger.info("Reprise cache spec %s (%s)", part.spec.fingerprint.hex()[:16], part.spec)

    # ---- Questions

    def track(self, request: Any) -> Tracked:
        known = self._requests.get(request.request_id)
        if known is None:
            hints = read_hints(request, self.settings.session_key, self._tokens_per_hash)
            variant = self._variants.of(request)
            if variant is None:
                why = "the request's LoRA adapter cannot be read, so it is not cached"
                hints, variant = hints.uncached(why), Variant()
            known = Tracked(request, hints, variant, RequestOrders(hints.hints))
            for outcome in hints.refused():
                self.stats.add("hints", label=outcome)
            self._requests[request.request_id] = known
        return known

    def matched_tokens(self, request: Any, computed: int) -> tuple[int | None, bool]:
        """vLLM's get_num_new_matched_tokens. Never raises: an error here would end the engine."""
        tracked = self.track(request)
        self._begin_hints(tracked)
        try:
            return self._matched_tokens(tracked, computed)
        except Exception:
            logger.exception("asking for request %s failed: it is computed", request.request_id)
            tracked.hints = dataclasses.replace(tracked.hints, load=False)
            return 0, False

    def _matched_tokens(self, tracked: Tracked, computed: int) -> tuple[int | None, bool]:
        request = tracked.request
        limit = (request.num_tokens - 1) // self._unit * self._unit
        if not self._may_load(tracked):
            return 0, False
        now = self._clock()
        wait = tracked.begin_wait(limit, self._unit, now, self.settings.handoff_wait_ms / 1000)
        if limit - computed < self.settings.min_load_tokens:
            self._end_lookup(tracked)
            self._goes_on(tracked, computed, may_come=False)
            return 0, False
        asked = tracked.lookup
        if asked is not None and (
            asked.first_tokens > computed
            or (
                asked.outcome == "hit"
                and now - asked.asked_at > self.settings.lookup_hold_ms / 1000
            )
        ):
            asked.close()
            asked = None
        if asked is None:
            if not wait.over and wait.asks_at > now:
                self._pausing = True
                return None, False
            asked = tracked.lookup = self._ask(tracked, computed, limit, now)
        if asked.tokens is None:
            self._wait(asked)
        answered_before = asked.tokens is not None
        stored = asked.poll(self._clock(), limit, self._unit)
        if stored is None:
            return None, False
        if not answered_before:
            # Under weights of a later epoch nothing comes from another server.
            may_come = asked.outcome in ("hit", "miss") and not tracked.variant.epoch
            if self._goes_on(tracked, max(stored, computed), may_come):
                self._end_lookup(tracked)
                return None, False
            self._count_answer(tracked, asked)
        gain = stored - computed
        if gain < self.settings.min_load_tokens:
            asked.close()
            return 0, False
        return gain, True

    def _may_load(self, tracked: Tracked) -> bool:
        return (
            self._consumes
            and tracked.hints.load
            and bool(self._parts)
            and not tracked.request.skip_reading_prefix_cache
            and tracked.attempts_at != tracked.request.num_preemptions
        )

    def _goes_on(self, tracked: Tracked, found: int, may_come: bool) -> bool:
        """Whether the request waits for more tokens than were found; when it no longer does, that
        is counted.
        """
        wait = tracked.wait
        if wait is None or wait.over:
            return False
        if wait.goes_on(found, self._clock(), may_come):
            return True
        whole = wait.came >= wait.tokens
        self.stats.add("handoffs", label="whole" if whole else "short")
        if not whole:
            logger.warning(
                "Of request %s, which another server computed, %d of %d tokens were found in time "
                "(handoff_wait_ms = %d): the rest is computed",
                tracked.request.request_id,
                wait.came,
                wait.tokens,
                self.settings.handoff_wait_ms,
            )
        return False

    def _ask(self, tracked: Tracked, computed: int, limit: int, now: float) -> lookup.Lookup:
        hashes = tracked.request.block_hashes
        variant = tracked.variant
        return lookup.start(
            self.client,
            self._parts,
            lambda part: part.variant(variant.lora_digest, variant.epoch),
            lambda part: keys.as_array(self._keys(hashes, part.group.block_tokens, limit)),
            session=tracked.hints.session,
            first_tokens=computed,
            now=now,
            budget_s=self.settings.lookup_budget_ms / 1000,
            leftovers=self._leftovers,
        )

    def _wait(self, asked: lookup.Lookup) -> None:
        until = self._clock() + self.settings.lookup_wait_ms / 1000
        for operation in asked.operations:
            left = until - self._clock()
            if left <= 0:
                return
            operation.wait(left)

    def _count_answer(self, tracked: Tracked, asked: lookup.Lookup) -> None:
        self.stats.add("lookups", label=asked.outcome)
        if asked.outcome == "error":
            logger.warning(
                "Reprise did not answer for request %s, which is computed: %s",
                tracked.request.request_id,
                asked.errors()[0],
            )
        elif asked.outcome == "late":
            logger.warning(
                "Reprise answered for request %s later than lookup_budget_ms = %d: it is computed",
                tracked.request.request_id,
                self.settings.lookup_budget_ms,
            )
        elif asked.outcome == "miss":
            part = self._parts[0]
            packed = self._keys(
                tracked.request.block_hashes, part.group.block_tokens, tracked.request.num_tokens
            )
            self._explainer.consider(
                part.variant(tracked.variant.lora_digest, tracked.variant.epoch),
                keys.as_array(packed),
            )

    # ---- Loads

    def allocated(self, request: Any, blocks: Any, external: int) -> None:
        """vLLM's update_state_after_alloc."""
        tracked = self.track(request)
        if external <= 0:
            if not tracked.loading:
                self._end_lookup(tracked)  # what was found is not loaded: another connector has it
            return
        asked = tracked.lookup
        assert asked is not None and asked.tokens, "a load without an answer"
        end = asked.tokens
        groups = []
        for part in {part.group.index: part for part in self._parts}.values():
            group, tokens = part.group, part.group.block_tokens
            chosen = blocks.blocks[group.index][: end // tokens]
            first = (end - external) // tokens
            if group.window_tokens:  # vLLM leaves a null block wherever the window does not reach
                first = next(
                    (i for i, b in enumerate(chosen) if i >= first and not b.is_null), len(chosen)
                )
            ids = tuple(block.block_id for block in chosen[first:])
            groups.append(
                GroupBlocks(group.index, self._keys(request.block_hashes, tokens, end), first, ids)
            )
        timeout = self.settings.load_timeout_ms / 1000 + self._link_time(groups)
        self._loads.append(
            Load(request.request_id, tracked.hints.session, tracked.variant, tuple(groups), timeout)
        )
        tracked.loading = True
        tracked.attempts_at = request.num_preemptions
        tracked.loaded_tokens = external
        tracked.promised_tokens = end
        # The first save sends the whole chain: its home may be another shard than the load's.
        tracked.saved_blocks = tracked.due = 0

    def load_ended(self, request_ids: Any) -> None:
        """The workers are done with these loads: the leases end."""
        for request_id in request_ids or ():
            tracked = self._requests.get(request_id)
            if tracked is not None:
                tracked.loading = False
                self._end_lookup(tracked)
                self._correct_counts(tracked)
                if tracked.request.is_finished():
                    del self._requests[request_id]

    @staticmethod
    def _correct_counts(tracked: Tracked) -> None:
        """vLLM counts cached tokens when a load begins, and has cut `num_computed_tokens` to what
        came by now: users are told what came."""
        request, missing = tracked.request, tracked.promised_tokens
        missing -= min(request.num_computed_tokens, tracked.promised_tokens)
        tracked.loaded_tokens = max(0, tracked.loaded_tokens - missing)
        stats = request.prefill_stats
        if missing and stats is not None:
            local = min(stats.num_local_cached_tokens, request.num_computed_tokens)
            external = max(0, stats.num_external_cached_tokens - missing)
            stats.set(stats.num_prompt_tokens, local, external)

    def _end_lookup(self, tracked: Tracked) -> None:
        if tracked.lookup is not None:
            tracked.lookup.close()
            tracked.lookup = None

    # ---- Saves

    def plan_step(self, scheduler_output: Any) -> StepMetadata:
        """vLLM's build_connector_meta: everything that was planned since the last step, and this
        step's saves.
        """
        self._leftovers.sweep()
        self.hints.sweep()
        state = scheduler_output.kv_connector_block_state
        for request_id, scheduled in scheduler_output.num_scheduled_tokens.items():
            tracked = self._requests.get(request_id)
            # Nearly every request of nearly every step ends here: one comparison.
            if tracked is None or tracked.request.num_computed_tokens + scheduled < tracked.due:
                continue
            request = tracked.request
            done = min(request.num_computed_tokens + scheduled, request.num_tokens)
            decoding = scheduled == 1 and request.num_output_tokens > 0
            least = max(1, self.settings.save_every_blocks if decoding else 1)
            if self._new_blocks(tracked, done) >= least:
                block_ids = state.get_block_ids(request_id) if state is not None else None
                if block_ids is not None:
                    self._plan_save(tracked, done, block_ids)
            tracked.due = (tracked.saved_blocks + least) * self._unit
        idle = not scheduler_output.num_scheduled_tokens
        metadata = StepMetadata(self._loads, self._saves, self._cancelled, idle, self._pausing)
        self._loads, self._saves, self._cancelled = [], [], set()
        self._pausing = False
        return metadata

    def _new_blocks(self, tracked: Tracked, done_tokens: int) -> int:
        if not self._produces or not tracked.hints.save or not self._parts:
            return 0
        end = min(done_tokens, len(tracked.request.block_hashes) * self._tokens_per_hash)
        if tracked.hints.save_tokens is not None:
            end = min(end, tracked.hints.save_tokens)
        return end // self._unit - tracked.saved_blocks

    def _plan_save(
        self, tracked: Tracked, done_tokens: int, block_ids: tuple[list[int], ...]
    ) -> None:
        end = (tracked.saved_blocks + self._new_blocks(tracked, done_tokens)) * self._unit
        start = tracked.saved_blocks * self._unit
        groups = []
        pinned: list[int] = []
        for group in {part.group.index: part.group for part in self._parts}.values():
            ids = block_ids[group.index][: end // group.block_tokens]
            first = start // group.block_tokens
            # A null block (id 0) is one that the window left behind: what is before it was saved,
            # or is lost.
            first = max([first] + [i + 1 for i in range(first, len(ids)) if ids[i] == 0])
            chosen = tuple(ids[first:])
            if not chosen:
                continue
            pinned += chosen
            packed = self._keys(tracked.request.block_hashes, group.block_tokens, end)
            groups.append(GroupBlocks(group.index, packed, first, chosen))
        if not groups:
            return
        if not self._has_room(len(pinned)):
            self.stats.add("skipped_saves")
            return  # tried again with the next blocks
        tokens = None
        if self.settings.send_tokens:
            tokens = np.asarray(tracked.request.all_token_ids[:end], dtype=np.uint32).tobytes()
        save_id, self._next_save = self._next_save, self._next_save + 1
        self.pins.hold(save_id, pinned)
        self.stats.add("saves", label="begun")
        self._save_of[save_id] = tracked.request.request_id
        self._ranks_left[save_id] = self._ranks
        self._saves.append(
            Save(
                save_id,
                tracked.hints.session,
                tracked.variant,
                tuple(groups),
                tokens,
                self.settings.save_timeout_ms / 1000 + self._link_time(groups),
            )
        )
        tracked.submitted_blocks += end // self._unit - tracked.saved_blocks
        tracked.saved_blocks = end // self._unit

    def _has_room(self, blocks: int) -> bool:
        if not self._save_of:
            return True  # however long one prompt is, it can be saved alone
        capacity = self.pins.capacity(self.settings.save_pin_fraction)
        few = len(self._save_of) < self.settings.saves_in_flight_max
        return few and self.pins.blocks + blocks <= capacity

    def worker_reported(self, report: WorkerReport) -> None:
        for save_id, outcome in report.saves.items():
            tracked = self._requests.get(self._save_of.get(save_id, ""))
            if not outcome.complete and tracked is not None:
                # The next save sends the whole chain: what is there is not sent again.
                tracked.saved_blocks = tracked.due = 0
            self._ranks_left[save_id] -= outcome.ranks
            if self._ranks_left[save_id] <= 0:
                del self._ranks_left[save_id]
                self._save_of.pop(save_id, None)
                self.pins.release(save_id)
                self.hints.saved(save_id)
                self.stats.add("saves", label="ended")

    @property
    def busy(self) -> bool:
        """Steps are needed for work that no request waits for."""
        return (
            bool(self._save_of)
            or bool(self._saves)
            or bool(self._cancelled)
            or bool(self._leftovers)
            or self.hints.waiting
        )

    # ---- The end of a request

    def finished(self, request: Any, block_ids: tuple[list[int], ...]) -> dict[str, Any] | None:
        """vLLM's request_finished_all_groups: the last blocks are saved, leases end. Never holds
        the request.
        """
        tracked = self._requests.get(request.request_id)
        if tracked is None:
            return None
        # The last token's K/V was never computed.
        done = min(request.num_computed_tokens, request.num_tokens - 1)
        if not tracked.loading and self._new_blocks(tracked, done) > 0:
            self._plan_save(tracked, done, block_ids)
        if tracked.loading:
            self._cancelled.add(request.request_id)  # its lease ends when the workers have let go
        else:
            self._end_lookup(tracked)
            del self._requests[request.request_id]
        if not tracked.hints.asked:
            return None
        self._end_hints(tracked, done)
        return tracked.answer(self._unit, self.settings.handoff_wait_ms > 0)

    def forget_all(self) -> None:
        """The engine's weights may be others from now on: what it stored before is not its own
        any more.
        """
        self._variants.replace_weights()
        for tracked in self._requests.values():
            tracked.variant = dataclasses.replace(tracked.variant, epoch=self._variants.epoch)
            if not tracked.loading:
                self._end_lookup(tracked)

    def close(self) -> None:
        for tracked in self._requests.values():
            self._end_lookup(tracked)
        self._requests.clear()
        self.hints.close()

    # ---- Hints

    def _begin_hints(self, tracked: Tracked) -> None:
        prompt_tokens = tracked.request.num_prompt_tokens
        tracked.orders.begin(self.hints, self._chain_of(tracked), prompt_tokens)

    def _end_hints(self, tracked: Tracked, done: int) -> None:
        self._begin_hints(tracked)  # of a request that ended before it was scheduled
        self.hints.sweep()
        name = tracked.request.request_id
        saves = [save_id for save_id, request_id in self._save_of.items() if request_id == name]
        tracked.orders.end(self.hints, self._chain_of(tracked), done, saves)

    def _chain_of(self, tracked: Tracked) -> ChainOf:
        hashes, variant = tracked.request.block_hashes, tracked.variant

        def chain_of(tokens: int) -> Chain:
            end = min(tokens, len(hashes) * self._tokens_per_hash) // self._unit * self._unit
            return Chain.of(
                self._parts,
                lambda part: part.variant(variant.lora_digest, variant.epoch),
                lambda block_tokens: keys.as_array(self._keys(hashes, block_tokens, end)),
                space=variant,
                session=tracked.hints.session,
                tokens=end,
                unit=self._unit,
            )

        return chain_of

    # ---- Details

    def _link_time(self, groups: list[GroupBlocks]) -> float:
        """Seconds that the bytes of these blocks, on all ranks, may take."""
        blocks = {one.group: len(one.block_ids) for one in groups}
        nbytes = sum(
            part.spec.stored_bytes * blocks.get(part.group.index, 0) for part in self._parts
        )
        return transfer_s(nbytes)

    def _keys(self, hashes: Any, block_tokens: int, tokens: int) -> bytes:
        return keys.keys_of(hashes, block_tokens // self._tokens_per_hash, tokens // block_tokens)
