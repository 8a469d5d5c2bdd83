"""Points: the form of each family, images, status; and whether they lie in masks and boxes."""

from __future__ import annotations

import gc
import math
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from doc_pages import blocks, page_text
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import univg_eval
from univg_eval import parse_answer
from univg_eval.dialects import get_dialect, list_dialects
from univg_eval.errors import UserError
from univg_eval.points import PointAnswer, first_point_hit, parse_points, point_accuracy
from univg_eval.samples import Target

POINTING = [name for name in list_dialects() if get_dialect(name).point_grammar is not None]
SIZES = [(640, 480)] * 3


def read(text: str, dialect: str, **arguments: Any) -> PointAnswer:
    arguments.setdefault("image_sizes", SIZES)
    return parse_points(text, dialect, **arguments)


# --- the forms -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "text", "points"),
    [
        # allenai/molmo olmo/data/data_formatter.py writes these; olmo/util.py allows the space
        ("molmo", '<point x="52.9" y="43.9" alt="mug">mug</point>', [(0.529, 0.439)]),
        ("molmo", 'A <points x1="7.0" y1=" 99.5" x2="100.0" y2="0.0" alt="it">it</points>.',
         [(0.07, 0.995), (1, 0)]),
        ("molmo", 'Counting the <points x1="1.5" y1="2.5" x2="3.5" y2="4.5" alt="cow">cow</points>'
         " shows a total of 2.", [(0.015, 0.025), (0.035, 0.045)]),
        ("molmo", 'My <point x="10.0" y="20.0" alt="a">a</point> and <point x="30.0" y="40.0" '
         'alt="the 24" tv">b</point>', [(0.1, 0.2), (0.3, 0.4)]),
        ("molmo", '<points x1="10.0" y1="20.0" x2="30.0" y2="4', [(0.1, 0.2)]),
        ("molmo", '<point x="10.0" y="20.0" alt="(30.0, 40.0) 50">[x</point>', [(0.1, 0.2)]),
        # allenai/molmo2 olmo/preprocessing/point_formatter.py: html-v1 and html-v2
        ("molmo2", '<points coords="1 1 523 417 2 601 422">cup</points>',
         [(0.523, 0.417), (0.601, 0.422)]),
        ("molmo2", 'Counting the <points alt="a > b" coords="1 1 005 1000\t3 2 601 422">a</points>'
         " shows a total of 2.", [(0.005, 1), (0.601, 0.422)]),
        ("molmo2", '<tracks coords="0.0 1 523 417;0.5 1 600 400">cup</tracks>',
         [(0.523, 0.417), (0.6, 0.4)]),
        ("molmo2", '<points coords="1 1 523 417 2 601 42', [(0.523, 0.417)]),
        ("molmo2", '<points coords="1 1 523 417 2 601 422', [(0.523, 0.417)]),
        # NVlabs/Eagle Embodied/document/DATA_PREPARATION.md
        ("locate_anything", "<box><950><30></box>", [(0.95, 0.03)]),
        ("locate_anything", "<ref>cup</ref><box><0><1000></box><box><1><2></box>",
         [(0, 1), (0.001, 0.002)]),
        ("locate_anything", "<ref>a</ref><box><1><2></box><ref>b</ref><box>none</box>",
         [(0.001, 0.002)]),
        # IDEA-Research/Rex-Omni rex_omni/parser.py
        ("rex_omni", "<|object_ref_start|>cup<|object_ref_end|><|box_start|><0><999>, <333><666>"
         "<|box_end|>", [(0, 1), (1 / 3, 2 / 3)]),
        ("rex_omni", "<|box_start|><1><2><3><4>, <0><999><|box_end|>", [(0, 1)]),
        # vikhyat/moondream moondream/torch/moondream.py, point(); printed by json and by Python
        ("moondream", '{"points": [{"x": 0.5, "y": 0.25}, {"x": 0.125, "y": 1.0}]}',
         [(0.5, 0.25), (0.125, 1)]),
        ("moondream", "{'points': [{'x': 0.5, 'y': 0.25}]}", [(0.5, 0.25)]),
        # Google's page on pointing: y comes first
        ("gemini", '```json\n[{"point": [400, 300], "label": "cup"}]\n```', [(0.3, 0.4)]),
        # QwenLM/Qwen3-VL cookbooks/spatial_understanding.ipynb
        ("qwen3_vl", '```json\n[\n\t{"point_2d": [925, 618], "label": "point_1"}\n]\n```',
         [(0.925, 0.618)]),
        # RefSpatial-Bench and RoboPoint: a list of tuples on 0-1
        ("norm1", "[(0.3, 0.4), (0.56, 0.7)]", [(0.3, 0.4), (0.56, 0.7)]),
        ("norm1", "Sure. [(0.3,0.4)]", [(0.3, 0.4)]),
        ("norm1", '{"x": 0.3, "y": 0.4}', [(0.3, 0.4)]),
        ("norm1", '{"point": "0.3, 0.4"}', [(0.3, 0.4)]),
        ("norm1000", '<point>300 400</point>', [(0.3, 0.4)]),
        ("norm1000", '<points>[(300, 400), [1, 2]]</points>', [(0.3, 0.4), (0.001, 0.002)]),
        # Point-Bench asks services for pixels
        ("pixels", '[{"point": [320, 120]}]', [(0.5, 0.25)]),
    ],
)  # fmt: skip
def test_what_families_write(dialect: str, text: str, points: list[Any]) -> None:
    answer = read(text, dialect)
    assert answer.status == "ok"
    assert np.array(answer.points) == pytest.approx(np.array(points))
    assert answer.answer_text == text
    assert len(answer.images) == len(points)


