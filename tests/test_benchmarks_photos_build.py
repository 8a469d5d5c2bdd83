"""Writing photos: whole or not at all, and from the right photographs."""

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
    ensure(root, **SMALL)
    return root


def test_building_again_gives_the_same_bytes(small, tmp_path):
    ours, again = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}
        for folder in (small / "photos", ensure(tmp_path, **SMALL))
    )
    # The photographs, and enlarged; crop, pair, view, frames, crop of one sample in two, scene;
    # two lists.
    assert len(ours) == 6 + 6 + 2 * (1 + 2 + 1 + 5 + 1) + 1 + 2
    assert ours == again


def test_another_seed_makes_other_samples(small, tmp_path):
    ensure(tmp_path, n=2, seed=6)
    first = {s.id: s for s in load_samples("photos", root=small)}
    for sample in load_samples("photos", root=tmp_path):
        if sample.task in ("photos", "large"):
            assert sample == replace(first[sample.id], source=sample.source)
        else:
            assert sample.box != first[sample.id].box


def test_the_manifest_names_settings_versions_and_licences(small, repo_root):
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
    for task, n in manifest["tasks"].items():
        assert n == (16 if task in ("photos", "large") else 2)
    constraints = (repo_root / "constraints.txt").read_text().splitlines()
    for photo in read_sources()[0]:
        assert f"{photo.package}=={photo.version}" in constraints


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """A build of two quick tasks."""
    tasks = {name: builder._BUILDERS[name] for name in ("photos", "easy")}
    monkeypatch.setattr(builder, "_BUILDERS", tasks)
    monkeypatch.setattr(builder, "TASKS", tuple(tasks))
    return ensure(tmp_path, n=2, seed=1)


def test_only_another_build_than_that_of_today_is_made_anew(quick, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(builder, "load_album", None)  # no photographs are needed
        assert ensure(tmp_path, n=2, seed=1) == quick
    monkeypatch.setattr(builder, "TASKS", ("photos",))
    ensure(tmp_path, n=2, seed=1)
    assert {s.task for s in load_samples("photos", root=tmp_path)} == {"photos"}


def test_samples_that_were_altered_are_made_anew(quick, tmp_path):
    path = quick / "samples.jsonl"
    whole = path.read_text()
    for altered in (whole.replace("the tallest building", "the smallest"), whole + "{broken"):
        assert altered != whole
        path.write_text(altered)
        ensure(tmp_path, n=2, seed=1)
        assert path.read_text() == whole


def test_what_makes_no_build(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="n is 0"):
        ensure(tmp_path, n=0)
    real = importlib.util.find_spec
    monkeypatch.setattr(
        sources.importlib.util,
        "find_spec",
        lambda name, *a: None if name == "sklearn" else real(name, *a),
    )
    with pytest.raises(UserError, match=r"scikit-learn .*pip install -e '\.\[eval\]'"):
        ensure(tmp_path, **SMALL)
    assert not (tmp_path / "photos").exists()


def test_a_photograph_that_changed_is_refused(tmp_path, monkeypatch):
    photo = read_sources()[0][0]
    original = sources.photo_path(photo).read_bytes()
    spec = ModuleSpec("skimage", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda *a: spec)
    with pytest.raises(UserError, match=r"coffee\.png.*pip install 'scikit-image==0\.26\.0'"):
        sources.load_photo(photo)
    path = tmp_path / "data" / "coffee.png"
    path.parent.mkdir()
    path.write_bytes(original)
    assert sources.load_photo(photo).shape == (400, 600, 3)
    path.write_bytes(original + b"\0")
    with pytest.raises(UserError, match=r"SHA-256 is [0-9a-f]{64}, expected cc02f8ca"):
        sources.load_photo(photo)


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
