"""Whether this connector is one of several. vLLM's MultiConnector gives its parts a configuration
like any other, so who makes them is all there is to see.
"""

# vLLM is there when this is imported, not when types are checked.
# mypy: disable-error-code="import-not-found,misc,unused-ignore"

from __future__ import annotations

import sys

from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1


def is_part_of_another(connector: object) -> bool:
    """Called while `connector` is made."""
    frame = sys._getframe(1)
    while frame is not None:
        maker = frame.f_locals.get("self")
        if isinstance(maker, KVConnectorBase_V1) and maker is not connector:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False
