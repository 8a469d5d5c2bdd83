"""Progress of commands on standard error: bars on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

__all__ = ["Progress", "progress_bars"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much is done, and how much there is."""

SECONDS_A_LINE = 10.0


@contextmanager
def progress_bars(*, stay: bool = False) -> Iterator[Progress]:
    """A bar for each title; `stay` leaves them on the screen afterwards."""
    stream = sys.stderr  # whatever takes its place in the block
    if not stream.isatty():
        yield _lines(stream)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    bars = Bars(
        *columns,
        console=Console(file=stream),
        transient=not stay,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    tasks: dict[str, TaskID] = {}

    def show(title: str, done: int, total: int) -> None:
        bars.start()  # not before: the Hub's library draws bars of its own
        if title not in tasks:
            tasks[title] = bars.add_task(title, total=total)
        bars.update(tasks[title], completed=done, total=total)

    try:
        yield show
    finally:
        bars.stop()


def _lines(stream: TextIO) -> Progress:
    last = time.monotonic()

    def show(title: str, done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS_A_LINE and total:
            last = time.monotonic()
            print(f"{title}: {100 * done / total:.0f} %", file=stream, flush=True)

    return show
