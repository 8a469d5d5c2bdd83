"""Scores that were edited are found wherever the benchmark is prepared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from run_records import record_of

from univg_eval.cli import main
from univg_eval.cli._runs import read_runs
from univg_eval.runs.manifest import Manifest
from univg_eval.runs.record import load_run
from univg_eval.runs.score_check import ScoreChecker
from univg_eval.samples import GroundingSample, Target, write_benchmark

SAMPLES = [
    GroundingSample(
        id=f"own-{i}",
        benchmark="own",
        task="t",
        split="test",
        images=("own/a.png",),
        widths=(200,),
        heights=(100,),
        instruction="Where is it?",
        targets=(Target(0, (0.1, 0.2, 0.5, 0.9)),),
        image_is_given=True,
        cluster=f"c{i}",
    )
    for i in range(4)
]
RIGHT, WRONG = "[100, 200, 500, 900]", "[600, 200, 900, 900]"
TEXTS = {"own-0": RIGHT, "own-1": WRONG, "own-2": WRONG, "own-3": None}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path / "data"))
    write_benchmark(SAMPLES, benchmark="own", root=tmp_path / "data")
    return tmp_path


def honest(root: Path) -> Path:
    return record_of(SAMPLES, TEXTS, label="honest").write(root / "honest")


def edited(root: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A record whose second score was changed, with checksums that fit."""
    path = record_of(SAMPLES, TEXTS, label="edited").write(root / "edited")
    file = path / "scores.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    change(rows[1])
    write_over(file, "".join(json.dumps(row) + "\n" for row in rows))
    return path


