"""Frames of video files: the even sampling rule, and exact reading by frame number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from univg_eval.errors import UserError

if TYPE_CHECKING:
    from PIL import Image as PILImage

__all__ = ["read_frames", "sample_frames_even"]


def sample_frames_even(n_total: int, n: int) -> list[int]:
    """0-based numbers of `n` frames, the centre frame of each of `n` equal intervals.

    Frame i is floor((i + 0.5) * n_total / n); 25 frames and n = 5 give 2, 7, 12, 17, 22. With
    n > n_total frames repeat, so that there are always `n`.

    Raises:
        UserError: n_total or n below 1.
    """
    if n_total < 1 or n < 1:
        raise UserError(f"cannot sample {n} of {n_total} frames: both must be at least 1")
    return [(2 * i + 1) * n_total // (2 * n) for i in range(n)]
