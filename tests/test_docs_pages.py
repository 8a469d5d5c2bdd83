"""What the pages on extending, troubleshooting and the start page say, held against the code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import lmms_data
import pytest
from doc_pages import blocks, page_text
from PIL import Image

from univg_eval import dialects, parse_answer
from univg_eval.analysis.failures import FAILURES
from univg_eval.benchmarks import readers
from univg_eval.benchmarks.preparing import catalog
from univg_eval.benchmarks.synthetic.mini import ensure
from univg_eval.cli import main
from univg_eval.dialects import _registry
from univg_eval.samples import load_samples


def flat(words: str) -> str:
    return " ".join(words.split())


# --- start page ----------------------------------------------------------------------------------


def test_the_readings_on_the_start_page() -> None:
    (response,) = blocks("index", "text")
    rows = re.findall(r"^\| `(\w+)` \| .* \| ([^|]*) \|$", page_text("index"), re.M)
    assert len(rows) == 5
    for dialect, shown in rows:
        answer = parse_answer(response, dialect, image_sizes=[(640, 480)])
        box = answer.box and ", ".join(f"{value:.3f}" for value in answer.box)
        assert shown == (box or f"none: `{answer.status}`"), dialect


# --- extending -----------------------------------------------------------------------------------


def test_the_dialect_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module beside those of the package is found, without a line elsewhere."""
    module, check, *_ = blocks("extending", "python")
    assert len(module.splitlines()) <= 25
    (tmp_path / "acme.py").write_text(module, encoding="utf-8")
    monkeypatch.setattr(dialects, "__path__", [*dialects.__path__, str(tmp_path)])
    found = _registry.collect()
    assert list(found) == [*dialects.list_dialects(), "acme_vl"]
    assert found["acme_vl"].to_dict()["scale"] == "value / 500"
    exec(check, {"DIALECTS": (found["acme_vl"],)})


@pytest.fixture
def signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of the page's reader, beside a release of two rows."""
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (200, 100)).save(tmp_path / "images" / name)
    rows = ["file,text,x,y,w,h", "a.png,the stop sign,20,10,40,30", "b.png,the exit,0,0,200,100"]
    (tmp_path / "signs.csv").write_text("\n".join(rows))
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path / "data"))
    code = blocks("extending", "python")[2]
    assert len(code.splitlines()) <= 33 and len(code.strip().split("\n\n\n")) == 3
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def test_the_reader_of_the_page(signs: dict[str, Any], tmp_path: Path) -> None:
    signs["prepare_release"](signs["open_signs"](tmp_path))
    first, second = load_samples("signs")
    assert (first.id, first.instruction) == ("signs-00000", "Find the stop sign.")
    assert first.box == pytest.approx((0.1, 0.1, 0.3, 0.4))
    assert second.box == (0.0, 0.0, 1.0, 1.0)


def test_the_reader_of_the_page_names_a_faulty_row(signs: dict[str, Any], tmp_path: Path) -> None:
    with (tmp_path / "signs.csv").open("a") as file:
        file.write("\na.png,the mast,20,ten,40,30")
    with pytest.raises(Exception, match=r"(?s)invalid_row.*signs\.csv row 2: .*'ten'") as caught:
        signs["prepare_release"](signs["open_signs"](tmp_path))
    assert type(caught.value).__name__ == "FaultyReleaseError"


def test_a_benchmark_is_one_file_beside_its_tasks(
    signs: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package := tmp_path / "readers").mkdir()
    (package / "signs_of_the_page.py").write_text("".join(blocks("extending", "python")[2:]))
    monkeypatch.setattr(readers, "__path__", [*readers.__path__, str(package)])
    monkeypatch.setattr(catalog, "CATALOG", catalog._collected())
    assert main(["prepare", "signs", "--source", str(tmp_path)]) == 0
    assert len(load_samples("signs")) == 2
    (package / "again.py").write_text((package / "signs_of_the_page.py").read_text())
    with pytest.raises(ValueError, match="'signs'"):
        catalog._collected()


def test_the_task_of_the_page(signs: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("lmms_eval")
    signs["prepare_release"](signs["open_signs"](tmp_path))
    (tasks := tmp_path / "tasks" / "signs").mkdir(parents=True)
    for shared in lmms_data.TASKS.glob("*.yml"):
        (tasks.parent / shared.name).write_bytes(shared.read_bytes())
    (tasks / "signs.yaml").write_text(blocks("extending", "yaml")[0])
    from lmms_eval.tasks import TaskManager

    from univg_eval.lmms.run import evaluate

    found = evaluate(
        "univg_baseline",
        "kind=oracle",
        ["univg_signs"],
        manager=TaskManager(include_path=str(tasks.parent), include_defaults=False),
    ).results["results"]["univg_signs"]
    assert (found["acc@0.9,none"], found["miou,none"], found["answered,none"]) == (1.0, 1.0, 1.0)


# --- backends ------------------------------------------------------------------------------------


def test_the_questions_as_text(tmp_path: Path) -> None:
    ensure(tmp_path, n=2)
    (code,) = blocks("backends", "python")
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=lmms_data.environment(tmp_path),
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    first = load_samples("univg_mini", root=tmp_path)[:3]
    assert [row["id"] for row in rows] == [sample.id for sample in first]
    for row in rows:
        assert all((tmp_path / image).is_file() for image in row["images"])
        assert row["prompt"]


# --- troubleshooting -----------------------------------------------------------------------------


def test_classes_of_misses_that_are_named_exist() -> None:
    classes = page_text("troubleshooting").split("of which class most misses are:\n")[1]
    heads = re.findall(r"^- (`\w+`.*?):", classes.split("```")[0], re.M)
    named = re.findall(r"`(\w+)`", " ".join(heads))
    assert set(named) < set(FAILURES) and len(named) == 7


def test_the_example_at_the_end_prints_the_box(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("troubleshooting", "python")
    exec(code)
    assert capsys.readouterr().out.startswith("ok (0.25, 0.25, 0.5, 0.75) 1 ")
