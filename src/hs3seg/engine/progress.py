"""Progress with time left, on standard error: a live bar in a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Task(Protocol):
    """One job that advances."""

    def advance(self, count: int = 1, detail: str = "") -> None:
        """Says that `count` more items are done; `detail` is a short state such as the loss."""


class Reporter:
    """Makes tasks; silent on all processes but the first.

    Args:
        enabled: False shows nothing.
        seconds_between_lines: Without a terminal, at most one line in this time.
    """

    def __init__(self, *, enabled: bool = True, seconds_between_lines: float = 15.0) -> None:
        self.enabled = enabled
        self._seconds = seconds_between_lines

    def say(self, text: str) -> None:
        """Prints one line."""
        if self.enabled:
            print(text, file=sys.stderr, flush=True)

    @contextmanager
    def task(self, label: str, total: int, done: int = 0) -> Iterator[Task]:
        """Shows a job of `total` items, `done` of which an earlier process has finished."""
        if not self.enabled:
            yield _Silent()
        elif sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[detail]}", markup=False),
            )
            with Progress(*columns, console=Console(stderr=True)) as bar:
                yield _Bar(bar, label, total, done)
        else:
            yield _Lines(label, total, done, self._seconds)


class _Silent:
    def advance(self, count: int = 1, detail: str = "") -> None:
        pass


class _Bar:
    def __init__(self, bar: Progress, label: str, total: int, done: int) -> None:
        self._bar = bar
        self._id = bar.add_task(label, total=total, completed=done, detail="")

    def advance(self, count: int = 1, detail: str = "") -> None:
        self._bar.update(self._id, advance=count, detail=detail)


class _Lines:
    def __init__(self, label: str, total: int, done: int, seconds: float) -> None:
        self._label, self._total, self._done, self._seconds = label, total, done, seconds
        self._first = done
        self._start = self._shown = time.monotonic()

    def advance(self, count: int = 1, detail: str = "") -> None:
        self._done += count
        now = time.monotonic()
        if now - self._shown < self._seconds and self._done < self._total:
            return
        self._shown = now
        elapsed = now - self._start
        left = elapsed / max(1, self._done - self._first) * (self._total - self._done)
        share = 100 * self._done / max(1, self._total)
        print(
            f"{self._label}: {self._done}/{self._total} ({share:.0f} %), {_clock(elapsed)} gone, {_clock(left)} left"
            + (f", {detail}" if detail else ""),
            file=sys.stderr,
            flush=True,
        )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
