"""docs/training_data.md names all forms, kinds and columns, and its example runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from doc_pages import blocks, page_text, rows_named
from factories import make_sample
from training_forms import draw, stage2_row, write_list

from univg_eval.samples import write_benchmark
from univg_train.data import FORMS, LEAK_KINDS, LEFT_OUT


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
    code, *_ = blocks("training_data", "python")
    names: dict[str, object] = {}
    exec(code.replace('"/data"', '"images"').replace("print(", "str("), names)
    row = names["row"]
    assert isinstance(row, dict)
    table = page_text("training_data").split("| column | |")[1].split("\n\n")[0]
    cells = "".join(re.findall(r"^\| (`[^|]*`) \|", table, re.M))
    assert set(re.findall(r"`(\w+)`", cells)) == {*row, "completion"}
