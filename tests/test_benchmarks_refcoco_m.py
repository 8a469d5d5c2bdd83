"""RefCOCO-M in the form in which it is released: objects, sentences, masks beside boxes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from univg_eval.audit import audit_samples
from univg_eval.benchmarks.readers.common.release import ItemError, Release
from univg_eval.benchmarks.readers.refcoco_m import open_refcoco_m
from univg_eval.cli import main
from univg_eval.dialects import get_dialect
from univg_eval.errors import UserError
from univg_eval.protocols import get_protocol
from univg_eval.samples import GroundingSample, load_manifest, load_samples
from univg_eval.scoring import Response, aggregate, score_samples

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
coco = pytest.importorskip("pycocotools.mask")

SAMPLE = pa.struct(
    [
        *(("id", pa.int64()), ("image_id", pa.int64()), ("category", pa.string())),
        *(("supercategory", pa.string()), ("label", pa.string())),
        ("sentences", pa.list_(pa.string())),
        ("bbox", pa.list_(pa.float32())),
        ("mask", pa.struct([("counts", pa.string()), ("size", pa.list_(pa.int64()))])),
    ]
)
SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("image_id", pa.int64()),
        ("file_name", pa.string()),
        ("samples", pa.list_(SAMPLE)),
    ]
)


def photograph(size: tuple[int, int], shade: int) -> dict[str, Any]:
    data = io.BytesIO()
    Image.new("RGB", size, (shade, 0, 99)).save(data, "JPEG")
    return {"bytes": data.getvalue(), "path": None}


def mask(size: tuple[int, int], *boxes: tuple[int, int, int, int]) -> dict[str, Any]:
    """Run lengths of filled rectangles x1, y1, x2, y2 (ends excluded), by pycocotools."""
    pixels = np.zeros(size[::-1], np.uint8, order="F")
    for x1, y1, x2, y2 in boxes:
        pixels[y1:y2, x1:x2] = 1
    rle = coco.encode(pixels)
    return {"counts": rle["counts"].decode(), "size": list(rle["size"])}


def entry(sentences: list[str], bbox: list[float], of: dict[str, Any], **changes: Any) -> dict:
    return {
        "id": 7,
        "image_id": 9,
        "category": "person",
        "supercategory": "person",
        "label": "left man",
        "sentences": sentences,
        "bbox": bbox,
        "mask": of,
    } | changes


WIDE, SMALL = (100, 50), (80, 40)
MAN = entry(["left man", "man in red"], [10.0, 10.0, 40.0, 20.0], mask(WIDE, (10, 10, 50, 30)))
# The box as released is 20 x 20; that of the mask, in two parts, is its upper half.
DOG = entry(["dog"], [60.0, 20.0, 20.0, 20.0], mask(WIDE, (60, 20, 65, 30), (75, 20, 80, 30)), id=8)
CUP = entry(["the cup"], [0.0, 0.0, 40.0, 40.0], mask(SMALL, (0, 0, 40, 40)), id=9)
# Boxes on 0-1 and the IoU with the mask's box, by hand.
TRUTH = [
    ("00000-0-0", "left man", (0.1, 0.2, 0.5, 0.6), 1.0),
    ("00000-0-1", "man in red", (0.1, 0.2, 0.5, 0.6), 1.0),
    ("00000-1-0", "dog", (0.6, 0.4, 0.8, 0.8), 0.5),
    ("00001-0-0", "the cup", (0.0, 0.0, 0.5, 1.0), 1.0),
]


def row(number: int, image: dict[str, Any], *samples: dict[str, Any]) -> dict[str, Any]:
    return {
        "image": image,
        "image_id": number,
        "file_name": f"COCO_train2014_{number:012d}.jpg",
        "samples": list(samples),
    }


def write(folder: Path, *shards: list[dict[str, Any]]) -> Path:
    (folder / "data").mkdir(parents=True)
    for k, rows in enumerate(shards):
        path = folder / "data" / f"validation-{k:05d}-of-{len(shards):05d}.parquet"
        parquet.write_table(pa.Table.from_pylist(rows, SCHEMA), path)
    return folder


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return write_release(tmp_path / "m")


def write_release(folder: Path) -> Path:
    first = row(9, photograph(WIDE, 20), MAN, DOG)
    return write(folder, [first], [row(11, photograph(SMALL, 200), CUP)])


def converted(release: Release) -> list[GroundingSample]:
    return [sample for item in release.items for sample in item.convert()]


def test_one_sample_a_sentence(release, tmp_path):
    samples = converted(open_refcoco_m(release, workspace=tmp_path / "refcoco_m"))
    assert [sample.id for sample in samples] == [f"refcoco_m-{key}" for key, *_ in TRUTH]
    for sample, (_, sentence, box, iou) in zip(samples, TRUTH, strict=True):
        assert (sample.benchmark, sample.task, sample.split) == ("refcoco_m", "refcoco_m", "val")
        assert sample.box == pytest.approx(box)
        assert sample.extra["expression"] == sentence
        assert sample.extra["mask_box_iou"] == pytest.approx(iou)
        assert sample.instruction.endswith(f"corresponding to the instruction: {sentence}.")
        assert sample.image_is_given and sample.kind == "single"
        (image,) = sample.images
        with Image.open(tmp_path / image) as opened:
            assert opened.size == sample.image_sizes[0]
    man, _, dog, cup = samples
    assert man.images == dog.images and man.cluster == dog.cluster != cup.cluster
    assert man.targets[0].mask == MAN["mask"]
    assert (man.extra["parts"], dog.extra["parts"]) == (1, 2)
    assert (dog.extra["release_id"], dog.extra["category"], dog.extra["label"]) == (
        *(8, "person", "left man"),
    )
    assert cup.source == {
        "file": "validation-00001-of-00002.parquet",
        "revision": "official",
        "row": 1,
        "images": ["COCO_train2014_000000000011.jpg"],
    }
    report = audit_samples(samples)
    assert not report.found
    assert report.notes == {"several_parts": 1}


@pytest.mark.parametrize("dialect", ["qwen2_vl", "pixels"])
def test_the_truth_written_by_a_dialect_is_wholly_right(release, tmp_path, dialect):
    samples = converted(open_refcoco_m(release, workspace=tmp_path / "refcoco_m"))
    writer = get_dialect(dialect)
    responses = [
        Response(writer.encode(s.box, image_wh=s.image_sizes[0]), image_sizes=s.image_sizes)
        for s in samples
    ]
    scores = score_samples(samples, responses, writer, protocol=get_protocol("univg"))
    (task,) = aggregate(scores)["tasks"].values()
    assert (task["n"], task["acc@0.9"]) == (4, 1.0)


def test_prepared_and_audited(release, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path / "data"))
    assert main(["prepare", "refcoco_m", "--source", str(release)]) == 0
    assert load_manifest("refcoco_m")["splits"] == {"val": 4}
    assert len({image for s in load_samples("refcoco_m") for image in s.images}) == 2
    assert main(["audit", "refcoco_m"]) == 0
    assert "Nothing found." in capsys.readouterr().out


def test_which_files(release, tmp_path):
    def ids(source: Path) -> list[str]:
        return [s.id for s in converted(open_refcoco_m(source, workspace=tmp_path / "w"))]

    assert ids(release / "data") == ids(release)
    second = release / "data" / "validation-00001-of-00002.parquet"
    assert ids(second) == ["refcoco_m-00000-0-0"]
    second.unlink()
    with pytest.raises(UserError, match=r"not the parts of one split, each once; .*RefCOCO-M"):
        ids(release)
    with pytest.raises(UserError, match=r"validation-\*\.parquet of RefCOCO-M .*moondream/refcoco"):
        ids(tmp_path)
    with pytest.raises(UserError, match="has the split val; received: test"):
        open_refcoco_m(release, workspace=tmp_path, splits=["test"])
    with pytest.raises(UserError, match="hold their photographs: leave --images out"):
        open_refcoco_m(release, workspace=tmp_path, images=tmp_path)
    other = tmp_path / "other.parquet"
    parquet.write_table(pa.table({"image_id": [1], "image": ["x"]}), other)
    with pytest.raises(UserError, match="is not of RefCOCO-M: it has no file_name, samples; its"):
        open_refcoco_m(other, workspace=tmp_path)
    columns = {"image_id": [1], "image": ["x"], "file_name": ["a"], "samples": [7.5]}
    parquet.write_table(pa.table(columns), other)
    with pytest.raises(UserError, match=r"samples of row 0 is 7\.5; expected a list of objects"):
        open_refcoco_m(other, workspace=tmp_path)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"sentences": []}, "invalid_row", r"row 0, object 1: field 'sentences' is \[\]; expected"),
        ({"sentences": None}, "invalid_row", "field 'sentences' is None; expected expressions"),
        ({"sentences": [" "]}, "invalid_row", "object 1: field 'sentences' is ' '; expected text"),
        ({"bbox": [60.0, 20.0, 42.0, 20.0]}, "invalid_row", "box inside its image of 100x50"),
        ({"bbox": [60.0, 20.0, -2.0, 20.0]}, "invalid_row", "box inside its image of 100x50"),
        ({"bbox": [60.0, 20.0]}, "invalid_row", "expected four numbers x, y, width, height"),
        ({"mask": None}, "invalid_mask", "field 'mask': the mask is None; expected run lengths"),
        ({"mask": {"counts": "0", "size": [50, 100]}}, "invalid_mask", "they add up to 0, not"),
        ({"mask": mask(SMALL, (0, 0, 9, 9))}, "size_mismatch", "the mask is 80x40 pixels, its im"),
        ({"mask": mask(WIDE)}, "no_visible_object", "object 1: the mask has no pixel; expected an"),
    ],
)
def test_a_faulty_object_is_named_and_the_others_are_kept(tmp_path, changes, kind, message):
    source = write(tmp_path, [row(9, photograph(WIDE, 20), MAN, DOG | changes, DOG)])
    first, faulty, last = open_refcoco_m(source, workspace=tmp_path / "w").items
    with pytest.raises(ItemError, match=message) as caught:
        faulty.convert()
    assert caught.value.kind == kind
    assert [item.convert()[0].id for item in (first, last)] == [
        "refcoco_m-00000-0-0",
        "refcoco_m-00000-2-0",
    ]


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"image": None}, "missing_image", "row 0, object 0: field 'image' holds no image"),
        (
            {"image": {"bytes": b"GIF89a", "path": None}},
            "unreadable_image",
            "field 'image' begins with b'GIF8'; expected the bytes of a JPEG or PNG",
        ),
        ({"file_name": ""}, "invalid_row", "object 0: field 'file_name' is ''; expected text"),
    ],
)
def test_a_faulty_row(tmp_path, changes, kind, message):
    source = write(tmp_path, [row(9, photograph(WIDE, 20), MAN) | changes])
    (item,) = open_refcoco_m(source, workspace=tmp_path / "w").items
    with pytest.raises(ItemError, match=message) as caught:
        item.convert()
    assert caught.value.kind == kind


def test_a_row_without_objects_makes_no_sample_and_takes_a_number(tmp_path):
    rows = [row(9, photograph(WIDE, 20)), row(11, photograph(SMALL, 200), CUP)]
    source = write(tmp_path, rows)
    (sample,) = converted(open_refcoco_m(source, workspace=tmp_path / "w"))
    assert sample.id == "refcoco_m-00001-0-0"
