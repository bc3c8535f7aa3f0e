"""Real LMCache engines over one Reprise cache of real shards.

Everything here is skipped, aloud, where LMCache is not installed. `./dev test` installs it.
"""

from __future__ import annotations

import gc
import logging
import os
import pathlib
import sys
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[3]
sys.path.append(str(ROOT / "client" / "python"))  # the demo; an installed reprise goes first
sys.path.append(str(pathlib.Path(__file__).parent))
sys.path.append(str(ROOT / "tests" / "e2e" / "support"))

from engine_fixtures import binaries, folder, skip_all  # noqa: E402, F401

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["LMCACHE_TRACK_USAGE"] = "false"  # nothing is told to anybody
os.environ["LMCACHE_LOG_LEVEL"] = "WARNING"
os.environ["PYTHONHASHSEED"] = "0"  # for processes that are started here, as LMCache wants it

reason: str | None = None
try:
    import lmcache  # noqa: F401
except ImportError as missing:
    reason = f"LMCache is not installed here ({missing}): ./dev test installs it"
else:
    from demo.cluster import Cluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip_all(items, reason)


@pytest.fixture(scope="session")
def cache(binaries: pathlib.Path, folder: pathlib.Path) -> Iterator["Cluster"]:
    log = folder / "reprise.log"
    with Cluster(binaries, shards=3, dram="384MiB", replication=1, log=log) as cluster:
        yield cluster


class Log(logging.Handler):
    """What was logged, since LMCache's loggers pass nothing on."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@pytest.fixture(autouse=True)
def nothing_left_to_the_collector() -> Iterator[None]:
    """Each memory object is counted down once: LMCache mends what is not, and says so."""
    import lmcache.v1.memory_management  # noqa: F401 - its import makes its logger anew

    handler = Log()
    logging.getLogger("lmcache.v1.memory_management").addHandler(handler)
    yield
    gc.collect()
    logging.getLogger("lmcache.v1.memory_management").removeHandler(handler)
    wrong = ("garbage collected", "Double")  # forgotten, or counted down twice
    assert [line for line in handler.lines if any(word in line for word in wrong)] == []


@pytest.fixture
def log() -> Iterator[Log]:
    import reprise.engines.lmcache.adapter  # noqa: F401 - its import makes its logger anew

    handler = Log()
    storage = "lmcache.v1.storage_backend"
    names = ["lmcache.reprise", storage, f"{storage}.connector", f"{storage}.remote_backend"]
    for name in names:
        logging.getLogger(name).addHandler(handler)
    yield handler
    for name in names:
        logging.getLogger(name).removeHandler(handler)
