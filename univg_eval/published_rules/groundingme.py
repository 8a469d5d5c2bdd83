"""GroundingME: accuracy of one box or none, the better of two readings of its numbers.

The rule of lirang04/GroundingME (commit aeb824e, ``evaluate.py``). It reads responses its own way,
and takes the numbers as pixels of the image or on 0-1 or 0-999, whichever fits the true box better.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from univg_eval.boxes import Box, box_iou
from univg_eval.errors import UserError
from univg_eval.published_rules.rule import Answered, PublishedRule, in_pixels
from univg_eval.samples import GroundingSample
from univg_eval.scoring import IOU_DECIMALS

__all__ = ["RULE"]

_THRESHOLDS = (0.5, 0.75, 0.9)
_KEY = '"bbox_2d"'
_ZEROS: Box = (0.0, 0.0, 0.0, 0.0)

# Possessive, and never begun inside a run of digits, so that matching is linear in the text; the
# matches are those of the released pattern, which has neither.
_NUMBER = r"((?:-|(?<!\d))\d++(?:\.\d++)?+)"
_FOUR_NUMBERS = re.compile(r"[\s,]++".join([_NUMBER] * 4))


def _read(text: str) -> Box:
    """The four numbers that the rule reads; zeros for null and for what it cannot read."""
    # From the first brace to the last, as long as the key stands between: with several objects that
    # is no JSON, and the last four numbers count.
    begin, end = text.find("{"), text.rfind("}")
    if begin >= 0 and text.find(_KEY, begin + 1, max(end, 0)) >= 0:
        try:
            value = json.loads(text[begin : end + 1])["bbox_2d"]
            if value is None:
                return _ZEROS
            if isinstance(value, list) and len(value) == 4:
                a, b, c, d = map(float, value)
                return a, b, c, d
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            pass  # whatever fails here is read by the pattern, as released
    found = _ZEROS
    for match in _FOUR_NUMBERS.finditer(text):
        a, b, c, d = map(float, match.groups())
        found = a, b, c, d
    return found


def _published_overlap(sample: GroundingSample, text: str) -> float:
    numbers = _read(text)
    if not sample.targets:
        return float(numbers == _ZEROS)
    truth = in_pixels(sample, [sample.box])
    size = (sample.widths[0], sample.heights[0]) * 2
    unit = 1 if all(number <= 1 for number in numbers) else 999
    scaled = [number / unit * side for number, side in zip(numbers, size, strict=True)]
    return float(box_iou(truth, [numbers, scaled]).max())


def _own_overlap(answered: Answered) -> float:
    sample, answer, _ = answered
    if not sample.targets:
        return float(answer.status == "none")
    return (
        0.0 if answer.box is None else round(float(box_iou(sample.box, answer.box)), IOU_DECIMALS)
    )


def _metrics(scored: Sequence[tuple[GroundingSample, float]], suffix: str = "") -> dict[str, float]:
    groups: dict[tuple[str, ...], list[float]] = {}
    for sample, iou in scored:
        keys: list[tuple[str, ...]] = [(), (sample.task,)]
        second_level = sample.extra.get("subtask_l2")
        if not isinstance(second_level, str | None):
            raise UserError(
                f"sample {sample.id!r}: extra.subtask_l2 is {second_level!r}; expected the name of "
                "a task of the second level: prepare the benchmark again"
            )
        if second_level:
            keys.append((sample.task, second_level.lower()))
        for key in keys:
            groups.setdefault(key, []).append(iou)
    metrics = {f"iou{suffix}": sum(groups[()]) / len(groups[()])} if groups else {}
    for threshold in _THRESHOLDS:
        for key, ious in groups.items():
            # The authors give the accuracies of second-level tasks at 0.5 only.
            if threshold == _THRESHOLDS[0] or len(key) < 2:
                name = "_".join([*key, f"acc@{threshold}{suffix}"])
                metrics[name] = sum(iou >= threshold for iou in ious) / len(ious)
    return metrics


def _measure(answered: Sequence[Answered]) -> dict[str, float]:
    """The metrics of the authors' scorer, and corrected ones.

    ``iou`` (mean) and ``acc@t`` over the responses that there are, rejections among them with an
    IoU of 0 or 1; ``{task}_acc@t`` and ``{task}_{second level}_acc@0.5``. ``n``, a count, is the
    denominator: a sample without a response (None) is left out, one with an empty text is not.
    ``…_corrected``: the box by the protocol ``univg``; a rejection is right only with the status
    ``none``; every sample counts.

    Raises:
        UserError: a size of an image is not known, a sample has several targets, or a name of a
            task of the second level is no text.
    """
    published = [
        (sample, _published_overlap(sample, text))
        for sample, _, text in answered
        if text is not None
    ]
    corrected = [(row.sample, _own_overlap(row)) for row in answered]
    return {
        "n": float(len(published)),
        **_metrics(published),
        **_metrics(corrected, "_corrected"),
    }


RULE = PublishedRule(
    name="groundingme",
    description="Accuracy of one box or none; the numbers are pixels or on 0-1 or 0-999, whichever "
    "fits better.",
    source="lirang04/GroundingME aeb824e, evaluate.py",
    benchmarks=("groundingme",),
    measure=_measure,
    reads_text=True,
    flaws={
        "iou, acc@t": "Each response gets the better of two readings of its numbers, chosen with "
        "the true box in hand.",
        "rejection_acc@t": "Null, an unreadable or empty text and literal zeros are one and the "
        "same, so that saying nothing readable is a right rejection.",
        "bbox_2d": "Two JSON objects in a response are read as none: then its last four numbers "
        "count, wherever they stand.",
        "n": "Samples without a response leave the denominator.",
    },
)
