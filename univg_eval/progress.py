"""Progress of commands on standard error: bars on a terminal, else a line now and then.

Nothing is shown of what takes less than five seconds.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, Protocol, TextIO, TypeVar

__all__ = ["Progress", "Remaining", "duration", "progress_bars", "step", "tracked"]

T = TypeVar("T")

SECONDS_UNSEEN = 5.0
SECONDS_A_LINE = 30.0


class Progress(Protocol):
    """Called with what is being done, how much is done, and how much there is (0: not known)."""

    def __call__(self, title: str, done: int, total: int, note: str = "") -> None:
        """Show it; `note` is put after the remaining time."""


@contextmanager
def progress_bars(*, stay: bool = False) -> Iterator[Progress]:
    """A bar for each title; `stay` leaves them on the screen afterwards."""
    stream = sys.stderr  # whatever takes its place in the block
    remaining = Remaining()
    if not stream.isatty():
        yield _lines(stream, remaining)
        return
    bars = _Bars(stream, remaining, stay=stay)
    try:
        yield bars
    finally:
        bars.hide()


class _Bars:
    """Bars of rich, on the screen while something is under way."""

    def __init__(self, stream: TextIO, remaining: Remaining, *, stay: bool) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            Task,
            TaskID,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
        )

        class Bar(BarColumn):
            """Gives its place to a note."""

            def render(self, task: Task) -> Any:
                return "" if task.fields["note"] else super().render(task)

        self._bars = Progress(
            TextColumn("{task.description}"),
            Bar(bar_width=20),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[note]}"),
            console=Console(file=stream),
            transient=not stay,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._remaining, self._stay = remaining, stay
        self._tasks: dict[str, TaskID] = {}
        self._wait: threading.Timer | None = None

    def __call__(self, title: str, done: int, total: int, note: str = "") -> None:
        if title not in self._tasks:
            self._tasks[title] = self._bars.add_task(title, left="", note="")
        left = self._remaining(title, done, total)
        self._bars.update(
            self._tasks[title], completed=done, total=total or None, left=left, note=note
        )
        if self._stay or not self._bars.finished:
            self._show_soon()
        else:
            self.hide()  # what else is written must not run into it
            self._bars.remove_task(self._tasks.pop(title))

    def _show_soon(self) -> None:
        """In a while, and not before the first call: the Hub's library draws bars of its own."""
        if self._wait is None:
            self._wait = threading.Timer(SECONDS_UNSEEN, self._bars.start)
            self._wait.daemon = True
            self._wait.start()

    def hide(self) -> None:
        """Take them off the screen, unless they stay."""
        if self._wait is not None:
            self._wait.cancel()
            self._wait = None
        self._bars.stop()


def step(progress: Progress, title: str) -> Callable[[int, int], None]:
    """The same for one title: called with how much is done, and how much there is."""
    return lambda done, total: progress(title, done, total)


def tracked(items: Iterable[T], progress: Progress, title: str) -> Iterator[T]:
    """The items; `progress` is called with how many of them are done."""
    total = len(items) if isinstance(items, Sized) else 0
    done = 0
    for done, item in enumerate(items):
        progress(title, done, total)
        yield item
    progress(title, total or done, total)


def duration(seconds: float) -> str:
    """Seconds in words: ``40 s``, ``1 min 35 s``, ``12 min``, ``2 h 5 min``."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60 if whole < 600 else round(whole / 60), 60)
    parts = [(hours, "h"), (minutes, "min"), (whole % 60 if whole < 600 else 0, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 s"


class Remaining:
    """How long each title takes from here on at the speed since its first call, in words."""

    def __init__(self) -> None:
        self._begun: dict[str, tuple[float, int]] = {}

    def __call__(self, title: str, done: int, total: int) -> str:
        """As ``12 min left``; "" if it is not known."""
        now = time.monotonic()
        since, before = self._begun.get(title, (now, done))
        if now - since < 1.0:  # what an earlier run had done comes at once
            before = done
        self._begun[title] = since, before
        if not before < done < total:
            return ""
        return f"{duration((now - since) / (done - before) * (total - done))} left"


def _lines(stream: TextIO, remaining: Remaining) -> Progress:
    due: float | None = None

    def show(title: str, done: int, total: int, note: str = "") -> None:
        nonlocal due
        now, left = time.monotonic(), remaining(title, done, total)
        due = now + SECONDS_UNSEEN if due is None else due
        if now < due:
            return
        due = now + SECONDS_A_LINE
        share = f"{100 * done / total:.0f} %" if total else f"{done:,}"
        stream.write(f"{title}: {', '.join(filter(None, (share, left, note)))}\n")
        stream.flush()

    return show
