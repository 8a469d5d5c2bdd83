"""`univg ground`: one question to a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_checkpoints import make_checkpoint

from univg_eval.cli import main
from univg_eval.images.reading import load_reference
from univg_eval.samples import GroundingSample, load_samples

pytest.importorskip("lmms_eval")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from univg_eval.benchmarks.synthetic.mini import ensure

    root = tmp_path_factory.mktemp("data")
    ensure(root, n=2)
    return root


def sample_of(data: Path, task: str) -> GroundingSample:
    return next(s for s in load_samples("univg_mini", root=data) if s.task == task)


def images_of(data: Path, sample: GroundingSample) -> list[str]:
    return [word for name in sample.images for word in ("--image", str(data / name))]


def test_one_image_gives_a_box_in_pixels_and_a_picture(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample, picture = sample_of(data, "llmseg"), tmp_path / "answer.png"
    arguments = ["ground", sample.instruction, *images_of(data, sample)]
    assert main([*arguments, "--json", "-o", str(picture)]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found["model"] == "univg:tiny" and "univg:tiny answers" in printed.err
    assert (found["status"], found["image_index"]) == ("ok", 0)
    width, height = sample.image_sizes[0]
    assert found["box_pixels"] == pytest.approx(
        [
            found["box"][0] * width,
            found["box"][1] * height,
            found["box"][2] * width,
            found["box"][3] * height,
        ]
    )
    assert all(f"{round(1000 * value)}" in found["response"] for value in found["box"])
    drawn, plain = (
        np.asarray(Image.open(picture)),
        np.asarray(load_reference(sample.images[0], data)),
    )
    assert drawn.shape == plain.shape and (drawn != plain).any()
    x1, y1, x2, y2 = map(round, found["box_pixels"])
    inside = (slice(y1 + 8, y2 - 8), slice(x1 + 8, x2 - 8))
    assert (drawn[inside] == plain[inside]).mean() > 0.8, "the box has no filling but its label"

    assert main(arguments) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    # The heading and the chain of thought, "Left to right: …", then what was found.
    begins = ["Reasoning", "Left", "Response", "Box", "Pixels"]
    assert [line.split()[0] for line in lines] == begins


def test_the_image_is_the_one_that_the_answer_or_the_question_names(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = sample_of(data, "diff")
    arguments = ["ground", sample.instruction, *images_of(data, sample), "--json"]
    assert main([*arguments, "--target-image", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["image_index"] == 1
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["image_index"] is None and found["box_pixels"] is None
    assert found["box"] is not None


def test_a_video_is_shown_as_its_frames(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = sample_of(data, "revos")
    video = data / sample.images[0].split("#")[0]
    arguments = ["ground", sample.instruction, "--video", str(video), "--frames", "even:3"]
    assert main([*arguments, "--json"]) == 0
    images = json.loads(capsys.readouterr().out)["images"]
    # The middles of three equal parts of 25 frames: 4.17, 12.5 and 20.8, rounded down.
    assert images == [f"{video}#frame={number}" for number in (4, 12, 20)]


def test_another_checkpoint_and_dialect(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = sample_of(data, "llmseg")
    folder = make_checkpoint("qwen2_5_vl", tmp_path / "m")
    arguments = ["ground", sample.instruction, *images_of(data, sample), "--json"]
    options = ["--model", str(folder), "--max-new-tokens", "8", "--prompt", "think"]
    assert main([*arguments, *options]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert "univg:tiny" not in printed.err
    assert found["settings"]["dialect"][0] == "qwen2_5_vl"
    assert "<think>" in found["prompt"] and found["answer_tokens"] <= 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--image", "no.png"], "there is no file no.png"),
        (["--model", "/no/such"], "there is no checkpoint /no/such (--model)"),
        (["--dialect", "qwen2_vk"], "did you mean 'qwen2_vl'"),
        (["--target-image", "4"], "--target-image is 4; expected 1 to 1"),
        (["--max-new-tokens", "0"], "--max-new-tokens is 0"),
        (["--max-pixels", "0"], "expected a whole number of pixels"),
        (["-o", "/dev/null/a.png"], "-o /dev/null: /dev/null is no folder that can be written to"),
        (["-o", "a.txt"], "is no kind of image"),
    ],
)
def test_a_mistake_is_one_message_before_a_model_is_loaded(
    data: Path,
    changes: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("univg_eval.lmms.ground.ReferenceModel", None)
    sample = sample_of(data, "llmseg")
    shown = [] if "--image" in changes else images_of(data, sample)
    assert main(["ground", sample.instruction, *shown, *changes]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and message in printed.err.splitlines()[-1]


def test_the_picture_is_not_drawn_over_a_photograph(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, link = tmp_path / "photo.png", tmp_path / "link.png"
    Image.new("RGB", (8, 8)).save(photo)
    link.symlink_to(photo)
    before = photo.read_bytes()
    for out in (photo, link):
        assert main(["ground", "Find it.", "--image", str(photo), "-o", str(out)]) == 2
        assert f"-o {out} is the file of --image; give another path" in capsys.readouterr().err
    assert photo.read_bytes() == before
