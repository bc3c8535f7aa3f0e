"""Settings that an engine's own configuration carries to Reprise. An unknown one is refused: a
misspelt setting must not pass unseen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, TypeVar

from reprise.tls import Tls

S = TypeVar("S", bound="CacheSettings")


@dataclasses.dataclass(frozen=True)
class CacheSettings:
    """What every engine says of the cache it uses: where it is, who asks, and what its blocks are
    called. An engine's own settings derive from it, each member with a default of its type.
    """

    WHERE: ClassVar[str] = ""  # the engine's name for what carries these settings
    NOT_OURS: ClassVar[Collection[str]] = ()  # members beside ours that the engine itself reads

    router: tuple[str, ...] = ()
    shards: tuple[str, ...] = ()
    lanes: tuple[str, ...] = ("view", "tcp", "stream")
    tls_ca: str = ""  # PEM files; "": plaintext
    tls_cert: str = ""
    tls_key: str = ""
    tls_server_id: tuple[str, ...] = ()  # (): certificates of servers name the host
    model: str = ""  # "": from the engine
    revision: str = ""  # "": from the engine
    scope: str = ""  # servers of different scopes share nothing
    codec: str = ""  # how blocks are encoded where they are stored; "": bit for bit

    @classmethod
    def from_extra_config(cls: type[S], config: Mapping[str, Any]) -> S:
        """Raises ValueError naming the setting that is unknown or cannot be right."""
        known = {f.name: f for f in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        for name, value in config.items():
            if name in cls.NOT_OURS:
                continue
            if name not in known:
                raise ValueError(
                    f"{cls.WHERE}: unknown setting {name!r}; known are {', '.join(sorted(known))}"
                )
            values[name] = cls._checked(name, value, known[name].default)
        settings = cls(**values)
        if bool(settings.router) == bool(settings.shards):
            raise ValueError(f'{cls.WHERE}: set either router ("HOST:PORT", or a list) or shards')
        settings.tls()
        return settings

    @classmethod
    def _checked(cls, name: str, value: Any, default: Any) -> Any:
        """`value` as the type that the setting's default has."""
        if isinstance(default, tuple):
            return (value,) if isinstance(value, str) else tuple(str(v) for v in value)
        if isinstance(default, bool):
            if not isinstance(value, bool):
                raise ValueError(f"{cls.WHERE}: {name} is {value!r}; it must be true or false")
            return value
        if isinstance(default, (int, float)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
                raise ValueError(f"{cls.WHERE}: {name} is {value!r}; it must be a number >= 0")
            return type(default)(value)
        return str(value)

    def tls(self) -> Tls | None:
        """None: plaintext."""
        try:
            return Tls.from_settings(dataclasses.asdict(self))
        except ValueError as wrong:
            raise ValueError(f"{self.WHERE}: {wrong}") from None

    def client_arguments(self, name: str) -> dict[str, Any]:
        """Arguments of reprise.Client."""
        where = {"router": list(self.router)} if self.router else {"shards": list(self.shards)}
        return {**where, "name": name, "lanes": tuple(self.lanes), "tls": self.tls()}
