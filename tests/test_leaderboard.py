"""Leaderboards: averages, intervals, marks, ranks, against hand counts and scipy."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from leaderboard_data import counts, record, table
from scipy.stats import binomtest, t

from univg_eval.analysis.stats import Estimate
from univg_eval.benchmarks.preparing.catalog import CATALOG
from univg_eval.errors import UserError
from univg_eval.leaderboard import (
    Leaderboard,
    Mark,
    Published,
    Row,
    build_leaderboards,
    macro_estimate,
    task_estimate,
)
from univg_eval.leaderboard.published import load_counts, load_published, load_reproductions
from univg_eval.leaderboard.rows import (
    BASELINE,
    GROUPS,
    REPLAY,
    board_of,
)
from univg_eval.runs.record import RunRecord, environment
from univg_eval.scoring import is_share, sample_metrics

# Six of ten right, and one of two.
TASKS = {"a": [0.9] * 6 + [0.1] * 4, "b": [0.5, 0.49]}


def one(records: Sequence[RunRecord], published: Published | None = None, **options: Any):
    (board,) = build_leaderboards(records, published, **options)
    return board


def row(board: Leaderboard, label: str, source: str | None = None) -> Row:
    (found,) = [
        row for row in board.rows if row.entry.label == label and source in (None, row.entry.source)
    ]
    return found


def labels(board: Leaderboard, *, comparable: bool = False) -> list[str]:
    return [row.entry.label for row in board.rows if row.comparable or not comparable]


def has_note(board: Leaderboard, text: str) -> bool:
    return any(text in note for note in board.notes)


def named(runs: dict[str, list[int]], **changes: Any) -> list[RunRecord]:
    """Records with one task and these values, by label."""
    return [record(label, {"a": list(map(float, v))}, **changes) for label, v in runs.items()]


@cache
def shipped() -> Published:
    revisions = [*load_counts("mig_bench"), *load_counts("zero_shot")]
    return Published(load_published(), load_reproductions(), revisions)


# Averages and intervals


def test_macro_is_the_mean_of_tasks_and_micro_of_samples() -> None:
    shown = one([record("m", TASKS)]).rows[0]
    assert shown.macro.value == pytest.approx((6 / 10 + 1 / 2) / 2, abs=1e-15)
    assert shown.micro.value == pytest.approx(7 / 12, abs=1e-15)
    assert (shown.macro.n, shown.micro.n) == (12, 12)
    assert [shown.text(c) for c in ("a", "b", "macro", "micro")] == ["60.0", "50.0", "55.0", "58.3"]
    out = {"toy-a-00009": {"excluded": True}}
    shown = one([record("m", TASKS, scores=out)]).rows[0]
    assert (shown.estimate("a").value, shown.estimate("a").n) == (pytest.approx(6 / 9), 9)
    assert shown.marks[Mark.EXCLUDED_SAMPLES] == "1 of 12 samples"


@pytest.mark.parametrize(("right", "n"), [(6, 10), (0, 7), (40, 40), (1, 40)])
def test_a_share_has_wilsons_interval(right: int, n: int) -> None:
    estimate = one([record("m", {"a": [1.0] * right + [0.0] * (n - right)})]).rows[0].estimate("a")
    expected = binomtest(right, n).proportion_ci(method="wilson")
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert (estimate.n, estimate.method) == (n, "wilson")


def test_shared_images_make_the_interval_wider_than_wilsons() -> None:
    values = [1.0] * 20 + [0.0] * 20
    alone = task_estimate(values, list(range(40)), share=True)
    pairs = task_estimate(values, [i // 4 for i in range(40)], share=True)
    assert (alone.method, pairs.method) == ("wilson", "cluster-bootstrap")
    assert pairs.value == alone.value == 0.5
    # Ten groups of four equal samples are ten observations, five of them right.
    assert pairs.low < alone.low - 0.1
    expected = 0.5 - t.ppf(0.975, 9) * 0.5 / 9**0.5
    assert pairs.low == pytest.approx(expected, abs=0.06)


def test_methods_are_chosen_by_what_the_numbers_are() -> None:
    same = {"a": ["x", "x", "y"]}
    for tasks, clusters, metric, expected in (
        ({"a": [1.0, 0.0, 1.0]}, None, "miou", "cluster-bootstrap"),
        ({"a": [1.0, 0.0, 1.0]}, same, "acc@0.5", "cluster-bootstrap"),
        ({"a": [1.0, 1.0, 1.0]}, same, "acc@0.5", "wilson-clusters"),
        ({"a": [1.0, 0.0, 1.0]}, {"a": ["x"] * 3}, "acc@0.5", "none"),
        ({"a": [1.0]}, None, "acc@0.5", "wilson"),
        ({"a": [0.7]}, None, "miou", "none"),
        ({"a": [0.7, 0.7]}, None, "miou", "none"),
    ):
        shown = one([record("m", tasks, clusters=clusters)], metric=metric).rows[0]
        estimate = shown.estimate("a")
        assert estimate.method == expected, (tasks, clusters, metric)
        assert (estimate.low is None) == (expected == "none")


def test_shares_are_distinguished_from_means() -> None:
    """By the values of samples between right and wrong."""
    odd = [
        {"image_right": True},
        {"iou": None, "f1": 0.4, "ap50": 0.3, "matched_iou": 0.2, "f1_95": 0.1, "f1_mean": 0.3}
        | {"images_right": True},
        {"iou": None, "no_target_right": True},
        {"center": True},
    ]
    scores = {f"toy-a-{i:05d}": fields for i, fields in enumerate(odd)}
    found: dict[str, set[float]] = {}
    for score in record("m", {"a": [0.61] * 5}, scores=scores).scores:
        for name, value in sample_metrics(score).items():
            found.setdefault(name, set()).add(value)
    assert {name for name in found if not is_share(name)} == {
        *("miou", "macc", "f1@0.5", "f1@0.95", "f1_mean", "ap50", "matched_iou"),
    }
    assert {name for name, values in found.items() if values <= {0.0, 1.0}} == {
        name for name in found if is_share(name)
    }


def test_groups_of_images_of_two_benchmarks_are_not_one() -> None:
    records = [
        record("m", {name: [1.0, 0.0]}, benchmark=name, clusters={name: ["x", "y"]})
        for name in ("llmseg", "revos")
    ]
    assert one(records).rows[0].micro.method == "wilson"
    # A task that is one group cannot show how much it varies, nor can an average over it.
    assert macro_estimate({"a": [1, 0], "b": [1]}, {"a": [1, 2], "b": [3]}).low is None


@given(
    st.lists(st.booleans(), min_size=1, max_size=12),
    st.lists(st.booleans(), min_size=1, max_size=5),
)
def test_averages_lie_within_their_limits(a: list[bool], b: list[bool]) -> None:
    shown = one([record("m", {"a": list(map(float, a)), "b": list(map(float, b))})]).rows[0]
    for estimate in (shown.estimate("a"), shown.estimate("b"), shown.macro, shown.micro):
        if estimate.low is not None and estimate.high is not None:
            assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


# Tables and columns


def test_the_table_and_the_column_of_a_sample() -> None:
    for name in ("mig_bench", "mig_bench_revised", "mig_bench+blank"):
        assert board_of(name) == name
    assert board_of("revos+video") == "zero_shot+video"
    assert board_of("lisa_full") == "zero_shot_full"
    known = {entry.benchmark for entry in CATALOG.values()}
    assert {member for members in GROUPS.values() for member in members} <= known


def test_records_of_one_label_form_a_row_of_the_zero_shot_table() -> None:
    records = [
        record("m", {"lisa_val": [1.0, 0.0]}, benchmark="lisa"),
        record("m", {"llmseg": [1.0, 1.0]}, benchmark="llmseg"),
    ]
    board = one(records)
    assert (board.benchmark, list(board.tasks)) == ("zero_shot", ["lisa_val", "llmseg"])
    assert board.rows[0].text("macro") == "75.0"
    assert Mark.MIXED_SETTINGS not in board.rows[0].marks
    assert f"fingerprint {'f' * 12} of lisa, fingerprint {'f' * 12} of llmseg" in board.notes[0]
    mixed = one(
        [records[0], record("m", {"llmseg": [1.0]}, benchmark="llmseg", protocol="migician")]
    )
    assert mixed.rows[0].marks[Mark.MIXED_SETTINGS] == "the records differ in protocol"


def test_each_benchmark_has_its_table_in_the_order_of_the_runs() -> None:
    records = [record("m", TASKS, benchmark=name) for name in ("b2", "b1", "b1+blank")]
    assert [board.benchmark for board in build_leaderboards(records)] == ["b2", "b1", "b1+blank"]
    assert [b.benchmark for b in build_leaderboards(records, benchmark="b1")] == ["b1"]


# Marks


REFERENCE = record("ref", TASKS)
OTHER = {"dataset": {"fingerprint": "e" * 64}}
DIRTY = environment()["versions"] | {"commit": "0" * 40 + "-dirty"}
RESCORED = [
    {
        "from": {
            **dict.fromkeys(("folder", "created", "model"), "x"),
            **dict.fromkeys(("responses_sha256", "scores_sha256"), "0" * 64),
        },
        "changed": {},
        "versions": environment()["versions"],
    }
]


@pytest.mark.parametrize(
    ("changes", "mark", "comparable"),
    [
        ({}, Mark.SAME_FINGERPRINT, True),
        ({}, Mark.SAME_PROTOCOL, True),
        (OTHER, Mark.OTHER_FINGERPRINT, False),
        ({"protocol": "univg-r1"}, Mark.OTHER_PROTOCOL, False),
        ({"tasks": {"a": TASKS["a"]}}, Mark.MISSING_TASKS, False),
        ({"tasks": {"a": TASKS["a"][:9], "b": TASKS["b"]}}, Mark.OTHER_SAMPLES, False),
        ({"complete": False}, Mark.INCOMPLETE, True),
        ({"dataset": {"media": "video"}}, Mark.VIDEO, True),
        ({"dataset": {"control": "blank"}}, Mark.CONTROL, True),
        ({"label": f"{BASELINE}:oracle"}, Mark.BASELINE, False),
        ({"label": f"{REPLAY}:r.jsonl"}, Mark.REPLAYED, True),
        ({"rescored": RESCORED}, Mark.RESCORED, True),
        ({"versions": DIRTY}, Mark.DIRTY_CODE, True),
        ({"scores": {"toy-a-00000": {"excluded": True}}}, Mark.EXCLUDED_SAMPLES, True),
        ({"scores": {"toy-a-00009": {"status": "truncated"}}}, Mark.TRUNCATED, True),
    ],
    ids=lambda value: value.value if isinstance(value, Mark) else "",
)
def test_marks_of_a_run(changes: dict[str, Any], mark: Mark, comparable: bool) -> None:
    changes = {"label": "m", "tasks": TASKS} | changes
    shown = row(one([REFERENCE, record(**changes)]), changes["label"])
    assert mark in shown.marks
    assert shown.comparable == comparable
    plain = row(one([REFERENCE, record("plain", TASKS)]), "plain")
    assert mark not in plain.marks or mark in (Mark.SAME_FINGERPRINT, Mark.SAME_PROTOCOL)


def test_truncated_is_marked_above_one_percent() -> None:
    for truncated in (1, 2):
        cut = {f"toy-a-{i:05d}": {"status": "truncated", "iou": 0.0} for i in range(truncated)}
        shown = one([record("m", {"a": [0.6] * 100}, scores=cut)]).rows[0]
        assert (Mark.TRUNCATED in shown.marks) == (truncated > 1)


def test_names_of_models_that_are_none_are_those_of_the_backends() -> None:
    settings = pytest.importorskip("univg_eval.lmms.settings")
    assert (BASELINE, REPLAY) == (settings.BASELINE_MODEL, settings.REPLAY_MODEL)


# Reference, ranks, best


def test_ranks_and_places_are_given_among_comparable_rows_only() -> None:
    board = one(
        [
            record("low", {"a": [1.0, 0.0, 0.0, 0.0], "b": [1.0, 1.0]}),
            record("high", {"a": [1.0, 1.0, 1.0, 0.0], "b": [1.0, 0.0]}),
            record("best", {"a": [1.0] * 4, "b": [1.0] * 2}, protocol="univg-r1"),
            record("tie", {"a": [0.0, 1.0, 1.0, 1.0], "b": [0.0, 1.0]}),
        ]
    )
    found = [(r.entry.label, r.rank, r.places.get("a"), r.places.get("b")) for r in board.rows]
    assert found == [
        *(("low", 1, 2, 1), ("high", 1, 1, 2), ("tie", 1, 1, 2)),
        ("best", None, None, None),
    ]
    assert board.reference.entry.label == "low"
    # After a tie a rank is skipped, but no place; the third best has none, a single row neither.
    for runs, expected in (
        ({"x": [1, 1, 0], "y": [0, 1, 1], "z": [0, 0, 1]}, [("x", 1, 1), ("y", 1, 1), ("z", 3, 2)]),
        (
            {"x": [1, 1, 1], "y": [0, 0, 1], "z": [1, 1, 0]},
            [("x", 1, 1), ("z", 2, 2), ("y", 3, None)],
        ),
    ):
        found = [(r.entry.label, r.rank, r.places.get("a")) for r in one(named(runs)).rows]
        assert found == expected
    alone = one([record("m", TASKS), record("n", TASKS, protocol="univg-r1")])
    assert [(r.rank, dict(r.places)) for r in alone.rows] == [(None, {})] * 2
    assert has_note(alone, "nothing is ranked")


def test_the_reference_is_the_first_model_unless_it_is_named() -> None:
    records = [record(f"{BASELINE}:oracle", TASKS), record("m", TASKS), record("n", TASKS)]
    assert has_note(one(records), "Reference: m (the first run of a model)")
    assert has_note(one(records[:1]), f"Reference: {BASELINE}:oracle (the first run)")
    assert one(records, reference="n").reference.entry.label == "n"


def test_averages_run_over_the_tasks_of_the_reference() -> None:
    board = one([record("ref", {"a": [1.0, 0.0]}), record("m", {"b": [0.0], "a": [1.0, 1.0]})])
    shown = row(board, "m")
    assert list(board.tasks) == ["a", "b"]
    assert (shown.text("macro"), shown.text("b"), shown.comparable) == ("100.0", "0.0", True)
    assert has_note(board, "over the one task of the reference, not over b")


def test_strict_shows_comparable_rows_and_says_why_others_are_not() -> None:
    records = [REFERENCE, record("m", TASKS), record("n", TASKS, **OTHER, protocol="migician")]
    board = one(records, strict=True)
    assert set(labels(board)) == {"ref", "m"}
    ((left, reasons),) = board.left_out
    assert left.entry.label == "n"
    assert reasons == ["other-fingerprint", "other-protocol (migician; the reference: univg)"]


@pytest.mark.parametrize(
    ("x", "y", "overlap"),
    [
        ([1, 0] * 5, [1, 0] * 4 + [0, 0], True),
        ([1] * 50, [0] * 50, False),
        ([1, 0] * 5, [1, 0] * 5, False),  # equal ranks are no neighbours
    ],
)
def test_overlapping_neighbours_are_named(x: list[int], y: list[int], overlap: bool) -> None:
    board = one(named({"x": x, "y": y}))
    assert has_note(board, "ranks 1 and 2 overlap") == has_note(board, "overlap") == overlap


# Mistakes


EXCLUDED = {f"toy-b-{i:05d}": {"excluded": True} for i in range(2)}


@pytest.mark.parametrize(
    ("records", "options", "message"),
    [
        ([], {}, "nothing to show: give a run, or --published"),
        ([REFERENCE], {"metric": "f1@0.5"}, r"ref is left out: .* f1@0\.5; it has acc"),
        ([REFERENCE, REFERENCE], {}, "two runs are called 'ref' on the same benchmark"),
        ([record("m", {"b": TASKS["b"]}, scores=EXCLUDED)], {}, "it holds no scored sample"),
        ([REFERENCE], {"reference": "x"}, "'x' is no row; expected one of: ref"),
        (
            [REFERENCE],
            {"benchmark": "mars"},
            "'mars'; there are tables for: toy; expected one of: u",
        ),
        ([REFERENCE], {"benchmark": "mig"}, "for: toy; did you mean 'mig_bench' or 'mig"),
        ([REFERENCE], {"benchmark": "mig_bench"}, "'mig_bench', and --published was not given"),
        (
            [REFERENCE],
            {"benchmark": "univg_mini", "published": Published()},
            "univg_mini.*no published table is of it either",
        ),
        ([REFERENCE], {"benchmark": "lisa"}, "'lisa' is part of .*; give --benchmark zero_shot"),
    ],
)
def test_mistakes(records: list[RunRecord], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_leaderboards(records, **options)


def test_a_run_without_the_metric_is_left_out_and_named() -> None:
    several = {f"toy-b-{i:05d}": {"iou": None, "f1": 0.5, "ap50": 0.5} for i in range(2)}
    board = one([record("m", TASKS), record("n", {"b": TASKS["b"]}, scores=several)])
    assert labels(board) == ["m"]
    assert any(note.startswith("n is left out") for note in board.notes)


# Printed rows


REVISIONS = [counts("original", a=40, b=30), counts("revised", a=37, b=30)]


def printed(
    rows: dict[str, dict[str, str]], averages: dict[str, str] | None = None, **options: Any
):
    return Published([table(rows, averages, **options)], (), REVISIONS)


def test_printed_rows_against_a_run() -> None:
    """35 of 40 is 87.50, 30 of 37 is 81.08, and 12.34 is no k/N of either file."""
    run = record(
        "run",
        {"a": [1.0] * 35 + [0.0] * 5, "b": [1.0] * 30},
        benchmark="mig_bench",
        protocol="univg-r1",
        dataset={"revision": "original"},
    )
    expected = {
        "fits": ("87.50", set()),
        "revised": ("81.08", {Mark.OTHER_REVISION}),
        "none": ("12.34", {Mark.INFEASIBLE_DENOMINATOR}),
        "slip": ("87.50", {Mark.AVERAGE_DIFFERS}),
    }
    rows = {name: {"a": a, "b": "50.00"} for name, (a, _) in expected.items()}
    rows["part"] = {"a": "87.50"}
    board = one([run], printed(rows, {"fits": "68.75", "slip": "68.80"}))
    assert labels(board, comparable=True) == ["run"]
    always = {Mark.UNKNOWN_PROVENANCE, Mark.SAME_PROTOCOL}
    for name, (_, marks) in {**expected, "part": ("", {Mark.MISSING_TASKS})}.items():
        assert set(row(board, name).marks) == always | marks, name
    assert row(board, "revised").marks[Mark.OTHER_REVISION] == (
        "revised; the reference: original (a N = 37, not 40)"
    )
    assert row(board, "none").marks[Mark.INFEASIBLE_DENOMINATOR] == "a 12.34"
    assert row(board, "slip").text("macro") == "68.75"
    assert row(board, "slip").entry.printed_average == Decimal("68.80")
    assert row(board, "part").text("macro") is None
    assert row(board, "fits").estimate("a").low is None  # type: ignore[union-attr]


def test_a_run_that_names_no_revision_is_held_by_its_counts() -> None:
    run = record("run", {"a": [1.0] * 40, "b": [1.0] * 30}, benchmark="mig_bench")
    board = one([run], printed({"revised": {"a": "81.08", "b": "50.00"}}))
    assert row(board, "revised").marks[Mark.OTHER_REVISION] == (
        "other numbers of samples (a N = 37, not 40)"
    )
    part = record("run", {"a": [1.0] * 9, "b": [1.0] * 9}, benchmark="mig_bench", complete=False)
    board = one([part], printed({"revised": {"a": "81.08", "b": "50.00"}}))
    assert Mark.OTHER_REVISION not in row(board, "revised").marks


def test_printed_rows_alone_are_held_against_the_best_that_can_be_compared() -> None:
    rows = {
        "r1": {"a": "81.08", "b": "50.00"},
        "o1": {"a": "87.50", "b": "50.00"},
        "o2": {"a": "97.50", "b": "60.00"},
        "none": {"a": "99.99", "b": "50.00"},
    }
    board = one([], printed(rows))
    ranks = [("o2", 1), ("o1", 2), ("r1", None), ("none", None)]
    assert [(r.entry.label, r.rank) for r in board.rows] == ranks
    assert board.reference.entry.label == "o2"
    assert has_note(board, "best printed row of known rule and file that another can be")
    higher = rows | {"r1": {"a": "97.30", "b": "100.00"}}
    assert one([], printed(higher)).reference.entry.label == "o2"
    other = one([], printed(rows), reference="r1")
    assert labels(other, comparable=True) == ["r1"]
    assert Mark.OTHER_REVISION in row(other, "o2").marks


@pytest.mark.parametrize(
    ("values", "protocol", "reference", "reason"),
    [
        ({"x": "87.50", "y": "90.00"}, "unknown", "y", "best printed row that another"),
        ({"x": "81.08", "y": "77.50"}, "univg-r1", "x", "(the best printed row)"),
        ({"x": "99.99", "y": "99.98"}, "univg-r1", "x", "(the best printed row)"),
    ],
)
def test_the_printed_reference_where_little_is_known(
    values: dict[str, str], protocol: str, reference: str, reason: str
) -> None:
    board = one([], printed({k: {"a": v} for k, v in values.items()}, protocol=protocol))
    assert board.reference.entry.label == reference
    assert has_note(board, reason)


def test_a_known_rule_comes_before_a_higher_value() -> None:
    known = table({"x": {"a": "87.50"}, "y": {"a": "90.00"}})
    unknown = table({"z": {"a": "97.50"}, "w": {"a": "95.00"}}, key="later", protocol="unknown")
    board = one([], Published([known, unknown], (), [counts("original", a=40)]))
    assert board.reference.entry.label == "y"


def test_rows_of_another_or_an_unknown_rule_are_not_comparable() -> None:
    rows = {"x": {"a": "87.50"}, "y": {"a": "97.50"}, "z": {"a": "97.50"}}
    board = one([], printed(rows, protocols={"y": "univg-r1+migician-y"}))
    assert set(labels(board, comparable=True)) == {"x", "z"}
    assert Mark.OTHER_PROTOCOL in row(board, "y").marks
    # What is not stated is alike within one table only.
    first = table({"x": {"a": "87.50"}, "y": {"a": "97.50"}}, protocol="unknown")
    second = table({"z": {"a": "90.00"}}, key="later", protocol="unknown")
    board = one([], Published([first, second], (), REVISIONS))
    assert set(labels(board, comparable=True)) == {"x", "y"}
    assert Mark.UNVERIFIED in row(board, "z").marks


def test_a_row_that_a_later_table_copied_appears_once() -> None:
    first = table({"x": {"a": "87.50"}})
    second = table({"x": {"a": "87.50"}, "y": {"a": "90.00"}}, key="later")
    board = one([], Published([first, second], (), REVISIONS))
    assert sorted(labels(board)) == ["x", "y"]
    assert row(board, "x").entry.also_in == ("later",)
    assert set(board.sources) == {"paper", "later"}
    for key in ("paper", "later"):
        other = one([], Published([first, second], (), REVISIONS), reference=f"{key}/x")
        assert other.reference.entry.label == "x"
    ruled = table({"x": {"a": "87.50"}}, key="later", protocol="migician")
    published = Published([first, ruled], (), REVISIONS)
    assert [r.entry.source for r in one([], published).rows] == ["paper", "later"]
    with pytest.raises(UserError, match=r"several published tables; name one: paper/x, later/x"):
        one([], published, reference="x")
    assert one([], published, reference="later/x").reference.entry.source == "later"


def test_other_metrics_leave_printed_tables_out() -> None:
    run = record("run", {"a": [0.6, 0.2]}, benchmark="mig_bench")
    board = one([run], printed({"x": {"a": "87.50"}}), metric="miou")
    assert labels(board) == ["run"]
    assert has_note(board, "[paper] is left out: it has acc@0.5, not miou")


# The tables that come with the project


def test_rows_of_univg_r1_on_another_file_than_the_reference_are_marked() -> None:
    board = one([], shipped(), benchmark="mig_bench", reference="migician_mig_bench/Mantis")
    source = "univg_r1_mig_bench"
    for model in ("InternVL2-8B", "Qwen2-VL-7B", "Migician", "UniVG-R1"):
        shown = row(board, model, source).marks[Mark.OTHER_REVISION]
        assert all(f"N = {n}, not" in shown for n in (815, 485, 97)), shown
    assert Mark.OTHER_REVISION not in row(board, "LLaVA-OV-7B").marks
    best = row(board, "UniVG-R1", source)
    assert (best.text("macro"), best.entry.printed_average) == ("72.62", Decimal("72.64"))


def test_a_run_sets_the_rows_on_another_file_apart() -> None:
    n = dict(load_counts("mig_bench")[0].counts)
    revised = n | {"common_object": 815, "group_grounding": 485, "reasoning": 97}
    marked: dict[str, set[str]] = {}
    for name, sizes in (("mig_bench", n), ("mig_bench_revised", revised)):
        run = record("run", {task: [1.0] * k for task, k in sizes.items()}, benchmark=name)
        board = one([run], shipped(), benchmark=name)
        assert labels(board, comparable=True) == ["run"]
        rows = [r for r in board.rows if r.entry.source == "univg_r1_mig_bench"]
        marked[name] = {r.entry.label for r in rows if Mark.OTHER_REVISION in r.marks}
    assert {"InternVL2-8B", "Qwen2-VL-7B", "Migician", "UniVG-R1"} <= marked["mig_bench"]
    assert not marked["mig_bench"] & {"Mantis", "LLaVA-OV-7B", "MiniCPM-V-2.6"}
    assert "UniVG-R1" not in marked["mig_bench_revised"]


def test_the_zero_shot_table_is_comparable_in_itself() -> None:
    board = one([], shipped(), benchmark="zero_shot")
    ranks = {r.entry.label: r.rank for r in board.rows if r.entry.source == "univg_r1_zero_shot"}
    assert ranks == {"UniVG-R1": 1, "Migician": 2, "Qwen2-VL-7B": 3}


def test_what_a_user_reported_has_intervals() -> None:
    board = one([], shipped(), benchmark="mig_bench")
    (reported,) = [r for r in board.rows if r.entry.source == "univg_r1_issue_6"]
    estimate = reported.estimate("correspondence")
    expected = binomtest(38, 117).proportion_ci(method="wilson")
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx(
        (38 / 117, expected.low, expected.high), abs=1e-12
    )
    assert reported.text("correspondence") == "32.48"
    # A count without its percentage is shown as one.
    (reported,) = one([], shipped(), benchmark="mig_bench", metric="acc@0.3").rows
    assert reported.text("group_grounding") == "78.76"  # 393 of 499


def test_a_printed_row_has_a_micro_average_where_its_counts_are_certain() -> None:
    """87.50 is 35/40 alone, 50.00 is 15/30; 100.00 and 0.00 fit both files."""
    board = one([], printed({"x": {"a": "87.50", "b": "50.00"}, "y": {"a": "0.00", "b": "0.00"}}))
    micro = row(board, "x").micro
    assert (micro.value, micro.n, micro.low) == (50 / 70, 70, None)
    assert row(board, "x").text("micro") == "71.43"
    assert row(board, "y").micro is None
    shown = one([], shipped(), benchmark="mig_bench")
    cut = row(shown, "Qwen2-VL-72B", "univg_r1_mig_bench")
    assert Mark.CUT_OFF in cut.marks and cut.micro is None


def test_no_run_is_compared_with_a_printed_reference() -> None:
    run = record("run", {"a": [1.0] * 40}, benchmark="mig_bench", protocol="univg-r1")
    board = one([run], printed({"x": {"a": "87.50"}, "y": {"a": "90.00"}}), reference="x")
    assert labels(board, comparable=True) == ["y", "x"]
    assert has_note(board, "no run is compared with it")
    strict = one([run], printed({"x": {"a": "87.50"}}), reference="x", strict=True)
    ((_, reasons),) = strict.left_out
    assert reasons == ["a run cannot be checked against a printed row"]


def test_published_tables_are_in_order_of_role_and_date() -> None:
    board = one([], shipped(), benchmark="mig_bench", reference="as trained, one image at a time")
    sources = list(dict.fromkeys(r.entry.source for r in board.rows if not r.comparable))
    main = ["migician_mig_bench", "univg_r1_mig_bench", "mg_thinker_mig_bench"]
    assert sources[:4] == [*main, "migician_answer_forms"]
    assert row(board, "Mantis").entry.also_in == ("univg_r1_mig_bench",)


def test_rows_without_an_average_are_not_said_to_be_ranked() -> None:
    board = one([], Published([t for t in load_published() if t.key == "migician_data"]))
    assert all(row.rank is None for row in board.rows)
    assert has_note(board, "Comparable set (4 rows): ")


def test_runs_on_stand_in_images_are_marked_and_never_ranked_with_others():
    trial = {"dataset": {"stand_in_images": True, "fingerprint": "e" * 64}}
    runs = [record("trial", {"a": [0.9, 0.1]}, **trial), record("real", {"a": [0.9, 0.9]})]
    board = one(runs)
    assert board.reference.name == "real"
    assert Mark.STAND_IN_IMAGES in row(board, "trial").marks
    assert (row(board, "trial").comparable, row(board, "trial").rank) == (False, None)
    assert Mark.STAND_IN_IMAGES not in row(board, "real").marks
    # Nor where one of them is named as the reference.
    board = one(runs, reference="trial")
    assert Mark.OTHER_FINGERPRINT in row(board, "real").marks
    assert not row(board, "real").comparable


def test_a_published_rule_has_a_column_for_each_task_that_is_printed() -> None:
    """Its own figures, so that a rule's row is by that rule, whatever reads the answers."""
    tasks = {"grefcoco_val": [1.0, 0.0], "grefcoco_testA": [1.0]}
    figures = {"n_acc": 0.5, "grefcoco_val_n_acc": 0.2, "grefcoco_testA_n_acc": 0.6, "t_acc": 1.0}
    run = record("run", tasks, benchmark="grefcoco")
    results = {**run.manifest.to_dict()["results"], "published": {"grefcoco": figures}}
    run = record("run", tasks, benchmark="grefcoco", results=results)
    rows = {"paper's": {"grefcoco_val": "35.2", "grefcoco_testA": "34.2"}}
    options = {"benchmark": "grefcoco", "metric": "grefcoco/n_acc", "protocol": "grefcoco"}
    board = one([run], Published([table(rows, **options)]), metric="grefcoco/n_acc")
    shown = {r.entry.label: [r.text(task) for task in tasks] for r in board.rows}
    assert shown == {"run": ["20.0", "60.0"], "paper's": ["35.2", "34.2"]}
    assert row(board, "run").text("overall") == "50.0"
    assert row(board, "run").macro == Estimate(0.4, None)  # of 0.2 and 0.6
    assert row(board, "paper's").text("macro") == "34.70"
    assert Mark.OTHER_PROTOCOL not in row(board, "paper's").marks
    # HumanRef's rule has another name for the same of the whole set.
    run = record("run", {"attribute": [1.0], "rejection": [1.0]}, benchmark="humanref")
    figures = {"average_recall@0.5": 0.7, "attribute_recall@0.5": 0.9}
    results = {**run.manifest.to_dict()["results"], "published": {"humanref": figures}}
    run = record("run", {"attribute": [1.0]}, benchmark="humanref", results=results)
    board = one([run], metric="humanref/average_recall@0.5")
    assert {c: board.rows[0].text(c) for c in board.rows[0].entry.columns} == {
        "overall": "70.0",
        "attribute": "90.0",
    }


