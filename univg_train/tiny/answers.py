"""What the tiny model is taught to answer: Qwen2-VL's phrase and box, on univg_mini's lattice."""

from __future__ import annotations

from univg_eval.benchmarks.readers.common.release import ordinal
from univg_eval.benchmarks.synthetic.mini.layout import LATTICE
from univg_eval.boxes import Box
from univg_eval.dialects import get_dialect

__all__ = ["DIALECT", "answer_text", "on_lattice"]

DIALECT = get_dialect("qwen2_vl")


def on_lattice(box: Box) -> Box:
    """The box with its corners on the nearest lattice points within the image."""
    x1, y1, x2, y2 = (min(max(round(v * LATTICE), 0), LATTICE) for v in box)
    x1, y1 = min(x1, LATTICE - 1), min(y1, LATTICE - 1)
    return (
        x1 / LATTICE, y1 / LATTICE, max(x2, x1 + 1) / LATTICE, max(y2, y1 + 1) / LATTICE
    )  # fmt: skip


def answer_text(label: str, box: Box, *, image: int | None = None) -> str:
    """What the model is taught to answer: Qwen2-VL's phrase and box.

    Naming the object first splits the answer in two: which one it is, and where that one is.

    Args:
        label: the object's name.
        box: xyxy_norm.
        image: 0-based image that the answer has to name, None where the question names it.
    """
    lead = "" if image is None else f"It's in the {ordinal(image)} image. "
    return lead + DIALECT.encode(on_lattice(box), label=label)
