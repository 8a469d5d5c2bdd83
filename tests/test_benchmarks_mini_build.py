"""Writing univg_mini: whole or not at all, one build a folder, videos read back exactly."""

from __future__ import annotations

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


def test_samples_and_images_are_those_that_were_generated(root):
    samples = load_samples("univg_mini", root=root)
    assert [s.task for s in samples[:: SMALL["n"]]] == list(TASKS)
    assert len(samples) == 15 * SMALL["n"]
    for sample in samples:
        index = int(sample.id.rpartition("-")[2])
        assert sample.id == f"univg_mini-{sample.task}-{index:05d}"
        item = generate(sample.task, seed=11, index=index)
        for name in ("instruction", "box", "target_image", "image_is_given"):
            assert getattr(sample, name) == getattr(item, name)
        assert (sample.extra["held_out"], sample.extra["label"]) == (
            item.knobs["held_out"],
            item.label,
        )
        expected = item.render(112, stored=True)
        stored = open_images(sample, root)
        assert sample.image_sizes == [image.size for image in expected]
        for ours, theirs in zip(stored, expected, strict=True):
            assert ours.size == theirs.size
            difference = np.abs(np.asarray(ours, float) - np.asarray(theirs, float)).mean()
            # A video goes through a lossy codec; the next frame but one would differ more.
            assert difference < (4.0 if "#frame=" in sample.images[0] else 1e-9)
    # Clusters are shared images.
    pairs = {(sample.images, sample.cluster) for sample in samples}
    for column in zip(*pairs, strict=True):
        assert len(set(column)) == len(pairs) == 13 * 4 + 2 * 2


def test_building_again_gives_the_same_bytes_and_another_seed_others(root, tmp_path):
    seen: list[tuple[int, int]] = []
    again = ensure(tmp_path, **SMALL, progress=lambda *done: seen.append(done))
    assert seen == [(n, 15 * SMALL["n"]) for n in range(1, 15 * SMALL["n"] + 1)]
    folders = root / "univg_mini", again
    ours, again = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}
        for folder in folders
    )
    assert ours == again
    ensure(tmp_path, n=1, seed=12, size=112)
    manifest = load_manifest("univg_mini", tmp_path)
    assert manifest["generator"] == {
        "name": "univg_mini",
        "version": mini.GENERATOR_VERSION,
        "seed": 12,
        "n_per_task": 1,
        "size": 112,
    }
    assert manifest["fingerprint"] != load_manifest("univg_mini", root)["fingerprint"]


def test_a_missing_encoder_is_reported_before_anything_is_drawn(tmp_path, monkeypatch):
    pytest.importorskip("av")
    monkeypatch.setattr(builder, "_CODECS", ("nosuch",))
    with pytest.raises(UserError, match="no video encoder of nosuch"):
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
        ({"n": 0}, "n is 0"),
        ({"size": 57}, "size is 57 px; expected an even number"),
        ({"size": 20}, "size is 20 px"),
    ],
)
def test_settings_out_of_range(change, message, tmp_path):
    with pytest.raises(UserError, match=message):
        ensure(tmp_path, **(SMALL | change))
    assert not any(tmp_path.iterdir())
