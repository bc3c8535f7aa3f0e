"""What a request says about its K/V, and what became of it.

vLLM hands an out-of-tree connector `session_id`, `kv_transfer_params` and `kv_hints` (an envelope
of actions whose payload schemas are not agreed on yet). Each action gets an honest outcome: what
the store does not know is `unsupported`, never silently accepted.
"""

from __future__ import annotations

import dataclasses
from typing import Any

SESSION_BYTES_MAX = 128
HINTS_MAX = 16  # actions answered per request


@dataclasses.dataclass(frozen=True)
class RequestHints:
    """`asked`: the request carried something for us, so it is owed an answer."""

    session: str | None
    load: bool
    save: bool
    asked: bool
    outcomes: tuple[dict[str, str], ...]


def read_hints(request: Any, session_key: str) -> RequestHints:
    """From a vLLM request. Malformed members are reported as rejected; a request never fails
    over a hint.
    """
    params = request.kv_transfer_params
    params = params if isinstance(params, dict) else {}
    sampling = request.sampling_params
    extra = (getattr(sampling, "extra_args", None) or {}) if sampling is not None else {}
    outcomes: list[dict[str, str]] = []
    session = request.session_id or params.get(session_key) or extra.get(session_key)
    if session is not None and (
        not isinstance(session, str) or len(session.encode()) > SESSION_BYTES_MAX
    ):
        outcomes.append(
            {
                "action_type": "session",
                "outcome": "rejected",
                "reason": f"a session is text of at most {SESSION_BYTES_MAX} bytes",
            }
        )
        session = None
    elif session:
        outcomes.append({"action_type": "session", "outcome": "accepted"})
    ours = params.get("reprise")
    switches = ours if isinstance(ours, dict) else {}
    load, save = (_switch(switches, name, outcomes) for name in ("load", "save"))
    envelope = getattr(request, "kv_hints", None)
    outcomes += [
        _outcome(action)
        for action in (envelope.actions if envelope is not None else [])[:HINTS_MAX]
    ]
    return RequestHints(
        session or None, load, save, bool(params) or envelope is not None, tuple(outcomes)
    )


def _switch(switches: dict[str, Any], name: str, outcomes: list[dict[str, str]]) -> bool:
    value = switches.get(name, True)
    if not isinstance(value, bool):
        outcomes.append({"action_type": name, "outcome": "rejected", "reason": "true or false"})
        return True
    return value


def _outcome(action: Any) -> dict[str, str]:
    kind = str(action.action_type)
    answer = {"action_id": str(action.action_id), "action_type": kind}
    if kind in ("kv.prefetch", "prefetch", "kv.fetch") and not action.payload.get("block_hashes"):
        # The prefix of the request itself: that is what every lookup does.
        return answer | {
            "outcome": "accepted",
            "reason": "the request's own prefix is looked up in any case",
        }
    if kind in (
        "kv.retain",
        "kv.pin",
        "kv.evict",
        "vllm.set_priority",
        "kv.demote",
        "kv.share",
        "kv.fetch",
    ):
        return answer | {
            "outcome": "unsupported",
            "reason": "the store takes no priority, time to live or hash list",
        }
    return answer | {"outcome": "unsupported", "reason": "unknown action"}
