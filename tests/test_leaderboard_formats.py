"""What a leaderboard looks like: small golden outputs, escaping, widths, files, mistakes."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pandas
import pytest
from doc_pages import REPO, page_text
from hypothesis import assume, given
from hypothesis import strategies as st
from leaderboard_data import counts, record, table

from univg_eval.analysis.stats import Interval, _estimates
from univg_eval.cli import main
from univg_eval.leaderboard import (
    BREAKING,
    MEANINGS,
    Leaderboard,
    Mark,
    Published,
    build_leaderboards,
)
from univg_eval.leaderboard.formats import (
    CSV_COLUMNS,
    Sheet,
    as_csv,
    as_dict,
    as_latex,
    as_markdown,
    as_text,
    escaped_latex,
    escaped_markdown,
    make_sheet,
    print_sheet,
    visible,
)
from univg_eval.runs.record import load_run

# Wilson's limits of 2/4 and 3/4 in percent are 15.0-85.0 and 30.1-95.4, of 1/2 9.5-90.5.
RUNS = [
    record("old", {"to_find": [1.0, 1.0, 0.0, 0.0], "b": [1.0, 0.0]}),
    record("new", {"to_find": [1.0, 1.0, 1.0, 0.0], "b": [1.0, 0.0]}),
    record("other|rule", {"to_find": [1.0] * 4, "b": [0.0, 0.0]}, protocol="migician"),
]
# 87.50 is 35 of 40 and 5.00 is 1 of 20: 36 of 60 together.
PRINTED = Published(
    [table({"x_1": {"a": "87.50", "b": "5.00"}}, {"x_1": "46.30"}, key="a_paper")],
    (),
    [counts("original", a=40, b=20)],
)


def boards(published: Published | None = None, **options: Any) -> list[Leaderboard]:
    return build_leaderboards([] if published else RUNS, published, **options)


def lines_between(text: str, start: str, end: str) -> list[str]:
    return text.split(start, 1)[1].split(end, 1)[0].strip().splitlines()


# Nine models over twelve tasks: too wide for a narrow terminal.
MANY_TASKS = {f"task_{i}": [1.0] * i + [0.0] * (20 - i) for i in range(1, 13)}


@cache
def many() -> Sheet:
    return make_sheet(build_leaderboards([record(f"model {i}", MANY_TASKS) for i in range(9)])[0])


@pytest.fixture
def wide_macros(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layouts do not depend on how macro averages get their limits: all have 12.5 to 87.5 %."""
    fixed = Interval(0.5, 0.125, 0.875)
    monkeypatch.setattr(_estimates, "macro_bootstrap", lambda values, clusters: fixed)


@pytest.mark.usefixtures("wide_macros")
def test_terminal_as_plain_text() -> None:
    text = as_text(make_sheet(boards()[0], "averages"), width=80)
    assert text.splitlines()[:13] == [
        "toy: acc@0.5 in %, with 95 % intervals",
        "",
        "                             to_",
        " #   model        marks     find      b       macro       micro",
        " ──────────────────────────────────────────────────────────────",
        " 1   new          bc      * 75.0   50.0      * 62.5      * 66.7",
        "                                          12.5–87.5   30.0–90.3",
        " 2   old          a       + 50.0   50.0      + 50.0      + 50.0",
        "                                          12.5–87.5   18.8–81.2",
        "",
        "     other|rule   bd       100.0    0.0        50.0        66.7",
        "                                          12.5–87.5   30.0–90.3",
        "",
    ]
    assert "  d other-protocol: " in text
    assert "  other|rule: other-protocol (migician; the reference: univg)\n" in text


@pytest.mark.parametrize("width", [30, 60, 80, 120, 250])
def test_no_line_is_wider_than_the_terminal_and_no_value_is_lost(width: int) -> None:
    run = record("a model with quite a long name", MANY_TASKS)
    sheet = make_sheet(build_leaderboards([run])[0])
    text = as_text(sheet, width)
    assert max(map(len, text.splitlines())) <= width
    for cell in sheet.lines[0][1]:
        assert re.search(rf"(?<![\d.]){re.escape(cell.value)}(?![\d.])", text)
        assert cell.interval in text


