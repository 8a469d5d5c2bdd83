"""What else is known to be on the images of a sample, besides its true object.

Two sources, both exact: the true objects of other samples about the same image, and, for the
samples of univg_mini's generator, the whole scene, made again from seed and number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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
    samples: Sequence[GroundingSample], near: Mapping[str, Box] | None = None
) -> dict[str, tuple[KnownObject, ...]]:
    """The other objects that are known on the images of each sample.

    Boxes that have IoU >= `SAME_OBJECT` with a true box of the sample on that image are left
    out: the same object annotated twice is no distractor.

    Args:
        samples: all samples of a benchmark; the more there are, the more is known.
        near: by id of the samples to answer for, a box (xyxy_norm) that an object has to fit, with
            IoU >= `SAME_OBJECT`; None: all objects of all samples, which are as many as the square
            of the samples of an image.

    Returns:
        Objects by id, in the order of the images; no entry where none is known.
    """
    on_image = _objects_of_images(samples)
    found = {}
    for number, sample in enumerate(samples):
        if near is not None and sample.id not in near:
            continue
        box = None if near is None else near[sample.id]
        objects = _scene_objects(sample)
        if objects is None:
            others = tuple(
                KnownObject(
                    image, tuple(boxes[i].tolist()), f"the object of sample {samples[owners[i]].id}"
                )
                for image, reference in enumerate(sample.images)
                if reference in on_image
                for owners, boxes in [on_image[reference]]
                for i in np.flatnonzero((owners != number) & _are_others(sample, image, boxes, box))
            )
        else:
            others = tuple(
                item
                for item in objects
                if _are_others(sample, item.image, np.array([item.box]), box)[0]
            )
        if others:
            found[sample.id] = others
    return found


def _objects_of_images(
    samples: Sequence[GroundingSample],
) -> dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]]:
    """The true objects on each image: numbers of their samples (n,), and boxes (n, 4)."""
    listed: dict[str, list[tuple[int, Box]]] = {}
    for number, sample in enumerate(samples):
        for target in sample.targets:
            if is_valid_box(target.box):
                listed.setdefault(sample.images[target.image], []).append((number, target.box))
    return {
        reference: (np.array([owner for owner, _ in own]), np.array([box for _, box in own]))
        for reference, own in listed.items()
    }


def _are_others(
    sample: GroundingSample, image: int, boxes: npt.NDArray[np.float64], near: Box | None
) -> npt.NDArray[np.bool_]:
    """Which of some boxes (n, 4) on an image are none that is asked for, and fit `near`."""
    others = np.ones(len(boxes), dtype=bool)
    if near is not None:
        # A little less: who compares rounds.
        others &= box_iou(near, boxes) >= SAME_OBJECT - 1e-6
    for target in sample.targets:
        if target.image == image:
            others &= box_iou(target.box, boxes) < SAME_OBJECT
    return others


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
