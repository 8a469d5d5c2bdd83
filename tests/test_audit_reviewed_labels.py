"""The reviewed labels of RefCOCO: which samples they call wrong, and the score without those."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import refcoco_forms
from refcoco_forms import OBJECTS, SIZES, Object

from univg_eval.audit import audit_benchmark
from univg_eval.audit.reviewed_labels import compare_with_review, read_wrong_labels
from univg_eval.benchmarks.preparing.preparation import prepare_release
from univg_eval.benchmarks.readers.refcoco import FORMS, open_refcoco
from univg_eval.cli import main
from univg_eval.errors import UserError
from univg_eval.samples import GroundingSample, load_samples

pytest.importorskip("pyarrow")

# By split the labels, of each object in turn, that people call wrong: "everything" and "guy".
WRONG = {"val": {"everything"}, "testA": {"guy"}, "testB": set()}
WRONG_IDS = {
    "lmms_lab": ["refcoco-val-00002-1", "refcoco-testA-00000-1"],
    "jxu124": ["refcoco-val-00002-1", "refcoco-testA-00000-1"],
    "shikra": ["refcoco-val-00004", "refcoco-testA-00001"],
    "qwen_vl": ["refcoco-val-00004", "refcoco-testA-00001"],
    "vlm_r1": ["refcoco-val-00004", "refcoco-testA-00001"],
}


def review(objects: list[Object], wrong: set[str], **changes: Any) -> dict[str, Any]:
    """A file as MDETR's script writes it, with the column of the review."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for o in objects:
        width, height = SIZES[o.photograph]
        for text in o.expressions:
            k = len(images)
            images.append(
                {
                    "file_name": o.name,
                    "height": height,
                    "width": width,
                    "id": 500 + k,
                    "original_id": o.photograph,
                    "caption": text,
                    "dataset_name": "refcoco",
                    "tokens_negative": [[0, len(text)]],
                }
            )
            annotations.append(
                {
                    "area": o.box[2] * o.box[3] / 2,
                    "iscrowd": 0,
                    "image_id": 500 + k,
                    "category_id": 1,
                    "id": 900 + k,
                    "bbox": list(o.box),
                    "original_id": o.number,
                    "tokens_positive": [[0, len(text)]],
                    "caption_quality": int(text not in wrong),
                }
            )
    return {"info": {}, "images": images, "annotations": annotations, "categories": []} | changes


def write_review(folder: Path, name: str = "refcoco", objects=OBJECTS) -> Path:
    folder.mkdir(exist_ok=True)
    for split, rows in objects.items():
        path = folder / f"{name}_{split}_reviewed.json"
        path.write_text(json.dumps(review(rows, WRONG[split])))
    return folder


