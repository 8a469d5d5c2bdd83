"""``univg check`` through lmms-eval: replayed answers, baselines, the shipped tiny model."""

from __future__ import annotations

import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

import lmms_data
import pytest

from univg_eval import get_dialect, load_run
from univg_eval.analysis.diagnosis import diagnose
from univg_eval.analysis.failures.readings import KNOWN_LIMITS
from univg_eval.cli import main
from univg_eval.dialects import Dialect
from univg_eval.samples import GroundingSample, load_samples
from univg_eval.scoring import Response

pytest.importorskip("lmms_eval")

from univg_eval.benchmarks.synthetic.photos import ensure
from univg_eval.lmms.backends.baseline import BaselineModel
from univg_eval.lmms.check import _lost_images

N = 4
TASKS = 8
SAMPLES = 6 * 2 + 2 * N
"""With --limit N: two a task, but sixteen of each task with the measured boxes."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    ensure(folder, n=2)
    return folder


@pytest.fixture
def check(data: Path, tmp_path: Path, monkeypatch, capsys):
    """Run the command in this process: (exit status, what --json printed, standard error)."""
    for name in [name for name in os.environ if name.startswith("UNIVG_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("UNIVG_DATA", str(data))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, dict[str, Any], str]:
        try:
            status = main(["check", "--out", "out", "--json", "--limit", str(N), *arguments])
        except SystemExit as stopped:
            status = stopped.code
        said = capsys.readouterr()
        return status, json.loads(said.out) if said.out.strip() else {}, said.err

    return run


def replay(data: Path, path: Path, dialect_name: str) -> str:
    """True answers in a dialect's own form, as model_args of univg_replay."""
    dialect = get_dialect(dialect_name)
    lines = [
        json.dumps({"id": sample.id, "response": true_answer(sample, dialect)}) + "\n"
        for sample in load_samples("photos", root=data)
    ]
    path.write_text("".join(lines))
    return f"responses={path}"


def true_answer(sample: GroundingSample, dialect: Dialect) -> str:
    size = sample.image_sizes[sample.target_image]
    resized = dialect.input_size(size) if dialect.needs_input_size else None
    text = dialect.encode(sample.box, image_wh=size, input_wh=resized)
    return text if sample.image_is_given else f"Image-{sample.target_image + 1}: {text}"


def kinds(report: dict[str, Any], *severities: str) -> list[str]:
    return [f["kind"] for f in report["findings"] if f["severity"] in severities]


def test_a_wrong_scale_is_found_and_the_right_one_named_and_passed(
    check, data: Path, tmp_path: Path
) -> None:
    args = replay(data, tmp_path / "r.jsonl", "qwen3_vl")
    arguments = ("--model", "univg_replay", "--model_args", args)
    status, report, _ = check(*arguments, "--dialect", "qwen2_5_vl")
    assert status == 3
    assert report["verdict"]["status"] == "wrong"
    (hint,) = (f for f in report["findings"] if f["severity"] == "hint")
    assert hint["numbers"]["read_as"]["names"][0] == "qwen3_vl"
    assert hint["numbers"]["read_as"]["share"] == 1.0
    # The score stays that of the declared reading.
    assert report["macro"]["acc@0.5"] < 0.2
    page = Path(report["page"]).read_text(encoding="utf-8")
    assert "as qwen3_vl" in page
    assert page.count("<article") >= SAMPLES == report["n"]
    record = load_run(report["records"]["declared"][0])
    assert record.manifest.settings.dialect.value == "qwen2_5_vl"
    assert report["settings"]["dialect"] == ["qwen2_5_vl", "--dialect"]
    assert (tmp_path / "out" / "lmms-eval.log").is_file()
    assert record.manifest.n == report["n"]
    assert "UNIVG_DIALECT" not in os.environ

    status, report, _ = check(*arguments, "--dialect", "qwen3_vl")
    assert status == 0
    assert report["verdict"]["headline"] == "The set-up is fine."
    assert report["macro"]["acc@0.5"] == 1.0
    assert kinds(report, "problem", "hint", "warning") == []


