"""ReVOS: the extracted boxes and the raw release, whole, faulty, and of another set."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from release_video import (
    BEACH,
    compressed_rle,
    converted,
    extent,
    item_named,
    rectangle,
    require_equal,
    revos_films,
    rewrite,
    write_reasonvos_full,
    write_revos_extracted,
    write_revos_full,
)

from univg_eval.benchmarks.preparing.preparation import prepare_release
from univg_eval.benchmarks.readers.common.mask_dict import MaskDict
from univg_eval.benchmarks.readers.common.release import ItemError
from univg_eval.benchmarks.readers.revos import open_revos, open_revos_full
from univg_eval.errors import UserError
from univg_eval.images.reading import open_images
from univg_eval.samples import fingerprint, load_samples

pytest.importorskip("pycocotools")


@pytest.fixture(scope="module")
def full_release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full")
    return folder, write_revos_full(folder)


@pytest.fixture(scope="module")
def extracted_release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("extracted")
    return folder, write_revos_extracted(folder)


@pytest.fixture
def full(full_release, tmp_path):
    """A copy to spoil."""
    shutil.copytree(full_release[0], tmp_path / "ReVOS")
    return tmp_path / "ReVOS"


@pytest.fixture
def extracted(extracted_release, tmp_path):
    shutil.copytree(extracted_release[0], tmp_path / "data")
    return tmp_path / "data"


# ---- the raw release ------------------------------------------------------------------------


def test_the_raw_release(full_release):
    folder, truth = full_release
    release = open_revos_full(folder)
    assert release.n_items == len(truth) == len(list(release.items))
    samples = converted(release)
    require_equal(samples, truth, "revos_full")
    assert [s.extra.get("absent") for s in samples].count("no_object") == 1
    assert [s.extra.get("absent") for s in samples].count("not_visible") == 1
    assert release.links == {"images": (folder / "JPEGImages").resolve()}
    assert release.source["sampling"] == "even:5" and release.source["revision"] == "official"
    assert [file["as_published"] for file in release.source["files"]] == [False, False]
    assert samples[0].source["images"][0] == "beach_0001/00000"
    assert [s.source["row"] for s in samples] == list(range(len(samples)))


@pytest.mark.parametrize("given", ["folder", "above", "file", "images", "release of images"])
def test_ways_to_name_the_release(full, given, tmp_path):
    expected = fingerprint(converted(open_revos_full(full)))
    if given in ("images", "release of images"):
        shutil.move(full / "JPEGImages", tmp_path / "elsewhere" / "JPEGImages")
    release = {
        "folder": lambda: open_revos_full(str(full), splits=["test"]),
        "above": lambda: open_revos_full(full.parent),
        "file": lambda: open_revos_full(full / "meta_expressions_valid_.json"),
        "images": lambda: open_revos_full(full, images=tmp_path / "elsewhere" / "JPEGImages"),
        "release of images": lambda: open_revos_full(full, images=str(tmp_path / "elsewhere")),
    }[given]()
    assert fingerprint(converted(release)) == expected


@pytest.mark.parametrize(
    ("rule", "shown", "asked"),
    [
        ("even:1", [4], 0),
        ("even:3", [1, 4, 7], 1),
        ("even:2", [2, 6], 1),
        ("all", list(range(9)), 4),
    ],
)
def test_other_samplings(full_release, rule, shown, asked):
    """The asked frame is in the middle; its box is that of the mask there."""
    release = open_revos_full(full_release[0], sampling=rule)
    film = revos_films()[0]
    sample = item_named(release, "beach_0001/0").convert()[0]
    assert [Path(image).stem for image in sample.images] == [film.frames[i] for i in shown]
    x1, y1, x2, y2 = extent(film.objects[11][shown[asked]])
    w, h = film.image_wh
    assert sample.box == pytest.approx((x1 / w, y1 / h, x2 / w, y2 / h))
    assert sample.target_image == asked and sample.extra["target_frame"] == shown[asked]
    assert release.source["sampling"] == rule
    words = {0: "first", 1: "second", 4: "fifth"}
    assert f"the bounding box in the {words[asked]} image" in sample.instruction


def test_prepared_and_opened_again(full_release, tmp_path):
    folder, truth = full_release
    prepare_release(open_revos_full(folder), root=tmp_path)
    samples = load_samples("revos_full", root=tmp_path)
    require_equal(samples, truth, "revos_full")
    for sample in samples:
        images = open_images(sample, tmp_path)
        if sample.id == "revos_full-beach_0001-0":  # the red ball fills the middle of its box
            x = round((sample.box[0] + sample.box[2]) / 2 * images[2].width)
            y = round((sample.box[1] + sample.box[3]) / 2 * images[2].height)
            r, g, b = images[2].getpixel((x, y))
            assert r > 180 and g < 90 and b < 90


def expression(value, video="beach_0001", exp_id="0"):
    return value["videos"][video]["expressions"][exp_id]


FAULTS = {
    "no text": (
        lambda meta, masks: expression(meta).update(exp="  "),
        "invalid_row",
        r"expression '0': field 'exp' is '  '; expected text",
    ),
    "no field": (
        lambda meta, masks: expression(meta).pop("anno_id"),
        "invalid_row",
        r"field 'anno_id' is None; expected a list of object numbers, empty where",
    ),
    "a number": (
        lambda meta, masks: expression(meta).update(anno_id=11),
        "invalid_row",
        r"field 'anno_id' is 11; expected a list",
    ),
    "unknown object": (
        lambda meta, masks: expression(meta).update(anno_id=[11, 77]),
        "invalid_row",
        r"object 77 of 'anno_id' has no masks in .*mask_dict.json; expected the two files of one",
    ),
    "no object": (
        lambda meta, masks: meta["videos"]["beach_0001"]["expressions"].update({"0": 3}),
        "invalid_row",
        r"expression '0': is 3; expected an object",
    ),
    "frames": (
        lambda meta, masks: meta["videos"]["beach_0001"].update(frames=[]),
        "invalid_row",
        r"the video's field 'frames' is \[\]; expected the names of its frames, each once",
    ),
    "a frame twice": (
        lambda meta, masks: meta["videos"]["beach_0001"].update(frames=["00000"] * 9),
        "invalid_row",
        r"'frames' is a list of 9 values; expected the names of its frames, each once",
    ),
    "a frame too many": (
        lambda meta, masks: meta["videos"]["beach_0001"]["frames"].append("00045"),
        "missing_image",
        r"frame '00045' .*which has 9 frames, from 00000.jpg to 00040.jpg; .*unpack the video",
    ),
    "a mask too few": (
        lambda meta, masks: masks["11"].pop(),
        "invalid_mask",
        r"object 11 has 8 masks, its video 9 frames; expected one mask \(or null\) a frame",
    ),
    "another size": (
        lambda meta, masks: masks["11"].__setitem__(
            4, compressed_rle(rectangle((75, 101), 1, 1, 9, 9))
        ),
        "size_mismatch",
        r"frame '00020': the mask is 75x101 pixels, its image .*00020.jpg 101x75; expected equal",
    ),
    "a damaged mask": (
        lambda meta, masks: masks["11"][4].update(counts="PPPP"),
        "invalid_mask",
        r"\(mask_dict.json: object 11, frame 4\)",
    ),
    "no mask": (
        lambda meta, masks: masks["11"].__setitem__(4, 7),
        "invalid_mask",
        r"object 11, frame 4\): the mask is 7; expected run lengths",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_item_is_named_and_the_others_are_kept(full, fault):
    spoil, kind, message = FAULTS[fault]
    meta, masks = full / "meta_expressions_valid_.json", full / "mask_dict.json"
    contents = [json.loads(path.read_text(encoding="utf-8")) for path in (meta, masks)]
    spoil(*contents)
    for path, content in zip((meta, masks), contents, strict=True):
        path.write_text(json.dumps(content), encoding="utf-8")
    release = open_revos_full(full)
    with pytest.raises(ItemError, match=message) as error:
        item_named(release, "beach_0001/0").convert()
    assert error.value.kind == kind
    assert "meta_expressions_valid_.json" in str(error.value)
    assert item_named(release, "kitchen-7/1").convert()[0].box


def test_a_video_that_is_not_there(full):
    shutil.rmtree(full / "JPEGImages" / "beach_0001")
    release = open_revos_full(full)
    with pytest.raises(ItemError, match=r"video 'beach_0001' is no folder below .*--images") as e:
        item_named(release, "beach_0001/0").convert()
    assert e.value.kind == "missing_image"
    assert item_named(release, "kitchen-7/1").convert()


def test_a_frame_that_is_no_picture(full):
    (full / "JPEGImages" / "beach_0001" / "00020.jpg").write_bytes(b"cut off")
    with pytest.raises(ItemError, match=r"00020.jpg as an image") as error:
        item_named(open_revos_full(full), "beach_0001/2").convert()
    assert error.value.kind == "unreadable_image"


def test_a_picture_that_is_no_frame(full):
    shutil.copy(
        full / "JPEGImages" / "beach_0001" / "00020.jpg",
        full / "JPEGImages" / "beach_0001" / "cover.jpg",
    )
    with pytest.raises(ItemError, match=r"the name of cover.jpg has no number") as error:
        item_named(open_revos_full(full), "beach_0001/0").convert()
    assert error.value.kind == "unreadable_image"


def test_a_video_name_that_leads_elsewhere(full):
    rewrite(
        full / "meta_expressions_valid_.json",
        lambda meta: meta["videos"].update({"../out": meta["videos"]["beach_0001"]}),
    )
    with pytest.raises(ItemError, match=r"video '../out'; expected a name that stays") as error:
        item_named(open_revos_full(full), "../out/0").convert()
    assert error.value.kind == "invalid_row"


def test_an_empty_entry_is_like_null(full):
    """The release's own evaluation asks `if mask`, not whether it is None."""

    def change(masks):
        masks["12"][4], masks["11"][4] = {}, []

    rewrite(full / "mask_dict.json", change)
    sample = item_named(open_revos_full(full), "beach_0001/1").convert()[0]
    assert sample.targets == () and sample.extra["absent"] == "not_visible"


