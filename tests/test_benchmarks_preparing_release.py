"""Putting a release into the data root: resumed after a kill, idempotent, all or nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from disks import largest_file
from factories import make_sample
from PIL import Image

from univg_eval.benchmarks.preparing import preparation
from univg_eval.benchmarks.preparing.preparation import Prepared, prepare_release
from univg_eval.benchmarks.readers.common.release import Item, ItemError, Release
from univg_eval.errors import UserError
from univg_eval.files import Journal
from univg_eval.samples import GroundingSample, Target, load_manifest, load_samples

N = 12


def toy_release(
    folder: Path,
    *,
    n: int = N,
    faults: dict[int, tuple[str, str]] | None = None,
    converted: Callable[[int], object] = lambda number: None,
    source: dict[str, object] | None = None,
) -> Release:
    """`n` samples on images of `folder`; `converted` is called with each converted item."""

    def convert(number: int) -> Sequence[GroundingSample]:
        converted(number)
        if number in (faults or {}):
            kind, message = faults[number]
            raise ItemError(kind, message)  # type: ignore[arg-type]
        with Image.open(folder / f"{number}.png") as image:
            width, height = image.size
        return [
            make_sample(
                number,
                split="val" if number % 2 else "test",
                images=(f"toy/images/{number}.png",),
                widths=(width,),
                heights=(height,),
                instruction=f"Find the «thing» {number}",
                targets=(Target(image=0, box=(0.1 / (number + 1), 0.2, 1 / 3, 0.4)),),
                extra={"sizes": (width, height)},
            )
        ]

    def item(number: int) -> Item:
        return Item(key=f"row-{number}", convert=lambda: convert(number))

    return Release(
        benchmark="toy",
        items=[item(number) for number in range(n)],
        links={"images": folder},
        source={"file": "toy.json", "sha256": "0" * 64, "revision": "r1"} | (source or {}),
    )


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "release" / "images"
    folder.mkdir(parents=True)
    for number in range(N):
        Image.new("L", (20 + number, 10)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def prepared_files(root: Path) -> dict[str, bytes]:
    return {
        name: (root / "toy" / name).read_bytes()
        for name in ("samples.jsonl", "manifest.json")
        if (root / "toy" / name).is_file()
    }


def journal(root: Path) -> Path:
    return root / ".preparing" / "toy" / "journal.jsonl"


def interrupt(images: Path, root: Path, *, at: int = 0, **changes: object) -> None:
    """A run that a faulty item ends; the other items stay in the journal."""
    faults = {at: ("invalid_row", "no")}
    with pytest.raises(UserError):
        prepare_release(toy_release(images, faults=faults, **changes), root=root)  # type: ignore[arg-type]


def fail() -> list[GroundingSample]:
    raise ItemError("missing_image", "no")


def take_up(images: Path, root: Path, **changes: object) -> tuple[Prepared, list[int]]:
    """A run, and the numbers of the items that it converted."""
    counted: list[int] = []
    release = toy_release(images, converted=counted.append, **changes)  # type: ignore[arg-type]
    return prepare_release(release, root=root), counted


# --- the undisturbed run ----------------------------------------------------------------------


def test_a_release_becomes_a_benchmark(images: Path, root: Path) -> None:
    seen: list[tuple[int, int]] = []
    done = prepare_release(
        toy_release(images),
        root=root,
        progress=lambda *x: seen.append(x),
        manifest_extra=lambda samples: {"audit": {"n": len(samples)}},
    )
    samples = load_samples("toy", root=root)
    assert [sample.id for sample in samples] == [f"toy-{k:05d}" for k in range(N)]
    assert (samples[3].image_sizes, samples[3].box) == ([(23, 10)], (0.1 / 4, 0.2, 1 / 3, 0.4))
    assert all((root / image).is_file() for sample in samples for image in sample.images)
    manifest = load_manifest("toy", root)
    assert done == Prepared(root / "toy", manifest, 0, {})
    assert (manifest["n"], manifest["complete"], manifest["skipped"]) == (N, True, [])
    assert manifest["splits"] == {"test": 6, "val": 6}
    assert manifest["source"]["revision"] == "r1"
    assert manifest["audit"] == {"n": N}
    assert (seen[0], seen[-1]) == ((0, N), (N, N))
    # Nothing of the work is left but the empty lock.
    assert [path.name for path in (root / ".preparing").rglob("*")] == ["toy.lock"]
    names = sorted(path.name for path in (root / "toy").iterdir())
    assert names == ["images", "manifest.json", "samples.jsonl"]


def test_twice_gives_the_same_and_looks_at_every_image_again(images: Path, root: Path) -> None:
    first = prepare_release(toy_release(images), root=root)
    files = prepared_files(root)
    second, counted = take_up(images, root)
    assert counted == list(range(N))
    assert second.replaced == first.manifest == second.manifest
    assert prepared_files(root) == files
    Image.new("L", (77, 55)).save(images / "4.png")
    prepare_release(toy_release(images), root=root)
    assert load_samples("toy", root=root)[4].image_sizes == [(77, 55)]


# --- interrupted ------------------------------------------------------------------------------

CHILD = """
import os, shutil, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_benchmarks_preparing_release import toy_release
from univg_eval.benchmarks.preparing import preparation
from univg_eval.files import Journal

