"""The audit of prepared benchmarks: every kind of fault planted once, and nothing else found."""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from factories import make_sample, write_clip
from PIL import Image

from univg_eval.audit import (
    KINDS,
    NOTES,
    AuditReport,
    audit_annotations,
    audit_benchmark,
    audit_samples,
)
from univg_eval.audit import files as audit_files
from univg_eval.benchmarks.readers.common.release import FaultKind
from univg_eval.benchmarks.readers.mig_bench import read_rows
from univg_eval.errors import UserError
from univg_eval.report.audit_page import audit_page
from univg_eval.samples import GroundingSample, Target, write_benchmark

BOX = (0.1, 0.2, 0.3, 0.4)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with the images that `make_sample` names."""
    folder = tmp_path / "toy" / "images"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    Image.fromarray(noise).save(folder / "a.png")
    Image.fromarray(noise[:240, :320]).save(folder / "b.png")
    return tmp_path


def still(number: int, name: str = "a.png", **changes: Any) -> GroundingSample:
    """A sample on one image of 640x480."""
    fields: dict[str, Any] = {
        "images": (f"toy/images/{name}",),
        "widths": (640,),
        "heights": (480,),
        "targets": (Target(0, BOX),),
        "instruction": f"Find thing number {number}: {'abcdefghij'[number % 10] * 20}.",
        "source": {},
        "extra": {},
    }
    return make_sample(number, **(fields | changes))


def audit(root: Path, *samples: GroundingSample, **options: Any) -> AuditReport:
    write_benchmark(samples, benchmark=samples[0].benchmark, root=root)
    return audit_benchmark(samples[0].benchmark, root, **options)


def cases(report: AuditReport) -> dict[str, list[tuple[str, ...]]]:
    """The rows concerned, by kind."""
    return {f.kind: [case.samples for case in f.cases] for f in report.findings}


def numbers(report: AuditReport) -> dict[str, list[int]]:
    """The rows concerned, by kind, as numbers."""
    return {kind: [int(row[0][-5:]) for row in rows] for kind, rows in cases(report).items()}


def details(report: AuditReport, kind: str) -> list[str]:
    (finding,) = [f for f in report.findings if f.kind == kind]
    return [case.detail for case in finding.cases]


def test_a_clean_benchmark(root):
    seen = []
    rows = make_sample(0), make_sample(1, instruction="And now?")
    report = audit(root, *rows, progress=lambda *n: seen.append(n))
    assert report.findings == ()
    assert not report.found
    assert (report.n, report.n_images, report.n_clusters) == (2, 2, 1)
    assert (dict(report.tasks), dict(report.splits)) == ({"find": 2}, {"test": 2})
    assert report.notes == {}
    assert report.images_read == "decoded"
    assert seen == [(0, 2), (1, 2), (2, 2)]
    assert audit_page(report, [], lambda _: None).render().count("Nothing was found") == 1


def test_missing_images_are_reported_once_with_all_their_rows(root):
    found = audit(root, still(0, "gone.png"), still(1), still(2, "gone.png"))
    assert cases(found) == {"missing_image": [("toy-00000", "toy-00002")]}
    report = json.loads(json.dumps(found.to_dict()))
    assert report["n"] == 3 and report["images_read"] == "decoded"
    (finding,) = report["findings"]
    assert (finding["kind"], finding["n"]) == ("missing_image", 1)
    assert set(finding) == {"kind", "meaning", "scoring", "remedy", "n", "rows"}
    (row,) = finding["rows"]
    assert (row["id"], row["ids"]) == ("toy-00000", ["toy-00000", "toy-00002"])
    assert row["file"] == "toy/images/gone.png" and "gone.png does not exist" in row["detail"]


def spoil(path: Path, keep: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


def test_truncated_images_are_found_by_decoding_them(root):
    folder = root / "toy" / "images"
    for name in ("cut.png", "cut.jpg", "whole.jpg"):
        Image.open(folder / "a.png").save(folder / name)
    spoil(folder / "cut.png", 0.9)
    spoil(folder / "cut.jpg", 0.9)
    (folder / "text.png").write_text("no image")
    samples = [still(i, n) for i, n in enumerate(["cut.png", "whole.jpg", "cut.jpg", "text.png"])]
    report = audit(root, *samples)
    assert cases(report) == {"unreadable_image": [("toy-00000",), ("toy-00002",), ("toy-00003",)]}
    quick = audit(root, *samples, open_images=False)
    assert cases(quick) == {"unreadable_image": [("toy-00003",)]}
    assert quick.images_read == "headers"


def test_sizes_are_those_of_the_upright_file(root):
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (480, 640)).save(root / "toy/images/turned.jpg", exif=exif)
    report = audit(root, still(0, "turned.jpg"), still(1, widths=(480,), heights=(640,)))
    assert cases(report) == {
        "size_mismatch": [("toy-00001",)],
        "exif_orientation": [("toy-00000",)],
    }
    assert details(report, "size_mismatch") == ["recorded as 480x640, the file is 640x480"]
    assert details(report, "exif_orientation") == [
        "orientation 8 (turned by 270 degrees): stored as 480x640, displayed as 640x480"
    ]


def boxes(*boxes: tuple[float, ...]) -> dict[str, Any]:
    return {"targets": tuple(Target(0, box) for box in boxes)}


def changed(text: str) -> dict[str, Any]:
    return {"instruction": text}


ONE = (Target(0, BOX),)
NEAR = (0.1, 0.2, 0.3, 0.41)
FAR, FAR_NEAR, FAR_MOVED = (0.5, 0.5, 0.9, 0.9), (0.5, 0.5, 0.9, 0.91), (0.5, 0.6, 0.9, 1.0)
MASK = {"size": [480, 640], "counts": [0, 1]}
BOTH = changed("Find both of them.")
WORDS = [f"w{i}" for i in range(11)]
FRAME = "This is a sequence of images. " * 9 + "Find the object that the text is about: {}."
CUP = "Find the small red cup on a table."
THREE = {"widths": (640, 320, 640), "heights": (480, 240, 480)} | {
    "images": ("toy/images/a.png", "toy/images/b.png", "toy/images/a.png")
}
ROWS = [
    # what, changes of each row, findings with their rows, notes
    (
        "a mask of another size than its image",
        [{"targets": (Target(0, BOX, MASK | size),)} for size in ({}, {"size": [640, 480]})],
        {"size_mismatch": [1]},
        {},
    ),
    ("inverted", [{}, boxes((0.3, 0.2, 0.1, 0.4))], {"invalid_box": [1]}, {}),
    ("empty", [{}, boxes((0.1, 0.2, 0.1, 0.4))], {"invalid_box": [1]}, {}),
    ("outside", [{}, boxes((0.1, 0.2, 1.1, 0.4))], {"invalid_box": [1]}, {}),
    (
        "not a number, beside a valid one",
        [{}, boxes(BOX, (float("nan"), 0, 1, 1))],
        {"invalid_box": [1]},
        {"several_targets": 1},
    ),
    (
        "one box twice in a row",
        [boxes(BOX, NEAR), boxes(BOX, NEAR, BOX)],
        {"doubled_box": [1]},
        {"several_targets": 2},
    ),
    (
        "a file twice in a row, unless a video was too short",
        [THREE, THREE | {"extra": {"video": "toy/v"}}],
        {"repeated_image": [0]},
        {"repeated_frames": 1},
    ),
    (
        "absent objects",
        [{"targets": (), "extra": {"absent": a} if a else {}} for a in ("not_visible", "", "no")],
        {"no_visible_object": [0]},
        {"no_object": 2},
    ),
    (
        "a label beside the boxes, which are those that count",
        [{"targets": t, "extra": {"positive_sample": p}} for p in (True, False) for t in (ONE, ())],
        {"contradicting_label": [1, 2]},
        {"no_object": 2},
    ),
    (
        "a label that is none",
        [{"targets": (), "extra": {"positive_sample": "yes"}}, {"extra": {"positive_sample": 0}}],
        {},
        {"no_object": 1},
    ),
    (
        "notes",
        [{"extra": {"parts": n, "n_boxes": n}} for n in (3, 1)] + [{"widths": (), "heights": ()}],
        {},
        {"several_parts": 1, "several_boxes": 1, "unknown_size": 1},
    ),
    (
        "nine tenths of the words",
        [
            changed(" ".join(WORDS)),
            changed(" ".join([*WORDS[:10], "x"])),  # 2 * 10 / 22 = 0.909 of row 0
            changed(" ".join([*WORDS[:9], "y", "z"])),  # 2 * 9 / 22 = 0.818 of both
        ],
        {"near_duplicate": [1]},
        {},
    ),
    (
        "words without case and punctuation, and the same box",
        [changed(CUP), changed(CUP.upper().replace(".", "!")), changed("What holds tea?")],
        {"near_duplicate": [1]},
        {},
    ),
    (
        "words of the expression where it is recorded",
        [
            changed(FRAME.format(text)) | {"extra": {"expression": text}}
            for text in ("a red cup", "the blue kite", "The blue  kite!")
        ],
        {"near_duplicate": [2]},
        {},
    ),
    (
        "rows with several targets are near only with all of them",
        [BOTH | boxes(BOX, FAR), BOTH | boxes(BOX, FAR_MOVED), BOTH | boxes(BOX, FAR_NEAR)],
        {"near_duplicate": [2]},
        {"several_targets": 3},
    ),
    (
        "the order of targets does not count",
        [BOTH | boxes(FAR, BOX), BOTH | boxes(BOX, FAR), BOTH | boxes(BOX, FAR_NEAR)],
        {"duplicate": [1], "near_duplicate": [2]},
        {"several_targets": 3},
    ),
    (
        "another task, other images",
        [
            changed(CUP),
            changed(CUP) | {"task": "other"},
            changed(CUP) | THREE | {"extra": {"video": 1}},
        ],
        {},
        {"repeated_frames": 1},
    ),
]


@pytest.mark.parametrize(
    ("changes", "found", "notes"), [pytest.param(*r[1:], id=r[0]) for r in ROWS]
)
def test_rows(root, changes, found, notes):
    report = audit(root, *(still(number, **change) for number, change in enumerate(changes)))
    assert numbers(report) == found
    assert report.notes == notes
    assert set(notes) <= set(NOTES)


def test_details_of_rows(root):
    rows = [
        still(0, **changed(CUP)),
        still(1, **changed(CUP), **boxes((0.1, 0.2, 0.3, 0.43))),  # IoU 0.2 / 0.23 = 0.870
        # Row 2 is no neighbour of row 0, but of row 1: 0.23 / 0.26 = 0.885.
        still(2, **changed(CUP), **boxes((0.1, 0.2, 0.3, 0.46))),
        still(3, **changed(CUP)),
        still(4, **boxes(BOX, (0.3, 0.2, 0.1, 0.4))),
        still(5, **THREE),
    ]
    report = audit(root, *rows)
    assert details(report, "near_duplicate") == [
        "find: IoU 0.870 with toy-00000, 100 % of the words alike",
        "find: IoU 0.885 with toy-00001, 100 % of the words alike",
    ]
    assert details(report, "duplicate") == ["find: equals toy-00000"]
    assert details(report, "invalid_box") == ["find: target 2 on image 1 is [0.3, 0.2, 0.1, 0.4]"]
    assert details(report, "repeated_image") == ["find: a.png is image 1 and 3"]
    others = [case.other for finding in report.findings for case in finding.cases if case.other]
    assert others == ["toy-00000", "toy-00000", "toy-00001"]


def test_words_are_compared_with_a_hundred_earlier_rows(root):
    rows = [still(i, instruction=f"{i} or {i} or {i}") for i in range(101)]
    for number, near in ((99, True), (100, False)):
        again = still(101, **changed(rows[number].instruction), **boxes(NEAR))
        assert ("near_duplicate" in cases(audit(root, *rows, again))) is near


def test_many_rows_about_one_box_are_compared_in_time(root):
    """Equal words in another order: no quick check shows that the texts differ."""
    orders = itertools.islice(itertools.permutations(WORDS[:10]), 0, 200 * 5000, 5000)
    report = audit(root, *(still(i, instruction=" ".join(o)) for i, o in enumerate(orders)))
    assert report.n == 200


def test_items_that_were_left_out_are_reported_by_their_kind(root):
    skipped = [
        {"item": "row 7", "kind": kind, "message": f"about {kind}"} for kind in get_args(FaultKind)
    ] + [{"item": "row 8", "kind": "of a later version", "message": "strange"}]
    write_benchmark([still(0)], benchmark="toy", root=root, manifest_extra={"skipped": skipped})
    report = audit_benchmark("toy", root)
    assert set(cases(report)) == set(get_args(FaultKind))
    assert details(report, "target_underived") == ["left out when prepared: about target_underived"]
    assert len(details(report, "invalid_row")) == 2
    assert report.notes == {"left_out": len(skipped)}


def test_samples_that_are_not_those_of_the_manifest(root):
    folder = write_benchmark([still(0), still(1)], benchmark="toy", root=root)
    text = (folder / "samples.jsonl").read_text()
    (folder / "samples.jsonl").write_text(text.replace("0.4", "0.5", 1))
    assert cases(audit_benchmark("toy", root)) == {"changed_samples": [()]}
    (folder / "samples.jsonl").write_text(text.splitlines()[0] + "\n")
    assert details(audit_benchmark("toy", root), "changed_samples")[1] == (
        "number of the samples 1, of the manifest 2"
    )


def test_what_cannot_be_audited(root):
    with pytest.raises(UserError, match="benchmark 'lisa' is not prepared"):
        audit_benchmark("lisa", root)
    write_benchmark([still(0)], benchmark="toy", root=root, manifest_extra={"skipped": ["row 7"]})
    with pytest.raises(UserError, match=r"manifest.json: field 'skipped' is not a list of objects"):
        audit_benchmark("toy", root)


@pytest.fixture
def opening(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Begin to record the names of the files that are opened; `first` is called before each."""

    def begin(first: Callable[[], object] = lambda: None) -> list[str]:
        opened: list[str] = []
        real = audit_files.image_header

        def header(path: Path, *, decode: bool) -> Any:
            opened.append(path.name)
            first()
            return real(path, decode=decode)

        monkeypatch.setattr(audit_files, "image_header", header)
        return opened

    return begin


