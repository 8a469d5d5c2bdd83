"""The numbers of a run that every table and page shows, with their 95 % limits."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from univg_eval.analysis.stats import Estimate, macro_estimate, task_estimate
from univg_eval.scoring import HEADLINES, HeadlineValues, SampleScore, is_share

__all__ = ["Headline", "headlines", "micro_estimate"]


@dataclass(frozen=True, slots=True)
class Headline:
    """One metric of a run.

    Attributes:
        metric: of `univg_eval.scoring.HEADLINES`.
        tasks: the value of each task that has such samples, in order of appearance.
        macro: their unweighted mean.
    """

    metric: str
    tasks: Mapping[str, Estimate]
    macro: Estimate


def headlines(scores: Iterable[SampleScore] | HeadlineValues) -> list[Headline]:
    """The metrics of a run, one a kind of its samples; the first is the number of the run.

    See `univg_eval.scoring.HEADLINES`.

    Returns:
        Empty where no sample counts.
    """
    found = scores if isinstance(scores, HeadlineValues) else HeadlineValues(scores)
    return [
        _headline(metric, found.values[metric], found.clusters[metric])
        for metric in HEADLINES
        if metric in found.values
    ]


def _headline(
    metric: str,
    values: Mapping[str, Sequence[float]],
    clusters: Mapping[str, Sequence[Hashable]],
) -> Headline:
    share = is_share(metric)
    return Headline(
        metric=metric,
        tasks={
            task: task_estimate(own, clusters[task], share=share) for task, own in values.items()
        },
        macro=macro_estimate(values, clusters),
    )


def micro_estimate(scores: Iterable[SampleScore], metric: str) -> Estimate:
    """The mean over all samples that have the metric; there is at least one."""
    found = HeadlineValues(scores)
    return task_estimate(
        [value for own in found.values[metric].values() for value in own],
        [cluster for own in found.clusters[metric].values() for cluster in own],
        share=is_share(metric),
    )
