"""GroundingME, read from small Parquet files in its released form, to the oracle's score."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import lmms_data
import pytest
from PIL import Image
from release_still import converted

from univg_eval.benchmarks.readers.common.release import ItemError
from univg_eval.benchmarks.readers.groundingme import open_groundingme
from univg_eval.cli import main
from univg_eval.errors import UserError
from univg_eval.images.reading import open_images
from univg_eval.samples import load_manifest

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

STREET, SHELF, HALL = (200, 100), (64, 48), (50, 80)
SHADES = {STREET: "navy", SHELF: "olive", HALL: "teal"}


def encoded(size: tuple[int, int]) -> bytes:
    """A photograph of that size; one of the three is a PNG."""
    data = io.BytesIO()
    Image.new("RGB", size, SHADES[size]).save(data, "PNG" if size == HALL else "JPEG")
    return data.getvalue()


def row(number: int, size: tuple[int, int], text: str, l1: str, l2: str, box: Any) -> dict:
    return {
        "id": number,
        "description": text,
        "image": {"bytes": encoded(size), "path": f"{number}.jpg"},
        "bbox": box,
        "detection_type": "cup",
        "subtask_l1": l1,
        "subtask_l2": l2,
        "width": size[0],
        "height": size[1],
    }


ROWS = [
    row(
        3,
        STREET,
        "The red car. It is left of the van.",
        "Spatial",
        "Relationship",
        [20, 10, 60, 90],
    ),
    row(1, SHELF, "The cup with the longer handle", "Discriminative", "Component", [0, 12, 32, 48]),
    row(8, STREET, "The only bus without a number.", "Rejection", "Text", None),
    row(4, HALL, "The key behind the vase. ", "Limited", "Occlusion", [10, 20, 60, 40]),
    row(9, SHELF, "The cup on the floor.", "Rejection", "State", [0, 0, 0, 0]),
]
# By hand: STREET by 200 and 100, SHELF by 64 and 48, HALL by 50 and 80, beyond which one box goes.
BOXES = [(0.1, 0.1, 0.3, 0.9), (0.0, 0.25, 0.5, 1.0), None, (0.2, 0.25, 1.2, 0.5), None]
SCHEMA = pa.schema(
    {
        "id": pa.int64(),
        "description": pa.string(),
        "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        "bbox": pa.list_(pa.int64()),
        "detection_type": pa.string(),
        "subtask_l1": pa.string(),
        "subtask_l2": pa.string(),
        "width": pa.int64(),
        "height": pa.int64(),
    }
)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows, SCHEMA), path, row_group_size=2)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_release(tmp_path / "GroundingME")


def write_release(folder: Path) -> Path:
    """The release: two files, of which the first has two row groups."""
    for number, rows in enumerate((ROWS[:3], ROWS[3:])):
        write(folder / "data" / f"test-{number:05d}-of-00002.parquet", rows)
    return folder


def opened(source: Path, tmp_path: Path, **options: Any) -> Any:
    return open_groundingme(source, workspace=tmp_path / "root" / "groundingme", **options)


# What a row means


def test_every_row_is_a_sample(source, tmp_path):
    release = opened(source, tmp_path)
    assert (release.benchmark, release.links) == ("groundingme", {})
    assert [item.key for item in release.items] == [f"{n:05d}" for n in range(5)]
    samples = converted(release)
    for number, (sample, true, box) in enumerate(zip(samples, ROWS, BOXES, strict=True)):
        assert sample.id == f"groundingme-{number:05d}"
        assert (sample.benchmark, sample.split) == ("groundingme", "test")
        assert sample.image_sizes == [(true["width"], true["height"])]
        assert [target.box for target in sample.targets] == (
            [] if box is None else [pytest.approx(box, abs=1e-12)]
        )
        assert (sample.image_is_given, sample.find_all) == (True, False)
        assert sample.extra == {
            "expression": true["description"],
            "subtask_l2": true["subtask_l2"],
            "detection_type": "cup",
            "release_id": true["id"],
        }
        (image,) = open_images(sample, root=tmp_path / "root")
        assert image.size == (true["width"], true["height"])
    assert [sample.task for sample in samples] == [
        *("spatial", "discriminative", "rejection", "limited", "rejection")
    ]
    assert [(s.source["file"], s.source["row"]) for s in samples[2:4]] == [
        ("test-00000-of-00002.parquet", 2),
        ("test-00001-of-00002.parquet", 3),
    ]


def test_rows_on_one_image_share_its_file_and_cluster(source, tmp_path):
    street, shelf, again, hall, below = converted(opened(source, tmp_path))
    assert street.cluster == again.cluster and shelf.cluster == below.cluster
    assert len({sample.cluster for sample in (street, shelf, hall)}) == 3
    files = [path for path in (tmp_path / "root").rglob("*") if path.is_file()]
    assert sorted(path.suffix for path in files) == [".jpg", ".jpg", ".png"]
    assert {path.read_bytes() for path in files} == {encoded(size) for size in SHADES}


def test_the_instruction_allows_none_and_ends_once(source, tmp_path):
    samples = converted(opened(source, tmp_path))
    assert samples[0].instruction == (
        "Output the bounding box in the image corresponding to the instruction: The red car. It is "
        "left of the van. If there is no such object, answer: none."
    )
    for sample, text in ((samples[1], "longer handle"), (samples[3], "behind the vase")):
        assert f"{text}. If there is no such object" in sample.instruction


def test_where_the_files_may_lie(source, tmp_path):
    data = source / "data"
    expected = converted(opened(source, tmp_path))
    assert converted(opened(data, tmp_path, splits=["test"])) == expected
    one = write(tmp_path / "one" / "test.parquet", ROWS)
    assert [s.targets for s in converted(opened(one, tmp_path))] == [s.targets for s in expected]
    assert len(opened(data / "test-00001-of-00002.parquet", tmp_path).items) == 2
    assert len(opened(one.parent, tmp_path).items) == 5


# Refused as a whole


def test_refused_settings(source, tmp_path):
    with pytest.raises(UserError, match="'groundingme' has the split test; received: train"):
        opened(source, tmp_path, splits=["train"])
    with pytest.raises(UserError, match="hold their images; leave --images out"):
        opened(source, tmp_path, images=source)


def test_files_that_are_not_there(source, tmp_path):
    with pytest.raises(UserError, match=r"none does not exist; expected test-\*\.parquet of Groun"):
        opened(tmp_path / "none", tmp_path)
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty" / "train-00000-of-00001.parquet", ROWS)
    with pytest.raises(UserError, match=r"has: train-0.*; expected .*come from https://huggingfac"):
        opened(tmp_path / "empty", tmp_path)
    (source / "data" / "test-00000-of-00002.parquet").unlink()
    with pytest.raises(
        UserError, match=r"are not the parts of one split.*download GroundingME aga"
    ):
        opened(source, tmp_path)


def test_files_that_are_no_parquet_or_of_another_set(source, tmp_path):
    cut = source / "data" / "test-00001-of-00002.parquet"
    cut.write_bytes(cut.read_bytes()[:-50])
    with pytest.raises(UserError, match=r"cannot read .*test-00001.* as Parquet.*download it aga"):
        opened(source, tmp_path)
    for lost in ("subtask_l1", "image"):
        other = tmp_path / f"no_{lost}.parquet"
        parquet.write_table(pa.Table.from_pylist(ROWS, SCHEMA).drop_columns([lost]), other)
        with pytest.raises(UserError, match=f"not of GroundingME: it has no {lost}; its columns"):
            opened(other, tmp_path)


# Faulty rows


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"description": " "}, "invalid_row", "field 'description' is ' '; expected text"),
        ({"description": None}, "invalid_row", "field 'description' is None"),
        (
            {"subtask_l1": "rejection"},
            "invalid_row",
            "'subtask_l1' is 'rejection'; expected one of: Discriminative, Spatial, Limited, Rej",
        ),
        ({"subtask_l1": None}, "invalid_row", "'subtask_l1' is None"),
        ({"bbox": None}, "invalid_row", "'bbox' is None; expected four numbers x1, y1, x2, y2 in"),
        ({"bbox": [1, 2, 3]}, "invalid_row", r"'bbox' is \[1, 2, 3\]"),
        ({"image": None}, "missing_image", "field 'image' holds no image"),
        ({"image": {"bytes": None, "path": "a"}}, "missing_image", "field 'image' holds no image"),
        (
            {"image": {"bytes": b"RIFF....WEBP", "path": "a"}},
            "unreadable_image",
            "field 'image' begins with b'RIFF'; expected the bytes of a JPEG or PNG",
        ),
        ({"image": {"bytes": b"\xff\xd8\xff no", "path": "a"}}, "unreadable_image", "as an image"),
        (
            {"width": 48, "height": 64},
            "size_mismatch",
            "field 'image' is 64x48 pixels, the row says 48x64; give the images as they are",
        ),
        ({"width": None}, "size_mismatch", "the row says Nonex48"),
    ],
)
def test_a_faulty_row_is_named_and_the_others_kept(tmp_path, fields, kind, message):
    path = write(tmp_path / "test.parquet", [ROWS[0], ROWS[1] | fields, ROWS[3]])
    first, middle, last = opened(path, tmp_path).items
    with pytest.raises(ItemError, match=message) as caught:
        middle.convert()
    assert caught.value.kind == kind
    assert "image" in message or str(caught.value).startswith("test.parquet row 1: ")
    assert (first.convert()[0].id, last.convert()[0].id) == (
        "groundingme-00000",
        "groundingme-00002",
    )


def test_a_column_of_another_type(tmp_path):
    path = tmp_path / "test.parquet"
    parquet.write_table(pa.Table.from_pylist([ROWS[0] | {"subtask_l2": 7}]), path)
    (item,) = opened(path, tmp_path).items
    with pytest.raises(ItemError, match="field 'subtask_l2' is 7; expected text"):
        item.convert()


# The whole way


def test_prepared_audited_and_answered(source, tmp_path, monkeypatch, capsys):
    pytest.importorskip("lmms_eval")
    lmms_data.set_environment(monkeypatch, tmp_path / "data")
    command = ["prepare", "groundingme", "--source", str(source)]
    assert main(command) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "test: 5 expressions; its authors state 1005" in printed
    assert "invalid_box 1" in printed
    assert main(["audit", "groundingme", "--json"]) == 3
    report = json.loads(capsys.readouterr().out)
    found = {f["kind"]: [row["id"] for row in f["rows"]] for f in report["findings"]}
    assert found == {"invalid_box": ["groundingme-00003"]}  # as released
    assert report["notes"] == {"no_object": 2}
    assert (report["n_images"], report["images_read"]) == (3, "decoded")
    assert main(command) == 0
    assert load_manifest("groundingme")["fingerprint"] == report["fingerprint"]

    from univg_eval.lmms.run import evaluate

    results = evaluate("univg_baseline", "kind=oracle", ["univg_groundingme"]).results["results"]
    metrics = results["univg_groundingme"]
    for name in ("score", "acc@0.9", "miou", "no_target_acc"):
        assert metrics[f"{name},none"] == 1.0, name
