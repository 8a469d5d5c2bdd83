"""Writing photos: whole or not at all, from the right photographs, told plainly if they are not."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from importlib.machinery import ModuleSpec

import pytest

pytest.importorskip("skimage", reason="photos needs the extra 'eval'")

from univg_eval.benchmarks.synthetic import photos
from univg_eval.benchmarks.synthetic.photos import builder, ensure, read_sources, sources
from univg_eval.errors import UserError
from univg_eval.samples import load_manifest, load_samples

SMALL = {"n": 2, "seed": 5}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    photos.build(root, **SMALL)
    return root


def test_building_again_gives_the_same_bytes(small, tmp_path):
    again, ours = photos.build(tmp_path, **SMALL), small / "photos"
    names = sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(ours) for p in ours.rglob("*") if p.is_file())
    # The photographs, and enlarged; crop, pair, view, frames, crop of one question in two, scene;
    # two lists.
    assert len(names) == 6 + 6 + 2 * (1 + 2 + 1 + 5 + 1) + 1 + 2
    for name in names:
        assert (again / name).read_bytes() == (ours / name).read_bytes(), name


def test_another_seed_asks_other_questions(small, tmp_path):
    photos.build(tmp_path, n=2, seed=6)
    first = {s.id: s for s in load_samples("photos", root=small)}
    for sample in load_samples("photos", root=tmp_path):
        if sample.task in ("photos", "large"):
            assert sample == replace(first[sample.id], source=sample.source)
        else:
            assert sample.box != first[sample.id].box


def test_the_manifest_names_settings_versions_and_licences(small):
    manifest = load_manifest("photos", small)
    assert manifest["generator"] == {
        "name": "photos",
        "version": photos.GENERATOR_VERSION,
        "seed": 5,
        "n_per_task": 2,
        "tasks": list(photos.TASKS),
    }
    assert set(manifest["made_with"]) == {"numpy", "pillow", "scikit-image"}
    licences = {photo["name"]: photo["licence"] for photo in manifest["photos"]}
    assert set(licences) == {"coffee", "astronaut", "camera", "coins", "china", "grace_hopper"}
    assert licences["china"].startswith("CC BY 2.0, danielbuechele")
    assert manifest["tasks"] == {
        task: 16 if task in ("photos", "large") else 2 for task in photos.TASKS
    }


@pytest.fixture
def builds(monkeypatch):
    """Two quick tasks, and a count of builds."""
    quick = {name: builder._BUILDERS[name] for name in ("photos", "easy")}
    monkeypatch.setattr(builder, "_BUILDERS", quick)
    monkeypatch.setattr(builder, "TASKS", tuple(quick))
    calls = []
    real = builder._build
    monkeypatch.setattr(builder, "_build", lambda *a: calls.append(a) or real(*a))
    return calls


def test_a_build_without_a_task_that_there_is_now_is_made_anew(builds, monkeypatch, tmp_path):
    ensure(tmp_path, n=2, seed=1)
    monkeypatch.setattr(builder, "TASKS", ("photos",))
    ensure(tmp_path, n=2, seed=1)
    assert len(builds) == 2
    assert {s.task for s in load_samples("photos", root=tmp_path)} == {"photos"}


def test_ensure_builds_once_and_again_when_settings_change(builds, tmp_path):
    ensure(tmp_path, n=2, seed=1)
    ensure(tmp_path, n=2, seed=1)
    assert len(builds) == 1
    ensure(tmp_path, n=2, seed=2)
    ensure(tmp_path, n=3, seed=2)
    assert len(builds) == 3
    assert len(load_samples("photos", root=tmp_path)) == 19


@pytest.mark.parametrize("name", ["easy/001_1.png", "originals/china.png", "samples.jsonl"])
def test_ensure_mends_a_build_that_lost_a_file(builds, tmp_path, name):
    folder = ensure(tmp_path, n=2, seed=1)
    (folder / name).unlink()
    ensure(tmp_path, n=2, seed=1)
    assert len(builds) == 2 and (folder / name).is_file()


def test_ensure_replaces_samples_that_were_altered(builds, tmp_path):
    folder = ensure(tmp_path, n=2, seed=1)
    path = folder / "samples.jsonl"
    whole = path.read_text()
    path.write_text(whole.replace("the tallest building", "the smallest building"))
    ensure(tmp_path, n=2, seed=1)
    assert len(builds) == 2 and path.read_text() == whole
    path.write_text(whole + "{broken")
    ensure(tmp_path, n=2, seed=1)
    assert len(builds) == 3 and path.read_text() == whole


def test_a_build_that_is_there_needs_neither_lock_nor_photographs(builds, tmp_path, monkeypatch):
    folder = ensure(tmp_path, n=2, seed=1)
    monkeypatch.setattr(builder, "locked", None)
    monkeypatch.setattr(builder, "load_album", None)
    assert ensure(tmp_path, n=2, seed=1) == folder


def test_a_foreign_folder_is_not_deleted(builds, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "holiday.jpg").write_text("mine")
    with pytest.raises(UserError, match=r"photos exists but is no build of photos.*move it away"):
        ensure(tmp_path, n=2, seed=1)
    assert (folder / "holiday.jpg").read_text() == "mine"


def test_n_out_of_range(tmp_path):
    with pytest.raises(UserError, match=r"n is 0 questions a task; expected 1 to 1000"):
        ensure(tmp_path, n=0)
    assert not any(tmp_path.iterdir())


def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        sources.importlib.util,
        "find_spec",
        lambda name, *a: None if name == "sklearn" else real(name, *a),
    )
    with pytest.raises(
        UserError, match=r"scikit-learn is not installed: pip install 'univg\[eval\]'"
    ):
        ensure(tmp_path, **SMALL)
    assert not (tmp_path / "photos").exists()


def fake_package(tmp_path, monkeypatch):
    """An empty folder stands for every import package."""
    spec = ModuleSpec("skimage", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path / "package")]
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda *a: spec)
    return tmp_path / "package"


def test_a_photograph_that_changed_is_refused(tmp_path, monkeypatch):
    photo = read_sources()[0][0]
    original = sources.photo_path(photo).read_bytes()
    package = fake_package(tmp_path, monkeypatch)
    with pytest.raises(
        UserError,
        match=r"scikit-image \S+ does not hold the photograph skimage/data/coffee.png.*"
        r"pip install 'scikit-image==0.26.0'",
    ):
        sources.load_photo(photo)
    (package / "data").mkdir(parents=True)
    path = package / "data" / "coffee.png"
    path.write_bytes(original)
    assert sources.load_photo(photo).shape == (400, 600, 3)
    path.write_bytes(original + b"\0")
    with pytest.raises(
        UserError,
        match=r"coffee.png is not the photograph that the boxes were measured on: its SHA-256 is "
        r"[0-9a-f]{64}, expected cc02f8ca.* as in scikit-image 0.26.0",
    ):
        sources.load_photo(photo)


def test_the_recorded_versions_are_those_of_the_constraints(repo_root):
    pins = dict(
        line.split("==")
        for line in (repo_root / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    )
    for photo in read_sources()[0]:
        assert pins[photo.package] == photo.version


def test_finding_the_photographs_imports_none_of_the_packages():
    code = (
        "import sys\n"
        "from univg_eval.benchmarks.synthetic.photos import load_photo, read_sources\n"
        "photos, _ = read_sources()\n"
        "shapes = [load_photo(photo).shape[:2] for photo in photos]\n"
        "assert shapes == [(photo.height, photo.width) for photo in photos]\n"
        "print(sorted({'skimage', 'sklearn', 'matplotlib', 'scipy'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.replace("'", '"')) == []
