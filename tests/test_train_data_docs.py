"""docs/training_data.md names all forms, kinds and columns, and its example runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from doc_pages import blocks, page_text, rows_named
from factories import make_sample
from training_forms import draw, stage2_row, write_list

from univg_eval.samples import write_benchmark
from univg_train.data import FORMS, LEAK_KINDS, LEFT_OUT, make_rendering, open_training_data


def test_all_forms_kinds_and_reasons_are_named() -> None:
    assert set(rows_named("training_data")) >= set(FORMS)
    listed = re.findall(r"^- `(\w+)`:", page_text("training_data"), re.M)
    assert set(listed) == {*LEAK_KINDS, *LEFT_OUT}


def test_the_example_runs_and_its_columns_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "mig_bench", {"e.png": (7, 9)})
    evaluated = make_sample(
        benchmark="mig_bench", images=("mig_bench/e.png",), widths=(7,), heights=(9,), targets=()
    )
    write_benchmark([evaluated], root=tmp_path, benchmark="mig_bench", manifest_extra={})
    draw(tmp_path / "images", {"MGrounding-630k/a.png": (8, 8), "MGrounding-630k/b.png": (9, 9)})
    write_list(tmp_path / "stage2_rl.json", [stage2_row(), stage2_row(answer=None)])
    _, code = blocks("training_data", "python")
    names: dict[str, object] = {}
    exec(code.replace('"/data"', '"images"').replace("print(", "str("), names)
    row = names["row"]
    assert isinstance(row, dict)
    table = page_text("training_data").split("| column | |")[1].split("\n\n")[0]
    cells = "".join(re.findall(r"^\| (`[^|]*`) \|", table, re.M))
    assert set(re.findall(r"`(\w+)`", cells)) == {*row, "completion"}


def test_the_conversion_from_grefcoco(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Annotations in the release's form, written by hand, become rows with 2, 0 and 1 boxes."""
    monkeypatch.chdir(tmp_path)
    draw(tmp_path, {"COCO_train2014_000000000009.jpg": (200, 100)})
    said = {
        "both cups": {"ann_id": [4, 7]},
        "the elephant": {"ann_id": [-1], "no_target": True},
        "the left cup": {"ann_id": 4},
        "of another split": {"ann_id": [4], "split": "val"},
    }
    refs = [
        {"image_id": 9, "split": "train", "sentences": [{"sent": text}],
         "file_name": "COCO_train2014_000000000009_3.jpg"} | changes
        for text, changes in said.items()
    ]  # fmt: skip
    boxes = [{"id": 4, "bbox": [20, 10, 40, 30]}, {"id": 7, "bbox": [100.0, 50.0, 100.0, 50.0]}]
    (tmp_path / "grefs(unc).json").write_text(json.dumps(refs))
    (tmp_path / "instances.json").write_text(json.dumps({"annotations": boxes}))
    exec(blocks("training_data", "python")[0], {})
    rows = open_training_data("custom", "grefs.jsonl", make_rendering("univg_r1"))
    found = [[t["box"] for t in rows.columns(i)["targets"]] for i in range(len(rows))]
    left, right = pytest.approx([0.1, 0.1, 0.3, 0.4]), pytest.approx([0.5, 0.5, 1.0, 1.0])
    assert found == [[left, right], [], [left]]
    assert rows.row(1).question == "Find: the elephant."
