"""Evaluation in the loop: a model is evaluated while it trains, and the best one is kept."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from transformers import Trainer, TrainerCallback

from univg_eval.errors import UserError
from univg_train.evaluation.generation import evaluate, generating, preserved_state
from univg_train.evaluation.plan import EvaluationPlan
from univg_train.runs.saving import (
    finish_replacement,
    keep_model,
    model_config,
    read_note,
)
from univg_train.runs.sharding import weights_are_spread

__all__ = ["EvaluationCallback", "attach_evaluation"]

SHOWN = ("acc@0.5", "miou", "answered")
"""Logged where the tasks have them, and the metric that the best model is chosen by."""

_logger = logging.getLogger(__name__)


def attach_evaluation(trainer: Any, processor: Any, plan: EvaluationPlan | None) -> None:
    """Let a trainer evaluate while it trains; nothing where there is no plan."""
    if plan is not None:
        trainer.add_callback(EvaluationCallback(trainer, processor, plan))


class EvaluationCallback(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Evaluates before the first step, every so many steps, and at the end.

    The training goes on as if nothing had been done. A step whose record is there is not evaluated
    again, unless its model was to be kept and is not there. Several processes share the samples.
    """

    def __init__(self, trainer: Any, processor: Any, plan: EvaluationPlan) -> None:
        self._trainer = trainer
        self._processor = processor
        self._plan = plan
        self._logged: int | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The model as it comes; a run that goes on has been evaluated before."""
        plan = self._plan

        def found() -> tuple[Any, Any]:
            finish_replacement(plan.best_folder)
            return plan.done, read_note(plan.best_folder)

        # The main process has written them; another machine may not see its folder.
        plan.done, plan.kept = self._from_main(found)
        if state.global_step == 0:
            self._at(0, control)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Every so many steps, and after the last, before its checkpoint is written."""
        if state.global_step % self._plan.settings.every == 0 or control.should_training_stop:
            self._at(state.global_step, control)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The last step, where it has not been evaluated yet."""
        if self._logged != state.global_step:
            self._at(state.global_step, control)

    def _at(self, step: int, control: Any) -> None:
        # Logging here would be taken for the logging of the step's loss, which may be due.
        due = control.should_log
        with preserved_state(self._trainer.model):
            # A model that was to be kept, and died with its process, is another one now: a record
            # is of the very weights that are kept.
            if step not in self._plan.done or self._plan.is_best(step):
                self._evaluate(step)
            self._keep(step)
        self._log(step)
        control.should_log = due
        self._logged = step

    def _evaluate(self, step: int) -> None:
        trainer, plan = self._trainer, self._plan
        accelerator = trainer.accelerator
        with generating(trainer) as model:
            together = {"accelerator": accelerator, "in_step": weights_are_spread(accelerator)}
            evaluation = evaluate(
                model, self._processor, plan.chosen.samples, plan.prompting, **together
            )
            details = {
                "config": model_config(model).to_json_string(),
                "dtype": str(model.dtype).removeprefix("torch."),
                "mixed_precision": accelerator.mixed_precision,
                "processes": accelerator.num_processes,
                "generation_config": json.loads(model.generation_config.to_json_string()),
            }
        self._from_main(lambda: plan.write_record(step, evaluation, details))
        plan.done[step] = evaluation.results

    def _keep(self, step: int) -> None:
        plan = self._plan
        if plan.is_best(step):
            note = plan.note(step)
            keep_model(self._trainer, self._processor, plan.best_folder, note)
            plan.kept = note
        self._from_main(plan.write_summary)

    def _from_main(self, work: Callable[[], Any]) -> Any:
        """What the main process makes of it, in all of them; its UserError too: none waits."""
        from accelerate.utils import broadcast_object_list

        outcome: list[Any] = [None, None]
        if self._trainer.accelerator.is_main_process:
            try:
                outcome = [work(), None]
            except UserError as error:
                outcome = [None, str(error)]
        broadcast_object_list(outcome)
        result, problem = outcome
        if problem is not None:
            raise UserError(problem)
        return result

    def _log(self, step: int) -> None:
        plan = self._plan
        macro = plan.done[step]["macro"]
        names = dict.fromkeys([*SHOWN, plan.settings.metric])
        shown = {name: macro[name] for name in names if name in macro}
        benchmark = plan.settings.benchmark
        # transformers' reporters take "eval_" for a group of its own. TRL's own `log` would add,
        # and so empty, what has been gathered for the next line on the training.
        Trainer.log(
            self._trainer, {f"eval_{benchmark}/{name}": value for name, value in shown.items()}
        )
        if self._trainer.is_world_process_zero():
            n, best = len(plan.chosen.samples), plan.kept and plan.kept["step"]
            figures = ", ".join(f"{name} {value:.3f}" for name, value in shown.items())
            _logger.info(
                "step %d, %d samples of %s: %s; best: step %s", step, n, benchmark, figures, best
            )
