"""The notebooks run from a clean kernel, on what the project ships."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty data root: what a notebook needs, it makes or says how to make."""
    root = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNIVG_DATA", str(root))
        yield root


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.stem)
def executed(request: pytest.FixtureRequest, data_root: Path) -> nbformat.NotebookNode:
    notebook = nbformat.read(request.param, as_version=4)
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(FOLDER)}})
    client.execute()
    return notebook


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


def test_every_code_cell_ran_and_none_complains(executed: nbformat.NotebookNode) -> None:
    cells = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    streams = [o.text for cell in cells for o in cell.outputs if o.output_type == "stream"]
    assert streams == []  # neither warnings nor stray prints


def test_it_shows_tables_and_figures(executed: nbformat.NotebookNode) -> None:
    kinds = {
        kind
        for cell in executed.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        for kind in output.get("data", {})
    }
    assert {"text/html", "image/png"} <= kinds


def test_what_is_stored_is_what_it_gives_now(
    executed: nbformat.NotebookNode, request: pytest.FixtureRequest
) -> None:
    stored = nbformat.read(FOLDER / f"{request.node.callspec.id}.ipynb", as_version=4)

    def texts(notebook: nbformat.NotebookNode) -> list[str]:
        return [
            output["data"]["text/plain"]
            for cell in notebook.cells
            if cell.cell_type == "code"
            for output in cell.outputs
            if "text/html" in output.get("data", {})
        ]

    assert texts(stored) == texts(executed)