def test_other_pixel_limits_are_found_on_the_large_photographs_only(data: Path) -> None:
    samples = load_samples("photos", root=data)
    dialects = {
        used: get_dialect("qwen2_5_vl", min_pixels=used.min_pixels, max_pixels=used.max_pixels)
        for used in KNOWN_LIMITS
    }
    responses = {
        used: [Response(true_answer(sample, dialect)) for sample in samples]
        for used, dialect in dialects.items()
    }
    for used, dialect in dialects.items():
        assert diagnose(samples, responses[used], dialect).findings == ()
    # 602,112 and 640,000 pixels read 14 of 16 boxes alike.
    pairs = [
        (used, assumed)
        for used, assumed in itertools.permutations(KNOWN_LIMITS, 2)
        if {used.max_pixels, assumed.max_pixels} != {602112, 640000}
    ]
    assert len(pairs) == 28
    for used, assumed in pairs:
        found = diagnose(samples, responses[used], dialects[assumed]).findings
        assert "limits_not_tested" not in {finding.kind for finding in found}
        (hint,) = (finding for finding in found if finding.severity == "hint")
        read_as = hint.numbers["read_as"]
        limits = f"min_pixels={used.min_pixels}, max_pixels={used.max_pixels}"
        assert read_as["names"][0] == f"qwen2_5_vl with {limits}"
        assert read_as["share"] == 1.0
    small = [s for s in samples if s.task != "large"]
    dialect = get_dialect("qwen2_5_vl")
    (note,) = diagnose(small, [Response(true_answer(s, dialect)) for s in small], dialect).findings
    assert (note.kind, note.severity) == ("limits_not_tested", "note")


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (RuntimeError("device-side assert"), 2, "failed while it answered (run 'blank'): Runtime"),
        (RuntimeError("CUDA out of memory"), 2, "fewer pixels (max_pixels in --model_args)"),
    ],
)
def test_a_run_that_breaks_off_leaves_whole_records_and_no_page(
    check, tmp_path: Path, monkeypatch, error, status: int, message: str
) -> None:
    arguments = (
        *("--model", "univg_baseline", "--model_args", "kind=oracle"),
        *("--tasks", "univg_photos_easy", "--controls"),
    )
    out = tmp_path / "out"
    out.mkdir()
    (out / "check.html").write_text("of an earlier check")
    calls = []
    answer = BaselineModel.generate_until

    def fail(self, requests):
        calls.append(1)
        if len(calls) > 1:
            raise error
        return answer(self, requests)

    monkeypatch.setattr(BaselineModel, "generate_until", fail)
    found, report, err = check(*arguments)
    assert (found, report) == (status, {})
    assert message in err
    assert "Traceback" not in err
    assert not (out / "check.html").exists()
    load_run(out / "records" / "declared" / "photos")
    if status == 2:
        assert "Traceback" in (out / "lmms-eval.log").read_text(encoding="utf-8")
    assert [path for path in out.rglob("*") if path.name.startswith(".")] == []


HOSTILE = "\x1b[31m[red]RED[/red][/link]\x1b[2J\x1b]0;title\x07<script>alert(1)</script>\ud800 [1"


def test_hostile_answers_harm_neither_terminal_nor_page(
    check, data: Path, tmp_path: Path, capsys
) -> None:
    samples = [s for s in load_samples("photos", root=data) if s.task == "photos"]
    lines = [json.dumps({"id": s.id, "response": HOSTILE}) + "\n" for s in samples]
    Path("r.jsonl").write_text("".join(lines))
    status = main(
        [
            *("check", "--model", "univg_replay", "--model_args", "responses=r.jsonl"),
            *("--dialect", "norm1000", "--tasks", "univg_photos_photos", "--out", "out"),
        ]
    )
    shown = capsys.readouterr().out
    assert status == 3
    assert "[red]RED[/red][/link]" in shown  # as it is written, no markup
    page = Path("out/check.html").read_text(encoding="utf-8")
    assert page.count("<script") == 1 and "&lt;script&gt;" in page
    assert not {"\x1b", "\x07"} & set(shown + page)