def test_a_table_that_is_too_wide_is_turned_then_cut() -> None:
    few = make_sheet(build_leaderboards([record("m", MANY_TASKS)])[0])
    turned = as_text(few, 60)
    assert re.search(r"^ task_12 +60\.0$", turned, re.M)
    assert as_text(few, 250).count("\n ─") == turned.count("\n ─") == 1
    # Of a table in parts the first has averages and marks.
    first, *rest = [head.split() for head in re.findall(r"^ #  .*$", as_text(many(), 60), re.M)]
    assert rest and first[:5] == ["#", "model", "marks", "macro", "micro"]
    assert [head[:2] for head in rest] == [["#", "model"]] * len(rest)
    columns = [*first[5:], *(word for head in rest for word in head[2:])]
    assert columns == [str(i) for i in range(1, 13)]


FIRST = table({"x": {"a": "87.50"}, "y": {"a": "50.00"}}, key="first")
SECOND = table({"z": {"a": "55.00"}}, {"z": "55.00"}, key="second")
TWO_TABLES = Published(
    [FIRST, SECOND, table({"ablated": {"a": "5.00"}}, key="third", role="ablation")],
    (),
    [counts("original", a=40), counts("revised", a=20)],
)


def test_rows_of_a_table_have_its_name_once_above_them() -> None:
    run = record("mine", {"a": [1.0] * 40}, benchmark="mig_bench")
    (board,) = build_leaderboards([run], TWO_TABLES)
    text = as_text(make_sheet(board, "none"), 100)
    shown = [line.split()[0] for line in text.split("Marks")[0].splitlines()[4:] if line.strip()]
    assert shown == ["runs", "mine", "[first]", "x", "y", "[second]", "z", "[third]", "ablated"]
    # Below the comparable rows the name stands again.
    rows = {"x": {"a": "87.50"}, "y": {"a": "50.00"}, "w": {"a": "50.00"}}
    mixed = [table(rows, key="first", protocols={"w": "migician"}), SECOND]
    printed = build_leaderboards([], Published(mixed, (), TWO_TABLES.revisions))[0]
    text = as_text(make_sheet(printed), 100).split("* best")[0]
    shown = re.findall(r"^ *\d? +(\[\w+\]|[w-z])(?= |$)", text, re.M)
    assert shown == ["[first]", "x", "[second]", "z", "[first]", "y", "[first]", "w"]
    alone = as_text(make_sheet(boards(PRINTED)[0]), 100)
    assert "[a_paper]" not in alone.split("Marks")[0]
    assert "runs" not in as_text(make_sheet(boards()[0]), 100).split("Marks")[0]
    turned = as_text(make_sheet(build_leaderboards([], TWO_TABLES)[0]), 50).split("Marks")[0]
    assert turned.count("[first]") == 2


def test_averages_alone() -> None:
    sheet = make_sheet(boards(PRINTED)[0], "all", "averages")
    assert list(sheet.columns) == ["macro", "micro", "printed"]
    assert [cell.value for cell in sheet.lines[0][1]] == ["46.25", "60.00", "46.30"]
    notes = [text for _, text in make_sheet(boards()[0], "all", "averages").sections["Notes"]]
    assert any("Intervals (micro): Wilson" in note for note in notes)
    assert not any("(tasks" in note for note in notes)


ODD = "[red]a|b\\ é🦄\x1b[31m\n\u202e&amp;"


