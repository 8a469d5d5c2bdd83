"""The images of a sample as the model and the annotations mean them: RGB and upright."""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from univg_eval.errors import UserError
from univg_eval.images.video import read_frames
from univg_eval.samples import GroundingSample, data_root

if TYPE_CHECKING:
    from PIL import Image as PILImage

__all__ = [
    "ImageError",
    "ImageHeader",
    "image_header",
    "image_size",
    "load_image",
    "load_reference",
    "open_images",
    "opened_image",
    "split_reference",
]

_FRAME_MARK = "#frame="
_MOST_DIGITS = 9
_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
"""Pillow's names of what is opened, whatever a file is called; others start programs, as EPS does,
or have rarely been read."""


class ImageError(UserError):
    """An image file cannot be opened.

    Attributes:
        missing: True if there is no such file, False if it is there but cannot be read.
    """

    def __init__(self, message: str, *, missing: bool) -> None:
        super().__init__(message)
        self.missing = missing


def split_reference(reference: str) -> tuple[str, int | None]:
    """Split ``clip.mp4#frame=12`` into ("clip.mp4", 12); a plain path has frame None.

    Raises:
        UserError: what follows ``#frame=`` is not a whole number.
    """
    path, mark, number = reference.rpartition(_FRAME_MARK)
    if not mark:
        return reference, None
    if not (number.isascii() and number.isdigit() and len(number) <= _MOST_DIGITS):
        raise UserError(
            f"image reference {reference!r}: frame {number!r} is not a whole number from 0; "
            "expected e.g. 'clip.mp4#frame=12'"
        )
    return path, int(number)


# Pillow's switch is one for the whole process; threads that decode at once share one setting of it.
_switch = threading.Lock()
_decoding = 0
_switch_before = False


@contextmanager
def opened_image(path: Path) -> Iterator[PILImage.Image]:
    """An image file as Pillow opens it, of a common format and whole."""
    from PIL import Image

    with _whole_images_only(), Image.open(path, formats=_formats()) as image:
        yield image


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """Those that this Pillow was built with."""
    from PIL import Image

    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@contextmanager
