"""What the tests of the status port share: servers that have one, and a strict reader of it."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TIMEOUT = 60.0

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(rf"({NAME})(?:\{{(.*)\}})? (\S+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)')
KINDS = {"counter", "gauge", "histogram"}

Labels = frozenset[tuple[str, str]]


@dataclass
class Scrape:
    """One answer of /metrics, read as the format says it (0.0.4) and no looser."""

    types: dict[str, str] = field(default_factory=dict)
    values: dict[tuple[str, Labels], float] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Scrape:
        scrape, helped, family = cls(), set(), ""
        assert text.endswith("\n")
        for line in text[:-1].split("\n"):
            if line.startswith("# HELP "):
                family = line.split(" ")[2]
                assert family not in helped and line.split(" ", 3)[3], line
                helped.add(family)
            elif line.startswith("# TYPE "):
                name, kind = line.split(" ")[2:]
                assert name == family and kind in KINDS and name not in scrape.types, line
                scrape.types[name] = kind
            else:
                scrape._sample(line, family)
        return scrape

    def _sample(self, line: str, family: str) -> None:
        match = SAMPLE.fullmatch(line)
        assert match, f"no sample: {line!r}"
        name, text, value = match.groups()
        suffixes = ("_bucket", "_sum", "_count") if self.types[family] == "histogram" else ("",)
        assert name in {family + suffix for suffix in suffixes}, f"{line!r} within {family}"
        labels = []
        at = 0
        while text and at < len(text):
            label = LABEL.match(text, at)
            assert label, f"no labels: {line!r}"
            labels.append((label[1], label[2]))
            at = label.end()
        key = (name, frozenset(labels))
        assert len(key[1]) == len(labels) and key not in self.values, f"twice: {line!r}"
        self.values[key] = float(value)

    def get(self, name: str, **labels: str) -> float:
        return self.values[name, frozenset(labels.items())]

    def labels(self, family: str) -> set[str]:
        """Names of the labels that its series have, apart from a bucket's bound."""
        return {label for (name, labels) in self.values for label, _ in labels
                if self.family(name) == family and label != "le"}

    def family(self, name: str) -> str:
        for suffix in ("_bucket", "_sum", "_count"):
            if self.types.get(name.removesuffix(suffix)) == "histogram":
                return name.removesuffix(suffix)
        return name

    def calls(self, method: str, code: str = "OK") -> float:
        key = ("reprise_rpc_server_duration_seconds_count",
               frozenset({("method", method), ("code", code)}))
        return self.values.get(key, 0.0)


@dataclass
class Server:
    """One process that has a status port."""

    process: subprocess.Popen[str]
    address: str
    status: str
    facts: dict[str, Any] = field(default_factory=dict)  # what it printed when it served

    def get(self, path: str, method: str = "GET") -> tuple[int, str, str]:
        """Status, content type and body."""
        connection = http.client.HTTPConnection(self.status, timeout=TIMEOUT)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return (response.status, response.getheader("Content-Type", ""),
                    response.read().decode())
        finally:
            connection.close()

    def scrape(self) -> Scrape:
        status, content_type, body = self.get("/metrics")
        assert (status, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
        return Scrape.parse(body)


@contextmanager
def serving(
    binary: Path, *arguments: str, log: Path, listen: str = "127.0.0.1:0",
    status: str = "127.0.0.1:0"
) -> Iterator[Server]:
    """Starts a shard or a router with a status port."""
    command = [str(binary), "--listen", listen, "--status-listen", status, "-o", "json", *arguments]
    with log.open("ab") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        assert process.stdout is not None
        facts = json.loads(process.stdout.readline())
        yield Server(process, facts["address"], facts["status_address"], facts)
    finally:
        process.kill()
        process.wait()
