"""What commands print fits the terminal, and what is broken over lines or tables is all there."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from pathlib import Path

import pytest

from univg_eval.cli import main
from univg_eval.terminal import Sheet, fitted, sheet_lines
from univg_train.cli import main as train_main

RUNS = Path(__file__).resolve().parent.parent / "results" / "runs"
RESPONSES = RUNS / "tiny_cot" / "responses.jsonl"
FIGURE = re.compile(r"(?<![\w.-])[-+]?\d[\d.,]*(?:–\d[\d.]*)?(?![\w-])")

COMMANDS = {
    "score": f"score --benchmark univg_mini --responses {RESPONSES} --dialect qwen2_vl",
    "rescore": f"rescore {RUNS}/tiny_cot --protocol univg-r1 -o {{out}}",
    "failures": f"failures {RUNS}",
    "compare": f"compare {RUNS}/tiny_cot {RUNS}/tiny_grpo",
    "leaderboard": f"leaderboard {RUNS}",
    "published": "leaderboard --published --ablations",
    "marks": "leaderboard --marks",
    "export": f"export {RUNS}/tiny -o {{out}}",
    "audit": "audit univg_mini --quick",
    "list": "prepare --list",
    "prepare": "prepare univg_mini",
    "dialects": "dialects",
    "a dialect": "dialects qwen3_vl",
    "a service": "dialects gpt-5.5",
    "no scale": "dialects kimi_k2_5",
    "model types": "dialects --model-types",
    "configs": "train configs",
    "data": "train data univg_mini --form samples",
}


def said(
    name: str, width: int, whole_mini: Path, out: Path, patch: pytest.MonkeyPatch, capsys
) -> list[str]:
    patch.setenv("UNIVG_DATA", str(whole_mini))
    patch.setenv("COLUMNS", str(width))
    words = shlex.split(COMMANDS[name].format(out=out))
    capsys.readouterr()
    run = train_main if words[0] == "train" else main
    assert run(words[1:] if words[0] == "train" else words) in (0, 3)
    return capsys.readouterr().out.splitlines()


def is_unbreakable(line: str) -> bool:
    """Whether nothing is on the line that could stand on another one: a path, an address, a form.

    A name at the beginning of a row, and the mark behind a command, stay with it.
    """
    words = line.removesuffix(" \\").split()
    return max(map(len, words)) > 80 - 16 or (len(words) <= 2 and any("/" in w for w in words))


@pytest.mark.parametrize("name", COMMANDS)
def test_no_line_is_too_long_and_no_figure_is_lost(
    name: str, whole_mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    figures = []
    for width in (80, 200):
        lines = said(name, width, whole_mini, tmp_path / str(width), monkeypatch, capsys)
        too_long = [line for line in lines if len(line) > width and not is_unbreakable(line)]
        assert not too_long
        assert not [line for line in lines if re.match(r"\s*(?:%(?! of n)|points\b|MiB\b)", line)]
        paths = (str(tmp_path), str(RUNS))
        text = "\n".join(line for line in lines if not any(path in line for path in paths))
        figures.append(Counter(FIGURE.findall(text)))
    # Ranks and names stand again in each part of a table that is too wide.
    narrow, wide = figures
    assert not wide - narrow


@pytest.mark.parametrize("width", [80, 100])
def test_the_cells_of_a_narrow_table_are_those_of_a_wide_one(width: int) -> None:
    heads = ["sample", "task", *(f"figure number {i}" for i in range(9))]
    rows = []
    for n in range(1, 4):
        values = (f"{n}{i}.{i}–{n}{i}.5" for i in range(9))
        rows.append([f"univg_mini-object_tracking-{n:05d}", "a task", *values])
    sheet = Sheet("a title", heads, rows, names=2)

    def cells(width: int) -> set[str]:
        words = {word for line in sheet_lines(sheet, width) for word in line.split()}
        return {word for word in words if "─" not in word}

    assert cells(width) == cells(200)
    assert max(map(len, sheet_lines(sheet, width))) <= width


def test_no_cell_steers_a_terminal() -> None:
    sheet = Sheet("a\x1b[31mtitle", ["na\rme", "n"], [["one\nrow\x1b[2J", "1"]])
    lines = list(sheet_lines(sheet, 80))
    assert all(line.isprintable() for line in lines)
    assert any(r"one\nrow\x1b[2J" in line for line in lines)


def test_a_row_with_a_name_goes_on_below_its_text() -> None:
    line = "  resize rule  to multiples of 28, area 3136 to 12845056 pixels"
    assert fitted(line, 40) == [
        "  resize rule  to multiples of 28, area",
        "               3136 to 12845056 pixels",
    ]
