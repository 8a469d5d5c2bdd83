"""`univg-train data` reports what a file holds, and by its status whether something is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from factories import make_sample
from training_forms import (
    MGROUNDING_SIZES,
    chat,
    draw,
    mgrounding_row,
    stage1_row,
    stage2_row,
    vlm_r1_row,
    write_list,
)

from univg_eval.samples import write_benchmark
from univg_train.cli import main
from univg_train.data import FORMS


@pytest.fixture
def file(tmp_path: Path) -> Path:
    draw(tmp_path, MGROUNDING_SIZES | {"MGrounding-630k/a.png": (64, 64)})
    return tmp_path / "m.json"


def check(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["data", *map(str, arguments)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_a_sound_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_list(file, [mgrounding_row(), mgrounding_row(type="region_train")])
    assert check(capsys, file, "--form", "mgrounding") == (
        0,
        "form mgrounding: MGrounding-630k: ShareGPT, boxes on 0-1000\n"
        "2 rows read; 4 questions to train on (grpo)\n"
        "         2 mgrounding/gg_train\n"
        "         2 mgrounding/region_train\n"
        "0 bad rows\n",
        "",
    )


SWIFT = {"messages": chat("<image>It?", "<bbox>"), "objects": {"bbox": [[1, 2, 30, 40]]}}
OWN = {"images": "a.png", "instruction": "It.", "box": [1, 2, 3, 4], "space": "pixels"}
PIXELS = {"images": ["a.png"], "messages": chat("<image>It?", '{"bbox_2d": [1, 2, 30, 40]}')}


@pytest.mark.parametrize(
    ("form", "first", "by"),
    [
        ("mgrounding", mgrounding_row(), "a conversation with (x1,y1),(x2,y2)"),
        ("univg_r1_stage1", stage1_row(), "a conversation with <think> and (x1,y1),(x2,y2)"),
        ("univg_r1_stage2", stage2_row(), "the fields 'question' and 'answer'"),
        ("vlm_r1", vlm_r1_row(), "the field 'image' beside a conversation"),
        ("ms_swift", SWIFT | {"images": ["a.png"]}, "objects or <bbox> beside a conversation"),
        ("custom", OWN, "the field 'instruction' or a first line with 'space'"),
        ("custom", {"space": "norm1"}, "the field 'instruction' or a first line with 'space'"),
    ],
)
def test_the_form_is_recognised_by_the_first_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str, first: dict[str, Any], by: str
) -> None:
    sizes = MGROUNDING_SIZES | {"MGrounding-630k/a.png": (99, 99), "MGrounding-630k/b.png": (9, 9)}
    draw(tmp_path, sizes | {"a.png": (99, 99), vlm_r1_row()["image"]: (640, 480)})
    later = [] if len(first) > 1 else [OWN | {"space": "norm1", "box": [0.1, 0.2, 0.3, 0.4]}]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, [first, *later])), encoding="utf-8")
    status, out, err = check(capsys, path)
    assert (status, err) == (0, "")
    assert out.startswith(f"form {form}: {FORMS[form]} (recognised by {by})\n1 rows read")
    report = json.loads(check(capsys, path, "--json")[1])
    assert (report["form"], report["recognised_by"]) == (form, by)
    report = json.loads(check(capsys, path, "--form", form, "--json")[1])
    assert (report["form"], report["recognised_by"]) == (form, None)


def test_forms_that_are_recognised_by_a_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(tmp_path, {"b/a.png": (9, 9), "MGrounding-630k/a.png": (9, 9)})
    sample = make_sample(benchmark="b", images=("b/a.png",), widths=(9,), heights=(9,), targets=())
    write_benchmark([sample], root=tmp_path, benchmark="b", manifest_extra={})
    status, out, _ = check(capsys, "b", "--root", tmp_path)
    assert status == 0 and out.startswith("form samples: ")
    settings = {"dialect": "univg_r1", "min_pixels": None, "max_pixels": None}
    manifest = {"settings": settings, "input": {"image_root": str(tmp_path)}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    row = stage1_row(id="row-0", images=["MGrounding-630k/a.png"])
    row["conversations"][0]["value"] = "<image>It?"
    status, out, _ = check(capsys, write_list(tmp_path / "cotsft.json", [row]))
    assert status == 0 and out.startswith("form cot: ")


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        (json.dumps(PIXELS), "its first row is an object with images, messages, which fits"),
        (
            '{"a": 1}',
            "object with a, which fits no form by its fields; state the form, one of: mgro",
        ),
        ("[]", "its first row is '', which fits no form"),
        ("oops", "its first row is 'oops', which"),
        ("", "is empty; expected a JSON list"),
    ],
)
def test_a_form_is_not_guessed(
    file: Path, capsys: pytest.CaptureFixture[str], raw: str, match: str
) -> None:
    file.write_text(raw, encoding="utf-8")
    status, out, err = check(capsys, file)
    assert (status, out) == (2, "") and match in err and len(err.splitlines()) == 1


def test_a_file_of_another_form_than_said(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_list(file, [mgrounding_row()])
    status, out, _ = check(capsys, file, "--form", "univg_r1_stage2")
    assert status == 3
    assert out.endswith(
        "warning: the file is recognised as the form mgrounding, by a conversation "
        "with (x1,y1),(x2,y2)\n"
    )
    write_list(file, [stage2_row(images=[])])
    assert "warning" not in check(capsys, file, "--form", "univg_r1_stage2")[1]


def test_bad_rows_and_what_is_left_out(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")  # a line each, however long the path
    several = mgrounding_row()
    several["conversations"][1]["value"] += " <|box_start|>(1,2),(3,4)<|box_end|>"
    several["conversations"][3]["value"] = "(1,2),(3,4) (5,6),(7,8)"  # of three images
    bad = mgrounding_row(images=["\x1b[31mno\n.png", *mgrounding_row()["images"][1:]])
    write_list(file, [mgrounding_row(), several, bad])
    status, out, _ = check(capsys, file, "--form", "mgrounding")
    assert status == 3
    assert "3 rows read; 3 questions to train on" in out
    assert "of these\n         2 one_target: one true object\n         1 several_targets: " in out
    assert "1 questions left out\n         1 unknown_image: boxes in pixels, or several, " in out
    assert "1 bad rows\n         1 missing_image: an image of the row is not there\n" in out
    assert "m.json: row 2: image" in out and "\x1b" not in out and len(out.splitlines()) == 11
    supervised = ("--form", "mgrounding", "--purpose", "sft", "--style", "direct")
    status, out, _ = check(capsys, file, *supervised, "--json")
    report = json.loads(out)
    assert status == 3
    assert (report["questions"], report["left_out"], report["purpose"]) == (4, {}, "sft")
    assert report["bad"]["rows"] == 1 and report["bad"]["kinds"] == {"missing_image": 1}


def test_leaks(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = draw(tmp_path / "root", {"b/SA-1B/sa_8929009.png": (9, 9)})
    sample = make_sample(
        benchmark="b", images=("b/SA-1B/sa_8929009.png",), widths=(9,), heights=(9,), targets=()
    )
    write_benchmark([sample], root=root, benchmark="b", manifest_extra={})
    write_list(file, [mgrounding_row()])
    arguments = (file, "--form", "mgrounding", "--check-leaks", "b", "--root", root)
    status, out, _ = check(capsys, *arguments)
    assert status == 3
    assert "2 questions share something with an evaluation set\n         2 image_name:" in out
    assert "mgrounding-000000-0: image_name" in out and "of toy-00000" in out
    status, out, _ = check(capsys, *arguments, "--leak-kinds", "image_bytes", "--json")
    assert status == 0 and json.loads(out)["leaks"]["questions"] == 0


def test_a_question_that_is_shared_by_text_alone_is_no_fault(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = (
        "recognize the target region that this sentence refers to: A WOMAN wearing an orange shirt"
    )
    root = draw(tmp_path / "root", {"b/other.png": (9, 9)})
    sample = make_sample(
        benchmark="b", images=("b/other.png",), widths=(9,), heights=(9,), targets=(),
        instruction=asked,
    )  # fmt: skip
    write_benchmark([sample], root=root, benchmark="b", manifest_extra={})
    write_list(file, [mgrounding_row()])
    arguments = (file, "--form", "mgrounding", "--check-leaks", "b", "--root", root)
    status, out, _ = check(capsys, *arguments)
    assert status == 0
    assert "0 questions share something with an evaluation set\n1 questions are worded as" in out
    status, out, _ = check(capsys, *arguments, "--json")
    assert json.loads(out)["leaks"]["text_alone"] == 1


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ("nowhere.json --form mgrounding", "cannot read nowhere.json: No such file"),
        ("nope --form samples", "benchmark 'nope' is not prepared"),
        ("x.json --form mgrounding --check-leaks no", "unknown benchmark 'no'; `univg prep"),
        ("x.json --form mgrounding --check-leaks lisa", "'lisa' is not prepared"),
        ("x.json --form mgrounding --space pixels", "leave the space away"),
        (
            "x.json --form mgrounding --dialect qwen2_5_vl --max-pixels 9",
            "min_pixels is 3136 and max_pixels 9",
        ),
    ],
)
def test_mistakes_are_reported_in_one_line(
    arguments: str, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path))
    status, out, err = check(capsys, *arguments.split())
    assert status == 2 and out == "" and match in err and len(err.splitlines()) == 1


def test_a_file_without_use_is_a_mistake(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turns = chat("<image>What is it?", "A chair.")
    write_list(file, [stage1_row(images=["MGrounding-630k/a.png"], conversations=turns)])
    status, out, err = check(capsys, file, "--form", "mgrounding")
    assert status == 2 and "1 no_box" in out
    assert "m.json: nothing in it serves the purpose 'grpo'" in err


def test_the_command_loads_neither_torch_nor_trl(file: Path) -> None:
    write_list(file, [mgrounding_row()])
    code = (
        "import sys\nfrom univg_train.cli import main\n"
        f"assert main(['data', {str(file)!r}, '--form', 'mgrounding']) == 0\n"
        "print(sorted({'torch', 'trl', 'datasets', 'transformers'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "[]"
