"""Published tables: their numbers, what their arithmetic allows, and mistakes in their files."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from decimal import ROUND_DOWN, ROUND_HALF_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path
from typing import Any

import leaderboard_data as made
import pytest
from doc_pages import REPO, page_text
from hypothesis import given
from hypothesis import strategies as st

from univg_eval.benchmarks.readers.mig_bench import REVISIONS
from univg_eval.errors import UserError
from univg_eval.leaderboard.published import (
    BENCHMARK_TASKS,
    Counts,
    PublishedRow,
    load_counts,
    load_published,
    load_reproductions,
    published_folder,
)
from univg_eval.leaderboard.published_checks import (
    Inconsistency,
    average_is_reachable,
    check_table,
    feasible_counts,
    feasible_denominators,
    rounded_means,
    row_fits,
)
from univg_eval.published_rules import PUBLISHED_RULES

FOLDER = REPO / "results" / "published"
TABLES = {table.key: table for table in load_published()}

CENT = Decimal("0.01")
WAYS = {"nearest": (ROUND_HALF_UP, ROUND_HALF_EVEN, ROUND_HALF_DOWN), "down": (ROUND_DOWN,)}


def row_of(key: str, model: str) -> PublishedRow:
    (row,) = [row for row in TABLES[key].rows if row.model == model]
    return row


@cache
def printable(n: int, rounding: str) -> dict[Decimal, set[int]]:
    """By brute force: every percentage of two decimals that k of n can be printed as, and the k."""
    found: dict[Decimal, set[int]] = {}
    for k in range(n + 1):
        for way in WAYS[rounding]:
            found.setdefault((Decimal(100 * k) / n).quantize(CENT, way), set()).add(k)
    return found


@pytest.mark.parametrize("rounding", ["nearest", "down"])
@pytest.mark.parametrize("n", [1, 3, 32, 94, 101])
def test_feasible_counts_are_those_of_brute_force(n: int, rounding: str) -> None:
    expected = printable(n, rounding)
    for cents in range(10001):
        percent = Decimal(cents) / 100
        percent = percent.quantize(CENT)
        assert set(feasible_counts(percent, n, rounding)) == expected.get(percent, set()), percent


@given(st.integers(1, 30_000).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_what_was_printed_is_feasible(pair: tuple[int, int]) -> None:
    n, k = pair
    for rounding, ways in WAYS.items():
        for way in ways:
            printed = (Decimal(100 * k) / n).quantize(CENT, way)
            assert k in feasible_counts(printed, n, rounding)
            assert n in feasible_denominators(printed, [n], rounding)


@pytest.mark.parametrize(
    ("percent", "n", "rounding", "expected"),
    [
        ("33", 3, "nearest", [1]),
        ("33.3", 3, "nearest", [1]),
        ("33.30", 3, "nearest", []),
        # 1/32 is 3.125: a tie, printed either way.
        ("3.12", 32, "nearest", [1]),
        ("3.13", 32, "nearest", [1]),
        ("3.13", 32, "down", []),
        ("50.00", 100_000, "nearest", list(range(49_995, 50_006))),
        ("100.00", 7, "nearest", [7]),
    ],
)
def test_the_printed_decimals_say_how_fine_a_value_is(
    percent: str, n: int, rounding: Any, expected: list[int]
) -> None:
    assert list(feasible_counts(Decimal(percent), n, rounding)) == expected


@pytest.mark.parametrize(
    ("percent", "n", "rounding", "message"),
    [("1.00", 0, "nearest", "n is 0"), ("1.00", 5, "up", "'up'"), ("NaN", 5, "down", "NaN")],
)
def test_arguments_that_mean_nothing(percent: str, n: int, rounding: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        feasible_counts(Decimal(percent), n, rounding)


@pytest.mark.parametrize("key", [key for key, table in TABLES.items() if table.tasks])
def test_denominators_of_every_column_by_brute_force(key: str) -> None:
    """For each value of each table, which of the two files it fits, from sets made another way."""
    table = TABLES[key]
    sets = {
        (revision.revision, task): printable(n, "nearest")
        for revision in load_counts(table.benchmark)
        for task, n in revision.counts.items()
    }
    misfits = set()
    for row in table.rows:
        if not row.values:
            assert row_fits(row, load_counts(table.benchmark)) == ()
            continue
        fitting = []
        for revision in load_counts(table.benchmark):
            known = [t for t in row.values if t in revision.counts]
            if all(row.values[t] in sets[revision.revision, t] for t in known):
                fitting.append(revision.revision)
        nearest = [f for f in row_fits(row, load_counts(table.benchmark)) if f.rounding != "down"]
        assert [f.revision for f in nearest] == fitting
        if not fitting:
            misfits |= {
                (row.model, task)
                for task, value in row.values.items()
                if not any(value in values for (_, t), values in sets.items() if t == task)
                and any(t == task for _, t in sets)
            }
    found = {(i.model, i.task) for i in check_table(table) if i.kind == "denominator"}
    assert found == misfits


# By hand from the printed values: the exact mean, and whether the printed average can be right.
MEANS = [
    ("univg_r1_mig_bench", "Qwen2-VL-72B", "41.916", True, "cut off, or of unrounded values"),
    ("univg_r1_mig_bench", "Mantis", "3.197", True, ""),
    ("univg_r1_mig_bench", "Qwen2-VL-7B", "30.20", True, ""),
    ("univg_r1_mig_bench", "UniVG-R1", "72.62", False, "printed 72.64"),
    ("univg_r1_zero_shot", "UniVG-R1", "58.61", True, ""),
    ("migician_mig_bench", "LLaVA-OV-72B", "12.799", False, "printed 13.65"),
    ("mg_thinker_mig_bench", "MG-Thinker", "76.705", True, "a tie, printed 76.71"),
    ("mg_thinker_zero_shot", "Qwen2.5-VL-7B", "35.048", True, "printed 35.04"),
]


@pytest.mark.parametrize(("key", "model", "mean", "reachable", "why"), MEANS)
def test_means(key: str, model: str, mean: str, reachable: bool, why: str) -> None:
    row = row_of(key, model)
    assert row.mean == Decimal(mean)
    assert average_is_reachable(row) is reachable, why
    if reachable and not why:
        assert row.printed_avg in (rounded_means(row) or ())


def test_a_tie_in_the_mean_is_rounded_both_ways() -> None:
    tie = row_of("mg_thinker_mig_bench", "MG-Thinker")
    assert rounded_means(tie) == (Decimal("76.70"), Decimal("76.71"))
    bare = PublishedRow("m", {}, Decimal("28.62"), "unknown")
    assert rounded_means(bare) is None
    assert average_is_reachable(bare)


def test_reachable_averages_lie_within_half_a_unit_twice() -> None:
    # Mean 50.01, from 50.005 to 50.015 before rounding; the average 50.00 stands for 49.995 to
    # 50.005, which touches it, as 50.02 does.
    values = {"lisa_val": Decimal("50.00"), "lisa_test": Decimal("50.02")}
    reachable = [
        cents
        for cents in range(4990, 5011)
        if average_is_reachable(PublishedRow("m", values, Decimal(cents) / 100, "unknown"))
    ]
    assert reachable == [5000, 5001, 5002]


def test_what_does_not_add_up_in_the_tables_of_univg_r1() -> None:
    cut_off = {
        "diff": "270/528",
        "view_diff": "41/94",
        "object_tracking": "135/550",
        "multi_view": "94/288",
        "region": "239/1203",
        "group_grounding": "329/485",
        "reasoning": "49/97",
        "correspondence": "21/117",
    }
    found = check_table(TABLES["univg_r1_mig_bench"])
    assert [(i.model, i.task, i.kind) for i in found] == [
        *(("Qwen2-VL-72B", task, "denominator") for task in cut_off),
        ("Qwen2-VL-72B", None, "rounding"),
        ("mPLUG-Owl3", "reasoning", "denominator"),
        ("UniVG-R1", None, "average"),
        (None, None, "revision"),
    ]
    for one, fraction in zip(found, cut_off.values(), strict=False):
        assert one.text.endswith(f"cut off, it is {fraction}")
    assert found[-3].text.endswith("the nearest N that fits is 99")
    revised = "Qwen2-VL-72B, InternVL2-8B, Qwen2-VL-7B, Migician, UniVG-R1 fit revised"
    assert f"{revised}; Mantis, LLaVA-OV-7B, MiniCPM-V-2.6 fit original" in found[-1].text
    assert check_table(TABLES["univg_r1_zero_shot"]) == []


def test_counts_of_a_row() -> None:
    (fit,) = row_fits(row_of("univg_r1_mig_bench", "UniVG-R1"), load_counts("mig_bench"))
    assert (fit.revision, fit.rounding) == ("revised", "nearest")
    right = (380, 55, 759, 420, 191, 983, 82, 427, 61, 52)
    of = (528, 94, 815, 550, 288, 1203, 99, 485, 97, 117)
    pairs = zip(right, of, strict=True)
    assert fit.counts == dict(zip(BENCHMARK_TASKS["mig_bench"], pairs, strict=True))


def test_a_row_that_fits_another_file_than_its_table_names() -> None:
    def counts(revision: str, val: int, test: int) -> Counts:
        return made.counts(revision, "zero_shot", lisa_val=val, lisa_test=test)

    revisions = [counts("a", 3, 7), counts("b", 4, 7)]

    def findings(*rows: tuple[str, str], revision: str = "unknown") -> list[Inconsistency]:
        values = {f"m{i}": {"lisa_val": v, "lisa_test": t} for i, (v, t) in enumerate(rows)}
        table = made.table(values, benchmark="zero_shot", revision=revision)
        return check_table(table, revisions)

    third, quarter, both = ("33.33", "14.29"), ("25.00", "14.29"), ("0.00", "14.29")
    assert findings(third, both) == []
    (named,) = findings(third, quarter, both, revision="b")
    assert (named.model, named.kind) == ("m0", "revision")
    assert named.text == "the table names b; the row fits a"
    (mixed,) = findings(third, quarter, both)
    assert mixed.text.endswith(": m0 fit a; m1 fit b; m2 fit a or b")
    # The first value fits a alone, the second b alone: no single file has both.
    revisions[1] = counts("b", 4, 9)
    (row,) = findings(("33.33", "11.11"))
    assert (row.model, row.kind) == ("m0", "revision")
    assert row.text.endswith("but all of them together fit none")


def test_reproductions() -> None:
    (reported,) = load_reproductions("mig_bench")
    assert load_reproductions("zero_shot") == []
    assert reported.model == "UniVG-R1"
    original = {counts.revision: counts for counts in load_counts("mig_bench")}["original"]
    by_metric = {(row.task, row.metric): row for row in reported.rows}
    for row in reported.rows:
        assert row.denominator == original.counts[row.task]
        if row.printed is not None:
            assert abs(100 * row.numerator / row.denominator - row.printed) <= Decimal("0.005")
    assert by_metric["common_object", "acc@0.5"].printed == Decimal("82.97")
    assert by_metric["group_grounding", "acc@0.3"].printed is None


def findings() -> Iterator[str]:
    """Lines of results/published/README.md, one a row of a table that does not add up."""
    for table in TABLES.values():
        found = check_table(table)
        for model in dict.fromkeys(one.model for one in found):
            own = [one for one in found if one.model == model]
            texts = [one.text for one in own if one.kind != "denominator"]
            misfits = [one.task for one in own if one.kind == "denominator" and one.task]
            if misfits and model:
                texts.insert(0, ", ".join(misfits))
            yield f"- `{table.key}`, {model or 'all rows'}: {'; '.join(texts)}"


def test_documented_findings_are_those_of_the_check() -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    listed = "\n".join(line for line in page.splitlines() if line.startswith("- "))
    expected = "\n".join(findings())
    assert listed == expected, f"results/published/README.md should list:\n{expected}"


def test_every_table_is_documented_and_has_its_numbers_once() -> None:
    page = page_text("published")
    tables = [*TABLES.values(), *load_reproductions()]
    assert {f"{table.key}.csv" for table in tables} == {path.name for path in FOLDER.glob("*.csv")}
    for table in tables:
        assert f"`{table.key}`" in page
        assert table.arxiv in page
        assert table.url.startswith("https://")
    assert all(row.printed_avg or row.values for table in TABLES.values() for row in table.rows)


def test_main_tables_of_multi_image_grounding_have_all_tasks() -> None:
    main = {
        key
        for key, table in TABLES.items()
        if table.role == "main" and table.benchmark in ("mig_bench", "zero_shot")
    }
    assert main == {
        *("univg_r1_mig_bench", "migician_mig_bench", "mg_thinker_mig_bench"),
        *("univg_r1_zero_shot", "mg_thinker_zero_shot"),
    }
    for table in (TABLES[key] for key in main):
        assert set(table.tasks) == set(BENCHMARK_TASKS[table.benchmark])
        assert all(set(row.values) == set(table.tasks) for row in table.rows)


def test_every_benchmark_has_a_table_and_every_rule_its_own_set() -> None:
    assert {table.benchmark for table in TABLES.values()} == set(BENCHMARK_TASKS)
    for table in TABLES.values():
        rule, slash, _ = table.metric.partition("/")
        assert not slash or table.benchmark in PUBLISHED_RULES[rule].benchmarks


def test_groundingme_is_whole_samples_of_its_tasks() -> None:
    """Its 1,005 samples by task; one decimal excludes most values of such small tasks."""
    counts = dict(zip(BENCHMARK_TASKS["groundingme"], (204, 300, 300, 201, 1005), strict=True))
    for row in TABLES["groundingme_leaderboard"].rows:
        right = {
            task: feasible_counts(row.values[task], n, "nearest") for task, n in counts.items()
        }
        assert all(right.values()), row.model
        parts = [right[task] for task in counts if task != "overall"]
        assert sum(map(min, parts)) <= max(right["overall"]), row.model
        assert sum(map(max, parts)) >= min(right["overall"]), row.model


@pytest.mark.parametrize("metric", ["recall", "precision", "densityf1"])
def test_the_overall_of_humanref_is_the_mean_of_its_domains(metric: str) -> None:
    *domains, overall = BENCHMARK_TASKS["humanref"]
    for row in TABLES[f"rex_thinker_humanref_{metric}"].rows:
        mean = sum((row.values[task] for task in domains), Decimal(0)) / len(domains)
        assert abs(mean - row.values[overall]) <= Decimal("0.1"), row.model


@pytest.mark.parametrize("metric", ["f1_50", "f1_95", "f1_mean"])
def test_two_tables_print_the_same_of_the_same_models(metric: str) -> None:
    for model, other in (
        ("Rex-Omni-3B", "Rex-Omni"),
        *((name, name) for name in ("SEED1.5-VL", "Grounding DINO-Swin-T", "DeepSeek-VL2-Small")),
    ):
        copied = row_of(f"eagle_rex_omni_{metric}", model).values
        assert copied.items() <= row_of(f"rex_omni_{metric}", other).values.items()


@pytest.mark.parametrize("metric", ["f1_1", "n_acc"])
def test_trained_models_on_grefcoco_are_quoted_alike(metric: str) -> None:
    for model in ("VLT", "MDETR", "UNINEXT"):
        quoted = row_of(f"hiea2g_grefcoco_{metric}", model)
        assert row_of(f"ssde_grefcoco_{metric}", model).values == quoted.values


def test_a_table_of_averages_alone() -> None:
    table = TABLES["migician_data"]
    assert table.tasks == ()
    assert [str(row.printed_avg) for row in table.rows] == ["28.62", "62.79", "22.43", "62.21"]
    assert check_table(table) == []


def test_counts_name_the_known_revisions() -> None:
    known = {counts.revision: counts for counts in load_counts("mig_bench")}
    assert set(known) == set(REVISIONS)
    assert all(c.file == REVISIONS[name].file_name for name, c in known.items())
    assert sum(known["original"].counts.values()) == 4295
    assert tuple(known["original"].counts) == BENCHMARK_TASKS["mig_bench"]
    (extracted,) = load_counts("zero_shot")
    assert extracted.revision == "univg-r1-extracted"
    assert set(extracted.counts) < set(BENCHMARK_TASKS["zero_shot"])


def test_one_benchmark_alone() -> None:
    assert {table.benchmark for table in load_published("zero_shot")} == {"zero_shot"}
    for load in (load_published, load_reproductions, load_counts):
        with pytest.raises(UserError, match="benchmark is 'coco'"):
            load("coco")


def test_protocols_of_rows() -> None:
    rows = {row.model: row for row in TABLES["univg_r1_mig_bench"].rows}
    assert rows["UniVG-R1"].protocol == "univg-r1"
    assert rows["Migician"].protocol == "univg-r1+migician-y"
    for model in ("Mantis", "LLaVA-OV-7B", "MiniCPM-V-2.6", "mPLUG-Owl3"):
        row, copied = rows[model], row_of("migician_mig_bench", model)
        assert row.protocol == "migician"
        assert "the same ten values" in row.note
        assert (row.values, row.printed_avg) == (copied.values, copied.printed_avg)
    # Numbers stay as printed.
    assert str(rows["Mantis"].values["view_diff"]) == "0.00"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tables."""
    return Path(shutil.copytree(FOLDER, tmp_path / "published"))


