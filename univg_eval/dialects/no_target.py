"""Sentences by which a model says that there is no such object: "None.", "There are none."

Only whole sentences count, and only about all that was asked for: "None of the others match." is
part of an answer, and so is what a text inside a JSON object ("label", "reason") says.
"""

from __future__ import annotations

import re

from univg_eval.dialects._grammar import LABEL_TEXT

__all__ = ["find_no_target"]

_NONE = re.compile(
    r"(?i)(?<![a-z0-9_\"'<&|-])(?:"
    r"(?:(?:there|it)\s(?:is|are|was|were)\s|i\s(?:see|find|found)\s)?"
    r"(?:none|no\s(?:such|matching|corresponding|relevant|target|visible)?\s?"
    r"(?:objects?|things?|targets?|instances?|items?|regions?|persons?|match(?:es)?"
    r"|(?:bounding\s)?box(?:es)?))"
    r"(?:\s(?:exists?|is|are|was|were|be|found|visible|present|detected|here|can)){0,4}+"
    r"|null|nothing|n/a"
    r"|the\s(?:target\s|described\s|requested\s)?(?:object|target|item)\s"
    r"(?:is\snot\s|isn't\s|was\snot\s|does\snot\s|doesn't\s|cannot\sbe\s|can't\sbe\s)"
    r"(?:present|visible|found|shown|there|exist|appear|detected|in)\b"
    # "There is no red umbrella in the image", but not "there are no other umbrellas".
    r"|there\s(?:is|are|was|were)\s(?:no|not\san?|not\sany)\s"
    r"(?!(?:other|more|further|additional|second|doubt|need|way|clear|obvious)\b)"
    r"(?:[\w'-]{1,20}+\s){1,8}?"
    r"(?:visible|present|shown|here|in\s(?:the|this|any|either|these|both)\s[\w-]{1,20}+)"
    # "in the image", but not "of the others", "in any of the other images".
    r")(?:\s(?:in|on|within|of|at)(?!(?:\s[\w-]{1,20}+){0,4}?\s(?:others?|rest|remaining)\b)"
    r"(?:\s[\w-]{1,20}+){1,5}?)?"
    r"[*_)]{0,3}+\s{0,4}(?=[.!<`\n]|\Z)"
)
_MAY_BE_NONE = re.compile(r"[Nn][OoUu/]|isn't|doesn't|can't")
# What may stand before such a sentence: the start, the end of another, a line break, a tag, the
# bracket that ends a box, a word that announces the answer, or one that opens a sentence.
_SENTENCE_START = re.compile(
    r"(?:\A|[.!?>\n]|[0-9\"'\])}]\s?[\])}]|```(?:json)?"
    r"|(?i:\b(?:answer|bbox(?:_2d)?|box(?:es)?|output|result|target|object|location"
    r"|coordinates|image[ -]?[0-9]{1,2}))[*_]{0,2}:"
    r"|(?i:\b(?:(?:actually|sorry|unfortunately)[,:]?|(?:no|but|so|however|therefore|thus|hence|well"
    r"|wait)[,:])))[\s*_`(]*\Z"
)

_LABEL_TEXT = re.compile(rf"[\"']{LABEL_TEXT}")


def find_no_target(section: str) -> list[tuple[int, int]]:
    """Spans of the sentences of a text that say that there is no such object, in order."""
    spans: list[tuple[int, int]] = []
    if _MAY_BE_NONE.search(section) is None:
        return spans
    texts = [match.span() for match in _LABEL_TEXT.finditer(section)]
    next_text = 0
    for match in _NONE.finditer(section):
        start = match.start()
        while next_text < len(texts) and texts[next_text][1] <= start:
            next_text += 1
        if next_text < len(texts) and texts[next_text][0] < start:
            continue
        before = section[max(0, start - 24) : start]
        if start > 24:
            before = "x" + before  # keeps \A from matching the cut
        if _SENTENCE_START.search(before):
            spans.append(match.span())
    return spans
