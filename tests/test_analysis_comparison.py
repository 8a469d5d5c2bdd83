"""Two runs compared: which samples count, what is said, and what is refused."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from leaderboard_data import record_of
from rich.console import Console
from run_records import score as run_score

from univg_eval.analysis.comparison import Comparison, compare_runs, p_words, points
from univg_eval.analysis.stats import (
    mcnemar_test,
    paired_share_interval,
    smallest_difference,
    smallest_difference_of_pairs,
)
from univg_eval.cli import main
from univg_eval.cli._comparison_sheet import show
from univg_eval.cli._runs import read_runs
from univg_eval.errors import UserError
from univg_eval.runs.record import RunRecord, load_run
from univg_eval.scoring import SampleScore, aggregate

SHIPPED = Path(__file__).resolve().parent.parent / "results" / "runs"


def score(name: str, iou: float | None = 0.0, **changes: Any) -> SampleScore:
    values: dict[str, Any] = {"status": "ok", "task": "find", "cluster": name} | changes
    return run_score(name, iou=iou, **values)


def record(label: str, scores: Sequence[SampleScore], **changes: Any) -> RunRecord:
    said = {"responses": [f"{label} {line.id}" for line in scores]}
    return record_of(label, scores, **(said | changes))


def answers(ious: Sequence[float], **changes: Any) -> list[SampleScore]:
    return [score(f"toy-{i:05d}", iou, **changes) for i, iou in enumerate(ious)]


def compare(a: Sequence[float], b: Sequence[float], metric: str = "acc@0.5") -> Comparison:
    """Runs called a and b with these IoUs."""
    return compare_runs(record("a", answers(a)), record("b", answers(b)), metric=metric)


def two_tasks(right: Sequence[int], wrong_at: Sequence[int] = ()) -> list[SampleScore]:
    """Fifty samples of each of two tasks, the first `right` of each answered right."""
    return [
        score(f"toy-{t}{i:04d}", float(i < right[t] and i not in wrong_at), task=task)
        for t, task in enumerate(("find", "count"))
        for i in range(50)
    ]


# --- figures -------------------------------------------------------------------------------------


def test_a_binary_task_is_mcnemar_and_the_score_interval() -> None:
    # 20 samples: 4 both, 1 only A, 8 only B, 7 neither.
    a = record("old", answers([0.9] * 4 + [0.5] + [0.0] * 8 + [0.1] * 7))
    b = record("new", answers([0.5] * 4 + [0.49] + [0.7] * 8 + [0.4] * 7))
    found = compare_runs(a, b)
    (task,) = found.tasks
    counts = task.counts
    assert (counts.both, counts.losses, counts.wins, counts.neither) == (4, 1, 8, 7)
    assert (counts.ties, found.n, found.clusters) == (11, 20, 20)
    assert task.difference.p == pytest.approx(mcnemar_test(1, 8))
    assert task.difference.test == "mcnemar"
    assert task.difference.interval == paired_share_interval(1, 8, 20)
    assert (task.difference.a, task.difference.b) == (pytest.approx(0.25), pytest.approx(0.6))
    assert task.difference.detectable == smallest_difference_of_pairs(9, 20)
    # With one task macro, micro and the task are the same.
    assert found.macro == task.difference
    assert found.micro.interval == task.difference.interval


def test_macro_and_micro_are_those_of_the_results() -> None:
    scores_a = [*answers([1.0, 0.0, 0.6]), score("toy-x", 0.0, task="other")]
    scores_b = [*answers([0.0, 0.0, 0.6]), score("toy-x", 1.0, task="other")]
    a, b = record("a", scores_a), record("b", scores_b)
    found = compare_runs(a, b, metric="miou")
    assert found.macro.a == pytest.approx(aggregate(a.scores)["macro"]["miou"])
    assert found.macro.b == pytest.approx(aggregate(b.scores)["macro"]["miou"])
    assert found.macro.interval.estimate == pytest.approx((-1 / 3 + 1) / 2)
    assert found.micro.interval.estimate == pytest.approx(0.0)
    assert found.counts.both is None and (found.counts.wins, found.counts.losses) == (1, 1)


def test_shared_images_count_as_one() -> None:
    ious_a, ious_b = [0.0] * 40, [1.0] * 16 + [0.0] * 24
    apart = compare(ious_a, ious_b)
    found = compare_runs(record("a", grouped(ious_a, 4)), record("b", grouped(ious_b, 4)))
    (task,) = found.tasks
    assert (task.clusters, task.difference.test) == (10, "sign_flip_exact")
    assert task.difference.p == pytest.approx(2 / 2**4)  # four groups, all for B
    assert apart.macro.p == pytest.approx(2 / 2**16)
    width = task.difference.interval.high - task.difference.interval.low
    assert width > 1.5 * (apart.macro.interval.high - apart.macro.interval.low)
    assert any("Few groups of shared images (under 20) in task0" in note for note in found.notes)


def grouped(ious: Sequence[float], size: int, tasks: int = 1) -> list[SampleScore]:
    """Samples in groups of `size` that share images, the tasks one after the other."""
    per = len(ious) // tasks
    return [
        score(f"t-{i}", iou, task=f"task{i // per}", cluster=f"c{i // size}")
        for i, iou in enumerate(ious)
    ]


@pytest.mark.parametrize("tasks", [1, 2])
def test_shared_images_see_what_their_groups_see(tasks: int) -> None:
    wins = [1.0] * 6 + [0.0] * 2 + [1.0, 0.0] * 16
    found = compare_runs(
        record("a", grouped([0.0] * 40, 2, tasks)), record("b", grouped(wins, 2, tasks))
    )
    parts = [0.05] * 3 + [0.0] + [0.025] * 16
    assert found.macro.detectable == pytest.approx(
        smallest_difference(parts, [0.05] * 20, step=0.025)
    )
    assert found.macro.detectable != pytest.approx(smallest_difference_of_pairs(22, 40), rel=0.01)


def test_what_cancels_within_a_group_is_no_difference() -> None:
    ious_a, ious_b = [0.5, 0.5, 0.5] * 8, [0.6, 0.7, 0.2] * 8
    found = compare_runs(
        record("a", grouped(ious_a, 3)), record("b", grouped(ious_b, 3)), metric="miou"
    )
    assert (found.macro.p, found.macro.test) == (1.0, "sign_flip_exact")
    assert found.macro.detectable == smallest_difference([0.0] * 8, [1 / 8] * 8)


@pytest.mark.parametrize("metric", ["acc@0.5", "miou"])
def test_b_against_a_mirrors_a_against_b_in_any_order(metric: str) -> None:
    rng = np.random.default_rng(7)
    a, b = (
        [
            score(f"t-{i}", float(iou), task=f"task{i % 3}", cluster=f"c{i // 4 if i < 60 else i}")
            for i, iou in enumerate(rng.random(120) ** power)
        ]
        for power in (1, 2)
    )
    one = compare_runs(record("a", a), record("b", b), metric=metric)
    other = compare_runs(
        record("b", b[::-1]), record("a", [a[i] for i in rng.permutation(120)]), metric=metric
    )
    tasks = {task.task: task for task in other.tasks}
    pairs = [(one.macro, other.macro), (one.micro, other.micro)]
    for task in one.tasks:
        mirror = tasks[task.task]
        pairs.append((task.difference, mirror.difference))
        assert task.p_holm == pytest.approx(mirror.p_holm)
        assert (task.counts.wins, task.counts.losses) == (mirror.counts.losses, mirror.counts.wins)
    for left, right in pairs:
        assert (left.interval.low, left.interval.high) == pytest.approx(
            (-right.interval.high, -right.interval.low), abs=1e-12
        )
        assert left.p == right.p
        assert left.detectable == pytest.approx(right.detectable)
    assert {flip.id for flip in one.for_a} == {flip.id for flip in other.for_b}
    turned = {"a_higher": "b_higher", "b_higher": "a_higher"}
    assert one.verdict.kind == turned.get(other.verdict.kind, other.verdict.kind)


def test_tasks_of_single_samples_have_mcnemars_test_corrected_by_holm_and_its_power() -> None:
    found = compare_runs(record("a", two_tasks([10, 10])), record("b", two_tasks([18, 20])))
    p = [mcnemar_test(0, 8), mcnemar_test(0, 10)]
    assert [task.difference.p for task in found.tasks] == pytest.approx(p)
    assert [task.p_holm for task in found.tasks] == pytest.approx([p[0], 2 * p[1]])
    # The mean over equal tasks sees what all pairs see.
    assert found.macro.detectable == smallest_difference_of_pairs(18, 100)
    assert [task.difference.detectable for task in found.tasks] == [
        smallest_difference_of_pairs(n, 50) for n in (8, 10)
    ]


@pytest.mark.parametrize(
    ("metric", "changes", "value"),
    [
        ("image_acc", {"image_right": True}, 1.0),
        ("joint@0.5", {"image_right": False}, 0.0),
        ("f1@0.5", {"iou": None, "f1": 0.4, "ap50": 0.2}, 0.4),
        ("no_target_acc", {"iou": None, "no_target_right": True}, 1.0),
    ],
)
def test_metrics_of_some_samples_are_compared_on_these(
    metric: str, changes: dict[str, Any], value: float
) -> None:
    special = [score(f"toy-{i}", **({"iou": 0.7} | changes)) for i in range(8)]
    scores = [*special, *(score(f"plain-{i}", 0.7) for i in range(5))]
    found = compare_runs(record("a", scores), record("b", scores), metric=metric)
    assert (found.n, found.uncounted, found.macro.a) == (8, 5, pytest.approx(value))
    assert any("5 common samples do not count in" in note for note in found.notes)


def test_what_flipped_most_comes_first_both_ways() -> None:
    a = record("a", answers([0.0, 0.9, 0.2, 0.5, 0.8, 0.3]))
    b_scores = answers([0.95, 0.0, 0.6, 0.5, 0.1, 0.31])
    b_scores[1] = score("toy-00001", 0.0, status="truncated")
    found = compare_runs(a, record("b", b_scores), flips=2)
    assert [flip.id for flip in found.for_b] == ["toy-00000", "toy-00002"]
    assert [flip.id for flip in found.for_a] == ["toy-00001", "toy-00004"]
    worst = found.for_a[0]
    assert (worst.status_a, worst.status_b, worst.iou_a, worst.iou_b) == ("ok", "truncated", 0.9, 0)


# --- which samples, and what is refused ----------------------------------------------------------


def test_only_common_samples_count_and_the_others_are_reported() -> None:
    a = record("a", answers([1.0] * 30))
    found = compare_runs(a, record("b", answers([1.0] * 40)[10:]))
    assert (found.n, found.a.alone, found.b.alone) == (20, 10, 10)
    assert "Only the 20 samples" in found.notes[0]
    assert "10 that only a has, 10 that only b has" in found.notes[0]


def test_a_control_is_compared_with_the_plain_run() -> None:
    a = record("plain", answers([1.0] * 30))
    b = record("blank", answers([0.0] * 30), benchmark="toy+blank", settings={"control": "blank"})
    found = compare_runs(a, b)
    assert found.differing["control"] == ("none", "blank")
    assert "plain scores higher than blank" in found.verdict.headline
    assert any("plain ran on toy and blank on toy+blank" in note for note in found.notes)


def test_other_rules_are_reported() -> None:
    scores = answers([1.0] * 10)
    changes = {"settings": {"protocol": "migician"}, "generation": {"max_new_tokens": 64}}
    found = compare_runs(record("a", scores), record("b", scores, **changes))
    assert found.differing == {
        "protocol": ("univg", "migician"),
        "generation max_new_tokens": (512, 64),
    }
    assert any("scored under another protocol" in note for note in found.notes)


@pytest.mark.parametrize(
    ("model", "verb", "noted"),
    [("one", "a scores higher than b", True), ("other", "a is better than b", False)],
    ids=["one model read in two dialects", "two models, each in its own"],
)
def test_another_dialect_is_a_flaw_of_one_model_only(model: str, verb: str, noted: bool) -> None:
    other = {"backend": "b", "args": None, "config_sha256": None}
    a = record("a", answers([1.0] * 50), model={"id": "one"} | other)
    b = record(
        "b", answers([0.0] * 50), model={"id": model} | other, settings={"dialect": "qwen3_vl"}
    )
    found = compare_runs(a, b)
    assert "dialect" in found.differing
    assert verb in found.verdict.headline
    assert any("scored under another dialect" in note for note in found.notes) is noted


@pytest.mark.parametrize(
    ("b", "metric", "message"),
    [
        ({"benchmark": "toy_revised"}, "acc@0.5", "a ran on toy and b on toy_revised"),
        ({"dataset": {"fingerprint": "e" * 64}}, "acc@0.5", "different versions of toy"),
        ({"scores": [score("other-1")]}, "acc@0.5", "no sample in common"),
        ({"scores": [score("toy-00000", task="x")]}, "acc@0.5", "has task 'find' in a and 'x'"),
        ({"scores": [score("toy-00000", cluster="x")]}, "acc@0.5", "has cluster 'toy-00000'"),
        ({}, "acc@0.4", r"no common sample has the metric 'acc@0.4'.*they have acc@0\.3"),
        ({"scores": [score("toy-00000", excluded=True)]}, "acc@0.5", "they have none in common"),
    ],
)
def test_what_cannot_be_compared_is_refused(b: dict[str, Any], metric: str, message: str) -> None:
    arguments = {"scores": answers([1.0])} | b
    with pytest.raises(UserError, match=message):
        compare_runs(record("a", answers([1.0])), record("b", **arguments), metric=metric)


# --- words ---------------------------------------------------------------------------------------


def test_a_clear_winner_is_named_with_its_figures() -> None:
    old, new = record("old", two_tasks([10, 20])), record("new", two_tasks([30, 40]))
    found = compare_runs(old, new)
    assert found.verdict.kind == "b_higher"
    low, high = (100 * limit for limit in (found.macro.interval.low, found.macro.interval.high))
    assert found.verdict.headline == (
        "new is better than old: +40.0 points of macro acc@0.5 (70.0 % against 30.0 %), 95 % "
        f"interval {low:+.1f} to {high:+.1f}, p < 0.001."
    )
    assert "new is higher in find, count" in found.verdict.text
    # What was found is not called noise.
    assert "go unseen" not in found.verdict.text
    assert f"a true difference of {100 * found.macro.detectable:.1f} points" in found.verdict.text
    mirrored = compare_runs(new, old)
    assert mirrored.verdict.kind == "a_higher"
    assert mirrored.verdict.headline.startswith("new is better than old: +40.0 points")
    # The difference stays B - A; the words turn it.
    assert mirrored.macro.interval.estimate == pytest.approx(-0.4)


def test_no_difference_is_never_claimed_only_not_shown() -> None:
    found = compare_runs(
        record("old", two_tasks([20, 20])), record("new", two_tasks([22, 21], wrong_at=[3]))
    )
    assert found.verdict.kind == "not_shown"
    assert found.verdict.headline.startswith("No difference shown: old has 40.0 % macro acc@0.5")
    interval = found.macro.interval
    assert interval.low < 0 < interval.high
    for fact in (
        f"old being better by {-100 * interval.low:.1f} points",
        f"new being better by {100 * interval.high:.1f} points",
        "With 100 samples and this much disagreement (5 of them",
        f"under {100 * found.macro.detectable:.1f} points of macro acc@0.5 may well go unseen",
    ):
        assert fact in found.verdict.text


def test_a_find_below_what_can_be_seen_is_warned_of() -> None:
    # p is 0.039 (1 to 8) but the smallest difference that is found surely is larger than 0.14.
    found = compare([1.0] + [0.0] * 49, [0.0] + [1.0] * 8 + [0.0] * 41)
    assert found.macro.p == pytest.approx(mcnemar_test(1, 8))
    assert found.verdict.kind == "b_higher"
    assert found.macro.detectable > found.macro.interval.estimate
    assert "below that size tends to look larger than it is" in found.verdict.text


def test_where_test_and_interval_disagree_it_is_at_the_edge() -> None:
    # Five against none: Tango's interval leaves out 0, the exact test has p = 2 / 32.
    found = compare([0.0] * 100, [1.0] * 5 + [0.0] * 95)
    assert found.macro.p == pytest.approx(0.0625)
    assert found.macro.interval.low > 0
    assert found.verdict.kind == "borderline"
    assert found.verdict.headline.startswith("At the edge: ")
    assert "take it as not shown" in found.verdict.text
    # All six favour B, p = 2 / 64, but hardly anything is known of how large differences are.
    found = compare([0.0] * 6, [0.9] + [0.02] * 5, "miou")
    assert found.macro.p == pytest.approx(2 / 64)
    assert found.macro.interval.low < 0
    assert found.verdict.kind == "borderline"


def test_identical_runs_are_called_so_and_keep_an_interval() -> None:
    scores, said = two_tasks([20, 20]), [f"answer {i}" for i in range(100)]
    found = compare_runs(record("a", scores, responses=said), record("b", scores, responses=said))
    assert found.verdict.kind == "identical"
    assert "to each of the 100 samples" in found.verdict.headline
    assert found.macro.interval.low < 0 < found.macro.interval.high
    assert found.same_responses == 100


def test_same_responses_under_another_protocol_are_reported() -> None:
    said = [f"answer {i}" for i in range(50)]
    a = record("a", answers([1.0] * 50), responses=said)
    b = record("b", answers([0.0] * 50), responses=said, settings={"protocol": "univg-r1"})
    found = compare_runs(a, b)
    assert "a scores higher than b" in found.verdict.headline
    assert "what differs is how they are read and scored" in found.verdict.text


def test_equal_scores_of_other_responses_are_no_identity() -> None:
    found = compare([1.0] * 5 + [0.0] * 5, [1.0] * 5 + [0.0] * 5)
    assert found.verdict.kind == "not_shown"
    assert "No sample differs in acc@0.5, but 10 responses do." in found.verdict.text


def test_four_samples_can_show_nothing() -> None:
    found = compare([0.0] * 4, [1.0] * 4)
    assert found.verdict.kind in ("borderline", "not_shown")
    assert found.macro.detectable is None
    assert "With 4 samples no difference of acc@0.5, however large" in found.verdict.text


@pytest.mark.parametrize(
    ("words", "value", "expected"),
    [
        (points, 0.0321, "+3.2"),
        (points, -0.0004, "+0.0"),
        (points, -0.5, "-50.0"),
        (p_words, 0.0004, "< 0.001"),
        (p_words, 0.001, "0.001"),
        (p_words, 0.0126, "0.013"),
        (p_words, 0.04999, "0.0499"),
        (p_words, 0.05, "0.050"),
        (p_words, 0.5, "0.50"),
    ],
)
def test_figures_in_words(words: Callable[[float], str], value: float, expected: str) -> None:
    assert words(value) == expected


# --- command -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("runs")
    record("old", two_tasks([10, 20])).write(root / "old" / "toy")
    record("new", two_tasks([30, 40])).write(root / "new" / "toy")
    blank = record("new", two_tasks([0, 0]), benchmark="toy+blank")
    blank.write(root / "new" / "toy+blank")
    return root / "old", root / "new"


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["compare", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out, err


def test_command_says_the_verdict_first(capsys, folders: tuple[Path, Path]) -> None:
    old, new = folders
    status, out, err = command(capsys, f"before={old}", f"after={new / 'toy'}")
    assert (status, err) == (0, "")
    assert out.startswith("after is better than before: +40.0 points of macro acc@0.5")
    assert "These two differ in" not in out
    for cell in ("find", "count", "macro", "micro", "95 % interval", "only after"):
        assert cell in out


def test_a_narrow_terminal_cuts_no_figure() -> None:
    found = compare_runs(load_run(SHIPPED / "tiny_cot"), load_run(SHIPPED / "tiny_grpo"))
    lines = []
    for width in (80, 160):
        console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
        show(found, console)
        assert isinstance(console.file, io.StringIO)
        lines.append([line.rstrip() for line in console.file.getvalue().splitlines()])
        assert max(map(len, lines[-1])) <= width
    narrow, wide = lines
    assert sum(line.split()[:1] == ["reasoning"] for line in narrow) == 2  # figures, then counts
    assert sum(line.split()[:1] == ["reasoning"] for line in wide) == 1
    for text in (narrow, wide):
        rows = [line.split() for line in text if line.split()[:1] == ["reasoning"]]
        cells = [cell for row in rows for cell in row]
        for cell in ("52.5", "60.0", "+7.5", "-8.2", "+23.5", "20.7", "0.51", "3", "6", "18", "13"):
            assert cell in cells
        assert not any("…" in line for line in text if "SHA" not in line)


def test_command_picks_the_benchmark_that_both_have(capsys, folders: tuple[Path, Path]) -> None:
    old, new = folders
    status, out, _ = command(capsys, old, new, "--json")
    assert status == 0
    assert json.loads(out)["b"]["benchmark"] == "toy"
    status, _, err = command(capsys, new, new)
    assert status == 2
    assert "say which with --benchmark" in err
    status, out, _ = command(capsys, new, new, "--benchmark", "toy+blank", "--json")
    found = json.loads(out)
    assert (found["a"]["label"], found["b"]["label"]) == ("new (A)", "new (B)")
    assert found["verdict"]["kind"] == "identical"


def test_json_holds_all_fields_and_files_hold_what_is_printed(
    capsys, tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    old, new = read_runs([str(folder / "toy") for folder in folders])
    runs = (old.path, new.path)
    _, out, _ = command(capsys, *runs, "--json", "--flips", 1, "-o", tmp_path / "x.json")
    assert (tmp_path / "x.json").read_text() == out
    found = json.loads(out)
    assert found == json.loads(json.dumps(compare_runs(old, new, flips=1).to_dict()))
    assert set(found) == set(Comparison.__slots__)
    # Labels are data in Markdown.
    file = tmp_path / "x.md"
    _, out, _ = command(capsys, f"a|<b>*x*={old.path}", new.path, "--markdown", "-o", file)
    assert file.read_text() == out
    assert out.startswith(r"**new is better than a\|\<b\>\*x\*: ")
    assert "<b>" not in out
    header = next(line for line in out.splitlines() if line.startswith("| task |"))
    rows = [line for line in out.splitlines() if line.startswith(("| find", "| macro"))]
    assert [line.count(" | ") for line in rows] == [header.count(" | ")] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--flips", -1), "--flips is -1"),
        (("--out", "x.txt"), "--out is x.txt; expected a file that ends in .md or .json"),
        (("--metric", "nope"), "no common sample has the metric 'nope'"),
        (("--benchmark", "mig_bench"), "holds no run of mig_bench"),
        (("--out", "/proc/nowhere/x.md"), "cannot write /proc/nowhere/x.md"),
    ],
)
def test_command_refuses_what_it_cannot_do(
    capsys, folders: tuple[Path, Path], arguments: tuple[object, ...], message: str
) -> None:
    status, out, err = command(capsys, *folders, *arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


# --- the runs that the project ships -------------------------------------------------------------

ROOT = SHIPPED.parent.parent


def quoted(page: Path) -> str:
    lines = page.read_text(encoding="utf-8").splitlines()
    return " ".join(line.removeprefix("> ") for line in lines if line.startswith("> "))


def test_readme_and_page_show_what_the_command_says() -> None:
    verdict = compare_runs(load_run(SHIPPED / "tiny_cot"), load_run(SHIPPED / "tiny_grpo")).verdict
    assert f"{verdict.headline} {verdict.text}" in quoted(ROOT / "docs" / "compare.md")
    assert verdict.headline in quoted(ROOT / "README.md")
