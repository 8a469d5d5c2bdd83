"""Frames of video files, exact by number.

Frames are numbered from 0 in the order in which they are shown; what an edit list cuts off is no
frame. The packets of a file say, without decoding, which frames it has and from which packets a
decoder can begin so that everything after comes out exactly. Not every key frame is such a start:
pictures that follow it in the file may be shown before it and refer to the group before (open
groups). The time of every decoded frame is compared with the packets' times; where they differ, and
where a file has none, the frames are counted from the first one on, which is slow and always right.
"""

from __future__ import annotations

import os
import stat
import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, cast

from univg_eval.errors import UserError, install_command
from univg_eval.images.video.cache import frame_cache

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
    from PIL import Image as PILImage

    Pixels = npt.NDArray[np.uint8]

__all__ = ["check_video", "count_frames", "open_video", "read_frames"]

# Damage is an error, never an image patched together from its neighbours.
_STRICT = {"err_detect": "explode"}
# Playlists and the like, whatever they are called, would be read as the other files they name.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif,apng,ivf,h264,hevc,"
    "mpegvideo,m4v,obu,av1,mjpeg"
)
_DURATION_TOLERANCE_S = 0.25
_KEPT_INDICES = 64


@dataclass(frozen=True, slots=True)
class _Index:
    """How a video is packed.

    Attributes:
        n_frames: frames shown.
        times: presentation time of each frame in the stream's unit, ascending; None where frames
            have to be counted from the first one on.
        starts: where decoding can begin: (place of the packet in the file, number of the frame that
            it holds), both 0-based and ascending; the first is (0, 0).
    """

    n_frames: int
    times: tuple[int, ...] | None = None
    starts: tuple[tuple[int, int], ...] = ((0, 0),)


_Identity = tuple[str, int, int]
"""(path, time of change in ns, size in bytes): a changed file is another video."""
_indices: OrderedDict[_Identity, _Index] = OrderedDict()
_indices_lock = threading.Lock()


def count_frames(path: str | os.PathLike[str]) -> int:
    """How many frames a video file has, as `read_frames` numbers them.

    Raises:
        UserError: the file is missing or no readable video; av is not installed.
    """
    path = Path(path)
    return _index(path, _identity(path)).n_frames


def check_video(path: str | os.PathLike[str]) -> int:
    """Decode a whole video, and return how many frames it has.

    Raises:
        UserError: as `count_frames`; the video is damaged or breaks off.
    """
    path = Path(path)
    expected = count_frames(path)
    n_frames = 0
    with open_video(path) as (container, stream), _decoding_errors(path, "to its end"):
        stream.codec_context.options = _STRICT
        for _ in container.decode(stream):
            n_frames += 1
    if n_frames != expected:
        raise UserError(
            f"{path} gives {n_frames} frames, its list of packets promises {expected}; the file "
            "may be damaged: fetch or convert it again"
        )
    return n_frames


def read_frames(path: str | os.PathLike[str], indices: Sequence[int]) -> list[PILImage.Image]:
    """Frames of a video file by their 0-based number in order of presentation.

    Only the requested frames are decoded, and those that they need, back to the nearest point at
    which decoding can begin. Frames are upright: a rotation by a multiple of 90 degrees that the
    file asks for is done once. They come from `frame_cache` where it holds them.

    Args:
        path: a video file.
        indices: frame numbers, in any order; a number may repeat.

    Returns:
        RGB images of the caller's own, parallel to `indices`.

    Raises:
        UserError: av is not installed; the file is missing or no readable video, or is damaged
            where it was read; a frame number is outside the video.
    """
    from PIL import Image

    path = Path(path)
    identity = _identity(path)
    cache = frame_cache()
    frames = {i: frame for i in set(indices) if (frame := cache.get((*identity, i))) is not None}
    missing = sorted(set(indices) - frames.keys())
    if missing:
        for index, frame in _decode(path, identity, missing).items():
            cache.put((*identity, index), frame)
            frames[index] = frame
    return [Image.fromarray(frames[index]) for index in indices]


@contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The opened file and its main video stream.

    Raises:
        UserError: av is not installed; no readable video file, or one without a video stream.
    """
    try:
        import av
    except ImportError as error:
        raise UserError(
            f"reading {path} needs the package av: {install_command('eval')}"
        ) from error
    try:
        # In a relative path, what is before a colon would be taken for a protocol.
        container = av.open(
            str(path.absolute()),
            container_options={"format_whitelist": _FORMATS, "protocol_whitelist": "file"},
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    with container:
        stream = cast("VideoStream | None", container.streams.best("video"))
        if stream is None:
            raise _unreadable(path, "it has no video stream")
        if stream.codec_context is None:
            raise _unreadable(path, "there is no decoder for its video stream")
        yield container, stream


def _unreadable(path: Path, error: object) -> UserError:
    return UserError(
        f"cannot read {path} as a video: {_first_line(error)}; expected a video file with at least "
        "one frame, such as H.264 in mp4: fetch or convert it again"
    )


@contextmanager
def _decoding_errors(path: Path, what: str) -> Iterator[None]:
    import av

    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise UserError(
            f"cannot decode {what} of {path}: {_first_line(error)}; the file may be damaged: fetch "
            "or convert it again"
        ) from error


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _identity(path: Path) -> _Identity:
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


def _index(path: Path, identity: _Identity) -> _Index:
    with _indices_lock:
        index = _indices.get(identity)
    return index if index is not None else _keep(identity, _read_index(path))


def _keep(identity: _Identity, index: _Index) -> _Index:
    with _indices_lock:
        _indices[identity] = index
        _indices.move_to_end(identity)
        while len(_indices) > _KEPT_INDICES:
            _indices.popitem(last=False)
    return index


def _read_index(path: Path) -> _Index:
    """Index a video by its packets.

    Raises:
        UserError: the file cannot be read as a video, holds no frame, or breaks off: the last
            frames of what is left may miss earlier ones, and would have other numbers.
    """
    times: list[int | None] = []
    keys: list[bool] = []
    shown: list[int] = []
    end_s, is_cut = 0.0, False
    with open_video(path) as (container, stream):
        import av

        formats = set(container.format.name.split(","))
        try:
            for packet in container.demux():
                if not packet.size:
                    continue
                is_cut = packet.is_corrupt
                if packet.pts is not None and packet.time_base is not None:
                    end = (packet.pts + (packet.duration or 0)) * packet.time_base
                    end_s = max(end_s, float(end))
                if packet.stream_index != stream.index:
                    continue
                times.append(packet.pts)
                keys.append(packet.is_keyframe)
                # An edit list has frames decoded for the sake of later ones and never shown.
                if packet.pts is not None and not packet.is_discard:
                    shown.append(packet.pts)
        except (av.FFmpegError, OSError) as error:
            raise _unreadable(path, error) from error
        if "matroska" in formats and container.duration is not None:
            promised_s = container.duration / av.time_base
            is_cut = is_cut or end_s + _DURATION_TOLERANCE_S < promised_s
    if is_cut:
        raise _unreadable(path, "it breaks off")
    if not times:
        raise _unreadable(path, "it holds no frame")
    known = [time for time in times if time is not None]
    # AVI has no presentation times; what the demuxer offers in their place is the file order.
    if not shown or len(set(known)) < len(times) or "avi" in formats:
        return _counted_index(path)
    shown.sort()
    starts = _starts(known, keys, shown)
    if starts[:1] != [(0, 0)]:
        return _counted_index(path)
    return _Index(len(shown), tuple(shown), tuple(starts))


def _starts(times: list[int], keys: list[bool], shown: list[int]) -> list[tuple[int, int]]:
    """Key packets with nothing shown later before them in the file, nor earlier after them.

    Args:
        times: presentation time of each packet, in file order.
        keys: whether the packet holds a key frame.
        shown: the times that are shown, ascending.
    """
    earliest_from = list(accumulate(reversed(times), min))[::-1]
    latest_before = [times[0] - 1, *accumulate(times, max)]
    return [
        (place, bisect_left(shown, time))
        for place, time in enumerate(times)
        if keys[place] and latest_before[place] < time == earliest_from[place]
    ]


def _counted_index(path: Path) -> _Index:
    """Index a video by decoding it from its first packet to its last: slow, always right."""
    with open_video(path) as (container, stream):
        import av

        try:
            n_frames = sum(1 for _ in container.decode(stream))
        except (av.FFmpegError, OSError) as error:
            raise _unreadable(path, error) from error
    if not n_frames:
        raise _unreadable(path, "it holds no frame")
    return _Index(n_frames)


class _TimesDiffer(Exception):  # noqa: N818
    """A decoded frame has not the time of the frame that it should be."""


def _decode(path: Path, identity: _Identity, numbers: Sequence[int]) -> dict[int, Pixels]:
    """Decode frames; `numbers` ascend without repeats."""
    index = _index(path, identity)
    try:
        return _decode_by(index, path, numbers)
    except _TimesDiffer:
        return _decode_by(_keep(identity, _counted_index(path)), path, numbers)


def _decode_by(index: _Index, path: Path, numbers: Sequence[int]) -> dict[int, Pixels]:
    """Decode frames in one pass over the packets, of which only the needed ones are decoded.

    Raises:
        _TimesDiffer: see there.
        UserError: a number outside the video; damaged data.
    """
    for number in numbers:
        if not 0 <= number < index.n_frames:
            raise UserError(
                f"{path} has {index.n_frames} frames, numbered 0 to {index.n_frames - 1}; frame "
                f"{number} was requested"
            )
    runs = _runs(index, numbers)
    frames: dict[int, Pixels] = {}
    waiting: deque[int] = deque()  # frames to come out of the decoder; none: packets are skipped
    number = 0  # of the next frame to come out
    place = -1
    named = ", ".join(map(str, numbers[:8])) + (", …" if len(numbers) > 8 else "")
    with (
        open_video(path) as (container, stream),
        _decoding_errors(path, f"frame{'s' if len(numbers) > 1 else ''} {named}"),
    ):
        stream.codec_context.options = _STRICT
        for packet in container.demux(stream):
            if packet.size:
                place += 1
                if place in runs:
                    first, requested = runs.pop(place)
                    if not waiting:
                        stream.codec_context.flush_buffers()
                        number = first
                    waiting.extend(requested)
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
        if index.times is not None:
            raise _TimesDiffer
        raise OSError("it ends before them")


def _runs(index: _Index, numbers: Sequence[int]) -> dict[int, tuple[int, list[int]]]:
    """Where to begin decoding: packet → (number of its frame, the requested frames)."""
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

    # Without a target other than its own, PyAV ignores the video's colour matrix (BT.709 in most
    # HD videos); RGB has none, so which one is named does not matter.
    rgb = frame.reformat(
        format="rgb24", dst_colorspace=Colorspace.ITU601, src_color_range=frame.color_range
    )
    pixels = rgb.to_ndarray()
    turns = frame.rotation % 360 / 90  # counter-clockwise
    return np.ascontiguousarray(np.rot90(pixels, int(turns)) if turns == int(turns) else pixels)
