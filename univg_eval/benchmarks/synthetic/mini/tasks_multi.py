"""Builders of the tasks over several images (all but correspondence): see docs/univg_mini.md."""

from __future__ import annotations

from dataclasses import replace

from univg_eval.benchmarks.synthetic.mini.item import Draft
from univg_eval.benchmarks.synthetic.mini.layout import (
    LATTICE,
    Label,
    Maker,
    RetryScene,
    SpotBox,
    distance,
    instruction_box,
    other_colors,
    other_shapes,
    to_norm,
)
from univg_eval.benchmarks.synthetic.mini.scene import COLORS, SHAPES, Scene, SceneObject, map_box
from univg_eval.boxes import Box

__all__ = [
    "common_object",
    "diff",
    "group_grounding",
    "multi_view",
    "object_tracking",
    "reasoning",
    "refer_grounding",
    "region",
    "view_diff",
]


def common_object(maker: Maker) -> Draft:
    """Two to four images with exactly one (colour, shape) in common."""
    rng = maker.rng
    n_images = rng.randint(2, 4)
    wanted = rng.sample(range(n_images), 2)[maker.member]
    label = maker.target_label()
    others: list[list[Label]] = [
        maker.distractors(label, rng.randint(1, 3)) for _ in range(n_images)
    ]
    decoy = n_images > 2 and rng.random() < 0.5
    if decoy:
        # A second label in all images but one: seeing it twice is not enough.
        shared = maker.near_label(label)
        spared = rng.randrange(n_images)
        for i, row in enumerate(others):
            if i != spared and shared not in row:
                row[0] = shared
            elif i == spared and shared in row:
                raise RetryScene
    if set.intersection(*(set(row) for row in others)):
        raise RetryScene
    scenes = []
    targets = []
    for row in others:
        spots = maker.spread([maker.size() for _ in range(len(row) + 1)])
        objects = maker.objects([label, *row], spots)
        targets.append(objects[0])
        scenes.append(maker.scene(objects))
    text = maker.say(
        (
            "These images have one object in common. Find it and locate it in {image}.",
            "One object is in all of these images. Locate it in {image}.",
            "Which object do all the images share? Locate this object in {image}.",
        ),
        image=maker.image(wanted),
    )
    return Draft(scenes, text, targets[wanted], wanted, "common", n_images - 1, {"decoy": decoy})


def _changed(maker: Maker, label: Label, kind: str) -> Label | None:
    """What stood in the place of `label` before the change; None where it was added."""
    if kind == "added":
        return None
    if kind == "recolored":
        before = maker.other_label(shapes=[label[1]], avoid=[label])
    else:
        # A ring is a circle with a hole: the pixels that differ would not fill the box.
        banned = {"ring", "circle"} if label[1] in ("ring", "circle") else {label[1]}
        before = maker.other_label(shapes=[s for s in SHAPES if s not in banned], colors=[label[0]])
    return before


def _change_pair(maker: Maker) -> tuple[str, list[SceneObject], list[SceneObject]]:
    """(kind, objects before, objects after); the first object after is the changed one."""
    kind = maker.kind(("added", "recolored", "reshaped"))
    label = maker.target_label()
    before = _changed(maker, label, kind)
    n_others = maker.rng.randint(2, 4)
    others = maker.distractors(label, n_others, avoid=() if before is None else (before,))
    spots = maker.spread([maker.size(5, 9) for _ in range(n_others + 1)])
    after = maker.objects([label, *others], spots)
    if before is None:
        return kind, after[1:], after
    old = SceneObject(shape=before[1], color=before[0], box=after[0].box)
    return kind, [old, *after[1:]], after


def diff(maker: Maker) -> Draft:
    """Two images that differ in one object: added, recoloured or reshaped in the second."""
    kind, before, after = _change_pair(maker)
    background = maker.background()
    scenes = [Scene(background, tuple(before)), Scene(background, tuple(after))]
    text = maker.say(
        (
            "Compare these two images and locate their difference in {image}.",
            "The two images are the same but for one object. Locate this object in {image}.",
            "What is different in the images? Find it and locate it in {image}.",
        ),
        image=maker.image(1),
    )
    return Draft(scenes, text, after[0], 1, kind, 1)


