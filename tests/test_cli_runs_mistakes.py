"""What a user gets wrong when comparing runs: status 2 and one message that names thing and remedy.

The runs are the ones that come with the project.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

import pytest

from univg_eval.cli import main
from univg_eval.cli._runs import add_metric, read_runs
from univg_eval.scoring import METRICS

RUNS = Path(__file__).resolve().parent.parent / "results" / "runs"
TINY, COT = RUNS / "tiny", RUNS / "tiny_cot"

# (what, arguments, what the message has to say)
MISTAKES = [
    (
        "a file inside a record",
        ["compare", TINY / "scores.jsonl", COT],
        f"name its folder, {re.escape(str(TINY))}",
    ),
    ("a file of another kind", ["failures", RUNS / "README.md"], r"README\.md is no run record"),
    (
        "a folder without records",
        ["leaderboard", RUNS.parent / "published"],
        "holds none; expected",
    ),
    ("a path that is not there", ["report", RUNS / "tny"], r"tny does not exist; expected a run"),
    ("a folder of several runs", ["compare", RUNS, TINY], "holds 4 runs of univg_mini"),
    (
        "several where one is expected",
        ["rescore", RUNS, "-o", "new"],
        "holds 4 runs.*name its folder",
    ),
    ("an unknown metric", ["compare", TINY, COT, "--metric", "acc"], r"'acc'.*acc@0\.5, .*miou"),
    ("another benchmark", ["report", TINY, "--benchmark", "mini"], "'mini'; the runs are of univg"),
    ("an unknown table", ["leaderboard", "--table", "x"], "'x' is no .*univg_r1_mig_bench"),
    ("an unknown reference", ["leaderboard", TINY, "--reference", "x"], "'x' is no row; .* tiny"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), [case[1:] for case in MISTAKES], ids=[case[0] for case in MISTAKES]
)
def test_a_mistake_is_reported(
    arguments: list[object],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path / "data"))
    assert main([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert re.search(message, err), err
    assert err.startswith(f"univg {arguments[0]}: ") and err.count("\n") == 1 and not out
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["failures", "report", "rescore"])
def test_a_benchmark_that_is_not_prepared_is_reported(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path / "none"))
    assert main([command, str(TINY), "-o", str(tmp_path / "new")]) == 2
    err = capsys.readouterr().err
    assert "'univg_mini' is not prepared" in err and "Run `univg prepare univg_mini`" in err
    assert not any(tmp_path.iterdir())


def test_an_argument_too_many_shows_the_usage_of_its_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["compare", str(TINY), str(COT), "third"])
    err = capsys.readouterr().err
    assert err.startswith("usage: univg compare")
    assert "univg compare: error: unrecognized arguments: third" in err


def test_a_label_that_says_its_folder_does_not_say_it_twice(tmp_path: Path) -> None:
    # As `univg demo` leaves them: a folder a model, named after it.
    for folder, run in (("tiny", TINY), ("second", COT)):
        shutil.copytree(run, tmp_path / folder / "univg_mini")
    assert [run.label for run in read_runs([str(tmp_path)])] == ["cot second", "tiny"]


def test_the_help_names_every_metric() -> None:
    parser = argparse.ArgumentParser()
    add_metric(parser)
    (action,) = (action for action in parser._actions if action.dest == "metric")
    names = re.split(r", | or ", str(action.help).partition(" (")[0])
    assert tuple(names) == METRICS
