"""What commands say, and leave, where they cannot do their work.

    python results/reliability/conditions.py [CASE …] [--only CONDITION] [--work DIR]

Each command of faults.py runs where its disk is full, its folder cannot be written to, its output's
place is taken by something of another kind, the data root is gone, or there is no home. It must end
by itself with one message (exit status 2) and no traceback, or do its work; what was there before
must be left as it was. Disks and folders that cannot be written to are mounted for it, which needs
root on Linux; elsewhere they are left out.

Where the disk fills while the command works, the same command must, once there is room, go on to
the results of a run that always had it.

Writes conditions.json beside this file. Exit status 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from faults import (
    CASES,
    EVAL,
    SECONDS_OF_A_COMMAND,
    Case,
    command_of,
    difference,
    named_cases,
    results,
    teacher,
    to_its_end,
    write_inputs,
)

from univg_eval.files import write_text_atomically
from univg_eval.runs.record import environment

OUT = Path(__file__).with_name("conditions.json")
BEFORE = "what an earlier run has left"
DISK_KB = 64


@contextmanager
def _full_disk(folder: Path, _: Case, __: dict[str, str]) -> Iterator[Path]:
    with _mounted(folder):
        _fill(folder)
        yield folder


@contextmanager
def _read_only(folder: Path, _: Case, __: dict[str, str]) -> Iterator[Path]:
    with _mounted(folder):
        (folder / "before.txt").write_text(BEFORE)
        _run("mount", "-o", "remount,ro", str(folder))
        yield folder


@contextmanager
def _place_taken(folder: Path, case: Case, _: dict[str, str]) -> Iterator[Path]:
    """A folder where a file is to be written, a file where a folder is."""
    first = case.results[0].split("/")
    place = folder / first[0].rstrip("*")
    if len(first) == 1:
        place.mkdir()
        place = place / "inside"
    place.write_text(BEFORE)
    yield folder


@contextmanager
def _no_data(folder: Path, _: Case, variables: dict[str, str]) -> Iterator[Path]:
    variables["UNIVG_DATA"] = str(folder / "gone")
    yield folder


@contextmanager
def _no_home(folder: Path, _: Case, variables: dict[str, str]) -> Iterator[Path]:
    variables["HOME"] = "/dev/null/home"
    yield folder


@contextmanager
def _mounted(folder: Path, kb: int = DISK_KB) -> Iterator[None]:
    _run("mount", "-t", "tmpfs", "-o", f"size={kb}k", "tmpfs", str(folder))
    try:
        yield
    finally:
        _run("umount", "--lazy", str(folder))


def _run(program: str, *arguments: str) -> None:
    subprocess.run([shutil.which(program) or program, *arguments], check=True)


def _fill(folder: Path) -> None:
    with contextlib.suppress(OSError), (folder / "before.txt").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


Condition = Callable[[Path, Case, dict[str, str]], AbstractContextManager[Path]]
CONDITIONS: dict[str, tuple[Condition, bool]] = {
    "full disk": (_full_disk, True),
    "read-only folder": (_read_only, True),
    "place taken": (_place_taken, False),
    "no data root": (_no_data, False),
    "no home": (_no_home, False),
}
"""Each with whether it needs root."""


def attempt(case: Case, condition: Condition, folder: Path, command: list[str]) -> dict[str, Any]:
    """Run one command in one condition."""
    folder.mkdir(parents=True)
    variables = dict(os.environ)
    with condition(folder, case, variables) as place:
        before = _content(place)
        found = _outcome(command, place, variables)
        kept = before.items() <= _content(place).items()
    if not kept:
        found["broken"] = found["broken"] or "what was there has changed"
    return {"kept": kept, **found}


def _outcome(command: list[str], place: Path, variables: dict[str, str]) -> dict[str, Any]:
    began = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=place,
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS_OF_A_COMMAND,
        check=False,
    )
    said = done.stderr.strip().splitlines() or [""]
    # The bar of a training ends behind the message.
    message = next((line for line in reversed(said) if "univg" in line), said[-1])
    promised = done.returncode in (0, 2) and "Traceback" not in done.stderr + done.stdout
    return {
        "status": done.returncode,
        "message": message.replace(str(place.parents[1]), "…") if done.returncode else "",
        "seconds": round(time.perf_counter() - began, 1),
        "broken": "" if promised else done.stderr[-1500:] or f"status {done.returncode}",
    }


FILLS = "disk fills"
SHARES = (0.5, 0.95)
"""Room for so much of what a command writes."""


def attempt_filling(case: Case, folder: Path, command: list[str]) -> dict[str, Any]:
    """Run one command on disks that fill while it works, and again when they have room."""
    _, error = to_its_end(command, folder / "uninterrupted")
    if error:
        raise SystemExit(f"{command}: {error}")
    expected = results(folder / "uninterrupted", case.results)
    sizes = map(len, _content(folder / "uninterrupted").values())
    kb = sum(-(-size // 4096) * 4 for size in sizes)
    found = []
    for share in SHARES:
        disk = folder / f"disk-{round(100 * share)}"
        disk.mkdir()
        with _mounted(disk, max(int(share * kb), DISK_KB)):
            one = _outcome(command, disk, dict(os.environ))
            _run("mount", "-o", "remount,size=90%", str(disk))
            if one["status"]:
                _, error = to_its_end(command, disk)
                one["broken"] = one["broken"] or error
            one["broken"] = one["broken"] or difference(expected, results(disk, case.results))
        found.append({"share": share, **one})
    worst = max(found, key=lambda one: (one["broken"] != "", one["status"]))
    return worst | {"kb": kb, "each": found}


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def main() -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}")
    known_conditions = (*CONDITIONS, FILLS)
    parser.add_argument("--only", choices=known_conditions, help="try this one alone")
    parser.add_argument("--work", type=Path, metavar="DIR", help="an empty folder to keep")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE", help="the results")
    args = parser.parse_args()
    names = named_cases(parser, args.cases)
    root = sys.platform == "linux" and os.geteuid() == 0
    with tempfile.TemporaryDirectory() as temporary, teacher() as address:
        work = (args.work or Path(temporary)).absolute()
        inputs = work / "inputs"
        write_inputs(inputs, names)
        for number, name in enumerate(names):
            case, rows = CASES[name], {}
            for word in known_conditions if args.only is None else (args.only,):
                condition, needs_root = CONDITIONS.get(word, (None, True))
                if needs_root and not root:
                    continue
                folder = work / str(number) / word.replace(" ", "-")
                command = command_of(case, inputs, address)
                rows[word] = (
                    attempt(case, condition, folder, command)
                    if condition
                    else attempt_filling(case, folder, command)
                )
                sys.stderr.write(f"{name}, {word}: {json.dumps(rows[word])}\n")
            # Another process may have tried another command meanwhile.
            known = json.loads(args.out.read_text(encoding="utf-8")) if args.out.is_file() else {}
            known[name] = {
                "program": "univg" if case.program is EVAL else "univg-train",
                "conditions": known.get(name, {}).get("conditions", {}) | rows,
                "date": datetime.now(UTC).date().isoformat(),
                **environment(),
            }
            write_text_atomically(args.out, [json.dumps(known, indent=1) + "\n"])
    rows = [row for name in names for row in known[name]["conditions"].values()]
    return int(any(row["broken"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
