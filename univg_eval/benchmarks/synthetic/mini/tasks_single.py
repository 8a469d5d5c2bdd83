"""Builders of the single-image tasks: implicit descriptions of one object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from univg_eval.benchmarks.synthetic.mini.item import Draft
from univg_eval.benchmarks.synthetic.mini.layout import (
    LATTICE,
    Label,
    Maker,
    RetryScene,
    SpotBox,
    centre,
    distance,
    other_colors,
    other_shapes,
    to_norm,
)
from univg_eval.benchmarks.synthetic.mini.scene import COLORS, SHAPES

__all__ = ["lisa_test", "lisa_val", "llmseg"]

SIZE_MARGIN = 3
"""The largest (smallest) object differs from the next by at least so many lattice units."""
PLACE_MARGIN = 3.0
"""Orders of place (left of, highest, nearest) hold by at least so many lattice units."""

_SIDES: dict[str, tuple[int, int]] = {
    "left of": (0, -1),
    "right of": (0, 1),
    "above": (1, -1),
    "below": (1, 1),
}
_EXTREMES: dict[str, tuple[int, int]] = {
    "furthest to the left": (0, -1),
    "furthest to the right": (0, 1),
    "highest": (1, -1),
    "lowest": (1, 1),
}


def beyond(spot: SpotBox, other: SpotBox, axis: int, sign: int) -> bool:
    """Whether the centre of `spot` lies clearly on that side of the centre of `other`."""
    return sign * (centre(spot)[axis] - centre(other)[axis]) >= PLACE_MARGIN


def _finish(
    maker: Maker,
    labels: Sequence[Label],
    spots: Sequence[SpotBox],
    text: str,
    kind: str,
    depth: int,
    **knobs: object,
) -> Draft:
    objects = maker.objects(labels, spots)
    return Draft([maker.scene(objects)], text, objects[0], 0, kind, depth, dict(knobs))


def _others(maker: Maker, label: Label, low: int, high: int) -> list[Label]:
    return maker.distractors(label, maker.rng.randint(low, high))


# -- kinds: each places the target first, so that its place stays uniform ---------------------


def _odd_one_out(maker: Maker) -> Draft:
    label = maker.target_label()
    other = maker.near_label(label) if maker.rng.random() < 0.7 else maker.other_label()
    if other == label:
        raise RetryScene
    labels = [label] + [other] * maker.rng.randint(2, 4)
    size = maker.size(5, 8)
    spots = maker.spread([size for _ in labels])
    text = maker.say(
        (
            "Locate the odd one out.",
            "Which object does not fit with the others? Locate it.",
            "All objects but one are alike. Locate the one that is not.",
        )
    )
    return _finish(maker, labels, spots, text, "odd_one_out", 1)


def _by_size(maker: Maker) -> Draft:
    largest = maker.rng.random() < 0.5
    label = maker.target_label()
    labels = [label, *_others(maker, label, 2, 3)]
    if largest:
        size = maker.size(8, 10)
        sizes = [size, *(maker.size(5, size - SIZE_MARGIN) for _ in labels[1:])]
    else:
        size = maker.size(5, 6)
        sizes = [size, *(maker.size(size + SIZE_MARGIN, 10) for _ in labels[1:])]
    spots = maker.spread(sizes)
    word = "largest" if largest else "smallest"
    text = maker.say(
        (
            "Locate the {word} object.",
            "Which object would take the {room} room in a box? Locate it.",
        ),
        word=word,
        room="most" if largest else "least",
    )
    return _finish(maker, labels, spots, text, word, 1)


def _extreme(maker: Maker) -> Draft:
    word = maker.rng.choice(tuple(_EXTREMES))
    axis, sign = _EXTREMES[word]
    label = maker.target_label()
    labels = [label, *_others(maker, label, 1, 3)]
    spots = [maker.place(maker.size())]
    for _ in labels[1:]:
        spots.append(
            maker.place(maker.size(), spots, where=lambda spot: beyond(spots[0], spot, axis, sign))
        )
    text = maker.say(
        ("Locate the object that is {word}.", "Which object is {word}? Locate it."), word=word
    )
    return _finish(maker, labels, spots, text, "extreme", 1)


def _largest_beside(maker: Maker) -> Draft:
    """The largest of those on one side of a named object; a larger one is on the other side."""
    text_of = (
        "Locate the largest object {side} the {name}.",
        "Of the objects {side} the {name}, which one is the largest? Locate it.",
    )
    return _beside(maker, text_of, "largest_beside")


def _beside(maker: Maker, templates: Sequence[str], kind: str) -> Draft:
    rng = maker.rng
    side = rng.choice(tuple(_SIDES))
    axis, sign = _SIDES[side]
    label = maker.target_label()
    named, smaller, larger = maker.distractors(label, 3)
    size = maker.size(7, 9)
    small = maker.size(4, size - SIZE_MARGIN)
    target = maker.place(size)
    anchor = maker.place(
        maker.size(5, 8), [target], where=lambda spot: beyond(target, spot, axis, sign)
    )
    beside = maker.place(
        small, [target, anchor], where=lambda spot: beyond(spot, anchor, axis, sign)
    )
    other = maker.place(
        min(size + 2, 10),
        [target, anchor, beside],
        where=lambda spot: beyond(anchor, spot, axis, sign),
    )
    text = maker.say(templates, side=side, name=" ".join(named))
    return _finish(
        maker, [label, named, smaller, larger], [target, anchor, beside, other], text, kind, 2,
        side=side, named=" ".join(named),
    )  # fmt: skip


def _falls(maker: Maker, templates: Sequence[str], kind: str = "falls") -> Draft:
    """Every object but the target stands on a shelf."""
    label = maker.target_label()
    labels = [label, *_others(maker, label, 2, 3)]
    target = maker.place(maker.size(5, 9), where=lambda spot: spot[3] <= LATTICE - 3)
    spots = [target]
    blocks = [target]
    shelves = []
    for _ in labels[1:]:
        size = maker.size(5, 7)
        block = maker.place(
            size + 2, blocks, gap=1, where=lambda spot: not _just_below(target, spot)
        )
        # The block is the object, one unit of air on each side and the shelf below it.
        x1, _, x2, y2 = block
        spots.append((x1 + 1, y2 - 2 - size, x2 - 1, y2 - 2))
        shelves.append(to_norm((x1, y2 - 2, x2, y2)))
        blocks.append(block)
    text = maker.say(templates)
    draft = _finish(maker, labels, spots, text, kind, 2)
    draft.scenes = [replace(draft.scenes[0], furniture=tuple(shelves))]
    return draft


def _just_below(spot: SpotBox, block: SpotBox) -> bool:
    """Whether the block reaches under the spot within three units (it would hold it up)."""
    return block[0] < spot[2] and block[2] > spot[0] and 0 <= block[1] - spot[3] < 3


def _nearest(maker: Maker) -> Draft:
    label = maker.target_label()
    labels = [label, *_others(maker, label, 2, 3)]
    target = maker.place(maker.size(5, 8))
    anchor = maker.place(
        maker.size(5, 8), [target], where=lambda spot: distance(spot, target) <= 13
    )
    far = distance(target, anchor) + PLACE_MARGIN
    spots = [target, anchor]
    for _ in labels[2:]:
        spots.append(
            maker.place(maker.size(5, 8), spots, where=lambda spot: distance(spot, anchor) >= far)
        )
    name = " ".join(labels[1])
    text = maker.say(
        (
            "Locate the object nearest to the {name}.",
            "Which object is the neighbor of the {name}? Locate the nearest one.",
        ),
        name=name,
    )
    return _finish(maker, labels, spots, text, "nearest", 2, named=name)


_VAL_KINDS: tuple[Callable[[Maker], Draft], ...] = (
    _odd_one_out,
    _by_size,
    _extreme,
    _largest_beside,
    lambda maker: _falls(
        maker,
        (
            "Which object would fall because nothing is below it? Locate it.",
            "Locate the object that does not stand on a shelf.",
        ),
    ),
    _nearest,
)


def lisa_val(maker: Maker) -> Draft:
    """One image, a short implicit description."""
    return maker.kind(_VAL_KINDS)(maker)


# -- the longer descriptions of lisa_test ------------------------------------------------------


def _partner(maker: Maker, by: str) -> Draft:
    """The other object with the colour (or shape) of the largest (or an extreme) one."""
    rng = maker.rng
    label = maker.target_label()
    guide_word = rng.choice(("largest", *_EXTREMES))
    if by == "color":
        guide = maker.other_label(colors=[label[0]], avoid=[label])
        rest = {"colors": other_colors(label)}
    else:
        guide = maker.other_label(shapes=[label[1]], avoid=[label])
        rest = {"shapes": other_shapes(label)}
    labels = [label, guide]
    for _ in range(rng.randint(1, 2)):
        labels.append(maker.other_label(**rest, avoid=labels))
    if guide_word == "largest":
        sizes = [maker.size(5, 7), 10, *(maker.size(5, 7) for _ in labels[2:])]
        spots = maker.spread(sizes)
    else:
        axis, sign = _EXTREMES[guide_word]
        target = maker.place(maker.size(5, 8))
        anchor = maker.place(
            maker.size(5, 8), [target], where=lambda spot: beyond(spot, target, axis, sign)
        )
        spots = [target, anchor]
        for _ in labels[2:]:
            spots.append(
                maker.place(
                    maker.size(5, 8), spots, where=lambda spot: beyond(anchor, spot, axis, sign)
                )
            )
    text = maker.say(
        (
            "Look first at the object that is {guide}. There is one more object of the same {by} "
            "in the image. Locate this other object.",
            "Two objects in this image have the same {by}, and one of them is {guide}. "
            "Locate not that one but the other one of the two.",
        ),
        guide="the largest" if guide_word == "largest" else guide_word,
        by=by,
    )
    return _finish(maker, labels, spots, text, f"same_{by}", 3, guide=guide_word)


def _neither(maker: Maker) -> Draft:
    """All but one are of a colour or of a shape; the target is neither."""
    rng = maker.rng
    label = maker.target_label()
    color = rng.choice(other_colors(label))
    shape = rng.choice(other_shapes(label))
    labels = [label]
    labels.append(maker.other_label(colors=[color], shapes=[s for s in SHAPES if s != shape]))
    labels.append(maker.other_label(shapes=[shape], colors=[c for c in COLORS if c != color]))
    if rng.random() < 0.5:
        labels.append(maker.other_label(colors=[color], avoid=labels))
    spots = maker.spread([maker.size(5, 9) for _ in labels])
    text = maker.say(
        (
            "Put away all that is {color}, and then put away every {shape}. "
            "One object is left in the image. Locate it.",
            "Every object in this image but one is {color} or is a {shape}. "
            "Locate the one that is neither of the two.",
        ),
        color=color,
        shape=shape,
    )
    return _finish(maker, labels, spots, text, "neither", 2, color=color, shape=shape)


def _odd_by(maker: Maker) -> Draft:
    """One property is shared by all but the target, the other property varies."""
    rng = maker.rng
    by = rng.choice(("color", "shape"))
    label = maker.target_label()
    labels = [label]
    n_others = rng.randint(2, 4)
    if by == "color":
        shared = rng.choice(other_colors(label))
        for _ in range(n_others):
            labels.append(maker.other_label(colors=[shared], avoid=labels))
    else:
        shared = rng.choice(other_shapes(label))
        for _ in range(n_others):
            labels.append(maker.other_label(shapes=[shared], avoid=labels))
    spots = maker.spread([maker.size(5, 8) for _ in labels])
    text = maker.say(
        (
            "The objects in this image belong together, for they have the same {by}. "
            "But one of them has another {by} than the rest. Locate it.",
            "Somebody put one object of the wrong {by} with the others. Locate this object.",
        ),
        by=by,
    )
    return _finish(maker, labels, spots, text, f"odd_{by}", 2)


_TEST_KINDS: tuple[Callable[[Maker], Draft], ...] = (
    lambda maker: _partner(maker, "color"),
    lambda maker: _partner(maker, "shape"),
    _neither,
    _odd_by,
    lambda maker: _beside(
        maker,
        (
            "Leave out the {name} and all that is not {side} it. "
            "Among the objects that are left, locate the largest one.",
            "Find the {name} first. Then look only at the objects {side} it. "
            "One of them is the largest. Locate it.",
        ),
        "largest_beside",
    ),
    lambda maker: _falls(
        maker,
        (
            "In this room each object stands on a shelf, but somebody forgot one shelf. "
            "Locate the object that would fall to the ground.",
            "Some objects here have something below them that holds them. "
            "One object has not and would fall. Locate it.",
        ),
    ),
)


def lisa_test(maker: Maker) -> Draft:
    """One image, a longer and deeper implicit description."""
    return maker.kind(_TEST_KINDS)(maker)


# -- llmseg: what a thing is like, or could be used for ----------------------------------------

USES: dict[str, tuple[frozenset[str], tuple[str, ...]]] = {
    "rolls": (
        frozenset({"circle", "ring"}),
        ("could roll away", "has no corner", "could be the wheel of a car"),
    ),
    "hole": (
        frozenset({"ring"}),
        ("has a hole that a finger fits in", "could be put around a finger"),
    ),
    "ball": (frozenset({"circle"}), ("is like a full moon", "is like a ball, round and full")),
    "box": (
        frozenset({"square"}),
        ("is like a box to put things on", "stands flat on a side and has four corners"),
    ),
    "roof": (
        frozenset({"triangle"}),
        ("could be the roof of a house", "has three corners", "is like a sign that warns cars"),
    ),
    "plus": (
        frozenset({"cross"}),
        ("is like the sign to add numbers", "could be the sign of a doctor"),
    ),
    "kite": (frozenset({"diamond"}), ("stands on its tip", "is like a kite in the air")),
}
"""Use → (shapes it fits, phrases after "the object that")."""

ALSO_SAID_OF: dict[str, str] = {"is like a sign that warns cars": "diamond"}
"""Phrase → a shape that some readers would take it for: never in the same image."""

COLOR_LIKE: dict[str, str] = {
    "red": "a tomato",
    "green": "grass",
    "blue": "the deep sea",
    "yellow": "a banana",
    "purple": "a plum",
    "cyan": "clear ice",
    "white": "snow",
    "black": "coal",
}
"""Colour → a thing that has it."""


def llmseg(maker: Maker) -> Draft:
    """One image; the object is described by what it is like or could be used for."""
    rng = maker.rng
    kind = maker.kind(("use", "use", "color_like", "both"))
    label = maker.target_label()
    color, shape = label
    use = rng.choice([name for name, (shapes, _) in USES.items() if shape in shapes])
    fits, phrases = USES[use]
    unfit = [s for s in SHAPES if s not in fits]
    other_colors = [c for c in COLORS if c != color]
    n_others = rng.randint(2, 4)
    labels = [label]
    if kind == "use":
        labels.append(maker.other_label(colors=[color], shapes=unfit))
    elif kind == "color_like":
        labels.append(maker.other_label(shapes=[shape], colors=other_colors))
    else:
        labels.append(maker.other_label(colors=[color], shapes=unfit))
        labels.append(maker.other_label(shapes=sorted(fits), colors=other_colors))
    while len(labels) < n_others + 1:
        if kind == "color_like":
            labels.append(maker.other_label(colors=other_colors, avoid=labels))
        else:
            labels.append(maker.other_label(shapes=unfit, avoid=labels))
    if kind != "use" and color == "cyan" and any(c == "white" for c, _ in labels):
        # Clear ice may be called white.
        raise RetryScene
    spots = maker.spread([maker.size(5, 9) for _ in labels])
    shapes = {s for _, s in labels}
    phrase = maker.words.choice([p for p in phrases if ALSO_SAID_OF.get(p) not in shapes])
    what = {
        "use": phrase,
        "color_like": f"has the color of {COLOR_LIKE[color]}",
        "both": f"{phrase} and has the color of {COLOR_LIKE[color]}",
    }[kind]
    text = maker.say(
        ("Locate the object that {what}.", "Which object {what}? Locate it."), what=what
    )
    depth = 2 if kind == "both" else 1
    return _finish(maker, labels, spots, text, kind, depth, what=what)
