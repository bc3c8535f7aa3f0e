"""The benchmark's tables, as a person reads them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ratios import NOISY_SPREAD
from systems import OURS, TITLES


def table(facts: dict[str, Any]) -> str:
    return "\n".join(_lines(facts))


def _lines(facts: dict[str, Any]) -> Iterator[str]:
    load = facts["load_average"]
    yield (
        f"Reprise beside others on {facts['cpus']} CPUs, load average {load['before']:.1f} before "
        f"and {load['after']:.1f} after, all in turns; {facts['checked_blocks']:,} blocks came "
        "back byte for byte."
    )
    yield (
        "Reprise makes and verifies a 128-bit checksum of each block within its time; the others "
        "verify nothing."
    )
    yield "× is the median of the ratios of each repetition, with the lowest and the highest."
    if facts.get("quick"):
        yield "A smoke run: small prompts, and a memory that is full in seconds. Not to be quoted."
    for what in ("skipped", "failed"):
        for name, why in facts[what].items():
            yield f"{what.upper()} {TITLES.get(name, name)}: {why}"
    loud = [name for name, one in _cells(facts) if one.get("noisy")]
    if loud:
        yield (
            f"NOISY, not to be quoted: the bare socket was spread over more than "
            f"{NOISY_SPREAD:.0%} in {len(loud)} of {len(list(_cells(facts)))} cells."
        )
    for name, one in facts["prompts"].items():
        yield from _cell(name, one, "GB/s", "gb_per_s", "ms")
    for name, one in facts["lookups"].items():
        yield from _cell(f"lookup, {name}, one worker", one, "µs", "us", "us")
    for name, one in facts["full"].items():
        if one["systems"]:
            yield from _full(name, one)


def _cells(facts: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from facts["prompts"].items()
    yield from facts["lookups"].items()


def _cell(name: str, one: dict[str, Any], unit: str, key: str, time: str) -> Iterator[str]:
    load = one["load_average"]
    heard = f"socket's spread {one['control_spread']:.0%}" if "control_spread" in one else ""
    yield ""
    yield (
        f"{name} (load {load['before']:.1f} to {load['after']:.1f}; {heard}"
        f"{': NOISY' if one.get('noisy') else ''})"
    )
    lanes = [our for our in OURS if our in one["systems"]]
    yield _row("", [unit, "p50", "p99", *(f"{TITLES[our]} ×" for our in lanes)])
    yield _row("---", ["---"] * (3 + len(lanes)))
    for system, told in one["systems"].items():
        digits = 2 if unit == "GB/s" else 0
        figures = [
            f"{told[key]['median']:.{digits}f}",
            f"{told[f'p50_{time}']:.1f}",
            f"{told[f'p99_{time}']:.1f}",
        ]
        beside = [_ratio(told["beside"].get(our)) for our in lanes]
        yield _row(TITLES[system], figures + beside)


def _ratio(told: dict[str, float] | None) -> str:
    if told is None:
        return ""
    return f"{told['median']:.2f} ({told['low']:.2f} to {told['high']:.2f})"


def _full(name: str, told: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield (
        f"memory of {told['memory_mib']} MiB after {told['written_times']} × as much of growing "
        f"conversations, {name}"
    )
    yield _row("", ["MiB stored", "reached by prefix", "usable", "found at the next turn"])
    yield _row("---", ["---"] * 4)
    for system, one in told["systems"].items():
        yield _row(
            TITLES[system].removesuffix(", view"),
            [
                f"{one['stored_mib']:.0f}",
                f"{one['reachable_mib']:.0f}",
                f"{one['usable_share']:.0%}",
                f"{one['found_share']:.0%}",
            ],
        )


def _row(name: str, values: list[str]) -> str:
    return f"| {name} | {' | '.join(values)} |"