def test_frames_named_by_number_and_by_file(full):
    """Ids without their zeros, and names with an extension, are found; what is ambiguous is not."""
    rewrite(
        full / "meta_expressions_valid_.json",
        lambda meta: meta["videos"]["beach_0001"].update(frames=[5 * i for i in range(9)]),
    )
    sample = item_named(open_revos_full(full), "beach_0001/0").convert()[0]
    assert sample.images[2].endswith("beach_0001/00020.jpg")
    picture = full / "JPEGImages" / "beach_0001" / "00020.jpg"
    shutil.copy(picture, picture.with_name("020.jpg"))
    with pytest.raises(ItemError, match=r"frame '20' of video 'beach_0001' is not in"):
        item_named(open_revos_full(full), "beach_0001/0").convert()


WRONG = {
    "no folder": (lambda f: f / "none", {}, r"none does not exist; expected meta_expressions_val"),
    "empty": (lambda f: f.parent, {}, r"does not hold meta_expressions_valid_.json, nor does ReV"),
    "no masks": (lambda f: f, {"lose": "mask_dict.json"}, r"mask_dict.json does not exist; expec"),
    "no videos": (lambda f: f, {"lose": "JPEGImages"}, r"none of the 3 videos is a folder of .*Un"),
    "sampling": (lambda f: f, {"sampling": "even"}, r"unknown sampling rule 'even'; expected one"),
    "given": (lambda f: f, {"sampling": "given"}, r"'given' needs a list of frame numbers"),
    "split": (lambda f: f, {"splits": ["train"]}, r"has the split test; received: train"),
    "no images": (lambda f: f, {"images": "nowhere"}, r"image folder nowhere does not exist.*--im"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_folder_is_refused_at_once(full, case):
    where, options, message = WRONG[case]
    lost = options.pop("lose", None)
    if case == "empty":
        full.rename(full.with_name("other"))
    elif lost:
        path = full / lost
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        options["lose"] = lost
    with pytest.raises(UserError, match=message):
        open_revos_full(where(full), **{k: v for k, v in options.items() if k != "lose"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", r"holds \[\]; expected \{\"videos\""),
        ('{"videos": {}}', r"expected \{\"videos\""),
        (
            '{"videos": {"v": {"frames": []}}}',
            r"the first video, 'v', is .*Is it the file of anoth",
        ),
        ('{"videos": {"v": {"frames": ["1"], "expressions": {"0": {}}}}}', r"another set\?"),
        ("{", r"not JSON .*If its download broke off, fetch it again"),
    ],
)
def test_an_annotation_file_of_another_set(full, content, message):
    (full / "meta_expressions_valid_.json").write_text(content)
    with pytest.raises(UserError, match=rf"meta_expressions_valid_.json: .*{message}"):
        open_revos_full(full)


def test_the_file_of_reasonvos_is_not_that_of_revos(full, tmp_path):
    write_reasonvos_full(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "meta_expressions.json", full / "meta_expressions_valid_.json")
    with pytest.raises(UserError, match=r"exp, anno_id an expression.*another set"):
        open_revos_full(full)


# ---- mask_dict.json -------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    value=st.dictionaries(st.text(max_size=6), st.lists(JSON, max_size=4), min_size=1),
    indent=st.sampled_from([None, 4]),
    ascii_only=st.booleans(),
)
def test_lists_are_found_without_parsing_the_file(tmp_path_factory, value, indent, ascii_only):
    path = tmp_path_factory.getbasetemp() / "any.json"
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    path.write_text(text, encoding="utf-8")
    masks = MaskDict(path)
    assert len(masks) == len(value)
    for key in value:
        assert key in masks and masks.get(key) == value[key]
    assert "never a key" not in masks


def test_a_mask_file_that_was_cut_anywhere(full_release, tmp_path):
    """Whatever the last byte that arrived, it is noticed."""
    raw = (full_release[0] / "mask_dict.json").read_bytes()
    path = tmp_path / "mask_dict.json"
    for length in range(1, len(raw) - 1, 97):
        path.write_bytes(raw[:length])
        with pytest.raises(UserError, match=r"mask_dict.json: .*expected one JSON object"):
            MaskDict(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty: fetch it again; expected one JSON object"),
        (b"[]", r"it holds something else"),
        (b"7", r"breaks off"),
        (b"{}", r"it holds something else"),
        (b'{"1": {"a": []}}', r"\{ at byte 6 begins no list"),
        (b'{"1": null, "2": []}', r"object 1 has no list"),
        (b'{"1": [], "2"}', r"it holds something else"),
        (b'{"1": [}', r"\} at byte 7 closes nothing"),
        (b'{"1": []}}', r"it holds something else"),
        (b'{"1": [], "1": []}', r"object 1 stands twice"),
        (b"{[]: 1}", r"\[ at byte 1 begins no list"),
        (b'<html>{"1": []}', r"it holds something else"),
    ],
)
def test_a_mask_file_of_another_kind(tmp_path, content, message):
    path = tmp_path / "mask_dict.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        MaskDict(path)


