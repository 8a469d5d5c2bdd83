"""docs/custom.md: its example is prepared and evaluated as it stands there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import lmms_data
import pytest
from doc_pages import blocks, rows_named
from factories import write_clip
from PIL import Image

from univg_eval.benchmarks.preparing.preparation import prepare_release
from univg_eval.benchmarks.readers.custom import FIELDS, SPACES, open_custom
from univg_eval.cli import main
from univg_eval.samples import load_samples

SIZES = {"street.jpg": (640, 480), "shelf_1.jpg": (400, 300), "shelf_2.jpg": (400, 300)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example file beside stand-ins for its images."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "my.jsonl").write_text(blocks("custom", "json")[0], encoding="utf-8")
    for name, size in SIZES.items():
        Image.new("RGB", size, "gray").save(folder / name)
    write_clip(folder / "crossing.mp4", range(0, 225, 15), (192, 128))
    return folder


def test_the_fields_are_documented():
    assert sorted(rows_named("custom")) == sorted([*FIELDS, *SPACES])


def test_the_example_prepares_and_the_oracle_reaches_one(folder, tmp_path, monkeypatch):
    pytest.importorskip("lmms_eval")
    data = tmp_path / "data"
    monkeypatch.setenv("UNIVG_DATA", str(data))
    monkeypatch.chdir(folder)
    prepare, audit, *_ = [line.split()[1:] for line in blocks("custom", "bash")[0].splitlines()]
    assert main(prepare) == 0
    assert main(audit) == 0
    samples = load_samples("custom", root=data)
    assert [len(sample.targets) for sample in samples] == [1, 1, 1, 2, 2, 0, 1]
    assert [sample.image_is_given for sample in samples].count(False) == 2

    (own := tmp_path / "tasks" / "own").mkdir(parents=True)
    for shared in lmms_data.TASKS.glob("*.yml"):
        shutil.copy(shared, own.parent)
    shutil.copytree(lmms_data.TASKS / "custom", own, dirs_exist_ok=True)
    (own / "group.yaml").write_text(blocks("custom", "yaml")[0])
    from lmms_eval.tasks import TaskManager

    from univg_eval.lmms.run import evaluate

    found = evaluate(
        "univg_baseline",
        "kind=oracle",
        ["univg_custom", "univg_custom_same_object"],
        manager=TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False),
    ).results
    values = found["results"]["univg_custom"]
    names = ("acc@0.9", "miou", "image_acc", "joint@0.5", "no_target_acc", "f1@0.5", "ap50")
    names += ("f1@0.95", "f1_mean", "matched_iou")
    assert {name: values[f"{name},none"] for name in names} == dict.fromkeys(names, 1.0)
    assert found["results"]["univg_custom_same_object"]["acc@0.9,none"] == 1.0
    logged = found["samples"]
    assert [row["id"] for row in logged["univg_custom"]] == [sample.id for sample in samples]
    assert [row["id"] for row in logged["univg_custom_same_object"]] == [samples[1].id]


def test_the_lines_that_draw_the_boxes(folder, tmp_path):
    prepare_release(open_custom(folder / "my.jsonl"), root=tmp_path / "data")
    subprocess.run(
        [sys.executable, "-c", blocks("custom", "python")[0]],
        cwd=tmp_path,
        env=lmms_data.environment(tmp_path / "data"),
        check=True,
    )
    assert len(list(tmp_path.glob("custom-0000?_?.png"))) == 12
    with Image.open(tmp_path / "custom-00000_1.png") as drawn:
        # Inside of the box, at its left border, and far from it.
        scale = drawn.width / 640
        colors = [drawn.getpixel((round(x * scale), round(200 * scale))) for x in (100, 34, 500)]
    assert colors[0] == colors[2] == (128, 128, 128)
    assert colors[1] != colors[0]


def test_the_conversion_from_coco(tmp_path):
    """A COCO file written by hand goes through the documented lines and the reader."""
    coco = {
        "images": [
            {"id": 9, "file_name": "a.jpg", "width": 200, "height": 100},
            {"id": 4, "file_name": "b.jpg", "width": 50, "height": 80},
        ],
        "categories": [{"id": 1, "name": "dog"}, {"id": 7, "name": "cup"}],
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": 1, "bbox": [20, 10, 40, 30]},
            {"id": 2, "image_id": 9, "category_id": 1, "bbox": [100, 50, 100, 50]},
            {"id": 3, "image_id": 4, "category_id": 7, "bbox": [5, 8, 10, 16]},
        ],
    }
    (tmp_path / "instances.json").write_text(json.dumps(coco))
    for image in coco["images"]:
        Image.new("RGB", (image["width"], image["height"])).save(tmp_path / image["file_name"])
    subprocess.run([sys.executable, "-c", blocks("custom", "python")[1]], cwd=tmp_path, check=True)
    release = open_custom(tmp_path / "coco.jsonl")
    dogs, cups = (sample for item in release.items for sample in item.convert())
    assert (dogs.instruction, cups.instruction) == ("Find every dog.", "Find every cup.")
    assert [target.box for target in dogs.targets] == [
        pytest.approx((0.1, 0.1, 0.3, 0.4)),
        pytest.approx((0.5, 0.5, 1.0, 1.0)),
    ]
    assert cups.box == pytest.approx((0.1, 0.1, 0.3, 0.3))
