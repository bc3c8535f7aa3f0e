"""The records that timed_connector.py writes, one per scheduler step: when it ended, and the time
that the scheduler's thread spent in the connector since the step before.
"""

from __future__ import annotations

import pathlib
import struct

FILE_VARIABLE = "REPRISE_BENCH_STEPS"  # names the file
RECORD = struct.Struct("<3d")  # time.monotonic(), wall µs, CPU µs


def steps_between(
    path: pathlib.Path, spans: list[tuple[float, float]]
) -> tuple[list[float], list[float]]:
    """Wall µs and CPU µs of the steps that ended in one of the spans of time.monotonic()."""
    data = path.read_bytes()
    whole = data[: len(data) // RECORD.size * RECORD.size]
    chosen = [
        (wall, cpu)
        for at, wall, cpu in RECORD.iter_unpack(whole)
        if any(begin <= at <= end for begin, end in spans)
    ]
    return [wall for wall, _ in chosen], [cpu for _, cpu in chosen]
