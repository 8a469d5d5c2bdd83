"""What a backend does to images before the model's processor or a service resizes them.

It matters where boxes are pixels of what arrives, for the last resize starts from what the first
one left. Read in lmms-eval 0.7.3, and held against the images that its backends really hand on:

simple/claude
    shrinks an image until its PNG file has at most 4,838,990 bytes, each time by the share that is
    too much. How far it goes depends on the picture and the installed Pillow, so it is done here
    as there.
chat/qwen2_5_vl
    lets qwen_vl_utils resize by its own limits, 4 to 16,384 times 28 x 28 pixels, whatever
    model_args say; the processor then applies those.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence

from PIL import Image

from univg_eval.dialects import Dialect, smart_resize_wh
from univg_eval.errors import UserError

__all__ = ["require_known_sizes", "require_shapes", "sent_sizes"]

Size = tuple[int, int]
_CLAUDE_BYTES = 4_838_990
_QWEN_UTILS_AREA = (4 * 28 * 28, 16_384 * 28 * 28)


def sent_sizes(
    backend: str,
    simple: bool,
    sizes: Sequence[Size],
    open_images: Callable[[], Sequence[Image.Image]],
) -> list[Size]:
    """(width, height) of each image as a backend hands it on.

    Args:
        backend: lmms-eval's name.
        simple: whether it is the simple backend of that name, or the chat one.
        sizes: of the images.
        open_images: opens them, where their sizes are not enough.
    """
    if backend == "claude":
        return [_shrunk(image).size for image in open_images()]
    if backend == "qwen2_5_vl" and not simple:
        low, high = _QWEN_UTILS_AREA
        return [smart_resize_wh(wh, factor=28, min_pixels=low, max_pixels=high) for wh in sizes]
    return list(sizes)


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


def require_shapes(backend: type, sizes: Sequence[Size]) -> None:
    """Check that qwen_vl_utils, where a backend resizes with it, takes images of these sizes.

    There it raises for an image that is over 200 times as long as wide, which ends the run.

    Raises:
        UserError: it does not; see `smart_resize_wh`.
    """
    if "process_vision_info" in vars(sys.modules[backend.__module__]):
        low, high = _QWEN_UTILS_AREA
        for wh in sizes:
            smart_resize_wh(wh, factor=28, min_pixels=low, max_pixels=high)
