"""The video itself instead of sampled frames: what is asked, and which backends can take it.

A task with ``media: video`` in its metadata hands the model one video file. The question then
names the asked frame by its number (counted from 1) and its time. Which frames of the file reach
the model is the backend's own affair; `VIDEO_BACKENDS` tells it for those whose code was read.
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
from univg_eval.lmms.films import Film, film_of_file, film_of_folder
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
"""Key of `GroundingSample.extra` that holds the video and the asked frame in a video view."""

_QWEN_FPS = (
    "2 frames a second (at least 4, at most 768, an even number) with the first and the last, "
    "then at most max_num_frames (32) of them evenly"
)
VIDEO_BACKENDS: Mapping[tuple[str, str], str] = {
    ("simple", "qwen2_vl"): f"{_QWEN_FPS}; the second step for the first video of a batch only",
    ("simple", "qwen2_5_vl"): f"{_QWEN_FPS}; the second step for the first video of a batch only",
    ("simple", "qwen3_vl"): "max_num_frames (32), or all of a shorter video, evenly with both ends",
    ("simple", "qwen3_5"): "max_num_frames (32), or all of a shorter video, evenly with both ends",
    ("simple", "llava_onevision"): "max_frames_num (32) evenly with both ends, repeating if short",
    ("simple", "internvl2"): "with model_args modality=video: num_frame, centres of equal parts",
    ("simple", "internvl3"): "with model_args modality=video: num_frame, centres of equal parts",
    ("simple", "internvl3_5"): "with model_args modality=video: num_frame, centres of equal parts",
    ("simple", "gemma3"): "max_num_frames (32) evenly with both ends",
    ("simple", "openai"): "max_frames_num (10) evenly with both ends, or every 1/video_fps seconds",
    ("simple", "vllm"): "max_frame_num (32) evenly with both ends, repeating if short",
    ("chat", "qwen2_5_vl"): (
        "max_num_frames (32), or an even number of a shorter video's, evenly with both ends; the "
        "first video of a batch decides for all: batch_size=1"
    ),
    ("chat", "qwen3_vl"): (
        "max_num_frames (32) evenly with both ends; shorter videos fail: set max_num_frames or fps"
    ),
    ("chat", "qwen3_5"): (
        "max_num_frames (32) evenly with both ends; shorter videos fail: set max_num_frames or fps"
    ),
    ("chat", "vllm"): "nframes (32) evenly with both ends; shorter videos fail: set nframes or fps",
    ("chat", "sglang"): "nframes (32) evenly with both ends; shorter videos fail: set nframes",
    ("chat", "openai"): (
        "max_frames_num (10) evenly with both ends, or video_fps; shorter videos fail"
    ),
    ("chat", "internvl_hf"): "num_frames or fps if set, else what the checkpoint's processor says",
}
"""(kind, backend) of lmms-eval 0.7.3 → the frames that reach the model."""

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov")
"""Ends of file names that simple/qwen2_vl and its kin take for a video; others they pass over."""

IMAGE_BACKENDS = frozenset(
    {
        *("bagel", "bagel_umm", "cogvlm2", "fuyu", "glm4v", "illume_plus"),
        *("instructblip", "internvl", "llava", "llava_sglang", "mantis", "minicpm_v"),
        *("minimonkey", "mistral3_vl", "mmada", "ovis_u1", "phi3v", "qwen_vl", "qwen_vl_api"),
        *("ross", "sam3", "slime", "tinyllava", "vora", "xcomposer2_4KHD"),
    }
)
"""Simple backends of lmms-eval 0.7.3 whose code knows no video."""


def require_video_backend(backend: str, *, simple: bool) -> None:
    """Check that a backend can take a video file.

    Raises:
        UserError: it is known to take images alone. One that is in neither list passes with a
            warning: some simple backends leave out what they do not know, and answer unseen.
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
    """The samples as questions about a video.

    A view keeps the id, the truth and the asked frame, which is its only image: sizes and boxes
    refer to it. The video is ``extra["video"]`` (file, or folder of frames, below the data root),
    else the file that all images are frames of. The asked frame is the one that the targets lie
    on, else ``extra["target_frame"]``. The frames of a folder are numbered in the natural order of
    their names, and those of a file by the file.

    Raises:
        UserError: a sample names no video or no single frame of it, or the video is not there.
    """
    base = data_root(root)
    films: dict[str, Film] = {}
    return [_view(sample, base, films) for sample in samples]


def video_of(sample: GroundingSample) -> str | None:
    """The video that a sample is about, below the data root; None if it is about none."""
    video = sample.extra.get("video")
    if isinstance(video, str):
        return video
    references = [split_reference(image) for image in sample.images]
    files = {path for path, _ in references}
    return files.pop() if len(files) == 1 and references[0][1] is not None else None


