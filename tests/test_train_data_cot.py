"""What `univg-train cot` built is read back as training data, in the dialect it was built for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_teacher import running_teacher
from training_forms import draw

from univg_eval.errors import UserError
from univg_train.cot.building import CotSettings, build_chains
from univg_train.cot.rows import CotRow, CotRows
from univg_train.cot.teacher import TeacherSettings
from univg_train.data import RowError, TrainingData, make_rendering, open_training_data

BOX = (0.25, 0.5, 0.625, 0.875)


def build(folder: Path, dialect: str, *, given: bool = True) -> Path:
    """One row, by a teacher on this machine."""
    images = draw(folder / "images", {"a.png": (64, 48), "b.png": (800, 600)})
    row = CotRow(
        id="row-0",
        images=("a.png", "b.png"),
        question="Where is it in the second image? [row 0]",
        box=BOX,
        target_image=1,
        image_is_given=given,
        task="diff",
    )
    with running_teacher() as teacher:
        settings = CotSettings(
            teacher=TeacherSettings(model="t", base_url=teacher.url), dialect=dialect, chains=1
        )
        build_chains(CotRows([row], images), folder / "run", settings, api_key="k")
    return folder / "run" / "cotsft.json"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def read(path: Path, dialect: str, **limits: int) -> TrainingData:
    how = make_rendering(dialect, style="think", purpose="sft", **limits)
    return open_training_data("cot", path, how)


@pytest.mark.parametrize("dialect", ["univg_r1", "qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("given", [True, False])
def test_built_chains_are_learned_word_for_word(tmp_path: Path, dialect: str, given: bool) -> None:
    path = build(tmp_path, dialect, given=given)
    (example,) = json.loads(path.read_text())
    human, gpt = (turn["value"] for turn in example["conversations"])
    data = read(path, dialect)
    columns = data.columns(0)
    assert columns["completion"][0]["content"][0]["text"] == gpt
    content = columns["prompt"][0]["content"]
    assert "".join("<image>" if b["type"] == "image" else b["text"] for b in content) == human
    assert columns["targets"][0]["image"] == 1
    assert columns["solution"] == pytest.approx(BOX, abs=0.002)
    assert (columns["id"], columns["source"]) == ("row-0", "cot/diff")
    assert [image.size for image in data[0]["images"]] == [(64, 48), (800, 600)]


def test_another_dialect_or_other_limits_are_refused(tmp_path: Path) -> None:
    path = build(tmp_path, "qwen2_5_vl")
    with pytest.raises(UserError, match="written in qwen2_5_vl with 3136 to 12845056 pixels"):
        read(path, "univg_r1")
    with pytest.raises(UserError, match="to write qwen2_5_vl with 3136 to 401408 pixels"):
        read(path, "qwen2_5_vl", max_pixels=401408)


def test_a_spoilt_answer_is_a_bad_row(tmp_path: Path) -> None:
    path = build(tmp_path, "univg_r1")
    (example,) = json.loads(path.read_text())
    for answer, match in {
        "left": r"row 0: .*no single box .*\(no_box, 0 boxes\)",
        "(1,2),(30,40) (5,6),(70,80)": r"2 boxes\)",
        "(30,2),(1,40)": r"\(invalid_box, 1 boxes\)",
    }.items():
        example["conversations"][1]["value"] = f"<think>x</think><answer>{answer}</answer>"
        path.write_text(json.dumps([example]))
        with pytest.raises(RowError, match=match):
            read(path, "univg_r1")


UNKNOWN = {
    "settings": {"dialect": "q", "min_pixels": 1, "max_pixels": 2},
    "input": {"image_root": "."},
}


@pytest.mark.parametrize(
    ("manifest", "match"),
    [
        (None, "cannot read .*manifest.json: No such file"),
        ("{", "is no manifest .*not JSON"),
        ("{}", "is no manifest .*'settings'"),
        ("[1]", "is no manifest"),
        (json.dumps(UNKNOWN), "manifest.json: unknown dialect 'q'"),
    ],
)
def test_the_manifest_is_needed(tmp_path: Path, manifest: str | None, match: str) -> None:
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    (tmp_path / "cotsft.json").write_text("[]")
    with pytest.raises(UserError, match=match):
        read(tmp_path / "cotsft.json", "univg_r1")
