"""Tasks with objects pasted into photographs or removed from them: difference, moving_patch."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np

from univg_eval.benchmarks.synthetic.photos.patches import (
    Cutout,
    cut,
    gap,
    is_visible_change,
    paste,
    remove,
    settle,
)
from univg_eval.benchmarks.synthetic.photos.question import Album, Question, spread, to_norm
from univg_eval.benchmarks.synthetic.photos.sources import Annotation, PixelBox, Pixels
from univg_eval.boxes import box_iou

__all__ = ["difference", "moving_patch"]

_PATCH_SHARES = (0.025, 0.07)
_MAX_PATCH_SIDE = 0.5
_MAX_ENLARGEMENT = 2.5
_GAP = 8
_FRAMES = 5
_STEPS = (0.04, 0.1)
_MAX_ATTEMPTS = 2000


def _cutout(
    album: Album, rng: random.Random, host: str, avoid: Annotation | None = None
) -> tuple[Annotation, Cutout]:
    """An object of another photograph, resized for pasting into `host`."""
    host_w, host_h = album.wh(host)
    choices = [
        annotation
        for annotation in album.annotations
        if annotation.can_be_pasted and annotation.photo != host and annotation is not avoid
    ]
    for _ in range(_MAX_ATTEMPTS):
        annotation = rng.choice(choices)
        x1, y1, x2, y2 = annotation.bbox
        area = rng.uniform(*_PATCH_SHARES) * host_w * host_h
        scale = (area / ((x2 - x1) * (y2 - y1))) ** 0.5
        wh = round((x2 - x1) * scale), round((y2 - y1) * scale)
        if scale <= _MAX_ENLARGEMENT and max(wh[0] / host_w, wh[1] / host_h) <= _MAX_PATCH_SIDE:
            photo = album.pixels[annotation.photo]
            return annotation, cut(photo, annotation, wh, without_color=album.is_gray(host))
    raise AssertionError(f"no object fits into {host}: the limits contradict each other")


def _place(rng: random.Random, cutout: Cutout, host_wh: tuple[int, int]) -> PixelBox:
    width, height = cutout.wh
    x, y = rng.randint(0, host_wh[0] - width), rng.randint(0, host_wh[1] - height)
    return x, y, x + width, y + height


def _spares_faces(album: Album, host: str, place: PixelBox) -> bool:
    return all(gap(place, face) >= 0 for face in album.photos[host].faces)


def difference(album: Album, rng: random.Random, n: int) -> Iterator[Question]:
    """The same photograph twice; an object is pasted into the second one, or gone from it.

    An object that does not belong stands in both, so that it takes a comparison to answer.
    """
    removable = [annotation for annotation in album.annotations if annotation.can_be_removed]
    hosts, gone = album.rotation(rng, n), spread(rng, removable, n)
    for index in range(n):
        if index % 2 == 0:
            yield _pasted(album, rng, hosts[index // 2])
        else:
            yield _removed(album, rng, gone[index // 2])


def _decoy(
    album: Album, rng: random.Random, host: str, free: PixelBox, avoid: Annotation | None = None
) -> Pixels:
    """The photograph with an object of another one pasted in, apart from the box `free`."""
    for _ in range(_MAX_ATTEMPTS):
        _, cutout = _cutout(album, rng, host, avoid)
        place = _place(rng, cutout, album.wh(host))
        if gap(place, free) < _GAP or not _spares_faces(album, host, place):
            continue
        before = album.pixels[host]
        after = paste(before, cutout, place[:2])
        if is_visible_change(before, after, place):
            return after
    raise AssertionError(f"no place for a second object in {host}")


def _pasted(album: Album, rng: random.Random, host: str) -> Question:
    for _ in range(_MAX_ATTEMPTS):
        annotation, cutout = _cutout(album, rng, host)
        place = _place(rng, cutout, album.wh(host))
        if not _spares_faces(album, host, place):
            continue
        # What is added may not be taken for a part of the object that stands in both.
        before = _decoy(album, rng, host, place, annotation)
        settled = settle(before, paste(before, cutout, place[:2]))
        if settled is None or box_iou(settled[1], place) < 0.9:
            continue
        extra = {"object": annotation.expression, "object_photo": annotation.photo}
        return _difference(album, host, before, settled, "pasted", extra)
    raise AssertionError(f"no visible difference in {host}")


def _removed(album: Album, rng: random.Random, annotation: Annotation) -> Question:
    host = annotation.photo
    settled = settle(album.pixels[host], remove(album.pixels[host], annotation.bbox))
    if settled is None:
        raise AssertionError(f"removing {annotation.expression!r} is hardly visible")
    after, box = settled
    before = _decoy(album, rng, host, box)
    x1, y1, x2, y2 = box
    with_decoy = before.copy()
    with_decoy[y1:y2, x1:x2] = after[y1:y2, x1:x2]
    extra = {"object": annotation.expression, "object_photo": host}
    return _difference(album, host, before, (with_decoy, box), "removed", extra)


def _difference(
    album: Album,
    host: str,
    before: Pixels,
    settled: tuple[Pixels, PixelBox],
    kind: str,
    extra: dict[str, str],
) -> Question:
    after, box = settled
    return Question(
        images=(before, after),
        instruction="Compare these two images and locate their difference in the second image.",
        target_image=1,
        box=to_norm(box, album.wh(host)),
        subject=host,
        kind=kind,
        extra=extra,
    )


def moving_patch(album: Album, rng: random.Random, n: int) -> Iterator[Question]:
    """Five frames of a photograph over which a pasted object moves; another one rests."""
    for host in album.rotation(rng, n):
        yield _moving(album, rng, host)


def _moving(album: Album, rng: random.Random, host: str) -> Question:
    wh = album.wh(host)
    for _ in range(_MAX_ATTEMPTS):
        annotation, cutout = _cutout(album, rng, host)
        step = tuple(
            round(rng.choice((-1, 1)) * rng.uniform(*_STEPS) * side * rng.choice((1.0, 0.3)))
            for side in wh
        )
        if max(abs(step[0]) / wh[0], abs(step[1]) / wh[1]) < _STEPS[0]:
            continue
        x, y = _place(rng, cutout, wh)[:2]
        path = [(x + step[0] * k, y + step[1] * k) for k in range(_FRAMES)]
        track = [(px, py, px + cutout.wh[0], py + cutout.wh[1]) for px, py in path]
        whole = _around(track)
        if min(whole) < 0 or whole[2] > wh[0] or whole[3] > wh[1]:
            continue
        if not all(_spares_faces(album, host, box) for box in track):
            continue
        resting, still = _cutout(album, rng, host, annotation)
        place = _place(rng, still, wh)
        if gap(place, whole) < _GAP or not _spares_faces(album, host, place):
            continue
        scene = paste(album.pixels[host], still, place[:2])
        frames = tuple(paste(scene, cutout, corner) for corner in path)
        if not (
            is_visible_change(album.pixels[host], scene, place)
            and all(
                is_visible_change(scene, frame, box)
                for frame, box in zip(frames, track, strict=True)
            )
        ):
            continue
        return Question(
            images=frames,
            instruction=(
                "These are five frames of a video, in order. One object moves. "
                "Locate it in the third image."
            ),
            target_image=2,
            box=to_norm(track[2], wh),
            subject=host,
            kind="moves",
            extra={
                "object": annotation.expression,
                "object_photo": annotation.photo,
                "resting_object": resting.expression,
                "step": list(step),
            },
        )
    raise AssertionError(f"no path for an object in {host}")


def _around(boxes: list[PixelBox]) -> PixelBox:
    """The tight box around all."""
    array = np.array(boxes)
    (x1, y1), (x2, y2) = array[:, :2].min(axis=0), array[:, 2:].max(axis=0)
    return int(x1), int(y1), int(x2), int(y2)
