"""What one request asked of the store, when it is asked, and what is told of it.

Claims are placed when the prompt's keys are known, and again when the request ends if they cover
its answer: their time runs from there, and the next turn finds both. What is to go goes at the end.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable
from typing import Any

from .hint_execution import Chain, HintExecution, Order, Outcome, worst
from .hint_payloads import CLAIMS, Wish
from .hints import Asked

#: The chain of a request's first tokens, rounded down to whole blocks.
ChainOf = Callable[[int], Chain]

UNANSWERED = "the store has not answered yet"
COUNTED = ("applied", "deferred", "clipped", "missing")  # the store's own: it has told the blocks

logger = logging.getLogger("vllm.reprise")


@dataclasses.dataclass
class Progress:
    """How far one wish is."""

    wish: Wish
    orders: list[Order] = dataclasses.field(default_factory=list)
    settled: Outcome | None = None  # where there was nothing to ask the store

    def outcome(self) -> Outcome:
        """What is known of it now."""
        if self.settled is not None:
            return self.settled
        if not self.orders:
            return Outcome("accepted", reason="the store was not asked yet")
        last = self.orders[-1]
        if last.outcome is not None:
            return last.outcome
        if last.replaced:
            return Outcome("accepted", reason="a later claim of that name took its place")
        if last.saves:
            why = "it is done once what the request computed is stored"
            return Outcome("accepted", reason=why)
        first = self.orders[0].outcome
        if first is None:
            return Outcome("accepted", reason=UNANSWERED)
        if first.outcome in ("applied", "deferred", "clipped"):
            return dataclasses.replace(
                first,
                outcome=worst((first.outcome, "deferred")),
                reason=f"of the prompt; the claim was placed again with the answer: {UNANSWERED}",
            )
        return Outcome("accepted", reason=f"{UNANSWERED}; before: {first.reason}")


class RequestOrders:
    """Of one request. Nothing here raises: an error of ours is logged, and costs a hint alone."""

    def __init__(self, hints: tuple[Asked, ...] = ()) -> None:
        self._hints = [(one, [Progress(wish) for wish in one.reading.wishes]) for one in hints]
        self._prompt_tokens: int | None = None

    def begin(self, execution: HintExecution, chain_of: ChainOf, prompt_tokens: int) -> None:
        """The prompt's keys are known: claims and releases, once."""
        if self._prompt_tokens is not None:
            return
        self._prompt_tokens = prompt_tokens
        for progress in self._progresses():
            if progress.wish.verb == "release":
                self._place(progress, execution, lambda: chain_of(0))
            elif progress.wish.verb in CLAIMS:
                self._claim(progress, execution, chain_of, prompt_tokens)

    def end(
        self, execution: HintExecution, chain_of: ChainOf, tokens: int, saves: Iterable[int]
    ) -> None:
        """The request has ended with the K/V of `tokens` computed; `saves` of it are under way.
        Call `begin` before, and this once.
        """
        prompt_tokens = self._prompt_tokens or 0
        tokens = max(tokens, prompt_tokens)
        for progress in self._progresses():
            wish = progress.wish
            if wish.verb in CLAIMS and wish.covers_output:
                if wish.end_token is None or wish.end_token > prompt_tokens:
                    self._claim(progress, execution, chain_of, tokens)
        before = [order for progress in self._progresses() for order in progress.orders]
        for progress in self._progresses():
            if progress.wish.verb in ("evict", "demote"):
                # What is stored later would stay where it is: a demotion comes after the saves.
                waits = saves if progress.wish.verb == "demote" else ()
                self._place(progress, execution, lambda: chain_of(tokens), before, waits)

    def outcomes(self) -> list[dict[str, Any]]:
        """What the answer tells, each in the order in which it was asked for."""
        return [_told(asked, progresses) for asked, progresses in self._hints]

    def _progresses(self) -> list[Progress]:
        return [progress for _, progresses in self._hints for progress in progresses]

    def _claim(
        self, progress: Progress, execution: HintExecution, chain_of: ChainOf, tokens: int
    ) -> None:
        end = progress.wish.end_token
        covered = tokens if end is None else min(tokens, end)
        self._place(progress, execution, lambda: chain_of(covered))

    @staticmethod
    def _place(
        progress: Progress,
        execution: HintExecution,
        chain: Callable[[], Chain],
        after: Iterable[Order] = (),
        saves: Iterable[int] = (),
    ) -> None:
        try:
            about = chain()
            why = _about_nothing(progress.wish, about)
            if why:
                progress.settled = Outcome("missing", reason=why)
                return
            progress.settled = None
            progress.orders.append(execution.place(progress.wish, about, after, saves))
        except Exception as error:
            logger.exception("the hint %s failed", progress.wish)
            progress.settled = Outcome("failed", reason=str(error))


def _about_nothing(wish: Wish, chain: Chain) -> str:
    """Why there is nothing in the chain that the wish is about; "" where there is."""
    if wish.verb in CLAIMS and chain.tokens < chain.unit:
        return f"there is no whole block of {chain.unit} tokens"
    if wish.verb in ("evict", "demote") and wish.first_token > chain.tokens - chain.unit:
        return f"no whole block begins at token {wish.first_token} or behind it"
    return ""


def _told(asked: Asked, progresses: list[Progress]) -> dict[str, Any]:
    reading = asked.reading
    answer: dict[str, Any] = {**asked.about, "outcome": reading.outcome}
    if not progresses:
        return answer | ({"reason": reading.reason} if reading.reason else {})
    known = [progress.outcome() for progress in progresses]
    before = [reading.outcome] if reading.outcome else []
    answer["outcome"] = worst([*before, *(one.outcome for one in known)])
    claims = [progress.wish.claim_id for progress in progresses if progress.wish.claim_id]
    if claims:
        answer["claims"] = claims
    counted = [one.blocks for one in known if one.outcome in COUNTED]
    if counted:
        answer["blocks"] = max(counted)
    times = [one.ttl for one in known if one.ttl > 0]
    if times:
        answer["ttl_seconds"] = min(times)
    reasons = dict.fromkeys([reading.reason, *(one.reason for one in known)])
    why = "; ".join(reason for reason in reasons if reason)
    return answer | ({"reason": why} if why else {})
