"""The rule of Rex-Omni-EvalData, against a second writing of it that counts cells of a grid."""

from __future__ import annotations

import random
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

from univg_eval.published_rules import PUBLISHED_RULES, Answered, measure_published
from univg_eval.scoring import Response

RULE = PUBLISHED_RULES["rex-omni"]
WHOLE, PIXEL = (0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 1 / 640, 1 / 480)
TARGET, OTHER = (0.1, 0.1, 0.4, 0.4), (0.6, 0.6, 0.9, 0.9)


def in_file_order(true: list[Cells], found: list[Cells], threshold: Fraction) -> int:
    free = list(range(len(found)))
    for box in true:
        fitting = [i for i in free if counted_iou(box, found[i]) >= threshold]
        if fitting:
            free.remove(max(fitting, key=lambda i: (counted_iou(box, found[i]), -i)))
    return len(found) - len(free)


def any_order(true: list[Cells], found: list[Cells], threshold: Fraction) -> int:
    return most_pairs([[counted_iou(a, b) >= threshold for b in found] for a in true])


def means(rows, step: int, matches, empty_right) -> tuple[Fraction, Fraction, Fraction]:
    """Precision, recall and F1 at IoU step / 20."""
    precisions, recalls = [], []
    for true, found, said_none in rows:
        if not true:
            p = r = Fraction(empty_right(found, said_none))
        else:
            n = matches(true, found, Fraction(step, 20))
            p, r = Fraction(n, len(found) or 1), Fraction(n, len(true))
        precisions.append(p)
        recalls.append(r)
    p, r = sum(precisions) / len(rows), sum(recalls) / len(rows)
    return p, r, 2 * p * r / (p + r) if p + r else Fraction(0)


def derived(rows) -> dict[str, float]:
    published = [
        means(rows, step, in_file_order, lambda found, _: not found) for step in range(10, 20)
    ]
    corrected = [means(rows, step, any_order, lambda _, none: none) for step in range(10, 20)]
    values = {
        "precision@0.5": published[0][0],
        "recall@0.5": published[0][1],
        "f1@0.5": published[0][2],
        "f1@0.95": published[9][2],
        "f1_mean": sum(f1 for *_, f1 in published) / 10,
        "f1_mean_corrected": sum(f1 for *_, f1 in corrected) / 10,
    }
    return {name: float(value) for name, value in values.items()}


@pytest.mark.parametrize("seed", range(60))
def test_the_rule_derived_again(seed: int) -> None:
    source = random.Random(seed)
    side = source.randint(5, 12)
    rows = []
    for _ in range(source.randint(1, 6)):
        true = [random_cells(source, side) for _ in range(source.choice((0, 1, 1, 2, 3)))]
        true += [random_cells(source, side, near=box) for box in true[:1] if source.random() < 0.4]
        found = [random_cells(source, side, near=box) for box in true if source.random() < 0.8]
        found += [random_cells(source, side) for _ in range(source.choice((0, 0, 1)))]
        source.shuffle(found)
        rows.append((true, found, not found and source.random() < 0.5))
    got = RULE.measure(
        [
            answered(
                [cells(box, side) for box in true],
                read([cells(box, side) for box in found], status="none" if none else None),
            )
            for true, found, none in rows
        ]
    )
    assert without_task(got) == pytest.approx(derived(rows), abs=1e-9)


def test_a_target_takes_the_only_match_of_the_next() -> None:
    """The first target's best box is the second one's only match; the other box fits the first."""
    first, second = (0.0, 0.0, 0.50, 1.0), (0.20, 0.0, 0.70, 1.0)
    both, only_first = (0.05, 0.0, 0.55, 1.0), (0.0, 0.0, 0.30, 1.0)
    got = RULE.measure([answered([first, second], read([both, only_first]))])
    assert (got["precision@0.5"], got["recall@0.5"], got["f1@0.5"]) == (0.5, 0.5, 0.5)
    # IoU with the first target 0.9 / 1.1 and 0.6, with the second 0.7 / 1.3. In the published order
    # one pair reaches 0.5 to 0.8, in the corrected one two pairs reach 0.5.
    assert got["f1_mean"] == pytest.approx(0.5 * 7 / 10)
    assert got["f1_mean_corrected"] == pytest.approx((1 + 0.5 * 6) / 10)


def test_f1_is_that_of_the_two_means() -> None:
    """Precision 1/2 and 1, recall 1 and 1/2: F1 3/4, where the mean of both F1 is 2/3."""
    got = RULE.measure(
        [
            answered([TARGET], read([TARGET, WHOLE])),
            answered([TARGET, OTHER], read([TARGET])),
        ]
    )
    assert got["f1@0.5"] == got["f1_mean"] == 0.75


@pytest.mark.parametrize(
    ("answer", "published", "corrected"),
    [
        (read(), 1.0, 0.0),
        (read(status="truncated"), 1.0, 0.0),
        (read(status="none"), 1.0, 1.0),
        (read(status="invalid_box", n_boxes=1), 1.0, 0.0),
        (read([PIXEL]), 0.0, 0.0),
    ],
)
def test_where_nothing_is_true(answer, published: float, corrected: float) -> None:
    got = RULE.measure([answered([], answer)])
    assert got["f1@0.5"] == got["f1@0.95"] == got["f1_mean"] == published
    assert got["f1_mean_corrected"] == corrected


@pytest.mark.parametrize(
    ("answer", "precision", "recall"),
    [
        (read(), 0.0, 0.0),
        (read(status="none"), 0.0, 0.0),
        (read([WHOLE]), 0.0, 0.0),
        (read([PIXEL]), 0.0, 0.0),
        (read([TARGET] * 4), 0.25, 0.5),
        (read([TARGET, OTHER]), 1.0, 1.0),
    ],
)
def test_two_targets(answer, precision: float, recall: float) -> None:
    got = RULE.measure([answered([TARGET, OTHER], answer)])
    assert (got["precision@0.5"], got["recall@0.5"]) == (precision, recall)
    assert got["f1_mean"] == pytest.approx(got["f1_mean_corrected"])


def test_a_box_that_is_none_counts_where_corrected() -> None:
    got = RULE.measure([answered([TARGET], read([TARGET], n_boxes=2))])
    assert got["f1_mean"] == 1.0
    assert got["f1_mean_corrected"] == pytest.approx(2 / 3)  # precision 1/2, recall 1


def test_half_of_a_target_reaches_half_whatever_its_scale() -> None:
    rows: list[Answered] = []
    for left in range(20):
        box = (left / 30, left / 70, (left + 10) / 30, (left + 8) / 70)
        rows.append(answered([box], read([(box[0], box[1], box[2], (left + 4) / 70)])))
    assert RULE.measure(rows)["recall@0.5"] == 1.0


def test_several_data_sets_weigh_the_same() -> None:
    rows = [answered([TARGET], read([TARGET]), task="HumanRef")]
    rows += [answered([TARGET], read(), task="VisDrone")] * 3
    got = RULE.measure(rows)
    assert (got["f1@0.5"], got["HumanRef_f1@0.5"], got["VisDrone_f1@0.5"]) == (0.5, 1.0, 0.0)
    assert RULE.measure([row._replace(sample=rows[0].sample) for row in rows])["f1@0.5"] == 0.25


def test_from_responses() -> None:
    item = answered([TARGET, OTHER], read())
    text = "(100,100),(400,400) and (600,600),(900,900)"
    got = measure_published("rex-omni", [item.sample], [Response(text)], "norm1000")
    assert set(got.values()) == {1.0}
    assert set(without_task(got)) <= metrics_on_the_page(RULE.name)
