"""What a page about runs is made of: numbers, charts, thumbnails, the file, the command."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageColor
from report_data import (
    ATTACKS,
    BENCHMARK,
    HIT,
    MISS,
    N_PLAIN,
    NEAR,
    contrast,
    make_samples,
    prepare,
    two_runs,
)
from run_records import record_of

from univg_eval.analysis.failures import FAILURES
from univg_eval.cli import main
from univg_eval.errors import UserError
from univg_eval.images.controls import under_control
from univg_eval.leaderboard import build_leaderboards
from univg_eval.report.drawing import run_style
from univg_eval.report.figures import (
    CLASS_COLOURS,
    CURVE_THRESHOLDS,
    HISTOGRAM_BINS,
    ON_DARK,
    as_svg,
    ceiling,
    draw_figures,
    figures_of,
)
from univg_eval.report.page import templates
from univg_eval.report.run_data import ReportData, collect, fold, is_hit, letter_of
from univg_eval.report.run_page import write_run_page
from univg_eval.report.text import moment, printable_tree
from univg_eval.report.thumbnails import default_side, make_thumbnails
from univg_eval.runs.manifest import Manifest
from univg_eval.runs.record import RunRecord
from univg_eval.samples import GroundingSample, write_benchmark
from univg_eval.scoring import SampleScore, headline


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def samples(root: Path) -> list[GroundingSample]:
    return prepare(root)


@pytest.fixture(scope="module")
def records(samples: list[GroundingSample]) -> list[RunRecord]:
    return two_runs(samples)


@pytest.fixture(scope="module")
def data(records: list[RunRecord], root: Path) -> ReportData:
    return collect(records, root=root)


def page_of(data: ReportData, folder: Path) -> str:
    return write_run_page(data, folder / "page.html", images="none").path.read_text("utf-8")


def changed(record: RunRecord, section: str, **values: Any) -> RunRecord:
    """The record with other values in a section of its manifest."""
    manifest = record.manifest.to_dict()
    manifest[section] |= values
    return replace(record, manifest=Manifest.read(manifest))


# --- samples and runs ----------------------------------------------------------------------------


def test_union_of_the_samples_in_the_order_of_the_set(samples, records, root):
    plain = samples[:N_PLAIN]
    few = record_of(samples, {s.id: "(1,1),(2,2)" for s in plain[5:15]}, label="few")
    other = record_of(samples, {s.id: "(1,1),(2,2)" for s in plain[10:20]}, label="other")
    data = collect([other, few], root=root)
    assert [sample.id for sample in data.samples] == [sample.id for sample in plain[5:20]]
    assert data.n_common == 5
    (note,) = data.notes
    assert "5 of 15 are common to all (A 10, B 10)" in note


def test_an_empty_run_is_reported(records, root, tmp_path):
    void = replace(records[0], responses=[], scores=[], label="void")
    data = collect([void, records[0]], root=root)
    figures = figures_of(data)[0]
    assert (figures.n, figures.headlines, figures.miou) == (0, [], None)
    assert "Run A (void) is empty" in page_of(data, tmp_path)
    assert "There is nothing to draw" in page_of(collect([void], root=root), tmp_path)


def test_runs_of_several_benchmarks_need_a_choice(records, root):
    blank = changed(records[1], "dataset", benchmark="toy+blank", control="blank")
    with pytest.raises(UserError, match=r"2 benchmarks: toy \(1 run\), toy\+blank \(1 run\)"):
        collect([records[0], blank], root=root)
    data = collect([records[0], blank], benchmark="toy+blank", root=root)
    assert [run.label for run in data.runs] == [records[1].label]
    assert any("control 'blank'" in note and "grey ones" in note for note in data.notes)
    with pytest.raises(UserError, match="no run is of benchmark 'refcoco'"):
        collect([records[0]], benchmark="refcoco", root=root)


def test_under_a_control_the_page_shows_what_was_shown(samples, root):
    plain = samples[:N_PLAIN]
    shown = under_control("permuted", samples).samples[:10]
    record = record_of(
        shown, {s.id: "(1,1),(2,2)" for s in shown}, control="permuted", everything=samples
    )
    data = collect([record], root=root)
    assert [s.images for s in data.samples] == [s.images[::-1] for s in plain[:10]]
    (note,) = data.notes
    assert "control 'permuted'" in note and "those that the models were given" in note


def test_sets_that_do_not_fit_are_refused(records, root, tmp_path):
    other = changed(records[0], "dataset", fingerprint="f" * 64)
    with pytest.raises(UserError, match="evaluated set ffffffffffff"):
        collect([other], root=root)
    with pytest.raises(UserError, match=r"'toy' is not prepared: .* Run `univg prepare toy`"):
        collect(records, root=tmp_path)


def test_missing_responses_and_other_protocols_are_reported(data, samples, root):
    (note,) = data.notes
    assert re.search(r"Run B .* has no response to 1 of its 65 samples", note)
    texts = dict.fromkeys(("toy-000", "toy-001"), HIT)
    both = [record_of(samples, texts, protocol=name) for name in ("univg", "migician")]
    notes = collect(both, root=root).notes
    assert any("different protocols (A univg, B migician)" in note for note in notes)


def test_several_boxes_are_read_again(data):
    first = data.runs[0].outcomes["toy-several"]
    assert first.boxes == ((1, (0.1, 0.2, 0.5, 0.6)), (1, (0.7, 0.7, 0.9, 0.9)))
    assert data.runs[1].outcomes["toy-absent"].boxes == ((None, (0.1, 0.2, 0.5, 0.6)),)
    assert data.runs[1].outcomes["toy-001"].response is None


SCORE = SampleScore(
    *("x", "t", "c", "ok", None, 0.5, True, None, None, None, None, None, 1, 1, False, False)
)


@pytest.mark.parametrize(
    ("changes", "value", "hit"),
    [
        ({}, 1.0, True),  # 0.5 is reached at 0.5
        ({"iou": 0.499999}, 0.0, False),
        ({"iou": None, "no_target_right": True}, 1.0, True),
        ({"iou": None, "no_target_right": False}, 0.0, False),
        ({"iou": None, "f1": 1.0, "ap50": 1.0}, 1.0, True),
        ({"iou": None, "f1": 0.8, "ap50": 1.0}, 0.8, False),  # a box too many
        ({"excluded": True}, None, None),
    ],
)
def test_right_or_wrong(changes, value, hit):
    score = replace(SCORE, **changes)
    assert headline(score) == value
    assert is_hit(score) is hit


def test_letters():
    letters = {0: "A", 25: "Z", 26: "AA", 51: "AZ", 52: "BA", 701: "ZZ"}
    assert {position: letter_of(position) for position in letters} == letters


THOUGHT = "<think>a (9,9),(8,8)</think>"


@pytest.mark.parametrize(
    ("response", "thinking"),
    [
        ("(1,2),(3,4)", ""),
        (f"{THOUGHT}<answer>(1,2),(3,4)</answer>", THOUGHT),
        ("a</think>\n\n(1,2),(3,4)", "a</think>"),
        ("<think>never ends", "<think>never ends"),
        ("<think>(1,2)</think>(1,2)", "<think>(1,2)</think>"),  # the section stands in it too
        (THOUGHT, THOUGHT),
        ("", ""),
    ],
)
def test_thinking_is_folded(response, thinking):
    first, rest = fold(response)
    assert first.strip() == thinking.strip()
    assert first + rest == response


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "a", " ", "(1,2)"]))
)
def test_folding_loses_nothing(pieces):
    response = "".join(pieces)
    assert "".join(fold(response)) == response


# --- numbers -------------------------------------------------------------------------------------


def test_numbers_of_boxes_and_published_figures_stand_in_a_table_of_their_own(
    records, root, tmp_path
):
    spoken = "Several and absent objects, and the scorers of the benchmark's authors"
    boxes = {"n_several": 4, "boxes_per_answer": 2.5, "targets_per_sample": None}
    published = {"mc-bench": {"weighted_ap50": 0.4321}}
    first = changed(records[0], "results", published=published, several=boxes)
    nothing = {"several": None, "rejection": None, "published": {}}
    plain = first.manifest.to_dict()["results"] | nothing
    page = html.unescape(page_of(collect([first, records[1]], root=root), tmp_path))
    table = page[page.index(spoken) :].split("</table>")[0]
    assert re.search(
        r"mc-bench: weighted_ap50</th>\s*<td[^>]*>0.4321</td>\s*<td[^>]*>–</td>", table
    )
    # Of the other run one sample has two targets, and its answer one box.
    assert "boxes per answer</th><td>2.5000</td><td>1.0000</td>" in table
    assert "targets per sample</th><td>–</td><td>2.0000</td>" in table
    rejection = first.manifest.results.rejection
    assert rejection is not None
    assert f"rejection, recall</th><td>{rejection.recall:.4f}</td>" in table
    without = [changed(record, "results", **plain) for record in records]
    assert spoken not in html.unescape(page_of(collect(without, root=root), tmp_path))


def test_figures_by_hand(data):
    """Plain samples of A: even numbers are hits with IoU 1, odd ones miss; tasks by n mod 3."""
    figures = figures_of(data)[0]
    shown, _, absent = figures.headlines
    b = shown.tasks["b"]  # 1, 4, …, 37: of 13 numbers 6 are even (4, 10, …, 34)
    assert (b.n, b.value) == (13, 6 / 13)
    assert (b.low, b.high, b.method) == pytest.approx((0.2321, 0.7086, b.method), abs=1e-4)
    assert b.method == "wilson"
    assert (absent.metric, absent.tasks["absent"].value) == ("no_target_acc", 1.0)
    assert figures.n == len(data.samples) - 1 == sum(one.macro.n for one in figures.headlines)
    values = [estimate.value for estimate in shown.tasks.values()]
    assert shown.macro.value == pytest.approx(sum(values) / len(values))
    hits = sum(estimate.value * estimate.n for estimate in shown.tasks.values())
    assert figures.micro.value == pytest.approx(hits / figures.micro.n)


def test_the_row_of_a_run(samples, root, tmp_path):
    """Task a: a hit and no box; task b: IoU 0.375. Means of tasks 25 %, of samples 33.3 %."""
    texts = {"toy-000": HIT, "toy-003": "?", "toy-001": NEAR}
    data = collect([record_of(samples, texts)], root=root)
    text = page_of(data, tmp_path)
    table = re.search(r'<table class="summary">.*?</table>', text, flags=re.DOTALL)[0]
    heads = re.findall(r"<th scope=\"col\" class=\"number\">([^<]*)</th>", table)
    cells = [cell.strip() for cell in re.findall(r'<td class="number">([^<]*)', table)]
    row = dict(zip(heads, cells, strict=True))
    by_task, by_sample, *others = row
    assert "tasks" in by_task and "samples" in by_sample
    assert others == ["mIoU", "Answered", "Samples"]
    # mIoU: (1/2 + 0.375) / 2
    assert list(row.values()) == ["25.0", "33.3", "43.8", "66.7", "3"]


def test_the_box_lies_on_the_image_that_is_named(samples, tmp_path):
    shown = [replace(samples[0], image_is_given=False)]
    write_benchmark(shown, benchmark=BENCHMARK, root=tmp_path)
    found = {}
    for text in (f"Image-1: {HIT}", HIT):
        data = collect([record_of(shown, {"toy-000": text})], root=tmp_path)
        found[text] = [image for image, _ in data.runs[0].outcomes["toy-000"].boxes]
    assert found == {f"Image-1: {HIT}": [0], HIT: [1]}  # the truth is on the second


def test_curve_and_histogram_by_hand(samples, root):
    # Widths of the box's overlap with a truth of width 0.4 and equal height: IoU = width / 0.4.
    boxes = {0.30: 220, 0.55: 320, 0.95: 480, 1.0: 500}
    texts = {
        sample.id: f"(100,200),({right},600)"
        for sample, right in zip(samples[:12:3], boxes.values(), strict=True)
    }
    texts[samples[12].id] = "(900,900),(950,950)"
    texts[samples[15].id] = "nothing to read"
    data = collect([record_of(samples, texts)], root=root)
    figures = figures_of(data)[0]
    curve = dict(zip(CURVE_THRESHOLDS, figures.curve, strict=True))
    assert len(curve) == 19
    expected = {0.05: 4, 0.3: 4, 0.35: 3, 0.55: 3, 0.6: 2, 0.95: 2}
    assert {t: curve[t] for t in expected} == pytest.approx({t: n / 6 for t, n in expected.items()})
    bins = {name: n for name, n in zip(HISTOGRAM_BINS, figures.histogram, strict=True) if n}
    assert bins == {"no box": 1, "IoU 0": 1, "[0.3, 0.4)": 1, "[0.5, 0.6)": 1, "[0.9, 1]": 2}


def test_the_numbers_are_those_of_the_leaderboard(tmp_path):
    """With groups inside tasks and across them, and samples in another order."""
    samples = [replace(s, cluster=f"c{i // 6}") for i, s in enumerate(make_samples()[:N_PLAIN])]
    write_benchmark(samples, benchmark=BENCHMARK, root=tmp_path)
    answers = [HIT, NEAR, MISS, HIT, "?"]
    texts = {s.id: answers[i * i % 5] for i, s in enumerate(samples)}
    others = {s.id: answers[i % 4] for i, s in enumerate(samples)}
    records = [
        record_of(samples, texts, label="one"),
        record_of(samples[::-1], others, label="two", everything=samples),
    ]
    (board,) = build_leaderboards(records)
    rows = {row.entry.label: row for row in board.rows}
    data = collect(records, root=tmp_path)
    for run, figure in zip(data.runs, figures_of(data), strict=True):
        row = rows[run.label]
        (shown,) = figure.headlines
        assert shown.macro == row.macro and figure.micro == row.micro
        assert shown.macro.method == "cluster-bootstrap"
        assert shown.tasks == {task: row.estimate(task) for task in data.tasks}


# --- figures -------------------------------------------------------------------------------------


def drawn(data: ReportData) -> dict[str, Any]:
    return draw_figures(data, figures_of(data))


def test_each_figure_shows_its_numbers(data):
    figures, numbers = drawn(data), figures_of(data)
    assert list(figures) == ["curves", "misses", "tasks", "iou"]
    (curves,) = figures["curves"].axes
    for line, one in zip(curves.get_lines(), numbers, strict=True):
        assert list(line.get_xdata()) == list(CURVE_THRESHOLDS)
        assert list(line.get_ydata()) == pytest.approx([100 * value for value in one.curve])
    for axes, one in zip(figures["iou"].axes, numbers, strict=True):
        assert [bar.get_height() for bar in axes.patches] == list(one.histogram)

    # Dots and lines lie at their values and intervals.
    (axes,) = figures["tasks"].axes
    estimates = numbers[0].tasks("acc@0.5")
    dots, _, (lines,) = axes.containers[0].lines  # of A
    assert list(dots.get_xdata()) == pytest.approx([100 * e.value for e in estimates.values()])
    rows = [round(y) for y in dots.get_ydata()]
    assert [[t for t in data.tasks if t in estimates][row] for row in rows] == list(estimates)
    for (start, end), estimate in zip(lines.get_segments(), estimates.values(), strict=True):
        low = estimate.value if estimate.low is None else estimate.low
        high = estimate.value if estimate.high is None else estimate.high
        assert (start[0], end[0]) == pytest.approx((100 * low, 100 * high))

    # Parts of a bar are shares of all samples.
    (axes,) = figures["misses"].axes
    for row, run in enumerate(data.runs):
        total = run.failures.total
        parts = [container[row] for container in axes.containers]
        expected = [100 * total.kinds[kind] / total.n for kind in data.failures]
        assert [part.get_width() for part in parts] == pytest.approx(expected)
        starts = [sum(expected[:i]) for i in range(len(expected))]
        assert [part.get_x() for part in parts] == pytest.approx(starts)


def test_figures_on_a_page_are_safe_and_always_the_same(data):
    """No style that the page's policy forbids, no id twice, foreign names as text."""
    texts, again = (
        {name: as_svg(figure, name, '"spoken"') for name, figure in drawn(data).items()}
        for _ in range(2)
    )
    assert texts == again
    ids: list[str] = []
    for text in texts.values():
        root = ElementTree.fromstring(text)
        assert root.attrib["role"] == "img" and root.attrib["aria-label"] == '"spoken"'
        for element in root.iter():
            assert element.tag.rpartition("}")[2] not in {"style", "script", "metadata", "a"}
            assert "style" not in element.attrib and "#000000" not in element.attrib.values()
            assert not any(name.startswith("on") for name in element.attrib)
            ids += [element.attrib["id"]] if "id" in element.attrib else []
        used = re.findall(r'(?:xlink:href="|url\()#([^")]+)', text)
        assert used and set(used) <= set(ids)
    assert len(ids) == len(set(ids))
    words = "".join(ElementTree.fromstring(texts["tasks"]).itertext())
    assert "task <script>window.attacke…" in words and "B second " in words


