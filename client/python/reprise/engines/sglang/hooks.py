"""What Reprise has to hear from SGLang's scheduler beside the storage interface, through SGLang's
own hook registry. Hooks stay for the life of the process, so each is made once.
"""

# SGLang is there when this is imported, not when types are checked.
# mypy: disable-error-code="import-not-found,misc,unused-ignore"

from __future__ import annotations

import functools
import weakref
from typing import Any, Protocol

from sglang.srt.plugins.hook_registry import HookRegistry, HookType

# Called after every update, from disk, tensors, another process or checkpoint engine, on each rank.
WEIGHTS_UPDATED = (
    "sglang.srt.managers.scheduler_components.weight_updater."
    "SchedulerWeightUpdaterManager.record_weight_version_after_update"
)
PREFIX_OF_QUESTION = (
    "sglang.srt.mem_cache.unified_radix_cache.UnifiedRadixCache.get_prefix_hash_values"
)


class Listener(Protocol):
    def updated(self, version: str | None) -> None: ...


@functools.cache
def weight_listeners() -> weakref.WeakSet[Any]:
    """Those in it (`Listener`) hear of every update of the weights, and of the version it named."""
    listeners: weakref.WeakSet[Any] = weakref.WeakSet()

    def updated(result: Any, manager: Any, weight_version: str | None) -> None:
        for listener in list(listeners):
            listener.updated(weight_version)

    HookRegistry.register(WEIGHTS_UPDATED, updated, HookType.AFTER)
    HookRegistry.apply_hooks()
    return listeners


@functools.cache
def pass_whole_prefixes() -> None:
    """Makes the prefix that comes with a question end where the question begins. SGLang's contract
    is one contiguous chain; 0.5.23 leaves out the pages of the last node that the server has
    itself.
    """

    def complete(prefix: list[str], cache: Any, node_id: Any) -> list[str] | None:
        last = cache.get_last_hash_value(node_id)
        if last is None or (prefix and prefix[-1] == last):
            return None  # as it is
        return [*prefix, *cache.tree_core.get_hash_values(node_id)]

    HookRegistry.register(PREFIX_OF_QUESTION, complete, HookType.AFTER)
    HookRegistry.apply_hooks()
