"""Writing univg_mini: whole or not at all, one build a folder, videos read back exactly."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from univg_eval.benchmarks.synthetic import mini
from univg_eval.benchmarks.synthetic.mini import TASKS, builder, ensure, generate
from univg_eval.errors import UserError
from univg_eval.images.reading import open_images
from univg_eval.images.video import read_frames
from univg_eval.samples import load_manifest, load_samples

SMALL = {"n": 4, "seed": 11, "size": 112}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    pytest.importorskip("av", reason="videos need the extra 'eval'")
    root = tmp_path_factory.mktemp("data")
    ensure(root, **SMALL)
    return root


def test_samples_say_what_was_generated(root):
    samples = load_samples("univg_mini", root=root)
    assert len(samples) == 15 * SMALL["n"]
    for sample in samples:
        index = int(sample.id.rpartition("-")[2])
        assert sample.id == f"univg_mini-{sample.task}-{index:05d}"
        item = generate(sample.task, seed=11, index=index)
        assert sample.instruction == item.instruction
        assert sample.box == item.box and sample.target_image == item.target_image
        assert sample.image_is_given == item.image_is_given
        assert sample.extra["held_out"] == item.knobs["held_out"]
        assert sample.extra["label"] == item.label
    assert [s.task for s in samples[:: SMALL["n"]]] == list(TASKS)


def test_stored_images_are_the_scenes(root):
    for sample in load_samples("univg_mini", root=root):
        index = int(sample.id.rpartition("-")[2])
        expected = generate(sample.task, seed=11, index=index).render(112, stored=True)
        stored = open_images(sample, root)
        assert len(stored) == len(expected)
        for ours, theirs in zip(stored, expected, strict=True):
            assert ours.size == theirs.size
            difference = np.abs(np.asarray(ours, float) - np.asarray(theirs, float)).mean()
            # A video goes through a lossy codec; the next frame but one would differ more.
            assert difference < (4.0 if "#frame=" in sample.images[0] else 1e-9)


def test_clusters_are_shared_images(root):
    samples = load_samples("univg_mini", root=root)
    by_images: dict[tuple[str, ...], set[str]] = {}
    for sample in samples:
        by_images.setdefault(sample.images, set()).add(sample.cluster)
    assert all(len(clusters) == 1 for clusters in by_images.values())
    assert len(by_images) == len({sample.cluster for sample in samples}) == 13 * 4 + 2 * 2


def test_region_crops_have_their_own_size(root):
    sample = next(s for s in load_samples("univg_mini", root=root) if s.task == "region")
    assert sample.image_sizes[0] == (112, 112)
    assert set(sample.image_sizes[1:]) == {(56, 56)}


def test_building_again_gives_the_same_fingerprint_and_bytes(root, tmp_path):
    again = ensure(tmp_path, **SMALL)
    first = load_manifest("univg_mini", root)
    second = load_manifest("univg_mini", tmp_path)
    assert first == second
    names = sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    ours = root / "univg_mini"
    assert names == sorted(p.relative_to(ours) for p in ours.rglob("*") if p.is_file())
    for name in names:
        assert (again / name).read_bytes() == (ours / name).read_bytes(), name


def test_seed_and_n_are_part_of_the_manifest_and_the_fingerprint(root, tmp_path):
    folder = ensure(tmp_path, n=1, seed=12, size=112)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["generator"] == {
        "name": "univg_mini",
        "version": mini.GENERATOR_VERSION,
        "seed": 12,
        "n_per_task": 1,
        "size": 112,
    }
    assert manifest["fingerprint"] != load_manifest("univg_mini", root)["fingerprint"]


def test_the_fingerprint_of_samples_that_are_no_longer_made_is_noticed(tmp_path, monkeypatch):
    """A generator that makes other samples than those of the build replaces it."""
    monkeypatch.setattr(builder, "TASKS", ("diff", "lisa_val"))
    monkeypatch.setattr(builder, "video_codec", lambda: "none")
    folder = ensure(tmp_path, n=2, seed=1, size=56)
    assert len(list((folder / "diff").iterdir())) == 4
    monkeypatch.setattr(builder, "TASKS", ("lisa_val",))
    ensure(tmp_path, n=2, seed=1, size=56)
    assert {s.task for s in load_samples("univg_mini", root=tmp_path)} == {"lisa_val"}


def test_a_missing_encoder_is_reported_before_anything_is_drawn(tmp_path, monkeypatch):
    pytest.importorskip("av")
    monkeypatch.setattr(builder, "_CODECS", ("nosuch",))
    with pytest.raises(UserError, match=r"no video encoder of nosuch; install the wheel of av"):
        ensure(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == [".univg_mini.lock"]


def test_two_processes_at_once_make_one_build(tmp_path):
    pytest.importorskip("av")
    code = (
        "import sys\nfrom univg_eval.benchmarks.synthetic.mini import ensure\n"
        "ensure(sys.argv[1], n=1, seed=3, size=56)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    runs = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    for run in runs:
        _, errors = run.communicate(timeout=60)
        assert run.returncode == 0, errors.decode()
    assert len(load_samples("univg_mini", root=tmp_path)) == 15
    assert sorted(p.name for p in tmp_path.iterdir()) == [".univg_mini.lock", "univg_mini"]


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_videos_of_either_encoder_are_read_back_frame_by_frame(codec, tmp_path):
    av = pytest.importorskip("av")
    if codec not in av.codecs_available:
        pytest.skip(f"av has no encoder {codec}")
    item = next(
        item
        for item in (generate("revos", seed=11, index=i) for i in range(20))
        if item.knobs["kind"] == "moves"
    )
    builder._write_video(tmp_path / "video.mp4", item.clip, 112, codec)
    stored = read_frames(tmp_path / "video.mp4", range(25))
    drawn = [np.asarray(item.clip.at(i).render(112), float) for i in range(25)]
    for i, image in enumerate(stored):
        errors = [np.abs(np.asarray(image, float) - other).mean() for other in drawn]
        assert int(np.argmin(errors)) == i
    with pytest.raises(UserError, match="frame 25"):
        read_frames(tmp_path / "video.mp4", [25])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 0}, r"n is 0 samples a task; expected 1 to"),
        ({"size": 57}, r"size is 57 px; expected an even number"),
        ({"size": 20}, r"size is 20 px"),
    ],
)
def test_settings_out_of_range(change, message, tmp_path):
    with pytest.raises(UserError, match=message):
        ensure(tmp_path, **(SMALL | change))
    assert not any(tmp_path.iterdir())
