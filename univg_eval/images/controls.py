"""Controls: the same samples without what is needed to answer them.

A score that survives a control was not earned by looking at the images. A control changes what the
model is shown, never the truth that its response is measured against: see `CONTROLS`.

A sample under a control keeps its id. Its `extra` carries `MARK`, and `open_controlled` shows its
images, so that the row alone says what to show. What a model scores under a control is a figure of
its own and never the benchmark's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from univg_eval.errors import UserError, meant
from univg_eval.images.reading import open_images, split_reference
from univg_eval.samples import GroundingSample

if TYPE_CHECKING:
    import os

    from PIL import Image as PILImage

__all__ = [
    "CONTROLS",
    "GREY",
    "MARK",
    "NO_CONTROL",
    "Controlled",
    "neutral_instruction",
    "open_controlled",
    "require_control",
    "under_control",
]

NO_CONTROL = "none"
MARK = "control"
"""Key of `GroundingSample.extra` that holds ``{"name": …}`` under a control."""
GREY = (128, 128, 128)

CONTROLS: Mapping[str, str] = {
    NO_CONTROL: "the samples as they are",
    "blank": "every image is a uniform grey one of the same size",
    "swapped": "every image is one of another sample of the same task, in the size of its own",
    "permuted": "the images are in another order, the truth unchanged",
    "cut": "the instruction is replaced by a request that names the image but not the object",
}

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Controlled:
    """The samples of a control.

    Attributes:
        name: one of `CONTROLS`.
        samples: those that the control can be applied to, in the order given.
        left_out: id → reason, of the others. They count in no figure of the control.
    """

    name: str
    samples: list[GroundingSample]
    left_out: dict[str, str]


def require_control(name: object) -> str:
    """`name` if it is one of `CONTROLS`.

    Raises:
        UserError: it is not; the message lists them.
    """
    if not isinstance(name, str) or name not in CONTROLS:
        raise UserError(f"unknown control {name!r}; {meant(name, CONTROLS)}")
    return name


def under_control(name: str, samples: Iterable[GroundingSample]) -> Controlled:
    """What the samples look like under a control.

    Left out are the samples of which a score under the control would say nothing: see there, and
    under ``blank``, ``swapped`` and ``permuted`` those without a target, as "there is no such
    object" is right of other images too.

    * ``none``: unchanged.
    * ``blank``: images and sizes are kept in the row, `open_controlled` shows grey ones.
    * ``swapped``: the images of another sample of the same benchmark, task and split, with the
      same number of images, of another cluster and with no image file in common: the next one in
      the order of the ids' SHA-256 whose images have the same sizes; if there is none, the next
      one at all, its images stretched to the recorded sizes. The sizes of the row stay right, so
      that a box in pixels means the same as without the control. A sample without such a partner
      is left out.
    * ``permuted``: each position shows the image of the next position, with its size, the last one
      the first image. Targets keep their position: the truth of "the second image" is still the
      second position. Samples with one image are left out, and those whose image the model has to
      find: their instruction names no position, so the box is the same in any order.
    * ``cut``: see `neutral_instruction`.

    The result depends on the samples' rows alone: given a whole benchmark or all rows of one
    task, a sample comes out the same.

    Raises:
        UserError: unknown control.
    """
    require_control(name)
    rows = list(samples)
    if name == NO_CONTROL:
        return Controlled(name, rows, {})
    partners = _partners(rows) if name == "swapped" else {}
    shown: list[GroundingSample] = []
    left_out: dict[str, str] = {}
    for sample in rows:
        reason = _why_not(name, sample)
        if reason is None and name == "swapped" and sample.id not in partners:
            reason = "no other sample of the task has as many other images"
        if reason is None:
            shown.append(_change(name, sample, partners.get(sample.id)))
        else:
            left_out[sample.id] = reason
    return Controlled(name, shown, left_out)


def _why_not(name: str, sample: GroundingSample) -> str | None:
    """Why a score of this sample under a control would say nothing; None if it would."""
    if name != "cut" and not sample.targets:
        return "it has no target, and to see none in other images is right too"
    if name == "permuted" and len(sample.images) < 2:
        return "one image has no other order"
    if name == "permuted" and not sample.image_is_given:
        return "its instruction names no image, so its box is right in any order"
    return None


def _change(name: str, sample: GroundingSample, partner: GroundingSample | None) -> GroundingSample:
    mark: dict[str, Any] = {"name": name}
    if name == "cut":
        changed = replace(sample, instruction=neutral_instruction(sample))
    elif name == "permuted":
        changed = replace(
            sample,
            images=_moved_up(sample.images),
            widths=_moved_up(sample.widths),
            heights=_moved_up(sample.heights),
        )
    elif partner is not None:
        changed = replace(sample, images=partner.images)
        mark |= {"from": partner.id, "sizes": [list(size) for size in partner.image_sizes or []]}
    else:
        changed = sample
    return replace(changed, extra={**sample.extra, MARK: mark})


def _moved_up(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*values[1:], *values[:1])


def neutral_instruction(sample: GroundingSample) -> str:
    """A request that keeps the kind of answer and names the image, and says nothing more.

    The image is named as the instruction names it: by its position, several where the targets lie
    on several. Where the model has to find the image, the request is to name it.
    """
    n = len(sample.images)
    if n == 1:
        where = "the image"
    elif not sample.image_is_given:
        return f"Output the bounding box of the object in one of the {n} images, and say in which."
    elif positions := sorted({target.image + 1 for target in sample.targets}):
        numbers = " and ".join(map(str, positions))
        where = f"image{'s' if len(positions) > 1 else ''} {numbers} of {n}"
    else:
        where = f"the {n} images"
    return f"Output the bounding box of the object in {where}."


def open_controlled(
    sample: GroundingSample, root: str | os.PathLike[str] | None = None
) -> list[PILImage.Image]:
    """The images to show for a sample, be it under a control or not.

    Args:
        sample: as stored, or as `under_control` made it.
        root: the data root; default as in `samples.data_root`.

    Returns:
        RGB images, upright, in the sizes that the sample records.

    Raises:
        UserError: see `univg_eval.images.reading.open_images`.
    """
    mark = sample.extra.get(MARK, {})
    if mark.get("name") == "blank":
        return _grey_images(sample, root)
    if mark.get("name") != "swapped":
        return open_images(sample, root)
    sizes: Sequence[Sequence[int]] = mark["sizes"]
    foreign = replace(
        sample,
        widths=tuple(width for width, _ in sizes),
        heights=tuple(height for _, height in sizes),
    )
    images = open_images(foreign, root)
    wanted = sample.image_sizes or [image.size for image in images]
    return [
        image if image.size == size else image.resize(size)
        for image, size in zip(images, wanted, strict=True)
    ]


def _grey_images(
    sample: GroundingSample, root: str | os.PathLike[str] | None
) -> list[PILImage.Image]:
    from PIL import Image

    sizes = sample.image_sizes
    if sizes is None:
        # The release does not state the sizes: only the files do.
        sizes = [image.size for image in open_images(sample, root)]
    return [Image.new("RGB", size, GREY) for size in sizes]


def _partners(samples: Sequence[GroundingSample]) -> dict[str, GroundingSample]:
    """id → the sample whose images are shown instead; no entry where there is none."""
    rings: dict[tuple[Any, ...], list[GroundingSample]] = {}
    for sample in sorted(samples, key=_order):
        kind = (sample.benchmark, sample.task, sample.split, len(sample.images))
        rings.setdefault((*kind, sample.widths, sample.heights), []).append(sample)
        rings.setdefault(kind, []).append(sample)
    partners: dict[str, GroundingSample] = {}
    # Rings of samples with equal sizes have the longer keys and go first.
    for key in sorted(rings, key=len, reverse=True):
        ring = rings[key]
        if len({sample.cluster for sample in ring}) < 2:
            continue
        for place, sample in enumerate(ring):
            if sample.id not in partners and (found := _next_stranger(ring, place)) is not None:
                partners[sample.id] = found
    return partners


def _next_stranger(ring: Sequence[GroundingSample], place: int) -> GroundingSample | None:
    sample = ring[place]
    own: set[str] | None = None
    for step in range(1, len(ring)):
        other = ring[(place + step) % len(ring)]
        if other.cluster == sample.cluster:
            continue
        own = _files(sample) if own is None else own
        if own.isdisjoint(_files(other)):
            return other
    return None


def _files(sample: GroundingSample) -> set[str]:
    return {split_reference(image)[0] for image in sample.images}


def _order(sample: GroundingSample) -> str:
    return hashlib.sha256(sample.id.encode()).hexdigest()
