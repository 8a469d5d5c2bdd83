"""Video files for backends that take a path: as they are, or made once from a folder of frames."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from univg_eval.errors import UserError, install_command
from univg_eval.files import whole_file
from univg_eval.images.reading import load_image
from univg_eval.images.video import count_frames, list_frames
from univg_eval.images.video.decoding import open_video

__all__ = ["FOLDER_FPS", "Video", "video_at"]

FOLDER_FPS = 2
"""Frames a second of a video made from a folder, whose release states no times.

Two, since the reader of the Qwen backends (qwen_vl_utils) takes two frames a second: no frame is
lost before the backend's limit on their number.
"""
_CODEC = "libx264"
# 4:4:4 keeps the colour of every pixel and takes odd sizes; the quantiser is below what is seen.
_PIXELS = "yuv444p"
_OPTIONS = {"qp": "10", "preset": "veryfast", "bf": "0", "g": "12"}
_FEWEST = 2
"""Frames that the readers of the Qwen backends need; a single image is shown this often."""


@dataclass(frozen=True, slots=True)
class Video:
    """A video that can be handed over as a file.

    Attributes:
        path: the file, or the folder of frames.
        n_frames: number of frames.
        fps: frames a second, on average.
        names: file names of the frames of a folder, in order; () for a file.
    """

    path: Path
    n_frames: int
    fps: float
    names: tuple[str, ...] = ()

    def encoded(self, path: Path) -> Path:
        """The frames of a folder as an mp4 file beside `path`, made where there is none yet.

        The file's name holds a hash of the frames' names, sizes and dates, so that changed frames
        make another file. A single frame is shown twice: backends fail on videos of one frame.

        Raises:
            UserError: av or its encoder is missing, a frame cannot be read or has another size
                than the first, or the folder cannot be written to.
        """
        files = [self.path / name for name in self.names]
        try:
            facts = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
        except OSError as error:
            raise UserError(
                f"a frame of the video {self.path} is gone: {error}; prepare its benchmark again"
            ) from error
        made_of = json.dumps([facts, FOLDER_FPS, _CODEC, _PIXELS, _OPTIONS, _FEWEST])
        digest = hashlib.sha256(made_of.encode()).hexdigest()[:12]
        final = path.with_name(f"{path.stem}-{digest}.mp4")
        if final.is_file():
            return final
        try:
            with whole_file(final, "wb") as file:
                _encode(files * _FEWEST if len(files) < _FEWEST else files, file)
        except OSError as error:
            raise UserError(
                f"cannot write {final} of the frames in {self.path}: {error.strerror or error}; "
                "set UNIVG_DATA to a folder that can be written"
            ) from error
        return final


def _encode(frames: list[Path], target: Any) -> None:
    try:
        import av
        from av.video.stream import VideoStream
    except ImportError as error:
        raise UserError(
            f"making a video of frames needs the package av: {install_command('eval')}"
        ) from error
    import numpy as np

    if _CODEC not in av.codecs_available:
        raise UserError(
            f"the installed av has no encoder {_CODEC}; install the wheel of av from PyPI"
        )
    with av.open(target, mode="w", format="mp4") as container:
        stream = cast(VideoStream, container.add_stream(_CODEC, rate=FOLDER_FPS))
        stream.pix_fmt = _PIXELS
        stream.options = dict(_OPTIONS)
        first_wh: tuple[int, int] | None = None
        for path in frames:
            image = load_image(path)
            if first_wh is None:
                first_wh = image.size
                stream.width, stream.height = first_wh
            if image.size != first_wh:
                raise UserError(
                    f"frame {path} is {image.width}x{image.height} pixels, the first of its "
                    f"video {first_wh[0]}x{first_wh[1]}; expected one size in a video: evaluate "
                    "the task that shows the frames as images"
                )
            frame = av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def video_at(path: Path) -> Video:
    """The video in a file, or in a folder of frames in the natural order of their names.

    Raises:
        UserError: av is not installed; the file is missing, no readable video, or states no frame
            rate, so that a frame has no time; the folder has no frames in a definite order.
    """
    try:
        state = path.stat()
    except OSError:
        return _open(path, None)
    return _open(path, (state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=512)
def _open(path: Path, _: tuple[int, int] | None) -> Video:
    """Cached by the file's or folder's time of change in ns and size."""
    if path.is_dir():
        names = tuple(list_frames(path))
        return Video(path, len(names), float(FOLDER_FPS), names)
    n_frames = count_frames(path)
    with open_video(path) as (_container, stream):
        rate = stream.average_rate or stream.guessed_rate
    if not rate:
        raise UserError(
            f"{path} does not state how many frames it has a second, so a frame cannot be named by "
            "its time; convert it to mp4"
        )
    return Video(path, n_frames, float(rate))
