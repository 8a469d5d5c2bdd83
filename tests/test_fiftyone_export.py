"""The dataset for FiftyOne: its documents fit its own schema, boxes and files are the right ones.

FiftyOne itself is no dependency. That it imports such a folder was seen with its versions 1.0.0 and
1.22.1, on an in-memory MongoDB; what it asks of the documents is checked here.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import make_sample
from PIL import Image
from run_records import record_of

from univg_eval.cli import failures as failures_command
from univg_eval.cli import main
from univg_eval.errors import UserError
from univg_eval.images.reading import load_image
from univg_eval.report import fiftyone_export
from univg_eval.report.fiftyone_export import FiftyOneExport, export_fiftyone
from univg_eval.report.run_data import collect
from univg_eval.runs.record import write_run
from univg_eval.samples import GroundingSample, Target, write_benchmark

SIZES = {"a": (64, 48), "b": (32, 24), "turned": (24, 32), "scan": (16, 12)}


def own_sample(number: int, **changes: Any) -> GroundingSample:
    values: dict[str, Any] = {
        "images": ("toy/images/a.png", "toy/images/b.png"),
        "widths": (64, 32),
        "heights": (48, 24),
        "targets": (Target(image=1, box=(0.1, 0.2, 0.3, 0.6)),),
    }
    return make_sample(number, **(values | changes))


SAMPLES = [
    own_sample(0),
    own_sample(1, image_is_given=False, widths=(64, 64), heights=(48, 48)),
    own_sample(2, targets=(), images=("toy/images/a.png",), widths=(64,), heights=(48,)),
    own_sample(3, images=("toy/images/turned.jpg", "toy/images/scan.tif"), extra={"label": "cup"}),
    own_sample(4, images=("toy/images/missing.png", "toy/images/cut.png")),
    own_sample(5, targets=(Target(0, (0.0, 0.0, 0.5, 0.5)), Target(1, (0.5, 0.5, 1.0, 1.0)))),
]
RIGHT = "[100, 200, 300, 600]"
TEXTS: dict[str, str | None] = {
    "toy-00000": RIGHT,
    "toy-00001": "In the first image: [500, 500, 750, 1000]",
    "toy-00002": "There is no such object.",
    "toy-00003": "<think>\ud800 it is there</think> [0, 0, 1000, 1000]",
    "toy-00004": None,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    images = root / "toy" / "images"
    images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    pictures = {
        name: Image.fromarray(rng.integers(0, 255, (h, w, 3), dtype=np.uint8))
        for name, (w, h) in SIZES.items()
    }
    pictures["a"].save(images / "a.png")
    pictures["b"].save(images / "b.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, shown upright
    pictures["turned"].save(images / "turned.jpg", exif=exif)
    pictures["scan"].save(images / "scan.tif")
    whole = (images / "a.png").read_bytes()
    (images / "cut.png").write_bytes(whole[: len(whole) // 2])
    write_benchmark(SAMPLES, benchmark="toy", root=root)
    return root


def records() -> list[Any]:
    return [
        record_of(SAMPLES, TEXTS, label="base model"),
        record_of(SAMPLES, {"toy-00000": "[0, 0, 50, 50]"}, label="other"),
    ]


@pytest.fixture(scope="module")
def exported(root: Path, tmp_path_factory: pytest.TempPathFactory) -> FiftyOneExport:
    folder = tmp_path_factory.mktemp("out") / "deep" / "dataset"
    return export_fiftyone(collect(records(), root=root), folder, root=root)


def documents(export: FiftyOneExport) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((export.folder / "samples.json").read_text())["samples"]
    return rows


def by_place(export: FiftyOneExport) -> dict[tuple[str, int], dict[str, Any]]:
    return {(row["question_id"], row["image_number"]): row for row in documents(export)}


def test_one_sample_an_image_of_each_question_that_was_asked(exported: FiftyOneExport) -> None:
    rows = documents(exported)
    assert exported.n_questions == 5  # the sixth was asked by no run
    assert exported.n_samples == len(rows) == 2 + 2 + 1 + 2 + 2
    assert Counter(row["question_id"] for row in rows if row["is_main"]) == {
        f"toy-{i:05d}": 1 for i in range(5)
    }
    assert len({row["_id"]["$oid"] for row in rows}) == len(rows)
    assert all(re.fullmatch(r"[0-9a-f]{24}", row["_id"]["$oid"]) for row in rows)
    assert all(0 <= row["_rand"] < 1 for row in rows)


def declared(fields: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    names = [field["db_field"] for field in fields]
    assert len(set(names)) == len(names)
    return {field["db_field"]: field for field in fields}


PYTHON_TYPES: Mapping[str, tuple[type, ...]] = {
    "StringField": (str,),
    "IntField": (int,),
    "FloatField": (float,),
    "BooleanField": (bool,),
    "ListField": (list,),
    "DictField": (dict,),
    "ObjectIdField": (dict,),
    "EmbeddedDocumentField": (dict,),
}


def check(document: Mapping[str, Any], fields: list[dict[str, Any]]) -> None:
    """Every value is declared, and of the declared type."""
    schema = declared(fields)
    for name, value in document.items():
        if name == "_cls":
            continue
        field = schema[name]
        kind = field["ftype"].rpartition(".")[2]
        assert value is None or type(value) in PYTHON_TYPES[kind], (name, value)
        if kind == "EmbeddedDocumentField" and value is not None:
            assert value["_cls"] == field["embedded_doc_type"].rpartition(".")[2]
            check(value, field["fields"])
        elif kind == "ListField" and field["embedded_doc_type"]:
            for item in value:
                assert item["_cls"] == field["embedded_doc_type"].rpartition(".")[2]
                check(item, field["fields"])


def test_every_value_is_declared_with_its_type(exported: FiftyOneExport) -> None:
    dataset = json.loads((exported.folder / "metadata.json").read_text())
    assert dataset["version"] == "1.0.0"
    assert dataset["media_type"] == "image"
    schema = declared(dataset["sample_fields"])
    for row in documents(exported):
        check(row, dataset["sample_fields"])
        # FiftyOne sets these three when it imports.
        assert set(schema) - set(row) == {"created_at", "last_modified_at", "_dataset_id"}
    assert [run["field"] for run in dataset["info"]["runs"]] == ["run_base_model", "run_other"]
    assert exported.run_fields == {"base model": "run_base_model", "other": "run_other"}


def test_boxes_are_corner_and_size_on_their_image(exported: FiftyOneExport) -> None:
    rows = by_place(exported)
    (truth,) = rows["toy-00000", 2]["ground_truth"]["detections"]
    assert truth["bounding_box"] == pytest.approx([0.1, 0.2, 0.2, 0.4])
    assert truth["label"] == "object"
    assert rows["toy-00000", 1]["ground_truth"] is None
    (found,) = rows["toy-00000", 2]["run_base_model"]["detections"]
    assert found["bounding_box"] == pytest.approx([0.1, 0.2, 0.2, 0.4])
    assert (found["iou"], found["status"], found["failure"]) == (1.0, "ok", None)
    (missed,) = rows["toy-00000", 2]["run_other"]["detections"]
    assert missed["failure"] == "elsewhere"
    # The box lies on the image that the response names, its failure with the true box.
    (elsewhere,) = rows["toy-00001", 1]["run_base_model"]["detections"]
    assert elsewhere["bounding_box"] == pytest.approx([0.5, 0.5, 0.25, 0.5])
    assert rows["toy-00001", 2]["run_base_model"] is None
    assert rows["toy-00001", 2]["run_base_model_failure"] == "wrong_image"
    assert rows["toy-00001", 1]["run_base_model_failure"] is None
    # A name that the benchmark gives is the label of both, so that classes agree.
    assert rows["toy-00003", 2]["ground_truth"]["detections"][0]["label"] == "cup"
    assert rows["toy-00003", 2]["run_base_model"]["detections"][0]["label"] == "cup"


def test_results_stand_once_a_question(exported: FiftyOneExport) -> None:
    rows = documents(exported)
    for part in ("iou", "status", "failure", "hints", "response"):
        on_others = {row[f"run_base_model_{part}"] for row in rows if not row["is_main"]}
        assert on_others == {None}
    main_rows = {row["question_id"]: row for row in rows if row["is_main"]}
    assert {name: row["run_base_model_status"] for name, row in main_rows.items()} == {
        "toy-00000": "ok",
        "toy-00001": "ok",
        "toy-00002": "none",
        "toy-00003": "ok",
        "toy-00004": "no_box",
    }
    assert main_rows["toy-00003"]["run_base_model_failure"] == "loose"
    # MongoDB takes no half of a surrogate pair.
    assert main_rows["toy-00003"]["run_base_model_response"] == (
        "<think>\N{REPLACEMENT CHARACTER} it is there</think> [0, 0, 1000, 1000]"
    )
    assert main_rows["toy-00004"]["run_base_model_response"] is None
    # The second run was asked one question.
    assert [name for name, row in main_rows.items() if row["run_other_status"]] == ["toy-00000"]


def test_images_are_those_of_the_questions_upright(
    exported: FiftyOneExport, root: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(exported.folder, tmp_path / "moved"))
    samples = {sample.id: sample for sample in SAMPLES}
    for row in documents(exported):
        assert not Path(row["filepath"]).is_absolute()
        with Image.open(moved / row["filepath"]) as image:
            image.load()
            assert image.getexif().get(0x0112, 1) == 1
            assert image.size == (row["metadata"]["width"], row["metadata"]["height"])
            assert image.format is not None
            assert row["metadata"]["mime_type"] == f"image/{image.format.lower()}"
            pixels = np.asarray(image.convert("RGB"))
        assert row["metadata"]["size_bytes"] == (moved / row["filepath"]).stat().st_size
        if row["image_error"] is None:
            source = root / samples[row["question_id"]].images[row["image_number"] - 1]
            assert np.array_equal(pixels, np.asarray(load_image(source)))


def test_images_that_cannot_be_read_are_told_and_stand_in(exported: FiftyOneExport) -> None:
    assert set(exported.unreadable) == {"toy/images/missing.png", "toy/images/cut.png"}
    assert "does not exist" in exported.unreadable["toy/images/missing.png"]
    bad = [row for row in documents(exported) if row["image_error"]]
    assert [(row["question_id"], row["image_number"]) for row in bad] == [
        ("toy-00004", 1),
        ("toy-00004", 2),
    ]
    assert all("image_unreadable" in row["tags"] for row in bad)
    assert [(row["metadata"]["width"], row["metadata"]["height"]) for row in bad] == [
        (64, 48),
        (32, 24),
    ]
    assert bad[1]["ground_truth"] is not None  # the box can still be seen


def test_an_image_that_many_questions_share_is_stored_once(exported: FiftyOneExport) -> None:
    rows = by_place(exported)
    assert rows["toy-00000", 1]["filepath"] == rows["toy-00002", 1]["filepath"]
    files = [path for path in (exported.folder / "data").rglob("*") if path.is_file()]
    assert len(files) == 4 + 2  # four pictures and two grey ones


def test_two_exports_are_the_same(exported: FiftyOneExport, root: Path, tmp_path: Path) -> None:
    again = export_fiftyone(collect(records(), root=root), tmp_path / "again", root=root)
    first = (exported.folder / "samples.json").read_bytes()
    assert (again.folder / "samples.json").read_bytes() == first


def test_runs_whose_names_give_the_same_fields_are_told_apart(root: Path, tmp_path: Path) -> None:
    labels = ["a", "a?", "a iou", "模型", "my.model $1"]
    runs = [record_of(SAMPLES, {"toy-00000": RIGHT}, label=label) for label in labels]
    export = export_fiftyone(collect(runs, root=root), tmp_path / "d", root=root)
    assert export.run_fields == {
        "a": "run_a",
        "a?": "run_a_2",
        "a iou": "run_a_iou_2",
        "模型": "run_D",
        "my.model $1": "run_my_model_1",
    }
    dataset = json.loads((export.folder / "metadata.json").read_text())
    names = declared(dataset["sample_fields"])  # no name twice
    assert all(re.fullmatch(r"[A-Za-z0-9_]+", name) for name in names)


def test_a_folder_with_something_in_it_is_left_alone(root: Path, tmp_path: Path) -> None:
    data = collect(records(), root=root)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="exists and is not empty; choose another folder"):
        export_fiftyone(data, tmp_path, root=root)
    with pytest.raises(UserError, match="exists and is not empty"):
        export_fiftyone(data, tmp_path / "mine.txt", root=root)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    assert export_fiftyone(data, tmp_path / "empty", root=root).n_questions == 5


def test_nothing_stays_of_an_export_that_fails(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object) -> Iterator[Any]:
        raise RuntimeError("broken")

    monkeypatch.setattr(fiftyone_export, "_dataset", breaks)
    with pytest.raises(RuntimeError, match="broken"):
        export_fiftyone(collect(records(), root=root), tmp_path / "d", root=root)
    assert list(tmp_path.iterdir()) == []
    assert (root / "toy" / "images" / "a.png").is_file()


def test_a_full_disk_is_told_and_leaves_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fiftyone_export.os, "link", no_room)
    monkeypatch.setattr(fiftyone_export.shutil, "copyfile", no_room)
    with pytest.raises(UserError, match=r"cannot write a dataset into .*: No space left on device"):
        export_fiftyone(collect(records(), root=root), tmp_path / "d", root=root)
    assert list(tmp_path.iterdir()) == []


def test_files_are_copied_where_they_cannot_be_linked(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_file_system(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(fiftyone_export.os, "link", other_file_system)
    export = export_fiftyone(collect(records(), root=root), tmp_path / "d", root=root)
    copy = export.folder / by_place(export)["toy-00000", 1]["filepath"]
    source = root / "toy" / "images" / "a.png"
    assert copy.read_bytes() == source.read_bytes()
    assert not copy.samefile(source)


def test_pictures_of_one_name_in_several_folders_stay_apart(tmp_path: Path) -> None:
    names = ("toy/a/x.png", "toy/b/x.png", "toy/b/X.png", "toy/ünï $1/图 片.png", "toy/b/x_2.png")
    samples = []
    for i, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20 + i, 10)).save(tmp_path / name)
        samples.append(
            own_sample(
                i,
                images=(name,),
                widths=(20 + i,),
                heights=(10,),
                targets=(Target(0, (0.1, 0.2, 0.3, 0.6)),),
            )
        )
    write_benchmark(samples, benchmark="toy", root=tmp_path)
    run = record_of(samples, {sample.id: RIGHT for sample in samples})
    export = export_fiftyone(collect([run], root=tmp_path), tmp_path / "out", root=tmp_path)
    paths = [row["filepath"] for row in documents(export)]
    # Some file systems take x.png and X.png for one file.
    assert len({path.lower() for path in paths}) == len(names)
    for i, path in enumerate(paths):
        with Image.open(export.folder / path) as image:
            assert image.size == (20 + i, 10)


def test_frames_of_a_film_become_pictures(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="films need the package av")
    (tmp_path / "toy").mkdir()
    with av.open(str(tmp_path / "toy" / "clip.mp4"), mode="w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for value in (0, 100, 200):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), value, np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    sample = own_sample(
        0,
        images=("toy/clip.mp4#frame=0", "toy/clip.mp4#frame=2"),
        widths=(64, 64),
        heights=(48, 48),
    )
    write_benchmark([sample], benchmark="toy", root=tmp_path)
    data = collect([record_of([sample], {sample.id: RIGHT})], root=tmp_path)
    export = export_fiftyone(data, tmp_path / "out", root=tmp_path)
    means = []
    for row in documents(export):
        with Image.open(export.folder / row["filepath"]) as image:
            means.append(float(np.asarray(image.convert("RGB")).mean()))
    assert means == [pytest.approx(0, abs=8), pytest.approx(200, abs=8)]


# --- commands ------------------------------------------------------------


@pytest.fixture
def run_folders(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("UNIVG_DATA", str(root))
    folders = []
    for record in records():
        name = record.label.split()[0]
        write_run(
            tmp_path / name,
            manifest=record.manifest,
            responses=record.responses,
            scores=record.scores,
        )
        folders.append(f"{name}={tmp_path / name}")
    return folders


def test_report_writes_the_dataset(
    run_folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["report", *run_folders, "-o", str(tmp_path / "r.html"), "--images", "none"]
    assert main([*arguments, "--fiftyone", str(tmp_path / "fo")]) == 0
    out = capsys.readouterr().out
    assert "a dataset for FiftyOne, 5 questions, 9 images of them" in out
    assert "grey pictures stand in for 2 images that cannot be read" in out
    assert (tmp_path / "fo" / "metadata.json").is_file()
    # A second time, nothing is written at all.
    (tmp_path / "r.html").unlink()
    assert main([*arguments, "--fiftyone", str(tmp_path / "fo")]) == 2
    assert "exists and is not empty" in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


def test_failures_in_the_terminal_and_for_scripts(
    run_folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out_file = tmp_path / "misses.jsonl"
    assert main(["failures", *run_folders, "--out", str(out_file)]) == 0
    out = capsys.readouterr().out
    assert "base on toy: 3 of 5 are misses at IoU 0.5" in out
    assert "other on toy: 1 of 1 are misses at IoU 0.5" in out
    assert "loose: The box covers the object and is too large." in out
    assert "tight:" not in out  # only classes that occur
    lines = [json.loads(line) for line in out_file.read_text(encoding="utf-8").splitlines()]
    assert [(line["run"], line["id"], line["kind"]) for line in lines] == [
        ("base", "toy-00001", "wrong_image"),
        ("base", "toy-00003", "loose"),
        ("base", "toy-00004", "no_box"),
        ("other", "toy-00000", "elsewhere"),
    ]
    assert main(["failures", *run_folders, "--json", "--threshold", "1"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [run["label"] for run in result["runs"]] == ["base", "other"]
    assert result["runs"][0]["total"]["kinds"]["wrong_image"] == 1
    assert result["runs"][0]["other_reading"] is None
    assert "elsewhere" in result["classes"]


def test_tables_fit_a_narrow_terminal_and_lose_no_figure(
    run_folders: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def tables() -> list[list[str]]:
        """The head of each table and, below, its row of all tasks, by words."""
        out = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
        rows = [line.split() for line in out.splitlines()]
        return [row for row in rows if row[:1] in (["task"], ["all"])]

    monkeypatch.setenv("COLUMNS", "60")
    assert main(["failures", run_folders[0]]) == 0  # a pipe
    assert tables() == [
        ["task", "n", "misses", "wrong_image", "no_box", "loose"],
        ["all", "5", "3", "1", "1", "1"],
    ]
    monkeypatch.setenv("FORCE_COLOR", "1")  # for Rich that is a terminal
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(failures_command, "NARROWEST", 40)
    assert main(["failures", run_folders[0]]) == 0
    found = tables()
    assert found[0::2] == [
        ["task", "n", "misses", "wrong_image"],
        ["task", "n", "misses", "no_box", "loose"],
    ]
    assert found[1::2] == [["all", "5", "3", "1"], ["all", "5", "3", "1", "1"]]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--threshold", "nan"], "threshold is nan; expected an IoU above 0"),
        (["--threshold", "0"], "threshold is 0.0; expected an IoU above 0"),
        (["--out", "."], "is no regular file"),
    ],
)
def test_failures_tells_wrong_arguments(
    run_folders: list[str], extra: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["failures", run_folders[0], *extra]) == 2
    assert message in capsys.readouterr().err


def test_failures_needs_the_benchmark(
    run_folders: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path / "nothing"))
    assert main(["failures", run_folders[0]]) == 2
    assert "benchmark 'toy' is not prepared" in capsys.readouterr().err
