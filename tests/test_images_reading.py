"""Images of a sample: RGB, upright, of the recorded size, and errors that name the file."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from factories import make_sample
from PIL import Image, ImageFile, ImageOps

from univg_eval.benchmarks.readers.common.release import ItemError, size_of
from univg_eval.errors import UserError
from univg_eval.images import reading as images_module
from univg_eval.images.reading import (
    ImageError,
    image_header,
    image_size,
    load_image,
    load_reference,
    open_images,
    split_reference,
)
from univg_eval.samples import GroundingSample, Target


def sample(images, sizes=()) -> GroundingSample:
    return make_sample(
        images=tuple(images),
        widths=tuple(w for w, _ in sizes),
        heights=tuple(h for _, h in sizes),
        targets=(Target(image=0, box=(0.1, 0.1, 0.5, 0.5)),),
    )


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("a/b.png", ("a/b.png", None)),
        ("a/clip.mp4#frame=12", ("a/clip.mp4", 12)),
        ("a/x#frame=1/clip.mp4#frame=0", ("a/x#frame=1/clip.mp4", 0)),
        ("a/with#hash.png", ("a/with#hash.png", None)),
    ],
)
def test_reference(reference, expected):
    assert split_reference(reference) == expected


@pytest.mark.parametrize("number", ["", "-1", "1.5", "²", "٣", "1" * 5000])
def test_reference_with_a_bad_frame(number):
    with pytest.raises(UserError, match="is not a whole number from 0"):
        split_reference(f"clip.mp4#frame={number}")


@pytest.mark.parametrize("name", ["x.png", "x.eps"])
def test_no_file_starts_the_program_of_its_format(tmp_path, name, monkeypatch):
    """Pillow would hand PostScript, whatever the file is called, to Ghostscript."""
    from PIL import EpsImagePlugin

    def started(*_, **__):
        raise AssertionError("Ghostscript")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    Image.new("RGB", (5, 3)).save(tmp_path / name, "EPS")
    for read in (load_image, lambda path: image_header(path, decode=True)):
        with pytest.raises(ImageError, match="no known image format"):
            read(tmp_path / name)


def test_exif_orientation_is_applied_once(tmp_path):
    # Stored lying down (6x4); orientation 6 says: turn a quarter clockwise to see it.
    stored = np.zeros((4, 6, 3), np.uint8)
    stored[0, 0] = (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save(tmp_path / "turned.png", exif=exif)
    (image,) = open_images(sample(["turned.png"], [(4, 6)]), tmp_path)
    assert image.size == (4, 6)
    # The stored upper left corner is the upper right one of the upright image.
    assert image.getpixel((3, 0)) == (255, 0, 0)
    assert image.getexif().get(0x0112) in (None, 1)
    image.save(tmp_path / "again.png")
    assert load_image(tmp_path / "again.png").size == (4, 6)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA", "I;16"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    name = "x.tif" if mode == "CMYK" else "x.png"
    Image.new(mode, (5, 3)).save(tmp_path / name)
    image = load_image(tmp_path / name)
    assert image.mode == "RGB" and image.size == (5, 3)


def test_order_and_absolute_paths(tmp_path):
    for i, color in enumerate(["red", "lime", "blue"]):
        Image.new("RGB", (4, 4), color).save(tmp_path / f"{i}.png")
    references = ["2.png", str(tmp_path / "0.png"), "1.png"]
    colors = [image.getpixel((0, 0)) for image in open_images(sample(references), tmp_path)]
    assert colors == [(0, 0, 255), (255, 0, 0), (0, 255, 0)]


def test_a_video_is_opened_once_and_mixed_with_stills(tmp_path, monkeypatch):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "still.png")
    calls = []

    def fake(path, indices):
        calls.append((path.name, list(indices)))
        return [Image.new("RGB", (4, 4), (0, 0, index)) for index in indices]

    monkeypatch.setattr(images_module, "read_frames", fake)
    references = ["a.mp4#frame=9", "still.png", "b.mp4#frame=1", "a.mp4#frame=3", "a.mp4#frame=9"]
    pixels = [image.getpixel((0, 0)) for image in open_images(sample(references), tmp_path)]
    assert calls == [("a.mp4", [9, 3, 9]), ("b.mp4", [1])]
    assert pixels == [(0, 0, 9), (255, 0, 0), (0, 0, 1), (0, 0, 3), (0, 0, 9)]


def test_missing_image_names_sample_and_file(tmp_path):
    with pytest.raises(UserError, match=r"sample 'toy-00000': image file .*none.png does not"):
        open_images(sample(["none.png"]), tmp_path)


def half_image(path):
    Image.effect_noise((64, 48), 90).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


@pytest.mark.parametrize("switched_on", [False, True], ids=["by default", "after lmms-eval"])
@pytest.mark.parametrize("form", ["jpg", "png"])
def test_truncated_image_is_not_half_an_image(tmp_path, monkeypatch, switched_on, form):
    # Importing lmms-eval makes Pillow fill up truncated images with grey, for the whole process.
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", switched_on)
    path = half_image(tmp_path / f"x.{form}")
    assert image_size(path) == (64, 48)  # needs the header alone
    with pytest.raises(ImageError, match=r"cannot read .*x\..* as an image.*damaged"):
        load_image(path)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is switched_on


def test_the_reason_is_given(tmp_path, monkeypatch):
    (tmp_path / "empty.png").touch()
    (tmp_path / "page.jpg").write_text("<html>404 not found</html>")
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\x00" * 40)
    (tmp_path / "ring.png").symlink_to("ring.png")
    for name, reason in [
        (".", "Is a directory; expected an image file$"),
        ("empty.png", "the file is empty; fetch it again$"),
        ("page.jpg", "it has no known image format; the file may be damaged$"),
        ("cut.png", "damaged"),
        ("ring.png", "symbolic links; expected an image file$"),
        ("a" * 300, "name too long; expected an image file$"),
        ("nul\0.png", "null byte; the file may be damaged$"),
    ]:
        with pytest.raises(ImageError, match=f"(?s)cannot read .* as an image: .*{reason}"):
            load_image(tmp_path / name)

    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied", "x.png")

    monkeypatch.setattr(Image, "open", refuse)  # the superuser reads every file
    with pytest.raises(ImageError, match="allow this user to read it") as error:
        load_image(tmp_path / "x.png")
    assert not error.value.missing


def test_a_size_other_than_recorded_is_an_error(tmp_path):
    Image.new("RGB", (8, 6)).save(tmp_path / "x.png")
    with pytest.raises(UserError, match=r"x.png is 8x6 pixels, the sample says 6x8"):
        open_images(sample(["x.png"], [(6, 8)]), tmp_path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["png", "jpg", "tif", "webp"])
def test_the_size_is_that_of_the_upright_image(tmp_path, form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (6, 4)).save(tmp_path / f"x.{form}", exif=exif)
    size = image_size(tmp_path / f"x.{form}")
    assert size == ((6, 4) if orientation <= 4 else (4, 6))
    assert load_image(tmp_path / f"x.{form}").size == size


def test_an_orientation_behind_the_pixels_of_a_png_counts(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4)).save(tmp_path / "x.png", exif=exif)
    data = (tmp_path / "x.png").read_bytes()
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    last = data.index(b"IEND") - 4
    assert start < data.index(b"IDAT") < last
    (tmp_path / "x.png").write_bytes(data[:start] + data[end:last] + data[start:end] + data[last:])
    assert load_image(tmp_path / "x.png").size == (4, 6)
    assert image_size(tmp_path / "x.png") == (4, 6)


def test_threads_decode_at_once_and_the_last_puts_the_switch_back(tmp_path, monkeypatch):
    """Both threads are inside Pillow's decoder at the same moment, or the barrier breaks."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    Image.new("RGB", (6, 4)).save(tmp_path / "x.png")
    inside = threading.Barrier(2, timeout=20)
    settings = []
    transpose = ImageOps.exif_transpose

    def wait_for_the_other(image):
        inside.wait()
        settings.append(ImageFile.LOAD_TRUNCATED_IMAGES)
        return transpose(image)

    monkeypatch.setattr(ImageOps, "exif_transpose", wait_for_the_other)
    with ThreadPoolExecutor(2) as pool:
        sizes = list(pool.map(lambda _: load_image(tmp_path / "x.png").size, range(4)))
    assert sizes == [(6, 4)] * 4
    assert settings == [False] * 4
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_many_threads_with_good_and_broken_files(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    Image.effect_noise((64, 48), 90).save(tmp_path / "good.png")
    half_image(tmp_path / "broken.png")

    def outcome(number):
        try:
            return load_image(tmp_path / ("broken.png" if number % 3 else "good.png")).size
        except ImageError as error:
            return error.missing

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(outcome, range(120)))
    assert outcomes == [False if number % 3 else (64, 48) for number in range(120)]
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_a_reference_names_a_file_or_a_frame(tmp_path, monkeypatch):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "x.png")
    monkeypatch.setattr(
        images_module,
        "read_frames",
        lambda path, indices: [Image.new("RGB", (len(path.name), i + 1)) for i in indices],
    )
    assert load_reference("x.png", tmp_path).getpixel((0, 0)) == (255, 0, 0)
    assert load_reference("a.mp4#frame=6", tmp_path).size == (5, 7)


@pytest.mark.parametrize("read", [image_size, load_image])
def test_missing_is_not_unreadable(tmp_path, read):
    (tmp_path / "text.png").write_text("no image")
    for path, missing in [
        (tmp_path / "none.png", True),
        (tmp_path / "text.png" / "none.png", True),
        (tmp_path / "text.png", False),
        (tmp_path, False),
    ]:
        with pytest.raises(ImageError) as caught:
            read(path)
        assert caught.value.missing is missing
        assert str(path) in str(caught.value)


def test_a_reader_gets_an_items_fault(tmp_path):
    Image.new("RGB", (6, 4)).save(tmp_path / "x.png")
    assert size_of(tmp_path / "x.png") == (6, 4)
    (tmp_path / "text.png").write_text("no image")
    for name, kind in (("none.png", "missing_image"), ("text.png", "unreadable_image")):
        with pytest.raises(ItemError, match=name) as caught:
            size_of(tmp_path / name)
        assert caught.value.kind == kind
