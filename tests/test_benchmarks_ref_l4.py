"""Ref-L4 in the form in which it is released: its boxes, its ids, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from univg_eval.audit import audit_samples
from univg_eval.benchmarks.preparing.archives import MARKER_FILE
from univg_eval.benchmarks.readers.common.release import ItemError, Release
from univg_eval.benchmarks.readers.ref_l4 import open_ref_l4
from univg_eval.cli import main
from univg_eval.dialects import get_dialect
from univg_eval.errors import UserError
from univg_eval.protocols import get_protocol
from univg_eval.samples import GroundingSample, load_manifest, load_samples
from univg_eval.scoring import Response, aggregate, score_samples

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

SIZES = {"objects365_v2_00000009.jpg": (200, 100), "COCO_train2014_000000000077.jpg": (120, 90)}
O365, COCO = SIZES
# x, y, width, height in pixels, and the same box on 0-1 worked out by hand.
ROWS = {
    "val": [
        (O365, "A long red bench by the wall.", [20.0, 25.0, 50.0, 50.0], (0.1, 0.25, 0.35, 0.75)),
        (O365, "The left lamp.", [100.0, 0.0, 100.0, 100.0], (0.5, 0.0, 1.0, 1.0)),
        (COCO, "A car.", [30.0, 22.5, 60.0, 45.0], (0.25, 0.25, 0.75, 0.75)),
    ],
    "test": [(COCO, "A dog in the grass.", [0.0, 0.0, 12.0, 9.0], (0.0, 0.0, 0.1, 0.1))],
}


def row(split: str, number: int, **changes: Any) -> dict[str, Any]:
    name, caption, box, _ = ROWS[split][number]
    width, height = SIZES[name]
    return {
        "id": 100 + number,
        "caption": caption,
        "bbox": box,
        "bbox_area": box[2] * box[3],
        "bbox_id": f"o365_{number}",
        "ori_category_id": "o365_64",
        "image_id": "o365_9",
        "height": height,
        "width": width,
        "file_name": name,
        "is_rewrite": number % 2 == 1,
        "split": split,
    } | changes


def write(folder: Path, rows: dict[str, list[dict[str, Any]]] | None = None) -> Path:
    """The release's files, and its images in ``images``."""
    from PIL import Image

    rows = rows or {split: [row(split, k) for k in range(len(ROWS[split]))] for split in ROWS}
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for name, size in SIZES.items():
        Image.new("RGB", size, (90, 20, 200)).save(folder / "images" / name)
    for split, values in rows.items():
        parquet.write_table(pa.Table.from_pylist(values), folder / f"ref-l4-{split}.parquet")
    return folder


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return write(tmp_path / "Ref-L4")


def converted(release: Release) -> list[GroundingSample]:
    return [sample for item in release.items for sample in item.convert()]


def test_what_a_row_means(release):
    opened = open_ref_l4(release)
    samples = converted(opened)
    truth = [(split, k) for split, rows in ROWS.items() for k in range(len(rows))]
    assert [s.id for s in samples] == [f"ref_l4-{split}-{k:05d}" for split, k in truth]
    for sample, (split, k) in zip(samples, truth, strict=True):
        name, caption, _, box = ROWS[split][k]
        assert (sample.benchmark, sample.task, sample.split) == ("ref_l4", f"ref_l4_{split}", split)
        assert sample.images == (f"ref_l4/images/{name}",)
        assert sample.image_sizes == [SIZES[name]]
        assert sample.box == pytest.approx(box)
        assert sample.instruction.endswith(f"corresponding to the instruction: {caption}.")
        assert sample.image_is_given and sample.kind == "single"
        assert sample.source["images"] == [name] and sample.source["row"] == k
    assert samples[1].extra == {
        "expression": "The left lamp.",
        "release_id": 101,
        "bbox_area": 10000.0,
        "bbox_id": "o365_1",
        "ori_category_id": "o365_64",
        "is_rewrite": True,
    }
    assert [sample.cluster for sample in samples] == [
        f"images/{name}" for name in (O365, O365, COCO, COCO)
    ]
    assert [(f["file"], f["split"]) for f in opened.source["files"]] == [
        ("ref-l4-val.parquet", "val"),
        ("ref-l4-test.parquet", "test"),
    ]
    assert not audit_samples(samples).found


def test_which_files(release, tmp_path):
    assert {s.split for s in converted(open_ref_l4(release, splits=["test"]))} == {"test"}
    one = open_ref_l4(release / "ref-l4-test.parquet")
    assert [s.id for s in converted(one)] == ["ref_l4-test-00000"]
    (release / "ref-l4-test.parquet").unlink()
    assert {s.split for s in converted(open_ref_l4(release))} == {"val"}
    with pytest.raises(UserError, match=r"does not hold ref-l4-test\.parquet; it has: images/, "):
        open_ref_l4(release, splits=["test"])
    with pytest.raises(UserError, match=r"does not hold ref-l4-val.* and ref-l4-test.*Ref-L4$"):
        open_ref_l4(release / "images")
    with pytest.raises(UserError, match="none does not exist; expected ref-l4-val"):
        open_ref_l4(tmp_path / "none")
    with pytest.raises(UserError, match="has the splits val, test; received: train"):
        open_ref_l4(release, splits=["train"])


