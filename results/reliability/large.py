"""Time and peak memory of the commands at sizes beyond those of any set of today.

    python results/reliability/large.py [CASE …]

Sets and responses are generated; each command runs by itself. Memory is the highest sum over its
processes, in which pages that they share count once (PSS; RSS where this is not Linux). Writes
large.json beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "benchmarks"))
from report_page import BENCHMARK, BROWSERS, make_run  # noqa: E402
from score_million import BENCHMARK as MILLION  # noqa: E402
from score_million import write_responses, write_set  # noqa: E402

from univg_eval.files import write_text_atomically  # noqa: E402
from univg_eval.runs.record import environment  # noqa: E402
from univg_eval.samples import GroundingSample, Target, write_benchmark  # noqa: E402

OUT = HERE / "large.json"
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Case:
    """A command at a size; `inputs` writes what it reads into the folder in which it runs."""

    what: str
    inputs: Callable[[Path], None]
    arguments: str


def write_million(folder: Path) -> None:
    """A million samples, and responses with chains of thought."""
    write_set(folder, 1_000_000, 0)
    write_responses(folder / "responses.jsonl", "univg_r1", 1_000_000, 0)


def write_runs(n_runs: int, n: int, n_images: int) -> Callable[[Path], None]:
    """Runs on a set of `n` samples, which share `n_images` images that are not there."""

    def write(folder: Path) -> None:
        rng = random.Random(0)
        samples = []
        for number in range(n):
            x, y = rng.uniform(0, 0.6), rng.uniform(0, 0.6)
            box = (x, y, x + rng.uniform(0.1, 0.4), y + rng.uniform(0.1, 0.4))
            samples.append(
                GroundingSample(
                    id=f"{BENCHMARK}-{number:06d}",
                    benchmark=BENCHMARK,
                    task=f"task_{number % 10}",
                    split="test",
                    images=(f"{BENCHMARK}/images/{number % n_images}.jpg",),
                    widths=(640,),
                    heights=(480,),
                    instruction=f"Find thing {number}.",
                    targets=(Target(0, box),),
                    image_is_given=True,
                    cluster=f"{BENCHMARK}-{number % n_images:06d}",
                )
            )
        write_benchmark(samples, benchmark=BENCHMARK, root=folder)
        for seed in range(n_runs):
            make_run(f"run-{seed}", samples, seed).write(folder / "runs" / f"run-{seed:03d}")

    return write


PAIR = write_runs(2, 100_000, 25_000)
CASES = {
    "score": Case(
        "score: 1,000,000 responses with chains of thought",
        write_million,
        f"score --benchmark {MILLION} --responses responses.jsonl --dialect univg_r1 -o s.jsonl",
    ),
    "report": Case(
        "report: 20,000 samples of two runs, without images",
        write_runs(2, 20_000, 5_000),
        "report runs/run-000 runs/run-001 --images none -o page.html",
    ),
    "leaderboard": Case(
        "leaderboard: 200 runs of 1,000 samples",
        write_runs(200, 1_000, 250),
        "leaderboard runs",
    ),
    "compare": Case(
        "compare: two runs of 100,000 samples", PAIR, "compare a=runs/run-000 b=runs/run-001"
    ),
    "failures": Case(
        "failures: 100,000 samples on 200 images",
        write_runs(1, 100_000, 200),
        "failures runs/run-000",
    ),
}


def measured(command: list[str], folder: Path) -> dict[str, float]:
    """Seconds and peak MB of a command that must succeed."""
    began = time.perf_counter()
    log = folder / "log.txt"
    with log.open("w") as file:
        process = psutil.Popen(command, cwd=folder, stdout=file, stderr=file)
    peak = 0
    while process.poll() is None:
        try:
            family = [process, *process.children(recursive=True)]
            peak = max(peak, sum(_memory(one) for one in family))
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # it has just ended
            continue
        time.sleep(POLL_SECONDS)
    if process.returncode:
        raise SystemExit(f"{command}: status {process.returncode}\n{log.read_text()[-3000:]}")
    seconds = time.perf_counter() - began
    return {"seconds": round(seconds, 1), "peak_mb": round(peak / 1e6)}


def _memory(process: psutil.Process) -> int:
    of_process = process.memory_full_info()
    return int(of_process.pss if sys.platform == "linux" else of_process.rss)


def seconds_to_open(page: Path) -> float | None:
    """Until the page shows its samples in Chromium; None without one."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        window = browser.new_page()
        began = time.perf_counter()
        window.goto(page.as_uri(), timeout=120_000)
        window.wait_for_selector("#cards li")
        seconds = time.perf_counter() - began
        browser.close()
    return round(seconds, 2)


def main() -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}")
    args = parser.parse_args()
    if unknown := [name for name in args.cases if name not in CASES]:
        parser.error(f"{unknown[0]!r} is no case; expected one of {', '.join(CASES)}")
    known = json.loads(OUT.read_text(encoding="utf-8")) if OUT.is_file() else {}
    for name in args.cases or CASES:
        case = CASES[name]
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            os.environ["UNIVG_DATA"] = str(folder)
            case.inputs(folder)
            command = [sys.executable, "-m", "univg_eval", *case.arguments.split()]
            row: dict[str, Any] = {"what": case.what, **measured(command, folder)}
            if name == "report":
                page = folder / "page.html"
                row |= {"page_mb": round(page.stat().st_size / 1e6, 1)}
                row |= {"opens_s": seconds_to_open(page)}
        known[name] = row | {"date": datetime.now(UTC).date().isoformat(), **environment()}
        sys.stderr.write(f"{json.dumps(row)}\n")
        write_text_atomically(OUT, [json.dumps(known, indent=1) + "\n"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
