"""``univg prepare`` as a user meets it: every way in, what it prints, and what it refuses."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_hub
import pytest
import refcoco_forms
import release_still
import release_video
from PIL import Image
from test_cli_score import annotation_rows

from univg_eval.benchmarks.preparing.catalog import CATALOG
from univg_eval.benchmarks.preparing.stand_ins import draw_images
from univg_eval.cli import main
from univg_eval.errors import UserError
from univg_eval.images.reading import image_size
from univg_eval.samples import fingerprint, has_stand_ins, load_manifest, load_samples

ROOT = Path(__file__).resolve().parent.parent


def write_release(folder: Path, file: str = "MIG_data.json", scale: int = 1) -> Path:
    """A folder as MIG-Bench unpacks, five rows on eight images."""
    rows = annotation_rows()
    for row in rows:
        row["answer"] = [v if scale == 1 else round(v * scale) for v in row["answer"]]
        for k, name in enumerate(row["images"]):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40 + k, 30)).save(path)
    (folder / file).write_text(json.dumps(rows))
    return folder


def zip_folder(folder: Path, archive: Path, top: str = "") -> Path:
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.write(path, f"{top}{path.relative_to(folder)}")
    return archive


def lisa_rows(image: str) -> list[dict[str, Any]]:
    return [{"image_path": image, "instruction": "the cat", "boxes": [[10, 10, 50, 40]]}]


def write_photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (100, 50)).save(path)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return write_release(tmp_path / "release")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def prepare(root: Path, *arguments: object) -> int:
    return main(["prepare", *map(str, arguments), "--root", str(root)])


def refusal(capsys: pytest.CaptureFixture[str], root: Path, *arguments: object) -> str:
    """The message of a run that ends with status 2."""
    capsys.readouterr()
    assert prepare(root, *arguments) == 2
    return capsys.readouterr().err


def report_of(capsys: pytest.CaptureFixture[str], root: Path, *arguments: object) -> dict[str, Any]:
    """What a run prints with --json."""
    capsys.readouterr()
    assert prepare(root, *arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def all_images_are_there(root: Path, benchmark: str = "mig_bench") -> bool:
    samples = load_samples(benchmark, root=root)
    return all((root / image).is_file() for sample in samples for image in sample.images)


# --- ways in ----------------------------------------------------------------------------------


def test_what_was_made_and_what_is_next(
    release: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(root, "mig_bench", "--source", release) == 0
    out = capsys.readouterr().out
    manifest = load_manifest("mig_bench", root)
    assert f"mig_bench: 5 samples in 3 tasks, in {root / 'mig_bench'}" in out
    assert "tasks: common_object 3, diff 1, group_grounding 1" in out
    assert "splits: test 5" in out
    assert "audit: invalid_box 1, unequal_pair 1" in out
    assert f"fingerprint {manifest['fingerprint']}" in out
    assert "next: univg eval --tasks univg_mig_bench " in out
    assert "not comparable" not in out
    assert "the annotation files are NOT the released ones" in out
    assert manifest["source"]["is_released_file"] is False
    report = report_of(capsys, root, "mig_bench", "--source", release)
    expected = {
        "benchmark": "mig_bench",
        "n": 5,
        "complete": True,
        "tasks": {"common_object": 3, "diff": 1, "group_grounding": 1},
        "splits": {"test": 5},
        "findings": {"invalid_box": 1, "unequal_pair": 1},
        "eval_tasks": ["univg_mig_bench"],
        "replaced": None,
        "fingerprint": manifest["fingerprint"],
    }
    assert {name: report[name] for name in expected} == expected


def test_fewer_than_the_authors_state_is_reported(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of an archive looks like a smaller set."""
    release_still.write_lisa_full(tmp_path / "ReasonSeg")
    assert prepare(root, "lisa_full", "--source", tmp_path / "ReasonSeg") == 0
    out = capsys.readouterr().out
    assert "val: 3 images; its authors state 200." in out
    assert "test: 3 images; its authors state 779." in out
    refcoco_forms.write_shikra(tmp_path / "shikra")
    images = refcoco_forms.photographs(tmp_path / "train2014")
    arguments = ("--form", "shikra", "--source", tmp_path / "shikra", "--images", images)
    report = report_of(capsys, root, "refcoco", *arguments)
    assert [(row["split"], row["of"], row["stated"]) for row in report["fewer_than_stated"]] == [
        ("val", "expressions", 10_834),
        ("testA", "expressions", 5_657),
        ("testB", "expressions", 5_095),
    ]
    assert [row["found"] for row in report["fewer_than_stated"]] == list(report["splits"].values())


