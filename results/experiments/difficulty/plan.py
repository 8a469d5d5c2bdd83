"""What the experiment runs: tasks, steps, rates, seeds and arms, and where each result lies."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from univg_eval.errors import UserError

TASKS = ("llmseg", "refer_grounding", "lisa_val", "lisa_test", "reasoning")
"""Of univg_mini: those with one or two images. At the start nearly all groups of the first two are
easy, and few of the others."""
STEPS = 200
EVALUATE_EVERY = 100
POOLS = {"fresh": None, "repeated": 160}
"""Series of runs: how many prompts a run has; None: every step has others."""
RATES = {"fresh": (2e-5, 6e-5, 2e-4), "repeated": (6e-5, 2e-4, 6e-4)}
TUNING_SEED = 101
SEEDS = tuple(range(1001, 1011))
MAIN_ARMS = ("none", "exp_normalised")
CONTROLS: dict[str, dict[str, tuple[int, ...]]] = {
    "fresh": dict.fromkeys(("permuted", "exp", "constant"), SEEDS[:3]),
    "repeated": {},
}
"""Further arms of each series, with their seeds."""
BASELINE, PRIMARY = MAIN_ARMS
CONSTANT_WEIGHT = 1.53
"""Of ``constant``: the mean of e^(1-m) over the held-out samples at the start."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Held-out samples; no run draws its prompts with their seed."""

    seed: int
    count: int


SAMPLES = {"tune": Samples(900_000_013, 400), "final": Samples(900_000_011, 600)}
"""Those that each stage measures with."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run: where it belongs and what it depends on."""

    stage: str
    series: str
    arm: str
    seed: int
    learning_rate: float

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"{self.stage}-{self.series}-{self.arm}-{self.learning_rate:g}-{self.seed}"


def tuning_jobs(series: str) -> list[Job]:
    """The runs that choose the learning rate of a series."""
    return [
        Job("tune", series, arm, TUNING_SEED, rate) for rate in RATES[series] for arm in MAIN_ARMS
    ]


def final_jobs(series: str, rate: float) -> list[Job]:
    """The runs that count, seed by seed: a part of the work is a smaller experiment."""
    arms = arms_of(series)
    return [
        Job("final", series, arm, seed, rate)
        for seed in SEEDS
        for arm, seeds in arms.items()
        if seed in seeds
    ]


def arms_of(series: str) -> dict[str, tuple[int, ...]]:
    """The arms of a series, and the seeds of each."""
    return dict.fromkeys(MAIN_ARMS, SEEDS) | CONTROLS[series]


def result_path(work: Path, job: Job) -> Path:
    """Where the result of a run is written."""
    return work / "runs" / f"{job.name}.json"


def read_result(work: Path, job: Job) -> dict[str, Any]:
    """The result of a run.

    Raises:
        UserError: it has not been run.
    """
    result: dict[str, Any] = read_json(work, f"runs/{job.name}", job.stage)
    return result


def read_json(work: Path, name: str, stage: str) -> Any:
    """What a stage wrote.

    Raises:
        UserError: it did not.
    """
    path = work / f"{name}.json"
    if not path.is_file():
        what = "run" if stage == "final" else stage
        raise UserError(f"{path} is missing: run the stage {what!r} to its end first")
    return json.loads(path.read_text(encoding="utf-8"))


def final_accuracy(result: dict[str, Any], kind: str = "all", name: str = "acc@0.5") -> float:
    """A figure of the last evaluation."""
    last = max(result["evaluations"], key=int)
    return float(result["evaluations"][last][kind][name])