@pytest.fixture(scope="module")
def train2014(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return refcoco_forms.photographs(tmp_path_factory.mktemp("coco"))


def samples_of(form: str, folder: Path, train2014: Path, **writing: Any) -> list[GroundingSample]:
    source = refcoco_forms.WRITERS[form](folder, **writing)
    release = open_refcoco(source, form=form, images=train2014)
    return [sample for item in release.items for sample in item.convert()]


def wrong_ids(samples: list[GroundingSample], source: Path) -> list[str]:
    cases, _ = compare_with_review(samples, source)
    assert {case.kind for case in cases} <= {"wrong_label"}
    return [case.samples[0] for case in cases]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_finds_the_same_labels(form, tmp_path, train2014):
    samples = samples_of(form, tmp_path / "set", train2014)
    cases, n_unknown = compare_with_review(samples, write_review(tmp_path / "reviewed"))
    assert [case.samples[0] for case in cases] == WRONG_IDS[form]
    assert cases[0].detail == "refcoco_val: 'everything', by refcoco_val_reviewed.json"
    assert n_unknown == 0


def test_one_file_reviews_its_split(tmp_path, train2014):
    samples = samples_of("shikra", tmp_path / "set", train2014)
    folder = write_review(tmp_path / "reviewed")
    cases, n_unknown = compare_with_review(samples, folder / "refcoco_testA_reviewed.json")
    assert [case.samples[0] for case in cases] == ["refcoco-testA-00001"]
    assert n_unknown == 6 + 1  # of val and testB


def test_the_box_decides_between_equal_expressions(tmp_path, train2014):
    a = Object(77, 5, (10.0, 20.0, 30.0, 40.0), ("man",))
    b = Object(77, 6, (60.0, 20.0, 30.0, 40.0), ("man",))
    samples = samples_of("shikra", tmp_path / "set", train2014, objects={"testA": [a, b]})
    path = tmp_path / "refcoco_testA_reviewed.json"
    for wrong, box, found in ((1, 0, [1]), (0, 0, [0]), (1, 1.9, [1]), (1, 2.1, [])):
        value = review([b, a], set())  # in another order
        value["annotations"][1 - wrong]["caption_quality"] = 0
        for label in value["annotations"]:
            label["bbox"][0] += box
        path.write_text(json.dumps(value))
        if box > 2:
            with pytest.raises(UserError, match="none of its labels is one of testA of refcoco"):
                compare_with_review(samples, path)
        else:
            assert wrong_ids(samples, path) == [f"refcoco-testA-0000{k}" for k in found]


def test_labels_alike_in_all_are_taken_in_their_order(tmp_path, train2014):
    twice = Object(77, 5, (10.0, 20.0, 30.0, 40.0), ("man", "Man!", "man"))
    samples = samples_of("shikra", tmp_path / "set", train2014, objects={"testA": [twice]})
    value = review([twice], set())
    value["annotations"][1]["caption_quality"] = 0
    del value["images"][2], value["annotations"][2]
    value["annotation"] = value.pop("annotations")  # as the README calls it
    path = tmp_path / "refcoco_testA_reviewed.json"
    path.write_text(json.dumps(value))
    cases, n_unknown = compare_with_review(samples, path)
    assert [case.samples[0] for case in cases] == ["refcoco-testA-00001"]
    assert n_unknown == 1


def without(key: str) -> dict[str, Any]:
    value = review(OBJECTS["testA"], set())
    del value["annotations"][1][key]
    return value


def with_label(**changes: Any) -> dict[str, Any]:
    value = review(OBJECTS["testA"], set())
    value["annotations"][1] |= changes
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], r"holds \[\]; expected an object with the lists images and annotations"),
        ({"images": []}, "holds an object with images; expected an object with the lists"),
        ({"images": [], "annotations": {}}, "expected an object with the lists"),
        ({"images": [{"id": 1}], "annotations": []}, "an entry of images is without 'file_name'"),
        ({"images": [5], "annotations": []}, "an entry of images is without"),
        (without("caption_quality"), r"annotations\[1\] is .* \(not found: 'caption_quality'\)"),
        (without("image_id"), r"annotations\[1\] .* \(not found: 'image_id'\); expected image_id"),
        (with_label(image_id=1), r"annotations\[1\] .* \(not found: 1\)"),
        (with_label(image_id=[]), r"annotations\[1\] .* \(not found: .*list"),
        (with_label(caption_quality="bad"), "has caption_quality 'bad', bbox .* whole number"),
        (with_label(caption_quality=True), "has caption_quality True"),
        (with_label(bbox=[1, 2, 3]), r"has caption_quality 1, bbox \[1, 2, 3\] and caption 'guy'"),
        (review(OBJECTS["testB"], set()), "none of its labels is one of testA of refcoco; exp"),
    ],
)
def test_files_that_do_not_fit_are_refused(value, message, tmp_path, train2014):
    samples = samples_of("shikra", tmp_path / "set", train2014)
    path = tmp_path / "refcoco_testA_reviewed.json"
    path.write_text(json.dumps(value))
    with pytest.raises(UserError, match=message) as caught:
        compare_with_review(samples, path)
    assert str(path) in str(caught.value)


def test_other_sets_and_other_names(tmp_path, train2014):
    samples = samples_of("shikra", tmp_path / "set", train2014)
    plus = write_review(tmp_path / "plus", "refcoco+")
    expected = r"is no reviewed file of refcoco; expected a name such as refcoco_val_reviewed"
    with pytest.raises(UserError, match=rf"{expected}.* it holds: refcoco\+_testA_reviewed"):
        compare_with_review(samples, plus)
    named = plus / "refcoco+_val_reviewed.json"
    with pytest.raises(UserError, match=expected):
        compare_with_review(samples, named)
    with pytest.raises(UserError, match="none does not exist; give the folder refcocos_annot"):
        compare_with_review(samples, tmp_path / "none")
    from dataclasses import replace

    (toy,) = (replace(sample, benchmark="toy") for sample in samples[:1])
    with pytest.raises(UserError, match="labels of refcoco, refcoco_plus, refcocog; received: toy"):
        compare_with_review([toy], plus)


# The two commands


@pytest.fixture
def root(tmp_path: Path, train2014: Path) -> Path:
    source = refcoco_forms.write_shikra(tmp_path / "shikra")
    prepare_release(open_refcoco(source, form="shikra", images=train2014), root=tmp_path / "data")
    write_review(tmp_path / "reviewed")
    return tmp_path / "data"


def printed(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 0) -> str:
    assert main([str(argument) for argument in arguments]) == status
    return capsys.readouterr().out


