"""Attacks on box scoring: responses that try to score without answering, and who falls for them.

Each attack is paired with an honest equivalent: what the same knowledge is worth when it is said
plainly. A reader withstands an attack if the attack never scores above its honest equivalent.

    python results/benchmarks/attacks.py                             # print the tables
    python results/benchmarks/attacks.py --update results/benchmarks/attacks.md
    python results/benchmarks/attacks.py --vlmevalkit ../VLMEvalKit  # with a checkout of VLMEvalKit

The readers of lmms-eval are the functions of the installed package, called as its own scoring
calls them. Of VLMEvalKit only the parsing and IoU functions of two files are compiled out of the
checkout, because importing them would import its whole set of model wrappers.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import io
import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from univg_eval import get_dialect, parse_answer
from univg_eval.answers import Answer
from univg_eval.boxes import Box, box_iou, clip_box
from univg_eval.protocols import get_protocol

SEED = 20251122
N_CASES = 200
IMAGE_SIZES = ((640, 480), (480, 640), (800, 600), (960, 540), (512, 512))


# --- Cases


@dataclass(frozen=True)
class Case:
    """One question: an image, its true box, and what the attacker knows.

    Attributes:
        image_wh: (width, height) in pixels.
        target: true box, xyxy_norm; meaningless where `present` is False.
        first, second: the attacker's two guesses, xyxy_norm. One of them is the target, decided by
            a coin that the attacker does not see; the other is drawn like another case's target.
        present: whether the object is in the image at all.
    """

    image_wh: tuple[int, int]
    target: Box
    first: Box
    second: Box
    present: bool = True


def make_cases(
    n: int, seed: int = SEED, *, corner: bool = False, absent: float = 0.0
) -> list[Case]:
    """Random cases.

    Args:
        n: how many.
        seed: equal seeds give equal cases.
        corner: every target touches the image's top-left corner.
        absent: share of cases whose object is not in the image.
    """
    rng = random.Random(seed)

    def random_box() -> Box:
        width, height = rng.uniform(0.15, 0.8), rng.uniform(0.15, 0.8)
        x1, y1 = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
        if corner:
            x1 = y1 = 0.0
        return (x1, y1, x1 + width, y1 + height)

    cases = []
    for _ in range(n):
        target, other = random_box(), random_box()
        first, second = (target, other) if rng.random() < 0.5 else (other, target)
        cases.append(Case(rng.choice(IMAGE_SIZES), target, first, second, rng.random() >= absent))
    return cases


def _spray_boxes() -> tuple[Box, ...]:
    """Twenty-five boxes, fixed before any image is seen: three sizes on grids and the whole."""
    boxes: list[Box] = []
    for size, steps in ((0.4, 3), (0.55, 3), (0.7, 2)):
        starts = [i * (1 - size) / (steps - 1) for i in range(steps)]
        boxes += [(x, y, x + size, y + size) for y in starts for x in starts]
    return (*boxes, (0.0, 0.0, 1.0, 1.0), (0.0, 0.2, 1.0, 0.8), (0.2, 0.0, 0.8, 1.0))


SPRAY = _spray_boxes()


# --- Forms: how a reader asks for boxes


@dataclass(frozen=True)
class Form:
    """A written form of boxes, as one reader asks for it.

    Attributes:
        write: four written numbers → one box.
        scale: a box → its four numbers on the scale that the reader asks for.
        other: the same on a scale that it does not ask for.
        sides: (width, height) of the image on the asked scale.
        null: an explicit "there is no such object".
        wrap: text of the answer → answer section of the response.
        join: boxes → one list of them.
    """

    write: Callable[[Sequence[str]], str]
    scale: Callable[[Box, tuple[int, int]], list[str]]
    other: Callable[[Box, tuple[int, int]], list[str]]
    sides: Callable[[tuple[int, int]], tuple[int, int]]
    null: str
    wrap: Callable[[str], str] = lambda answer: answer
    join: Callable[[Sequence[str]], str] = ", ".join

    def box(self, box: Box, case: Case) -> str:
        """A box on the asked scale."""
        return self.write(self.scale(box, case.image_wh))

    def box_otherwise(self, box: Box, case: Case) -> str:
        """The same box on the other scale."""
        return self.write(self.other(box, case.image_wh))

    def misread(self, box: Box, case: Case) -> Box:
        """The box that the numbers of the other scale mean on the asked one, xyxy_norm."""
        numbers = self.other(box, case.image_wh)
        sides = self.sides(case.image_wh) * 2
        x1, y1, x2, y2 = (float(v) / side for v, side in zip(numbers, sides, strict=True))
        return (x1, y1, x2, y2)

    def numbers(self, *numbers: str) -> str:
        """A response of one box with these very numbers."""
        return self.wrap(self.write(numbers))


def _thousandths(box: Box, image_wh: tuple[int, int]) -> list[str]:
    return [str(round(v * 1000)) for v in box]


def _fractions(box: Box, image_wh: tuple[int, int]) -> list[str]:
    return [f"{v:.3f}" for v in box]


def _pixels(box: Box, image_wh: tuple[int, int]) -> list[str]:
    return [str(round(v * side)) for v, side in zip(box, image_wh * 2, strict=True)]


def _qwen2_5_input(image_wh: tuple[int, int]) -> tuple[int, int]:
    return get_dialect("qwen2_5_vl").input_size(image_wh)


def _input_pixels(box: Box, image_wh: tuple[int, int]) -> list[str]:
    return _pixels(box, _qwen2_5_input(image_wh))


def _thousand(image_wh: tuple[int, int]) -> tuple[int, int]:
    return (1000, 1000)


def _one(image_wh: tuple[int, int]) -> tuple[int, int]:
    return (1, 1)


def _image(image_wh: tuple[int, int]) -> tuple[int, int]:
    return image_wh


def _bracket(numbers: Sequence[str]) -> str:
    return f"[{', '.join(numbers)}]"


def _pairs(numbers: Sequence[str]) -> str:
    x1, y1, x2, y2 = numbers
    return f"({x1},{y1}),({x2},{y2})"


def _bbox_2d(numbers: Sequence[str]) -> str:
    return f'{{"bbox_2d": {_bracket(numbers)}}}'


def _json_list(boxes: Sequence[str]) -> str:
    return f"[{', '.join(boxes)}]"


# --- Readers


class ReaderError(Exception):
    """A reader raised an error instead of scoring; the message names it."""


@dataclass(frozen=True)
class Reader:
    """Somebody's way from a response to a score.

    Attributes:
        name: shown in the tables.
        form: the form of boxes that it asks for.
        score: (response, case) → True if the response counts as right at IoU 0.5, or as a right
            rejection where the object is absent.
        center: (response, case) → True if it counts as right by the box's centre; None if the
            reader has no such metric.
        rejects: has a way to score items whose object is absent.
    """

    name: str
    form: Form
    score: Callable[[str, Case], bool]
    center: Callable[[str, Case], bool] | None
    rejects: bool


UNIVG_FORMS = {
    "norm1000": Form(_bracket, _thousandths, _pixels, _thousand, "There are none."),
    "qwen2_vl": Form(
        lambda numbers: f"<|box_start|>{_pairs(numbers)}<|box_end|>",
        _thousandths,
        _pixels,
        _thousand,
        "There are none.",
        join="".join,
    ),
    "qwen2_5_vl": Form(
        _bbox_2d, _input_pixels, _thousandths, _qwen2_5_input, '{"bbox_2d": null}', join=_json_list
    ),
    "univg_r1": Form(
        _pairs,
        _thousandths,
        _pixels,
        _thousand,
        "There are none.",
        wrap=lambda answer: f"<answer>{answer}</answer>",
    ),
    "norm1": Form(_bracket, _fractions, _thousandths, _one, "There are none."),
}


def univg_reader(dialect: str) -> Reader:
    """This project's default protocol, reading one dialect."""
    protocol = get_protocol("univg")

    @lru_cache(maxsize=4096)  # the same spray meets every case
    def read(text: str, image_wh: tuple[int, int]) -> Answer:
        return parse_answer(
            text,
            dialect,
            image_sizes=[image_wh],
            input_sizes=[_qwen2_5_input(image_wh)] if dialect == "qwen2_5_vl" else None,
            target_image=0,
        )

    def score(text: str, case: Case) -> bool:
        answer = read(text, case.image_wh)
        if not case.present:
            return bool(answer.status == "none")
        return answer.box is not None and bool(protocol.iou(answer.box, case.target) >= 0.5)

    def center(text: str, case: Case) -> bool:
        answer = read(text, case.image_wh)
        if answer.box is None:
            return False
        x1, y1, x2, y2 = answer.box
        tx1, ty1, tx2, ty2 = case.target
        return tx1 <= (x1 + x2) / 2 <= tx2 and ty1 <= (y1 + y2) / 2 <= ty2

    return Reader(f"univg, {dialect}", UNIVG_FORMS[dialect], score, center, rejects=True)