images, root, log, moment, number = sys.argv[1:]
number = int(number)
count = 0

def strike():
    global count
    count += 1
    if count == number + 1:
        os.kill(os.getpid(), signal.SIGKILL)

def before(owner, name):
    original = getattr(owner, name)
    def wrapped(*args, **kwargs):
        strike()
        return original(*args, **kwargs)
    setattr(owner, name, wrapped)

def converted(k):
    if moment == "convert":
        strike()
    with open(log, "a") as file:
        file.write(f"{{k}}\\n")

if moment == "torn line":
    original = Journal.append
    def torn(self, value):
        global count
        count += 1
        if count == number + 1:
            self._file.write(b'{{"item": "row-' )
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, value)
    Journal.append = torn
elif moment != "convert":
    owner, name = {{"rename": (Path, "replace"), "manifest": (Path, "unlink"),
                   "tidy": (shutil, "rmtree"), "new": (preparation, "write_benchmark")}}[moment]
    before(owner, name)
preparation.prepare_release(toy_release(Path(images), converted=converted), root=root)
"""


def run_child(images: Path, root: Path, log: Path, moment: str, number: int) -> int:
    code = CHILD.format(tests=str(Path(__file__).parent))
    done = subprocess.run(
        [sys.executable, "-c", code, str(images), str(root), str(log), moment, str(number)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent.parent,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.mark.parametrize(
    ("moment", "number", "journaled", "standing"),
    [
        ("convert", 0, 0, True),
        ("convert", 7, 7, False),
        ("convert", 7, 7, True),
        ("torn line", 0, 0, False),
        ("torn line", 5, 4, True),  # the first line is the identity
        ("new", 0, N, True),
        ("rename", 0, N, True),  # of samples.jsonl in the work folder
        ("rename", 2, N, True),  # of the link
        ("rename", 4, N, True),  # of the manifest
        ("rename", 4, N, False),
        ("manifest", 1, N, True),
        ("tidy", 1, N, False),
    ],
)
def test_killed_at_any_moment_the_next_run_finishes(
    moment: str, number: int, journaled: int, standing: bool, images: Path, tmp_path: Path
) -> None:
    prepare_release(toy_release(images), root=tmp_path / "reference")
    root, log = tmp_path / "root", tmp_path / "log"
    if standing:
        # An earlier revision of the release stands there.
        prepare_release(toy_release(images, n=3, source={"revision": "r0"}), root=root)
        before = prepared_files(root)
    assert run_child(images, root, log, moment, number) == -signal.SIGKILL
    files = prepared_files(root)
    if "manifest.json" in files:
        # Whole: the old one, or the new one.
        whole = load_manifest("toy", root)
        assert len(load_samples("toy", root=root)) == whole["n"]
        if whole["n"] != N:
            assert files == before
    elif not standing:
        assert moment != "tidy"
    else:
        assert moment == "rename", "only the renames in place may hide the standing benchmark"
    done, counted = take_up(images, root)
    assert done.resumed == journaled
    assert counted == list(range(journaled, N)), "finished items must not be converted again"
    assert prepared_files(root) == prepared_files(tmp_path / "reference")


def test_a_journal_cut_at_any_byte_is_taken_up(images: Path, tmp_path: Path) -> None:
    """A power cut may leave any part of it."""
    root = tmp_path / "root"
    interrupt(images, root, at=5, n=6)
    whole = journal(root).read_bytes()
    lines = whole.splitlines(keepends=True)
    assert len(lines) == 6  # identity and the five sound items
    ends = [sum(map(len, lines[: k + 1])) for k in range(len(lines))]
    expected = prepare_release(toy_release(images, n=6), root=tmp_path / "other").manifest
    for cut in sorted({0, 1, *ends, *(end - 1 for end in ends), *range(7, len(whole), 211)}):
        journal(root).parent.mkdir(parents=True, exist_ok=True)
        journal(root).write_bytes(whole[:cut])
        done = prepare_release(toy_release(images, n=6), root=root)
        assert done.resumed == max(0, sum(end <= cut for end in ends) - 1), cut
        assert done.manifest == expected


@pytest.mark.parametrize(
    "garbage",
    [b"\x00\xff", b"[]", b'{"item": "row-1"}', b'{"item": [], "rows": [], "stamps": {}}'],
)
def test_a_damaged_line_ends_what_is_believed(garbage: bytes, images: Path, root: Path) -> None:
    interrupt(images, root)
    lines = journal(root).read_bytes().splitlines(keepends=True)
    journal(root).write_bytes(b"".join([*lines[:4], garbage + b"\n", *lines[4:]]))
    assert prepare_release(toy_release(images), root=root).resumed == 3


def test_another_release_folder_or_code_begins_anew(
    images: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resumed(folder: Path = images, **change: object) -> int:
        interrupt(folder, root)
        return take_up(folder, root, **change)[0].resumed

    assert resumed() == N - 1
    assert resumed(source={"sha256": "1" * 64}) == 0
    assert resumed(n=N - 1) == 0
    interrupt(images, root)
    moved = images.rename(images.with_name("moved"))
    interrupt(moved, root)
    identity = json.loads(journal(root).read_bytes().splitlines()[0])["identity"]
    assert identity["links"] == {"images": str(moved)}
    real = preparation._code_sha256()
    # Sizes of images and frames of videos are read outside of this room.
    monkeypatch.setattr(preparation, "_CODE", ("benchmarks",))
    assert preparation._code_sha256() != real
    monkeypatch.setattr(preparation, "_code_sha256", lambda: "another version")
    assert take_up(moved, root)[0].resumed == 0


def test_an_image_replaced_between_the_runs_is_looked_at_again(images: Path, root: Path) -> None:
    interrupt(images, root)
    Image.new("L", (77, 55)).save(images / "4.png")
    done, counted = take_up(images, root)
    assert (counted, done.resumed) == ([0, 4], N - 2)
    assert load_samples("toy", root=root)[4].image_sizes == [(77, 55)]


def test_a_frame_that_is_added_makes_its_video_be_looked_at_again(images: Path, root: Path) -> None:
    """A half-unpacked video: the places of its frames were counted in half a list."""
    for video in ("a", "b"):
        (images / video).mkdir()
        for number in range(3):
            Image.new("L", (20, 10)).save(images / video / f"{number}.png")

    def convert(video: str) -> list[GroundingSample]:
        frames = sorted(path.name for path in (images / video).iterdir())
        return [
            make_sample(
                id=f"toy-{video}",
                images=(f"toy/images/{video}/{frames[-1]}",),
                widths=(20,),
                heights=(10,),
                targets=(),
                extra={"video": f"toy/images/{video}", "n_frames": len(frames)},
            )
        ]

    def release(*items: Item) -> Release:
        return Release("toy", items, {"images": images})

    items = [Item(video, partial(convert, video)) for video in ("a", "b")]
    with pytest.raises(UserError, match="1 of 3 items"):
        prepare_release(release(*items, Item("c", fail)), root=root)
    Image.new("L", (20, 10)).save(images / "b" / "3.png")
    done = prepare_release(release(*items, Item("c", list)), root=root)
    assert done.resumed == 1
    facts = {s.id: s.extra["n_frames"] for s in load_samples("toy", root=root)}
    assert facts == {"toy-a": 3, "toy-b": 4}


def test_another_input_of_an_item_that_changes(images: Path, root: Path, tmp_path: Path) -> None:
    inputs = [tmp_path / "mask-0", tmp_path / "mask-1"]
    for path in inputs:
        path.write_text("1")

    def release(**options: object) -> Release:
        made = toy_release(images, n=3, **options)  # type: ignore[arg-type]
        plain = list(made.items)
        items = [replace(i, inputs=lambda k=k: (inputs[k],)) for k, i in enumerate(plain[:2])]
        return replace(made, items=[*items, plain[2]])

    with pytest.raises(UserError):
        prepare_release(release(faults={2: ("invalid_row", "no")}), root=root)
    inputs[1].write_text("two")
    counted: list[int] = []
    assert prepare_release(release(converted=counted.append), root=root).resumed == 1
    assert counted == [1, 2]


def test_paths_that_are_no_text(images: Path, root: Path) -> None:
    """As in a C locale, or on a disk that was written under another encoding."""
    moved = images.rename(images.with_name("caf\udce9"))
    assert prepare_release(toy_release(moved), root=root).manifest["n"] == N
    with pytest.raises(UserError, match=r"a file name of the release, .* is no text"):
        prepare_release(toy_release(moved, source={"file": "caf\udce9.json"}), root=root)


def test_a_benchmark_folder_on_another_disk(images: Path, root: Path) -> None:
    """The user has put a link there, as unpacked archives need room; renames cannot cross."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == images.stat().st_dev:
        pytest.skip("needs a second disk at /dev/shm")
    with tempfile.TemporaryDirectory(dir=shared) as other:
        root.mkdir()
        (root / "toy").symlink_to(other)
        assert prepare_release(toy_release(images), root=root).manifest["n"] == N
        assert len(load_samples("toy", root=root)) == N
        names = sorted(path.name for path in Path(other).iterdir())
        assert names == ["images", "manifest.json", "samples.jsonl"]


