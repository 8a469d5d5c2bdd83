"""Masks and polygons to boxes, against masks painted and counted by brute force."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from release_still import coco_rle, coco_text, rectangle_points, run_lengths
from release_video import extent

from univg_eval.benchmarks.readers.common.masks import (
    Shape,
    mask_from_array,
    paint_shapes,
    read_rle,
    require_image_size,
    unite,
)
from univg_eval.benchmarks.readers.common.release import ItemError

pixels = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24))


def count_parts(array):
    """Parts that touch nowhere, not even at a corner, by walking from pixel to pixel."""
    left = {(x, y) for y, row in enumerate(array.tolist()) for x, on in enumerate(row) if on}
    parts = 0
    while left:
        parts += 1
        border = [left.pop()]
        while border:
            x, y = border.pop()
            near = {(x + dx, y + dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)} & left
            left -= near
            border += near
    return parts


def pixels_of(mask):
    from pycocotools import mask as coco

    return coco.decode(mask.to_json())


def assert_is(mask, array):
    """The mask is that of the array, in every respect."""
    assert (mask.height, mask.width) == array.shape
    np.testing.assert_array_equal(pixels_of(mask), array.astype(np.uint8))
    if not array.any():
        assert mask.box() is None
        return
    (x1, y1, x2, y2), (h, w) = extent(array), array.shape
    assert mask.box() == pytest.approx((x1 / w, y1 / h, x2 / w, y2 / h))


def drawn(rows):
    return np.array([[c == "#" for c in row] for row in rows.split()])


@given(pixels)
@settings(deadline=None)
def test_run_lengths_compressed_or_not_give_the_mask(array):
    runs = run_lengths(array)
    size = list(array.shape)
    text = coco_text(runs)
    plain = read_rle({"size": size, "counts": runs}, "mask")
    assert_is(plain, array)
    assert plain.n_parts() == count_parts(array)
    assert read_rle({"size": size, "counts": text}, "mask") == plain
    assert read_rle({"size": tuple(size), "counts": text.encode()}, "mask") == plain
    assert mask_from_array(array) == plain
    # The same text as another writer of the format gives.
    assert plain.to_json() == {"size": size, "counts": text}
    assert read_rle(plain.to_json(), "mask") == plain


@given(pixels, st.data())
@settings(deadline=None)
def test_runs_of_length_zero_change_nothing(array, data):
    runs = run_lengths(array)
    padded = []
    for run in runs:
        for _ in range(data.draw(st.integers(0, 2))):
            cut = data.draw(st.integers(0, run))
            padded += [cut, 0]
            run -= cut
        padded.append(run)
    size = list(array.shape)
    assert read_rle({"size": size, "counts": padded}, "mask") == mask_from_array(array)
    text = coco_text(padded)
    assert read_rle({"size": size, "counts": text}, "mask") == mask_from_array(array)


def test_pycocotools_agrees_on_a_large_mask():
    from pycocotools import mask as coco

    array = np.zeros((1500, 2000), dtype=np.uint8)
    rows, columns = np.ogrid[:1500, :2000]
    array[(columns - 900) ** 2 + (rows - 700) ** 2 <= 500**2] = 1
    array[1499, 1999] = 1
    rle = coco.encode(np.asfortranarray(array))
    mask = read_rle({"size": [1500, 2000], "counts": rle["counts"].decode()}, "mask")
    assert mask.counts == rle["counts"]
    assert mask.box() == (400 / 2000, 200 / 1500, 1, 1)
    assert mask.n_parts() == 2


@pytest.mark.parametrize(
    ("rows", "box", "parts"),
    [
        ("#... .... ....", (0, 0, 1 / 4, 1 / 3), 1),
        (".... .... ...#", (3 / 4, 2 / 3, 1, 1), 1),
        ("#... .#.. ....", (0, 0, 2 / 4, 2 / 3), 1),  # touches at a corner
        ("#.#. .... #...", (0, 0, 3 / 4, 1), 3),
        ("..#. ..#. ..#.", (2 / 4, 0, 3 / 4, 1), 1),  # one run of a whole column
        (".##. .... .##.", (1 / 4, 0, 3 / 4, 1), 2),  # runs across column ends
    ],
)
def test_hand_drawn_masks(rows, box, parts):
    mask = read_rle(coco_rle(drawn(rows)), "mask")
    assert mask.box() == pytest.approx(box)
    assert mask.n_parts() == parts


@given(
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=16).flatmap(
        lambda shape: st.lists(hnp.arrays(bool, shape), min_size=1, max_size=4)
    )
)
@settings(deadline=None)
def test_a_union_has_every_pixel_of_its_masks(arrays):
    union = unite([mask_from_array(array) for array in arrays], "masks")
    assert union == mask_from_array(np.logical_or.reduce(arrays))
    assert_is(union, np.logical_or.reduce(arrays))


def test_masks_of_different_sizes_are_not_united():
    masks = [mask_from_array(np.ones(shape)) for shape in ((3, 4), (3, 4), (4, 3))]
    with pytest.raises(ItemError, match=r"frame 3: .*4x3 and 3x4") as caught:
        unite(masks, "frame 3")
    assert caught.value.kind == "invalid_mask"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "x: the mask is None"),
        ({"counts": [12]}, "expected run lengths"),
        ({"size": [3, 4]}, "expected run lengths"),
        ({"size": [3, 4, 1], "counts": [12]}, r"size is \[3, 4, 1\]"),
        ({"size": [3, 0], "counts": []}, r"size is \[3, 0\]"),
        ({"size": [3.0, 4], "counts": [12]}, r"size is \[3\.0, 4\]"),
        ({"size": [True, 12], "counts": [12]}, r"size is \[True, 12\]"),
        ({"size": [100_000, 100_000], "counts": [10**10]}, "pixels at most"),
        ({"size": "34", "counts": [12]}, "size is '34'"),
        ({"size": [3, 4], "counts": None}, "None: expected a text or a list"),
        ({"size": [3, 4], "counts": [12.0]}, r"\[12\.0\]: expected a text"),
        ({"size": [3, 4], "counts": [True] * 12}, "a list of whole numbers"),
        ({"size": [3, 4], "counts": [5, -1, 8]}, "run 1 has a negative length"),
        ({"size": [3, 4], "counts": [5, 6]}, "add up to 11, not to 4 times 3"),
        ({"size": [3, 4], "counts": [2**62, 2**62, 2**62, 2**62 + 12]}, "add up to 1844674407"),
        ({"size": [3, 4], "counts": [2**64]}, "damaged run lengths"),
        ({"size": [3, 4], "counts": []}, "add up to 0"),
        ({"size": [3, 4], "counts": ""}, "add up to 0"),
        ({"size": [3, 4], "counts": coco_text([5, -2, 9])}, "run 1 has a negative length"),
        ({"size": [3, 4], "counts": "<é"}, "position 1"),
        ({"size": [3, 4], "counts": "5 7"}, "character 1, b' '"),
        ({"size": [3, 4], "counts": b"5\xff"}, r"character 1, b'\\xff'"),
        ({"size": [3, 4], "counts": "5\0"}, r"character 1, b'\\x00'"),
        ({"size": [3, 4], "counts": "5X"}, "breaks off within a number"),
        ({"size": [3, 4], "counts": "PPPPPPP0"}, "a number has 8 characters"),
    ],
)
def test_malformed_run_lengths_are_refused(value, message):
    with pytest.raises(ItemError, match=message) as caught:
        read_rle(value, "x")
    assert caught.value.kind == "invalid_mask"


@given(st.one_of(st.text(max_size=30), st.binary(max_size=30), st.text("0123456789:;PQRSTUVX`kl")))
@example("0" * 12)
@example("PPPPPP1")
@settings(deadline=None, max_examples=150)
def test_garbage_is_refused_or_a_mask_of_the_size(counts):
    try:
        mask = read_rle({"size": [3, 4], "counts": counts}, "x")
    except ItemError:
        return
    assert pixels_of(mask).shape == (3, 4)
    assert read_rle(mask.to_json(), "x") == mask


def test_an_errors_text_does_not_repeat_a_long_mask():
    with pytest.raises(ItemError) as caught:
        read_rle({"size": [3, 4], "counts": "5" * 100_000 + "~"}, "x")
    assert len(str(caught.value)) < 300


def test_a_mask_of_another_size_than_its_image(tmp_path):
    mask = mask_from_array(np.ones((30, 40)))
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg")
    require_image_size(mask, (40, 30), tmp_path / "a.jpg", "row 3")
    Image.new("RGB", (80, 60)).save(tmp_path / "b.jpg")
    with pytest.raises(ItemError, match=r"row 3: the mask is 40x30 .*b\.jpg 80x60") as caught:
        require_image_size(mask, (80, 60), tmp_path / "b.jpg", "row 3")
    assert caught.value.kind == "size_mismatch"
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (40, 30)).save(tmp_path / "c.jpg", exif=exif)
    with pytest.raises(ItemError, match=r"30x40 .*stored as 40x30 with EXIF orientation 8"):
        require_image_size(mask, (30, 40), tmp_path / "c.jpg", "row 3")


# Polygons


def rectangle(x1, y1, x2, y2):
    return tuple(rectangle_points(x1, y1, x2, y2))


RULE = {
    "nothing": ([], "...... ...... ...... ......"),
    "outline belongs to it": ([("target", rectangle(1, 1, 3, 2))], "...... .###.. .###.. ......"),
    "decimals are cut off": (
        [("target", rectangle(1.999, 1.5, 3.0001, 2.99))],
        "...... .###.. .###.. ......",
    ),
    "toward zero": (
        [("target", ((-0.9, 1), (-0.2, 2))), ("target", ((3, -0.9), (4, -0.1)))],
        "...##. #..... #..... ......",
    ),
    "cut at the edge": ([("target", rectangle(-5, 2, 2, 9))], "...... ...... ###... ###..."),
    "one place is one pixel": (
        [("target", ((1, 0), (1, 0), (1, 0)))],
        ".#.... ...... ...... ......",
    ),
    "two points are a line": ([("target", ((1, 0), (1, 3)))], ".#.... .#.... .#.... .#...."),
    "a smaller ignore shape cuts": (
        [("Ignore", rectangle(1, 1, 2, 2)), ("target", rectangle(0, 0, 4, 3))],
        "#####. #..##. #..##. #####.",
    ),
    "a larger ignore shape does not": (
        [("target", rectangle(1, 1, 2, 2)), ("to ignore", rectangle(0, 0, 4, 3))],
        "...... .##... .##... ......",
    ),
    "an ignore shape with more pixels in the image is painted first": (
        [("target", rectangle(0, 0, 2, 2)), ("ignore", rectangle(1, 1, 9, 9))],
        "###... ###... ###... ......",
    ),
    "area counts within the image": (
        [("target", rectangle(0, 0, 4, 3)), ("ignore", rectangle(3, 2, 9, 9))],
        "#####. #####. ###... ###...",
    ),
    "flag is dropped": (
        [("FLAG", rectangle(0, 0, 5, 3)), ("target", rectangle(0, 0, 1, 0))],
        "##.... ...... ...... ......",
    ),
    "only the word flag": ([("flagpole", rectangle(0, 0, 1, 0))], "##.... ...... ...... ......"),
    "of equal areas the earlier is painted last": (
        [("ignore", rectangle(0, 0, 1, 1)), ("target", rectangle(0, 0, 1, 1))],
        "...... ...... ...... ......",
    ),
    "of equal areas the earlier is painted last, the other way": (
        [("target", rectangle(0, 0, 1, 1)), ("ignore", rectangle(0, 0, 1, 1))],
        "##.... ##.... ...... ......",
    ),
}


@pytest.mark.parametrize("case", RULE)
def test_the_rule_of_reasonseg(case):
    shapes, expected = RULE[case]
    mask = paint_shapes([Shape(label, points) for label, points in shapes], (6, 4), "x")
    assert_is(mask, drawn(expected))


points_ = st.tuples(st.integers(-5, 20), st.integers(-5, 17))


@given(st.lists(points_, min_size=1, max_size=7))
@example([(0, 0), (9, 3), (0, 6)])
@example([(0, 0), (0, 0), (-2, 3)])
@settings(deadline=None, max_examples=60)
def test_a_polygon_is_its_inside_and_what_lies_half_a_pixel_from_its_outline(points):
    """Against exact geometry; a pixel is inside by the even-odd rule, as OpenCV fills."""
    width, height = 15, 12
    painted = pixels_of(paint_shapes([Shape("target", tuple(points))], (width, height), "x"))
    edges = list(zip(points, points[1:] + points[:1], strict=True))
    for y in range(height):
        for x in range(width):
            near = min(distance(x, y, *edge) for edge in edges)
            if painted[y, x]:
                assert inside(x, y, edges) or near <= Fraction(1, 2), (x, y)
            else:
                assert not inside(x, y, edges), (x, y)
                assert near > 0, (x, y)


def inside(x, y, edges):
    """Whether a ray from (x, y) to the right crosses the edges an odd number of times."""
    odd = False
    for (ax, ay), (bx, by) in edges:
        if (ay > y) != (by > y) and x < Fraction((bx - ax) * (y - ay), by - ay) + ax:
            odd = not odd
    return odd


def distance(x, y, a, b):
    """From (x, y) to the segment a-b, along x or along y, whichever is smaller."""
    (ax, ay), (bx, by) = a, b
    found = [max(abs(x - px), abs(y - py)) for px, py in (a, b)]
    if min(ax, bx) <= x <= max(ax, bx) and ax != bx:
        found.append(abs(y - (ay + Fraction((by - ay) * (x - ax), bx - ax))))
    if min(ay, by) <= y <= max(ay, by) and ay != by:
        found.append(abs(x - (ax + Fraction((bx - ax) * (y - ay), by - ay))))
    return min(found)


@given(st.lists(st.tuples(st.floats(0, 39.9), st.floats(0, 29.9)), min_size=1, max_size=9))
@settings(deadline=None)
def test_the_box_of_one_polygon_is_the_extent_of_its_points(points):
    box = paint_shapes([Shape("target", tuple(points))], (40, 30), "x").box()
    xs, ys = [int(x) for x, _ in points], [int(y) for _, y in points]
    assert box == pytest.approx(
        (min(xs) / 40, min(ys) / 30, (max(xs) + 1) / 40, (max(ys) + 1) / 30)
    )


corners = st.tuples(st.integers(-3, 22), st.integers(-3, 18), st.integers(0, 9), st.integers(0, 9))


@given(st.lists(st.tuples(st.sampled_from(["target", "ignore", "flag"]), corners), max_size=5))
@settings(deadline=None)
def test_painting_order_against_rectangles_painted_by_hand(shapes):
    width, height = 20, 15
    layers = []
    for label, (x, y, w, h) in shapes:
        if label != "flag":
            layer = np.zeros((height, width), dtype=bool)
            layer[max(y, 0) : max(y + h + 1, 0), max(x, 0) : max(x + w + 1, 0)] = True
            layers.append((label, layer))
    expected = np.zeros((height, width), dtype=bool)
    # sorted is stable: reversed first, the later of equal areas comes first.
    for label, layer in sorted(reversed(layers), key=lambda entry: -entry[1].sum()):
        expected[layer] = label == "target"
    mask = paint_shapes(
        [Shape(label, rectangle(x, y, x + w, y + h)) for label, (x, y, w, h) in shapes],
        (width, height),
        "x",
    )
    assert_is(mask, expected)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ((), r"a.json: shapes\[1\] \('thing'\) has no points"),
        (((1, float("nan")), (2, 2), (3, 3)), r"has the point \(1, nan\), far from its image of"),
        (((1, -7), (2, 2), (3, 3)), r"\(1, -7\), far from"),
        (((1, 2), (12.5, 2), (3, 3)), r"\(12\.5, 2\), far from"),
        (((1, 2), (2, 10**400), (3, 3)), r"\(2, 1000.*\.\.\., far from its image"),
    ],
)
def test_points_that_are_none(points, message):
    shapes = [Shape("target", rectangle(0, 0, 1, 1)), Shape("thing", points)]
    with pytest.raises(ItemError, match=message) as caught:
        paint_shapes(shapes, (6, 4), "a.json")
    assert caught.value.kind == "invalid_mask"
