"""How long it takes to learn how much of a prompt is stored."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from measure import Budget, Progress, percentile
from ratios import Spread, noisy, ratio
from systems import CONTROL, OURS, Systems

CASES = ((64, 32), (512, 256), (64, 64))  # keys asked for, and how many of them are stored


def measure(
    systems: Systems, repetitions: int, times: int, budget: Budget, progress: Progress
) -> dict[str, Any]:
    """By one worker, `times` lookups a repetition; all systems in turn, forwards and backwards."""
    told = {}
    for asked, stored in CASES:
        prompt = f"lookup {asked} {stored}"
        for name in _asked(systems):
            if not name.startswith(CONTROL):
                systems.attempt(
                    name, lambda w: w.all("stock", 1, system=name, prompt=prompt, count=stored)
                )
        load = os.getloadavg()[0]
        took: dict[str, list[list[float]]] = {name: [] for name in _asked(systems)}
        for number in range(repetitions):
            if not budget.left():
                progress.say(f"time is up after {number} of {repetitions} repetitions")
                break
            names = _asked(systems)
            order = {"prompt": prompt, "asked": asked, "stored": stored, "times": times}
            for name in names if number % 2 == 0 else names[::-1]:
                ns = systems.attempt(
                    name, lambda w: w.all("look_up", 1, system=name, **order)[0]
                )
                if ns is not None:
                    took[name].append([one / 1000 for one in ns])
        for name in _asked(systems):
            if not name.startswith(CONTROL):
                systems.attempt(
                    name, lambda w: w.all("unstock", 1, system=name, prompt=prompt, count=stored)
                )
        progress.say(f"lookups of {asked} keys, {stored} stored")
        done = {name: took[name] for name in _asked(systems) if took[name]}
        told[f"{asked} keys, {stored} stored"] = cell(done, load)
    return told


def _asked(systems: Systems) -> list[str]:
    return [name for name in systems.running() if name != "memcpy"]


def cell(took: dict[str, list[list[float]]], load: float) -> dict[str, Any]:
    """The facts of one cell; `took` is microseconds of each lookup, by system and repetition."""
    told: dict[str, Any] = {"load_average": {"before": load, "after": os.getloadavg()[0]}}
    medians = {name: [percentile(one, 0.5) for one in many] for name, many in took.items()}
    if CONTROL in medians:
        control = medians[CONTROL]
        told |= {"control_spread": Spread.of(control).share, "noisy": noisy(control)}
    told["systems"] = {
        name: {
            "us": dataclasses.asdict(Spread.of(medians[name])),
            "repetitions": len(many),
            "p50_us": percentile([one for each in many for one in each], 0.5),
            "p99_us": percentile([one for each in many for one in each], 0.99),
            # As many times as fast: their time over ours.
            "beside": {
                our: dataclasses.asdict(ratio(medians[name][: len(medians[our])],
                                              medians[our][: len(many)]))
                for our in OURS
                if our in medians and our != name
            },
        }
        for name, many in took.items()
    }
    return told
