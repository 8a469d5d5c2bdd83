"""How a video file is packed: how many frames it has, and where decoding can begin exactly.

Read from the packets without decoding them (the whole file is read once). It answers two
questions that a decoder alone answers wrongly for some files:

* Which frame is number i? Frames are numbered from 0 in the order of presentation, as they are
  shown: what an edit list cuts off at the beginning is no frame.
* From which packets on can a decoder begin so that everything after comes out exactly? Not from
  every key frame: pictures that come after the key frame in the file may be shown before it and
  lean on the group before (open groups: usual in HEVC and MPEG-2), and the key frames of H.264
  with periodic intra refresh are not whole pictures.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from univg_eval.errors import UserError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

__all__ = ["FilmIndex", "counted_index", "first_line", "need_av", "open_film", "read_index"]


@dataclass(frozen=True, slots=True)
class FilmIndex:
    """How a film is packed.

    Attributes:
        n_frames: frames shown.
        times: presentation time of each frame in the stream's unit, ascending; None where the file
            tells no usable times, so that frames have to be counted from the first one on.
        starts: where decoding can begin: (place of the packet in the file, number of the frame that
            it holds), both 0-based and ascending; the first is (0, 0). Of pictures that are shown
            before that frame and come after it in the file, decoders let none out.
        decord_is_exact: decord reads every frame of this file by its number. Known for films in
            ISO-BMFF files (mp4, mov) without fragments and edits, and in Matroska (mkv, webm), with
            codec H.264, VP8 or VP9, in which every key frame is a start.
    """

    n_frames: int
    times: tuple[int, ...] | None
    starts: tuple[tuple[int, int], ...]
    decord_is_exact: bool


def need_av(path: Path) -> Any:
    """The package av; UserError if it is not installed."""
    try:
        import av
    except ImportError as error:
        raise UserError(
            f"reading {path} needs the package av: pip install 'univg[eval]'"
        ) from error
    return av


def open_film(path: Path) -> tuple[InputContainer, VideoStream]:
    """The opened file (to be closed by the caller) and its main video stream.

    Raises:
        UserError: no readable video file, or one without a picture stream.
    """
    av = need_av(path)
    try:
        # In a relative path, what stands before a colon would be taken for a protocol.
        container = av.open(str(path.absolute()))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    stream = container.streams.best("video")
    if stream is None:
        container.close()
        raise _unreadable(path, "it has no video stream")
    return container, stream


def _unreadable(path: Path, error: object) -> UserError:
    return UserError(
        f"cannot read {path} as a video: {first_line(error)}; expected a video file with at least "
        "one frame, such as H.264 in mp4: fetch or convert it again"
    )


def first_line(error: object) -> str:
    """The first line of a message; decord appends its stack trace to it."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def read_index(path: Path) -> FilmIndex:
    """Index a film by its packets.

    Raises:
        UserError: the file cannot be read as a video, holds no frame, or is shorter than its
            outermost parts announce (mp4, mov, Matroska): of a film that was cut, the last frames
            may miss earlier ones, and would have other numbers.
    """
    av = need_av(path)
    container, stream = open_film(path)
    with container:
        codec = stream.codec_context.codec.canonical_name
        formats = set(container.format.name.split(","))
        size, promised = path.stat().st_size, _promised_size(path, formats)
        if size < promised:
            raise _unreadable(path, f"it breaks off after {size} of {promised} bytes")
        whole = _whole_key_frames(codec, stream.codec_context.extradata)
        times: list[int | None] = []
        keys: list[bool] = []
        n_marked = 0
        cut: list[bool] = []  # decoded for the sake of later frames, never shown
        try:
            for packet in _packets(container, stream):
                times.append(packet.pts)
                keys.append(packet.is_keyframe and whole(packet))
                cut.append(packet.is_discard)
                n_marked += packet.is_keyframe
        except (av.FFmpegError, OSError) as error:
            raise _unreadable(path, error) from error
    known = [time for time in times if time is not None]
    shown = sorted(t for t, is_cut in zip(times, cut, strict=True) if t is not None and not is_cut)
    if not times:
        raise _unreadable(path, "it holds no frame")
    if (
        len(known) < len(times)
        or len(set(known)) < len(known)
        or not shown
        # AVI has no presentation times; what the demuxer offers in their place is the file order.
        or "avi" in formats
    ):
        return counted_index(path)
    starts = _starts(known, keys, shown, open_groups=codec in _OPEN_GROUPS)
    if not starts or starts[0] != (0, 0):
        return counted_index(path)
    return FilmIndex(
        n_frames=len(shown),
        times=tuple(shown),
        starts=tuple(starts),
        decord_is_exact=(
            codec in _DECORD_CODECS
            and not any(cut)
            and len(starts) == n_marked
            and ("matroska" in formats or ("mov" in formats and not _has_fragments(path)))
        ),
    )


