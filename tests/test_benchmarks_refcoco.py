"""RefCOCO in its public forms: every form means the same samples, and wrong ones are refused."""

from __future__ import annotations

import itertools
import json
import pickle
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import lmms_data
import pytest
import refcoco_forms
from refcoco_forms import OBJECTS, SIZES, WRITERS, Object, each

from univg_eval.benchmarks.readers.common.release import ItemError, Release
from univg_eval.benchmarks.readers.refcoco import EXPRESSIONS, FORMS, open_refcoco
from univg_eval.cli import main
from univg_eval.errors import UserError
from univg_eval.images.reading import open_images
from univg_eval.samples import GroundingSample, fingerprint, load_manifest, load_samples

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
DOC = lmms_data.REPO / "docs" / "refcoco.md"


@pytest.fixture(scope="module")
def train2014(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return refcoco_forms.photographs(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("forms")
    return {form: write(folder / form) for form, write in WRITERS.items()}


def convert(release: Release) -> list[GroundingSample]:
    return [sample for item in release.items for sample in item.convert()]


def open_form(form: str, releases: dict[str, Path], train2014: Path, **changes: Any) -> Release:
    return open_refcoco(releases[form], **({"form": form, "images": train2014} | changes))


# What every form means


@pytest.mark.parametrize("form", FORMS)
def test_every_form_means_the_same_samples(form, releases, train2014):
    release = open_form(form, releases, train2014)
    samples = convert(release)
    truth = [(split, o, text) for split, rows in OBJECTS.items() for o, text in each(rows)]
    assert len(samples) == len(truth) == 10
    assert len({sample.id for sample in samples}) == 10
    for sample, (split, o, text) in zip(samples, truth, strict=True):
        assert (sample.benchmark, sample.task, sample.split) == (
            "refcoco",
            f"refcoco_{split}",
            split,
        )
        assert sample.image_sizes == [SIZES[o.photograph]]
        assert sample.images == (f"refcoco/images/{o.name}",)
        assert sample.box == pytest.approx(o.norm, abs=1e-7)
        assert sample.extra["expression"] == text
        assert sample.instruction.endswith(f"corresponding to the instruction: {text}.")
        assert sample.cluster == f"refcoco-{Path(o.name).stem}"
        assert sample.source["revision"] == form
        assert sample.has_valid_targets
        assert sample.image_is_given
    assert release.source["expressions"]["testA"] == {"found": 3, "reported": 5657}


@pytest.mark.parametrize("form", FORMS)
def test_ids_are_the_rows_of_a_split(form, releases, train2014):
    samples = convert(open_form(form, releases, train2014))
    ids = [sample.id for sample in samples]
    if FORMS[form].kind == "parquet":
        assert ids[:4] == [f"refcoco-val-0000{k}" for k in ("0-0", "0-1", "1-0", "2-0")]
        assert ids[-1] == "refcoco-testB-00000-0"
    else:
        assert ids[:2] == ["refcoco-val-00000", "refcoco-val-00001"]
        assert ids[-4:-1] == [f"refcoco-testA-0000{k}" for k in range(3)]
    chosen = convert(open_form(form, releases, train2014, splits=["testB", "testA"]))
    assert chosen == samples[-4:]


def test_embedded_images_are_written_once(releases, tmp_path):
    workspace = tmp_path / "refcoco"
    release = open_refcoco(releases["lmms_lab"], form="lmms_lab", workspace=workspace)
    assert release.links == {}
    samples = convert(release)
    files = [path for path in workspace.rglob("*") if path.is_file()]
    assert len(files) == len(SIZES)
    assert {tmp_path / sample.images[0] for sample in samples} == set(files)
    assert all(re.fullmatch(r"refcoco/embedded/../[0-9a-f]{40}\.jpg", s.images[0]) for s in samples)
    truth = [o for rows in OBJECTS.values() for o, _ in each(rows)]
    for sample, o in zip(samples, truth, strict=True):
        (image,) = open_images(sample, root=tmp_path)
        assert image.size == sample.image_sizes[0] == SIZES[o.photograph]
    written = {path: path.stat().st_mtime_ns for path in files}
    assert fingerprint(convert(release)) == fingerprint(samples)
    assert {path: path.stat().st_mtime_ns for path in files} == written
    # The photograph makes the cluster, not where its file lies.
    assert len({sample.cluster for sample in samples}) == len(SIZES)


def test_one_file_and_its_split(releases, train2014, tmp_path):
    file = releases["shikra"] / "REC_refcoco_unc_testA.jsonl"
    options = {"form": "shikra", "images": train2014}
    assert {s.split for s in convert(open_refcoco(file, **options))} == {"testA"}
    own = Path(shutil.copy(file, tmp_path / "people.jsonl"))
    with pytest.raises(UserError, match=r"does not name its split.*--split"):
        open_refcoco(own, **options)
    assert {s.split for s in convert(open_refcoco(own, splits=["testA"], **options))} == {"testA"}
    with pytest.raises(UserError, match=r"split 'testA' of refcoco .* expected testB"):
        open_refcoco(file, splits=["testB"], **options)
    with pytest.raises(UserError, match=r"testA.* of refcoco .* expected .* of refcoco\+"):
        open_refcoco(file, dataset="refcoco+", **options)


def test_the_plus_and_g_sets_are_benchmarks_of_their_own(tmp_path, train2014):
    plus = refcoco_forms.write_shikra(tmp_path / "plus", dataset="refcoco+")
    sample = convert(open_refcoco(plus, form="shikra", images=train2014, dataset="refcoco+"))[0]
    assert (sample.id, sample.benchmark) == ("refcoco_plus-val-00000", "refcoco_plus")
    objects = {"val": OBJECTS["val"], "test": OBJECTS["testA"]}
    names = {"val": "validation", "test": "test"}
    umd = refcoco_forms.write_jxu124(tmp_path / "umd", objects, names)
    samples = convert(open_refcoco(umd, form="jxu124", images=train2014, dataset="refcocog"))
    assert {s.split for s in samples} == {"val", "test"}
    assert samples[-1].id == "refcocog-test-00000-2"


# Refused as a whole


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": None}, r"no form is given.*never guessed.*lmms_lab \(Hub"),
        ({"form": "coco"}, "unknown form 'coco'"),
        ({"dataset": "refclef"}, "unknown set 'refclef'; expected one of: refcoco, refcoco"),
        ({"splits": ["test"]}, "has the splits val, testA, testB; received: test"),
        ({"splits": []}, "received: none"),
        ({"images": None}, "needs the folder of COCO's train2014"),
        ({"images": "nowhere"}, r"image folder .*nowhere does not exist"),
        ({"form": "qwen_vl"}, "no files of refcoco .*look like form shikra"),
        ({"dataset": "refcocog"}, r"no files of refcocog \(val, test\) in form 'shikra'"),
    ],
)
def test_refused_settings(releases, train2014, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        open_refcoco(releases["shikra"], **({"form": "shikra", "images": train2014} | options))


@pytest.mark.parametrize(("form", "other"), [*itertools.permutations(FORMS, 2)])
def test_a_file_of_another_form_is_named_as_such(form, other, releases, train2014, tmp_path):
    file = next(path for path in sorted(releases[other].rglob("*testB*")) if path.is_file())
    own = Path(shutil.copy(file, tmp_path / ("x" + file.suffix)))
    with pytest.raises(UserError) as caught:
        open_refcoco(own, form=form, images=train2014, splits=["testB"])
    same_kind = FORMS[form].kind == FORMS[other].kind
    assert str(own) in str(caught.value)
    assert (f"those of form {other}" in str(caught.value)) == same_kind


def test_a_missing_split(releases, train2014, tmp_path):
    folder = shutil.copytree(releases["vlm_r1"], tmp_path / "some")
    (folder / "refcoco_testB.json").unlink()
    options = {"form": "vlm_r1", "images": train2014}
    assert {s.split for s in convert(open_refcoco(folder, **options))} == {"val", "testA"}
    with pytest.raises(UserError, match=r"no files of refcoco \(testB\)"):
        open_refcoco(folder, splits=["testA", "testB"], **options)
    with pytest.raises(UserError, match="does not exist"):
        open_refcoco(tmp_path / "none", **options)


def test_half_a_download(releases, train2014, tmp_path):
    folder = shutil.copytree(releases["lmms_lab"], tmp_path / "half")
    options = {"form": "lmms_lab", "images": train2014}
    (folder / "data" / "val-00001-of-00002.parquet").unlink()
    with pytest.raises(UserError, match=r"val-00000-of-00002.parquet are not the parts of one"):
        open_refcoco(folder, **options)
    cut = folder / "data" / "testA-00000-of-00001.parquet"
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"testA-.* as Parquet: .*download it again"):
        open_refcoco(folder, splits=["testA"], **options)
    lists = shutil.copytree(releases["vlm_r1"], tmp_path / "lists")
    file = lists / "refcoco_testA.json"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"refcoco_testA\.json: not JSON .*broke off"):
        open_refcoco(lists, form="vlm_r1", images=train2014)


