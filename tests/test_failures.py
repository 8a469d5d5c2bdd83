"""Failure analysis: one class a miss, by definitions that are checked by hand and by counting."""

from __future__ import annotations

import math
import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import make_sample
from hypothesis import given, settings
from hypothesis import strategies as st
from run_records import record_of

from univg_eval.analysis import failures
from univg_eval.analysis.diagnosis import candidates, read_all
from univg_eval.analysis.failures import (
    FAILURES,
    Failure,
    analyse,
    classify,
    classify_run,
    failure_shares,
)
from univg_eval.benchmarks.synthetic.known_objects import KnownObject, known_objects
from univg_eval.benchmarks.synthetic.mini import TASKS, generate
from univg_eval.dialects import get_dialect
from univg_eval.errors import UserError
from univg_eval.images.controls import under_control
from univg_eval.samples import GroundingSample, Target
from univg_eval.scoring import Response, score_samples

TARGET = (0.4, 0.4, 0.6, 0.6)  # area 0.04
SAMPLE = make_sample(targets=(Target(image=1, box=TARGET),))
FIND = replace(SAMPLE, image_is_given=False, widths=(640, 640), heights=(480, 480))
NONE = replace(SAMPLE, targets=())


def failure_of(
    sample: GroundingSample,
    text: str,
    *,
    dialect: str = "norm1",
    protocol: str = "univg",
    threshold: float = 0.5,
    objects: tuple[KnownObject, ...] = (),
) -> Failure | None:
    responses = [Response(text)]
    scores = score_samples([sample], responses, dialect, protocol=protocol)
    found = analyse(
        [sample],
        scores,
        {sample.id: responses[0]},
        dialect,
        protocol,
        threshold=threshold,
        objects={sample.id: objects},
    )
    return found.failures.get(sample.id)


# --- one box and its place ---------------------------------------------------------------------

PLACES = [
    # box, IoU by hand, class, why
    ((0.3, 0.3, 0.7, 0.7), 0.04 / 0.16, "loose", "all of the target, four times its area"),
    ((0.44, 0.2, 0.9, 0.8), 0.032 / 0.284, "loose", "exactly 80 % of the target"),
    ((0.45, 0.2, 0.9, 0.8), 0.03 / 0.28, "shifted", "75 % of the target, IoU above 0.1"),
    ((0.0, 0.0, 1.0, 1.0), 0.04, "loose", "the whole image"),
    ((0.45, 0.45, 0.55, 0.55), 0.25, "tight", "inside"),
    ((0.41, 0.41, 0.42, 0.42), 0.0001 / 0.04, "tight", "inside, however small"),
    ((0.38, 0.45, 0.48, 0.55), 0.008 / 0.042, "tight", "exactly 80 % of the box inside"),
    ((0.37, 0.45, 0.47, 0.55), 0.007 / 0.043, "shifted", "70 % of the box inside"),
    ((0.5, 0.4, 0.7, 0.6), 0.02 / 0.06, "shifted", "half of each"),
    ((0.49, 0.0, 0.51, 1.0), 0.004 / 0.056, "shifted", "IoU 0.07, its centre in the target"),
    ((0.49, 0.45, 1.0, 1.0), 0.0165 / 0.304, "shifted", "IoU 0.05, the target's centre in it"),
    ((0.58, 0.58, 0.78, 0.78), 0.0004 / 0.0796, "elsewhere", "corners touch"),
    ((0.0, 0.0, 0.1, 0.1), 0.0, "elsewhere", "apart"),
]


def norm1(box: tuple[float, float, float, float]) -> str:
    return "[" + ", ".join(str(value) for value in box) + "]"


@pytest.mark.parametrize(("box", "iou", "kind", "why"), PLACES, ids=[row[3] for row in PLACES])
def test_place(box: tuple[float, float, float, float], iou: float, kind: str, why: str) -> None:
    failure = failure_of(SAMPLE, norm1(box))
    assert failure is not None
    assert (failure.kind, failure.iou) == (kind, pytest.approx(iou, abs=1e-9))


