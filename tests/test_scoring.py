"""Scores of single responses and the metrics of a set, against values worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from factories import make_sample
from hypothesis import given, settings
from hypothesis import strategies as st
from run_records import score as score_line

from univg_eval.answers import read_answer
from univg_eval.dialects import get_dialect
from univg_eval.errors import UserError
from univg_eval.samples import Target
from univg_eval.scoring import (
    METRICS,
    HeadlineValues,
    Response,
    SampleScore,
    Tally,
    aggregate,
    given_image,
    headline,
    headline_metric,
    is_share,
    match_several,
    sample_metrics,
    score_sample,
    score_samples,
)

SINGLE = [
    ("(100,200),(300,400)", "ok", 1.0, "the very box"),
    # Overlap 0.1 x 0.2 = 0.02; union 0.04 + 0.04 - 0.02 = 0.06.
    ("(200,200),(400,400)", "ok", 1 / 3, "half beside"),
    ("(600,200),(800,400)", "ok", 0.0, "elsewhere"),
    ("I see nothing of that kind, sorry about it", "no_box", 0.0, "unreadable is no box"),
    ("(300,400),(100,200)", "invalid_box", 0.0, "inverted corners are not mended"),
    ("", "no_box", 0.0, "an empty response"),
]


@pytest.mark.parametrize(("text", "status", "iou", "why"), SINGLE, ids=[c[3] for c in SINGLE])
def test_single_target(text: str, status: str, iou: float, why: str) -> None:
    score = score_sample(make_sample(), text, "qwen2_vl")
    assert score.status == status
    assert score.iou == pytest.approx(iou), why
    assert score.image_right is None, "the image was given"
    assert (score.no_target_right, score.f1, score.ap50) == (None, None, None)


def test_no_response_counts_as_unanswered() -> None:
    score = score_sample(make_sample(), None, "qwen2_vl")
    assert (score.status, score.iou, score.box) == ("no_box", 0.0, None)
    # Also where the rule reads the prompt: a prompt without a response is nobody's answer.
    prompt = "Find (100,200),(300,400)"
    score = score_sample(make_sample(), None, None, protocol="univg-r1-zero-shot", prompt=prompt)
    assert (score.status, score.iou) == ("no_box", 0.0)


def test_pixels_are_those_of_the_image_that_shows_the_target() -> None:
    # The second image is 320 x 240: these pixels are its box (0.1, 0.2, 0.3, 0.4).
    assert score_sample(make_sample(), "[32, 48, 96, 96]", "pixels").iou == pytest.approx(1.0)
    # On a larger original the same numbers lie further to the upper left: no overlap.
    big = score_sample(make_sample(), "[32, 48, 96, 96]", "pixels", image_sizes=[(1920, 1440)] * 2)
    assert big.iou == 0.0
    # The same box of a second input of 300 x 200; its size is enough.
    unsized, sizes = make_sample(widths=(), heights=()), [(644, 476), (300, 200)]
    resized = score_sample(unsized, "[30, 40, 90, 80]", "qwen2_5_vl", input_sizes=sizes)
    assert resized.iou == pytest.approx(1.0)


FIND_IMAGE = [
    ("It's in the second image. (100,200),(300,400)", True, 1.0, 1.0),
    ("It's in the first image. (100,200),(300,400)", False, 1.0, 0.0),
    ("(100,200),(300,400)", False, 1.0, 0.0),
    ("It's in the second image. (600,200),(800,400)", True, 0.0, 0.0),
    # The left half, IoU 0.5 exactly, which is enough.
    ("It's in the second image. (100,200),(200,400)", True, 1.0, 1.0),
    ("It's in the second image. (100,200),(199,400)", True, 0.0, 0.0),
]


@pytest.mark.parametrize(("text", "right", "acc", "joint"), FIND_IMAGE)
def test_box_image_and_both_stand_apart(text: str, right: bool, acc: float, joint: float) -> None:
    score = score_sample(make_sample(image_is_given=False), text, "qwen2_vl")
    metrics = sample_metrics(score)
    assert score.image_right is right
    assert metrics["acc@0.5"] == acc
    assert metrics["image_acc"] == float(right)
    assert metrics["joint@0.5"] == joint


@pytest.mark.parametrize(
    ("text", "right"),
    [("There are none.", 1.0), ("(100,200),(300,400)", 0.0), ("", 0.0), ("I can't help", 0.0)],
)
def test_an_absent_object_wants_an_explicit_none(text: str, right: float) -> None:
    score = score_sample(make_sample(targets=()), text, "qwen2_vl")
    assert sample_metrics(score) == {"no_target_acc": right}


FIRST, SECOND = (0.1, 0.1, 0.3, 0.3), (0.6, 0.6, 0.9, 0.9)
HIT_1, HIT_2, MISS = "(100,100),(300,300)", "(600,600),(900,900)", "(400,0),(500,100)"
SEVERAL = [
    (f"{HIT_1}; {HIT_2}", 1.0, 1.0, 1.0, "both, nothing else"),
    # One of two: F1 = 2 / (1 + 2); AP = (1/1) / 2; IoU 1 / max(1, 2).
    (HIT_1, 2 / 3, 0.5, 0.5, "one of two"),
    # A repeated box is a false positive: F1 = 2 / (2 + 2).
    (f"{HIT_1}; {HIT_1}", 0.5, 0.5, 0.5, "repetition earns nothing"),
    # Hits at ranks 2 and 3: F1 = 4 / 5; AP = (1/2 + 2/3) / 2; IoU (1 + 1) / max(3, 2).
    (f"{MISS}; {HIT_1}; {HIT_2}", 0.8, (1 / 2 + 2 / 3) / 2, 2 / 3, "a miss first"),
    # The left half of the first: IoU 0.5, which F1 counts as a hit.
    (f"(100,100),(200,300); {HIT_2}", 1.0, 1.0, 0.75, "one is a half"),
    (MISS, 0.0, 0.0, 0.0, "only a miss"),
    # An inverted box is a box: F1 = 2 / (2 + 2).
    (f"{HIT_1}; (9,9),(5,5)", 0.5, 0.5, 0.5, "an invalid box counts"),
    # F1 = 4 / 5, IoU 2 / max(3, 2).
    (f"{HIT_1}; {HIT_2}; (9,9),(5,5)", 0.8, 1.0, 2 / 3, "an invalid box too many"),
    ("none", 0.0, 0.0, 0.0, "an explicit none is wrong here"),
    (f"{HIT_1}; {HIT_2}. None.", 0.0, 0.0, 0.0, "boxes that are taken back are none"),
]


@pytest.mark.parametrize(
    ("text", "f1", "ap50", "matched_iou", "why"), SEVERAL, ids=[c[4] for c in SEVERAL]
)
def test_several_targets_are_matched_one_to_one(
    text: str, f1: float, ap50: float, matched_iou: float, why: str
) -> None:
    sample = make_sample(targets=(Target(1, FIRST), Target(1, SECOND)))
    metrics = sample_metrics(score_sample(sample, text, "qwen2_vl"))
    expected = {"f1@0.5": f1, "ap50": ap50, "matched_iou": matched_iou}
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)


F1S = [
    # Both exact: every IoU is reached.
    (f"{HIT_1}; {HIT_2}", 1.0, 1.0),
    # The first has IoU 0.5, reached once of ten: (1 + 9 / 2) / 10.
    (f"(100,100),(200,300); {HIT_2}", 0.5, 0.55),
    # IoU 0.95 of the first alone: 190 of 200 wide.
    ("(100,100),(290,300)", 2 / 3, 2 / 3),
    ("(100,100),(289,300)", 0.0, 0.6),
    ("none", 0.0, 0.0),
]


@pytest.mark.parametrize(("text", "f1_95", "f1_mean"), F1S)
def test_f1_at_high_overlap_and_its_mean_over_ten(text: str, f1_95: float, f1_mean: float) -> None:
    sample = make_sample(targets=(Target(1, FIRST), Target(1, SECOND)))
    metrics = sample_metrics(score_sample(sample, text, "qwen2_vl"))
    assert metrics["f1@0.95"] == pytest.approx(f1_95)
    assert metrics["f1_mean"] == pytest.approx(f1_mean)


@pytest.mark.parametrize(
    ("text", "f1"),
    [(HIT_1, 1.0), (f"{HIT_1}; {HIT_2}", 2 / 3), (f"{HIT_2}; {HIT_1}", 2 / 3), ("none", 0.0)],
)
def test_where_all_are_asked_for_a_single_target_is_scored_as_a_set(text: str, f1: float) -> None:
    sample = make_sample(targets=(Target(1, FIRST),), find_all=True)
    score = score_sample(sample, text, "qwen2_vl")
    assert score.iou is None and score.center is None and score.image_right is None
    assert sample_metrics(score)["f1@0.5"] == pytest.approx(f1)
    absent = make_sample(targets=(), find_all=True)
    said = sample_metrics(score_sample(absent, text, "qwen2_vl"))
    assert said == {"no_target_acc": float(text == "none")}


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (f"First image: {HIT_1}. Second image: {HIT_1}", True),
        (f"First image: {MISS}. Second image: {MISS}", True),
        (f"Second image: {HIT_1}", False),
        (f"{HIT_1}; {HIT_1}", False),
        ("none", False),
        ("", False),
    ],
)
def test_of_several_targets_the_images_have_to_be_named_all_and_no_other(
    text: str, right: bool
) -> None:
    targets = (Target(0, FIRST), Target(1, FIRST))
    score = score_sample(make_sample(targets=targets, image_is_given=False), text, "qwen2_vl")
    assert score.images_right is right
    assert sample_metrics(score)["image_set_acc"] == float(right)
    one = make_sample(targets=targets[1:], image_is_given=False, find_all=True)
    named = score_sample(one, text, "qwen2_vl").images_right
    assert named is (text == f"Second image: {HIT_1}")


def test_rejection_has_a_recall_and_a_precision_so_that_a_none_everywhere_does_not_pay() -> None:
    samples = [make_sample(id="a", targets=()), make_sample(id="b", targets=())]
    samples += [make_sample(id="c"), make_sample(id="d", targets=(Target(1, FIRST),) * 2)]

    def rejection(*texts: str) -> object:
        scores = score_samples(samples, [Response(text) for text in texts], "qwen2_vl")
        return aggregate(scores)["rejection"]

    always = {"n_no_target": 2, "n_said_none": 4, "recall": 1.0, "precision": 0.5}
    assert rejection("none", "none", "none", "none") == always
    assert rejection("none", "", HIT_1, HIT_1) == {
        "n_no_target": 2,
        "n_said_none": 1,
        "recall": 0.5,
        "precision": 1.0,
    }
    silent = {"n_no_target": 2, "n_said_none": 0, "recall": 0.0, "precision": None}
    assert rejection("", "", "", "") == silent
    assert "rejection" not in aggregate(score_samples(samples[2:], [Response("")] * 2, "qwen2_vl"))


def test_several_guesses_at_each_target_show_in_the_boxes_per_answer() -> None:
    pair = (Target(0, FIRST), Target(0, SECOND))
    samples = [make_sample(id="a", targets=pair), make_sample(id="b", targets=pair)]
    samples += [make_sample(id="c", targets=pair[:1], find_all=True), make_sample(id="d")]
    guesses = [f"{HIT_1} {HIT_2} {MISS} {MISS}", "", f"{HIT_1} (0,0),(0,0)", f"{HIT_1} {MISS}"]
    scores = score_samples(samples, [Response(text) for text in guesses], "qwen2_vl")
    # 4, 0 and 2 boxes, an empty one among them; 2, 2 and 1 targets. One target: no part of it.
    assert aggregate(scores)["several"] == {
        "n_several": 3,
        "boxes_per_answer": 2.0,
        "targets_per_sample": pytest.approx(5 / 3),
    }
    left, right = Tally(), Tally()
    left.add(scores[0])
    for score in (*scores[1:], replace(scores[0], excluded=True)):
        right.add(score)
    right.merge(left)
    assert right.result()["several"] == aggregate(scores)["several"]
    older = [scores[0], replace(scores[1], n_targets=None)]
    assert aggregate(older)["several"] == {
        "n_several": 2,
        "boxes_per_answer": 2.0,
        "targets_per_sample": None,
    }
    assert "several" not in aggregate(scores[3:])


def test_a_box_that_fits_two_targets_takes_neither_from_another() -> None:
    # Heights equal. The wide box, 0.13 to 0.35, has IoU 17/25 with the first target, 0.10 to 0.30,
    # and 15/27 with the second, 0.20 to 0.40; the other box is the first target.
    targets = (Target(1, (0.1, 0.1, 0.3, 0.3)), Target(1, (0.2, 0.1, 0.4, 0.3)))
    sample, wide = make_sample(targets=targets), "(130,100),(350,300)"
    texts = f"{wide} {HIT_1}", f"{HIT_1} {wide}"
    found = [score_sample(sample, text, "qwen2_vl") for text in texts]
    assert [score.f1 for score in found] == [1.0, 1.0]
    assert [score.matched_iou for score in found] == [pytest.approx((15 / 27 + 1) / 2)] * 2
    # By rank the wide box comes first and takes the first target, so that none is left.
    assert [score.ap50 for score in found] == [0.5, 1.0]


NAMED = (
    "None.",
    "No such object in the second image.",
    "No such object in the first image.",
    "There is no cup in the second image.",
    f"Image 1: {HIT_1}\nImage 2: {HIT_2}",
    f"Image 1: none\nImage 2: {HIT_1}",
    f"Image 1: {HIT_1}\nImage 2: none",
    HIT_1,
    "[32, 48, 96, 96]",
)


@pytest.mark.parametrize(
    "asked",
    [
        {"given_image": 1},
        {"instruction": "Where is it in the second image?"},
        {"instruction": "Where is it?"},
        {"image_is_given": False},
    ],
    ids=["image stated", "named in words", "not stated", "to be found"],
)
@pytest.mark.parametrize("dialect", ["qwen2_vl", "norm1000", "pixels"])
@given(
    text=st.one_of(st.sampled_from(NAMED), st.text(max_size=40)),
    targets=st.lists(
        st.builds(Target, st.integers(0, 1), st.sampled_from([FIRST, SECOND])), max_size=3
    ),
)
@settings(max_examples=60, deadline=None)
def test_targets_never_change_what_is_read(
    text: str, targets: list[Target], dialect: str, asked: dict[str, Any]
) -> None:
    stated = make_sample(**asked)
    expected = score_sample(stated, text, dialect)
    found = score_sample(replace(stated, targets=tuple(targets)), text, dialect)
    for name in ("status", "box", "image_index", "n_boxes", "n_units", "clipped"):
        assert getattr(found, name) == getattr(expected, name), name


@pytest.mark.parametrize(
    ("changes", "image"),
    [
        ({}, 1),
        ({"targets": ()}, 1),  # "in the second image" says so
        ({"instruction": "Where is it?"}, None),
        ({"targets": (), "instruction": "As in the first image, in the second image?"}, None),
        ({"targets": (), "instruction": "Where is it?", "given_image": 0}, 0),
        ({"targets": (Target(0, FIRST), Target(1, SECOND)), "instruction": "Where?"}, None),
        ({"image_is_given": False, "given_image": 1}, None),
        ({"images": ("a.png",), "widths": (5,), "heights": (5,), "targets": ()}, 0),
    ],
)
def test_the_image_that_an_instruction_names(changes: dict[str, Any], image: int | None) -> None:
    assert given_image(make_sample(**changes)) == image


@pytest.mark.parametrize("targets", [(), (Target(1, FIRST),)], ids=["no target", "target"])
@pytest.mark.parametrize("instruction", ["Where is it in the second image?", "Where is it?"])
def test_absence_in_the_given_image_is_read_alike(
    targets: tuple[Target, ...], instruction: str
) -> None:
    sample = make_sample(targets=targets, instruction=instruction)
    assert score_sample(sample, "No such object in the second image.", "qwen2_vl").status == "none"


def test_metrics_of_one_iou() -> None:
    # IoU 0.04 / 0.06: two thirds.
    sample = make_sample(image_is_given=False)
    metrics = sample_metrics(score_sample(sample, "(100,200),(300,500)", "qwen2_vl"))
    assert metrics == {
        "acc@0.3": 1.0,
        "acc@0.5": 1.0,
        "acc@0.7": 0.0,
        "acc@0.75": 0.0,
        "acc@0.9": 0.0,
        "miou": pytest.approx(2 / 3),
        # Reached of 0.50, 0.55, …, 0.95: 0.50, 0.55, 0.60, 0.65.
        "macc": pytest.approx(0.4),
        "answered": 1.0,
        "center_acc": 1.0,
        "image_acc": 0.0,
        "joint@0.5": 0.0,
    }
    others = {"no_target_acc", "f1@0.5", "f1@0.95", "f1_mean", "ap50", "matched_iou"}
    assert set(METRICS) == metrics.keys() | others | {"image_set_acc"}


@pytest.mark.parametrize(
    ("dialect", "needed"),
    [("pixels", "give image_sizes with"), ("qwen2_5_vl", "give image_sizes or input_sizes with")],
)
@pytest.mark.parametrize("text", ["[1, 2, 30, 40]", "no box in here"])
def test_pixels_without_any_size_are_the_users_mistake(
    dialect: str, needed: str, text: str
) -> None:
    sample = make_sample(widths=(), heights=())
    with pytest.raises(UserError, match=f"'toy-00000': boxes of dialect '{dialect}'.*{needed}"):
        score_sample(sample, text, dialect)
    assert score_sample(sample, None, dialect).status == "no_box"
    published = score_sample(sample, text, None, protocol="univg-r1")
    assert published.iou == 0.0, "0-1000 needs no size; the box lies elsewhere or is not there"


def test_several_targets_on_images_to_be_found_want_the_right_image() -> None:
    targets = (Target(0, FIRST), Target(1, FIRST))
    dialect = get_dialect("qwen2_vl")
    text = f"First image: {HIT_1}. Second image: {HIT_1}"
    swapped = f"Second image: {HIT_2}. First image: {HIT_1}"
    found = [
        match_several(read_answer(t, dialect), targets, check_image=True) for t in (text, swapped)
    ]
    # Of the second text only the box on the first image fits: F1 = 2 / 4, IoU 1 / 2; found at rank
    # 2: AP = (1/2) / 2.
    assert found == [((1.0,) * 10, 1.0, 1.0), ((0.5,) * 10, 0.25, 0.5)]
    unnamed = match_several(read_answer(f"{HIT_1} {HIT_1}", dialect), targets, check_image=True)
    nothing = ((0.0,) * 10, 0.0, 0.0)
    assert unnamed == nothing
    for image, other in ((0, "Second"), (1, "First")):
        answer = read_answer(f"{other} image: {HIT_1}", dialect)
        elsewhere = (Target(image, FIRST), Target(image, SECOND))
        assert match_several(answer, elsewhere, check_image=True) == nothing


def test_invalid_ground_truth_is_excluded_by_univg_and_kept_by_published_rules() -> None:
    sample = make_sample(targets=(Target(1, (0.3, 0.2, 0.1, 0.4)),))
    text = "(100,200),(300,400)"
    assert sample_metrics(score_sample(sample, text, "qwen2_vl")) == {}
    published = sample_metrics(score_sample(sample, text, None, protocol="univg-r1"))
    assert published["acc@0.5"] == 0.0


def test_the_box_of_zeros_of_a_published_rule_earns_nothing_by_its_centre() -> None:
    # univg-r1 puts [0, 0, 0, 0] where it reads nothing; its centre lies in a target at the corner.
    sample = make_sample(targets=(Target(1, (0.0, 0.0, 0.4, 0.4)),))
    metrics = sample_metrics(score_sample(sample, "no idea", None, protocol="univg-r1"))
    assert (metrics["center_acc"], metrics["acc@0.3"], metrics["answered"]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("target", "numbers", "threshold"),
    [
        # Widths in thousandths, heights equal: 60 of 120, 195 of 650, 147 of 210, 45 of 50.
        ((0.779, 0.46, 0.899, 0.849), "(779,460),(839,849)", 0.5),
        ((0.221, 0.515, 0.871, 0.992), "(221,515),(416,992)", 0.3),
        ((0.331, 0.594, 0.541, 0.956), "(331,594),(478,956)", 0.7),
        ((0.671, 0.153, 0.721, 0.346), "(671,153),(716,346)", 0.9),
    ],
)
def test_thresholds_are_reached_by_equality(
    target: tuple[float, float, float, float], numbers: str, threshold: float
) -> None:
    score = score_sample(make_sample(targets=(Target(1, target),)), numbers, "qwen2_vl")
    assert score.iou == threshold
    assert sample_metrics(score)[f"acc@{threshold}"] == 1.0
    # Just below is below.
    x1, y1, x2, y2 = target
    wider = make_sample(targets=(Target(1, (x1, y1, x2 + 1e-6, y2)),))
    assert sample_metrics(score_sample(wider, numbers, "qwen2_vl"))[f"acc@{threshold}"] == 0.0
    # The same where one of two targets is hit: F1 is 2 / 3 at IoU >= 0.5 and 0 below.
    answer = read_answer(numbers, get_dialect("qwen2_vl"))
    targets = [Target(1, target), Target(1, (0.0, 0.0, 0.1, 0.1))]
    f1s, ap50, _ = match_several(answer, targets, check_image=False)
    assert (f1s[0], ap50) == ((pytest.approx(2 / 3), 0.5) if threshold >= 0.5 else (0.0, 0.0))


def scores_of_two_tasks():
    samples = [
        make_sample(id="a"),
        make_sample(id="b"),
        make_sample(id="c", targets=(Target(0, (0.5, 0.5, 0.4, 0.6)),)),
        make_sample(id="d", task="other"),
    ]
    texts = ["(100,200),(300,400)", None, "(100,200),(300,400)", "(200,200),(400,400)"]
    return score_samples(samples, [Response(t) for t in texts], "qwen2_vl")


def test_aggregate_states_its_denominators() -> None:
    result = aggregate(scores_of_two_tasks())
    find, other = result["tasks"]["find"], result["tasks"]["other"]
    assert (find["n"], find["excluded"], other["n"], other["excluded"]) == (2, 1, 1, 0)
    assert (find["acc@0.5"], find["miou"], find["answered"]) == (0.5, 0.5, 0.5)
    assert other["miou"] == pytest.approx(1 / 3)
    assert other["acc@0.3"] == 1.0
    assert result["macro"]["acc@0.5"] == 0.25
    assert result["macro"]["miou"] == pytest.approx((0.5 + 1 / 3) / 2)
    assert "n" not in result["macro"]


def test_macro_is_over_the_tasks_with_samples_of_a_metrics_kind() -> None:
    scores = scores_of_two_tasks()
    absent = score_sample(make_sample(task="absent", targets=()), "none", "qwen2_vl")
    found = make_sample(task="other", image_is_given=False)
    searched = score_sample(found, "(100,200),(300,400)", "qwen2_vl")
    result = aggregate([*scores, absent, searched])
    assert result["macro"]["acc@0.5"] == pytest.approx((0.5 + 0.5) / 2)
    assert result["macro"]["no_target_acc"] == 1.0
    assert "image_acc" in result["tasks"]["other"] and "image_acc" not in result["macro"]
    row = result["tasks"]["absent"]
    assert row == {"n": 0, "excluded": 0, "n_no_target": 1, "no_target_acc": 1.0}


def test_sums_depend_neither_on_order_nor_on_parts() -> None:
    texts = [f"({x},200),(400,{y})" for x in range(100, 330, 7) for y in range(300, 1000, 67)]
    samples = [make_sample(i) for i in range(len(texts))]
    scores = score_samples(samples, [Response(text) for text in texts], "qwen2_vl")
    whole = aggregate(scores)
    assert aggregate(scores[::-1]) == whole
    mean = sum(score.iou for score in scores) / len(scores)
    assert whole["macro"]["miou"] == pytest.approx(mean, rel=1e-12)
    left, right = Tally(), Tally()
    for i, score in enumerate(scores):
        (right if i else left).add(score)
    left.merge(right)
    assert left.result() == whole
    assert aggregate([]) == {"tasks": {}, "macro": {}}
    with pytest.raises(ValueError, match="shorter"):
        score_samples(samples, [Response("")], "qwen2_vl")


@pytest.mark.parametrize(
    ("dialect", "protocol", "message"),
    [
        ("qwen9_vl", "univg", "qwen9_vl.*qwen2_vl"),
        ("qwen2_vl", "lucky", "lucky.*univg-r1"),
        (None, "univg", "dialect"),
    ],
)
def test_unknown_names_list_the_known(dialect, protocol: str, message: str) -> None:
    with pytest.raises(UserError, match=f"(?s){message}"):
        score_sample(make_sample(), "(1,2),(3,4)", dialect, protocol=protocol)


ONE = score_line("one", "ok", 0.5)
ABSENT = score_line("absent", "none", None, no_target_right=True)
SEVERAL = score_line("several", "ok", None, f1=0.25, ap50=0.5, matched_iou=0.2)
LEFT_OUT = replace(ONE, excluded=True)


@pytest.mark.parametrize(
    ("scores", "metric"),
    [
        ([SEVERAL, ABSENT, ONE], "acc@0.5"),
        ([SEVERAL, ABSENT], "f1@0.5"),
        ([ABSENT], "no_target_acc"),
        ([SEVERAL], "f1@0.5"),
        ([LEFT_OUT, SEVERAL], "f1@0.5"),
        ([LEFT_OUT], "acc@0.5"),
        ([], "acc@0.5"),
    ],
)
def test_the_number_of_a_run_is_of_the_first_kind_that_counts(
    scores: list[SampleScore], metric: str
) -> None:
    assert headline_metric(scores) == metric


def test_the_values_behind_the_numbers_are_one_a_counted_sample() -> None:
    assert [headline(one) for one in (ONE, ABSENT, SEVERAL, LEFT_OUT)] == [1.0, 1.0, 0.25, None]
    found = HeadlineValues([ONE, LEFT_OUT, SEVERAL])
    found.merge(HeadlineValues([replace(ONE, iou=0.4, cluster="d"), ABSENT]))
    values = {
        metric: {task: [*v] for task, v in tasks.items()} for metric, tasks in found.values.items()
    }
    assert values == {
        "acc@0.5": {"t": [1.0, 0.0]},
        "f1@0.5": {"t": [0.25]},
        "no_target_acc": {"t": [1.0]},
    }
    first, second = found.clusters["acc@0.5"]["t"]
    assert first != second and [*found.clusters["f1@0.5"]["t"]] == [first]


def test_each_kind_is_counted_under_its_own_name() -> None:
    left, right = Tally(), Tally()
    left.add(ONE)
    for one in (SEVERAL, SEVERAL, ABSENT, LEFT_OUT):
        right.add(one)
    left.merge(right)
    row = left.result()["tasks"]["t"]
    counts = {name: row[name] for name in ("n", "n_several", "n_no_target", "excluded")}
    assert counts == {"n": 1, "n_several": 2, "n_no_target": 1, "excluded": 1}
    assert (row["acc@0.5"], row["f1@0.5"], row["matched_iou"]) == (1.0, 0.25, pytest.approx(0.2))
    assert sample_metrics(LEFT_OUT) == {}


def test_a_threshold_of_macc_is_reached_by_equality() -> None:
    assert sample_metrics(ONE)["macc"] == pytest.approx(0.1)  # 0.50 of 0.50, 0.55, …, 0.95
    assert sample_metrics(replace(ONE, iou=0.95))["macc"] == 1.0


def test_only_several_targets_have_a_matched_iou_in_a_line() -> None:
    later = {"matched_iou", "f1_95", "f1_mean", "images_right", "n_targets"}
    assert not later & ONE.to_dict().keys()
    assert SEVERAL.to_dict()["matched_iou"] == 0.2


def test_means_of_numbers_are_no_shares() -> None:
    numbers = {"miou", "macc", "f1@0.5", "f1@0.95", "f1_mean", "ap50", "matched_iou"}
    assert {metric for metric in METRICS if not is_share(metric)} == numbers


def test_a_published_rule_needs_no_dialect_and_takes_no_look_at_one() -> None:
    scored = score_sample(make_sample(), "(100,200),(300,400)", "no_such", protocol="univg-r1")
    assert scored.iou == 1.0