def test_a_faulty_first_row_does_not_condemn_the_file(releases, train2014, tmp_path):
    lines = (releases["shikra"] / "REC_refcoco_unc_testA.jsonl").read_text().splitlines()
    path = tmp_path / "REC_refcoco_unc_testA.jsonl"
    path.write_text("\n".join(['{"img_path": 1}', *lines]))
    release = open_refcoco(path, form="shikra", images=train2014)
    assert len(release.items) == len(lines) + 1
    with pytest.raises(ItemError, match="row 0: has no expression"):
        release.items[0].convert()
    path.write_text('"x"\n5\n')
    with pytest.raises(UserError, match="holds no JSON objects"):
        open_refcoco(path, form="shikra", images=train2014)


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


PICKLES = [
    ("refs(unc).p", "", r"is a Python pickle.*jxu124.*docs/refcoco\.md"),
    ("refs.pkl", "", "is a Python pickle"),
    ("REC_refcoco_unc_testA.jsonl", "", "holds no JSON objects"),
    (".", "refs(unc).p", r"original release, .* pickle.*docs/refcoco\.md"),
]


@pytest.mark.parametrize(("source", "inside", "message"), PICKLES)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_is_refused_unopened(
    source, inside, message, protocol, tmp_path, train2014, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / source / inside).write_bytes(pickle.dumps([Bomb()], protocol=protocol))
    with pytest.raises(UserError, match=message):
        open_refcoco(tmp_path / source, form="shikra", images=train2014)
    assert not (tmp_path / "exploded").exists()


