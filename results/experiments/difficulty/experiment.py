"""Does difficulty weighting help? The experiment, run by run.

    python results/experiments/difficulty/experiment.py all --work runs/difficulty

Every stage goes on with what the working folder holds: ``start`` measures the shipped model,
``tune`` tries learning rates, ``run`` trains the runs that count, ``summarise`` writes summary.json
and the figure beside this file. See README.md for the protocol, which was written before the runs.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from plan import (
    MAIN_ARMS,
    POOLS,
    RATES,
    SAMPLES,
    TUNING_SEED,
    Job,
    final_accuracy,
    final_jobs,
    read_json,
    read_result,
    result_path,
    tuning_jobs,
)

from univg_eval.errors import UserError
from univg_eval.files import write_text_atomically

HERE = Path(__file__).resolve().parent
STAGES = ("start", "tune", "run", "summarise")

_logger = logging.getLogger("difficulty")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=(*STAGES, "all"))
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, one thread each")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    stages = STAGES if args.stage == "all" else (args.stage,)
    try:
        for stage in stages:
            if stage == "start":
                measure_start(args.work)
            elif stage == "tune":
                for series in POOLS:
                    tune(args.work, series, args.jobs)
            elif stage == "run":
                rates = [
                    (series, read_json(args.work, f"rate-{series}", "tune")) for series in POOLS
                ]
                listed = [job for series, rate in rates for job in final_jobs(series, rate)]
                _work_off(args.work, listed, args.jobs)
            else:
                from summary import summarise

                summarise(args.work, HERE)
    except UserError as error:
        print(f"experiment.py {args.stage}: {error}", file=sys.stderr)
        return 2
    return 0


def measure_start(work: Path) -> None:
    """Measure the model that every run begins from, and how difficult it finds each sample."""
    if (work / "start.json").is_file():
        return
    from held_out import HeldOut
    from runs import load_start

    _limit_threads(1)
    model, tokenizer = load_start()
    found = {}
    for stage, samples in SAMPLES.items():
        held_out = HeldOut(samples.seed, samples.count)
        means = held_out.start_means(model, tokenizer)
        found[stage] = {
            "difficulty": means,
            "evaluation": held_out.measure(model, tokenizer, means),
        }
    write_text_atomically(work / "start.json", [json.dumps(found) + "\n"])


def tune(work: Path, series: str, jobs: int) -> float:
    """Choose the learning rate: that of the best mean Acc@0.5 of the tuning runs of both arms.

    Returns:
        The rate, which ``rate-SERIES.json`` holds too.
    """
    _work_off(work, tuning_jobs(series), jobs)

    def mean(rate: float) -> float:
        listed = (Job("tune", series, arm, TUNING_SEED, rate) for arm in MAIN_ARMS)
        results = [read_result(work, job) for job in listed]
        return sum(final_accuracy(result) for result in results) / len(results)

    rate = max(RATES[series], key=mean)
    write_text_atomically(work / f"rate-{series}.json", [json.dumps(rate) + "\n"])
    return rate


def _work_off(work: Path, jobs: Sequence[Job], workers: int) -> None:
    open_jobs = [job for job in jobs if not result_path(work, job).is_file()]
    _logger.info("%d of %d runs are left", len(open_jobs), len(jobs))
    if not open_jobs:
        return
    start = read_json(work, "start", "start")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_limit_threads, initargs=(1,)
    ) as pool:
        running = {
            pool.submit(_do, work, job, start[job.stage]["difficulty"]): job for job in open_jobs
        }
        for number, done in enumerate(as_completed(running), start=1):
            _logger.info("%d/%d %s %s", number, len(open_jobs), running[done].name, done.result())


def _do(work: Path, job: Job, difficulty: Sequence[float]) -> str:
    from held_out import HeldOut
    from runs import RunSettings, train_run

    samples = SAMPLES[job.stage]
    held_out = HeldOut(samples.seed, samples.count)
    settings = RunSettings(job.seed, job.learning_rate, pool=POOLS[job.series])
    result = train_run(job.arm, settings, held_out, difficulty)
    text = json.dumps({"job": asdict(job), **result}) + "\n"
    write_text_atomically(result_path(work, job), [text])
    return f"{final_accuracy(result):.3f} in {result['seconds']:.0f} s"


def _limit_threads(count: int) -> None:
    import torch
    import transformers

    torch.set_num_threads(count)
    transformers.logging.set_verbosity_error()


if __name__ == "__main__":
    sys.exit(main())
