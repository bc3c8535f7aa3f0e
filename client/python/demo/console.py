"""What a person sees: progress while it runs, tables at the end, in plain ANSI."""

from __future__ import annotations

import os
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from demo.report import Report, Section

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_FRAME_SECONDS = 0.1


class Console:
    """Progress on stderr, results on stdout. Colour only on a terminal without NO_COLOR."""

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._begun = time.monotonic()

    def title(self, text: str) -> None:
        """The headline of the run."""
        self._print(self._err, f"\n{self._paint(self._err, '1', text)}\n")

    def note(self, text: str) -> None:
        """A line of the story."""
        self._print(self._err, f"  {self._paint(self._err, '2', self._clock())}  {text}")

    def alarm(self, text: str) -> None:
        """A line about something that was destroyed."""
        line = self._paint(self._err, "1;31", f"✗ {text}")
        self._print(self._err, f"  {self._paint(self._err, '2', self._clock())}  {line}")

    @contextmanager
    def doing(self, text: str) -> Iterator[None]:
        """Says that something takes its time, with the seconds on a terminal; silent afterwards."""
        if not self._moves():
            self.note(f"{text} ...")
            yield
            return
        over = threading.Event()

        def spin() -> None:
            begun, frame = time.monotonic(), 0
            while not over.wait(_FRAME_SECONDS):
                mark = self._paint(self._err, "36", _FRAMES[frame % len(_FRAMES)])
                self._err.write(f"\r\033[K  {mark} {text} {time.monotonic() - begun:.0f} s")
                self._err.flush()
                frame += 1
            self._err.write("\r\033[K")
            self._err.flush()

        spinner = threading.Thread(target=spin, daemon=True)
        spinner.start()
        try:
            yield
        finally:
            over.set()
            spinner.join()

    def show(self, report: Report) -> None:
        """The tables, and whether it held."""
        self._print(self._out, "")
        for section in report.sections:
            self._section(section)
        if report.failures:
            for failure in report.failures:
                self._print(self._out, f"  {self._paint(self._out, '1;31', '✗')} {failure}")
        else:
            held = self._paint(
                self._out, "1;32", "✓ The conversation went on as if nothing had happened."
            )
            self._print(self._out, f"  {held}")
        self._print(self._out, "")

    def _section(self, section: Section) -> None:
        self._print(self._out, f"  {self._paint(self._out, '1', section.title)}")
        table = [section.header, *section.rows] if section.header else section.rows
        widths = [
            max(_width(row[i]) for row in table if i < len(row))
            for i in range(max(map(len, table)))
        ]
        rule = "  " + "─" * (sum(widths) + 3 * (len(widths) - 1))
        self._print(self._out, self._paint(self._out, "2", rule))
        for index, row in enumerate(table):
            heading = bool(section.header) and index == 0
            cells = [
                _pad(cell, widths[i], left=i == 0 or not section.header)
                for i, cell in enumerate(row)
            ]
            line = "  " + "   ".join(cells).rstrip()
            self._print(
                self._out, self._paint(self._out, "2", line) if heading else self._yes_no(line)
            )
        self._print(self._out, self._paint(self._out, "2", rule) + "\n")

    def _yes_no(self, line: str) -> str:
        for word, colour in (("yes", "32"), ("NO", "1;31")):
            if line.endswith(f" {word}"):
                return line[: -len(word)] + self._paint(self._out, colour, word)
        return line

    def _clock(self) -> str:
        return f"{time.monotonic() - self._begun:5.1f} s"

    def _moves(self) -> bool:
        return self._err.isatty() and os.environ.get("TERM") != "dumb"

    def _paint(self, stream: TextIO, code: str, text: str) -> str:
        if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
            return text
        return f"\033[{code}m{text}\033[0m"

    @staticmethod
    def _print(stream: TextIO, text: str) -> None:
        stream.write(text + "\n")
        stream.flush()


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _pad(text: str, width: int, *, left: bool) -> str:
    space = " " * (width - _width(text))
    return text + space if left else space + text
