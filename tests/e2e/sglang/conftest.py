"""Two real SGLang servers over one Reprise cache, made once for all tests of this folder.

Everything here is skipped, aloud, where SGLang is not installed. `./dev test` installs it. Of
SGLang, only the copies between its device's and its host's memory are ours (on_cpu): those are CUDA
kernels.
"""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[3]
sys.path.append(str(ROOT / "client" / "python"))  # the demo; an installed reprise goes first
sys.path.append(str(pathlib.Path(__file__).parent))
sys.path.append(str(pathlib.Path(__file__).parent / "on_cpu"))
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
os.environ["HF_HUB_OFFLINE"] = "1"  # models are made here
try:
    import sglang  # noqa: F401
except ImportError as missing:
    reason = f"SGLang is not installed here ({missing}): ./dev test installs it"
else:
    from demo.cluster import Cluster
    from server import Server, reprise_backend


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip_all(items, reason)
    last_goes_last(items)


def pytest_configure(config: pytest.Config) -> None:
    know_last(config)


@pytest.fixture(scope="session")
def cache(binaries: pathlib.Path, folder: pathlib.Path) -> Iterator["Cluster"]:
    log = folder / "reprise.log"
    with Cluster(binaries, shards=3, dram="64MiB", replication=2, log=log) as cluster:
        yield cluster


class Pair:
    """Servers A and B, with host memory of two layouts, over the session's cache."""

    def __init__(self, folder: pathlib.Path, model: pathlib.Path, router: str) -> None:
        backend = reprise_backend(router, lookup_timeout_ms=4000, explain_interval_ms=1000)
        self.a = Server(folder, model, "A", backend, layout="page_first_direct")
        self.b = Server(folder, model, "B", backend, layout="layer_first")
        self.both = [self.a, self.b]

    def close(self) -> None:
        for server in self.both:
            server.close()


@pytest.fixture(scope="session")
def pair(folder: pathlib.Path, model: pathlib.Path, cache: "Cluster") -> Iterator[Pair]:
    servers = Pair(folder, model, cache.router)
    try:
        for server in servers.both:
            server.ready()
        yield servers
    finally:
        servers.close()
