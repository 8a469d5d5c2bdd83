"""Which chains are good enough to learn from: rules that need no model.

A chain is a reply ``<think>…</think><answer>…</answer>``. All rules that it breaks are reported,
by the words of `REASONS`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from univg_eval.answers import read_answer
from univg_eval.dialects import Dialect, get_dialect
from univg_eval.dialects.image_names import find_image_names
from univg_train.cot.prompts import teacher_question, truth_1000
from univg_train.cot.rows import MEDIA_MARKS, CotRow, encode_box

__all__ = ["REASONS", "ChainCheck", "assemble", "check_chain", "read_choice"]

REASONS = {
    "refused": "the teacher or its server declined to answer",
    "cut_off": "the reply ended at the token limit",
    "format": "not <think>…</think><answer>…</answer> and nothing else",
    "box_differs": "the box in the answer is not the true one",
    "marks": "tags, special tokens, image marks or characters that no text file holds",
    "given_answer": "the thinking mentions an answer that was known beforehand",
    "coordinates": "the thinking holds coordinates that the question does not",
    "too_short": "fewer words than requested",
    "too_long": "more words than requested",
    "language": "less than 95 % of the letters are Latin",
    "image_missing": "several images, and the thinking names none at its end",
    "image_other": "the thinking ends with another image than the target's, or with several",
    "repeated": "the same thinking as an earlier chain of the row",
    "unreadable": "the assembled example is not read back as the true box",
}
"""Every reason that a chain is rejected for, in the order of the checks."""

_LATIN_SHARE = 0.95
_BOX_SLACK = 2  # steps of 0-1000 by which the teacher's copy of the box may differ

# The teacher's own thoughts may come first: up to a closing mark, with or without an opening one.
_REPLY = re.compile(
    r"\s*(?:(?s:.*)</think>\s*)?<think>(?P<thinking>(?s:(?!</?think>).)*)</think>\s*"
    r"<answer>(?P<answer>(?s:(?!</?answer>).)*)</answer>\s*\Z"
)
_TAG = re.compile(r"</?[A-Za-z][\w:-]{0,30}[^<>\n]{0,60}>|<\|[^|<>\n]{1,40}\|>|◁/?think▷")

_ANSWER = r"(?:answers?|solutions?|bounding[ -]?box(?:es)?|bbox(?:es)?|coordinates?|annotations?)"
# Words that also name things in pictures: a cardboard box, the final position of a ball.
_PLACE = r"(?:box(?:es)?|locations?|positions?)"
_GIVEN = r"(?:given|provided|supplied|known|stated|specified|annotated|indicated)"
_GIVEAWAYS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\bground[ -]?truths?\b",
        # "the provided answer", "the correct bounding box", "the given location"
        rf"\b(?:{_GIVEN}|expected|correct|true|actual|reference|target|final|labell?ed)\s+"
        rf"(?:\w+\s+){{0,2}}?{_ANSWER}\b",
        rf"\b{_GIVEN}\s+(?:\w+\s+)?{_PLACE}\b",
        # "the answer provided", "the box that was given", "the solution is known"
        rf"\b(?:{_ANSWER}|box(?:es)?)\s+(?:(?:that|which)\s+)?"
        rf"(?:(?:is|are|was|were|has been|have been)\s+)?(?:already\s+)?{_GIVEN}\b",
        # "according to the answer", "consistent with the solution", "matches the bounding box"
        r"\b(?:according to|based on|consistent with|agrees? with|confirm(?:s|ed)? by|match(?:es)?"
        rf"|from|as in|per|in|by|with)\s+the\s+{_ANSWER}\b",
        # but "as specified in the question"
        r"\bas\s+(?:given|provided|supplied|specified)\b(?!\s+(?:in|by)\s+the\s+(?:question"
        r"|instruction|description|first|second|third|image))",
        # but "we are given two images"
        r"\b(?:I|we)\s*(?:was|were|am|are|have been|['’](?:m|re|ve been))\s+(?:given|told|provided)"
        r"\b(?!\s+(?:with\s+)?(?:\w+\s+){0,3}(?:images?|photos?|pictures?|frames?|views?|question"
        r"|description|instruction|region|sequence|scene)\b)",
        r"\b(?:I|we)\s+already\s+know\b|\bbeforehand\b",
        r"\b(?:assum|pretend|imagin)(?:e|es|ing)\s+(?:that\s+)?(?:I|we|you)?\s*"
        r"(?:do not|don['’]t|did not|didn['’]t|not)\s+(?:to\s+)?know",
        r"\bnot\s+suppos(?:e|ed)\s+to\s+(?:know|mention|reveal)\b|\bwithout\s+knowing\s+the\b",
        r"\bworked example\b",
    )
)
# What a question with a marked region may well be said to have given.
_OF_QUESTION = re.compile(
    rf"(?i)(?:{_GIVEN}|marked|target|reference)\s+(?:\w+\s+){{0,2}}?"
    rf"(?:bounding[ -]?box(?:es)?|bbox(?:es)?|coordinates|{_PLACE})"
    r"|(?:bounding[ -]?box|box|bbox|coordinates)\s+(?:(?:that|which)\s+)?"
    rf"(?:(?:is|are|was|were)\s+)?{_GIVEN}"
    r"|(?:in|from|by|with)\s+the\s+(?:bounding[ -]?box|bbox)"
)

_NO_TEXT = ("Cc", "Cs", "Co", "Cn")  # controls, half surrogates, private and unassigned
_NUMBER = re.compile(r"(?<![\w.])(?:\d+(?:\.\d+)?|\.\d+)(?![\w]|\.\d)")
_GROUP = re.compile(
    r"[\[(<{]\s*\d+(?:\.\d+)?\s*%?(?:\s*[,;]\s*\d+(?:\.\d+)?\s*%?){1,7}\s*[\])>}]"
    r"|\b\d{1,5}(?:\.\d+)?\s*,\s*\d{1,5}(?:\.\d+)?\s*,\s*\d{1,5}(?:\.\d+)?\s*,\s*\d{1,5}(?:\.\d+)?"
)
_AXIS = re.compile(r"\b[xy](?:_?(?:[12]|min|max))?\s*(?:=|:|≈|~|is|of)\s*(?:about\s+)?\d", re.I)
_PIXELS = re.compile(r"\b\d+(?:\.\d+)?\s*(?:px|pixels?)\b", re.I)
_SHARE = re.compile(
    r"\b\d+(?:\.\d+)?\s*(?:%|percent)\s+(?:of\s+the\s+(?:way|width|height|image|frame)|from|across"
    r"|down|along|into|to\s+the)\b",
    re.I,
)
_SENTENCE_END = re.compile(r"[.!?](?=\s|\Z)|[。！？\n]")


@dataclass(frozen=True, slots=True)
class ChainCheck:
    """What the rules say about a chain.

    Attributes:
        thinking: without its tags and the white space around it; None where none is readable.
        reasons: the rules that it breaks, words of `REASONS`; empty: none.
    """

    thinking: str | None
    reasons: tuple[str, ...]


def check_chain(
    text: str,
    row: CotRow,
    *,
    finish_reason: str | None,
    min_words: int,
    max_words: int,
    sizes: Sequence[tuple[int, int]] | None = None,
) -> ChainCheck:
    """Hold a teacher's reply against the rules.

    Args:
        text: the whole reply.
        row: what it is about.
        finish_reason: why the teacher stopped, as its server says.
        min_words: least number of words of the thinking.
        max_words: largest number of words of the thinking.
        sizes: (width, height) of the row's images in pixels, if known.
    """
    if finish_reason == "content_filter":
        return ChainCheck(None, ("refused",))
    reasons = ["cut_off"] if finish_reason == "length" else []
    match = _REPLY.match(text)
    thinking = match["thinking"].strip() if match else ""
    if match is None or not thinking:
        return ChainCheck(None, (*reasons, "format"))
    n_words = len(thinking.split())
    broken = {
        "box_differs": not _is_truth(match["answer"], row),
        "marks": _has_marks(thinking),
        "given_answer": _gives_away(thinking, row),
        "coordinates": _has_coordinates(thinking, row, sizes),
        "too_short": n_words < min_words,
        "too_long": n_words > max_words,
        "language": not _is_latin(thinking),
    }
    reasons += [reason for reason, holds in broken.items() if holds]
    if len(row.images) > 1 and (reason := _image_reason(thinking, row)):
        reasons.append(reason)
    return ChainCheck(thinking, tuple(reasons))


def _is_truth(answer: str, row: CotRow) -> bool:
    box = read_answer(answer, get_dialect("norm1000")).box
    return box is not None and all(
        abs(1000 * value - true) <= _BOX_SLACK + 1e-6
        for value, true in zip(box, truth_1000(row.box), strict=True)
    )


def _has_marks(thinking: str) -> bool:
    if _TAG.search(thinking) or any(mark in thinking for mark in (*MEDIA_MARKS, "\ufffd")):
        return True
    return any(c not in "\n\t\r" and unicodedata.category(c) in _NO_TEXT for c in thinking)


def _gives_away(thinking: str, row: CotRow) -> bool:
    if "<|box_start|>" in row.question:
        thinking = _OF_QUESTION.sub("marked region", thinking)
    return any(pattern.search(thinking) for pattern in _GIVEAWAYS)


def _numbers(text: str) -> list[float]:
    return [float(number) for number in _NUMBER.findall(text)]


def _has_coordinates(thinking: str, row: CotRow, sizes: Sequence[tuple[int, int]] | None) -> bool:
    """Positions in numbers, other than the question's own, in any form that looks like one.

    Beside these, two of the true box's four numbers anywhere in the text, on any of the scales
    0-1000, percent, 0-1 or pixels, are one too; one alone may be that of a bus.
    """
    allowed = set(_numbers(teacher_question(row)))
    for group in _GROUP.finditer(thinking):
        if not set(map(float, re.findall(r"\d+(?:\.\d+)?", group[0]))) <= allowed:
            return True
    if _AXIS.search(thinking) or _PIXELS.search(thinking) or _SHARE.search(thinking):
        return True
    numbers = set(_numbers(thinking)) - allowed
    x1, y1, x2, y2 = row.box
    # (x's scale, y's scale, how near, smallest number that is no ordinary count)
    scales = [(1000.0, 1000.0, 1.0, 10.0), (100.0, 100.0, 0.5, 10.0), (1.0, 1.0, 0.005, 0.0)]
    if sizes:
        width, height = sizes[row.target_image]
        scales.append((float(width), float(height), 1.0, 10.0))
    for x_scale, y_scale, near, least in scales:
        truth = (x1 * x_scale, y1 * y_scale, x2 * x_scale, y2 * y_scale)
        said = [
            {i for i, value in enumerate(truth) if abs(number - value) <= near + 1e-9}
            for number in numbers
            if number >= least and (x_scale > 1 or number != int(number))
        ]
        # One number near two sides of the box counts once.
        if sum(map(bool, said)) >= 2 and len(set().union(*said)) >= 2:
            return True
    return False


def _is_latin(thinking: str) -> bool:
    letters = [c for c in thinking if c.isalpha()]
    latin = sum(c.isascii() or unicodedata.name(c, "").startswith("LATIN") for c in letters)
    return bool(letters) and latin >= _LATIN_SHARE * len(letters)


def _image_reason(thinking: str, row: CotRow) -> str | None:
    """Whether the last sentence that names an image names the target's alone."""
    names = find_image_names(thinking, len(row.images))
    if not names:
        return "image_missing"
    last = names[-1][0]
    begin = max((m.end() for m in _SENTENCE_END.finditer(thinking, 0, last)), default=0)
    named = {image for start, _, image in names if start >= begin}
    return None if named == {row.target_image} else "image_other"