def test_odd_names_stay_text_in_every_layout() -> None:
    tasks = {"[bold]t[/bold]": [1.0, 0.0], "\x1b]0;t\x07": [1.0, 1.0]}
    runs = [record(f"{ODD}\ud83d", tasks), record("x" * 400, tasks), record("plain", tasks)]
    sheet = replace(make_sheet(build_leaderboards(runs)[0]), title="\x1b[2Ja title")
    for width in (20, 60, 200):
        text = as_text(sheet, width)
        assert all(char.isprintable() or char == "\n" for char in text)
    assert r"[red]a|b\ é🦄\x1b[31m\n\u202e&amp;\ud83d" in text
    assert "[bold]t[/bold]" in text
    assert "[bold]t[/bold]" in as_text(make_sheet(build_leaderboards(runs[2:])[0]), 30)
    for text in (as_markdown(sheet), as_latex(sheet)):
        assert all(char.isprintable() or char == "\n" for char in text)
    (line,) = [line for line in as_markdown(sheet).splitlines() if line.startswith("| 1 | \\[")]
    assert line.startswith(r"| 1 | \[red\]a\|b\\ é🦄\\x1b\[31m\\n\\u202e\&amp;\\ud83d <sup>")


def test_styles_are_for_terminals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    sheet = make_sheet(boards()[0])
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    seen = Terminal()
    print_sheet(sheet, seen)
    assert "\x1b[1m75.0\x1b[0m" in seen.getvalue()
    assert "\x1b[4m50.0\x1b[0m" in seen.getvalue()
    assert "* best" not in seen.getvalue()
    for name, value, stream in (
        ("NO_COLOR", "1", Terminal()),
        ("TERM", "dumb", Terminal()),
        ("COLUMNS", "100", StringIO()),
    ):
        monkeypatch.setenv(name, value)
        print_sheet(sheet, stream)
        assert "\x1b" not in stream.getvalue()
        assert "* 75.0" in stream.getvalue()
        if name == "NO_COLOR":
            monkeypatch.delenv(name)


@pytest.mark.usefixtures("wide_macros")
def test_markdown() -> None:
    text = as_markdown(make_sheet(boards()[0], "averages"))
    assert lines_between(text, "intervals\n", "Bold:") == [
        r"| # | model | to\_find | b | macro | micro |",
        "| --: | :-- | --: | --: | --: | --: |",
        "| 1 | new <sup>b,c</sup> | **75.0** | 50.0 | **62.5** (12.5–87.5) "
        "| **66.7** (30.0–90.3) |",
        "| 2 | old <sup>a</sup> | <u>50.0</u> | 50.0 | <u>50.0</u> (12.5–87.5) "
        "| <u>50.0</u> (18.8–81.2) |",
        r"|  | other\|rule <sup>b,d</sup> | 100.0 | 0.0 | 50.0 (12.5–87.5) | 66.7 (30.0–90.3) |",
    ]
    assert "- <sup>a</sup> reference: " in text


def test_printed_rows_keep_their_digits_and_their_table() -> None:
    text = as_markdown(make_sheet(boards(PRINTED)[0]))
    (line,) = [line for line in text.splitlines() if line.startswith("| x")]
    assert line == r"| x\_1 <sup>a,b,c</sup> | 87.50 | 5.00 | 46.25 | 60.00 | 46.30 |"
    assert "the average is printed as 46.30; the printed values give 46.25" in text
    assert (
        r"- \[a\_paper\] A table: A paper; Table 1, 2025-05-20, https://example.org/paper" in text
    )


@pytest.mark.usefixtures("wide_macros")
def test_latex() -> None:
    text = as_latex(make_sheet(boards()[0], "averages"))
    assert lines_between(text, r"\begin{tabular}", r"\end{tabular}") == [
        "{rlrrrr}",
        r"\toprule",
        r"\# & model & \shortstack[r]{to\_\\find} & b & macro & micro \\",
        r"\midrule",
        r"1 & new\textsuperscript{b,c} & \textbf{75.0} & 50.0 & "
        r"\textbf{62.5} {\scriptsize (12.5--87.5)} & \textbf{66.7} {\scriptsize (30.0--90.3)} \\",
        r"2 & old\textsuperscript{a} & \underline{50.0} & 50.0 & "
        r"\underline{50.0} {\scriptsize (12.5--87.5)} & "
        r"\underline{50.0} {\scriptsize (18.8--81.2)} \\",
        r"\midrule",
        r" & other\textbar{}rule\textsuperscript{b,d} & 100.0 & 0.0 & "
        r"50.0 {\scriptsize (12.5--87.5)} & 66.7 {\scriptsize (30.0--90.3)} \\",
        r"\bottomrule",
    ]


