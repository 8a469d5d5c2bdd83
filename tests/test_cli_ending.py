"""The end of an evaluation: figures of the leaderboard, what lowers them, what to do next."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pytest
from factories import make_sample
from leaderboard_data import record
from run_records import record_of

from univg_eval.cli import main
from univg_eval.cli._ending import print_ending
from univg_eval.leaderboard import build_leaderboards
from univg_eval.runs.record import load_run, make_record
from univg_eval.samples import GroundingSample, Target, write_benchmark

RIGHT = {"find": [1.0] * 6 + [0.0] * 4, "count": [1.0] * 2 + [0.0] * 3}
GROUPS = {"find": [f"g{n // 3}" for n in range(10)], "count": [f"h{n}" for n in range(5)]}


def test_the_figures_are_those_of_the_leaderboard(capsys: pytest.CaptureFixture[str]) -> None:
    run = record("mine", RIGHT, clusters=GROUPS)
    print_ending([run])
    said = capsys.readouterr().out
    row = build_leaderboards([run])[0].reference
    assert row.macro is not None and row.macro.low is not None and row.macro.high is not None
    total = next(line for line in said.splitlines() if "mean over tasks" in line)
    limits = f"{100 * row.macro.low:.1f}–{100 * row.macro.high:.1f}"
    assert total.split()[3:6] == ["15", f"{100 * (0.6 + 0.4) / 2:.1f}", limits]
    for task, share in (("find", "60.0"), ("count", "40.0")):
        estimate = row.entry.columns[task].estimate
        limits = f"{100 * estimate.low:.1f}–{100 * estimate.high:.1f}"
        assert re.search(rf"{task} +\d+ +{share} +{limits} +{share} +100.0", said)
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
    assert re.search(r"find 10 30\.0 \S+ 30\.0 70\.0", said)


def mixed_set() -> list[GroundingSample]:
    """Samples with one target, with none and with several; groups of images of two."""
    targets = {
        "one": (Target(0, (0.1, 0.2, 0.3, 0.4)),),
        "none": (),
        "several": (Target(0, (0.1, 0.2, 0.3, 0.4)), Target(0, (0.5, 0.6, 0.7, 0.8))),
    }
    kinds = {
        "street": ("one",) * 8 + ("none",) * 2,
        "shelf": ("one",) * 5 + ("several",) * 3,
        "empty": ("none",) * 4,
    }
    rows = [(task, kind) for task, found in kinds.items() for kind in found]
    return [
        make_sample(
            number,
            task=task,
            targets=targets[kind],
            images=(f"toy/images/{number // 2}.png",),
            widths=(64,),
            heights=(64,),
            cluster=f"g{number // 2}",
        )
        for number, (task, kind) in enumerate(rows)
    ]


def test_one_number_for_one_run_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path))
    samples = mixed_set()
    write_benchmark(samples, benchmark="toy", root=tmp_path)
    # Of one target 5 of 8 and 1 of 5 right; of none 1 of 2 and 4 of 4; of several all.
    right, wrong = "[100, 200, 300, 400]", "[0, 0, 50, 50]"
    texts = {s.id: right if s.targets else "There is no such object." for s in samples}
    texts |= {s.id: wrong for s in samples if s.task == "shelf"}
    texts |= {samples[n].id: wrong for n in (1, 3, 6, 9)}
    texts[samples[10].id] = right
    texts |= {s.id: f"{right}, [500, 600, 700, 800]" for s in samples if len(s.targets) == 2}
    run = str(record_of(samples, texts, label="mine").write(tmp_path / "run"))

    def printed(*command: str) -> str:
        capsys.readouterr()
        assert main([*command]) == 0
        return " ".join(capsys.readouterr().out.split())

    (row,) = json.loads(printed("leaderboard", run, "--json"))["rows"]
    macro = row["macro"]
    assert macro == pytest.approx((5 / 8 + 1 / 5) / 2)
    low, high = (row["intervals"]["macro"][end] for end in ("low", "high"))
    figures = f"{100 * macro:.1f} {100 * low:.1f}–{100 * high:.1f}"
    words = f"{100 * macro:.1f} % ({100 * low:.1f}–{100 * high:.1f})"

    scores = ["score", "--benchmark", "toy", "--dialect", "norm1000"]
    scores += ["--responses", f"{run}/responses.jsonl"]
    assert f"mean over tasks 13 {figures}" in printed(*scores)
    scored = json.loads(printed(*scores, "--json"))["macro"]
    assert scored["acc@0.5"] == pytest.approx(macro)
    assert scored["acc@0.5_interval"] == pytest.approx([low, high])
    assert scored["no_target_acc"] == pytest.approx((1 / 2 + 1) / 2)
    assert scored["f1@0.5"] == 1.0

    print_ending([load_run(run)])
    assert f"mean over tasks 13 {figures}" in " ".join(capsys.readouterr().out.split())
    again = printed("rescore", run, "-o", str(tmp_path / "again"))
    assert f"mean over tasks 13 {figures} {figures}" in again
    assert f"acc@0.5 {words}, mean over tasks" in printed("failures", run)
    compared = printed("compare", f"a={run}", f"b={tmp_path / 'again'}")
    assert compared.count(words) == 2
    assert f"{100 * macro:.1f} % macro acc@0.5" in compared

    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    page = tmp_path / "report.html"
    printed("report", run, "--images", "none", "-o", str(page))
    summary = page.read_text().partition('class="summary"')[2].partition("</table>")[0]
    heads = re.findall(r"<th scope=\"col\" class=\"number\">([^<]*)", summary)
    cells = re.findall(
        r"<td class=\"number\">([^<]*?) *(?:<span[^>]*>([^<]*)</span>)?</td>", summary
    )
    shown = dict(zip(heads, cells, strict=True))
    assert shown[heads[0]] == (f"{100 * macro:.1f}", f"{100 * low:.1f} to {100 * high:.1f}")
    assert heads[0].startswith("Acc@0.5, macro")
    assert shown["No-target Acc, macro"][0] == "75.0"
    assert shown["F1@0.5, macro"][0] == "100.0"


def test_a_set_without_single_targets_shows_its_own_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path))
    samples = [s for s in mixed_set() if s.task == "empty"]
    write_benchmark(samples, benchmark="toy", root=tmp_path)
    texts = {s.id: "There is no such object." for s in samples[:3]} | {
        samples[3].id: "[1, 1, 9, 9]"
    }
    run = str(record_of(samples, texts, label="mine").write(tmp_path / "run"))
    assert main(["leaderboard", run, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["macro"] == 0.75
    print_ending([load_run(run)])
    assert re.search(r"no_target_acc %.*empty +4 +75\.0", capsys.readouterr().out, re.DOTALL)
    assert main(["compare", f"a={run}", f"b={run}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metric"] == "no_target_acc"


def test_tables_of_lmms_eval_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    command = pytest.importorskip("univg_eval.lmms.command")
    shown = io.StringIO()
    monkeypatch.setattr("sys.stdout", shown)
    with command._without_tables():
        sys.stdout.write("| a | 1 |\nn = 5\n|---|---|\nlast")
    assert shown.getvalue() == "n = 5\nlast"
