"""Chains of thought for generated samples, written by rules from the scenes themselves.

A chain says what is seen in the images that have to be compared, from left to right and with its
labels, or what is shown apart (alone, in a red box, as a region), and then which object is meant
and why. It holds no coordinates, and keeps the rules for a teacher's chains (`cot.rules`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from univg_eval.benchmarks.readers.common.release import ordinal
from univg_eval.benchmarks.synthetic.mini import MiniItem, Scene, SceneObject
from univg_eval.boxes import Box
from univg_train.tiny.answers import answer_text

__all__ = ["chain_answer", "chain_reply", "seen_objects", "write_chain"]

_EXTREME = re.compile(r"\b(furthest to the (?:left|right)|highest|lowest)\b")
_DIRECTION = re.compile(r"\bmoves (to the (?:left|right)|up|down)\b")
# (axis, sign) of a side, and by how much of the image centres must differ for it to hold: the
# generator's own rule, three of 28 units.
_SIDES = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}
_CLEARLY = 3 / 28 - 1e-9
_IN_RED = "In the red box"


def write_chain(item: MiniItem) -> str:
    """The thinking about a question, without tags; the same question gives the same text.

    Source of every statement are the item's scenes and `knobs`, so it is true of the images.
    """
    return _WRITERS[item.task](item)


def chain_answer(item: MiniItem) -> str:
    """What stands in ``<answer>``: the image where it had to be found, then label and box."""
    return answer_text(
        item.label, item.box, image=None if item.image_is_given else item.target_image
    )


def chain_reply(item: MiniItem) -> str:
    """The whole reply, ``<think>…</think><answer>…</answer>``."""
    return f"<think>{write_chain(item)}</think><answer>{chain_answer(item)}</answer>"


def seen_objects(item: MiniItem, chain: str) -> list[tuple[int, list[SceneObject], int]]:
    """What a chain names for being seen, not for a reason: an image, some of its objects, and where
    in the chain they begin."""
    found = []
    for image in range(item.image_count):
        text = _seen(item, image)
        if (at := chain.find(text)) >= 0:
            found.append((image, _across(item.scenes[image]), at))
    if (at := chain.find(_IN_RED)) >= 0:
        found.append((0, [_marked(item)], at))
    if item.task == "region":
        crop = item.knobs["asked_crop"] + 1
        found.append((crop, list(item.scenes[crop].objects[:1]), chain.index(item.label)))
    return found


# -- what is seen -----------------------------------------------------------------------------


def _across(scene: Scene) -> list[SceneObject]:
    """Objects that the border does not cut, from left to right, then from the top."""
    return sorted((obj for obj in scene.objects if obj.is_whole), key=lambda obj: obj.box)


def _names(objects: list[SceneObject]) -> str:
    return ", ".join(obj.label for obj in objects)


def _seen(item: MiniItem, image: int) -> str:
    objects = _names(_across(item.scenes[image]))
    if item.image_count == 1:
        return f"Left to right: {objects}."
    return f"{ordinal(image).capitalize()} {'frame' if item.video else 'image'}: {objects}."


def _all_seen(item: MiniItem) -> str:
    return " ".join(_seen(item, image) for image in range(item.image_count))


def _others(item: MiniItem) -> list[SceneObject]:
    """The other objects of the target's image."""
    return [obj for obj in item.scenes[item.target_image].objects if obj.box != item.box]


def _marked(item: MiniItem) -> SceneObject:
    """The object of the first image that the red outline is around."""
    return next(obj for obj in item.scenes[0].objects if obj.box == item.marked_box)


def _centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


# -- one image ----------------------------------------------------------------------------------


def _found(pattern: re.Pattern[str], item: MiniItem) -> str:
    match = pattern.search(item.instruction)
    assert match is not None  # its templates all hold the word
    return match[1]


def _largest_beside(item: MiniItem) -> str:
    axis, sign = _SIDES[item.knobs["side"]]
    named = next(obj for obj in _others(item) if obj.label == item.knobs["named"])
    edge = _centre(named.box)[axis]
    beside = [
        obj for obj in _across(item.scenes[0]) if sign * (_centre(obj.box)[axis] - edge) >= _CLEARLY
    ]
    side = item.knobs["side"].capitalize()
    return f"{side} the {named.label}: {_names(beside)}. The {item.label} is the largest of these."


def _same(item: MiniItem, by: str) -> str:
    """The guide is the one other object that shares the target's colour (or shape)."""
    guide = _alike(_others(item), item, by)
    word = item.knobs["guide"]
    word = "the largest" if word == "largest" else word
    return f"The {guide.label} is {word}. The {item.label} has the same {by}."


def _part(label: str, by: str) -> str:
    color, _, shape = label.partition(" ")
    return color if by == "color" else shape


def _alike(objects: Iterable[SceneObject], item: MiniItem, by: str) -> SceneObject:
    """The first object of the target's colour (or shape)."""
    return next(obj for obj in objects if _part(obj.label, by) == _part(item.label, by))


def _odd(item: MiniItem, by: str) -> str:
    ((shared, _),) = Counter(_part(obj.label, by) for obj in _others(item)).most_common(1)
    rest = shared if by == "color" else f"of the shape {shared}"
    return f"The others are {rest}. The {item.label} is not."


