"""Being one of several connectors: a part of vLLM's MultiConnector."""

# vLLM is there when this is imported, not when types are checked.
# mypy: disable-error-code="import-not-found,misc,unused-ignore"

from __future__ import annotations

import contextlib
import sys

from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1


def register(name: str) -> None:
    """MultiConnector reads what its parts have counted by their names alone, in a process that made
    none of them, and the server ends where it does not know one.
    """
    with contextlib.suppress(ValueError):  # it is registered
        KVConnectorFactory.register_connector(name, __package__, name)


def is_part_of_another(connector: object) -> bool:
    """Called while `connector` is made. Parts get a configuration like any other, so who makes them
    is all there is to see.
    """
    frame = sys._getframe(1)
    while frame is not None:
        maker = frame.f_locals.get("self")
        if isinstance(maker, KVConnectorBase_V1) and maker is not connector:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False
