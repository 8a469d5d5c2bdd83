"""The rule of gRefCOCO, against a second writing of it that counts cells of a grid."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction

import pytest
from read_answers import (
    Cells,
    answered,
    cells,
    counted_iou,
    metrics_on_the_page,
    most_pairs,
    random_cells,
    read,
    without_task,
)

from univg_eval.published_rules import (
    PUBLISHED_RULES,
    Answered,
    measure_published,
    published_results,
)
from univg_eval.scoring import Response

RULE = PUBLISHED_RULES["grefcoco"]
WHOLE, PIXEL = (0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 1 / 640, 1 / 480)
TARGET, OTHER = (0.1, 0.1, 0.4, 0.4), (0.6, 0.6, 0.9, 0.9)
HALF = Fraction(1, 2)


def counted_giou(a: Cells, b: Cells) -> Fraction:
    """IoU less the share of the hull that neither box covers."""
    x1, y1, x2, y2 = (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
    hull = (x2 - x1) * (y2 - y1)
    covered = sum(
        any(c[0] <= x < c[2] and c[1] <= y < c[3] for c in (a, b))
        for x in range(x1, x2)
        for y in range(y1, y2)
    )
    return counted_iou(a, b) - Fraction(hull - covered, hull)


def best_pairs_first(true: list[Cells], found: list[Cells]) -> int:
    pairs = [(counted_giou(a, b), i, j) for i, a in enumerate(found) for j, b in enumerate(true)]
    n = 0
    while pairs:
        best, box, target = max(pairs, key=lambda pair: pair[0])
        if best < HALF:
            break
        n += 1
        pairs = [pair for pair in pairs if pair[1] != box and pair[2] != target]
    return n


def f1(n: int, true: list[Cells], found: list[Cells]) -> Fraction:
    return Fraction(2 * n, len(true) + len(found))


def derived(rows) -> dict[str, float]:
    right, right_by_iou, absent, present = [], [], [], []
    for true, found, none in rows:
        if true:
            fits = [[counted_iou(a, b) >= HALF for b in found] for a in true]
            right.append(f1(best_pairs_first(true, found), true, found) >= 1)
            right_by_iou.append(f1(most_pairs(fits), true, found) >= 1)
            present.append(len(found) > 0)
        else:
            right.append(not found)
            right_by_iou.append(none)
            absent.append((not found, none))
    values = {
        "precision_f1_1": right,
        "precision_f1_1_iou": right_by_iou,
        "t_acc": present,
        "n_acc": [silent for silent, _ in absent],
        "n_acc_explicit": [none for _, none in absent],
    }
    return {name: sum(shares) / len(shares) for name, shares in values.items() if shares}


@pytest.mark.parametrize("seed", range(60))
def test_the_rule_derived_again(seed: int) -> None:
    source = random.Random(seed)
    side = source.randint(6, 12)
    rows = []
    for _ in range(source.randint(1, 12)):
        true = [random_cells(source, side) for _ in range(source.choice((0, 1, 1, 2, 3)))]
        found = [random_cells(source, side, near=box) for box in true if source.random() < 0.95]
        found += [random_cells(source, side) for _ in range(source.choice((0, 0, 0, 1)))]
        source.shuffle(found)
        rows.append((true, found, not found and source.random() < 0.5))
    got = measured(
        [
            answered(
                [cells(box, side) for box in true],
                read([cells(box, side) for box in found], status="none" if none else None),
            )
            for true, found, none in rows
        ]
    )
    assert got == pytest.approx(derived(rows), abs=1e-9)


def test_giou_refuses_what_iou_accepts() -> None:
    """Two squares of 100, 18 apart on both axes: IoU 0.506, GIoU 0.460."""
    target, box = (0, 0, 100, 100), (18, 18, 118, 118)
    assert counted_iou(target, box) == Fraction(6724, 13276)
    assert counted_giou(target, box) == Fraction(6724, 13276) - Fraction(648, 13924)
    got = measured([answered([cells(target, 200)], read([cells(box, 200)]))])
    assert (got["precision_f1_1"], got["precision_f1_1_iou"]) == (0.0, 1.0)


def test_the_best_pair_first_can_miss_a_full_matching() -> None:
    """IoU of the first box 0.82 and 0.54, of the second 0.6 and 0.14."""
    first, second = (0.0, 0.0, 0.50, 1.0), (0.20, 0.0, 0.70, 1.0)
    both, only_first = (0.05, 0.0, 0.55, 1.0), (0.0, 0.0, 0.30, 1.0)
    got = measured([answered([first, second], read([both, only_first]))])
    assert (got["precision_f1_1"], got["precision_f1_1_iou"]) == (0.0, 1.0)


@pytest.mark.parametrize("mirrored", [False, True])
def test_among_equal_pairs_the_box_farthest_right_comes_first(mirrored: bool) -> None:
    """Both boxes have IoU 2/3 with the first target; one of them is the second's only match, 0.54.

    The order of the answer does not matter.
    """

    def at(left: int) -> Cells:
        return (50 - left, 0, 100 - left, 100) if mirrored else (left, 0, left + 50, 100)

    targets = [cells(at(20), 100), cells(at(45), 100)]
    boxes = [cells(at(10), 100), cells(at(30), 100)]
    for order in (boxes, boxes[::-1]):
        got = measured([answered(targets, read(order))])
        assert (got["precision_f1_1"], got["precision_f1_1_iou"]) == (float(mirrored), 1.0)


def measured(rows: list[Answered]) -> dict[str, float]:
    return without_task(RULE.measure(rows))


@pytest.mark.parametrize(
    ("answer", "published", "corrected"),
    [
        (read(), 1.0, 0.0),
        (read(status="truncated"), 1.0, 0.0),
        (read(status="invalid_box", n_boxes=1), 1.0, 0.0),
        (read(status="none"), 1.0, 1.0),
        (read([PIXEL]), 0.0, 0.0),
        (read([WHOLE]), 0.0, 0.0),
    ],
)
def test_where_nothing_is_true(answer, published: float, corrected: float) -> None:
    assert measured([answered([], answer)]) == {
        "precision_f1_1": published,
        "n_acc": published,
        "precision_f1_1_iou": corrected,
        "n_acc_explicit": corrected,
    }


@pytest.mark.parametrize(
    ("answer", "right", "answers"),
    [
        (read(), 0.0, 0.0),
        (read(status="none"), 0.0, 0.0),
        (read([WHOLE]), 0.0, 1.0),
        (read([PIXEL]), 0.0, 1.0),
        (read([TARGET]), 0.0, 1.0),
        (read([TARGET, TARGET]), 0.0, 1.0),
        (read([OTHER, TARGET]), 1.0, 1.0),
        (read([OTHER, TARGET, PIXEL]), 0.0, 1.0),
    ],
)
def test_two_targets(answer, right: float, answers: float) -> None:
    assert measured([answered([TARGET, OTHER], answer)]) == {
        "precision_f1_1": right,
        "precision_f1_1_iou": right,
        "t_acc": answers,
    }


def test_silence_earns_the_share_without_target() -> None:
    rows = [answered([TARGET], read())] * 3 + [answered([], read())]
    assert measured(rows) == {
        "precision_f1_1": 0.25,
        "precision_f1_1_iou": 0.0,
        "t_acc": 0.0,
        "n_acc": 1.0,
        "n_acc_explicit": 0.0,
    }


def test_a_box_that_is_none_counts_where_corrected() -> None:
    got = measured([answered([TARGET], read([TARGET], n_boxes=2))])
    assert (got["precision_f1_1"], got["precision_f1_1_iou"]) == (1.0, 0.0)


def test_half_of_a_target_reaches_half_whatever_its_scale() -> None:
    rows = []
    for left in range(20):
        box = (left / 30, left / 70, (left + 10) / 30, (left + 8) / 70)
        rows.append(answered([box], read([(box[0], box[1], box[2], (left + 4) / 70)])))
    got = RULE.measure(rows)
    assert (got["precision_f1_1"], got["precision_f1_1_iou"]) == (1.0, 1.0)


def test_from_responses() -> None:
    samples = [answered(targets, read()).sample for targets in ([TARGET, OTHER], [], [])]
    texts = ["(100,100),(400,400) and (600,600),(900,900)", "There are none.", "I can't say."]
    got = measure_published("grefcoco", samples, [Response(text) for text in texts], "norm1000")
    assert got["precision_f1_1"] == got["n_acc"] == got["t_acc"] == 1.0
    assert (got["precision_f1_1_iou"], got["n_acc_explicit"]) == (2 / 3, 0.5)
    assert set(without_task(got)) <= metrics_on_the_page(RULE.name)


def test_each_split_is_measured_alone_too() -> None:
    """By hand: of val one of two, of testB none of one; one expression without target in each."""
    rows = [answered([TARGET], read([TARGET])), answered([], read([PIXEL])), answered([], read())]
    splits = ["grefcoco_val", "grefcoco_val", "grefcoco_testB"]
    rows = [
        row._replace(sample=replace(row.sample, task=split))
        for row, split in zip(rows, splits, strict=True)
    ]
    got = RULE.measure(rows)
    assert got["precision_f1_1"] == pytest.approx(2 / 3)
    assert (got["grefcoco_val_precision_f1_1"], got["grefcoco_testB_precision_f1_1"]) == (0.5, 1.0)
    assert (got["grefcoco_val_n_acc"], got["grefcoco_testB_n_acc"], got["n_acc"]) == (0, 1, 0.5)
    assert "grefcoco_testB_t_acc" not in got


def test_a_rule_that_cannot_be_computed_costs_no_record(caplog) -> None:
    """Of MC-Bench a pair without sizes; the evaluation's other figures stay."""
    sample = answered([TARGET], read([TARGET])).sample
    bare = replace(sample, benchmark="mc_bench", extra={"groups": [1]})
    asked = ([bare], [Response("none")], "norm1000")
    found, lacking = published_results("mc_bench", "univg", *asked)
    assert found == {} and list(lacking) == ["published_errors"]
    assert "scores pairs of images" in lacking["published_errors"]["mc-bench"]
    assert published_results("mc_bench", "univg-r1", *asked) == ({}, {})
    assert "no figures of the rule mc-bench: sample" in caplog.text
    assert "scores pairs of images" in caplog.text
