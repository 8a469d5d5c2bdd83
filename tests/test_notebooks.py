"""The notebooks run from a clean kernel, on what the project ships."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def tables(notebook: nbformat.NotebookNode) -> list[str]:
    data = [output.get("data", {}) for output in outputs(notebook)]
    return [own["text/plain"] for own in data if "text/html" in own]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_is_stored(
    path: Path, whole_mini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIVG_DATA", str(whole_mini))
    notebook = nbformat.read(path, as_version=4)
    # What a notebook needs, it makes: here it is there, on another machine it may not be.
    source = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert "load_samples(" not in source or "\nensure()\n" in source.partition('load_samples("')[0]
    stored = tables(notebook)
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(FOLDER)}})
    client.execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    # Neither warnings nor stray prints.
    assert [o.text for o in outputs(notebook) if o.output_type == "stream"] == []
    assert stored and tables(notebook) == stored
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))
