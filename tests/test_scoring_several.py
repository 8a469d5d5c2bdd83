"""Several targets: what is true of any boxes, against SciPy's assignment written anew here."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from factories import make_sample
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from univg_eval.boxes import Box
from univg_eval.matching import largest_matching
from univg_eval.samples import Target
from univg_eval.scoring import SampleScore, score_sample

# Corners on a coarse grid, so that boxes often share edges, halves and whole positions.
CORNERS = st.integers(0, 8)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    x1, y1 = draw(CORNERS), draw(CORNERS)
    x2, y2 = draw(st.integers(x1 + 1, 10)), draw(st.integers(y1 + 1, 10))
    return (x1 / 10, y1 / 10, x2 / 10, y2 / 10)


ANSWERS = st.lists(boxes(), max_size=6)
TRUTHS = st.lists(boxes(), min_size=2, max_size=5)


def score(answer: list[Box], truth: list[Box]) -> SampleScore:
    sample = make_sample(targets=tuple(Target(1, box) for box in truth))
    text = " ".join(
        "({},{}),({},{})".format(*(round(value * 1000) for value in box)) for box in answer
    )
    return score_sample(sample, text, "qwen2_vl")


def figures(answer: list[Box], truth: list[Box]) -> tuple[float, float]:
    found = score(answer, truth)
    assert found.f1 is not None and found.matched_iou is not None
    return found.f1, found.matched_iou


def overlap(a: Box, b: Box) -> float:
    """The textbook ratio, on whole numbers."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = (
        [round(value * 10) for value in box] for box in (a, b)
    )
    w, h = min(ax2, bx2) - max(ax1, bx1), min(ay2, by2) - max(ay1, by1)
    common = max(w, 0) * max(h, 0)
    return common / ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - common)


def by_scipy(values: np.ndarray[Any, Any]) -> float:
    rows, columns = linear_sum_assignment(values, maximize=True)
    return float(values[rows, columns].sum())


@settings(max_examples=150, deadline=None)
@given(ANSWERS, TRUTHS)
def test_the_figures_are_those_of_scipys_assignment(answer: list[Box], truth: list[Box]) -> None:
    table = np.array([[overlap(a, t) for t in truth] for a in answer]).reshape(-1, len(truth))
    hits, n = (table >= 0.5).astype(float), len(answer)
    assert figures(answer, truth) == (
        pytest.approx(2 * by_scipy(hits) / (n + len(truth))),
        pytest.approx(by_scipy(table * hits) / max(n, len(truth))),
    )


@settings(max_examples=100, deadline=None)
@given(ANSWERS, TRUTHS, st.randoms(use_true_random=False))
def test_no_order_changes_them(answer: list[Box], truth: list[Box], chance: random.Random) -> None:
    before = figures(answer, truth)
    shuffled, others = chance.sample(answer, len(answer)), chance.sample(truth, len(truth))
    assert figures(shuffled, others) == before


@settings(max_examples=100, deadline=None)
@given(ANSWERS, TRUTHS)
def test_they_are_shares_and_whole_for_the_truth_alone(answer: list[Box], truth: list[Box]) -> None:
    assert all(0.0 <= value <= 1.0 for value in figures(answer, truth))
    assert figures(truth, truth) == (1.0, 1.0)
    is_truth = sorted(answer) == sorted(truth)
    assert (figures(answer, truth)[1] == 1.0) == is_truth


@settings(max_examples=100, deadline=None)
@given(ANSWERS, TRUTHS, boxes(), st.integers(0, 6))
def test_a_wrong_box_never_pays(
    answer: list[Box], truth: list[Box], wrong: Box, place: int
) -> None:
    """One that misses every target; and a second time what is there already."""
    f1, matched = figures(answer, truth)
    if all(overlap(wrong, true) < 0.5 for true in truth):
        with_it = figures([*answer[:place], wrong, *answer[place:]], truth)
        assert with_it[0] <= f1 and with_it[1] <= matched
        if f1:
            assert with_it[0] < f1
        if matched and len(answer) >= len(truth):
            assert with_it[1] < matched
    if len(answer) >= len(truth) and matched == 1.0:
        assert figures([*answer, answer[0]], truth)[1] < 1.0


def test_a_large_matching() -> None:
    values = np.random.default_rng(7).random((200, 12))
    assert largest_matching(values) == pytest.approx(by_scipy(values))
    assert largest_matching(values.T) == largest_matching(values)
    with pytest.raises(ValueError, match=r"shape \(3,\); expected \(P, T\)"):
        largest_matching([1.0, 2.0, 3.0])
