"""What a demo found: facts for programs, sections for people, and what was wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Section:
    """A titled table: a row is its cells; a `header`, where there is one, names the columns."""

    title: str
    rows: list[tuple[str, ...]]
    header: tuple[str, ...] = ()


@dataclass
class Report:
    """`facts` is what `--json` prints; the demo succeeded when `failures` is empty."""

    facts: dict[str, Any] = field(default_factory=dict)
    sections: list[Section] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def require(self, holds: bool, otherwise: str) -> None:
        """Notes a failure unless `holds`."""
        if not holds:
            self.failures.append(otherwise)


def count(number: float) -> str:
    """1234567 as "1,234,567"."""
    return f"{number:,.0f}"


def milliseconds(value: float) -> str:
    """A time that a person compares: "1,234 ms", "56.7 ms"."""
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.1f} ms"


def seconds(value: float) -> str:
    """ "12.3 s", "0.456 s"."""
    return f"{value:.1f} s" if value >= 10 else f"{value:.2f} s" if value >= 1 else f"{value:.3f} s"


def size(value: float) -> str:
    """Bytes in binary units: "31.5 MiB"."""
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def names(words: Any) -> str:
    """ "a", "a and b", "a, b and c"."""
    listed = [str(word) for word in words]
    if len(listed) < 2:
        return "".join(listed)
    return f"{', '.join(listed[:-1])} and {listed[-1]}"
