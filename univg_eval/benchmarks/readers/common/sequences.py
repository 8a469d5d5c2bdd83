"""The sample of a set whose questions show frames of a video, and the folders of those frames."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from univg_eval.benchmarks.readers.common.annotation_files import AnnotationFile, describe, listing
from univg_eval.benchmarks.readers.common.masks import Mask
from univg_eval.benchmarks.readers.common.release import ItemError, sequence_instruction, size_of
from univg_eval.errors import UserError
from univg_eval.images.video import FRAME_ORDERS, frame_numbers, list_frames
from univg_eval.samples import GroundingSample, Target

__all__ = [
    "IMAGES_LINK",
    "EvenFrames",
    "VideoFolders",
    "frame_names",
    "mask_target",
    "open_videos",
    "sequence_sample",
]

IMAGES_LINK = "images"
"""Folder below the benchmark's own through which the videos are reached."""


class EvenFrames:
    """The frames that a set made from a raw release shows, and which of them is asked for.

    The rule is ``even:N`` or ``all`` (see `video.SAMPLING_RULES`). The asked frame is the one in
    the middle of those shown: position n // 2, the third of five like in the published set.
    """

    DEFAULT = "even:5"

    def __init__(self, rule: str) -> None:
        """Take a rule; UserError if it is unknown or is ``given``."""
        frame_numbers(rule, 1)
        self.rule = rule

    def of(self, n_total: int) -> tuple[list[int], int]:
        """Numbers of the frames shown, and the position of the asked one among them (0-based)."""
        shown = frame_numbers(self.rule, n_total)
        return shown, len(shown) // 2

    def to_dict(self) -> dict[str, str]:
        """For a manifest."""
        return {"sampling": self.rule, "asked_frame": "position n // 2 of the n frames shown"}


class VideoFolders:
    """The folder below which a release keeps its videos, a folder of frames each."""

    def __init__(self, folder: Path) -> None:
        """Look below `folder`."""
        self.folder = folder
        self._listed = lru_cache(maxsize=64)(self._list)
        self._tabled = lru_cache(maxsize=64)(self._table)
        # Many questions ask for the same few frames.
        self._size = lru_cache(maxsize=4096)(size_of)

    @classmethod
    def choose(
        cls,
        images: str | os.PathLike[str] | None,
        base: Path,
        below: Sequence[str],
        videos: Iterable[str],
    ) -> VideoFolders:
        """The folder in which a video of the release is found.

        Args:
            images: what the user gave; None: look below `base`.
            base: the folder of the annotation file.
            below: subfolders to look in, in this order, before the folder itself.
            videos: names of videos; one of them has to be there.

        Raises:
            UserError: `images` is no folder, or no video is in any of the places.
        """
        start = base if images is None else Path(images).expanduser()
        if not start.is_dir():
            raise UserError(
                f"the image folder {start} does not exist; give the folder that the release's "
                "videos were unpacked to with --images"
            )
        names = [video for video in dict.fromkeys(videos) if _is_inside(video)]
        places = [start / part for part in below if (start / part).is_dir()] + [start]
        for place in places:
            if any((place / name).is_dir() for name in names):
                return cls(place.resolve())
        raise UserError(
            f"none of the {len(names)} videos is a folder of "
            f"{' or '.join(str(place) for place in places)}, for example "
            f"{names[0] if names else 'none'!r}; {start} has: {listing(start)}. Unpack the "
            "release's JPEGImages, and give its folder with --images"
        )

    def frames(self, video: str, where: str, *, order: str = "natural") -> tuple[str, ...]:
        """File names of a video's frames, in order.

        Raises:
            ItemError: ``invalid_row``: the name leads out of the folder; ``missing_image``: no
                such video; ``unreadable_image``: the order of its frames cannot be told.
        """
        if not _is_inside(video):
            raise ItemError(
                "invalid_row",
                f"{where}: video {video!r}; expected a name that stays within the folder of videos",
            )
        path = self.folder / video
        if not path.is_dir():
            raise ItemError(
                "missing_image",
                f"{where}: video {video!r} is no folder below {self.folder}; unpack the release's "
                "videos there, or give their folder with --images",
            )
        try:
            return self._listed(video, order)
        except UserError as error:
            raise ItemError("unreadable_image", f"{where}: {error}") from error

    def _list(self, video: str, order: str) -> tuple[str, ...]:
        return tuple(list_frames(self.folder / video, order=order))

    def has_ties(self, video: str) -> bool:
        """Whether frames of a video that was listed have equal first numbers in their names."""
        _, key = FRAME_ORDERS["first_number"]
        names = self._listed(video, "first_number")
        return len({key(name)[0] for name in names}) < len(names)

    def named(self, video: str, frames: Sequence[str], where: str) -> list[str]:
        """File names of frames that the release names without their extension.

        A name that is a number and stands for no file as it is, is looked for as a number: 12 is
        00012.jpg if no other file has that number.

        Raises:
            ItemError: as `frames` does; ``missing_image``: a frame is not there.
        """
        names = self.frames(video, where)
        files = self._tabled(video)
        found = []
        for frame in frames:
            file = files.get(frame)
            if file is None and _is_number(frame):
                file = files.get(f"#{int(frame)}")
            if file is None:
                raise ItemError(
                    "missing_image",
                    f"{where}: frame {frame!r} of video {video!r} is not in "
                    f"{self.folder / video}, which has {len(names)} frames, from {names[0]} to "
                    f"{names[-1]}; expected a picture of that name: unpack the video again",
                )
            found.append(file)
        return found

    def _table(self, video: str) -> dict[str, str | None]:
        """Stem → file, and ``#12`` → the file of number 12, None where several have it."""
        names = self._listed(video, "natural")
        stems = {PurePosixPath(name).stem: name for name in names}
        table: dict[str, str | None] = {}
        for stem, name in stems.items():
            if _is_number(stem):
                number = f"#{int(stem)}"
                table[number] = None if number in table else name
        return table | stems

    def size(self, video: str, file: str) -> tuple[int, int]:
        """(width, height) of a frame as displayed; ItemError like `size_of`."""
        return self._size(self.folder / video / file)

    def path(self, video: str, file: str) -> Path:
        """The file of a frame."""
        return self.folder / video / file


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) < 20