def test_what_may_not_be_looked_at(
    release: Path, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = "File name too long; give --source and --images"
    assert message in refusal(capsys, root, "mig_bench", "--source", release / ("x" * 300))
    given = ("--source", release, "--images", "x" * 300)
    assert message in refusal(capsys, root, "mig_bench", *given)
    (locked := release / "locked").mkdir()
    iterdir = Path.iterdir

    def look(path: Path) -> Iterator[Path]:
        if path == locked:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", look)
    message = f"cannot read {locked}: Permission denied; give --source and --images"
    for benchmark in ("lisa", "lisa_full", "revos_full"):
        assert message in refusal(capsys, root, benchmark, "--source", locked)
    assert not root.exists()


def test_twice_is_the_same_and_another_file_is_reported(
    release: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("mig_bench", "--source", release)
    first = report_of(capsys, root, *arguments)
    assert report_of(capsys, root, *arguments) == first
    rows = json.loads((release / "MIG_data.json").read_text())
    (release / "MIG_data.json").write_text(json.dumps(rows[:4]))
    assert prepare(root, *arguments) == 0
    out = capsys.readouterr().out
    assert "it replaced another set of 5 samples (test 5), fingerprint " in out
    assert first["fingerprint"] in out


def test_the_file_itself_with_images_elsewhere_or_above(
    release: Path, root: Path, tmp_path: Path
) -> None:
    file = (release / "MIG_data.json").rename(tmp_path / "MIG_data.json")
    assert prepare(root, "mig_bench", "--source", file, "--images", release) == 0
    assert all_images_are_there(root)
    # The repository has eval/MIG-Bench/{MIG_data.json, images}.
    file.rename(release / "MIG-Bench" / "MIG_data.json")
    assert prepare(tmp_path / "other", "mig_bench", "--source", release) == 0
    assert all_images_are_there(tmp_path / "other")


@pytest.mark.parametrize("top", ["images/", "MIG-Bench/images/", ""])
def test_images_still_packed_are_unpacked_into_the_data_root(
    top: str, release: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the Hub's repository looks like: the annotation file and images.zip beside it."""
    zip_folder(release / "MIG-Bench" / "images", release / "images.zip", top)
    shutil.rmtree(release / "MIG-Bench")
    before = sorted(release.rglob("*"))
    first = report_of(capsys, root, "mig_bench", "--source", release)
    assert all_images_are_there(root)
    assert sorted(release.rglob("*")) == before, "the folder of downloads is not written to"
    assert load_manifest("mig_bench", root)["archives"] == [
        {"name": "images.zip", "size": (release / "images.zip").stat().st_size}
    ]
    # Again: nothing is unpacked a second time, and the result is the same.
    mark = root / "mig_bench" / "unpacked" / "images" / "mark"
    mark.write_text("")
    assert report_of(capsys, root, "mig_bench", "--source", release) == first
    assert mark.exists()
    # The data root can be moved with everything in it.
    moved = root.rename(root.with_name("moved"))
    assert all_images_are_there(moved)


@pytest.mark.parametrize("top", ["release", "MIG-Bench", "thunlp-Migician-1a2b3c4", "."])
def test_the_whole_release_as_one_archive(
    top: str, release: Path, root: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "release.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(release, top)
    assert prepare(root, "mig_bench", "--source", archive) == 0
    assert all_images_are_there(root)


def test_one_split_as_an_archive(root: Path, tmp_path: Path) -> None:
    """ReasonSeg is handed out as val.zip and test.zip, which hold val/ and test/."""
    folder = tmp_path / "made" / "val"
    write_photo(folder / "a.jpg")
    shape = {"label": "target", "points": [[10, 10], [50, 10], [50, 40], [10, 40]]}
    annotation = {"shapes": [shape], "text": ["the cat"], "is_sentence": False}
    (folder / "a.json").write_text(json.dumps(annotation))
    archive = zip_folder(folder.parent, tmp_path / "val.zip")
    assert prepare(root, "lisa_full", "--source", archive) == 0
    assert all_images_are_there(root, "lisa_full")


def test_archives_that_were_forgotten_are_named(
    release: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is unpacked goes first, so somebody who broke off unpacking has to know."""
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "val.zip").write_bytes(b"")
    err = refusal(capsys, root, "lisa_full", "--source", tmp_path / "packed")
    assert f"Still packed in {tmp_path / 'packed'}, and not used: val.zip. Unpack what" in err
    zip_folder(release / "MIG-Bench" / "images", release / "images.zip", "images/")
    (release / "MIG-Bench" / "images" / "static_diff" / "1_source.png").unlink()
    err = refusal(capsys, root, "mig_bench", "--source", release)
    assert "1_source.png does not exist; unpack or copy it there" in err
    assert f"Still packed in {release}, and not used: images.zip" in err
    assert prepare(root, "mig_bench", "--source", release, "--images", release / "images.zip") == 0


def test_a_bad_archive_is_named_and_nothing_is_written(
    release: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = zip_folder(release / "MIG-Bench" / "images", release / "images.zip", "images/")
    shutil.rmtree(release / "MIG-Bench")
    packed.write_bytes(packed.read_bytes()[:-100])
    err = refusal(capsys, root, "mig_bench", "--source", release)
    assert str(packed) in err
    assert "half downloaded" in err
    assert [path.name for path in root.rglob("*")] == [".preparing", "mig_bench.lock"]


def test_the_revised_file_needs_its_scale_and_refuses_a_wrong_one(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_release(tmp_path / "r", "revised_MIG_bench.json", 1000)
    revised = ("mig_bench_revised", "--source", folder)
    assert "give --scale" in refusal(capsys, root, *revised)
    err = refusal(capsys, root, *revised, "--scale", "1")
    assert "above 1.5 although --scale 1 says" in err
    assert prepare(root, *revised, "--scale", "1000") == 0
    assert load_samples("mig_bench_revised", root=root)[0].box == (0.1, 0.2, 0.5, 0.6)
    assert load_manifest("mig_bench_revised", root)["source"]["scale"] == 1000
    err = refusal(capsys, root, "mig_bench", "--source", folder / "revised_MIG_bench.json")
    assert "has the name of the file of revision 'revised'" in err
    err = refusal(capsys, root, "mig_bench", "--source", folder)
    assert "does not hold the annotation file MIG_data.json" in err
    assert "found: revised_MIG_bench.json" in err


def test_splits_and_what_can_be_run_then(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "lisa"
    write_photo(folder / "a.jpg")
    for split in ("val", "test"):
        (folder / f"lisa_{split}.json").write_text(json.dumps(lisa_rows("a.jpg")))
    report = report_of(capsys, root, "lisa", "--source", folder, "--split", "val")
    assert report["splits"] == {"val": 1}
    assert report["eval_tasks"] == ["univg_lisa_val"]
    report = report_of(capsys, root, "lisa", "--source", folder)
    assert report["eval_tasks"] == ["univg_lisa_val", "univg_lisa_test"]
    assert report["replaced"]["splits"] == {"val": 1}
    err = refusal(capsys, root, "lisa", "--source", folder, "--split", "train")
    assert "'lisa' has no split 'train'; it has: val, test" in err


def test_a_form_that_holds_its_images(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow", reason="needs the extra 'eval'")
    folder = refcoco_forms.write_lmms_lab(tmp_path / "lmms_lab")
    report = report_of(capsys, root, "refcoco", "--source", folder, "--form", "lmms_lab")
    assert report["n"] == 10
    assert report["eval_tasks"] == [f"univg_refcoco_{split}" for split in ("val", "testA", "testB")]
    assert all_images_are_there(root, "refcoco")
    assert "--form" in refusal(capsys, root, "refcoco", "--source", folder)


def test_faulty_items_and_the_sound_part(
    release: Path, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (release / "MIG-Bench" / "images" / "static_diff" / "1_source.png").unlink()
    err = refusal(capsys, root, "mig_bench", "--source", release)
    assert "1 of 5 items are faulty" in err
    assert not (root / "mig_bench").exists()
    assert prepare(root, "mig_bench", "--source", release, "--skip-faulty") == 0
    out = capsys.readouterr().out
    assert "NOT COMPLETE: 1 faulty items were left out" in out
    assert "4 items had been converted by an earlier run" in out
    manifest = load_manifest("mig_bench", root)
    assert manifest["complete"] is False
    assert manifest["skipped"][0]["kind"] == "missing_image"
    rows = {row["name"]: row for row in report_of(capsys, root, "--list")["benchmarks"]}
    assert rows["mig_bench"]["prepared"]["complete"] is False
    # A task whose rows were all faulty says why it is empty.
    pytest.importorskip("lmms_eval", reason="needs the extra 'eval'")
    from univg_eval.lmms.docs import load_rows

    monkeypatch.setenv("UNIVG_DATA", str(root))
    with pytest.raises(UserError, match=r"no rows of task 'diff' .* not complete: 1 faulty items"):
        load_rows("mig_bench", "diff", "test")
    with pytest.raises(UserError, match=r"no rows of task 'diffs'"):
        load_rows("mig_bench", "diffs", "test")


# --- the Hub ----------------------------------------------------------------------------------


@pytest.fixture
def hub() -> Iterator[fake_hub.FakeHub]:
    with fake_hub.serve() as served:
        yield served


def run_with_hub(
    hub: fake_hub.FakeHub, root: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the Hub's library reads its address when it is imported."""
    return subprocess.run(
        [sys.executable, "-m", "univg_eval", "prepare", *arguments, "--root", str(root)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ
        | {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": f"{root}-hf",
            "HF_HUB_DISABLE_XET": "1",
            # The suite may run with the variable set.
            "HF_HUB_OFFLINE": "0",
        }
        | environment,
    )


def add_to_hub(hub: fake_hub.FakeHub, name: str, *contents: dict[str, bytes]) -> None:
    for files, content in zip(CATALOG[name].hub, contents, strict=True):
        assert set(content) == set(files.files)
        hub.add(files.repo, files.revision, content | {"README.md": b"card"}, "main")


def test_download_unpack_and_prepare_in_one_go(
    hub: fake_hub.FakeHub, release: Path, root: Path, tmp_path: Path
) -> None:
    pytest.importorskip("huggingface_hub", reason="needs the extra 'eval'")
    packed = zip_folder(release / "MIG-Bench" / "images", tmp_path / "images.zip", "images/")
    annotations = (release / "MIG_data.json").read_bytes()
    add_to_hub(hub, "mig_bench", {"MIG_data.json": annotations, "images.zip": packed.read_bytes()})
    done = run_with_hub(hub, root, "mig_bench", "--download", "--json")
    assert done.returncode == 0, done.stderr
    assert all_images_are_there(root)
    manifest = load_manifest("mig_bench", root)
    (files,) = CATALOG["mig_bench"].hub
    assert manifest["hub"] == [{"repo": "Michael4933/MIG-Bench", "commit": files.revision}]
    assert manifest["archives"][0]["name"] == "images.zip"
    # Once more, without a network: from the cache, the same set.
    again = run_with_hub(hub, root, "mig_bench", "--download", "--json", HF_HUB_OFFLINE="1")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == json.loads(done.stdout)
    # Where the images are given, the archive is not fetched.
    hub.requests.clear()
    images = ("--images", str(release), "--hub-revision", "main")
    given = run_with_hub(hub, tmp_path / "given", "mig_bench", "--download", "--json", *images)
    assert given.returncode == 0, given.stderr
    assert not [request for request in hub.requests if "images.zip" in request]
    # Prepared from the files by hand it is the same set too.
    assert prepare(tmp_path / "by_hand", "mig_bench", "--source", release) == 0
    by_hand = load_manifest("mig_bench", tmp_path / "by_hand")
    assert by_hand["fingerprint"] == manifest["fingerprint"]


def test_download_of_annotations_whose_images_are_elsewhere(
    hub: fake_hub.FakeHub, root: Path, tmp_path: Path
) -> None:
    pytest.importorskip("huggingface_hub", reason="needs the extra 'eval'")
    images = tmp_path / "reasonseg"
    files = {}
    for split in ("val", "test"):
        write_photo(images / split / "a.jpg")
        rows = json.dumps(lisa_rows(f"{split}/a.jpg")).encode()
        files[f"zero_shot_evaluation/lisa_{split}.json"] = rows
    add_to_hub(hub, "lisa", files)
    done = run_with_hub(hub, root, "lisa", "--download")
    assert done.returncode == 2
    assert "its images are not on the Hub" in done.stderr
    assert "drive.google.com" in done.stderr
    assert "Traceback" not in done.stderr
    given = ("--images", str(images), "--json")
    done = run_with_hub(hub, root, "lisa", "--download", *given, "--hub-revision", "main")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["eval_tasks"] == ["univg_lisa_val", "univg_lisa_test"]
    assert load_manifest("lisa", root)["hub"][0]["repo"] == "GD-ML/UniVG-R1-data"


def test_download_says_what_it_cannot_do(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    err = refusal(capsys, root, "revos_full", "--download")
    assert "'revos_full' is not on the Hub" in err
    assert "https://github.com/cilinyan/ReVOS-api" in err
    assert refusal(capsys, root, "custom").endswith("the folder that holds it\n")


# --- options ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("lisa --source . --sampling all", "--sampling is not an option of benchmark 'lisa'"),
        ("mig_bench --source . --seed 3", "--seed is not an option of benchmark 'mig_bench'"),
        ("lisa --source . --revision original", "--revision is not an option of benchmark 'lisa'"),
        ("llmseg --source . --ego-objects .", "--ego-objects is not an option of benchmark 'll"),
        ("lisa --source . --stand-in-images", "--stand-in-images is not an option of benchmark"),
        ("mini --stand-in-images", "--stand-in-images is not an option of benchmark 'mini'"),
        (
            "mig_bench --source . --images . --stand-in-images",
            "--images and --stand-in-images exclude each other",
        ),
        ("mini --download", "--download is not an option of benchmark 'mini'"),
        ("mig_bench_revised --revision original", "but --revision says 'original'"),
        ("mini --list", "--list shows all benchmarks; leave the name out"),
        ("refcoco+ --source x --n 3", "--n is not an option of benchmark 'refcoco+'"),
        ("mig_bench --download --source .", "--source and --download exclude each other"),
        ("mig_bench --hub-revision x --source .", "--hub-revision goes with --download"),
    ],
)
def test_options_that_do_not_belong_are_refused(
    arguments: str, message: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refusal(capsys, root, *arguments.split())
    assert not root.exists()


def test_every_option_of_a_reader_exists(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["prepare", "--help"])
    text = capsys.readouterr().out
    for entry in CATALOG.values():
        for option in entry.options:
            assert f"--{option.replace('_', '-')} " in text, (entry.name, option)


def test_list(root: Path, release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(root, "mig_bench", "--source", release) == 0
    capsys.readouterr()
    assert prepare(root, "--list") == 0
    out = capsys.readouterr().out
    assert f"data root: {root}" in out
    for name in CATALOG:
        assert f"\n{name} " in out
    after = out.split("\nmig_bench ")[1].split("\nmig_bench_revised ")[0]
    assert "5 samples" in after
    assert "tasks: univg_mig_bench" in after
    assert "not prepared" in out.split("\nrevos_full ")[1]
    rows = report_of(capsys, root, "--list")["benchmarks"]
    assert [row["name"] for row in rows] == list(CATALOG)
    assert {row["name"] for row in rows if row["prepared"]} == {"mig_bench"}


def test_list_of_a_data_root_that_cannot_be_looked_at(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = report_of(capsys, root / ("x" * 300), "--list")["benchmarks"]
    assert [row["name"] for row in rows if row["prepared"]] == []


# --- generated --------------------------------------------------------------------------------


def test_mini_keeps_the_size_of_the_prepared_set(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("av", reason="needs the extra 'eval'")
    assert prepare(root, "mini", "--n", "1", "--seed", "7") == 0
    assert "made with --n 1 --seed 7" in capsys.readouterr().out
    before = load_manifest("univg_mini", root)["fingerprint"]
    assert prepare(root, "mini") == 0
    out = capsys.readouterr().out
    assert "made with --n 1 --seed 7" in out
    assert "replaced" not in out
    assert load_manifest("univg_mini", root)["fingerprint"] == before
    report = report_of(capsys, root, "univg_mini", "--seed", "8")
    assert report["generator"]["n_per_task"] == 1
    assert report["generator"]["seed"] == 8
    assert report["replaced"]["generator"]["seed"] == 7
    assert report["replaced"]["fingerprint"] == before


# --- the real annotations ---------------------------------------------------------------------

REAL_FINGERPRINT = "f22481f3b02234377d78f82faf09618e2f4efbf31a21925ad97505642cf3861a"


def test_the_real_annotations_prepare_whole_on_stand_ins_and_on_images_of_their_paths(
    shared_dir: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = shared_dir / "data" / "mig_bench" / "MIG_data.json"
    if not annotations.is_file():
        pytest.skip(f"needs the released annotation file {annotations}")
    source = ("mig_bench", "--source", annotations)
    trial = report_of(capsys, root, *source, "--stand-in-images")
    drawn = root / "mig_bench" / "stand_in_images"
    assert len([path for path in drawn.rglob("*") if path.is_file()]) == 5887
    whole = report_of(capsys, root.with_name("whole"), *source, "--images", drawn)
    for report in (trial, whole):
        assert report["n"] == 4295
        assert report["findings"]["invalid_box"] == 7
        assert report["findings"]["duplicate"] == 2
        assert report["is_released_file"] is True
        assert "unequal_pair" not in report["findings"]
    assert trial["fingerprint"] != whole["fingerprint"] == REAL_FINGERPRINT
    assert (trial["stand_in_images"], whole["stand_in_images"]) == (True, False)
    assert load_manifest("mig_bench", root)["audit"]["n_images"] == 5887


# --- stand-in images --------------------------------------------------------------------------


def test_stand_ins_are_marked_and_make_another_set(
    release: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = release / "MIG_data.json"
    assert prepare(root, "mig_bench", "--source", annotations, "--stand-in-images") == 0
    assert "images: STAND-INS" in capsys.readouterr().out
    assert all_images_are_there(root)
    trial = load_samples("mig_bench", root=root)
    assert has_stand_ins(trial)
    sizes = {sample.image_sizes[0] for sample in trial}
    assert all(min(size) >= 200 for size in sizes)  # not those of the release, which are 30 high
    assert main(["prepare", "--list", "--root", str(root)]) == 0
    assert "5 samples, STAND-IN IMAGES" in capsys.readouterr().out
    assert main(["audit", "mig_bench", "--root", str(root), "--json"]) in (0, 3)
    assert json.loads(capsys.readouterr().out)["notes"]["stand_ins"] == len(trial)

    drawn = root / "mig_bench" / "stand_in_images"
    err = refusal(capsys, root, "mig_bench", "--source", annotations, "--images", drawn)
    assert "holds stand-ins; give --stand-in-images instead" in err
    # The real images take their place, and nothing of the trial is left.
    report = report_of(capsys, root, "mig_bench", "--source", release)
    assert not has_stand_ins(load_samples("mig_bench", root=root))
    assert report["replaced"]["fingerprint"] == fingerprint(trial) != report["fingerprint"]
    assert not drawn.exists()


def test_stand_ins_are_the_same_every_time_and_those_of_a_pair_alike_in_size(
    tmp_path: Path,
) -> None:
    names = ["static_diff/7_source.png", "static_diff/7_target.png", "region/a b.jpeg", "x.jpg"]
    for folder in ("a", "b"):
        draw_images(names, tmp_path / folder)
    content = {name: (tmp_path / "a" / name).read_bytes() for name in names}
    assert content == {name: (tmp_path / "b" / name).read_bytes() for name in names}
    assert len(set(content.values())) == len(names)
    assert image_size(tmp_path / "a" / names[0]) == image_size(tmp_path / "a" / names[1])
    assert [content[name][:2] for name in names] == [b"\x89P", b"\x89P", b"\xff\xd8", b"\xff\xd8"]


def test_downloaded_annotations_need_no_images_for_a_trial(
    hub: fake_hub.FakeHub, release: Path, root: Path
) -> None:
    pytest.importorskip("huggingface_hub", reason="needs the extra 'eval'")
    annotations = (release / "MIG_data.json").read_bytes()
    add_to_hub(hub, "mig_bench", {"MIG_data.json": annotations, "images.zip": b"never fetched"})
    done = run_with_hub(hub, root, "mig_bench", "--download", "--stand-in-images", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["stand_in_images"] is True
    assert not [request for request in hub.requests if "images.zip" in request]


def test_files_that_are_not_the_published_ones_are_reported(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pycocotools")
    from univg_eval.benchmarks.readers import revos

    release_video.write_revos_full(tmp_path / "ReVOS")
    arguments = ("revos_full", "--source", tmp_path / "ReVOS")
    assert prepare(root, *arguments) == 0
    assert "the annotation files are NOT the released ones" in capsys.readouterr().out
    written = {
        name: hashlib.sha256((tmp_path / "ReVOS" / name).read_bytes()).hexdigest()
        for name in revos.RELEASED_SHA256
    }
    monkeypatch.setattr(revos, "RELEASED_SHA256", written)
    assert report_of(capsys, root, *arguments)["is_released_file"] is True


@pytest.mark.parametrize("benchmark", ["mini", "photos"])
def test_a_full_disk_while_generating(
    benchmark: str, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    err = refusal(capsys, root, benchmark, "--n", "1")
    assert "No space left on device; free space or choose another data root" in err
    assert "kept" not in err
    assert [path.name for path in root.iterdir() if not path.name.endswith(".lock")] == []


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": ""},
    ],
    ids=["ascii", "C"],
)
def test_a_terminal_that_knows_ascii_only(
    environment: dict[str, str], release: Path, root: Path
) -> None:
    folder = release.rename(release.with_name("Größe 图"))
    done = subprocess.run(
        [sys.executable, "-m", "univg_eval", "prepare", "mig_bench", f"--source={folder}"],
        capture_output=True,
        check=False,
        cwd=ROOT,
        env=os.environ | environment | {"UNIVG_DATA": str(root / "é")},
    )
    assert done.returncode == 0, done.stderr
    assert b"fingerprint " in done.stdout
    assert b"next: univg eval --tasks univg_mig_bench --model \\u2026" in done.stdout
    assert all_images_are_there(root / "é")


def test_two_archives_of_one_name_do_not_replace_each_other(root: Path, tmp_path: Path) -> None:
    """COCO's and EgoObjects' images may both lie in an images.zip."""
    from univg_eval.benchmarks.preparing.catalog import get_entry
    from univg_eval.benchmarks.preparing.locating import locate

    archives = {}
    for name in ("coco", "ego_objects"):
        (tmp_path / name).mkdir()
        archives[name] = tmp_path / name / "images.zip"
        with zipfile.ZipFile(archives[name], "w") as file:
            file.writestr(f"images/{name}.jpg", name)
    source = tmp_path / "test.json"
    source.write_text("{}")
    first = locate(get_entry("llmseg_full"), source=source, folders=archives, root=root)
    for name, folder in first.folders.items():
        assert [path.name for path in folder.iterdir()] == [f"{name}.jpg"]
    stamps = {path: path.stat().st_mtime_ns for path in root.rglob("*.jpg")}
    again = locate(get_entry("llmseg_full"), source=source, folders=archives, root=root)
    assert again == first
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.jpg")} == stamps


def test_another_archive_of_images_leaves_the_prepared_set_its_own(
    release: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new archive that turns out to lack an image must not spoil what stands."""
    folder = release / "MIG-Bench" / "images"
    images = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}
    shutil.rmtree(release / "MIG-Bench")

    def pack(names: list[str]) -> None:
        with zipfile.ZipFile(release / "images.zip", "w") as file:
            for name in names:
                file.writestr(f"images/{name}", images[name])

    pack(sorted(images))
    assert prepare(root, "mig_bench", "--source", release) == 0
    pack(sorted(images)[1:])
    assert prepare(root, "mig_bench", "--source", release) == 2
    assert all_images_are_there(root)
    (release / "images.zip").unlink()
    pack(sorted(images, reverse=True))
    assert prepare(root, "mig_bench", "--source", release) == 0
    assert all_images_are_there(root)
    unpacked = root / "mig_bench" / "unpacked"
    markers = [path.relative_to(unpacked).as_posix() for path in unpacked.rglob(".unpacked")]
    assert markers == ["3/images/.unpacked"], "those that are not used any more are gone"
    assert sorted(path.name for path in unpacked.iterdir()) == ["3"]
    mark = unpacked / "3" / "images" / "mark"
    mark.write_text("")
    assert prepare(root, "mig_bench", "--source", release) == 0
    assert mark.exists(), "nothing is unpacked again"
    assert all_images_are_there(root)


def test_a_folder_that_is_named_like_an_archive_and_what_a_killed_run_has_left(
    release: Path, root: Path
) -> None:
    left = root / "mig_bench" / "unpacked" / ".images.abcd" / "new"
    left.mkdir(parents=True)
    (left / "1.png").write_bytes(bytes(1000))
    folder = release.rename(release.with_name("release.zip"))
    assert prepare(root, "mig_bench", "--source", folder) == 0
    assert prepare(root, "mig_bench", "--source", folder, "--images", folder) == 0
    assert list((root / "mig_bench" / "unpacked").iterdir()) == []