@pytest.mark.parametrize(
    ("dialect", "text", "status"),
    [
        ("molmo", "There are none.", "none"),
        ("molmo", "", "no_point"),
        ("molmo", "The mug is at (10.0, 20.0).", "no_point"),
        ("molmo", '<points coords="1 1 523 417">a</points>', "no_point"),
        ("molmo", '<point alt="x="1.0" y="2.0"">a</point>', "no_point"),
        ("molmo", '<point x="101.0" y="43.9" alt="a">a</point>', "invalid_point"),
        ("molmo2", '<point x="52.9" y="43.9" alt="a">a</point>', "no_point"),
        ("molmo2", "There are none.", "none"),
        ("molmo2", '<points coords="1 1 52 41">a</points>', "no_point"),
        ("molmo2", '<points coords="1 1 1001 041">a</points>', "invalid_point"),
        ("locate_anything", "<box>none</box>", "none"),
        # A box; one that breaks off after its first corner; a region with eight numbers.
        ("locate_anything", "<box><1><2><3><4></box>", "no_point"),
        ("locate_anything", "<box><1><2>", "no_point"),
        ("rex_omni", "<|box_start|><1><2><3><4><|box_end|>", "no_point"),
        ("rex_omni", "<|box_start|><1><2>", "no_point"),
        ("rex_omni", "<|box_start|><1><2><3><4><5><6><|box_end|>", "no_point"),
        ("rex_omni", "<|box_start|><1> <2>  <3> <4><|box_end|>", "no_point"),
        ("moondream", '{"points": []}', "none"),
        ("moondream", '{"objects": [{"x_min": 0.1, "y_min": 0.1, "x_max": 0.2, "y_max": 0.2}]}',
         "no_point"),
        ("gemini", '[{"box_2d": [400, 300, 500, 600]}]', "no_point"),
        ("gemini", '[{"box_2d": [400, 300]}]', "no_point"),
        ("qwen3_vl", '{"bbox_2d": [1, 2, 3, 4], "point": [5, 6]}', "no_point"),
        ("qwen3_vl", "[]", "none"),
        ("norm1", "[0.1, 0.2, 0.3, 0.4]", "no_point"),
        ("norm1", '{"bbox": [[0.1, 0.2], [0.3, 0.4]]}', "no_point"),
        ("norm1", "<box>(0.1,0.2),(0.3,0.4)</box>", "no_point"),
        ("norm1", '{"image_size": [1, 1]}', "no_point"),
        ("norm1", "[(0.5, 1.01)]", "invalid_point"),
        ("norm1", "[(-0.5, 0.5)]", "invalid_point"),
        ("norm1", "[(nan, 0.5)]", "invalid_point"),
        ("norm1", "[(1e999, 0.5)]", "invalid_point"),
        ("norm1", "I see no cup.", "none"),
        ("norm1", "(0.1, 0.2)? No. There are none.", "none"),
        ("norm1", "<think>(0.1, 0.2)", "truncated"),
        ("norm1", "<think>(0.1, 0.2)</think> I do not know.", "no_point"),
    ],
)  # fmt: skip
def test_other_states(dialect: str, text: str, status: str) -> None:
    answer = read(text, dialect)
    assert answer.status == status
    assert bool(answer.points) == (status == "invalid_point")


