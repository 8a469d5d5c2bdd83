"""A package of an extra that is not installed is one message with its remedy."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from univg_eval import errors
from univg_eval.cli import main

RUNS = Path(__file__).resolve().parent.parent / "results" / "runs"
MODULE_OF = {
    "opencv-python-headless": "cv2",
    "scikit-image": "skimage",
    "scikit-learn": "sklearn",
}


def test_every_module_belongs_to_its_extra(repo_root: Path) -> None:
    project = tomllib.loads((repo_root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extra, modules in errors._EXTRAS.items():
        packages = {
            line.partition("=")[0].rstrip("<>") for line in project["optional-dependencies"][extra]
        }
        assert set(modules) <= {MODULE_OF.get(name, name) for name in packages}, extra


def test_a_command_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "scipy"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    assert main(["compare", str(RUNS / "tiny_cot"), str(RUNS / "tiny_grpo")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "univg compare: the package scipy is not installed; run: pip install 'univg[report]'\n"
    )


def test_a_missing_module_of_the_project_is_no_mistake_of_the_user() -> None:
    assert errors.missing_package(ModuleNotFoundError("x", name="univg_eval.nowhere")) is None
