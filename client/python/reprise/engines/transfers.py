"""How long a transfer of an engine's blocks may take."""

from __future__ import annotations

LINK_BYTES_PER_S_MIN = 64 << 20


def transfer_s(nbytes: float) -> float:
    """Seconds that so many bytes take on the slowest link: a load's or save's time-out has them
    beside its own.
    """
    return nbytes / LINK_BYTES_PER_S_MIN
