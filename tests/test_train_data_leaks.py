"""Training rows that share images with an evaluation set are refused; texts alone are counted."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from factories import make_sample
from PIL import Image
from training_forms import draw, stage2_row, write_list

from univg_eval.errors import UserError
from univg_eval.samples import write_benchmark
from univg_train.data import (
    LEAK_KINDS,
    LeakError,
    LeakIndex,
    TrainingData,
    index_benchmarks,
    make_rendering,
    open_training_data,
)

QUESTION = "Find the RED  cup in Image-2!"
EVALUATED = {
    "bench/images/COCO_train2014_000000581857.png": (60, 40),
    "bench/images/case1/0001.png": (50, 50),
}
FRAME = "bench/images/case1/0001.png"
HOW = make_rendering("univg_r1")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with a benchmark of one question on two images."""
    root = draw(tmp_path / "root", EVALUATED)
    sample = make_sample(
        7,
        benchmark="bench",
        images=tuple(EVALUATED),
        widths=(60, 50),
        heights=(40, 50),
        instruction="Find the <|object_ref_start|>red cup<|object_ref_end|> in image-2.",
        source={"images": ["./MIG-Bench/images/released_name_of_it.png", "./x/0009.png"]},
    )
    write_benchmark([sample], root=root, benchmark="bench", manifest_extra={})
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return draw(tmp_path / "train", {"clean.png": (33, 44)})


def leak_index(root: Path, *kinds: str) -> LeakIndex:
    return index_benchmarks(["bench"], root=root, **({"kinds": kinds} if kinds else {}))


def train_on(
    folder: Path, leaks: LeakIndex, name: str, question: str = "Something else.", **choices: Any
) -> TrainingData:
    """Two rows: a clean one, and one with this image, drawn if it is not there, and question."""
    if not (folder / name).exists():
        draw(folder, {name: (35, 45)})
    images = (("clean.png", "Where?"), (name, question))
    rows = [stage2_row(images=[image], question=text) for image, text in images]
    path = write_list(folder / "rows.json", rows)
    return open_training_data("univg_r1_stage2", path, HOW, leaks=leaks, **choices)


@pytest.mark.parametrize(
    ("name", "leaks"),
    [
        ("elsewhere/COCO_train2014_000000581857.png", True),
        ("coco_TRAIN2014_000000581857.png", True),
        ("COCO_train2014_000000581857.jpg", True),  # written anew
        ("000000581857.jpg", True),  # as the edition of 2017 names it
        ("deep/case1/0001.png", True),
        ("deep/case1/0001.jpg", True),
        ("deep/case2/0001.png", False),  # every video has a first frame
        ("0001.png", False),
        ("released_name_of_it.png", True),
        ("y/x/0009.png", True),
        ("COCO_train2014_000000581858.png", False),
    ],
)
def test_the_same_file_by_its_name(folder: Path, root: Path, name: str, leaks: bool) -> None:
    if not leaks:
        assert len(train_on(folder, leak_index(root), name)) == 2
        return
    with pytest.raises(LeakError, match=r"1 questions .*univg_r1_stage2-000001 shares .*toy-00007"):
        train_on(folder, leak_index(root), name)


def test_the_same_bytes_under_another_name(folder: Path, root: Path) -> None:
    shutil.copyfile(root / FRAME, folder / "renamed.png")
    with pytest.raises(LeakError, match=r"'renamed.png' with toy-00007 \(image_bytes\)"):
        train_on(folder, leak_index(root), "renamed.png")
    assert len(train_on(folder, leak_index(root, "image_name", "instruction"), "renamed.png")) == 2


def test_another_file_of_the_same_length_is_not_the_same(folder: Path, root: Path) -> None:
    other, length = folder / "other.png", (root / FRAME).stat().st_size
    Image.new("RGB", (50, 50), (1, 2, 3)).save(other)
    # PNG readers pass over what follows the image's end.
    other.write_bytes(other.read_bytes().ljust(length, b"\0"))
    assert other.stat().st_size == length
    assert len(train_on(folder, leak_index(root, "image_bytes"), "other.png")) == 2


def test_the_same_pixels_in_another_format(folder: Path, root: Path) -> None:
    Image.open(root / FRAME).save(folder / "renamed.bmp")
    assert len(train_on(folder, leak_index(root), "renamed.bmp")) == 2
    with pytest.raises(LeakError, match=r"'renamed.bmp' with toy-00007 \(image_pixels\)"):
        train_on(folder, leak_index(root, *LEAK_KINDS), "renamed.bmp")


def _photo(name: str) -> Image.Image:
    import skimage

    return Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB")


@pytest.mark.parametrize(
    ("change", "name", "leaks"),
    [
        (lambda image: image, "new.png", True),
        (lambda image: image.resize((256, 256)), "new.png", True),
        (lambda image: image.resize((200, 300), Image.Resampling.BILINEAR), "new.jpg", True),
        (lambda image: image.resize((64, 64)), "new.jpg", True),
        (lambda image: image.convert("L"), "new.png", True),
        (lambda image: image.crop((60, 60, 512, 512)), "new.png", False),
        (lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "new.png", False),
        (lambda image: _photo("coffee.png"), "new.png", False),
        (lambda image: Image.new("RGB", (512, 512), (9, 9, 9)), "new.png", False),
    ],
    ids=["same", "smaller", "squeezed", "coarse", "grey", "cropped", "mirrored", "another", "flat"],
)
def test_a_copy_that_was_resized_or_compressed(
    folder: Path, root: Path, change: Any, name: str, leaks: bool
) -> None:
    photo = _photo("astronaut.png")
    photo.save(root / FRAME)
    change(photo).save(folder / name, quality=10)
    if not leaks:
        assert len(train_on(folder, leak_index(root, "image_look"), name)) == 2
        return
    with pytest.raises(LeakError, match=rf"'{name}' with toy-00007 \(image_look\)"):
        train_on(folder, leak_index(root, "image_look"), name)