def test_one_point_inside_suffices_and_all_stay() -> None:
    answer = read("[(1.5, 0.5), (0.25, 0.5)]", "norm1")
    assert (answer.status, answer.points) == ("ok", ((1.5, 0.5), (0.25, 0.5)))


def test_thinking_is_removed() -> None:
    answer = read("<think>Is it (0.1, 0.2)?</think>[(0.3, 0.4)]", "norm1")
    assert answer.points == ((0.3, 0.4),)
    assert answer.thinking == "Is it (0.1, 0.2)?"
    assert answer.answer_text == "[(0.3, 0.4)]"


@pytest.mark.parametrize(
    ("dialect", "text", "target", "points", "images"),
    [
        ("molmo2", '<points coords="1 1 100 200\t3 2 300 400">a</points>', None,
         ((0.1, 0.2), (0.3, 0.4)), (0, 2)),
        ("molmo2", '<points coords="1 1 100 200;3 2 300 400">a</points>', 2, ((0.3, 0.4),), (2,)),
        ("molmo2", '<points coords="7 1 100 200">a</points>', None, ((0.1, 0.2),), (None,)),
        ("molmo2", '<points coords="0 1 100 200">a</points>', None, ((0.1, 0.2),), (None,)),
        ("molmo2", '<points coords="1.0 1 100 200">a</points>', None, ((0.1, 0.2),), (None,)),
        ("norm1", "Image-1: (0.1, 0.2)\nImage-3: (0.3, 0.4)", None,
         ((0.1, 0.2), (0.3, 0.4)), (0, 2)),
        ("norm1", "Image-1: (0.1, 0.2)\nImage-3: (0.3, 0.4)", 2, ((0.3, 0.4),), (2,)),
        ("norm1", "Image 1: (0.1, 0.2)\nImage 2: none.", None, ((0.1, 0.2),), (0,)),
        ("norm1", '[{"image": 2, "point": [0.1, 0.2]}]', None, ((0.1, 0.2),), (1,)),
        ("norm1", "(0.1, 0.2)", 1, ((0.1, 0.2),), (None,)),
    ],
)  # fmt: skip
def test_images(dialect: str, text: str, target: int | None, points: Any, images: Any) -> None:
    answer = read(text, dialect, target_image=target)
    assert (answer.points, answer.images) == (points, images)


def test_pixels_are_of_the_image_that_is_named() -> None:
    sizes = [(100, 50), (200, 400)]
    text = "Image 2: (50, 100)"
    assert read(text, "pixels", image_sizes=sizes).points == ((0.25, 0.25),)
    # Which image it is on is not said, or only of one of the two points.
    for unclear in ("(50, 100)", "(50, 100). Image 2: (50, 100)"):
        answer = read(unclear, "pixels", image_sizes=sizes)
        assert (answer.status, answer.points) == ("no_point", ())
    assert read("(50, 100)", "pixels", image_sizes=sizes, target_image=1).points == ((0.25, 0.25),)


