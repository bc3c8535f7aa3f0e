"""What an engine's interface has and lacks: engines change theirs from release to release."""

from __future__ import annotations

import importlib
from collections.abc import Iterable


def absent(module: str, names: Iterable[str]) -> list[str]:
    """Those of `names` ("Class" or "Class.member") that the module lacks."""
    try:
        found = importlib.import_module(module)
    except ImportError:
        return list(names)
    lacking = []
    for name in names:
        owner, _, member = name.partition(".")
        if not hasattr(found, owner) or (member and not hasattr(getattr(found, owner), member)):
            lacking.append(name)
    return lacking
