"""What the experiment runs: steps, rates, seeds and arms, and where each result lies."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from univg_eval.errors import UserError

STEPS = 150
RATES = (2e-5, 6e-5, 2e-4)
TUNING_SEEDS = (101, 102)
SEEDS = tuple(range(1001, 1011))
FEW_SEEDS = SEEDS[:3]
MAIN_ARMS = ("none", "constant", "exp_normalised")
OTHER_ARMS = ("exp", "power", "log", "permuted", "no_group_std", "spread_only")
BESIDE = ("reasoning", "more_sft")
BASELINE = "none"
PRIMARY = "exp_normalised"
FINAL_SAMPLES = 300  # of each kind
TUNING_SAMPLES = 300
TUNING_SAMPLES_SEED = 900_000_011


@dataclass(frozen=True, slots=True)
class Job:
    """One run: where it belongs and what it depends on."""

    stage: str
    arm: str
    seed: int
    learning_rate: float
    mean_weight: float | None = None

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"{self.stage}-{self.arm}-{self.learning_rate:g}-{self.seed}"


def tuning_seeds(arm: str) -> tuple[int, ...]:
    """Seeds of an arm's tuning; what is looked at once gets one."""
    return TUNING_SEEDS[:1] if arm in BESIDE else TUNING_SEEDS


def result_path(work: Path, job: Job) -> Path:
    """Where the result of a run is written."""
    return work / "runs" / f"{job.name}.json"


def read_result(work: Path, job: Job) -> dict[str, Any]:
    """The result of a run.

    Raises:
        UserError: it has not been run.
    """
    path = result_path(work, job)
    if not path.is_file():
        raise UserError(f"{path} is missing: run the stage {job.stage!r} to its end first")
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def final_accuracy(result: dict[str, Any], kind: str = "all", name: str = "acc@0.5") -> float:
    """A figure of the last evaluation."""
    last = max(result["evaluations"], key=int)
    return float(result["evaluations"][last][kind][name])
