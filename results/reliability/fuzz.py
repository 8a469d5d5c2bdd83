"""What does hostile input do to the reading of answers and files?

    python results/reliability/fuzz.py [--seconds 900] [--seed 0] [--only WORDS] [--case N]

Replies are made from the markup of all dialects and read in every dialect and protocol; files are
valid ones with something changed. The promise: a result, or the package's own message to the user;
never another exception, an endless loop or memory beyond a bound. Each case follows from the seed,
its row's name and its number. A row runs in a process of its own, which is killed when a case does
not end. Writes fuzz.json beside this file (`--out`); ends with 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

import fuzz_files
import fuzz_replies
from fuzz_changes import copy_linked, damage

from univg_eval.errors import UserError
from univg_eval.files import write_text_atomically
from univg_eval.runs.record import environment

OUT = Path(__file__).with_name("fuzz.json")
ENDLESS_S = 60
"""A case that takes longer does not end."""
MOST_MB = 2_000
"""A case that takes more memory has blown up."""
SHOWN = 20
_PACKAGES = ("univg_eval", "univg_train")

Case = Callable[[int, Random, Path], Any]
"""Runs the case of a number with its random source and an empty folder."""


@dataclass
class Row:
    """What happened to one kind of input."""

    input: str
    tried: int = 0
    read: int = 0
    refused: int = 0
    failed: int = 0
    slowest_ms: float = 0.0
    peak_mb: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)

    def add(self, case: int, outcome: str, ms: float, mb: float, more: Any) -> None:
        """One case; a finding like an earlier one is only counted."""
        self.tried += 1
        setattr(self, outcome, getattr(self, outcome) + 1)
        if case:  # the first one loads modules
            self.slowest_ms = round(max(self.slowest_ms, ms), 1)
            self.peak_mb = round(max(self.peak_mb, mb), 1)
        if outcome == "failed":
            known = {finding["where"] for finding in self.findings}
            if more["where"] not in known and len(known) < SHOWN:
                self.findings.append({"case": case, **more})
        elif isinstance(more, dict):
            for name, value in more.items():
                self.figures[name] = round(max(self.figures.get(name, 0.0), value), 2)


# --- cases ---------------------------------------------------------------------------------------


def _reply_case(function: Callable[[Random], None]) -> Case:
    """No reply may be refused: a UserError is a finding too."""

    def case(number: int, rng: Random, folder: Path) -> None:
        try:
            function(rng)
        except UserError as error:
            raise AssertionError(f"a reply was refused: {error}") from error

    return case


def file_case(kind: fuzz_files.Kind) -> Case:
    """Case 0 is the valid files as they are, and has to be read."""
    made: list[Path] = []

    def case(number: int, rng: Random, folder: Path) -> None:
        here = folder / "case"
        if not made:
            made.append(valid := Path(tempfile.mkdtemp()))
            os.environ["UNIVG_DATA"] = str(valid / "data")
            try:
                kind.make(valid)
            except (UserError, fuzz_files.Refused) as error:
                raise AssertionError(f"valid files were refused: {error}") from error
        copy_linked(made[0], here)
        os.environ["UNIVG_DATA"] = str(here / "data")
        files = sorted(p for glob in kind.changed for p in here.glob(glob) if p.is_file())
        for path in rng.sample(files, min(len(files), rng.choice((1, 1, 1, 2)))) if number else ():
            damage(rng, path)
        try:
            kind.read(here, rng)
        except (UserError, fuzz_files.Refused) as error:
            if not number:
                raise AssertionError(f"valid files were refused: {error}") from error
            raise

    return case


def growth_row(
    where: str, readers: Sequence[tuple[str, str | None]], share: float
) -> tuple[str, Case, float, int]:
    """The row, as `kinds` has it, of `fuzz_replies.grow` in these readers."""
    n = fuzz_replies.N_PATTERNS
    name = f"lengths doubled four times, {n} patterns each {where}"
    return name, lambda k, rng, _: fuzz_replies.grow(k, rng, readers), share, n * len(readers)


def kinds(*, heavy: bool = True) -> Iterator[tuple[str, Case, float, int | None]]:
    """(name, case, share of the time, number of cases or None: as many as fit) of each row."""
    n = len(fuzz_replies.READERS)
    every = f"in {n} dialects and protocols"
    yield f"replies read {every}", _reply_case(fuzz_replies.read_anywhere), 6, None
    yield f"replies scored and rewarded {every}", _reply_case(fuzz_replies.score_anywhere), 3, None
    yield growth_row(every, fuzz_replies.READERS, 14)
    points = f"in {len(fuzz_replies.POINT_READERS)} dialects of points"
    yield f"points read {points}", _reply_case(fuzz_replies.read_points), 2, None
    yield growth_row(points, fuzz_replies.POINT_READERS, 5)
    rules = f"{len(fuzz_replies.SETS)} published rules of whole sets"
    yield f"sets of replies scored by {rules}", _reply_case(fuzz_replies.score_sets), 2, None
    own = fuzz_replies.OWN_READERS
    yield growth_row(f"in {' and '.join(name for name, _ in own)}, which reads text itself", own, 1)
    for kind in fuzz_files.KINDS:
        if heavy or not kind.heavy:
            yield kind.name, file_case(kind), 1, None


# --- running -------------------------------------------------------------------------------------


def _memory_mb(name: str) -> float:
    """VmHWM (the peak) or VmRSS of this process; 0 where the system does not say."""
    try:
        with Path("/proc/self/status").open(encoding="ascii") as file:
            return next(int(line.split()[1]) / 1e3 for line in file if line.startswith(name))
    except (OSError, StopIteration):
        return 0.0


def _forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _where(error: BaseException) -> str:
    """The last line of the package on the way to the error, else the last of all."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if any(f"/{package}/" in f.filename for package in _PACKAGES)]
    frame = (own or frames)[-1]
    return f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"