def test_a_hit_has_no_failure_and_the_threshold_counts() -> None:
    half = norm1((0.4, 0.4, 0.6, 0.5))  # IoU exactly 0.5
    assert failure_of(SAMPLE, half) is None
    stricter = failure_of(SAMPLE, half, threshold=0.51)
    assert stricter is not None and stricter.kind == "tight"
    # As large as the target: neither loose nor tight, though 90 % of each is shared.
    beside = failure_of(SAMPLE, norm1((0.42, 0.4, 0.62, 0.6)), threshold=0.9)
    assert beside is not None and beside.kind == "shifted"


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.1, math.nan])
def test_a_threshold_that_is_no_iou(threshold: float) -> None:
    with pytest.raises(UserError, match=r"threshold is .*; expected an IoU above 0"):
        classify([SAMPLE], [], threshold=threshold)


# --- what the score says -------------------------------------------------------------------------

READ = [
    (SAMPLE, "It is on the left.", "no_box"),
    (SAMPLE, "<think>hm, [0.4, 0.4, 0.6, 0.6]", "truncated"),
    (SAMPLE, "[0.6, 0.6, 0.4, 0.4]", "invalid_box"),
    (SAMPLE, "There is no such object.", "said_none"),
    (SAMPLE, "In the first image: [0.4, 0.4, 0.6, 0.6]", "wrong_image"),
    (FIND, "In the first image: [0.1, 0.1, 0.2, 0.2]", "wrong_image"),
    (FIND, "In the second image: [0.1, 0.1, 0.2, 0.2]", "elsewhere"),
    (FIND, "[0.45, 0.45, 0.55, 0.55]", "tight"),
    (FIND, "In the first image: [0.6, 0.6, 0.4, 0.4]", "wrong_image"),
    (FIND, "In the second image: [0.6, 0.6, 0.4, 0.4]", "invalid_box"),
    (FIND, "[0.6, 0.6, 0.4, 0.4]", "invalid_box"),
    (SAMPLE, "In the first image: [0.6, 0.6, 0.4, 0.4]", "wrong_image"),
    (SAMPLE, "There is none in the first image.", "no_box"),
    (NONE, "In the first image: [0.1, 0.1, 0.2, 0.2]", "false_alarm"),
    (NONE, "[0.1, 0.1, 0.2, 0.2]", "false_alarm"),
    (NONE, "Perhaps.", "no_box"),
    (NONE, "<think>hm", "truncated"),
    (NONE, "[0.6, 0.6, 0.4, 0.4]", "invalid_box"),
]


@pytest.mark.parametrize(("sample", "text", "kind"), READ)
def test_what_the_score_says_comes_first(sample: GroundingSample, text: str, kind: str) -> None:
    failure = failure_of(sample, text)
    assert failure is not None and failure.kind == kind


def test_right_answers_of_other_kinds_have_no_failure() -> None:
    assert failure_of(NONE, "There is no such object.") is None
    assert failure_of(FIND, "In the second image: [0.4, 0.4, 0.6, 0.6]") is None


def test_a_hit_on_another_image_is_no_miss_but_is_counted() -> None:
    scores = score_samples([FIND], [Response("In the first image: [0.4, 0.4, 0.6, 0.6]")], "norm1")
    found = analyse([FIND], scores)
    assert found.failures == {}
    assert (found.total.n, found.total.misses, found.total.hits_on_wrong_image) == (1, 0, 1)


def test_published_rules_know_no_wrong_image() -> None:
    sample = replace(FIND, targets=(Target(image=1, box=TARGET),))
    text = "In the first image: (100,100),(200,200)"
    under_ours = failure_of(sample, text, dialect="qwen2_vl")
    published = failure_of(sample, text, dialect="qwen2_vl", protocol="univg-r1")
    assert under_ours is not None and under_ours.kind == "wrong_image"
    assert published is not None and published.kind == "elsewhere"


