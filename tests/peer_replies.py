"""Replies in the forms that other libraries read, written from templates and changed in many ways.

What UniVG should read of a reply is worked out from its parts, not from its text or by a dialect.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

Size = tuple[int, int]
Box = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The parts of a reply; a part that a family's form does not have changes nothing.

    Attributes:
        boxes: x1, y1, x2, y2 as written, or two cells.
        labels: one a box; None where none is written.
        wh, input_wh: (width, height) of the image, and of the image as the model saw it.
        more: how many numbers too many the first box has; negative for too few.
        gap: white space between numbers or tokens.
        quoted, python, key: spelling of JSON.
        layout: how the objects of JSON stand together.
        fence: opening mark of a code fence.
        cut: the last box ends in its "middle", or right after its numbers ("end").
        before, after: text around.
        spare, use: another box, and where it stands: in "thinking" before or in an answer "again".
        denied: a sentence at the end says that there is no such object.
    """

    boxes: tuple[Box, ...]
    labels: tuple[str | None, ...]
    wh: Size = (1000, 500)
    input_wh: Size = (1000, 1000)
    more: int = 0
    gap: str = ""
    quoted: bool = False
    python: bool = False
    key: str = ""
    layout: str = "list"
    fence: str = ""
    cut: str = ""
    before: str = ""
    after: str = ""
    spare: Box = ()
    use: str = ""
    denied: bool = False


Entry = Callable[[Reply, list[str], str | None], str]