def test_damage_within_a_list_is_told_when_it_is_read(full):
    text = (full / "mask_dict.json").read_text()
    (full / "mask_dict.json").write_text(
        text.replace('"11": [{"size": [75', '"11": [{"size": [7 5')
    )
    release = open_revos_full(full)
    with pytest.raises(ItemError, match=r"the masks of object 11 are not JSON .*fetch it") as error:
        item_named(release, "beach_0001/0").convert()
    assert error.value.kind == "invalid_mask"


def test_only_the_masks_asked_for_are_parsed(full_release):
    masks = MaskDict(full_release[0] / "mask_dict.json")
    release = open_revos_full(full_release[0])
    reader = item_named(release, "street_12_b/10").convert.func.__self__
    item_named(release, "street_12_b/10").convert()
    assert reader.masks.get.cache_info().misses == 1
    assert len(masks) == 6 and "500" in masks


# ---- the extracted boxes --------------------------------------------------------------------


def test_the_extracted_boxes(extracted_release):
    folder, truth = extracted_release
    release = open_revos(folder)
    samples = converted(release)
    require_equal(samples, truth, "revos")
    assert release.source["revision"] == "univg-r1-extracted"
    assert release.source["order"] == "first_number" and release.n_items == len(truth)
    # Decimals were written, and cut.
    assert json.loads((folder / "ReVOS_eval.json").read_text())[0]["bbox_list"][2][0] % 1 == 0.75


