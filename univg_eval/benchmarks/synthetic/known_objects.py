"""What else is known to be on the images of a sample, besides its true object.

Two sources, both exact: the true objects of other samples about the same image, and, for the
samples of univg_mini's generator, the whole scene, made again from seed and number.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from univg_eval.boxes import Box, box_iou, clip_box, is_valid_box
from univg_eval.samples import GroundingSample

__all__ = ["SAME_OBJECT", "KnownObject", "known_objects"]

SAME_OBJECT = 0.5
"""IoU with a true box from which another box is taken for the same object, annotated twice."""
_GENERATOR = "univg_mini"


@dataclass(frozen=True, slots=True)
class KnownObject:
    """An object on an image of a sample that is not asked for.

    Attributes:
        image: 0-based image of the sample that shows it.
        box: xyxy_norm, cut to the image.
        name: what it is, or whose true object.
    """

    image: int
    box: Box
    name: str


def known_objects(
    samples: Sequence[GroundingSample], ids: Collection[str] | None = None
) -> dict[str, tuple[KnownObject, ...]]:
    """The other objects that are known on the images of each sample.

    Boxes that have IoU >= `SAME_OBJECT` with a true box of the sample on that image are left
    out: the same object annotated twice is no distractor.

    Args:
        samples: all samples of a benchmark; the more there are, the more is known.
        ids: of the samples to answer for; None: all.

    Returns:
        Objects by id, in the order of the images; no entry where none is known.
    """
    on_image: dict[str, list[tuple[str, Box]]] = {}
    for sample in samples:
        for target in sample.targets:
            if is_valid_box(target.box):
                on_image.setdefault(sample.images[target.image], []).append((sample.id, target.box))
    found = {}
    for sample in samples:
        if ids is not None and sample.id not in ids:
            continue
        objects = _scene_objects(sample)
        if objects is None:
            objects = [
                KnownObject(image, box, f"the object of sample {other}")
                for image, reference in enumerate(sample.images)
                for other, box in on_image.get(reference, ())
                if other != sample.id
            ]
        others = tuple(item for item in objects if not _is_asked(item, sample))
        if others:
            found[sample.id] = others
    return found


def _is_asked(item: KnownObject, sample: GroundingSample) -> bool:
    return any(
        target.image == item.image and box_iou(target.box, item.box) >= SAME_OBJECT
        for target in sample.targets
    )


def _scene_objects(sample: GroundingSample) -> list[KnownObject] | None:
    """All objects of a generated sample's scenes; None if it is none, or not of this generator.

    A sample counts as made by this generator if it names no other version and the generator
    makes the same sample again.
    """
    from univg_eval.benchmarks.synthetic.mini import GENERATOR_VERSION, TASKS, generate

    source = sample.source
    seed, index = source.get("seed"), source.get("index")
    if source.get("generator") != _GENERATOR or sample.task not in TASKS:
        return None
    if source.get("version", GENERATOR_VERSION) != GENERATOR_VERSION:
        return None
    if type(seed) is not int or type(index) is not int or index < 0:
        return None
    item = generate(sample.task, seed=seed, index=index)
    same = (
        item.instruction == sample.instruction
        and len(sample.targets) == 1
        and (item.target_image, item.box) == (sample.target_image, sample.box)
    )
    if not same:
        return None
    objects = [
        KnownObject(image, clip_box(obj.box), obj.label)
        for image, scene in enumerate(item.objects)
        for obj in scene
    ]
    return [obj for obj in objects if is_valid_box(obj.box)]
