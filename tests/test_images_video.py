"""Frame sampling, the order of a folder's frames, and frames of videos read by number."""

from __future__ import annotations

import multiprocessing
import random
import re
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from factories import make_sample, write_clip
from hypothesis import given
from hypothesis import strategies as st

from univg_eval.errors import UserError
from univg_eval.images import video
from univg_eval.images.reading import open_images
from univg_eval.images.video import (
    FRAME_ORDERS,
    SAMPLING_RULES,
    FrameCache,
    cache,
    check_video,
    count_frames,
    decoding,
    frame_cache,
    frame_numbers,
    list_frames,
    read_frames,
    sample_frames_even,
)

# ---- which frames ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_total", "n", "expected"),
    [
        (25, 5, [2, 7, 12, 17, 22]),
        (5, 5, [0, 1, 2, 3, 4]),
        (1, 1, [0]),
        (10, 3, [1, 5, 8]),  # centres 1.67, 5, 8.33
        (2, 4, [0, 0, 1, 1]),
        (100, 1, [50]),
    ],
)
def test_sampling_takes_the_centre_of_equal_intervals(n_total, n, expected):
    assert sample_frames_even(n_total, n) == expected
    assert frame_numbers(f"even:{n}", n_total) == expected


@given(st.integers(1, 5000), st.integers(1, 64))
def test_sampled_frames_exist_ascend_and_lie_in_their_interval(n_total, n):
    frames = sample_frames_even(n_total, n)
    assert len(frames) == n and frames == sorted(frames)
    for i, frame in enumerate(frames):
        assert 0 <= frame < n_total
        assert i * n_total / n - 1 < frame < (i + 1) * n_total / n


def test_the_other_rules():
    assert frame_numbers("all", 4) == [0, 1, 2, 3]
    assert frame_numbers("given", 9, given=[7, 0, 7, 8]) == [7, 0, 7, 8]
    assert list(SAMPLING_RULES) == ["even:N", "all", "given"]
    for n_total, n in ((0, 5), (5, 0)):
        with pytest.raises(UserError, match=f"cannot sample {n} of {n_total} frames"):
            sample_frames_even(n_total, n)


@pytest.mark.parametrize(
    ("rule", "n_total", "given", "message"),
    [
        *(
            (rule, 9, None, rf"unknown sampling rule '{rule}'.*'even:N', 'all', 'giv")
            for rule in ("even", "even:0", "even:-3", "even:2.5", "even:٣", "even: 5", "")
        ),
        ("all", 0, None, "video with 0 frames"),
        ("given", 9, None, "'given' needs a list"),
        ("all", 9, [1], "'all' takes no list"),
        ("given", 9, [], "list of frame numbers is empty"),
        ("given", 9, [3, 9], "received frame 9; expected whole numbers from 0 to 8"),
        ("given", 9, [-1], "received frame -1"),
        ("given", 9, [1.0], "received frame 1.0"),
        ("given", 9, [True], "received frame True"),
    ],
)
def test_rules_that_say_nothing_are_refused(rule, n_total, given, message):
    with pytest.raises(UserError, match=message):
        frame_numbers(rule, n_total, given=given)


# ---- folders --------------------------------------------------------------------------------


def folder_of(path: Path, *names: str) -> Path:
    for name in names:
        (path / name).write_bytes(b"")
    return path


