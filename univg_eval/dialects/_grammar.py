"""One scanner for all grammars: finds the boxes of a text, and which of them stand together.

A grammar is a list of box forms (regular expressions) and the JSON keys under which a list counts
as a box. One pass over the text finds boxes, code fences, JSON containers, keys and nulls; what
is none of them is prose and is passed over. Nothing is ever read twice: every repetition is
possessive or bounded, so that the time is linear in the text's length, and nothing recurses.
JSON is read tolerantly: single quotes, missing commas, commas before a bracket's end, numbers in
quotes, an end tag instead of the bracket and a missing end do no harm. Objects that follow each
other with nothing but white space, commas and semicolons between (JSON Lines) are one value, as in
a list. What stands between ``<tool_call>`` tags is a request to a tool and no answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from univg_eval.dialects.image_names import find_image_names, read_image_value

__all__ = [
    "COMMA",
    "NUMBER",
    "PAIR",
    "PAIRS",
    "SPACE_OR_COMMA",
    "STRING",
    "XY_OBJECT",
    "Found",
    "Grammar",
    "bare_line",
    "four_in",
    "grammar",
    "in_tags",
]

Found = tuple[int, int, tuple[float, ...] | None, int, int | None]
"""(start, end, numbers, value, image): a span of the text; the numbers as written, or None for an
explicit "nothing" (null, an empty list); the JSON object or code fence it stands in (0 outside);
the 0-based image that a key of its object names, or None."""

# ASCII digits only: digits of other scripts are no numbers. 40 digits are beyond every image;
# a longer run is no number at all.
NUMBER = (
    r"[-+]?(?:(?:[0-9]{1,40}+(?:\.[0-9]{0,40}+)?+|\.[0-9]{1,40}+)(?:[eE][-+]?+[0-9]{1,4}+)?+"
    r"|[Ii]nf(?:inity)?|[Nn]a[Nn])"
)
_FINITE = r"[-+]?(?:[0-9]{1,40}+(?:\.[0-9]{1,40}+)?+|\.[0-9]{1,40}+)"
COMMA = r"\s*+,\s*+"
SPACE_OR_COMMA = r"(?:\s*+,\s*+|\s++)"

# (x1,y1),(x2,y2), white space and the comma between the pairs optional.
PAIRS = rf"\(\s*+{NUMBER}{COMMA}{NUMBER}\s*+\)\s*+,?+\s*+\(\s*+{NUMBER}{COMMA}{NUMBER}\s*+\)"

# One point: (x, y) or [x, y], and {"x": x, "y": y}.
PAIR = rf"(?:\(\s*+{NUMBER}{COMMA}{NUMBER}\s*+\)|\[\s*+{NUMBER}{COMMA}{NUMBER}\s*+\])"
XY_OBJECT = rf"\{{\s*+[\"']x[\"']\s*+:\s*+{NUMBER}{COMMA}[\"']y[\"']\s*+:\s*+{NUMBER}\s*+\}}"


def four_in(opening: str, closing: str, separator: str = COMMA, *, more: str = "") -> str:
    """Pattern of exactly four numbers between brackets.

    Args:
        opening: characters that may open.
        closing: characters that may close.
        separator: pattern between two numbers.
        more: character that may separate further boxes in the same brackets ("" for none).
    """
    box = separator.join([rf"[\"']?+{NUMBER}[\"']?+"] * 4) + r"\s*+,?+\s*+"
    opening, closing = re.escape(opening), re.escape(closing)
    if more:
        # A reply cut inside a later box still ends its first one at the separator.
        return rf"[{opening}]\s*+{box}(?:{more}\s*+{box})*+[{closing}{more}]"
    return rf"[{opening}]\s*+{box}(?:[{closing}]|(?=</))"


def in_tags(tag: str) -> str:
    """Pattern of ``<tag>`` and four numbers up to the next tag."""
    return rf"<{tag}>\s*+{SPACE_OR_COMMA.join([NUMBER] * 4)}\s*+(?=<)"


def bare_line(separator: str = SPACE_OR_COMMA) -> str:
    """Pattern of a line that holds four numbers and nothing else."""
    horizontal = separator.replace(r"\s", r"[^\S\n]")
    return rf"(?m:^)[^\S\n]*+{horizontal.join([_FINITE] * 4)}[^\S\n]*+(?m:$)"


_LABEL_KEYS = (
    "label|text_content|text|caption|description|name|category|class|phrase|mask|reason"
    "|reasoning|thought|explanation|type|color"
)
_IMAGE_KEYS = r"(?:image|img|picture|photo|frame)(?:[_ -]?(?:index|idx|id|number|no|name))?"
# Strings end with their line at the latest: one that is never closed must not swallow the rest.
_DOUBLE_QUOTED = r'"(?:[^"\\\n]++|\\.)*+"?+'
_SINGLE_QUOTED = r"'(?:[^'\\\n]++|\\.)*+'?+"
STRING = f"(?:{_DOUBLE_QUOTED}|{_SINGLE_QUOTED})"

# Groups of the token pattern.
_LINE, _PASSED, _BOX, _QUOTED, _FENCE, _IMAGE, _CORNER, _KEY, _NULL, _OPEN, _CLOSE = range(1, 12)

# Spans that look like boxes and are none: four-cornered regions, points, 3D boxes, phrases, texts;
# where points are read, boxes in the place of points.
_SKIPPED_TAGS = (
    r"<(?:(?:\|quad_start\|>|quad>|3dbbox>|{other})[^<]*+"
    r"|(?:\|object_ref_start\||\|ref\||ref|phrase)>[^<]{{0,300}}+(?=</|<\|)"
    r"|(?i:tool_call)>[^<]*+(?:<(?!/?(?i:tool_call)>)[^<]*+)*+)"
)
_LABEL_TEXT = rf"(?:{_LABEL_KEYS})[\"']\s*+:\s*+{STRING}"
# Brackets in such a row are no JSON.
_SKIPPED_BRACKETS = r"[\[{]{9,}+|[\]}]{9,}+"
_CORNER_NAMES = {
    name: i
    for i, names in enumerate(
        (
            ("x_min", "xmin", "x1", "left"),
            ("y_min", "ymin", "y1", "top"),
            ("x_max", "xmax", "x2", "right"),
            ("y_max", "ymax", "y2", "bottom"),
        )
    )
    for name in names
}
_NEVER = r"(?!)"
_ANY_NUMBER = re.compile(NUMBER)
_JOINING = re.compile(r"[\s,;]*+")
# A key or a label of one or two words before a bracket: "uncertainty": [] or Errors: [].
_LABEL_BEFORE = re.compile(
    r"(?:[\"']|(?:\A|\n)[\s*_-]*)(\w{1,40}(?: \w{1,40})?)[\"'*_]{0,4}\s*[:=]\Z"
)
_ANNOUNCING = frozenset({"output", "response", "json", "location", "coordinates", "final answer"})
_NULL_VALUE = r"(?:(?:null|None)\b|[\"'](?i:none|null|n/a|not (?:found|visible|present))\.?[\"'])"
_NULLS = re.compile(r"(?:[\s,]++|null\b|None\b)*+")
_CORNER_PARTS = re.compile(rf"([a-z0-9_]+)[\"']\s*+:\s*+[\"']?+({NUMBER})")
_IMAGE_VALUE = re.compile(r":\s*+[\"']?([^\"']*)")

# A list under one of these keys, or null in its place, says something about boxes.
_CONTAINER_KEYS = frozenset(
    {"objects", "object", "boxes", "bboxes", "results", "result", "detections", "answer", "target"}
)
_NO_BOX_KEYS = frozenset(
    {"quad", "polygon", "points", "point", "point_2d", "keypoints", "color", "colour", "size"}
)
# What stands under one of these is a request to a tool and no answer.
_TOOL_KEYS = frozenset({"arguments", "parameters", "args"})
_MAX_DEPTH = 32
# Two words in a row outside of a string: the bracket before was none of JSON's, or was never
# closed; what follows does not belong to it.
_BARE_WORD = r"\b(?!(?:true|false|null|nan|True|False|None|NaN|[Ii]nf(?:inity)?)\b)[A-Za-z]{2,}+"
_PROSE = re.compile(rf"{_BARE_WORD}[,.;:!?]?+[ \t]++{_BARE_WORD}")


class _Frame:
    """An open bracket while scanning."""

    __slots__ = ("corners", "first", "image", "is_object", "key", "nulls", "start")

    def __init__(self, is_object: bool, start: int, first: int) -> None:
        self.is_object = is_object
        self.start = start
        self.first = first
        self.key: str | None = None
        self.image: int | None = None
        self.corners: dict[int, float] | None = None
        self.nulls: set[int | None] = set()  # images of the nulls in it


@dataclass(frozen=True, slots=True)
class Grammar:
    """How a family writes boxes; made by `grammar`.

    Attributes:
        token: finds boxes, skipped spans, fences, keys, nulls and brackets.
        number: finds the numbers within a box's span.
        arity: numbers of one box.
        keys: JSON keys under which a list is a box; None for every key but those of other things
            (points, polygons, colours).
        gap: what may stand between two boxes of one unit.
    """

    token: re.Pattern[str]
    number: re.Pattern[str]
    arity: int
    keys: frozenset[str] | None
    gap: re.Pattern[str]

    def scan(self, text: str) -> list[Found]:
        """All boxes and explicit nulls of `text`, in order."""
        found: list[Found] = []
        stack: list[_Frame] = []
        fence = 0  # 1 + where the open code fence starts
        value_first = 0  # how many were found before the open top-level value
        value_id = 0
        object_end = -1  # where the last top-level object ended
        for match in self.token.finditer(text):
            kind = match.lastindex
            if stack and kind != _LINE:
                start, end = match.span(_PASSED)
                if end - start > 4 and _PROSE.search(text, start, end):
                    self._end_value(stack, found, value_first, value_id, start, fence)
            if kind == _PASSED:
                continue
            if kind in (_BOX, _LINE, _QUOTED):
                if stack and not self._is_box_key(stack):
                    continue
                if kind == _QUOTED and not (stack and stack[-1].key):
                    continue
                start, end = match.span(kind)
                number = _ANY_NUMBER if kind == _QUOTED else self.number
                numbers = number.findall(text, start, end)
                n = len(numbers)
                value = fence or (self._value(stack, value_id) if stack else 0)
                if n == self.arity:
                    found.append((start, end, tuple(map(float, numbers)), value, None))
                    continue
                # A run of tokens: several boxes, or, if it does not come out even, a polygon;
                # at the end of the text it may have been cut.
                if n % self.arity and end != len(text):
                    continue
                for i in range(0, n - self.arity + 1, self.arity):
                    raw = tuple(map(float, numbers[i : i + self.arity]))
                    found.append((start, end, raw, value, None))
            elif kind == _KEY:
                if stack and stack[-1].is_object:
                    stack[-1].key = match[_KEY]
            elif kind == _OPEN:
                start = match.start(_OPEN)
                if stack and len(stack) == _MAX_DEPTH:
                    # Brackets without end are no JSON; start afresh.
                    self._end_value(stack, found, value_first, value_id, start, fence)
                if not stack:
                    gap = _JOINING.match(text, object_end) if object_end >= 0 else None
                    if gap is None or gap.end() != start or text[start] != "{":
                        value_first, value_id = len(found), start + 1
                stack.append(_Frame(text[start] == "{", start, len(found)))
            elif kind == _CLOSE:
                if not stack:
                    continue
                is_object = match[_CLOSE] == "}"
                depth = len(stack) - 1
                while depth >= 0 and stack[depth].is_object is not is_object:
                    depth -= 1
                if depth < 0:
                    continue
                end = match.end()
                opened = stack[depth].start
                is_null = not is_object and _is_null_list(text, opened, end - 1)
                if depth:
                    self._close_to(stack, depth, found)
                    if is_null:
                        self._note_null(stack)
                    continue
                if is_null and self._is_null_label(text, opened):
                    stack[0].nulls = {None}
                self._end_value(stack, found, value_first, value_id, end, fence)
                object_end = end if is_object else -1
            elif kind == _NULL:
                if stack and stack[-1].is_object:
                    stack[-1].key = match[_KEY]
                    self._note_null(stack)
            elif kind == _FENCE:
                if stack:
                    end = match.start(_FENCE)
                    self._end_value(stack, found, value_first, value_id, end, fence)
                fence = 0 if fence else match.end() + 1
            elif kind == _IMAGE:
                if stack:
                    named = _IMAGE_VALUE.search(match[_IMAGE])
                    image = read_image_value(named[1]) if named else None
                    if image is not None:
                        self._innermost_object(stack).image = image
            elif kind == _CORNER and stack and stack[-1].is_object:
                self._corner(match, stack, found, fence or self._value(stack, value_id))
        if stack:
            self._end_value(stack, found, value_first, value_id, len(text), fence)
        return found

    def _end_value(
        self,
        stack: list[_Frame],
        found: list[Found],
        value_first: int,
        value_id: int,
        end: int,
        fence: int,
    ) -> None:
        """End the open top-level value at `end`, closed or not.

        Its nulls are one, and say nothing beside a box; one of an image speaks of that image.
        """
        top = stack[0]
        self._close_to(stack, 0, found)
        images = sorted(image for image in top.nulls if image is not None)
        if len(images) == len(top.nulls):
            value = fence or value_id
            found[top.first : top.first] = [(top.start, end, None, value, i) for i in images]
        elif len(found) == value_first:
            found.append((top.start, end, None, fence, None))

    def _corner(
        self, match: re.Match[str], stack: list[_Frame], found: list[Found], value: int
    ) -> None:
        """Take one named edge; the fourth completes the box."""
        frame = stack[-1]
        parts = _CORNER_PARTS.search(match[_CORNER])
        if parts is None:
            return
        if frame.corners is None:
            frame.corners = {}
        frame.corners[_CORNER_NAMES[parts[1]]] = float(parts[2])
        if len(frame.corners) == 4:
            raw = tuple(frame.corners[i] for i in range(4))
            frame.corners = None
            found.append((frame.start, match.end(), raw, value, None))

    @staticmethod
    def _value(stack: list[_Frame], value_id: int) -> int:
        """Identity of the JSON value around if it holds an object, else 0.

        Lists alone are brackets, not JSON values: ``[1,2,3,4], [5,6,7,8]`` is one list of boxes.
        """
        for frame in stack:
            if frame.is_object:
                return value_id
        return 0

    @staticmethod
    def _innermost_object(stack: list[_Frame]) -> _Frame:
        for frame in reversed(stack):
            if frame.is_object:
                return frame
        return stack[0]

    def _is_box_key(self, stack: list[_Frame]) -> bool:
        if _is_request(stack):
            return False
        for frame in reversed(stack):
            if frame.is_object:
                if frame.key is None:
                    return True
                if self.keys is None:
                    return frame.key not in _NO_BOX_KEYS
                return (
                    frame.key in self.keys
                    or frame.key in _CONTAINER_KEYS
                    # {"Image-2": [...]}: the key says where, not what.
                    or bool(find_image_names(frame.key))
                )
        return True

    def _note_null(self, stack: list[_Frame]) -> None:
        """Note an explicit null where the innermost key, if any, is one of boxes."""
        key = next((frame.key for frame in reversed(stack) if frame.is_object), None)
        if (key is None or self._is_about_boxes(key)) and not _is_request(stack):
            stack[-1].nulls.add(_image_of(stack[-1].key))

    def _is_about_boxes(self, key: str) -> bool:
        return (
            key in _CONTAINER_KEYS
            or "box" in key
            or (self.keys is not None and key in self.keys)
            or bool(find_image_names(key))
        )

    def _is_null_label(self, text: str, opened: int) -> bool:
        """Whether an empty list outside of all objects says something about boxes.

        It does as a value of its own; not under a label of something else.
        """
        before = text[max(0, opened - 90) : opened].rstrip()
        label = _LABEL_BEFORE.search(before) if before.endswith((":", "=")) else None
        if label is None:
            return True
        name = label[1].lower()
        return name in _ANNOUNCING or self._is_about_boxes(name)

    @staticmethod
    def _close_to(stack: list[_Frame], depth: int, found: list[Found]) -> None:
        """Close all brackets above `depth`; an object's image key labels what is inside it."""
        while len(stack) > depth:
            frame = stack.pop()
            outer = stack[-1] if stack else None
            if None in frame.nulls:
                image = frame.image
                if image is None and outer:
                    image = _image_of(outer.key)
                frame.nulls.remove(None)
                frame.nulls.add(image)
            if outer and frame.nulls:
                outer.nulls |= frame.nulls
            if frame.image is None:
                continue
            for i in range(frame.first, len(found)):
                start, end, raw, value, image = found[i]
                if image is None:
                    found[i] = (start, end, raw, value, frame.image)