def test_an_image_that_the_reader_wrote_and_somebody_removed_is_made_again(root: Path) -> None:
    """RefCOCO's parquet forms hold their images; the reader writes them while it converts."""
    folder = root / "toy" / "embedded"

    def convert(number: int) -> list[GroundingSample]:
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (20, 10)).save(folder / f"{number}.png")
        return [
            make_sample(
                number,
                images=(f"toy/embedded/{number}.png",),
                widths=(20,),
                heights=(10,),
                targets=(),
            )
        ]

    items = [Item(f"{k}", lambda k=k: convert(k)) for k in range(3)]
    release = Release("toy", [*items, Item("3", fail)], links={})
    with pytest.raises(UserError):
        prepare_release(release, root=root)
    (folder / "1.png").unlink()
    done = prepare_release(release, root=root, skip_faulty=True)
    assert done.resumed == 2
    assert (folder / "1.png").is_file()


# --- faults -----------------------------------------------------------------------------------

FAULTS = {
    2: ("missing_image", "2.png is not there"),
    3: ("missing_image", "3.png is not there"),
    5: ("missing_image", "5.png is not there"),
    6: ("missing_image", "6.png is not there"),
    7: ("invalid_mask", "counts are 7 instead of 12"),
}


def test_faults_are_reported_together_and_nothing_is_replaced(images: Path, root: Path) -> None:
    prepare_release(toy_release(images, n=3), root=root)
    before = prepared_files(root)
    with pytest.raises(UserError) as error:
        prepare_release(toy_release(images, faults=FAULTS), root=root)
    lines = str(error.value).splitlines()
    assert "5 of 12 items are faulty, so nothing was prepared" in lines[0]
    assert lines[1].startswith("  4 missing_image: ")
    assert lines[2:6] == [
        "    row-2: 2.png is not there",
        "    row-3: 3.png is not there",
        "    row-5: 5.png is not there",
        "    … and 1 more items",
    ]
    assert lines[6].startswith("  1 invalid_mask: ")
    assert "--skip-faulty" in lines[-1]
    assert prepared_files(root) == before
    # The sound items are not lost, and the faulty ones are tried again.
    done, counted = take_up(images, root)
    assert counted == sorted(FAULTS)
    assert done.manifest["complete"] is True


