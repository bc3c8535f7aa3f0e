"""Two real vLLM servers over one Reprise cache, made once for all tests of this folder.

Everything here is skipped, aloud, where vLLM is not installed. `./dev test` installs it into an
environment of its own.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[3]
sys.path.append(str(ROOT / "client" / "python"))  # the demo; an installed reprise goes first
sys.path.append(str(pathlib.Path(__file__).parent))
sys.path.append(str(ROOT / "tests" / "e2e" / "support"))

from engine_fixtures import (  # noqa: E402, F401
    binaries,
    folder,
    know_last,
    last_goes_last,
    model,
    skip_all,
)

reason: str | None = None
try:
    import vllm  # noqa: F401
except ImportError as missing:
    reason = f"vLLM is not installed here ({missing}): ./dev test installs its CPU build"
else:
    from demo.cluster import Cluster
    from demo.vllm_fleet import Server, reprise_connector

SHARDS = 5
# Longer than anyone would set: counts here are exact, and a busy machine must not turn a hit into a
# late answer.
LOOKUP_BUDGET_MS = 3_000
LOAD_TIMEOUT_MS = 4_000
HANDOFF_WAIT_MS = 10_000
DRAM = "32MiB"  # small on purpose: the crowd's test fills it


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip_all(items, reason)
    last_goes_last(items)


def pytest_configure(config: pytest.Config) -> None:
    know_last(config)


@pytest.fixture(scope="session")
def cache(binaries: pathlib.Path, folder: pathlib.Path) -> Iterator["Cluster"]:
    with Cluster(
        binaries, shards=SHARDS, dram=DRAM, replication=2, log=folder / "reprise.log"
    ) as cluster:
        yield cluster


class Pair:
    """Servers A and B over the session's cache."""

    def __init__(self, folder: pathlib.Path, model: pathlib.Path, router: str) -> None:
        self._make = lambda name: Server(
            folder,
            model,
            name,
            connector=reprise_connector(
                router,
                lookup_budget_ms=LOOKUP_BUDGET_MS,
                load_timeout_ms=LOAD_TIMEOUT_MS,
                handoff_wait_ms=HANDOFF_WAIT_MS,
                explain_interval_ms=1000,
            ),
        )
        self.a, self.b = self._make("A"), self._make("B")
        self.both = [self.a, self.b]

    def ready(self) -> "Pair":
        for server in self.both:
            server.ready()
        return self

    def replace_a(self) -> None:
        self.a.close()
        self.a = self._make("A2").ready()
        self.both = [self.a, self.b]

    def close(self) -> None:
        for server in self.both:
            server.close()


@pytest.fixture(scope="session")
def pair(folder: pathlib.Path, model: pathlib.Path, cache: "Cluster") -> Iterator[Pair]:
    servers = Pair(folder, model, cache.router)
    try:
        yield servers.ready()
    finally:
        servers.close()
