"""The resize that a processor does, held against the rule by which boxes are read."""

from __future__ import annotations

from typing import Any

from univg_eval.dialects import Dialect
from univg_eval.errors import UserError

__all__ = ["require_same_resize"]

PROBES_WH = ((56, 28), (61, 43), (203, 149), (333, 517), (997, 741), (2049, 1537))
"""Below, within and above the limits of a run, and no multiples of any family's patches."""


def require_same_resize(processor: Any, dialect: Dialect, model: str) -> None:
    """Boxes in pixels of the resized image are right only for the resize that is done.

    Processor and dialect have the run's pixel limits; `model` is a name for the message.

    Raises:
        UserError: the processor has another rule than the dialect, or does not report sizes.
    """
    from PIL import Image

    if not dialect.needs_input_size:
        return
    for size in PROBES_WH:
        expected = tuple(dialect.input_size(size))
        seen = processor.image_processor(images=[Image.new("RGB", size)])
        patch = getattr(processor.image_processor, "patch_size", None)
        if "image_grid_thw" not in seen or not isinstance(patch, int):
            raise UserError(
                f"the dialect {dialect.name!r} writes pixels of the resized image, and the "
                f"processor of {model} does not report its size; take the model's own dialect"
            )
        _, height, width = (int(value) * patch for value in seen["image_grid_thw"][0])
        if (width, height) != expected:
            raise UserError(
                f"the dialect {dialect.name!r} takes an image of {size} pixels to be resized to "
                f"{expected}, and the processor of {model} makes it {(width, height)}; take the "
                "model's own dialect"
            )
