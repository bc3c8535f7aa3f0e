"""What is left of a memory when twice as much was stored: blocks behind a hole are of no use.

Nothing is timed, so all systems go at once, each with a worker of its own; slowly, because Redis
tells only seconds apart.
"""

from __future__ import annotations

import concurrent.futures
import time
from typing import Any

import reach
from measure import Budget, Progress
from systems import Systems
from workers import Workers

TURNS = 8
SHARE_AT_ONCE = 0.5  # of the memory, for the conversations that go on side by side
OVERFILL = 2
# The same shard: which lane stored makes no difference.
LEFT_OUT = ("reprise-tcp", "reprise-stream")
# A worker that has the earlier turns itself looks up and stores; one that has not fetches them.
CASES = {"its worker keeps what it has": False, "another worker each turn": True}


def measure(systems: Systems, seconds: float, budget: Budget, progress: Progress) -> dict[str, Any]:
    """By case, of each system: MiB stored, MiB that prefixes reach, and their share."""
    told = {}
    for case, fetches in CASES.items():
        progress.say(f"filling the memory twice in {seconds:.0f} s: {case}")
        told[case] = {
            "memory_mib": systems.shape.memory_bytes >> 20,
            "written_times": OVERFILL,
            "systems": _all(systems, case, fetches, min(seconds, budget.left())),
        }
    return told


def _all(systems: Systems, case: str, fetches: bool, seconds: float) -> dict[str, Any]:
    asked = [
        name
        for name in systems.running()
        if name not in LEFT_OUT and name != "memcpy" and not name.startswith("socket")
    ]

    def fill(name: str, worker: int) -> Any:
        return systems.attempt(
            name, lambda them: _fill(systems, them, name, worker, case, fetches, seconds)
        )

    with concurrent.futures.ThreadPoolExecutor(max(1, len(asked))) as pool:
        done = list(pool.map(fill, asked, range(len(asked))))
    return {name: told for name, told in zip(asked, done) if told is not None}


def _fill(
    systems: Systems,
    workers: Workers,
    name: str,
    worker: int,
    case: str,
    fetches: bool,
    seconds: float,
) -> dict[str, Any]:
    shape = systems.shape
    prompts = reach.conversations(case, OVERFILL * shape.memory_bytes // shape.prompt_bytes)
    at_once = int(SHARE_AT_ONCE * shape.memory_bytes) // shape.prompt_bytes
    turns = list(reach.schedule(prompts, shape.blocks, TURNS, at_once))
    found = checked = 0
    begun = time.monotonic()
    for i, turn in enumerate(turns):
        time.sleep(max(0.0, begun + i * seconds / len(turns) - time.monotonic()))
        done = workers.one(
            worker, "turn", system=name, prompt=turn.conversation,
            before=turn.before, after=turn.after, fetches=fetches,
        )  # fmt: skip
        found += done["found"]
        checked += done["checked"]
    told = workers.one(worker, "tally", system=name, prompts=prompts, blocks=shape.blocks)
    for prompt in prompts:
        workers.one(worker, "unstock", system=name, prompt=prompt, count=shape.blocks)
    mib = shape.block_bytes / (1 << 20)
    return {
        "stored_mib": told["stored"] * mib,
        "reachable_mib": told["reachable"] * mib,
        "usable_share": reach.usable_share(told["stored"], told["reachable"]),
        "found_share": found / sum(turn.before for turn in turns),
        "checked_blocks": checked,
    }