ZERO_SHOT = [
    ("csv", "model,", "name,", r"zero_shot\.csv, line 1: .*name, lisa_val"),
    ("csv", "49.17", "n/a", r"line 2: values.lisa_test is 'n/a'"),
    ("csv", "49.17", "NaN", "'NaN'"),
    ("csv", "49.17", "491.7", r"lisa_test is '491\.7'"),
    ("csv", ",revos,", ",revoz,", "line 1: task is 'revoz'"),
    ("csv", "lisa_test", "lisa_val", "line 1: columns model, lisa_val, lisa_val"),
    ("csv", "UniVG-R1,", "Migician,", "line 4: duplicate Migician"),
    ("csv", "UniVG-R1,", " ,", "line 4: model is ''"),
    ("csv", "UniVG-R1,", "UniVG-R1", "line 4: 6 cells; expected 7"),
    ("csv", "UniVG-R1,", '"UniVG-R1,', "not a readable CSV file"),
    ("yaml", "metric: acc@0.5", "metric: accuracy", r"zero_shot\.yaml: metric is 'accuracy'"),
    ("yaml", "metric: acc@0.5\n", "", "metric: Field required"),
    ("yaml", "role: main", "role: side", "role is 'side'"),
    ("yaml", "title:", "titel:", "title: .*; titel is"),
    ("yaml", 'arxiv: "2505.14231"', "arxiv: 2505.14231", r"arxiv is 2505\.14231"),
    ("yaml", "date: 2025-05-20", "date: May", "date is 'May'"),
    ("yaml", "kind: table", "kind: graph", "kind is 'graph'"),
    ("yaml", "zero_shot", "zeroshot", "benchmark is 'zeroshot'"),
    ("yaml", "kind: table", "- kind", "not a readable YAML file"),
    ("yaml", "data: univg", "data: other", "not a readable CSV file: .*No su"),
    ("yaml", "data: univg", "data: ../univg", "data is .*; expected the name of a CSV file"),
    ("yaml", "data: univg", 'data: "a\\0" #', "data is .a.x00.; expected the name"),
]
MISTAKES = [
    *((f"univg_r1_zero_shot.{ending}", *rest) for ending, *rest in ZERO_SHOT),
    ("univg_r1_mig_bench.csv", "univg-r1+migician-y", "univg-r2", "line 9: protocol is 'univg-r2'"),
    ("migician_data.csv", "28.62", "", "line 2: Qwen2-VL-7B has neither values nor an average"),
    ("univg_r1_issue_6.csv", "acc@0.5,44,94", "acc@0.5,95,94", "line 3: numerator is 95"),
    ("univg_r1_issue_6.csv", ",94,", ",9.4,", r"denominator is '9\.4'"),
    ("univg_r1_issue_6.csv", "acc@0.5", "acc@0.3", r"line 3: duplicate view_diff acc@0\.3"),
    ("univg_r1_issue_6.csv", "acc@0.5", "acc", "line 3: metric is 'acc'"),
    ("revisions.yaml", "diff: 528", "diff: -1", "original: counts.diff is -1"),
    ("revisions.yaml", "diff: 528", "dif: 528", "task is 'dif'"),
    ("revisions.yaml", "counted\n", "known\n", "basis is 'known'"),
    ("revisions.yaml", "mig_bench:\n", "mig_bench: text\nother:\n", "mig_bench: expected keys"),
    ("revisions.yaml", "mig_bench:\n", "mig_bench: {original: 5}\nother:\n", "original: expected"),
    ("univg_r1_zero_shot.yaml", "kind: table", "kind: table\nkey: x", "unexpected key 'key'"),
    ("univg_r1_zero_shot.yaml", "kind: table", "kind: [table]", r"kind is \['table'\]"),
    ("univg_r1_zero_shot.yaml", "kind: table", "kind: table\n5: x", "expected keys with values"),
]


