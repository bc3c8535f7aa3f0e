"""The settings of `kv_connector_extra_config`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from reprise.engines.settings import CacheSettings


@dataclasses.dataclass(frozen=True)
class Settings(CacheSettings):
    """Times are milliseconds. See client/python/README.md for each."""

    WHERE: ClassVar[str] = "kv_connector_extra_config"

    session_key: str = (
        "user"  # member of kv_transfer_params or vllm_xargs that names the conversation
    )
    lookup_budget_ms: int = 200  # a later answer counts as nothing
    lookup_wait_ms: float = 0.0  # the most that one question may block the scheduler
    lookup_hold_ms: int = 5_000  # an answer not used by then is asked for again; its lease ends
    handoff_wait_ms: int = 2_000  # for what another server computed and still stores
    load_timeout_ms: int = 3_000  # then the prompt is computed
    load_threads: int = 4
    save_timeout_ms: int = 2_000  # then the blocks are free again and stay unsaved
    saves_in_flight_max: int = 64
    save_pin_fraction: float = 0.25  # of the engine's blocks may wait for a save
    save_every_blocks: int = 4  # while decoding; the rest follows when the request ends
    hint_timeout_ms: int = 2_000  # then a hint has failed
    min_load_tokens: int = 1  # a shorter gain is not worth a load
    send_tokens: bool = False  # lets `reprise explain` name the first differing token
    explain_interval_ms: int = 60_000  # how often a whole miss is looked into; 0: never

    def beside_others(self, extra_config: Mapping[str, Any]) -> Settings:
        """For one connector of several: prompts are handed over by another one, unless it is said
        that we do. vLLM ends an engine two of whose connectors answer for that.
        """
        if "handoff_wait_ms" in extra_config:
            return self
        return dataclasses.replace(self, handoff_wait_ms=0)