def _view(maker: Maker, *, mirror: bool) -> tuple[Box, bool]:
    """A window on the unit square that shifts and zooms the view, and whether it is mirrored."""
    zoom = maker.rng.uniform(0.8, 1.3)
    spare = 1.0 - zoom
    x = maker.rng.uniform(min(0.0, spare) - 0.08, max(0.0, spare) + 0.08)
    y = maker.rng.uniform(min(0.0, spare) - 0.08, max(0.0, spare) + 0.08)
    return (x, y, x + zoom, y + zoom), mirror and maker.rng.random() < 0.5


def _seen_from(objects: list[SceneObject], window: Box, mirror: bool) -> list[SceneObject]:
    """The objects in another view; those out of sight are left out."""
    moved = [replace(obj, box=map_box(obj.box, window, mirror=mirror)) for obj in objects]
    return [
        obj
        for obj in moved
        if obj.box[0] < 1 and obj.box[1] < 1 and obj.box[2] > 0 and obj.box[3] > 0
    ]


def view_diff(maker: Maker) -> Draft:
    """As diff, but the first image is another view (shift, zoom, light) of the scene."""
    kind, before, after = _change_pair(maker)
    for _ in range(20):
        window, _ = _view(maker, mirror=False)
        seen = _seen_from(before, window, mirror=False)
        if len(seen) == len(before) and all(obj.is_whole for obj in seen):
            break
    else:
        raise RetryScene
    gains = maker.rng.choice(((0.82, 1.0), (1.0, 0.82), (1.12, 0.92), (0.92, 1.12)))
    scenes = [
        replace(maker.scene(seen), gain=gains[0]),
        replace(maker.scene(after), gain=gains[1]),
    ]
    text = maker.say(
        (
            "The two images show one scene from two views. Locate the real difference in {image}.",
            "The view and the light have changed, and one object too. "
            "Locate this object in {image}.",
            "Compare these two views of a scene and locate what is really different in {image}.",
        ),
        image=maker.image(1),
    )
    return Draft(scenes, text, after[0], 1, kind, 2, {"zoom": round(window[2] - window[0], 3)})


def object_tracking(maker: Maker) -> Draft:
    """Six frames of moving objects; the first box is given, the object is wanted in a later one."""
    rng = maker.rng
    wanted = rng.sample(range(1, 6), 2)[maker.member]
    label = maker.target_label()
    n_others = rng.randint(1, 3)
    others = maker.distractors(label, n_others)
    # A held-out label appears on the target alone, so it has no twin.
    twin = maker.kind(("twin", "plain", "plain")) == "twin" and not maker.held_out
    if twin:
        others[0] = label
    paths: list[list[SpotBox]] = []
    for _ in range(n_others + 1):
        paths.append(_path(maker, paths))
    if twin and not _is_followed(paths[0], paths[1]):
        raise RetryScene
    backgrounds = [maker.background()] * 6
    scenes = [
        Scene(
            backgrounds[frame],
            tuple(maker.objects([label, *others], [path[frame] for path in paths])),
        )
        for frame in range(6)
    ]
    first = to_norm(paths[0][0])
    scenes[0] = replace(scenes[0], marks=(first,))
    text = maker.say(
        (
            "These images are a sequence with moving objects. Locate the object marked with the "
            "red box in the first image ({box}) in {image}.",
            "In the first image an object is marked with a red box ({box}). "
            "It moves. Locate it in {image}.",
            "Follow the object in the red box ({box}) of the first image. "
            "Where is it in {image}? Locate it.",
        ),
        box=instruction_box(first),
        image=maker.image(wanted),
    )
    return Draft(
        scenes, text, scenes[wanted].objects[0], wanted, "twin" if twin else "plain", wanted,
        {"twin": twin},
    )  # fmt: skip


def _path(maker: Maker, paths: list[list[SpotBox]]) -> list[SpotBox]:
    """Six places on a straight line, never near another path at the same time."""
    rng = maker.rng
    for _ in range(40):
        size = maker.size(5, 8)
        x, y = rng.randint(0, LATTICE - size), rng.randint(0, LATTICE - size)
        vx, vy = rng.randint(-3, 3), rng.randint(-3, 3)
        if abs(vx) + abs(vy) < 2:
            continue
        # The drawn place is that of frame 3 or 4, so early and late frames reach the borders.
        pivot = rng.randint(1, 4)
        path = []
        for frame in range(6):
            px, py = x + vx * (frame - pivot), y + vy * (frame - pivot)
            path.append((px, py, px + size, py + size))
        if min(min(spot) for spot in path) < 0 or max(max(spot) for spot in path) > LATTICE:
            continue
        if all(
            max(b[0] - a[2], a[0] - b[2], b[1] - a[3], a[1] - b[3]) >= 1
            for other in paths
            for a, b in zip(path, other, strict=True)
        ):
            return path
    raise RetryScene


