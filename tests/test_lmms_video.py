"""The ``_video`` tasks: the prompt, the file that is handed over, and who can take it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lmms_data
import numpy as np
import pytest

from univg_eval.cli import main
from univg_eval.errors import UserError
from univg_eval.runs.record import load_run
from univg_eval.samples import GroundingSample, Target, load_samples, write_benchmark

pytest.importorskip("lmms_eval")
pytest.importorskip("av")

from univg_eval.images.video import read_frames
from univg_eval.lmms.media import (
    IMAGE_BACKENDS,
    VIDEO_BACKENDS,
    require_video_backend,
    video_file,
    video_of,
    video_view,
)
from univg_eval.lmms.settings import ModelUnderTest, resolve_settings, shown_settings
from univg_eval.lmms.video_files import video_at

VIDEO = {"media": "video"}
TINY = lmms_data.REPO / "univg_eval" / "models" / "tiny"
TINY_ARGS = f"pretrained={TINY},device=cpu,device_map=cpu,min_pixels=28224,max_pixels=28224"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lmms_data.set_environment(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from univg_eval.benchmarks.synthetic.mini import ensure

    root = tmp_path_factory.mktemp("mini")
    ensure(root, n=2)
    return root


def view(sample: GroundingSample, root: Path) -> GroundingSample:
    (shown,) = video_view([sample], root)
    return shown


# The prompt


def test_a_folder_becomes_an_instruction_about_a_numbered_frame(tmp_path: Path) -> None:
    lmms_data.write_frames(tmp_path, "revos")
    sample = lmms_data.make_video_sample("revos", 0)
    shown = view(sample, tmp_path)
    # 10.png is the third by number, not by letters; two frames a second, the first at 0 s.
    assert shown.instruction == (
        "This is a video of 3 frames. Please understand the entire video content, and then output "
        "the bounding box in frame 3 (counted from 1, at 1.00 seconds) according to the "
        "instruction: the dog."
    )
    assert (shown.id, shown.cluster, shown.box) == (sample.id, sample.cluster, sample.box)
    assert shown.images == ("revos/images/clip/10.png",)
    assert (shown.image_sizes, shown.target_image, shown.image_is_given) == ([(65, 47)], 0, True)
    expected = {"path": "revos/images/clip", "frame": 2, "n_frames": 3, "fps": 2.0}
    assert shown.extra["shown_video"] == expected
    assert GroundingSample.from_dict(shown.to_dict()) == shown


def test_a_video_of_mini_keeps_its_instruction_and_says_which_frames_it_names(mini: Path) -> None:
    (sample, *_) = [s for s in load_samples("univg_mini", root=mini) if s.task == "revos"]
    assert video_of(sample) == sample.images[0].split("#")[0]
    shown = view(sample, mini)
    assert shown.instruction == (
        "This is a video of 25 frames. The images that the following question names are the "
        "frames 3, 8, 13, 18, 23 of it, in this order, counted from 1; the one that is asked for "
        f"is frame 13, at 2.40 seconds. {sample.instruction}"
    )
    assert shown.extra["shown_video"]["frame"] == 12
    assert shown.box == sample.box
    # A file is handed over as it is.
    assert video_file(shown, mini) == mini / video_of(sample)


def test_an_absent_object_is_requested_in_the_recorded_frame(tmp_path: Path) -> None:
    lmms_data.write_frames(tmp_path, "revos")
    sample = lmms_data.make_video_sample("revos", 0, targets=())
    shown = view(sample, tmp_path)
    assert "in frame 3 (counted" in shown.instruction
    assert shown.targets == ()


FAULTS = [
    ({"extra": {}}, r"names no video.*evaluate the task that shows them as images"),
    ({"extra": {"video": "revos/images"}}, r"is no frame of the video revos/images"),
    ({"extra": {"video": "revos/none"}}, r"video file .*none does not exist"),
    (
        {"targets": (Target(0, (0.1, 0.1, 0.2, 0.2)), Target(2, (0.1, 0.1, 0.2, 0.2)))},
        r"targets in several frames",
    ),
    (
        {"targets": (), "extra": {"video": "revos/images/clip", "target_frame": 7}},
        r"no target, and its extra\['target_frame'\] is 7; expected one of .*0, 1, 2",
    ),
]


@pytest.mark.parametrize(("changes", "message"), FAULTS)
def test_a_sample_without_one_requested_frame_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    lmms_data.write_frames(tmp_path, "revos")
    (tmp_path / "revos" / "images" / "1.png").write_bytes(b"")
    with pytest.raises(UserError, match=message):
        view(lmms_data.make_video_sample("revos", 0, **changes), tmp_path)


# The file


def noisy_frames(folder: Path, n: int, wh: tuple[int, int]) -> list[np.ndarray]:
    """Smooth colours with a hard edge that moves: what a codec finds hard."""
    from PIL import Image

    folder.mkdir(parents=True)
    width, height = wh
    y, x = np.mgrid[0:height, 0:width]
    frames = []
    for number in range(n):
        frame = np.stack([x * 255 // width, y * 255 // height, (x + y + 9 * number) % 256], axis=-1)
        frame[5:20, 3 * number : 3 * number + 12] = (255, 0, 0)
        frames.append(frame.astype(np.uint8))
        Image.fromarray(frames[-1]).save(folder / f"{number}.png")
    return frames


@pytest.mark.parametrize("wh", [(64, 48), (65, 47), (101, 33)])
def test_frames_come_back_from_the_video_at_their_number_in_their_size(
    tmp_path: Path, wh: tuple[int, int]
) -> None:
    frames = noisy_frames(tmp_path / "clip", 15, wh)
    file = video_at(tmp_path / "clip").encoded(tmp_path / "videos" / "clip.mp4")
    facts = video_at(file)
    assert (facts.n_frames, facts.fps) == (15, 2.0)
    for image, frame in zip(read_frames(file, range(15)), frames, strict=True):
        assert image.size == wh
        error = np.asarray(image, float) - frame
        assert 10 * np.log10(255**2 / np.mean(error**2)) > 38  # dB
        assert np.abs(error).mean() < 2.5


def test_a_video_is_made_once_and_again_when_a_frame_changes(tmp_path: Path) -> None:
    lmms_data.write_frames(tmp_path, "revos")
    shown = view(lmms_data.make_video_sample("revos", 0), tmp_path)
    first = video_file(shown, tmp_path)
    assert first is not None
    assert first.parent == tmp_path / ".videos" / "revos" / "images"
    made = first.stat().st_mtime_ns
    assert video_file(shown, tmp_path) == first
    assert first.stat().st_mtime_ns == made
    lmms_data.write_frames(tmp_path / "again", "revos")
    frame = tmp_path / "revos" / "images" / "clip" / "1.png"
    frame.write_bytes((tmp_path / "again" / "revos" / "images" / "clip" / "2.png").read_bytes())
    second = video_file(shown, tmp_path)
    assert second != first
    assert {path.name for path in first.parent.iterdir()} == {first.name, second.name}
    frame.unlink()
    with pytest.raises(UserError, match=r"clip has 2 frames, and had 3 when the task"):
        video_file(shown, tmp_path)


def test_a_frame_that_goes_and_a_file_that_is_replaced_are_noticed(tmp_path: Path) -> None:
    for n in (3, 5):
        noisy_frames(tmp_path / f"clip{n}", n, (64, 48))
        video_at(tmp_path / f"clip{n}").encoded(tmp_path / "clip.mp4").replace(
            tmp_path / "clip.mp4"
        )
        assert video_at(tmp_path / "clip.mp4").n_frames == n
    video = video_at(tmp_path / "clip3")
    (tmp_path / "clip3" / "1.png").unlink()
    with pytest.raises(UserError, match=r"a frame of the video .*clip3 is gone: .*1.png"):
        video.encoded(tmp_path / "videos" / "clip.mp4")


def test_a_single_frame_is_shown_twice_and_counted_once(tmp_path: Path) -> None:
    """The readers of the Qwen backends fail on videos of one frame."""
    lmms_data.write_frames(tmp_path, "revos")
    for name in ("1.png", "2.png"):
        (tmp_path / "revos" / "images" / "clip" / name).unlink()
    one = "revos/images/clip/10.png"
    sample = lmms_data.make_video_sample("revos", 0, images=(one,) * 3)
    shown = view(sample, tmp_path)
    assert shown.instruction.startswith("This is a video of 1 frame. Please")
    assert "in frame 1 (counted from 1, at 0.00 seconds)" in shown.instruction
    file = video_file(shown, tmp_path)
    assert file is not None
    first, second = (np.asarray(image) for image in read_frames(file, [0, 1]))
    assert video_at(file).n_frames == 2
    assert np.abs(first.astype(int) - second).max() <= 2


@pytest.mark.parametrize("name", ["clip.mkv", "clip.MP4"])
def test_a_video_that_backends_would_pass_over_is_refused(tmp_path: Path, name: str) -> None:
    noisy_frames(tmp_path / "clip", 3, (64, 48))
    video_at(tmp_path / "clip").encoded(tmp_path / "clip.mp4").replace(tmp_path / name)
    sample = lmms_data.make_video_sample("revos", 0, images=(f"{name}#frame=0",) * 3, extra={})
    with pytest.raises(UserError, match=r"clip\.\w+: some backends .*convert it to mp4"):
        view(sample, tmp_path)


def test_frames_of_two_sizes_and_damaged_ones_leave_no_video(tmp_path: Path) -> None:
    from PIL import Image

    noisy_frames(tmp_path / "clip", 3, (64, 48))
    Image.new("RGB", (64, 50)).save(tmp_path / "clip" / "1.png")
    target = tmp_path / "videos" / "clip.mp4"
    with pytest.raises(UserError, match=r"1.png is 64x50 pixels, the first of its video 64x48"):
        video_at(tmp_path / "clip").encoded(target)
    (tmp_path / "clip" / "1.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"cannot read .*1.png as an image"):
        video_at(tmp_path / "clip").encoded(target)
    assert not list((tmp_path / "videos").iterdir())


# Who can take it


def test_a_dialect_in_pixels_of_the_resized_input_is_refused_with_the_remedy() -> None:
    model = ModelUnderTest("univg_baseline", {"kind": "oracle"})
    environ = {"UNIVG_DIALECT": "qwen2_5_vl"}
    with pytest.raises(UserError, match=r"UNIVG_DIALECT\) writes .* pixels.* as images .*0-1000"):
        resolve_settings(model, VIDEO, environ)
    assert resolve_settings(model, {}, environ).dialect.value == "qwen2_5_vl"
    assert resolve_settings(model, VIDEO, {"UNIVG_DIALECT": "qwen2_vl"}).variant == "video"


def test_a_backend_for_images_is_refused_and_an_unknown_one_warned_about() -> None:
    from loguru import logger

    with pytest.raises(UserError, match=r"simple/llava takes images, not videos.*simple/qwen2_vl"):
        require_video_backend("llava", simple=True)
    warned: list[str] = []
    handler = logger.add(warned.append, level="WARNING")
    try:
        require_video_backend("my_own", simple=True)
        require_video_backend("qwen2_vl", simple=True)
    finally:
        logger.remove(handler)
    assert len(warned) == 1
    assert "not known whether the backend simple/my_own takes a video" in warned[0]


def test_the_lists_name_backends_that_lmms_eval_has() -> None:
    from lmms_eval.models import AVAILABLE_CHAT_TEMPLATE_MODELS, AVAILABLE_SIMPLE_MODELS

    known = {"simple": AVAILABLE_SIMPLE_MODELS, "chat": AVAILABLE_CHAT_TEMPLATE_MODELS}
    assert not [(kind, name) for kind, name in VIDEO_BACKENDS if name not in known[kind]]
    assert {*known["simple"], "univg"} >= IMAGE_BACKENDS
    assert not [
        name for kind, name in VIDEO_BACKENDS if kind == "simple" and name in IMAGE_BACKENDS
    ]


WRONG = [
    ({"media": "movie"}, r"media is 'movie' \(metadata key media.*expected one of: images, video"),
    ({"control": "mirror"}, r"control is 'mirror'.*none, blank, swapped, permuted, cut"),
    ({"control": "blank", "media": "video"}, r"control 'blank' changes images, and media is 'vid"),
]


@pytest.mark.parametrize(("metadata", "message"), WRONG)
def test_unknown_values_and_a_control_of_a_video_are_refused(metadata, message: str) -> None:
    with pytest.raises(UserError, match=message):
        shown_settings(metadata)


def test_the_environment_sets_neither() -> None:
    environ = {"UNIVG_CONTROL": "blank", "UNIVG_MEDIA": "video"}
    found = resolve_settings(ModelUnderTest("univg_baseline"), {}, environ)
    assert found.control.to_list() == ["none", "default"]
    assert found.media.to_list() == ["images", "default"]


# Through lmms-eval


def task_of(name: str, **args: Any):
    task = lmms_data.load_tasks(name)[name]
    lmms_data.build(task, **args)
    return task


@pytest.fixture
def revos(tmp_path: Path) -> Path:
    lmms_data.put_video(tmp_path, [lmms_data.make_video_sample("revos", i) for i in range(3)])
    return tmp_path


def test_simple_backends_get_a_path_and_chat_backends_a_video_part(
    revos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIVG_DIALECT", "norm1000")
    task = task_of("univg_revos_video", model="qwen2_vl", model_args="pretrained=/none")
    assert task.VERSION == "1.0+video"
    text, (path,) = lmms_data.shown(task, task.instances[0])
    assert "in frame 3 (counted from 1, at 1.00 seconds)" in text
    assert isinstance(path, str)
    assert path.endswith(".mp4")
    assert video_at(Path(path)).n_frames == 3
    task = task_of("univg_revos_video", model="qwen2_5_vl", model_args="pretrained=/none")
    again, (part,) = lmms_data.shown(task, task.instances[0])
    assert (again, part.type, part.url) == (text, "video", path)


def test_a_backend_that_takes_no_video_stops_the_run(
    revos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UNIVG_DIALECT", "norm1000")
    monkeypatch.setattr(ModelUnderTest, "is_simple", property(lambda self: True))
    with lmms_data.stops(capsys, "simple/phi3v takes images, not videos"):
        task_of("univg_revos_video", model="phi3v", model_args="max_pixels=1,min_pixels=1")


def test_oracle_and_record_of_a_video_run_stand_apart(revos: Path, tmp_path: Path) -> None:
    from univg_eval.lmms.record import write_records
    from univg_eval.lmms.run import evaluate

    found = evaluate("univg_baseline", "kind=oracle", ["univg_revos_video", "univg_revos"])
    for task in ("univg_revos_video", "univg_revos"):
        assert found.results["results"][task]["acc@0.5,none"] == 1.0
    folders = write_records(found.results, tmp_path / "records")
    assert sorted(folder.name for folder in folders) == ["revos", "revos+video"]
    record = load_run(tmp_path / "records" / "revos+video")
    dataset = record.manifest.to_dict()["dataset"]
    expected = {"benchmark": "revos+video", "media": "video", "control": "none"}
    assert dataset.items() >= expected.items()
    assert record.manifest.settings.media[0] == "video"
    assert record.manifest.complete is True
    assert {row["benchmark"] for row in record.responses} == {"revos+video"}
    # Scored again, the samples are those about the video: its target frame is the only image.
    again, changed = tmp_path / "again", tmp_path / "changed"
    command = ["rescore", str(record.path), "-o"]
    assert main([*command, str(again)]) == 0
    assert (again / "scores.jsonl").read_bytes() == (record.path / "scores.jsonl").read_bytes()
    assert main([*command, str(changed), "--dialect", "pixels"]) == 0
    assert load_run(changed).manifest.results.macro["acc@0.5"] == 0.0
    assert "in frame 3" in record.responses[0]["prompt"]


def run_with_model(model: Any, name: str, model_args: str, tasks: list[str]):
    """Evaluate; also the grids (frames, height, width in patches) of the videos that it got."""
    grids: list[list[int]] = []
    generate = model.model.generate

    def watched(**kwargs: Any):
        assert kwargs.get("image_grid_thw") is None
        grids.extend(kwargs["video_grid_thw"].tolist())
        return generate(**kwargs)

    model.model.generate = watched
    cli_args = lmms_data.arguments(name, model_args)
    results = lmms_data.evaluate(model, cli_args, tasks, gen_kwargs="max_new_tokens=8")
    return [row for task in tasks for row in results["samples"][task]], grids


def test_the_tiny_model_sees_videos_through_the_stock_simple_backend(
    mini: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    """lmms-eval's simple/qwen2_vl with the real processor, up to the frames that it samples."""
    monkeypatch.setenv("UNIVG_DATA", str(mini))
    model = lmms_data.load_model("qwen2_vl", TINY, 2, (28224, 28224))
    tasks = ["univg_mini_revos_video", "univg_mini_reasonvos_video"]
    rows, grids = run_with_model(model, "qwen2_vl", TINY_ARGS, tasks)
    # 25 frames at 5 a second, read at 2 a second: 10 frames, two to a patch, of 12 x 12 patches.
    assert grids == [[5, 12, 12]] * 4
    assert len(rows) == 4
    assert {row["dialect"] for row in rows} == {"qwen2_vl"}
    assert all(row["filtered_resps"][0] for row in rows)


def test_a_stock_chat_backend_reads_the_video_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    """lmms-eval's chat/qwen2_5_vl with random weights; seven frames, of which it takes six."""
    noisy_frames(tmp_path / "revos" / "images" / "clip", 7, (65, 47))
    folder = "revos/images/clip"
    sample = lmms_data.make_video_sample(
        "revos",
        0,
        images=tuple(f"{folder}/{number}.png" for number in (1, 3, 5)),
        extra={"video": folder, "target_frame": 5, "expression": "the dog"},
    )
    write_benchmark([sample], benchmark="revos", root=tmp_path)
    monkeypatch.setenv("UNIVG_DIALECT", "norm1000")
    checkpoint = lmms_data.make_checkpoint(tmp_path / "model", "qwen2_5_vl")
    model = lmms_data.load_model("qwen2_5_vl", checkpoint, 1, (784, 3136))
    rows, grids = run_with_model(
        model, "qwen2_5_vl", f"pretrained={checkpoint}", ["univg_revos_video"]
    )
    # Six frames in pairs; 65 x 47 pixels rounded to 56 x 56.
    assert grids == [[3, 4, 4]]
    assert "in frame 6 (counted from 1, at 2.50 seconds)" in rows[0]["arguments"][0]