def test_files_are_opened_once_and_several_at_a_time(root, opening, monkeypatch):
    monkeypatch.setattr(audit_files.os, "cpu_count", lambda: 2)
    opened = opening(threading.Barrier(2, timeout=20).wait)
    assert not audit(root, *(make_sample(i, instruction=f"{i}" * 9) for i in range(5))).found
    assert sorted(opened) == ["a.png", "b.png"]


def test_an_interrupted_audit_stops_at_once(root, opening):
    def interrupt(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    opened = opening()
    with pytest.raises(KeyboardInterrupt):
        audit(root, *(still(i, f"{i}.png") for i in range(3000)), progress=interrupt)
    assert len(opened) < 2900


# Videos


def frames(number: int, video: str, *numbers: int, **changes: Any) -> GroundingSample:
    fields: dict[str, Any] = {
        "images": tuple(f"toy/{video}#frame={i}" for i in numbers),
        "widths": (64,) * len(numbers),
        "heights": (48,) * len(numbers),
        "extra": {"video": f"toy/{video}"},
    }
    return still(number, **(fields | changes))


def test_frames_of_videos_are_decoded(root):
    write_clip(root / "toy" / "good.mp4", range(12))
    (root / "toy" / "bad.mp4").write_bytes(b"no video at all")
    samples = [
        frames(0, "good.mp4", *range(12)),
        frames(1, "good.mp4", 3, 11, 12),
        frames(2, "bad.mp4", 0, 1),
        frames(3, "gone.mp4", 0, 1),
        frames(4, "good.mp4", 5, widths=(640,), heights=(480,)),
        still(5, images=("toy/good.mp4#frame=x",), widths=(64,), heights=(48,)),
    ]
    report = audit(root, *samples)
    assert cases(report) == {
        "missing_image": [("toy-00003",), ("toy-00003",)],
        "unreadable_image": [("toy-00005",), ("toy-00001",), ("toy-00002",), ("toy-00002",)],
        "size_mismatch": [("toy-00004",)],
    }
    files = {o.file for f in report.findings for o in f.cases if f.kind == "unreadable_image"}
    places = ("good.mp4#frame=x", "good.mp4#frame=12", "bad.mp4#frame=0", "bad.mp4#frame=1")
    assert files == {f"toy/{place}" for place in places}
    assert "12 frames, numbered 0 to 11; frame 12" in "".join(details(report, "unreadable_image"))
    quick = audit(root, *samples, open_images=False)
    assert set(cases(quick)) == {"missing_image", "unreadable_image"}
    assert len(details(quick, "unreadable_image")) == 1


def test_damage_beside_the_requested_frames_is_reported_once_a_video(root):
    """A decoder may patch such frames up, or leave them out, and say nothing."""
    av = pytest.importorskip("av")
    path = write_clip(root / "toy" / "clip.mp4", range(24))
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][20]
    data = bytearray(path.read_bytes())
    data[packet.pos + 4 : packet.pos + packet.size] = bytes(packet.size - 4)  # after its length
    path.write_bytes(data)
    report = audit(root, frames(0, "clip.mp4", 1, 2), frames(1, "clip.mp4", 2), still(2))
    assert cases(report) == {"damaged_video": [("toy-00000", "toy-00001")]}
    (detail,) = details(report, "damaged_video")
    assert re.search(r"clip\.mp4.*damaged", detail)
    assert not audit(root, frames(0, "clip.mp4", 1), open_images=False).found


