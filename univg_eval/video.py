"""Frames of video files: the even sampling rule, and exact reading by frame number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from univg_eval.errors import UserError

if TYPE_CHECKING:
    import os

    from PIL import Image as PILImage

__all__ = ["read_frames", "sample_frames_even"]


def sample_frames_even(n_total: int, n: int) -> list[int]:
    """0-based numbers of `n` frames: the centre frame of each of `n` equal intervals.

    Frame i is floor((i + 0.5) * n_total / n); 25 frames and n = 5 give 2, 7, 12, 17, 22. With
    n > n_total frames repeat, so that there are always `n`.

    Raises:
        UserError: n_total or n is below 1.
    """
    if n_total < 1 or n < 1:
        raise UserError(f"cannot sample {n} of {n_total} frames: both must be at least 1")
    return [(2 * i + 1) * n_total // (2 * n) for i in range(n)]


def read_frames(path: str | os.PathLike[str], indices: Sequence[int]) -> list[PILImage.Image]:
    """Decode frames by their 0-based number in presentation order.

    Args:
        path: a video file.
        indices: frame numbers, in any order; a number may repeat.

    Returns:
        RGB images, parallel to `indices`.

    Raises:
        UserError: decord is not installed; the file is missing or no readable video; a frame
            number is outside the film.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"video file {path} does not exist; prepare its benchmark again, or set UNIVG_DATA "
            "to the folder that holds it"
        )
    try:
        import decord
    except ImportError as error:
        raise UserError(
            f"reading {path} needs the package decord: pip install 'univg[eval]'"
        ) from error
    from PIL import Image

    try:
        # One thread: frames are few, and a reader per process must not start a pool each.
        reader = decord.VideoReader(str(path), num_threads=1)
        n_total = len(reader)
    except (RuntimeError, decord.DECORDError) as error:
        raise UserError(
            f"cannot read {path} as a video: {_first_line(error)}; expected a video file with at "
            "least one frame, such as H.264 in mp4"
        ) from error
    wrong = [index for index in indices if not 0 <= index < n_total]
    if wrong:
        raise UserError(
            f"{path} has {n_total} frames, numbered 0 to {n_total - 1}; frame {wrong[0]} was "
            "asked for"
        )
    if not indices:
        return []
    unique = sorted(set(indices))
    try:
        batch = reader.get_batch(unique).asnumpy()
    except (RuntimeError, decord.DECORDError) as error:
        raise UserError(
            f"cannot decode frames {unique} of {path}: {_first_line(error)}; the file may be "
            "damaged"
        ) from error
    frames = dict(zip(unique, batch, strict=True))
    return [Image.fromarray(frames[index]) for index in indices]


def _first_line(error: Exception) -> str:
    """The first line of a message; decord appends its stack trace to it."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
