"""Images as the model sees them: one resize for rollouts, training and the reading of boxes.

vLLM is given images and resizes them by itself, by the limits that the checkpoint is saved with: it
never learns those of the run (TRL 1.16 has no argument for them). `as_seen` therefore resizes the
images beforehand to what the run's processor would make of them, which both then leave as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from univg_eval.dialects import smart_resize_wh
from univg_eval.errors import UserError

if TYPE_CHECKING:
    import datasets

__all__ = ["as_seen", "input_size_rule"]

SizeRule = Callable[[tuple[int, int]], tuple[int, int]]


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
