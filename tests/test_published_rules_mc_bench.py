"""The rule of MC-Bench, against a second writing of it that counts cells of a grid."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from factories import make_sample
from read_answers import (
    Cells,
    cells,
    counted_iou,
    metrics_on_the_page,
    random_cells,
    read,
)

from univg_eval.answers import Answer
from univg_eval.boxes import Box
from univg_eval.errors import UserError
from univg_eval.published_rules import PUBLISHED_RULES, Answered, measure_published
from univg_eval.samples import GroundingSample, Target
from univg_eval.scoring import Response

pytest.importorskip("pycocotools")

RULE = PUBLISHED_RULES["mc-bench"]
WHOLE, PIXEL = (0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 1 / 640, 1 / 480)
A, B = (0.1, 0.1, 0.4, 0.4), (0.6, 0.6, 0.9, 0.9)
HALF = Fraction(1, 2)
UP_TO_HALF = 51 / 101
"""The share of the 101 recalls 0, 0.01, …, 1 that are not above 0.5."""


def pair(
    targets: Sequence[tuple[int, Box]] = (), groups: Sequence[int] | None = None
) -> GroundingSample:
    return make_sample(
        targets=tuple(Target(image=image, box=box) for image, box in targets),
        image_is_given=False,
        find_all=True,
        extra={"groups": [1] * len(targets) if groups is None else list(groups)},
    )


def said(*boxes: tuple[int | None, Box]) -> Answer:
    return read([box for _, box in boxes], [image for image, _ in boxes])


def measure(*items: tuple[GroundingSample, Answer]) -> dict[str, float]:
    return RULE.measure([Answered(sample, answer, None) for sample, answer in items])


# --- the rule written a second time --------------------------------------------------------------

Rows = Sequence[tuple[list[tuple[int, Cells, int]], list[tuple[int | None, Cells]], bool]]
"""For each pair (image, box, group) of its targets, (image, box) of its answer, and whether that is
an explicit none."""


def average_precision(
    truths: dict[int, list[tuple[int, Cells]]], found: list[tuple[Fraction, int, Cells | None]]
) -> float:
    """AP of one group: image → (id, box), and (score, image, box); id 0 reads as unmatched."""
    n_true = sum(map(len, truths.values()))
    found = sorted(found, key=lambda row: (-row[0], row[1]))
    taken: set[tuple[int, int]] = set()
    right = []
    for _, image, box in found:
        fits = [
            (counted_iou(box, true), number)
            for number, true in truths.get(image, [])
            if box is not None and (image, number) not in taken
        ]
        fits = [fit for fit in fits if fit[0] >= HALF]
        if fits:
            taken.add((image, max(fits)[1]))
        right.append(bool(fits) and max(fits)[1] != 0)
    curve = [
        (sum(right[: n + 1]) / n_true, Fraction(sum(right[: n + 1]), n + 1))
        for n in range(len(right))
    ]
    precisions = [
        max((precision for recall, precision in curve if recall >= least), default=Fraction(0))
        for least in np.linspace(0, 1, 101)
    ]
    return float(sum(precisions) / 101)


def weighted(
    rows: Rows, group_of: Sequence[int], *, first_id: int, everything: bool, pooled: bool = False
) -> float:
    truths: dict[int, dict[int, list[tuple[int, Cells]]]] = {}
    numbers = itertools.count(first_id)
    found: dict[int, list[tuple[Fraction, int, Cells | None]]] = {}
    weights: Counter[int] = Counter()
    for number, (true, boxes, _) in enumerate(rows):
        for image, box, its_group in true:
            group = 1 if pooled else its_group
            weights[group] += 1
            on_image = truths.setdefault(group, {}).setdefault(2 * number + image, [])
            on_image.append((next(numbers), box))
        for rank, (shown, seen) in enumerate(boxes, start=1):
            if shown is not None or everything:
                row = (
                    Fraction(1, rank),
                    2 * number + (shown or 0),
                    None if shown is None else seen,
                )
                found.setdefault(group_of[number], []).append(row)
    total = sum(weights.values())
    return sum(
        n / total * average_precision(truths[group], found.get(group, []))
        for group, n in weights.items()
    )


def fitting_group(true: list[tuple[int, Cells, int]], boxes: list[tuple[int | None, Cells]]) -> int:
    """The group of the highest mean IoU of matched boxes, by trying every matching."""
    fits = {}
    for group in sorted({group for *_, group in true}):
        total, n = Fraction(0), 0
        for image in range(2):
            some = [box for shown, box in boxes if shown == image]
            others = [box for shown, box, g in true if (shown, g) == (image, group)]
            few, many = sorted((some, others), key=len)
            total += max(
                sum((counted_iou(a, b) for a, b in zip(few, order, strict=True)), Fraction(0))
                for order in itertools.permutations(many, len(few))
            )
            n += len(few)
        fits[group] = total / n if n else Fraction(0)
    return max(fits, key=lambda group: fits[group]) if fits else 1


def hits_both(true, boxes, said_none: bool) -> bool:
    if not true:
        return said_none
    shown = {image for image, _ in boxes}
    hit = {
        i for i, box, _ in true for j, seen in boxes if i == j and counted_iou(box, seen) >= HALF
    }
    with_targets = {image for image, *_ in true}
    return hit == with_targets and (with_targets == {0, 1} or shown == with_targets)


def derived(rows: Rows) -> dict[str, float]:
    fitted = [fitting_group(true, boxes) for true, boxes, _ in rows]
    # Images come in the order of a set of whole numbers, which is not the ascending one.
    several = list({2 * n + i: None for n, row in enumerate(rows) for i, _, g in row[0] if g == 2})
    last = list(set(several))[-1] // 2 if several else None
    only_last = [group if n == last else 1 for n, group in enumerate(fitted)]
    agree = [
        {image for image, *_ in true} == {image for image, _ in boxes if image is not None}
        for true, boxes, _ in rows
    ]
    named = [image is not None for _, boxes, _ in rows for image, _ in boxes]
    ones = [1] * len(rows)
    return {
        "accuracy": sum(agree) / len(rows),
        "weighted_ap50": weighted(rows, only_last, first_id=0, everything=False),
        "accuracy_iou50": sum(hits_both(*row) for row in rows) / len(rows),
        "weighted_ap50_corrected": weighted(rows, fitted, first_id=1, everything=True),
        "ap50": weighted(rows, ones, first_id=1, everything=True, pooled=True),
        "boxes_without_image": 1 - sum(named) / len(named) if named else 0.0,
    }


@pytest.mark.parametrize("seed", range(60))
def test_the_rule_derived_again(seed: int) -> None:
    source = random.Random(seed)
    # Cells of whole pixels: 640 x 480 and 320 x 240.
    side = source.choice((8, 10, 16))
    rows = []
    for _ in range(source.randint(2, 8)):
        n_groups = source.choice((1, 1, 2, 3))
        true = [
            (image, random_cells(source, side), source.randint(1, n_groups))
            for image in range(2)
            for _ in range(source.choice((0, 1, 1, 2)))
        ]
        boxes: list[tuple[int | None, Cells]] = [
            (image, random_cells(source, side, near=box))
            for image, box, _ in true
            if source.random() < 0.8
        ]
        boxes += [
            (source.choice((0, 1, None)), random_cells(source, side))
            for _ in range(source.choice((0, 0, 1)))
        ]
        source.shuffle(boxes)
        rows.append((true, boxes, not boxes and source.random() < 0.5))
    got = measure(
        *(
            (
                pair([(i, cells(box, side)) for i, box, _ in true], [group for *_, group in true]),
                read(
                    [cells(box, side) for _, box in boxes],
                    [image for image, _ in boxes],
                    status="none" if said_none else None,
                ),
            )
            for true, boxes, said_none in rows
        )
    )
    assert got == pytest.approx(derived(rows), abs=1e-9)


# --- quirks, by hand -----------------------------------------------------------------------------


def test_a_perfect_submission_stays_below_1() -> None:
    """The box that matches annotation 0 is a false one: precision 0 and 1/2 at recall 0 and 1/2."""
    got = measure((pair([(0, A)]), said((0, A))), (pair([(1, B)]), said((1, B))))
    assert got["weighted_ap50"] == pytest.approx(UP_TO_HALF / 2)
    assert got["weighted_ap50_corrected"] == got["ap50"] == pytest.approx(1)
    assert got["accuracy"] == got["accuracy_iou50"] == 1.0


def test_only_the_groups_of_the_last_pair_are_fitted() -> None:
    """Both answers show the target of group 2 alone; the first stays in group 1, where it is wrong.

    Group 2 has half of the targets and finds one of its two, AP 51/101; group 1 finds none.
    """
    both = pair([(0, A), (0, B)], [1, 2])
    got = measure((both, said((0, B))), (both, said((0, B))))
    assert got["weighted_ap50"] == pytest.approx(UP_TO_HALF / 2)
    assert got["weighted_ap50_corrected"] == pytest.approx(1 / 2)
    assert got["ap50"] == pytest.approx(UP_TO_HALF)


def test_the_last_pair_is_that_of_a_set_of_image_ids() -> None:
    """Images 1 and 8 have a target of group 2; a set has 8 before 1, so that pair 0 comes last."""
    several = pair([(1, A), (1, B)], [1, 2])
    others = [(pair(), read())] * 3
    rows = ((several, said((1, B))), *others, (pair([(0, A), (0, B)], [1, 2]), read()))
    assert list({1, 8}) == [8, 1]
    assert measure(*rows)["weighted_ap50"] == pytest.approx(UP_TO_HALF / 2)
    one, eight = rows[0], (rows[-1][0], said((0, B)))
    assert measure((several, read()), *others, eight)["weighted_ap50"] == 0.0
    assert measure(one, *others, eight)["weighted_ap50"] == pytest.approx(UP_TO_HALF / 2)


def test_all_boxes_of_an_answer_are_of_one_group() -> None:
    """Half of the targets can be found under one group, however good the boxes are."""
    got = measure((pair([(0, A), (1, B)], [1, 2]), said((0, A), (1, B))))
    assert got["weighted_ap50_corrected"] == pytest.approx(1 / 2)
    assert got["ap50"] == pytest.approx(1)


def test_an_inverted_target_is_one_that_is_not_found() -> None:
    """Alone in its group, and its area below 0: COCO has no AP for what it ignores."""
    inverted = (0.9, 0.6, 0.6, 0.9)
    got = measure((pair([(0, A), (1, inverted)], [1, 2]), said((0, A))))
    assert got["weighted_ap50_corrected"] == pytest.approx(1 / 2)
    assert got["ap50"] == pytest.approx(UP_TO_HALF)


def test_equal_scores_are_ranked_by_the_order_of_pairs() -> None:
    right, wrong = (pair([(0, A)]), said((0, A))), (pair(), said((0, A)))
    assert measure(right, wrong)["ap50"] == pytest.approx(1)
    assert measure(wrong, right)["ap50"] == pytest.approx(1 / 2)


def test_a_lower_rank_in_the_answer_is_a_lower_score() -> None:
    """The wrong box of the first pair comes after the right one of the second."""
    got = measure((pair([(0, A)]), said((0, A), (0, B))), (pair([(0, A)]), said((0, A))))
    assert got["ap50"] == pytest.approx(1)


def test_accuracy_looks_at_no_box() -> None:
    got = measure((pair([(0, A), (1, B)]), said((0, PIXEL), (1, PIXEL))))
    assert got["accuracy"] == 1.0
    assert got["accuracy_iou50"] == got["weighted_ap50"] == got["ap50"] == 0.0


def test_one_box_repeated() -> None:
    """Precision 1, 1/2, 2/3: the two ids are found at ranks 1 and 3."""
    got = measure((pair([(0, A), (0, B)]), said((0, A), (0, A), (0, B))))
    assert got["ap50"] == pytest.approx(UP_TO_HALF + (1 - UP_TO_HALF) * 2 / 3)
    assert got["accuracy"] == got["accuracy_iou50"] == 1.0


def test_whole_image_boxes() -> None:
    """Right wherever both images show something; a hit only on a target of half an image."""
    everywhere = said((0, WHOLE), (1, WHOLE))
    large = (0.0, 0.0, 1.0, 0.5)
    got = measure(
        (pair([(0, large), (1, large)]), everywhere),
        (pair([(0, large), (1, A)]), everywhere),
        (pair([(0, large)]), everywhere),
        (pair(), everywhere),
    )
    assert (got["accuracy"], got["accuracy_iou50"]) == (0.5, 0.25)


@pytest.mark.parametrize(
    ("status", "corrected"), [("no_box", 0.0), ("truncated", 0.0), ("none", 0.25)]
)
def test_silence_everywhere(status, corrected: float) -> None:
    """Right of every pair without targets; the authors' scorer fails on an empty file."""
    samples = [pair([(0, A)], [2]), pair([(1, A)]), pair([(0, A), (1, A)]), pair()]
    got = measure(*((sample, read(status=status)) for sample in samples))
    assert got == {
        "accuracy": 0.25,
        "weighted_ap50": 0.0,
        "accuracy_iou50": corrected,
        "weighted_ap50_corrected": 0.0,
        "ap50": 0.0,
        "boxes_without_image": 0.0,
    }