def test_more_rows_than_the_reported_split_are_refused(tmp_path, train2014):
    """lmms-lab's val has two partitions in it: 8,811 rows where UNC's has 3,811."""
    crowd = replace(OBJECTS["val"][1], expressions=tuple("vase" for _ in range(10_835)))
    mixed = refcoco_forms.write_lmms_lab(tmp_path / "mixed", OBJECTS | {"val": [crowd]})
    options = {"form": "lmms_lab", "images": train2014}
    with pytest.raises(UserError, match=r"10,835 expressions, but val .* 10,834; .*Google's"):
        open_refcoco(mixed, **options)
    assert len(open_refcoco(mixed, splits=["testA", "testB"], **options).items) == 2


def test_another_set_is_recognised_by_its_size(tmp_path, train2014):
    n = EXPRESSIONS["refcoco+"]["val"]
    plus = [replace(OBJECTS["val"][1], expressions=("vase",) * n)]
    folder = refcoco_forms.write_jxu124(tmp_path, {"val": plus})
    with pytest.raises(UserError, match=r"10,758 expr.* that is refcoco\+: .*refcoco_plus"):
        open_refcoco(folder, form="jxu124", images=train2014)
    assert len(open_refcoco(folder, form="jxu124", images=train2014, dataset="refcoco+").items) == 1


