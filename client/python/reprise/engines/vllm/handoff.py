"""Disaggregated serving: one server computes a prompt, another one answers it.

vLLM's proxies send a request to the first server with `do_remote_decode` in its kv_transfer_params,
and hand what the answer carries there on to the second one. The first tells how many tokens of the
prompt it stores; its answer comes before the last of them is stored, so the second one waits for
them, within bounds.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from . import hint_fields as fields

#: Between two questions of one request that waits: at least so long, and an eighth of the time that
#: it waited. Many may wait for a server that is gone; each question costs the engine's steps time.
ASK_AGAIN_S = 0.005
ASK_AGAIN_PART = 1 / 8

#: For the answer, of a request that was not asked for.
NOT_LOOKED_FOR = {
    "action_type": "handoff",
    "outcome": "accepted",
    "reason": "it was not looked for: this server loads nothing for this request",
}


@dataclasses.dataclass(frozen=True)
class Handoff:
    """What a request says of the other server's part in it."""

    computes: bool = False  # this server is to say what it stores: another one answers
    tokens: int = 0  # of the prompt, which another server computed and stores; 0: none did


def read(params: fields.Payload) -> Handoff:
    """From a request's kv_transfer_params. Raises Malformed."""
    computes = params.get("do_remote_decode") is True
    ours = params.get("reprise")
    given = ours.get("handoff") if isinstance(ours, dict) else None
    if given is None:
        return Handoff(computes)
    payload = fields.mapping("handoff", given)
    fields.known_only("handoff", payload, ("tokens",))
    return Handoff(computes, fields.whole(payload, "tokens"))


def told(tokens: int) -> dict[str, Any]:
    """What the first server's answer says for the second: members of kv_transfer_params, and of
    "reprise" in them. vLLM adds how many tokens the first one had cached, for the second's usage.
    """
    return {
        "do_remote_prefill": True,
        "do_remote_decode": False,
        "reprise": {"handoff": {"tokens": tokens}},
    }


class Wait:
    """Of one request, for what another server stores. Ends once."""

    def __init__(self, tokens: int, began: float, wait_s: float) -> None:
        """`tokens`: those that this server can load of it."""
        self.tokens = tokens
        self.came = 0
        self.over = tokens <= 0
        self.asks_at = self._began = began
        self._until = began + wait_s

    def goes_on(self, found: int, now: float, may_come: bool) -> bool:
        """Whether to ask again, at `asks_at`, when so many tokens were found. `may_come`: there is
        a reason to wait for more; there is none when the cache is down.
        """
        if self.over:
            return False
        self.came = found
        self.over = self.came >= self.tokens or now >= self._until or not may_come
        pause = max(ASK_AGAIN_S, (now - self._began) * ASK_AGAIN_PART)
        self.asks_at = min(now + pause, self._until)
        return not self.over

    def outcome(self) -> dict[str, Any]:
        """For the answer, beside those of hints."""
        if self.came >= self.tokens:
            return {"action_type": "handoff", "outcome": "applied"}
        why = f"{self.came} of {self.tokens} tokens were found in time: the rest was computed"
        return {"action_type": "handoff", "outcome": "missing", "reason": why}
