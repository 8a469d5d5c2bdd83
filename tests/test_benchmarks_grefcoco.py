"""gRefCOCO in its released form, written by hand: what becomes a sample, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from find_all_release import converted, draw, only_fault, pixel_boxes, require_whole

from univg_eval.benchmarks.readers.common.coco import coco_name
from univg_eval.benchmarks.readers.grefcoco import open_grefcoco
from univg_eval.errors import UserError

STREET, BUS = "COCO_train2014_000000000009", "COCO_train2014_000000000025"
IMAGES = [
    {"id": 9, "file_name": f"{STREET}.jpg", "width": 200, "height": 100, "license": 3},
    {"id": 25, "file_name": f"{BUS}.jpg", "width": 64, "height": 48, "license": 3},
]
# (x, y, width, height) in pixels, as COCO writes them.
ANNOTATIONS = [
    {"id": 4, "image_id": 9, "bbox": [20.0, 10.0, 40.0, 30.0], "category_id": 47, "iscrowd": 0},
    {"id": 7, "image_id": 9, "bbox": [100.5, 50.25, 99.5, 49.75], "category_id": 47, "iscrowd": 0},
    {"id": 8, "image_id": 9, "bbox": [0, 0, 200, 100], "category_id": 1, "iscrowd": 1},
    {"id": 11, "image_id": 25, "bbox": [1, 2, 3, 4], "category_id": 6, "iscrowd": 0},
]


def row(ref_id: int, ann_id: Any, texts: list[str], **changes: Any) -> dict[str, Any]:
    sentences = [
        {"sent": text, "sent_id": 10 * ref_id + k, "tokens": text.split(), "raw": text}
        for k, text in enumerate(texts)
    ]
    absent = ann_id == [-1]
    return {
        "ref_id": ref_id,
        "image_id": 9,
        "split": "val",
        "file_name": f"{STREET}_3.jpg",
        "ann_id": ann_id,
        "category_id": [-1] if absent else [47],
        "sentences": sentences,
        "no_target": absent,
    } | changes


ROWS = [
    row(1, [7, 4], ["both cups"]),
    row(2, [4], ["not to be read"], split="train"),
    row(3, [-1], ["the blue cup", "a dog"], file_name=f"{STREET}.jpg"),
    row(4, 11, ["the bus"], split="testA", image_id=25, file_name=f"{BUS}_1.jpg", category_id=6),
    row(5, [4], ["left cup"]),
    row(6, [-1], ["a train"], split="testB", image_id=25, file_name=f"{BUS}.jpg"),
]


def write(folder: Path, rows: Any = ROWS, **instances: Any) -> dict[str, Path]:
    """The release and its photographs, as arguments for the reader."""
    folder.mkdir(exist_ok=True)
    (folder / "grefs(unc).json").write_text(json.dumps(rows))
    value = {"images": IMAGES, "annotations": ANNOTATIONS, "categories": []} | instances
    (folder / "instances.json").write_text(json.dumps(value))
    photographs = {f"{STREET}.jpg": (200, 100), f"{BUS}.jpg": (64, 48)}
    return {"source": folder, "images": draw(folder / "train2014", photographs)}


def test_a_sentence_is_a_sample_and_its_boxes_are_those_of_coco(tmp_path: Path) -> None:
    release = open_grefcoco(**write(tmp_path))
    keys = ["val/00000", "val/00001", "testA/00000", "val/00002", "testB/00000"]
    assert [item.key for item in release.items] == keys
    samples = converted(release)
    found = {sample.id: (sample.extra["expression"], pixel_boxes(sample)) for sample in samples}
    assert found == {
        "grefcoco-val-00000": ("both cups", [(100.5, 50.25, 200, 100), (20, 10, 60, 40)]),
        "grefcoco-val-00001-0": ("the blue cup", []),
        "grefcoco-val-00001-1": ("a dog", []),
        "grefcoco-testA-00000": ("the bus", [(1, 2, 4, 6)]),
        "grefcoco-val-00002": ("left cup", [(20, 10, 60, 40)]),
        "grefcoco-testB-00000": ("a train", []),
    }
    assert [sample.kind == "none" for sample in samples] == [False, True, True, False, False, True]
    require_whole(samples)
    require_whole(samples, "qwen2_5_vl")
    both, blue, dog, bus, *_ = samples
    assert both.extra == {
        "expression": "both cups",
        "ref_id": 1,
        "sent_id": 10,
        "ann_ids": [7, 4],
    }
    assert (blue.extra["ann_ids"], dog.extra["sent_id"], bus.extra["ann_ids"]) == ([], 31, [11])
    assert (bus.benchmark, bus.task, bus.split) == ("grefcoco", "grefcoco_testA", "testA")
    assert bus.images == (f"grefcoco/images/{BUS}.jpg",)
    assert (bus.image_sizes, both.cluster) == ([(64, 48)], blue.cluster)
    assert bus.source == {
        "file": "grefs(unc).json",
        "revision": "official",
        "row": 3,
        "images": [f"{BUS}_1.jpg"],
    }
    refs, instances = release.source["files"]
    assert refs["rows"] == {"val": 3, "testA": 1, "testB": 1}
    assert (refs["name"], instances["name"]) == ("grefs(unc).json", "instances.json")
    json.dumps(release.source)


def test_some_splits_and_other_places(tmp_path: Path) -> None:
    given = write(tmp_path / "grefcoco")
    for source in (tmp_path, tmp_path / "grefcoco", tmp_path / "grefcoco" / "grefs(unc).json"):
        release = open_grefcoco(source, images=given["images"], splits=["testB", "testA"])
        ids = [sample.id for sample in converted(release)]
        assert ids == ["grefcoco-testA-00000", "grefcoco-testB-00000"]
    with pytest.raises(UserError, match="has the splits val, testA, testB; received: train"):
        open_grefcoco(**given, splits=["train"])


def test_a_box_ends_at_the_border_that_it_passes_by_rounding(tmp_path: Path) -> None:
    boxes = {4: [199.1, -0.4, 1.3, 100.9], 7: [-2, 10, 204, 5]}
    changed = [a | ({"bbox": boxes[a["id"]]} if a["id"] in boxes else {}) for a in ANNOTATIONS]
    given = write(tmp_path, [row(1, [4, 7], ["cups"])], annotations=changed)
    (sample,) = converted(open_grefcoco(**given))
    # The second box leaves the image by two pixels: it stays as released, for the audit.
    assert pixel_boxes(sample) == [(199.1, 0, 200, 100), (-2, 10, 202, 15)]
    assert not sample.has_valid_targets


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        (
            {"no_target": True},
            "invalid_row",
            r"no_target is True; expected False, as ann_id is \[4",
        ),
        ({"ann_id": [-1]}, "invalid_row", r"no_target is False; expected True, as ann_id is \[-1"),
        ({"ann_id": [4, -1]}, "invalid_row", r"ann_id is \[4, -1\]; expected annotations' ids, or"),
        ({"ann_id": []}, "invalid_row", r"ann_id is \[\]; expected annotations' ids"),
        ({"ann_id": ["4"]}, "invalid_row", r"ann_id is \['4'\]; expected"),
        ({"ann_id": [4, 4]}, "invalid_row", r"ann_id is \[4, 4\]; expected each id once"),
        ({"ann_id": [5]}, "invalid_row", r"annotation 5 is not in instances\.json"),
        ({"ann_id": [11]}, "invalid_row", "annotation 11: image_id is 25; expected .* the row, 9"),
        ({"ann_id": [8]}, "invalid_row", "annotation 8 is a crowd; expected a single object"),
        ({"image_id": 3}, "invalid_row", r"image_id is 3; expected an image's id in instances"),
        ({"image_id": [9]}, "invalid_row", r"image_id is \[9\]; expected an image's id"),
        ({"image_id": 25}, "size_mismatch", "200x100 pixels, instances.json says 64x48"),
        ({"file_name": f"{BUS[:-1]}6_1.jpg"}, "missing_image", "000026.jpg' is not below"),
        ({"file_name": None}, "invalid_row", "'file_name' is None; expected text"),
        ({"sentences": []}, "invalid_row", r"sentences is \[\]; expected a list of objects"),
        ({"sentences": ["cup"]}, "invalid_row", "sentence 0:.* 'cup'; expected an object"),
        ({"sentences": [{"sent": " "}]}, "invalid_row", "sentence 0: field 'sent' is ' '"),
    ],
)
def test_a_row_that_contradicts_itself_or_coco(
    tmp_path: Path, changes: dict[str, Any], kind: str, message: str
) -> None:
    rows = [ROWS[0], row(9, [4, 7], ["cups"]) | changes, ROWS[4]]
    only_fault(open_grefcoco(**write(tmp_path, rows)), "val/00001", kind, message)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("a text", "row 1:.* is 'a text'; expected an object"),
        (row(9, [4], ["cup"], split="test"), "split is 'test'; expected train, val, testA, testB"),
        ({k: v for k, v in ROWS[0].items() if k != "split"}, "no field 'split'"),
    ],
)
def test_a_row_of_no_split(tmp_path: Path, wrong: Any, message: str) -> None:
    given = write(tmp_path, [ROWS[0], wrong, *ROWS[1:]])
    only_fault(open_grefcoco(**given), "row 1", "invalid_row", message)


def test_a_missing_ref_id(tmp_path: Path) -> None:
    wrong = {k: v for k, v in ROWS[4].items() if k != "ref_id"}
    release = open_grefcoco(**write(tmp_path, [ROWS[0], wrong]))
    only_fault(release, "val/00001", "invalid_row", "no field 'ref_id'")


def test_a_release_without_the_wanted_rows(tmp_path: Path) -> None:
    given = write(tmp_path, [ROWS[0], ROWS[1]])  # as first released: train and val
    assert len(open_grefcoco(**given).items) == 1
    with pytest.raises(UserError, match="has no row of testA; get it from https://hugg"):
        open_grefcoco(**given, splits=["testA"])
    with pytest.raises(UserError, match="has no row of val, testA, testB"):
        open_grefcoco(**write(tmp_path, [ROWS[1]]))


@pytest.mark.parametrize(
    "instances",
    [
        {"annotations": None},
        {"images": {}},
        {"annotations": [{"id": 4, "image_id": 9}]},
        {"annotations": [*ANNOTATIONS, ANNOTATIONS[0]]},
        {"images": [{**IMAGES[0], "id": "9"}]},
        {"annotations": []},
    ],
)
def test_no_annotations_of_coco(tmp_path: Path, instances: dict[str, Any]) -> None:
    (name,) = instances
    with pytest.raises(
        UserError, match=rf"instances.json: expected COCO's annotations, with a list '{name}'"
    ):
        open_grefcoco(**write(tmp_path, **instances))


def test_what_is_not_there(tmp_path: Path) -> None:
    given = write(tmp_path / "a")
    with pytest.raises(
        UserError, match=r"gRefCOCO needs the folder of COCO's train2014 .*--images"
    ):
        open_grefcoco(tmp_path / "a")
    (tmp_path / "a" / "instances.json").unlink()
    with pytest.raises(UserError, match=r"does not hold instances\.json.*FudanCVL/gRefCOCO"):
        open_grefcoco(**given)
    # A pickle, which runs what is in it, is never opened.
    (tmp_path / "a" / "grefs(unc).json").rename(tmp_path / "a" / "grefs(unc).p")
    with pytest.raises(UserError, match=r"does not hold grefs\(unc\)\.json.*has: grefs\(unc\)\.p"):
        open_grefcoco(**given)
    write(tmp_path / "b", [{"ref_id": 1}])
    with pytest.raises(UserError, match=r"expected JSON objects with the fields ann_id, .*another"):
        open_grefcoco(tmp_path / "b", images=given["images"])


@pytest.mark.parametrize(
    ("released", "name"),
    [
        ("COCO_train2014_000000581857_16.jpg", "COCO_train2014_000000581857.jpg"),
        ("COCO_train2014_000000388882.jpg", "COCO_train2014_000000388882.jpg"),
        ("train2014/COCO_val2014_000000388882_2.jpg", "train2014/COCO_val2014_000000388882.jpg"),
        ("photo_3.jpg", "photo_3.jpg"),
    ],
)
def test_the_number_of_the_object_is_dropped(released: str, name: str) -> None:
    assert coco_name(released) == name
