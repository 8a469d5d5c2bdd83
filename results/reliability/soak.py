"""Do memory and open files of a process stay flat while it evaluates and scores again and again?

    python results/reliability/soak.py [--minutes 20]

One process repeats in turn: an evaluation by a model of transformers, one by a baseline, `score`,
`rescore`, `failures`, `compare`, `leaderboard` and `report`, all through the command line's own
function. After each round it gives freed memory back to the system, and notes its resident memory,
open files and threads. The first quarter is warm-up; of the rest, the last half is held against the
first. Writes soak.json beside this file. Exit status 1 if memory grew by more than 2 %, or files or
threads by any.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import io
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from univg_eval.cli import main as univg
from univg_eval.files import write_text_atomically
from univg_eval.runs.record import environment

OUT = Path(__file__).with_name("soak.json")
TINY = "--model univg --model_args pretrained=univg:tiny --batch_size 8 --limit 4"
NOISY = "--model univg_baseline --model_args kind=noisy,p=0.5"
GROWTH = 0.02


def run(words: str) -> None:
    """One command, of which nothing is printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        status = univg(words.split())
    if status:
        raise SystemExit(f"univg {words}: status {status}\n{printed.getvalue()[-3000:]}")


def one_round() -> None:
    """All commands once; their outputs are removed."""
    run(f"eval {TINY} --tasks univg_mini --output_path tiny --records tiny")
    run(f"eval {NOISY} --tasks univg_mini --output_path noisy --records noisy")
    (tiny,) = Path("tiny").glob("*/univg_mini")
    (noisy,) = Path("noisy").glob("*/univg_mini")
    responses = f"--responses {noisy / 'responses.jsonl'} --dialect norm1000"
    run(f"score --benchmark univg_mini {responses} -o scores.jsonl")
    run(f"rescore {noisy} --protocol univg-r1 -o again")
    run(f"failures {noisy}")
    run(f"compare a={noisy} b=again")
    run(f"leaderboard {noisy} {tiny}")
    run(f"report {noisy} -o page.html")
    for name in ("tiny", "noisy", "again"):
        shutil.rmtree(name)


def _give_back() -> None:
    """Without what is freed already, which glibc keeps now more, now less of."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def verdict(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Growth from the first to the second half of the rounds after the warm-up."""
    counted = rounds[len(rounds) // 4 :]
    halves = counted[: len(counted) // 2], counted[len(counted) // 2 :]
    memory, files, threads = (
        [statistics.median(row[name] for row in half) for half in halves]
        for name in ("rss_mb", "files", "threads")
    )
    return {
        "rounds": len(rounds),
        "rss_mb": memory,
        "growth": round(memory[1] / memory[0] - 1, 4),
        "files": files,
        "threads": threads,
        "flat": memory[1] <= memory[0] * (1 + GROWTH) and files[1] <= files[0]
        and threads[1] <= threads[0],
    }  # fmt: skip


def main() -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE", help="the results")
    args = parser.parse_args()
    out, process = args.out.absolute(), psutil.Process()
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        os.environ |= {"UNIVG_DATA": f"{folder}/data", "HF_HUB_OFFLINE": "1"}
        run("prepare univg_mini --n 12")
        began = time.monotonic()
        while len(rounds) < 8 or time.monotonic() - began < 60 * args.minutes:
            one_round()
            _give_back()
            rounds.append(
                {
                    "minutes": round((time.monotonic() - began) / 60, 2),
                    "rss_mb": round(process.memory_info().rss / 1e6, 1),
                    "files": process.num_fds(),
                    "threads": process.num_threads(),
                }
            )
            sys.stderr.write(f"{json.dumps(rounds[-1])}\n")
    found = verdict(rounds)
    result = {"date": datetime.now(UTC).date().isoformat(), **environment(), **found}
    write_text_atomically(out, [json.dumps(result | {"each": rounds}, indent=1) + "\n"])
    return 0 if found["flat"] else 1


if __name__ == "__main__":
    sys.exit(main())
