"""Each sample of univg_mini has exactly one answer, and it is the recorded one.

The solvers read only what a reader has: the instruction and the objects that the images show. They
share no code with the builders and never look at the recorded target.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from univg_eval.benchmarks.synthetic.mini import (
    COLORS,
    SHAPES,
    TASKS,
    MiniItem,
    SceneObject,
    generate,
)
from univg_eval.boxes import Box, box_iou

N_ITEMS = 120
SEED = 91

Found = list[tuple[int, Box]]

NUMBERS = ["first", "second", "third", "fourth", "fifth", "sixth"]
NTH = ["1st", "2nd", "3rd", "4th", "5th", "6th"]


def named_image(text: str, noun: str = "image") -> int:
    """The image named last in the text."""
    names = {f"{word} {noun}": i for i, word in enumerate(NUMBERS)}
    names |= {f"{word} {noun}": i for i, word in enumerate(NTH)}
    names |= {f"Image-{i + 1}": i for i in range(6)}
    positions = [(text.rfind(name), i) for name, i in names.items() if name in text]
    return max(positions)[1]


def object_in_text(item: MiniItem) -> SceneObject:
    """The object of the first image whose box stands in the text."""
    numbers = r"<\|box_start\|>\((\d+),(\d+)\),\((\d+),(\d+)\)<\|box_end\|>"
    match = re.search(numbers, item.instruction)
    assert match is not None, item.instruction
    box = [int(v) / 1000 for v in match.groups()]
    found = max(item.objects[0], key=lambda obj: box_iou(obj.box, box))
    assert box_iou(found.box, box) > 0.95
    return found


def key(obj: SceneObject) -> tuple[str, str]:
    return obj.color, obj.shape


def only(objects, image: int, condition) -> Found:
    return [(image, obj.box) for obj in objects if condition(obj)]


def named(objects, name: str) -> SceneObject:
    matches = [obj for obj in objects if f"{obj.color} {obj.shape}" == name]
    assert len(matches) == 1, f"{name!r} stands for {len(matches)} objects"
    return matches[0]


def cx(obj) -> float:
    return (obj.box[0] + obj.box[2]) / 2


def cy(obj) -> float:
    return (obj.box[1] + obj.box[3]) / 2


def side(obj) -> float:
    return obj.box[2] - obj.box[0]


def far(a, b) -> float:
    return math.hypot(cx(a) - cx(b), cy(a) - cy(b))


def winner(objects, measure, margin: float):
    """The object with the greatest measure; it must lead by the margin."""
    ranked = sorted(objects, key=measure, reverse=True)
    if len(ranked) > 1:
        lead = measure(ranked[0]) - measure(ranked[1])
        assert lead >= margin, f"the winner leads by {lead}"
    return ranked[0]


BESIDE = {
    "left of": lambda a, b: cx(b) - cx(a),
    "right of": lambda a, b: cx(a) - cx(b),
    "above": lambda a, b: cy(b) - cy(a),
    "below": lambda a, b: cy(a) - cy(b),
}
CLEAR = 2.9 / 28


def beside(objects, relation: str, anchor):
    """Objects clearly on that side; none may be in between."""
    inside = []
    for obj in objects:
        if obj is anchor:
            continue
        offset = BESIDE[relation](obj, anchor)
        assert abs(offset) >= CLEAR, "neither on this side nor on the other"
        if offset > 0:
            inside.append(obj)
    return inside


def solve_common_object(item: MiniItem) -> Found:
    common = set.intersection(*({key(obj) for obj in row} for row in item.objects))
    image = named_image(item.instruction)
    return only(item.objects[image], image, lambda obj: key(obj) in common)


def solve_diff(item: MiniItem) -> Found:
    before = {(key(obj), obj.box) for obj in item.objects[0]}
    return only(item.objects[1], 1, lambda obj: (key(obj), obj.box) not in before)


def solve_view_diff(item: MiniItem) -> Found:
    before = {key(obj): obj for obj in item.objects[0]}
    found = only(item.objects[1], 1, lambda obj: key(obj) not in before)
    # What has not changed is related by one zoom and one shift.
    pairs = [(before[key(obj)], obj) for obj in item.objects[1] if key(obj) in before]
    zooms = [side(b) / side(a) for a, b in pairs]
    assert max(zooms) - min(zooms) < 1e-6
    shifts = [(cx(b) - zooms[0] * cx(a), cy(b) - zooms[0] * cy(a)) for a, b in pairs]
    assert np.ptp(np.array(shifts), axis=0).max() < 1e-6
    return found


def solve_object_tracking(item: MiniItem) -> Found:
    current = object_in_text(item)
    image = named_image(item.instruction)
    for frame in range(1, image + 1):
        alike = [obj for obj in item.objects[frame] if key(obj) == key(current)]
        ranked = sorted(alike, key=lambda obj: far(obj, current))
        if len(ranked) > 1:
            assert far(ranked[1], current) > 1.4 * far(ranked[0], current)
        current = ranked[0]
    return [(image, current.box)]


def solve_multi_view(item: MiniItem) -> Found:
    marked = object_in_text(item)
    image = named_image(item.instruction)
    return only(item.objects[image], image, lambda obj: key(obj) == key(marked))


def solve_region(item: MiniItem) -> Found:
    """By pixels: which window around an object of the source looks like the requested crop."""
    crop = item.scenes[1 + named_image(item.instruction, "region")].render(112)
    source = item.scenes[0].render(448)
    found = []
    for obj in item.objects[0]:
        x1, y1, x2, y2 = obj.box
        window = (x1 - 1 / 28, y1 - 1 / 28, x2 + 1 / 28, y2 + 1 / 28)
        piece = source.crop(tuple(round(v * 448) for v in window)).resize((112, 112))
        difference = np.abs(np.asarray(piece, float) - np.asarray(crop, float)).mean()
        if difference < 8:
            found.append((0, window))
    return found


def solve_refer_grounding(item: MiniItem) -> Found:
    (alone,) = item.objects[0]
    return only(item.objects[1], 1, lambda obj: key(obj) == key(alone))


LABEL = rf"(?:{'|'.join(COLORS)}) (?:{'|'.join(SHAPES)})"


def solve_group_grounding(item: MiniItem) -> Found:
    match = re.search(
        rf"the ({LABEL})(?: (left of|right of|above|below|in the same image as) the ({LABEL}))?",
        item.instruction,
    )
    assert match is not None
    name, relation, other = match.groups()
    found: Found = []
    for i, row in enumerate(item.objects):
        for obj in row:
            if f"{obj.color} {obj.shape}" != name:
                continue
            anchors = [o for o in row if f"{o.color} {o.shape}" == other]
            if relation is None:
                found.append((i, obj.box))
            elif relation == "in the same image as":
                found += [(i, obj.box)] * len(anchors)
            else:
                found += [(i, obj.box) for a in anchors if BESIDE[relation](obj, a) > 0]
    return found


def solve_reasoning(item: MiniItem) -> Found:
    clues, objects = item.objects
    text = item.instruction
    if "missing in Image-1" in text or "Locate that one" in text:
        shown = {key(obj) for obj in clues}
        assert shown < {key(obj) for obj in objects}
        return only(objects, 1, lambda obj: key(obj) not in shown)
    if "largest object in Image-1" in text:
        shape = winner(clues, side, 2.9 / 28).shape
        return only(objects, 1, lambda obj: obj.shape == shape)
    if "another shape than the rest" in text or "differs in shape" in text:
        shapes = Counter(obj.shape for obj in clues)
        (odd,) = [obj for obj in clues if shapes[obj.shape] == 1]
        return only(objects, 1, lambda obj: obj.color == odd.color)
    assert "most objects in Image-1" in text or "Most objects in Image-1" in text
    (color, n) = Counter(obj.color for obj in clues).most_common()[0]
    assert n > len(clues) / 2
    return only(objects, 1, lambda obj: obj.color == color)


def solve_correspondence(item: MiniItem) -> Found:
    (mark,) = item.scenes[0].marks
    (marked,) = [obj for obj in item.objects[0] if obj.box == mark]
    is_grip = marked.name.endswith("grip")
    return only(item.objects[1], 1, lambda obj: obj.name.endswith("grip") == is_grip)


def solve_single(item: MiniItem) -> Found:
    """The kinds of lisa_val and lisa_test, told apart by their text."""
    (objects,) = item.objects
    text = item.instruction

    def one(obj) -> Found:
        return [(0, obj.box)]

    if any(
        s in text for s in ("odd one out", "does not fit with", "All objects but one are alike")
    ):
        counts = Counter(map(key, objects))
        assert sorted(counts.values())[-1] == len(objects) - 1
        return only(objects, 0, lambda obj: counts[key(obj)] == 1)
    match = re.search(rf"(left of|right of|above|below) the ({LABEL})", text)
    if match is not None:
        rest = beside(objects, match[1], named(objects, match[2]))
        assert len(rest) > 1, "a single one beside would need no size"
        return one(winner(rest, side, 2.9 / 28))
    match = re.search(rf"Leave out the ({LABEL}) and all that is not ([a-z ]+) it", text)
    match = match or re.search(rf"Find the ({LABEL}) first.* the objects ([a-z ]+) it", text)
    if match is not None:
        rest = beside(objects, match[2], named(objects, match[1]))
        assert len(rest) > 1
        return one(winner(rest, side, 2.9 / 28))
    match = re.search(rf"(?:nearest to|neighbor of) the ({LABEL})", text)
    if match is not None:
        anchor = named(objects, match[1])
        rest = [obj for obj in objects if obj is not anchor]
        return one(winner(rest, lambda obj: -far(obj, anchor), CLEAR))
    if any(s in text for s in ("fall", "stand on a shelf")):
        shelves = item.scenes[0].furniture
        assert len(shelves) == len(objects) - 1

        def held(obj) -> bool:
            x1, _, x2, y2 = obj.box
            return any(s[0] <= x1 and x2 <= s[2] and abs(s[1] - y2) < 1e-9 for s in shelves)

        return only(objects, 0, lambda obj: not held(obj))
    match = re.search(r"Put away all that is (\w+), and then put away every (\w+)", text)
    match = match or re.search(r"but one is (\w+) or is a (\w+)", text)
    if match is not None:
        return only(objects, 0, lambda obj: obj.color != match[1] and obj.shape != match[2])
    match = re.search(r"have the same (color|shape), for|they have the same (color|shape)", text)
    match = match or re.search(r"of the wrong (color|shape)()", text)
    if match is not None and "Two objects" not in text:
        by = match[1] or match[2]
        counts = Counter(getattr(obj, by) for obj in objects)
        assert sorted(counts.values())[-1] == len(objects) - 1
        return only(objects, 0, lambda obj: counts[getattr(obj, by)] == 1)
    measures = {
        "furthest to the left": (lambda obj: -cx(obj), CLEAR),
        "furthest to the right": (cx, CLEAR),
        "highest": (lambda obj: -cy(obj), CLEAR),
        "lowest": (cy, CLEAR),
        "largest": (side, 2.9 / 28),
        "smallest": (lambda obj: -side(obj), 2.9 / 28),
        "most room": (side, 2.9 / 28),
        "least room": (lambda obj: -side(obj), 2.9 / 28),
    }
    (word,) = [word for word in measures if word in text.replace("take the ", "")]
    guide = winner(objects, *measures[word])
    match = re.search(r"of the same (color|shape)|have the same (color|shape)", text)
    if match is not None:
        by = match[1] or match[2]
        return only(
            objects, 0, lambda obj: obj is not guide and getattr(obj, by) == getattr(guide, by)
        )
    return one(guide)


FITS = {
    "could roll away": {"circle", "ring"},
    "has no corner": {"circle", "ring"},
    "could be the wheel of a car": {"circle", "ring"},
    "has a hole that a finger fits in": {"ring"},
    "could be put around a finger": {"ring"},
    "is like a full moon": {"circle"},
    "is like a ball, round and full": {"circle"},
    "is like a box to put things on": {"square"},
    "stands flat on a side and has four corners": {"square"},
    "could be the roof of a house": {"triangle"},
    "has three corners": {"triangle"},
    "is like a sign that warns cars": {"triangle"},
    "is like the sign to add numbers": {"cross"},
    "could be the sign of a doctor": {"cross"},
    "stands on its tip": {"diamond"},
    "is like a kite in the air": {"diamond"},
}
THINGS = {
    "a tomato": "red",
    "grass": "green",
    "the deep sea": "blue",
    "a banana": "yellow",
    "a plum": "purple",
    "clear ice": "cyan",
    "snow": "white",
    "coal": "black",
}


def solve_llmseg(item: MiniItem) -> Found:
    text = item.instruction
    shapes = [fit for phrase, fit in FITS.items() if phrase in text]
    colors = [color for thing, color in THINGS.items() if f"the color of {thing}" in text]
    assert len(shapes) <= 1 and len(colors) <= 1 and shapes + colors
    shown = {obj.shape for obj in item.objects[0]}, {obj.color for obj in item.objects[0]}
    # Some road signs that warn are diamonds, and ice may be called white.
    assert not ("sign that warns" in text and "diamond" in shown[0])
    assert not ("clear ice" in text and "white" in shown[1])
    return only(
        item.objects[0],
        0,
        lambda obj: (not shapes or obj.shape in shapes[0]) and (not colors or obj.color in colors),
    )


def tracks(item: MiniItem) -> list[list[SceneObject | None]]:
    """For each object of the third frame, itself in the five frames: by look, else by place."""
    result = []
    for obj in item.objects[2]:
        track: list[SceneObject | None] = []
        for row in item.objects:
            same = [o for o in row if key(o) == key(obj)]
            if not same:
                same = [o for o in row if o.shape == obj.shape and far(o, obj) < 0.02]
            # A repainted object may come to look like another one; then its place tells.
            same.sort(key=lambda o: far(o, obj))
            assert len(same) < 2 or far(same[0], obj) < 1e-9 < far(same[1], obj)
            track.append(same[0] if same else None)
        result.append(track)
    return result


def motion(track) -> tuple[float, float]:
    """Displacement per sampled step, over the frames in which the object is seen."""
    seen = [(i, obj) for i, obj in enumerate(track) if obj is not None]
    (i, a), (j, b) = seen[0], seen[-1]
    return (cx(b) - cx(a)) / (j - i), (cy(b) - cy(a)) / (j - i)


def heading(track) -> str:
    dx, dy = motion(track)
    if math.hypot(dx, dy) < 0.01:
        return "rest"
    if abs(dx) > abs(dy):
        return "to the right" if dx > 0 else "to the left"
    return "down" if dy > 0 else "up"


def solve_video(item: MiniItem) -> Found:
    text = item.instruction
    assert named_image(text, "frame") == 2
    all_tracks = tracks(item)

    def where(condition) -> Found:
        return [(2, track[2].box) for track in all_tracks if condition(track)]

    match = re.search(r"moves (to the left|to the right|up|down)", text)
    if match is not None:
        return where(lambda t: heading(t) == match[1])
    if "Only one object moves" in text or "the object that moves in" in text:
        return where(lambda t: heading(t) != "rest")
    if "does not move" in text or "one that rests" in text:
        return where(lambda t: heading(t) == "rest")
    if "gone at the end" in text or "disappears later" in text:
        return where(lambda t: t[4] is None)
    if "grows" in text:
        return where(lambda t: side(t[4]) - side(t[0]) > 0.1)
    if "shrinks" in text:
        return where(lambda t: side(t[0]) - side(t[4]) > 0.1)
    if "against the others" in text or "the wrong way" in text:
        headings = Counter(heading(t) for t in all_tracks)
        assert len(headings) == 2 and "rest" not in headings
        return where(lambda t: headings[heading(t)] == 1)
    if "comes last" in text or "appears last" in text:
        first = [next(i for i, obj in enumerate(t) if obj is not None) for t in all_tracks]
        return where(lambda t: next(i for i, o in enumerate(t) if o is not None) == max(first))
    if "does not keep its color" in text or "paints an object" in text:
        return where(lambda t: len({obj.color for obj in t if obj is not None}) == 2)
    assert "win a race" in text or "fastest object" in text
    speeds = sorted(math.hypot(*motion(t)) for t in all_tracks)
    assert speeds[-1] >= 1.9 * speeds[-2]
    assert len({heading(t) for t in all_tracks}) == 1, "a race has one direction"
    return where(lambda t: math.hypot(*motion(t)) == speeds[-1])


SEVERAL_TASKS = {
    "lisa_val": solve_single,
    "lisa_test": solve_single,
    "reasonvos": solve_video,
    "revos": solve_video,
}


@pytest.mark.parametrize("subset", ["eval", "train"])
@pytest.mark.parametrize("task", TASKS)
def test_exactly_one_answer_and_it_is_the_recorded_one(task, subset):
    solve = SEVERAL_TASKS.get(task) or globals()[f"solve_{task}"]
    for index in range(N_ITEMS):
        item = generate(task, seed=SEED, index=index, subset=subset)
        found = solve(item)
        assert len(found) == 1, (index, item.instruction, found)
        image, box = found[0]
        assert image == item.target_image, (index, item.instruction)
        assert box == pytest.approx(item.box, abs=1e-9), (index, item.instruction)


def test_diff_box_is_where_the_pixels_differ():
    kinds = Counter()
    for index in range(160):
        item = generate("diff", seed=SEED, index=index)
        kinds[item.knobs["kind"]] += 1
        before, after = (np.asarray(image, int) for image in item.render(140))
        rows, columns = np.nonzero(np.abs(after - before).max(axis=2) > 12)
        pixels = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert box_iou(np.array(pixels) / 140, item.box) > 0.8, (item.knobs, pixels)
    assert min(kinds[kind] for kind in ("added", "recolored", "reshaped")) > 30


@pytest.mark.parametrize("task", TASKS)
def test_drawn_objects_fill_their_boxes(task):
    """Each object of the target image alone changes pixels in its box and nowhere else."""
    item = generate(task, seed=SEED, index=5)
    scene = item.scenes[item.target_image]
    empty = np.asarray(replace(scene, objects=(), marks=()).render(280), int)
    for obj in scene.objects:
        if not obj.is_whole:
            continue
        alone = np.asarray(replace(scene, objects=(obj,), marks=()).render(280), int)
        rows, columns = np.nonzero(np.abs(alone - empty).max(axis=2) > 8)
        pixels = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert np.abs(np.array(pixels) - np.array(obj.box) * 280).max() <= 2.0, obj
