"""MC-Bench: whether each image of a pair shows what the text asks for, and AP by group.

Xu, Zhu and Yang, "MC-Bench: A Benchmark for Multi-Context Visual Grounding in the Era of MLLMs"
(ICCV 2025, arXiv 2410.12332); XuYunqiu/MC-Bench, commit fd43ae3, ``eval_mc_bench.py``. Its scorer
takes COCO results (image, group, box, score). An answer has no scores and no groups, so they are
made as follows:

* score: 1 / rank of the box among all boxes of its answer (the first has 1). Boxes of equal score
  are taken in the order of the images, as pycocotools does.
* group: 1 for every box. The scorer gives the groups of an answer the true groups that fit best.
* image: the one that the text names for the box. A box of no named image cannot be submitted:
  the metrics of the authors do not see it, the corrected ones count it as a box that hits nothing.

Ids are those of the release as long as the samples stand in its order: images 0, 1 for the first
pair, annotations from 0 in the order of the targets. Boxes are in pixels, to six decimals, so that
those of a release are whole again.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from univg_eval.boxes import Box, box_iou
from univg_eval.errors import UserError, install_command
from univg_eval.matching import largest_matching
from univg_eval.published_rules.rule import Answered, PublishedRule
from univg_eval.samples import GroundingSample
from univg_eval.scoring import IOU_DECIMALS, MATCH_IOU

__all__ = ["RULE"]

_PIXEL_DECIMALS = 6
_NOWHERE = [-2.0, -2.0, 1.0, 1.0]  # xywh pixels: outside of every image, so that it hits nothing
_LARGEST_AREA = 1e10  # of COCO's area range "all", in squared pixels

Row = dict[str, Any]


def _measure(answered: Sequence[Answered]) -> dict[str, float]:
    """The metrics of a set.

    Args:
        answered: every pair of the set, in the order of the release. Each sample has two images,
            their sizes, and ``extra["groups"]``: the group (from 1) of each target.

    Returns:
        Shares of pairs: ``accuracy``, ``accuracy_iou50``; AP: ``weighted_ap50``,
        ``weighted_ap50_corrected``, ``ap50``; ``boxes_without_image``: the share of all boxes
        that the metrics of the authors cannot see.

        Where no box can be submitted the scorer of the authors fails with an IndexError; here its
        AP is then 0, and its accuracy what it says: the share of pairs without any target. Where no
        target is of group 2 it fails with an UnboundLocalError; here no group is changed then.

    Raises:
        UserError: a sample is none of a prepared MC-Bench, or pycocotools is not installed.
    """
    if find_spec("pycocotools") is None:
        raise UserError(f"AP needs the package pycocotools: {install_command('eval')}")
    for sample, *_ in answered:
        _require_pair(sample)
    truth = _truth(answered, first_id=0)
    corrected = _truth(answered, first_id=1)
    pooled = {
        **corrected,
        "annotations": [{**r, "category_id": 1} for r in corrected["annotations"]],
    }
    groups = [_best_group(item) for item in answered]
    images = [image for item in answered for image in item.answer.box_images]
    last = _last_pair_of_several_groups(truth)
    return {
        "accuracy": _share([_says_which_images(item) for item in answered]),
        "weighted_ap50": _weighted_ap50(
            truth,
            _results(answered, [g if n == last else 1 for n, g in enumerate(groups)]),
        ),
        "accuracy_iou50": _share([_hits_both_images(item) for item in answered]),
        "weighted_ap50_corrected": _weighted_ap50(
            corrected, _results(answered, groups, without_image=True)
        ),
        "ap50": _weighted_ap50(pooled, _results(answered, [1] * len(groups), without_image=True)),
        "boxes_without_image": _share([image is None for image in images]),
    }


def _require_pair(sample: GroundingSample) -> None:
    groups = sample.extra.get("groups", [] if not sample.targets else None)
    if not isinstance(groups, list) or not all(type(g) is int and g > 0 for g in groups):
        raise UserError(
            f"sample {sample.id!r}: extra.groups is {groups!r}; the rule mc-bench expects the "
            "group of each target, a whole number from 1: prepare mc_bench again"
        )
    if len(groups) != len(sample.targets):
        raise UserError(
            f"sample {sample.id!r}: {len(groups)} groups of {len(sample.targets)} targets; the "
            "rule mc-bench expects one of each: prepare mc_bench again"
        )
    if not len(sample.images) == len(sample.widths) == 2:
        raise UserError(
            f"sample {sample.id!r} has {len(sample.images)} images and {len(sample.widths)} sizes; "
            "the rule mc-bench scores pairs of images in pixels: prepare mc_bench again"
        )


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else 0.0


# --- accuracy ------------------------------------------------------------------------------------


def _says_which_images(item: Answered) -> bool:
    """Whether both images have a box exactly where they have a target."""
    return {t.image for t in item.sample.targets} == set(item.answer.box_images) - {None}


def _hits_both_images(item: Answered) -> bool:
    """Whether both images are right, looking at the boxes.

    An image with targets is right if a box on it reaches IoU 0.5 with one of them; an image without
    is right if no box lies on it, and none lies on no named image. A pair without any targets is
    right only by an explicit "none".
    """
    if not item.sample.targets:
        return item.answer.status == "none"
    for image in range(2):
        true = [target.box for target in item.sample.targets if target.image == image]
        if true and not (_overlaps(_boxes_on(item, image), true) >= MATCH_IOU).any():
            return False
        if not true and {image, None} & set(item.answer.box_images):
            return False
    return True


def _boxes_on(item: Answered, image: int) -> list[Box]:
    named = zip(item.answer.boxes, item.answer.box_images, strict=True)
    return [box for box, shown in named if shown == image]


def _overlaps(found: Sequence[Box], true: Sequence[Box]) -> Any:
    """IoU of all pairs, shape (found, true)."""
    a, b = np.reshape(found, (-1, 1, 4)), np.reshape(true, (1, -1, 4))
    return np.round(box_iou(a, b), IOU_DECIMALS)


# --- average precision ---------------------------------------------------------------------------


def _pixels(box: Box, sample: GroundingSample, image: int) -> list[float]:
    """x, y, width, height in pixels."""
    sides = (sample.widths[image], sample.heights[image]) * 2
    x1, y1, x2, y2 = (
        round(value * side, _PIXEL_DECIMALS) for value, side in zip(box, sides, strict=True)
    )
    return [x1, y1, x2 - x1, y2 - y1]


def _truth(answered: Sequence[Answered], first_id: int) -> dict[str, list[Row]]:
    """The true boxes of a set in COCO's format, annotations numbered from `first_id`."""
    images: list[Row] = []
    annotations: list[Row] = []
    for number, (sample, *_) in enumerate(answered):
        images += [{"id": 2 * number + image} for image in range(2)]
        for target, group in zip(sample.targets, sample.extra.get("groups", []), strict=True):
            box = _pixels(target.box, sample, target.image)
            annotations.append(
                {
                    "id": first_id + len(annotations),
                    "image_id": 2 * number + target.image,
                    "category_id": group,
                    "bbox": box,
                    # COCO would ignore one below 0, and a group of these alone has an AP of -1.
                    "area": max(box[2] * box[3], 0.0),
                    "iscrowd": 0,
                }
            )
    n_groups = max((row["category_id"] for row in annotations), default=1)
    categories = [{"id": group, "name": f"group {group}"} for group in range(1, n_groups + 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _results(
    answered: Sequence[Answered], groups: Sequence[int], *, without_image: bool = False
) -> list[Row]:
    """The boxes of all answers in COCO's format of results.

    Args:
        answered: the set.
        groups: of the boxes of each answer.
        without_image: whether boxes of no named image are among them, where they hit nothing.
    """
    rows = []
    for number, ((sample, answer, _), group) in enumerate(zip(answered, groups, strict=True)):
        named = zip(answer.boxes, answer.box_images, strict=True)
        for rank, (box, image) in enumerate(named, start=1):
            if image is None and not without_image:
                continue
            rows.append(
                {
                    "image_id": 2 * number + (image or 0),
                    "category_id": group,
                    "bbox": list(_NOWHERE) if image is None else _pixels(box, sample, image),
                    "score": 1 / rank,
                }
            )
    return rows


def _weighted_ap50(truth: Mapping[str, Any], results: list[Row]) -> float:
    """Mean over true boxes of the AP of their group: IoU >= 0.5, at 101 recalls.

    Args:
        truth: of a set, see `_truth`.
        results: the first 100 boxes of an image and group count; changed by pycocotools.
    """
    if not results or not truth["annotations"]:
        return 0.0
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = _coco(truth)
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.params.iouThrs = np.array([MATCH_IOU])
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, _LARGEST_AREA]], ["all"]
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
        evaluation.accumulate()
    aps = evaluation.eval["precision"][0, :, :, 0, 0].mean(axis=0)
    # Every group of an annotation has an AP; the others are -1 and weigh nothing.
    return float(np.mean([aps[row["category_id"] - 1] for row in truth["annotations"]]))


