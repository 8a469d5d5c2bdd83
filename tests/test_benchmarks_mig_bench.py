"""MIG-Bench's annotation file: target images, clusters, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from univg_eval.benchmarks.readers.mig_bench import images_folder, read_annotations, read_rows
from univg_eval.errors import UserError

COMMON = (
    "These images share one object in common. Recognize and locate this object in the {} image. "
)
TRACK = (
    "These are a sequence of images containing moving objects. For the object in the first image "
    "marked with red bounding box(<|box_start|>(391,297),(629,719)<|box_end|>), please locate it "
    "in the {} image. "
)


def row(task: str, question: str, names: list[str], **changes: Any) -> dict[str, Any]:
    return {
        "task": task,
        "images": [f"./MIG-Bench/images/{task}/{name}" for name in names],
        "question": question,
        "answer": [0.1, 0.2, 0.5, 0.6],
        "additional_info": "",
        "need_format": True,
    } | changes


def write(folder: Path, rows: Any) -> Path:
    path = folder / "MIG_data.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def read(folder: Path, *rows: Any, **arguments: Any) -> list[Any]:
    return read_annotations(write(folder, list(rows)), **arguments)


FIND = "Find <|object_ref_start|>the second image<|object_ref_end|>."  # the phrase names no image
FOURTH = "It is in the fourth image. <|box_start|>(100,200),(500,600)<|box_end|>. "
TARGETS = [
    # task, question, number of images, additional_info, expected 0-based target, why
    ("common_object", COMMON.format("1th"), 3, "", 0, "the file's own spelling of ordinals"),
    ("common_object", COMMON.format("3rd"), 3, "", 2, "the usual spelling"),
    ("object_tracking", TRACK.format("4th"), 6, "", 3, "the image named last, not the first one"),
    ("multi_view", "(the object marked in the first image) … in the 2th image.", 3, "", 1, "last"),
    ("region", "Please locate the 3th region picture in the source image. ", 4, "", 0, "source"),
    ("diff", "Compare these two images carefully.", 2, "", 1, "the edited image"),
    ("view_diff", "Find it and locate it in the second image. ", 2, "", 1, "in words"),
    ("refer_grounding", "does the object in image-1 locate in the image-2.", 2, "", 1, "label"),
    ("reasoning", "What does Image-1 need? Find it in Image2", 2, "", 1, "label without a dash"),
    ("correspondence", "marked in the first image … the second image that serves", 2, "", 1, ""),
    ("group_grounding", FIND, 5, FOURTH, 3, "only additional_info names it"),
]


@pytest.mark.parametrize(("task", "question", "n", "info", "expected", "why"), TARGETS)
def test_target_image_is_derived(tmp_path, task, question, n, info, expected, why):
    names = [f"{i}.jpg" for i in range(n)]
    (sample,) = read(tmp_path, row(task, question, names, additional_info=info))
    assert sample.target_image == expected, why
    assert sample.image_is_given is (task != "group_grounding")
    assert sample.box == (0.1, 0.2, 0.5, 0.6)


@pytest.mark.parametrize(
    ("task", "question", "n", "info", "field"),
    [
        ("common_object", COMMON.format("5th"), 4, "", "question"),
        ("common_object", COMMON.format("0th"), 4, "", "question"),
        ("view_diff", "Compare these two images.", 2, "", "question"),
        ("group_grounding", "Find it in the second image.", 3, "", "additional_info"),
        ("group_grounding", "Find it.", 3, "It is in the fourth image.", "additional_info"),
        ("region", "Please locate the 3th region picture in the source image.", 3, "", "question"),
        ("region", "Please locate the region.", 3, "", "question"),
        ("diff", "Compare these two images.", 3, "", "images"),
    ],
)
def test_a_row_without_a_derivable_target_image_is_refused(
    tmp_path, task, question, n, info, field
):
    good = row("diff", "Compare.", ["a.jpg", "b.jpg"])
    bad = row(task, question, [f"{i}.jpg" for i in range(n)], additional_info=info)
    with pytest.raises(UserError, match=rf"MIG_data\.json row 1: field '{field}'"):
        read(tmp_path, good, bad)


def test_ids_paths_and_source(tmp_path):
    rows = [row("diff", "Compare.", [f"{i}_source.png", f"{i}_target.png"]) for i in range(18)]
    sample = read(tmp_path, *rows)[17]
    assert sample.id == "mig_bench-00017"
    assert sample.benchmark == "mig_bench"
    names = [f"images/diff/17_{which}.png" for which in ("source", "target")]
    assert sample.images == tuple(f"mig_bench/{name}" for name in names)
    released = [f"./MIG-Bench/{name}" for name in names]
    where = {"file": "MIG_data.json", "revision": "original", "row": 17}
    assert sample.source == where | {"images": released}
    assert sample.instruction == "Compare."
    assert sample.widths == sample.heights == ()


def test_rows_that_share_an_image_share_a_cluster_through_any_chain(tmp_path):
    lists = [["a", "b"], ["c", "d"], ["e", "f"], ["d", "a"], ["g", "g"], ["f", "e"]]
    samples = read(tmp_path, *(row("diff", "Compare.", names) for names in lists))
    # 0 and 1 are joined only by 3; 2 and 5 share both images; 4 stands alone.
    assert [int(sample.cluster[-5:]) for sample in samples] == [0, 0, 2, 0, 4, 2]


def test_the_revised_file_is_another_benchmark_and_its_scale_must_be_given(tmp_path):
    one = row("diff", "Compare.", ["a", "b"])
    thousand = one | {"answer": [100, 200, 500, 600]}
    with pytest.raises(UserError, match="give --scale"):
        read(tmp_path, thousand, revision="revised")
    (sample,) = read(tmp_path, thousand, revision="revised", scale=1000)
    assert sample.id == "mig_bench_revised-00000"
    assert sample.benchmark == "mig_bench_revised"
    assert sample.images[0].startswith("mig_bench_revised/images/")
    assert sample.source["revision"] == "revised"
    assert sample.box == pytest.approx((0.1, 0.2, 0.5, 0.6))
    # A wrong scale is refused instead of excluding every row.
    with pytest.raises(UserError, match=r"1 of 1 rows are above 1\.5 .*--scale 1"):
        read(tmp_path, thousand)
    with pytest.raises(UserError, match="--scale 1000"):
        read(tmp_path, one, scale=1000)


def test_a_single_box_beyond_the_image_stays_as_released(tmp_path):
    good = [row("diff", "Compare.", [f"{i}", "b"]) for i in range(2)]
    bad = row("diff", "Compare.", ["a", "b"], answer=[0.3, 0.1, 1.9, 0.5])
    samples = read(tmp_path, *good, bad)
    assert samples[2].box == (0.3, 0.1, 1.9, 0.5)
    assert not samples[2].has_valid_targets


def test_faulty_rows_are_reported_and_the_others_kept(tmp_path):
    rows = [
        row("diff", "Compare.", ["a.jpg", "b.jpg", "c.jpg"]),
        row("diff", "Compare.", ["a.jpg", "b.jpg"]),
        row("diff", "Compare.", ["a.jpg", "b.jpg"], answer=None),
        row("diff", "Compare.", ["b.jpg", "c.jpg"]),
    ]
    samples, faults = read_rows(write(tmp_path, rows))
    assert [(sample.id, sample.cluster) for sample in samples] == [
        ("mig_bench-00001", "mig_bench-00001"),
        ("mig_bench-00003", "mig_bench-00001"),
    ]
    assert {name: fault.kind for name, fault in faults.items()} == {
        "mig_bench-00000": "target_underived",
        "mig_bench-00002": "invalid_row",
    }
    with pytest.raises(UserError, match=r"row 0: field 'images' .*expected two .*1 more rows"):
        read_annotations(tmp_path / "MIG_data.json")


ROW = row("diff", "Compare.", ["a.jpg", "b.jpg"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": [0.1, 0.2, 0.3]}, r"'answer' is \[0\.1, 0\.2, 0\.3\]; expected four"),
        ({"answer": [0.1, 0.2, "0.3", 0.4]}, "'answer'"),
        ({"answer": [0.1, 0.2, True, 0.4]}, "'answer'"),
        ({"answer": [0.1, 0.2, float("nan"), 0.4]}, "'answer'"),
        ({"answer": [0.1, 0.2, 10**400, 0.4]}, "'answer'"),
        ({"answer": None}, "'answer' is None"),
        ({"images": []}, r"'images' is \[\]"),
        ({"images": ["./MIG-Bench/images/a.jpg", 3]}, "'images'"),
        ({"images": ["./elsewhere/a.jpg", "./elsewhere/b.jpg"]}, "'images' .*MIG-Bench/images/"),
        ({"images": ["./MIG-Bench/images/../../../etc/passwd"]}, "'images' .*stay below"),
        ({"images": ["./MIG-Bench/images/a\\b.jpg"]}, "'images'"),
        ({"images": ["./MIG-Bench/images/\ud83d.jpg"]}, "'images'"),
        ({"task": "dif"}, "'task' is 'dif'; expected one of: common_object, correspond"),
        ({"task": 3}, "'task' is 3"),
        ({"question": None}, "'question' is None"),
        ({"question": "half \ud83d of a pair"}, "'question' .*surrogate pair at character 5"),
        ({"additional_info": 5}, "'additional_info' is 5"),
        ({"need_format": "yes"}, "'need_format' is 'yes'; expected true or false"),
    ],
)
def test_schema_errors_name_row_and_field(tmp_path, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, ROW, ROW, ROW | changes)
    assert str(caught.value).startswith("MIG_data.json row 2: ")
    with pytest.raises(UserError, match=r"none of 2 rows is sound; .* row 0: no field 'task'"):
        read_rows(write(tmp_path, [{"image": "a.jpg"}, {"image": "b.jpg"}]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"[{]", "not JSON"),
        (b'{"rows": []}', "holds an object with rows; expected a JSON list"),
        (b"[]", r"holds \[\]; expected a JSON list"),
        (b"3", "holds 3; expected a JSON list"),
        (b'["row"]', "row 0: is 'row'; expected an object"),
        (b'[{"answer": [0, 0, 1, 1], "answer": []}]', "duplicate key 'answer'"),
        (b'[{"task": "\xe9"}]', r"not UTF-8 \(byte 11 is 0xe9\)"),
        (b"[" * 100_000, "not JSON"),
        (b"[" + b"9" * 5000 + b"]", "not JSON"),
    ],
)
def test_files_that_are_no_annotation_file(tmp_path, content, message):
    path = tmp_path / "MIG_data.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_annotations(path)


def test_files_and_folders_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match=r"cannot read the annotation file .*absent\.json: No such"):
        read_annotations(tmp_path / "absent.json")
    with pytest.raises(UserError, match="Is a directory"):
        read_annotations(tmp_path)
    with pytest.raises(UserError, match=r"unknown revision 'new'.*original, revised"):
        read(tmp_path, ROW, revision="new")
    with pytest.raises(UserError, match="no images of MIG-Bench in"):
        images_folder(tmp_path)
    (tmp_path / "MIG-Bench" / "images" / "common").mkdir(parents=True)
    assert images_folder(tmp_path) == tmp_path / "MIG-Bench" / "images"