def _attempt(case: Case, number: int, rng: Random, folder: Path) -> tuple[str, Any]:
    """``read``, ``refused`` or ``failed``, and figures or the finding."""
    try:
        figures = case(number, rng, folder)
    except (UserError, fuzz_files.Refused):
        return "refused", None
    except BaseException as error:  # also SystemExit, and the panics of libraries in Rust
        if isinstance(error, KeyboardInterrupt):
            raise
        return "failed", {"where": _where(error), "error": repr(error)[:500]}
    return "read", figures


def _work(
    case: Case,
    name: str,
    seed: int,
    numbers: Iterator[int],
    sender: Connection,
    seconds: float,
    scratch: str,
) -> None:
    """Run cases in this process until the time is over, and send what happens.

    The time begins after the first case, which may load modules. What is temporary lies below
    `scratch`, which outlives a process that is killed.
    """
    limit = resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_CORE, (0, limit))
    tempfile.tempdir = scratch
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 (for the life of the process)
    os.dup2(sys.stderr.fileno(), 2)
    until = None
    for number in numbers:
        if until is not None and time.monotonic() > until:
            break
        sender.send(number)
        with tempfile.TemporaryDirectory() as folder:
            before = _memory_mb("VmRSS")
            _forget_peak()
            started = time.perf_counter()
            rng = Random(f"{seed}/{name}/{number}")
            outcome, more = _attempt(case, number, rng, Path(folder))
            ms = 1e3 * (time.perf_counter() - started)
            mb = max(0.0, _memory_mb("VmHWM") - before)
        if mb > MOST_MB and outcome != "failed":
            outcome, more = "failed", {"where": "memory", "error": f"{mb:.0f} MB"}
        sender.send((number, outcome, ms, mb, more))
        until = time.monotonic() + seconds if until is None else until
    sender.send(None)


def fuzz(name: str, case: Case, seed: int, seconds: float, limit: int | None = None) -> Row:
    """The cases of one row, in processes that are replaced when one hangs or dies."""
    with tempfile.TemporaryDirectory(prefix="univg-fuzz-", ignore_cleanup_errors=True) as scratch:
        return _fuzz(name, case, seed, seconds, limit, scratch)


def _fuzz(name: str, case: Case, seed: int, seconds: float, limit: int | None, scratch: str) -> Row:
    row = Row(name)
    begin = 0
    context = multiprocessing.get_context("fork")
    while True:
        receiver, sender = context.Pipe(duplex=False)
        numbers = iter(range(begin, limit if limit is not None else sys.maxsize))
        worker = context.Process(
            target=_work, args=(case, name, seed, numbers, sender, seconds, scratch)
        )
        worker.start()
        started = time.monotonic()
        sender.close()
        running, end = None, "process died"
        try:
            while True:
                if not receiver.poll(ENDLESS_S if running is not None else None):
                    end = f"no end within {ENDLESS_S} s"
                    break
                message = receiver.recv()
                if message is None:
                    return row
                if isinstance(message, int):
                    running = message
                else:
                    row.add(*message)
                    running = None
        except EOFError:
            pass
        finally:
            worker.kill()
            worker.join()
        if running is None:
            raise RuntimeError(f"{name}: the worker ended with {worker.exitcode}")
        row.add(running, "failed", 1e3 * ENDLESS_S, 0.0, {"where": end, "error": end})
        begin = running + 1
        seconds = max(0.0, seconds - (time.monotonic() - started))


def run(seconds: float, seed: int, only: str = "") -> list[Row]:
    """All rows whose names hold `only`, each for its share of the time."""
    rows = [row for row in kinds() if only in row[0]]
    whole = sum(share for *_, share, _ in rows)
    found = []
    for name, case, share, limit in rows:
        row = fuzz(name, case, seed, seconds * share / whole, limit)
        sys.stderr.write(f"{name}: {row.tried} tried, {row.failed} failed\n")
        for finding in row.findings:
            sys.stderr.write(f"  {finding}\n")
        found.append(row)
    return found


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=900, help="for all rows together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only", default="", metavar="WORDS", help="rows with these words; no file"
    )
    parser.add_argument(
        "--case", type=int, help="run this case of the row alone, with its traceback"
    )
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args(argv)
    if args.case is not None:
        return _replay(args.only, args.seed, args.case)
    found = run(args.seconds, args.seed, args.only)
    failed = sum(row.failed for row in found)
    if not args.only:
        report = {
            "date": datetime.now(UTC).date().isoformat(), **environment(),
            "seed": args.seed, "seconds": args.seconds, "rows": [vars(row) for row in found],
        }  # fmt: skip
        write_text_atomically(args.out, [json.dumps(report, indent=1) + "\n"])
    return 1 if failed else 0


def _replay(only: str, seed: int, number: int) -> int:
    name, case, *_ = next(row for row in kinds() if only in row[0])
    with tempfile.TemporaryDirectory(prefix="univg-fuzz-") as folder:
        tempfile.tempdir = folder
        try:
            case(number, Random(f"{seed}/{name}/{number}"), Path(folder))
        finally:
            tempfile.tempdir = None
    return 0


if __name__ == "__main__":
    sys.exit(main())
