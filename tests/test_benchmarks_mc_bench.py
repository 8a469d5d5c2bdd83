"""MC-Bench, read from a small file in its released form, to the oracle's score."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmms_data
import pytest
from PIL import Image
from release_still import converted, faults, item_named, rewrite, write_json

from univg_eval.benchmarks.readers.common.release import ItemError
from univg_eval.benchmarks.readers.mc_bench import open_mc_bench
from univg_eval.cli import main
from univg_eval.errors import UserError

FILE = "mc-bench_v0.2_val.json"
SIZES = {
    "D3/a.jpg": (80, 40),
    "COCO/b.jpg": (50, 100),
    "D3/c.png": (64, 64),
    "BLINK_val_multiview/d.jpg": (20, 30),
    "BLINK_val_multiview/e.jpg": (30, 20),
    "Q_bench/f.jpg": (10, 10),
}
A, B, C, D, E, F = SIZES


def description(number: int, images: list[int], text: str, positive: bool, style: str) -> dict:
    return {
        "id": number,
        "images_id": images,
        "text": text,
        "positive_sample": positive,
        "text_style": style,
    }


def image(number: int, text: int, place: int, name: str) -> dict[str, Any]:
    size = dict(zip(("width", "height"), SIZES[name], strict=True))
    of_pair = {"text_id": text, "inter_img_id": place, "file_name": name}
    return {"id": number, **of_pair, **size}


def annotation(number: int, image: int, text: int, group: int, box: list[int]) -> dict[str, Any]:
    known = {"image_id": image, "text_id": text, "category_id": group}
    return {"id": number, **known, "area": box[2] * box[3], "bbox": box, "iscrowd": 0}


def release() -> dict[str, Any]:
    """Four pairs: groups on both images, one object, none, and a false label with a box outside."""
    return {
        "info": {"year": 2024, "version": "0.2", "description": "MC-Bench Dataset"},
        "descriptions": [
            description(0, [10, 11], "Cups of the same kind", True, "Comparison"),
            description(3, [13, 12], "The café that is more likely full.\n", True, "Reasoning"),
            description(5, [14, 15], "A blue door", False, "Referring"),
            description(7, [16, 17], "The later frame ", False, "Reasoning"),
        ],
        "images": [
            image(10, 0, 0, A),
            image(11, 0, 1, B),
            image(12, 3, 1, A),
            image(13, 3, 0, C),
            image(14, 5, 0, D),
            image(15, 5, 1, E),
            image(16, 7, 0, C),
            image(17, 7, 1, F),
        ],
        "annotations": [
            annotation(0, 11, 0, 1, [5, 10, 20, 30]),
            annotation(7, 12, 3, 1, [0, 0, 80, 40]),
            annotation(2, 10, 0, 2, [8, 4, 16, 20]),
            annotation(4, 11, 0, 2, [25, 50, 25, 50]),
            annotation(8, 17, 7, 1, [5, 5, 10, 2]),
        ],
        "categories": [{"id": k, "name": f"group {k}"} for k in range(1, 8)],
    }


# By hand: pixels of A are divided by 80 and 40, of B by 50 and 100, of F by 10.
TARGETS = [
    [(1, (0.1, 0.1, 0.5, 0.4)), (0, (0.1, 0.1, 0.3, 0.6)), (1, (0.5, 0.5, 1.0, 1.0))],
    [(1, (0.0, 0.0, 1.0, 1.0))],
    [],
    [(1, (0.5, 0.5, 1.5, 0.7))],
]
IMAGES = [(A, B), (C, A), (D, E), (C, F)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_release(tmp_path / "MC-Bench")


def write_release(folder: Path) -> Path:
    write_json(folder / FILE, release())
    for number, (name, size) in enumerate(SIZES.items()):
        path = folder / "mc-bench_images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (40 * number, 90, 160)).save(path)
    return folder


def change(source: Path, how: Callable[[Any], Any]) -> None:
    rewrite(source / FILE, how)


# What a description means


def test_every_description_is_a_sample(source):
    opened = open_mc_bench(source)
    assert opened.benchmark == "mc_bench"
    assert [item.key for item in opened.items] == ["00000", "00001", "00002", "00003"]
    samples = converted(opened)
    for number, sample in enumerate(samples):
        assert sample.id == f"mc_bench-{number:05d}"
        assert (sample.benchmark, sample.task, sample.split) == ("mc_bench", "mc_bench", "val")
        assert sample.images == tuple(f"mc_bench/images/{name}" for name in IMAGES[number])
        assert sample.image_sizes == [SIZES[name] for name in IMAGES[number]]
        assert [t.image for t in sample.targets] == [place for place, _ in TARGETS[number]]
        for target, (_, box) in zip(sample.targets, TARGETS[number], strict=True):
            assert target.box == pytest.approx(box, abs=1e-12)
        assert (sample.image_is_given, sample.find_all, sample.given_image) == (False, True, None)
        assert sample.source["row"] == number
        assert sample.source["images"] == list(IMAGES[number])
    assert [sample.kind for sample in samples] == ["several", "several", "none", "several"]


def test_what_stands_beside_the_boxes(source):
    first, second, third, last = converted(open_mc_bench(source))
    assert first.extra == {
        "expression": "Cups of the same kind",
        "text_style": "Comparison",
        "positive_sample": True,
        "groups": [1, 2, 2],
        "description_id": 0,
        "image_ids": [10, 11],
    }
    assert (second.extra["description_id"], second.extra["image_ids"]) == (3, [13, 12])
    assert (third.extra["positive_sample"], third.extra["groups"]) == (False, [])
    assert (last.extra["positive_sample"], last.extra["groups"]) == (False, [1])
    # The first two share a, the second and the last c.
    assert [sample.cluster for sample in (first, second, third, last)] == [
        f"mc_bench-0000{row}" for row in (0, 0, 2, 0)
    ]


def test_the_instruction_asks_for_all_and_names_the_images(source):
    first, second, _, last = converted(open_mc_bench(source))
    assert first.instruction == (
        "Find every object in the images that this refers to: Cups of the same kind. "
        'Write "Image 1:" or "Image 2:" before the boxes on that image. '
        "Give one bounding box for each object. If there is no such object, answer: none."
    )
    assert "refers to: The café that is more likely full. Write" in second.instruction
    assert second.extra["expression"] == "The café that is more likely full."
    assert "refers to: The later frame. Write" in last.instruction


def test_where_the_file_and_the_images_may_lie(source, tmp_path):
    expected = converted(open_mc_bench(source))
    file = source / FILE
    assert converted(open_mc_bench(file, splits=["val"])) == expected
    elsewhere = tmp_path / "elsewhere"
    (source / "mc-bench_images").rename(elsewhere)
    opened = open_mc_bench(source, images=elsewhere)
    assert opened.links == {"images": elsewhere.resolve()}
    assert converted(opened) == expected
    with pytest.raises(UserError, match=r"folder .*mc-bench_images does not exist.*--images"):
        open_mc_bench(source)
    file.rename(source / "old.json")
    with pytest.raises(UserError, match=rf"does not hold {FILE}; it has: old\.json.*drive\.google"):
        open_mc_bench(source)
    with pytest.raises(UserError, match="'mc_bench' has the split val; received: test"):
        open_mc_bench(source, splits=["test"])


# Refused as a whole


def without(name: str) -> Callable[[Any], Any]:
    return lambda value: value.pop(name)


def set_in(name: str, place: int, **fields: Any) -> Callable[[Any], Any]:
    return lambda value: value[name][place].update(fields)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (without("descriptions"), r"object with info, images, .*; expected .*descriptions, images"),
        (without("annotations"), "lists descriptions, images, annotations. Is it the file of anot"),
        (lambda value: value.update(images=[]), "lists descriptions, images, annotations"),
        (set_in("images", 1, id=10), r"images\[1\] is .*, its id 10; expected .* of its own"),
        (set_in("descriptions", 2, id="5"), r"descriptions\[2\] is .*, its id '5'; expected"),
        (set_in("annotations", 3, id=[4]), r"annotations\[3\] is .*, its id \[4\]"),
        (lambda value: value["images"].insert(0, 5), r"images\[0\] is 5, its id None"),
        (set_in("annotations", 0, text_id=1), "has id 0 and text_id 1; expected the id of a desc"),
        (set_in("images", 7, text_id=[7]), r"has id 17 and text_id \[7\]; expected the id of"),
    ],
)
def test_a_file_whose_parts_do_not_fit_is_refused(source, how, message):
    change(source, how)
    with pytest.raises(UserError, match=message) as caught:
        open_mc_bench(source)
    assert FILE in str(caught.value)


def test_a_list_is_no_release(source):
    write_json(source / FILE, [release()])
    with pytest.raises(UserError, match=r"holds \[.*expected a JSON object with the lists"):
        open_mc_bench(source)


# Faulty items


def only_one_image(value: Any) -> None:
    value["descriptions"][0]["images_id"] = [10]
    value["images"][1]["text_id"] = 5


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        (
            set_in("descriptions", 0, text=" "),
            "invalid_row",
            "json: description 0: field 'text' is ' '",
        ),
        (set_in("descriptions", 0, text_style=None), "invalid_row", "'text_style' is None"),
        (
            set_in("descriptions", 0, positive_sample=1),
            "invalid_row",
            "'positive_sample' is 1; expected true or false",
        ),
        (
            set_in("descriptions", 0, images_id=[10, 12]),
            "invalid_row",
            r"'images_id' is \[10, 12\]; expected .*which are \[10, 11\]",
        ),
        (set_in("descriptions", 0, images_id=[10, 10]), "invalid_row", r"'images_id' is \[10, 10"),
        (set_in("descriptions", 0, images_id=None), "invalid_row", "'images_id' is None"),
        (set_in("images", 1, text_id=5), "invalid_row", r"'images_id' .* which are \[10\]"),
        (only_one_image, "invalid_row", r"'images_id' is \[10\]; expected the ids of the two"),
        (set_in("images", 1, file_name=7), "invalid_row", "image: field 'file_name' is 7"),
        (set_in("images", 1, file_name="../b.jpg"), "invalid_row", "stays within"),
        (set_in("images", 1, file_name="D3/b.jpg"), "missing_image", r"'D3/b\.jpg' is not below"),
        (
            set_in("images", 1, width=100, height=50),
            "size_mismatch",
            r"b\.jpg is 50x100 pixels, the row says 100x50; give the images as they are released",
        ),
        (set_in("images", 1, height=None), "size_mismatch", "the row says 50xNone"),
        (
            set_in("annotations", 0, image_id=12),
            "invalid_row",
            r"annotation 0: field 'image_id' is 12; expected one of \[10, 11\], the pair's images",
        ),
        (
            set_in("annotations", 0, category_id=8),
            "invalid_row",
            "annotation 0: field 'category_id' is 8; expected a group from 1 to 7",
        ),
        (set_in("annotations", 0, category_id=0), "invalid_row", "'category_id' is 0"),
        (set_in("annotations", 0, category_id=True), "invalid_row", "'category_id' is True"),
        (
            set_in("annotations", 0, bbox=[5, 10, 20]),
            "invalid_row",
            r"'bbox' is \[5, 10, 20\]; expected four numbers x, y, width, height in pixels",
        ),
        (set_in("annotations", 0, bbox=None), "invalid_row", "'bbox' is None; expected four"),
    ],
)
def test_a_faulty_description_is_named_and_the_others_kept(source, how, kind, message):
    change(source, how)
    opened = open_mc_bench(source)
    assert faults(opened)["00000"] == kind
    with pytest.raises(ItemError, match=message):
        item_named(opened, "00000").convert()
    (second,) = item_named(opened, "00001").convert()
    assert second.id == "mc_bench-00001"


def test_an_image_of_another_release(source):
    Image.new("RGB", (40, 80)).save(source / "mc-bench_images" / A)
    opened = open_mc_bench(source)
    assert faults(opened) == dict.fromkeys(("00000", "00001"), "size_mismatch")


# The whole way


def test_prepared_audited_and_answered(source, tmp_path, monkeypatch, capsys):
    pytest.importorskip("lmms_eval")
    # The images are still packed, as they are fetched.
    with zipfile.ZipFile(source / "MC-Bench_images.zip", "w") as archive:
        for path in (source / "mc-bench_images").rglob("*.*"):
            archive.write(path, path.relative_to(source))
            path.unlink()
    for folder in sorted((source / "mc-bench_images").rglob("*"), reverse=True):
        folder.rmdir()
    (source / "mc-bench_images").rmdir()
    data = tmp_path / "data"
    lmms_data.set_environment(monkeypatch, data)
    assert main(["prepare", "mc_bench", "--source", str(source)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "val: 4 expressions; its authors state 2000" in printed
    assert "invalid_box 1, contradicting_label 1" in printed
    assert main(["audit", "mc_bench", "--json"]) == 3
    report = json.loads(capsys.readouterr().out)
    found = {f["kind"]: [row["id"] for row in f["rows"]] for f in report["findings"]}
    last = ["mc_bench-00003"]
    assert found == {"invalid_box": last, "contradicting_label": last}
    assert report["notes"] == {"no_object": 1, "several_targets": 1}
    (finding,) = [f for f in report["findings"] if f["kind"] == "contradicting_label"]
    assert finding["rows"][0]["detail"].endswith("positive_sample is False, but boxes: 1")

    from univg_eval.lmms.run import evaluate

    results = evaluate("univg_baseline", "kind=oracle", ["univg_mc_bench"]).results["results"]
    metrics = results["univg_mc_bench"]
    for name in ("score", "f1@0.5", "ap50", "matched_iou", "no_target_acc"):
        assert metrics[f"{name},none"] == 1.0, name
