"""Which weights the server computes with now. An update may name another version of them; one that
names none leaves pages that nobody can tell from older ones, so none are loaded or stored.
"""

# SGLang is there when this is imported, not when types are checked.
# mypy: disable-error-code="import-not-found,misc,unused-ignore"

from __future__ import annotations

import logging

from .hooks import weight_listeners

logger = logging.getLogger("sglang.reprise")


class Weights:
    """The weights of this process's server. Thread-safe."""

    def __init__(self) -> None:
        self._version = _version_of_server()
        self._unnamed = False
        weight_listeners().add(self)

    def version(self) -> str | None:
        """The server's weight version; None: there was an update without one."""
        version = _version_of_server()
        if version != self._version:
            self._version, self._unnamed = version, False
        return None if self._unnamed else version

    def updated(self, version: str | None) -> None:
        """An update of the weights that named this version, or none."""
        if version is None and not self._unnamed:
            logger.warning(
                "The weights were updated without a weight_version: Reprise neither loads nor "
                "stores pages until one is given (update_weights_* and /update_weight_version "
                "take it)"
            )
        self._unnamed = version is None


def _version_of_server() -> str:
    from sglang.srt.runtime_context import get_serving

    return str(get_serving().weight_version or "")