_REASONS: Mapping[str, Callable[[MiniItem], str]] = MappingProxyType(
    {
        "odd_one_out": lambda item: f"The others are alike. The {item.label} is not.",
        "largest": lambda item: f"The {item.label} is the largest.",
        "smallest": lambda item: f"The {item.label} is the smallest.",
        "extreme": lambda item: f"The {item.label} is {_found(_EXTREME, item)}.",
        "largest_beside": _largest_beside,
        "falls": lambda item: f"Nothing is below the {item.label}.",
        "nearest": lambda item: f"The {item.label} is nearest to the {item.knobs['named']}.",
        "same_color": lambda item: _same(item, "color"),
        "same_shape": lambda item: _same(item, "shape"),
        "neither": lambda item: (
            f"The {item.label} is neither {item.knobs['color']} nor a {item.knobs['shape']}."
        ),
        "odd_color": lambda item: _odd(item, "color"),
        "odd_shape": lambda item: _odd(item, "shape"),
    }
)
"""Why it is the one that is meant, by the kind of question (lisa_val and lisa_test)."""


def _by_kind(item: MiniItem) -> str:
    return f"{_seen(item, 0)} {_REASONS[item.knobs['kind']](item)}"


def _llmseg(item: MiniItem) -> str:
    return f"{_seen(item, 0)} The {item.label} {item.knobs['what']}."


# -- several images. The last sentence that names an image names the target's, and no other. -------


def _common_object(item: MiniItem) -> str:
    where = ordinal(item.target_image)
    return f"{_all_seen(item)} The {item.label} of the {where} image is in all."


def _difference(item: MiniItem) -> str:
    if item.knobs["kind"] == "added":
        why = f"The {item.label} was added."
    else:
        now = Counter(obj.label for obj in item.scenes[1].objects)
        (before,) = (Counter(obj.label for obj in item.scenes[0].objects) - now).elements()
        why = f"The {before} became the {item.label}."
    return f"{_all_seen(item)} {why}"


def _followed(item: MiniItem) -> str:
    return f"{_IN_RED}: {_marked(item).label}. {_it_is(item)}"


def _region(item: MiniItem) -> str:
    region = ordinal(item.knobs["asked_crop"]).capitalize()
    return f"{region} region: {item.label}. {_it_is(item)}"


def _refer_grounding(item: MiniItem) -> str:
    return f"{_seen(item, 0)} {_it_is(item)}"


def _it_is(item: MiniItem) -> str:
    """What has been shown apart, found again in the target's image."""
    where = f"the {ordinal(item.target_image)} image"
    alike = [obj for obj in _across(item.scenes[item.target_image]) if obj.label == item.label]
    if len(alike) == 1:
        return f"It is the {item.label} of {where}."
    # Twins that only their ways tell apart: two paths, so two of them.
    place = [obj.box for obj in alike].index(item.box)
    return f"By its way it is the {('left', 'right')[place]} {item.label} of {where}."


def _group_grounding(item: MiniItem) -> str:
    where = ordinal(item.target_image)
    return f"{_all_seen(item)} The {where} image shows {item.knobs['phrase']}."


def _reasoning(item: MiniItem) -> str:
    kind, objects = item.knobs["kind"], item.scenes[0].objects
    clue, why = "", f"The {item.label} is new."
    if kind == "odd_color":
        clue = f" The {_alike(objects, item, 'color').label} has another shape."
        why = f"The {item.label} has its color."
    elif kind == "largest_shape":
        clue = f" The {_alike(objects, item, 'shape').label} is the largest."
        why = f"The {item.label} has its shape."
    elif kind == "majority_color":
        color = _part(item.label, "color")
        clue = f" Most are {color}."
        why = f"The {item.label} is {color}."
    return f"{_seen(item, 0)}{clue} {_seen(item, 1)} {why}"


def _correspondence(item: MiniItem) -> str:
    use = "is held" if item.knobs["part"] == "grip" else "does the work"
    shown = _marked(item).label
    return f"{_IN_RED} the {shown} {use}. {_seen(item, 1)} The {item.label} {use} too."


# -- videos -------------------------------------------------------------------------------------


_EVENTS: Mapping[str, Callable[[MiniItem], str]] = MappingProxyType(
    {
        "moves": lambda item: "moves",
        "rests": lambda item: "does not move",
        "moves_to": lambda item: f"moves {_found(_DIRECTION, item)}",
        "disappears": lambda item: "disappears later",
        "grows": lambda item: "grows",
        "shrinks": lambda item: "shrinks",
        "against": lambda item: "moves against the others",
        "appears_last": lambda item: "appears last",
        "changes_color": lambda item: "does not keep its color",
        "fastest": lambda item: "is the fastest",
    }
)
"""What happens to the target, by the kind of question."""


def _video(item: MiniItem) -> str:
    event = _EVENTS[item.knobs["kind"]](item)
    return f"{_seen(item, item.target_image)} The {item.label} {event}."


_WRITERS: Mapping[str, Callable[[MiniItem], str]] = MappingProxyType(
    {
        "common_object": _common_object,
        "diff": _difference,
        "view_diff": _difference,
        "object_tracking": _followed,
        "multi_view": _followed,
        "region": _region,
        "refer_grounding": _refer_grounding,
        "group_grounding": _group_grounding,
        "reasoning": _reasoning,
        "correspondence": _correspondence,
        "lisa_val": _by_kind,
        "lisa_test": _by_kind,
        "llmseg": _llmseg,
        "reasonvos": _video,
        "revos": _video,
    }
)
