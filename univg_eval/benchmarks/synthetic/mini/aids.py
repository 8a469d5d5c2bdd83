"""Training aids over the same scenes: list all objects, or find a plainly named one."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from univg_eval.benchmarks.synthetic.mini.item import MiniItem
from univg_eval.benchmarks.synthetic.mini.layout import nth, ordinal
from univg_eval.benchmarks.synthetic.mini.scene import Scene, SceneObject
from univg_eval.boxes import Box
from univg_eval.errors import UserError

__all__ = ["Referring", "listing", "referring"]


@dataclass(frozen=True, slots=True)
class Referring:
    """A plain question about an object: the instruction, its image (0-based), box, label."""

    instruction: str
    image: int
    box: Box
    label: str


def _noun(item: MiniItem) -> str:
    return "frame" if item.video else "image"


def _whole(scene: Scene) -> list[SceneObject]:
    """Objects that are wholly within the image, from left to right, then from the top."""
    return sorted((obj for obj in scene.objects if obj.is_whole), key=lambda obj: obj.box)


def listing(item: MiniItem | Scene, image: int = 0) -> tuple[str, tuple[tuple[str, Box], ...]]:
    """Ask for all objects of an image.

    Args:
        item: a question, or a single scene.
        image: 0-based image of the question.

    Returns:
        (instruction, ((label, box xyxy_norm), ...)), the objects from left to right; objects
        that the image's border cuts are left out.

    Raises:
        UserError: the question has no such image.
    """
    scenes = (item,) if isinstance(item, Scene) else item.scenes
    if not 0 <= image < len(scenes):
        raise UserError(f"image {image} of a question with {len(scenes)} images (0-based)")
    where = ""
    if not isinstance(item, Scene) and len(scenes) > 1:
        where = f" in the {ordinal(image)} {_noun(item)}"
    objects = tuple((obj.label, obj.box) for obj in _whole(scenes[image]))
    return f"List all objects{where} from left to right.", objects


def referring(item: MiniItem | Scene, rng: random.Random) -> Referring | None:
    """Ask for a plainly named object of a random image.

    Only objects whose label is unique in their image, and that the border does not cut, are
    asked for; None if there is none.
    """
    scenes = (item,) if isinstance(item, Scene) else item.scenes
    order = list(range(len(scenes)))
    rng.shuffle(order)
    for image in order:
        counts = Counter(obj.label for obj in scenes[image].objects)
        choices = [obj for obj in _whole(scenes[image]) if counts[obj.label] == 1]
        if not choices:
            continue
        obj = rng.choice(choices)
        where = ""
        if not isinstance(item, Scene) and len(scenes) > 1:
            where = f" in the {rng.choice((ordinal, nth))(image)} {_noun(item)}"
        return Referring(f"Locate the {obj.label}{where}.", image, obj.box, obj.label)
    return None