def _whole_images_only() -> Iterator[None]:
    """Make Pillow refuse truncated files, whatever other libraries have set.

    lmms-eval switches them on when it is imported; the missing part of an image would then be
    grey, and a model would be blamed for not seeing it. The switch is put back when the last of
    the threads inside leaves.
    """
    global _decoding, _switch_before
    from PIL import ImageFile

    with _switch:
        if _decoding == 0:
            _switch_before = ImageFile.LOAD_TRUNCATED_IMAGES
            ImageFile.LOAD_TRUNCATED_IMAGES = False
        _decoding += 1
    try:
        yield
    finally:
        with _switch:
            _decoding -= 1
            if _decoding == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES = _switch_before


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(width, height) of an image file as it is displayed, after its EXIF orientation.

    Reads the header alone: a file whose pixels are damaged has a size too.

    Raises:
        ImageError: the file is missing or is no image.
    """
    return image_header(path).size


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What an image file says about itself.

    Attributes:
        stored_size: (width, height) in pixels as the pixels lie in the file.
        orientation: 1 to 8 as in EXIF; 1 says that the image is stored upright.
    """

    stored_size: tuple[int, int]
    orientation: int

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the image as it is displayed."""
        width, height = self.stored_size
        return (height, width) if self.orientation in _LYING else (width, height)


def image_header(path: str | os.PathLike[str], *, decode: bool = False) -> ImageHeader:
    """Size and orientation of an image file.

    Args:
        path: the file.
        decode: decode all its pixels too, and refuse a file whose pixels are damaged.

    Raises:
        ImageError: the file is missing, is no image or, with `decode`, is damaged.
    """
    from PIL import Image, PngImagePlugin, TiffImagePlugin

    path = Path(path)
    with _image_errors(path), opened_image(path) as image:
        width, height = image.size
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            # Pillow's releases disagree on whether `size` is upright here; the tags are as stored.
            width, height = image.tag_v2[256], image.tag_v2[257]
        if isinstance(image, PngImagePlugin.PngImageFile) and not _has_late_tags(path):
            # PngImageFile.getexif would decode the whole image to look for tags behind it.
            exif = Image.Image.getexif(image)
        else:
            exif = image.getexif()
        orientation = exif.get(_ORIENTATION, 1)
        if decode:
            image.load()
    return ImageHeader((width, height), orientation if orientation in range(1, 9) else 1)


_ORIENTATION = 0x0112
_LYING = (5, 6, 7, 8)  # orientations that exchange width and height


def _has_late_tags(path: Path) -> bool:
    """Whether a PNG file has chunks behind its pixels that may hold an orientation."""
    seen_pixels = False
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if seen_pixels and kind in (b"eXIf", b"iTXt", b"tEXt", b"zTXt"):
                return True
            seen_pixels = seen_pixels or kind == b"IDAT"
            file.seek(length + 4, os.SEEK_CUR)
    return False


def load_image(path: str | os.PathLike[str], *, upright: bool = True) -> PILImage.Image:
    """Open an image file as RGB, turned upright once by its EXIF orientation.

    The result carries no orientation tag, so nothing downstream can turn it a second time. An
    alpha channel is dropped and the colours under it are kept, as ``Image.convert("RGB")`` does.
    Of 16 bits of grey the upper eight are kept.

    Args:
        path: the file.
        upright: False gives the pixels as they lie in the file; only to show what a program that
            does not know the orientation would see.

    Raises:
        ImageError: the file is missing, is no image, or is damaged.
    """
    from PIL import ImageOps

    path = Path(path)
    with _image_errors(path), opened_image(path) as image:
        if upright:
            return _to_rgb(ImageOps.exif_transpose(image))
        shown = _to_rgb(image)
        shown.getexif().clear()
        return shown


def _to_rgb(image: PILImage.Image) -> PILImage.Image:
    if not image.mode.startswith("I;16"):
        return image.convert("RGB")
    import numpy as np
    from PIL import Image

    # Pillow would cut every value above 255, and an ordinary image would come out white.
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")


@contextmanager
def _image_errors(path: Path) -> Iterator[None]:
    """Turn what Pillow raises for a missing or broken file into `ImageError`."""
    from PIL import Image

    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError(
            f"image file {path} does not exist; prepare its benchmark again, or set UNIVG_DATA "
            "to the folder that holds it",
            missing=True,
        ) from error
    except (
        # Of broken headers, chunks and tags; Pillow documents only the first two.
        OSError,
        Image.DecompressionBombError,
        SyntaxError,
        ValueError,
        EOFError,
        LookupError,
        OverflowError,
        TypeError,
        struct.error,
        zlib.error,
    ) as error:
        raise ImageError(
            f"cannot read {path} as an image: {_reason(path, error)}", missing=False
        ) from error


def _reason(path: Path, error: Exception) -> str:
    """Why an image that is there cannot be read, and what to do."""
    from PIL import UnidentifiedImageError

    if isinstance(error, PermissionError):
        return f"{error.strerror}; allow this user to read it"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{error.strerror}; expected an image file"  # a folder, a link to itself
    if isinstance(error, UnidentifiedImageError):
        if path.stat().st_size == 0:
            return "the file is empty; fetch it again"
        return "it has no known image format; the file may be damaged"
    return f"{str(error).rstrip('.')}; the file may be damaged"


def load_reference(reference: str, root: str | os.PathLike[str] | None = None) -> PILImage.Image:
    """Open what an entry of a sample's `images` names: an image file, or a frame of a video.

    Args:
        reference: a path relative to the data root, or absolute; ``clip.mp4#frame=12`` is a frame.
        root: the data root; default as in `samples.data_root`.

    Raises:
        ImageError: an image file is missing or unreadable.
        UserError: a video is missing or unreadable, or has no such frame.
    """
    (image,) = _open((reference,), data_root(root))
    return image


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
    videos: dict[str, list[tuple[int, int]]] = {}
    for position, reference in enumerate(references):
        path, frame = split_reference(reference)
        if frame is None:
            images[position] = load_image(base / path)
        else:
            videos.setdefault(path, []).append((position, frame))
    for path, wanted in videos.items():
        frames = read_frames(base / path, [frame for _, frame in wanted])
        images.update(
            {position: image for (position, _), image in zip(wanted, frames, strict=True)}
        )
    return [images[position] for position in range(len(references))]
