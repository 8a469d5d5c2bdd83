"""The catalog: every entry can be opened, names real tasks, and says where its files are found."""

from __future__ import annotations

import inspect
import re
import runpy
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from univg_eval.benchmarks.preparing.catalog import CATALOG, benchmark_of, get_entry
from univg_eval.errors import UserError

ENTRIES = pytest.mark.parametrize("entry", CATALOG.values(), ids=list(CATALOG))

EXPECTED = {
    *("mini", "mini_plus", "photos", "mig_bench", "mig_bench_revised"),
    *("lisa", "llmseg", "revos", "reasonvos"),
    *("lisa_full", "llmseg_full", "revos_full", "reasonvos_full"),
    *("refcoco", "refcoco_plus", "refcocog", "custom"),
    *("ref_l4", "refcoco_m"),
    *("grefcoco", "humanref", "rex_omni"),
    *("mc_bench", "groundingme"),
}


class Loader(yaml.SafeLoader):
    """Reads !function as text."""


Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


@pytest.fixture(scope="module")
def task_files(repo_root: Path) -> dict[str, dict]:
    """Name of a task or group → its YAML."""
    found = {}
    for path in (repo_root / "tasks").rglob("*.yaml"):
        data = yaml.load(path.read_text(), Loader)
        name = data["group"] if "group" in data else data["task"]
        found[name] = data
    return found


def test_which_benchmarks_there_are():
    assert set(CATALOG) == EXPECTED
    assert list(CATALOG)[:3] == ["mini", "mini_plus", "photos"]
    assert all(name == entry.name for name, entry in CATALOG.items())
    assert len({entry.benchmark for entry in CATALOG.values()}) == len(CATALOG)


@ENTRIES
def test_its_function_takes_what_it_is_given(entry, tmp_path):
    if entry.opener is None:
        module, _, name = entry.builder.partition(":")
        parameters = inspect.signature(getattr(import_module(module), name)).parameters
        assert {"root", *entry.options} <= parameters.keys()
        with pytest.raises(UserError, match="is generated"):
            entry.open(tmp_path)
        return
    wanted = {"source", "images", "splits", *entry.options, *entry.fixed}
    wanted |= {"workspace"} if entry.needs_workspace else set()
    # Nothing that the reader takes is out of reach.
    assert inspect.signature(entry.opener).parameters.keys() == wanted
    with pytest.raises(UserError, match="--source"):
        entry.build(tmp_path)


@ENTRIES
def test_its_tasks_exist_and_use_its_benchmark(entry, task_files):
    assert entry.tasks
    for task, split in entry.tasks.items():
        assert task in task_files, f"no YAML for {task}"
        data = task_files[task]
        if "group" not in data:
            assert data["dataset_path"] == entry.benchmark
            assert split is None or data["test_split"] == split
        assert split is None or split in entry.splits


@ENTRIES
def test_sources_and_terms_are_stated(entry):
    assert entry.licence
    assert entry.published
    assert entry.splits
    for files in entry.hub:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", files.repo)
        assert re.fullmatch(r"[0-9a-f]{40}", files.revision), "pinned by a whole commit"
        assert files.files
    for part in entry.by_hand:
        assert part.url.startswith(("https://", "docs/"))
    if not entry.is_generated and entry.name != "custom":
        assert entry.by_hand, "where its files are found has to be said"
    if entry.images_on_hub:
        archives = {archive.name for archive in entry.image_archives}
        assert archives & {name for files in entry.hub for name in files.files}


def test_only_the_extracted_sets_stand_beside_the_published_zero_shot_table():
    for name in ("lisa", "llmseg", "revos", "reasonvos"):
        assert CATALOG[name].comparable_with_published
        assert not CATALOG[f"{name}_full"].comparable_with_published
        assert CATALOG[name].hub[0].repo == "GD-ML/UniVG-R1-data"
        assert not CATALOG[f"{name}_full"].hub


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("univg_mini", "mini"),
        ("mini", "mini"),
        ("univg_mini_plus", "mini_plus"),
        ("refcoco+", "refcoco_plus"),
        ("mig_bench_revised", "mig_bench_revised"),
        ("custom", "custom"),
        ("custom_signs", "custom_signs"),
        ("custom:signs", "custom_signs"),
    ],
)
def test_names_and_benchmarks_find_their_entry(name, expected):
    assert get_entry(name).name == expected


@pytest.mark.parametrize("find", [get_entry, benchmark_of])
def test_an_unknown_name_is_answered_by_the_nearest(find, tmp_path, monkeypatch):
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path))
    for name, near in (("lise", "'lisa'"), ("mig", "'mig_bench' or 'mig_bench_revised'")):
        with pytest.raises(UserError, match=f"unknown benchmark '{name}'; did you mean {near}"):
            find(name)


def test_a_wheel_carries_the_tasks_and_the_published_tables(repo_root, monkeypatch):
    given: dict[str, Any] = {}
    monkeypatch.setattr("setuptools.setup", lambda **arguments: given.update(arguments))
    monkeypatch.chdir(repo_root)
    runpy.run_path("setup.py")
    carried = {f"{target}/{Path(f).name}" for target, files in given["data_files"] for f in files}
    expected = {
        f"share/univg/{path.relative_to(top.parent).as_posix()}"
        for top in (repo_root / "tasks", repo_root / "results" / "published")
        for path in top.rglob("*")
        if path.is_file()
    }
    assert carried == expected
    assert len(carried) > 100
