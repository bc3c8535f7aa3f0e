"""The benchmark's tables, as a person reads them and as a README takes them."""

from __future__ import annotations

from typing import Any

from first_token import first_token_rows


def table(facts: dict[str, Any]) -> str:
    load = facts["load_average"]
    return "\n".join(
        [
            f"vLLM on {facts['cpus']} CPUs, load average {load['before']:.1f} before and "
            f"{load['after']:.1f} after, all cases in turns.",
            "",
            *first_token_rows(facts),
            "",
            "| nothing shared | median | min to max | goal |",
            "|---|---|---|---|",
            *_nothing_shared(facts["nothing_shared"]),
        ]
    )


def _nothing_shared(told: dict[str, Any]) -> list[str]:
    rows = []
    if "failed" in told:
        rows.append(f"| throughput | FAILED: {told['failed']} | | |")
    if "cost_percent" in told:
        for name, key in (("without the connector", "without"), ("with it", "with")):
            one = told[f"tokens_per_s_{key}"]
            rows.append(
                f"| output tokens/s {name} | {one['p50']:.0f} | {one['min']:.0f} to "
                f"{one['max']:.0f} | |"
            )
        low, high = told["cost_percent_spread"]
        rows.append(
            f"| its cost, in {told['pairs']} pairs | {told['cost_percent']:.1f} % | {low:.1f} to "
            f"{high:.1f} % | ≤ 3 % |"
        )
    for name, key, goal in (
        ("wall", "scheduler_us_per_step", "p99 ≤ 200 µs"),
        ("CPU", "scheduler_cpu_us_per_step", ""),
    ):
        if key in told:
            one = told[key]
            rows.append(
                f"| {name} time added to a scheduler step | {one['p50']:.0f} µs, p99 "
                f"{one['p99']:.0f} µs | {one['min']:.0f} to {one['max']:.0f} µs, {one['samples']} "
                f"steps | {goal} |"
            )
    return rows
