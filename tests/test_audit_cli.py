"""``univg audit``: what it prints, and that its exit status says whether something was found."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
from factories import make_sample
from PIL import Image

from univg_eval.cli import audit as audit_command
from univg_eval.cli import main
from univg_eval.samples import write_benchmark

INVALID = [0.5, 0.2, 0.1, 0.6]


def pair(number: int, **changes: Any) -> dict[str, Any]:
    names = (f"{number}_source.png", f"{number}_target.png")
    return {
        "task": "diff",
        "images": [f"./MIG-Bench/images/static_diff/{name}" for name in names],
        "question": "Compare these two images.",
        "answer": [0.1, 0.2, 0.5, 0.6],
        "additional_info": "",
        "need_format": True,
    } | changes


@pytest.fixture
def audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Audit rows as an annotation file: exit status and what is printed."""

    def run(rows: list[Any], *arguments: str) -> tuple[int, str]:
        path = tmp_path / "MIG_data.json"
        path.write_text(json.dumps(rows))
        status = main(["audit", "mig_bench", "--annotations", str(path), *arguments])
        out, err = capsys.readouterr()
        return status, out + err

    return run


def test_a_clean_file(audit):
    status, out = audit([pair(0), pair(1)])
    assert status == 0
    assert "2 rows on 4 images, in 2 clusters" in out
    assert "NOT the released file" in out
    assert "images not opened" in out
    assert "2 of     2  diff: the target's file is named" in out
    assert out.endswith("Nothing found.\n")


def test_faults_of_a_file(audit):
    rows = [pair(0), pair(0), *(pair(k, answer=INVALID) for k in range(2, 32))]
    status, out = audit(rows)
    assert status == 3
    assert "mig_bench-00001  diff: equals mig_bench-00000" in out
    assert "mig_bench-00002  diff: target 1 on image 2 is [0.5, 0.2, 0.1, 0.6]" in out
    assert "and 10 more (--json lists all)" in out
    status, out = audit(rows, "--json")
    assert status == 3
    report = json.loads(out)
    counts = [(finding["kind"], finding["n"]) for finding in report["findings"]]
    assert counts == [("invalid_box", 30), ("duplicate", 1)]
    assert len(report["findings"][0]["rows"]) == 30
    assert (report["file"], report["revision"]) == ("MIG_data.json", "original")
    assert report["is_released_file"] is False
    assert report["tasks"] == {"diff": 32}
    assert "images" not in report


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """The folder with the images of one row, below `tmp_path`."""
    folder = tmp_path / "images" / "static_diff"
    folder.mkdir(parents=True)
    for name in ("0_source.png", "0_target.png"):
        Image.new("RGB", (20, 10)).save(folder / name)
    return folder


def test_images_of_a_file(audit, images, tmp_path):
    status, out = audit([pair(0)], "--images", str(tmp_path))
    assert status == 0
    assert "headers of 2 images read" in out
    (images / "0_target.png").unlink()
    (images / "1_source.png").write_bytes(b"no image")
    (images / "1_target.png").write_bytes(b"no image")
    status, out = audit([pair(0), pair(1)], "--images", str(tmp_path), "--json")
    assert status == 3
    report = json.loads(out)
    below = "mig_bench/images/static_diff"
    assert report["images"] == {
        "found": 1,
        "missing": [f"{below}/0_target.png"],
        "unreadable": [f"{below}/1_source.png", f"{below}/1_target.png"],
        "unequal_pairs": [],
    }
    assert report["findings"] == []
    Image.new("RGB", (21, 10)).save(images / "0_target.png")
    status, out = audit([pair(0)], "--images", str(tmp_path))
    assert status == 3
    assert "unequal_pair: 1;" in out and "mig_bench-00000  images of 20x10 and 21x10" in out
    status, out = audit([pair(0)], "--images", str(images))
    assert status == 2
    assert "no images of MIG-Bench in" in out


def test_the_page_of_a_file(audit, images, tmp_path):
    rows = [pair(0), pair(1, answer=INVALID)]
    Image.new("RGB", (20, 10)).save(images / "1_target.png")
    page = tmp_path / "audit.html"
    assert audit(rows, "--images", str(tmp_path), "--html", str(page))[0] == 3
    text = page.read_text(encoding="utf-8")
    assert "1_source.png does not exist" in text
    assert "x1 is greater than x2" in text
    assert text.count("20×10") == 1  # the target's image, of the invalid box
    status, out = audit(rows, "--html", str(page))
    assert status == 3
    assert f"Page: {page}" in out
    assert "there is no image" in page.read_text(encoding="utf-8")


