"""The table of docs/backends.md is what runs here, line by line."""

from __future__ import annotations

from pathlib import Path

import pytest
from backend_table import BACKENDS, HEAD, VLLM_FAMILIES, row

pytest.importorskip("lmms_eval")

PAGE = Path(__file__).resolve().parent.parent / "docs" / "backends.md"
PAIRS = [(family, backend) for family, backends in BACKENDS.items() for backend in backends]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from univg_eval.benchmarks.synthetic.mini import ensure

    folder = tmp_path_factory.mktemp("backends")
    ensure(folder / "data", n=2)
    return folder


@pytest.mark.parametrize(("family", "backend"), PAIRS)
def test_a_line_of_the_table(family: str, backend: str, place: Path) -> None:
    assert row(family, backend, place / "data", place) in PAGE.read_text(encoding="utf-8")


def test_the_table_has_no_other_line() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = text.partition(HEAD)[2].partition("\n\n")[0].strip().splitlines()
    assert len(table) == len(PAIRS) + len(VLLM_FAMILIES)  # those of vLLM: tests/test_vllm.py
