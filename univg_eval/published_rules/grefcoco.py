"""gRefCOCO: expressions whose boxes are all right, and absent objects that get none.

He, Ding, Liu and Jiang, "GREC: Generalized Referring Expression Comprehension" (arXiv 2308.16182);
henghuiding/gRefCOCO, commit 41a8f00, ``mdetr/datasets/refexp.py`` (rule) and
``mdetr/util/box_ops.py`` (GIoU). Its scorer keeps boxes with a score of at least 0.7; an answer has
no scores, and all of its boxes count as that sure. An answer without boxes crashes the scorer
unless it is given a box of a lower score, and counts as silence then and here.

The scorer computes in 32 bits, so that a GIoU within 1e-7 of 0.5 may fall on the other side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from univg_eval.answers import Answer
from univg_eval.boxes import Box, box_iou
from univg_eval.matching import largest_matching
from univg_eval.published_rules.rule import Answered, PublishedRule
from univg_eval.samples import Target
from univg_eval.scoring import IOU_DECIMALS, MATCH_IOU

__all__ = ["RULE"]


def _measure(answered: Sequence[Answered]) -> dict[str, float]:
    """The metrics of a set, and ``{split}_{metric}`` of each split: the authors score these alone.

    Args:
        answered: every expression of the set, one sample each; `GroundingSample.task` is the split.

    Returns:
        ``precision_f1_1`` (Pr@F1=1) and ``precision_f1_1_iou`` over all expressions; ``n_acc`` and
        ``n_acc_explicit`` over those without target; ``t_acc`` over those with. A metric that has
        no expressions is left out; the scorer of the authors divides by zero there.
    """
    values: dict[str, list[bool]] = {}
    of_split: dict[str, list[bool]] = {}
    for sample, answer, _ in answered:
        if sample.targets:
            rights = {
                "precision_f1_1": _all_found(answer.boxes, sample.targets),
                "precision_f1_1_iou": _all_paired(answer, sample.targets),
                "t_acc": bool(answer.boxes),
            }
        else:
            silent, said_none = not answer.boxes, answer.status == "none"
            rights = {"precision_f1_1": silent, "precision_f1_1_iou": said_none}
            rights |= {"n_acc": silent, "n_acc_explicit": said_none}
        for name, right in rights.items():
            values.setdefault(name, []).append(right)
            of_split.setdefault(f"{sample.task}_{name}", []).append(right)
    return {name: sum(right) / len(right) for name, right in (values | of_split).items()}


def _all_found(boxes: Sequence[Box], targets: Sequence[Target]) -> bool:
    """Whether F1 is 1: pair by pair, the one of the highest GIoU first, each at least 0.5."""
    if len(boxes) != len(targets):
        return False
    # The scorer sorts boxes of equal score from the largest corner down, which decides among
    # pairs of equal GIoU.
    found = np.array(sorted(boxes, reverse=True), dtype=np.float64)
    left = _giou(found[:, None], np.array([target.box for target in targets])[None])
    for _ in targets:
        box, target = divmod(int(left.argmax()), len(targets))
        if left[box, target] < MATCH_IOU:
            return False
        left[box, :] = left[:, target] = 0.0
    return True


def _all_paired(answer: Answer, targets: Sequence[Target]) -> bool:
    """Whether boxes and targets can be paired one to one with IoU >= 0.5; invalid boxes count."""
    if not len(targets) == len(answer.boxes) == max(answer.n_boxes, len(answer.boxes)):
        return False
    true = np.array([target.box for target in targets])
    overlaps = np.round(box_iou(np.array(answer.boxes)[:, None], true[None]), IOU_DECIMALS)
    return largest_matching(overlaps >= MATCH_IOU) == len(targets)


def _giou(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Generalized IoU, in (-1, 1]: IoU - (hull - union) / hull, the hull around both boxes.

    Args:
        a, b: xyxy on one scale, shapes (..., 4) that broadcast, every pair with an area.

    Rezatofighi et al., "Generalized Intersection over Union" (CVPR 2019).
    """
    overlap = box_iou(a, b)
    areas = _area(a) + _area(b)
    hull = _area(
        np.concatenate([np.minimum(a[..., :2], b[..., :2]), np.maximum(a[..., 2:], b[..., 2:])], -1)
    )
    # Of intersection = IoU * union and union = areas - intersection.
    union = areas / (1 + overlap)
    rounded: npt.NDArray[np.float64] = np.round(overlap - (hull - union) / hull, IOU_DECIMALS)
    return rounded


def _area(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    sides = boxes[..., 2:] - boxes[..., :2]
    area: npt.NDArray[np.float64] = sides[..., 0] * sides[..., 1]
    return area


RULE = PublishedRule(
    name="grefcoco",
    description="The share of expressions with F1 = 1, and of absent objects that get no box.",
    source="henghuiding/gRefCOCO, commit 41a8f00, mdetr/datasets/refexp.py, mdetr/util/box_ops.py",
    benchmarks=("grefcoco",),
    measure=_measure,
    flaws={
        "precision_f1_1": "boxes match by GIoU >= 0.5, stricter than the IoU of the paper's text; "
        "the best pair is taken first, which can miss a full matching",
        "precision_f1_1, no target": "silence counts as right on every expression without target",
        "n_acc": "silence, a refusal and an unreadable answer are all right",
        "t_acc": "any box anywhere is right; one figure for those with a box at all",
        "no box at all": "the scorer fails on an answer without boxes; it needs one of low score",
    },
)
