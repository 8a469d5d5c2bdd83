"""What a training run is evaluated on, checked before a model is loaded, and where it is written.

=================================  ================================================================
``evaluations/step-000100``        a run record (`univg_eval.runs`) of the model after 100 steps
``evaluations/summary.json``       all steps, and which is the best
``best``                           the best model so far, with its step in ``evaluation.json``
=================================  ================================================================
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from univg_eval.dialects import get_dialect
from univg_eval.errors import UserError
from univg_eval.files import write_text_atomically
from univg_eval.images.controls import NO_CONTROL
from univg_eval.models.pretrained import pixel_limit
from univg_eval.prompts import default_prompt_style, prompt_hash
from univg_eval.runs.record import environment, load_run, response_line, write_run
from univg_train.evaluation.generation import Evaluation, Prompting
from univg_train.evaluation.samples import EvaluationSet, open_samples
from univg_train.evaluation.settings import EvaluationSettings
from univg_train.runs.saving import read_note

__all__ = ["EvaluationPlan", "evaluated", "plan_evaluation"]

FOLDER = "evaluations"
SUMMARY_FILE = "summary.json"
SETTINGS_SOURCE = "settings of the training run"
BEST_FOLDER = "best"


def evaluated(folder: Path) -> Path | None:
    """What evaluations have left in the folder of a run; None if nothing."""
    for path in (folder / FOLDER, folder / BEST_FOLDER):
        if path.is_dir() and any(path.iterdir()):
            return path
    return None


@dataclass(slots=True, kw_only=True)
class EvaluationPlan:
    """An evaluation that a run repeats while it trains. Made by `plan_evaluation`.

    Attributes:
        settings: checked ones.
        chosen: the samples.
        prompting: how the model is prompted and read.
        limits: pixel limits of the processor, None where it has none.
        base: the model that the run starts from.
        output_dir: the folder of the run.
        style_source: where the style comes from.
        done: step → results of `univg_eval.scoring.aggregate`, in order of the steps.
        kept: what is noted with the best model: step, value and more; None where none is kept.
    """

    settings: EvaluationSettings
    chosen: EvaluationSet
    prompting: Prompting
    limits: Mapping[str, int | None]
    base: str
    output_dir: Path
    style_source: str = SETTINGS_SOURCE
    done: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    kept: Mapping[str, Any] | None = None

    def value(self, step: int) -> float:
        """The metric that says which model is best, of a step that is done."""
        return float(self.done[step]["macro"][self.settings.metric])

    @property
    def best_folder(self) -> Path:
        """Where the best model is kept."""
        return self.output_dir / BEST_FOLDER

    def is_best(self, step: int) -> bool:
        """Whether a step that is done is better than the one kept; of equal ones the earliest."""
        kept = self.kept
        return kept is None or (-self.value(step), step) < (-kept["value"], kept["step"])

    def note(self, step: int) -> dict[str, Any]:
        """What is noted with the model of a step that is done."""
        return {
            "step": step,
            "benchmark": self.settings.benchmark,
            "metric": self.settings.metric,
            "value": self.value(step),
            "record": str(self.record_path(step).relative_to(self.output_dir)),
        }

    def record_path(self, step: int) -> Path:
        """The folder of a step's run record."""
        return self.output_dir / FOLDER / f"step-{step:06d}"

    def read_records(self) -> None:
        """Take in what was written before the run was stopped.

        Raises:
            UserError: a record is damaged, or of other samples; or what lies in the place of the
                best model is none.
        """
        self.kept = read_note(self.best_folder)
        for path in sorted((self.output_dir / FOLDER).glob("step-*")):
            number = path.name.removeprefix("step-")
            if not number.isdecimal():
                continue
            record = load_run(path)
            ids = [sample.id for sample in self.chosen.samples]
            scored = record.manifest.dataset.fingerprint, [score.id for score in record.scores]
            if scored != (self.chosen.fingerprint, ids):
                raise UserError(
                    f"{path} is of other samples than {self.settings.benchmark!r} has now; "
                    "prepare the old set, or name another trainer.output_dir"
                )
            self.done[int(number)] = record.manifest.results.model_dump()
        self.done = dict(sorted(self.done.items()))

    def write_record(self, step: int, evaluation: Evaluation, model: Mapping[str, Any]) -> None:
        """Write a step's run record, at once or not at all, in the place of an older one.

        `model` holds the text of its ``config``, its ``generation_config``, and further keys of
        ``model.args``.
        """
        details = dict(model)
        config, generation = details.pop("config"), details.pop("generation_config")
        settings: dict[str, list[Any]] = {
            "dialect": [self.prompting.dialect.name, SETTINGS_SOURCE],
            "prompt": [self.prompting.style, self.style_source],
            "protocol": [self.prompting.protocol, SETTINGS_SOURCE],
        }
        for name, value in self.limits.items():
            source = "not known" if value is None else "processor of the training run"
            settings[name] = [value, source]
        settings |= {"control": [NO_CONTROL, "default"], "media": ["images", "default"]}
        benchmark = self.settings.benchmark
        manifest = {
            "model": {
                "id": f"{self.output_dir}@{step}",
                "backend": "univg-train",
                "args": {"base": self.base, "step": step, **details},
                "config_sha256": hashlib.sha256(config.encode()).hexdigest(),
            },
            "settings": settings,
            "prompt_sha256": prompt_hash(self.prompting.dialect, self.prompting.style),
            "generation": self.prompting.generation | {"generation_config": generation},
            "dataset": {
                "benchmark": benchmark,
                "prepared_benchmark": benchmark,
                "control": NO_CONTROL,
                "media": "images",
                "fingerprint": self.chosen.fingerprint,
                "n": self.chosen.n,
                "left_out": 0,
                "skipped": self.chosen.skipped,
                "stand_in_images": self.chosen.stand_ins,
                "revision": self.chosen.revision,
            },
            "evaluation": self.settings.model_dump(),
            "n": len(evaluation.scores),
            "complete": self.chosen.complete,
            "excluded": sum(score.excluded for score in evaluation.scores),
            "results": evaluation.results,
            "wall_time_s": evaluation.wall_time_s,
            **environment(),
        }
        write_run(
            self.record_path(step),
            manifest=manifest,
            responses=(
                response_line(benchmark, sample, response)
                for sample, response in zip(evaluation.samples, evaluation.responses, strict=True)
            ),
            scores=evaluation.scores,
            replace=step in self.done,
        )

    def write_summary(self) -> None:
        """Write all steps with their results, and the best."""
        steps = [
            {"step": step, "record": self.record_path(step).name, **results}
            for step, results in sorted(self.done.items())
        ]
        summary = {
            "benchmark": self.settings.benchmark,
            "fingerprint": self.chosen.fingerprint,
            "n": len(self.chosen.samples),
            "complete": self.chosen.complete,
            "best": self.best(),
            "steps": steps,
        }
        text = json.dumps(summary, ensure_ascii=False, indent=2) + "\n"
        write_text_atomically(self.output_dir / FOLDER / SUMMARY_FILE, [text])

    def best(self) -> dict[str, Any] | None:
        """The step whose model is kept, its value of the metric, and where; None if none is."""
        if self.kept is None:
            return None
        kept = {name: self.kept[name] for name in ("step", "metric", "value")}
        return kept | {"model": str(self.best_folder)}