def published_target(row: dict, videos: Path) -> list[float]:
    """The target as the published evaluation computes it, in own words."""
    names = [path.name for path in (videos / row["video_id"]).iterdir()]
    names = sorted((n for n in names if n[-4:] in (".jpg", ".png")), key=first_number)
    with Image.open(videos / row["video_id"] / names[row["frames"][2]]) as image:
        width, height = image.size
    x1, y1, x2, y2 = (int(value) for value in row["bbox_list"][2])
    return [x1 / width, y1 / height, x2 / width, y2 / height]


def first_number(name: str) -> int:
    digits = ""
    for letter in name:
        if letter.isdigit():
            digits += letter
        elif digits:
            break
    return int(digits)


def test_targets_are_those_of_the_published_evaluation(extracted_release):
    folder, _ = extracted_release
    rows = json.loads((folder / "ReVOS_eval.json").read_text(encoding="utf-8"))
    for row, sample in zip(rows, converted(open_revos(folder)), strict=True):
        assert list(sample.box) == published_target(row, folder / "ReVOS_eval")


@pytest.mark.parametrize("place", ["JPEGImages", "images", "ReVOS/JPEGImages", ".", "given"])
def test_where_the_videos_are_looked_for(extracted, place, tmp_path):
    expected = fingerprint(converted(open_revos(extracted)))
    target = tmp_path / "given" if place == "given" else extracted / place
    target.parent.mkdir(exist_ok=True)
    if place == ".":
        for video in list((extracted / "ReVOS_eval").iterdir()):
            shutil.move(video, extracted)
    else:
        shutil.move(extracted / "ReVOS_eval", target)
    release = open_revos(extracted, images=target if place == "given" else None)
    assert fingerprint(converted(release)) == expected


