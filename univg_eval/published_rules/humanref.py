"""HumanRef: recall, precision and DensityF1 of all persons that a text refers to.

The rule of IDEA-Research/RexSeek (commit f5c1169, ``rexseek/metric/recall_precision_densityf1.py``)
for boxes; that for points is not here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from univg_eval.boxes import box_iou
from univg_eval.errors import UserError
from univg_eval.published_rules.rule import Answered, PublishedRule, in_pixels

__all__ = ["RULE"]

_REJECTION = "rejection"
# As released: from 0.6 on, most of these lie up to 4e-16 above the number they stand for.
_THRESHOLDS = np.arange(0.5, 1.0, 0.05)
_NAMES = ("recall", "precision", "densityf1")

FloatArray = npt.NDArray[np.float64]


def _found(overlaps: FloatArray, threshold: float) -> int:
    """How many true objects find a box: each in turn takes the free one with the highest IoU.

    Args:
        overlaps: IoU, shape (boxes, true objects).
        threshold: the IoU that the box has to reach.
    """
    free = overlaps.copy()
    found = 0
    for column in range(free.shape[1]):
        best = int(np.argmax(free[:, column]))
        if free[best, column] >= threshold:
            free[best] = -1.0
            found += 1
    return found


def _n_boxes(row: Answered) -> int:
    """Boxes that an answer has; an invalid one counts, as it fits nothing."""
    return 0 if row.answer.status == "none" else max(row.answer.n_boxes, len(row.answer.boxes))


def _row(row: Answered) -> FloatArray:
    """Recall, precision and DensityF1 of one sample at each threshold: shape (10, 3)."""
    sample = row.sample
    if not sample.targets:
        raise UserError(
            f"sample {sample.id!r} of the domain {sample.task!r} has no true box; the scorer of "
            f"HumanRef fails on such rows outside of {_REJECTION!r}: prepare the benchmark again"
        )
    values = np.zeros((len(_THRESHOLDS), len(_NAMES)))
    if not row.answer.boxes:
        return values
    truth = in_pixels(sample, [target.box for target in sample.targets])
    overlaps = box_iou(truth[None], in_pixels(sample, row.answer.boxes)[:, None])
    n_truth, n_boxes = len(truth), _n_boxes(row)
    for i, threshold in enumerate(_THRESHOLDS):
        if found := _found(overlaps, threshold):
            recall, precision = found / n_truth, found / n_boxes
            f1 = 2 * precision * recall / (precision + recall)
            # The authors divide both counts by the persons in the image, which cancels.
            values[i] = recall, precision, f1 * min(1.0, n_truth / n_boxes)
    return values


def _measure(answered: Sequence[Answered]) -> dict[str, float]:
    """The metrics of the authors' scorer, and a corrected one.

    ``{domain}_{metric}@t`` are means over the samples of a domain, ``average_{metric}@t`` over all
    samples but rejections, at IoU >= 0.5 and as the mean over 0.5, 0.55, …, 0.95.
    ``rejection_score`` is a number of samples, not a share: rejections without a box, whatever else
    their response says, even none at all. ``rejection_recall_corrected``: the share of rejections
    with the status ``none``.

    Raises:
        UserError: a sample outside of the domain rejection has no true box, or the size of an image
            is not known.
    """
    groups: dict[str, list[FloatArray]] = {}
    rejections = [row for row in answered if row.sample.task == _REJECTION]
    for row in answered:
        if row.sample.task != _REJECTION:
            values = _row(row)
            for group in (row.sample.task, "average"):
                groups.setdefault(group, []).append(values)
    metrics = {}
    for group in sorted(groups, key=lambda name: (name == "average", name)):
        mean = np.mean(groups[group], axis=0)
        for name, at_half, over_all in zip(_NAMES, mean[0], mean.mean(axis=0), strict=True):
            metrics[f"{group}_{name}@0.5"] = float(at_half)
            metrics[f"{group}_{name}@0.5:0.95"] = float(over_all)
    metrics["rejection_score"] = float(sum(_n_boxes(row) == 0 for row in rejections))
    if rejections:
        said = sum(row.answer.status == "none" for row in rejections)
        metrics["rejection_recall_corrected"] = said / len(rejections)
    return metrics


RULE = PublishedRule(
    name="humanref",
    description="Recall, precision and DensityF1 of all persons referred to; rejections counted.",
    source="IDEA-Research/RexSeek f5c1169, rexseek/metric/recall_precision_densityf1.py",
    benchmarks=("humanref",),
    measure=_measure,
    flaws={
        "rejection_score": "A count, in which a missing or unreadable answer is a right rejection.",
        "densityf1": "The number of persons in the image, by which the README explains the "
        "penalty, cancels: what is left is F1 times true boxes per predicted box.",
        "@0.5:0.95": "Eight of the ten thresholds are up to 4e-16 too high, so that an IoU of "
        "exactly 0.6 or 0.75 misses.",
    },
)
