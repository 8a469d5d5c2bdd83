"""Tasks that ask for something in untouched photographs: photos, find_crop, which_photo."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np

from univg_eval.benchmarks.synthetic.photos.question import (
    MAX_SHARE,
    Album,
    Question,
    spread,
    to_norm,
)
from univg_eval.benchmarks.synthetic.photos.regions import distinct_region
from univg_eval.benchmarks.synthetic.photos.sources import Annotation, PixelBox, Pixels

__all__ = ["find_crop", "photos", "which_photo"]

_CROP_SIDES = (0.18, 0.45)
_CROP_SCALES = (0.7, 1.5)
_CROP_GAINS = (0.85, 1.15)
_MIN_CROP_SIDE = 56
_SHOWN_PHOTOS = 3


def photos(album: Album, rng: random.Random, n: int) -> Iterator[Question]:
    """The boxes that were measured by hand, all of them: neither `rng` nor `n` changes them."""
    for annotation in album.annotations:
        wh = album.wh(annotation.photo)
        yield Question(
            images=(annotation.photo,),
            instruction=f"Locate {annotation.expression}.",
            target_image=0,
            box=to_norm(annotation.bbox, wh),
            subject=annotation.photo,
            kind="annotated",
            extra={"expression": annotation.expression},
        )


def _shown(rng: random.Random, pixels: Pixels, box: PixelBox) -> tuple[Pixels, dict[str, float]]:
    """The crop, resized and lighter or darker; and by which factors."""
    from PIL import Image

    x1, y1, x2, y2 = box
    at_least = _MIN_CROP_SIDE / min(x2 - x1, y2 - y1)
    scale = max(at_least, rng.uniform(*_CROP_SCALES))
    gain = rng.uniform(*_CROP_GAINS)
    wh = round((x2 - x1) * scale), round((y2 - y1) * scale)
    image = Image.fromarray(pixels[y1:y2, x1:x2]).resize(wh, Image.Resampling.LANCZOS)
    lit = np.clip(np.rint(np.asarray(image, dtype=np.float64) * gain), 0, 255)
    return lit.astype(np.uint8), {"scale": round(scale, 3), "gain": round(gain, 3)}


def find_crop(album: Album, rng: random.Random, n: int) -> Iterator[Question]:
    """A crop is shown first; find it again in the whole photograph."""
    taken: dict[str, list[PixelBox]] = {name: [] for name in album.names}
    for name in album.rotation(rng, n):
        pixels = album.pixels[name]
        box, measures = distinct_region(
            pixels, rng, sides=_CROP_SIDES, max_share=MAX_SHARE, taken=taken[name]
        )
        # Later crops keep apart from the last ones; with very many there is no other place.
        taken[name] = [*taken[name], box][-4:]
        crop, jitter = _shown(rng, pixels, box)
        yield Question(
            images=(crop, name),
            instruction=(
                "The first image is a part of the second image, cut out and resized. "
                "Locate this part in the second image."
            ),
            target_image=1,
            box=to_norm(box, album.wh(name)),
            subject=name,
            kind="crop",
            extra=jitter | measures,
        )


def which_photo(album: Album, rng: random.Random, n: int) -> Iterator[Question]:
    """Three photographs; only one holds what is described, or what the first image shows."""
    described = [
        annotation
        for annotation in album.annotations
        if _share(album, annotation.photo, annotation.bbox) <= MAX_SHARE
    ]
    subjects, phrases = album.rotation(rng, n), spread(rng, described, n)
    for index, place in enumerate(spread(rng, range(_SHOWN_PHOTOS), n)):
        if index % 2 == 0:
            yield _by_expression(album, rng, phrases[index // 2], place)
        else:
            yield _by_crop(album, rng, subjects[index // 2], place)


def _with_others(
    album: Album, rng: random.Random, name: str, place: int, *, without: tuple[str, ...] = ()
) -> list[str]:
    """Names of the photographs shown: `name` at the 0-based position `place`."""
    choices = [other for other in album.names if other != name and other not in without]
    shown = rng.sample(choices, _SHOWN_PHOTOS - 1)
    shown.insert(place, name)
    return shown


def _by_expression(
    album: Album, rng: random.Random, annotation: Annotation, place: int
) -> Question:
    name = annotation.photo
    return Question(
        images=tuple(_with_others(album, rng, name, place, without=annotation.unclear_beside)),
        instruction=(
            f"One of these images shows {annotation.expression}. "
            "Say in which image it is and locate it."
        ),
        target_image=place,
        box=to_norm(annotation.bbox, album.wh(name)),
        subject=name,
        kind="expression",
        image_is_given=False,
        extra={"expression": annotation.expression},
    )


def _by_crop(album: Album, rng: random.Random, name: str, place: int) -> Question:
    shown = _with_others(album, rng, name, place)
    box, measures = distinct_region(
        album.pixels[name],
        rng,
        sides=_CROP_SIDES,
        max_share=MAX_SHARE,
        others=[album.pixels[other] for other in shown if other != name],
    )
    crop, jitter = _shown(rng, album.pixels[name], box)
    return Question(
        images=(crop, *shown),
        instruction=(
            "The first image is a part of one of the other images, cut out and resized. "
            "Say in which image it is and locate it there."
        ),
        target_image=1 + place,
        box=to_norm(box, album.wh(name)),
        subject=name,
        kind="crop",
        image_is_given=False,
        extra=jitter | measures,
    )


def _share(album: Album, name: str, box: PixelBox) -> float:
    width, height = album.wh(name)
    return (box[2] - box[0]) * (box[3] - box[1]) / (width * height)
