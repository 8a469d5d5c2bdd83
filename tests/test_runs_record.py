"""Run records: whole or not at all, complete provenance, verified when read, one definition."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import typing
from copy import deepcopy
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from run_records import MANIFEST, RESPONSES, SCORES, manifest, response, score

import univg_eval
from univg_eval.answers import Status
from univg_eval.errors import UserError
from univg_eval.runs.manifest import (
    Manifest,
    ResponseLine,
    faults,
    json_schemas,
    read_score,
)
from univg_eval.runs.record import (
    environment,
    lines_sha256,
    load_run,
    make_record,
    prepared_samples,
    unknown_environment,
    write_run,
)
from univg_eval.samples import GroundingSample, Target, fingerprint, write_benchmark
from univg_eval.scoring import SampleScore, score_sample

COMMITTED = Path(__file__).resolve().parent.parent / "results" / "runs" / "tiny_cot"
REQUIRED = json_schemas()["run_manifest"]["required"]


def write(path: Path, **changes: Any) -> Path:
    arguments: dict[str, Any] = {"manifest": manifest(), "responses": RESPONSES, "scores": SCORES}
    return write_run(path, **(arguments | changes))


def rewritten(path: Path, name: str, change: Any) -> Path:
    """The record with one of its JSON files changed, and its checksums made to fit."""
    file = path / name
    if name == "manifest.json":
        value = json.loads(file.read_text())
        change(value)
        file.write_text(json.dumps(value))
    else:
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        change(rows)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sums = json.loads((path / "checksums.json").read_text())
    sums[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    (path / "checksums.json").write_text(json.dumps(sums))
    return path


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    path = write(tmp_path / "deep" / "run")
    record = load_run(path)
    assert record.responses == RESPONSES
    assert record.scores == SCORES
    assert record.manifest.schema_version == 1
    assert {key: record.manifest.to_dict()[key] for key in MANIFEST} == MANIFEST
    assert (record.label, record.benchmark) == ("m", "own")
    assert sorted(p.name for p in path.iterdir()) == [
        "checksums.json",
        "manifest.json",
        "responses.jsonl",
        "scores.jsonl",
    ]


def test_a_record_in_memory_is_the_one_that_is_read(tmp_path: Path) -> None:
    tuples = [row | {"image_sizes": [(64, 48)]} for row in RESPONSES]
    stamped = manifest(created="2026-01-01T00:00:00+00:00")
    made = make_record(tmp_path / "run", manifest=stamped, responses=tuples, scores=SCORES)
    assert not (tmp_path / "run").exists()
    assert made == load_run(write(tmp_path / "run", manifest=stamped, responses=tuples))
    named = make_record("x", manifest=stamped, responses=tuples, scores=SCORES, label="mine")
    assert named.label == "mine"


@pytest.mark.parametrize(
    ("model_id", "label"),
    [
        ("org/Model-7B", "Model-7B"),
        ("runs/mine/model", "mine"),
        ("/runs/mine/best", "mine"),
        ("runs/mine/last/", "last"),
        ("best", "best"),
        ("univg_baseline:oracle", "univg_baseline:oracle"),
        ("/", "/"),
    ],
)
def test_a_run_is_called_by_its_model(model_id: str, label: str) -> None:
    model = MANIFEST["model"] | {"id": model_id}
    record = make_record("x", manifest=manifest(model=model), responses=RESPONSES, scores=SCORES)
    assert record.label == label


def test_scores_are_read_as_the_scores_they_were(tmp_path: Path) -> None:
    sample = GroundingSample(
        id="a",
        benchmark="own",
        task="t",
        split="test",
        images=("own/a.png",),
        widths=(64,),
        heights=(48,),
        instruction="Where is it?",
        targets=(Target(0, (0.1, 0.2, 0.5, 0.9)),),
        image_is_given=True,
        cluster="c",
    )
    texts = ("[100, 200, 500, 900]", "[120, 210, 480, 777]", "no idea", "[500, 200, 100, 900]")
    scores = [score_sample(sample, text, "norm1000") for text in texts]
    assert [s.status for s in scores] == ["ok", "ok", "no_box", "invalid_box"]
    rows = [replace(s, id=str(i)) for i, s in enumerate(scores)]
    answers = [response(str(i), text) for i, text in enumerate(texts)]
    path = write(tmp_path / "run", manifest=manifest(n=4), responses=answers, scores=rows)
    read = load_run(path).scores
    assert read == rows
    later = rewritten(path, "scores.jsonl", lambda rows: [row.update(new=1) for row in rows])
    assert load_run(later).scores == read


# The definition


def committed(name: str) -> dict[str, Any]:
    file = Path(univg_eval.__file__).parent / "runs" / "schemas" / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", list(json_schemas()))
def test_the_schema_files_are_those_of_the_models(name: str) -> None:
    schema = json_schemas()[name]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert committed(name) == schema, "run: python -m univg_eval.runs.manifest"


@pytest.mark.parametrize("name", ["tiny", "tiny_cot", "tiny_direct", "tiny_grpo"])
def test_committed_records_are_read_and_written_as_they_are(
    repo_root: Path, tmp_path: Path, name: str
) -> None:
    path = repo_root / "results" / "runs" / name
    record = load_run(path)
    for kind, rows in (
        ("run_manifest", [record.manifest.to_dict()]),
        ("run_response", record.responses),
        ("run_score", [json.loads(json.dumps(line.to_dict())) for line in record.scores]),
    ):
        validator = jsonschema.Draft202012Validator(committed(kind))
        assert not [error for row in rows for error in validator.iter_errors(row)]
    again = record.write(tmp_path / name)
    for file in again.iterdir():
        assert file.read_bytes() == (path / file.name).read_bytes()


def test_the_schema_of_scores_is_that_of_the_code() -> None:
    schema = json_schemas()["run_score"]
    names = [field.name for field in fields(SampleScore)]
    assert sorted(schema["properties"]) == sorted(names)
    assert sorted(schema["required"]) == sorted(
        {*names} - {"matched_iou", "f1_95", "f1_mean", "images_right", "n_targets"}
    )
    assert schema["properties"]["status"]["enum"] == list(typing.get_args(Status))
    reading = json_schemas()["run_change"]["$defs"]["reading"]
    assert reading["properties"] == {
        name: schema["properties"][name] for name in names if name not in ("id", "task", "cluster")
    }


def test_versions_and_hardware_are_all_known_or_all_unknown() -> None:
    known, unknown = environment(), unknown_environment()
    for part in ("versions", "hardware"):
        assert sorted(known[part]) == sorted(unknown[part])
        assert set(unknown[part].values()) == {None}
        assert set(json_schemas()["run_manifest"]["$defs"][part.title()]["required"]) == set(
            known[part]
        )


def set_at(value: Any, path: str, new: Any) -> Any:
    """A copy with one place replaced, or removed if `new` is the type `object`."""
    changed = deepcopy(value)
    inner = changed
    *parents, last = path.split("/")
    for key in parents:
        inner = inner[int(key) if isinstance(inner, list) else key]
    key = int(last) if isinstance(inner, list) else last
    if new is object:
        del inner[key]
    else:
        inner[key] = new
    return changed


FAULTS = [
    (Manifest, "n", 0, r"n is 0: expected .*1"),
    (Manifest, "n", True, "n is True: expected .*integer"),
    (Manifest, "n", "2", "n is '2': expected .*integer"),
    (Manifest, "model/id", "", "model.id is ''"),
    (Manifest, "model/id", object, "model.id is missing"),
    (Manifest, "model", "x", "model is 'x': expected .*dictionary"),
    (Manifest, "settings/dialect", object, "settings.dialect is missing"),
    (Manifest, "settings/dialect", "qwen", "settings.dialect is 'qwen': expected .*list"),
    (Manifest, "settings/dialect", ["qwen"], r"settings.dialect\[1\] is missing"),
    (Manifest, "settings/dialect/1", None, r"settings.dialect\[1\] is None: expected .*string"),
    (Manifest, "settings/dialect/0", None, r"settings.dialect\[0\] is None: expected .*string"),
    (Manifest, "settings/max_pixels/0", "9", r"max_pixels\[0\] is '9': expected .*integer"),
    (Manifest, "settings/max_pixels/0", 0, r"max_pixels\[0\] is 0: expected .*1"),
    (Manifest, "settings/other", [1], r"settings.other\[1\] is missing"),
    (Manifest, "dataset/fingerprint", object, "dataset.fingerprint is missing"),
    (Manifest, "results/tasks/t/n", object, "results.tasks.t .*n is missing"),
    (Manifest, "results/tasks/t/miou", 1.5, "miou is 1.5; expected 0 to 1"),
    (Manifest, "results/tasks/t/n", 1.5, "n is 1.5; expected an integer"),
    (Manifest, "results/macro/miou", None, "results.macro.miou is None: expected .*number"),
    (Manifest, "versions/torch", 2, "versions.torch is 2: expected .*string"),
    (Manifest, "hardware/accelerators", [1], r"hardware.accelerators\[0\] is 1: expected"),
    (ResponseLine, "response", 3, "response is 3: expected .*string"),
    (ResponseLine, "image_sizes", [[0, 4]], r"image_sizes\[0\]\[0\] is 0: expected .*1"),
    (ResponseLine, "image_sizes", [[4]], r"image_sizes\[0\] is \[4\]: .* at least 2"),
    (ResponseLine, "prompt", object, "prompt is missing"),
]
SOUND: dict[Any, Any] = {
    Manifest: {"schema": 1, "created": "2026-01-01"} | MANIFEST,
    ResponseLine: RESPONSES[0],
}
SCHEMA_OF = {Manifest: "run_manifest", ResponseLine: "run_response"}


@pytest.mark.parametrize(("kind", "path", "new", "words"), FAULTS)
def test_a_fault_is_named_where_a_validator_finds_one(
    kind: Any, path: str, new: Any, words: str
) -> None:
    assert faults(SOUND[kind], kind) == []
    wrong = set_at(SOUND[kind], path, new)
    (fault,) = faults(wrong, kind)
    assert re.search(words, fault), fault
    # NaN and Infinity are no JSON, and the library finds no fault in them.
    if "nan" not in repr(new) and "inf" not in repr(new):
        schema = json_schemas()[SCHEMA_OF[kind]]
        assert not jsonschema.Draft202012Validator(schema).is_valid(wrong)


SCORE_FAULTS = [
    ("status", "fine", "status is 'fine': expected 'ok', 'no_box'"),
    ("iou", 1.01, "iou is 1.01: expected .*1"),
    ("iou", float("nan"), "iou is nan: expected a finite number"),
    ("box", [1, 2, 3, float("inf")], r"box\[3\] is inf: expected a finite number"),
    ("box", [1, 2, 3], r"box\[3\] is missing"),
    ("box", [1, 2, 3, "4"], r"box\[3\] is '4': expected .*number"),
    ("excluded", 1, "excluded is 1: expected .*boolean"),
]


@pytest.mark.parametrize(("name", "new", "words"), SCORE_FAULTS)
def test_a_fault_of_a_score_is_named_where_a_validator_finds_one(
    name: str, new: Any, words: str
) -> None:
    sound = json.loads(json.dumps(asdict(SCORES[0])))
    assert read_score(json.dumps(sound | {"later": 1}).encode()) == SCORES[0]
    with pytest.raises(ValueError, match=words):
        read_score(json.dumps(sound | {name: new}).encode())
    if "nan" not in repr(new) and "inf" not in repr(new):
        validator = jsonschema.Draft202012Validator(json_schemas()["run_score"])
        assert validator.is_valid(sound)
        assert not validator.is_valid(sound | {name: new})


# What is no record


def test_a_response_that_is_no_unicode_is_read_back(tmp_path: Path) -> None:
    odd = [response("a", "half a pair \ud800 “x”"), RESPONSES[1]]
    assert load_run(write(tmp_path / "run", responses=odd)).responses == odd


def test_a_record_without_usage_is_read(tmp_path: Path) -> None:
    path = shutil.copytree(COMMITTED, tmp_path / "run")
    assert load_run(path).manifest.usage.counted == 600
    without = rewritten(path, "manifest.json", lambda manifest: manifest.pop("usage"))
    assert load_run(without).manifest.usage is None


def test_checksums_are_those_of_the_files(tmp_path: Path) -> None:
    path = write(tmp_path / "run")
    sums = json.loads((path / "checksums.json").read_text())
    for name in ("manifest.json", "responses.jsonl", "scores.jsonl"):
        assert sums[name] == hashlib.sha256((path / name).read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["manifest.json", "responses.jsonl", "scores.jsonl"])
def test_a_changed_file_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "run")
    with (path / name).open("a") as file:
        file.write("\n")
    with pytest.raises(UserError, match=f"{name} was changed after the record was written"):
        load_run(path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "run")
    (path / "scores.jsonl").unlink()
    with pytest.raises(UserError, match=r"scores\.jsonl is missing"):
        load_run(path)
    with pytest.raises(UserError, match="is no run record"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (
            2,
            r"has schema 2; this version reads 1\. The record is newer: univg 9\.9 .*update",
        ),
        (0, r"has schema 0.*The record is older; score the run again: `univg score --responses`"),
        ("x", r"has schema 'x'.*That is no version of a record; score the run again"),
        (None, r"has schema None.*That is no version"),
    ],
)
def test_another_schema_is_refused(tmp_path: Path, schema: Any, words: str) -> None:
    def change(value: dict[str, Any]) -> None:
        value["schema"] = schema
        value["versions"]["univg"] = "9.9"
        del value["settings"]  # another schema may have other keys

    path = rewritten(write(tmp_path / "run"), "manifest.json", change)
    with pytest.raises(UserError, match=words):
        load_run(path)


@pytest.mark.parametrize("key", sorted(set(REQUIRED) - {"schema", "created"}))
def test_a_manifest_without_provenance_is_not_written(tmp_path: Path, key: str) -> None:
    lacking = {name: value for name, value in manifest().items() if name != key}
    with pytest.raises(UserError, match=rf"manifest\.json: {key} is missing"):
        write(tmp_path / "run", manifest=lacking)
    assert list(tmp_path.iterdir()) == []


def empty(rows: list[Any]) -> None:
    rows.clear()


DAMAGED = [
    ("scores.jsonl", lambda rows: rows.pop(), r"different ids at line 2: 'b' and None"),
    ("scores.jsonl", lambda rows: rows.reverse(), r"different ids at line 1: 'a' and 'b'"),
    ("scores.jsonl", lambda rows: rows[1].pop("iou"), r"scores\.jsonl:2: iou is missing"),
    ("scores.jsonl", lambda rows: rows.insert(0, 7), r"scores\.jsonl:1: the value is 7: expected"),
    ("scores.jsonl", empty, r"different ids at line 1: 'a' and None"),
    ("responses.jsonl", lambda rows: rows[0].pop("id"), r"responses\.jsonl:1: id is missing"),
    ("manifest.json", lambda m: m.pop("dataset"), r"manifest\.json: dataset is missing"),
    ("manifest.json", lambda m: m["model"].pop("id"), r"manifest\.json: model\.id is missing"),
    ("manifest.json", lambda m: m.update(n=3), r"n is 3, and responses\.jsonl has 2 lines"),
]


@pytest.mark.parametrize(("name", "change", "words"), DAMAGED)
def test_a_record_that_contradicts_itself_is_refused(
    tmp_path: Path, name: str, change: Any, words: str
) -> None:
    path = rewritten(write(tmp_path / "run"), name, change)
    with pytest.raises(
        UserError, match=rf"is no sound run record: .*{words}.*To repair: score the run"
    ):
        load_run(path)


def test_a_doubled_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="duplicate id 'a'"):
        write(tmp_path / "run", responses=RESPONSES[:1] * 2, scores=SCORES[:1] * 2)


def test_an_empty_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no sample"):
        write(tmp_path / "run", responses=[], scores=[])
    path = write(tmp_path / "run")
    for name in ("responses.jsonl", "scores.jsonl"):
        rewritten(path, name, empty)
    with pytest.raises(UserError, match="holds no sample"):
        load_run(path)
    with pytest.raises(UserError, match="holds no sample"):
        make_record("x", manifest=manifest(), responses=[], scores=[])


def test_files_that_are_no_json_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "run")
    copy = Path(shutil.copytree(path, tmp_path / "copy"))
    (copy / "checksums.json").write_text("[]")
    with pytest.raises(UserError, match="expected a JSON object, received list"):
        load_run(copy)
    rewritten(path, "scores.jsonl", lambda rows: None)
    (path / "scores.jsonl").write_text("{")
    sums = json.loads((path / "checksums.json").read_text())
    sums["scores.jsonl"] = hashlib.sha256(b"{").hexdigest()
    (path / "checksums.json").write_text(json.dumps(sums))
    with pytest.raises(UserError, match=r"scores\.jsonl:1: .*Invalid JSON"):
        load_run(path)


def test_changes_belong_to_the_record(tmp_path: Path) -> None:
    record = make_record("x", manifest=manifest(), responses=RESPONSES, scores=SCORES)
    path = record.write(tmp_path / "run", changes=[{"id": "a"}])
    assert json.loads((path / "changes.jsonl").read_text()) == {"id": "a"}
    load_run(path)
    with (path / "changes.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(UserError, match=r"changes\.jsonl was changed after"):
        load_run(path)


def test_rows_have_the_checksum_of_their_file(tmp_path: Path) -> None:
    path = write(tmp_path / "run")
    for name, rows in (
        ("responses.jsonl", RESPONSES),
        ("scores.jsonl", [line.to_dict() for line in SCORES]),
    ):
        assert lines_sha256(rows) == hashlib.sha256((path / name).read_bytes()).hexdigest()


def test_samples_of_a_record_are_those_that_were_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path))
    sample = GroundingSample(
        id="a",
        benchmark="own",
        task="t",
        split="test",
        images=("own/a.png",),
        widths=(64,),
        heights=(48,),
        instruction="Where is it?",
        targets=(Target(0, (0.1, 0.2, 0.5, 0.9)),),
        image_is_given=True,
        cluster="c",
    )
    dataset = MANIFEST["dataset"] | {"fingerprint": fingerprint([sample])}
    record = load_run(write(tmp_path / "run", manifest=manifest(dataset=dataset)))
    with pytest.raises(UserError, match=r"benchmark 'own' is not prepared.*univg prepare own"):
        prepared_samples(record)
    write_benchmark([sample], benchmark="own", root=tmp_path)
    assert prepared_samples(record) == [sample]
    other = load_run(write(tmp_path / "other"))
    with pytest.raises(UserError, match=r"'own' has changed since the evaluation.*ffffffffffff…"):
        prepared_samples(other)


def test_nothing_stays_of_a_failed_write(tmp_path: Path) -> None:
    def breaks():
        yield RESPONSES[0]
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        write(tmp_path / "run", responses=breaks())
    with pytest.raises(UserError, match="different ids"):
        write(tmp_path / "run", scores=SCORES[:1])
    with pytest.raises(ValueError, match="Out of range float"):
        write(tmp_path / "run", manifest=manifest(generation={"top_p": float("nan")}))
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_kept_unless_it_is_an_older_record(tmp_path: Path) -> None:
    path = write(tmp_path / "run")
    with pytest.raises(UserError, match="exists; choose another folder"):
        write(path)
    write(path, scores=[replace(score, iou=1.0) for score in SCORES], replace=True)
    assert load_run(path).scores[0].iou == 1.0
    assert list(tmp_path.iterdir()) == [path]
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter.txt").write_text("words")
    with pytest.raises(UserError, match="is no run record"):
        write(precious, replace=True)
    assert (precious / "chapter.txt").read_text() == "words"


def test_links_in_the_place_of_a_record(tmp_path: Path) -> None:
    path = write(tmp_path / "real")
    link = tmp_path / "link"
    link.symlink_to(path)
    assert load_run(link).scores == load_run(path).scores
    with pytest.raises(UserError, match="link exists; choose another folder"):
        write(link)
    write(link, scores=[replace(score, iou=1.0) for score in SCORES], replace=True)
    assert link.is_symlink()
    assert load_run(path).scores[0].iou == 1.0
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="dangling exists; choose another folder"):
        write(dangling)


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match=r"cannot write a run record into .*No space left"):
        write(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "run")

    def shut(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path / "scores.jsonl"))

    monkeypatch.setattr(Path, "is_file", shut)
    with pytest.raises(UserError, match=r"cannot read the run record .*denied \(.*scores\.jsonl"):
        load_run(path)


@pytest.mark.parametrize("name", ["manifest.json", "responses.jsonl"])
@pytest.mark.parametrize("value", ["nan", "-inf"])
def test_numbers_that_json_lacks_are_refused(tmp_path: Path, name: str, value: str) -> None:
    def change(found: Any) -> None:
        (found if isinstance(found, dict) else found[1])["of a later version"] = float(value)

    path = rewritten(write(tmp_path / "run"), name, change)
    with pytest.raises(UserError, match=rf"{name}.*(NaN|Infinity) is no JSON"):
        load_run(path)


def test_odd_words_in_a_manifest_are_read_back(tmp_path: Path) -> None:
    # A path that is no UTF-8 comes from the command line with halves of surrogate pairs.
    model = {"id": "modèle-\udce9", "backend": "b", "args": "a=\u2028日本", "config_sha256": None}
    record = load_run(write(tmp_path / "run", manifest=manifest(model=model)))
    assert record.manifest.to_dict()["model"] == model


@pytest.mark.parametrize(
    ("text", "words"), [("[" * 100_000, "cannot read .*recursion"), ("\ud800", "cannot read")]
)
def test_a_nested_or_broken_manifest_is_told(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path / "run")
    (path / "checksums.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError, match=words):
        load_run(path)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write a run record into .*file.*another folder"):
        write(tmp_path / "file" / "record")


def test_environment_names_versions_and_hardware() -> None:
    found = environment()
    assert found["versions"]["univg"]
    assert found["versions"]["python"].startswith("3.")
    assert {"torch", "transformers", "lmms_eval", "commit"} <= set(found["versions"])
    assert found["hardware"]["cpu_count"] >= 1


# The page


def page(repo_root: Path) -> str:
    return (repo_root / "docs" / "runs.md").read_text(encoding="utf-8")


def test_the_page_names_every_key_of_the_manifest(repo_root: Path) -> None:
    text = page(repo_root)
    missing = [
        name for name in json_schemas()["run_manifest"]["properties"] if f"`{name}`" not in text
    ]
    assert missing == []


def test_the_examples_of_the_page_run(
    repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    scores = [
        score("a", "ok", 0.5),
        score("b", "no_box", 0.25, excluded=True),  # counts in no mean
        score("c", "ok", 0.3),
        score("d", "none", None, no_target_right=True),
    ]
    write(
        tmp_path / "out" / "records" / "20261122_101500" / "mig_bench",
        manifest=manifest(n=4),
        responses=[response(name, "x") for name in "abcd"],
        scores=scores,
    )
    monkeypatch.chdir(tmp_path)
    first, second = re.findall(r"```python\n(.*?)```", page(repo_root), re.DOTALL)
    exec(first, {})
    assert capsys.readouterr().out.splitlines() == [
        "m own 0.5",
        "a ok 0.5",
        "b no_box 0.25",
        "c ok 0.3",
        "d none None",
    ]
    names: dict[str, Any] = {}
    exec(second, names)
    (row,) = names["counted"].groupby("task")["iou"].agg(n="size", miou="mean").itertuples()
    assert (row.n, row.miou) == (2, pytest.approx(0.4))
    assert capsys.readouterr().out.splitlines()[-2].split() == ["t", "0.5"]
