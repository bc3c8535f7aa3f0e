"""The vLLM servers that are compared, all over one model; one that does not start fails the cases
that need it and no others.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
from typing import Any

import network
import steps
from demo.cluster import Cluster
from demo.vllm_fleet import Server, reprise_connector
from measure import Budget, Progress

TIMED = pathlib.Path(__file__).parent / "timed"  # what a server imports of this benchmark
# Longer than anyone would set: a busy machine must not turn a hit into a late answer.
PATIENT = {"lookup_budget_ms": 5_000, "load_timeout_ms": 10_000, "explain_interval_ms": 0}


class Servers(contextlib.ExitStack):
    """`plain` (no connector), `near` and `far` (Reprise on this host, across a network namespace),
    `files` (vLLM's ExampleConnector). Each is a Server that serves, or the reason why it does not.
    """

    def __init__(self, folder: pathlib.Path, model: pathlib.Path, progress: Progress) -> None:
        super().__init__()
        self._folder, self._model, self._progress = folder, model, progress
        self.steps_file = folder / "steps.bin"
        self.steps_file.touch()
        self._started: dict[str, Server] = {}
        self.unusable: dict[str, Exception] = {}

    def start(self, binaries: pathlib.Path, budget: Budget) -> None:
        """Starts all at once, which takes as long as starting them in turn, and waits for them."""
        self._attempt("plain", lambda: None)
        self._attempt("near", lambda: self._near(binaries))
        self._attempt("far", self._far)
        self._attempt("files", self._files)
        for name, server in list(self._started.items()):
            self._progress.say(f"waiting for vLLM {name}")
            try:
                server.ready(max(1.0, budget.left()))
            except Exception as error:
                self._give_up(name, error)

    def get(self, name: str) -> Server:
        """Raises what kept it from serving."""
        if name in self.unusable:
            raise self.unusable[name]
        return self._started[name]

    def stop(self, *names: str) -> None:
        for name in names:
            if name in self._started:
                self._started[name].close()

    def _attempt(self, name: str, connector: Any) -> None:
        try:
            config = connector()
            environment = {
                steps.FILE_VARIABLE: str(self.steps_file),
                "PYTHONPATH": os.pathsep.join(
                    filter(None, (os.environ.get("PYTHONPATH", ""), str(TIMED)))
                ),
            }
            server = Server(
                self._folder, self._model, name, connector=config, environment=environment
            )
            self.callback(server.close)
            self._started[name] = server
        except Exception as error:
            self._give_up(name, error)

    def _give_up(self, name: str, error: Exception) -> None:
        self._progress.say(f"no vLLM {name}: {error}")
        self.unusable[name] = error
        self.stop(name)

    def _near(self, binaries: pathlib.Path) -> dict[str, Any]:
        cluster = self.enter_context(
            Cluster(
                binaries, shards=2, dram="1GiB", replication=1, log=self._folder / "reprise.log"
            )
        )
        config = reprise_connector(cluster.router, **PATIENT)
        return config | {
            "kv_connector": "TimedConnector",
            "kv_connector_module_path": "timed_connector",
        }

    def _far(self) -> dict[str, Any]:
        address = self.enter_context(network.shard_across_a_network(self._folder))
        config = reprise_connector("", **PATIENT)
        del config["kv_connector_extra_config"]["router"]
        config["kv_connector_extra_config"]["shards"] = [address]
        return config

    def _files(self) -> dict[str, Any]:
        return {
            "kv_connector": "ExampleConnector",
            "kv_role": "kv_both",
            "kv_connector_extra_config": {"shared_storage_path": str(self._folder / "files")},
        }