_READER_ERRORS = (ZeroDivisionError, KeyError, TypeError, ValueError, IndexError, OverflowError)


def _guarded(score: Callable[[str, Case], bool]) -> Callable[[str, Case], bool]:
    def guarded(text: str, case: Case) -> bool:
        try:
            # Some of these functions print while they score.
            with contextlib.redirect_stdout(io.StringIO()):
                return bool(score(text, case))
        except _READER_ERRORS as error:
            raise ReaderError(type(error).__name__) from error

    return guarded


def _pixel_box(case: Case) -> list[float]:
    return [v * side for v, side in zip(case.target, case.image_wh * 2, strict=True)]


def _pixel_xywh(case: Case) -> list[float]:
    x1, y1, x2, y2 = _pixel_box(case)
    return [x1, y1, x2 - x1, y2 - y1]


def lmms_eval_readers() -> list[Reader]:
    """The box readers of the installed lmms-eval, behind its default removal of thinking."""
    tasks = {
        name: importlib.import_module(f"lmms_eval.tasks.{name}")
        for name in (
            "refcoco.utils_rec",
            "refcoco_grounding.utils",
            "groundingme.utils",
            "multihopspatial.utils",
            "screenspot.utils_rec",
        )
    }
    strip = importlib.import_module("lmms_eval.api.reasoning").strip_reasoning_tags
    # The default of --reasoning_tags in lmms_eval/__main__.py.
    tags = [["<think>", "</think>"], ["<analysis>", "</analysis>"]]

    def reader(
        name: str,
        form: Form,
        score: Callable[[str, Case], bool],
        center: Callable[[str, Case], bool] | None,
        rejects: bool = False,
    ) -> Reader:
        def stripped(inner: Callable[[str, Case], bool]) -> Callable[[str, Case], bool]:
            return _guarded(lambda text, case: inner(strip(text, tags), case))

        return Reader(name, form, stripped(score), center and stripped(center), rejects)

    refcoco = tasks["refcoco.utils_rec"]

    def refcoco_pred(text: str, case: Case) -> tuple[Any, Any]:
        doc = {"question_id": 0, "answer": "x", "bbox": list(case.target)}
        record = refcoco.refcoco_bbox_rec_process_result(doc, [text])["refcoco_IoU"]
        return record["bbox"], record["pred"]

    grounding = tasks["refcoco_grounding.utils"]

    def grounding_pred(text: str, case: Case) -> tuple[Any, Any]:
        doc = {
            "answer": "x",
            "bbox": _pixel_xywh(case),
            "image": SimpleNamespace(size=case.image_wh),
        }
        record = grounding.refcoco_grounding_process_result(doc, [text])["refcoco_grounding_IoU"]
        return record["bbox"], record["pred"]

    groundingme = tasks["groundingme.utils"]

    def groundingme_record(text: str, case: Case) -> Any:
        doc = {
            "subtask_l1": "Spatial" if case.present else "Rejection",
            "subtask_l2": "Relationship" if case.present else "Appearance",
            "description": "x",
            "id": 0,
            "bbox": _pixel_box(case),
            "width": case.image_wh[0],
            "height": case.image_wh[1],
        }
        return groundingme.groundingme_process_result(doc, [text])["groundingme_IoU"]

    multihop = tasks["multihopspatial.utils"]

    def multihop_score(text: str, case: Case) -> bool:
        doc = {
            "answer": "(a) x",
            "bbox": _pixel_xywh(case),
            "image": SimpleNamespace(size=case.image_wh),
        }
        record = multihop.multihopspatial_process_results(doc, [text])["acc50iou"]
        return bool(multihop.multihopspatial_aggregate_acc50iou([record]))

    screenspot = tasks["screenspot.utils_rec"]

    def screenspot_pred(text: str, case: Case) -> tuple[Any, Any]:
        doc = {
            "file_name": "x",
            "instruction": "x",
            "bbox": list(case.target),
            "data_type": "text",
            "data_source": "windows",
        }
        record = screenspot.screenspot_rec_process_result(doc, [text])["screenspot_IoU"]
        return record["bbox"], record["pred"]

    fractions = Form(_bracket, _fractions, _thousandths, _one, "none")
    json_pixels = Form(
        _bbox_2d, _pixels, _thousandths, _image, '{"bbox_2d": null}', join=_json_list
    )
    multihop_form = Form(
        _bbox_2d,
        _fractions,
        _thousandths,
        _one,
        '{"bbox_2d": null}',
        wrap=lambda answer: f"Answer: (a) x\nBounding Box: {answer}",
        join=_json_list,
    )
    return [
        reader(
            "refcoco bbox_rec",
            fractions,
            lambda text, case: refcoco.compute_accuracy(*refcoco_pred(text, case), 0.5),
            lambda text, case: refcoco.compute_center_accuracy(*refcoco_pred(text, case)),
        ),
        reader(
            "refcoco_grounding",
            json_pixels,
            lambda text, case: grounding._compute_accuracy(*grounding_pred(text, case), 0.5),
            lambda text, case: grounding._compute_center_accuracy(*grounding_pred(text, case)),
        ),
        reader(
            "groundingme",
            json_pixels,
            lambda text, case: groundingme_record(text, case)["acc_5"],
            lambda text, case: groundingme_record(text, case)["center_acc"],
            rejects=True,
        ),
        reader("multihopspatial", multihop_form, multihop_score, None),
        reader(
            "screenspot rec",
            fractions,
            lambda text, case: screenspot.compute_accuracy(*screenspot_pred(text, case), 0.5),
            lambda text, case: screenspot.compute_center_accuracy(*screenspot_pred(text, case)),
        ),
    ]


