"""``univg failures``: counts in the terminal, for scripts, and its mistakes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from factories import make_sample
from run_records import record_of

from univg_eval.cli import main
from univg_eval.samples import Target, write_benchmark

SAMPLES = [
    make_sample(0, targets=(Target(image=1, box=(0.1, 0.2, 0.3, 0.6)),)),
    make_sample(1, image_is_given=False),
    make_sample(2, targets=(), images=("toy/images/a.png",), widths=(64,), heights=(48,)),
    make_sample(3),
    make_sample(4),
]
RESPONSES = (
    "[100, 200, 300, 600]",
    "In the first image: [500, 500, 750, 1000]",
    "There is no such object.",
    "[0, 0, 1000, 1000]",
    None,
)
TEXTS = {sample.id: text for sample, text in zip(SAMPLES, RESPONSES, strict=True)}


@pytest.fixture
def run_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    root = tmp_path / "data"
    write_benchmark(SAMPLES, benchmark="toy", root=root)
    monkeypatch.setenv("UNIVG_DATA", str(root))
    folders = []
    for name, texts in (("base", TEXTS), ("other", {"toy-00000": "[0, 0, 50, 50]"})):
        folder = record_of(SAMPLES, texts, label=name).write(tmp_path / name)
        folders.append(f"{name}={folder}")
    return folders


def test_failures_in_the_terminal_and_for_scripts(run_folders, tmp_path, capsys):
    out_file = tmp_path / "misses.jsonl"
    assert main(["failures", *run_folders, "--out", str(out_file)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "base on toy: acc@0.5 25.0 %, mean over tasks. 3 of 5 samples are misses at IoU" in out
    assert "mean over tasks. 1 of 1 samples are misses at IoU 0.5" in out
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


def test_tables_fit_a_narrow_terminal_and_lose_no_figure(run_folders, monkeypatch, capsys):
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
    monkeypatch.setenv("COLUMNS", "36")
    assert main(["failures", run_folders[0]]) == 0
    assert tables() == [
        ["task", "n", "misses", "wrong_image"],
        ["all", "5", "3", "1"],
        ["task", "no_box", "loose"],
        ["all", "1", "1"],
    ]


def test_mistakes(run_folders, tmp_path, monkeypatch, capsys):
    def refused(*arguments: str) -> str:
        assert main(["failures", run_folders[0], *arguments]) == 2
        return capsys.readouterr().err

    assert "threshold is nan; expected an IoU above 0" in refused("--threshold", "nan")
    assert "threshold is 0.0; expected an IoU above 0" in refused("--threshold", "0")
    assert "is no regular file" in refused("--out", ".")
    half = f"\ud83d={run_folders[0].partition('=')[2]}"
    assert "a name has '\\ud83d', which is no text" in refused(half, "--out", str(tmp_path / "o"))
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path / "nothing"))
    assert "benchmark 'toy' is not prepared" in refused()
