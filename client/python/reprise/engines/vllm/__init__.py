"""Reprise behind vLLM: a KV connector, and a tier for vLLM's own offloading framework. Nothing of
vLLM is patched.

    --kv-transfer-config '{
        "kv_connector": "RepriseConnector", "kv_connector_module_path": "reprise.engines.vllm",
        "kv_role": "kv_both", "kv_load_failure_policy": "recompute",
        "kv_connector_extra_config": {"router": "HOST:PORT"}}'

vLLM finds both classes by attribute: `RepriseConnector`, and `reprise` for `{"type": "reprise",
"module_path": ...}`. They are imported when asked for, because this needs vLLM and the rest of the
package does not.
"""

from __future__ import annotations

from typing import Any

__all__ = ["RepriseConnector", "RepriseTier"]


def __getattr__(name: str) -> Any:
    if name not in ("RepriseConnector", "RepriseTier", "reprise"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import versions

    versions.check()
    if name == "RepriseConnector":
        from . import nesting
        from .connector import RepriseConnector

        nesting.register(name)
        return RepriseConnector
    from .offload_tier import RepriseTier

    return RepriseTier