def test_flat_pictures_have_no_look(folder: Path, root: Path) -> None:
    Image.new("RGB", (50, 50), (9, 9, 9)).save(root / FRAME)
    Image.new("RGB", (70, 70), (200, 9, 9)).save(folder / "new.png")
    assert len(train_on(folder, leak_index(root, "image_look"), "new.png")) == 2


@pytest.mark.parametrize(
    ("question", "same"),
    [
        (QUESTION, True),
        ("<image>\nFind the red cup in image 2", True),
        ("find the red cup in image-\uff12", True),
        ("Find the red cups in image-2.", False),
        ("Find the red cup in image-3.", False),
    ],
)
def test_the_same_instruction(folder: Path, root: Path, question: str, same: bool) -> None:
    """On another image it is counted and no leak; on an image of the set it is named with it."""
    elsewhere = train_on(folder, leak_index(root), "a.png", question).report.to_dict()
    assert elsewhere["questions"] == 2
    assert elsewhere["leaks"] == {"questions": 0, "text_alone": int(same), "kinds": {}, "first": []}
    shutil.copyfile(root / FRAME, folder / "renamed.png")
    on_image = train_on(folder, leak_index(root), "renamed.png", question, on_leak="skip").report
    assert on_image.n_leaking == 1 and on_image.n_text_alone == 0
    assert on_image.leaks == {"image_bytes": 1} | ({"instruction": 1} if same else {})


def test_questions_from_a_template_are_no_leak(folder: Path, root: Path) -> None:
    """Every image of both sets has the same question, and one image is in both."""
    shutil.copyfile(root / FRAME, folder / "of_the_set.png")
    names = [f"{i}.png" for i in range(5)]
    draw(folder, dict.fromkeys(names, (35, 45)))
    rows = [stage2_row(images=[name], question=QUESTION) for name in [*names, "of_the_set.png"]]
    path = write_list(folder / "rows.json", rows)
    with pytest.raises(LeakError, match=r"rows.json: 1 questions are in .*'of_the_set.png'"):
        open_training_data("univg_r1_stage2", path, HOW, leaks=leak_index(root))
    others = write_list(folder / "others.json", rows[:5])
    data = open_training_data("univg_r1_stage2", others, HOW, leaks=leak_index(root))
    assert len(data) == data.report.n_text_alone == 5
    unasked = index_benchmarks(["bench"], root=root, kinds=["image_name", "image_bytes"])
    data = open_training_data("univg_r1_stage2", others, HOW, leaks=unasked)
    assert data.report.n_text_alone == 0


def test_leaking_rows_can_be_left_out_or_allowed(folder: Path, root: Path) -> None:
    name = "elsewhere/COCO_train2014_000000581857.png"
    leaks = leak_index(root)
    without = train_on(folder, leaks, name, QUESTION, on_leak="skip")
    assert len(without) == 1 and without.columns(0)["id"].endswith("000000")
    allowed = train_on(folder, leaks, name, QUESTION, on_leak="allow")
    assert len(allowed) == 2
    for data in (without, allowed):
        found = data.report.to_dict()["leaks"]
        assert found["questions"] == 1 and found["kinds"] == {"image_name": 1, "instruction": 1}
        assert {(leak["kind"], leak["shared"]) for leak in found["first"]} == {
            ("image_name", name),
            ("instruction", QUESTION),
        }
        for leak in found["first"]:
            assert (leak["sample"], leak["samples"]) == ("toy-00007", 1)
    with pytest.raises(UserError, match="on_leak is 'hide'; expected one of: refuse"):
        train_on(folder, leaks, name, on_leak="hide")


def test_training_on_the_benchmark_itself_is_refused(root: Path) -> None:
    with pytest.raises(LeakError):
        open_training_data("samples", "bench", HOW, root=root, leaks=leak_index(root))
    data = open_training_data(
        "samples", "bench", HOW, root=root, leaks=leak_index(root, *LEAK_KINDS), on_leak="allow"
    )
    found = data.report.to_dict()["leaks"]
    shared = set(LEAK_KINDS) - {"image_look"}  # the images are flat
    assert found["questions"] == 1 and found["kinds"] == dict.fromkeys(shared, 1)
    assert len(found["first"]) == 4, "one a kind, of both images"


def test_unknown_kinds_are_refused(root: Path) -> None:
    with pytest.raises(UserError, match="unknown kind of leak smell; expected some of: image_name"):
        leak_index(root, "smell")
    with pytest.raises(UserError, match=r"unknown kind of leak \(none\)"):
        index_benchmarks(["bench"], kinds=(), root=root)
    with pytest.raises(UserError, match="instruction' finds nothing by itself"):
        leak_index(root, "instruction")


def test_an_evaluation_set_without_its_images_is_no_silence(root: Path) -> None:
    (root / FRAME).unlink()
    with pytest.raises(UserError, match=r"'toy-00007': cannot read .*prepare 'bench' again"):
        leak_index(root)
    assert leak_index(root, "image_name", "instruction").names