def test_the_images_where_the_archive_was_unpacked(release, tmp_path):
    (release / "images").rename(tmp_path / "unpacked")
    assert len(converted(open_ref_l4(release, images=tmp_path / "unpacked"))) == 4
    for path in (tmp_path / "unpacked").iterdir():
        path.rename(release / path.name)
    assert len(converted(open_ref_l4(release))) == 4  # no folder in the archive


def test_older_revisions_name_the_box_otherwise(tmp_path):
    old = row("test", 0)
    old["ann_id"] = old.pop("bbox_id")
    (sample,) = converted(open_ref_l4(write(tmp_path, {"test": [old]})))
    assert sample.extra["ann_id"] == "o365_0" and "bbox_id" not in sample.extra


def test_a_file_of_another_set(tmp_path):
    other = row("val", 0)
    del other["caption"], other["file_name"]
    write(tmp_path, {"val": [other]})
    with pytest.raises(UserError, match=r"is not of Ref-L4: it has no caption, file_name; its"):
        open_ref_l4(tmp_path)
    (tmp_path / "ref-l4-val.parquet").write_bytes(b"version https://git-lfs")
    with pytest.raises(UserError, match=r"ref-l4-val\.parquet as Parquet: .*Git LFS"):
        open_ref_l4(tmp_path)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"split": "test"}, "invalid_row", "row 1: field 'split' is 'test'; expected 'val', as"),
        ({"caption": " "}, "invalid_row", "row 1: field 'caption' is ' '; expected text"),
        ({"file_name": None}, "invalid_row", "row 1: field 'file_name' is None"),
        ({"ori_category_id": None}, "invalid_row", "field 'ori_category_id' is None; expected te"),
        ({"file_name": "gone.jpg"}, "missing_image", "image 'gone.jpg' is not below"),
        ({"width": 201}, "size_mismatch", "09.jpg' is 200x100 pixels, the row says 201x100"),
        ({"bbox": [150.0, 0.0, 52.0, 10.0]}, "invalid_row", "a box inside its image of 200x100"),
        ({"bbox": [-1.5, 0.0, 52.0, 10.0]}, "invalid_row", "a box inside its image of 200x100"),
        ({"bbox": [0.0, 95.0, 5.0, 6.5]}, "invalid_row", "a box inside its image of 200x100"),
        ({"bbox": [20.0, 25.0, 0.0, 50.0]}, "invalid_row", "field 'bbox' is .*, height of a box"),
        ({"bbox": [20.0, 25.0, 50.0]}, "invalid_row", "expected four numbers x, y, width, height"),
        ({"bbox": [20.0, 25.0, 50.0, float("nan")]}, "invalid_row", "expected four numbers"),
        ({"bbox": None}, "invalid_row", "'bbox' is None; expected four numbers"),
    ],
)
def test_a_faulty_row_is_named_and_the_others_are_kept(tmp_path, changes, kind, message):
    rows = [row("val", 0), row("val", 1) | changes, row("val", 2)]
    first, faulty, last = open_ref_l4(write(tmp_path, {"val": rows})).items
    with pytest.raises(ItemError, match=message) as caught:
        faulty.convert()
    assert caught.value.kind == kind
    assert [item.convert()[0].id[-1] for item in (first, last)] == ["0", "2"]


def test_rounding_at_the_border_is_cut(tmp_path):
    rows = [row("val", 0, bbox=[-0.5, 0.0, 201.0, 100.9])]
    (sample,) = converted(open_ref_l4(write(tmp_path, {"val": rows})))
    assert sample.box == (0.0, 0.0, 1.0, 1.0)


@pytest.mark.parametrize("dialect", ["qwen2_vl", "pixels"])
def test_the_truth_written_by_a_dialect_is_wholly_right(release, dialect):
    samples, writer = converted(open_ref_l4(release)), get_dialect(dialect)
    responses = [
        Response(writer.encode(s.box, image_wh=s.image_sizes[0]), image_sizes=s.image_sizes)
        for s in samples
    ]
    scores = score_samples(samples, responses, writer, protocol=get_protocol("univg"))
    tasks = aggregate(scores)["tasks"]
    assert {task: (m["n"], m["acc@0.9"]) for task, m in tasks.items()} == {
        "ref_l4_val": (3, 1.0),
        "ref_l4_test": (1, 1.0),
    }


def test_prepared_from_the_folder_with_its_archive(release, tmp_path, monkeypatch, capsys):
    import tarfile

    with tarfile.open(release / "images.tar.gz", "w:gz") as archive:
        for name in SIZES:  # without a folder, as released
            archive.add(release / "images" / name, arcname=name)
            (release / "images" / name).unlink()
    (release / "images").rmdir()
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path / "data"))
    assert main(["prepare", "ref_l4", "--source", str(release)]) == 0
    assert load_manifest("ref_l4")["splits"] == {"val": 3, "test": 1}
    assert len(load_samples("ref_l4")) == 4
    assert main(["audit", "ref_l4"]) == 0
    assert "Nothing found." in capsys.readouterr().out
    assert MARKER_FILE not in [path.name for path in release.iterdir()]