# Faulty rows


def test_a_row_of_a_form_that_names_its_image_without_one(tmp_path, train2014):
    row = refcoco_forms.vlm_r1_row(OBJECTS["testA"][0], "man")
    bad = {name: value for name, value in row.items() if name != "image"}
    path = tmp_path / "refcoco_testA.jsonl"
    path.write_text(f"{json.dumps(row)}\n{json.dumps(bad)}\n")
    _, item = open_refcoco(path, form="vlm_r1", images=train2014).items
    with pytest.raises(ItemError, match="row 1: has no image; expected: "):
        item.convert()


def faulty(tmp_path, train2014, row, form="shikra") -> ItemError:
    """The error of a row (as text, or what differs) in the middle of two sound ones."""
    make, name = {
        "shikra": (refcoco_forms.shikra_row, "REC_refcoco_unc_testA.jsonl"),
        "vlm_r1": (refcoco_forms.vlm_r1_row, "refcoco_testA.jsonl"),
    }[form]
    good = make(OBJECTS["testA"][0], "man")
    bad = row if isinstance(row, str) else json.dumps(good | row)
    (tmp_path / name).write_text("\n".join([json.dumps(good), bad, json.dumps(good)]))
    first, middle, last = open_refcoco(tmp_path / name, form=form, images=train2014).items
    assert first.convert()[0].id == "refcoco-testA-00000"
    assert last.convert()[0].id == "refcoco-testA-00002"
    with pytest.raises(ItemError, match=re.escape(f"{name} row 1: ")) as caught:
        middle.convert()
    return caught.value


@pytest.mark.parametrize(
    ("row", "kind", "message"),
    [
        ("{broken", "invalid_row", "is no JSON object"),
        ("[1]", "invalid_row", r"is \[1\]; expected an object"),
        ('{"img_path": "a", "img_path": "b"}', "invalid_row", "duplicate key 'img_path'"),
        ('{"img_path": "a"}', "invalid_row", "has no expression, bbox, height, width"),
        ({"img_path": ""}, "invalid_row", "'img_path' is ''"),
        ({"img_path": "../a.jpg"}, "invalid_row", "stays within"),
        ({"img_path": "COCO_train2014_000000000001.jpg"}, "missing_image", "is not below"),
        ({"expression": " "}, "invalid_row", "'expression' is ' '"),
        ({"expression": ["man"]}, "invalid_row", "'expression' is"),
        ({"bbox": [1, 2, 3]}, "invalid_row", "expected four numbers in pixels"),
        ({"bbox": [1, 2, 3, 1e9]}, "invalid_row", "expected four numbers"),
        ({"bbox": [70, 20, 30, 40]}, "invalid_row", r"no box in an image of 120x90.*x, y, width"),
        ({"bbox": [10, 20, 121.5, 40]}, "invalid_row", "no box in an image of 120x90"),
        ({"bbox": [10, 20, 10, 40]}, "invalid_row", "no box"),
        ({"bbox": [-1.5, 20, 10, 40]}, "invalid_row", "no box"),
        ({"width": 121}, "size_mismatch", "is 120x90 pixels, the row says 121x90"),
        ({"dataset_name": "refcocog"}, "invalid_row", "'dataset_name' is 'refcocog'; expected"),
    ],
)
def test_a_faulty_row_is_named_and_the_others_are_kept(tmp_path, train2014, row, kind, message):
    error = faulty(tmp_path, train2014, row)
    assert error.kind == kind
    assert re.search(message, str(error)), str(error)


