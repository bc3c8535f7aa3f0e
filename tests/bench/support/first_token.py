"""The table of how long the first token took, from wherever the prefix was."""

from __future__ import annotations

from typing import Any


def first_token_rows(facts: dict[str, Any]) -> list[str]:
    """`facts`: "prefix_tokens", and "ttft_ms" with the facts of each case."""
    return [
        f"| first token of a {facts['prefix_tokens']:,}-token prefix | p50 | p99 | min to max "
        f"| samples |",
        "|---|---|---|---|---|",
        *(_row(name, told) for name, told in facts["ttft_ms"].items()),
    ]


def _row(name: str, told: dict[str, Any]) -> str:
    if "skipped" in told:
        return f"| {name} | SKIPPED: {told['skipped']} | | | |"
    numbers = "| | | |"
    if "p50" in told:
        lost = f", {told['failed_samples']} failed" if told["failed_samples"] else ""
        numbers = (
            f"{told['p99']:.0f} ms | {told['min']:.0f} to {told['max']:.0f} ms "
            f"| {told['samples']}{lost} |"
        )
    if "failed" in told:
        return f"| {name} | FAILED: {told['failed']} | {numbers}"
    if "p50" not in told:
        return f"| {name} | not measured: no time was left | | | |"
    return f"| {name} | {told['p50']:.0f} ms | {numbers}"
