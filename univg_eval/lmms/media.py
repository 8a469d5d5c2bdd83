"""The video itself instead of sampled frames: the prompt, and which backends can take it.

A task with ``media: video`` in its metadata hands the model one video file. The instruction then
names the target frame by its number (counted from 1) and its time. Which frames of the file reach
the model is up to the backend; `VIDEO_BACKENDS` lists it for those whose code was read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from loguru import logger

from univg_eval.errors import UserError
from univg_eval.images.reading import split_reference
from univg_eval.lmms.video_files import Video, video_at
from univg_eval.samples import GroundingSample, data_root

__all__ = [
    "IMAGE_BACKENDS",
    "VIDEO_BACKENDS",
    "VIDEO_MARK",
    "require_video_backend",
    "video_file",
    "video_of",
    "video_view",
]

VIDEO_MARK = "shown_video"
"""Key of `GroundingSample.extra` that holds the video and the target frame in a video view."""

_QWEN_FPS = (
    "2 frames a second (at least 4, at most 768, an even number) with the first and the last, "
    "then at most max_num_frames (32) of them evenly; the second step for the first video of a "
    "batch only"
)
_EVENLY_OR_ALL = "max_num_frames (32), or all of a shorter video, evenly with both ends"
_INTERN = "with model_args modality=video: num_frame, centres of equal parts"
_QWEN_CHAT = (
    "max_num_frames (32) evenly with both ends; shorter videos fail: set max_num_frames or fps"
)
VIDEO_BACKENDS: Mapping[tuple[str, str], str] = {
    ("simple", "qwen2_vl"): _QWEN_FPS,
    ("simple", "qwen2_5_vl"): _QWEN_FPS,
    ("simple", "qwen3_vl"): _EVENLY_OR_ALL,
    ("simple", "qwen3_5"): _EVENLY_OR_ALL,
    ("simple", "llava_onevision"): "max_frames_num (32) evenly with both ends, repeating if short",
    ("simple", "internvl2"): _INTERN,
    ("simple", "internvl3"): _INTERN,
    ("simple", "internvl3_5"): _INTERN,
    ("simple", "gemma3"): "max_num_frames (32) evenly with both ends",
    ("simple", "openai"): "max_frames_num (10) evenly with both ends, or every 1/video_fps seconds",
    ("simple", "vllm"): "max_frame_num (32) evenly with both ends, repeating if short",
    ("chat", "qwen2_5_vl"): (
        "max_num_frames (32), or an even number of a shorter video's, evenly with both ends; the "
        "first video of a batch decides for all: batch_size=1"
    ),
    ("chat", "qwen3_vl"): _QWEN_CHAT,
    ("chat", "qwen3_5"): _QWEN_CHAT,
    ("chat", "vllm"): "nframes (32) evenly with both ends; shorter videos fail: set nframes or fps",
    ("chat", "sglang"): "nframes (32) evenly with both ends; shorter videos fail: set nframes",
    ("chat", "openai"): (
        "max_frames_num (10) evenly with both ends, or video_fps; shorter videos fail"
    ),
    ("chat", "internvl_hf"): "num_frames or fps if set, else what the checkpoint's processor says",
}
"""(kind, backend) of lmms-eval 0.7.3 → the frames that reach the model."""

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov")
"""Ends of file names that simple/qwen2_vl and its kin take for a video; they ignore others."""

IMAGE_BACKENDS = frozenset(
    {
        *("bagel", "bagel_umm", "cogvlm2", "fuyu", "glm4v", "illume_plus"),
        *("instructblip", "internvl", "llava", "llava_sglang", "mantis", "minicpm_v"),
        *("minimonkey", "mistral3_vl", "mmada", "ovis_u1", "phi3v", "qwen_vl", "qwen_vl_api"),
        *("ross", "sam3", "slime", "tinyllava", "univg", "vora", "xcomposer2_4KHD"),
    }
)
"""Simple backends of lmms-eval 0.7.3, and this project's own, whose code knows no video."""


def require_video_backend(backend: str, *, simple: bool) -> None:
    """Check that a backend can take a video file.

    Raises:
        UserError: it is known to take images alone. One that is in neither list passes with a
            warning: some simple backends leave out what they do not know, and answer blind.
    """
    kind = "simple" if simple else "chat"
    if (kind, backend) in VIDEO_BACKENDS:
        return
    takers = ", ".join(f"{kind}/{name}" for kind, name in VIDEO_BACKENDS)
    if simple and backend in IMAGE_BACKENDS:
        raise UserError(
            f"the backend simple/{backend} takes images, not videos: evaluate the task that shows "
            f"the frames as images (the same name without _video); these take videos: {takers}"
        )
    logger.warning(
        "it is not known whether the backend {}/{} takes a video file; check in its log that it "
        "does. These do: {}",
        kind,
        backend,
        takers,
    )


