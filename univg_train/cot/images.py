"""Images as they are sent to a teacher: bounded in size, new JPEG files, inside the request."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from univg_eval.images.reading import load_reference

__all__ = ["SentImage", "bounded_size", "encode_images"]

_JPEG_QUALITY = 90
_PIXELS_A_TOKEN = 28 * 28  # of Qwen's families; only to estimate before a server has told


@dataclass(frozen=True, slots=True)
class SentImage:
    """An image inside a request.

    Attributes:
        uri: ``data:image/jpeg;base64,…``.
        image_wh: (width, height) in pixels as sent.
    """

    uri: str
    image_wh: tuple[int, int]

    @property
    def tokens(self) -> int:
        """About how many tokens the teacher counts for it."""
        return math.ceil(self.image_wh[0] * self.image_wh[1] / _PIXELS_A_TOKEN)


def bounded_size(image_wh: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    """(width, height) with an area of at most `max_pixels`, about the same shape; never larger."""
    width, height = image_wh
    if width * height <= max_pixels:
        return image_wh
    scale = math.sqrt(max_pixels / (width * height))
    small = (max(1, math.floor(width * scale)), max(1, math.floor(height * scale)))
    # A side that cannot shrink below a pixel leaves the other one the whole area.
    return min(small[0], max_pixels), min(small[1], max_pixels)


def encode_images(references: Sequence[str], image_root: Path, max_pixels: int) -> list[SentImage]:
    """Open, turn upright, reduce and encode; nothing of the files but pixels is sent.

    Raises:
        UserError: an image is missing or unreadable.
    """
    sent = []
    for reference in references:
        image = load_reference(reference, image_root)
        size = bounded_size(image.size, max_pixels)
        if size != image.size:
            image = image.resize(size)
        # Pillow writes tags and comments that it read from the file; a new image has none.
        bare = image.copy()
        bare.info.clear()
        buffer = io.BytesIO()
        bare.save(buffer, format="JPEG", quality=_JPEG_QUALITY)
        text = base64.b64encode(buffer.getvalue()).decode("ascii")
        sent.append(SentImage(f"data:image/jpeg;base64,{text}", size))
    return sent
