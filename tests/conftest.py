"""Fixtures that several test files use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

REPO_ROOT = Path(__file__).resolve().parent.parent

# GNU readline, which pytest loads, sets these for the worker processes of pytest-xdist.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)

# On a busy machine single examples take longer than a deadline allows.
settings.register_profile("univg", deadline=None)
settings.load_profile("univg")


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
