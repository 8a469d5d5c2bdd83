"""Images of docs/univg_mini.md: ``python docs/mini_images.py docs/images/mini``.

One PNG a task, drawn from a sample of the public seed, the true box outlined in white and
black.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from univg_eval.benchmarks.synthetic.mini.generator import DEFAULT_SEED, TASKS, generate
from univg_eval.benchmarks.synthetic.mini.item import MiniItem

if TYPE_CHECKING:
    from PIL import Image as PILImage

__all__ = ["EXAMPLES", "draw", "example_item", "write_images"]

EXAMPLES: dict[str, int] = {
    "common_object": 6,
    "diff": 2,
    "view_diff": 1,
    "object_tracking": 2,
    "multi_view": 8,
    "region": 1,
    "refer_grounding": 0,
    "group_grounding": 6,
    "reasoning": 1,
    "correspondence": 1,
    "lisa_val": 9,
    "lisa_test": 5,
    "llmseg": 3,
    "reasonvos": 1,
    "revos": 3,
}
"""Index of the sample shown, of the public seed."""

_SIDE = 120
_GAP = 4


def example_item(task: str) -> MiniItem:
    """The sample of a task that the docs show."""
    return generate(task, seed=DEFAULT_SEED, index=EXAMPLES[task])


def _outlined(item: MiniItem, images: list[PILImage.Image]) -> list[PILImage.Image]:
    from PIL import ImageDraw

    draw = ImageDraw.Draw(images[item.target_image])
    x1, y1, x2, y2 = (round(v * _SIDE) for v in item.box)
    draw.rectangle((x1 - 1, y1 - 1, x2, y2), outline=(255, 255, 255), width=1)
    draw.rectangle((x1 - 2, y1 - 2, x2 + 1, y2 + 1), outline=(0, 0, 0), width=1)
    return images


def draw(task: str) -> PILImage.Image:
    """A strip with the images of a task's example."""
    from PIL import Image

    item = example_item(task)
    images = _outlined(item, item.render(_SIDE))
    canvas = Image.new("RGB", (len(images) * (_SIDE + _GAP) - _GAP, _SIDE), (255, 255, 255))
    for number, image in enumerate(images):
        canvas.paste(image, (number * (_SIDE + _GAP), 0))
    return canvas


def write_images(folder: Path) -> list[Path]:
    """Write one PNG a task into `folder`; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for task in TASKS:
        path = folder / f"{task}.png"
        draw(task).save(path, optimize=True)
        paths.append(path)
    return paths


def main() -> None:
    """Write the images into the folder given on the command line."""
    parser = argparse.ArgumentParser(description="Draw the images of docs/univg_mini.md.")
    parser.add_argument("folder", type=Path, help="where to write them, e.g. docs/images/mini")
    write_images(parser.parse_args().folder)


if __name__ == "__main__":
    main()