def plan_evaluation(
    settings: EvaluationSettings | None,
    *,
    model: str,
    processor: Any,
    dialect: str,
    style: str | None,
    output_dir: Path,
) -> EvaluationPlan | None:
    """Open the samples and the records of earlier steps; None without settings.

    Args:
        model: folder or hub name that the run starts from.
        processor: of the model, with the run's pixel limits.
        style: None: the dialect's own.
        output_dir: the folder of the run.

    Raises:
        UserError: see `open_samples` and `EvaluationPlan.read_records`; or a prompt cannot be
            written in the dialect.
    """
    if settings is None:
        return None
    # Sizes of other families are lengths, not areas.
    areas = "Qwen" in type(processor.image_processor).__name__
    limits = {
        name: pixel_limit(processor, name) if areas else None
        for name in ("min_pixels", "max_pixels")
    }
    known = get_dialect(dialect, **limits)
    prompting = Prompting(
        dialect=known,
        style=default_prompt_style(dialect) if style is None else style,
        protocol=settings.protocol,
        root=settings.root,
        batch_size=settings.batch_size,
        max_new_tokens=settings.max_new_tokens,
    )
    chosen = open_samples(settings, known)
    for sample in chosen.samples:
        prompting.prompt(sample)
    plan = EvaluationPlan(
        settings=settings,
        chosen=chosen,
        prompting=prompting,
        limits=limits,
        base=model,
        output_dir=output_dir,
        style_source=SETTINGS_SOURCE if style is not None else "default of the dialect",
    )
    plan.read_records()
    return plan