def test_boxes_of_no_named_image() -> None:
    """Not submitted, so that they cost nothing; where corrected, a false box before the right one.

    The first pair's other image has no target, and a box of no named image may lie there.
    """
    first = (pair([(0, A)]), said((None, A), (0, A)))
    second = (pair([(0, A)]), said((0, A), (0, B), (0, B)))
    got = measure(first, second)
    assert got["accuracy"] == 1.0 and got["accuracy_iou50"] == 0.5
    assert got["boxes_without_image"] == 1 / 5
    # Ranks 1, 1, 2, 2, 3, by the order of pairs: wrong, right, right, wrong, wrong.
    assert got["ap50"] == pytest.approx(2 / 3)
    # The box of annotation 0, rank 2, is a false one; before it stands the second pair's.
    assert got["weighted_ap50"] == pytest.approx(UP_TO_HALF)
    alone = measure((pair([(0, A)]), said((None, A))))
    assert alone == dict.fromkeys(alone, 0.0) | {"boxes_without_image": 1.0}


def test_no_more_than_100_boxes_of_an_image_count() -> None:
    wrong = [(0, B)] * 99
    assert measure((pair([(0, A)]), said(*wrong, (0, A))))["ap50"] == pytest.approx(1 / 100)
    assert measure((pair([(0, A)]), said(*wrong, (0, B), (0, A))))["ap50"] == 0.0


