"""Requests that say something of their K/V, as vLLM hands them to a connector, and what is read."""

from __future__ import annotations

import types
from typing import Any

from reprise.engines.vllm.hint_payloads import Reading, Wish
from reprise.engines.vllm.hints import RequestHints, read_hints

BLOCK = 32  # tokens


def request(
    params: Any = None,
    actions: Any = None,
    agent: Any = None,
    session: Any = "s",
    name: str = "r1",
) -> Any:
    """As vLLM hands it to a connector."""
    extra = {} if agent is None else {"agent_hint": agent}
    envelope = None if actions is None else types.SimpleNamespace(actions=actions)
    return types.SimpleNamespace(
        request_id=name,
        session_id=session,
        kv_transfer_params=params,
        sampling_params=types.SimpleNamespace(extra_args=extra),
        kv_hints=envelope,
    )


def action(kind: Any, payload: Any, version: str = "1.0") -> Any:
    return types.SimpleNamespace(
        action_id="a1", action_type=kind, action_version=version, payload=payload
    )


def read(**of_request: Any) -> RequestHints:
    return read_hints(request(**of_request), "user", BLOCK)


def readings(**of_request: Any) -> list[Reading]:
    """Without the one about the session."""
    hints = read(**of_request).hints
    return [one.reading for one in hints if one.about["action_type"] != "session"]


def retain(ttl: float, priority: int = 50, **more: Any) -> Wish:
    return Wish("retain", more.pop("claim_id", "session:s"), ttl, priority, **more)


def ours(**members: Any) -> dict[str, Any]:
    return {"params": {"reprise": members}}


def routed(kind: str, **payload: Any) -> dict[str, Any]:
    return {"actions": [action(kind, payload)]}


def directives(*listed: dict[str, Any], **more: Any) -> dict[str, Any]:
    return routed("kv.retain", directives=list(listed), **more)