def _is_followed(path: list[SpotBox], twin: list[SpotBox]) -> bool:
    """Whether nearness from frame to frame separates the two alike objects, with room."""
    for now in range(5):
        step = distance(path[now], path[now + 1])
        if distance(path[now], twin[now + 1]) < 1.5 * step:
            return False
        if distance(twin[now], path[now + 1]) < 1.5 * distance(twin[now], twin[now + 1]):
            return False
    # Alike in size too, or size would give it away.
    return path[0][2] - path[0][0] == twin[0][2] - twin[0][0]


def multi_view(maker: Maker) -> Draft:
    """Other views (shift, zoom, mirror) of a scene; the object is marked in the first."""
    rng = maker.rng
    n_images = rng.randint(3, 4)
    wanted = rng.randrange(1, n_images)
    label = maker.target_label()
    n_others = rng.randint(2, 4)
    labels = [label, *maker.distractors(label, n_others)]
    spots = maker.spread([maker.size(5, 9) for _ in labels])
    objects = maker.objects(labels, spots)
    scenes: list[Scene] = []
    marked: Box | None = None
    mirrored = []
    for i in range(n_images):
        if i == wanted:
            scenes.append(maker.scene(objects))
            continue
        for _ in range(20):
            window, mirror = _view(maker, mirror=True)
            target = replace(objects[0], box=map_box(objects[0].box, window, mirror=mirror))
            if target.is_whole:
                break
        else:
            raise RetryScene
        if mirror:
            mirrored.append(i)
        seen = maker.scene(_seen_from(objects, window, mirror))
        if i == 0:
            marked = target.box
            seen = replace(seen, marks=(marked,))
        scenes.append(seen)
    if marked is None:
        raise AssertionError("the first image carries the mark, for it is never the wanted one")
    text = maker.say(
        (
            "These images are views of the same scene. The object marked with the red box in the "
            "first image ({box}) is in all of them. Locate it in {image}.",
            "In the first image an object is marked with a red box ({box}). "
            "The other images are other views. Locate this object in {image}.",
        ),
        box=instruction_box(marked),
        image=maker.image(wanted),
    )
    return Draft(
        scenes, text, objects[0], wanted, "mirror" if 0 in mirrored else "shift", 1,
        {"mirrored_images": mirrored},
    )  # fmt: skip


def region(maker: Maker) -> Draft:
    """A source image, then two or three of its regions; one region is to be found in it."""
    rng = maker.rng
    label = maker.target_label()
    n_objects = rng.randint(3, 5)
    n_crops = rng.randint(2, 3)
    labels = [label, *maker.distractors(label, n_objects - 1)]
    spots = maker.spread([maker.size(5, 9) for _ in labels], margin=1)
    objects = maker.objects(labels, spots)
    source = maker.scene(objects)
    windows = [to_norm((x1 - 1, y1 - 1, x2 + 1, y2 + 1)) for x1, y1, x2, y2 in spots]
    crops = [0, *range(1, n_crops)]
    rng.shuffle(crops)
    which = crops.index(0)
    scenes = [source, *(replace(source.window(windows[c]), scale=0.5) for c in crops)]
    text = maker.say(
        (
            "The first image is followed by some of its regions. "
            "Locate {region} in the source image.",
            "The first image is the source. The other images are regions of it. "
            "Where in the source image is {region}? Locate it.",
        ),
        region=maker.image(which, noun="region"),
    )
    return Draft(
        scenes, text, objects[0], 0, "region", 1, {"crops": n_crops, "asked_crop": which},
        box=windows[0],
    )  # fmt: skip