def _view(sample: GroundingSample, base: Path, films: dict[str, Film]) -> GroundingSample:
    video = video_of(sample)
    if video is None:
        raise UserError(
            f"sample {sample.id!r} names no video: it has no extra['video'], and its images are "
            "not frames of one video file; evaluate the task that shows them as images"
        )
    if video not in films:
        films[video] = _film(base / video)
    film = films[video]
    numbers = [_frame_number(sample, image, video, film) for image in sample.images]
    # Targets first: releases differ in how they number files, and so in `target_frame`.
    asked = numbers[sample.targets[0].image] if sample.targets else sample.extra.get("target_frame")
    if asked not in numbers:
        raise UserError(
            f"sample {sample.id!r} has no target, and its extra['target_frame'] is {asked!r}; "
            f"expected one of the frames that it shows: {', '.join(map(str, numbers))} (0-based)"
        )
    if any(numbers[target.image] != asked for target in sample.targets):
        raise UserError(
            f"sample {sample.id!r} has targets in several frames; evaluate the task that shows "
            "the frames as images"
        )
    place = numbers.index(asked)
    return replace(
        sample,
        images=(sample.images[place],),
        widths=sample.widths[place : place + 1],
        heights=sample.heights[place : place + 1],
        instruction=_question(sample, asked, numbers, film),
        targets=tuple(replace(target, image=0) for target in sample.targets),
        image_is_given=True,
        extra={**sample.extra, VIDEO_MARK: {"path": video, "frame": asked, **film.to_dict()}},
    )


def _film(path: Path) -> Film:
    if path.is_dir():
        return film_of_folder(path)
    if path.is_file() and path.suffix not in VIDEO_SUFFIXES:
        raise UserError(
            f"the video {path}: some backends of lmms-eval pass over files whose names do not end "
            f"in {', '.join(VIDEO_SUFFIXES)}, and answer unseen; convert it to mp4, or evaluate "
            "the task that shows its frames as images"
        )
    return film_of_file(path)


def _frame_number(sample: GroundingSample, image: str, video: str, film: Film) -> int:
    """0-based number of an image among the frames of the film."""
    path, frame = split_reference(image)
    if frame is not None and path == video:
        return frame
    parent, _, name = image.rpartition("/")
    if parent == video and name in film.names:
        return film.names.index(name)
    raise UserError(
        f"sample {sample.id!r}: image {image} is no frame of the video {video}; prepare the "
        "benchmark again"
    )


def _question(sample: GroundingSample, asked: int, numbers: Sequence[int], film: Film) -> str:
    """The question with the asked frame named; frames are counted from 1, time starts at 0.

    Where the release's own expression is known, the sentence is that of the published video
    prompt (see `sequence_instruction`) with "video" for the sequence
    of images. Else the whole question is kept, and it is told which frames its images are.
    """
    frame = f"frame {asked + 1}"
    video = f"This is a video of {film.n_frames} frame{'s' if film.n_frames > 1 else ''}."
    when = f"at {asked / film.fps:.2f} seconds"
    expression = sample.extra.get("expression")
    if isinstance(expression, str):
        return (
            f"{video} Please understand the entire video content, and then output the bounding box "
            f"in {frame} (counted from 1, {when}) according to the instruction: {expression}."
        )
    shown = ", ".join(str(number + 1) for number in numbers)
    return (
        f"{video} The images that the following question names are the frames {shown} of it, in "
        f"this order, counted from 1; the one that is asked for is {frame}, {when}. "
        f"{sample.instruction}"
    )


def video_file(sample: GroundingSample, root: str | os.PathLike[str] | None = None) -> Path | None:
    """The file to show for a video view, made first where the video is a folder of frames.

    Returns:
        None for a sample that is no video view.

    Raises:
        UserError: the video has another number of frames than when it was asked about; see also
            `univg_eval.lmms.films`.
    """
    shown: Mapping[str, Any] | None = sample.extra.get(VIDEO_MARK)
    if shown is None:
        return None
    base = data_root(root)
    path = base / shown["path"]
    try:
        film = _film(path)
        if film.n_frames != shown["n_frames"]:
            raise UserError(
                f"{path} has {film.n_frames} frames, and had {shown['n_frames']} when the question "
                "was made; prepare its benchmark again"
            )
        if film.names:
            return film.encoded(base / ".films" / f"{shown['path']}.mp4")
        return film.path
    except UserError as error:
        raise UserError(f"sample {sample.id!r}: {error}") from error
