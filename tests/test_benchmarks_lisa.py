"""ReasonSeg itself, read from its released form."""

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
    check_samples,
    coco_rle,
    converted,
    faults,
    item_named,
    mask_of,
    rectangle_points,
    rewrite,
    write_annotation,
    write_image,
    write_lisa_full,
)

from univg_eval.benchmarks.preparing.preparation import prepare_release
from univg_eval.benchmarks.readers.common.release import ItemError
from univg_eval.benchmarks.readers.lisa import open_lisa_full
from univg_eval.errors import UserError


@pytest.mark.parametrize("below", [".", "ReasonSeg", "reason_seg/ReasonSeg"])
def test_every_text_of_every_annotation_is_a_sample(tmp_path, below):
    truth = write_lisa_full(tmp_path / below)
    release = open_lisa_full(tmp_path)
    assert release.benchmark == "lisa_full"
    assert len(release.items) == len(LISA_IMAGES)
    check_samples(
        sorted(converted(release), key=lambda sample: sample.id),
        sorted(truth, key=lambda true: true.id),
        "lisa_full",
    )
    assert release.links == {"images": (tmp_path / below).resolve()}
    assert [item.key for item in release.items] == [
        *("val/0001", "val/bus-stop_03", "val/street 7"),
        *("test/0001", "test/0002", "test/turned"),
    ]
    assert converted(release) == converted(open_lisa_full(tmp_path))


def test_facts_beside_the_box(tmp_path):
    write_lisa_full(tmp_path)
    # What an archive made on a Mac adds is passed over.
    for name in ("._0001.jpg", "._0001.json"):
        (tmp_path / "val" / name).write_bytes(b"\0\5\26\7")
    samples = {sample.id: sample for sample in converted(open_lisa_full(tmp_path))}
    second = samples["lisa_full-val-0001-1"]
    assert (second.extra["text_index"], second.extra["n_texts"]) == (1, 2)
    assert (second.source["file"], second.source["row"]) == ("val/0001.json", 1)
    assert second.source["revision"] == "official"
    assert second.cluster == samples["lisa_full-val-0001-0"].cluster
    assert second.cluster != samples["lisa_full-test-0001-0"].cluster
    assert samples["lisa_full-val-bus-stop_03-0"].extra["encoding"] == "cp1252"
    assert "encoding" not in second.extra
    assert second.targets[0].mask == coco_rle(mask_of((101, 75), [(20, 10, 60, 45)]))
    # A hole of 11 x 11 pixels, by the ignored shape.
    street = mask_of((120, 80), [(70, 10, 120, 61), (0, 40, 31, 80)])
    street[20:31, 80:91] = False
    assert samples["lisa_full-val-street 7-0"].targets[0].mask == coco_rle(street)


def test_images_in_a_folder_of_their_own(tmp_path):
    truth = write_lisa_full(tmp_path / "json")
    for split in ("val", "test"):
        (tmp_path / "photos" / split).mkdir(parents=True)
        for image in (tmp_path / "json" / split).glob("*.jpg"):
            image.rename(tmp_path / "photos" / split / image.name)
    release = open_lisa_full(tmp_path / "json", images=tmp_path / "photos")
    assert {sample.id for sample in converted(release)} == {true.id for true in truth}
    assert release.links == {"images": (tmp_path / "photos").resolve()}


def test_the_manifest_shows_a_changed_annotation(tmp_path):
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


def one_annotation(tmp_path, **changes):
    """A folder with one image whose JSON file has some fields replaced; its release."""
    write_image(tmp_path / "val" / "a.jpg", (40, 30), (5, 5, 21, 21))
    shapes = [("target", rectangle_points(5, 5, 20, 20))]
    write_annotation(tmp_path, Annotation("val", "a", (40, 30), ("a thing",), shapes, (0,) * 4))
    rewrite(tmp_path / "val" / "a.json", lambda annotation: annotation.update(changes))
    (item,) = open_lisa_full(tmp_path).items
    return item


def test_white_space_around_a_text_is_dropped(tmp_path):
    (sample,) = one_annotation(tmp_path, text=[" a thing\n"]).convert()
    assert sample.extra["expression"] == "a thing"
    assert sample.instruction.endswith("instruction: a thing.")