def _image_of(key: str | None) -> int | None:
    """The image that a key names, as in {"Image-2": []}."""
    names = find_image_names(key) if key else ()
    return names[0][2] if names else None


def _is_request(stack: list[_Frame]) -> bool:
    return any(frame.key in _TOOL_KEYS for frame in stack)


def _is_null_list(text: str, opened: int, closed: int) -> bool:
    match = _NULLS.match(text, opened + 1, closed)
    return match is not None and match.end() == closed


# White space, commas, semicolons, brackets, tags, and phrases between the tags that mark them.
_TAG = r"</?+[^<>]{1,60}+>"
_PHRASE = r"<(?:\|object_ref_start\||ref|\|ref\||phrase|p)>[^<]{0,300}+"
_GAP = re.compile(rf"(?:[\s,;\[\](){{}}]++|{_PHRASE}|{_TAG})*+")
# Families whose labels stand bare beside the box tokens.
_LABEL_GAP = re.compile(r"(?:[^<.!?\n]{0,120}+(?:<[^<>]{1,60}+>)?+){0,40}+")


def grammar(
    *forms: str,
    alone: str = "",
    arity: int = 4,
    number: str = NUMBER,
    keys: Iterable[str] | None = (),
    named_corners: bool = False,
    bare_labels: bool = False,
    points: bool = False,
) -> Grammar:
    """A grammar of these box forms.

    Args:
        forms: patterns of a box, most specific first: without capturing groups, and each
            beginning with a bracket or a tag.
        alone: pattern of a line that is a box by itself, see `bare_line`.
        arity: numbers of one box.
        number: pattern of one number within a box's span.
        keys: JSON keys under which a list is a box; empty for a family without JSON (a list
            without key always counts if a form allows it); None for every key.
        named_corners: objects with x_min, y_min, x_max, y_max (or x1 …, left …) are boxes.
        bare_labels: labels stand beside the box tokens without marks.
        points: the forms are of points, two numbers each; `keys` are those of points.
    """
    arity = 2 if points else arity
    # All numbers in one string, as in {"bbox": "100 200 300 400"}.
    quoted = rf"[\"']\s*+{SPACE_OR_COMMA.join([NUMBER] * arity)}\s*+[\"']"
    skipped = _SKIPPED_TAGS.format(other=r"b?box>" if points else r"points?\b")
    corner = _NEVER
    if named_corners:
        corner = rf"(?:{'|'.join(_CORNER_NAMES)})[\"']\s*+:\s*+[\"']?+{NUMBER}"
    box_keys = None if keys is None else frozenset(keys)
    # What no token begins with is passed over in one step. Where none begins after all, one
    # character is: every match moves on, and no search starts anew.
    first = r"<(\[\]{}\"'`" + (r">\n" if alone else "")
    token = (
        rf"({alone or _NEVER})"
        rf"|([^{first}]*+)(?:"
        rf"({'|'.join(forms) if forms else _NEVER})"
        rf"|({quoted if box_keys != frozenset() else _NEVER})"
        rf"|{skipped}|{_SKIPPED_BRACKETS}"
        r"|(```)"
        rf"|[\"'](?:{_LABEL_TEXT}"
        rf"|({_IMAGE_KEYS}[\"']\s*+:\s*+(?:\"[^\"\n]{{0,60}}+\"|'[^'\n]{{0,60}}+'"
        r"|[0-9]{1,3}+(?![.0-9])))"
        rf"|({corner})"
        rf"|([A-Za-z0-9_ -]{{1,40}}+)[\"']\s*+:(\s*+{_NULL_VALUE})?+)"
        r"|([\[{])|([\]}])"
        rf"|[{first}]|\Z)"
    )
    return Grammar(
        token=re.compile(token),
        number=re.compile(number),
        arity=arity,
        keys=box_keys,
        gap=_LABEL_GAP if bare_labels else _GAP,
    )
