"""Evaluate through lmms-eval from Python, with what its tasks need to know about the model."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager

from univg_eval.lmms.task_files import task_folder

__all__ = ["Evaluation", "evaluate", "task_manager"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What lmms-eval returned, and the seconds that it took (loading the model included)."""

    results: dict[str, Any]
    wall_time_s: float


def task_manager() -> TaskManager:
    """An index of this project's tasks alone; lmms-eval's own take seconds to read."""
    return TaskManager(verbosity="WARNING", include_path=str(task_folder()), include_defaults=False)


def evaluate(
    model: str,
    model_args: str,
    tasks: Sequence[str],
    *,
    batch_size: int = 1,
    device: str | None = None,
    limit: int | None = None,
    manager: TaskManager | None = None,
) -> Evaluation:
    """Run `lmms_eval.evaluator.simple_evaluate` on tasks of this project.

    Args:
        model, model_args: as for ``lmms-eval --model … --model_args …``.
        tasks: names of tasks or groups.
        batch_size, device, limit: as for lmms-eval.
        manager: an index made before by `task_manager`.

    Returns:
        The results with logged samples. Standard errors by bootstrap are left out.
    """
    started = time.perf_counter()
    results = simple_evaluate(
        model=model,
        model_args=model_args,
        tasks=list(tasks),
        batch_size=batch_size,
        device=device,
        limit=limit,
        bootstrap_iters=0,
        log_samples=True,
        task_manager=manager or task_manager(),
        cli_args=argparse.Namespace(
            model=model, model_args=model_args, force_simple=False, process_with_media=False
        ),
        datetime_str="",
    )
    return Evaluation(results, time.perf_counter() - started)
