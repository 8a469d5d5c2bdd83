"""Hostile replies: made from the markup of all dialects, and read in every dialect and protocol."""

from __future__ import annotations

import gc
import json
import math
import time
import tracemalloc
from collections.abc import Sequence
from functools import cache
from random import Random
from typing import Any

from fuzz_changes import changed_text, changed_value

from univg_eval import get_dialect, list_dialects
from univg_eval.answers import Answer
from univg_eval.boxes import box_iou
from univg_eval.dialects.sections import THINKING_MARKS, split_response
from univg_eval.protocols import list_protocols, parse_answer
from univg_eval.samples import GroundingSample, Target
from univg_eval.scoring import Response, score_samples
from univg_train.rewards import make_rewards

__all__ = ["N_GROWTHS", "grow", "read_anywhere", "reply", "score_anywhere"]

SIZES = [(640, 480), (320, 240), (1000, 30)]
STATUSES = {"ok", "no_box", "none", "truncated", "invalid_box"}
READERS = [("univg", name) for name in list_dialects()] + [
    (name, None) for name in list_protocols()[1:]
]
"""(protocol, dialect) of every way to read; the published rules have no dialect."""

# --- replies -------------------------------------------------------------------------------------

NUMBERS = (
    *("0", "1", "7", "100", "999", "1000", "0.1", "0.25", ".5", "5.", "-3", "+4", "1e3", "1e999"),
    *("-1e-400", "nan", "NaN", "inf", "-Infinity", "9" * 40, "9" * 400, "0x10", "1_000", "1,000"),
    *("٣٤", "五", "１２", "½", "1/3", "12%", "3px", "0.1.2", "00012", "1e", "--5", "١٢.٥"),
)  # fmt: skip
WORDS = (
    *("the cup", "None.", "There are none.", "no such object", "I cannot find the cup.", "null"),
    *("Image-2:", "in the second image", "Image 1: none", "image 99", "the last image", "图1没有"),
    *("第二张图", "没有。", "Sorry,", "I am unable to provide boxes.", "Answer:", "The box is"),
    *("No, sorry, well, ", "Perhaps the cup is absent", "is not visible in the picture", "Wait,"),
    *("label", "bbox_2d", "bbox", "box_2d", "x_min", "image", "errors", "arguments", "point_2d"),
    *(" ", "\n", "\n\n", "\t", ", ", ";", ".", ":", "?", "!", "\r\n", "\0", "\ud800", "\u202e"),
    *("🙂", "ß", "İ", "e\u0301", "\u3000", "。", "，", "“", "’", "*", "**", "#", "- ", "1. ", "`"),
)  # fmt: skip
MARKS = (
    *("<answer>", "</answer>", "<|begin_of_box|>", "<|end_of_box|>", "<tool_call>", "</tool_call>"),
    *("<ref>", "</ref>", "<p>", "<box>", "</box>", "<quad>", "<bbox>", "</bbox>", "<phrase>"),
    *("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>", "<|ref|>"),
    *("<loc_1>", "<loc0001>", "<patch_index_0033>", "<object>", "<point x='1'", "<1>", "<br>", "<"),
    *("```", "```json\n", "[", "]", "{", "}", "(", ")", "[[", "]]", "{{", '"', "'", "\\"),
    *("\\boxed{", "[]", "{}", "[null]", '{"bbox_2d": null}', '{"boxes": []}', '"x1": 1,'),
    '"label": "a',
    *(mark for pair in THINKING_MARKS for mark in pair),
)  # fmt: skip


@cache
def _markup() -> tuple[str, ...]:
    """A box as each family writes it: bare, with a phrase, and several."""
    found = []
    boxes = [(0.1, 0.2, 0.5, 0.9), (0.0, 0.0, 1.0, 1.0)]
    for dialect in map(get_dialect, list_dialects()):
        if dialect.gives_boxes:
            found += [
                dialect.encode(boxes[0], image_wh=SIZES[0]),
                dialect.encode(boxes[0], image_wh=SIZES[0], label="red cup"),
                dialect.encode_several(boxes, image_wh=SIZES[0]),
            ]
    return tuple(dict.fromkeys(found))