def test_few_frames_of_a_video_are_held_at_once(root, monkeypatch):
    requested = []

    def read(path: Path, numbers: list[int]) -> list[Image.Image]:
        requested.append(len(numbers))
        return [Image.new("RGB", (64, 48)) for _ in numbers]

    monkeypatch.setattr(audit_files, "read_frames", read)
    monkeypatch.setattr(audit_files, "check_video", lambda path: 20)
    (root / "toy" / "long.mp4").write_bytes(b"a video")
    assert not audit(root, frames(0, "long.mp4", *range(20))).found
    assert requested == [8, 8, 4]


def test_videos_that_cannot_be_opened(root, monkeypatch):
    (root / "toy" / "folder.mp4").mkdir()
    long = f"{'a' * 300}.mp4"
    videos = ["folder.mp4", long, "nul\0.mp4", "closed/clip.mp4"]
    look = Path.stat

    def stat(path: Path, **options: Any) -> Any:
        if path.parent.name == "closed":  # the superuser would be let in
            raise PermissionError(13, "Permission denied", str(path))
        return look(path, **options)

    monkeypatch.setattr(Path, "stat", stat)
    samples = [frames(number, video, 0) for number, video in enumerate(videos)]
    for open_images in (True, False):
        report = audit(root, *samples, open_images=open_images)
        assert cases(report) == {
            "missing_image": [("toy-00002",)],
            "unreadable_image": [("toy-00000",), ("toy-00001",), ("toy-00003",)],
        }
        folder, name, closed = details(report, "unreadable_image")
        assert folder.endswith("folder.mp4 is a folder or a device; expected a video file")
        assert name.endswith(": File name too long") and closed.endswith(": Permission denied")