def video_view(
    samples: Sequence[GroundingSample], root: str | os.PathLike[str] | None = None
) -> list[GroundingSample]:
    """The samples as samples about a video.

    A view keeps the id, the truth and the target frame, which is its only image: sizes and boxes
    refer to it. The video is ``extra["video"]`` (file, or folder of frames, below the data root),
    else the file that all images are frames of. The target frame is the one that the targets lie
    on, else ``extra["target_frame"]``. The frames of a folder are numbered in the natural order of
    their names, and those of a file by the file.

    Raises:
        UserError: a sample names no video or no single frame of it, or the video is not there.
    """
    base = data_root(root)
    return [_view(sample, base) for sample in samples]


def video_of(sample: GroundingSample) -> str | None:
    """The video that a sample is about, below the data root; None if it is about none."""
    video = sample.extra.get("video")
    if isinstance(video, str):
        return video
    references = [split_reference(image) for image in sample.images]
    files = {path for path, _ in references}
    return files.pop() if len(files) == 1 and references[0][1] is not None else None


def _view(sample: GroundingSample, base: Path) -> GroundingSample:
    name = video_of(sample)
    if name is None:
        raise UserError(
            f"sample {sample.id!r} names no video: it has no extra['video'], and its images are "
            "not frames of one video file; evaluate the task that shows them as images"
        )
    video = _video(base / name)
    numbers = [_frame_number(sample, image, name, video) for image in sample.images]
    # Targets first: releases differ in how they number files, and so in `target_frame`.
    frame = numbers[sample.targets[0].image] if sample.targets else sample.extra.get("target_frame")
    if frame not in numbers:
        raise UserError(
            f"sample {sample.id!r} has no target, and its extra['target_frame'] is {frame!r}; "
            f"expected one of the frames that it shows: {', '.join(map(str, numbers))} (0-based)"
        )
    if any(numbers[target.image] != frame for target in sample.targets):
        raise UserError(
            f"sample {sample.id!r} has targets in several frames; evaluate the task that shows "
            "the frames as images"
        )
    place = numbers.index(frame)
    shown = {"path": name, "frame": frame, "n_frames": video.n_frames, "fps": video.fps}
    return replace(
        sample,
        images=(sample.images[place],),
        widths=sample.widths[place : place + 1],
        heights=sample.heights[place : place + 1],
        instruction=_instruction(sample, frame, numbers, video),
        targets=tuple(replace(target, image=0) for target in sample.targets),
        image_is_given=True,
        given_image=0,
        extra={**sample.extra, VIDEO_MARK: shown},
    )


def _video(path: Path) -> Video:
    if path.is_file() and path.suffix not in VIDEO_SUFFIXES:
        raise UserError(
            f"the video {path}: some backends of lmms-eval ignore files whose names do not end "
            f"in {', '.join(VIDEO_SUFFIXES)}, and answer blind; convert it to mp4, or evaluate "
            "the task that shows its frames as images"
        )
    return video_at(path)


def _frame_number(sample: GroundingSample, image: str, name: str, video: Video) -> int:
    """0-based number of an image among the frames of the video."""
    path, frame = split_reference(image)
    if frame is not None and path == name:
        return frame
    parent, _, file = image.rpartition("/")
    if parent == name and file in video.names:
        return video.names.index(file)
    raise UserError(
        f"sample {sample.id!r}: image {image} is no frame of the video {name}; prepare the "
        "benchmark again"
    )


def _instruction(sample: GroundingSample, frame: int, numbers: Sequence[int], video: Video) -> str:
    """The instruction with the target frame named; frames are counted from 1, time starts at 0.

    Where the release's own expression is known, the sentence is that of the published video
    prompt (see `sequence_instruction`) with "video" for the sequence of images. Else the whole
    instruction is kept, after a sentence that says which frames its images are.
    """
    name = f"frame {frame + 1}"
    intro = f"This is a video of {video.n_frames} frame{'s' if video.n_frames > 1 else ''}."
    when = f"at {frame / video.fps:.2f} seconds"
    expression = sample.extra.get("expression")
    if isinstance(expression, str):
        return (
            f"{intro} Please understand the entire video content, and then output the bounding box "
            f"in {name} (counted from 1, {when}) according to the instruction: {expression}."
        )
    shown = ", ".join(str(number + 1) for number in numbers)
    return (
        f"{intro} The images that the following question names are the frames {shown} of it, in "
        f"this order, counted from 1; the one that is asked for is {name}, {when}. "
        f"{sample.instruction}"
    )


def video_file(sample: GroundingSample, root: str | os.PathLike[str] | None = None) -> Path | None:
    """The file to show for a video view, made first where the video is a folder of frames.

    Returns:
        None for a sample that is no video view.

    Raises:
        UserError: the video has another number of frames than when the view was made; see also
            `univg_eval.lmms.video_files`.
    """
    shown: Mapping[str, Any] | None = sample.extra.get(VIDEO_MARK)
    if shown is None:
        return None
    base = data_root(root)
    path = base / shown["path"]
    try:
        video = _video(path)
        if video.n_frames != shown["n_frames"]:
            raise UserError(
                f"{path} has {video.n_frames} frames, and had {shown['n_frames']} when the task "
                "was loaded; prepare its benchmark again"
            )
        if video.names:
            return video.encoded(base / ".videos" / f"{shown['path']}.mp4")
        return video.path
    except UserError as error:
        raise UserError(f"sample {sample.id!r}: {error}") from error
