"""How a release's image paths are found on this machine, and how instructions are worded."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from univg_eval.benchmarks.readers.common.release import (
    ImageFolder,
    ItemError,
    image_instruction,
    is_file,
    ordinal,
    sequence_instruction,
)
from univg_eval.errors import UserError


def make_files(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


@pytest.mark.parametrize(
    ("files", "released", "found"),
    [
        (["v1/0001.jpg"], "v1/0001.jpg", "v1/0001.jpg"),
        (["v1/0001.jpg"], "/nfs/someone/JPEGImages/v1/0001.jpg", "v1/0001.jpg"),
        (["v1/0001.jpg"], "D:\\data\\v1\\0001.jpg", "v1/0001.jpg"),
        # The longest part that exists wins over a shorter one.
        (["a/v1/0001.jpg", "v1/0001.jpg"], "x/a/v1/0001.jpg", "a/v1/0001.jpg"),
        # A bare name, where the release puts the file into a folder of that name.
        (["0001.jpg"], "data/JPEGImages/0001.jpg", "0001.jpg"),
        (["0001.jpg"], "0001.jpg", "0001.jpg"),
    ],
)
def test_the_longest_trailing_part_is_the_file(tmp_path, files, released, found):
    folder = make_files(tmp_path / "JPEGImages", *files)
    assert ImageFolder(folder).find(released) == found


@pytest.mark.parametrize("released", ["test/0001.jpg", "/data/ReasonSeg/test/0001.jpg"])
def test_a_file_of_another_folder_with_the_same_name_is_not_taken(tmp_path, released):
    folder = make_files(tmp_path / "val", "0001.jpg")
    with pytest.raises(ItemError, match=r"is not below .*val") as caught:
        ImageFolder(folder).find(released)
    assert caught.value.kind == "missing_image"
    assert ImageFolder(folder, unique_names=True).find(released) == "0001.jpg"


@pytest.mark.parametrize("released", ["../secret.jpg", "a/../../secret.jpg", "", "/", "a\0.jpg"])
def test_a_path_that_leads_out_of_its_folder_is_refused(tmp_path, released):
    make_files(tmp_path, "secret.jpg", "images/a.jpg")
    with pytest.raises(ItemError, match="expected a path that stays within its folder") as caught:
        ImageFolder(tmp_path / "images").find(released)
    assert caught.value.kind == "invalid_row"


def test_a_folder_that_is_not_there_is_reported(tmp_path):
    with pytest.raises(UserError, match=r"image folder .*nowhere does not exist.*--images"):
        ImageFolder(tmp_path / "nowhere")
    make_files(tmp_path, "a.jpg")
    with pytest.raises(UserError, match=r"image folder .*a\.jpg is no folder; .*--coco"):
        ImageFolder(tmp_path / "a.jpg", option="--coco")


def test_a_name_that_no_file_can_have_is_a_missing_image(tmp_path):
    with pytest.raises(ItemError, match=r"image 'x+' is not below") as caught:
        ImageFolder(tmp_path).find("x" * 5000 + ".jpg")
    assert caught.value.kind == "missing_image"
    assert len(str(caught.value)) < 1000


def test_a_folder_that_may_not_be_looked_into(tmp_path, monkeypatch):
    def refuse(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(ItemError, match=r"cannot look for .*a\.jpg: Permission denied") as caught:
        is_file(tmp_path / "a.jpg")
    assert caught.value.kind == "unreadable_image"


@pytest.mark.parametrize(
    ("index", "word"),
    [
        *((0, "first"), (2, "third"), (9, "tenth"), (10, "11th"), (11, "12th"), (12, "13th")),
        *((20, "21st"), (21, "22nd"), (22, "23rd"), (23, "24th"), (110, "111th"), (120, "121st")),
    ],
)
def test_ordinals(index, word):
    assert ordinal(index) == word


def test_instructions_are_worded_as_published():
    """With the think sentence behind them they are the prompts of UniVG-R1's evaluation."""
    assert image_instruction("who is tired?") == (
        "Output the bounding box in the image corresponding to the instruction: who is tired?."
    )
    assert sequence_instruction("the dog", 2) == (
        "This is a sequence of images from a video. Please understand the entire video content, "
        "and then output the bounding box in the third image according to the instruction: the dog."
    )
