"""Frames of video files, exact by number."""

from __future__ import annotations

import os
import stat
import threading
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from univg_eval.errors import UserError
from univg_eval.images.video.cache import frame_cache
from univg_eval.images.video.packets import (
    FilmIndex,
    counted_index,
    first_line,
    need_av,
    open_film,
    read_index,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from av.video.frame import VideoFrame
    from PIL import Image as PILImage

    Pixels = npt.NDArray[np.uint8]

__all__ = ["check_film", "count_frames", "read_frames"]


def count_frames(path: str | os.PathLike[str]) -> int:
    """How many frames a video file has, as `read_frames` numbers them.

    Nothing is decoded for it where the file tells its frames' times.

    Raises:
        UserError: the file is missing or no readable video; av is not installed.
    """
    path = Path(path)
    return _index(path, _identity(path)).n_frames


def check_film(path: str | os.PathLike[str]) -> int:
    """Decode a whole film strictly, and say how many frames it has.

    decord replaces what is damaged by what it finds around it and says nothing, so `read_frames`
    may give such a patched picture. Here, damage that the decoder can notice at all is an error.

    Raises:
        UserError: as `count_frames`; the film is damaged or breaks off.
    """
    path = Path(path)
    expected = count_frames(path)
    av = need_av(path)
    container, stream = open_film(path)
    n_frames = 0
    with container:
        stream.codec_context.options = _STRICT
        try:
            for _ in container.decode(stream):
                n_frames += 1
        except (av.FFmpegError, OSError) as error:
            raise _undecodable(path, [n_frames], error) from error
    if n_frames != expected:
        raise UserError(
            f"{path} gives {n_frames} frames, its list of packets promises {expected}; the file "
            "may be damaged: fetch or convert it again"
        )
    return n_frames


# Damage is an error, never a picture patched together from its neighbours.
_STRICT = {"err_detect": "explode"}


def read_frames(path: str | os.PathLike[str], indices: Sequence[int]) -> list[PILImage.Image]:
    """Frames of a video file by their 0-based number in order of presentation.

    Only the frames asked for are decoded, and those that they lean on, back to the nearest point
    at which decoding can begin. decord decodes the files of which it is known to be exact
    (`FilmIndex.decord_is_exact`), PyAV all others, and there the time stamp of every frame is held
    against the file's own list. Frames are upright: a rotation that the file asks for, by a
    multiple of 90 degrees, is done once. They come from `frame_cache` where it holds them.

    Args:
        path: a video file.
        indices: frame numbers, in any order; a number may repeat.

    Returns:
        RGB images of the caller's own, parallel to `indices`.

    Raises:
        UserError: av or decord is not installed; the file is missing or no readable video, or is
            damaged where it was read; a frame number is outside the film.
    """
    from PIL import Image

    path = Path(path)
    identity = _identity(path)
    cache = frame_cache()
    frames: dict[int, Pixels] = {}
    missing: list[int] = []
    for index in sorted(set(indices)):
        held = cache.get((*identity, index))
        if held is None:
            missing.append(index)
        else:
            frames[index] = held
    if missing:
        for index, frame in _decode(path, identity, missing).items():
            cache.put((*identity, index), frame)
            frames[index] = frame
    return [Image.fromarray(frames[index]) for index in indices]


_Identity = tuple[str, int, int]


def _identity(path: Path) -> _Identity:
    """Path, time of change and size: what tells one state of a file from another."""
    try:
        state = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a NUL
        raise UserError(
            f"video file {path} does not exist; prepare its benchmark again, or set UNIVG_DATA "
            "to the folder that holds it"
        ) from error
    except OSError as error:
        raise UserError(f"cannot read video file {path}: {error.strerror or error}") from error
    if not stat.S_ISREG(state.st_mode):
        raise UserError(f"{path} is no file but a folder or a device; expected a video file")
    return os.path.realpath(path), state.st_mtime_ns, state.st_size


_KEPT_INDICES = 64
_indices: OrderedDict[_Identity, FilmIndex] = OrderedDict()
_indices_lock = threading.Lock()


def _index(path: Path, identity: _Identity) -> FilmIndex:
    with _indices_lock:
        index = _indices.get(identity)
    return index if index is not None else _keep(identity, read_index(path))


def _keep(identity: _Identity, index: FilmIndex) -> FilmIndex:
    with _indices_lock:
        _indices[identity] = index
        _indices.move_to_end(identity)
        while len(_indices) > _KEPT_INDICES:
            _indices.popitem(last=False)
    return index


def _decode(path: Path, identity: _Identity, numbers: Sequence[int]) -> dict[int, Pixels]:
    """Decode frames; `numbers` ascend without repeats."""
    index = _index(path, identity)
    _require_inside(path, index, numbers)
    if index.decord_is_exact:
        return _decode_with_decord(path, index, numbers)
    try:
        return _decode_with_av(path, index, numbers)
    except _TimesDiffer:
        # The packets promise other frames than the decoder gives; then only counting is right.
        index = _keep(identity, counted_index(path))
        _require_inside(path, index, numbers)
        return _decode_with_av(path, index, numbers)


def _require_inside(path: Path, index: FilmIndex, numbers: Sequence[int]) -> None:
    for number in numbers:
        if not 0 <= number < index.n_frames:
            raise UserError(
                f"{path} has {index.n_frames} frames, numbered 0 to {index.n_frames - 1}; frame "
                f"{number} was asked for"
            )


def _decode_with_decord(path: Path, index: FilmIndex, numbers: Sequence[int]) -> dict[int, Pixels]:
    try:
        import decord
    except ImportError as error:
        raise UserError(
            f"reading {path} needs the package decord: pip install 'univg[eval]'"
        ) from error
    try:
        # One thread: frames are few, and a reader per process must not start a pool each.
        reader = decord.VideoReader(str(path.absolute()), num_threads=1)
        if len(reader) != index.n_frames:
            raise UserError(
                f"{path}: its list of packets has {index.n_frames} frames, decord finds "
                f"{len(reader)}; the file may be damaged or cut short: fetch or convert it again"
            )
        batch = reader.get_batch(list(numbers)).asnumpy()
    except (RuntimeError, decord.DECORDError) as error:
        raise _undecodable(path, numbers, error) from error
    # Copies: a frame in the cache must not keep its whole batch alive.
    return {number: frame.copy() for number, frame in zip(numbers, batch, strict=True)}


def _undecodable(path: Path, numbers: Sequence[int], error: object) -> UserError:
    named = ", ".join(map(str, numbers[:8])) + (", …" if len(numbers) > 8 else "")
    return UserError(
        f"cannot decode frame{'s' if len(numbers) > 1 else ''} {named} of {path}: "
        f"{first_line(error)}; the file may be damaged: fetch or convert it again"
    )


class _TimesDiffer(Exception):  # noqa: N818
    """A decoded frame has not the time of the frame that it should be."""


def _decode_with_av(path: Path, index: FilmIndex, numbers: Sequence[int]) -> dict[int, Pixels]:
    """Decode frames in one pass over the packets, of which only the needed ones are decoded.

    Raises:
        _TimesDiffer: see there.
        UserError: damaged data.
    """
    av = need_av(path)
    runs = _runs(index, numbers)
    frames: dict[int, Pixels] = {}
    waiting: deque[int] = deque()  # frames to come out of the decoder; none: packets are skipped
    number = 0  # of the next frame to come out
    place = -1
    container, stream = open_film(path)
    with container:
        stream.codec_context.options = _STRICT
        try:
            for packet in container.demux(stream):
                if packet.size:
                    place += 1
                    if place in runs:
                        first, asked = runs.pop(place)
                        if not waiting:
                            stream.codec_context.flush_buffers()
                            number = first
                        waiting.extend(asked)
                if not waiting:
                    continue
                # The empty last packet brings out what is left.
                for frame in cast("list[VideoFrame]", packet.decode()):
                    if index.times is not None and frame.pts != index.times[number]:
                        raise _TimesDiffer
                    if number == waiting[0]:
                        frames[waiting.popleft()] = _upright(frame)
                        if not waiting:
                            break
                    number += 1
                if not waiting and not runs:
                    return frames
        except (av.FFmpegError, OSError) as error:
            raise _undecodable(path, numbers, error) from error
    if index.times is not None:
        raise _TimesDiffer
    raise _undecodable(path, numbers, "it ends before them")


def _runs(index: FilmIndex, numbers: Sequence[int]) -> dict[int, tuple[int, list[int]]]:
    """Where to begin decoding: packet → (number of the first frame, the frames asked for)."""
    runs: dict[int, tuple[int, list[int]]] = {}
    firsts = [first for _, first in index.starts]
    for number in numbers:
        place, first = index.starts[bisect_right(firsts, number) - 1]
        runs.setdefault(place, (first, []))[1].append(number)
    return runs


def _upright(frame: VideoFrame) -> Pixels:
    """RGB pixels, shape (height, width, 3), turned as the file asks for."""
    import numpy as np
    from av.video.reformatter import Colorspace

    # Without a target other than its own, PyAV passes over the film's colour matrix (BT.709 in most
    # HD films); RGB has none, so which one is named does not matter.
    rgb = frame.reformat(
        format="rgb24", dst_colorspace=Colorspace.ITU601, src_color_range=frame.color_range
    )
    pixels = rgb.to_ndarray()
    turns = frame.rotation % 360 / 90  # counter-clockwise
    return np.ascontiguousarray(np.rot90(pixels, int(turns)) if turns == int(turns) else pixels)