def _json(rng: Random) -> str:
    value: Any = [{"bbox_2d": [1, 2, 300, 400], "label": "cup", "image": 2}, {"boxes": [[0.1] * 4]}]
    for _ in range(rng.randrange(4)):
        value = changed_value(rng, value)
    text = json.dumps(value, indent=rng.choice((None, 2)), ensure_ascii=rng.random() < 0.5)
    return text.replace('"', "'") if rng.random() < 0.2 else text


def _part(rng: Random) -> str:
    match rng.randrange(8):
        case 0 | 1:
            return rng.choice(_markup())
        case 2:
            return rng.choice(WORDS)
        case 3:
            return rng.choice(MARKS)
        case 4:
            opening, closing = rng.choice(("()", "[]", "{}", "<>", '""', "||"))
            numbers = (rng.choice(NUMBERS) for _ in range(rng.choice((2, 4, 4, 4, 5))))
            return opening + rng.choice((",", ", ", " ", "),(", "; ")).join(numbers) + closing
        case 5:
            return _json(rng)
        case 6:
            return "".join(
                chr(rng.choice((rng.randrange(128), rng.randrange(0x3000)))) for _ in "ab"
            )
    opening, closing = rng.choice(THINKING_MARKS)
    return opening + rng.choice(_markup()) + (closing if rng.random() < 0.7 else "")


def reply(rng: Random) -> str:
    """A reply of up to 20,000 characters."""
    text = "".join(_part(rng) for _ in range(rng.choice((1, 2, 4, 8, 30))))
    for _ in range(rng.choice((0, 1, 2, 5))):
        text = changed_text(rng, text)
    if rng.random() < 0.05:
        text = _part(rng) * rng.choice((2, 40, 400)) + text
    if rng.random() < 0.03:
        text = rng.choice("[{(<") * rng.choice((10, 100, 5000)) + text
    return text[:20_000]


# --- reading -------------------------------------------------------------------------------------


def _read(text: str, reader: tuple[str, str | None], **more: Any) -> Answer:
    protocol, dialect = reader
    return parse_answer(text, dialect, protocol=protocol, prompt="", **more)


def read_anywhere(rng: Random) -> None:
    """Read one reply by every rule: with a status, a sound box, and twice the same."""
    text = reply(rng)
    sizes = rng.choice((None, SIZES, SIZES[:1]))
    target = rng.randrange(len(sizes)) if sizes and rng.random() < 0.5 else None
    given = rng.choice((None, True, False))
    options = {"image_sizes": sizes, "target_image": target, "image_is_given": given}
    for reader in READERS:
        answer = _read(text, reader, **options)
        _require_sound(answer, reader)
        split_response.cache_clear()
        again = _read(text, reader, **options)
        assert again == answer, f"{reader}: {answer} and then {again}"


def _require_sound(answer: Answer, reader: tuple[str, str | None]) -> None:
    assert answer.status in STATUSES, f"{reader}: {answer}"
    assert (answer.status == "ok") <= (answer.box is not None), f"{reader}: {answer}"
    if reader[0] != "univg":
        return
    assert (answer.box is None) == (answer.status != "ok"), f"{reader}: {answer}"
    for x1, y1, x2, y2 in answer.boxes:
        assert 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1, f"{reader}: {answer}"
    assert len(answer.box_images) == len(answer.boxes) <= answer.n_boxes, f"{reader}: {answer}"


def _sample(
    boxes: Sequence[tuple[int, tuple[float, ...]]], image_is_given: bool
) -> GroundingSample:
    widths, heights = zip(*SIZES, strict=True)
    return GroundingSample(
        id="toy-0", benchmark="toy", task="t", split="test", images=("a", "b", "c"),
        widths=widths, heights=heights, instruction="Find it.", image_is_given=image_is_given,
        targets=tuple(Target(image, box) for image, box in boxes), cluster="c",
    )  # fmt: skip


SAMPLES = [
    _sample(boxes, given)
    for boxes in ([], [(1, (0.1, 0.2, 0.5, 0.9))], [(0, (0, 0, 0.5, 0.5)), (0, (0.5, 0.5, 1, 1))])
    for given in (True, False)
    if boxes or not given
]  # fmt: skip


