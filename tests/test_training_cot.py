"""What `univg-train cot` built is read back as training data, in the dialect it was built for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_teacher import running_teacher
from training_forms import draw

from univg_eval.errors import UserError
from univg_train.cot.building import CotSettings, build_chains
from univg_train.cot.rows import CotRow, CotRows
from univg_train.cot.teacher import TeacherSettings
from univg_train.data import RowError, TrainingData, make_rendering, open_training_data

BOX = (0.25, 0.5, 0.625, 0.875)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def build(tmp_path: Path, dialect: str, **changes: Any) -> Path:
    """One row, by a teacher on this machine."""
    images = draw(tmp_path / "images", {"a.png": (64, 48), "b.png": (800, 600)})
    row = CotRow(
        id="row-0",
        images=("a.png", "b.png"),
        question="Where is it in the second image? [row 0]",
        box=BOX,
        target_image=1,
        task="diff",
        **changes,
    )
    with running_teacher() as teacher:
        settings = CotSettings(
            teacher=TeacherSettings(model="t", base_url=teacher.url), dialect=dialect
        )
        rows = CotRows([row], images, {"file": "toy.json"})
        build_chains(rows, tmp_path / "run", settings, api_key="k")
    return tmp_path / "run" / "cotsft.json"


def read(path: Path, dialect: str, **limits: int) -> TrainingData:
    how = make_rendering(dialect, style="think", purpose="sft", **limits)
    return open_training_data("cot", path, how)


@pytest.mark.parametrize("dialect", ["univg_r1", "qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("given", [True, False])
def test_built_chains_are_learned_word_for_word(tmp_path: Path, dialect: str, given: bool) -> None:
    path = build(tmp_path, dialect, image_is_given=given)
    (example,) = json.loads(path.read_text())
    data = read(path, dialect)
    columns = data.columns(0)
    assert columns["completion"][0]["content"][0]["text"] == example["conversations"][1]["value"]
    asked = "".join(
        "<image>" if block["type"] == "image" else block["text"]
        for block in columns["prompt"][0]["content"]
    )
    assert asked == example["conversations"][0]["value"]
    assert columns["targets"][0]["image"] == 1
    assert columns["solution"] == pytest.approx(BOX, abs=0.002)
    assert (columns["id"], columns["source"]) == ("row-0", "cot/diff")
    assert [image.size for image in data[0]["images"]] == [(64, 48), (800, 600)]


def test_another_dialect_or_other_limits_are_refused(tmp_path: Path) -> None:
    path = build(tmp_path, "qwen2_5_vl")
    with pytest.raises(UserError, match=r"is written in qwen2_5_vl with 3136 to 12845056 pixels, "):
        read(path, "univg_r1")
    with pytest.raises(UserError, match=r"is to write qwen2_5_vl with 3136 to 401408 pixels; run"):
        read(path, "qwen2_5_vl", max_pixels=401408)


def test_a_spoilt_answer_is_a_bad_row(tmp_path: Path) -> None:
    path = build(tmp_path, "univg_r1")
    (example,) = json.loads(path.read_text())
    for text, match in {
        "<think>x</think><answer>left</answer>": r"row 0: .*no single box .*\(no_box, 0 boxes\)",
        "<think>x</think><answer>(1,2),(30,40) (5,6),(70,80)</answer>": r"2 boxes\)",
        "<think>x</think><answer>(30,2),(1,40)</answer>": r"\(invalid_box, 1 boxes\)",
    }.items():
        example["conversations"][1]["value"] = text
        path.write_text(json.dumps([example]))
        with pytest.raises(RowError, match=match):
            read(path, "univg_r1")


@pytest.mark.parametrize(
    ("manifest", "match"),
    [
        (None, r"cannot read .*manifest.json: No such file.*folder that `univg-train cot` wrote"),
        ("{", r"is no manifest of `univg-train cot` \(not JSON"),
        ("{}", r"is no manifest of `univg-train cot` \('settings'\)"),
        ("[1]", r"is no manifest of `univg-train cot`"),
        (
            '{"settings": {"dialect": "q", "min_pixels": 1, "max_pixels": 2},'
            ' "input": {"image_root": "."}}',
            r"manifest.json: unknown dialect 'q'",
        ),
    ],
)
def test_the_manifest_is_needed(tmp_path: Path, manifest: str | None, match: str) -> None:
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    (tmp_path / "cotsft.json").write_text("[]")
    with pytest.raises(UserError, match=match):
        read(tmp_path / "cotsft.json", "univg_r1")
