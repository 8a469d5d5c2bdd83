"""The end of an evaluation: figures of the leaderboard, what lowers them, what to do next."""

from __future__ import annotations

import io
import re
import sys

import pytest
from leaderboard_data import record

from univg_eval.cli._ending import print_ending
from univg_eval.leaderboard import build_leaderboards
from univg_eval.runs.record import make_record

RIGHT = {"find": [1.0] * 6 + [0.0] * 4, "count": [1.0] * 2 + [0.0] * 3}
GROUPS = {"find": [f"g{n // 3}" for n in range(10)], "count": [f"h{n}" for n in range(5)]}


def test_the_figures_are_those_of_the_leaderboard(capsys: pytest.CaptureFixture[str]) -> None:
    run = record("mine", RIGHT, clusters=GROUPS)
    print_ending([run])
    said = capsys.readouterr().out
    row = build_leaderboards([run])[0].reference
    assert row.macro is not None and row.macro.low is not None and row.macro.high is not None
    total = next(line for line in said.splitlines() if "mean over tasks" in line)
    assert total.split()[-3:] == [
        "15",
        f"{100 * (0.6 + 0.4) / 2:.1f}",
        f"{100 * row.macro.low:.1f}–{100 * row.macro.high:.1f}",
    ]
    for task, share in (("find", "60.0"), ("count", "40.0")):
        estimate = row.entry.columns[task].estimate
        limits = f"{100 * estimate.low:.1f}–{100 * estimate.high:.1f}"
        assert re.search(rf"{task} +\d+ +{share} +{limits} +100.0", said)
    for line in ("run record: mine", "univg report mine", "univg failures mine"):
        assert line in said
    assert "Of 15 samples" not in said


def test_what_lowers_the_figures_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    changes = {
        "toy-find-00000": {"status": "truncated", "iou": 0.0},
        "toy-find-00001": {"status": "no_box", "iou": 0.0},
        "toy-find-00002": {"status": "no_box", "iou": 0.0},
        "toy-count-00000": {"excluded": True},
    }
    run = record("mine", RIGHT, scores=changes, complete=False)
    failed = {"response": None, "error": "503"}
    rows = [row | failed if row["id"] == "toy-find-00001" else row for row in run.responses]
    manifest = run.manifest.to_dict() | {"failed_requests": 1}
    print_ending([make_record("mine", manifest=manifest, responses=rows, scores=run.scores)])
    said = " ".join(capsys.readouterr().out.split())
    assert "1 excluded (the true box is invalid), 1 whose request failed" in said
    assert "1 truncated" in said and "1 without a readable box" in said  # the other one failed
    assert "Not all samples of the set" in said
    assert re.search(r"find 10 30\.0 \S+ 70\.0", said)


def test_tables_of_lmms_eval_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    command = pytest.importorskip("univg_eval.lmms.command")
    shown = io.StringIO()
    monkeypatch.setattr("sys.stdout", shown)
    with command._without_tables():
        sys.stdout.write("| a | 1 |\nn = 5\n|---|---|\nlast")
    assert shown.getvalue() == "n = 5\nlast"