@pytest.mark.parametrize("published", [None, PRINTED], ids=["runs", "printed"])
def test_latex_is_well_formed(published: Published | None) -> None:
    text = as_latex(make_sheet(boards(published)[0]))
    bare = re.sub(r"\\[\\&%$#_{}]", "", "\n".join(text.splitlines()[1:])).replace("}~", "}")
    assert bare.count("{") == bare.count("}")
    assert not re.search(r"[$#_%^~]", bare)
    opened = re.findall(r"\\begin\{(\w+\*?)\}", text)
    assert sorted(opened) == sorted(re.findall(r"\\end\{(\w+\*?)\}", text))
    columns, *inside = lines_between(text, r"\begin{tabular}", r"\end{tabular}")
    for row in inside:
        if not row.startswith((r"\top", r"\mid", r"\bottom")):
            assert row.endswith(r" \\")
            assert len(re.findall(r"(?<!\\)&", row)) == len(columns.strip("{}")) - 1


@pytest.mark.parametrize(
    ("escaped", "name", "expected"),
    [
        (escaped_latex, "50%_#1 & $x$", r"50\%\_\#1 \& \$x\$"),
        (escaped_latex, r"{a\b}", r"\{a\textbackslash{}b\}"),
        (escaped_latex, "~^", r"\textasciitilde{}\textasciicircum{}"),
        (escaped_latex, "<a|b>", r"\textless{}a\textbar{}b\textgreater{}"),
        (escaped_latex, "[x] *y", "{[}x{]} {*}y"),
        (escaped_latex, "1–2", "1--2"),
        (escaped_latex, "a---b", "a-{}-{}-b"),
        (escaped_latex, "''a'',,", "'{}'a'{}',{},"),
        (escaped_markdown, "- a", r"\- a"),
        (escaped_markdown, "10. a", r"10\. a"),
        (escaped_markdown, "2) a", r"2\) a"),
        (escaped_markdown, "a-b 1.5", "a-b 1.5"),
        (escaped_markdown, "$x$ &lt;", r"\$x\$ \&lt;"),
    ],
)
def test_escaped_names(escaped: Callable[[str], str], name: str, expected: str) -> None:
    assert escaped(name) == expected


SIGNS = st.one_of(st.characters(codec="utf-8"), st.sampled_from("|\\`*_{}[]<>~#&$-+.1 )(!:"))


@given(st.text(SIGNS, min_size=1, max_size=14))
def test_markdown_shows_names_as_they_are(name: str) -> None:
    """Read by a parser of CommonMark."""
    markdown_it = pytest.importorskip("markdown_it")
    name = visible(name.strip())
    assume(name)
    parser = markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"])
    for text, expected in (
        (f"| a |\n| :-- |\n| {escaped_markdown(name)} |", ["a", name]),
        (f"- {escaped_markdown(name)}: x", [f"{name}: x"]),
    ):
        inline = [token for token in parser.parse(text) if token.type == "inline"]
        assert ["".join(part.content for part in token.children) for token in inline] == expected
        kinds = {part.type for token in inline for part in token.children}
        assert kinds <= {"text", "text_special"}


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "＝1"])
def test_no_cell_of_a_csv_is_a_formula(name: str) -> None:
    text = as_csv(build_leaderboards([record(name, {"a": [1.0, 0.0, 1.0]})]))
    models = {line["model"] for line in csv.DictReader(StringIO(text, newline=""))}
    assert models == {"'" + name.replace("\r", "\n")}


