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
from univg_eval.points import PointAnswer, parse_points
from univg_eval.protocols import list_protocols, parse_answer
from univg_eval.published_rules import PUBLISHED_RULES, Answered, measure_published
from univg_eval.samples import GroundingSample, Target
from univg_eval.scoring import Response, score_samples
from univg_train.rewards import make_rewards

__all__ = [
    "SETS", "grow", "read_anywhere", "read_points", "reply", "score_anywhere", "score_sets",
]  # fmt: skip

SIZES = [(640, 480), (320, 240), (1000, 30)]
STATUSES = {"ok", "no_box", "none", "truncated", "invalid_box"}
POINT_STATUSES = {"ok", "no_point", "none", "truncated", "invalid_point"}
READERS = [("univg", name) for name in list_dialects()] + [
    (name, None) for name in list_protocols()[1:]
]
"""(protocol, dialect) of every way to read; the published rules have no dialect."""

POINT_READERS: list[tuple[str, str | None]] = [
    ("points", name) for name in list_dialects() if get_dialect(name).point_grammar is not None
]
OWN_READERS: list[tuple[str, str | None]] = [
    (name, None) for name, rule in PUBLISHED_RULES.items() if rule.reads_text
]
"""The rules of whole sets that read responses their own way."""

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
    *('"label": "a', '<point x="10" y="20" alt="a">', '<points coords="1 1 100 200 2 300 400">'),
    *('{"point_2d": [10, 20]}', '{"point": [10, 20]}', "(10, 20)", "<box><10><20></box>"),
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


def _read(text: str, reader: tuple[str, str | None], **more: Any) -> Any:
    """An `Answer`; a `PointAnswer`; the metrics of a rule that reads responses its own way."""
    protocol, dialect = reader
    if protocol == "points":
        return parse_points(text, dialect or "", **more)
    if protocol in PUBLISHED_RULES:
        rows = [Answered(sample, _SILENCE, text) for sample in SETS[protocol]]
        return PUBLISHED_RULES[protocol].measure(rows)
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


def read_points(rng: Random) -> None:
    """Read the points of one reply by every rule: with a status, and twice the same."""
    text = reply(rng)
    sizes = rng.choice((SIZES, SIZES[:1]))
    options = {
        "image_sizes": sizes,
        "target_image": rng.choice((None, 0)),
        "image_is_given": rng.choice((None, True, False)),
    }
    for reader in POINT_READERS:
        answer: PointAnswer = _read(text, reader, **options)
        assert answer.status in POINT_STATUSES, f"{reader}: {answer}"
        has_points = answer.status in ("ok", "invalid_point")
        assert bool(answer.points) == has_points, f"{reader}: {answer}"
        assert len(answer.images) == len(answer.points), f"{reader}: {answer}"
        split_response.cache_clear()
        # In words, as NaN is not equal to itself.
        assert repr(_read(text, reader, **options)) == repr(answer), f"{reader}: {answer}"


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


# --- whole sets ----------------------------------------------------------------------------------

COUNTS = {"n", "rejection_score"}
_SILENCE = parse_answer("", "norm1000", prompt="")


def _set(name: str) -> list[GroundingSample]:
    """Samples that a rule takes; of some the boxes are as bad as a release may have them."""
    (benchmark,) = PUBLISHED_RULES[name].benchmarks
    boxes = [(0.1, 0.2, 0.5, 0.9), (0.5, 0.5, 1.5, 0.7), (0.9, 0.9, 0.1, 0.1), (0.2, 0.3, 0.2, 0.3)]
    boxes.append((0.9, 0.1, 0.1, 0.9))
    if name == "ref-l4":
        chosen = [[box] for box in boxes]
    elif name == "groundingme":
        chosen = [[], *([box] for box in boxes)]
    else:
        chosen = [[], boxes[:1], boxes[:2], boxes, boxes[:1] * 3]
    n = 2 if name == "mc-bench" else 1
    return [
        GroundingSample(
            id=f"{benchmark}-{number}", benchmark=benchmark,
            task=("spatial", "limited")[number % 2] if true else "rejection", split="test",
            images=("a", "b")[:n], widths=(640, 320)[:n], heights=(480, 240)[:n],
            instruction="Find it.", image_is_given=n == 1, cluster=f"c{number}",
            targets=tuple(Target(k % n, box) for k, box in enumerate(true)),
            find_all=name not in ("ref-l4", "groundingme"),
            extra={"groups": [1 + k % 7 for k in range(len(true))], "subtask_l2": "Text",
                   "ori_category_id": ("refcoco_16", "o365_1")[number % 2]},
        )
        for number, true in enumerate(chosen)
    ]  # fmt: skip


SETS = {name: _set(name) for name in PUBLISHED_RULES}
"""Rule of a whole set → a small set."""


def score_sets(rng: Random) -> None:
    """Score random replies to a part of each set: shares on 0-1, counts, and twice the same."""
    dialect = rng.choice([name for name in list_dialects() if get_dialect(name).gives_boxes])
    for name, whole in SETS.items():
        samples = rng.sample(whole, rng.choice((0, 1, len(whole), len(whole))))
        responses = [
            Response(rng.choice((reply(rng), reply(rng), reply(rng), None)), s.image_sizes)
            for s in samples
        ]
        metrics = measure_published(name, samples, responses, dialect)
        for metric, value in metrics.items():
            most = len(samples) if metric in COUNTS else 1
            assert 0 <= value <= most, f"{name}, {dialect}: {metric} is {value}"
        assert measure_published(name, samples, responses, dialect) == metrics


# --- growth --------------------------------------------------------------------------------------

N_PATTERNS = 40
LENGTHS = [1_000 * 2**doubling for doubling in range(5)]
TRIALS = 4
HOSTILE = (
    *("[", "[{", "{\"a\":", "(1,2),(3,4) ", "[1,2,3,4;", "<box>1 2 3 ", "\"label\": \"", "[]"),
    *("None. ", "There is no cup in image 1, ", "图1没有，", "<think>", "</think>", "<answer>"),
    *(" ", "first image ", "```", "\"1 2 3 4\" ", "<loc_1>", "9"),
    *("<point x='1' y='2'", "{\"bbox_2d\":[1,2,3,4]}", "1 2 3 ", "-1.5, "),
)  # fmt: skip


def grow(
    number: int, rng: Random, readers: Sequence[tuple[str, str | None]] = READERS
) -> dict[str, float]:
    """Double the length of one pattern four times: time and memory must grow with the length.

    Returns:
        Microseconds and bytes of memory a character, at the greatest length.
    """
    reader = readers[number % len(readers)]
    pattern = number // len(readers)
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
