"""From a response to an answer: thinking and answer apart, boxes, the chosen box, a status.

The rule of the protocol ``univg`` (what counts as thinking and as the section:
`univg_eval.dialects.sections`; as an image's name, `image_names`; as "none", `no_target`):

1. *Thinking* is removed: everything up to the last closing mark of any family's thinking tags;
   then, from an opening mark that was never closed to the next ``<answer>`` or the end.
2. *Answer section*: the last ``<answer>…</answer>`` of what is left (an unclosed one counts), else
   the last ``<|begin_of_box|>`` span, else all that is left.
3. *Units*: a JSON value that holds an object, a code fence, or boxes separated only by white
   space, commas, semicolons, brackets, tags or marked phrases. Wrapped boxes that follow each
   other are one unit, as they are once the tokenizer has dropped their wrappers. A name of an
   image ("Image-2:") begins a new unit. An explicit null, an empty list or a sentence such as
   "There are none." is a unit too.
4. The *chosen box* is the first box of the last unit. Where the instruction names the image and
   units carry image labels, only that image's units count. Where the model has to find the image,
   a "none" of one image ("Image 1: none") says nothing about the others: it counts only if there is
   no box and every image has one.
5. A status ``none`` means no boxes at all, whatever else the answer says. An empty list outside of
   an object is such a "none" where there is no box; it never takes one back.

No ground truth is looked at. Reading takes time linear in the response's length.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import attrgetter
from typing import Literal, NamedTuple

from univg_eval.boxes import Box
from univg_eval.dialects import Dialect, Grammar
from univg_eval.dialects.image_names import ImageName, find_image_names
from univg_eval.dialects.no_target import find_no_target
from univg_eval.dialects.sections import Split, split_response
from univg_eval.errors import UserError

__all__ = ["Answer", "Item", "Reading", "Sizes", "Status", "read_answer", "read_items"]

Status = Literal["ok", "no_box", "none", "truncated", "invalid_box"]
Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a response says.

    Attributes:
        status: ``ok``; ``no_box``: nothing readable; ``none``: an explicit "no such object";
            ``truncated``: thinking or answer never closed, and no box outside the thinking;
            ``invalid_box``: the chosen box is inverted, empty, not finite or wholly outside.
        box: the chosen box, xyxy_norm, clipped to the image; None unless ``ok``.
        boxes: every readable box of the answer section, in order, xyxy_norm, clipped; none with
            the status ``none``.
        box_images: parallel to `boxes`: the 0-based image that the text names for it (the one
            named last before it, or by a key of its JSON object), or None.
        image_index: the same for the chosen box.
        thinking: the removed text without its outermost marks; None where there was none.
        answer_text: the answer section.
        n_boxes: boxes in the answer section, invalid ones included.
        n_units: units in the answer section.
        clipped: the chosen box reached outside the image.
    """

    status: Status
    box: Box | None
    boxes: tuple[Box, ...]
    box_images: tuple[int | None, ...]
    image_index: int | None
    thinking: str | None
    answer_text: str
    n_boxes: int
    n_units: int
    clipped: bool


# --- units and image labels ----------------------------------------------------------------------


@dataclass(slots=True)
class Item:
    """A box (or a point, where points are read) or an explicit none in the section.

    Attributes:
        start, end: its span.
        raw: the numbers as written, None for an explicit none.
        value: identity of the JSON value or fence it stands in, 0 outside.
        named: image named last before it or by its JSON object.
        label: image that labels it: by a key, right before it, or at the start of its sentence.
        unit: number of its unit.
    """

    start: int
    end: int
    raw: tuple[float, ...] | None
    value: int
    named: int | None
    label: int | None
    unit: int = 0


# Between an image's name and a box that it labels: no words but keys and marked phrases, and no
# end of a JSON object, whose texts say nothing about the next one.
_DIRECT = re.compile(
    r"\]?+(?:[^\w<\"'`}\]]++|<(?:\|object_ref_start\||ref|\|ref\||phrase|p)>[^<]{0,300}+"
    r"|</?+[^<>]{1,60}+>|[\"'](?:[\w -]{1,40}+[\"']\s*+:)?+|```(?:json)?+|`)*+"
)
# "In the second image …" says where; "The second picture …" may be an object on a wall.
_CLAUSE_START = re.compile(
    r"(?i:[^a-z0-9]*(?:(?:and|but|while|then|or|so|whereas)\b[^a-z0-9]*)?"
    r"(?P<where>(?:in|on|for|from|within|at)\b[^a-z0-9]*)?(?:the\b[^a-z0-9]*)?)\Z"
)
_IMAGE_NOUN = re.compile(r"(?i:image|img)")
_SENTENCE_END = re.compile(r"[.!?;](?=\s)|[。！？；\n]")
# "(1,2),(3,4) in the first image, …": the name belongs to the box before it.
_AFTER_BOX = re.compile(r"(?:\s?<[^<>]{1,60}+>)?+[ \t]*+\(?(?:in|on|from|of) (?:the )?\Z")
_AFTER_NAME = re.compile(r"\)?[ \t]*+(?:[,;.]|and\b|\Z)")


