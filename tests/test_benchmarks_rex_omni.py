"""Rex-Omni-EvalData in its released form, written by hand: samples and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from find_all_release import converted, draw, only_fault, pixel_boxes, require_whole, write_lines

from univg_eval.benchmarks.readers.rex_omni import FILES, open_rex_omni
from univg_eval.dialects import get_dialect
from univg_eval.errors import UserError
from univg_eval.prompts import build_prompt

BOXES = "_annotations/box_eval"
SIZES = {
    "visdrone/a.jpg": (1400, 788),
    "coco/val2017/000000000139.jpg": (640, 426),
    "humanref/b.jpg": (100, 50),
}


def row(path: str, gt: Any, categories: list[Any], name: str, task: str, **changes: Any) -> Any:
    fields = {"image_path": path, "gt": gt, "categories": categories}
    return fields | {"dataset_name": name, "task_name": task} | changes


VISDRONE = row(
    "visdrone/a.jpg",
    {
        "van": [[1243.0, 408.0, 1307.0, 441.0]],
        "car": [[7.0, 14.0, 70.0, 197.0], [700.0, 394.0, 1400.0, 788.0]],
    },
    ["car", "van", "bus"],
    "VisDrone",
    "common_object_detection",
)
MAN, NOBODY = "The man on the left.", "the astronaut"
REFERRING = "referring_object_detection"
SETS: dict[str, list[Any]] = {
    "VisDrone": [VISDRONE],
    "HumanRef": [
        row("humanref/b.jpg", {MAN: [[10, 5, 20.5, 45]]}, [MAN], "HumanRef", REFERRING),
        row("humanref/b.jpg", {NOBODY: []}, [NOBODY], "HumanRef", REFERRING),
        row("humanref/b.jpg", {}, ["a diver"], "HumanRef", "hallucination"),
    ],
    "RefCOCOg_test": [
        row("humanref/b.jpg", {"a dog": [[0, 0, 100, 50]]}, ["a dog"], "RefCOCOg_test", REFERRING)
    ],
}


def write(root: Path, sets: dict[str, list[Any]] = SETS, folder: str = BOXES) -> Path:
    """The release with its archives unpacked."""
    for name, rows in sets.items():
        write_lines(root / folder / f"{name}.jsonl", rows)
    draw(root, SIZES)
    return root


def test_the_sets_are_those_of_the_release() -> None:
    assert FILES == {
        "refcocog_val": "RefCOCOg_val.jsonl",
        "refcocog_test": "RefCOCOg_test.jsonl",
        "humanref": "HumanRef.jsonl",
        "dense200": "Dense200.jsonl",
        "visdrone": "VisDrone.jsonl",
        "coco": "COCO.jsonl",
    }


def test_a_row_is_a_sample_with_the_boxes_of_all_its_categories(tmp_path: Path) -> None:
    release = open_rex_omni(write(tmp_path))
    samples = converted(release)
    assert {sample.id: pixel_boxes(sample) for sample in samples} == {
        "rex_omni-refcocog_test-00000": [(0, 0, 100, 50)],
        "rex_omni-humanref-00000": [(10, 5, 20.5, 45)],
        "rex_omni-humanref-00001": [],
        "rex_omni-humanref-00002": [],
        "rex_omni-visdrone-00000": [
            (1243, 408, 1307, 441),
            (7, 14, 70, 197),
            (700, 394, 1400, 788),
        ],
    }
    require_whole(samples)
    require_whole(samples, "rex_omni")
    *_, nobody, _, drone = samples
    assert drone.extra == {
        "expression": "car, van, bus",
        "categories": ["car", "van", "bus"],
        "labels": ["van", "car", "car"],
        "dataset_name": "VisDrone",
        "task_name": "common_object_detection",
    }
    assert (nobody.extra["labels"], nobody.extra["categories"]) == ([], [NOBODY])
    assert (drone.benchmark, drone.task, drone.split) == ("rex_omni", "visdrone", "visdrone")
    assert drone.images == ("rex_omni/images/visdrone/a.jpg",)
    assert drone.image_sizes == [(1400, 788)]
    expected = {"file": "VisDrone.jsonl", "revision": "official", "row": 0}
    assert drone.source == {**expected, "images": ["visdrone/a.jpg"]}
    found = [(file["name"], file["split"], file["rows"]) for file in release.source["files"]]
    assert found == [
        ("RefCOCOg_test.jsonl", "refcocog_test", 1),
        ("HumanRef.jsonl", "humanref", 3),
        ("VisDrone.jsonl", "visdrone", 1),
    ]
    json.dumps(release.source)


def test_rex_omni_is_asked_in_its_own_words(tmp_path: Path) -> None:
    """As its authors' script does: the categories joined by ", "."""
    (sample,) = converted(open_rex_omni(write(tmp_path), splits=["visdrone"]))
    prompt = build_prompt(sample, get_dialect("rex_omni"), "official")
    assert prompt == (
        "Detect car, van, bus. Output the bounding box coordinates in [x0, y0, x1, y1] format."
    )