def test_frames_need_the_packages_that_read_them(root, monkeypatch):
    find = audit_files.importlib.util.find_spec
    monkeypatch.setattr(
        audit_files.importlib.util, "find_spec", lambda name: None if name == "av" else find(name)
    )
    with pytest.raises(UserError, match=r"needs the package av: run in the checkout: pip install"):
        audit(root, frames(0, "good.mp4", 1))
    assert set(cases(audit(root, frames(0, "good.mp4", 1), open_images=False))) == {"missing_image"}


# MIG-Bench


def pair(number: int, **changes: Any) -> dict[str, Any]:
    """A row of the release about two images that differ."""
    return {
        "task": "diff",
        "images": diff_images(f"{number}_source.png", f"{number}_target.png"),
        "question": "Compare.",
        "answer": list(BOX),
    } | changes


def diff_images(*names: str) -> list[str]:
    return [f"./MIG-Bench/images/static_diff/{name}" for name in names]


def read(folder: Path, *rows: dict[str, Any]) -> tuple[list[GroundingSample], dict[str, Any]]:
    (folder / "MIG_data.json").write_text(json.dumps(rows))
    return read_rows(folder / "MIG_data.json")


def test_a_clean_annotation_file(tmp_path):
    question = "Recognize and locate this object in the {}th image."
    three = diff_images("a", "b", "c")
    common = [
        pair(i, task="common_object", question=question.format(i), images=three) for i in (1, 2, 3)
    ]
    report = audit_annotations(*read(tmp_path, *common, pair(0)))
    assert not report.found
    assert report.images_read == "not opened"
    assert list(report.tasks.items()) == [("diff", 1), ("common_object", 3)]
    assert (report.n_images, report.n_clusters) == (5, 2)
    assert [check["confirmed"] for check in report.target_checks.values()] == [3, 1]
    # Without a row about the third image, one of the two may be meant for it.
    report = audit_annotations(*read(tmp_path, *common[:2]))
    assert numbers(report) == {"target_unconfirmed": [0, 1]}


