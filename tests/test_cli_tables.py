"""Tables in the terminal: they fit, no figure is cut, and names stay text."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from factories import make_sample
from rich.console import Console
from run_records import record_of

from univg_eval.cli import main
from univg_eval.cli._tables import Sheet, print_sheet
from univg_eval.samples import write_benchmark

TASKS = ("common_object", "a task with quite a long name")


def printed(sheet: Sheet, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    print_sheet(sheet, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(("width", "columns"), [(36, 1), (60, 4), (80, 7), (200, 12)])
def test_a_table_too_wide_for_the_terminal_is_printed_in_parts(width: int, columns: int) -> None:
    heads = ["task", *(f"figure {i}" for i in range(12))]
    rows = [[task, *(f"{100 * n + i}.25" for i in range(12))] for n, task in enumerate(TASKS, 1)]
    lines = printed(Sheet("title", heads, rows), width)
    assert max(map(len, lines)) <= width
    words = " ".join(lines).split()
    assert [word for word in words if word.endswith(".25")] == [
        f"{100 * n + i}.25"
        for start in range(0, 12, columns)
        for n in (1, 2)
        for i in range(start, min(12, start + columns))
    ]
    assert words.count("title") == 1


def test_totals_stand_apart_and_rows_without_a_figure_are_left_out_of_a_part() -> None:
    rows = [["a", "1", "2000000000"], ["all", "3", ""]]
    assert [line.split() for line in printed(Sheet("", ["task", "x", "y"], rows, totals=1), 80)][
        -4:
    ] == [["a", "1", "2000000000"], [], ["all", "3"], []]
    narrow = [line.split() for line in printed(Sheet("", ["task", "x", "y"], rows, totals=1), 15)]
    assert narrow.count(["all", "3"]) == 1
    assert ["all"] not in narrow


@pytest.mark.parametrize("command", ["compare", "failures", "leaderboard", "rescore"])
def test_a_name_neither_steers_the_terminal_nor_ends_the_command(
    command: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path))
    samples = [make_sample(0), make_sample(1)]
    write_benchmark(samples, benchmark="toy", root=tmp_path)
    run = record_of(samples, {"toy-00000": "[0, 0, 50, 50]"}, label="m").write(tmp_path / "run")
    more = {"compare": [str(run)], "rescore": ["-o", str(tmp_path / "new")]}
    name = "\x1b[31mred [b]\ud83d"
    assert main([command, f"{name}={run}", *more.get(command, [])]) == 0
    out = capfd.readouterr().out
    assert r"\x1b[31mred [b]\ud83d" in out
    assert "\x1b" not in out