def _compiled(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Functions of a source file (of its top level or of a class), without importing the file."""
    if not path.is_file():
        raise SystemExit(f"{path} does not exist; --vlmevalkit expects a checkout of VLMEvalKit")
    found: dict[str, ast.FunctionDef] = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name in names:
            node.decorator_list = []
            found[node.name] = node
    missing = sorted(set(names) - set(found))
    if missing:
        raise SystemExit(f"{path} has no function {', '.join(missing)}; is it another version?")
    module = ast.Module([found[name] for name in names], type_ignores=[])
    namespace: dict[str, Any] = {"np": np, "re": re, "json": json, "Optional": None}
    future = importlib.import_module("__future__").annotations.compiler_flag
    exec(compile(module, str(path), "exec", flags=future), namespace)
    return namespace


def vlmevalkit_readers(checkout: Path) -> list[Reader]:
    """Two box readers of a VLMEvalKit checkout."""
    folder = checkout / "vlmeval" / "dataset"
    refcoco = _compiled(
        folder / "refcoco.py", ["_parse_prediction", "_to_absolute", "_compute_iou"]
    )
    groundingme = _compiled(
        folder / "groundingme.py", ["parse_bbox", "compute_iou", "normalize_bbox"]
    )

    def refcoco_score(text: str, case: Case) -> bool:
        read = refcoco["_parse_prediction"](text)
        pred = None if read is None else refcoco["_to_absolute"](read, *case.image_wh)
        return pred is not None and refcoco["_compute_iou"](pred, np.array(_pixel_box(case))) >= 0.5

    def groundingme_score(text: str, case: Case) -> bool:
        pred = groundingme["parse_bbox"](text)
        gt = _pixel_box(case) if case.present else [0, 0, 0, 0]
        # Its evaluate() keeps the better of the two readings of one answer.
        readings = [pred, groundingme["normalize_bbox"](pred, *case.image_wh)]
        return max(groundingme["compute_iou"](gt, reading) for reading in readings) >= 0.5

    return [
        Reader(
            "RefCOCO",
            Form(_bracket, _thousandths, _fractions, _thousand, "none"),
            _guarded(refcoco_score),
            None,
            rejects=False,
        ),
        Reader(
            "GroundingME",
            Form(_bbox_2d, _pixels, _thousandths, _image, '{"bbox_2d": null}', join=_json_list),
            _guarded(groundingme_score),
            None,
            rejects=True,
        ),
    ]


# --- Attacks


@dataclass(frozen=True)
class Attack:
    """A way to answer that tries to score more than the answerer knows.

    Attributes:
        name: row of the table.
        honest: what the attack is measured against, in words.
        attack: (form, case) → response.
        equivalents: (form, case) → honest responses, one a strategy, each a response for the
            reader or, where geometry alone says it, right or wrong; the best strategy over all
            cases counts.
        corner, absent: of `make_cases`.
        center: measured by the box's centre instead of IoU.
    """

    name: str
    honest: str
    attack: Callable[[Form, Case], str]
    equivalents: Callable[[Form, Case], Sequence[str | bool]]
    corner: bool = False
    absent: float = 0.0
    center: bool = False


NOTHING = "I cannot tell."


def _each(form: Form, case: Case, boxes: Sequence[Box]) -> list[str]:
    return [form.wrap(form.box(box, case)) for box in boxes]


def _guesses(form: Form, case: Case) -> list[str]:
    return _each(form, case, (case.first, case.second))


def _second(form: Form, case: Case) -> list[str]:
    return _each(form, case, (case.second,))


def _target(form: Form, case: Case) -> list[str]:
    return _each(form, case, (case.target,))


def _nothing(form: Form, case: Case) -> list[str]:
    return [form.wrap(NOTHING)]


def _thinking_steps(form: Form, case: Case) -> str:
    steps = [*SPRAY, case.first]
    return "\n".join(f"Step {i}: {form.box(box, case)}" for i, box in enumerate(steps, start=1))


def _refusal_with_numbers(form: Form, case: Case) -> str:
    a, b, c, d = form.scale(case.target, case.image_wh)
    return form.wrap(f"Sorry, I counted {a} red, {b} green, {c} blue and {d} grey dots only.")


def _swapped(form: Form, case: Case) -> str:
    x1, y1, x2, y2 = form.scale(case.target, case.image_wh)
    return form.numbers(x2, y2, x1, y1)


def _eight_numbers(form: Form, case: Case) -> str:
    first, second = (form.scale(box, case.image_wh) for box in (case.first, case.second))
    return form.wrap(_bracket([*first, *second]))


BEST_GUESS = "the better of the two guesses, always the same one, alone"
REFUSAL = "saying nothing"

ATTACKS = {
    "spray, one list": Attack(
        "25 fixed boxes in one list",
        "the best of the 25 alone",
        lambda form, case: form.wrap(form.join([form.box(box, case) for box in SPRAY])),
        lambda form, case: _each(form, case, SPRAY),
    ),
    "spray, one a line": Attack(
        "25 fixed boxes, one a sentence",
        "the best of the 25 alone",
        lambda form, case: form.wrap(
            "\n".join(f"It may be at {form.box(box, case)} too." for box in SPRAY)
        ),
        lambda form, case: _each(form, case, SPRAY),
    ),
    "two guesses, one list": Attack(
        "two guesses in one list",
        BEST_GUESS,
        lambda form, case: form.wrap(
            form.join([form.box(case.first, case), form.box(case.second, case)])
        ),
        _guesses,
    ),
    "two guesses, two answers": Attack(
        "two guesses, each as a final answer",
        BEST_GUESS,
        lambda form, case: "\nOr rather:\n".join(_guesses(form, case)),
        _guesses,
    ),
    "eight numbers": Attack(
        "two guesses in one bracket of eight numbers", BEST_GUESS, _eight_numbers, _guesses
    ),
    "two guesses, two scales": Attack(
        "two guesses, the second on another scale",
        BEST_GUESS,
        lambda form, case: form.wrap(
            form.join([form.box(case.first, case), form.box_otherwise(case.second, case)])
        ),
        lambda form, case: [
            *_guesses(form, case),
            form.wrap(form.box_otherwise(case.second, case)),
        ],
    ),
    "other scale": Attack(
        "the right box on a scale that was not asked for",
        "the box that those numbers mean on the asked scale",
        lambda form, case: form.wrap(form.box_otherwise(case.target, case)),
        lambda form, case: [
            bool(box_iou(clip_box(form.misread(case.target, case)), case.target) >= 0.5)
        ],
    ),
    "both scales": Attack(
        "the right box on both scales, the wrong one first",
        "the right box on the asked scale alone",
        lambda form, case: form.wrap(
            form.join([form.box_otherwise(case.target, case), form.box(case.target, case)])
        ),
        _target,
    ),
    "thinking steps": Attack(
        "26 boxes in `<think>`, then a guess",
        "the last guess alone",
        lambda form, case: f"<think>{_thinking_steps(form, case)}</think>" + _second(form, case)[0],
        _second,
    ),
    "thinking steps, other tags": Attack(
        "26 boxes in `◁think▷`, then a guess",
        "the last guess alone",
        lambda form, case: f"◁think▷{_thinking_steps(form, case)}◁/think▷" + _second(form, case)[0],
        _second,
    ),
    "box only in the thinking": Attack(
        "the right box in `<think>`, then no answer",
        REFUSAL,
        lambda form, case: f"<think>{form.box(case.target, case)}</think>" + form.wrap(NOTHING),
        _nothing,
    ),
    "unclosed thinking": Attack(
        "the right box in a `<think>` that never closes",
        REFUSAL,
        lambda form, case: f"<think>It may be {form.box(case.target, case)}, let me see",
        _nothing,
    ),
    "prompt echo": Attack(
        "the question with its box repeated, then a guess",
        "the guess alone",
        lambda form, case: (
            f"You ask which object matches the one at {form.box(case.first, case)}.\n"
            + _second(form, case)[0]
        ),
        _second,
    ),
    "null last": Attack(
        "the right box, then an explicit null",
        "the null alone",
        lambda form, case: form.wrap(f"{form.box(case.target, case)}\nNo, wait.\n{form.null}"),
        lambda form, case: [form.wrap(form.null)],
    ),
    "hedged null": Attack(
        "a null and then a box, half of the objects absent",
        "the better of null alone and box alone",
        lambda form, case: form.wrap(f"{form.null}\nOr: {form.box(case.target, case)}"),
        lambda form, case: [form.wrap(form.null), form.wrap(form.box(case.target, case))],
        absent=0.5,
    ),
    "refusal as rejection": Attack(
        "saying nothing where the object is absent",
        "0: nothing was said",
        lambda form, case: form.wrap(NOTHING),
        lambda form, case: [],
        absent=1.0,
    ),
    "refusal with numbers": Attack(
        "a refusal in words that hold the right numbers", REFUSAL, _refusal_with_numbers, _nothing
    ),
    "zeros": Attack(
        "[0, 0, 0, 0], target at the corner, by IoU",
        "0: no box was given",
        lambda form, case: form.numbers("0", "0", "0", "0"),
        lambda form, case: [],
        corner=True,
    ),
    "zeros, by centre": Attack(
        "[0, 0, 0, 0], target at the corner, by centre",
        "0: no box was given",
        lambda form, case: form.numbers("0", "0", "0", "0"),
        lambda form, case: [],
        corner=True,
        center=True,
    ),
    "nothing, by centre": Attack(
        "saying nothing, target at the corner, by centre",
        "0: no box was given",
        lambda form, case: form.wrap(NOTHING),
        lambda form, case: [],
        corner=True,
        center=True,
    ),
    "huge": Attack(
        "numbers from -999999 to 999999",
        "the whole image",
        lambda form, case: form.numbers("-999999", "-999999", "999999", "999999"),
        lambda form, case: _each(form, case, [(0.0, 0.0, 1.0, 1.0)]),
    ),
    "swapped corners": Attack(
        "the right box with its corners swapped",
        "0: an inverted box is none",
        _swapped,
        lambda *_: [],
    ),
    "nan": Attack(
        "NaN for every number",
        "0: no box was given",
        lambda form, case: form.numbers("NaN", "NaN", "NaN", "NaN"),
        lambda form, case: [],
    ),
    "null in the box": Attack(
        "null in place of the first number",
        "0: no box was given",
        lambda form, case: form.numbers("null", *form.scale(case.target, case.image_wh)[1:]),
        lambda form, case: [],
    ),
    "1e999": Attack(
        "-1e999 and 1e999 for the corners",
        "the whole image",
        lambda form, case: form.numbers("-1e999", "-1e999", "1e999", "1e999"),
        lambda form, case: _each(form, case, [(0.0, 0.0, 1.0, 1.0)]),
    ),
}


@dataclass(frozen=True)
class AttackResult:
    """Shares of right cases, in [0, 1].

    Attributes:
        attack: of the attack; an error counts as wrong.
        honest: of the best honest strategy.
        raised: share of cases in which the reader raised an error on the attack.
    """

    attack: float
    honest: float
    raised: float


def measure(
    attack: Attack, reader: Reader, n: int = N_CASES, seed: int = SEED
) -> AttackResult | None:
    """Score an attack and its honest equivalents; None if the reader has no such metric."""
    score = reader.center if attack.center else reader.score
    if score is None or (attack.absent and not reader.rejects):
        return None
    cases = make_cases(n, seed, corner=attack.corner, absent=attack.absent)

    def right(text: str | bool, case: Case) -> float | None:
        if isinstance(text, bool):
            return float(text)
        try:
            return float(score(text, case))
        except ReaderError:
            return None

    attacked = [right(attack.attack(reader.form, case), case) for case in cases]
    honest = [
        [right(text, case) or 0.0 for text in attack.equivalents(reader.form, case)]
        for case in cases
    ]
    strategies = [sum(column) / n for column in zip(*honest, strict=True)]
    return AttackResult(
        attack=sum(value or 0.0 for value in attacked) / n,
        honest=max(strategies, default=0.0),
        raised=sum(value is None for value in attacked) / n,
    )


def univg_readers() -> list[Reader]:
    """The default protocol in each of the attacked dialects."""
    return [univg_reader(dialect) for dialect in UNIVG_FORMS]


# --- Tables


def table(readers: Sequence[Reader], n: int = N_CASES, *, explained: bool = False) -> str:
    """A Markdown table: one row an attack, one column a reader, cells "attack / honest".

    Args:
        readers: the columns.
        n: cases an attack.
        explained: whether a column says what the honest equivalent is.
    """
    names = [reader.name.removeprefix("univg, ") for reader in readers]
    head = ["attack", *(["honest equivalent"] if explained else []), *names]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for attack in ATTACKS.values():
        cells = [_cell(measure(attack, reader, n)) for reader in readers]
        row = [attack.name, *([attack.honest] if explained else []), *cells]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def _cell(result: AttackResult | None) -> str:
    if result is None:
        return "–"
    if result.raised:
        return f"error in {result.raised:.0%}"
    cell = f"{result.attack:.2f} / {result.honest:.2f}"
    return f"**{cell}**" if result.attack > result.honest else cell


def replace_block(document: str, name: str, content: str) -> str:
    """The document with the text between two marks replaced.

    The marks are the comments ``<!-- begin NAME -->`` and ``<!-- end NAME -->``.
    """
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    if document.count(begin) != 1 or document.count(end) != 1:
        raise SystemExit(f"the document needs exactly one {begin} and one {end}")
    head, rest = document.split(begin)
    return f"{head}{begin}\n{content}\n{end}{rest.split(end)[1]}"


def print_table(description: str | None, name: str, table: Callable[[], str]) -> None:
    """Print a table, and with ``--update FILE`` put it into the block `name` of a document."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--update", type=Path, metavar="FILE", help="Markdown file to write into")
    args = parser.parse_args()
    text = table()
    print(text)
    if args.update is not None:
        document = args.update.read_text(encoding="utf-8")
        args.update.write_text(replace_block(document, name, text), encoding="utf-8")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vlmevalkit", type=Path, metavar="DIR", help="checkout of VLMEvalKit")
    parser.add_argument("--update", type=Path, metavar="FILE", help="Markdown file to write into")
    parser.add_argument("--cases", type=int, default=N_CASES, help="cases an attack (%(default)s)")
    args = parser.parse_args()
    tables = {
        "univg": table(univg_readers(), args.cases, explained=True),
        "lmms-eval": table(lmms_eval_readers(), args.cases),
    }
    if args.vlmevalkit is not None:
        tables["vlmevalkit"] = table(vlmevalkit_readers(args.vlmevalkit), args.cases)
    for name, text in tables.items():
        print(f"\n{name}\n\n{text}")
    if args.update is not None:
        document = args.update.read_text(encoding="utf-8")
        for name, text in tables.items():
            document = replace_block(document, name, text)
        args.update.write_text(document, encoding="utf-8")


if __name__ == "__main__":
    main()