@dataclass(frozen=True, kw_only=True)
class Family:
    """A form and its meaning.

    Attributes:
        dialect: UniVG's name.
        entry: one box with its label, from the numbers as they are written.
        meaning: the numbers on [0, 1] of the image.
        largest: largest number on the scale.
        join: between two entries.
        json: the entries are objects of JSON.
        y_first: y comes before x.
        layout: how JSON stands together where nothing changes it.
        only_key: UniVG reads no other key of a box.
    """

    dialect: str
    entry: Entry
    meaning: Callable[[Box, Size], Box]
    largest: float = 1000
    join: str = ""
    json: bool = False
    y_first: bool = False
    layout: str = "list"
    only_key: bool = False

    @property
    def decimals(self) -> bool:
        """Whether numbers may have decimals; those of tokens are whole."""
        return self.json or self.dialect == "glm_v"

    def render(self, reply: Reply) -> str:
        """The text of a reply."""
        entries = [self._entry(reply, i) for i in range(len(reply.boxes))]
        text = _arranged(entries, reply, self.layout) if self.json else self.join.join(entries)
        if reply.use:
            plain = {"more": 0, "cut": "", "before": "", "after": "", "use": "", "denied": False}
            alone = {"boxes": (reply.spare,), "labels": reply.labels[:1]}
            other = self.render(replace(reply, **plain, **alone))
            text = (
                f"<think>It may be {other}</think>\n{text}"
                if reply.use == "thinking"
                else f"{text}\n\nOn second thought:\n{other}"
            )
        if reply.denied:
            text += "\nThere is no such object."
        return reply.before + text + reply.after

    def _entry(self, reply: Reply, i: int) -> str:
        n = list(reply.boxes[i])
        if self.y_first:
            n[:] = n[1], n[0], n[3], n[2]
        if i == 0 and reply.more:
            n = [*n, n[-1]][: len(n) + reply.more]
        written = [f'"{number}"' if reply.quoted and self.json else str(number) for number in n]
        entry = self.entry(reply, written, reply.labels[i])
        if reply.cut and i == len(reply.boxes) - 1:
            for span in _NUMBERS.finditer(entry):
                if list(map(float, _NUMBER.findall(span[0]))) == list(map(float, n)):
                    start, end = span.span()
                    return entry[: end if reply.cut == "end" else (start + end) // 2]
        return entry

    def expected(self, reply: Reply) -> list[Box]:
        """The boxes that UniVG should read."""
        if reply.denied or (reply.key and self.only_key):
            return []
        raw = list(reply.boxes)
        if reply.cut == "middle":
            raw = raw[:-1]
        if reply.more and not (self.entry is _corners and reply.more > 0):
            raw = raw[1:]
        raw += [reply.spare] * (reply.use == "again")
        boxes = [self.meaning(box, reply.input_wh) for box in raw]
        return [cut for box in boxes if (cut := clipped(box))]


_NUMBERS = re.compile(
    r"[\[({<][\d.,\s\"]*[\])}>]|<bbox>[\d.,\s]*</bbox>|(?:<(?:loc_?|patch_index_)\d+>\s*)+|[\"']x_min[^{}]*"
)
_NUMBER = re.compile(r"[\d.]+")


def clipped(box: Box) -> Box | None:
    """The box cut to the image; None if it is inverted, empty or outside."""
    x1, y1, x2, y2 = (min(max(value, 0.0), 1.0) for value in box)
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def _arranged(entries: list[str], reply: Reply, layout: str) -> str:
    layout = layout if reply.layout == "list" else reply.layout
    if layout == "lines":
        return "\n".join(entries)
    between, end = {"no comma": ("\n", ""), "last comma": (",\n", ",")}.get(layout, (",\n", ""))
    text = f"[\n{between.join(entries)}{end}" + ("" if reply.cut else "\n]")
    if layout in ("boxes", "objects"):
        mark = "'" if reply.python else '"'
        text = f"{{{mark}{layout}{mark}: {text}" + ("" if reply.cut else "}")
    return f"{reply.fence}\n{text}" + ("" if reply.cut else "\n```") if reply.fence else text


# --- forms ---------------------------------------------------------------------------------------


def _quote(text: str, reply: Reply) -> str:
    return repr(text) if reply.python else json.dumps(text, ensure_ascii=False)


def _object(key: str) -> Entry:
    def entry(reply: Reply, numbers: list[str], label: str | None) -> str:
        value = f"[{f', {reply.gap}'.join(numbers)}]"
        text = f"{_quote(reply.key or key, reply)}: {value}"
        if label is not None:
            text += f", {_quote('label', reply)}: {_quote(label, reply)}"
        return f"{{{text}}}"

    return entry


def _corners(reply: Reply, numbers: list[str], label: str | None) -> str:
    names = (_quote(name, reply) for name in ("x_min", "y_min", "x_max", "y_max"))
    edges = [f"{name}: {number}" for name, number in zip(names, numbers, strict=False)]
    return f"{{{f', {reply.gap}'.join(edges)}}}"


def _paligemma(reply: Reply, numbers: list[str], label: str | None) -> str:
    tokens = reply.gap.join(f"<loc{number:0>4}>" for number in numbers)
    return tokens if label is None else f"{tokens} {label}"


def _florence(reply: Reply, numbers: list[str], label: str | None) -> str:
    return (label or "") + reply.gap.join(f"<loc_{number}>" for number in numbers)


def _kosmos(reply: Reply, numbers: list[str], label: str | None) -> str:
    cells = reply.gap.join(f"<patch_index_{number:0>4}>" for number in numbers)
    phrase = "" if label is None else f"<phrase>{label}</phrase>"
    return f"{phrase}<object>{cells}</object>"


def _deepseek(reply: Reply, numbers: list[str], label: str | None) -> str:
    phrase = "" if label is None else f"<|ref|>{label}<|/ref|>"
    return f"{phrase}<|det|>[[{f', {reply.gap}'.join(numbers)}]]<|/det|>"


def _glm(opening: str, closing: str) -> Entry:
    def entry(reply: Reply, numbers: list[str], label: str | None) -> str:
        return f"{opening}{reply.gap}{f',{reply.gap}'.join(numbers)}{reply.gap}{closing}"

    return entry


# --- meanings ------------------------------------------------------------------------------------


def _over(divisor: float, offset: float = 0.0) -> Callable[[Box, Size], Box]:
    return lambda raw, input_wh: tuple((value + offset) / divisor for value in raw)


def _of_input(raw: Box, input_wh: Size) -> Box:
    return tuple(value / side for value, side in zip(raw, input_wh * 2, strict=True))


def _cells(raw: Box, input_wh: Size) -> Box:
    (row1, column1), (row2, column2) = (divmod(int(cell), 32) for cell in raw)
    half = 0 if row1 == row2 or column1 == column2 else 1
    corners = 2 * column1 + half, 2 * row1 + half, 2 * column2 + 2 - half, 2 * row2 + 2 - half
    return tuple(corner / 64 for corner in corners)


_GEMINI = Family(
    dialect="gemini",
    entry=_object("box_2d"),
    meaning=_over(1000),
    json=True,
    y_first=True,
    only_key=True,
)
_GLM_BRACKETS = (
    *(("[", "]"), ("[[", "]]"), ("{", "}"), ("(", ")"), ("<", ">")),
    ("<bbox>", "</bbox>"),
)
FAMILIES: dict[str, Family] = {
    "paligemma": Family(
        dialect="paligemma",
        entry=_paligemma,
        meaning=_over(1023),
        largest=1023,
        join=" ; ",
        y_first=True,
    ),
    "florence_2": Family(
        dialect="florence2", entry=_florence, meaning=_over(1000, 0.5), largest=999
    ),
    "kosmos_2": Family(dialect="kosmos2", entry=_kosmos, meaning=_cells, join=" and"),
    "deepseek_vl_2": Family(
        dialect="deepseek_vl2", entry=_deepseek, meaning=_over(999), largest=999
    ),
    "qwen_2_5_vl": Family(
        dialect="qwen2_5_vl", entry=_object("bbox_2d"), meaning=_of_input, json=True
    ),
    "qwen_3_vl": Family(
        dialect="qwen3_vl", entry=_object("bbox_2d"), meaning=_over(1000), json=True
    ),
    "gemini_2_0": _GEMINI,
    "gemini_2_5": _GEMINI,
    "gemini_3_5": _GEMINI,
    "gemini_3_6": replace(_GEMINI, layout="boxes"),
    "gemini_3_7": replace(_GEMINI, layout="boxes"),
    "moondream": Family(
        dialect="moondream",
        entry=_corners,
        meaning=_over(1),
        largest=1,
        json=True,
        layout="objects",
    ),
    **{
        f"glm {opening}": Family(
            dialect="glm_v", entry=_glm(opening, closing), meaning=_over(1000), join=", "
        )
        for opening, closing in _GLM_BRACKETS
    },
    "glm bbox_2d": Family(
        dialect="glm_v", entry=_object("bbox_2d"), meaning=_over(1000), json=True
    ),
}
"""The forms; their names begin with that of the peer that reads them."""

# --- changes -------------------------------------------------------------------------------------


def _swapped(box: Box) -> Box:
    return (*box[len(box) // 2 :], *box[: len(box) // 2])


def _flat(box: Box) -> Box:
    return (box[0], *box[1:-2], box[0], *box[3:])


def _beyond(box: Box) -> Box:
    if len(box) == 2:
        return (box[0], box[1] + 1024)
    return (*box[:-1], 1.2 if isinstance(max(box), float) and max(box) <= 1 else 1100)


CHANGES: dict[str, dict[str, Any] | Callable[[Reply], dict[str, Any]]] = {
    # of the numbers
    "corners swapped": lambda reply: {"boxes": (_swapped(reply.boxes[0]), *reply.boxes[1:])},
    "edges equal": lambda reply: {"boxes": (_flat(reply.boxes[0]), *reply.boxes[1:])},
    "beyond the image": lambda reply: {"boxes": (*reply.boxes[:-1], _beyond(reply.boxes[-1]))},
    "a number too many": {"more": 1},
    "a number missing": {"more": -1},
    "numbers in quotes": {"quoted": True},
    # of the entry
    "spaces": {"gap": " "},
    "lines": {"gap": "\n"},
    "no label": lambda reply: {"labels": (None,) * len(reply.boxes)},
    "marks in the label": lambda reply: {"labels": ('"the" 2nd, [red] {cat}',) * len(reply.boxes)},
    "numbers in the label": lambda reply: {"labels": ("10, 20, 30, 40",) * len(reply.boxes)},
    "box in the label": lambda reply: {"labels": ("[10, 20, 30, 40]",) * len(reply.boxes)},
    "other alphabet in the label": lambda reply: {"labels": ("红色的杯子",) * len(reply.boxes)},
    "another key": {"key": "bbox"},
    # of JSON
    "single quotes": {"python": True},
    "comma at the end": {"layout": "last comma"},
    "comma missing": {"layout": "no comma"},
    "an object a line": {"layout": "lines"},
    "a list alone": {"layout": "alone"},
    "under the key boxes": {"layout": "boxes"},
    "code fence": {"fence": "```json"},
    "code fence without a name": {"fence": "```"},
    # of the whole
    "cut in the numbers": {"cut": "middle"},
    "cut after the numbers": {"cut": "end"},
    "words around": {"before": "Here it is: ", "after": "\nI hope that this helps."},
    "brackets before": {"before": "Objects [two]: "},
    "answer tags": {"before": "<answer>", "after": "</answer>"},
    "end token": {"after": "<|im_end|>"},
    "thinking": {"use": "thinking"},
    "two answers": {"use": "again"},
    "absence": {"denied": True},
}
"""What changes a reply, by the name under which the page lists how peers differ."""


def changed(reply: Reply, names: Iterable[str]) -> Reply:
    """The reply with some of `CHANGES`."""
    for name in names:
        change = CHANGES[name]
        reply = replace(reply, **(change(reply) if callable(change) else change))
    return reply
