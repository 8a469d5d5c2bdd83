"""What a backend does to images before it sends them, where boxes are pixels of what arrives.

simple/claude of lmms-eval 0.7.3 shrinks an image until its PNG file has at most 4,838,990 bytes,
each time by the share that is too much. The service's own resize starts from what is left. How far
it went depends on the picture and the installed Pillow, so it is done here as there.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

from univg_eval.dialects import Dialect
from univg_eval.errors import UserError

__all__ = ["require_known_sizes", "sent_sizes", "shrinks"]

Size = tuple[int, int]
_CLAUDE_BYTES = 4_838_990


def shrinks(backend: str) -> bool:
    """Whether `sent_sizes` has to look at the images of this backend."""
    return backend == "claude"


def sent_sizes(images: Sequence[Image.Image]) -> list[Size]:
    """(width, height) of each image as simple/claude sends it."""
    return [_shrunk(image).size for image in images]


def _shrunk(image: Image.Image) -> Image.Image:
    while _largest_png(image) > _CLAUDE_BYTES:
        file = io.BytesIO()
        image.save(file, format="PNG")
        n_bytes = file.tell()
        if n_bytes <= _CLAUDE_BYTES:
            break
        share = min(0.9, _CLAUDE_BYTES / n_bytes)
        size = (int(image.width * share), int(image.height * share))
        image = image.resize(size, Image.Resampling.LANCZOS)
    return image


def _largest_png(image: Image.Image) -> int:
    """Bytes that no PNG file of an image exceeds: its raw rows and the format's own share."""
    raw = image.height * (1 + image.width * len(image.getbands()))
    return raw + raw // 100 + 4096


def require_known_sizes(dialect: Dialect, backend: str, *, simple: bool) -> None:
    """Check that a service's own resize can be computed, which starts from the image as sent.

    Raises:
        UserError: the backend may shrink images by a rule that is not reproduced here.
    """
    if dialect.needs_input_size and dialect.pixel_limits is None and simple and backend != "claude":
        raise UserError(
            f"dialect {dialect.name!r} writes pixels of the image after the service's resize, and "
            f"simple/{backend} may shrink a large image before it sends it, to a size that is not "
            "known here; leave out --force_simple: the chat backends send images as they are"
        )
