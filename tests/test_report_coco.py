"""COCO files of a run: read by cocoapi and supervision, boxes and files are the right ones."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import make_sample, write_clip
from PIL import Image
from run_records import record_of

from univg_eval.cli import main
from univg_eval.errors import UserError
from univg_eval.images.reading import load_image
from univg_eval.report import coco
from univg_eval.report.coco import CocoExport, export_coco
from univg_eval.report.run_data import ReportData, collect
from univg_eval.samples import GroundingSample, Target, write_benchmark

MASK = {"size": [48, 64], "counts": [100, 10, 38, 12, 2912]}


def own_sample(number: int, **changes: Any) -> GroundingSample:
    values: dict[str, Any] = {
        "images": ("toy/images/a.png", "toy/images/b.png"),
        "widths": (64, 32),
        "heights": (48, 24),
        "targets": (Target(image=1, box=(0.1, 0.2, 0.3, 0.6)),),
        "cluster": f"c{number}",
    }
    return make_sample(number, **(values | changes))


A_ONLY: dict[str, Any] = {"images": ("toy/images/a.png",), "widths": (64,), "heights": (48,)}
SAMPLES = [
    own_sample(0),
    own_sample(1, image_is_given=False, targets=(Target(0, (0.25, 0.25, 0.5, 0.5)),)),
    own_sample(2, targets=(), **A_ONLY),
    own_sample(3, images=("toy/images/a.png", "toy/images/scan.tif"), extra={"label": "cup"}),
    own_sample(4, images=("toy/images/b.png", "toy/images/cut.png")),
    own_sample(
        5,
        images=("toy/images/a.png", "toy/images/turned.jpg"),
        targets=(Target(0, (0.0, 0.0, 0.5, 0.5)), Target(1, (0.5, 0.5, 1.0, 1.0))),
    ),
    own_sample(6, targets=(Target(0, (0.5, 0.5, 0.5, 0.5)),), **A_ONLY),
    own_sample(7, targets=(Target(0, (0.0, 0.0, 0.5, 0.5), MASK),), **A_ONLY),
    own_sample(8, image_is_given=False, images=("toy/images/b.png", "toy/images/cut.png")),
]
RIGHT = "[100, 200, 300, 600]"
TEXTS: dict[str, str | None] = {sample.id: RIGHT for sample in SAMPLES} | {
    "toy-00001": "In the second image: [500, 500, 750, 1000]",
    "toy-00002": "There is no such object.",
    "toy-00003": "<think>\ud800 it is there</think> [0, 0, 1000, 1000]",
    "toy-00005": "Image 1: [0, 0, 500, 500], image 2: [500, 500, 1000, 1000]",
    "toy-00007": None,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    images = root / "toy" / "images"
    images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, shown upright
    sizes = {"a.png": (64, 48), "b.png": (32, 24), "turned.jpg": (24, 32), "scan.tif": (32, 24)}
    for name, (w, h) in sizes.items():
        image = Image.fromarray(rng.integers(0, 255, (h, w, 3), dtype=np.uint8))
        image.save(images / name, **({"exif": exif} if name == "turned.jpg" else {}))
    whole = (images / "a.png").read_bytes()
    (images / "cut.png").write_bytes(whole[: len(whole) // 2])
    write_benchmark(SAMPLES, benchmark="toy", root=root)
    return root


@pytest.fixture(scope="module")
def data(root: Path) -> ReportData:
    return collect([record_of(SAMPLES, TEXTS)], root=root)


@pytest.fixture(scope="module")
def exported(data: ReportData, root: Path, tmp_path_factory: pytest.TempPathFactory) -> CocoExport:
    return export_coco(data, tmp_path_factory.mktemp("out") / "deep" / "coco", root=root)


def read(export: CocoExport, name: str = "annotations") -> Any:
    return json.loads((export.folder / f"{name}.json").read_text(encoding="utf-8"))


def test_which_images_of_a_sample_are_there(exported):
    """The given one with the only target, else all; none of a sample that cannot be shown."""
    images = read(exported)["images"]
    assert [(image["sample_id"], image["image_number"]) for image in images] == [
        *(("toy-00000", 2), ("toy-00001", 1), ("toy-00001", 2), ("toy-00002", 1)),
        *(("toy-00003", 2), ("toy-00005", 1), ("toy-00005", 2), ("toy-00007", 1)),
    ]
    assert [image["id"] for image in images] == list(range(1, 9))
    assert len({image["file_name"].lower() for image in images}) == len(images)
    assert exported.excluded == ["toy-00006"]
    assert set(exported.unreadable) == {"toy-00004", "toy-00008"}
    files = {path.name for path in (exported.folder / "images").iterdir()}
    assert files == {Path(image["file_name"]).name for image in images}
    assert images[4]["label"] == "cup" and images[1]["image_is_given"] is False
    counts = exported.samples, exported.images, exported.annotations, exported.results
    assert counts == (6, 8, 6, 5)


def test_boxes_are_pixels_of_their_image(exported):
    truth, results = read(exported), read(exported, "results")
    by_id = {image["id"]: (image["sample_id"], image["image_number"]) for image in truth["images"]}
    boxes = {by_id[a["image_id"]]: a["bbox"] for a in truth["annotations"]}
    assert boxes["toy-00000", 2] == pytest.approx([3.2, 4.8, 6.4, 9.6])  # of 32x24
    assert boxes["toy-00001", 1] == pytest.approx([16, 12, 16, 12])
    assert boxes["toy-00005", 2] == pytest.approx([16, 12, 16, 12])
    found = {by_id[r["image_id"]]: r for r in results}
    assert found["toy-00000", 2]["bbox"] == pytest.approx([3.2, 4.8, 6.4, 9.6])
    assert found["toy-00000", 2]["iou"] == 1.0 and found["toy-00000", 2]["failure"] is None
    # On the image that the response names.
    assert found["toy-00001", 2]["bbox"] == pytest.approx([16, 12, 8, 12])
    assert found["toy-00001", 2]["failure"] == "wrong_image"
    assert found["toy-00003", 2]["failure"] == "loose"
    assert {key for key in found if key[0] == "toy-00005"} == {("toy-00005", 1), ("toy-00005", 2)}


def test_masks(exported):
    from pycocotools import mask

    annotations = {a["sample_id"]: a for a in read(exported)["annotations"]}
    assert annotations["toy-00007"]["segmentation"] == MASK
    assert annotations["toy-00007"]["area"] == 22
    assert "segmentation" not in annotations["toy-00000"]
    packed = mask.frPyObjects(dict(MASK), 48, 64)
    text = {"size": packed["size"], "counts": packed["counts"].decode("ascii")}
    assert coco._mask_area(text) == 22


def recall(export: CocoExport) -> float:
    """What cocoapi makes of the files: recall at IoU 0.5, all sizes, up to 100 boxes an image."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(str(export.folder / "annotations.json"))
    evaluation = COCOeval(truth, truth.loadRes(str(export.folder / "results.json")), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval["recall"][0, 0, 0, -1]


def test_recall_of_cocoapi_is_acc_at_half(exported, root, tmp_path):
    assert recall(exported) == pytest.approx(3 / 6)  # 3 of the 6 true boxes are found
    box = (0.1, 0.2, 0.5, 0.6)
    samples = [own_sample(i, targets=(Target(0, box),), **A_ONLY) for i in range(20)]
    write_benchmark(samples, benchmark="toy", root=tmp_path)
    shutil.copytree(root / "toy" / "images", tmp_path / "toy" / "images")
    texts = {s.id: f"[100, 200, {190 + 20 * i}, 600]" for i, s in enumerate(samples)}
    data = collect([record_of(samples, texts)], root=tmp_path)
    hits = sum(score.iou >= 0.5 for score in data.runs[0].scores)
    assert 0 < hits < 20
    export = export_coco(data, tmp_path / "coco", root=tmp_path)
    assert recall(export) == pytest.approx(hits / 20)


def test_every_box_counts_where_all_objects_are_asked_for(root, tmp_path):
    """Even of one true object: the same answer has one box where one object is asked for."""
    boxes = "[100, 200, 500, 600], [700, 700, 900, 900]"
    for find_all, n in ((True, 2), (False, 1)):
        sample = own_sample(0, targets=(Target(0, (0.1, 0.2, 0.5, 0.6)),), **A_ONLY)
        sample = replace(sample, find_all=find_all)
        write_benchmark([sample], benchmark="toy", root=tmp_path)
        if not (tmp_path / "toy" / "images").exists():
            shutil.copytree(root / "toy" / "images", tmp_path / "toy" / "images")
        data = collect([record_of([sample], {sample.id: boxes})], root=tmp_path)
        assert len(data.runs[0].outcomes[sample.id].boxes) == n
        assert export_coco(data, tmp_path / f"coco{n}", root=tmp_path).results == n


READ_WITH_SUPERVISION = """
import json, sys
from dataclasses import replace
from pathlib import Path
import supervision
folder = Path(sys.argv[1])
dataset = supervision.DetectionDataset.from_coco(str(folder), str(folder / "annotations.json"))
boxes = {Path(path).name: found.xyxy.tolist() for path, _, found in dataset}
print(json.dumps([dataset.classes, boxes]))
"""


def test_supervision_reads_it(exported):
    """In a process of its own: OpenCV cannot read PNG where another zlib was loaded before it."""
    pytest.importorskip("supervision", reason="pip install -e '.[dev]'")
    command = [sys.executable, "-c", READ_WITH_SUPERVISION, exported.folder]
    read_by_it = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    classes, boxes = json.loads(read_by_it.splitlines()[-1])
    assert classes == ["object"]
    assert len(boxes) == exported.images
    assert boxes["000001_toy-00000_2.png"] == [pytest.approx([3.2, 4.8, 9.6, 14.4], abs=1e-4)]
    assert boxes["000004_toy-00002_1.png"] == []


def test_images_are_those_of_the_samples_upright(exported, root):
    samples = {sample.id: sample for sample in SAMPLES}
    for image in read(exported)["images"]:
        with Image.open(exported.folder / image["file_name"]) as shown:
            assert shown.getexif().get(0x0112, 1) == 1
            assert shown.size == (image["width"], image["height"])
            pixels = np.asarray(shown.convert("RGB"))
        source = root / samples[image["sample_id"]].images[image["image_number"] - 1]
        assert np.array_equal(pixels, np.asarray(load_image(source)))


def test_two_exports_are_the_same_and_two_runs_share_the_truth(exported, data, root, tmp_path):
    seen: list[tuple[int, int]] = []
    again = export_coco(
        data, tmp_path / "again", root=root, progress=lambda *done: seen.append(done)
    )
    assert seen == [(n, len(data.samples)) for n in range(len(data.samples))]
    other = collect([record_of(SAMPLES, dict.fromkeys(TEXTS, "[0, 0, 50, 50]"))], root=root)
    third = export_coco(other, tmp_path / "other", root=root)
    for name in ("annotations.json", "results.json"):
        assert (again.folder / name).read_bytes() == (exported.folder / name).read_bytes()
    assert read(third) == read(exported) and read(third, "results") != read(exported, "results")


def test_files_are_links_or_else_copies_and_never_overwrite_an_image(
    data, root, tmp_path, monkeypatch
):
    linked = export_coco(data, tmp_path / "linked", root=root)
    source = root / "toy" / "images" / "b.png"
    name = read(linked)["images"][0]["file_name"]
    assert (linked.folder / name).samefile(source)
    with pytest.raises(FileExistsError):
        coco._link(root / "toy" / "images" / "a.png", linked.folder / name)

    def other_file_system(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_file_system)
    copied = export_coco(data, tmp_path / "copied", root=root)
    assert (copied.folder / name).read_bytes() == source.read_bytes()
    assert not (copied.folder / name).samefile(source)


def test_a_folder_with_something_in_it_is_left_alone(data, root, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    for path in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(UserError, match="exists and is not empty"):
            export_coco(data, path, root=root)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    assert export_coco(data, tmp_path / "empty", root=root).samples == 6


def test_nothing_stays_of_an_export_that_fails(data, root, tmp_path, monkeypatch):
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", no_room)
    monkeypatch.setattr(shutil, "copyfile", no_room)
    with pytest.raises(UserError, match=r"cannot write .*: No space left on device"):
        export_coco(data, tmp_path / "d", root=root)
    assert list(tmp_path.iterdir()) == []


def test_frames_of_a_video_become_images(tmp_path):
    (tmp_path / "toy").mkdir()
    write_clip(tmp_path / "toy" / "clip.mp4", (0, 100, 200))
    frames = {
        "images": ("toy/clip.mp4#frame=0", "toy/clip.mp4#frame=2"),
        "widths": (64, 64),
        "heights": (48, 48),
        "image_is_given": False,
    }
    samples = [own_sample(i, **frames) for i in range(2)]
    write_benchmark(samples, benchmark="toy", root=tmp_path)
    data = collect([record_of(samples, {s.id: RIGHT for s in samples})], root=tmp_path)
    export = export_coco(data, tmp_path / "out", root=tmp_path)
    files = [export.folder / image["file_name"] for image in read(export)["images"]]
    means = [float(np.asarray(Image.open(file).convert("RGB")).mean()) for file in files]
    assert means == [pytest.approx(value, abs=8) for value in (0, 200, 0, 200)]
    assert files[0].samefile(files[2])  # shared: it takes its room once


def test_the_command(root, tmp_path, capsys):
    record = record_of(SAMPLES, TEXTS)
    record.write(tmp_path / "run")
    usual = ["export", str(tmp_path / "run"), "--format", "coco", "--root", str(root), "-o"]
    assert main([*usual, str(tmp_path / "coco"), "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written["folder"] == str(tmp_path / "coco") and written["excluded"] == ["toy-00006"]
    counts = [written[name] for name in ("samples", "images", "annotations", "results")]
    assert counts == [6, 8, 6, 5]
    assert "damaged" in written["unreadable"]["toy-00004"]
    assert main([*usual, str(tmp_path / "words")]) == 0
    out = capsys.readouterr().out
    assert "6 samples, 8 images, 6 true boxes, 5 predicted boxes" in out
    assert "cannot be read: 2 samples" in out
    assert main([*usual, str(tmp_path / "coco")]) == 2
    assert "exists and is not empty" in capsys.readouterr().err


def test_one_run_at_a_time(data, root, tmp_path):
    two = collect([data.runs[0].record] * 2, root=root)
    with pytest.raises(UserError, match="2 runs of toy"):
        export_coco(two, tmp_path / "d", root=root)
