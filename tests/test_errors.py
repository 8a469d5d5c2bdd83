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
        "univg compare: the package scipy is not installed; "
        "run in the checkout: pip install -e '.[report]'\n"
    )


def test_a_missing_module_of_the_project_is_no_mistake_of_the_user() -> None:
    assert errors.missing_package(ModuleNotFoundError("x", name="univg_eval.nowhere")) is None


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("Norm-1000", ["norm1000"]),  # upper case and punctuation alone differ: this one only
        ("qwen2vl", ["qwen2_vl"]),
        ("norm100", ["norm1000"]),
        ("mig", ["mig_bench", "mig_bench_revised"]),  # a part of each, the shorter first
        ("mig_bench_diff", ["mig_bench"]),  # it is a part of this one
        ("Qwen/Qwen2-VL-2B", ["qwen2_vl"]),  # holds it
        ("no", []),  # too short to be taken for a part of norm1000
        ("shikra", []),
        ("", []),
        (3, []),
    ],
)
def test_the_nearest_names(name: object, near: list[str]) -> None:
    known = ["mig_bench_revised", "norm1000", "qwen2_vl", "mig_bench"]
    assert errors.nearest(name, known) == near
    assert errors.nearest(name, known, n=1) == near[:1]


def test_an_unknown_name_is_answered_by_what_may_have_been_meant() -> None:
    known = ("think", "direct")
    assert errors.meant("thinking", known) == "did you mean 'think'?"
    assert errors.meant("cot", known) == "expected one of: think, direct"
    assert errors.meant("cot", known, "x list") == "`x list` lists them"
    assert errors.meant("thinking", known, "x list") == "did you mean 'think'? `x list` lists all"


def test_a_command_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    from univg_train.cli import main as train

    for program, call, given, near in (
        ("univg", main, "evla", "did you mean 'eval'?"),
        ("univg", main, "plot", "expected one of: demo, tasks"),
        ("univg-train", train, "gprp", "did you mean 'grpo'?"),
        ("univg-train", train, "univg", "expected one of: tiny, cot, data, sft"),
    ):
        assert call([given, "--help"]) == 2
        captured = capsys.readouterr()
        assert not captured.out
        assert captured.err.startswith(f"{program}: there is no command {given!r}; {near}")
        assert captured.err.count("\n") == 1


def test_an_option_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["tasks", "--jsno"], "unrecognized arguments: --jsno; did you mean '--json'?"),
        (["tasks", "--colour", "x"], "unrecognized arguments: --colour x"),
        (["tasks", "json"], "unrecognized arguments: json"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
        assert capsys.readouterr().err.splitlines()[-1] == f"univg tasks: error: {message}"