def _label(section: str, begin: int, end: int, names: list[ImageName]) -> int | None:
    """The image that labels what starts at `end`, if one does.

    Args:
        section: the answer section.
        begin: where the box before ends; -1 if there is none.
        end: start of the box.
        names: the last few names of images between the two, at least one.
    """
    name_start, name_end, image = names[-1]
    if (
        begin >= 0
        and name_start - begin <= 80
        and _AFTER_BOX.match(section, begin, name_start)
        and _AFTER_NAME.match(section, name_end, end)
    ):
        return None
    for _, other_end, other_image in names[:-1]:
        if other_image != image and not _SENTENCE_END.search(section, other_end, name_start):
            return None  # "the match in image 2 of the cup in image 1" could be either
    direct = _DIRECT.match(section, name_end, end)
    if direct is not None and direct.end() == end:
        return image
    if _SENTENCE_END.search(section, name_end, end):
        return None
    begin = max(begin, 0)
    lead = section[max(begin, name_start - 60) : name_start]
    ends = [m.end() for m in _SENTENCE_END.finditer(lead)]
    if not ends and name_start - begin > 60:
        return None
    clause = _CLAUSE_START.match(lead[ends[-1] :] if ends else lead)
    if clause is None:
        return None
    is_image = clause["where"] or _IMAGE_NOUN.search(section, name_start, name_end)
    return image if is_image else None


def _items(section: str, grammar: Grammar, n_images: int | None) -> list[Item]:
    """What `grammar` finds in a section, and explicit nones, with units and images, in order."""
    items = []
    has_boxes = False
    for start, end, raw, value, image in grammar.scan(section):
        has_boxes = has_boxes or raw is not None
        if image is not None and n_images is not None and image >= n_images:
            image = None
        items.append(Item(start, end, raw, value, image, image))
    names = find_image_names(section, n_images)
    nones = _no_targets(section, names, has_boxes)
    if nones:
        items = sorted(items + nones, key=attrgetter("start"))

    n_names = len(names)
    next_name = 0
    unit = -1
    previous: Item | None = None
    for item in items:
        first_name = next_name
        while next_name < n_names and names[next_name][0] < item.start:
            next_name += 1
        label: int | None = None
        if first_name < next_name:
            recent = names[max(first_name, next_name - 4) : next_name]
            label = _label(section, previous.end if previous else -1, item.start, recent)
        if item.named is None and next_name:
            item.named = names[next_name - 1][2]
        if item.label is None:
            item.label = label
        if previous is None or _begins_unit(section, previous, item, label, grammar.gap):
            unit += 1
        item.unit = unit
        previous = item
    return items


# "in image 1 or image 2" names both; "in image 2 as in image 1" may mean either.
_COORDINATED = re.compile(r"(?i:[,\s]|\b(?:or|and|nor|in|the)\b|[、和与及中里])*+")
# An image that has no number, or none of these: of a position, a letter, or a number too large.
_OTHER_IMAGE = re.compile(
    r"(?i)\b(?:left|right|top|bottom|upper|lower|last|final|\w+th)(?:most)?"
    r" (?:image|picture|photo|frame)|\b(?:image|picture|photo|frame|img)[ -]?(?:[0-9]|[a-h]\b)"
    r"|图[0-9]|第.{1,3}图"
)


def _no_targets(section: str, names: list[ImageName], has_boxes: bool) -> list[Item]:
    """Sentences that say that there is no such object, one item for each image they name."""
    nones: list[Item] = []
    for start, end in find_no_target(section, has_boxes=has_boxes):
        inside = names[bisect_left(names, (start,)) : bisect_left(names, (end,))]
        if has_boxes and not inside and _OTHER_IMAGE.search(section, start, end):
            continue
        images: list[int | None] = [image for *_, image in inside] or [None]
        for first, second in pairwise(inside):
            if not _COORDINATED.fullmatch(section, first[1], second[0]):
                images = [inside[-1][2]]
        nones.extend(Item(start, end, None, 0, image, image) for image in images)
    return nones


