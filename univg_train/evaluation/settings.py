"""The section ``evaluation`` of a training run's settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from univg_eval.protocols import list_protocols
from univg_train.runs.yaml_settings import Positive, Section

__all__ = ["MAX_NEW_TOKENS", "EvaluationSettings"]

MAX_NEW_TOKENS = 512
"""As in the evaluation tasks."""


def _known_protocol(name: str) -> str:
    if name not in list_protocols():
        known = ", ".join(list_protocols())
        raise ValueError(f"evaluation.protocol is {name!r}; expected one of: {known}")
    return name


class EvaluationSettings(Section):
    """What a model is evaluated on while it trains.

    Attributes:
        benchmark: name of a prepared benchmark.
        every: steps between two evaluations.
        split: of the benchmark; None: all splits.
        tasks: of the benchmark; None: all tasks.
        per_task: the first so many samples of each task; None: all.
        metric: whose unweighted mean over the tasks says which model is best.
        batch_size: samples that a process answers at once.
        max_new_tokens: at most so many tokens a response.
        protocol: the scoring rule.
        root: the data root; None: that of the training data.
    """

    benchmark: str
    every: Positive
    split: str | None = None
    tasks: Annotated[list[str], Field(min_length=1)] | None = Field(
        default=None, description="names of tasks, or no such key for all"
    )
    per_task: Positive | None = None
    metric: str = "acc@0.5"
    batch_size: Positive = 8
    max_new_tokens: Positive = MAX_NEW_TOKENS
    protocol: Annotated[str, AfterValidator(_known_protocol)] = "univg"
    root: str | None = None
