"""Rex-Omni-EvalData: precision and recall averaged over images, F1 of the two means.

Jiang et al., "Detect Anything via Next Point Prediction" (arXiv 2510.12798);
IDEA-Research/Rex-Omni, commit 478e44f, ``evaluation/metrics/other_metric.py``. The rule is that of
the box sets scored by that file: Dense200, DocLayNet, HierText, HumanRef, IC15, M6Doc, RefCOCOg,
SROIE, TotalText and VisDrone. COCO and LVIS have another protocol (``coco_lvis_metric.py``: means
over classes, boxes of classes that the image lacks removed), which is not reproduced; nor are
polygons and points.

The scorer pools the boxes of all classes before it matches them. A predicted box of a class that
the truth does not have counts as predicted there and cannot match; boxes of an answer carry no
class here, and each is taken to be of a class that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import mean
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from univg_eval.boxes import box_iou
from univg_eval.matching import largest_matching
from univg_eval.published_rules.rule import Answered, PublishedRule
from univg_eval.scoring import IOU_DECIMALS, MACC_THRESHOLDS

__all__ = ["RULE"]

Overlaps = npt.NDArray[np.float64]


class _Means(NamedTuple):
    precision: float
    recall: float
    f1: float


def _measure(answered: Sequence[Answered]) -> dict[str, float]:
    """The metrics of a set.

    Args:
        answered: every row of one or more data sets, one sample each; `GroundingSample.task` is
            the data set.

    Returns:
        ``precision@0.5``, ``recall@0.5``, ``f1@0.5``, ``f1@0.95``; ``f1_mean`` and
        ``f1_mean_corrected`` over the IoUs 0.5, 0.55, …, 0.95. The scorer prints each data set by
        itself, F1 at 0.95 under "IoU=0.9" and the mean F1 under "mIoU": ``{data set}_{metric}``.
        Without a prefix they are the unweighted means over the data sets.

        A row without true boxes has precision and recall 1 without predicted boxes, else 0. (The
        scorer does so for referring rows, and for others that name no class; one that names a class
        without boxes has 0 whatever is predicted. Samples do not distinguish the two.)
    """
    tasks: dict[str, list[Answered]] = {}
    for item in answered:
        tasks.setdefault(item.sample.task, []).append(item)
    rows = {task: _measure_one(items) for task, items in tasks.items()}
    names = next(iter(rows.values()), {})
    return {name: mean(row[name] for row in rows.values()) for name in names} | {
        f"{task}_{name}": value for task, row in rows.items() for name, value in row.items()
    }


def _measure_one(answered: Sequence[Answered]) -> dict[str, float]:
    """`_measure` of one data set."""
    overlaps = [_overlaps(item) for item in answered]
    n_boxes = [len(answer.boxes) for _, answer, _ in answered]
    silent_right = [not n for n in n_boxes]
    published = [
        _means(overlaps, n_boxes, silent_right, threshold, _greedy_matches)
        for threshold in MACC_THRESHOLDS
    ]
    # Invalid boxes count as boxes, as in this project's own F1.
    n_written = [max(answer.n_boxes, len(answer.boxes)) for _, answer, _ in answered]
    said_none = [answer.status == "none" for _, answer, _ in answered]
    corrected = [
        _means(overlaps, n_written, said_none, threshold, _most_matches)
        for threshold in MACC_THRESHOLDS
    ]
    return {
        "precision@0.5": published[0].precision,
        "recall@0.5": published[0].recall,
        "f1@0.5": published[0].f1,
        "f1@0.95": published[-1].f1,
        "f1_mean": mean(means.f1 for means in published),
        "f1_mean_corrected": mean(means.f1 for means in corrected),
    }


def _overlaps(item: Answered) -> Overlaps:
    """IoU of every true with every predicted box, shape (targets, boxes)."""
    true = np.reshape([target.box for target in item.sample.targets], (-1, 1, 4))
    found = np.reshape(item.answer.boxes, (1, -1, 4))
    overlaps: Overlaps = np.round(box_iou(true, found), IOU_DECIMALS)
    return overlaps


def _means(
    overlaps: Sequence[Overlaps],
    n_boxes: Sequence[int],
    absence_right: Sequence[bool],
    threshold: float,
    matches: Callable[[Overlaps, float], int],
) -> _Means:
    """Means over rows of precision and recall, and the F1 of these two.

    Args:
        overlaps: of each row, shape (targets, boxes).
        n_boxes: the denominator of each row's precision.
        absence_right: whether a row is right if it has no targets.
        threshold: IoU that a match reaches.
        matches: counts them.
    """
    precisions, recalls = [], []
    for table, n_found, right in zip(overlaps, n_boxes, absence_right, strict=True):
        n_matched = matches(table, threshold)
        precisions.append(n_matched / max(n_found, 1) if len(table) else float(right))
        recalls.append(n_matched / len(table) if len(table) else float(right))
    precision, recall = mean(precisions), mean(recalls)
    both = precision + recall
    return _Means(precision, recall, 2 * precision * recall / both if both else 0.0)


def _greedy_matches(overlaps: Overlaps, threshold: float) -> int:
    """Each target in turn takes the best box that is left, if that reaches the threshold."""
    if not overlaps.shape[1]:
        return 0
    left = np.ones(overlaps.shape[1], dtype=bool)
    for row in overlaps:
        best = int(np.argmax(np.where(left, row, -1.0)))
        if row[best] >= threshold:
            left[best] = False
    return int((~left).sum())


def _most_matches(overlaps: Overlaps, threshold: float) -> int:
    """The largest number of pairs that share no target and no box."""
    return round(largest_matching(overlaps >= threshold))


RULE = PublishedRule(
    name="rex-omni",
    description="F1 of the mean precision and the mean recall over images, at ten IoUs.",
    source="IDEA-Research/Rex-Omni, commit 478e44f, evaluation/metrics/other_metric.py",
    benchmarks=("rex_omni",),
    measure=_measure,
    flaws={
        "f1_mean": "targets take boxes in the order of the file, so that one can take another's "
        "only match; boxes of all classes are pooled",
        "f1_mean, no target": "without true boxes, silence and unreadable answers are right",
        "f1@0.5": "F1 of two means and no mean of F1: recall on some images makes up for precision "
        "lost on others",
        "f1@0.95": "printed in a column 'IoU=0.9'",
    },
)
