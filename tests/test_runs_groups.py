"""Several runs of one thing: read as one, shown as one row, compared by their means."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from leaderboard_data import record

from univg_eval.analysis.comparison import compare_runs
from univg_eval.analysis.stats import compare_pairs, macro_bootstrap, run_spread, widened
from univg_eval.cli import main
from univg_eval.cli._runs import read_runs
from univg_eval.errors import UserError
from univg_eval.leaderboard import Leaderboard, Mark, build_leaderboards
from univg_eval.leaderboard.formats import as_dict, as_frame, as_text, make_sheet
from univg_eval.runs.groups import aligned_scores
from univg_eval.runs.record import RunRecord, load_run

# Right answers of three runs on ten samples of task a and four of task b.
RIGHT = [({0, 1, 2, 3}, {0, 1}), ({0, 1, 2, 3, 4, 5}, {0, 1, 2}), ({0, 1}, {1})]


def run(right: tuple[set[int], set[int]], label: str = "m", **changes: Any) -> RunRecord:
    a, b = right
    tasks = {
        "a": [0.9 if i in a else 0.1 for i in range(10)],
        "b": [0.9 if i in b else 0.1 for i in range(4)],
    }
    return record(label, tasks, **changes)


def repeats(label: str = "m", rights: Sequence[Any] = RIGHT, **changes: Any) -> list[RunRecord]:
    given = {"group": "g", "generation": {"temperature": 0.7}} | changes
    return [
        replace(
            run(
                right,
                label,
                repeat={"number": number, "of": 3, "seed": [number] * 4},
                **given,
            ),
            path=Path(f"{label}-{number}"),
        )
        for number, right in enumerate(rights, start=1)
    ]


def board_of(records: Sequence[RunRecord]) -> Leaderboard:
    (board,) = build_leaderboards(records)
    return board


def values(right: tuple[set[int], set[int]]) -> dict[str, list[float]]:
    return {
        "a": [float(i in right[0]) for i in range(10)],
        "b": [float(i in right[1]) for i in range(4)],
    }


def test_several_runs_are_one_row_with_their_mean_and_spread() -> None:
    (row,) = board_of(repeats()).rows
    assert row.macro is not None
    # By hand: (0.4 + 0.5) / 2, (0.6 + 0.75) / 2, (0.2 + 0.25) / 2.
    assert row.macro.runs == pytest.approx((0.45, 0.675, 0.225))
    assert row.macro.value == pytest.approx(0.45)
    assert row.macro.spread == pytest.approx(0.225)
    runs = [values(right) for right in RIGHT]
    means = {task: np.mean([r[task] for r in runs], axis=0).tolist() for task in ("a", "b")}
    expected = widened(macro_bootstrap(means), [run_spread(runs)])
    assert (row.macro.low, row.macro.high) == (expected.low, expected.high)
    assert row.macro.method == "clusters-and-runs"
    assert row.macro.n == 14
    task = row.estimate("a")
    assert task is not None
    assert task.runs == pytest.approx((0.4, 0.6, 0.2))
    assert task.spread == pytest.approx(0.2)
    micro = row.estimate("micro")
    assert micro is not None
    assert micro.runs == pytest.approx((6 / 14, 9 / 14, 3 / 14))
    assert row.marks[Mark.SEVERAL_RUNS] == (
        "3 runs, macro 45.0, 67.5, 22.5 %, standard deviation 22.5 points"
    )
    assert row.entry.paths == ("m-1", "m-2", "m-3")


def test_runs_that_are_all_alike_have_the_interval_of_one() -> None:
    (alone,) = board_of([run(RIGHT[0])]).rows
    (alike,) = board_of(repeats(rights=[RIGHT[0]] * 3)).rows
    for column in ("a", "b", "macro", "micro"):
        one, three = alone.estimate(column), alike.estimate(column)
        assert one is not None
        assert three is not None
        assert (three.low, three.high) == pytest.approx((one.low, one.high))
        assert three.spread == 0.0


def test_a_group_is_ranked_beside_single_runs_and_in_all_formats() -> None:
    board = board_of([run((set(range(9)), {0, 1, 2}), "one"), *repeats()])
    assert [(row.entry.label, row.rank) for row in board.rows] == [("one", 1), ("m", 2)]
    (single, several) = as_dict([board])["rows"]
    assert (single["runs"], single["spread"]) == ({}, {})
    assert several["runs"]["macro"] == pytest.approx([0.45, 0.675, 0.225])
    assert several["spread"]["macro"] == pytest.approx(0.225)
    assert several["records"] == ["m-1", "m-2", "m-3"]
    frame = as_frame([board])
    macro = frame[(frame["model"] == "m") & (frame["column"] == "macro")].iloc[0]
    assert (macro["runs"], macro["spread"]) == (3, pytest.approx(0.225))
    assert frame[frame["model"] == "one"]["runs"].isna().all()
    shown = " ".join(as_text(make_sheet(board), 120).split())
    assert "m: several-runs (3 runs, macro 45.0, 67.5, 22.5 %, standard deviation" in shown
    assert "of means over several runs, widened by what other runs would add" in shown


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "univg-r1"}, "differ in protocol: univg and univg-r1"),
        ({"settings": {"dialect": "pixels"}}, "differ in dialect: norm1000 and pixels"),
        ({"prompt_sha256": "1" * 64}, r"differ in prompt \(SHA-256\)"),
        ({"generation": {"temperature": 1.0}}, "differ in generation"),
        ({"dataset": {"fingerprint": "e" * 64}}, "differ in fingerprint"),
    ],
)
def test_runs_of_one_group_differ_in_seed_and_checkpoint_alone(
    changes: dict[str, Any], message: str
) -> None:
    first, second, _ = repeats()
    other = repeats(**changes)[1]
    assert len(aligned_scores([first, second])) == 14
    with pytest.raises(UserError, match=message):
        aligned_scores([first, other])


def test_the_seed_of_the_generation_and_the_model_may_differ() -> None:
    runs = [
        repeats(generation={"temperature": 1, "seed": 1})[0],
        replace(repeats(generation={"temperature": 1, "seed": 2})[1], label="m"),
        replace(repeats("n", generation={"temperature": 1})[2], label="m"),
    ]
    (row,) = board_of(runs).rows
    assert row.macro is not None
    assert len(row.macro.runs) == 3
    assert Mark.MIXED_SETTINGS not in row.marks


def test_other_samples_and_doubled_records_are_no_runs() -> None:
    first, second, _ = repeats()
    shorter = replace(second, scores=second.scores[:-1])
    with pytest.raises(UserError, match="differ in samples: 14 and 13"):
        aligned_scores([first, shorter])
    with pytest.raises(UserError, match="a record is given twice"):
        board_of([first, first])


def test_two_runs_of_one_label_without_a_group_are_refused() -> None:
    with pytest.raises(UserError, match="two runs are called 'm' on the same benchmark"):
        board_of([*repeats()[:1], replace(repeats()[1], group=None)])


def test_samples_are_put_together_by_their_ids() -> None:
    first, second, _ = repeats()
    turned = replace(second, scores=second.scores[::-1], responses=second.responses[::-1])
    assert aligned_scores([first, turned]) == aligned_scores([first, second])


# compare


def test_means_are_compared_and_both_spreads_are_told() -> None:
    better = [({*a, 6, 7}, {*b, 3}) for a, b in RIGHT[:2]]
    found = compare_runs(repeats(), repeats("n", better), flips=14)
    sides = [[values(right) for right in rights] for rights in (RIGHT, better)]
    expected = compare_pairs(
        ["a"] * 10 + ["b"] * 4,
        list(range(14)),
        *([[*one["a"], *one["b"]] for one in side] for side in sides),
    )
    assert found.macro == expected.macro
    assert (found.a.runs, found.b.runs) == (3, 2)
    assert found.macro.spread_a == pytest.approx(0.225)
    assert found.to_dict()["macro"]["spread_b"] == pytest.approx(found.macro.spread_b)
    assert "m is the mean of 3 runs, which spread by 22.5 points" in found.notes[0]
    flip = next(flip for flip in found.for_b if flip.id == "toy-a-00002")
    # Right in the first two runs of A of three.
    assert flip.iou_a == pytest.approx((0.9 + 0.9 + 0.1) / 3)
    assert (flip.value_a, flip.value_b) == (pytest.approx(2 / 3), 1.0)
    assert flip.status_a == "ok 3"


def test_one_run_beside_several_says_what_is_not_covered() -> None:
    found = compare_runs(repeats(), run(RIGHT[1], "n", generation={"temperature": 0.7}))
    assert found.macro.spread_b is None
    assert "n is one run: how far another one would lie is in no interval." in found.notes


# Arguments


def write(folder: Path, runs: Sequence[RunRecord], name: str = "m-{}") -> list[Path]:
    return [
        one.write(folder / name.format(number) / "toy") for number, one in enumerate(runs, start=1)
    ]


def test_a_folder_of_repeats_is_one_run(tmp_path: Path, capsys) -> None:
    paths = write(tmp_path, repeats())
    grouped = read_runs([str(tmp_path)], grouped=True)
    assert [one.label for one in grouped] == ["m"] * 3
    assert len({one.group for one in grouped}) == 1
    # Where runs stand alone, and where labels tell them apart.
    assert [one.label for one in read_runs([str(tmp_path)])] == ["m-1", "m-2", "m-3"]
    apart = read_runs([f"x={paths[0]}", f"y={paths[1]}"], grouped=True)
    (board,) = build_leaderboards(apart)
    assert [row.entry.label for row in board.rows] == ["y", "x"]
    # The shell gives each folder.
    assert main(["leaderboard", *map(str, paths), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["runs"]["macro"] == pytest.approx([0.45, 0.675, 0.225])
    assert load_run(paths[1]).manifest.repeat is not None


def test_paths_with_commas_are_one_run_and_labels_stay_their_own(tmp_path: Path, capsys) -> None:
    runs = [
        run(right, f"step-{i}", generation={"temperature": 0.7}) for i, right in enumerate(RIGHT)
    ]
    a = ",".join(map(str, write(tmp_path, runs, "a-{}")))
    write(tmp_path, repeats("n", [({8}, {0})] * 2), "n-{}")
    given = [f"mine={a}", str(tmp_path / "n-1"), str(tmp_path / "n-2")]
    assert [one.label for one in read_runs(given, grouped=True)] == ["mine"] * 3 + ["n"] * 2
    assert main(["compare", *given[:2]]) == 0
    out = capsys.readouterr().out
    assert "A: mine (model step-0, step-1, step-2, 14 samples of toy, 3 runs)" in out
    assert main(["compare", a, str(tmp_path / "n-1")]) == 0
    assert "step-0 is the mean of 3 runs" in " ".join(capsys.readouterr().out.split())


def test_records_that_are_no_group_are_not_put_together(tmp_path: Path, capsys) -> None:
    write(tmp_path, [run(RIGHT[0], "x"), run(RIGHT[1], "y")], "{}")
    assert main(["compare", str(tmp_path), str(tmp_path / "1")]) == 2
    assert "or of several of one thing with commas between them" in capsys.readouterr().err


def test_a_name_in_the_manifest_is_the_label(tmp_path: Path) -> None:
    (path,) = write(tmp_path, [run(RIGHT[0], "m", name="my run")])
    assert load_run(path).label == "my run"
    assert load_run(path, "other").label == "other"


# The end of an evaluation


def test_the_end_of_repeats_shows_mean_spread_and_each_run(tmp_path: Path, capsys) -> None:
    from univg_eval.cli._repeats_ending import print_repeats

    runs = [load_run(path) for path in write(tmp_path / "records", repeats())]
    print_repeats(runs)
    said = capsys.readouterr().out
    (board,) = build_leaderboards(runs)
    macro = board.rows[0].macro
    assert macro is not None
    assert macro.low is not None
    assert macro.high is not None
    limits = f"{100 * macro.low:.1f}–{100 * macro.high:.1f}"
    (total,) = (line for line in said.splitlines() if "mean over tasks" in line)
    assert total.split() == [
        *("mean", "over", "tasks", "14", "45.0", limits, "22.5"),
        *("45.0,", "67.5,", "22.5"),
    ]
    assert said.count("run record: ") == 3
    assert f"univg leaderboard {tmp_path}/records/m-* OTHER" in said
    # All have the responses "x", as if the backend did not use the seed.
    assert said.count("gave word for word the same responses") == 3
