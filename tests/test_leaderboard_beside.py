"""A run beside one published table, and the recipes of ``univg eval --like``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import lmms_data
import pytest
from leaderboard_data import record, table

from univg_eval.cli import main
from univg_eval.errors import UserError
from univg_eval.leaderboard.beside import Beside, beside, find_table
from univg_eval.leaderboard.published import MIG_BENCH_TASKS, PublishedTable, Recipe, load_published
from univg_eval.runs.record import RunRecord

RECIPE = Recipe(
    "paper", "univg_mig_bench", ("mig_bench",), "prepare it", "max_new_tokens=8", "Ask nicely."
)
FIRST, SECOND = MIG_BENCH_TASKS[:2]


def printed(**changes: Any) -> PublishedTable:
    rows = {"Low": {FIRST: "10.00", SECOND: "20.00"}, "High": {FIRST: "60.00", SECOND: "80.00"}}
    return replace(table(rows, protocol="migician"), recipe=RECIPE, **changes)


def a_run(right: int = 5, protocol: str = "migician", **changes: Any) -> RunRecord:
    ious = [1.0] * right + [0.0] * (10 - right)
    tasks = {FIRST: ious, SECOND: ious} if "tasks" not in changes else changes.pop("tasks")
    return record("mine", tasks, benchmark="mig_bench", protocol=protocol, **changes)


def reasons(found: Beside) -> str:
    return "\n".join(found.reasons)


def test_the_difference_to_each_printed_row_has_the_runs_own_interval() -> None:
    found = beside([a_run()], printed())
    assert found.own is not None and found.own.value == pytest.approx(0.5)
    assert [(row.model, row.printed) for row in found.rows] == [("High", "70.00"), ("Low", "15.00")]
    for row, mean in zip(found.rows, (0.7, 0.15), strict=True):
        assert row.difference is not None
        assert row.difference.value == pytest.approx(0.5 - mean)
        assert row.difference.low == pytest.approx(found.own.low - mean)
        assert row.difference.high == pytest.approx(found.own.high - mean)


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (a_run(), ["is not ranked with a run", "univg eval --like paper"]),
        (
            a_run(protocol="univg"),
            ["other-protocol (2 of 2 printed rows)", "univg rescore RECORD --protocol migician"],
        ),
        (a_run(complete=False), ["incomplete (this run)", "without --limit"]),
        (
            a_run(dataset={"stand_in_images": True}),
            ["stand-in-images (this run)", "prepare the set's own images (prepare it)"],
        ),
    ],
)
def test_what_sets_run_and_rows_apart_comes_with_its_remedy(
    run: RunRecord, said: list[str]
) -> None:
    text = reasons(beside([run], printed()))
    assert all(words in text for words in said), text
    assert ("other-protocol" in text) is (run.manifest.settings.protocol.value == "univg")


def test_a_row_with_a_rule_of_its_own_is_named() -> None:
    rows = {"Low": {FIRST: "10.00"}, "High": {FIRST: "60.00"}}
    own = table(rows, protocol="migician", protocols={"High": "migician+y"})
    text = reasons(beside([a_run(tasks={FIRST: [1.0, 0.0]})], replace(own, recipe=RECIPE)))
    assert "rule of their own, see the table: High" in text and "univg rescore" not in text


def test_a_run_of_another_benchmark_is_refused() -> None:
    with pytest.raises(UserError, match="no record is of mig_bench"):
        beside([record("mine", {"a": [1.0]})], printed())


def test_recipes_name_known_tasks_and_rules() -> None:
    found = {t.recipe.name: t for t in load_published() if t.recipe is not None}
    assert {"univg-r1", "univg-r1-zero-shot", "migician"} == set(found)
    text = "".join(p.read_text(encoding="utf-8") for p in lmms_data.TASKS.rglob("*.yaml"))
    for name, published in found.items():
        assert find_table(name) == published
        assert f"group: {published.recipe.tasks}\n" in text
    with pytest.raises(UserError, match=r"'univg-r2' is no published table; expected: .*univg-r1"):
        find_table("univg-r2")


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What ``univg eval`` hands to lmms-eval, which does not run."""
    command = pytest.importorskip("univg_eval.lmms.command")
    handed: dict[str, Any] = {}

    def run_eval(arguments: list[str], **others: Any) -> int:
        handed.update(others, arguments=arguments)
        others["written"].append(a_run(protocol=others["settings"]["protocol"]))
        return 0

    monkeypatch.setattr(command, "run_eval", run_eval)
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path))
    (tmp_path / "mig_bench").mkdir()
    (tmp_path / "mig_bench" / "manifest.json").write_text("{}")
    return handed


def test_like_fills_in_what_is_not_given(
    evaluated: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "--like", "migician", "--model", "m"]) == 0
    assert evaluated["arguments"] == [
        *("--model", "m", "--tasks", "univg_mig_bench", "--gen_kwargs", "max_new_tokens=128"),
    ]
    assert evaluated["settings"] == {"dialect": None, "prompt": None, "protocol": "migician"}
    said = capsys.readouterr().out
    assert "Beside [migician_mig_bench]" in said and "63.82" not in said.split("mine")[0]


def test_what_is_given_wins(evaluated: dict[str, Any]) -> None:
    given = ["--tasks=univg_mig_bench_diff", "--gen_kwargs", "max_new_tokens=9"]
    assert main(["eval", "--like", "migician", "--protocol", "migician+y", *given]) == 0
    assert evaluated["arguments"] == given
    assert evaluated["settings"]["protocol"] == "migician+y"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "migician",
            "not prepared: mig_bench. Next: `univg prepare mig_bench --download` (for a trial "
            "without the images, add --stand-in-images)",
        ),
        ("univg-r1", "`univg prepare mig_bench_revised --download --scale 1000`, or --scale 1"),
        ("univg-r1-zero-shot", "not prepared: llmseg, reasonvos, revos. Next: `univg prepare lisa"),
    ],
)
def test_what_is_not_prepared_is_named_with_its_command(
    evaluated: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    said: str,
) -> None:
    (tmp_path / "mig_bench" / "manifest.json").rename(tmp_path / "manifest.json")
    (tmp_path / "mig_bench").rename(tmp_path / "lisa")
    (tmp_path / "manifest.json").rename(tmp_path / "lisa" / "manifest.json")
    assert main(["eval", "--like", name, "--model", "m"]) == 2
    assert said in capsys.readouterr().err
    assert "arguments" not in evaluated