def test_boxes_that_cannot_be_read_are_on_no_image() -> None:
    # univg-r1 takes no decimals; it does not read which image is named.
    decimals = failure_of(SAMPLE, "[0.4, 0.4, 0.6, 0.6]", dialect="qwen2_vl", protocol="univg-r1")
    assert decimals is not None and decimals.kind == "no_box"
    # In pixels of one of two sizes, and the answer names no image.
    sizes = replace(FIND, widths=(640, 320), heights=(480, 240))
    unnamed = failure_of(sizes, "[100, 100, 200, 200]", dialect="pixels")
    assert unnamed is not None and unnamed.kind == "no_box"


def test_a_true_box_that_nothing_can_hit() -> None:
    broken = replace(SAMPLE, targets=(Target(image=1, box=(0.6, 0.4, 0.6, 0.8)),))
    published = failure_of(broken, "(600,400),(700,800)", dialect="qwen2_vl", protocol="univg-r1")
    assert published is not None and published.kind == "invalid_truth"
    # The rule of this project leaves such a row out.
    scores = score_samples([broken], [Response("(600,400),(700,800)")], "qwen2_vl")
    found = analyse([broken], scores)
    assert found.failures == {}
    assert (found.total.n, found.total.excluded) == (0, 1)
    # A true box that reaches outside can be hit.
    outside = replace(SAMPLE, targets=(Target(image=1, box=(0.6, 0.4, 1.1, 0.8)),))
    missed = failure_of(outside, "(0,0),(100,100)", dialect="qwen2_vl", protocol="univg-r1")
    assert missed is not None and missed.kind == "elsewhere"


def test_several_targets_have_no_class_and_are_counted() -> None:
    several = replace(SAMPLE, targets=(Target(1, TARGET), Target(1, (0.0, 0.0, 0.1, 0.1))))
    scores = score_samples([several], [Response("no idea")], "norm1")
    found = analyse([several], scores)
    assert found.failures == {}
    assert (found.total.n, found.total.several) == (0, 1)


# --- other objects -------------------------------------------------------------------------------


def test_a_distractor_comes_before_the_place() -> None:
    around = KnownObject(1, (0.3, 0.3, 0.7, 0.7), "a frame")  # the box covers the target too
    failure = failure_of(SAMPLE, norm1((0.3, 0.3, 0.7, 0.7)), objects=(around,))
    assert failure is not None and failure.kind == "wrong_object"
    assert failure.hints == ("IoU 1.00 with a frame.",)


@pytest.mark.parametrize(
    ("obj", "kind"),
    [
        (KnownObject(1, (0.0, 0.0, 0.1, 0.05), "half"), "wrong_object"),  # IoU exactly 0.5
        (KnownObject(1, (0.0, 0.0, 0.1, 0.049), "less"), "elsewhere"),
        (KnownObject(0, (0.0, 0.0, 0.1, 0.1), "there"), "image_mixup"),
        (KnownObject(0, (0.0, 0.0, 0.1, 0.05), "half there"), "image_mixup"),  # IoU exactly 0.5
        (KnownObject(0, (0.0, 0.0, 0.1, 0.049), "less there"), "elsewhere"),
    ],
)
def test_a_distractor_has_to_fit_on_the_target_s_image(obj: KnownObject, kind: str) -> None:
    failure = failure_of(SAMPLE, norm1((0.0, 0.0, 0.1, 0.1)), objects=(obj,))
    assert failure is not None and failure.kind == kind
    assert failure.hints == {
        "half": ("IoU 0.50 with half.",),
        "there": ("IoU 1.00 with there on image 1.",),
        "half there": ("IoU 0.50 with half there on image 1.",),
    }.get(obj.name, ())


def test_a_place_at_the_target_comes_before_an_object_of_another_image() -> None:
    """A frame later the object has moved a little: its outline there is a bad one here."""
    before = KnownObject(0, (0.48, 0.4, 0.68, 0.6), "it, a frame earlier")
    failure = failure_of(SAMPLE, norm1((0.48, 0.4, 0.68, 0.6)), objects=(before,), threshold=0.7)
    assert failure is not None and failure.kind == "shifted"


