"""Builds of generated benchmarks: made once, whole or not at all, one a folder."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from factories import make_sample

from univg_eval.benchmarks.synthetic import generated
from univg_eval.errors import UserError
from univg_eval.samples import load_manifest, load_samples, write_benchmark


class Toy:
    """A benchmark of `n` samples about one image; counts its builds."""

    def __init__(self, root: Path) -> None:
        self.root, self.builds, self.fails = root, 0, False

    def ensure(self, n: int = 2) -> Path:
        settings = {"name": "toy", "n": n}

        def write(root: Path) -> None:
            self.builds += 1
            (root / "toy").mkdir(parents=True)
            (root / "toy" / "a.png").write_text(f"{n}")
            if self.fails:
                raise KeyboardInterrupt
            write_benchmark(
                self.samples(n), benchmark="toy", root=root, manifest_extra={"generator": settings}
            )

        return generated.ensure_build(
            "toy", self.root, settings, expected=lambda: self.samples(n), write=write
        )

    def samples(self, n: int) -> list:
        return [
            replace(make_sample(i), images=("toy/a.png", "toy/a.png#frame=1")) for i in range(n)
        ]


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path)


def test_one_build_and_another_when_settings_change(toy: Toy, monkeypatch) -> None:
    folder = toy.ensure()
    assert folder == toy.root / "toy"
    with monkeypatch.context() as patch:
        # A build that is there needs no lock, as in a data root that can only be read.
        patch.setattr(generated, "file_lock", None)
        assert toy.ensure() == folder
    assert toy.builds == 1
    toy.ensure(n=3)
    assert toy.builds == 2
    assert len(load_samples("toy", root=toy.root)) == 3
    assert {p.name for p in folder.iterdir()} == {"a.png", "samples.jsonl", "manifest.json"}


@pytest.mark.parametrize("name", ["a.png", "samples.jsonl", "manifest.json"])
def test_a_build_that_lost_a_file_is_made_again(toy: Toy, name: str) -> None:
    folder = toy.ensure()
    if name == "manifest.json":
        # Samples that the generator makes no longer.
        manifest = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(manifest | {"fingerprint": "0" * 64}))
    else:
        (folder / name).unlink()
    toy.ensure()
    assert toy.builds == 2
    assert (folder / name).is_file()
    assert load_manifest("toy", toy.root)["fingerprint"] != "0" * 64


def test_an_interrupted_build_leaves_the_old_one(toy: Toy) -> None:
    toy.ensure()
    before = load_manifest("toy", toy.root)
    toy.fails = True
    with pytest.raises(KeyboardInterrupt):
        toy.ensure(n=3)
    assert load_manifest("toy", toy.root) == before
    toy.fails = False
    left = toy.root / ".toy.x7f3k2_q.part"  # by a kill
    (left / "new").mkdir(parents=True)
    os.utime(left, (0, 0))
    toy.ensure(n=3)
    assert load_manifest("toy", toy.root)["n"] == 3
    assert not list(toy.root.glob(".toy.*/"))


def test_a_foreign_folder_is_not_deleted(toy: Toy) -> None:
    folder = toy.root / "toy"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="move it away"):
        toy.ensure()
    assert (folder / "notes.txt").read_text() == "mine"
    (folder / "manifest.json").write_text("{broken")
    with pytest.raises(UserError, match="no readable manifest"):
        toy.ensure()
    (toy.root / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*UNIVG_DATA"):
        Toy(toy.root / "file" / "data").ensure()
