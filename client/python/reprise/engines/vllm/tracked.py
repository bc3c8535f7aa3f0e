"""What the scheduler side knows of one unfinished request."""

from __future__ import annotations

import dataclasses
from typing import Any

from . import handoff, lookup
from .hints import RequestHints
from .messages import Variant
from .request_orders import RequestOrders


@dataclasses.dataclass
class Tracked:
    request: Any
    hints: RequestHints
    variant: Variant
    orders: RequestOrders
    lookup: lookup.Lookup | None = None
    wait: handoff.Wait | None = None  # for what another server stores
    loading: bool = False
    attempts_at: int = -1  # preemptions when it last loaded: a load is tried once per admission
    saved_blocks: int = 0  # of the unit's blocks, handed to a save
    due: int = 0  # no save before so many tokens are computed
    loaded_tokens: int = 0
    promised_tokens: int = 0  # local and loaded, when the load began
    submitted_blocks: int = 0

    def begin_wait(self, limit: int, unit: int, now: float, wait_s: float) -> handoff.Wait:
        """Its one wait; begins with the first call. `limit`: tokens that may be loaded of it."""
        if self.wait is None:
            tokens = min(self.hints.handoff.tokens, limit) // unit * unit
            self.wait = handoff.Wait(tokens, now, wait_s)
        return self.wait

    def answer(self, unit: int, hands_over: bool) -> dict[str, Any]:
        """What is told of it at its end, in kv_transfer_params; `unit` tokens are a block.
        `hands_over`: this server's settings let it.
        """
        told: dict[str, Any] = {"reprise": {}}
        stored = min(self.saved_blocks * unit, self.request.num_prompt_tokens)
        # What weights of a later epoch computed no other server finds.
        found_by_others = stored > 0 and not self.variant.epoch
        if self.hints.handoff.computes and hands_over and found_by_others:
            told = handoff.told(stored)
        outcomes = self.orders.outcomes()
        if self.hints.handoff.tokens > 0:
            outcomes.append(self.wait.outcome() if self.wait else dict(handoff.NOT_LOOKED_FOR))
        told["reprise"] |= {
            "session": self.hints.session,
            "loaded_tokens": self.loaded_tokens,
            "saved_tokens": self.submitted_blocks * unit,
            "outcomes": outcomes,
        }
        return told