def test_the_file_in_the_folder_of_the_hub(extracted):
    expected = fingerprint(converted(open_revos(extracted)))
    (extracted / "zero_shot_evaluation").mkdir()
    shutil.move(extracted / "ReVOS_eval.json", extracted / "zero_shot_evaluation")
    release = open_revos(extracted, images=extracted / "ReVOS_eval")
    assert fingerprint(converted(release)) == expected


ROW_FAULTS = [
    ({"video_id": 7}, "invalid_row", r"row 1: field 'video_id' is 7; expected text"),
    ({"video_id": "beach"}, "missing_image", r"row 1: video 'beach' is no folder"),
    ({"question": None}, "invalid_row", r"field 'question' is None"),
    ({"frames": [0, 1]}, "invalid_row", r"'frames' is \[0, 1\]; expected three or more whole"),
    ({"frames": [0, 1, 9]}, "invalid_row", r"numbers from 0 to 8, as .*beach_0001 has 9 frames"),
    ({"frames": [0, 1, -1]}, "invalid_row", r"'frames' is \[0, 1, -1\]"),
    ({"frames": [0, 1, 2.0]}, "invalid_row", r"'frames' is \[0, 1, 2.0\]"),
    ({"frames": "01234"}, "invalid_row", r"'frames' is '01234'"),
    ({"bbox_list": [[1, 2, 3, 4]] * 2}, "invalid_row", r"'bbox_list' is .*expected a box for each"),
    ({"bbox_list": None}, "invalid_row", r"'bbox_list' is None"),
    ({"bbox_list": [None] * 5}, "invalid_row", r"'bbox_list\[2\]' is None; expected four numbers"),
    ({"bbox_list": [["1", "2", "3", "4.5"]] * 5}, "invalid_row", r"expected four numbers"),
    ({"bbox_list": [[1, 2, 3]] * 5}, "invalid_row", r"is \[1, 2, 3\]; expected four numbers"),
    ({"bbox_list": ["[1, 2, 3, 4]"] * 5}, "invalid_row", r"expected four numbers x1, y1, x2, y2"),
    ({"bbox_list": [[1, 2, 3, 1e400]] * 5}, "invalid_row", r"expected four numbers"),
]


