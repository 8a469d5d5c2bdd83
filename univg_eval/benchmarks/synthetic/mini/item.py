"""One question of univg_mini: scenes, instruction, the true box, and how it was made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from univg_eval.benchmarks.synthetic.mini.scene import Scene, SceneObject
from univg_eval.boxes import Box

if TYPE_CHECKING:
    from PIL import Image as PILImage

__all__ = ["CLIP_FRAMES", "SAMPLED_FRAMES", "Clip", "Draft", "MiniItem"]

CLIP_FRAMES = 25
SAMPLED_FRAMES = 5


@dataclass(frozen=True, slots=True)
class Clip:
    """A short video as data: `at(frame)` is the scene of a frame, 0 <= frame < n_frames."""

    at: Callable[[int], Scene]
    n_frames: int = CLIP_FRAMES


@dataclass(slots=True)
class Draft:
    """What the builder of a task hands to the generator."""

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


@dataclass(frozen=True, slots=True)
class MiniItem:
    """One question.

    Attributes:
        task: one of `TASKS`.
        scenes: one scene an image, in the order the images are shown.
        instruction: the question; boxes in it as `<|box_start|>(x1,y1),(x2,y2)<|box_end|>`
            on 0-1000.
        box: the true box, xyxy_norm of `scenes[target_image]`.
        target_image: 0-based.
        image_is_given: False where the image itself has to be found.
        label: what the target is ("red circle").
        knobs: how hard it is and why: kind, depth, distractors, target_share, held_out, ...
        group: name of the images within the task; items of one group share all images.
        frames: for a video, the 0-based frame numbers of `scenes`.
        clip: the video, None for still images.
    """

    task: str
    scenes: tuple[Scene, ...]
    instruction: str
    box: Box
    target_image: int
    image_is_given: bool
    label: str
    knobs: dict[str, Any]
    group: str
    frames: tuple[int, ...] | None = None
    clip: Clip | None = field(default=None, compare=False, repr=False)

    @property
    def image_count(self) -> int:
        """Number of images of the question."""
        return len(self.scenes)

    @property
    def video(self) -> bool:
        """Whether the images are frames of a video."""
        return self.clip is not None

    @property
    def objects(self) -> tuple[tuple[SceneObject, ...], ...]:
        """The objects of each scene."""
        return tuple(scene.objects for scene in self.scenes)

    @property
    def marked_box(self) -> Box | None:
        """The box outlined in red in the first image, if there is one."""
        marks = self.scenes[0].marks
        return marks[0] if marks else None

    def stored_size(self, image: int, size: int | tuple[int, int]) -> tuple[int, int]:
        """(width, height) of an image's file in a benchmark of that size: crops are smaller."""
        width, height = (size, size) if isinstance(size, int) else size
        scale = self.scenes[image].scale
        return round(width * scale), round(height * scale)

    def render(
        self, size: int | tuple[int, int] = 448, *, stored: bool = False
    ) -> list[PILImage.Image]:
        """Draw all images at `size` (side, or (width, height)); with `stored`, at `stored_size`."""
        return [
            scene.render(self.stored_size(k, size) if stored else size)
            for k, scene in enumerate(self.scenes)
        ]
