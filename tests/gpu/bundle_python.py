"""The bundle's Python: its wheel on the path, its executables found. For the gpu_*.py steps."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

#: Exit status of a step that cannot run here.
SKIPPED = 77


@dataclass(frozen=True)
class Bundle:
    """Where a step finds what it runs, and where it leaves its results."""

    folder: Path
    out: Path
    site: Path  # the unpacked wheel

    def environment(self) -> dict[str, str]:
        """For child processes: the same packages, and the executables."""
        path = os.pathsep.join([str(self.site), str(self.folder), *filter(None, sys.path)])
        return {**os.environ, "PYTHONPATH": path, "REPRISE_BIN": str(self.folder)}


def run_step(step: Callable[[Bundle], int]) -> None:
    """Runs `step` with the bundle that the command line names, and exits with its status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    try:
        import torch
    except ImportError as missing:
        print(f"SKIPPED: {missing}")
        sys.exit(SKIPPED)
    if not torch.cuda.is_available():
        print("SKIPPED: torch sees no GPU")
        sys.exit(SKIPPED)
    with tempfile.TemporaryDirectory(prefix="reprise-gpu-") as name:
        wheels = sorted(given.bundle.glob("*.whl"))
        if not wheels:
            print(f"there is no wheel in {given.bundle}: `./dev gpu-bundle` makes one")
            sys.exit(1)
        zipfile.ZipFile(wheels[-1]).extractall(name)
        sys.path[:0] = [name, str(given.bundle)]
        sys.exit(step(Bundle(given.bundle.resolve(), given.out.resolve(), Path(name))))


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Prints a Markdown table: run.sh puts it into the results."""
    print()
    print("| " + " | ".join(header) + " |")
    print("|" + "|".join("---" if i == 0 else "---:" for i in range(len(header))) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    sys.stdout.flush()
