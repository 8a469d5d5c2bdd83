"""How many tokens rows have as the trainer makes them, by the model's own template and processor.

No image file is opened: what an image adds to the text depends on its size alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from univg_train.data import TrainingData

__all__ = ["RowLengths", "encode_row", "row_text"]


def row_text(columns: dict[str, Any], processor: Any) -> str:
    """A row (of `univg_train.data.render`) in the model's chat template.

    One without a completion ends where the model's answer begins.
    """
    completion = columns.get("completion", [])
    text: str = processor.apply_chat_template(
        [*columns["prompt"], *completion], add_generation_prompt=not completion
    )
    return text


class RowLengths:
    """Tokens of rows; what images of one size add is found out once."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._added: dict[tuple[tuple[int, int], bool], int] = {}

    def of(self, columns: dict[str, Any], text: str) -> int:
        """Tokens of a row whose `row_text` is `text`."""
        sizes = _sizes(columns)
        alone = len(sizes) == 1  # LLaVA-OneVision cuts a single image into tiles, and several not
        for size in sizes:
            if (size, alone) not in self._added:
                self._added[size, alone] = self._tokens_added(size, 1 if alone else 2)
        return self._count(text) + sum(self._added[size, alone] for size in sizes)

    def all(self, data: TrainingData, positions: Iterable[int]) -> Iterator[int]:
        """Tokens of each of these rows."""
        for position in positions:
            columns = data.columns(position)
            yield self.of(columns, row_text(columns, self._processor))

    def _count(self, text: str) -> int:
        return len(self._processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _tokens_added(self, size: tuple[int, int], images: int) -> int:
        """By which each of some images of one (width, height) makes the text longer."""
        content = [{"type": "image"}] * images
        columns = {"prompt": [{"role": "user", "content": content}], "image_sizes": [size] * images}
        text = self._processor.apply_chat_template(columns["prompt"])
        encoded = encode_row(columns, self._processor, text)
        return (len(encoded["input_ids"][0]) - self._count(text)) // images


def encode_row(columns: dict[str, Any], processor: Any, text: str | None = None) -> Any:
    """What the model is given for a row, with blank images: ``input_ids``, ``pixel_values`` …

    Args:
        columns: of the row.
        processor: of the model.
        text: of the row; None: its `row_text`.
    """
    from PIL import Image

    images = [Image.new("RGB", size) for size in _sizes(columns)]
    text = row_text(columns, processor) if text is None else text
    return processor(
        images=images or None, text=[text], add_special_tokens=False, return_tensors="pt"
    )


def _sizes(columns: dict[str, Any]) -> list[tuple[int, int]]:
    return [(width, height) for width, height in columns["image_sizes"]]
