"""Evaluate through lmms-eval from Python, with what its tasks need to know about the model."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lmms_eval.api.model import lmms
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.models import get_model
from lmms_eval.tasks import TaskManager

from univg_eval.lmms.generation import Listener, Measured, measured_generation
from univg_eval.lmms.task_files import task_folder
from univg_eval.models.pretrained import whole_weights
from univg_eval.redaction import secret_values

__all__ = ["Evaluation", "LoadedModel", "evaluate", "task_manager"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What lmms-eval returned, and the seconds that it took (loading the model included)."""

    results: dict[str, Any]
    wall_time_s: float
    measured: Measured


class LoadedModel:
    """A backend with its model in memory, for several evaluations.

    lmms-eval's `clean` deletes the model at the end of each evaluation; here it does so when the
    context ends.
    """

    def __init__(
        self, model: str, model_args: str, *, batch_size: int = 1, device: str | None = None
    ) -> None:
        """Load it; arguments as for `evaluate`."""
        options = {"batch_size": batch_size, "max_batch_size": None, "device": device}
        with whole_weights():
            self.lm: lmms = get_model(model).create_from_arg_string(model_args, options)
        self._clean = self.lm.clean
        self.lm.clean = lambda: None

    def __enter__(self) -> LoadedModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.lm.clean = self._clean
        self.lm.clean()


def task_manager() -> TaskManager:
    """An index of this project's tasks alone; lmms-eval's own take seconds to read."""
    return TaskManager(verbosity="WARNING", include_path=str(task_folder()), include_defaults=False)


def evaluate(
    model: str,
    model_args: str,
    tasks: Sequence[str | dict[str, Any]],
    *,
    loaded: LoadedModel | None = None,
    batch_size: int = 1,
    device: str | None = None,
    limit: int | None = None,
    gen_kwargs: str | None = None,
    manager: TaskManager | None = None,
    on_progress: Listener | None = None,
) -> Evaluation:
    """Run `lmms_eval.evaluator.simple_evaluate` on tasks of this project.

    Args:
        model, model_args: as for ``lmms-eval --model … --model_args …``.
        tasks: names of tasks or groups, or mappings with a ``task`` and keys that replace those of
            its YAML.
        loaded: a model loaded before with the same `model` and `model_args`.
        batch_size, device, limit, gen_kwargs: as for lmms-eval.
        manager: an index made before by `task_manager`.
        on_progress: called while the model answers.

    Returns:
        The results with logged samples. Standard errors by bootstrap are left out.
    """
    started = time.perf_counter()
    backend = get_model(model) if loaded is None else type(loaded.lm)
    secrets = secret_values(model_args)
    with whole_weights(), measured_generation(backend, on_progress, secrets=secrets) as measured:
        results = simple_evaluate(
            model=model if loaded is None else loaded.lm,
            model_args=model_args,
            # lmms-eval takes keys out of the mappings.
            tasks=[dict(task) if isinstance(task, dict) else task for task in tasks],
            batch_size=batch_size,
            device=device,
            limit=limit,
            gen_kwargs=gen_kwargs,
            bootstrap_iters=0,
            log_samples=True,
            task_manager=manager or task_manager(),
            cli_args=argparse.Namespace(
                model=model, model_args=model_args, force_simple=False, process_with_media=False
            ),
            datetime_str="",
        )
    if loaded is not None:
        # lmms-eval names a model that it did not load itself by its class.
        results["config"]["model"] = model
    return Evaluation(results, time.perf_counter() - started, measured)