def with_manifest(root: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A record with another manifest, with checksums that fit."""
    path = record_of(SAMPLES, TEXTS, label="edited").write(root / "edited")
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    write_over(path / "manifest.json", json.dumps(manifest))
    return path


def write_over(file: Path, text: str) -> None:
    file.write_text(text)
    sums = json.loads((file.parent / "checksums.json").read_text())
    sums[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    (file.parent / "checksums.json").write_text(json.dumps(sums))


def marks(capsys: pytest.CaptureFixture[str], *paths: Path) -> dict[str, list[str]]:
    capsys.readouterr()
    assert main(["leaderboard", *map(str, paths), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    return {row["model"]: row["marks"] for row in rows}


@pytest.mark.parametrize(
    "change",
    [
        {"iou": 1.0, "center": True},
        {"iou": 0.5},
        {"status": "no_box", "box": None},
        {"excluded": True},
        {"cluster": "c0"},
        {"task": "u"},
    ],
    ids=str,
)
def test_every_edited_field_is_found(
    root: Path, change: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path = edited(root, lambda row: row.update(change))
    record, difference = ScoreChecker().check(load_run(path))
    assert record.score_check == "different"
    assert "scores of 1 of 4 samples are not those that the kept responses get" in difference
    assert "first: own-1" in difference
    assert read_runs([str(path)])[0].score_check == "different"
    assert f"univg: note: {path}: the scores of 1 of 4" in capsys.readouterr().err


def test_fields_that_no_score_of_an_older_record_has_are_no_difference(root: Path) -> None:
    box = (0.1, 0.2, 0.5, 0.9)
    samples = [replace(sample, targets=(Target(0, box),) * 2) for sample in SAMPLES]
    (root / "data" / "own" / "samples.jsonl").unlink()
    write_benchmark(samples, benchmark="own", root=root / "data")
    record = record_of(samples, TEXTS, label="honest")
    later = dict.fromkeys(("matched_iou", "f1_95", "f1_mean", "n_targets"))
    older = [replace(score, **later) for score in record.scores]
    check = ScoreChecker().check
    assert record.scores[1].matched_iou == 0.0
    assert check(replace(record, scores=older))[0].score_check == "same"
    # Without the zeros of the misses, the mean of matched_iou would be higher.
    kept = [record.scores[0], *older[1:]]
    assert check(replace(record, scores=kept))[0].score_check == "different"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (
            lambda m: m["results"]["tasks"]["t"].update({"acc@0.75": 0.9}),
            "results.tasks.t.acc@0.75",
        ),
        (lambda m: m["results"]["tasks"].update(u={"n": 1, "excluded": 0}), "results.tasks.u.n"),
        (lambda m: m["results"]["macro"].update(miou=0.9), "results.macro.miou"),
        (
            lambda m: m["results"].update(
                rejection={"n_no_target": 1, "n_said_none": 1, "recall": 1.0, "precision": 1.0}
            ),
            "results.rejection.n_no_target",
        ),
        (
            lambda m: m["results"].update(published={"mc-bench": {"accuracy": 1.0}}),
            "results.published.mc-bench.accuracy",
        ),
        (lambda m: m.update(excluded=1), "excluded"),
        (lambda m: m["dataset"].update(n=3), "dataset.n"),
    ],
)
def test_edited_figures_of_the_manifest_are_found(
    root: Path, change: Callable[[dict[str, Any]], None], name: str
) -> None:
    path = with_manifest(root, change)
    record, difference = ScoreChecker().check(load_run(path))
    assert record.score_check == "different"
    assert "manifest.json has figures that are not those of the kept responses" in difference
    assert f"first: {name})" in difference


def test_a_part_of_a_set_that_claims_to_be_the_whole_is_found(root: Path) -> None:
    whole = record_of(SAMPLES, TEXTS, label="edited")
    part = record_of(SAMPLES[:3], TEXTS, label="part")
    dataset = whole.manifest.to_dict()["dataset"]
    for complete, check in ((False, "same"), (True, "different")):
        claimed = part.manifest.to_dict() | {"dataset": dataset, "complete": complete}
        record = replace(part, manifest=Manifest.read(claimed))
        assert ScoreChecker().check(record)[0].score_check == check


FORMATS = ("terminal", "markdown", "csv", "latex", "json")


@pytest.mark.parametrize(
    ("prepared", "mark", "words"),
    [
        (True, "scores-differ", "its scores or figures are not those"),
        (False, "scores-unchecked", "not scored again here"),
    ],
)
def test_every_table_says_so(
    root: Path,
    prepared: bool,
    mark: str,
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paths = [str(honest(root)), str(edited(root, lambda row: row.update(iou=1.0, center=True)))]
    if not prepared:
        monkeypatch.setenv("UNIVG_DATA", str(root / "elsewhere"))
    for form in FORMATS:
        assert main(["leaderboard", *paths, "--format", form]) == 0
        assert mark in capsys.readouterr().out.replace("\\_", "_"), form
    for form in ([], ["--markdown"], ["--json"]):
        assert main(["compare", *paths, *form]) == 0
        (note,) = [line for line in capsys.readouterr().out.splitlines() if words in line]
        assert ("honest" in note) is not prepared
        assert "edited" in note


def test_the_leaderboard_leaves_them_out_of_what_it_ranks(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    better = edited(root, lambda row: row.update(iou=1.0, center=True))
    found = marks(capsys, honest(root), better)
    assert "scores-differ" in found["edited"]
    assert not {"scores-differ", "scores-unchecked"} & set(found["honest"])
    assert main(["leaderboard", str(root / "honest"), str(better), "--strict", "--json"]) == 0
    assert [row["model"] for row in json.loads(capsys.readouterr().out)["rows"]] == ["honest"]


def test_what_cannot_be_checked_is_said(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = honest(root)
    other = [replace(SAMPLES[0], instruction="Where is another?"), *SAMPLES[1:]]
    (root / "data" / "own" / "samples.jsonl").unlink()
    write_benchmark(other, benchmark="own", root=root / "data")
    assert "scores-unchecked" in marks(capsys, path)["honest"]
    monkeypatch.setenv("UNIVG_DATA", str(root / "nothing"))
    assert "scores-unchecked" in marks(capsys, path)["honest"]


def test_an_older_rule_and_a_control_cannot_be_checked(root: Path) -> None:
    record = load_run(honest(root))
    assert ScoreChecker().check(record)[0].score_check == "same"
    manifest = record.manifest
    older = replace(record, manifest=manifest.model_copy(update={"protocol_version": 0}))
    assert ScoreChecker().check(older)[0].score_check == "unknown"
    dataset = manifest.dataset.model_copy(update={"control": "blank"})
    blank = replace(record, manifest=manifest.model_copy(update={"dataset": dataset}))
    assert ScoreChecker().check(blank)[0].score_check == "unknown"
