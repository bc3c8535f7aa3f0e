"""The demo with Hugging Face Transformers.

Worker A holds a conversation of several turns over a document and stores as it goes. Then worker A
and the shard that is home to its session are killed, and worker B, another process, answers the
last turn from what is stored.

Three things are measured beside it, by a control worker that never heard of Reprise:
- the same conversation with the engine's own K/V cache, in the same steps: logits must be equal bit
  for bit. (On a GPU two processes may differ in the last bit of bf16 by themselves, as the first
  turn shows, where nothing was restored: one rounding is allowed there.)
- the last prompt computed from nothing: what worker B would have had to do. Its logits differ in
  the last bits, because the answers of earlier turns are computed there in one step and not one by
  one. In fp32 its tokens must be the same; in bf16 the last bits are enough to turn one choice of
  many, so its first logits are compared and the tokens are counted up to where they part;
- the last answer without any K/V cache.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from demo.cluster import Cluster
from demo.console import Console
from demo.conversation import make_conversation, train_tokenizer
from demo.options import Options
from demo.report import Report, Section, count, milliseconds, names, seconds, size
from demo.worker_process import WorkerProcess

SESSION = "demo-conversation"

#: Same steps on the same bytes, relative to the largest logit: nothing may differ in fp32 on a CPU,
#: one rounding of bf16 on a GPU.
TOLERANCE = {"cpu": 0.0, "cuda": 2.0**-8}
#: Other steps: rounding through all layers, relative to the largest logit.
COLD_TOLERANCE = {"cpu": 1e-4, "cuda": 5e-2}  # fp32, bf16

REPLICA_SECONDS = 30.0
EARLIER_ANSWER_TOKENS = 32


def run(options: Options, console: Console) -> Report:
    """Tells the story, and measures it."""
    console.title("Reprise: a conversation survives the death of its worker and of its shard")
    with tempfile.TemporaryDirectory(prefix="reprise-demo-") as name:
        story = _Story(options, console, Path(name))
        with Cluster(
            options.binaries,
            shards=options.shards,
            dram=options.dram,
            hbm=options.hbm,
            log=Path(name) / "cluster.log",
        ) as cluster:
            story.tell(cluster)
        return story.report()


class _Story:
    def __init__(self, options: Options, console: Console, folder: Path) -> None:
        self._options = options
        self._console = console
        self._folder = folder
        self._talk = make_conversation(options.size, options.turns)
        self._setup: dict[str, Any] = {
            "model": options.model,
            "size": options.size,
            "device": options.device,
            "tokenizer": "",
        }
        if options.model is None:
            self._setup["tokenizer"] = str(train_tokenizer(folder, options.size))
        self._prompts: list[list[int]] = []
        self._answers: list[dict[str, Any]] = []
        self._history: list[int] = []
        self._facts: dict[str, Any] = {}

    # ---- The story

    def tell(self, cluster: Cluster) -> None:
        """From the first question to the last control."""
        ids = [shard.id for shard in cluster.shards]
        self._console.note(f"router {cluster.router}, {names(ids)} serve, each a process")
        self._worker_a(cluster)
        self._worker_b(cluster)
        self._controls()

    def _worker_a(self, cluster: Cluster) -> None:
        with self._start("A", cluster.router) as worker:
            self._model: str = worker.facts["model"]
            self._block_bytes: int = worker.facts["block_bytes"]
            self._block_tokens: int = worker.facts["block_tokens"]
            self._console.note(f"worker A, pid {worker.pid}: {self._model}")
            self._turns = [worker.encode(text) for text in self._talk.turns]
            for turn in range(len(self._turns) - 1):
                self._turn(worker, turn)
            with self._console.doing("waiting until the last turn has its replica"):
                self._await_replicas(worker)
            served = self._answers[-1]["served_by"]
            home = max(served, key=served.get) if served else cluster.shards[0].id
            self._console.alarm(f"worker A, pid {worker.kill()}, killed with SIGKILL")
        shard = cluster.kill_shard(home)
        self._killed = shard
        self._console.alarm(
            f"{shard.id}, pid {shard.pid}, home of the session, killed with SIGKILL"
        )
        self._facts.update(
            worker_killed=True, worker_killed_pid=worker.pid,
            shard_killed=True, shard_killed_id=shard.id, shard_killed_pid=shard.pid,
        )  # fmt: skip

    def _worker_b(self, cluster: Cluster) -> None:
        with self._start("B", cluster.router) as worker:
            self._console.note(f"worker B, pid {worker.pid}, has never seen this conversation")
            self._turn(worker, len(self._turns) - 1)

    def _controls(self) -> None:
        with self._start("control", None) as worker:
            with self._console.doing(
                "control: the whole conversation with the engine's own K/V cache"
            ):
                self._own = [
                    worker.ask("own", prompt, len(answer["tokens"]), cached=answer["cached_tokens"])
                    for prompt, answer in zip(self._prompts, self._answers)
                ]
            with self._console.doing("control: the last prompt computed from nothing"):
                self._cold = worker.ask("cold", self._prompts[-1], self._count)
            self._console.note(
                f"control: {count(len(self._prompts[-1]))} tokens computed from nothing, "
                f"first token after {milliseconds(self._cold['ttft_ms'])}"
            )
            with self._console.doing(f"control: {self._count} tokens without any K/V cache"):
                self._no_cache = worker.ask("no-cache", self._prompts[-1], self._count)
            # Logits are read while the folder is there.
            self._compare()

    # ---- Its steps

    @property
    def _count(self) -> int:
        return self._options.answer_tokens

    def _count_of(self, turn: int) -> int:
        """Tokens of an answer: only the last one is measured, the others need not be long."""
        last = turn == len(self._turns) - 1
        return self._count if last else min(self._count, EARLIER_ANSWER_TOKENS)

    def _start(self, name: str, router: str | None) -> WorkerProcess:
        with self._console.doing(f"starting worker {name}: Python, torch, weights"):
            return WorkerProcess(name, {**self._setup, "router": router}, self._folder)

    def _turn(self, worker: WorkerProcess, turn: int) -> None:
        prompt = self._history + self._turns[turn]
        with self._console.doing(f"turn {turn + 1}: worker {worker.name} answers"):
            answer = worker.ask("reprise", prompt, self._count_of(turn), session=SESSION)
        self._history = prompt + answer["tokens"]
        self._prompts.append(prompt)
        self._answers.append({**answer, "worker": worker.name})
        sources = f" from {names(answer['served_by'])}" if answer["served_by"] else ""
        self._console.note(
            f"turn {turn + 1}: worker {worker.name}, {count(len(prompt))} tokens, "
            f"{count(answer['cached_tokens'])} cached{sources}, "
            f"first token after {milliseconds(answer['ttft_ms'])}, "
            f"{answer['stored_blocks']} new blocks stored"
        )
        if self._options.model is not None:
            self._console.note(f"        {answer['text'].strip()!r}")

    def _stored_tokens(self) -> int:
        """Tokens in full blocks that worker A left; the last token it gave was never an input."""
        if len(self._prompts) < 2:
            return 0
        before = len(self._prompts[-2]) + len(self._answers[-2]["tokens"]) - 1
        return before // self._block_tokens * self._block_tokens

    def _await_replicas(self, worker: WorkerProcess) -> None:
        """Returns when two shards hold all that was stored, or after a while: B will tell."""
        whole = (len(self._history) - 1) // self._block_tokens
        end = time.monotonic() + REPLICA_SECONDS
        while time.monotonic() < end:
            holding = [
                shard
                for shard, blocks in worker.shards_with(self._history).items()
                if blocks >= whole
            ]
            if len(holding) >= 2:
                self._console.note(f"{whole} blocks on {names(holding)}")
                return
            time.sleep(0.05)

    # ---- What came of it

    def _compare(self) -> None:
        restored = self._answers[-1]
        self._difference = max(
            _difference(mine, own) for mine, own in zip(self._answers, self._own, strict=True)
        )
        self._first_turn_difference = _difference(self._answers[0], self._own[0])
        exact = self._options.device == "cpu"
        self._cold_difference = _difference(restored, self._cold, steps=None if exact else 1)
        self._largest_logit = float(np.abs(np.load(self._cold["logits"])).max())
        self._cold_tokens_equal = _leading_equal(restored["tokens"], self._cold["tokens"])
        self._identical = all(
            mine["tokens"] == own["tokens"] for mine, own in zip(self._answers, self._own)
        )
        if exact:
            self._identical &= restored["tokens"] == self._cold["tokens"]
            self._identical &= restored["tokens"] == self._no_cache["tokens"]

    def _tolerance(self) -> float:
        return TOLERANCE[self._options.device] * self._largest_logit

    def _cold_tolerance(self) -> float:
        return COLD_TOLERANCE[self._options.device] * self._largest_logit

    def report(self) -> Report:
        """Facts, tables and failures."""
        restored = self._answers[-1]
        report = Report()
        report.facts = {
            "engine": "transformers",
            "device": self._options.device,
            "model": self._model,
            "tokens_identical": self._identical,
            "max_logit_difference": self._difference,
            "max_logit_tolerance": self._tolerance(),
            "first_turn_logit_difference": self._first_turn_difference,
            "cold_logit_difference": self._cold_difference,
            "cold_logit_tolerance": self._cold_tolerance(),
            "cold_tokens_equal": self._cold_tokens_equal,
            "prompt_tokens": len(self._prompts[-1]),
            "cached_tokens": restored["cached_tokens"],
            "blocks_restored": restored["blocks"],
            "bytes_restored": restored["bytes"],
            "restored_from": restored["served_by"],
            "lanes": restored["lanes"],
            "tiers": restored["tiers"],
            "usage": restored["usage"],
            "restore_ms": restored["restore_ms"],
            "ttft_cold_ms": self._cold["ttft_ms"],
            "ttft_restored_ms": restored["ttft_ms"],
            "ttft_speedup": self._cold["ttft_ms"] / restored["ttft_ms"],
            "answer_tokens": self._count,
            "generate_no_cache_s": self._no_cache["total_s"],
            "generate_kv_cache_s": self._cold["total_s"],
            "generate_restored_s": restored["total_s"],
            **self._facts,
        }
        self._judge(report)
        report.sections = [self._turns_table(), self._restored_table(), self._generation_table()]
        return report

    def _judge(self, report: Report) -> None:
        facts, error = report.facts, self._answers[-1]["error"]
        why = f" ({error})" if error else ""
        report.require(facts["bytes_restored"] > 0, f"nothing was restored{why}")
        report.require(
            facts["cached_tokens"] == self._stored_tokens(),
            f"{facts['cached_tokens']} tokens came back, {self._stored_tokens()} were stored{why}",
        )
        report.require(
            self._killed.id not in facts["restored_from"],
            f"{self._killed.id} is dead and served blocks",
        )
        report.require(facts["tokens_identical"], "the tokens differ from those of the controls")
        report.require(
            facts["max_logit_difference"] <= facts["max_logit_tolerance"],
            f"logits differ by {facts['max_logit_difference']:g} from the engine's own K/V cache: "
            f"{facts['max_logit_tolerance']:g} is allowed",
        )
        report.require(
            facts["cold_logit_difference"] <= facts["cold_logit_tolerance"],
            f"logits differ by {facts['cold_logit_difference']:g} from those of a cold prompt: "
            f"{facts['cold_logit_tolerance']:g} is allowed",
        )

    def _turns_table(self) -> Section:
        rows: list[tuple[str, ...]] = []
        for turn, (prompt, answer) in enumerate(zip(self._prompts, self._answers), 1):
            rows.append(
                (
                    str(turn), answer["worker"], count(len(prompt)), count(answer["cached_tokens"]),
                    count(len(prompt) - answer["cached_tokens"]), milliseconds(answer["ttft_ms"]),
                    names(answer["served_by"]) or "-",
                )
            )  # fmt: skip
        header = (
            "turn",
            "worker",
            "prompt",
            "cached",
            "computed",
            "first token",
            "blocks came from",
        )
        return Section("The conversation, in tokens", rows, header)

    def _restored_table(self) -> Section:
        restored, facts = self._answers[-1], self.facts_of_last()
        lanes = names(f"{lane} lane" for lane in restored["lanes"])
        return Section(
            "The last turn: restored on worker B, beside the same prompt computed from nothing",
            [
                ("killed before it", f"worker A and {self._killed.id}, the home of its session"),
                ("cached tokens", f"{count(facts['cached'])} of {count(facts['prompt'])}"),
                (
                    "restored",
                    f"{restored['blocks']} blocks, {size(restored['bytes'])}, from "
                    f"{names(restored['served_by'])} over the {lanes}, "
                    f"in {milliseconds(restored['restore_ms'])}",
                ),
                ("first token, cold", milliseconds(self._cold["ttft_ms"])),
                ("first token, restored", milliseconds(restored["ttft_ms"])),
                ("speed-up", f"{self._cold['ttft_ms'] / restored['ttft_ms']:.1f} x"),
                ("tokens identical", "yes" if self._identical else "NO"),
                (
                    "largest logit difference",
                    f"{self._difference:g} to the engine's own K/V cache, "
                    f"{self._cold_difference:.1g} to cold (logits up to {self._largest_logit:.0f})",
                ),
            ],
        )

    def facts_of_last(self) -> dict[str, int]:
        """Prompt and cached tokens of the last turn."""
        return {"prompt": len(self._prompts[-1]), "cached": self._answers[-1]["cached_tokens"]}

    def _generation_table(self) -> Section:
        ways = (
            ("no K/V cache", self._no_cache),
            ("the engine's own K/V cache", self._cold),
            ("prefix restored from Reprise", self._answers[-1]),
        )
        slowest = self._no_cache["total_s"]
        rows: list[tuple[str, ...]] = [
            (
                name,
                milliseconds(row["ttft_ms"]),
                seconds(row["total_s"]),
                f"{slowest / row['total_s']:.1f} x",
            )
            for name, row in ways
        ]
        title = f"Generating {self._count} tokens after {count(len(self._prompts[-1]))}"
        return Section(title, rows, ("with", "first token", "all tokens", "speed-up"))


def _leading_equal(left: list[int], right: list[int]) -> int:
    """How many tokens two answers have in common before they part."""
    pairs = enumerate(zip(left, right))
    return next((index for index, (a, b) in pairs if a != b), min(len(left), len(right)))


def _difference(left: dict[str, Any], right: dict[str, Any], steps: int | None = None) -> float:
    """Largest absolute difference of two answers' logits, of the first `steps` (None: of all);
    infinite where one is not a number."""
    difference = np.abs(np.load(left["logits"])[:steps] - np.load(right["logits"])[:steps]).max()
    return float(difference) if np.isfinite(difference) else float("inf")