_DECORD_CODECS = {"h264", "vp8", "vp9"}


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """The packets of the stream that hold something, in file order."""
    for packet in container.demux(stream):
        if packet.size:
            yield packet


# In these, every picture after a key frame, in the file and on the screen, leans on nothing before
# it, even where pictures that are shown earlier do. H.264 promises it for IDR pictures alone, and
# those have no such earlier pictures.
_OPEN_GROUPS = {"hevc", "mpeg1video", "mpeg2video", "mpeg4"}


def _starts(
    times: list[int], keys: list[bool], shown: list[int], *, open_groups: bool
) -> list[tuple[int, int]]:
    """Key packets that nothing before them outlasts, and (or `open_groups`) nothing after precedes.

    Args:
        times: presentation time of each packet, in file order.
        keys: whether the packet holds a whole key frame.
        shown: the times that are shown, ascending.
        open_groups: later packets may be shown earlier; they belong to the start before.
    """
    earliest_after = list(accumulate(reversed(times), min))[::-1]
    latest_before = [times[0] - 1, *accumulate(times, max)]
    return [
        (place, bisect_left(shown, time))
        for place, time in enumerate(times)
        if keys[place]
        and latest_before[place] < time
        and (open_groups or earliest_after[place] == time)
    ]


def counted_index(path: Path) -> FilmIndex:
    """Index a film by decoding it from its first packet to its last: slow, always right.

    Raises:
        UserError: the file cannot be decoded, or gives no frame.
    """
    av = need_av(path)
    container, stream = open_film(path)
    with container:
        try:
            n_frames = sum(1 for _ in container.decode(stream))
        except (av.FFmpegError, OSError) as error:
            raise _unreadable(path, error) from error
    if not n_frames:
        raise _unreadable(path, "it holds no frame")
    return FilmIndex(n_frames=n_frames, times=None, starts=((0, 0),), decord_is_exact=False)


def _has_fragments(path: Path) -> bool:
    """Whether an ISO-BMFF file is written in fragments, a ``moof`` box each."""
    with path.open("rb") as file:
        return any(kind == b"moof" for kind, _ in _boxes(file))


def _promised_size(path: Path, formats: set[str]) -> int:
    """Bytes that a file must have for what its outermost parts announce; 0 if they do not say."""
    with path.open("rb") as file:
        if "mov" in formats:
            return max((end for _, end in _boxes(file)), default=0)
        return _segment_end(file.read(64)) if "matroska" in formats else 0


def _boxes(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Kind and end (the first byte after it) of each outermost box of an ISO-BMFF file."""
    size = os.fstat(file.fileno()).st_size
    place = 0
    while place + 8 <= size:
        file.seek(place)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # 0: it reaches to the end; anything else is no box
            return
        place += length
        yield head[4:8], place


_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def _segment_end(head: bytes) -> int:
    """End of the segment that a Matroska file consists of; 0 if its size is not told.

    Args:
        head: the first bytes of the file: a header element, then the segment's name and size.
    """
    begin, length = _element_size(head, len(_EBML))
    name = begin + length
    if not head.startswith(_EBML) or head[name : name + 4] != _SEGMENT:
        return 0
    begin, length = _element_size(head, name + 4)
    return begin + length if length else 0


def _element_size(data: bytes, place: int) -> tuple[int, int]:
    """Where an element's content begins, and its length; 0 where it is unknown.

    The number of leading zero bits tells how many bytes follow the first; all ones mean unknown.
    """
    width = 9 - data[place].bit_length() if place < len(data) and data[place] else 1
    bits = 7 * width
    length = int.from_bytes(data[place : place + width], "big") & ((1 << bits) - 1)
    return place + width, 0 if length == (1 << bits) - 1 else length


class _WholeKeyFrames:
    """Whether a packet marked as key frame restarts the decoder (H.264: an IDR picture)."""

    _IDR = 5

    def __init__(self, extradata: bytes | None) -> None:
        """Take the stream's header: an ``avcC`` record tells the width of the lengths."""
        is_avcc = extradata is not None and len(extradata) > 6 and extradata[0] == 1
        self._width = (extradata[4] & 3) + 1 if is_avcc and extradata is not None else 0

    def __call__(self, packet: Packet) -> bool:
        """Look at the packet's units: at lengths (avcC) or at start codes (Annex B)."""
        data = bytes(packet)
        if not self._width:
            place = data.find(b"\0\0\1")
            while 0 <= place < len(data) - 3:
                if data[place + 3] & 31 == self._IDR:
                    return True
                place = data.find(b"\0\0\1", place + 3)
            return False
        place = 0
        while place + self._width < len(data):
            if data[place + self._width] & 31 == self._IDR:
                return True
            place += self._width + int.from_bytes(data[place : place + self._width], "big")
        return False


def _whole_key_frames(codec: str, extradata: bytes | None) -> Callable[[Packet], bool]:
    return _WholeKeyFrames(extradata) if codec == "h264" else lambda packet: True
