"""Frame sampling, and frames read back exactly by number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from univg_eval.errors import UserError
from univg_eval.video import read_frames, sample_frames_even


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


@given(st.integers(1, 5000), st.integers(1, 64))
def test_sampled_frames_exist_ascend_and_lie_in_their_interval(n_total, n):
    frames = sample_frames_even(n_total, n)
    assert len(frames) == n and frames == sorted(frames)
    for i, frame in enumerate(frames):
        assert 0 <= frame < n_total
        assert i * n_total / n - 1 < frame < (i + 1) * n_total / n


@pytest.mark.parametrize(("n_total", "n"), [(0, 5), (5, 0), (-1, 1)])
def test_sampling_of_nothing_is_refused(n_total, n):
    with pytest.raises(UserError, match=rf"cannot sample {n} of {n_total} frames"):
        sample_frames_even(n_total, n)


N_FRAMES = 48


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """H.264 with B-frames and a key frame every 12 frames; each frame shows its own number."""
    av = pytest.importorskip("av")
    pytest.importorskip("decord")
    if "libx264" not in av.codecs_available:
        pytest.skip("av has no libx264 to write B-frames with")
    from av.video.frame import PictureType

    path = tmp_path_factory.mktemp("film") / "numbered.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
        stream.options = {"bf": "3", "g": "12", "x264-params": "b-adapt=0", "crf": "10"}
        for number in range(N_FRAMES):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    with av.open(str(path)) as container:
        kinds = {PictureType(frame.pict_type).name for frame in container.decode(video=0)}
    assert "B" in kinds, "the film was meant to have B-frames"
    return path


def picture(number: int) -> np.ndarray:
    """Six bits of the number as black or white blocks."""
    image = np.full((64, 128, 3), 128, dtype=np.uint8)
    for bit in range(6):
        image[16:48, 4 + 20 * bit : 20 + 20 * bit] = 255 * (number >> bit & 1)
    return image


def number_shown(image) -> int:
    array = np.asarray(image.convert("L"), int)
    return sum(int(array[32, 12 + 20 * bit] > 127) << bit for bit in range(6))


@pytest.mark.parametrize(
    "indices",
    [
        list(range(N_FRAMES)),
        [47, 0, 13],
        [11, 12],
        [30],
        [5, 5, 4],
        [46, 45, 44, 1, 2, 3],
        [],
    ],
)
def test_frames_are_exact_by_number(film, indices):
    frames = read_frames(film, indices)
    assert [number_shown(frame) for frame in frames] == indices
    assert all(frame.mode == "RGB" and frame.size == (128, 64) for frame in frames)


def test_frames_agree_with_another_decoder(film):
    import av

    with av.open(str(film)) as container:
        theirs = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    ours = read_frames(film, range(N_FRAMES))
    for a, b in zip(ours, theirs, strict=True):
        assert np.abs(np.asarray(a, int) - b.astype(int)).max() <= 6


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"video file .*none.mp4 does not exist.*UNIVG_DATA"):
        read_frames(tmp_path / "none.mp4", [0])


@pytest.mark.parametrize("index", [N_FRAMES, -1, 1000])
def test_frame_outside_the_film(film, index):
    with pytest.raises(UserError, match=rf"48 frames, numbered 0 to 47; frame {index} was asked"):
        read_frames(film, [0, index])


@pytest.mark.parametrize("content", [b"", b"this is no film" * 50])
def test_a_file_that_is_no_film(tmp_path, content):
    pytest.importorskip("decord")
    path = tmp_path / "bad.mp4"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read .*bad.mp4 as a video") as error:
        read_frames(path, [0])
    assert "\n" not in str(error.value)


def test_a_cut_film_does_not_give_wrong_frames(film, tmp_path):
    path = tmp_path / "cut.mp4"
    path.write_bytes(film.read_bytes()[:-400])
    with pytest.raises(UserError, match=r"cut.mp4"):
        read_frames(path, [0])
