"""What LMCache makes when a plug-in of the type "reprise" is configured."""

# LMCache is there when this is imported, not when types are checked.
# mypy: disable-error-code="import-not-found,misc,unused-ignore"

from __future__ import annotations

from typing import Any

from lmcache.v1.exceptions import IrrecoverableException
from lmcache.v1.storage_backend.connector import ConnectorAdapter, extract_plugin_type

from reprise.errors import RepriseError

from .connector import RepriseConnector, logger
from .settings import Settings

PLUGIN_TYPE = "reprise"
_SCHEME = "plugin://"


class RepriseAdapter(ConnectorAdapter):
    """Serves the plug-ins "reprise" and "reprise.NAME"."""

    def __init__(self) -> None:
        super().__init__(f"{_SCHEME}{PLUGIN_TYPE}")

    def can_parse(self, url: str) -> bool:
        return (
            url.startswith(_SCHEME)
            and extract_plugin_type(url.removeprefix(_SCHEME)) == PLUGIN_TYPE
        )

    def create_connector(self, context: Any) -> RepriseConnector:
        """Raises IrrecoverableException, with what to set, for a configuration that it cannot
        serve: LMCache tries anything else again and again.
        """
        try:
            config, plugin = context.config, context.plugin_name or PLUGIN_TYPE
            settings = Settings.of_plugin(config.extra_config, plugin)
            if config.remote_serde not in (None, "naive"):
                raise ValueError(
                    f"remote_serde is {config.remote_serde!r}: Reprise keeps chunks bit for bit, "
                    f"so leave it out"
                )
            _warn_of_hash(config.pre_caching_hash_algorithm)
            return RepriseConnector(config, context.metadata, context.local_cpu_backend, settings)
        except (RepriseError, ValueError) as wrong:
            raise IrrecoverableException(f"Reprise: {wrong}") from wrong


def _warn_of_hash(algorithm: str) -> None:
    if algorithm == "builtin":
        logger.warning(
            "LMCache names chunks by Python's own hash, which anybody can make collide, and which "
            "other Python versions and PYTHONHASHSEEDs make differently: set "
            "pre_caching_hash_algorithm to sha256_cbor where a cache is shared"
        )
