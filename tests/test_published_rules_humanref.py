"""HumanRef's rule against one written straight from its description, and cases by hand."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from fractions import Fraction
from statistics import fmean

import pytest
from factories import make_sample

from univg_eval.errors import UserError
from univg_eval.published_rules import measure_published
from univg_eval.samples import GroundingSample, Target
from univg_eval.scoring import Response

SIZE = (2000, 500)  # of every image: 0-1000 is in steps of 2 and of half a pixel
PERSON = (100, 100, 300, 300)  # boxes are on 0-1000 here, as the dialect writes them
OTHER = (600, 100, 800, 300)


def sample(boxes, domain="attribute") -> GroundingSample:
    return make_sample(
        task=domain,
        images=("toy/a.png",),
        widths=SIZE[:1],
        heights=SIZE[1:],
        targets=tuple(Target(0, tuple(value / 1000 for value in box)) for box in boxes),
        find_all=True,
    )


def as_text(boxes) -> str:
    return json.dumps([{"bbox_2d": list(box)} for box in boxes])


def measure(*rows) -> dict[str, float]:
    """rows: (sample, boxes on 0-1000, or a text, or None)."""
    texts = [
        answer if answer is None or isinstance(answer, str) else as_text(answer)
        for _, answer in rows
    ]
    return measure_published(
        "humanref", [sample for sample, _ in rows], [Response(text) for text in texts], "qwen3_vl"
    )


def at(metrics, threshold="0.5", group="average") -> tuple[float, float, float]:
    return tuple(
        metrics[f"{group}_{name}@{threshold}"] for name in ("recall", "precision", "densityf1")
    )


CASES = [
    # (true boxes, predicted boxes, (recall, precision, DensityF1) at 0.5; why)
    ([PERSON, OTHER], [OTHER, PERSON], (1, 1, 1), "in any order"),
    ([PERSON, OTHER], [PERSON], (1 / 2, 1, 2 / 3), "F1 2/3; fewer boxes are not penalised twice"),
    ([PERSON], [PERSON, OTHER], (1, 1 / 2, 1 / 3), "F1 2/3, times 1/2 for two boxes"),
    ([PERSON], [PERSON] * 4, (1, 1 / 4, 1 / 10), "F1 2/5, times 1/4: each box is matched once"),
    ([PERSON], [OTHER], (0, 0, 0), "a miss"),
    ([PERSON], [], (0, 0, 0), "no box: no precision either"),
    ([PERSON], [(100, 100, 300, 200)], (1, 1, 1), "an IoU of exactly a half reaches it"),
    ([PERSON], [PERSON, (9, 9, 9, 9)], (1, 1 / 2, 1 / 3), "an invalid box is a box"),
    (
        [(0, 0, 100, 100), (0, 0, 100, 160)],
        [(0, 0, 100, 110), (0, 0, 100, 90)],
        (1, 1, 1),
        "the first person takes the first box (10/11, not 9/10) and leaves 9/16 to the second",
    ),
    (
        [(0, 0, 100, 100), (0, 0, 100, 190)],
        [(0, 0, 100, 110), (0, 0, 100, 90)],
        (1 / 2, 1 / 2, 1 / 2),
        "it takes 10/11 and leaves 9/19, though 9/10 and 11/19 would both do",
    ),
    (
        [(0, 0, 100, 190), (0, 0, 100, 100)],
        [(0, 0, 100, 110), (0, 0, 100, 90)],
        (1, 1, 1),
        "in the other order of the true boxes both are found",
    ),
]


@pytest.mark.parametrize(("truth", "boxes", "expected"), [case[:3] for case in CASES])
def test_one_sample(truth, boxes, expected):
    assert at(measure((sample(truth), boxes))) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("columns", "reached"),
    [
        (100, 1),
        (101, 1),
        (110, 2),  # 0.55 is as it should be
        (120, 2),  # from 0.6 on the threshold is a trifle higher
        (121, 3),
        (150, 5),
        (190, 9),
        (191, 10),
        (200, 10),
    ],
)
def test_thresholds_from_06_on_are_a_trifle_too_high(columns, reached):
    x1, y1, _, y2 = PERSON  # 200 columns
    metrics = measure((sample([PERSON]), [(x1, y1, x1 + columns, y2)]))
    assert at(metrics, "0.5:0.95") == pytest.approx((reached / 10,) * 3)


REJECTIONS = [
    # (response, counted as right by the authors, a right rejection here)
    ("There is no such person.", 1, 1),
    ('{"bbox_2d": null}', 1, 1),
    (None, 1, 0),
    ("", 1, 0),
    ("I can't help with that.", 1, 0),
    ([PERSON], 0, 0),
    ([(9, 9, 9, 9)], 0, 0),
]


@pytest.mark.parametrize(("answer", "counted", "said"), REJECTIONS)
def test_rejections(answer, counted, said):
    assert measure((sample([], "rejection"), answer)) == {
        "rejection_score": counted,
        "rejection_recall_corrected": said,
    }


def test_rejections_are_a_count_and_in_no_mean():
    metrics = measure(
        *((sample([], "rejection"), answer) for answer, *_ in REJECTIONS),
        (sample([PERSON], "position"), [PERSON]),
        (sample([PERSON], "position"), [OTHER]),
        (sample([PERSON], "attribute"), [PERSON, OTHER]),
    )
    assert metrics["rejection_score"] == 5
    assert metrics["rejection_recall_corrected"] == pytest.approx(2 / 7)
    assert at(metrics, group="position") == (0.5, 0.5, 0.5)
    assert at(metrics, group="attribute") == pytest.approx((1, 1 / 2, 1 / 3))
    # Over samples, not over domains.
    assert at(metrics) == pytest.approx((2 / 3, 1 / 2, 4 / 9))
    assert [name for name in metrics if name.endswith("recall@0.5")] == [
        "attribute_recall@0.5",
        "position_recall@0.5",
        "average_recall@0.5",
    ]


def test_without_rejections_none_is_counted():
    metrics = measure((sample([PERSON]), [PERSON]))
    assert metrics["rejection_score"] == 0 and "rejection_recall_corrected" not in metrics


def test_a_missing_answer_to_a_person_that_is_there_scores_nothing():
    assert at(measure((sample([PERSON]), None), (sample([PERSON]), [PERSON]))) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("faulty", "match"),
    [
        (sample([], "position"), "domain 'position' has no true box"),
        (make_sample(), "2 images and 2 sizes"),
    ],
)
def test_samples_that_are_none_of_the_set_are_refused(faulty, match):
    with pytest.raises(UserError, match=match):
        measure((faulty, [(100, 100, 200, 200)]))


# --- the rule once more, from its description ----------------------------------------------------


def exact_iou(a, b) -> Fraction:
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b)]
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return Fraction(shared, sum(areas) - shared)


def reaches(iou: Fraction, step: int) -> bool:
    threshold = Fraction(10 + step, 20)
    return iou >= threshold if step < 2 else iou > threshold


def naive_row(truth, boxes, step) -> tuple[float, float, float]:
    left = list(range(len(boxes)))
    found = 0
    for person in truth:
        ranked = sorted(left, key=lambda i: (-exact_iou(person, boxes[i]), i))
        if ranked and reaches(exact_iou(person, boxes[ranked[0]]), step):
            left.remove(ranked[0])
            found += 1
    if not found:
        return 0.0, 0.0, 0.0
    # 2 / (1/P + 1/R), and the share of boxes that there should have been.
    f1 = 2 / (len(boxes) / found + len(truth) / found)
    return found / len(truth), found / len(boxes), f1 * min(1, len(truth) / len(boxes))


def naive_metrics(rows):
    """rows: (domain, true boxes, boxes of the answer)."""
    values = defaultdict(list)
    score = 0
    for domain, truth, boxes in rows:
        if domain == "rejection":
            score += not boxes
            continue
        steps = [naive_row(truth, boxes, step) for step in range(10)]
        for group in (domain, "average"):
            for name, *by_step in zip(("recall", "precision", "densityf1"), *steps, strict=True):
                values[f"{group}_{name}@0.5"].append(by_step[0])
                values[f"{group}_{name}@0.5:0.95"].append(fmean(by_step))
    return {"rejection_score": score} | {name: fmean(found) for name, found in values.items()}


def random_rows(rng: random.Random):
    for _ in range(rng.randint(1, 25)):
        domain = rng.choice(["attribute", "position", "rejection", "reasoning"])
        truth = []
        for _ in range(0 if domain == "rejection" else rng.randint(1, 5)):
            x1, y1 = rng.randint(0, 60), rng.randint(0, 60)
            truth.append((x1, y1, x1 + rng.choice([20, 40]), y1 + rng.choice([20, 40, 60])))
        boxes = []
        for x1, y1, x2, y2 in truth * rng.choice([0, 1, 1, 1, 2]):
            wider, lower = rng.choice([-10, -5, -2, 0, 0, 0, 3]), rng.choice([-5, 0, 0, 0, 20])
            boxes.append((x1, y1, x2 + wider, y2 + lower))
        boxes += [(500, 500, 600, 600)] * rng.choice([0, 0, 1])
        rng.shuffle(boxes)
        yield domain, truth, boxes


@pytest.mark.parametrize("seed", range(60))
def test_the_rule_agrees_with_its_description(seed):
    rows = list(random_rows(random.Random(seed)))
    measured = measure(
        *((sample(truth, domain), boxes or "no idea") for domain, truth, boxes in rows)
    )
    measured.pop("rejection_recall_corrected", None)
    assert measured == pytest.approx(naive_metrics(rows), abs=1e-9)
