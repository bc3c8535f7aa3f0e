"""What is compared: a server that is started and stopped, and a client of it in each worker."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from memory import Blocks

KEY_BYTES = 32


class Skipped(RuntimeError):
    """A system that cannot be had on this machine, and why."""


@dataclasses.dataclass(frozen=True)
class Keys:
    """The keys of one prompt's blocks, in each form that some client takes as it is: nobody pays
    for another one's form while the clock runs.
    """

    packed: npt.NDArray[np.uint8]  # (n, 32)
    raw: list[bytes]  # 32 bytes each, of any value
    hex: list[bytes]
    text: list[str]

    @classmethod
    def of(cls, prompt: str, count: int) -> Keys:
        """`count` keys that no other prompt has."""
        raw = [hashlib.sha256(f"{prompt} {i}".encode()).digest() for i in range(count)]
        return cls._of(raw)

    @classmethod
    def _of(cls, raw: list[bytes]) -> Keys:
        packed = np.frombuffer(b"".join(raw), np.uint8).reshape(-1, KEY_BYTES)
        text = [key.hex() for key in raw]
        return cls(packed, raw, [one.encode() for one in text], text)

    def first(self, count: int) -> Keys:
        """Those of the prompt's first `count` blocks."""
        return self._of(self.raw[:count])

    def __len__(self) -> int:
        return len(self.raw)


class Server(Protocol):
    """The processes of a system. Starts where it is made; raises Skipped where it cannot be had."""

    #: What a client needs to find it.
    facts: dict[str, Any]

    def stop(self) -> None:
        """Ends them all."""


class Client(Protocol):
    """A worker's connection. Bytes go out of and into the worker's own memory.

    Raises what it likes where bytes did not move: the harness tells it and leaves the system out.
    """

    def store(self, keys: Keys, blocks: Blocks, first: int = 0) -> int:
        """Stores blocks [first, len(keys)) of a prompt, `blocks` being all of them; how many of
        those are there now."""

    def fetch(self, keys: Keys, blocks: Blocks) -> None:
        """Brings all of a prompt's blocks, which are stored."""

    def prefix(self, keys: Keys) -> int:
        """How many blocks of the prompt, from its first, can be fetched."""

    def stored(self, prompts: Sequence[Keys]) -> int:
        """How many blocks of the prompts are in memory, before and behind holes."""

    def remove(self, keys: Keys) -> None:
        """Drops all of a prompt's blocks."""

    def close(self) -> None:
        """Lets go of the server."""