@pytest.mark.parametrize("name", ['a "quoted", name', "two\r\nlines", "a=1+1", ODD])
def test_csv_is_read_back(name: str) -> None:
    runs = [record(name, {"a": [1.0, 0.0, 1.0]})]
    text = as_csv(build_leaderboards(runs))
    read = pandas.read_csv(StringIO(text, newline=""))
    assert tuple(read.columns) == CSV_COLUMNS
    assert list(read["column"]) == ["a", "macro", "micro"]
    name = name.replace("\r\n", "\n")
    assert set(read["model"]) == {name}
    assert {line["model"] for line in csv.DictReader(StringIO(text, newline=""))} == {name}
    assert read["value"].tolist() == [2 / 3] * 3
    assert read["n"].tolist() == [3] * 3
    printed = pandas.read_csv(StringIO(as_csv(boards(PRINTED))))
    assert printed["column"].tolist() == ["a", "b", "macro", "micro", "printed_avg"]
    assert printed["value"].tolist() == [0.875, 0.05, 0.4625, 0.6, 0.463]
    assert printed["low"].isna().all()
    assert printed["marks"][0].split() == ["reference", "unknown-provenance", "average-differs"]


def test_json() -> None:
    (row,) = as_dict(boards(PRINTED))["rows"]
    assert (row["model"], row["source"]) == ("x_1", "a_paper")
    assert row["values"] == {"a": 0.875, "b": 0.05}
    assert (row["macro"], row["micro"], row["printed_avg"]) == (0.4625, 0.6, 0.463)
    assert (row["intervals"]["a"], row["n"]["a"]) == (None, None)
    assert set(row["marks"]) <= set(MEANINGS)
    runs = as_dict(boards())
    assert [row["rank"] for row in runs["rows"]] == [1, 2, None]
    assert runs["rows"][0]["intervals"]["to_find"]["method"] == "wilson"
    assert runs["tables"][0]["reference"] == {"model": "old", "source": "run"}
    assert [row["model"] for row in runs["tables"][0]["comparable"]] == ["new", "old"]
    assert json.loads(json.dumps(runs, allow_nan=False)) == runs


def test_left_out_rows_are_listed_in_every_text() -> None:
    board = boards(strict=True)[0]
    why = "other-protocol (migician; the reference: univg)"
    sheet = make_sheet(board)
    for text in (as_text(sheet), as_markdown(sheet), as_latex(sheet)):
        assert "Left out" in text and why in text
    (left,) = as_dict([board])["tables"][0]["left_out"]
    assert left == {"model": "other|rule", "source": "run", "reasons": [why]}


# The command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("runs")
    for name, run in zip("abc", RUNS, strict=True):
        run.write(base / name)
    return base


