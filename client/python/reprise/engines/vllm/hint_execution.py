"""Hints on their way to the store. Nothing here waits and nothing raises: a hint that the store
does not take is a hint that failed.

An order is one wish, asked about every part of every rank at once. Invariants: of the orders about
one claim at most one is with the store and at most one waits behind it, so that the last one placed
is the last one there; an order that was begun is kept until its operations are done.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from reprise import CacheSpec, Demote, Evict, Hint, Pin, Release, Retain

from .hint_payloads import Wish

if TYPE_CHECKING:  # they need the engine, and orders do not
    from .metrics import RepriseStats
    from .spec_from_engine import Part

CALLS_MAX = 256  # under way and waiting
# From best to worst: the worst of several is what is told of all.
RANKING = ("applied", "deferred", "clipped", "missing", "accepted", "failed")

logger = logging.getLogger("vllm.reprise")


@dataclasses.dataclass(frozen=True)
class Target:
    """What one part knows of a chain."""

    spec: CacheSpec
    block_tokens: int
    keys: np.ndarray


@dataclasses.dataclass(frozen=True)
class Chain:
    """The first `tokens` of a request, whole blocks of `unit` tokens, as each part knows them."""

    space: Hashable  # within it one name is one claim
    session: str | None
    tokens: int
    unit: int
    targets: tuple[Target, ...]

    @classmethod
    def of(
        cls,
        parts: Iterable[Part],
        spec_of: Callable[[Part], CacheSpec],
        keys_of: Callable[[int], np.ndarray],
        *,
        space: Hashable,
        session: str | None,
        tokens: int,
        unit: int,
    ) -> Chain:
        """Of the first `tokens`; `keys_of` gives their keys in blocks of so many tokens each."""
        parts = list(parts)
        packed = {size: keys_of(size) for size in {part.group.block_tokens for part in parts}}
        targets = [
            Target(spec_of(part), part.group.block_tokens, packed[part.group.block_tokens])
            for part in parts
        ]
        return cls(space, session, tokens, unit, tuple(targets))


@dataclasses.dataclass(frozen=True)
class Outcome:
    """`blocks` counts units: what is held from the first on, dropped or moved. `ttl` is seconds."""

    outcome: str
    blocks: int = 0
    ttl: float = 0.0
    reason: str = ""


def worst(outcomes: Iterable[str]) -> str:
    """The one that is told of all; "applied" of none."""
    return max(outcomes, key=RANKING.index, default="applied")


class Order:
    """One wish about one chain. `outcome` is None until every part has answered."""

    def __init__(self, wish: Wish, chain: Chain, after: Iterable[Order], saves: set[int]) -> None:
        self.wish = wish
        self.chain = chain
        self.outcome: Outcome | None = None
        self.replaced = False  # by a later one, before the store was asked
        self.begun = False
        self.after = [order for order in after if not order.over]
        self.saves = saves  # those that have to end before
        self.operations: list[Any] = []
        self.errors: list[str] = []  # of parts that could not be asked

    @property
    def over(self) -> bool:
        return self.outcome is not None or self.replaced

    @property
    def calls(self) -> int:
        return len(self.chain.targets)

    def may_begin(self) -> bool:
        return not self.saves and all(order.over for order in self.after)

    def hint(self, block_tokens: int) -> Hint:
        """The wish as the client takes it, for a part with blocks of so many tokens."""
        wish, unit = self.wish, self.chain.unit
        if wish.verb == "retain":
            return Retain(wish.claim_id, wish.ttl, wish.priority)
        if wish.verb == "pin":
            return Pin(wish.claim_id, wish.ttl)
        if wish.verb == "release":
            return Release(wish.claim_id)
        # The block that holds the first token may hold some before it, which stay.
        first_token = -(-wish.first_token // unit) * unit
        verb = Evict if wish.verb == "evict" else Demote
        return verb(first_token // block_tokens)

    def merged(self, answers: list[Any]) -> Outcome:
        """What all parts said, as one: a prefix counts only where every part has it."""
        unknown = [str(answer.error) for answer in answers if not answer.shards]
        if self.errors or unknown:
            return Outcome("failed", reason=(self.errors + unknown)[0])
        outcome = worst(answer.outcome for answer in answers)
        sizes = [target.block_tokens for target in self.chain.targets]
        why = [a.why for a in answers if a.why and a.outcome == outcome][:1]
        why += [f"not every shard answered: {a.error}" for a in answers if a.error][:1]
        return Outcome(
            outcome,
            min(a.blocks * size for a, size in zip(answers, sizes)) // self.chain.unit,
            min(answer.ttl for answer in answers),
            "; ".join(why),
        )


class HintExecution:
    """All orders of one scheduler side. Used by its thread alone."""

    def __init__(self, client: Any, timeout_s: float, stats: RepriseStats) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._stats = stats
        self._orders: list[Order] = []  # neither over nor forgotten
        self._last: dict[tuple[Hashable, str], Order] = {}  # of each claim, as long as not over

    def place(
        self, wish: Wish, chain: Chain, after: Iterable[Order] = (), saves: Iterable[int] = ()
    ) -> Order:
        """Asks the store as soon as the orders `after` are over and the saves have ended."""
        order = Order(wish, chain, after, set(saves))
        claim = (chain.space, wish.claim_id)
        former = self._last.get(claim) if wish.claim_id else None
        if former is not None and not former.over:
            if former.begun:
                order.after.append(former)
            else:
                order.after += former.after
                former.replaced = True
                self._orders.remove(former)
        under_way = sum(one.calls for one in self._orders)
        if not chain.targets:
            self._settle(order, Outcome("failed", reason="this engine has no cache spec yet"))
        elif self._orders and under_way + order.calls > CALLS_MAX:
            self._settle(order, Outcome("failed", reason=f"{under_way} hints are under way"))
        else:
            self._orders.append(order)
            if wish.claim_id:
                self._last[claim] = order
            self._advance(order)
        return order

    def saved(self, save_id: int) -> None:
        """That save has ended."""
        for order in self._orders:
            order.saves.discard(save_id)

    def sweep(self) -> None:
        """Takes the answers that came, and asks what waited for them."""
        for order in list(self._orders):  # in the order in which they were placed
            self._advance(order)
        self._orders = [order for order in self._orders if not order.over]

    @property
    def waiting(self) -> bool:
        """Whether an order is still to be begun, for which steps are needed."""
        return any(not order.begun for order in self._orders)

    def close(self) -> None:
        """Cancels what is under way and forgets what waits."""
        operations = [operation for order in self._orders for operation in order.operations]
        self._orders = []
        self._last = {}
        for end in ("cancel", "close"):
            for operation in operations:
                try:
                    getattr(operation, end)()
                except Exception:
                    logger.exception("a hint could not be ended")

    def _advance(self, order: Order) -> None:
        if order.over:  # answered before it was swept: it stays among the orders until then
            return
        try:
            if not order.begun and order.may_begin():
                self._begin(order)
            if not order.begun or not all(one.done() for one in order.operations):
                return
            outcome = order.merged([operation.result() for operation in order.operations])
        except Exception as error:
            logger.exception("the hint %s failed", order.wish)
            outcome = Outcome("failed", reason=str(error))
        self._settle(order, outcome)

    def _begin(self, order: Order) -> None:
        order.begun, order.after = True, []
        for target in order.chain.targets:
            try:
                order.operations.append(
                    self._client.hint_async(
                        target.spec,
                        None if order.wish.verb == "release" else target.keys,
                        order.hint(target.block_tokens),
                        session=order.chain.session,
                        timeout=self._timeout_s,
                    )
                )
            except Exception as error:  # a refused call is that hint's affair, not the engine's
                order.errors.append(str(error))

    def _settle(self, order: Order, outcome: Outcome) -> None:
        order.outcome = outcome
        order.operations = []
        claim = (order.chain.space, order.wish.claim_id)
        if self._last.get(claim) is order:
            del self._last[claim]
        self._stats.add("hints", label=outcome.outcome)
        if outcome.outcome == "failed":
            logger.warning(
                "Reprise did not take the hint %s %s: %s",
                order.wish.verb,
                order.wish.claim_id,
                outcome.reason,
            )
