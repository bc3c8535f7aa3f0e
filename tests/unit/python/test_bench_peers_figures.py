"""What `./dev bench peers` says of its measurements is right, and wrong bytes do not pass."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]
# After what is installed: `reprise` is the wheel.
sys.path += [str(ROOT / "tests" / "bench" / name) for name in ("peers", "support")]
sys.path.append(str(ROOT / "client" / "python"))

import lookups  # noqa: E402
import prompts  # noqa: E402
import ratios  # noqa: E402
import reach  # noqa: E402
import table  # noqa: E402
from memory import Memory  # noqa: E402
from peer import Keys  # noqa: E402
from sockets import receive_parts, send_parts  # noqa: E402
from worker import Worker  # noqa: E402

BLOCKS, BLOCK_BYTES = 3, 8192


# ---- Figures


def test_a_spread_has_the_median_and_both_ends() -> None:
    told = ratios.Spread.of([4.0, 1.0, 2.0, 8.0])
    assert (told.median, told.low, told.high) == (3.0, 1.0, 8.0)
    assert told.share == pytest.approx(7 / 3)
    with pytest.raises(ValueError, match="nothing was measured"):
        ratios.Spread.of([])


def test_a_ratio_is_of_each_repetition_and_not_of_medians() -> None:
    # The machine was ten times slower for both in the second repetition.
    told = ratios.ratio([20.0, 2.0, 30.0], [10.0, 1.0, 10.0])
    assert (told.median, told.low, told.high) == (2.0, 2.0, 3.0)
    with pytest.raises(ValueError, match="3 repetitions beside 2"):
        ratios.ratio([1.0, 2.0, 3.0], [1.0, 2.0])


def test_noisy_is_a_control_that_spreads_over_more_than_40_percent() -> None:
    assert not ratios.noisy([0.8, 1.0, 1.2])
    assert ratios.noisy([0.8, 1.0, 1.21])


def test_a_prompts_cell_divides_ours_by_theirs() -> None:
    told = prompts.cell(
        {
            "socket": prompts.Samples([4.0, 4.0, 4.0], [1.0, 1.0, 5.0]),
            "reprise-view": prompts.Samples([8.0, 8.0, 12.0], [1.0]),
        },
        0.5,
    )
    assert told["systems"]["socket"]["beside"]["reprise-view"]["median"] == 2.0
    assert told["systems"]["socket"]["p99_ms"] == 5.0
    assert told["systems"]["reprise-view"]["beside"] == {}
    assert (told["noisy"], told["control_spread"]) == (False, 0.0)


def test_a_lookups_cell_says_how_many_times_as_fast_we_are() -> None:
    told = lookups.cell({"redis": [[10.0], [20.0]], "reprise-view": [[40.0], [80.0]]}, 0.5)
    assert told["systems"]["redis"]["beside"]["reprise-view"]["median"] == 0.25
    assert "noisy" not in told  # no control, no verdict


def test_the_table_says_that_it_is_noisy_and_which_system_was_not_measured() -> None:
    loud = prompts.cell({"socket": prompts.Samples([1.0, 2.0], [1.0])}, 0.5)
    text = table.table(
        {
            "cpus": 2,
            "load_average": {"before": 0.5, "after": 0.5},
            "skipped": {"mooncake": "its package was not brought here"},
            "failed": {},
            "prompts": {"store": loud},
            "lookups": {},
            "full": {},
            "checked_blocks": 7,
        }
    )
    assert "NOISY, not to be quoted: the bare socket was spread over more than 40%" in text
    assert "SKIPPED Mooncake Store: its package was not brought here" in text


# ---- Reach


@pytest.mark.parametrize(
    ("answers", "reached"),
    [(b"", 0), (b":1\r\n" * 3, 3), (b":0\r\n:1\r\n", 0), (b":1\r\n:1\r\n:0\r\n:1\r\n", 2)],
)
def test_a_prefix_ends_at_the_first_hole(answers: bytes, reached: int) -> None:
    assert reach.prefix(answers, b":0") == reached


def test_usable_is_what_prefixes_reach_of_what_takes_memory() -> None:
    assert reach.usable_share(8, 6) == 0.75
    assert reach.usable_share(0, 0) == 0.0


def test_conversations_go_on_side_by_side_and_then_the_next_ones_begin() -> None:
    names = reach.conversations("c", 3)
    assert [
        (turn.conversation, turn.before, turn.after) for turn in reach.schedule(names, 5, 2, 2)
    ] == [
        ("c 0", 0, 2), ("c 1", 0, 2), ("c 0", 2, 5), ("c 1", 2, 5), ("c 2", 0, 2), ("c 2", 2, 5),
    ]  # fmt: skip


# ---- Bytes


class Kept:
    """A client that gives back what it was given, with one byte changed where it is told to."""

    def __init__(self, wrong_byte: int | None) -> None:
        self._wrong_byte = wrong_byte

    def store(self, keys: Keys, blocks: Any, first: int = 0) -> int:
        self._kept = blocks.array.copy()
        return len(keys)

    def fetch(self, keys: Keys, blocks: Any) -> None:
        blocks.array[:] = self._kept
        if self._wrong_byte is not None:
            blocks.array.reshape(-1)[self._wrong_byte] ^= 1


@pytest.mark.parametrize("wrong_byte", [None, 0, BLOCK_BYTES, BLOCKS * BLOCK_BYTES - 1])
def test_a_byte_that_changed_is_seen(wrong_byte: int | None) -> None:
    worker = Worker(BLOCKS, BLOCK_BYTES, 0)
    worker._clients["kept"] = Kept(wrong_byte)
    worker.prepare("a prompt")
    worker.store("kept", 0)
    worker.fetch("kept", 0)
    if wrong_byte is None:
        assert worker.check() == BLOCKS
        return
    with pytest.raises(ValueError, match=f"block {wrong_byte // BLOCK_BYTES} came back"):
        worker.check()


def test_what_was_fetched_before_is_not_taken_for_what_was_fetched_now() -> None:
    memory = Memory(BLOCKS, BLOCK_BYTES, 0)
    memory.write("one")
    memory.target.array[:] = memory.source.array
    memory.check(BLOCKS)
    memory.write("two")
    with pytest.raises(ValueError, match="block 0"):
        memory.check(BLOCKS)
    memory.write("one")
    memory.spoil()
    with pytest.raises(ValueError, match="block 0"):
        memory.check(BLOCKS)


def test_prompts_share_no_key_and_every_form_is_the_same_key() -> None:
    one, two = Keys.of("one", 4), Keys.of("two", 4)
    assert len({*one.raw, *two.raw}) == 8
    assert [bytes(row) for row in one.packed] == one.raw
    assert [bytes.fromhex(text) for text in one.text] == one.raw
    assert [key.decode() for key in one.hex] == one.text
    assert one.first(2).raw == one.raw[:2]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def test_parts_arrive_whole_however_the_kernel_cuts_them(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    near, far = pair
    content = np.random.default_rng(0).integers(0, 256, 5_000_000, np.uint8).tobytes()
    cuts = [0, 1, 1, 7, 4_000_000, 4_000_001, len(content)]
    sent = [content[a:b] for a, b in zip(cuts, cuts[1:])]
    sender = threading.Thread(target=send_parts, args=(near, sent))
    sender.start()
    room = [bytearray(3), bytearray(0), bytearray(2_500_000), bytearray(2_499_997)]
    receive_parts(far, room)
    sender.join()
    assert b"".join(room) == content


def test_an_end_that_closes_early_is_told(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    near.sendall(b"half")
    near.close()
    with pytest.raises(EOFError):
        receive_parts(far, [bytearray(8)])
