"""ReasonSeg, raw and as extracted by UniVG-R1, read from its released forms."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from release_still import (
    LISA_IMAGES,
    Annotation,
    check_stills,
    converted,
    faults,
    rectangle_points,
    spoil_lisa_full,
    write_annotation,
    write_image,
    write_lisa_extracted,
    write_lisa_full,
)

from univg_eval.benchmarks.preparing.preparation import prepare_release
from univg_eval.benchmarks.readers.common.masks import read_rle
from univg_eval.benchmarks.readers.common.release import ItemError
from univg_eval.benchmarks.readers.lisa import open_lisa, open_lisa_full
from univg_eval.errors import UserError


@pytest.mark.parametrize("below", [".", "ReasonSeg", "reason_seg/ReasonSeg"])
def test_every_text_of_every_annotation_is_a_sample(tmp_path, below):
    truth = write_lisa_full(tmp_path / below)
    release = open_lisa_full(tmp_path)
    assert release.benchmark == "lisa_full"
    assert release.n_items == len(list(release.items)) == len(LISA_IMAGES)
    check_stills(
        sorted(converted(release), key=lambda sample: sample.id),
        sorted(truth, key=lambda true: true.id),
        "lisa_full",
    )
    assert release.links == {"images": (tmp_path / below).resolve()}


def test_items_come_in_the_same_order_every_time(tmp_path):
    write_lisa_full(tmp_path)
    release = open_lisa_full(tmp_path)
    keys = [item.key for item in release.items]
    assert keys == [
        "val/0001",
        "val/bus-stop_03",
        "val/street 7",
        "test/0001",
        "test/0002",
        "test/turned",
    ]
    assert [item.key for item in open_lisa_full(tmp_path).items] == keys
    assert converted(release) == converted(release)


def test_facts_beside_the_box(tmp_path):
    write_lisa_full(tmp_path)
    samples = {sample.id: sample for sample in converted(open_lisa_full(tmp_path))}
    second = samples["lisa_full-val-0001-1"]
    assert second.extra["text_index"] == 1
    assert second.extra["n_texts"] == 2
    assert second.source == {
        "file": "val/0001.json",
        "revision": "official",
        "row": 1,
        "images": ["val/0001.jpg"],
    }
    assert second.cluster == samples["lisa_full-val-0001-0"].cluster
    assert second.cluster != samples["lisa_full-test-0001-0"].cluster
    assert samples["lisa_full-val-bus-stop_03-0"].extra["encoding"] == "cp1252"
    assert "encoding" not in second.extra
    mask = read_rle(second.targets[0].mask, "mask")
    assert mask.size_wh == (101, 75)
    assert mask.n_pixels() == 40 * 35
    # A hole of 11 x 11 pixels, by the ignored shape.
    street = read_rle(samples["lisa_full-val-street 7-0"].targets[0].mask, "mask")
    assert street.n_pixels() == 50 * 51 - 11 * 11 + 31 * 40


def test_what_an_archive_of_a_mac_adds_is_passed_over(tmp_path):
    truth = write_lisa_full(tmp_path)
    for name in ("._0001.jpg", "._0001.json"):
        (tmp_path / "val" / name).write_bytes(b"\0\5\26\7")
    assert len(converted(open_lisa_full(tmp_path))) == len(truth)


def test_one_split_alone(tmp_path):
    truth = write_lisa_full(tmp_path)
    release = open_lisa_full(tmp_path, splits=["test"])
    check_stills(converted(release), [true for true in truth if true.split == "test"], "lisa_full")
    assert [file["name"] for file in release.source["files"]] == ["test"]


def test_images_in_a_folder_of_their_own(tmp_path):
    truth = write_lisa_full(tmp_path / "json")
    for split in ("val", "test"):
        (tmp_path / "pictures" / split).mkdir(parents=True)
        for image in (tmp_path / "json" / split).glob("*.jpg"):
            image.rename(tmp_path / "pictures" / split / image.name)
    release = open_lisa_full(tmp_path / "json", images=tmp_path / "pictures")
    assert {sample.id for sample in converted(release)} == {true.id for true in truth}
    assert release.links == {"images": (tmp_path / "pictures").resolve()}


def test_the_manifest_tells_a_changed_annotation(tmp_path):
    write_lisa_full(tmp_path)
    before = open_lisa_full(tmp_path).source
    assert [file["images"] for file in before["files"]] == [3, 3]
    assert [file["published_images"] for file in before["files"]] == [200, 779]
    assert json.dumps(before) == json.dumps(open_lisa_full(tmp_path).source)
    path = tmp_path / "val" / "0001.json"
    path.write_text(path.read_text().replace("postman", "milkman"))
    after = open_lisa_full(tmp_path).source
    assert after["files"][0]["sha256"] != before["files"][0]["sha256"]
    assert after["files"][1] == before["files"][1]


def test_faulty_items_are_told_and_the_others_kept(tmp_path):
    truth = write_lisa_full(tmp_path)
    expected = spoil_lisa_full(tmp_path)
    release = open_lisa_full(tmp_path)
    assert faults(release) == expected
    sound = [item for item in release.items if item.key not in expected]
    assert sum(len(item.convert()) for item in sound) == len(truth)


def one_annotation(tmp_path, **changes):
    """A folder with one image whose JSON file has some fields replaced; its release."""
    write_image(tmp_path / "val" / "a.jpg", (40, 30), (5, 5, 21, 21))
    shapes = [("target", rectangle_points(5, 5, 20, 20))]
    write_annotation(
        tmp_path, Annotation("val", "a", (40, 30), ("a thing",), True, shapes, (0,) * 4, 1)
    )
    path = tmp_path / "val" / "a.json"
    annotation = json.loads(path.read_text())
    path.write_text(json.dumps({**annotation, **changes}))
    (item,) = open_lisa_full(tmp_path).items
    return item


def test_white_space_around_a_text_is_dropped(tmp_path):
    (sample,) = one_annotation(tmp_path, text=[" a thing\n"]).convert()
    assert sample.extra["expression"] == "a thing"
    assert sample.instruction.endswith("instruction: a thing.")


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"text": []}, "invalid_row", r"val/a.json: field 'text' is \[\]; expected a list of"),
        ({"text": "a thing"}, "invalid_row", "field 'text' is 'a thing'; expected a list of"),
        ({"text": ["a", " "]}, "invalid_row", r"text\[1\] is ' '; expected text"),
        ({"text": ["\ud800"]}, "invalid_row", "half of a surrogate pair at character 0"),
        ({"is_sentence": 1}, "invalid_row", "'is_sentence' is 1; expected true or false"),
        ({"shapes": [{"points": []}]}, "invalid_row", r"shapes\[0\]: no field 'label'"),
        ({"shapes": ["x"]}, "invalid_row", r"shapes\[0\]: is 'x'; expected an object"),
        (
            {"shapes": [{"label": "target", "points": [[1, 2], [3]]}]},
            "invalid_row",
            r"shapes\[0\]: field 'points' is .*expected a list of \[x, y\] in pixels",
        ),
        (
            {"shapes": [{"label": "target", "points": [[1, 2], [3, "4"]]}]},
            "invalid_row",
            "field 'points'",
        ),
        (
            {"shapes": [{"label": "a", "points": [[1, 2], [9, 9]], "shape_type": "rectangle"}]},
            "invalid_row",
            "is a 'rectangle' given by 2 points; expected a polygon",
        ),
        (
            {"shapes": [{"label": "target", "points": [[1, 2], [3, float("nan")], [4, 5]]}]},
            "invalid_mask",
            "far from its image of 40x30 pixels",
        ),
        (
            {"shapes": [{"label": "target", "points": [[1, 2], [3, 10**400], [4, 5]]}]},
            "invalid_mask",
            "far from its image of 40x30 pixels",
        ),
        (
            {"shapes": [{"label": "target", "points": rectangle_points(50, 5, 60, 20)}]},
            "no_visible_object",
            "no pixel of a target is visible within the image of 40x30; the 1 shapes have the "
            "labels: target",
        ),
        (
            {"imageWidth": 80, "imageHeight": 60},
            "size_mismatch",
            r"drawn on 80x60 pixels, the image .*a\.jpg has 40x30",
        ),
    ],
)
def test_a_faulty_annotation_names_the_place(tmp_path, changes, kind, message):
    with pytest.raises(ItemError, match=message) as caught:
        one_annotation(tmp_path, **changes).convert()
    assert caught.value.kind == kind


def test_an_annotation_in_no_known_encoding(tmp_path):
    write_lisa_full(tmp_path)
    (tmp_path / "val" / "0001.json").write_bytes(b'{"text": ["\x81"]}')
    item = next(iter(open_lisa_full(tmp_path).items))
    with pytest.raises(ItemError, match=r"neither UTF-8 nor cp1252 \(byte 11 is 0x81\)"):
        item.convert()


def test_a_split_that_is_still_packed_is_not_left_out_unseen(tmp_path):
    write_lisa_full(tmp_path)
    (tmp_path / "val.zip").touch()  # unpacked: not in the way
    (tmp_path / "train.zip").touch()  # no split of the benchmark
    assert open_lisa_full(tmp_path).n_items == len(LISA_IMAGES)
    shutil.rmtree(tmp_path / "test")
    (tmp_path / "test.tar.gz").touch()
    with pytest.raises(UserError, match=r"test\.tar\.gz is still packed; .* with --split val$"):
        open_lisa_full(tmp_path)
    assert open_lisa_full(tmp_path, splits=["val"]).n_items == 3


def test_a_repeated_key_is_not_lost(tmp_path):
    write_lisa_full(tmp_path)
    path = tmp_path / "val" / "0001.json"
    path.write_text(path.read_text()[:-1] + ', "text": ["another one"]}')
    item = next(iter(open_lisa_full(tmp_path).items))
    with pytest.raises(ItemError, match=r"0001\.json: duplicate key 'text'"):
        item.convert()


def test_a_file_that_cannot_be_read_is_a_fault_of_its_item(tmp_path, monkeypatch):
    write_lisa_full(tmp_path)
    locked, read_bytes = tmp_path / "val" / "0001.json", Path.read_bytes

    def read(path):
        if path == locked:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    release = open_lisa_full(tmp_path)
    assert faults(release) == {"val/0001": "invalid_row"}
    with pytest.raises(ItemError, match=r"cannot read val/0001\.json: Permission denied"):
        next(iter(release.items)).convert()


def test_a_name_that_is_no_text_is_a_fault_of_its_item(tmp_path):
    """Archives made elsewhere can hold names in another encoding than the file system's."""
    write_lisa_full(tmp_path)
    digest = open_lisa_full(tmp_path).source["files"][0]["sha256"]
    strange = os.fsencode(tmp_path / "val") + b"/caf\xe9.j"
    (tmp_path / "val" / "0001.json").rename(os.fsdecode(strange + b"son"))
    (tmp_path / "val" / "0001.jpg").rename(os.fsdecode(strange + b"pg"))
    release = open_lisa_full(tmp_path)
    assert release.n_items == len(LISA_IMAGES)
    assert release.source["files"][0]["sha256"] != digest
    with pytest.raises(UserError, match="1 of 6 items are faulty") as caught:
        prepare_release(release, root=tmp_path / "root")
    assert "cannot be written as JSON" in str(caught.value)
    manifest = prepare_release(release, root=tmp_path / "root", skip_faulty=True).manifest
    assert [fault["item"] for fault in manifest["skipped"]] == [r"val/caf\udce9"]


