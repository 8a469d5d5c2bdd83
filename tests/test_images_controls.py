"""Controls: a sample without what is needed to answer it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from factories import make_sample
from PIL import Image

from univg_eval.errors import UserError
from univg_eval.images.controls import CONTROLS, GREY, open_controlled, under_control
from univg_eval.samples import GroundingSample, Target, fingerprint
from univg_eval.scoring import score_sample

BOX = (0.1, 0.1, 0.5, 0.5)


def single(number: int = 0, wh: tuple[int, int] = (5, 5), **changes) -> GroundingSample:
    """A sample of one image."""
    values = {"images": (f"{number}.png",), "widths": wh[:1], "heights": wh[1:]}
    return make_sample(number, **(values | {"targets": (Target(0, BOX),)} | changes))


def one(name: str, *samples: GroundingSample) -> GroundingSample:
    return under_control(name, samples).samples[0]


def crowd(n: int, **changes) -> list[GroundingSample]:
    """Samples with images of their own."""
    return [
        make_sample(i, images=(f"toy/{i}a.png", f"toy/{i}b.png"), cluster=f"c{i}", **changes)
        for i in range(n)
    ]


def test_the_named_controls_and_an_unknown_one() -> None:
    assert list(CONTROLS) == ["none", "blank", "swapped", "permuted", "cut"]
    with pytest.raises(UserError, match=r"unknown control 'mirror'; expected one of: none, blank"):
        under_control("mirror", [make_sample()])
    samples = crowd(3)
    assert under_control("none", samples).samples == samples


@pytest.mark.parametrize("name", ["blank", "swapped", "permuted", "cut"])
def test_truth_and_identity_stay_and_the_row_survives_json(name: str) -> None:
    samples = crowd(4)
    controlled = under_control(name, samples)
    assert not controlled.left_out
    for before, after in zip(samples, controlled.samples, strict=True):
        for name_kept in ("id", "targets", "cluster", "image_is_given"):
            assert getattr(after, name_kept) == getattr(before, name_kept)
        assert after.extra["control"]["name"] == name
        assert after.extra["depth"] == before.extra["depth"]
        assert after != before
        assert GroundingSample.from_dict(after.to_dict()) == after
        # The oracle's answer is right under every control: only what is shown has changed.
        assert score_sample(after, "[0.1, 0.2, 0.3, 0.4]", "norm1").iou == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["blank", "swapped", "permuted", "cut"])
def test_only_the_named_part_changes(name: str) -> None:
    sample, after = crowd(4)[0], one(name, *crowd(4))
    assert (after.instruction != sample.instruction) == (name == "cut")
    assert (after.images != sample.images) == (name in ("swapped", "permuted"))
    assert (after.image_sizes != sample.image_sizes) == (name == "permuted")
    # No set under a control can pass for the set itself where instructions change.
    changed = fingerprint(under_control(name, crowd(4)).samples) != fingerprint(crowd(4))
    assert changed or name != "cut"


# blank


def test_blank_images_are_grey_and_of_the_recorded_sizes_and_no_file_is_read() -> None:
    images = open_controlled(one("blank", make_sample()), "/does/not/exist")
    assert [image.size for image in images] == [(640, 480), (320, 240)]
    for image in images:
        assert image.mode == "RGB"
        assert image.getcolors() == [(image.width * image.height, GREY)]


def test_blank_images_take_the_sizes_of_the_files_where_none_are_recorded(tmp_path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    sample = single(images=("a.png",), widths=(), heights=())
    assert [image.size for image in open_controlled(one("blank", sample), tmp_path)] == [(30, 20)]


# swapped


def test_swapped_shows_strangers_and_does_not_depend_on_the_rows_around() -> None:
    samples = crowd(7)
    controlled = under_control("swapped", samples).samples
    originals = {sample.id: sample for sample in samples}
    for before, after in zip(samples, controlled, strict=True):
        source = originals[after.extra["control"]["from"]]
        assert source.id != before.id
        assert after.images == source.images
    others = crowd(3, task="other", id="x")
    for number, sample in enumerate(others):
        others[number] = replace(sample, id=f"other-{number}")
    again = under_control("swapped", [*reversed(samples), *others]).samples
    assert [s for s in again if s.task == "find"] == list(reversed(controlled))


def test_swapped_prefers_equal_sizes_and_never_shares_a_file_or_cluster() -> None:
    narrow = replace(crowd(1)[0], id="narrow", cluster="n", widths=(100, 100), heights=(50, 50))
    same_video = replace(
        narrow, id="video", cluster="f", images=("toy/0a.png#frame=3", "toy/z.png")
    )
    twin = replace(narrow, id="twin", cluster="t", images=("toy/p.png", "toy/q.png"))
    cousin = replace(twin, id="cousin", cluster="n", images=("toy/r.png", "toy/s.png"))
    wide = replace(twin, id="wide", widths=(300, 300), cluster="w", images=("toy/u", "toy/v"))
    rows = [narrow, same_video, twin, cousin, wide]
    found = {s.id: s.extra["control"]["from"] for s in under_control("swapped", rows).samples}
    assert found["narrow"] == "twin"
    assert found["cousin"] in ("video", "twin")
    assert found["wide"] in ("narrow", "video", "twin", "cousin")


def test_swapped_leaves_out_who_has_no_partner() -> None:
    controlled = under_control("swapped", [*crowd(2), single(9, cluster="c9")])
    assert [sample.id for sample in controlled.samples] == ["toy-00000", "toy-00001"]
    assert list(controlled.left_out) == ["toy-00009"]
    assert "as many other images" in controlled.left_out["toy-00009"]
    alone = under_control("swapped", [replace(s, cluster="c") for s in crowd(5)])
    assert (len(alone.samples), len(alone.left_out)) == (0, 5)


def test_swapped_images_are_stretched_to_the_recorded_sizes(tmp_path) -> None:
    Image.new("RGB", (10, 20), "red").save(tmp_path / "a.png")
    Image.new("RGB", (40, 30), "blue").save(tmp_path / "b.png")
    a = single(0, (10, 20), images=("a.png",), cluster="a")
    b = single(1, (40, 30), images=("b.png",), cluster="b")
    first, second = under_control("swapped", [a, b]).samples
    for shown, size, color in ((first, (10, 20), (0, 0, 255)), (second, (40, 30), (255, 0, 0))):
        (image,) = open_controlled(shown, tmp_path)
        assert (image.size, image.getpixel((3, 3))) == (size, color)
    # The partner's file is checked against the partner's own size.
    Image.new("RGB", (41, 30), "blue").save(tmp_path / "b.png")
    with pytest.raises(UserError, match=r"b.png is 41x30 pixels, the sample says 40x30"):
        open_controlled(first, tmp_path)


def test_many_rows_of_few_sizes_are_paired_quickly() -> None:
    rows = [
        make_sample(
            i,
            images=(f"{i}a", f"{i}b"),
            cluster=f"c{i // 2}",
            widths=(9 + i % 3, 9),
            heights=(9, 9),
        )
        for i in range(5000)
    ]
    controlled = under_control("swapped", rows)
    assert len(controlled.samples) == 5000
    originals = {row.id: row for row in rows}
    for before, after in zip(rows, controlled.samples, strict=True):
        source = originals[after.extra["control"]["from"]]
        assert source.widths == before.widths
        assert source.cluster != before.cluster


# permuted


def test_permuted_moves_every_image_with_its_size(tmp_path) -> None:
    sizes = [(1, 4), (2, 5), (3, 6)]
    for name, size in zip("abc", sizes, strict=True):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    sample = make_sample(
        images=("a.png", "b.png", "c.png"),
        widths=(1, 2, 3),
        heights=(4, 5, 6),
        targets=(Target(1, BOX),),
    )
    after = one("permuted", sample)
    assert after.images == ("b.png", "c.png", "a.png")
    assert after.image_sizes == [(2, 5), (3, 6), (1, 4)]
    assert after.target_image == 1
    assert [image.size for image in open_controlled(after, tmp_path)] == after.image_sizes


def test_permuted_leaves_out_single_images_and_samples_that_name_none() -> None:
    """Who finds the image by looking is right in any order: no shortcut would be measured."""
    search = make_sample(4, image_is_given=False)
    controlled = under_control("permuted", [make_sample(), single(3), search])
    assert [sample.id for sample in controlled.samples] == ["toy-00000"]
    assert controlled.left_out["toy-00003"] == "one image has no other order"
    assert "names no image" in controlled.left_out["toy-00004"]
    for name in ("blank", "cut"):
        assert not under_control(name, [search]).left_out


@pytest.mark.parametrize("name", ["blank", "swapped", "permuted"])
def test_a_sample_without_a_target_is_left_out(name: str) -> None:
    """To say of grey images that nothing is there is right, and no shortcut."""
    samples = [*crowd(3), make_sample(9, targets=(), cluster="c9")]
    controlled = under_control(name, samples)
    assert len(controlled.samples) == 3
    assert "no target" in controlled.left_out["toy-00009"]
    assert not under_control("cut", samples).left_out


# cut


INSTRUCTIONS = [
    ({}, "Output the bounding box of the object in image 2 of 2."),
    (
        {"image_is_given": False},
        "Output the bounding box of the object in one of the 2 images, and say in which.",
    ),
    (
        {"images": ("a",), "widths": (), "heights": (), "targets": (Target(0, BOX),)},
        "Output the bounding box of the object in the image.",
    ),
    (
        {"targets": (Target(1, BOX), Target(0, BOX), Target(1, BOX))},
        "Output the bounding box of the object in images 1 and 2 of 2.",
    ),
    ({"targets": ()}, "Output the bounding box of the object in the 2 images."),
]


@pytest.mark.parametrize(("changes", "expected"), INSTRUCTIONS)
def test_cut_names_the_image_and_nothing_else(changes, expected: str) -> None:
    sample = make_sample(instruction="Where is the red dog in the second image?", **changes)
    assert one("cut", sample).instruction == expected
