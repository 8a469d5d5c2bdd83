"""Where the time of ``univg demo`` goes: how much of it the model takes.

    python results/benchmarks/demo_time.py [--limit 10]

Runs what the command runs, in this process, and divides the time within ``generate`` by that of
the tiny model's run (loading, answering, scoring, its record) and by that of the whole demo.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from engines import ModelClock
from measuring import Cost, cost_of, cpu_seconds, share, write_report

from univg_eval.benchmarks.synthetic.mini import DEFAULT_N, DEFAULT_SEED
from univg_eval.lmms.demo import demo_data, run_demo


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=int, help="samples a task; all 40 if not given")
    parser.add_argument("--out", type=Path, help="another file than demo_time.json")
    args = parser.parse_args()
    clock = ModelClock()
    ends: dict[str, tuple[float, float]] = {}
    records = []

    def progress(name: str, done: int, total: int) -> None:
        ends[name] = (cpu_seconds(), time.perf_counter())

    def demo(folder: Path) -> None:
        records.extend(run_demo(folder, limit=args.limit, progress=progress))

    with (
        tempfile.TemporaryDirectory(prefix="univg-demo-") as folder,
        demo_data(DEFAULT_N, DEFAULT_SEED, lambda *_: None),
        clock.running(),
    ):
        started = Cost(cpu_seconds(), time.perf_counter())
        whole = cost_of(lambda: demo(Path(folder)))
    cpu, wall = ends["tiny"]
    tiny = Cost(round(cpu - started.cpu_s, 3), round(wall - started.wall_s, 3))
    whole = Cost(round(whole.cpu_s, 3), round(whole.wall_s, 3))
    n = len(records[0].record.scores)
    write_report(
        "demo_time",
        {"samples": n, "runs": len(records), "threads": torch.get_num_threads()},
        [
            share(
                f"`univg demo`, {n} samples: `generate`",
                "the tiny model's run",
                clock.seconds,
                tiny,
            ),
            share("`univg demo`: `generate`", f"all {len(records)} runs", clock.seconds, whole),
        ],
        args.out,
    )


if __name__ == "__main__":
    main()