@pytest.mark.parametrize(
    ("names", "natural", "first_number"),
    [
        # The usual case, and numbers without leading zeros.
        (["00010.jpg", "00002.jpg"], "00002.jpg 00010.jpg", "00002.jpg 00010.jpg"),
        (["f10.png", "f9.png", "f100.png"], "f9.png f10.png f100.png", "f9.png f10.png f100.png"),
        # The first number decides for UniVG-R1, the whole name in natural order.
        (["b1.jpg", "a2.jpg"], "a2.jpg b1.jpg", "b1.jpg a2.jpg"),
        (["2_5.jpg", "1_9.jpg"], "1_9.jpg 2_5.jpg", "1_9.jpg 2_5.jpg"),
        # UniVG-R1 looks for .jpg and .png, in small letters, only.
        (["2.jpg", "1.JPG", "3.jpeg", "4.png"], "1.JPG 2.jpg 3.jpeg 4.png", "2.jpg 4.png"),
        # Neither notes, nor what an unpacker leaves.
        (["1.jpg", "0.txt", "._1.jpg", ".0.jpg"], "1.jpg", "1.jpg"),
        # Leading zeros alone: ordered as text.
        (["01.jpg", "1.jpg", "001.jpg"], "001.jpg 01.jpg 1.jpg", "001.jpg 01.jpg 1.jpg"),
        # Equal first numbers, which UniVG-R1 leaves to the file system.
        (
            ["v2_10.jpg", "v2_9.jpg", "u3.jpg"],
            "u3.jpg v2_9.jpg v2_10.jpg",
            "v2_9.jpg v2_10.jpg u3.jpg",
        ),
    ],
)
def test_order_of_frames(tmp_path, names, natural, first_number):
    folder = folder_of(tmp_path, *names)
    (folder / "77.jpg").mkdir()
    assert list_frames(folder) == natural.split()
    assert list_frames(folder, order="first_number") == first_number.split()


@pytest.mark.parametrize(
    ("names", "order", "message"),
    [
        ([], "natural", r"holds no frames"),
        (["a.txt"], "natural", r"holds no frames"),
        (["1.jpg", "cover.jpg"], "natural", r"cover.jpg has no number.*2 frames.*move it away"),
        (["1.jpg", "cover.jpg"], "first_number", r"cover.jpg has no number"),
        (["1.jpg", "1.png"], "natural", r"1.jpg and 1.png have the same place in order 'natural'"),
        (["1.jpg", "1.png"], "first_number", r"1.jpg and 1.png have the same place in order 'fir"),
        (["1.jpg"], "text", r"unknown order of frames 'text'; expected one of: natural, first_num"),
    ],
)
def test_orders_that_cannot_be_known_are_refused(tmp_path, names, order, message):
    with pytest.raises(UserError, match=message):
        list_frames(folder_of(tmp_path, *names), order=order)


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(UserError, match=r"cannot list the frames of .*none: No such file"):
        list_frames(tmp_path / "none")
    assert set(FRAME_ORDERS) == {"natural", "first_number"}


# ---- videos ----------------------------------------------------------------------------------

N_FRAMES = 40
BITS = 6
B_FRAMES = {"bf": "3", "g": "12", "crf": "10", "x264-params": "b-adapt=0:scenecut=0"}
X265 = "keyint=12:min-keyint=12:scenecut=0:bframes=3:log-level=none:open-gop="