def test_one_file_that_many_items_lack_is_reported_once(images: Path, root: Path) -> None:
    faults = {k: ("missing_image", "shared.png is not there") for k in range(2, 9)}
    faults[9] = ("missing_image", "own.png is not there")
    with pytest.raises(UserError, match=r"row-2: shared.*\n +row-9: own.*\n +… and 6 more"):
        prepare_release(toy_release(images, faults=faults), root=root)


def test_the_sound_part_alone_is_marked(images: Path, root: Path) -> None:
    whole = prepare_release(toy_release(images), root=root)
    done = prepare_release(toy_release(images, faults=FAULTS), root=root, skip_faulty=True)
    manifest = load_manifest("toy", root)
    assert (manifest["n"], manifest["complete"]) == (N - len(FAULTS), False)
    assert [fault["item"] for fault in manifest["skipped"]] == [f"row-{k}" for k in FAULTS]
    assert manifest["skipped"][4]["kind"] == FAULTS[7][0]
    assert manifest["skipped"][4]["message"] == FAULTS[7][1]
    assert done.manifest == manifest
    assert manifest["fingerprint"] != whole.manifest["fingerprint"]
    assert not journal(root).exists()


def test_nothing_sound_is_refused_even_so(images: Path, root: Path) -> None:
    faults = {k: ("missing_image", "not there") for k in range(N)}
    with pytest.raises(UserError, match="12 of 12 items are faulty"):
        prepare_release(toy_release(images, faults=faults), root=root, skip_faulty=True)
    with pytest.raises(UserError, match="holds no items"):
        prepare_release(toy_release(images, n=0), root=root, skip_faulty=True)
    assert not (root / "toy").exists()


