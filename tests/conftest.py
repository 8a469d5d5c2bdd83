"""Fixtures that several test files use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

REPO_ROOT = Path(__file__).resolve().parent.parent

# On a busy machine single examples take longer than a deadline allows.
settings.register_profile("univg", deadline=None)
settings.load_profile("univg")


@pytest.fixture(scope="session")
def repo_root() -> Path:
    return REPO_ROOT


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