def numbered_image(number: int, wh: tuple[int, int] = (128, 64)) -> np.ndarray:
    """The bits of the number as black or white blocks; the upper left corner is red."""
    w, h = wh
    image = np.full((h, w, 3), 128, dtype=np.uint8)
    block = w // BITS
    for bit in range(BITS):
        image[h // 4 : 3 * h // 4, block * bit : block * (bit + 1)] = 255 * (number >> bit & 1)
    image[: h // 8, : w // 4] = (255, 0, 0)
    return image


def number_shown(image) -> int:
    array = np.asarray(image.convert("L"), int)
    block = array.shape[1] // BITS
    return sum(
        int(array[array.shape[0] // 2, block * bit + block // 2] > 127) << bit
        for bit in range(BITS)
    )


def write_video(
    path: Path,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    *,
    wh: tuple[int, int] = (128, 64),
    pixels: str = "yuv420p",
    container: dict[str, str] | None = None,
    times: list[int] | None = None,
    shift: int = 0,
    colorspace: int | None = None,
) -> Path:
    """Write N_FRAMES numbered frames at 10 a second; `shift` frames begin before time 0."""
    av = pytest.importorskip("av")
    if codec not in av.codecs_available:
        pytest.skip(f"av has no {codec} to write with")
    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = *wh, pixels
        stream.options = options or {}
        if times:
            stream.codec_context.time_base = Fraction(1, 90)
        if colorspace is not None:
            stream.codec_context.colorspace = colorspace

        def put(found):
            for packet in found:
                if shift:
                    ticks = int(shift / 10 / packet.time_base)
                    packet.pts, packet.dts = packet.pts - ticks, packet.dts - ticks
                file.mux(packet)

        for number in range(N_FRAMES):
            frame = av.VideoFrame.from_ndarray(numbered_image(number, wh), format="rgb24")
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, 90)
            put(stream.encode(frame))
        put(stream.encode())
    return path


def irregular_times() -> list[int]:
    rng, now, times = random.Random(1), 0, []
    for _ in range(N_FRAMES):
        times.append(now)
        now += rng.choice([1, 1, 2, 7, 30])
    return times


OPEN_GROUPS = {**B_FRAMES, "x264-params": "b-adapt=0:scenecut=0:open-gop=1"}
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}
MPEG = {"bf": "2", "g": "12", "b": "4M"}
# name of the file → how it is written, and the frames cut off at the beginning.
VIDEOS = {
    "closed_groups.mp4": (("libx264", B_FRAMES), {}, 0),
    "one_group.mp4": (("libx264", {"g": "999", "bf": "3", "x264-params": "scenecut=0"}), {}, 0),
    "irregular.mp4": (("libx264", B_FRAMES), {"times": irregular_times()}, 0),
    "odd.mp4": (("libx264", {"crf": "10"}), {"wh": (131, 61), "pixels": "yuv444p"}, 0),
    "odd.webm": (("libvpx-vp9", {"g": "12", "b": "2M"}), {"wh": (131, 61)}, 0),
    "vp8.webm": (("libvpx", {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "16"}), {}, 0),
    "closed_groups.mkv": (("libx264", B_FRAMES), {}, 0),
    "ten_bits.mp4": (("libx264", B_FRAMES), {"pixels": "yuv420p10le"}, 0),
    "open_groups.mp4": (("libx264", OPEN_GROUPS), {}, 0),
    "open_irregular.mkv": (("libx264", OPEN_GROUPS), {"times": irregular_times()}, 0),
    "refresh.mp4": (("libx264", {"intra-refresh": "1", "g": "12", "bf": "0"}), {}, 0),
    "fragments.mp4": (("libx264", B_FRAMES), {"container": FRAGMENTS}, 0),
    # An edit list cuts the first 15 frames off; the 12th of them is a key frame.
    "edited.mp4": (
        ("libx264", B_FRAMES),
        {"shift": 15, "container": {"avoid_negative_ts": "disabled", "use_editlist": "1"}},
        15,
    ),
    "closed_hevc.mp4": (("libx265", {"x265-params": X265 + "0"}), {}, 0),
    "open_hevc.mp4": (("libx265", {"x265-params": X265 + "1"}), {}, 0),
    "mpeg4.mp4": (("mpeg4", MPEG), {}, 0),
    "stream.ts": (("libx264", B_FRAMES), {}, 0),
    "mpeg2.ts": (("mpeg2video", MPEG), {}, 0),
    "flash.flv": (("libx264", B_FRAMES), {}, 0),
    # AVI has no presentation times: its frames are counted.
    "old.avi": (("mpeg4", MPEG), {}, 0),
    "h264.avi": (("libx264", B_FRAMES), {}, 0),
    "av1.mp4": (("libsvtav1", {"g": "12", "preset": "12"}), {}, 0),
}


@pytest.fixture(scope="module")
def video_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("videos")


def video_named(folder: Path, name: str) -> Path:
    (codec, options), more, _ = VIDEOS[name]
    path = folder / name
    if path.exists():
        return path
    if not codec.startswith(("libvpx", "libsvtav1")):
        return write_video(path, codec, options, **more)
    # decord, once imported, brings an older libvpx with which av cannot encode any more. SVT-AV1
    # gives the process of root the highest priority there is, which its browsers would inherit.
    writer = multiprocessing.get_context("spawn").Process(
        target=write_video, args=(path, codec, options), kwargs=more
    )
    writer.start()
    writer.join()
    if not path.exists():
        pytest.skip(f"av has no {codec} to write with")
    return path


@pytest.fixture
def video_file(video_folder):
    return video_named(video_folder, "closed_groups.mp4")


@pytest.fixture(autouse=True)
def no_frames_held():
    frame_cache().clear()


@pytest.mark.parametrize("name", VIDEOS)
def test_frames_are_exact_by_number(video_folder, name):
    """Frames requested alone, in any order and together: number and pixels of another decoder.

    PyAV decodes the whole video_file from its first packet, which needs no seeking.
    """
    import av

    _, more, n_cut = VIDEOS[name]
    path = video_named(video_folder, name)
    with av.open(str(path)) as container:
        # Colours are compared elsewhere: here both come by the default matrix.
        theirs = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(theirs) == N_FRAMES - n_cut == count_frames(path)
    index = decoding._read_index(path)
    assert (index.times is None) == name.endswith(".avi")
    rng = random.Random(7)
    requested = [[0], [len(theirs) - 1], [11], [12], [13], [9, 10], list(range(len(theirs)))]
    requested += [[rng.randrange(len(theirs)) for _ in range(4)] for _ in range(12)]
    for numbers in requested:
        frame_cache().clear()
        frames = read_frames(path, numbers)
        assert [number_shown(frame) for frame in frames] == [n_cut + i for i in numbers]
        for number, frame in zip(numbers, frames, strict=True):
            assert frame.mode == "RGB" and frame.size == more.get("wh", (128, 64))
            assert np.abs(np.asarray(frame, int) - theirs[number].astype(int)).max() <= 2
    # No reading has given up the index and counted from the first frame instead, but of key frames
    # that are not whole.
    kept = decoding._indices[decoding._identity(path)]
    assert (kept == index) == (name != "refresh.mp4")


def test_the_videos_are_what_they_are_meant_to_be(video_folder):
    """B-frames, and images that follow their key frame in the file but not on the screen."""
    import av
    from av.video.frame import PictureType

    for name in ("closed_groups.mp4", "open_groups.mp4", "irregular.mp4"):
        path = video_named(video_folder, name)
        with av.open(str(path)) as container:
            kinds = {PictureType(frame.pict_type).name for frame in container.decode(video=0)}
        with av.open(str(path)) as container:
            found = [(p.pts, p.is_keyframe) for p in container.demux(video=0) if p.size]
        times = [time for time, _ in found]
        leading = [
            any(later < time for later in times[place:])
            for place, (time, is_key) in enumerate(found)
            if is_key
        ]
        assert "B" in kinds and len(leading) >= 3
        assert any(leading) == (name == "open_groups.mp4")


@pytest.mark.parametrize(
    "name", ["closed_groups.mp4", "closed_groups.mkv", "flash.flv", "stream.ts"]
)
def test_decoding_begins_at_the_last_start_before_the_frame(video_folder, name):
    index = decoding._read_index(video_named(video_folder, name))
    assert len(index.starts) >= 3 and index.starts[0] == (0, 0)
    (place, (first, numbers)) = decoding._runs(index, [N_FRAMES - 1]).popitem()
    assert numbers == [N_FRAMES - 1] and place > N_FRAMES // 2 and first > N_FRAMES // 2


def test_only_frames_that_are_not_held_are_decoded(video_file, monkeypatch):
    requested = []
    original = decoding._decode

    def spy(path, identity, numbers):
        requested.append(list(numbers))
        return original(path, identity, numbers)

    monkeypatch.setattr(decoding, "_decode", spy)
    assert count_frames(video_file) == N_FRAMES and requested == []
    for numbers in ([30, 3, 30], [3, 4], [4, 30, 3]):
        assert [number_shown(frame) for frame in read_frames(video_file, numbers)] == numbers
    assert requested == [[3, 30], [4]]
    sample = make_sample(
        images=tuple(f"{video_file.name}#frame={n}" for n in (2, 20, 30)),
        widths=(128,) * 3,
        heights=(64,) * 3,
    )
    for _ in range(3):
        shown = [number_shown(image) for image in open_images(sample, video_file.parent)]
        assert shown == [2, 20, 30]
    assert requested == [[3, 30], [4], [2, 20]]


def spoil(path: Path, place: int, target: Path) -> Path:
    """A copy of the video with a hole of zeros in a packet, by its place in the file."""
    import av

    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][place]
        begin, length = packet.pos + packet.size // 2, packet.size // 2
    data = bytearray(path.read_bytes())
    data[begin : begin + length] = bytes(length)
    target.write_bytes(data)
    return target


def test_only_the_group_of_the_frame_is_decoded(video_folder, tmp_path):
    """Damage in the first group does not reach a later one: nothing before that is decoded."""
    path = video_named(video_folder, "flash.flv")
    spoilt = spoil(path, 1, tmp_path / "spoilt.flv")
    assert read_frames(spoilt, [20, 29]) == read_frames(path, [20, 29])
    with pytest.raises(UserError, match=r"cannot decode frames 1, 2, 3 of .*spoilt.flv"):
        read_frames(spoilt, [1, 2, 3])


@pytest.mark.parametrize(
    ("times", "keys", "starts"),
    [
        ([0, 2, 1, 3, 5, 4], "k..k..", [(0, 0), (3, 3)]),
        # The second key frame is shown after an image that follows it in the file.
        ([0, 2, 1, 4, 3, 5], "k..k..", [(0, 0)]),
        # An image before it in the file is shown after it.
        ([0, 1, 3, 2, 4, 5], "k..k..", [(0, 0)]),
        # The video begins in the middle of a group.
        ([2, 0, 1, 3], "k..k", [(3, 3)]),
        ([0, 1, 2], "...", []),
    ],
)
def test_where_decoding_can_begin(times, keys, starts):
    assert decoding._starts(times, [key == "k" for key in keys], sorted(times)) == starts


def test_packets_that_promise_other_frames_are_not_believed(video_folder, monkeypatch):
    """An index whose times the decoder contradicts gives way to counting."""
    path = video_named(video_folder, "flash.flv")
    identity = decoding._identity(path)
    true = decoding._read_index(path)
    false = decoding._Index(
        n_frames=true.n_frames + 1,
        times=(true.times[0], true.times[0] + 1, *true.times[1:]),
    )
    monkeypatch.setitem(decoding._indices, identity, false)
    assert [number_shown(frame) for frame in read_frames(path, [5, 39])] == [5, 39]
    assert decoding._indices[identity].times is None
    with pytest.raises(UserError, match=r"has 40 frames, numbered 0 to 39; frame 40 was requested"):
        read_frames(path, [40])


def rotated(path: Path, clockwise: int, target: Path) -> Path:
    """The video_file with another display matrix in its track header."""
    matrix = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[clockwise]
    a, b, c, d = (value << 16 for value in matrix)
    data = bytearray(path.read_bytes())
    # After the box's name: version, flags, five 32-bit fields, eight reserved bytes, four 16-bit.
    place = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    target.write_bytes(data)
    return target


@pytest.mark.parametrize(
    ("name", "clockwise"),
    [
        ("closed_groups.mp4", 90),
        ("closed_groups.mp4", 180),
        ("closed_groups.mp4", 270),
        ("open_groups.mp4", 90),
    ],
)
def test_a_rotation_in_the_file_is_done_once(video_folder, name, clockwise, tmp_path):
    path = rotated(video_named(video_folder, name), clockwise, tmp_path / "turned.mp4")
    upright = np.rot90(numbered_image(13), -clockwise // 90)
    frame = np.asarray(read_frames(path, [13])[0], int)
    assert frame.shape == upright.shape
    assert np.abs(frame - upright).mean() < 4


@pytest.mark.parametrize("colorspace", [1, 5, 9])  # BT.709, BT.601, BT.2020
def test_another_decoder_gives_the_same_colours(tmp_path, colorspace):
    decord = pytest.importorskip("decord")
    path = write_video(tmp_path / "colour.mp4", options={"crf": "4"}, colorspace=colorspace)
    theirs = decord.VideoReader(str(path), num_threads=1).get_batch([5, 20]).asnumpy()
    for frame, other in zip(read_frames(path, [5, 20]), theirs, strict=True):
        assert np.abs(np.asarray(frame, int) - other.astype(int)).max() <= 2


@pytest.mark.parametrize("name", ["closed_groups.mp4", "open_groups.mp4", "old.avi"])
def test_frame_outside_the_video(video_folder, name):
    path = video_named(video_folder, name)
    for index in (N_FRAMES, -1):
        with pytest.raises(UserError, match=rf"numbered 0 to 39; frame {index} was requested"):
            read_frames(path, [0, index])
    assert read_frames(path, []) == []


READERS = [lambda path: read_frames(path, [0]), count_frames, check_video]


@pytest.mark.parametrize("read", READERS)
def test_files_that_are_no_video(tmp_path, read):
    pytest.importorskip("av")
    with pytest.raises(UserError, match=r"video file .*none.mp4 does not exist.*UNIVG_DATA"):
        read(tmp_path / "none.mp4")
    path = tmp_path / "bad.mp4"
    for content in (b"", b"this is no video" * 50, b"\0" * 4000):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"cannot read .*bad.mp4 as a video.*again") as error:
            read(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"),
        ("list.mp4", "ffconcat version 1.0\nfile beside.ts\n"),
    ],
)
def test_a_list_of_other_files_is_no_video(tmp_path, read, name, text):
    write_video(tmp_path / "beside.ts")
    assert count_frames(tmp_path / "beside.ts")
    path = tmp_path / name
    path.write_text(text.format(tmp_path / "beside.ts"))
    with pytest.raises(UserError, match=rf"cannot read .*{name} as a video"):
        read(path)


