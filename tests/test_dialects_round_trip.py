"""Every dialect on random boxes and sizes: written as documented, read back as worked out here.

Nothing of the project writes the texts or the expected boxes, but for the two resize rules, which
have tests of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from univg_eval.answers import read_answer
from univg_eval.dialects import get_dialect, list_dialects
from univg_eval.dialects._resize import fitted_wh, smart_resize_wh

Size = tuple[int, int]
Box = tuple[float, ...]


class Scale(NamedTuple):
    """Numbers to write for x1, y1, x2, y2 on [0, 1], and what they mean.

    Attributes:
        write: the numbers, from the box and the original's size.
        mean: the box, from these numbers and the original's size.
    """

    write: Callable[[Box, Size], tuple[Any, ...]]
    mean: Callable[[tuple[Any, ...], Size], Box]


def whole(k: int) -> Scale:
    return Scale(
        lambda box, _: tuple(int(v * k) for v in box), lambda n, _: tuple(v / k for v in n)
    )


def decimals(k: int, digits: int) -> Scale:
    return Scale(
        lambda box, _: tuple(f"{v * k:.{digits}f}" for v in box),
        lambda n, _: tuple(float(v) / k for v in n),
    )


def pixels(frame: Callable[[Size], Size]) -> Scale:
    def write(box: Box, wh: Size) -> tuple[int, ...]:
        w, h = frame(wh)
        return tuple(int(v * side) for v, side in zip(box, (w, h, w, h), strict=True))

    def mean(n: tuple[Any, ...], wh: Size) -> Box:
        w, h = frame(wh)
        return (n[0] / w, n[1] / h, n[2] / w, n[3] / h)

    return Scale(write, mean)


def padded(digits: int) -> Scale:
    def write(box: Box, wh: Size) -> tuple[str, ...]:
        side = max(wh)
        pads = [(side - s) / 2 for s in wh] * 2
        return tuple(
            f"{(v * s + pad) / side:.{digits}f}"
            for v, s, pad in zip(box, wh * 2, pads, strict=True)
        )

    def mean(n: tuple[Any, ...], wh: Size) -> Box:
        side = max(wh)
        pads = [(side - s) / 2 for s in wh] * 2
        return tuple((float(v) * side - pad) / s for v, s, pad in zip(n, wh * 2, pads, strict=True))

    return Scale(write, mean)


def smart(factor: int, low: int, high: int) -> Scale:
    return pixels(lambda wh: smart_resize_wh(wh, factor=factor, min_pixels=low, max_pixels=high))


K1000, K999, UNIT = whole(1000), whole(999), decimals(1, 3)
BINS = Scale(
    lambda box, _: tuple(min(int(v * 1000), 999) for v in box),
    lambda n, _: tuple((2 * v + 1) / 2000 for v in n),
)
CELLS = Scale(
    lambda box, _: (
        int(box[1] * 31) * 32 + int(box[0] * 31),
        int(box[3] * 31) * 32 + int(box[2] * 31),
    ),
    lambda n, _: tuple((2 * v + 1) / 64 for v in (n[0] % 32, n[0] // 32, n[1] % 32, n[1] // 32)),
)
BBOX_2D = '```json\n[\n\t{"bbox_2d": [%s, %s, %s, %s], "label": "cup"}\n]\n```'
CORNERS = '[{"label": "cup", "x_min": %s, "y_min": %s, "x_max": %s, "y_max": %s}]'
LIST = "[%s, %s, %s, %s]"
LOCS = "<loc_%s><loc_%s><loc_%s><loc_%s>"
BOX_2D = '[{"box_2d": [%s, %s, %s, %s], "label": "cup"}]'

Y_FIRST = frozenset({"gemini", "gemma4", "paligemma", "norm1000_yxyx"})
WRITTEN: dict[str, tuple[str, Scale]] = {
    "univg_r1": ("<think>left</think> <answer>(%s,%s),(%s,%s)</answer>", K1000),
    "migician": ("<|box_start|>(%s,%s),(%s,%s)<|box_end|>", K1000),
    "qwen_vl": ("<ref>cup</ref><box>(%s,%s),(%s,%s)</box>", K1000),
    "qwen2_vl": (
        "<|object_ref_start|>cup<|object_ref_end|><|box_start|>(%s,%s),(%s,%s)<|box_end|>",
        K1000,
    ),
    "qwen2_5_vl": (BBOX_2D, smart(28, 3136, 12845056)),
    "qwen3_vl": (BBOX_2D, K1000),
    "qwen3_5": (BBOX_2D, K1000),
    "vlm_r1": (
        f"<think>left</think><answer>{BBOX_2D}</answer>",
        smart(28, 3136, 12845056),
    ),
    "mimo_vl": (f"<think>left</think>{BBOX_2D}", smart(28, 3136, 12845056)),
    "mimo_v2_5": (f"<think>left</think>{BBOX_2D}", smart(32, 4096, 16777216)),
    "internvl": ("<ref>cup</ref><box>[[%s, %s, %s, %s]]</box>", K1000),
    "minicpm_v": ("<ref>cup</ref><box>%s %s %s %s</box>", K1000),
    "glm_v": ("<|begin_of_box|>[[%s,%s,%s,%s]]<|end_of_box|>", K1000),
    "cogvlm_grounding": ("cup [[%03d,%03d,%03d,%03d]]", whole(1000)),
    "deepseek_vl2": ("<|ref|>cup<|/ref|><|det|>[[%s, %s, %s, %s]]<|/det|>", K999),
    "kimi_vl": ('{"bbox_2d": [%s, %s, %s, %s]}', UNIT),
    "seed1_5_vl": ("<bbox>%s %s %s %s</bbox>", K1000),
    "llava_1_5": (LIST, padded(2)),
    "llava_onevision": (LIST, decimals(1, 2)),
    "llava_onevision_2": ("[%s,%s,%s,%s]", K1000),
    "gemini": (f'{{"boxes": {BOX_2D}}}', K1000),
    "gemma4": (BOX_2D, K1000),
    "paligemma": ("<loc%04d><loc%04d><loc%04d><loc%04d> cup", whole(1023)),
    "florence2": (f"cup{LOCS}", BINS),
    "kosmos2": (
        "<phrase>cup</phrase><object><patch_index_%04d><patch_index_%04d></object>",
        CELLS,
    ),
    "shikra": ("cup [%s,%s,%s,%s]", padded(3)),
    "ferret": (f"cup {LIST}", K1000),
    "moondream": (f'{{"objects": {CORNERS}}}', UNIT),
    "smoldocling": (f"<text>{LOCS}cup</text>", whole(500)),
    "claude": (
        '{"bbox": [%s, %s, %s, %s]}',
        pixels(lambda wh: fitted_wh(wh, edge=1568, tokens=1568)),
    ),
    "claude_high": (BOX_2D, pixels(lambda wh: fitted_wh(wh, edge=2576, tokens=4784))),
    "lfm2_vl": ('[{"label": "cup", "bbox": [%s, %s, %s, %s]}]', UNIT),
    "isaac": ('<point_box mention="cup"> (%s,%s) (%s,%s) </point_box>', K1000),
    "locate_anything": ("<ref>cup</ref><box><%s><%s><%s><%s></box>", K1000),
    "rex_omni": (
        "<|object_ref_start|>cup<|object_ref_end|><|box_start|><%s><%s><%s><%s><|box_end|>",
        K999,
    ),
    "norm1000": (LIST, K1000),
    "norm999": (LIST, K999),
    "norm100": (BOX_2D, decimals(100, 2)),
    "norm1": (LIST, UNIT),
    "pixels": (LIST, pixels(lambda wh: wh)),
    "norm1000_corners": (CORNERS, K1000),
    "norm1_corners": (f'{{"detections": {CORNERS}}}', UNIT),
    "norm1000_yxyx": (BOX_2D, K1000),
    "pixels_box_2d": (BOX_2D, pixels(lambda wh: wh)),
}
NAMED = {
    "norm1000": K1000, "norm999": K999, "norm100": decimals(100, 1), "norm1": UNIT,
    "pixels": pixels(lambda wh: wh),
}  # fmt: skip


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    """Sides of an eighth at least, so that no scale makes them nothing."""
    w, h = draw(st.floats(0.125, 1)), draw(st.floats(0.125, 1))
    x, y = draw(st.floats(0, 1)) * (1 - w), draw(st.floats(0, 1)) * (1 - h)
    return x, y, min(x + w, 1.0), min(y + h, 1.0)


SIZES = st.tuples(st.integers(56, 5000), st.integers(56, 5000)).filter(
    lambda wh: max(wh) / min(wh) <= 4
)


def test_every_dialect_with_boxes_is_here() -> None:
    assert set(WRITTEN) == {name for name in list_dialects() if get_dialect(name).gives_boxes}


@pytest.mark.parametrize(
    ("name", "template", "scale"),
    [(name, *form) for name, form in WRITTEN.items()]
    + [(name, CORNERS, scale) for name, scale in NAMED.items()],
)
@given(box=boxes(), image_wh=SIZES)
@settings(max_examples=40, deadline=None)
def test_round_trip(name: str, template: str, scale: Scale, box: Box, image_wh: Size) -> None:
    numbers = scale.write(box, image_wh)
    order = (1, 0, 3, 2) if name in Y_FIRST else range(len(numbers))
    text = template % tuple(numbers[i] for i in order)
    answer = read_answer(text, get_dialect(name), image_sizes=[image_wh])
    assert (answer.status, answer.n_boxes) == ("ok", 1), text
    expected = [min(max(v, 0.0), 1.0) for v in scale.mean(numbers, image_wh)]
    assert answer.box == pytest.approx(expected, abs=1e-9), text
