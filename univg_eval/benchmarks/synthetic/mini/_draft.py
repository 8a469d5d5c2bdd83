"""What a task's builder hands to the generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from univg_eval.benchmarks.synthetic.mini.item import Clip
from univg_eval.benchmarks.synthetic.mini.scene import Scene, SceneObject
from univg_eval.boxes import Box

__all__ = ["Draft"]


@dataclass(slots=True)
class Draft:
    """A question before its name and its common knobs are known."""

    scenes: Sequence[Scene]
    instruction: str
    target: SceneObject
    image: int
    kind: str
    depth: int
    knobs: dict[str, Any] = field(default_factory=dict)
    box: Box | None = None
    image_is_given: bool = True
    frames: tuple[int, ...] | None = None
    clip: Clip | None = None