def _begins_unit(
    section: str, previous: Item, item: Item, label: int | None, gap: re.Pattern[str]
) -> bool:
    """Whether `item` begins a new unit after `previous`."""
    if previous.value or item.value:
        return previous.value != item.value
    if previous.raw is None or item.raw is None:
        return True
    if item.start < previous.end:
        return False  # of the same run of tokens
    between = gap.match(section, previous.end, item.start)
    return label is not None or between is None or between.end() != item.start


def _counting(
    items: list[Item], target_image: int | None, image_is_given: bool, n_images: int | None
) -> list[Item]:
    """The items that count, by what the instruction says about the image."""
    labels = {item.label for item in items}
    if target_image is not None:
        if labels == {None}:
            return items
        if target_image in labels:
            return [
                item
                for item in items
                if item.label == target_image or (item.label is None and item.named == target_image)
            ]
        return [item for item in items if item.label is None]
    if image_is_given:
        return items
    others = [item for item in items if item.raw is not None or item.label is None]
    if not others and n_images is not None and len(labels) == n_images:
        return items
    return others


def _takes_back(section: str, item: Item) -> bool:
    """Whether an explicit none counts beside boxes; a bare empty list of no image does not."""
    if item.label is not None or not section.startswith("[", item.start):
        return True
    return section.find("{", item.start, item.end) >= 0


# --- from numbers to boxes -----------------------------------------------------------------------

_EDGE_TOLERANCE = 1e-9  # of a conversion's rounding, not of the model's


def _clip(box: Box) -> tuple[Box | None, bool]:
    """The box cut to the image, and whether that changed it; None if it is invalid."""
    x1, y1, x2, y2 = box
    if 0.0 <= x1 < x2 <= 1.0 and 0.0 <= y1 < y2 <= 1.0:
        return box, False
    if not all(map(math.isfinite, box)):
        return None, False
    cut = (max(x1, 0.0), max(y1, 0.0), min(x2, 1.0), min(y2, 1.0))
    if not (cut[0] < cut[2] and cut[1] < cut[3]):
        return None, False
    moved = max(abs(a - b) for a, b in zip(box, cut, strict=True))
    return cut, moved > _EDGE_TOLERANCE


class Sizes:
    """Sizes by image, for dialects that need them."""

    __slots__ = ("_dialect", "_image_sizes", "_input_sizes", "_target")

    def __init__(
        self,
        dialect: Dialect,
        image_sizes: Sequence[Size] | None,
        input_sizes: Sequence[Size] | None,
        target_image: int | None,
    ) -> None:
        self._dialect = dialect
        self._image_sizes = image_sizes
        self._input_sizes = input_sizes
        self._target = target_image

    def _pick(self, sizes: Sequence[Size] | None, named: int | None) -> Size | None:
        if not sizes:
            return None
        image = self._target if self._target is not None else named
        if image is not None:  # known to be one of them, see `_items`
            size = sizes[image]
        elif all(tuple(other) == tuple(sizes[0]) for other in sizes):
            size = sizes[0]
        else:
            return None
        if min(size) < 1:
            raise UserError(
                f"image size {size!r} is not a size: expected (width, height) in pixels, each at "
                "least 1"
            )
        return size

    def of(self, named: int | None) -> tuple[Size | None, Size | None] | None:
        """(image_wh, input_wh) to decode with; None if what it takes is not known from the answer.

        Args:
            named: 0-based image that the answer names, if it does.
        """
        dialect = self._dialect
        if not (dialect.needs_image_size or dialect.needs_input_size):
            return None, None
        by_input = dialect.space.uses_input_size
        image_wh = self._pick(self._image_sizes, named)
        input_wh = self._pick(self._input_sizes, named) if by_input else None
        return None if image_wh is None and input_wh is None else (image_wh, input_wh)


class Reading(NamedTuple):
    """What stands in a response, before any number is converted.

    Attributes:
        split: thinking and answer section.
        items: what was found in the section, in order.
        counting: the items that count, by what the instruction says about the image.
        chosen: the first of the last unit that counts, a box or point before a none; None where
            nothing counts.
    """

    split: Split
    items: list[Item]
    counting: list[Item]
    chosen: Item | None


