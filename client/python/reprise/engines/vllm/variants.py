"""Whose weights a request's K/V was computed with: the engine's own, as of its last replacement, or
with a LoRA adapter's on top.
"""

from __future__ import annotations

import logging
import uuid
from typing import Any

from reprise.engines import digests

from .messages import Variant

logger = logging.getLogger("vllm.reprise")


class Variants:
    def __init__(self) -> None:
        self.epoch = ""
        self._loras: dict[str, str] = {}  # digest of each adapter's folder

    def of(self, request: Any) -> Variant | None:
        """None when the request's adapter cannot be read."""
        adapter = request.lora_request
        if adapter is None:
            return Variant("", self.epoch)
        try:
            if adapter.lora_path not in self._loras:
                self._loras[adapter.lora_path] = digests.folder_digest(adapter.lora_path)
        except OSError as error:
            logger.warning(
                "LoRA adapter %s cannot be read (%s): its requests are not cached",
                adapter.lora_name,
                error,
            )
            return None
        return Variant(self._loras[adapter.lora_path], self.epoch)

    def replace_weights(self) -> None:
        """What was stored before is the engine's own no more."""
        self.epoch = uuid.uuid4().hex
