"""Fixtures that several test files use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

REPO_ROOT = Path(__file__).resolve().parent.parent

# Files that take from a quarter of a minute to two. They come first, so that processes which share
# the files end together.
LONG = {
    f"test_{name}.py"
    for name in (
        *("lmms_reference", "lmms_cli", "lmms_repeats", "notebooks", "train_configs"),
        *("train_tiny_stages", "train_grpo_trainer", "train_evaluation", "train_grpo_run"),
        *("answers", "lmms_response_journal", "cli_prepare", "cli_widths", "cli_demo", "runs_lmms"),
        *("lmms_parity", "benchmarks_photos_lmms", "benchmarks_pipeline", "lmms_generation"),
        *("benchmarks_second_suite", "results_fuzz", "results_difficulty", "train_sft"),
        *("train_cot_building", "analysis_stats_runs", "train_runs_saving", "models_generation"),
        *("analysis_diagnosis", "determinism"),
    )
}

# GNU readline, which pytest loads, sets these for the worker processes of pytest-xdist.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)

# On a busy machine single examples take longer than a deadline allows.
settings.register_profile("univg", deadline=None)
settings.load_profile("univg")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(scope="session")
def repo_root() -> Path:
    return REPO_ROOT


@pytest.fixture(scope="session")
def whole_mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with univg_mini as runs are evaluated on it, to be read only.

    Drawing it takes twenty seconds, so all processes of pytest-xdist share one.
    """
    from univg_eval.benchmarks.synthetic.mini import ensure

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    ensure(folder / "whole_mini")
    return folder / "whole_mini"


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real annotation files beside the checkout; users do not have it."""
    path = REPO_ROOT.parent / "shared"
    if not path.is_dir():
        pytest.skip(f"needs the real annotation files in {path}, which are not part of the project")
    return path


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """On one thread of a CPU, training gives the same weights bit by bit."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable:
    """The one message of a `univg-train` command that must end before it loads weights."""
    import transformers

    from univg_train.cli import main

    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("weights were loaded")

    def message(*arguments: str) -> str:
        with monkeypatch.context() as patched:
            patched.setattr(transformers.PreTrainedModel, "from_pretrained", loaded)
            assert main([str(argument) for argument in arguments]) == 2
        printed = capsys.readouterr()
        assert printed.out == "" and "Traceback" not in printed.err
        assert "Warning" not in printed.err
        assert printed.err.splitlines()[-1].startswith(f"univg-train {arguments[0]}: ")
        return printed.err

    return message
