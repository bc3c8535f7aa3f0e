"""Conversations that go on while a test does something to the cluster."""

import threading
import time

import numpy as np
import reprise
from conftest import random_blocks
from fleet import PATIENCE_SECONDS

CONVERSATIONS = 8
BLOCKS = 10


class Load:
    """One worker that reads conversations, verified, and lets them grow, until it is stopped."""

    def __init__(self, router: str, spec: reprise.CacheSpec) -> None:
        """Stores the conversations' beginnings."""
        self._client = reprise.Client(router=router, name="load", timeout=20)
        self._spec = spec
        self._keys = [
            reprise.block_keys(np.arange(160) + 1000 * (c + 1)) for c in range(CONVERSATIONS)
        ]
        self.asked = self.found = 0
        self.failures: list[str] = []
        for number, keys in enumerate(self._keys):
            blocks = self._bytes(number, 0, BLOCKS)
            assert self._client.store(spec, keys, blocks, session=str(number)).stored == BLOCKS
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def await_no_shard_left_out(self) -> None:
        """Returns when this worker has noticed, too, that every shard is back."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            shards = self._client.stats()["shards"]
            if all(shard["breaker"] == "closed" for shard in shards):
                return
            assert time.monotonic() < end, shards
            time.sleep(0.02)

    def stop(self) -> None:
        """Returns when the last call is over."""
        self._stopping.set()
        self._thread.join()
        self._client.close()

    def _bytes(self, number: int, first: int, end: int) -> np.ndarray:
        return random_blocks(self._spec, 200, seed=number)[first:end]

    def _run(self) -> None:
        turn = 0
        try:
            while not self._stopping.is_set():
                self._turn(turn % CONVERSATIONS)
                turn += 1
        except Exception as error:  # told by the test
            self.failures.append(repr(error))

    def _turn(self, number: int) -> None:
        keys = self._keys[number]
        back = np.zeros((len(keys), self._spec.block_bytes), np.uint8)
        with self._client.acquire(self._spec, keys, session=str(number)) as run:
            got = run.fetch(back[: run.blocks]).blocks if run.blocks else 0
        self.asked += len(keys)
        self.found += got
        if not np.array_equal(back[:got], self._bytes(number, 0, got)):
            self.failures.append(f"conversation {number}: wrong bytes")
        if len(keys) < 60:
            longer = reprise.block_keys(np.arange(16) + len(keys), parent=bytes(keys[-1]))
            self._keys[number] = keys = np.concatenate([keys, longer])
        # What was not found is computed and stored again, like an engine does.
        stored = self._client.store(
            self._spec, keys, self._bytes(number, got, len(keys)), first=got, session=str(number)
        )
        if stored.error:
            self.failures.append(f"conversation {number}: {stored}")