def test_a_family_of_unknown_points_is_refused() -> None:
    with pytest.raises(UserError, match=r"'kosmos2' writes points; expected one of .*molmo2, norm"):
        parse_points("(0.1, 0.2)", "kosmos2")
    assert "gemma4" not in POINTING  # its grammar comes from gemini, its points are not known


def test_missing_sizes_are_named() -> None:
    with pytest.raises(UserError, match=r"'pixels' are pixels of the original.*image_sizes="):
        parse_points("(10, 20)", "pixels")
    with pytest.raises(UserError, match="target_image is 3 with sizes of 3 images"):
        read("(0.1, 0.2)", "norm1", target_image=3)


def test_the_public_names() -> None:
    assert univg_eval.parse_points is parse_points
    assert univg_eval.point_accuracy is point_accuracy
    assert univg_eval.first_point_hit is first_point_hit
    assert univg_eval.PointAnswer is PointAnswer


def test_the_page() -> None:
    """Its example holds; its tables name every dialect that points, and every status."""
    (code,) = blocks("points", "python")
    exec(code, {})
    reading = page_text("points").split("## Scoring")[0]
    first = re.findall(r"^\| (`.*?`) \|", reading, re.M)
    named = re.findall(r"`(\w+)`", " ".join(first))
    assert sorted(named) == sorted(
        [*POINTING, "ok", "no_point", "none", "truncated", "invalid_point"]
    )


# --- boxes are no points, points no boxes --------------------------------------------------------


@pytest.mark.parametrize("dialect", [n for n in POINTING if get_dialect(n).gives_boxes])
def test_a_box_is_no_point(dialect: str) -> None:
    known = get_dialect(dialect)
    written = known.encode_several(
        [(0.1, 0.2, 0.3, 0.4), (0.5, 0.6, 0.7, 0.8)], image_wh=(640, 480)
    )
    assert len(parse_answer(written, dialect, image_sizes=SIZES).boxes) == 2
    assert read(written, dialect).status == "no_point"


# --- written and read ----------------------------------------------------------------------------


def _molmo(points: Sequence[Any]) -> str:
    if len(points) == 1:
        ((x, y),) = points
        return f'<point x="{x:.1f}" y="{y:.1f}" alt="cup">cup</point>'
    pairs = [f'x{i}="{x:.1f}" y{i}="{y:.1f}"' for i, (x, y) in enumerate(points, 1)]
    return f'<points {" ".join(pairs)} alt="cup">cup</points>'


def _molmo2(points: Sequence[Any]) -> str:
    numbered = [f"{i} {x:03d} {y:03d}" for i, (x, y) in enumerate(points, 1)]
    return f'Counting the <points alt="a cup" coords="1 {" ".join(numbered)}">cup</points>'


def _objects(key: str, first: int) -> Callable[[Sequence[Any]], str]:
    return lambda points: (
        "```json\n["
        + ", ".join(f'{{"{key}": [{p[first]}, {p[1 - first]}], "label": "cup"}}' for p in points)
        + "]\n```"
    )


def _tuples(points: Sequence[Any]) -> str:
    return repr([tuple(point) for point in points])


# How each family writes its integers from 0 to `steps` (Molmo's are tenths), and their divisor.
WRITERS: dict[str, tuple[Callable[[Sequence[Any]], str], int]] = {
    "molmo": (lambda points: _molmo([(x / 10, y / 10) for x, y in points]), 1000),
    "molmo2": (_molmo2, 1000),
    "locate_anything": (
        lambda points: "<ref>cup</ref>" + "".join(f"<box><{x}><{y}></box>" for x, y in points),
        1000,
    ),
    "rex_omni": (
        lambda points: (
            "<|object_ref_start|>cup<|object_ref_end|><|box_start|>"
            + ", ".join(f"<{x}><{y}>" for x, y in points)
            + "<|box_end|>"
        ),
        999,
    ),
    "moondream": (
        lambda points: repr({"points": [{"x": x / 1024, "y": y / 1024} for x, y in points]}),
        1024,
    ),
    "gemini": (_objects("point", 1), 1000),
    "qwen3_vl": (_objects("point_2d", 0), 1000),
    "qwen3_5": (_objects("point_2d", 0), 1000),
    "norm1000": (_tuples, 1000),
    "norm999": (_tuples, 999),
    "norm100": (_tuples, 100),
    "norm1": (lambda points: _tuples([(x / 1000, y / 1000) for x, y in points]), 1000),
    "pixels": (_tuples, 640),
}