def test_rows_that_no_file_can_hold_and_two_items_of_one_key(images: Path, root: Path) -> None:
    release = toy_release(images, n=2)
    first, second = release.items
    for text in ("half of a pair \ud800", float("nan"), b"\xff"):

        def convert(text: object = text) -> list[GroundingSample]:
            return [replace(sample, extra={"text": text}) for sample in second.convert()]

        broken = replace(release, items=[first, Item("row-1", convert)])
        with pytest.raises(UserError, match="row-1: cannot be written as JSON"):
            prepare_release(broken, root=root)
    twice = replace(release, items=[first, Item(first.key, second.convert)])
    with pytest.raises(UserError, match="'row-0' is a duplicate"):
        prepare_release(twice, root=root)


# --- the place --------------------------------------------------------------------------------


def test_a_folder_of_images_in_the_data_root_stays_and_moves_with_it(
    images: Path, root: Path
) -> None:
    (root / "toy").mkdir(parents=True)
    inside = images.rename(root / "toy" / "images")
    prepare_release(toy_release(inside), root=root)
    assert not (root / "toy" / "images").is_symlink()
    with pytest.raises(UserError, match="exists and is not a link"):
        prepare_release(toy_release(inside.parent), root=root)
    # Unpacked below the benchmark's folder: the link goes with the data root.
    unpacked = root / "toy" / "unpacked"
    unpacked.mkdir()
    inside.rename(unpacked / "images")
    prepare_release(toy_release(unpacked / "images"), root=root)
    moved = root.rename(root.with_name("elsewhere"))
    sample = load_samples("toy", root=moved)[0]
    assert (moved / sample.images[0]).is_file()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("samples.jsonl", '{"space": "pixels"}\n{"images": ["a.jpg"]}\n'),
        ("samples.jsonl", '[{"benchmark": "toy"}]'),
        ("manifest.json", '{"version": 3}'),
    ],
)
def test_files_of_the_user_in_the_data_root_are_not_replaced(
    name: str, text: str, images: Path, root: Path
) -> None:
    """UNIVG_DATA=./data and own questions in ./data/custom/samples.jsonl."""
    (root / "toy").mkdir(parents=True)
    (root / "toy" / name).write_text(text)
    with pytest.raises(UserError, match=rf"{name} is not of the prepared benchmark 'toy'"):
        prepare_release(toy_release(images), root=root)
    assert (root / "toy" / name).read_text() == text
    assert [path.name for path in (root / "toy").iterdir()] == [name]
    (root / "toy" / name).write_text("\0\0")  # what a power cut leaves
    assert prepare_release(toy_release(images), root=root).manifest["n"] == N


