"""Box geometry against exact fractions and pycocotools."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from univg_eval.boxes import (
    box_iou,
    box_text,
    center_in_box,
    clip_box,
    clip_boxes,
    four_numbers,
    is_valid_box,
    valid_boxes,
)

Coordinates = tuple[int, int, int, int]


def grid_boxes(low: int = 0, high: int = 40) -> st.SearchStrategy[Coordinates]:
    """Valid boxes with whole coordinates."""
    pair = st.tuples(st.integers(low, high), st.integers(low, high)).filter(lambda p: p[0] != p[1])
    return st.tuples(pair, pair).map(
        lambda p: (min(p[0]), min(p[1]), max(p[0]), max(p[1]))  # type: ignore[return-value]
    )


def exact_iou(a: Coordinates, b: Coordinates) -> Fraction:
    """Count of unit cells covered by both boxes over cells covered by either."""
    cells_a = {(x, y) for x in range(a[0], a[2]) for y in range(a[1], a[3])}
    cells_b = {(x, y) for x in range(b[0], b[2]) for y in range(b[1], b[3])}
    return Fraction(len(cells_a & cells_b), len(cells_a | cells_b))


@given(grid_boxes(0, 12), grid_boxes(0, 12))
def test_iou_counts_cells(a: Coordinates, b: Coordinates) -> None:
    assert box_iou(a, b) == pytest.approx(float(exact_iou(a, b)), abs=1e-12)


@given(grid_boxes(), grid_boxes(), st.floats(0.01, 100))
def test_iou_is_symmetric_and_free_of_scale(a: Coordinates, b: Coordinates, scale: float) -> None:
    value = box_iou(a, b)
    assert box_iou(b, a) == value
    assert box_iou(np.array(a) * scale, np.array(b) * scale) == pytest.approx(value)
    assert box_iou(a, a) == 1.0


def test_iou_agrees_with_pycocotools() -> None:
    mask = pytest.importorskip("pycocotools.mask")
    generator = np.random.default_rng(0)
    corners = np.sort(generator.random((2, 200, 2, 2)) * 500, axis=2)
    a, b = (np.concatenate([c[:, 0], c[:, 1]], axis=1) for c in corners)
    as_xywh = [
        np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1) for boxes in (a, b)
    ]
    reference = mask.iou(as_xywh[0], as_xywh[1], [0] * len(b))
    np.testing.assert_allclose(box_iou(a[:, None], b[None]), reference, atol=1e-12)


@pytest.mark.parametrize(
    ("a", "b", "expected", "why"),
    [
        ((0, 0, 2, 2), (1, 1, 3, 3), 1 / 7, "one cell of seven"),
        ((0, 0, 1, 1), (1, 0, 2, 1), 0.0, "a shared edge has no area"),
        ((0, 0, 0, 0), (0, 0, 0, 0), 0.0, "two points: no area to share, and no division by zero"),
        ((2, 2, 0, 0), (0, 0, 2, 2), 0.0, "inverted corners"),
        ((2, 0, 0, 2), (0, 0, 2, 2), 0.0, "inverted in x only"),
        ((math.nan, 0, 1, 1), (0, 0, 1, 1), 0.0, "not a number"),
        ((0, 0, math.inf, 1), (0, 0, 1, 1), 0.0, "infinite"),
        ((-math.inf, -math.inf, math.inf, math.inf), (0, 0, 1, 1), 0.0, "infinite on all sides"),
        ((0, 0, 1e308, 1e308), (0, 0, 1, 1), 0.0, "the area overflows"),
        ((-1, 0, 1, 1), (0, 0, 1, 1), 0.5, "not clipped here"),
    ],
)
def test_iou_of_special_boxes(a, b, expected: float, why: str) -> None:
    with np.errstate(all="raise", invalid="ignore", over="ignore"):
        assert box_iou(a, b) == pytest.approx(expected), why


def test_union_eps_is_added_to_the_union() -> None:
    # Intersection 0.25, union 1 + 0.25 - 0.25: 0.25 / (1 + 1e-6).
    assert box_iou((0, 0, 0.5, 0.5), (0, 0, 1, 1), union_eps=1e-6) == 0.25 / (1 + 1e-6)


def test_iou_in_single_precision() -> None:
    """1,157,196 of 1,361,407 cells: 0.85 and 4e-8, which is 0.85 to 24 bits."""
    iou = box_iou([[0, 0, 1501, 907]], [[0, 0, 1321, 876]], dtype=np.float32)
    assert iou.dtype == np.float32 and iou[0] == np.float32(0.85)
    assert box_iou([[0, 0, 1501, 907]], [[0, 0, 1321, 876]])[0] > 0.85


def test_shapes_broadcast() -> None:
    a = np.tile(np.array([0.0, 0, 1, 1]), (3, 1, 1))
    b = np.tile(np.array([0.0, 0, 1, 2]), (5, 1))
    assert box_iou(a, b).shape == (3, 5)
    assert np.all(box_iou(a, b) == 0.5)
    assert box_iou(np.zeros((0, 4)), (0, 0, 1, 1)).shape == (0,)


@pytest.mark.parametrize("bad", [(1, 2, 3), 5.0, np.zeros((4, 3))])
def test_wrong_shapes_are_named(bad) -> None:
    with pytest.raises(ValueError, match=r"a has shape .*expected \(\.\.\., 4\)"):
        box_iou(bad, (0, 0, 1, 1))


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0, 0, 1, 1), True),
        ((0.2, 0.3, 0.20001, 0.4), True),
        ((0.5, 0.1, 0.5, 0.2), False),
        ((0.1, 0.5, 0.2, 0.5), False),
        ((0, 1, 1, 1), False),
        ((0, -0.001, 1, 1), False),
        ((0, 0, 1.048, 1), False),
        ((0.5, 0.2, 0.6, 0.1), False),
        ((-0.001, 0, 1, 1), False),
        ((0, 0, 1, 1.048), False),
        ((math.nan, 0, 1, 1), False),
        ((0, 0, math.inf, 1), False),
    ],
)
def test_validity(box, expected: bool) -> None:
    assert is_valid_box(box) is expected
    assert bool(valid_boxes(box)) is expected


@given(st.tuples(*[st.floats(allow_nan=True, allow_infinity=True)] * 4))
def test_tuple_and_array_forms_agree(box) -> None:
    assert is_valid_box(box) == bool(valid_boxes(box))
    np.testing.assert_array_equal(clip_box(box), clip_boxes(box))


@pytest.mark.parametrize(
    ("center", "inside"),
    [
        ((0.25, 0.75), True),
        # Corners belong to the box: x from 1/8 to 3/8, y from 1/2 to 7/8.
        ((0.125, 0.5), True),
        ((0.375, 0.875), True),
        ((0.125, 0.875), True),
        ((0.375, 0.5), True),
        ((0.0625, 0.75), False),
        ((0.5, 0.75), False),
        ((0.25, 0.4375), False),
        ((0.25, 0.9375), False),
    ],
)
def test_center_lies_in_box(center: tuple[float, float], inside: bool) -> None:
    x, y = center
    a = (x - 1 / 16, y - 1 / 32, x + 1 / 16, y + 1 / 32)
    assert bool(center_in_box(a, (0.125, 0.5, 0.375, 0.875))) is inside


@pytest.mark.parametrize(
    ("value", "largest", "expected"),
    [
        ([1, 2.5, -3, 4], None, (1.0, 2.5, -3.0, 4.0)),
        ([1, 2, -3, 4], 4, (1.0, 2.0, -3.0, 4.0)),
        ([1, 2, 3, -4.1], 4, None),
        ([math.nan, 2, 3, 4], 4, None),
        ([1, 2, 3, math.inf], None, (1.0, 2.0, 3.0, math.inf)),
        ([1, 2, 3, math.inf], 4, None),
        ([1, 2, 3, 10**400], None, None),
        ([1, 2, 3], None, None),
        ([1, 2, 3, 4, 5], None, None),
        ([1, 2, 3, True], None, None),
        ([1, 2, 3, "4"], None, None),
        ((1, 2, 3, 4), None, None),
        ("1234", None, None),
        (None, None, None),
    ],
)
def test_four_numbers_of_json(value: object, largest: float | None, expected: Any) -> None:
    assert four_numbers(value, largest) == expected


@pytest.mark.parametrize(
    ("box", "digits", "text"),
    [
        ((0.1, 0.25, 0.5, 1.0), 4, "[0.1, 0.25, 0.5, 1]"),
        ((1 / 3, 2 / 3, 123456, 1e-7), 4, "[0.3333, 0.6667, 1.235e+05, 1e-07]"),
        ((1 / 3, 2 / 3, 0.99, 1), 2, "[0.33, 0.67, 0.99, 1]"),
    ],
)
def test_a_box_as_text(box: Any, digits: int, text: str) -> None:
    assert box_text(box, digits) == text
    assert digits != 4 or box_text(box) == text