def test_a_wrong_folder_is_refused_at_once(tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist; expected the folder of ReasonSeg"):
        open_lisa_full(tmp_path / "nowhere")
    (tmp_path / "readme.txt").touch()
    with pytest.raises(UserError, match=r"readme\.txt is no folder; expected the folder of Reas"):
        open_lisa_full(tmp_path / "readme.txt")
    with pytest.raises(UserError, match=r"holds neither val/ nor test/.*it has: readme\.txt"):
        open_lisa_full(tmp_path)
    (tmp_path / "val").mkdir()
    with pytest.raises(UserError, match="val holds no JSON files; expected ReasonSeg's images"):
        open_lisa_full(tmp_path)
    (tmp_path / "val" / "a.json").write_text('{"videos": {}}')
    with pytest.raises(
        UserError, match=r"none of the 1 JSON files in .*val is one of ReasonSeg: a\.json: is an "
    ):
        open_lisa_full(tmp_path)


def test_splits_must_exist(tmp_path):
    write_lisa_full(tmp_path)
    with pytest.raises(UserError, match="'lisa_full' has the splits val, test; received: train"):
        open_lisa_full(tmp_path, splits=["train"])
    with pytest.raises(UserError, match="received: none"):
        open_lisa_full(tmp_path, splits=[])
    (tmp_path / "test").rename(tmp_path / "later")
    assert len({sample.split for sample in converted(open_lisa_full(tmp_path))}) == 1
    with pytest.raises(UserError, match="has no folder test; it has: explanatory/, later/, train/"):
        open_lisa_full(tmp_path, splits=["val", "test"])


# UniVG-R1's extracted boxes


@pytest.mark.parametrize("below", [".", "zero_shot_evaluation"])
def test_extracted_boxes(tmp_path, below):
    truth = write_lisa_extracted(tmp_path / below)
    release = open_lisa(tmp_path)
    samples = converted(release)
    check_stills(samples, truth, "lisa")
    assert "n_boxes" not in samples[0].extra
    assert release.links == {"images": (tmp_path / below / "images").resolve()}
    assert [(file["name"], file["rows"]) for file in release.source["files"]] == [
        ("lisa_val.json", 3),
        ("lisa_test.json", 3),
    ]


def test_one_extracted_file(tmp_path):
    truth = write_lisa_extracted(tmp_path)
    tests = [true for true in truth if true.split == "test"]
    check_stills(converted(open_lisa(tmp_path / "lisa_test.json")), tests, "lisa")
    check_stills(converted(open_lisa(tmp_path, splits=["test"])), tests, "lisa")
    (tmp_path / "lisa_test.json").rename(tmp_path / "mine.json")
    with pytest.raises(UserError, match="its name does not say which split it is"):
        open_lisa(tmp_path / "mine.json")
    check_stills(converted(open_lisa(tmp_path / "mine.json", splits=["test"])), tests, "lisa")
    assert {sample.split for sample in converted(open_lisa(tmp_path))} == {"val"}
    with pytest.raises(UserError, match=r"does not hold lisa_val\.json and lisa_test\.json"):
        open_lisa(tmp_path, splits=["val", "test"])
    with pytest.raises(UserError, match="is one file, but the split test was asked for"):
        open_lisa(tmp_path / "lisa_val.json", splits=["test"])
    with pytest.raises(UserError, match="is one file, but the splits val and test were asked"):
        open_lisa(tmp_path / "lisa_val.json", splits=["val", "test"])


def test_extracted_images_elsewhere(tmp_path):
    truth = write_lisa_extracted(tmp_path / "boxes")
    (tmp_path / "boxes" / "images").rename(tmp_path / "ReasonSeg")
    check_stills(
        converted(open_lisa(tmp_path / "boxes", images=tmp_path / "ReasonSeg")), truth, "lisa"
    )
    assert set(faults(open_lisa(tmp_path / "boxes")).values()) == {"missing_image"}
    with pytest.raises(UserError, match=r"image folder .*nowhere does not exist"):
        open_lisa(tmp_path / "boxes", images=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON .*If its download broke off, fetch it again"),
        ("[]", r"holds \[\]; expected a JSON list of objects with the fields boxes, image_path, "),
        ('{"' + 5000 * "k" + '": 1}', r"holds an object with k{37}\.\.\.; expected"),
        ('{"videos": {}}', "holds an object with videos; expected a JSON list.* of another set"),
        (
            '[{"image_path": "a.jpg", "question": "?", "bbox": [[1, 2, 3, 4]]}]',
            "the first row is an object with image_path, question, bbox. Is it the file of another",
        ),
        ('[{"a": 1, "a": 2}]', "json: duplicate key 'a' in one object; expected"),
    ],
)
def test_the_file_of_another_set_is_refused(tmp_path, content, message):
    (tmp_path / "lisa_val.json").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        open_lisa(tmp_path)
    assert "lisa_val.json" in str(caught.value)