def assemble(
    thinking: str,
    row: CotRow,
    dialect: Dialect,
    sizes: list[tuple[int, int]] | None,
) -> str | None:
    """The text to learn: the thinking, and the true box as the dialect writes it.

    Where the question leaves open which image it is, the answer names it before the box.

    Returns:
        None if the text is not read back, by the rule that will score the student, as the true
        box with the thinking apart from it.
    """
    find_image = len(row.images) > 1 and not row.image_is_given
    box = encode_box(row, dialect, sizes)
    label = f"Image-{row.target_image + 1}: " if find_image else ""
    text = f"<think>{thinking}</think><answer>{label}{box}</answer>"
    # With a size of each image but no word on which it is, the reader must find it by the label.
    target = None if find_image else row.target_image
    read = read_answer(text, dialect, image_sizes=sizes, target_image=target)
    alone = read_answer(box, dialect, image_sizes=sizes, target_image=row.target_image)
    sound = (
        read.status == "ok"
        and read.box == alone.box
        and read.n_boxes == 1
        and read.thinking == thinking
        and (not find_image or read.image_index == row.target_image)
    )
    return text if sound else None


_BEST = re.compile(r"<best>\s*(?:[Rr]easoning\s*)?(\d{1,3})\s*</best>")


def read_choice(text: str, n_candidates: int) -> int | None:
    """The candidate (0-based) that a reply chooses; None if it names none of them."""
    found = _BEST.findall(text)
    number = int(found[-1]) if found else 0
    return number - 1 if 1 <= number <= n_candidates else None
