"""Images as the model sees them: one resize for rollouts, training and the reading of boxes.

vLLM is given images and resizes them by itself, by the limits that the checkpoint is saved with: it
never learns those of the run (TRL 1.16 has no argument for them). `as_seen` therefore resizes the
images beforehand to what the run's processor would make of them, which both then leave as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from univg_eval.dialects import Dialect, smart_resize_wh
from univg_eval.errors import UserError

if TYPE_CHECKING:
    import datasets

__all__ = ["as_seen", "input_size_rule", "require_same_resize"]

PROBES_WH = ((56, 28), (61, 43), (203, 149), (333, 517), (997, 741), (2049, 1537))
"""Below, within and above the limits of a run, and no multiples of any family's patches."""

SizeRule = Callable[[tuple[int, int]], tuple[int, int]]


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


def input_size_rule(
    processor: Any, own: Any, sizes: Iterable[tuple[int, int]], model: str
) -> SizeRule:
    """The size of an image after the resize of the run, where vLLM will leave it as it is.

    Args:
        processor: of the run, with its pixel limits.
        own: the same as the checkpoint is saved, without the run's limits.
        sizes: (width, height) of the images to come.
        model: a name for the message.

    Raises:
        UserError: the resize of the processor is not known here, or vLLM would resize again.
    """
    images = processor.image_processor
    patch, merge = getattr(images, "patch_size", None), getattr(images, "merge_size", None)
    if not (isinstance(patch, int) and isinstance(merge, int)):
        raise UserError(
            f"min_pixels and max_pixels with use_vllm: the resize of {model} is not known here, so "
            "images cannot be resized before vLLM sees them; leave the limits away"
        )
    low, high = _limits(images)
    own_low, own_high = _limits(own.image_processor)
    if low < own_low or high > own_high:
        raise UserError(
            f"min_pixels={low} and max_pixels={high} with use_vllm: vLLM resizes by the limits "
            f"that {model} is saved with, {own_low} and {own_high}; stay within them"
        )

    def rule(size: tuple[int, int]) -> tuple[int, int]:
        return smart_resize_wh(size, factor=patch * merge, min_pixels=low, max_pixels=high)

    for size in dict.fromkeys(sizes):
        if rule(rule(size)) != rule(size):
            raise UserError(
                f"min_pixels={low} and max_pixels={high} with use_vllm: an image of {size} pixels "
                "is resized again after it was resized; choose limits that lie further apart"
            )
    return rule


def as_seen(dataset: datasets.Dataset, rule: SizeRule) -> datasets.Dataset:
    """The rows of `TrainingData.as_dataset` with images as the model sees them."""
    fetch = dataset.format["format_kwargs"]["transform"]
    return dataset.with_transform(partial(_fetch_resized, fetch=fetch, rule=rule))


def _fetch_resized(batch: Any, *, fetch: Any, rule: SizeRule) -> dict[str, list[Any]]:
    from PIL import Image

    columns: dict[str, list[Any]] = fetch(batch)
    # The rows of a prompt's rollouts share their images.
    images = {id(image): image for shown in columns["images"] for image in shown}
    done = {
        key: image.resize(rule(image.size), resample=Image.Resampling.BICUBIC)
        for key, image in images.items()
    }
    return columns | {"images": [[done[id(i)] for i in shown] for shown in columns["images"]]}


def _limits(images: Any) -> tuple[int, int]:
    size = images.size
    return int(size["shortest_edge"]), int(size["longest_edge"])