def test_a_file_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "lisa_val.json").write_bytes(b'["\xe9"]')
    with pytest.raises(UserError, match=r"not UTF-8 \(byte 2 is 0xe9\)"):
        open_lisa(tmp_path)


def test_no_extracted_file(tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist; expected the folder with lisa_"):
        open_lisa(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"it has: nothing\. They come from GD-ML/UniVG-R1-data"):
        open_lisa(tmp_path)


@pytest.mark.parametrize(
    ("row", "kind", "message"),
    [
        ("x", "invalid_row", r"lisa_val\.json row 1: is 'x'; expected an object"),
        ({"boxes": []}, "invalid_row", r"field 'boxes' is \[\]; expected a list of boxes"),
        ({"boxes": [[1, 2, 3]]}, "invalid_row", r"field 'boxes\[0\]' is \[1, 2, 3\]; expected fo"),
        ({"boxes": [[1, 2, 3, True]]}, "invalid_row", "expected four numbers"),
        ({"boxes": [[1, 2, 3, float("inf")]]}, "invalid_row", "expected four numbers"),
        ({"boxes": [[1, 2, 3, 10**400]]}, "invalid_row", "expected four numbers"),
        ({"instruction": None}, "invalid_row", "field 'instruction' is None; expected text"),
        ({"image_path": "val/../a.jpg"}, "invalid_row", "stays within its folder"),
        ({"image_path": "val/none.jpg"}, "missing_image", "'val/none.jpg' is not below"),
        (
            {"image_path": "ReasonSeg\\test\\0001.jpg"},
            "invalid_row",
            "is one of 'test', but the file is taken for that of 'val'",
        ),
    ],
)
def test_a_faulty_row_leaves_the_others(tmp_path, row, kind, message):
    truth = write_lisa_extracted(tmp_path)
    path = tmp_path / "lisa_val.json"
    rows = json.loads(path.read_text())
    rows[1] = row if isinstance(row, str) else {**rows[1], **row}
    path.write_text(json.dumps(rows))
    release = open_lisa(path)
    assert faults(release) == {"val/00001": kind}
    first, faulty, _ = release.items
    with pytest.raises(ItemError, match=message):
        faulty.convert()
    check_stills(first.convert(), truth[:1], "lisa")


def test_a_released_box_that_is_none_stays_as_it_is(tmp_path):
    write_lisa_extracted(tmp_path)
    path = tmp_path / "lisa_val.json"
    rows = json.loads(path.read_text())
    rows[0]["boxes"] = [[60, 10, 20, 150]]
    path.write_text(json.dumps(rows))
    sample = converted(open_lisa(path))[0]
    assert sample.box == pytest.approx((60 / 101, 10 / 75, 20 / 101, 150 / 75))
    assert not sample.has_valid_targets
