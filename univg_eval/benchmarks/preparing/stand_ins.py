"""Images in the place of a release's own, for a trial without them.

Each says what it is and shows the path of the image that it stands for. Nothing can be found on
them: they show that everything else works. A set prepared with them has another fingerprint than
the release's, and its samples say so (`univg_eval.samples.has_stand_ins`).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from univg_eval.benchmarks.readers.common.release import Item, Release
from univg_eval.samples import GroundingSample, as_stand_in

__all__ = ["FOLDER", "draw_images", "with_stand_ins"]

FOLDER = "stand_in_images"
_SIZES_WH = ((320, 240), (240, 320), (288, 288), (352, 224))


def draw_images(
    names: Sequence[str], folder: Path, progress: Callable[[int, int], None] | None = None
) -> None:
    """Draw an image for each path below a folder; the same paths give the same pixels.

    Images of a folder whose names differ in what follows the last ``_`` alone have one size, as the
    two images of a pair must have.

    Args:
        names: paths relative to `folder`, with the endings of images.
        folder: is made where it is missing.
        progress: called with (images drawn, images in all).
    """
    from PIL import Image, ImageDraw

    for number, name in enumerate(names):
        if progress is not None:
            progress(number, len(names))
        path = PurePosixPath(name)
        alike = str(path.parent / path.stem.rpartition("_")[0])
        image = Image.new(
            "RGB",
            _SIZES_WH[zlib.crc32(alike.encode()) % len(_SIZES_WH)],
            tuple(160 + value % 80 for value in zlib.crc32(name.encode()).to_bytes(4)[:3]),
        )
        text = "\n".join(("STAND-IN IMAGE", *path.parts))
        ImageDraw.Draw(image).multiline_text((12, 12), text, fill="black")
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        image.save(file)
    if progress is not None:
        progress(len(names), len(names))


def with_stand_ins(release: Release) -> Release:
    """The release, whose samples say that their images are stand-ins."""

    def marked(item: Item) -> Item:
        def convert() -> list[GroundingSample]:
            return [as_stand_in(sample) for sample in item.convert()]

        return replace(item, convert=convert)

    return replace(
        release,
        items=[marked(item) for item in release.items],
        source={**release.source, "stand_in_images": True},
    )