def test_the_page_has_the_verdict_first_then_misses_then_the_rest(check, data: Path) -> None:
    """Answers with odd numbers are misses; those to fewer and smaller images come first."""
    samples = load_samples("photos", root=data)
    dialect = get_dialect("norm1000")
    wrong = {s.id for s in samples if int(s.id[-1]) % 2}
    lines = [
        {"id": s.id, "response": "I see nothing." if s.id in wrong else true_answer(s, dialect)}
        for s in samples
    ]
    Path("answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    replayed = ("--model", "univg_replay", "--model_args", "responses=answers.jsonl")
    status, report, _ = check(*replayed, "--dialect", "norm1000")
    assert status == 3
    page = Path("out/check.html").read_text(encoding="utf-8")
    assert "<h1>Check of univg_replay:answers</h1>" in page
    banner = f'<p class="banner bad">✗ {report["verdict"]["headline"]}</p>'
    assert banner in page and page.index(banner) < page.index("<h2")
    assert re.search(r"Made by univg check, \d{4}-\d\d-\d\d \d\d:\d\d UTC, in ", page)
    answers = page[page.rindex(">Answers <") :]
    ids = re.findall(r'<h3 id="[^"]*">([^<]+)</h3>', answers)
    assert len(ids) == SAMPLES
    n_wrong = sum(name in wrong for name in ids)
    assert n_wrong and all(name in wrong for name in ids[:n_wrong])
    tasks = {s.id: s.task for s in samples}
    misses = list(dict.fromkeys(tasks[name] for name in ids[:n_wrong]))
    assert misses[:3] == ["easy", "photos", "large"] and misses[-1] == "moving_patch"
    options = re.findall(r"<option value=\"\d+\">([^<]+)</option>", answers)
    assert {f"misses ({n_wrong})", f"unreadable ({n_wrong})", f"no box ({n_wrong})"} < set(options)


def test_a_weak_model_is_no_fault_and_one_that_refuses_is(check) -> None:
    baseline = ("--model", "univg_baseline", "--model_args")
    status, report, _ = check(*baseline, "kind=noisy,p=0.25", "--limit", "16")
    assert status == 0
    assert report["verdict"]["weak"] is True
    assert report["verdict"]["headline"].startswith("The set-up is fine; the model is weak")
    status, report, _ = check(*baseline, "kind=refuse", "--limit", "2")
    assert status == 3
    finding = report["findings"][0]
    assert (finding["kind"], finding["severity"]) == ("no_box", "problem")
    assert finding["numbers"]["instead"] == {"refusal": report["n"]}


def test_controls_show_that_a_blind_model_does_not_look(check, monkeypatch) -> None:
    made = []
    build = BaselineModel.__init__
    monkeypatch.setattr(
        BaselineModel, "__init__", lambda self, *a, **k: (made.append(1), build(self, *a, **k))[1]
    )
    status, report, _ = check(
        "--model", "univg_baseline", "--model_args", "kind=center", "--controls", "--limit", "3"
    )
    assert status == 3
    assert len(made) == 1  # loaded once for five runs
    assert [c["control"] for c in report["controls"]] == ["blank", "swapped", "permuted", "cut"]
    by_name = {c["control"]: c for c in report["controls"]}
    assert by_name["blank"]["same_responses"] == by_name["blank"]["n"] == report["n"]
    assert set(by_name["permuted"]["tasks"]).isdisjoint({"photos", "large", "easy"})  # one image
    assert "easy" not in by_name["cut"]["tasks"]  # one object: nothing to cut
    assert "images_not_used" in kinds(report, "problem")
    assert "constant_answer" in kinds(report, "problem")
    record = load_run(report["records"]["blank"][0])
    assert record.path.name == "photos+blank"


def test_a_sweep_tries_every_offered_form(check) -> None:
    status, report, _ = check(
        *("--model", "univg_baseline", "--model_args", "kind=oracle", "--sweep"),
        *("--dialect", "qwen2_vl", "--limit", "2"),
    )
    assert status == 0
    names = [v["name"] for v in report["sweep"]]
    assert names == ["qwen2_vl, think", "norm1000, direct", "norm1, direct", "pixels, direct"]
    assert {v["n"] for v in report["sweep"]} == {2 * TASKS}
    assert {v["difference"] for v in report["sweep"]} == {0.0}
    for name in names:
        dialect, style = name.split(", ")
        (path,) = report["records"][name]
        record = load_run(path)
        assert record.manifest.settings.dialect.value == dialect
        assert record.manifest.settings.prompt.value == style
        assert record.responses[0]["prompt"].endswith("tags.") == (style == "think")
    assert report["settings"]["dialect"][0] == "qwen2_vl"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "univg_baseline", "--dialect", "qwen"), "unknown dialect 'qwen'"),
        (("--model", "univg_baseline", "--tasks", "univg_photo"), "there is no task univg_photo"),
        (("--model", "no_such_backend"), "lmms-eval has no backend 'no_such_backend'"),
        (("--model", "univg_baseline", "--model_args", "kind=odd"), "has no kind 'odd'"),
        (("--model", "univg_baseline", "--limit", "0"), "--limit"),
        (
            ("--model", "univg_replay", "--dialect", "norm1", "--controls"),
            "leave these options out",
        ),
        (("--model", "univg_replay", "--dialect", "norm1"), "needs the file of responses"),
        (("--model", "univg_baseline", "--out", "/dev/null/x"), "is no folder that can be written"),
        (
            ("--model", "univg_baseline", "--model_args", "kind=full,odd=1"),
            "cannot load its model with --model_args 'kind=full,odd=1': TypeError",
        ),
    ],
)
def test_mistakes_end_with_one_message(check, tmp_path: Path, arguments, message) -> None:
    status, report, err = check(*arguments)
    assert (status, report) == (2, {})
    assert message in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_images_that_lmms_eval_leaves_out_are_reported() -> None:
    assert _lost_images("2026 | WARNING | something else\n") == []
    log = "12:00 | ERROR | qwen2_vl:299 - Failed to process PIL image: truncated\n" * 3
    (finding,) = _lost_images(log)
    assert (finding.severity, finding.numbers["messages"]) == ("problem", 3)
    assert "truncated" in finding.detail


