"""Thinking and answer section of a response, by the marks of all families.

*Thinking* is removed first: everything up to the last closing mark of any family's thinking tags;
then, from an opening mark that was never closed to the next ``<answer>`` or the end. The *answer
section* is the last ``<answer>…</answer>`` of what is left (an unclosed one counts), else the last
``<|begin_of_box|>`` span, else all that is left.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

__all__ = ["THINKING_MARKS", "Split", "count_marks", "split_response"]

_OPENING, _CLOSING, _ANSWER, _ANSWER_END, _SPAN, _SPAN_END = range(1, 7)

THINKING_MARKS = (
    # <think>: Qwen, DeepSeek, GLM, MiMo, MiniCPM, InternVL, Kimi-K2; <thought>: Gemini's
    # OpenAI-compatible service and Marco-o1; <reasoning>: LLaVA-CoT.
    *((f"<{name}>", f"</{name}>") for name in ("think", "thinking", "thought", "thoughts")),
    *((f"<{name}>", f"</{name}>") for name in ("analysis", "reasoning", "seed:think")),
    ("[THINK]", "[/THINK]"),  # Mistral
    ("◁think▷", "◁/think▷"),  # Kimi-VL
    ("<|think|>", "<|/think|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),  # OpenThoughts and relatives
    ("<|channel>", "<channel|>"),  # Gemma 4
)
"""Opening and closing mark of thinking, in any case of letters. Any closes what any opened."""


def _any_of(marks: Iterable[str]) -> str:
    # All begin with one of three characters, which keeps the search quick.
    return "|".join(re.escape(mark[1:]) for mark in marks)


_MARKS = re.compile(
    rf"(?i)(?:[<◁]|\[(?=/?think\]))(?:({_any_of(opening for opening, _ in THINKING_MARKS)})"
    rf"|({_any_of(closing for _, closing in THINKING_MARKS)})"
    r"|(answer>)|(/answer>)|(\|begin_of_box\|>)|(\|end_of_box\|>))"
)


def count_marks(text: str) -> int:
    """How many marks of thinking and answer stand in a text."""
    return sum(1 for _ in _MARKS.finditer(text))


class Split(NamedTuple):
    """A response taken apart.

    Attributes:
        section: the answer section.
        thinking: the removed text without its outermost marks; None where there was none.
        unclosed: thinking or answer was opened and never closed.
    """

    section: str
    thinking: str | None
    unclosed: bool


@lru_cache(maxsize=128)
def split_response(text: str) -> Split:
    """Take a response apart by the rule at the top of this module; linear in its length."""
    marks = [(m.lastindex, m.start(), m.end()) for m in _MARKS.finditer(text)]
    if not marks:
        return Split(text, None, False)
    thoughts: list[str] = []
    rest = 0  # what is left of the text starts here
    first_left = 0  # index of the first mark in it
    for i in range(len(marks) - 1, -1, -1):
        kind, start, end = marks[i]
        if kind == _CLOSING:
            opened = marks[0]
            thoughts.append(text[opened[2] if opened[0] == _OPENING else 0 : start])
            rest, first_left = end, i + 1
            break

    # From an unclosed opening mark to the next <answer> or the end all is thinking too.
    left: list[tuple[int | None, int, int]] = []
    unclosed = False
    thought_start: int | None = None
    cut = len(text)
    for mark in marks[first_left:]:
        kind, start, end = mark
        if thought_start is not None:
            if kind == _ANSWER:
                thoughts.append(text[thought_start:start])
                thought_start, cut = None, len(text)
                left.append(mark)
        elif kind == _OPENING:
            thought_start, cut, unclosed = end, start, True
        else:
            left.append(mark)
    if thought_start is not None:
        thoughts.append(text[thought_start:])
    thinking = "\n".join(thought.strip() for thought in thoughts) if thoughts else None

    # Thinking that is cut out ends at an <answer>, so nothing lies between the last one and `cut`;
    # without any <answer> there is one cut at most, at the end.
    for opening, closing in ((_ANSWER, _ANSWER_END), (_SPAN, _SPAN_END)):
        for i in range(len(left) - 1, -1, -1):
            if left[i][0] != opening:
                continue
            start = left[i][2]
            for kind, end, _ in left[i + 1 :]:
                if kind == closing:
                    return Split(text[start:end], thinking, unclosed)
            return Split(text[start:cut], thinking, True)
    return Split(text[rest:cut], thinking, unclosed)