def test_every_pointing_dialect_has_a_writer() -> None:
    assert set(WRITERS) == set(POINTING)


@pytest.mark.parametrize("dialect", POINTING)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read(dialect: str, data: st.DataObject) -> None:
    write, steps = WRITERS[dialect]
    number = st.integers(0, steps)
    points = data.draw(st.lists(st.tuples(number, number), min_size=1, max_size=6))
    answer = parse_points(write(points), dialect, image_sizes=[(640, 640)])
    assert answer.status == "ok"
    assert np.array(answer.points) == pytest.approx(np.array(points) / steps)


# --- nothing breaks it ---------------------------------------------------------------------------

SEEDS = [
    "(", "[", "{", '"', "<", "(0.1, 0.2) ", "(0.1, ", "[[1,2],", '{"point": [1, 2]}, ', '{"x": 1, ',
    '<point x="1.0" y="2.0" alt="a">a</point>', '<points x1="1.0" y1="2.0" ', ' x1="1.0"',
    "<points ", '<points coords="', '<points coords="1 1 523 417 ', " 1 523 417", "1\t", "\t",
    '<points coords="1 1',
    "<box><1><2></box>", "<box><1>", "<box>", "<1>", "<|box_start|><1><2>, ", "<1><2>, ", ", ",
    '{"points": [', '{"x": 0.5, "y": 0.25}, ', "none.\n", "Image 1: (1, 2) ", "<think>", "</think>",
    "<answer>(1, 2)", "<point>1 2 ", "<point>", "nan, ", "7", " ", "\n", "\0", "١", '"1, 2" ',
]  # fmt: skip


def _check(answer: PointAnswer) -> None:
    assert answer.status in ("ok", "no_point", "none", "truncated", "invalid_point")
    assert len(answer.points) == len(answer.images)
    inside = [all(0 <= v <= 1 for v in point) for point in answer.points]
    assert (answer.status == "ok") == any(inside)
    assert (answer.status == "invalid_point") == (bool(inside) and not any(inside))
    assert all(image is None or 0 <= image < 3 for image in answer.images)


@given(
    text=st.lists(st.sampled_from(SEEDS) | st.text(max_size=5), max_size=8).map("".join),
    dialect=st.sampled_from(POINTING),
    target=st.sampled_from([None, 0, 1, 2]),
    sizes=st.sampled_from([SIZES, [(640, 480), (30, 40), (56, 900)]]),
)
@settings(max_examples=600, deadline=None)
def test_any_text_is_read(text: str, dialect: str, target: int | None, sizes: Any) -> None:
    _check(parse_points(text, dialect, image_sizes=sizes, target_image=target))


def _seconds(text: str, dialect: str) -> float:
    """Processor time of one reading, without the garbage collector's, which is not linear."""
    gc.disable()
    try:
        start = time.process_time()
        answer = parse_points(text, dialect, image_sizes=SIZES)
        seconds = time.process_time() - start
    finally:
        gc.enable()
    _check(answer)
    return seconds