def test_the_tiny_model_end_to_end(data: Path, tmp_path: Path) -> None:
    """The shipped checkpoint by itself: boxes on plain scenes, few on photographs."""
    limits = "min_pixels=28224,max_pixels=28224"
    done = lmms_data.run_module(
        "univg_eval",
        *("check", "--model", "qwen2_vl", "--model_args"),
        f"pretrained=univg:tiny,device=cpu,device_map=cpu,{limits}",
        *("--tasks", "univg_photos_easy,univg_photos_photos", "--controls", "--sweep"),
        *("--batch_size", "3", "--limit", "3", "--out", "out"),
        data=data,
        cwd=tmp_path,
        COLUMNS="80",
    )
    assert done.returncode in (0, 3), done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    assert lines[0] == "Nothing wrong was found, but 5 samples cannot show much."
    assert max(map(len, lines)) <= 80
    row = next(line for line in lines if line.split()[0] == "easy")
    assert row.split()[1:3] == ["2", "100.0"]
    text = " ".join(done.stdout.split())
    assert "when the images are blank" in text
    for table in ("control n score", "request n score"):
        assert table in text
    assert (tmp_path / "out" / "check.html").is_file()
    record = load_run(tmp_path / "out" / "records" / "declared" / "photos")
    assert record.manifest.model.id == "univg:tiny"
    assert record.manifest.settings.max_pixels == (28224, "max_pixels of model_args")
    blank = load_run(tmp_path / "out" / "records" / "blank" / "photos+blank")
    said = {row["id"]: row["response"] for row in record.responses}
    assert any(row["response"] != said[row["id"]] for row in blank.responses)