def test_of_two_objects_the_one_that_fits_better_is_named() -> None:
    objects = (
        KnownObject(1, (0.0, 0.0, 0.1, 0.08), "worse"),
        KnownObject(1, (0.0, 0.0, 0.1, 0.1), "better"),
        KnownObject(0, (0.0, 0.0, 0.1, 0.1), "elsewhere"),
    )
    failure = failure_of(SAMPLE, norm1((0.0, 0.0, 0.1, 0.1)), objects=objects)
    assert failure is not None and failure.hints == ("IoU 1.00 with better.",)


def test_a_box_that_fits_the_target_better_is_not_on_the_distractor() -> None:
    near = KnownObject(1, (0.4, 0.4, 0.6, 0.75), "near")
    box = norm1((0.4, 0.4, 0.6, 0.62))  # IoU 0.91 with the target, 0.63 with the other
    failure = failure_of(SAMPLE, box, objects=(near,), threshold=0.95)
    assert failure is not None and failure.kind == "loose"


def test_objects_of_other_questions_on_the_same_image_are_known() -> None:
    rows = [
        SAMPLE,
        make_sample(1, targets=(Target(1, (0.0, 0.0, 0.1, 0.1)),)),
        make_sample(2, targets=(Target(1, (0.41, 0.4, 0.6, 0.6)),)),  # the same object again
        make_sample(3, targets=(Target(0, (0.7, 0.7, 0.9, 0.9)),)),
        make_sample(4, images=("x.png", "y.png"), targets=(Target(1, (0.2, 0.0, 0.3, 0.1)),)),
        make_sample(5, targets=(Target(1, (0.3, 0.3, 0.2, 0.4)),)),  # invalid
    ]
    assert known_objects(rows, {SAMPLE.id})[SAMPLE.id] == (
        KnownObject(0, (0.7, 0.7, 0.9, 0.9), "the object of question toy-00003"),
        KnownObject(1, (0.0, 0.0, 0.1, 0.1), "the object of question toy-00001"),
    )
    scores = score_samples(rows[:1], [Response("[0, 0, 0.1, 0.1]")], "norm1")
    assert classify(rows, scores)[SAMPLE.id].kind == "wrong_object"


def mini_sample(task: str, index: int) -> GroundingSample:
    item = generate(task, seed=7, index=index)
    n = item.image_count
    return GroundingSample(
        id=f"mini-{task}-{index}",
        benchmark="mini",
        task=task,
        split="test",
        images=tuple(f"{task}/{item.group}_{k}.png" for k in range(n)),
        widths=(448,) * n,
        heights=(448,) * n,
        instruction=item.instruction,
        targets=(Target(item.target_image, item.box),),
        image_is_given=item.image_is_given,
        cluster=f"{task}-{item.group}",
        source={"generator": "univg_mini", "seed": 7, "index": index},
        extra={},
    )


@pytest.mark.parametrize("task", TASKS)
def test_the_scene_of_a_generated_question_is_known(task: str) -> None:
    sample = mini_sample(task, 3)
    item = generate(task, seed=7, index=3)
    known = known_objects([sample])[sample.id]
    names = {(obj.image, obj.name) for obj in known}
    everything = {(i, obj.label) for i, objects in enumerate(item.objects) for obj in objects}
    assert names <= everything
    assert not any(obj.image == item.target_image and obj.box == item.box for obj in known)
    # All whole objects but the one that is asked for.
    whole = sum(obj.is_whole for objects in item.objects for obj in objects)
    assert whole - 1 <= len(known) < sum(map(len, item.objects))


def test_a_question_that_the_generator_does_not_make_again_has_no_scene() -> None:
    for changes in (
        {"instruction": "another question"},
        {"targets": (Target(0, (0.1, 0.1, 0.2, 0.2)),)},
        {"source": {"generator": "univg_mini", "seed": "7", "index": 3}},
        {"source": {"generator": "photos", "seed": 7, "index": 3}},
        {"source": {"generator": "univg_mini", "version": "0", "seed": 7, "index": 3}},
        {"source": {"generator": "univg_mini", "version": "1", "seed": 7, "index": -3}},
        {"task": "other"},
    ):
        assert known_objects([replace(mini_sample("lisa_val", 3), **changes)]) == {}