def points(*values, label="target"):
    return {"shapes": [{"label": label, "points": values}]}


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"text": []}, "invalid_row", r"val/a.json: field 'text' is \[\]"),
        ({"text": "a thing"}, "invalid_row", "field 'text' is 'a thing'"),
        ({"text": ["a", " "]}, "invalid_row", r"text\[1\] is ' '"),
        ({"text": ["\ud800"]}, "invalid_row", "half of a surrogate"),
        ({"is_sentence": 1}, "invalid_row", "'is_sentence' is 1"),
        ({"shapes": [{"points": []}]}, "invalid_row", r"shapes\[0\]: no field 'label'"),
        ({"shapes": ["x"]}, "invalid_row", r"shapes\[0\]: is 'x'"),
        (points([1, 2], [3]), "invalid_row", r"shapes\[0\]: field 'points'"),
        (points([1, 2], [3, "4"]), "invalid_row", "field 'points'"),
        (
            {"shapes": [{"label": "a", "points": [[1, 2], [9, 9]], "shape_type": "rectangle"}]},
            "invalid_row",
            r"shapes\[0\], of 2 points, is 'rectangle'",
        ),
        (points(), "invalid_mask", "no points"),
        (points([1, 2], [3, float("nan")], [4, 5]), "invalid_mask", "far from its image"),
        (points([1, 2], [3, 10**400], [4, 5]), "invalid_mask", "far from its image"),
        (points(*rectangle_points(50, 5, 60, 20)), "no_visible_object", "40x30; .*: target"),
        (points([1, 1], [9, 9], label="ignore"), "no_visible_object", "labels.*: ignore"),
        ({"shapes": []}, "no_visible_object", "labels.*: none"),
        (
            {"imageWidth": 80, "imageHeight": 60},
            "size_mismatch",
            r"80x60 pixels, .*a\.jpg has 40x30",
        ),
    ],
)
def test_a_faulty_annotation_names_the_place(tmp_path, changes, kind, message):
    with pytest.raises(ItemError, match=message) as caught:
        one_annotation(tmp_path, **changes).convert()
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    ("ending", "content", "kind", "message"),
    [
        ("json", b'{"text": ["\x81"]}', "invalid_row", r"0001\.json: .* 0x81"),
        ("json", b'{"text": ["a"], "te', "invalid_row", "not JSON"),
        ("json", b'{"text": ["a"], "text": ["b"]}', "invalid_row", r"0001\.json: .*key 'text'"),
        ("json", b'{"videos": {}}', "invalid_row", r"object with videos; .*text"),
        ("json", None, "invalid_row", r"0001\.json does not exist, but 0001\.jpg does"),
        ("jpg", b"\xff\xd8 no image", "unreadable_image", r"0001\.jpg"),
        ("jpg", None, "missing_image", r"0001\.jpg"),
    ],
)
def test_a_faulty_file_is_named_and_the_others_kept(tmp_path, ending, content, kind, message):
    truth = write_lisa_full(tmp_path)
    path = tmp_path / "val" / f"0001.{ending}"
    path.unlink() if content is None else path.write_bytes(content)
    release = open_lisa_full(tmp_path)
    assert faults(release) == {"val/0001": kind}
    with pytest.raises(ItemError, match=message):
        item_named(release, "val/0001").convert()
    sound = [item for item in release.items if item.key != "val/0001"]
    assert sum(len(item.convert()) for item in sound) == len(truth) - 2


def test_a_split_that_is_still_packed_is_not_left_out_unseen(tmp_path):
    write_lisa_full(tmp_path)
    (tmp_path / "val.zip").touch()  # unpacked: not in the way
    (tmp_path / "train.zip").touch()  # no split of the benchmark
    assert len(open_lisa_full(tmp_path).items) == len(LISA_IMAGES)
    shutil.rmtree(tmp_path / "test")
    (tmp_path / "test.tar.gz").touch()
    with pytest.raises(UserError, match=r"test\.tar\.gz is still packed; .*--split val$"):
        open_lisa_full(tmp_path)
    assert len(open_lisa_full(tmp_path, splits=["val"]).items) == 3


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
    with pytest.raises(ItemError, match=r"val/0001\.json: .*Permission denied"):
        release.items[0].convert()


def test_a_name_that_is_no_text_is_a_fault_of_its_item(tmp_path):
    """Archives made elsewhere can hold names in another encoding than the file system's."""
    write_lisa_full(tmp_path)
    digest = open_lisa_full(tmp_path).source["files"][0]["sha256"]
    strange = os.fsencode(tmp_path / "val") + b"/caf\xe9.j"
    (tmp_path / "val" / "0001.json").rename(os.fsdecode(strange + b"son"))
    (tmp_path / "val" / "0001.jpg").rename(os.fsdecode(strange + b"pg"))
    release = open_lisa_full(tmp_path)
    assert len(release.items) == len(LISA_IMAGES)
    assert release.source["files"][0]["sha256"] != digest
    with pytest.raises(UserError, match="1 of 6 items are faulty") as caught:
        prepare_release(release, root=tmp_path / "root")
    assert "cannot be written as JSON" in str(caught.value)
    manifest = prepare_release(release, root=tmp_path / "root", skip_faulty=True).manifest
    assert [fault["item"] for fault in manifest["skipped"]] == [r"val/caf\udce9"]


def test_a_wrong_folder_is_refused_at_once(tmp_path):
    for name in ("nowhere", "readme.txt"):
        with pytest.raises(UserError, match=rf"{name} is no folder; expected that of ReasonSeg"):
            open_lisa_full(tmp_path / name)
        (tmp_path / "readme.txt").touch()
    with pytest.raises(UserError, match=r"neither val/ nor test/.*it has: readme\.txt"):
        open_lisa_full(tmp_path)
    (tmp_path / "val").mkdir()
    with pytest.raises(UserError, match="holds no items"):
        prepare_release(open_lisa_full(tmp_path), root=tmp_path / "root")


def test_splits_must_exist(tmp_path):
    truth = write_lisa_full(tmp_path)
    release = open_lisa_full(tmp_path, splits=["test"])
    check_samples(converted(release), [true for true in truth if true.split == "test"], "lisa_full")
    assert [file["name"] for file in release.source["files"]] == ["test"]
    for splits, received in ((["train"], "train"), ([], "none")):
        with pytest.raises(UserError, match=f"has the splits val, test; received: {received}"):
            open_lisa_full(tmp_path, splits=splits)
    (tmp_path / "test").rename(tmp_path / "later")
    assert {sample.split for sample in converted(open_lisa_full(tmp_path))} == {"val"}
    with pytest.raises(UserError, match="has no folder test; it has: explanatory/, later/, train/"):
        open_lisa_full(tmp_path, splits=["val", "test"])