@pytest.mark.parametrize(("name", "old", "new", "message"), MISTAKES)
def test_mistakes_in_the_files(folder: Path, name: str, old: str, new: str, message: str) -> None:
    text = (folder / name).read_text(encoding="utf-8")
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError, match=message) as error:
        load_counts("mig_bench", folder=folder)
        load_published(folder=folder)
        load_reproductions(folder=folder)
    assert "\n\n" not in str(error.value)


def test_an_empty_table_and_a_missing_folder(folder: Path) -> None:
    path = folder / "univg_r1_zero_shot.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(UserError, match=r"zero_shot\.csv: no line below the header"):
        load_published(folder=folder)
    with pytest.raises(UserError, match="nowhere: no such folder"):
        load_published(folder=folder / "nowhere")


def test_the_tables_are_found_in_a_checkout_and_below_a_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import univg_eval
    from univg_eval import files

    assert published_folder() == FOLDER
    monkeypatch.setattr(univg_eval, "__file__", str(tmp_path / "univg_eval" / "__init__.py"))
    monkeypatch.setattr(files, "files", lambda name: [])
    with pytest.raises(UserError, match=r"the published tables folder is missing: .*install univg"):
        published_folder()
    shutil.copytree(FOLDER, tmp_path / "share" / "univg" / "published")
    assert {table.key for table in load_published()} == set(TABLES)


def transcription(shared_dir: Path, name: str) -> list[dict[str, str]]:
    """Rows of a table that was typed from the paper a second time."""
    path = shared_dir / "data" / "published" / f"{name}.csv"
    if not path.is_file():
        pytest.skip(f"no second transcription at {path}")
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("key", "name"), [("univg_r1_mig_bench", "mig_bench"), ("univg_r1_zero_shot", "zero_shot")]
)
def test_a_second_transcription_agrees(shared_dir: Path, key: str, name: str) -> None:
    other = transcription(shared_dir, name)
    for row, again in zip(TABLES[key].rows, other, strict=True):
        values = {task: str(value) for task, value in row.values.items()}
        assert values | {"model": row.model, "avg_published": str(row.printed_avg)} == again


def test_a_second_transcription_of_the_reproductions_agrees(shared_dir: Path) -> None:
    (reported,) = load_reproductions()
    own = {
        (row.task, row.metric, str(row.numerator), str(row.denominator), str(row.printed))
        for row in reported.rows
    }
    keys = ("task", "metric", "numerator", "denominator", "value")
    other = {tuple(row[key] for key in keys) for row in transcription(shared_dir, "reproductions")}
    assert own >= other
