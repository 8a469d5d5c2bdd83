"""Does difficulty weighting help? The experiment, run by run.

    python results/experiments/difficulty/experiment.py all --work runs/difficulty

Every stage goes on with what the working folder holds: ``start`` trains the common start, ``tune``
tries learning rates, ``run`` trains the runs that count, ``summarise`` writes summary.json and the
figure beside this file. See README.md for the protocol, which was written before the runs.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from plan import (
    BESIDE,
    FEW_SEEDS,
    FINAL_SAMPLES,
    MAIN_ARMS,
    OTHER_ARMS,
    RATES,
    SEEDS,
    STEPS,
    TUNING_SAMPLES,
    TUNING_SAMPLES_SEED,
    Job,
    final_accuracy,
    read_result,
    result_path,
    tuning_seeds,
)

from univg_eval.errors import UserError
from univg_eval.files import write_text_atomically

HERE = Path(__file__).resolve().parent

_logger = logging.getLogger("difficulty")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=("start", "tune", "run", "summarise", "all"))
    parser.add_argument("--work", type=Path, required=True, help="folder of start and runs")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, one thread each")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    stages = ("start", "tune", "run", "summarise") if args.stage == "all" else (args.stage,)
    try:
        for stage in stages:
            if stage == "start":
                make_start(args.work)
            elif stage == "tune":
                tune(args.work, args.jobs)
            elif stage == "run":
                run(args.work, args.jobs)
            else:
                from summary import summarise

                summarise(args.work, HERE)
    except UserError as error:
        print(f"experiment.py {args.stage}: {error}", file=sys.stderr)
        return 2
    return 0


def make_start(work: Path) -> None:
    """Train the start, if it is not there."""
    from start import StartSettings, train_start

    folder = work / "start"
    if not (folder / "start.json").is_file():
        _limit_threads(1)
        train_start(StartSettings(), folder)


def tune(work: Path, jobs: int) -> dict[str, float]:
    """Choose each arm's learning rate by the mean Acc@0.5 of its tuning runs.

    Returns:
        {arm: learning rate}, written to ``rates.json`` with the mean weight of ``exp``.
    """
    arms = [*MAIN_ARMS, *OTHER_ARMS, *BESIDE]
    first = [arm for arm in arms if arm != "constant"]
    _work_off(work, list(_tuning_jobs(first, None)), jobs)
    rates = {arm: _best_rate(work, arm) for arm in first}
    mean = _mean_weight(work, rates["exp"])
    _work_off(work, list(_tuning_jobs(["constant"], mean)), jobs)
    rates["constant"] = _best_rate(work, "constant")
    text = json.dumps({"rates": rates, "mean_weight_of_exp": mean}, indent=2) + "\n"
    write_text_atomically(work / "rates.json", [text])
    return rates


def run(work: Path, jobs: int) -> None:
    """Train the runs that count, at the rates that tuning chose."""
    path = work / "rates.json"
    if not path.is_file():
        raise UserError(f"{path} is missing: run the stage 'tune' first")
    chosen = json.loads(path.read_text(encoding="utf-8"))
    rates, mean = chosen["rates"], chosen["mean_weight_of_exp"]
    # Seed by seed: a part of the work is a smaller experiment, not half of the arms.
    listed = [
        Job("final", arm, seed, rates[arm], mean if arm == "constant" else None)
        for seed in SEEDS
        for arm in (*MAIN_ARMS, *(() if seed not in FEW_SEEDS else (*OTHER_ARMS, *BESIDE)))
    ]
    _work_off(work, listed, jobs)


def _tuning_jobs(arms: Sequence[str], mean: float | None) -> Iterator[Job]:
    for arm in arms:
        for rate in RATES:
            for seed in tuning_seeds(arm):
                yield Job("tune", arm, seed, rate, mean if arm == "constant" else None)


def _best_rate(work: Path, arm: str) -> float:
    def mean(rate: float) -> float:
        results = [read_result(work, Job("tune", arm, seed, rate)) for seed in tuning_seeds(arm)]
        return sum(final_accuracy(result) for result in results) / len(results)

    return max(RATES, key=mean)


def _mean_weight(work: Path, rate: float) -> float:
    weights = [
        value
        for seed in tuning_seeds("exp")
        for value in read_result(work, Job("tune", "exp", seed, rate))["curve"]["weight"]
    ]
    return round(sum(weights) / len(weights), 4)


def _work_off(work: Path, jobs: Sequence[Job], workers: int) -> None:
    open_jobs = [job for job in jobs if not result_path(work, job).is_file()]
    _logger.info("%d of %d runs are left", len(open_jobs), len(jobs))
    if not open_jobs:
        return
    if not (work / "start" / "start.json").is_file():
        raise UserError(f"{work / 'start'} holds no start: run the stage 'start' first")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_limit_threads, initargs=(1,)
    ) as pool:
        running = {pool.submit(_do, work, job): job for job in open_jobs}
        for number, done in enumerate(as_completed(running), start=1):
            _logger.info("%d/%d %s %s", number, len(open_jobs), running[done].name, done.result())


def _do(work: Path, job: Job) -> str:
    from held_out import HELD_OUT_SEED, HeldOut
    from runs import RunSettings, train_more, train_run

    final = job.stage == "final"
    held_out = HeldOut(
        FINAL_SAMPLES if final else TUNING_SAMPLES,
        HELD_OUT_SEED if final else TUNING_SAMPLES_SEED,
    )
    settings = RunSettings(
        job.seed, job.learning_rate, STEPS, evaluate_every=50 if final else STEPS
    )
    if job.arm == "more_sft":
        result = train_more(work / "start", settings, held_out)
    else:
        result = train_run(work / "start", job.arm, job.mean_weight, settings, held_out)
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