def read_items(
    text: str,
    grammar: Grammar,
    *,
    image_sizes: Sequence[Size] | None = None,
    input_sizes: Sequence[Size] | None = None,
    target_image: int | None = None,
    image_is_given: bool | None = None,
) -> Reading:
    """Find what a grammar reads in a response, and choose, by the rule of `univg`.

    Args:
        text: the whole response, thinking included.
        grammar: finds boxes, or points.
        image_sizes, input_sizes, target_image, image_is_given: see `read_answer`.

    Raises:
        UserError: sizes and `target_image` do not fit each other.
    """
    n_images = _count_images(image_sizes, input_sizes, target_image)
    split = split_response(text)
    items = _items(split.section, grammar, n_images)
    if len(items) > 1 and any(item.raw is not None for item in items):
        items = [i for i in items if i.raw is not None or _takes_back(split.section, i)]
    known = target_image is not None if image_is_given is None else image_is_given
    counting = _counting(items, target_image, known, n_images) if items else []
    chosen: Item | None = None
    if counting:
        last = counting[-1].unit
        unit = [item for item in counting if item.unit == last]
        chosen = next((item for item in unit if item.raw is not None), unit[0])
    return Reading(split, items, counting, chosen)


def read_answer(
    text: str,
    dialect: Dialect,
    *,
    image_sizes: Sequence[Size] | None = None,
    input_sizes: Sequence[Size] | None = None,
    target_image: int | None = None,
    image_is_given: bool | None = None,
) -> Answer:
    """Read a response by the rule of the protocol ``univg``, see the top of this module.

    Args:
        text: the whole response, thinking included. No string makes this raise.
        dialect: how the model writes boxes.
        image_sizes: (width, height) in pixels of each original image.
        input_sizes: (width, height) in pixels of each image as the model saw it. Where it is not
            given, a dialect in pixels of the resized input takes its resize rule with its limits.
        target_image: 0-based image that the instruction names; None where the model had to find
            it. Then sizes are those of the image that the answer names, or the common size if it
            names none; if there is no common size, or no size at all, a box that needs one is
            unreadable (`no_box`). `univg_eval.scoring` asks for missing sizes beforehand.
        image_is_given: whether the instruction names the image; None: if `target_image` is given.

    Returns:
        The answer; its boxes are clipped to the image.

    Raises:
        UserError: an image size is impossible, or sizes and `target_image` do not fit each other.
    """
    (section, thinking, unclosed), items, _, chosen = read_items(
        text,
        dialect.grammar,
        image_sizes=image_sizes,
        input_sizes=input_sizes,
        target_image=target_image,
        image_is_given=image_is_given,
    )
    if not items:
        return Answer(
            status="truncated" if unclosed else "no_box",
            box=None,
            boxes=(),
            box_images=(),
            image_index=None,
            thinking=thinking,
            answer_text=section.strip(),
            n_boxes=0,
            n_units=0,
            clipped=False,
        )

    sizes = Sizes(dialect, image_sizes, input_sizes, target_image)
    status: Status = "no_box"
    box: Box | None = None
    clipped = False
    boxes: list[Box] = []
    box_images: list[int | None] = []
    n_boxes = 0
    for item in items:
        if item.raw is None:
            if item is chosen:
                status = "none"
            continue
        n_boxes += 1
        readable = True
        cut, moved = None, False
        if _is_ordered(item.raw):
            known = sizes.of(item.named)
            readable = known is not None
            if known is not None:
                cut, moved = _clip(dialect.decode(item.raw, *known))
        if cut is not None:
            boxes.append(cut)
            box_images.append(item.named)
        if item is chosen:
            box, clipped = cut, moved
            status = "ok" if cut is not None else "invalid_box" if readable else "no_box"
    if status == "none":
        boxes, box_images = [], []
    return Answer(
        status=status,
        box=box,
        boxes=tuple(boxes),
        box_images=tuple(box_images),
        image_index=chosen.named if chosen is not None else None,
        thinking=thinking,
        answer_text=section.strip(),
        n_boxes=n_boxes,
        n_units=items[-1].unit + 1,
        clipped=clipped,
    )


def _count_images(
    image_sizes: Sequence[Size] | None,
    input_sizes: Sequence[Size] | None,
    target_image: int | None,
) -> int | None:
    """How many images there are, if any sizes are given."""
    if image_sizes and input_sizes and len(image_sizes) != len(input_sizes):
        raise UserError(
            f"{len(image_sizes)} image_sizes and {len(input_sizes)} input_sizes; expected one of "
            "each an image, in the same order"
        )
    sizes = image_sizes or input_sizes
    if not sizes:
        return None
    if target_image is not None and not 0 <= target_image < len(sizes):
        raise UserError(
            f"target_image is {target_image} with sizes of {len(sizes)} images; expected a "
            f"0-based index below {len(sizes)}"
        )
    return len(sizes)


def _is_ordered(raw: tuple[float, ...]) -> bool:
    """False for numbers that are no box in any space: inverted, empty or not finite."""
    if len(raw) != 4:
        return True
    a, b, c, d = raw
    return a < c and b < d and math.isfinite(a + b + c + d)
