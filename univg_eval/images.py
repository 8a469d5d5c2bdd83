"""The images of a sample as the model and the annotations mean them: RGB and upright."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from univg_eval.errors import UserError
from univg_eval.samples import GroundingSample, data_root
from univg_eval.video import read_frames

if TYPE_CHECKING:
    from PIL import Image as PILImage

__all__ = ["load_image", "open_images", "split_reference"]

_FRAME_MARK = "#frame="


def split_reference(reference: str) -> tuple[str, int | None]:
    """Split ``clip.mp4#frame=12`` into ("clip.mp4", 12); a plain path has frame None.

    Raises:
        UserError: what follows ``#frame=`` is not a whole number.
    """
    path, mark, number = reference.rpartition(_FRAME_MARK)
    if not mark:
        return reference, None
    if not (number.isascii() and number.isdigit()):
        raise UserError(
            f"image reference {reference!r}: frame {number!r} is not a whole number from 0; "
            "expected e.g. 'clip.mp4#frame=12'"
        )
    return path, int(number)


# Pillow's switch is one for the whole process.
_switch = threading.Lock()


@contextmanager
def _whole_images_only() -> Iterator[None]:
    """Make Pillow refuse truncated files, whatever other libraries have told it.

    lmms-eval switches them on when it is imported; the missing part of an image would then be
    grey, and a model would be blamed for not seeing it.
    """
    from PIL import ImageFile

    with _switch:
        before = ImageFile.LOAD_TRUNCATED_IMAGES
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def load_image(path: str | os.PathLike[str]) -> PILImage.Image:
    """Open an image file as RGB, turned upright once by its EXIF orientation.

    The result carries no orientation tag, so nothing downstream can turn it a second time.

    Raises:
        UserError: the file is missing, is no image, or is damaged.
    """
    from PIL import Image, ImageOps

    path = Path(path)
    try:
        with _whole_images_only(), Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            return upright.convert("RGB")
    except FileNotFoundError as error:
        raise UserError(
            f"image file {path} does not exist; prepare its benchmark again, or set UNIVG_DATA "
            "to the folder that holds it"
        ) from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow raises SyntaxError for some broken PNG chunks and ValueError for some headers.
        raise UserError(
            f"cannot read {path} as an image: {error}; the file may be damaged"
        ) from error


def open_images(
    sample: GroundingSample, root: str | os.PathLike[str] | None = None
) -> list[PILImage.Image]:
    """Open all images of a sample, in its order.

    Frames of the same video file are read with one opening of the file.

    Args:
        sample: its `images` are paths relative to the data root, or absolute.
        root: the data root; default as in `samples.data_root`.

    Returns:
        RGB images, upright, one an entry of `sample.images`.

    Raises:
        UserError: a file is missing or unreadable, or an image does not have the size that the
            sample records (a box in pixels would be read wrongly); the sample is named.
    """
    base = data_root(root)
    try:
        images = _open(sample.images, base)
    except UserError as error:
        raise UserError(f"sample {sample.id!r}: {error}") from error
    for reference, image, expected_wh in zip(
        sample.images, images, sample.image_sizes or [image.size for image in images], strict=True
    ):
        if image.size != expected_wh:
            raise UserError(
                f"sample {sample.id!r}: {reference} is {image.width}x{image.height} pixels, the "
                f"sample says {expected_wh[0]}x{expected_wh[1]}; the file was replaced or resized: "
                "prepare the benchmark again"
            )
    return images


def _open(references: tuple[str, ...], base: Path) -> list[PILImage.Image]:
    images: dict[int, PILImage.Image] = {}
    films: dict[str, list[tuple[int, int]]] = {}
    for position, reference in enumerate(references):
        path, frame = split_reference(reference)
        if frame is None:
            images[position] = load_image(base / path)
        else:
            films.setdefault(path, []).append((position, frame))
    for path, wanted in films.items():
        frames = read_frames(base / path, [frame for _, frame in wanted])
        images.update(
            {position: image for (position, _), image in zip(wanted, frames, strict=True)}
        )
    return [images[position] for position in range(len(references))]