def test_both_scores_by_two_commands(root, tmp_path, capsys):
    reviewed = ("audit", "refcoco", "--root", root, "--quick", "--reviewed", tmp_path / "reviewed")
    text = printed(capsys, *reviewed, status=3)
    assert "wrong_label: 2; people who reviewed the set call the label wrong" in text
    assert "  refcoco-val-00004  refcoco_val: 'everything', by refcoco_val_reviewed.json" in text
    report = tmp_path / "wrong.json"
    report.write_text(printed(capsys, *reviewed, "--json", status=3))
    (finding,) = json.loads(report.read_text())["findings"]
    assert [row["id"] for row in finding["rows"]] == WRONG_IDS["shikra"]

    # Right everywhere but on the two wrong labels and on the first of testA, which has three.
    responses, scores = tmp_path / "r.jsonl", tmp_path / "scores.jsonl"
    missed = {*WRONG_IDS["shikra"], "refcoco-testA-00000"}
    lines = []
    for sample in load_samples("refcoco", root=root):
        x1, y1, x2, y2 = (round(1000 * v) for v in sample.box)
        text = "(0,0),(1,1)" if sample.id in missed else f"({x1},{y1}),({x2},{y2})"
        lines.append(json.dumps({"id": sample.id, "response": text}) + "\n")
    responses.write_text("".join(lines))
    score = ("score", "--benchmark", "refcoco", "--root", root, "--responses", responses)
    score += ("--dialect", "qwen2_vl", "--json")
    whole = json.loads(printed(capsys, *score))
    assert main([str(a) for a in (*score, "--leave-out", report, "--out", scores)]) == 0
    out, err = capsys.readouterr()
    rest = json.loads(out)
    assert "2 samples with a wrong label are left out: this score does not compare" in err
    assert "left_out" not in whole and rest["left_out"] == 2
    assert (whole["n"], rest["n"], rest["missing"]) == (10, 8, 0)
    accuracy = {
        name: [result["tasks"][f"refcoco_{name}"]["acc@0.5"] for result in (whole, rest)]
        for name in OBJECTS
    }
    assert accuracy["val"] == [pytest.approx(5 / 6), 1.0]
    assert accuracy["testA"] == [pytest.approx(1 / 3), 0.5]
    assert accuracy["testB"] == [1.0, 1.0]
    ids = [json.loads(line)["id"] for line in scores.read_text().splitlines()]
    assert len(ids) == 8 and not set(ids) & set(WRONG_IDS["shikra"])

    # A sample that is left out and has no response is not missing; another split counts its own.
    responses.write_text("".join(line for line in lines if "refcoco-val-00004" not in line))
    rest = json.loads(printed(capsys, *score, "--leave-out", report))
    assert (rest["n"], rest["missing"], rest["left_out"]) == (8, 0, 2)
    responses.write_text("".join(line for line in lines if "refcoco-val-" in line))
    rest = json.loads(printed(capsys, *score, "--leave-out", report, "--split", "val"))
    assert (rest["n"], rest["missing"], rest["left_out"]) == (5, 0, 1)
    table = printed(capsys, *score[:-1], "--leave-out", report, "--split", "val")
    assert f"--leave-out {report}" in table.replace("\n", " ")


def test_rows_that_were_not_reviewed_are_counted(root, tmp_path):
    (tmp_path / "reviewed" / "refcoco_testB_reviewed.json").unlink()
    report = audit_benchmark("refcoco", root, reviewed=tmp_path / "reviewed")
    assert report.notes == {"not_reviewed": 1}
    assert audit_benchmark("refcoco", root).notes == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read .*wrong.json, a report of `univg audit --json`"),
        ("{", "cannot read .*wrong.json, a report of `univg audit --json`"),
        ("[]", r"holds \[\]; expected the report that `univg audit NAME --reviewed PATH --json`"),
        ('{"fingerprint": "x"}', "holds an object with fingerprint; expected the report"),
        ('{"fingerprint": "x", "findings": [5]}', "expected the report"),
        ('{"fingerprint": "y", "findings": []}', "the fingerprint y, those that are scored have x"),
        ('{"fingerprint": "x", "findings": []}', "has no finding 'wrong_label': audit with --rev"),
    ],
)
def test_a_report_that_does_not_fit_is_refused(text, message, tmp_path):
    path = tmp_path / "wrong.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_wrong_labels(path, "x")


def test_a_score_of_nothing_is_refused(root, tmp_path, capsys):
    from univg_eval.samples import load_manifest

    samples = [s for s in load_samples("refcoco", root=root) if s.split == "testB"]
    report, responses = tmp_path / "wrong.json", tmp_path / "r.jsonl"
    rows = [{"id": sample.id} for sample in samples]
    findings = [{"kind": "duplicate", "rows": []}, {"kind": "wrong_label", "rows": rows}]
    digest = load_manifest("refcoco", root)["fingerprint"]
    report.write_text(json.dumps({"fingerprint": digest, "findings": findings}))
    responses.write_text("")
    command = ["score", "--benchmark", "refcoco", "--root", str(root), "--dialect", "qwen2_vl"]
    command += ["--responses", str(responses), "--split", "testB", "--leave-out", str(report)]
    assert main(command) == 2
    assert "all 1 samples to be scored are left out" in capsys.readouterr().err
    assert main([*command, "--out", str(report)]) == 2
    assert "is the file of --leave-out; give another path" in capsys.readouterr().err