def refer_grounding(maker: Maker) -> Draft:
    """An object alone and larger in the first image, among others in the second."""
    rng = maker.rng
    label = maker.target_label()
    n_others = rng.randint(2, 4)
    labels = [label, *maker.distractors(label, n_others)]
    spots = maker.spread([maker.size(5, 9) for _ in labels])
    objects = maker.objects(labels, spots)
    big = maker.size(15, 24)
    alone = SceneObject(shape=label[1], color=label[0], box=to_norm(maker.place(big)))
    scenes = [replace(maker.scene([alone]), scale=0.5), maker.scene(objects)]
    text = maker.say(
        (
            "Image-1 shows an object. Where is it in {image}? Locate it.",
            "Find the object of Image-1 in {image} and locate it.",
            "Locate the object in the first image again in {image}.",
        ),
        image=maker.image(1),
    )
    return Draft(scenes, text, objects[0], 1, "object", 1)


_RELATIONS = ("left of", "right of", "above", "below")


def relation_holds(relation: str, a: SpotBox | Box, b: SpotBox | Box) -> bool:
    """Whether box a lies wholly on that side of box b."""
    if relation == "left of":
        return a[2] <= b[0]
    if relation == "right of":
        return a[0] >= b[2]
    if relation == "above":
        return a[3] <= b[1]
    return a[1] >= b[3]


def _opposite(relation: str) -> str:
    return _RELATIONS[_RELATIONS.index(relation) ^ 1]


def _spread_ordered(maker: Maker, sizes: list[int], relation: str | None) -> list[SpotBox]:
    """Places for several squares; with a relation, it holds of the first to the second."""
    if relation is None:
        return maker.spread(sizes)
    first = maker.place(sizes[0])
    spots = [first]
    spots.append(
        maker.place(sizes[1], spots, where=lambda spot: relation_holds(relation, first, spot))
    )
    for size in sizes[2:]:
        spots.append(maker.place(size, spots))
    return spots


def group_grounding(maker: Maker) -> Draft:
    """Three or four images; a phrase that is true of one object; its image is to be found."""
    rng = maker.rng
    n_images = rng.randint(3, 4)
    wanted = rng.randrange(n_images)
    kind = maker.kind(("label", "relation", "together"))
    label = maker.target_label()
    name = " ".join(label)
    partner = maker.near_label(label) if rng.random() < 0.5 else maker.other_label(avoid=[label])
    partner_name = " ".join(partner)
    relation = rng.choice(_RELATIONS)
    decoy = rng.choice([i for i in range(n_images) if i != wanted])
    scenes: list[Scene] = []
    target: SceneObject | None = None
    for i in range(n_images):
        labels: list[Label] = []
        where = relation
        if kind == "label":
            labels = [label] if i == wanted else [maker.near_label(label)]
        elif i == wanted:
            labels = [label, partner]
        elif kind == "relation" and i == decoy:
            labels, where = [label, partner], _opposite(relation)
        else:
            labels = [label if (i == decoy or rng.random() < 0.5) else partner]
        n_more = rng.randint(1, 2)
        more = maker.distractors(label, n_more, avoid=[label, partner, *labels])
        sizes = [maker.size(5, 9) for _ in range(len(labels) + n_more)]
        ordered = where if kind == "relation" and len(labels) == 2 else None
        spots = _spread_ordered(maker, sizes, ordered)
        objects = maker.objects([*labels, *more], spots)
        if i == wanted:
            target = objects[0]
        scenes.append(maker.scene(objects))
    if target is None:
        raise AssertionError("the wanted image was not drawn")
    phrase = {
        "label": f"the {name}",
        "relation": f"the {name} {relation} the {partner_name}",
        "together": f"the {name} in the same image as the {partner_name}",
    }[kind]
    text = maker.say(
        (
            "Which image shows {phrase}? Locate it there.",
            "One of these images shows {phrase}. Find the image and locate the object.",
            "Find {phrase} in these images. Say in which image it is and locate it.",
        ),
        phrase=phrase,
    )
    return Draft(
        scenes, text, target, wanted, kind, 1 if kind == "label" else 2, {"phrase": phrase},
        image_is_given=False,
    )  # fmt: skip


def reasoning(maker: Maker) -> Draft:
    """A relation between two images that is described but not named."""
    kind = maker.kind(tuple(_REASONING))
    clues, labels, templates = _REASONING[kind](maker)
    spots = maker.spread([maker.size(5, 9) for _ in labels])
    objects = maker.objects(labels, spots)
    scenes = [maker.scene(clues), maker.scene(objects)]
    text = maker.say(templates, image=maker.image(1))
    return Draft(scenes, text, objects[0], 1, kind, 2)