# A prepared benchmark


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with one prepared benchmark of two sound rows."""
    (tmp_path / "toy" / "images").mkdir(parents=True)
    Image.new("RGB", (640, 480)).save(tmp_path / "toy/images/a.png")
    Image.new("RGB", (320, 240)).save(tmp_path / "toy/images/b.png")
    samples = [make_sample(0), make_sample(1, instruction="And now?", split="val")]
    write_benchmark(samples, benchmark="toy", root=tmp_path)
    return tmp_path


def prepared(root: Path, *arguments: str) -> int:
    return main(["audit", "toy", "--root", str(root), *arguments])


def test_a_sound_benchmark(root, capsys):
    assert prepared(root) == 0
    out, err = capsys.readouterr()
    assert "2 rows on 2 images, in 1 clusters" in out
    assert "every image decoded to its end" in out
    assert "Rows per split\n  test                  1\n  val                   1\n" in out
    assert out.rstrip().endswith("Nothing found.")
    assert err == ""


def test_faults_of_a_benchmark(root, capsys):
    path = root / "toy/images/a.png"
    path.write_bytes(path.read_bytes()[:-60])
    page = root / "new folder" / "audit.html"
    assert prepared(root, "--html", str(page)) == 3
    out = capsys.readouterr().out
    assert "unreadable_image: 1; an image or video cannot be decoded to its end" in out
    assert "  in scoring: the run stops at the first sample that needs it" in out
    assert "  remedy: fetch the file again" in out
    assert "  toy/images/a.png (toy-00000 and 1 more)  cannot read" in out
    assert f"Page: {page}" in out
    assert "cannot read" in page.read_text(encoding="utf-8")
    assert prepared(root, "--quick") == 0
    assert "headers of 2 images read" in capsys.readouterr().out
    assert prepared(root, "--json", "--html", str(page)) == 3
    report = json.loads(capsys.readouterr().out)
    assert (report["benchmark"], report["n"]) == ("toy", 2)
    assert [finding["kind"] for finding in report["findings"]] == ["unreadable_image"]


def test_a_name_of_the_data_neither_breaks_a_line_nor_colours_the_terminal(root, capsys):
    odd = make_sample(2, images=("toy/images/\x1b[31mred\nb.png",) * 2, instruction="Odd?")
    write_benchmark([odd], benchmark="toy", root=root)
    assert prepared(root) == 3
    out = capsys.readouterr().out
    assert "\n  toy/images/\\x1b[31mred\\nb.png (toy-00002)  image file " in out
    assert "\x1b" not in out


def test_the_report_is_printed_whatever_becomes_of_the_page(root, capsys, monkeypatch):
    (root / "file").write_text("no folder")
    assert prepared(root, "--html", str(root / "file" / "audit.html")) == 2
    out, err = capsys.readouterr()
    assert "Nothing found." in out and "Page:" not in out
    assert "cannot write the page" in err

    def closed(*_args: object, **_options: object) -> None:
        raise BrokenPipeError

    # `univg audit toy --html … | head -1` costs the output, not the page.
    monkeypatch.setattr("builtins.print", closed)
    page = root / "audit.html"
    options = dict.fromkeys(("annotations", "images", "revision", "scale", "reviewed"))
    options |= {"benchmark": "toy", "root": root, "quick": True, "html": page, "json": False}
    with pytest.raises(BrokenPipeError):
        audit_command.run(argparse.Namespace(**options))
    assert page.is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("lisa --annotations x.json", "reads those of: mig_bench, mig_bench_rev"),
        ("mig_bench --annotations absent.json", "cannot read the annotation file"),
        ("mig_bench_revised --annotations absent.json", "give --scale"),
        ("mig_bench --annotations x.json --quick", "are for a prepared benchmark"),
        ("mig_bench --annotations x.json --reviewed .", "are for a prepared benchmark"),
        ("toy --reviewed .", "reviewed labels of refcoco, refcoco_plus, refcocog; received: toy"),
        ("lisa", "benchmark 'lisa' is not prepared"),
        ("toy --images .", "--images goes with --annotations"),
        ("toy --scale 1", "--scale goes with --annotations"),
        ("toy --html .", "--html . is a folder; give the page's file"),
    ],
)
def test_mistakes_give_status_2(root, arguments, message, capsys, monkeypatch):
    monkeypatch.setenv("UNIVG_DATA", str(root))
    assert main(["audit", *arguments.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