def test_each_fault_of_an_annotation_file(tmp_path):
    rows = [
        pair(0),
        pair(1, answer=[0.3, 0.1, 0.2, 0.5]),
        pair(0),
        # Heights of 0.2 and 0.24: IoU 0.833, whatever the words.
        pair(0, answer=[0.1, 0.2, 0.3, 0.44], question="And what has changed here?"),
        # A height of 0.31: IoU 0.24 / 0.31 = 0.774 with row 3, less with the others.
        pair(0, answer=[0.1, 0.2, 0.3, 0.51]),
        pair(5, images=diff_images("5_target.png", "5_target.png")),
        pair(6, additional_info="Contrast."),
        pair(7, images=diff_images("7_target.png", "7_source.png")),
        pair(8, images=diff_images("a.png", "b.png", "c.png")),
        pair(9, answer=None),
    ]
    report = audit_annotations(*read(tmp_path, *rows))
    assert numbers(report) == {
        "invalid_box": [1],
        "duplicate": [2],
        "near_duplicate": [3],
        "repeated_image": [5],
        "text_mismatch": [6],
        "target_unconfirmed": [7],
        "target_underived": [8],
        "invalid_row": [9],
    }
    others = {f.kind: f.cases[0].other for f in report.findings if f.cases[0].other}
    assert others == dict.fromkeys(("duplicate", "near_duplicate"), "mig_bench-00000")
    assert "MIG_data.json row 9: field 'answer' is None" in details(report, "invalid_row")[0]