def _is_inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and ".." not in parts and parts[0] != "/" and "\0" not in name


def open_videos(
    meta: AnnotationFile, fields: Sequence[str], expression_fields: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The videos of a ``meta_expressions`` file, each with an object of its expressions.

    A release that lists a video's expressions gets their places as keys. A file none of whose
    videos and expressions has the fields is that of another set and is refused; if only some lack
    them, these are faulty items.

    Args:
        meta: the file: ``{"videos": {name: {"expressions": …}}}``.
        fields: that a video must have.
        expression_fields: that an expression must have.

    Raises:
        UserError: the file is that of another set, or holds no expression.
    """
    value = meta.value
    videos = value.get("videos") if isinstance(value, Mapping) else None
    expected = (
        'expected {"videos": {name: {…}}} with the fields '
        f"{', '.join(fields)} a video and {', '.join(expression_fields)} an expression"
    )
    if not isinstance(videos, Mapping) or not videos:
        raise UserError(f"{meta.path}: holds {describe(value)}; {expected}")
    found: dict[str, dict[str, Any]] = {}
    sound = False
    for name, video in videos.items():
        content = dict(video) if isinstance(video, Mapping) else {}
        expressions = content.get("expressions")
        if isinstance(expressions, list):
            expressions = {str(place): entry for place, entry in enumerate(expressions)}
        if not isinstance(expressions, Mapping):
            # One item, whose conversion will say what is wrong.
            expressions = {"?": expressions}
        found[name] = {**content, "expressions": dict(expressions)}
        sound = sound or (
            set(fields) <= content.keys()
            and any(
                isinstance(entry, Mapping) and set(expression_fields) <= entry.keys()
                for entry in expressions.values()
            )
        )
    if not sound:
        name, video = next(iter(videos.items()))
        raise UserError(
            f"{meta.path}: {expected}; the first video, {name!r}, is {describe(video)}. Is it the "
            "file of another set?"
        )
    return found


def frame_names(value: Any, where: str) -> list[str]:
    """The names of a video's frames; ItemError ``invalid_row`` if it has none."""
    names = [str(name) for name in value] if isinstance(value, list) else []
    if (
        not names
        or not all(type(name) is int or (isinstance(name, str) and name) for name in value)
        or len(set(names)) < len(names)
    ):
        raise ItemError(
            "invalid_row",
            f"{where}: the video's field 'frames' is {describe(value)}; expected the names of its "
            "frames, each once",
        )
    return names


def mask_target(mask: Mask | None, image: int) -> tuple[tuple[Target, ...], dict[str, Any]]:
    """The target that a mask shows, and what `extra` tells of it.

    Args:
        mask: of the object in the asked frame; None where it is not visible there.
        image: 0-based position of the asked frame among those shown.

    Returns:
        One target with ``parts``, the number of 8-connected parts; or no target with ``absent``
        ``not_visible``, which an empty mask says too.
    """
    box = None if mask is None else mask.box()
    if mask is None or box is None:
        return (), {"absent": "not_visible"}
    return (Target(image, box),), {"parts": mask.n_parts()}


def sequence_sample(
    *,
    benchmark: str,
    key: str,
    split: str,
    folders: VideoFolders,
    video: str,
    cluster: str,
    files: Sequence[str],
    asked: int,
    all_files: Sequence[str],
    expression: str,
    targets: tuple[Target, ...],
    source: Mapping[str, Any],
    extra: Mapping[str, Any],
) -> GroundingSample:
    """A question on frames of a video, in the words of UniVG-R1's zero-shot evaluation.

    Args:
        benchmark: name of the benchmark, and of its only task.
        key: the sample's id is ``<benchmark>-<key>``.
        split: of the sample.
        folders: where the videos are; the size of every frame shown is read.
        video: its folder below theirs.
        cluster: the video's name, the same on every machine.
        files: names of the frames shown, in order.
        asked: 0-based position among them of the frame that is asked for.
        all_files: names of all frames of the video in natural order.
        expression: what to find, as released.
        targets: in the asked frame.
        source, extra: see `GroundingSample`. To `extra` are added the expression, ``video`` (the
            folder of frames below the data root), ``target_frame`` (0-based place of the asked
            frame in `all_files`) and ``n_frames``.

    Raises:
        ItemError: a frame is missing or unreadable.
    """
    sizes = [folders.size(video, file) for file in files]
    folder = f"{benchmark}/{IMAGES_LINK}/{video}"
    return GroundingSample(
        id=f"{benchmark}-{key}",
        benchmark=benchmark,
        task=benchmark,
        split=split,
        images=tuple(f"{folder}/{file}" for file in files),
        widths=tuple(width for width, _ in sizes),
        heights=tuple(height for _, height in sizes),
        instruction=sequence_instruction(expression, asked),
        targets=targets,
        image_is_given=True,
        cluster=cluster,
        source=source,
        extra={
            "expression": expression,
            "video": folder,
            "target_frame": all_files.index(files[asked]),
            "n_frames": len(all_files),
            **extra,
        },
    )