def test_two_statements_of_a_box_have_to_agree(tmp_path, train2014):
    error = faulty(tmp_path, train2014, {"normalized_solution": [83, 222, 250, 666]}, "vlm_r1")
    assert "not the same box" in str(error)
    swapped = (10.0, 20.0, 40.0, 60.0)  # what xywh would look like, read as xyxy
    table = refcoco_forms.jxu124_table([replace(OBJECTS["testA"][0], box=swapped)], "testA")
    path = write_changed(tmp_path / "testA.parquet", table, "bbox", pa.array([list(swapped)]))
    (item,) = open_refcoco(path, form="jxu124", images=train2014).items
    with pytest.raises(ItemError, match=r"testA\.parquet row 0: .*not the same box"):
        item.convert()


def write_changed(path: Path, table: Any, name: str, column: Any) -> Path:
    """A table as a Parquet file, with another column of the name."""
    wrong = table.set_column(table.column_names.index(name), name, column)
    parquet.write_table(wrong, path)
    return path


def test_the_split_that_a_row_names(tmp_path, train2014):
    def opened(named: str) -> Release:
        table = refcoco_forms.jxu124_table(OBJECTS["testA"], named)
        parquet.write_table(table, tmp_path / "test-00000-of-00001.parquet")
        return open_refcoco(tmp_path, form="jxu124", images=train2014)

    for named in ("testA", "test"):
        assert {sample.split for sample in convert(opened(named))} == {"testA"}
    with pytest.raises(ItemError, match="'split' is 'val', but the file is that of 'testA'"):
        convert(opened("val"))


@pytest.mark.parametrize(
    ("image", "kind", "message"),
    [
        ({"bytes": None, "path": "a.jpg"}, "missing_image", "holds no image"),
        (None, "missing_image", "holds no image"),
        ({"bytes": b"GIF89a", "path": None}, "unreadable_image", "begins with b'GIF8'"),
        ({"bytes": b"\xff\xd8\xff broken", "path": None}, "unreadable_image", "as an image"),
    ],
)
def test_faulty_embedded_images(tmp_path, image, kind, message):
    table = refcoco_forms.lmms_lab_table(OBJECTS["testA"])
    images = pa.array([image], table.schema.field("image").type)
    path = write_changed(tmp_path / "testA.parquet", table, "image", images)
    release = open_refcoco(path, form="lmms_lab", workspace=tmp_path / "refcoco")
    with pytest.raises(ItemError, match=message) as caught:
        convert(release)
    assert caught.value.kind == kind


def test_images_that_cannot_be_read_or_written(releases, tmp_path):
    """A damaged page of a file, and a workspace that is a file, end with one message."""
    sound = releases["lmms_lab"] / "data" / "testA-00000-of-00001.parquet"
    group = parquet.ParquetFile(sound).metadata.row_group(0)
    columns = [group.column(k) for k in range(group.num_columns)]
    (page,) = (c.data_page_offset for c in columns if c.path_in_schema == "image.bytes")
    data = sound.read_bytes()
    broken = tmp_path / "testA.parquet"
    broken.write_bytes(data[:page] + b"\xff" * 20 + data[page + 20 :])
    release = open_refcoco(broken, form="lmms_lab", workspace=tmp_path / "refcoco")
    with pytest.raises(UserError, match=r"cannot read .*testA\.parquet as Parquet"):
        convert(release)
    (tmp_path / "file").write_text("")
    release = open_refcoco(releases["lmms_lab"], form="lmms_lab", workspace=tmp_path / "file")
    with pytest.raises(UserError, match=r"cannot write the image .*--root"):
        convert(release)