_Clue = tuple[list[SceneObject], list[Label], tuple[str, ...]]


def _by_color(maker: Maker, label: Label, n: int) -> list[Label]:
    """`label` and n others of other colours."""
    rest = other_colors(label)
    others: list[Label] = []
    for _ in range(n):
        others.append(maker.other_label(colors=rest, avoid=others))
    return [label, *others]


def _by_shape(maker: Maker, label: Label, n: int, clue_shapes: list[str]) -> list[Label]:
    """`label` and n others of other shapes, the first ones with the clue's other shapes."""
    others: list[Label] = []
    for i in range(n):
        shapes = [clue_shapes[i]] if i < len(clue_shapes) else other_shapes(label)
        others.append(maker.other_label(shapes=shapes, avoid=others))
    return [label, *others]


def _odd_color(maker: Maker) -> _Clue:
    rng = maker.rng
    label = maker.target_label()
    common = rng.choice(SHAPES)
    odd = maker.other_label(colors=[label[0]], shapes=[s for s in SHAPES if s != common])
    rest: list[Label] = []
    for _ in range(rng.randint(2, 3)):
        taken = [label[0], *(c for c, _ in rest)]
        rest.append(
            maker.other_label(shapes=[common], colors=[c for c in COLORS if c not in taken])
        )
    clue_labels = [odd, *rest]
    clues = maker.objects(clue_labels, maker.spread([maker.size(5, 9) for _ in clue_labels]))
    labels = _by_color(maker, label, rng.randint(2, 3))
    return (
        clues,
        labels,
        (
            "One object in Image-1 has another shape than the rest. Which object in Image-2 has "
            "the same color? Locate it in {image}.",
            "Find the object in Image-1 that differs in shape from the others. "
            "Locate the object of its color in {image}.",
        ),
    )


def _largest_shape(maker: Maker) -> _Clue:
    rng = maker.rng
    label = maker.target_label()
    others = other_shapes(label)
    clue_shapes = rng.sample(others, rng.randint(1, 2))
    large = maker.size(10, 13)
    sizes = [large, *(maker.size(5, large - 3) for _ in clue_shapes)]
    rest_colors = other_colors(label)
    clue_labels = [
        maker.other_label(shapes=[label[1]], colors=rest_colors),
        *(maker.other_label(shapes=[shape], colors=rest_colors) for shape in clue_shapes),
    ]
    clues = maker.objects(clue_labels, maker.spread(sizes))
    labels = _by_shape(maker, label, rng.randint(2, 3), clue_shapes)
    return (
        clues,
        labels,
        (
            "Which object in Image-2 has the shape of the largest object in Image-1? "
            "Locate it in {image}.",
            "Look at the largest object in Image-1. "
            "Locate the object that has the same shape in {image}.",
        ),
    )


def _missing(maker: Maker) -> _Clue:
    label = maker.target_label()
    others = maker.distractors(label, maker.rng.randint(2, 3))
    clues = maker.objects(others, maker.spread([maker.size(5, 9) for _ in others]))
    return (
        clues,
        [label, *others],
        (
            "Which object in Image-2 is missing in Image-1? Locate it in {image}.",
            "All objects of Image-2 but one are in Image-1 too. Locate that one in {image}.",
        ),
    )


def _majority_color(maker: Maker) -> _Clue:
    rng = maker.rng
    label = maker.target_label()
    same: list[Label] = []
    for _ in range(rng.randint(2, 3)):
        same.append(maker.other_label(colors=[label[0]], avoid=same))
    other = maker.other_label(colors=other_colors(label))
    clue_labels = [*same, other]
    clues = maker.objects(clue_labels, maker.spread([maker.size(5, 8) for _ in clue_labels]))
    labels = [label]
    labels.append(maker.other_label(colors=[other[0]], avoid=[other]))
    rest = other_colors(label)
    for _ in range(rng.randint(1, 2)):
        labels.append(maker.other_label(colors=rest, avoid=labels))
    return (
        clues,
        labels,
        (
            "Which object in Image-2 has the color that most objects in Image-1 have? "
            "Locate it in {image}.",
            "Most objects in Image-1 have one color. Locate the object of this color in {image}.",
        ),
    )


_REASONING = {
    "odd_color": _odd_color,
    "largest_shape": _largest_shape,
    "missing": _missing,
    "majority_color": _majority_color,
}