def test_a_sound_without_images(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.rate = 8000
        file.mux(stream.encode(frame))
    with pytest.raises(UserError, match=r"sound.mkv as a video: it has no video stream"):
        read_frames(path, [0])


@pytest.mark.parametrize("read", READERS)
def test_a_codec_that_nobody_knows(tmp_path, read):
    path = write_clip(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(UserError, match=r"a\.mp4 as a video: there is no decoder for its video"):
        read(path)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
@pytest.mark.parametrize(
    "name", ["closed_groups.mp4", "front.mp4", "closed_groups.mkv", "odd.webm"]
)
def test_a_half_downloaded_video_is_refused(video_folder, name, share, tmp_path):
    """Even where its beginning could be read: the last frames would have other numbers."""
    if name == "front.mp4":  # its index stands before its frames
        whole = write_video(
            tmp_path / name, options=B_FRAMES, container={"movflags": "faststart"}
        ).read_bytes()
        assert whole.index(b"moov") < whole.index(b"mdat")
    else:
        whole = video_named(video_folder, name).read_bytes()
    path = tmp_path / f"cut_{name}"
    path.write_bytes(whole[: round(len(whole) * share)])
    for read in READERS:
        try:
            read(path)
        except UserError as error:
            assert re.search(rf"cannot read .*cut_{name} as a video: .*again", str(error))
        else:  # the index at the end alone is cut
            assert share == 0.999 and count_frames(path) == N_FRAMES


def test_a_video_of_unknown_length_is_read(video_folder, tmp_path):
    """Matroska written to a pipe says that its size is not known."""
    data = bytearray(video_named(video_folder, "closed_groups.mkv").read_bytes())
    place = data.index(b"\x18\x53\x80\x67") + 4
    assert data[place] == 1  # eight bytes
    data[place + 1 : place + 8] = b"\xff" * 7
    path = tmp_path / "piped.mkv"
    path.write_bytes(data)
    assert [number_shown(frame) for frame in read_frames(path, [3, 33])] == [3, 33]


def test_a_name_with_a_colon(video_file, tmp_path, monkeypatch):
    (tmp_path / "http:video_file.mp4").write_bytes(video_file.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert number_shown(read_frames("http:video_file.mp4", [9])[0]) == 9


@pytest.mark.parametrize("name", ["fragments.mp4", "closed_groups.mp4"])
def test_damage_is_not_painted_over(video_folder, tmp_path, name):
    """A damaged frame is refused, or comes out right."""
    path = video_named(video_folder, name)
    sound = [np.asarray(frame, int) for frame in read_frames(path, range(N_FRAMES))]
    refused = 0
    for place in range(1, N_FRAMES, 5):
        damaged = spoil(path, place, tmp_path / f"damaged_{place}.mp4")
        for number in range(N_FRAMES):
            try:
                frame = read_frames(damaged, [number])[0]
            except UserError as error:
                assert re.search(r"cannot decode frame .*damaged_.*may be damaged", str(error))
                refused += 1
            else:
                assert np.array_equal(np.asarray(frame, int), sound[number])
    assert 10 < refused < N_FRAMES * N_FRAMES // 10


@pytest.mark.parametrize("name", ["closed_groups.mp4", "open_groups.mp4", "old.avi"])
def test_a_video_is_checked_as_a_whole(video_folder, tmp_path, name):
    path = video_named(video_folder, name)
    assert check_video(path) == N_FRAMES
    with pytest.raises(UserError, match=r"spoilt.*may be damaged|spoilt.* as a video"):
        check_video(spoil(path, 7, tmp_path / f"spoilt{path.suffix}"))


def test_a_missing_package_is_named(video_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"needs the package av: .* pip install -e '\.\[eval\]'"):
        read_frames(video_file, [3])


# ---- the cache ------------------------------------------------------------------------------


def frame_of(n_bytes: int) -> np.ndarray:
    return np.zeros((1, n_bytes // 3, 3), np.uint8)


def key(number: int) -> tuple[str, int, int, int]:
    return ("video_file.mp4", 1, 2, number)


def test_the_least_recently_used_frames_go_first():
    held = FrameCache(1000)
    for number in range(3):
        held.put(key(number), frame_of(300))
    assert held.get(key(0)) is not None  # now 1 is the oldest
    held.put(key(3), frame_of(300))
    assert [held.get(key(n)) is not None for n in range(4)] == [True, False, True, True]
    held.put(key(4), frame_of(999))  # alone
    assert (len(held), held.n_bytes) == (1, 999)
    held.put(key(5), frame_of(1002))  # larger than the bound: not held, and nothing thrown out
    assert held.get(key(5)) is None and held.get(key(4)) is not None
    held.put(key(4), frame_of(30))  # again
    assert (len(held), held.n_bytes) == (1, 30)
    assert not held.get(key(4)).flags.writeable
    held.clear()
    assert (len(held), held.n_bytes, held.max_bytes) == (0, 0, 1000)


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 60)), max_size=40), st.integers(0, 100))
def test_the_bound_holds(puts, bound):
    held = FrameCache(3 * bound)
    for number, pixels in puts:
        held.put(key(number), frame_of(3 * pixels))
        assert held.n_bytes <= held.max_bytes
        assert (held.get(key(number)) is not None) == (pixels <= bound)
    assert held.n_bytes == sum(
        frame.nbytes for n in range(9) if (frame := held.get(key(n))) is not None
    )


def test_the_bound_is_set_by_the_environment(monkeypatch):
    for text, n_bytes in [(None, 256 << 20), ("", 256 << 20), ("0", 0), ("12", 12 << 20)]:
        monkeypatch.setattr(cache, "_shared", None)
        monkeypatch.delenv(video.CACHE_VARIABLE, raising=False)
        if text is not None:
            monkeypatch.setenv("UNIVG_FRAME_CACHE_MB", text)
        assert frame_cache().max_bytes == n_bytes
        assert frame_cache() is frame_cache()
    for text in ("-1", "1.5", "lots", "٣", "1" * 10):
        monkeypatch.setattr(cache, "_shared", None)
        monkeypatch.setenv("UNIVG_FRAME_CACHE_MB", text)
        with pytest.raises(UserError, match=r"UNIVG_FRAME_CACHE_MB is .* whole megabytes"):
            frame_cache()


def test_a_frame_of_the_cache_cannot_be_changed(video_file):
    first = read_frames(video_file, [7])[0]
    first.paste((1, 2, 3), (0, 0, 128, 64))
    assert number_shown(read_frames(video_file, [7])[0]) == 7


def test_a_video_that_was_replaced_is_read_again(video_folder, tmp_path):
    path = tmp_path / "video_file.mp4"
    for name, first in (("closed_groups.mp4", 0), ("edited.mp4", 15)):
        path.write_bytes(video_named(video_folder, name).read_bytes())
        assert number_shown(read_frames(path, [0])[0]) == first


def test_threads_read_the_same_video(video_file, monkeypatch):
    """A small cache, so that frames come and go while others read."""
    monkeypatch.setattr(cache, "_shared", FrameCache(5 * 128 * 64 * 3))
    wrong: list[object] = []

    def read(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(12):
            numbers = [rng.randrange(N_FRAMES) for _ in range(3)]
            try:
                shown = [number_shown(frame) for frame in read_frames(video_file, numbers)]
            except UserError as error:
                shown = [error]
            if shown != numbers:
                wrong.append((numbers, shown))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, range(4)))
    assert not wrong
    assert frame_cache().n_bytes <= frame_cache().max_bytes


def test_the_page_names_every_rule(repo_root):
    page = (repo_root / "docs" / "video.md").read_text(encoding="utf-8")
    for name in (*SAMPLING_RULES, *FRAME_ORDERS, video.CACHE_VARIABLE):
        assert f"`{name}`" in page, name
