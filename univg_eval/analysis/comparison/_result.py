"""What a comparison of two runs holds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from univg_eval.analysis.stats import Interval

__all__ = [
    "Comparison",
    "Counts",
    "Difference",
    "Flip",
    "Kind",
    "Side",
    "TaskComparison",
    "Test",
    "Verdict",
]

Test = Literal["mcnemar", "sign_flip_exact", "sign_flip_drawn"]
Kind = Literal["a_higher", "b_higher", "not_shown", "borderline", "identical"]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two runs.

    Attributes:
        label: what tables call it.
        model: its model's id.
        benchmark: what ran, with its control or medium, e.g. ``mig_bench+blank``.
        n: samples in its record.
        alone: samples that the other run lacks; they are left out.
    """

    label: str
    model: str
    benchmark: str
    n: int
    alone: int


@dataclass(frozen=True, slots=True)
class Counts:
    """Samples by the value of the metric in both runs.

    Attributes:
        wins, losses, ties: samples where B has more than A, less, as much.
        both, neither: of the ties, those that both have right and wrong; None where samples are
            not right or wrong.
    """

    wins: int
    losses: int
    ties: int
    both: int | None
    neither: int | None


@dataclass(frozen=True, slots=True)
class Difference:
    """B - A with what is known about it, as fractions.

    Attributes:
        a, b: the two values.
        interval: of b - a, 95 %.
        p: two-sided; None where no test is made.
        test: which.
        detectable: smallest true difference found with 80 % power at 5 %, uncorrected; None where
            none can be found so surely.
    """

    a: float
    b: float
    interval: Interval
    p: float | None = None
    test: Test | None = None
    detectable: float | None = None


@dataclass(frozen=True, slots=True)
class TaskComparison:
    """One task.

    Attributes:
        task: its name.
        n, clusters: samples, and groups of them that share images.
        difference: of the task's mean.
        p_holm: p corrected for the number of tasks.
        counts: see `Counts`.
    """

    task: str
    n: int
    clusters: int
    difference: Difference
    p_holm: float
    counts: Counts


@dataclass(frozen=True, slots=True)
class Flip:
    """One sample that the two runs answer differently.

    Attributes:
        id, task: of the sample.
        status_a, status_b: how the responses were read.
        iou_a, iou_b: with the true box; None for samples without one, or with several.
        value_a, value_b: of the metric.
    """

    id: str
    task: str
    status_a: str
    status_b: str
    iou_a: float | None
    iou_b: float | None
    value_a: float
    value_b: float

    @property
    def change(self) -> float:
        """Change of the IoU, or of the metric where there is none."""
        if self.iou_a is None or self.iou_b is None:
            return self.value_b - self.value_a
        return self.iou_b - self.iou_a


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome in words.

    Attributes:
        kind: ``a_higher`` and ``b_higher``: the interval leaves out 0 and p < 0.05;
            ``borderline``: one of the two only; ``not_shown``: neither; ``identical``: every
            response and score is the same.
        headline: one sentence with the figures.
        text: what it means, and what this many samples can show.
    """

    kind: Kind
    headline: str
    text: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs compared on the samples that both have.

    Attributes:
        a, b: the runs.
        benchmark: the prepared benchmark of both.
        metric: what is compared; see `univg_eval.scoring.sample_metrics`.
        n, clusters: samples compared, and groups of them that share images.
        uncounted: common samples that the metric does not count in one run or both (excluded rows,
            another kind of sample, or a protocol that does not give the metric).
        macro: of the unweighted mean over tasks.
        micro: of the mean over all samples; no test is made.
        tasks: in the order of A's record.
        counts: of all samples.
        same_responses: samples with word for word the same response.
        for_b, for_a: samples that flipped most in favour of each run, largest change first.
        differing: what differs between the runs besides the model: name to both values.
        notes: what a reader should know about the comparison.
        verdict: in words.
    """

    a: Side
    b: Side
    benchmark: str
    metric: str
    n: int
    clusters: int
    uncounted: int
    macro: Difference
    micro: Difference
    tasks: tuple[TaskComparison, ...]
    counts: Counts
    same_responses: int
    for_b: tuple[Flip, ...]
    for_a: tuple[Flip, ...]
    differing: dict[str, tuple[Any, Any]]
    notes: tuple[str, ...]
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; differences as fractions, B - A."""
        return asdict(self)