@pytest.mark.parametrize(
    "dialect", list({get_dialect(n).point_grammar: n for n in POINTING}.values())
)
def test_time_is_linear(dialect: str) -> None:
    """Four times the text far from sixteen times the time."""
    for seed in SEEDS:
        text = (seed * (60_000 // len(seed) + 1))[:60_000]
        whole = _seconds(text, dialect)
        assert whole < 1, seed
        if whole > 0.05:
            quarter = min(_seconds(text[:15_000], dialect) for _ in range(2))
            assert min(whole, _seconds(text, dialect)) < 10 * quarter, seed


# --- masks and boxes -----------------------------------------------------------------------------

Pixels = npt.NDArray[np.bool_]


def mask_target(pixels: Pixels, *, image: int = 0) -> Target:
    """A target with this mask, in plain run lengths of the columns, counted here by hand."""
    runs, value = [0], False
    for pixel in pixels.T.ravel():
        if bool(pixel) != value:
            runs.append(0)
            value = not value
        runs[-1] += 1
    rle = {"size": list(pixels.shape), "counts": runs}
    return Target(image=image, box=(0.0, 0.0, 1.0, 1.0), mask=rle)


def box_target(*box: float, image: int = 0) -> Target:
    return Target(image=image, box=box, mask=None)  # type: ignore[arg-type]


PIXELS = arrays(np.bool_, st.tuples(st.integers(1, 7), st.integers(1, 7)))
COORDINATE = st.integers(-2, 18).map(lambda n: n / 16)


@given(masks=st.lists(PIXELS, min_size=1, max_size=3), data=st.data())
@settings(max_examples=150, deadline=None)
def test_masks_against_every_pixel(masks: list[Pixels], data: st.DataObject) -> None:
    """Each pixel is asked whether the point is in it; the last of a row or column is closed."""
    points = data.draw(st.lists(st.tuples(COORDINATE, COORDINATE), min_size=1, max_size=5))

    def holds(index: int, n: int, value: float) -> bool:
        return index <= value * n < index + 1 or (index == n - 1 and value == 1)

    def inside(x: float, y: float, mask: Pixels) -> bool:
        height, width = mask.shape
        return any(
            mask[row, column] and holds(column, width, x) and holds(row, height, y)
            for row in range(height)
            for column in range(width)
        )

    hits = [any(inside(x, y, mask) for mask in masks) for x, y in points]
    targets = [mask_target(mask) for mask in masks]
    assert point_accuracy(points, targets) == pytest.approx(np.mean(hits))
    assert first_point_hit(points, targets) == hits[0]


@given(mask=PIXELS, data=st.data())
@settings(max_examples=150, deadline=None)
def test_accuracy_is_that_of_refspatial_bench(mask: Pixels, data: st.DataObject) -> None:
    """Its rule in numbers: cut to whole pixels, those outside appended as zeros, the mean.

    Points on the right and lower edge are left out: there they are misses. So are those up to a
    pixel left of or above the image: cut toward zero, they are hits there.
    """
    inner = st.integers(0, 31).map(lambda n: n / 32)
    coordinate = inner | st.floats(1.01, 3)
    points = data.draw(st.lists(st.tuples(coordinate, coordinate), max_size=6))
    height, width = mask.shape
    cut = [(int(x * width), int(y * height)) for x, y in points]
    whole = np.array(cut, dtype=int).reshape(-1, 2)
    known = whole[(whole[:, 0] < width) & (whole[:, 1] < height)]
    values = [*mask[known[:, 1], known[:, 0]].astype(float), *[0.0] * (len(whole) - len(known))]
    expected = sum(values) / len(values) if values else 0.0
    assert point_accuracy(points, [mask_target(mask)]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("point", "hit"),
    [
        ((0.25, 0.5), True),
        ((0.25, 0.75), True),
        ((0.5, 0.5), True),
        ((0.375, 0.6), True),
        ((math.nextafter(0.25, 0), 0.6), False),
        ((math.nextafter(0.5, 1), 0.6), False),
        ((0.3, math.nextafter(0.5, 0)), False),
        ((0.3, math.nextafter(0.75, 1)), False),
        ((math.nan, 0.6), False),
    ],
)
def test_the_edges_of_a_box_belong_to_it(point: Any, hit: bool) -> None:
    assert point_accuracy([point], [box_target(0.25, 0.5, 0.5, 0.75)]) == hit


@pytest.mark.parametrize(
    ("point", "hit"),
    [
        # One pixel of four by two is set: columns from 0.5 to 0.75, rows from 0 to 0.5.
        ((0.5, 0), True),
        ((0.5, 0.25), True),
        ((math.nextafter(0.75, 0), math.nextafter(0.5, 0)), True),
        ((0.75, 0.25), False),
        ((0.6, 0.5), False),
        ((math.nextafter(0.5, 0), 0.25), False),
        ((0.6, -0.01), False),
    ],
)
def test_the_border_of_a_pixel(point: Any, hit: bool) -> None:
    pixels = np.zeros((2, 4), dtype=np.bool_)
    pixels[0, 2] = True
    assert point_accuracy([point], [mask_target(pixels)]) == hit


def test_the_edges_of_the_image_are_its_last_pixels() -> None:
    pixels = np.zeros((3, 5), dtype=np.bool_)
    pixels[2, 4] = True
    assert point_accuracy([(1.0, 1.0), (0.79, 1.0)], [mask_target(pixels)]) == 0.5


def test_a_mask_counts_and_not_the_box_around_it() -> None:
    pixels = np.array([[True, False], [False, True]])
    target = mask_target(pixels)
    points = [(0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)]
    assert point_accuracy(points, [target]) == 0.5
    assert point_accuracy(points, [target, box_target(0.7, 0.2, 0.8, 0.3)]) == 0.75


def test_compressed_run_lengths() -> None:
    coco = pytest.importorskip("pycocotools.mask")
    pixels = np.zeros((40, 30), dtype=np.uint8, order="F")
    pixels[10:20, 6:12] = 1
    rle = coco.encode(pixels)
    mask = {"size": rle["size"], "counts": rle["counts"].decode()}
    target = Target(image=0, box=(0.2, 0.25, 0.4, 0.5), mask=mask)
    assert point_accuracy([(0.2, 0.25), (0.4, 0.25), (0.39, 0.49)], [target]) == 2 / 3


def test_several_points_and_the_first() -> None:
    target = box_target(0, 0, 0.5, 0.5)
    points = [(0.9, 0.9), (0.1, 0.1), (0.2, 0.2), (1.2, 0.2)]
    assert point_accuracy(points, [target]) == 0.5
    assert first_point_hit(points, [target]) == 0
    assert first_point_hit(points[1:], [target]) == 1


def test_silence_scores_nothing() -> None:
    target = box_target(0, 0, 1, 1)
    assert point_accuracy((), [target]) == 0
    assert first_point_hit((), [target]) == 0


def test_targets_on_several_images() -> None:
    targets = [box_target(0, 0, 0.5, 1, image=0), box_target(0.5, 0, 1, 1, image=1)]
    points = [(0.2, 0.5), (0.2, 0.5), (0.8, 0.5), (0.8, 0.5)]
    images = [0, 1, 1, None]
    assert point_accuracy(points, targets, images=images) == 0.75
    assert first_point_hit(points[1:], targets, images=images[1:]) == 0
    assert point_accuracy(points, targets) == 1


def test_what_cannot_be_scored() -> None:
    with pytest.raises(UserError, match=r"without a target.*status"):
        point_accuracy([(0.1, 0.1)], [])
    with pytest.raises(UserError, match="without a target"):
        first_point_hit([], [])
    with pytest.raises(UserError, match="2 images for 1 points"):
        point_accuracy([(0.1, 0.1)], [box_target(0, 0, 1, 1)], images=[0, 1])
    damaged = Target(image=0, box=(0, 0, 1, 1), mask={"size": [2, 2], "counts": [1, 2]})
    with pytest.raises(UserError, match=r"targets\[1\]: damaged run lengths"):
        point_accuracy([(0.9, 0.9)], [box_target(0, 0, 0.5, 0.5), damaged])
