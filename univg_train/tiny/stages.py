"""The tiny pipeline: direct answers, chains of thought, GRPO with difficulty weights.

    univg-train tiny --stage all --quick --out runs/stages

Each stage is a run of what `univg-train sft` and `univg-train grpo` run, with settings that are
written beside it as a file for that command; so each can be stopped at any time, and goes on.
Every stage's model is evaluated on the same held-out samples, in the style that it was trained on.

==========================  =======================================================================
``plan.json``               seed and lengths; another plan needs another folder
``data/``                   training rows with their images, and the held-out benchmark
``pretrain/``               the run of `train_tiny`, if the start is not the shipped model
``direct``, ``cot``,        a stage: its settings (``settings.yaml``), the folder of its run, the
``grpo``                    ``model`` at its end, run records of the held-out samples
``summary.json``            steps, seconds and scores of the stages
==========================  =======================================================================
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from univg_eval.analysis.stats import macro_estimate
from univg_eval.errors import UserError
from univg_eval.files import write_text_atomically
from univg_eval.models import TINY, model_folder
from univg_eval.progress import Progress
from univg_eval.runs.record import environment
from univg_eval.scoring import HeadlineValues
from univg_train.evaluation.generation import evaluate
from univg_train.evaluation.plan import plan_evaluation
from univg_train.evaluation.settings import EvaluationSettings
from univg_train.runs.folder import STATE_FILE, differences, read_record, write_record
from univg_train.runs.training import ShownSteps
from univg_train.tiny.rows import HELDOUT, HELDOUT_SEED, write_heldout, write_training_rows

__all__ = ["FULL", "QUICK", "STAGES", "StagePlan", "run_stages"]

STAGES = ("direct", "cot", "grpo")
STYLES: Mapping[str, str] = {"start": "direct", "direct": "direct", "cot": "think", "grpo": "think"}
"""How a model is prompted at the end of a stage."""
BASES: Mapping[str, str] = {"direct": "start", "cot": "direct", "grpo": "cot"}
"""What a stage goes on from."""

PLAN_FILE = "plan.json"
SUMMARY_FILE = "summary.json"
DIALECT = "qwen2_vl"
# Seeds of the training stream, apart from those of `train_tiny`'s own rows.
_SUPERVISED_SEED, _REINFORCED_SEED = 100_000, 200_000
_LONGEST_ANSWER: Mapping[str, int] = {"direct": 32, "think": 112}  # tokens

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """How long the stages are.

    Attributes:
        tasks: of univg_mini; every stage draws from all of them in turn.
        heldout_per_task: held-out samples a task.
        pretrain_steps: of `train_tiny`, from nothing; None: the shipped model instead.
        direct_steps, cot_steps: optimiser steps of the two supervised stages.
        batch: rows of such a step.
        direct_rate, cot_rate: peaks of their learning rates.
        grpo_steps: steps of GRPO, each with `grpo_prompts` questions answered `group` times.
        grpo_epochs: how often every prompt of GRPO comes; divides its steps.
        grpo_rate: its learning rate.
        save_steps: steps between two checkpoints; 0: about ten in a stage.
    """

    tasks: tuple[str, ...] = ("reasoning", "lisa_val")
    heldout_per_task: int = 100
    pretrain_steps: int | None = None
    direct_steps: int = 30
    cot_steps: int = 60
    batch: int = 8
    direct_rate: float = 2e-4
    cot_rate: float = 2e-4
    grpo_steps: int = 24
    grpo_epochs: int = 3
    grpo_prompts: int = 8
    group: int = 8
    grpo_rate: float = 5e-5
    save_steps: int = 0

    def __post_init__(self) -> None:
        if self.grpo_steps % self.grpo_epochs:
            raise ValueError(
                f"{self.grpo_steps} steps of GRPO are not {self.grpo_epochs} whole epochs"
            )


QUICK = StagePlan()
"""From the shipped model, some minutes."""
FULL = StagePlan(
    pretrain_steps=4400, heldout_per_task=200, direct_steps=100, cot_steps=200, grpo_steps=51
)
"""From nothing, some three hours."""


def _unseen(title: str, done: int, total: int, note: str = "") -> None:
    pass


def run_stages(
    out: Path,
    plan: StagePlan,
    *,
    stages: tuple[str, ...] = STAGES,
    seed: int = 0,
    processes: int = 2,
    compile_layers: bool = False,
    progress: Progress = _unseen,
) -> dict[str, Any]:
    """Run stages, or go on with what a stopped run has left.

    Computes with one thread: a model of this size gains little from a second. (Pretraining has
    processes of its own.)

    Args:
        out: folder of the run; made if absent.
        plan: how long they are.
        stages: of `STAGES`, in that order; a stage goes on from the one before it.
        seed: of weights, rows and rollouts.
        processes: of the pretraining; its result does not depend on them.
        compile_layers: let torch compile the layers in the pretraining.
        progress: is shown the steps of each stage.

    Returns:
        What ``summary.json`` holds.

    Raises:
        UserError: `out` holds a run of another plan, or the stage before is not there.
    """
    torch.set_num_threads(1)
    run = _Stages(out.expanduser().absolute(), plan, seed, processes, compile_layers, progress)
    run.claim()
    for name in stages:
        run.train(name)
    summary = run.summary()
    write_record(run.out / SUMMARY_FILE, summary)
    return summary


@dataclass(frozen=True, slots=True)
class _Stages:
    out: Path
    plan: StagePlan
    seed: int
    processes: int
    compile_layers: bool
    progress: Progress

    @property
    def data(self) -> Path:
        return self.out / "data"

    def model(self, name: str) -> Path:
        if name != "start":
            return self.out / name / "model"
        shipped = self.plan.pretrain_steps is None
        return Path(model_folder(TINY)) if shipped else self.out / "pretrain" / "checkpoint"

    def claim(self) -> None:
        """Write the plan; refuse a folder with another one."""
        path = self.out / PLAN_FILE
        now = json.loads(json.dumps({"seed": self.seed, **asdict(self.plan)}))
        before = read_record(path)
        if before is None:
            if self.out.is_dir() and any(self.out.iterdir()):
                raise UserError(
                    f"{self.out} is not empty and holds no {PLAN_FILE}: not a run of these stages; "
                    "give another folder"
                )
            write_record(path, now)
        elif changed := differences(before, now):
            raise UserError(
                f"{self.out} holds a run of another plan: {'; '.join(changed)}. Give the same "
                "arguments to go on with it, or another folder"
            )

    # -- stages -------------------------------------------------------------------------------

    def train(self, name: str) -> None:
        """Bring one stage to its end, and evaluate its model."""
        base = BASES[name]
        if base == "start":
            self._start()
        elif not self._record(base).get("result"):
            raise UserError(
                f"stage {name} goes on from stage {base}, which {self.out} has not finished; run "
                f"--stage {base} with the same folder first, or --stage all"
            )
        write_heldout(self.data, self.plan.tasks, self.plan.heldout_per_task)
        self._timed(name, self._grpo if name == "grpo" else lambda: self._sft(name))
        self._evaluate(name)

    def _start(self) -> None:
        if self.plan.pretrain_steps is not None:
            self._timed("pretrain", self._pretrain)
        write_heldout(self.data, self.plan.tasks, self.plan.heldout_per_task)
        self._evaluate("start")

    def _pretrain(self) -> dict[str, Any]:
        from univg_train.tiny.pretraining import TinySettings, train_tiny

        settings = TinySettings(seed=self.seed, steps=self.plan.pretrain_steps)
        out, compiled = self.out / "pretrain", self.compile_layers
        result = train_tiny(out, settings, threads=self.processes, compile_layers=compiled)
        return {"steps": result.steps}

    def _sft(self, name: str) -> dict[str, Any]:
        from univg_train.sft.run import train_sft
        from univg_train.sft.settings import load_settings

        plan = self.plan
        steps, rate = (
            (plan.direct_steps, plan.direct_rate)
            if name == "direct"
            else (plan.cot_steps, plan.cot_rate)
        )
        rows = write_training_rows(
            self.data, name, plan.tasks, steps * plan.batch, seed=self.seed + _SUPERVISED_SEED
        )
        settings = {
            **self._common(name, rows),
            "freeze_vision": False,
            "trainer": {
                **self._trainer(name, steps),
                "per_device_train_batch_size": plan.batch,
                "learning_rate": rate,
                "lr_scheduler_type": "cosine",
                "warmup_steps": max(1, steps // 20),
                "adam_beta2": 0.98,
                "weight_decay": 0.01,
            },
        }
        result = train_sft(load_settings(self._written(name, settings)), shown=self._shown(name))
        return {"steps": result["steps"], "loss": result["loss"]}

    def _grpo(self) -> dict[str, Any]:
        from univg_train.grpo.run import train_grpo
        from univg_train.grpo.settings import load_grpo_settings

        plan = self.plan
        per_epoch = plan.grpo_steps // plan.grpo_epochs
        n = per_epoch * plan.grpo_prompts
        rows = write_training_rows(
            self.data, "grpo", plan.tasks, n, seed=self.seed + _REINFORCED_SEED
        )
        settings = {
            **self._common("grpo", rows),
            "freeze_vision": True,
            "difficulty": {"form": "exp"},
            "trainer": {
                **self._trainer("grpo", plan.grpo_steps),
                "per_device_train_batch_size": plan.grpo_prompts * plan.group,
                "num_generations": plan.group,
                "max_completion_length": _LONGEST_ANSWER["think"],
                "learning_rate": plan.grpo_rate,
                # Adam's first steps are as long as the later ones, and know as little as one batch.
                "lr_scheduler_type": "constant_with_warmup",
                "warmup_steps": max(1, plan.grpo_steps // 8),
                "loss_type": "grpo",
                "scale_rewards": "group",
                "beta": 0.0,
                "temperature": 1.0,
                "top_k": 0,
            },
        }
        result = train_grpo(
            load_grpo_settings(self._written("grpo", settings)), shown=self._shown("grpo")
        )
        state = read_record(self.model("grpo") / STATE_FILE) or {}
        rewards = [line["reward"] for line in state.get("log_history", []) if "reward" in line]
        # The same prompts, so that the two means can be compared.
        return {
            "steps": result["steps"],
            "reward_first_epoch": sum(rewards[:per_epoch]) / per_epoch,
            "reward_last_epoch": sum(rewards[-per_epoch:]) / per_epoch,
        }

    def _shown(self, name: str) -> ShownSteps:
        title = f"stage {STAGES.index(name) + 1} of {len(STAGES)}, {name}"
        return lambda done, total, figures: self.progress(title, done, total, figures)

    # -- settings -----------------------------------------------------------------------------

    def _common(self, name: str, rows: Path) -> dict[str, Any]:
        return {
            "model": str(self.model(BASES[name])),
            "dialect": DIALECT,
            "style": STYLES[name],
            "data": {
                "form": "univg_r1_stage1",
                "file": str(rows),
                "root": str(self.data),
                "check_leaks": [HELDOUT],
                # Short questions are alike in all scenes: only the images tell.
                "leak_kinds": ["image_bytes"],
            },
        }

    def _trainer(self, name: str, steps: int) -> dict[str, Any]:
        return {
            "output_dir": str(self.out / name),
            "seed": self.seed,
            "max_steps": steps,
            "save_steps": self.plan.save_steps or max(1, steps // 10),
            "save_total_limit": 2,
            "use_cpu": not torch.cuda.is_available(),
            "bf16": False,
            "gradient_checkpointing": False,
            "logging_steps": 1,
            "report_to": [],
            "disable_tqdm": True,
        }

    def _written(self, name: str, settings: Mapping[str, Any]) -> Path:
        """The settings as a file for the command."""
        import yaml

        path = self.out / name / "settings.yaml"
        command = "grpo" if name == "grpo" else "sft"
        text = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)
        write_text_atomically(path, [f"# univg-train {command} --config {path}\n", text])
        return path

    # -- what is known of a stage -------------------------------------------------------------

    def _record(self, name: str) -> dict[str, Any]:
        return read_record(self.out / name / "stage.json") or {"sessions": 0, "result": None}

    def _steps(self, name: str) -> int:
        """Optimiser steps of a finished stage."""
        return 0 if name == "start" else int(self._record(name)["result"]["steps"])

    def _timed(self, name: str, work: Callable[[], dict[str, Any]]) -> None:
        """Do the work of a stage that is not finished, and record what it took."""
        record, path = self._record(name), self.out / name / "stage.json"
        if record["result"] is not None:
            return
        record["sessions"] += 1
        write_record(path, record)
        wall, cpu = time.monotonic(), _cpu_seconds()
        record["result"] = work()
        record["seconds"] = round(time.monotonic() - wall, 1)
        record["cpu_seconds"] = round(_cpu_seconds() - cpu, 1)
        write_record(path, record)

    def _evaluate(self, name: str) -> None:
        """Evaluate on the held-out samples, unless that has been done."""
        from transformers import AutoModelForImageTextToText, AutoProcessor

        folder, style = self.model(name), STYLES[name]
        processor = AutoProcessor.from_pretrained(folder)
        plan = plan_evaluation(
            EvaluationSettings(
                benchmark=HELDOUT,
                every=1,
                root=str(self.data),
                batch_size=50,
                max_new_tokens=_LONGEST_ANSWER[style],
            ),
            model=str(folder),
            processor=processor,
            dialect=DIALECT,
            style=style,
            output_dir=self.out / name,
        )
        assert plan is not None  # there are settings
        if self._steps(name) in plan.done:
            return
        _logger.info("evaluating the model of %s", name)
        model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        result = evaluate(model, processor, plan.chosen.samples, plan.prompting)
        details = {
            "config": (folder / "config.json").read_text(encoding="utf-8"),
            "generation_config": json.loads(model.generation_config.to_json_string()),
        }
        plan.write_record(self._steps(name), result, details)

    # -- summary ------------------------------------------------------------------------------

    def summary(self) -> dict[str, Any]:
        """Everything that is finished."""
        records = {name: self._record(name) for name in STAGES}
        done = {name: record for name, record in records.items() if record["result"] is not None}
        scores = {name: self._scores(name) for name in ("start", *done)}
        stages = [
            {
                "name": name,
                "style": STYLES[name],
                **record["result"],
                **{key: record[key] for key in ("seconds", "cpu_seconds", "sessions")},
                "before": scores[BASES[name]],
                "after": scores[name],
                "model": str(self.model(name)),
            }
            for name, record in done.items()
        ]
        pretraining = self._record("pretrain")
        return {
            "seed": self.seed,
            "plan": asdict(self.plan),
            "heldout": {
                "n": self.plan.heldout_per_task * len(self.plan.tasks),
                "tasks": list(self.plan.tasks),
                "seed": HELDOUT_SEED,
            },
            "pretraining": pretraining if pretraining["result"] is not None else None,
            "stages": stages,
            **environment(),
        }

    def _scores(self, name: str) -> dict[str, Any]:
        from univg_eval.runs.record import load_run

        record = load_run(self.out / name / "evaluations" / f"step-{self._steps(name):06d}")
        by_task = record.manifest.results.tasks
        tasks = by_task.values()
        n = int(sum(task["n"] for task in tasks))

        def share(metric: str) -> float:
            return float(sum(task["n"] * task[metric] for task in tasks) / n)

        found = HeadlineValues(record.scores)
        value = macro_estimate(found.values["acc@0.5"], found.clusters["acc@0.5"])
        return {
            "style": STYLES[name],
            "n": n,
            "acc@0.5": share("acc@0.5"),
            "interval95": value.limits,
            "miou": share("miou"),
            "answered": share("answered"),
            "tasks": {name: task["acc@0.5"] for name, task in by_task.items()},
            "wall_time_s": record.manifest.wall_time_s,
            "record": str(record.path),
        }


def _cpu_seconds() -> float:
    """Of this process and those of its children that have ended, user and system."""
    return sum(os.times()[:4])
