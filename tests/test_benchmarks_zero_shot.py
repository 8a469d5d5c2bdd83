"""UniVG-R1's extracted boxes of the four zero-shot sets: whole, faulty, and of another set."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import release_still
import release_video
from PIL import Image
from release_still import check_samples, converted, faults, rewrite

from univg_eval.benchmarks.readers import lisa, llmseg, reasonvos, revos
from univg_eval.benchmarks.readers.common.release import ItemError
from univg_eval.errors import UserError
from univg_eval.samples import fingerprint

open_lisa, open_revos = lisa.EXTRACTED.open, revos.EXTRACTED.open
open_reasonvos = reasonvos.EXTRACTED.open


@dataclass(frozen=True)
class Set:
    """A reader, the writer of its files, the (first) file, its images, and the fields of a row."""

    open: Callable[..., Any]
    write: Callable[[Path], Any]
    file: str
    images: str
    fields: str


SETS = {
    "lisa": Set(
        *(open_lisa, release_still.write_lisa_extracted),
        *("lisa_val.json", "images", "boxes, image_path, instruction"),
    ),
    "llmseg": Set(
        *(llmseg.EXTRACTED.open, release_still.write_llmseg_extracted),
        *("LLMSeg_eval.json", "images", "bbox, image_path, question"),
    ),
    "revos": Set(
        *(open_revos, release_video.write_revos_extracted),
        *("ReVOS_eval.json", "ReVOS_eval", "bbox_list, frames, question, video_id"),
    ),
    "reasonvos": Set(
        *(open_reasonvos, release_video.write_reasonvos_extracted),
        *("ReasonVOS_eval.json", "JPEGImages", "bbox_list, image_list, question"),
    ),
}
ALL = pytest.mark.parametrize("name", SETS)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    made = {name: tmp_path_factory.mktemp(name) for name in SETS}
    return {name: (folder, SETS[name].write(folder)) for name, folder in made.items()}


@pytest.fixture
def copy(written, tmp_path):
    """Copies the files of a set to a folder, to be spoiled."""

    def copy_of(name: str, to: str = "copy") -> Path:
        return Path(shutil.copytree(written[name][0], tmp_path / to))

    return copy_of


def first_sample(name: str, folder: Path) -> Any:
    return next(iter(SETS[name].open(folder).items)).convert()[0]


@ALL
def test_every_row_becomes_the_sample_that_it_says(name, written):
    folder, truth = written[name]
    release = SETS[name].open(str(folder))
    samples = converted(release)
    check_samples(samples, truth, name)
    assert samples == converted(release)
    assert len(release.items) == len(truth)
    assert release.source["revision"] == "univg-r1-extracted"
    assert {sample.source["revision"] for sample in samples} == {"univg-r1-extracted"}
    assert release.source["files"][0]["name"] == SETS[name].file
    assert sum(file["rows"] for file in release.source["files"]) == len(truth)
    expected = folder if name == "reasonvos" else folder / SETS[name].images
    assert release.links == {"images": expected.resolve()}


@ALL
def test_where_the_file_and_the_images_may_be(name, copy, tmp_path):
    source = copy(name)
    images = shutil.move(source / SETS[name].images, tmp_path / "elsewhere" / SETS[name].images)
    if name == "revos":
        with pytest.raises(UserError, match=r"none of the 3 videos.*--images"):
            SETS[name].open(source)
    else:
        assert set(faults(SETS[name].open(source)).values()) == {"missing_image"}
    expected = converted(SETS[name].open(source, images=images))
    assert expected
    (below := tmp_path / "hub" / "zero_shot_evaluation").mkdir(parents=True)
    for file in source.glob("*.json"):
        file.rename(below / file.name)
    for place in (below.parent, below):
        release = SETS[name].open(place, images=str(images))
        assert fingerprint(converted(release)) == fingerprint(expected)
    one = converted(SETS[name].open(below / SETS[name].file, images=images))
    assert fingerprint(one) == fingerprint(expected[: len(one)])
    with pytest.raises(UserError, match="nowhere does not exist"):
        SETS[name].open(below, images=tmp_path / "nowhere")


@ALL
def test_what_is_not_there_or_of_another_set_is_refused(name, copy, tmp_path):
    each = SETS[name]
    with pytest.raises(UserError, match=rf"nowhere does not exist; expected {each.file}"):
        each.open(tmp_path / "nowhere")
    folder = copy(name)
    with pytest.raises(UserError, match=r"has the splits? .*; received: train"):
        each.open(folder, splits=["train"])
    with pytest.raises(UserError, match="received: none"):
        each.open(folder, splits=[])
    for content, found in (("[]", r"\[\]"), ("{}", r"\{\}"), ('[{"a": 1}]', "an object with a")):
        (folder / each.file).write_text(content)
        with pytest.raises(UserError, match=rf"{each.file}: .*{found}") as caught:
            each.open(folder / each.file)
        assert each.fields in str(caught.value) and "another set" in str(caught.value)
    (folder / each.file).unlink()
    (folder / "lisa_test.json").unlink(missing_ok=True)
    with pytest.raises(UserError, match=rf"does not hold {each.file}.*GD-ML/UniVG-R1-data"):
        each.open(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not JSON .*fetch it again"),
        (b'["\xe9"]', r"not UTF-8 \(byte 2 is 0xe9\)"),
        (b'[{"a": 1, "a": 2}]', "duplicate key 'a'"),
        (b'{"' + 5000 * b"k" + b'": 1}', r"an object with k{37}\.\.\.;"),
    ],
)
def test_a_damaged_file_is_refused(content, message, tmp_path):
    (tmp_path / "lisa_val.json").write_bytes(content)
    with pytest.raises(UserError, match=rf"lisa_val\.json: .*{message}"):
        open_lisa(tmp_path)


FOREIGN_VIDEOS = ["4f6f0ec2/8.jpg", "4f6f0ec2/9.jpg", "1007_dJ8rXVkL2ao/00000000.jpg"]
ROW_FAULTS = [
    ("lisa", {"boxes": []}, "invalid_row", r"'boxes' is \[\]"),
    ("lisa", {"boxes": [[1, 2, 3]]}, "invalid_row", r"'boxes\[0\]' is \[1, 2, 3\]"),
    ("lisa", {"boxes": [[1, 2, 3, 10**400]]}, "invalid_row", "four numbers"),
    ("lisa", {"instruction": None}, "invalid_row", "'instruction' is None"),
    ("lisa", {"image_path": "val/../a.jpg"}, "invalid_row", "stays within its folder"),
    ("lisa", {"image_path": "val/none.jpg"}, "missing_image", "'val/none.jpg' is not below"),
    ("lisa", {"image_path": "R\\test\\0001.jpg"}, "invalid_row", "one of 'test'.*of 'val'"),
    ("llmseg", {"bbox": [1, 2, 3, 4]}, "invalid_row", "a list of lists"),
    ("llmseg", {"bbox": []}, "invalid_row", r"'bbox' is \[\]; .*four"),
    ("llmseg", {"bbox": [[1, 2, "3", 4]]}, "invalid_row", "four numbers"),
    ("llmseg", {"question": 5}, "invalid_row", "'question' is 5"),
    ("llmseg", {"image_path": "coco/none.jpg"}, "missing_image", "'coco/none.jpg' is not below"),
    ("revos", {"video_id": 7}, "invalid_row", "'video_id' is 7"),
    ("revos", {"video_id": "beach"}, "missing_image", "video 'beach'"),
    ("revos", {"question": None}, "invalid_row", "'question' is None"),
    ("revos", {"frames": [0, 1]}, "invalid_row", r"\[0, 1\]; expected three or more"),
    ("revos", {"frames": [0, 1, 9]}, "invalid_row", "from 0 to 8.* 9 frames"),
    ("revos", {"frames": [0, 1, 2.0]}, "invalid_row", r"\[0, 1, 2.0\]"),
    ("revos", {"frames": "01234"}, "invalid_row", "'01234'"),
    ("revos", {"bbox_list": [[1, 2, 3, 4]] * 2}, "invalid_row", "a box for each of 5"),
    ("revos", {"bbox_list": [None] * 5}, "invalid_row", r"\[2\]' is None; .*four numbers"),
    ("revos", {"bbox_list": [["1", "2", "3", "4.5"]] * 5}, "invalid_row", "four numbers"),
    ("revos", {"bbox_list": ["[1, 2, 3, 4]"] * 5}, "invalid_row", "four numbers"),
    ("reasonvos", {"question": 5}, "invalid_row", "'question' is 5"),
    ("reasonvos", {"image_list": ["a.jpg"]}, "invalid_row", "three or more"),
    ("reasonvos", {"image_list": [1, 2, 3]}, "invalid_row", r"\[1, 2, 3\]"),
    ("reasonvos", {"bbox_list": ["[1, 2, 3, 4]"]}, "invalid_row", "a box for each of 5"),
    ("reasonvos", {"image_list": ["v/1.jpg"] * 3}, "missing_image", "'v/1.jpg' is not below"),
    ("reasonvos", {"image_list": ["../1.jpg"] * 3}, "invalid_row", "a path that stays"),
    ("reasonvos", {"image_list": FOREIGN_VIDEOS}, "invalid_row", "2 folders"),
]


@pytest.mark.parametrize(("name", "change", "kind", "message"), ROW_FAULTS)
def test_a_faulty_row_is_named_and_the_others_are_kept(name, change, kind, message, copy):
    folder = copy(name)
    rewrite(folder / SETS[name].file, lambda rows: rows[1].update(change))
    images = folder / SETS[name].images
    items = list(SETS[name].open(folder / SETS[name].file, images=images).items)
    with pytest.raises(ItemError, match=message) as error:
        items[1].convert()
    assert error.value.kind == kind
    assert all(len(item.convert()) == 1 for item in (items[0], *items[2:]))


@ALL
def test_a_row_that_is_no_object(name, copy):
    folder = copy(name)
    rewrite(folder / SETS[name].file, lambda rows: rows.append("x"))
    *_, last = SETS[name].open(folder / SETS[name].file).items
    with pytest.raises(ItemError, match=rf"{SETS[name].file} row \d: is 'x'"):
        last.convert()


# --- LISA and LLM-Seg -------------------------------------------------------------------------


def test_one_file_of_lisa(written, copy):
    tests = [true for true in written["lisa"][1] if true.split == "test"]
    folder = copy("lisa")
    check_samples(converted(open_lisa(folder / "lisa_test.json")), tests, "lisa")
    check_samples(converted(open_lisa(folder, splits=["test"])), tests, "lisa")
    for name, splits in (("val", ["test"]), ("val", ["val", "test"])):
        with pytest.raises(UserError, match=r"lisa_val\.json is one file; expected .*test\.json"):
            open_lisa(folder / f"lisa_{name}.json", splits=splits)
    (folder / "lisa_test.json").rename(folder / "mine.json")
    with pytest.raises(UserError, match=r"mine\.json is one file.*--split"):
        open_lisa(folder / "mine.json")
    check_samples(converted(open_lisa(folder / "mine.json", splits=["test"])), tests, "lisa")
    assert {sample.split for sample in converted(open_lisa(folder))} == {"val"}
    with pytest.raises(UserError, match=r"does not hold lisa_val\.json and lisa_test\.json"):
        open_lisa(folder, splits=["val", "test"])


def test_lists_of_numbers_are_joined_before_four_are_taken(copy):
    folder = copy("llmseg")
    rewrite(folder / "LLMSeg_eval.json", lambda rows: rows[0].update(bbox=[[10, 20], [30, 60]]))
    sample = first_sample("llmseg", folder)
    assert "n_boxes" not in sample.extra
    assert sample.box == pytest.approx((10 / 96, 20 / 64, 30 / 96, 60 / 64))


@pytest.mark.parametrize(
    ("name", "change", "image_wh"),
    [
        ("lisa", {"boxes": [[60, 10, 20, 150]]}, (101, 75)),
        ("revos", {"bbox_list": [[60, 10, 20, 150]] * 5}, release_video.BEACH),
        ("reasonvos", {"bbox_list": ["60, 10, 20, 150"] * 5}, release_video.PARK),
    ],
)
def test_an_invalid_box_stays_as_released(name, change, image_wh, copy):
    folder = copy(name)
    rewrite(folder / SETS[name].file, lambda rows: rows[0].update(change))
    sample = first_sample(name, folder)
    w, h = image_wh
    assert sample.box == pytest.approx((60 / w, 10 / h, 20 / w, 150 / h))
    assert not sample.has_valid_targets


# --- ReVOS and ReasonVOS ----------------------------------------------------------------------


def frame_of_revos(row: dict[str, Any], folder: Path) -> Path:
    video = folder / "ReVOS_eval" / row["video_id"]
    names = (path.name for path in video.iterdir() if path.suffix in (".jpg", ".png"))
    return video / sorted(names, key=lambda n: int(re.findall(r"\d+", n)[0]))[row["frames"][2]]


def frame_of_reasonvos(row: dict[str, Any], folder: Path) -> Path:
    return folder / row["image_list"][2].partition("ReasonVOS/")[2]


@pytest.mark.parametrize(
    ("name", "frame", "numbers"),
    [
        ("revos", frame_of_revos, lambda box: [int(value) for value in box]),
        ("reasonvos", frame_of_reasonvos, lambda box: list(map(int, re.findall(r"\d+", box)))[:4]),
    ],
)
def test_targets_are_those_of_the_published_evaluation(name, frame, numbers, written):
    """As its script computes them, written anew."""
    folder, _ = written[name]
    rows = json.loads((folder / SETS[name].file).read_text(encoding="utf-8"))
    for row, sample in zip(rows, converted(SETS[name].open(folder)), strict=True):
        with Image.open(frame(row, folder)) as image:
            w, h = image.size
        x1, y1, x2, y2 = numbers(row["bbox_list"][2])
        assert sample.box == (x1 / w, y1 / h, x2 / w, y2 / h)


@pytest.mark.parametrize("place", ["JPEGImages", "images", "ReVOS/JPEGImages", "."])
def test_where_the_videos_of_revos_are_found(place, copy):
    folder = copy("revos")
    expected = fingerprint(converted(open_revos(folder)))
    (folder / place).mkdir(parents=True, exist_ok=True)
    for video in list((folder / "ReVOS_eval").iterdir()):
        shutil.move(video, folder / place)
    assert fingerprint(converted(open_revos(folder))) == expected


def test_a_video_of_revos_below_another_folder(copy):
    folder = copy("revos")
    (folder / "ReVOS_eval" / "TAO").mkdir()
    shutil.move(folder / "ReVOS_eval" / "beach_0001", folder / "ReVOS_eval" / "TAO")
    rewrite(folder / "ReVOS_eval.json", lambda rows: rows[0].update(video_id="TAO/beach_0001"))
    sample = first_sample("revos", folder)
    assert sample.cluster == "TAO/beach_0001"
    assert sample.extra["video"] == "revos/images/TAO/beach_0001"


@pytest.mark.parametrize("deep", [True, False])
def test_where_the_images_of_reasonvos_are_found(deep, copy, tmp_path):
    folder = copy("reasonvos")
    before = converted(open_reasonvos(folder))
    given = tmp_path / "given"
    shutil.move(folder / "JPEGImages", given / "JPEGImages" if deep else given)
    after = converted(open_reasonvos(folder, images=given))
    assert fingerprint(after) == fingerprint(before)
    # Groups of rows are the same wherever the videos lie.
    assert [sample.cluster for sample in after] == [sample.cluster for sample in before]


def test_a_frame_found_by_its_name_alone_is_not_taken(copy):
    """Every video has a frame of such a name."""
    folder = copy("reasonvos")
    images = folder / "JPEGImages" / "1007_dJ8rXVkL2ao"
    with pytest.raises(ItemError, match="by its file name alone") as error:
        next(iter(open_reasonvos(folder, images=images).items)).convert()
    assert error.value.kind == "missing_image"


BOX_TEXTS = [
    ("[12, 30, 40, 55]", (12, 30, 40, 55)),
    ("(12,30),(40,55)", (12, 30, 40, 55)),
    ("12 30 40 55", (12, 30, 40, 55)),
    ("<|box_start|>(12,30),(40,55)<|box_end|>", (12, 30, 40, 55)),
    # Upstream would read 12, 5, 30, 0 and -12 as 12: not what was meant.
    ("[12.5, 30.0, 40.0, 55.0]", None),
    ("[-12, 30, 40, 55]", None),
    ("[12, 30, 40]", None),
    ("[1, 12, 30, 40, 55]", None),
    pytest.param(f"[12, 30, 40, {'5' * 5000}]", None, id="more digits than Python converts"),
    ("", None),
    ([12, 30, 40, 55], None),
]


@pytest.mark.parametrize(("text", "expected"), BOX_TEXTS)
def test_boxes_as_text(text, expected, copy):
    folder = copy("reasonvos")
    rewrite(folder / "ReasonVOS_eval.json", lambda rows: rows[0]["bbox_list"].insert(2, text))
    if expected is None:
        with pytest.raises(ItemError, match=r"row 0: .*'bbox_list\[2\]'.*four whole") as error:
            first_sample("reasonvos", folder)
        assert error.value.kind == "invalid_row"
    else:
        (w, h), (x1, y1, x2, y2) = release_video.PARK, expected
        assert first_sample("reasonvos", folder).box == (x1 / w, y1 / h, x2 / w, y2 / h)


def test_whole_numbers_may_be_texts(copy):
    """The published evaluation puts every value through int()."""
    folder = copy("revos")
    boxes = [["9", 9.9, "-5", "900"]] * 3
    rewrite(folder / "ReVOS_eval.json", lambda rows: rows[0].update(bbox_list=boxes))
    w, h = release_video.BEACH
    assert first_sample("revos", folder).box == (9 / w, 9 / h, -5 / w, 900 / h)


def test_frames_whose_first_numbers_are_equal_are_in_natural_order(copy):
    """There the published evaluation takes whatever order the file system gives."""
    folder = copy("revos")
    video = folder / "ReVOS_eval" / "street_12_b"
    for name in [path.name for path in video.iterdir()]:
        (video / name).rename(video / f"cam3_{name.lstrip('0')}")
    samples = converted(open_revos(folder))
    assert [Path(image).name for image in samples[3].images] == [
        *("cam3_7.jpg", "cam3_7.jpg", "cam3_8.jpg", "cam3_10.jpg", "cam3_10.jpg")
    ]
    assert [sample.extra.get("tied_frames", False) for sample in samples] == [False] * 3 + [True]


def test_exif_orientation_decides_the_size(copy):
    folder = copy("revos")
    path = folder / "ReVOS_eval" / "beach_0001" / "00020.jpg"
    with Image.open(path) as image:
        exif = image.getexif()
        exif[0x0112] = 6
        lying = np.ascontiguousarray(np.rot90(np.asarray(image)))
    Image.fromarray(lying).save(path, exif=exif)
    assert first_sample("revos", folder).image_sizes[2] == release_video.BEACH