def score_anywhere(rng: Random) -> None:
    """Score one reply as evaluation and training do: every figure on 0-1, and twice the same."""
    text = reply(rng)
    for reader in rng.sample(READERS, 12):
        protocol, dialect = reader
        responses = [Response(text, image_sizes=s.image_sizes, prompt="") for s in SAMPLES]
        scores = score_samples(SAMPLES, responses, dialect, protocol=protocol)
        for score in scores:
            known = (score.iou, score.f1, score.ap50, score.matched_iou)
            assert all(v is None or 0 <= v <= 1 for v in known), f"{reader}: {score}"
            if score.box is not None and protocol == "univg":
                assert math.isfinite(box_iou(score.box, score.box))
        assert score_samples(SAMPLES, responses, dialect, protocol=protocol) == scores
        if dialect is not None and get_dialect(dialect).gives_boxes:
            _reward(text, dialect)


def _reward(text: str, dialect: str) -> None:
    n = 2
    columns = {
        "solution": [[0.1, 0.2, 0.5, 0.9]] * n, "dialect": [dialect] * n, "style": ["think"] * n,
        "image_sizes": [[list(SIZES[0])]] * n, "target_image": [0] * n,
        "image_is_given": [True] * n, "completion_ids": [[1] * 40] * n,
    }  # fmt: skip
    completions = [text, [{"role": "assistant", "content": text}]]
    for reward in make_rewards(length=(10, 50)):
        values = reward(completions=completions, **columns)
        assert values[0] == values[1], f"{dialect}: {values}"
        assert all(v is None or -1 <= v <= 1 for v in values), f"{dialect}: {values}"


# --- growth --------------------------------------------------------------------------------------

N_PATTERNS = 40
N_GROWTHS = N_PATTERNS * len(READERS)
LENGTHS = [1_000 * 2**doubling for doubling in range(5)]
TRIALS = 4
HOSTILE = (
    *("[", "[{", "{\"a\":", "(1,2),(3,4) ", "[1,2,3,4;", "<box>1 2 3 ", "\"label\": \"", "[]"),
    *("None. ", "There is no cup in image 1, ", "图1没有，", "<think>", "</think>", "<answer>"),
    *(" ", "first image ", "```", "\"1 2 3 4\" ", "<loc_1>", "9"),
)  # fmt: skip


def grow(number: int, rng: Random) -> dict[str, float]:
    """Double the length of one pattern four times: time and memory must grow with the length.

    Returns:
        Microseconds and bytes of memory a character, at the greatest length.
    """
    reader = READERS[number % len(READERS)]
    pattern = number // len(READERS)
    head, unit, tail = "", "", ""
    if pattern < len(HOSTILE):
        unit = HOSTILE[pattern]
    else:
        head, unit, tail = (reply(rng)[:length] for length in (60, rng.choice((3, 12, 60)), 20))
    texts = [head + (unit or "a") * (length // len(unit or "a")) + tail for length in LENGTHS]
    seconds = [_seconds(reader, text) for text in texts]
    for _ in range(TRIALS):
        # Quadratic time would be 16-fold from the third length to the last.
        if seconds[4] < 0.004 or seconds[4] < 8 * seconds[2]:
            break
        seconds = [min(s, _seconds(reader, t)) for s, t in zip(seconds, texts, strict=True)]
    else:
        raise AssertionError(f"{reader} on {head!r}, {unit!r} …: {seconds} s at {LENGTHS}")
    peak = _peak_bytes(reader, texts[2])
    assert peak < 2_000 * len(texts[2]), f"{reader} on {head!r}, {unit!r} …: {peak} bytes"
    return {
        "us_per_character": 1e6 * seconds[4] / len(texts[4]),
        "bytes_per_character": peak / len(texts[2]),
    }


def _seconds(reader: tuple[str, str | None], text: str) -> float:
    """Processor time of one reading, without the garbage collector's, which is not linear."""
    gc.disable()
    try:
        split_response.cache_clear()
        started = time.process_time()
        _read(text, reader, image_sizes=SIZES)
        return time.process_time() - started
    finally:
        gc.enable()


def _peak_bytes(reader: tuple[str, str | None], text: str) -> int:
    split_response.cache_clear()
    tracemalloc.start()
    try:
        _read(text, reader, image_sizes=SIZES)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