def test_a_prepared_mig_bench_has_the_same_findings(tmp_path):
    samples, _ = read(tmp_path, pair(0), pair(1, answer=[0.5, 0.2, 0.1, 0.6]), pair(0), pair(2))
    folder = tmp_path / "mig_bench" / "images" / "static_diff"
    folder.mkdir(parents=True)
    for number in range(3):
        for name in ("source", "target"):
            width = 41 if (number, name) == (2, "target") else 40
            Image.new("RGB", (width, 30)).save(folder / f"{number}_{name}.png")
    report = audit(tmp_path, *samples)
    assert numbers(report) == {"invalid_box": [1], "duplicate": [2], "unequal_pair": [3]}
    assert list(report.target_checks.values()) == [{"rows": 4, "confirmed": 4}]
    sized = [replace(sample, widths=(40, 41), heights=(30, 30)) for sample in samples]
    assert numbers(audit_samples(sized)) == numbers(report) | {"unequal_pair": [0, 1, 2, 3]}
    # Rows that were edited by hand do not end the audit.
    samples[0] = replace(samples[0], task="common_object", extra={}, instruction="No image named.")
    samples[3] = replace(samples[3], task="a new one")
    assert numbers(audit(tmp_path, *samples))["invalid_box"] == [1]


# Kinds, JSON and the page


def test_every_kind_is_documented():
    assert set(get_args(FaultKind)) <= set(KINDS)
    for kind in KINDS.values():
        for text in (kind.meaning, kind.scoring, kind.remedy):
            assert text and not text.endswith(".") and text[0] == text[0].lower()
    docs = (Path(__file__).parent.parent / "docs" / "audit.md").read_text(encoding="utf-8")
    for name, kind in KINDS.items():
        assert f"| `{name}` | {kind.meaning} |" in docs
    for name, meaning in NOTES.items():
        assert f"| `{name}` | {meaning} |" in docs


def test_the_page_draws_the_offenders(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (480, 640)).save(root / "toy/images/turned.jpg", exif=exif)
    samples = [
        still(0, "gone.png", instruction="<b>Where</b>?"),
        still(1, "turned.jpg"),
        *(still(i, targets=(Target(0, (0.3, 0.2, 0.1, 0.4)),)) for i in range(2, 40)),
        make_sample(40),
        make_sample(41),
        still(42, targets=(), extra={"absent": "not_visible"}),
    ]
    report = audit(root, *samples)
    page = audit_page(report, samples, root.joinpath, cards_per_kind=5, footer="made by a test")
    text = page.render()
    assert "&lt;b&gt;Where&lt;/b&gt;?" in text
    assert text.count("<article") == 1 + 1 + 5 + 1 + 1
    assert "33 more are not shown here." in text
    assert "gone.png does not exist" in text
    assert "image 1 of 1 · 640×480" in text
    assert "image 1 as stored, without the EXIF orientation · 480×640" in text
    assert "x1 is greater than x2 (drawn between the same corners)" in text
    assert text.count(">toy-00040 <code>[0.1, 0.2, 0.3, 0.4]</code>") == 1  # the earlier row's box
    assert report.fingerprint in text and "made by a test" in text
    assert len(text) < 13 * 220_000  # drawings of noise, at twice the pixels of a card


def test_the_page_shows_the_target_first_and_a_few_others(root):
    images = tuple(f"toy/images/{name}.png" for name in "abababababab")
    row = still(
        0, images=images, widths=(640, 320) * 6, heights=(480, 240) * 6, targets=(Target(11, BOX),)
    )
    text = audit_page(audit(root, row), [row], root.joinpath).render()
    captions = re.findall(r"<figcaption>image (\d+) of 12", text)
    assert captions == ["12", "1", "2", "3", "4", "5"]
    assert "image 5 of 12 (6 more are not shown)" in text