def test_corner_and_size_are_not_read_as_corners(tmp_path):
    """A form that writes sizes, holding corners: outside the image, or a box that is too large."""
    o = Object(77, 5, (60.0, 50.0, 100.0, 80.0), ("man",))  # corners of a box of 40x30
    folder = refcoco_forms.write_lmms_lab(tmp_path, {"testA": [o]})
    release = open_refcoco(folder, form="lmms_lab", workspace=tmp_path / "refcoco")
    with pytest.raises(ItemError, match=r"read as x, y, width, height.*not of form 'lmms_lab'"):
        convert(release)


def test_a_pixel_beyond_the_border_is_cut(tmp_path, train2014):
    o = Object(77, 5, (-0.5, 20.0, 121.0, 71.0), ("man",))
    folder = refcoco_forms.write_shikra(tmp_path, {"testA": [o]})
    (sample,) = convert(open_refcoco(folder, form="shikra", images=train2014))
    assert sample.box == (0.0, 20 / 90, 1.0, 1.0)


# Documents, tasks, and the whole way


def test_the_documented_conversion_of_the_pickle(tmp_path, train2014):
    """Its lines make the form shikra from an original release, and run nothing that it holds."""
    (script,) = re.findall(r"^```python\n(.*?)^```", DOC.read_text(encoding="utf-8"), re.M | re.S)
    release = tmp_path / "refer" / "refcoco"
    release.mkdir(parents=True)
    objects = [(split, o) for split, rows in OBJECTS.items() for o in rows]
    refs = [
        {"ann_id": o.number, "image_id": o.photograph, "split": split, "file_name": o.name}
        | {"sentences": [{"sent": text, "tokens": []} for text in o.expressions]}
        for split, o in objects
    ]
    (release / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=0))
    names = {o.photograph: o.name for _, o in objects}
    instances = {
        "images": [
            {"id": number, "file_name": names[number], "width": width, "height": height}
            for number, (width, height) in SIZES.items()
        ],
        "annotations": [{"id": o.number, "bbox": list(o.box)} for _, o in objects],
    }
    (release / "instances.json").write_text(json.dumps(instances))
    command = [sys.executable, "-c", script, str(release), "refcoco", "unc"]
    subprocess.run(command, cwd=tmp_path, check=True)
    samples = convert(open_refcoco(tmp_path, form="shikra", images=train2014))
    assert [sample.box for sample in samples] == [
        pytest.approx(o.norm) for rows in OBJECTS.values() for o, _ in each(rows)
    ]

    (release / "refs(unc).p").write_bytes(pickle.dumps([Bomb()]))
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "do not use it" in refused.stderr
    assert not (tmp_path / "exploded").exists()


def test_the_documents_name_every_form():
    text = DOC.read_text(encoding="utf-8")
    for form in FORMS.values():
        (line,) = re.findall(rf"^\| `{form.name}` \|.*$", text, re.M)
        box = {"xyxy": "| x1, y1, x2, y2 |", "xywh": "| x, y, width, height |"}[form.convention]
        assert box in line
    for sizes in EXPRESSIONS.values():
        assert ", ".join(f"{n:,}" for n in sizes.values()) in text


def test_the_oracle_reaches_one_on_embedded_images(releases, tmp_path, monkeypatch):
    pytest.importorskip("lmms_eval")
    data = tmp_path / "data"
    monkeypatch.setenv("UNIVG_DATA", str(data))
    command = ["prepare", "refcoco", "--form", "lmms_lab", "--source", str(releases["lmms_lab"])]
    assert main(command) == 0
    first = load_manifest("refcoco")
    assert main(command) == 0
    assert load_manifest("refcoco")["fingerprint"] == first["fingerprint"]
    assert first["splits"] == {"val": 6, "testA": 3, "testB": 1}
    assert len(load_samples("refcoco")) == 10
    from univg_eval.lmms.run import evaluate

    tasks = [f"univg_refcoco_{split}" for split in OBJECTS]
    results = evaluate("univg_baseline", "kind=oracle", tasks).results["results"]
    assert {name: results[name]["acc@0.9,none"] for name in tasks} == dict.fromkeys(tasks, 1.0)
