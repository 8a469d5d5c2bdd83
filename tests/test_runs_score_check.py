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
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sums = json.loads((path / "checksums.json").read_text())
    sums["scores.jsonl"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (path / "checksums.json").write_text(json.dumps(sums))
    return path


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