def test_a_dangling_link_is_replaced_and_images_that_are_nowhere_are_refused(
    images: Path, root: Path
) -> None:
    (root / "toy").mkdir(parents=True)
    (root / "toy" / "images").symlink_to(root / "gone")
    with pytest.raises(UserError, match=r"folder of images .*absent does not exist"):
        prepare_release(toy_release(images.with_name("absent")), root=root)
    for given in (images, root / "toy" / "images"):  # the link itself
        prepare_release(toy_release(given), root=root)
        assert (root / "toy" / "images").resolve() == images


def test_two_at_once_are_refused(images: Path, root: Path) -> None:
    with (
        preparation.preparing("toy", root),
        pytest.raises(UserError, match=rf"another `univg prepare toy`.*process {os.getpid()}"),
    ):
        prepare_release(toy_release(images), root=root)
    with preparation.preparing("other", root):  # another benchmark is not in the way
        prepare_release(toy_release(images), root=root)


# --- a disk that does not take it -------------------------------------------------------------


def test_a_full_disk_while_converting(
    images: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_release(toy_release(images, n=3), root=root)
    before = prepared_files(root)
    append = Journal.append
    count = 0

    def full(self, *args) -> None:
        nonlocal count
        count += 1
        if count > 5:  # the identity and four items
            raise OSError(28, "No space left on device")
        append(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", full)
        with pytest.raises(UserError, match=r"No space left on device; free space or choose"):
            prepare_release(toy_release(images), root=root)
    assert prepared_files(root) == before
    assert prepare_release(toy_release(images), root=root).resumed == 4


def test_a_disk_without_room_for_the_lock(images: Path, root: Path) -> None:
    with largest_file(0), pytest.raises(UserError, match=r"cannot write to .*File too large; "):
        prepare_release(toy_release(images), root=root)


def test_a_write_that_the_system_cuts_short(images: Path, root: Path) -> None:
    """The system takes a part of a line and then refuses: the part is no item."""
    with (
        largest_file(3000),
        pytest.raises(UserError, match=r"cannot write to .*File too large.* next run"),
    ):
        prepare_release(toy_release(images), root=root)
    whole = journal(root).read_bytes()
    assert len(whole) == 3000
    assert not (root / "toy").exists()
    assert prepare_release(toy_release(images), root=root).resumed == whole.count(b"\n") - 1


def test_a_data_root_that_cannot_be_written(images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*file.*choose a data root"):
        prepare_release(toy_release(images), root=tmp_path / "file" / "root")
    with pytest.raises(UserError, match=r"cannot write to"):
        prepare_release(toy_release(images), root="/proc/univg")
