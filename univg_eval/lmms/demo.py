"""What ``univg demo`` runs: the shipped tiny model and the baselines on univg_mini."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from univg_eval.analysis.headline import headlines
from univg_eval.errors import UserError
from univg_eval.lmms.docs import standing_mini
from univg_eval.lmms.generation import Generation
from univg_eval.lmms.record import write_records
from univg_eval.lmms.run import evaluate, task_manager
from univg_eval.lmms.watch import quiet
from univg_eval.models import TINY, model_folder
from univg_eval.runs.record import RunRecord, load_run
from univg_eval.samples import data_root, load_samples

__all__ = ["BASELINES", "DemoRun", "demo_data", "mini_root", "run_demo", "tiny_model"]

BENCHMARK = "univg_mini"
Progress = Callable[[str, int, int], None]
BATCH_SIZE = 8
BASELINES: Mapping[str, str] = {
    "center": "kind=center",
    "full": "kind=full",
    "random": "kind=random,seed=0",
    "spray": "kind=spray",
    "refuse": "kind=refuse",
    "noisy": "kind=noisy,p=0.5,seed=0",
    "oracle": "kind=oracle",
}
"""Name in the table → model_args of univg_baseline."""


@dataclass(frozen=True, slots=True)
class DemoRun:
    """One column of the table.

    Attributes:
        name: in the table and in the JSON.
        record: the run record.
        tasks: per task, `scoring.aggregate`'s metrics with the interval of acc@0.5; None where the
            leaderboard has none.
        macro: unweighted means, with its interval likewise.
    """

    name: str
    record: RunRecord
    tasks: dict[str, dict[str, Any]]
    macro: dict[str, Any]


def tiny_model(folder: str | os.PathLike[str] | None = None) -> tuple[Path, str]:
    """The checkpoint to show and its model_args for the backend univg, on the CPU.

    Args:
        folder: another checkpoint, or a short name; the one that ships with the package if None.

    Raises:
        UserError: the folder holds no such checkpoint.
    """
    path = Path(model_folder(TINY if folder is None else str(folder))).expanduser()
    if not (path / "config.json").is_file():
        raise UserError(
            f"{path} holds no checkpoint (config.json is missing); make one with `univg-train "
            "tiny` and show it with `univg demo --model DIR`"
        )
    if "," in str(path):
        raise UserError(f"{path}: lmms-eval cannot take a path with a comma; move the checkpoint")
    return path, f"pretrained={path},device=cpu"


def mini_root(n: int, seed: int) -> Path:
    """Data root of the demo.

    The usual one for the default set; a folder of its own in it for another set, and where
    another set is there, which the demo must not replace.
    """
    from univg_eval.benchmarks.synthetic.mini import DEFAULT_N, DEFAULT_SEED

    if (n, seed) == (DEFAULT_N, DEFAULT_SEED) and standing_mini() in (None, (n, seed)):
        return data_root()
    return data_root() / "demo" / f"n{n}-seed{seed}"


@contextlib.contextmanager
def demo_data(n: int, seed: int, progress: Progress) -> Iterator[Path]:
    """Generate univg_mini if need be, and point this process's tasks at it meanwhile.

    Args:
        n, seed: see `mini_root`.
        progress: called with what is done, samples done and samples to do.
    """
    from univg_eval.benchmarks.synthetic.mini import ensure

    root = mini_root(n, seed)
    kept = {name: value for name, value in os.environ.items() if name.startswith("UNIVG_")}
    try:
        for name in kept:  # settings of other runs would change what the demo shows
            del os.environ[name]
        os.environ.update(UNIVG_DATA=str(root), UNIVG_MINI_N=str(n), UNIVG_MINI_SEED=str(seed))
        ensure(root, n=n, seed=seed, progress=partial(progress, "drawing scenes"))
        yield root
    finally:
        for name in [name for name in os.environ if name.startswith("UNIVG_")]:
            del os.environ[name]
        os.environ.update(kept)


def run_demo(
    out: Path,
    *,
    model: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    progress: Progress,
) -> list[DemoRun]:
    """Evaluate the tiny model and every baseline through lmms-eval, and write their records.

    Args:
        out: parent of the records: ``<out>/<name>/univg_mini``; those of an older demo are
            replaced.
        model: see `tiny_model`.
        limit: samples a task; all if None.
        progress: called with the run's name, samples done and samples to do.

    Returns:
        The tiny model first, then the baselines.

    Raises:
        UserError: see `tiny_model`.
    """
    _, tiny_args = tiny_model(model)
    plan = [("tiny", "univg", tiny_args)]
    plan += [(name, "univg_baseline", args) for name, args in BASELINES.items()]
    per_task: dict[str, int] = {}
    for sample in load_samples(BENCHMARK):
        per_task[sample.task] = per_task.get(sample.task, 0) + 1
    total = sum(n if limit is None else min(n, limit) for n in per_task.values())
    manager = task_manager()
    runs = []
    for name, backend, model_args in plan:
        progress(name, 0, total)
        with quiet():
            evaluation = evaluate(
                backend,
                model_args,
                [BENCHMARK],
                batch_size=BATCH_SIZE,
                limit=limit,
                manager=manager,
                on_progress=partial(_report, progress, name),
            )
            (path,) = write_records(
                evaluation.results,
                out / name,
                model_args=model_args,
                wall_time_s=evaluation.wall_time_s,
                measured=evaluation.measured,
                replace=True,
            )
        progress(name, total, total)
        runs.append(_summary(name, load_run(path)))
    return runs


def _report(progress: Progress, name: str, generation: Generation) -> None:
    progress(name, generation.done, generation.total)


def _summary(name: str, record: RunRecord) -> DemoRun:
    results = record.manifest.results
    (shown,) = headlines(record.scores)
    key = f"{shown.metric}_interval"
    tasks = {
        task: {**metrics, key: shown.tasks[task].limits} for task, metrics in results.tasks.items()
    }
    return DemoRun(name, record, tasks, {**results.macro, key: shown.macro.limits})