# --- another reading -----------------------------------------------------------------------------


def random_rows(n: int, seed: int) -> tuple[list[GroundingSample], list[tuple[float, ...]]]:
    """Questions about images of 640 x 480, and as many boxes that know nothing of them."""
    rng = random.Random(seed)
    boxes = []
    for _ in range(2 * n):
        x, y = rng.uniform(0, 0.7), rng.uniform(0, 0.7)
        boxes.append((x, y, x + rng.uniform(0.1, 0.3), y + rng.uniform(0.1, 0.3)))
    rows = [
        make_sample(i, widths=(640, 640), heights=(480, 480), targets=(Target(1, boxes[i]),))
        for i in range(n)
    ]
    return rows, boxes[n:]


def in_pixels(box: tuple[float, ...]) -> str:
    return f"[{box[0] * 640:.0f}, {box[1] * 480:.0f}, {box[2] * 640:.0f}, {box[3] * 480:.0f}]"


def in_thousandths(box: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{1000 * value:.0f}" for value in box) + "]"


def run(rows: list[GroundingSample], texts: list[str], **changes):
    responses = [Response(text) for text in texts]
    scores = score_samples(rows, responses, "norm1000")
    given = {row.id: response for row, response in zip(rows, responses, strict=True)}
    return analyse(rows, scores, given, "norm1000", **changes)


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_answers_in_another_scale(share: float) -> None:
    """All answers, or part of them, in pixels where 0-1000 is declared; the rest is right."""
    rows, _ = random_rows(120, seed=1)
    n_pixels = round(share * len(rows))
    texts = [
        in_pixels(row.box) if i < n_pixels else in_thousandths(row.box)
        for i, row in enumerate(rows)
    ]
    found = run(rows, texts)
    assert found.suspicion is not None and "pixels" in found.suspicion.names
    far = {i for i, f in found.failures.items() if f.iou is not None and f.iou < 0.1}
    in_class = {i for i, f in found.failures.items() if f.kind == "other_scale"}
    assert len(far) >= 20 and in_class == far
    assert {row.id for row in rows[:n_pixels]} >= set(found.failures)
    hint = found.failures[next(iter(far))].hints[0]
    assert hint.startswith("Read as ") and "IoU" in hint


def test_another_scale_comes_before_a_distractor() -> None:
    rows, _ = random_rows(60, seed=2)
    texts = [in_pixels(row.box) for row in rows]
    first = next(i for i, f in run(rows, texts).failures.items() if f.kind == "other_scale")
    box = score_samples(rows, [Response(text) for text in texts], "norm1000")
    lies_on = next(score.box for score in box if score.id == first)
    assert lies_on is not None
    found = run(rows, texts, objects={first: [KnownObject(1, lies_on, "another")]})
    assert found.failures[first].kind == "other_scale"


def test_numbers_beyond_the_scale_are_in_that_class_too() -> None:
    """Pixels where fractions are declared: each box lies outside."""
    rows, _ = random_rows(60, seed=2)
    responses = [Response(in_pixels(row.box)) for row in rows]
    scores = score_samples(rows, responses, "norm1")
    assert {score.status for score in scores} == {"invalid_box"}
    found = analyse(rows, scores, {r.id: t for r, t in zip(rows, responses, strict=True)}, "norm1")
    assert {failure.kind for failure in found.failures.values()} == {"other_scale"}
    # Without an explanation they are what they are.
    assert set(classify(rows, scores).values()) == {Failure("invalid_box", 0.0)}


@pytest.mark.parametrize("seed", range(2))
def test_a_wrong_choice_among_few_places_is_no_other_scale(seed: int) -> None:
    """Four places in a square: of the boxes on a wrong one, a third would hit with x and y
    exchanged, where only a quarter of all boxes is on the place of another question's object."""
    rng = random.Random(seed)

    def place() -> tuple[float, ...]:
        x, y = rng.choice((0.02, 0.52)), rng.choice((0.02, 0.52))
        return (x, y, x + 0.46, y + 0.46)

    pairs = [(place(), place()) for _ in range(1000)]
    rows = [
        make_sample(i, widths=(640, 640), heights=(640, 640), targets=(Target(1, target),))
        for i, (target, _) in enumerate(pairs)
    ]
    found = run(rows, [in_thousandths(box) for _, box in pairs], objects={})
    assert found.total.misses > 700
    assert found.suspicion is None