@pytest.mark.parametrize(("change", "kind", "message"), ROW_FAULTS)
def test_a_faulty_row_is_named_and_the_others_are_kept(extracted, change, kind, message):
    rewrite(extracted / "ReVOS_eval.json", lambda rows: rows[1].update(change))
    release = open_revos(extracted)
    items = list(release.items)
    with pytest.raises(ItemError, match=message) as error:
        items[1].convert()
    assert error.value.kind == kind and "ReVOS_eval.json row 1" in str(error.value)
    assert [len(item.convert()) for item in (items[0], *items[2:])] == [1, 1, 1]


def test_whole_numbers_may_be_texts(extracted):
    """The published evaluation puts every value through int()."""
    rewrite(
        extracted / "ReVOS_eval.json",
        lambda rows: rows[0].update(bbox_list=[["9", 9.9, "-5", "900"]] * 3),
    )
    sample = next(iter(open_revos(extracted).items)).convert()[0]
    w, h = BEACH
    assert sample.box == (9 / w, 9 / h, -5 / w, 900 / h)


def test_boxes_stay_as_released(extracted):
    """An impossible box is the audit's business."""
    rewrite(
        extracted / "ReVOS_eval.json", lambda rows: rows[0].update(bbox_list=[[9, 9, 5, 900]] * 3)
    )
    sample = next(iter(open_revos(extracted).items)).convert()[0]
    w, h = BEACH
    assert sample.box == (9 / w, 9 / h, 5 / w, 900 / h) and not sample.has_valid_targets


def test_frames_whose_first_numbers_are_equal_are_in_natural_order(extracted):
    """There the published evaluation takes whatever order the file system gives: it is told."""
    video = extracted / "ReVOS_eval" / "street_12_b"
    for name in [path.name for path in video.iterdir()]:
        (video / name).rename(video / f"cam3_{name.lstrip('0')}")
    samples = converted(open_revos(extracted))
    assert [Path(image).name for image in samples[3].images] == [
        *("cam3_7.jpg", "cam3_7.jpg", "cam3_8.jpg", "cam3_10.jpg", "cam3_10.jpg")
    ]
    assert [sample.extra.get("tied_frames", False) for sample in samples] == [False] * 3 + [True]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            [{"image_list": [], "question": "", "bbox_list": []}],
            r"fields bbox_list, frames, questio",
        ),
        ({}, r"holds \{\}; expected a JSON list of objects"),
        ([], r"holds \[\]; expected"),
    ],
)
def test_a_file_of_another_set(extracted, content, message):
    (extracted / "ReVOS_eval.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"ReVOS_eval.json: .*{message}"):
        open_revos(extracted)


def test_no_file_at_all(tmp_path):
    with pytest.raises(UserError, match=r"does not hold ReVOS_eval.json.*GD-ML/UniVG-R1-data"):
        open_revos(tmp_path)


def test_exif_orientation_decides_the_size(extracted):
    path = extracted / "ReVOS_eval" / "beach_0001" / "00020.jpg"
    with Image.open(path) as image:
        exif = image.getexif()
        exif[0x0112] = 6
        lying = np.rot90(np.asarray(image))
        Image.fromarray(np.ascontiguousarray(lying)).save(path, exif=exif)
    sample = next(iter(open_revos(extracted).items)).convert()[0]
    assert sample.image_sizes[2] == BEACH