def test_each_table_has_the_usual_metric_of_its_own_runs() -> None:
    """A run with several targets is not lost beside one with one target each."""
    one_target = record("x", {"a": [0.9]}, benchmark="a")
    fields = {"iou": None, "center": None, "f1": 0.5, "ap50": 0.5, "matched_iou": 0.4}
    several = record("x", {"b": [0.9]}, benchmark="b", scores={"b-b-00000": fields})
    boards = build_leaderboards([one_target, several])
    assert [(board.benchmark, board.metric) for board in boards] == [
        ("a", "acc@0.5"),
        ("b", "f1@0.5"),
    ]
    (board,) = build_leaderboards([one_target, several], metric="acc@0.5")
    assert "Of b nothing is shown: x is left out: none of its samples has acc@0.5" in " ".join(
        board.notes
    )


def test_a_published_rule_is_a_metric_of_the_whole_set() -> None:
    figures = {"mc-bench": {"weighted_ap50": 0.25}}
    run = record("run", {"mc_bench": [1.0, 0.0]}, benchmark="mc_bench")
    results = {**run.manifest.to_dict()["results"], "published": figures}
    run = record("run", {"mc_bench": [1.0, 0.0]}, benchmark="mc_bench", results=results)
    rows = {"paper's": {"overall": "30.7"}, "other": {"overall": "19.1"}}
    options = {"benchmark": "mc_bench", "metric": "mc-bench/weighted_ap50", "protocol": "mc-bench"}
    tables = Published([table(rows, **options)])
    board = one([run], tables, metric="mc-bench/weighted_ap50")
    assert {r.entry.label: r.text("overall") for r in board.rows} == {
        "run": "25.0",
        "paper's": "30.7",
        "other": "19.1",
    }
    found = row(board, "run")
    assert found.macro == found.estimate("overall") == Estimate(0.25, None)
    assert row(board, "other").marks.keys() >= {Mark.UNKNOWN_PROVENANCE}
    # Without a run the printed metric is shown; beside runs it is named.
    alone = one([], tables)
    assert alone.metric == "mc-bench/weighted_ap50"
    beside = one([run], tables)
    assert beside.metric == "acc@0.5"
    assert "--metric mc-bench/weighted_ap50 shows it" in " ".join(beside.notes)
    with pytest.raises(UserError, match=r"'lucky/iou' is not known; expected one of: acc@0.3"):
        build_leaderboards([run], metric="lucky/iou")