def test_the_other_order_is_still_told_among_few_places() -> None:
    """Three by three places, and a model that is right and writes y first."""
    rng = random.Random(0)
    corners = [(rng.choice((0.02, 0.35, 0.68)), rng.choice((0.02, 0.35, 0.68))) for _ in range(100)]
    rows = [
        make_sample(
            i,
            widths=(640, 640),
            heights=(640, 640),
            targets=(Target(1, (x, y, x + 0.3, y + 0.3)),),
        )
        for i, (x, y) in enumerate(corners)
    ]
    found = run(rows, [in_thousandths((y, x, y + 0.3, x + 0.3)) for x, y in corners])
    assert found.suspicion is not None
    assert "norm1000 written y1, x1, y2, x2" in found.suspicion.names
    assert {failure.kind for failure in found.failures.values()} == {"other_scale"}


def test_boxes_at_random_are_in_no_other_scale() -> None:
    """Some reading hits now and then; over four runs that never makes the class."""
    by_chance = 0
    for seed in range(4):
        rows, boxes = random_rows(150, seed)
        texts = [in_thousandths(box) for box in boxes]
        found = run(rows, texts)
        assert found.suspicion is None
        assert not any(f.kind == "other_scale" for f in found.failures.values())
        responses = [Response(text) for text in texts]
        declared = score_samples(rows, responses, "norm1000")
        far = np.array([(score.iou or 0.0) < 0.1 for score in declared])
        hit = np.any([r.hits for r in read_all(rows, responses, candidates())], axis=0)
        by_chance += int((far & hit).sum())
    assert by_chance >= 3  # what a rule for single samples would have put there


def test_without_responses_no_other_reading_is_tried() -> None:
    rows, _ = random_rows(60, seed=2)
    responses = [Response(in_pixels(row.box)) for row in rows]
    found = analyse(rows, score_samples(rows, responses, "norm1000"))
    assert found.suspicion is None and found.failures


# --- hints ------------------------------------------------------------


def test_hints() -> None:
    whole = failure_of(SAMPLE, "[0, 0, 1, 1]")
    assert whole is not None and whole.hints == ("The box covers 100 % of the image.",)
    two = failure_of(SAMPLE, "[0.4, 0.4, 0.6, 0.6]\n\nNo, rather:\n\n[0.0, 0.0, 0.1, 0.1]")
    assert two is not None and two.kind == "elsewhere"
    assert two.hints == (
        "Another of the answer's 2 boxes has IoU 1.00; the first box of the last unit counts.",
    )
    unnamed = failure_of(FIND, "[0.0, 0.0, 0.1, 0.1]")
    assert unnamed is not None and unnamed.hints == ("It names no image.",)
    wrong = failure_of(FIND, "In the first image: [0.1, 0.1, 0.2, 0.2]")
    assert wrong is not None
    assert wrong.hints == ("It names image 1; the object is on image 2.",)


# --- all of a run ------------------------------------------------------------

GRID = 20


