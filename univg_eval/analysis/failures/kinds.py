"""The classes of misses and what stands for one miss; definitions at the top of the package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

__all__ = ["FAILURES", "Failure", "FailureKind"]

FailureKind = Literal[
    "invalid_truth",
    "truncated",
    "wrong_image",
    "no_box",
    "said_none",
    "false_alarm",
    "other_scale",
    "invalid_box",
    "wrong_object",
    "loose",
    "tight",
    "shifted",
    "image_mixup",
    "elsewhere",
]

FAILURES: Mapping[FailureKind, str] = MappingProxyType(
    {
        "invalid_truth": "The true box is empty or inverted, so that no answer can hit it.",
        "truncated": "Thinking or answer never ends, and no box stands outside the thinking.",
        "wrong_image": "The box is on another image than the object.",
        "no_box": "The response holds no readable box.",
        "said_none": "The response says that there is no such object, though there is one.",
        "false_alarm": "The response gives a box, though there is no such object.",
        "other_scale": "The numbers fit the object if read in another dialect or with other pixel "
        "limits, as many misses of the run do: a hint at the set-up.",
        "invalid_box": "The box is inverted, empty or outside the image.",
        "wrong_object": "The box fits another object of the image.",
        "loose": "The box covers the object and is too large.",
        "tight": "The box lies inside the object and is too small.",
        "shifted": "The box overlaps the object and neither covers it nor lies inside it.",
        "image_mixup": "The box fits an object of another image of the question.",
        "elsewhere": "The box is somewhere else, on no object that is known.",
    }
)
"""All classes in the order in which they are tried, with their meanings; read-only."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one sample is a miss.

    Attributes:
        kind: one of `FAILURES`.
        iou: with the target, as scored; None for a sample without target.
        hints: sentences on what else is known; they use the truth and are never a score.
    """

    kind: FailureKind
    iou: float | None
    hints: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"kind": self.kind, "iou": self.iou, "hints": list(self.hints)}
