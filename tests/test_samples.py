"""The sample schema, what it refuses, how it is stored, and its fingerprint."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from factories import make_sample

from univg_eval.audit import audit_benchmark
from univg_eval.cli import main
from univg_eval.errors import UserError
from univg_eval.samples import (
    SAMPLES_FILE,
    GroundingSample,
    Target,
    data_root,
    fingerprint,
    load_samples,
    write_benchmark,
)


def test_rows_survive_json() -> None:
    mask = {"size": [2, 2], "counts": "04"}
    for sample in (
        make_sample(),
        make_sample(targets=()),
        make_sample(targets=(Target(0, (0, 0, 1, 1), mask), Target(1, (0.5, 0.5, 0.6, 0.6)))),
        make_sample(widths=(), heights=()),
    ):
        row = json.loads(json.dumps(sample.to_dict()))
        assert GroundingSample.from_dict(row) == sample


BAD_ROWS = [
    ({"id": 5}, r"rows\.jsonl:3: field 'id' is 5"),
    ({"images": "a.png"}, "field 'images' is 'a.png'"),
    ({"images": ["/etc/hosts", "b.png"]}, "'/etc/hosts'; expected paths below the data root"),
    ({"images": ["a.png", "toy/../../b.png"]}, "toy/../../b.png'; expected paths below"),
    ({"widths": [640]}, "2 images but 1 widths and 2 heights"),
    ({"heights": [480, 0]}, "field 'heights' is .*whole pixels"),
    ({"widths": [640, 2**31]}, "field 'widths' is .*whole pixels"),
    ({"image_is_given": 1}, "field 'image_is_given' is 1"),
    ({"targets": None}, "field 'targets' is None"),
    ({"targets": [{"image": 2, "box": [0, 0, 1, 1]}]}, r"targets\[0\]: image is 2"),
    ({"targets": [{"image": True, "box": [0, 0, 1, 1]}]}, "image is True"),
    ({"targets": [{"image": 0, "box": [0, 0, 1]}]}, "four numbers"),
    ({"targets": [{"image": 0, "box": [0, 0, 1, "1"]}]}, "four numbers"),
    ({"targets": [{"image": 0, "box": [0, 0, 1, 10**400]}]}, "four numbers"),
    ({"targets": ["box"]}, "image is None"),
    ({"targets": [{"image": 0, "box": [0, 0, 1, 1], "mask": 3}]}, r"targets\[0\]: mask is 3"),
    ({"source": []}, "field 'source' is"),
    ({"source": {"images": 3}}, "source: field 'images' is 3"),
    ({"source": {"images": [3]}}, "source: field 'images' is"),
    ({"instruction": "half \ud800"}, r"rows\.jsonl:3: field 'instruction' holds half"),
    ({"images": ["a.png", "\udc80"]}, "field 'images' holds half"),
]


@pytest.mark.parametrize(("change", "message"), BAD_ROWS, ids=[m for _, m in BAD_ROWS])
def test_bad_rows_name_row_and_field(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        GroundingSample.from_dict(make_sample().to_dict() | change, where="rows.jsonl:3")
    with pytest.raises(UserError, match=r"line 1: .*list"):
        GroundingSample.from_dict([], where="line 1")  # type: ignore[arg-type]


def test_what_the_targets_of_a_sample_say() -> None:
    sample = make_sample()
    assert (sample.box, sample.target_image) == ((0.1, 0.2, 0.3, 0.4), 1)
    assert sample.has_valid_targets
    assert not make_sample(targets=(Target(0, (0.3, 0.2, 0.1, 0.4)),)).has_valid_targets
    with pytest.raises(UserError, match="0 targets"):
        _ = make_sample(targets=()).box


def test_fingerprint_is_the_documented_hash() -> None:
    first = make_sample(2, targets=(Target(1, (0.1, 0.2, 1 / 3, 0.4)),))
    second = make_sample(1, instruction="Größe?")
    lines = (
        '["toy-00001","Größe?",[[1,[0.1,0.2,0.3,0.4]]],["./a.png","./b.png"]]\n'
        '["toy-00002","Where is it in the second image?",[[1,[0.1,0.2,0.333333,0.4]]],'
        '["./a.png","./b.png"]]\n'
    )
    assert fingerprint([first, second]) == hashlib.sha256(lines.encode()).hexdigest()


def test_fingerprint_sees_content_and_not_order_or_place() -> None:
    rows = [make_sample(0), make_sample(1)]
    base = fingerprint(rows)
    assert fingerprint(rows[::-1]) == base
    assert fingerprint([replace(r, images=("x/a.png", "x/b.png")) for r in rows]) == base
    assert fingerprint([replace(r, widths=(1, 1), heights=(1, 1)) for r in rows]) == base
    moved = (Target(1, (0.1, 0.2, 0.300001, 0.4)),)
    for change in ({"instruction": "?"}, {"targets": ()}, {"targets": moved}, {"id": "toy-9"}):
        assert fingerprint([rows[0], replace(rows[1], **change)]) != base


def test_a_benchmark_is_written_and_read(tmp_path: Path) -> None:
    rows = [make_sample(0), make_sample(1, split="val", task="other")]
    folder = write_benchmark(rows, benchmark="toy", root=tmp_path, manifest_extra={"seed": 4})
    assert load_samples("toy", root=tmp_path) == rows
    assert load_samples("toy", "val", root=tmp_path) == rows[1:]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["n"] == 2
    assert manifest["tasks"] == {"find": 1, "other": 1}
    assert manifest["fingerprint"] == fingerprint(rows)
    assert manifest["seed"] == 4
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "samples.jsonl"]


def test_unknown_split_and_unprepared_benchmark_name_the_remedy(tmp_path: Path) -> None:
    write_benchmark([make_sample()], benchmark="toy", root=tmp_path)
    with pytest.raises(UserError, match="has no split 'train'; it has: test"):
        load_samples("toy", "train", root=tmp_path)
    with pytest.raises(UserError, match=r"'lisa' is not prepared.*univg prepare lisa.*UNIVG_DATA"):
        load_samples("lisa", root=tmp_path)


def test_doubled_ids_and_foreign_samples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="duplicate id 'toy-00000'"):
        write_benchmark([make_sample(), make_sample()], benchmark="toy", root=tmp_path)
    with pytest.raises(UserError, match="belongs to 'toy', not to 'tom'"):
        write_benchmark([make_sample()], benchmark="tom", root=tmp_path)


@pytest.mark.parametrize(
    "changes", [{"instruction": "half \ud800"}, {"extra": {"expression": "half \ud800"}}]
)
def test_half_a_character_is_refused_and_the_old_set_stays(tmp_path: Path, changes: dict) -> None:
    write_benchmark([make_sample()], benchmark="toy", root=tmp_path)
    with pytest.raises(UserError, match=r"sample 'toy-00001' holds half of a surrogate pair"):
        write_benchmark([make_sample(1, **changes)], benchmark="toy", root=tmp_path)
    assert [path.name for path in (tmp_path / "toy").glob(".*")] == []


def test_a_manifest_that_is_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "toy" / "manifest.json").mkdir(parents=True)
    with pytest.raises(UserError, match=r"cannot read .*manifest\.json.*prepare 'toy' again"):
        load_samples("toy", root=tmp_path)
    (tmp_path / "tom").write_text("a file")
    with pytest.raises(UserError, match="'tom' is not prepared"):
        load_samples("tom", root=tmp_path)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "9" * 5000, '{"source": []}', "[]", '{"source": {}'],
    ids=["deep", "many digits", "source", "list", "cut"],
)  # fmt: skip
def test_a_manifest_of_another_form_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=r"manifest\.json.*prepare 'toy' again"):
        load_samples("toy", root=tmp_path)


@pytest.mark.parametrize("image", ["0", None, True, 1.0, -1, 2])
def test_the_image_of_a_questions_boxes_is_one_of_the_images(image: object) -> None:
    assert make_sample().question_box_image == 0
    assert make_sample(extra={"question_box_image": 1}).question_box_image == 1
    with pytest.raises(UserError, match=r"question_box_image is .*; expected an image from 0 to 1"):
        _ = make_sample(extra={"question_box_image": image}).question_box_image


def test_data_root_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path / "env"))
    assert data_root(tmp_path / "given") == tmp_path / "given"
    assert data_root() == tmp_path / "env"
    monkeypatch.delenv("UNIVG_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_root() == tmp_path / ".cache" / "univg"


@pytest.mark.parametrize("name", ["box", "image path", "size", "task"])
def test_a_changed_file_of_samples_is_named_when_it_is_loaded(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_benchmark([make_sample()], benchmark="toy", root=tmp_path) / SAMPLES_FILE
    assert len(load_samples("toy", root=tmp_path)) == 1
    row = json.loads(file.read_text())
    changes = {
        "box": {"targets": [{"image": 0, "box": [0.0, 0.0, 1.0, 1.0]}]},
        "image path": {"images": [f"{path}x" for path in row["images"]]},
        "size": {"widths": [width + 1 for width in row["widths"]]},
        "task": {"task": "other"},
    }
    file.write_text(json.dumps(row | changes[name]) + "\n")
    with pytest.raises(UserError, match=r"samples.jsonl was changed after it was prepared"):
        load_samples("toy", root=tmp_path)
    assert len(load_samples("toy", root=tmp_path, changed=True)) == 1
    assert "changed_samples" in {one.kind for one in audit_benchmark("toy", tmp_path).findings}
    responses = tmp_path / "r.jsonl"
    responses.write_text(json.dumps({"id": row["id"], "response": "[1, 2, 3, 4]"}) + "\n")
    arguments = ["--benchmark", "toy", "--root", str(tmp_path), "--dialect", "norm1000"]
    assert main(["score", *arguments, "--responses", str(responses)]) == 2
    assert "was changed after it was prepared" in capsys.readouterr().err
