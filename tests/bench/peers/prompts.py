"""How long it takes to store and to fetch a whole prompt."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from measure import Budget, Progress, percentile
from ratios import Spread, noisy, ratio
from systems import CONTROL, OURS, Systems
from workers import Workers

WARM_PROMPTS = 2
# These touch their memory when they start; a shard's is touched again through each view of it.
TOUCHED_ALREADY = ("reprise-tcp", "reprise-stream", "memcpy", "socket", "socket-apart")


@dataclasses.dataclass
class Samples:
    """What one system did in one cell: a rate for each repetition, a time for each prompt."""

    gb_per_s: list[float] = dataclasses.field(default_factory=list)
    prompt_ms: list[float] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Round:
    """What one repetition of one system did, both ways."""

    bytes: int = 0
    wall_ns: dict[str, int] = dataclasses.field(
        default_factory=lambda: {"store": 0, "fetch": 0}
    )
    prompt_ms: dict[str, list[float]] = dataclasses.field(
        default_factory=lambda: {"store": [], "fetch": []}
    )
    checked: int = 0  # blocks


def warm(systems: Systems, progress: Progress) -> None:
    """All memory that is used has been touched once, every client has been used."""
    for name in systems.running():
        progress.say(f"{name}: warming")
        if name not in TOUCHED_ALREADY:
            systems.attempt(name, lambda workers: _fill(workers, systems, name))
        for i in range(WARM_PROMPTS):
            if name in systems.running():
                at_once = systems.shape.workers
                systems.attempt(
                    name, lambda w: _prompts(w, systems, name, f"warm {i}", at_once, 1)
                )


def _fill(workers: Workers, systems: Systems, name: str) -> None:
    """All of the server's memory has been stored into, and nothing is left there. By each worker
    where it maps that memory and touches it itself, which is what a view is.
    """
    mapped = name == "reprise-view"
    fits = systems.shape.memory_bytes // systems.shape.prompt_bytes
    prompts = [f"fill {i}" for i in range(fits + 1 if mapped else fits - 2)]
    for worker in range(systems.shape.workers if mapped else 1):
        for prompt in prompts:
            workers.one(worker, "prepare", prompt=prompt)
            workers.one(worker, "store", system=name, at=0)
            if mapped:
                workers.one(worker, "fetch", system=name, at=0)
        for prompt in prompts:
            workers.one(worker, "prepare", prompt=prompt)
            workers.one(worker, "remove", system=name)


def measure(
    systems: Systems, at_once: int, repetitions: int, each: int, budget: Budget, progress: Progress
) -> dict[str, Any]:
    """Both cells of `at_once` workers, each storing and fetching `each` prompts a repetition. All
    systems in turn, forwards and backwards.
    """
    load = os.getloadavg()[0]
    rounds: dict[str, list[Round]] = {name: [] for name in systems.running()}
    for number in range(repetitions):
        if not budget.left():
            progress.say(f"time is up after {number} of {repetitions} repetitions")
            break
        names = systems.running()
        for name in names if number % 2 == 0 else names[::-1]:
            done = systems.attempt(
                name, lambda w: _prompts(w, systems, name, f"{number}", at_once, each)
            )
            if done is not None:
                rounds[name].append(done)
    shape = systems.shape
    progress.say(f"{at_once} at once: {shape.blocks} blocks of {shape.block_bytes >> 10} KiB")
    return {
        f"{way} {shape.blocks} x {shape.block_bytes >> 10} KiB, {at_once} at once": cell(
            {name: _samples(rounds[name], way) for name in systems.running() if rounds[name]},
            load,
        )
        for way in ("store", "fetch")
    } | {"checked_blocks": sum(one.checked for many in rounds.values() for one in many)}


def _prompts(
    workers: Workers, systems: Systems, name: str, label: str, at_once: int, each: int
) -> Round:
    done = Round(bytes=each * at_once * systems.shape.prompt_bytes)
    for i in range(each):
        named = tuple(f"{name} {at_once} {label} {i} {worker}" for worker in range(at_once))
        workers.all("prepare", at_once, prompt=named)
        for way in ("store", "fetch"):
            spans = workers.at_once(way, at_once, system=name)
            done.wall_ns[way] += max(end for _, end in spans) - min(begin for begin, _ in spans)
            done.prompt_ms[way] += [(end - begin) / 1e6 for begin, end in spans]
        done.checked += sum(workers.all("check", at_once))
        workers.all("remove", at_once, system=name)
    return done


def _samples(rounds: list[Round], way: str) -> Samples:
    return Samples(
        [one.bytes / one.wall_ns[way] for one in rounds],
        [ms for one in rounds for ms in one.prompt_ms[way]],
    )


def cell(samples: dict[str, Samples], load: float) -> dict[str, Any]:
    """The facts of one cell: of each system, and of Reprise's lanes beside it."""
    told: dict[str, Any] = {"load_average": {"before": load, "after": os.getloadavg()[0]}}
    if CONTROL in samples:
        control = samples[CONTROL].gb_per_s
        told |= {"control_spread": Spread.of(control).share, "noisy": noisy(control)}
    told["systems"] = {
        name: {
            "gb_per_s": dataclasses.asdict(Spread.of(one.gb_per_s)),
            "repetitions": len(one.gb_per_s),
            "p50_ms": percentile(one.prompt_ms, 0.5),
            "p99_ms": percentile(one.prompt_ms, 0.99),
            "prompts": len(one.prompt_ms),
            "beside": {
                our: dataclasses.asdict(ratio(samples[our].gb_per_s[: len(one.gb_per_s)],
                                              one.gb_per_s[: len(samples[our].gb_per_s)]))
                for our in OURS
                if our in samples and our != name
            },
        }
        for name, one in samples.items()
    }
    return told
