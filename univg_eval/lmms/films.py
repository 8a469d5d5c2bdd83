"""Video files for backends that take a path: as they are, or made once from a folder of frames."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from univg_eval.errors import UserError
from univg_eval.images.reading import load_image
from univg_eval.images.video import count_frames, list_frames
from univg_eval.images.video.decoding import open_video

__all__ = ["FOLDER_FPS", "Film", "film_of_file", "film_of_folder"]

FOLDER_FPS = 2
"""Frames a second of a film made from a folder, whose release tells no times.

Two, since the reader of the Qwen backends (qwen_vl_utils) takes two frames a second: no frame is
lost before the backend's limit on their number.
"""
_CODEC = "libx264"
# 4:4:4 keeps the colour of every pixel and takes odd sizes; the quantiser is below what is seen.
_PIXELS = "yuv444p"
_OPTIONS = {"qp": "10", "preset": "veryfast", "bf": "0", "g": "12"}
_FEWEST = 2
"""Frames that the readers of the Qwen backends need; a single picture is shown this often."""


@dataclass(frozen=True, slots=True)
class Film:
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

    def to_dict(self) -> dict[str, Any]:
        """What the log keeps of it."""
        return {"n_frames": self.n_frames, "fps": self.fps}

    def encoded(self, path: Path) -> Path:
        """The frames of a folder as an mp4 file, made if `path` is not of these frames.

        The file's name gets a mark of the frames' names, sizes and dates, so that changed frames
        make another file. It appears when whole. A single frame is shown twice: backends fail on
        films of one frame.

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
        mark = hashlib.sha256(made_of.encode()).hexdigest()[:12]
        final = path.with_name(f"{path.stem}-{mark}.mp4")
        if final.is_file():
            return final
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".film-", dir=final.parent) as folder:
                draft = Path(folder) / "film.mp4"
                _encode(files * _FEWEST if len(files) < _FEWEST else files, draft)
                draft.replace(final)
        except OSError as error:
            raise UserError(
                f"cannot write the film {final} of the frames in {self.path}: "
                f"{error.strerror or error}; set UNIVG_DATA to a folder that can be written"
            ) from error
        return final


def _encode(files: list[Path], path: Path) -> None:
    try:
        import av
        from av.video.stream import VideoStream
    except ImportError as error:
        raise UserError(
            "making a film of frames needs the package av: pip install 'univg[eval]'"
        ) from error
    import numpy as np

    if _CODEC not in av.codecs_available:
        raise UserError(
            f"the installed av has no encoder {_CODEC}; install the wheel of av from PyPI"
        )
    with av.open(str(path), mode="w") as container:
        stream = cast(VideoStream, container.add_stream(_CODEC, rate=FOLDER_FPS))
        stream.pix_fmt = _PIXELS
        stream.options = dict(_OPTIONS)
        first_wh: tuple[int, int] | None = None
        for file in files:
            image = load_image(file)
            if first_wh is None:
                first_wh = image.size
                stream.width, stream.height = first_wh
            if image.size != first_wh:
                raise UserError(
                    f"frame {file} is {image.width}x{image.height} pixels, the first of its "
                    f"video {first_wh[0]}x{first_wh[1]}; expected one size in a video: evaluate "
                    "the task that shows the frames as images"
                )
            frame = av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def film_of_folder(folder: Path) -> Film:
    """The video whose frames lie in a folder, in the natural order of their names.

    Raises:
        UserError: there are no frames in it, or their order cannot be told.
    """
    return _film_of_folder(folder, _state(folder))


def film_of_file(path: Path) -> Film:
    """A video file with its number of frames and their rate.

    Raises:
        UserError: av is not installed, or the file is missing, no readable video, or tells no
            rate, so that the asked frame has no time.
    """
    return _film_of_file(path, _state(path))


def _state(path: Path) -> tuple[int, int] | None:
    """What tells one state of a file or folder from another: time of change in ns, and size."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=512)
def _film_of_folder(folder: Path, _: tuple[int, int] | None) -> Film:
    names = tuple(list_frames(folder))
    return Film(folder, len(names), float(FOLDER_FPS), names)


@lru_cache(maxsize=512)
def _film_of_file(path: Path, _: tuple[int, int] | None) -> Film:
    n_frames = count_frames(path)
    with open_video(path) as (_container, stream):
        rate = stream.average_rate or stream.guessed_rate
    if not rate:
        raise UserError(
            f"{path} does not tell how many frames it has a second, so the asked frame cannot be "
            "named by its time; convert it to mp4"
        )
    return Film(path, n_frames, float(rate))
