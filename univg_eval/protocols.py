"""Named scoring rules: how a box is read from a response and how its IoU is computed.

``univg`` is the default. It reads the answer section of a response in the model's own dialect,
see `univg_eval.answers`. The other rules reproduce how published numbers were scored, quirks
included, so that a new result can stand beside a printed one:

======================  =====================================================================
univg-r1                UniVG-R1's evaluation of MIG-Bench: six patterns over the whole
                        response, integers only
univg-r1+migician-y     the same, with the stretched y that it gives to one rival alone
migician                Migician's own evaluation of MIG-Bench, ground truth on 0-1
migician+y              the same, with the stretched y for the model Migician
univg-r1-zero-shot      UniVG-R1's evaluation of LISA, LLM-Seg, ReVOS and ReasonVOS: first pair
                        of the prompt and the response together
======================  =====================================================================

Sources: the released code of AMAP-ML/UniVG-R1 (commit 44868ea, ``eval/MIG_bench/utils.py``,
``eval/MIG_bench/MIG_bench_eval.py``, ``eval/zero_shot/*/eval.py``) and of thunlp/Migician (commit
7b868a2, ``eval/``). docs/protocols.md explains each rule with worked examples.

An `Answer` of a published rule differs from one of ``univg``:

- ``box`` is not clipped. ``univg-r1`` scores the box of zeros where it reads nothing; that is kept
  as ``(0.0, 0.0, 0.0, 0.0)`` with status ``no_box``. The other rules have no box then: None.
- ``status`` is ``no_box`` if the rule reads nothing; ``invalid_box`` if the numbers it reads are
  inverted, empty or beyond a float (the rule gives those IoU 0 against every ground truth; a
  number beyond a float leaves ``box`` None); otherwise ``ok``. ``none`` and ``truncated`` do not
  occur: these rules know neither.
- ``boxes`` holds the chosen box alone, ``n_boxes`` and ``n_units`` the matches of the pattern that
  won. ``thinking`` and ``image_index`` are None, ``answer_text`` is the whole response and
  ``clipped`` is False: these rules do not look at any of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from univg_eval.answers import Answer, Status, read_answer
from univg_eval.boxes import Box, box_iou
from univg_eval.dialects import Dialect, get_dialect
from univg_eval.errors import UserError, meant

__all__ = ["PROTOCOLS", "Protocol", "get_protocol", "list_protocols", "parse_answer"]

_ZEROS: Box = (0.0, 0.0, 0.0, 0.0)

# `\d` and `\s` are those of Python's `re` on text, as in the released code: digits and white
# space of all scripts. Runs of the two alternate, so that matching is linear in the text.
_INT = r"(\d+)"
_DEC = r"(\d+\.\d+)"
_CASCADE = tuple(
    re.compile(pattern)
    for pattern in (
        rf"\({_INT},\s*{_INT}\),\s*\({_INT},\s*{_INT}\)",
        rf"\[{_DEC},\s*{_DEC},\s*{_DEC},\s*{_DEC}\]",
        rf"\({_DEC},{_DEC}\),\({_DEC},{_DEC}\)",
        rf"\({_DEC},\s*{_DEC},\s*{_DEC},\s*{_DEC}\)",
        rf"\[{_INT},\s*{_INT},\s*{_INT},\s*{_INT}\]",
        rf"<box>{_INT}\s+{_INT}\s+{_INT}\s+{_INT}</box>",
    )
)
_ZERO_SHOT_PAIR = re.compile(rf"\(\s*{_INT}\s*,\s*{_INT}\s*\)\s*,\s*\(\s*{_INT}\s*,\s*{_INT}\s*\)")


@dataclass(frozen=True, slots=True)
class _Reading:
    """What a published rule makes of a text.

    Attributes:
        box: the box that the rule scores, xyxy_norm, neither clipped nor checked; None if it
            scores the response 0 without a box.
        n_matches: matches of the pattern that won.
        failed: the rule read no box; a `box` beside it is the rule's own stand-in.
    """

    box: Box | None
    n_matches: int
    failed: bool = False


def _cascade_matches(text: str) -> list[tuple[str, str, str, str]]:
    for pattern in _CASCADE:
        matches = pattern.findall(text)
        if matches:
            return matches
    return []


def _thousandth(number: int) -> float:
    try:
        return number / 1000
    except OverflowError:
        return math.inf


def _univg_r1_numbers(text: str) -> tuple[tuple[int, int, int, int] | None, int]:
    """The four integers that univg-r1 reads, on its 0-1000 scale, and the number of matches."""
    matches = _cascade_matches(text)
    used = matches if len(matches) == 1 else matches[:-1]
    try:
        # All are converted before the first is taken, as released: one that fails loses it too.
        boxes = [(int(x1), int(y1), int(x2), int(y2)) for x1, y1, x2, y2 in used]
    except ValueError:  # a decimal, or more digits than Python converts
        return None, len(matches)
    return (boxes[0] if boxes else None), len(matches)


def _read_univg_r1(text: str, prompt: str | None) -> _Reading:
    numbers, n_matches = _univg_r1_numbers(text)
    if numbers is None:
        return _Reading(_ZEROS, n_matches, failed=True)
    x1, y1, x2, y2 = (_thousandth(number) for number in numbers)
    return _Reading((x1, y1, x2, y2), n_matches)


def _read_univg_r1_migician_y(text: str, prompt: str | None) -> _Reading:
    reading = _read_univg_r1(text, prompt)
    if reading.failed or reading.box is None or not all(map(math.isfinite, reading.box)):
        return reading
    x1, y1, x2, y2 = reading.box
    return _Reading((x1, _stretch(y1, 1.05), x2, _stretch(y2, 1.10)), reading.n_matches)


def _read_migician(text: str, prompt: str | None) -> _Reading:
    matches = _cascade_matches(text)
    if not matches:
        return _Reading(None, 0, failed=True)
    values = [float(number) for number in matches[0]]
    if len(matches) == 1:
        x1, y1, x2, y2 = (v / 1000 if v >= 1 else v for v in values)
    else:
        x1, y1, x2, y2 = (v / 1000 if v > 1 else v for v in values)
    return _Reading((x1, y1, x2, y2), len(matches))


def _read_migician_y(text: str, prompt: str | None) -> _Reading:
    reading = _read_migician(text, prompt)
    # With several matches the released code multiplies a list by a float; the error is swallowed.
    if reading.box is None or reading.n_matches > 1:
        return reading
    x1, y1, x2, y2 = reading.box
    return _Reading((x1, _stretch(y1, 1.05), x2, _stretch(y2, 1.10)), 1)


def _stretch(y: float, factor: float) -> float:
    return round(min(y * factor, 0.999), 3)


def _read_univg_r1_zero_shot(text: str, prompt: str | None) -> _Reading:
    # The chat template puts words between prompt and response, so no pair spans the two.
    matches = _ZERO_SHOT_PAIR.findall(prompt or "") + _ZERO_SHOT_PAIR.findall(text)
    if not matches:
        return _Reading(None, 0, failed=True)
    try:
        x1, y1, x2, y2 = (int(number) / 1000 for number in matches[0])
    except (ValueError, OverflowError):  # more digits than Python converts, or than a float holds
        return _Reading(None, len(matches), failed=True)
    return _Reading((x1, y1, x2, y2), len(matches))


@dataclass(frozen=True, slots=True)
class Protocol:
    """A named scoring rule; the defaults are those of the published ones.

    Attributes:
        name: as given to ``--protocol`` and `parse_answer`.
        description: one sentence.
        version: raised with every change of what the rule reads; run records keep it.
        source: where the rule is defined.
        reader: reads (response, prompt); None: `univg_eval.answers.read_answer` does.
        needs_dialect: reads the response in the model's dialect; the published rules bring their
            own patterns and ignore the dialect.
        needs_prompt: reads the prompt as well as the response.
        reads_image: reads which image the response names. Where this is False only the box's
            coordinates count, as in the published numbers.
        on_all_rows: scores rows with an invalid ground truth as well; else they are left out.
        iou_scale: the IoU is computed on [0, iou_scale].
        union_eps: added to the union's area on that scale.
    """

    name: str
    description: str
    source: str
    reader: Callable[[str, str | None], _Reading] | None = field(repr=False, compare=False)
    needs_dialect: bool = False
    needs_prompt: bool = False
    reads_image: bool = False
    on_all_rows: bool = True
    iou_scale: float = 1.0
    union_eps: float = 0.0
    version: int = 1

    def iou(self, pred_boxes: npt.ArrayLike, gt_boxes: npt.ArrayLike) -> Any:
        """IoU as this rule computes it.

        Args:
            pred_boxes: shape (..., 4), xyxy_norm.
            gt_boxes: shape broadcastable against `pred_boxes`, xyxy_norm.

        Returns:
            float64 in [0, 1], shape as in `univg_eval.boxes.box_iou`. Two empty boxes at the same
            place give 0 here; the released code of the published rules divides by zero there.
        """
        pred = np.asarray(pred_boxes, dtype=np.float64) * self.iou_scale
        gt = np.asarray(gt_boxes, dtype=np.float64) * self.iou_scale
        return box_iou(pred, gt, union_eps=self.union_eps)


_UNIVG_R1_SOURCE = "AMAP-ML/UniVG-R1 44868ea, eval/MIG_bench"
_MIGICIAN_SOURCE = "thunlp/Migician 7b868a2, eval"

_RULES = (
    Protocol(
        "univg",
        "First box of the last unit of the answer section, in the dialect.",
        "this project, docs/protocols.md",
        None,
        needs_dialect=True,
        reads_image=True,
        on_all_rows=False,
        version=2,
    ),
    Protocol(
        "univg-r1",
        "First box of the first of six patterns found anywhere in the response, integers on "
        "0-1000; [0, 0, 0, 0] where nothing is read.",
        _UNIVG_R1_SOURCE,
        _read_univg_r1,
        iou_scale=1000.0,
    ),
    Protocol(
        "univg-r1+migician-y",
        "univg-r1 with y1 times 1.05 and y2 times 1.10, which that evaluation gives to the model "
        "Migician alone.",
        _UNIVG_R1_SOURCE,
        _read_univg_r1_migician_y,
        iou_scale=1000.0,
    ),
    Protocol(
        "migician",
        "First box of the first of six patterns found anywhere in the response; each value from 1 "
        "on divided by 1000, smaller ones kept.",
        _MIGICIAN_SOURCE,
        _read_migician,
    ),
    Protocol(
        "migician+y",
        "migician with y1 times 1.05 and y2 times 1.10 where the response has one box, which that "
        "evaluation gives to the model Migician alone.",
        _MIGICIAN_SOURCE,
        _read_migician_y,
    ),
    Protocol(
        "univg-r1-zero-shot",
        "First (int, int), (int, int) of the prompt and the response together, on 0-1000; 1e-6 "
        "added to the union.",
        "AMAP-ML/UniVG-R1 44868ea, eval/zero_shot",
        _read_univg_r1_zero_shot,
        union_eps=1e-6,
        needs_prompt=True,
    ),
)
PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({rule.name: rule for rule in _RULES})
"""All scoring rules by name; read-only, `univg` first."""


def list_protocols() -> list[str]:
    """Names of all scoring rules, the default first."""
    return list(PROTOCOLS)


def get_protocol(name: str) -> Protocol:
    """The scoring rule of this name.

    Raises:
        UserError: unknown name; the message names those near it, or all.
    """
    try:
        return PROTOCOLS[name]
    except KeyError:
        raise UserError(f"unknown protocol {name!r}; {meant(name, PROTOCOLS)}") from None


@lru_cache(maxsize=128)
def _dialect_of(name: str) -> Dialect:
    return get_dialect(name)


def parse_answer(
    text: str,
    dialect: str | Dialect | None = None,
    *,
    image_sizes: Sequence[tuple[int, int]] | None = None,
    input_sizes: Sequence[tuple[int, int]] | None = None,
    target_image: int | None = None,
    image_is_given: bool | None = None,
    prompt: str | None = None,
    protocol: str = "univg",
) -> Answer:
    """Read the box of a response by a named rule. No string makes it raise.

    Args:
        text: the whole response, thinking included.
        dialect: how the model writes boxes, by name or as an object. Required by ``univg``; the
            published rules bring their own patterns and ignore it, as they ignore the next four.
        image_sizes: (width, height) of each original image in pixels.
        input_sizes: (width, height) of each image as the model saw it, after its resize.
        target_image: 0-based image that the instruction names; None where the model had to find
            it. Never to be taken from the ground truth.
        image_is_given: whether the instruction names the image; None: if `target_image` is given.
        prompt: the text that the model was given. Only ``univg-r1-zero-shot`` reads it.
        protocol: name of the rule, see `PROTOCOLS`.

    Returns:
        The answer; for the published rules as described at the top of this module.

    Raises:
        UserError: unknown protocol or dialect, or the rule needs a dialect, image sizes or a
            prompt that is not given.
    """
    rule = get_protocol(protocol)
    if rule.reader is None:
        if dialect is None:
            raise UserError(
                f"protocol {rule.name!r} needs a dialect and got None; name how the model writes "
                "boxes, for example dialect='qwen2_vl' (`univg dialects` lists them)"
            )
        return read_answer(
            text,
            _dialect_of(dialect) if isinstance(dialect, str) else dialect,
            image_sizes=image_sizes,
            input_sizes=input_sizes,
            target_image=target_image,
            image_is_given=image_is_given,
        )
    if rule.needs_prompt and prompt is None:
        raise UserError(
            f"protocol {rule.name!r} needs prompt= and got None: it scores the first pair of "
            "prompt and response together, so without the prompt its result is unknown; give the "
            "text that the model was given, or '' if that is known to hold no box"
        )
    return _as_answer(text, rule.reader(text, prompt))


def _as_answer(text: str, reading: _Reading) -> Answer:
    box = reading.box
    status: Status = "invalid_box"
    if reading.failed or box is None:
        status = "no_box"
    elif not all(map(math.isfinite, box)):
        box = None
    elif box[0] < box[2] and box[1] < box[3]:
        status = "ok"
    return Answer(
        status=status,
        box=box,
        boxes=(box,) if box is not None and status == "ok" else (),
        box_images=(None,) if status == "ok" else (),
        image_index=None,
        thinking=None,
        answer_text=text,
        n_boxes=reading.n_matches,
        n_units=reading.n_matches,
        clipped=False,
    )
