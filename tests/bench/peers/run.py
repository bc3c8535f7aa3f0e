"""Reprise beside what a user would take instead: `./dev bench peers [--quick] [--json]`.

Redis, memcached and Mooncake Store over TCP, and a plain memcpy and a bare socket as controls: how
long a whole prompt takes to store and to fetch, how long it takes to learn how much of one is
stored, and what is left when the memory is full. Everybody has the best client that we could write,
the same workers, memory and turns. All of it over loopback.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import signal
import sys
import tempfile
from typing import Any

FOLDER = pathlib.Path(__file__).parent
sys.path += [str(FOLDER.parent / "support"), str(FOLDER.parents[2] / "client" / "python")]

import full  # noqa: E402
import lookups  # noqa: E402
import prompts  # noqa: E402
from measure import Budget, Progress  # noqa: E402
from systems import CONTROL, NAMES, Shape, Systems  # noqa: E402
from table import table  # noqa: E402

MIB = 1 << 20
# Llama-3-8B in bf16: 2 MiB are 16 tokens. A prompt of small blocks, and of as many as fit one call.
LARGE = Shape(32, 2 * MIB, 512 * MIB, workers=4)
SMALL = Shape(256, MIB // 16, 512 * MIB, workers=4)
QUICK_LARGE = Shape(4, 2 * MIB, 128 * MIB, workers=4)
QUICK_SMALL = Shape(256, MIB // 16, 128 * MIB, workers=4)
AT_ONCE = (1, 4)
FULL = {"minutes": 7.5, "repetitions": 7}
QUICK = {"minutes": 1.5, "repetitions": 5}


def measure(folder: pathlib.Path, given: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    budget = Budget(given.minutes * 60)
    facts: dict[str, Any] = {
        "cpus": os.cpu_count(),
        "quick": given.quick,
        "load_average": {"before": os.getloadavg()[0]},
        "skipped": {},
        "failed": {},
        "prompts": {},
        "lookups": {},
        "full": {},
        "checked_blocks": 0,
    }
    shapes = (QUICK_LARGE, QUICK_SMALL) if given.quick else (LARGE, SMALL)
    for shape in shapes:
        progress.say(f"starting all for blocks of {shape.block_bytes >> 10} KiB")
        apart = folder / f"{shape.block_bytes}"
        apart.mkdir()
        with Systems(given.only, shape, apart, progress) as systems:
            prompts.warm(systems, progress)
            for at_once in AT_ONCE:
                each = max(1, (1 if given.quick else 8 * (1 + (shape is SMALL))) // (1 + at_once))
                told = prompts.measure(
                    systems, at_once, given.repetitions, each, budget, progress
                )
                facts["checked_blocks"] += told.pop("checked_blocks")
                facts["prompts"] |= told
            if shape is shapes[-1]:
                times = 20 if given.quick else 100
                facts["lookups"] = lookups.measure(
                    systems, given.repetitions, times, budget, progress
                )
                facts["full"] = full.measure(systems, 1 if given.quick else 30, budget, progress)
                facts["checked_blocks"] += sum(
                    one["checked_blocks"]
                    for case in facts["full"].values()
                    for one in case["systems"].values()
                )
            facts["skipped"] |= systems.skipped
            facts["failed"] |= systems.failed
    facts["load_average"]["after"] = os.getloadavg()[0]
    return facts


def _only(text: str) -> tuple[str, ...]:
    """Names of systems; the control that says whether the run is noisy is always one."""
    asked = text.split(",")
    unknown = [name for name in asked if name not in NAMES]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(NAMES)}")
    return tuple(name for name in NAMES if name in asked or name == CONTROL)


def main() -> int:
    """0 when every system was measured or is skipped with its reason."""
    parser = argparse.ArgumentParser(prog="./dev bench peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small prompts: a smoke run")
    parser.add_argument(
        "--only", type=_only, default=NAMES, metavar="NAME,...", help=f"of {', '.join(NAMES)}"
    )
    parser.add_argument("--minutes", type=float, help="measure less rather than longer")
    parser.add_argument("--repetitions", type=int, help="of each cell, at least 5 to be quoted")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    for name, value in (QUICK if given.quick else FULL).items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(143))  # nothing is left behind
    with tempfile.TemporaryDirectory(prefix="reprise-bench-") as name:
        facts = measure(pathlib.Path(name), given, Progress())
    print(json.dumps(facts) if given.json else table(facts))
    return 1 if facts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