def cells(box: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((GRID, GRID), dtype=bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def expected_place(box: tuple[int, int, int, int], target: tuple[int, int, int, int]) -> str:
    """By counting the cells of a grid, in whole numbers."""
    both = int((cells(box) & cells(target)).sum())
    area, target_area = int(cells(box).sum()), int(cells(target).sum())
    union = area + target_area - both
    if 2 * both >= union:
        return "hit"
    if area > target_area and 10 * both >= 8 * target_area:
        return "loose"
    if area < target_area and 10 * both >= 8 * area:
        return "tight"

    def centre_inside(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
        return 2 * b[0] <= a[0] + a[2] <= 2 * b[2] and 2 * b[1] <= a[1] + a[3] <= 2 * b[3]

    if 10 * both >= union or centre_inside(box, target) or centre_inside(target, box):
        return "shifted"
    return "elsewhere"


def intervals() -> st.SearchStrategy[tuple[int, int]]:
    return (
        st.tuples(st.integers(0, GRID), st.integers(0, GRID))
        .map(sorted)
        .filter(lambda pair: pair[0] < pair[1])
    )


grid_boxes = st.tuples(intervals(), intervals()).map(
    lambda pair: (pair[0][0], pair[1][0], pair[0][1], pair[1][1])
)


@settings(max_examples=60, deadline=None)
@given(pairs=st.lists(st.tuples(grid_boxes, grid_boxes), min_size=1, max_size=30))
def test_every_miss_has_its_class_and_no_hit_has_one(
    pairs: list[tuple[tuple[int, ...], tuple[int, ...]]],
) -> None:
    rows = [
        make_sample(
            i,
            images=(f"{i}-a.png", f"{i}-b.png"),
            task=("one", "two")[i % 2],
            targets=(Target(1, tuple(value / GRID for value in target)),),
        )
        for i, (_, target) in enumerate(pairs)
    ]
    responses = [
        Response("[" + ", ".join(f"{1000 // GRID * value}" for value in box) + "]")
        for box, _ in pairs
    ]
    scores = score_samples(rows, responses, "norm1000")
    found = analyse(rows, scores)
    expected = {row.id: expected_place(*pair) for row, pair in zip(rows, pairs, strict=True)}
    assert {name: f.kind for name, f in found.failures.items()} == {
        name: kind for name, kind in expected.items() if kind != "hit"
    }
    for task, shares in found.tasks.items():
        members = [score for score in scores if score.task == task]
        assert shares.n == len(members)
        assert sum(shares.kinds.values()) == shares.misses
        assert shares.n - shares.misses == sum((score.iou or 0) >= 0.5 for score in members)
        assert sum(map(shares.share, FAILURES)) == pytest.approx(shares.misses / shares.n)
    assert found.total.misses == sum(shares.misses for shares in found.tasks.values())


def test_shares_name_every_class_in_order() -> None:
    shares = failure_shares({}, [])
    assert shares == {}
    scores = score_samples([SAMPLE], [Response("")], "norm1")
    one = failure_shares(classify([SAMPLE], scores), scores)["find"]
    assert list(one.kinds) == list(FAILURES)
    assert one.to_dict()["kinds"]["no_box"] == 1
    assert all(text.endswith(".") for text in FAILURES.values())


def test_scores_of_other_samples_are_refused() -> None:
    scores = score_samples([SAMPLE], [Response("")], "norm1")
    with pytest.raises(UserError, match="1 of 1 scores have no sample, the first is 'toy-00000'"):
        classify([make_sample(1)], scores)
    with pytest.raises(UserError, match="the score of 'toy-00000' stands twice"):
        classify([SAMPLE], scores * 2)


# --- records ------------------------------------------------------------


def mini_rows() -> list[GroundingSample]:
    return [mini_sample(task, index) for task in ("lisa_val", "revos") for index in range(6)]


def test_a_record_of_answers_whose_faults_are_known() -> None:
    rows = mini_rows()
    texts: dict[str, str | None] = {}
    expected = {}
    for i, row in enumerate(rows):
        on_image = [
            obj
            for obj in known_objects(rows)[row.id]
            if obj.image == row.target_image and min(obj.box) > 0.0 and max(obj.box) < 1.0
        ]
        if i % 3 == 0:
            texts[row.id] = in_thousandths(row.box)
        elif i % 3 == 1:
            texts[row.id] = in_thousandths(on_image[0].box)
            expected[row.id] = "wrong_object"
        else:
            texts[row.id] = None
            expected[row.id] = "no_box"
    record = record_of(rows, texts)
    found = classify_run(record, rows)
    assert {name: failure.kind for name, failure in found.failures.items()} == expected
    assert list(found.tasks) == ["lisa_val", "revos"]
    assert found.total.n == 12
    assert found.total.misses == 12 - sum(
        round(record.manifest["results"]["tasks"][task]["acc@0.5"] * 6) for task in found.tasks
    )


def test_where_other_images_were_shown_no_object_is_known() -> None:
    rows = mini_rows()
    texts: dict[str, str | None] = {
        row.id: in_thousandths(known_objects(rows)[row.id][0].box) for row in rows
    }
    assert classify_run(record_of(rows, texts), rows).total.kinds["wrong_object"]
    shown = under_control("blank", rows).samples
    blank = classify_run(record_of(shown, texts, everything=rows, control="blank"), rows)
    assert blank.total.kinds["wrong_object"] == 0
    assert blank.total.misses


def test_answers_about_videos_are_read_on_the_asked_frame() -> None:
    rows = [mini_sample("revos", index) for index in range(4)]
    assert any(row.target_image > 0 for row in rows)
    shown = [
        replace(
            row,
            images=(row.images[row.target_image],),
            widths=(448,),
            heights=(448,),
            targets=(replace(row.targets[0], image=0),),
        )
        for row in rows
    ]
    # A box in pixels, and a second one that hits.
    pixels = [[round(448 * value) for value in row.box] for row in rows]
    texts: dict[str, str | None] = {
        row.id: f"{box}\n\nNo, it is:\n\n[0, 0, 10, 10]"
        for row, box in zip(rows, pixels, strict=True)
    }
    record = record_of(shown, texts, dialect="pixels", everything=rows, media="video")
    found = classify_run(record, rows)
    assert {failure.kind for failure in found.failures.values()} == {"elsewhere"}
    assert all("Another of the answer's 2 boxes" in f.hints[0] for f in found.failures.values())


def test_other_objects_of_the_asked_frame_of_a_video_are_known() -> None:
    rows = [mini_sample("revos", index) for index in range(4)]
    assert any(row.target_image > 0 for row in rows)
    shown, texts = [], {}
    for row in rows:
        frame = row.target_image
        shown.append(
            replace(
                row,
                images=(row.images[frame],),
                widths=(448,),
                heights=(448,),
                targets=(replace(row.targets[0], image=0),),
            )
        )
        other = next(obj for obj in known_objects(rows)[row.id] if obj.image == frame)
        texts[row.id] = in_thousandths(other.box)
    found = classify_run(record_of(shown, texts, everything=rows, media="video"), rows)
    assert [failure.kind for failure in found.failures.values()] == ["wrong_object"] * 4


def test_a_request_that_failed_says_so() -> None:
    rows = mini_rows()
    record = record_of(rows, {row.id: None for row in rows[:2]} | {rows[2].id: "no idea"})
    record.responses[0]["error"] = "HTTP 503"
    found = classify_run(record, rows).failures
    assert [(failure.kind, failure.hints) for failure in found.values()] == [
        ("no_box", ("The request failed: HTTP 503",)),
        ("no_box", ()),
        ("no_box", ()),
    ]


def test_a_record_of_another_revision_is_refused() -> None:
    rows = mini_rows()
    record = record_of(rows, dict.fromkeys((row.id for row in rows), "[0, 0, 1, 1]"))
    with pytest.raises(UserError, match="has changed since the evaluation"):
        classify_run(record, rows[:-1])


def test_every_dialect_that_a_record_may_have_can_be_classified() -> None:
    """Sizes, limits and other readings of a dialect in pixels of the resized input."""
    rows = [replace(row, images=("a.png", "b.png")) for row in random_rows(20, seed=3)[0]]
    texts: dict[str, str | None] = {row.id: "[1, 2, 3, 4]" for row in rows}
    for name in ("qwen2_5_vl", "gemini", "migician"):
        assert get_dialect(name).gives_boxes
        found = classify_run(record_of(rows, texts, dialect=name), rows)
        assert found.total.misses == len(rows)


def test_the_page_lists_the_classes_in_order(repo_root: Path) -> None:
    page = (repo_root / "docs" / "failures.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \| (?!.*of the question)", page, re.MULTILINE)[
        : len(FAILURES)
    ] == list(FAILURES)
    documented = re.findall(r"^(\w+) {2,}\S", failures.__doc__ or "", re.MULTILINE)
    assert documented == list(FAILURES)