@pytest.mark.parametrize("left", range(20))
def test_half_of_a_target_reaches_half_wherever_it_lies(left: int) -> None:
    """Pixels, thirds of an image of 640 x 480 not being exact floats on [0, 1]."""
    top, right, middle, bottom = 3 * left, left + 10, 3 * left + 7, 3 * left + 14
    target = (left / 640, top / 480, right / 640, bottom / 480)
    box = (left / 640, top / 480, right / 640, middle / 480)
    got = measure((pair([(0, target)]), said((0, box))))
    assert got["ap50"] == pytest.approx(1) and got["accuracy_iou50"] == 1.0


# --- around the rule -----------------------------------------------------------------------------


def test_from_responses(capsys: pytest.CaptureFixture[str]) -> None:
    samples = [pair([(0, A)]), pair([(1, B)]), pair()]
    texts = ["Image 1: (100,100),(400,400)", "Image 2: (600,600),(900,900)", "There are none."]
    got = measure_published("mc-bench", samples, [Response(text) for text in texts], "norm1000")
    assert got["accuracy"] == got["accuracy_iou50"] == 1.0
    assert got["ap50"] == pytest.approx(1)
    assert capsys.readouterr().out == ""
    assert set(got) <= metrics_on_the_page(RULE.name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra": {}}, "extra.groups is None; .*a whole number from 1: prepare mc_bench again"),
        ({"extra": {"groups": [0]}}, r"extra.groups is \[0\]"),
        ({"extra": {"groups": ["1"]}}, r"extra.groups is \['1'\]"),
        ({"extra": {"groups": [1, 1]}}, "2 groups of 1 targets"),
        ({"widths": (), "heights": ()}, "2 images and 0 sizes"),
        ({"images": ("a.png",), "widths": (9,), "heights": (9,)}, "1 images and 1 sizes"),
    ],
)
def test_samples_of_another_kind(changes, message: str) -> None:
    sample = make_sample(**{"extra": {"groups": [1]}} | changes)
    with pytest.raises(UserError, match=message):
        measure((sample, read()))


def test_without_pycocotools_the_rule_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("univg_eval.published_rules.mc_bench.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"AP needs the package pycocotools: .*pip install"):
        measure()
