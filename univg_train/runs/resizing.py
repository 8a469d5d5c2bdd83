"""Images as the model sees them: one resize for rollouts, training and the reading of boxes.

vLLM is given images and resizes them by itself, by the limits that the checkpoint is saved with: it
never learns those of the run (TRL 1.16 has no argument for them). `as_seen` therefore resizes the
images beforehand to what the run's processor would make of them, which both then leave as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
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

    Args:
        processor: of the model, with the run's pixel limits.
        dialect: with the run's pixel limits.
        model: its name, for the message.

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
        sizes: (width, height) of the images to come, for the check.
        model: its name, for the message.

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
    """The rows of `TrainingData.as_dataset` with images as the model sees them.

    Args:
        dataset: with a transform that returns a column ``images``, lists of PIL images.
        rule: see `input_size_rule`.
    """
    return dataset.with_transform(_AsSeen(dataset.format["format_kwargs"]["transform"], rule))


class _AsSeen:
    def __init__(self, fetch: Callable[[Any], dict[str, list[Any]]], rule: SizeRule) -> None:
        self._fetch = fetch
        self._rule = rule

    def __call__(self, batch: Any) -> dict[str, list[Any]]:
        from PIL import Image

        columns = self._fetch(batch)
        # The rows of a prompt's rollouts share their images.
        done: dict[int, Any] = {}
        for shown in columns["images"]:
            for image in shown:
                if id(image) not in done:
                    size = self._rule(image.size)
                    done[id(image)] = image.resize(size, resample=Image.Resampling.BICUBIC)
        return columns | {"images": [[done[id(i)] for i in shown] for shown in columns["images"]]}


def _limits(images: Any) -> tuple[int, int]:
    size = images.size
    return int(size["shortest_edge"]), int(size["longest_edge"])