@pytest.fixture
def printed_json(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    def run(*arguments: object) -> dict[str, Any]:
        assert main(["leaderboard", *map(str, arguments), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


@pytest.mark.parametrize(
    ("ending", "starts"),
    [
        (".md", "### toy"),
        (".csv", "benchmark,"),
        (".tex", "% needs"),
        (".json", "{"),
        (".txt", "toy: "),
    ],
)
def test_the_ending_of_the_file_says_the_format(
    folder: Path, tmp_path: Path, ending: str, starts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / f"table{ending}"
    assert main(["leaderboard", str(folder), "-o", str(file)]) == 0
    first = file.read_bytes()
    assert first.decode().startswith(starts)
    assert capsys.readouterr().out == ""
    assert main(["leaderboard", str(folder), "-o", str(file)]) == 0
    assert file.read_bytes() == first


def test_json_on_standard_output(folder: Path, printed_json) -> None:
    found = printed_json(f"mine={folder / 'a'}", folder / "b")
    assert {(row["model"], *row["records"]) for row in found["rows"]} == {
        ("mine", str(folder / "a")),
        ("new", str(folder / "b")),
    }


def test_the_published_tables_as_json(printed_json) -> None:
    command = ["--benchmark", "mig_bench", "--published", "--table", "univg_r1_mig_bench"]
    rows = {row["model"]: row for row in printed_json(*command)["rows"]}
    assert len(rows) == 9
    best = rows["UniVG-R1"]
    assert best["macro"] == pytest.approx(0.7262, abs=1e-12)
    assert best["printed_avg"] == 0.7264
    assert "average-differs" in best["marks"]
    assert "infeasible-denominator" in rows["Qwen2-VL-72B"]["marks"]


def test_ablations_are_shown_when_requested(printed_json) -> None:
    sources = {}
    for option in ("--published", "--ablations"):
        found = printed_json("--benchmark", "mig_bench", option)
        sources[option] = {row["source"] for row in found["rows"]}
        assert any("ablations are left out" in note for note in found["tables"][0]["notes"]) == (
            option == "--published"
        )
    assert {"univg_r1_mig_bench", "univg_r1_issue_6"} <= sources["--published"]
    assert sources["--ablations"] - sources["--published"] == {
        *("mg_thinker_ablation", "migician_answer_forms", "migician_cot_70b"),
        *("migician_data", "migician_training"),
    }


def test_columns_of_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["leaderboard", str(folder), "--columns", "averages", "--format"]
    for form in ("terminal", "markdown", "latex"):
        assert main([*command, form]) == 0
        out = capsys.readouterr().out
        assert "macro" in out and "find" not in out
    assert main([*command, "csv"]) == 0
    assert "to_find" in capsys.readouterr().out


def test_a_label_that_is_no_text_or_longer_than_a_file_name(
    folder: Path, tmp_path: Path, printed_json, capsys: pytest.CaptureFixture[str]
) -> None:
    run = f"\udcff={folder / 'a'}"
    assert printed_json(run)["rows"][0]["model"] == "\udcff"
    assert main(["leaderboard", run, "-o", str(tmp_path / "t.csv")]) == 2
    assert r"a name has '\udcff', which is no text" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert printed_json(f"{'x' * 300}={folder / 'a'}")["rows"]
    assert main(["leaderboard", "y" * 300]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_the_list_of_marks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leaderboard", "--marks"]) == 0
    out = capsys.readouterr().out
    assert set(MEANINGS) == set(Mark)
    assert all(f"{mark}: {says}\n" in out for mark, says in MEANINGS.items())
    assert "  * other-revision:" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to show: give a run, or --published"),
        (["--published", "--benchmark", "univg_mini"], "no published table is of it either"),
        (["{runs}", "--metric", "speed"], "'speed'"),
        (["{runs}", "-o", "{runs}"], "is a folder"),
        (["{runs}", "-o", "t.pdf"], "t.pdf does not end in .md, .csv, .tex, .json, .txt"),
        (["{runs}", "-o", "{runs}/a/scores.jsonl/t.md"], "cannot write"),
        (["{runs}", "--json", "--format", "csv"], "exclude each other"),
    ],
)
def test_mistakes_end_with_status_2(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [argument.replace("{runs}", str(folder)) for argument in arguments]
    assert main(["leaderboard", *given]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("univg leaderboard: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert captured.out == ""


def test_the_page_has_every_mark_and_shows_what_the_command_prints() -> None:
    page = page_text("leaderboard")
    breaking, informing = page.split("Marks that keep a row out of the set:")[1].split("\nMarks ")
    shown = {
        word: (says, part is breaking)
        for part in (breaking, informing.split("\n## ")[0])
        for word, says in re.findall(r"^- `([a-z-]+)`: (.+)$", part, re.M)
    }
    assert shown == {mark.value: (says, mark in BREAKING) for mark, says in MEANINGS.items()}
    folders = {"tiny": "tiny", "direct": "tiny_direct", "cot": "tiny_cot", "grpo": "tiny_grpo"}
    runs = [load_run(REPO / "results" / "runs" / folder, name) for name, folder in folders.items()]
    sheet = make_sheet(build_leaderboards(runs)[0], "all", "averages")
    printed = as_text(sheet, 96).split("Notes\n")[0]
    limits = re.compile(r"\d+\.\d–\d+\.\d")
    assert limits.sub("", f"```text\n{printed}```\n") in limits.sub("", page)


def test_a_terminal_without_unicode_has_plain_lines() -> None:
    raw = BytesIO()
    stream = TextIOWrapper(raw, encoding="ascii")
    print_sheet(make_sheet(boards()[0]), stream)
    stream.flush()
    assert b" ------" in raw.getvalue()
    assert b"30.1-95.4" in raw.getvalue()