@pytest.mark.parametrize("below", [BOXES, "annotations/box_eval"])
def test_where_the_release_may_lie(tmp_path: Path, below: str) -> None:
    root = write(tmp_path / "EvalData", folder=below)
    for source in (root, root / below, root / below / "VisDrone.jsonl"):
        release = open_rex_omni(source, splits=["visdrone"])
        assert release.links == {"images": root.resolve()}
        assert len(converted(release)) == 1
    moved = tmp_path / "VisDrone.jsonl"
    (root / below / "VisDrone.jsonl").rename(moved)
    (sample,) = converted(open_rex_omni(moved, images=root))
    assert sample.split == "visdrone"
    only_fault(open_rex_omni(moved), "visdrone/00000", "missing_image", "'visdrone/a.jpg' is not")
    own = moved.rename(tmp_path / "mine.jsonl")
    (sample,) = converted(open_rex_omni(own, images=root, splits=["dense200"]))
    assert sample.id == "rex_omni-dense200-00000"


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"gt": {"lorry": []}}, "invalid_row", "a category of gt is 'lorry'; expected one"),
        ({"gt": {"Car": [[1, 2, 3, 4]]}}, "invalid_row", "a category of gt is 'Car'"),
        (
            {"gt": {"gt_mask": {}}},
            "invalid_row",
            r"jsonl row 1: gt is an object with gt_mask; expected",
        ),
        ({"gt": [[1, 2, 3, 4]]}, "invalid_row", r"gt is \[\[1, 2, 3, 4\]\]; expected an object"),
        ({"gt": None}, "invalid_row", "gt is None; expected an object {category"),
        ({"gt": {"car": [[1, 2]]}}, "invalid_row", r"gt of 'car' is \[1, 2\]; expected four num"),
        ({"gt": {"car": [1, 2, 3, 4]}}, "invalid_row", "gt of 'car' is 1; expected four numbers"),
        ({"categories": []}, "invalid_row", r"categories is \[\]; expected a list of names"),
        ({"categories": "car"}, "invalid_row", "categories is 'car'; expected a list of names"),
        ({"categories": ["car", 3]}, "invalid_row", "categories is 3; expected text"),
        ({"image_path": "visdrone/b.jpg"}, "missing_image", "'visdrone/b.jpg' is not below"),
        ({"image_path": None}, "invalid_row", "'image_path' is None; expected text"),
    ],
)
def test_a_faulty_row(tmp_path: Path, changes: dict[str, Any], kind: str, message: str) -> None:
    rows = [VISDRONE, VISDRONE | changes, VISDRONE]
    release = open_rex_omni(write(tmp_path, {"VisDrone": rows}))
    only_fault(release, "visdrone/00001", kind, message)


def test_a_line_that_is_no_json(tmp_path: Path) -> None:
    release = open_rex_omni(write(tmp_path, {"VisDrone": [VISDRONE, "{'gt': 1}"]}))
    only_fault(release, "visdrone/00001", "invalid_row", "row 1: not JSON")


@pytest.mark.parametrize("gt", [None, {}, {"person": []}, "absent"])
def test_coco_without_its_truth_is_refused(tmp_path: Path, gt: Any) -> None:
    path = "coco/val2017/000000000139.jpg"
    wanted = row(path, gt, ["person"], "COCO", "common_object_detection")
    if gt == "absent":
        del wanted["gt"]
    root = write(tmp_path, {"COCO": [wanted, wanted], **SETS})
    message = r"COCO\.jsonl: no row has a box in 'gt'.*coco/instances_val2017\.json.*--split"
    for splits in (None, ["coco"]):
        with pytest.raises(UserError, match=message):
            open_rex_omni(root, splits=splits)
    assert len(open_rex_omni(root, splits=["visdrone"]).items) == 1


def test_coco_with_its_truth_in_the_rows(tmp_path: Path) -> None:
    path = "coco/val2017/000000000139.jpg"
    task = ("COCO", "common_object_detection")
    # A right edge that a sum of x and width has moved by less than a pixel.
    there = row(path, {"person": [[600.25, 10, 640.01, 426.0]]}, ["person", "cat"], *task)
    samples = converted(open_rex_omni(write(tmp_path, {"COCO": [there, there | {"gt": {}}]})))
    assert [pixel_boxes(sample) for sample in samples] == [[(600.25, 10, 640, 426)], []]
    assert all(sample.has_valid_targets for sample in samples)


def test_what_is_not_there(tmp_path: Path) -> None:
    root = write(tmp_path)
    with pytest.raises(UserError, match=r"not hold COCO\.jsonl, nor does _annotations/box_eval"):
        open_rex_omni(root, splits=["coco"])
    with pytest.raises(UserError, match=r"has the splits refcocog_val, .*, coco; received: lvis"):
        open_rex_omni(root, splits=["lvis"])
    write_lines(root / BOXES / "VisDrone.jsonl", [{"image": "a.jpg"}])
    with pytest.raises(UserError, match="JSON objects with the fields categories, image_path"):
        open_rex_omni(root, splits=["visdrone"])
