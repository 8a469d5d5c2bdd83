"""Tables in the terminal: they fit, no figure is cut, and names stay text."""

from __future__ import annotations

import io
import json
import shlex
import sys
from pathlib import Path

import pytest
from factories import make_sample
from rich.console import Console
from run_records import record_of

from univg_eval.cli import main
from univg_eval.cli._tables import Sheet, print_sheet
from univg_eval.samples import write_benchmark
from univg_eval.terminal import command_lines, safe_streams, show_message, wrapped

TASKS = ("common_object", "a task with quite a long name")


def printed(sheet: Sheet, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    print_sheet(sheet, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(("width", "columns"), [(28, 1), (36, 2), (60, 5), (80, 7), (200, 12)])
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
    sheet = Sheet("", ["task", "x", "y"], rows, totals=1)
    assert printed(sheet, 80) == [
        "task  x           y",
        "───────────────────",
        "a     1  2000000000",
        "───────────────────",
        "all   3",
        "",
    ]
    assert printed(sheet, 16) == [
        *("task  x", "───────", "a     1", "───────", "all   3", ""),
        *("task           y", "────────────────", "a     2000000000", ""),
    ]


def test_an_id_stays_whole_and_heads_go_on_several_lines() -> None:
    name = "univg_mini-group_grounding-00011"
    lines = printed(Sheet("", ["sample", "95 % interval", "no"], [[name, "1.0–2.0", "7"]]), 46)
    assert lines == [
        "                                      95 %",
        "sample                            interval  no",
        "──────────────────────────────────────────────",
        "univg_mini-group_grounding-00011   1.0–2.0   7",
        "",
    ]


STEERING = "a\x1b]0;title\x07b\x9b2Jc\u202ed\u2066e\x7f"


def test_nothing_that_is_printed_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with safe_streams():
        sys.stdout.write(f"{json.dumps([STEERING], ensure_ascii=False)}\n\x1b[2J\r\x1b[1mbold\t\n")
        sys.stderr.writelines([STEERING, "\r\x1b[2K50 %"])
    out, errors = capsys.readouterr()
    first, second = out.splitlines()
    assert first.isprintable() and json.loads(first) == [STEERING]
    assert second == r"\u001b[2J\u000d" + "\x1b[1mbold\t"
    assert errors == r"a\u001b]0;title\u0007b\u009b2Jc\u202ed\u2066e\u007f" + "\r\x1b[2K50 %"


def test_no_name_in_a_message_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leaderboard", "no\x1b[2J\rrun"]) == 2
    show_message("one\x1b[31m\ntwo")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(r"univg leaderboard: no\x1b[2J\rrun does not exist")
    assert lines[1:] == [r"one\x1b[31m", "two"]


def test_a_command_is_broken_between_options_and_can_be_pasted() -> None:
    command = "univg eval --model m --model_args a=1,b='x y' --tasks t --output_path out"
    lines = command_lines(command, 40, "  ")
    assert lines == [
        "  univg eval --model m \\",
        "      --model_args a=1,b='x y' \\",
        "      --tasks t --output_path out",
    ]
    assert shlex.split("\n".join(lines).replace("\\\n", "")) == shlex.split(command)


def test_a_word_longer_than_a_line_goes_on_behind_a_comma() -> None:
    command = f"univg eval --model m --model_args {','.join(f'name_{i}={i}' for i in range(9))} -x"
    lines = command_lines(command, 40, "  ")
    assert max(map(len, lines)) <= 40
    assert shlex.split("\n".join(lines).replace("\\\n", "")) == shlex.split(command)


def test_a_figure_keeps_its_unit() -> None:
    text = "It is right in 133 of 600: 22 %, 95 % interval 19 to 26, +3.5 points."
    for width in range(20, 80):
        lines = wrapped(text, width)
        assert " ".join(lines) == text
        assert max(map(len, lines)) <= width
        assert not [line for line in lines if line.startswith(("%", "points"))]


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