def test_figures_are_drawn_only_of_what_is_there(samples, root, tmp_path):
    def of(name: str) -> ReportData:
        return collect([record_of(samples, {name: HIT})], root=root)

    assert list(drawn(of("toy-000"))) == ["curves", "tasks", "iou"]
    assert list(drawn(of("toy-invalid"))) == []
    assert list(drawn(of("toy-several"))) == ["tasks"]
    text = page_of(of("toy-several"), tmp_path)
    assert "No sample has a single object, so there are no charts of IoU." in text
    assert 'id="chart-tasks"' in text
    assert 'id="chart-curves"' not in text and 'id="chart-histograms"' not in text


def test_names_that_a_font_lacks_and_formulas(samples, root, recwarn):
    record = record_of(samples, {"toy-000": HIT}, label="模型 $\\frac{1$ \x00")
    for name, figure in drawn(collect([record], root=root)).items():
        assert "模型" in as_svg(figure, name, "x")
    assert not [one for one in recwarn if "Glyph" in str(one.message)]


def test_where_an_axis_ends():
    ends = {(): 0.25, (0.1,): 0.25, (0.25,): 0.25, (0.26, 0.1): 0.5, (1.0,): 1.0}
    assert {values: ceiling(values) for values in ends} == ends


def lab(colour: str) -> tuple[float, float, float]:
    """A colour of CSS in CIELAB (D65)."""
    parts = [part / 255 for part in ImageColor.getrgb(colour)]
    r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    xyz = (
        (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505,
        0.2126 * r + 0.7152 * g + 0.0722 * b,
        (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089,
    )
    x, y, z = (v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def test_colours_are_legible_and_runs_differ_without_them():
    assert set(CLASS_COLOURS) == set(FAILURES)
    runs = [run_style(i).colour for i in range(20)]
    for colour in runs:
        assert contrast(colour, "#000") >= 4.5, colour
    for kind, colour in CLASS_COLOURS.items():
        assert contrast(colour, "#fff" if kind in ON_DARK else "#000") >= 4.5, kind
        others = [c for name, c in CLASS_COLOURS.items() if name != kind]
        # No class looks like a run or like the truth, and the classes differ.
        assert min(math.dist(lab(colour), lab(run)) for run in [*runs, "#0072b2"]) > 20, kind
        assert min(math.dist(lab(colour), lab(other)) for other in others) > 10, kind
    assert len({(run_style(i).line, run_style(i).marker) for i in range(30)}) == 30
    assert all(run_style(i).box for i in range(30))


def test_without_matplotlib_the_install_command_is_named(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=re.escape("pip install -e '.[report]'")):
        drawn(data)


# --- thumbnails ----------------------------------------------------------------------------------


def test_thumbnails(tmp_path):
    drawing = Image.new("RGB", (900, 300), "#123456")
    drawing.paste("#fedcba", (0, 0, 450, 300))
    drawing.save(tmp_path / "wide.png")
    Image.effect_noise((40, 60), 90).convert("RGB").save(tmp_path / "small.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    names = ["wide.png", "small.png", "bad.png", "none.png", "wide.png"]
    seen = []
    made = make_thumbnails(names, side=100, root=tmp_path, progress=seen.append)
    assert list(made) == names[:4]
    assert seen == [4]
    wide = Image.open(io.BytesIO(base64.b64decode(made["wide.png"].data)))
    assert (wide.format, wide.size) == ("WEBP", (100, 33))
    assert made["wide.png"].image_wh == (900, 300)
    # Few colours: kept as they are.
    assert wide.convert("RGB").getpixel((10, 10)) == (0xFE, 0xDC, 0xBA)
    assert Image.open(io.BytesIO(base64.b64decode(made["small.png"].data))).size == (40, 60)
    assert not made["bad.png"].data and "cannot read" in made["bad.png"].problem
    assert not made["none.png"].data and "does not exist" in made["none.png"].problem


# --- the file ------------------------------------------------------------------------------------


def test_no_secret_of_a_manifest_is_on_the_page(samples, root, tmp_path):
    record = record_of(samples, {"toy-000": HIT, "toy-003": None})
    message = "[LMMS_EVAL_REQUEST_FAILED after 5 retries] 401, api_key=hunter2, sorry <b>"
    record.responses[1]["error"] = message
    record = changed(record, "model", id="https://me:hunter2@host/m", args={"api_key": "hunter2"})
    record = changed(record, "generation", max_new_tokens=512, api_key="hunter2")
    data = collect([record], root=root)
    assert data.runs[0].outcomes["toy-003"].error == message
    text = page_of(data, tmp_path)
    assert "max_new_tokens=512, api_key=[hidden]" in text
    assert "401, api_key=[hidden], sorry" in text
    assert "hunter2" not in text


def test_a_message_that_stands_for_a_response(samples, root):
    """As records of an older version hold it."""
    message = "[LMMS_EVAL_BUDGET_EXCEEDED]"
    outcome = collect([record_of(samples, {"toy-000": message})], root=root).runs[0].outcomes
    assert (outcome["toy-000"].response, outcome["toy-000"].error) == (None, message)


@given(st.text() | st.sampled_from(ATTACKS))
def test_no_text_ends_a_block_of_data(text):
    value = printable_tree({"a": text, text: [text]})
    block = templates().from_string("{{ value|tojson }}").render(value=value)
    assert json.loads(block) == value
    assert not re.search("[<>&]", block)


@pytest.fixture(scope="module")
def page(data: ReportData, root: Path) -> str:
    written = write_run_page(data, root / "page.html", root=root, footer="<b>")
    assert written.n_bytes == (root / "page.html").stat().st_size
    assert (written.n_samples, written.n_images) == (len(data.samples), 6)
    assert len(written.problems) == 2 + len(ATTACKS)
    return (root / "page.html").read_text(encoding="utf-8")


def test_the_policy_names_the_script_and_the_style(page):
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1])
    rules = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    for name, tag in (("style-src", "style"), ("script-src", "script")):
        (body,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert rules.pop(name) == f"'sha256-{digest}'"
    assert rules.pop("img-src") == "data:"
    assert rules == dict.fromkeys(("default-src", "base-uri", "form-action"), "'none'")


def test_every_image_is_held_once(page):
    blocks = re.findall(r'<script type="text/plain" id="(image-\d+)">([^<]*)</script>', page)
    assert len(blocks) == 6 == len({data for _, data in blocks})
    for _, block in blocks:
        assert Image.open(io.BytesIO(base64.b64decode(block, validate=True))).size == (64, 48)


def test_the_data_of_the_page(page, data):
    block = json.loads(re.search(r'id="data">(.*?)</script>', page, flags=re.DOTALL)[1])
    assert [run["letter"] for run in block["gallery"]["runs"]] == ["A", "B"]
    assert [sample["id"] for sample in block["samples"]][:2] == ["toy-000", "toy-001"]
    zero, one = block["samples"][:2]
    assert zero["truth"] == [[1, 0.1, 0.2, 0.5, 0.6]]
    values = {"status": "ok", "iou": 1.0, "value": 1.0, "hit": True}
    assert zero["runs"][0] == values | {
        "boxes": [[1, 0.1, 0.2, 0.5, 0.6]],
        "thinking": "<think>Number 0, hmm.</think>",
        "answer": f"<answer>{HIT}</answer>",
    }
    assert one["runs"][1]["answer"] is None
    invalid = next(s for s in block["samples"] if s["id"] == "toy-invalid")
    assert invalid["runs"][0]["hit"] is None


def test_whose_images_the_page_holds(samples, root, tmp_path):
    """Of five images one is missed; the second image of each sample is the same one."""
    texts = {s.id: HIT if i != 3 else MISS for i, s in enumerate(samples[:5])}
    data = collect([record_of(samples, texts)], root=root)
    counts = {
        choice: write_run_page(data, tmp_path / "p.html", images=choice, root=root).n_images
        for choice in ("all", "misses", "none")
    }
    assert counts == {"all": 6, "misses": 2, "none": 0}
    text = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "The images of 5 samples were left out of this page" in text


@pytest.mark.parametrize(
    ("at", "shown"),
    [
        ("2026-11-30T05:50:22+00:00", "2026-11-30 05:50 UTC"),
        ("2026-11-30T01:30:00+08:00", "2026-11-29 17:30 UTC"),
        ("2026-11-30T05:50:22", "2026-11-30 05:50 (time zone not recorded)"),
        ("yesterday", "yesterday"),
    ],
)
def test_times_are_in_utc(at, shown):
    assert moment(at) == shown


@pytest.mark.parametrize(
    ("n", "side"), [(0, 960), (500, 960), (1000, 679), (2000, 480), (3000, 400), (10**6, 400)]
)
def test_how_large_the_images_of_a_page_are(n, side):
    assert default_side(n) == side


def test_a_dialect_that_is_not_known_here(data, root):
    record = changed(data.runs[0].record, "settings", dialect=["my_own", "given"])
    found = collect([record], root=root)
    assert any("misses of run A (first) have no classes: " in note for note in found.notes)
    assert found.runs[0].failures is None
    assert found.failures == []
    # Its boxes are those of the record.
    assert len(found.runs[0].outcomes["toy-several"].boxes) == 1


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(records: list[RunRecord], root: Path) -> list[str]:
    named = zip(("one", "two"), records, strict=True)
    return [f"{name}={record.write(root / 'runs' / name)}" for name, record in named]


def test_the_command(folders, root, tmp_path, capsys):
    out = tmp_path / "new" / "report.html"
    figures = tmp_path / "figures"
    arguments = ["report", *folders, "-o", str(out), "--root", str(root), "--json"]
    assert main([*arguments, "--figures", str(figures), "--thumbnail-side", "32"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written["page"] == str(out)
    assert written["bytes"] == out.stat().st_size
    assert written["samples"] == N_PLAIN + 5 + len(ATTACKS)
    assert written["benchmark"] == BENCHMARK
    assert len(written["problems"]) == 2 + len(ATTACKS)
    names = ("curves", "tasks", "iou", "misses")
    expected = {f"{name}.{form}" for name in names for form in ("pdf", "png")}
    assert {path.name for path in figures.iterdir()} == expected
    assert (figures / "curves.pdf").read_bytes().startswith(b"%PDF")
    with Image.open(figures / "tasks.png") as image:
        assert image.width > 600
    assert main([*arguments[:-1], "--images", "none"]) == 0
    assert f"{out}: {N_PLAIN + 5 + len(ATTACKS)} samples, 0 images, " in capsys.readouterr().out


def test_mistakes(folders, root, capsys):
    usual = ["--root", str(root), "-o", str(root / "x.html")]
    for arguments, message in [
        (["--benchmark", "other"], "no run is of benchmark 'other'; the runs are of toy (2 runs)"),
        (["--root", "nowhere"], "benchmark 'toy' is not prepared"),
        (["-o", "."], "is a folder; name a file"),
    ]:
        assert main(["report", *folders, *usual, *arguments]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["report", "x", "--thumbnail-side", "7"])
    assert stop.value.code == 2
    assert "no whole number from 32 to 4096" in capsys.readouterr().err