def _coco(truth: Mapping[str, Any]) -> Any:
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = truth
    coco.createIndex()
    return coco


def _best_group(item: Answered) -> int:
    """The true group of a pair that fits the boxes of its answer best, the first of equals.

    That is the highest mean IoU over the boxes that are matched one to one, in each image by the
    largest sum.
    """
    sample, groups = item.sample, item.sample.extra.get("groups", [])

    def fit(group: int) -> float:
        total, n_matched = 0.0, 0
        for image in range(2):
            found = _boxes_on(item, image)
            true = [
                target.box
                for target, its_group in zip(sample.targets, groups, strict=True)
                if target.image == image and its_group == group
            ]
            total += largest_matching(_overlaps(found, true))
            n_matched += min(len(found), len(true))
        return total / n_matched if n_matched else 0.0

    return max(sorted(set(groups)), key=fit, default=1)


def _last_pair_of_several_groups(truth: Mapping[str, Any]) -> int | None:
    """The pair whose groups the scorer changes: each pair starts from the submitted ones again.

    The scorer goes through the images with a target of group 2 in pycocotools' order, that of a
    Python set of their ids, which is not the ascending one.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        images: list[int] = _coco(truth).getImgIds(catIds=[2])
    # Without group 2 that is an empty list.
    return images[-1] // 2 if images else None


RULE = PublishedRule(
    name="mc-bench",
    description="Whether each image of a pair gets a box where it should, and AP50 by group.",
    source="XuYunqiu/MC-Bench, commit fd43ae3, eval_mc_bench.py",
    benchmarks=("mc_bench",),
    measure=_measure,
    flaws={
        "accuracy": "no IoU, though printed as 'IoU=0.5': a one-pixel box in the right image is "
        "right, and so is silence on a pair without targets",
        "weighted_ap50": "the annotation with id 0 counts as unmatched, and what matches it as "
        "wrong: a perfect answer stays below 1",
        "weighted_ap50, groups": "of the groups fitted to the true ones only those of the last "
        "pair are kept; a swap of two groups would merge them",
        "weighted_ap50, equal scores": "boxes of equal score are ranked by image id, so that the "
        "order of the pairs moves the AP; corrected metrics share this, for want of scores",
        "boxes of no named image": "a box whose image the answer does not name costs nothing",
        "no box at all": "the scorer fails with an IndexError",
    },
)
