"""The settings of `kv_connector_extra_config`. An unknown one is refused: a misspelt setting
must not pass unseen.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from reprise.tls import Tls


@dataclasses.dataclass(frozen=True)
class Settings:
    """Times are milliseconds. See client/python/README.md for each."""

    router: tuple[str, ...] = ()
    shards: tuple[str, ...] = ()
    lanes: tuple[str, ...] = ("view", "stream")
    tls_ca: str = ""  # PEM files; "": plaintext
    tls_cert: str = ""
    tls_key: str = ""
    tls_server_id: tuple[str, ...] = ()  # (): certificates of servers name the host
    session_key: str = (
        "user"  # member of kv_transfer_params or vllm_xargs that names the conversation
    )
    model: str = ""  # "": from the engine
    revision: str = ""  # "": from the engine
    scope: str = ""  # servers of different scopes share nothing
    codec: str = ""  # how blocks are encoded where they are stored; "": bit for bit
    lookup_budget_ms: int = 200  # a later answer counts as nothing
    lookup_wait_ms: float = 0.0  # the most that one question may block the scheduler
    lookup_hold_ms: int = 5_000  # an answer not used by then is asked for again; its lease ends
    load_timeout_ms: int = 3_000  # then the prompt is computed
    load_threads: int = 4
    save_timeout_ms: int = 2_000  # then the blocks are free again and stay unsaved
    saves_in_flight_max: int = 64
    save_pin_fraction: float = 0.25  # of the engine's blocks may wait for a save
    save_every_blocks: int = 4  # while decoding; the rest follows when the request ends
    min_load_tokens: int = 1  # a shorter gain is not worth a load
    send_tokens: bool = False  # lets `reprise explain` name the first differing token
    explain_interval_ms: int = 60_000  # how often a whole miss is looked into; 0: never

    @staticmethod
    def from_extra_config(config: dict[str, Any]) -> "Settings":
        known = {f.name: f for f in dataclasses.fields(Settings)}
        values: dict[str, Any] = {}
        for name, value in config.items():
            if name not in known:
                raise ValueError(
                    f"kv_connector_extra_config: unknown setting {name!r}; known are "
                    f"{', '.join(sorted(known))}"
                )
            default = known[name].default
            if isinstance(default, tuple):
                values[name] = (value,) if isinstance(value, str) else tuple(str(v) for v in value)
            elif isinstance(default, bool):
                if not isinstance(value, bool):
                    raise ValueError(
                        f"kv_connector_extra_config: {name} is {value!r}; it must be true or false"
                    )
                values[name] = value
            elif isinstance(default, (int, float)):
                if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
                    raise ValueError(
                        f"kv_connector_extra_config: {name} is {value!r}; it must be a number >= 0"
                    )
                values[name] = type(default)(value)
            else:
                values[name] = str(value)
        settings = Settings(**values)
        if bool(settings.router) == bool(settings.shards):
            raise ValueError(
                'kv_connector_extra_config: set either router ("HOST:PORT", or a list) or shards'
            )
        settings.tls()
        return settings

    def tls(self) -> Tls | None:
        """None: plaintext."""
        try:
            return Tls.from_settings(dataclasses.asdict(self))
        except ValueError as wrong:
            raise ValueError(f"kv_connector_extra_config: {wrong}") from None

    def client_arguments(self, name: str) -> dict[str, Any]:
        """Arguments of reprise.Client."""
        where = {"router": list(self.router)} if self.router else {"shards": list(self.shards)}
        return {**where, "name": name, "lanes": tuple(self.lanes), "tls": self.tls()}
