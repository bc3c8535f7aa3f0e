"""Mooncake Store over TCP: a master, a process that owns the memory, and clients that have none.

It listens on all addresses, so all of it runs in a network namespace of its own.
"""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Sequence

from memory import Blocks, Memory
from peer import Keys, Skipped

PYTHON = "REPRISE_PEER_MOONCAKE"  # names the Python that has the package
LIBRARIES = "REPRISE_PEER_MOONCAKE_LIBRARIES"  # names where the packages are unpacked
MASTER = "127.0.0.1:50051"  # nobody else is in the namespace
OWN_BUFFER_BYTES = 64 << 20
READY = "the memory is mounted"
# What Mooncake knows as a lease keeps what was looked up from leaving. The default of 10 s is a
# part of the whole time in which the benchmark fills the memory twice.
LEASE_MS = 500
# TCP and one connection kept for all transfers; never a memcpy within one process.
ENVIRONMENT = {
    "MC_FORCE_TCP": "1",
    "MC_TCP_ENABLE_CONNECTION_POOL": "1",
    "MC_TCP_BIND_ADDRESS": "127.0.0.1",
    "MC_STORE_MEMCPY": "0",
    "GLOG_minloglevel": "2",
}


def python() -> str:
    """The Python that its processes run in. Raises Skipped."""
    found = os.environ.get(PYTHON)
    if not found:
        raise Skipped("its package was not brought here")
    return found


def environment() -> dict[str, str]:
    """What its processes are to find in their environment."""
    from processes import libraries_of

    return ENVIRONMENT | libraries_of(os.environ[LIBRARIES]) | {"PYTHONPATH": ""}


class Server:
    """The master and the owner of the memory, `inside` a namespace."""

    def __init__(self, memory_bytes: int, folder: pathlib.Path, inside: Sequence[str]) -> None:
        from processes import Process

        self.facts: dict[str, str] = {}
        master = os.path.join(os.path.dirname(python()), "mooncake_master")
        self._processes = [
            Process(
                [
                    master, f"--rpc_address={MASTER.split(':')[0]}",
                    f"--rpc_port={MASTER.split(':')[1]}", "--metrics_host=127.0.0.1",
                    f"--default_kv_lease_ttl={LEASE_MS}",
                ],
                folder / "mooncake-master.log",
                environment(),
                inside=inside,
            )
        ]  # fmt: skip
        try:
            owner = Process(
                [python(), __file__, str(memory_bytes)],
                folder / "mooncake-owner.log",
                environment(),
                inside=inside,
            )
            self._processes.append(owner)
            owner.await_ready(lambda: READY in owner.log())
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        for process in self._processes[::-1]:
            process.stop()


class Client:
    """Batches out of and into registered memory."""

    def __init__(self, memory: Memory) -> None:
        self._store = _opened(0)
        for blocks in (memory.source, memory.target):
            if self._store.register_buffer(blocks.addresses[0], blocks.array.nbytes):
                raise RuntimeError("Mooncake did not register the worker's memory")

    def store(self, keys: Keys, blocks: Blocks, first: int = 0) -> int:
        sizes = [blocks.block_bytes] * (len(keys) - first)
        codes = self._store.batch_put_from(
            keys.text[first:], blocks.addresses[first : len(keys)], sizes
        )
        return int(codes.count(0))

    def fetch(self, keys: Keys, blocks: Blocks) -> None:
        sizes = [blocks.block_bytes] * len(keys)
        got = self._store.batch_get_into(keys.text, blocks.addresses[: len(keys)], sizes)
        if got != sizes:
            raise ValueError(f"batch_get_into answered {[one for one in got if one < 0][:3]}")

    def prefix(self, keys: Keys) -> int:
        found = self._store.batch_is_exist(keys.text)
        return len(keys) if 0 not in found else found.index(0)

    def stored(self, prompts: Sequence[Keys]) -> int:
        return sum(self._store.batch_is_exist(keys.text).count(1) for keys in prompts)

    def remove(self, keys: Keys) -> None:
        self._store.batch_remove(keys.text, True)

    def close(self) -> None:
        self._store.close()


def _opened(segment_bytes: int):  # type: ignore[no-untyped-def]
    from mooncake.store import MooncakeDistributedStore

    store = MooncakeDistributedStore()
    if store.setup(
        "127.0.0.1", "P2PHANDSHAKE", segment_bytes, OWN_BUFFER_BYTES, "tcp", "", MASTER
    ):
        raise RuntimeError("Mooncake did not set up its client")
    return store


if __name__ == "__main__":
    owned = _opened(int(sys.argv[1]))
    print(READY, flush=True)
    sys.stdin.read()  # until who started this is gone, or ends it
    owned.close()
    os._exit(0)  # its threads do not end by themselves
