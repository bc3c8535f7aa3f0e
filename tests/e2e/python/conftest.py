"""A real cache for the tests: `reprise up` from $REPRISE_BIN, a router and three shards."""

import importlib
import itertools
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import reprise

# After what is installed: `reprise` is the wheel, `demo` is the sources.
sys.path.append(str(Path(__file__).resolve().parents[3] / "client" / "python"))

from demo.cluster import Cluster  # noqa: E402

SHARDS = 3
PROTO = Path(__file__).resolve().parents[3] / "proto"


@dataclass(frozen=True)
class Generated:
    """What grpcio-tools makes of the published proto: messages and stubs."""

    common: ModuleType
    shard: ModuleType
    shard_grpc: ModuleType
    router: ModuleType
    router_grpc: ModuleType


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generated]:
    """Stock stubs, generated anew."""
    from grpc_tools import protoc

    out = tmp_path_factory.mktemp("generated")
    files = [str(PROTO / f"reprise/v1/{name}.proto") for name in ("common", "shard", "router")]
    arguments = ["protoc", f"-I{PROTO}", f"--python_out={out}", f"--grpc_python_out={out}", *files]
    assert protoc.main(arguments) == 0
    # The client's package has the name that the proto's package has: the stubs lie beside it.
    reprise.__path__.append(str(out / "reprise"))
    try:
        yield Generated(*(
            importlib.import_module(f"reprise.v1.{name}")
            for name in ("common_pb2", "shard_pb2", "shard_pb2_grpc", "router_pb2",
                         "router_pb2_grpc")))
    finally:
        reprise.__path__.remove(str(out / "reprise"))


@pytest.fixture(scope="session")
def binaries() -> Path:
    """The folder with the executables."""
    folder = os.environ.get("REPRISE_BIN")
    if not folder or not (Path(folder) / "reprise").exists():
        pytest.fail("set REPRISE_BIN to the folder with `reprise` (./dev test does)")
    return Path(folder)


@pytest.fixture(scope="session")
def cluster(binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cache that tests share and leave whole."""
    log = tmp_path_factory.mktemp("cluster") / "log"
    with Cluster(binaries, shards=SHARDS, dram="128MiB", log=log) as running:
        yield running


@pytest.fixture
def own_cluster(binaries: Path, tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Makes a cache that a test may damage."""
    running: list[Cluster] = []

    def start(**options: Any) -> Cluster:
        number = len(running)
        running.append(Cluster(binaries, log=tmp_path / f"cluster-{number}.log", **options))
        return running[-1]

    yield start
    for one in running:
        one.stop()


@pytest.fixture
def client(cluster: Cluster) -> Iterator[reprise.Client]:
    """A client of the shared cache."""
    with reprise.Client(router=cluster.router, name="tests") as opened:
        yield opened


@pytest.fixture
def spec() -> reprise.CacheSpec:
    """A spec of this test's own: tests share shards and no blocks."""
    return make_spec()


@pytest.fixture
def prompt() -> Callable[[int], np.ndarray]:
    """Tokens that no other test has."""
    start = itertools.count(int.from_bytes(os.urandom(2), "little") * 1000)
    return lambda count: (next(start) + np.arange(count)).astype(np.uint32)


def make_spec(**fields: Any) -> reprise.CacheSpec:
    """A small GQA spec, unique unless `model` is given."""
    given = {
        "model": f"test-{uuid.uuid4()}",
        "dtype": "f32",
        "layers": 3,
        "kv_heads": 2,
        "head_dim": 20,
    }
    return reprise.CacheSpec(**{**given, **fields})


def random_blocks(spec: reprise.CacheSpec, count: int, seed: int = 0) -> np.ndarray:
    """Blocks of random bytes, (count, block_bytes)."""
    return np.random.default_rng(seed).integers(0, 256, (count, spec.block_bytes), np.uint8)
