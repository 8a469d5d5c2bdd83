"""docs/univg_mini.md shows the samples that the generator really makes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scripts import load_script

from univg_eval.benchmarks.synthetic.mini import TASKS, generate

images = load_script("docs/mini_images.py")
blind = load_script("results/benchmarks/mini_blind.py")


@pytest.fixture(scope="module")
def page(repo_root) -> str:
    return (repo_root / "docs" / "univg_mini.md").read_text(encoding="utf-8")


def section(page: str, task: str) -> str:
    return page.split(f"\n### {task}\n")[1].split("\n## ")[0].split("\n### ")[0]


@pytest.mark.parametrize("task", TASKS)
def test_each_task_has_its_image_and_its_instruction(page, repo_root, task):
    text = section(page, task)
    assert f"![{task}](images/mini/{task}.png)" in text
    assert f"> {images.example_item(task).instruction}\n" in text
    path = repo_root / "docs" / "images" / "mini" / f"{task}.png"
    assert path.stat().st_size < 25_000
    with Image.open(path) as stored:
        now = images.draw(task)
        assert stored.size == now.size
        difference = np.abs(np.asarray(stored.convert("RGB"), int) - np.asarray(now, int))
    # Another version of Pillow may draw an edge a little differently.
    assert difference.mean() < 1.0


def test_the_gallery_is_complete(tmp_path):
    assert (
        [path.stem for path in images.write_images(tmp_path / "new")]
        == list(images.EXAMPLES)
        == list(TASKS)
    )


def table_row(page: str, task: str) -> list[float]:
    (line,) = [line for line in page.splitlines() if line.startswith(f"| {task} |")]
    return [float(cell) for cell in line.strip("| ").split("|")[1:]]


@pytest.mark.parametrize("task", ["diff", "region", "group_grounding", "correspondence"])
def test_the_table_of_blind_answers_is_measured(page, task):
    fixed = blind.best_fixed_box(task)
    measured = blind.blind_accuracy(task, fixed=fixed, n=1000, seed=20251)
    columns = [round(100 * measured[name], 1) for name in blind.BASELINES[:2]]
    assert table_row(page, task) == columns
    # Said above the table of all tasks.
    assert measured["center"] <= 0.032
    assert (measured["center"] == 0.032) == (task == "region")
    assert measured["full"] == 0.0


def test_blind_answers_by_hand():
    """Two samples worked out by hand from their objects."""
    items = [generate("lisa_val", seed=5, index=index) for index in (0, 1)]
    measured = blind.blind_accuracy("lisa_val", fixed=items[0].box, n=2, seed=5)
    expected = sum(1 / len(item.objects[0]) for item in items) / 2
    assert measured["any_object"] == pytest.approx(expected)
    assert measured["fixed"] >= 0.5
    assert measured["full"] == 0.0
