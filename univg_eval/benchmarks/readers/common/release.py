"""What a reader hands to `univg prepare`: a release as items that are converted one at a time.

A reader opens the release's index files at once, so that a wrong folder is refused before any
work. Masks are decoded and image headers opened when an item is converted. A faulty item raises
`ItemError`, and the others are not lost by it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from univg_eval.errors import UserError
from univg_eval.images.reading import ImageError, image_size
from univg_eval.samples import GroundingSample, Target

__all__ = [
    "FAULT_KINDS",
    "FaultKind",
    "ImageFolder",
    "Item",
    "ItemError",
    "Release",
    "Splits",
    "StrPath",
    "find_all_instruction",
    "find_all_sample",
    "image_instruction",
    "image_instruction_or_none",
    "is_file",
    "ordinal",
    "require_stated_size",
    "sequence_instruction",
    "shared_image_clusters",
    "size_of",
]

StrPath = str | os.PathLike[str]
Splits = Sequence[str] | None
"""The splits to prepare, None for all that are there."""

FaultKind = Literal[
    "missing_image",
    "unreadable_image",
    "size_mismatch",
    "invalid_mask",
    "no_visible_object",
    "target_underived",
    "invalid_row",
]
FAULT_KINDS: Mapping[FaultKind, str] = {
    "missing_image": "an image, frame or video that the item names is not there",
    "unreadable_image": "an image, frame or video cannot be read",
    "size_mismatch": "an image has another size than its mask or its row",
    "invalid_mask": "a mask cannot be decoded",
    "no_visible_object": "the annotation shows no object where the release promises one",
    "target_underived": "the row does not say which of its images the answer lies on",
    "invalid_row": "a field is missing, of a wrong type, or contradicts another",
}


class ItemError(UserError):
    """One item of a release cannot be converted; `kind` is one of `FAULT_KINDS`."""

    def __init__(self, kind: FaultKind, message: str) -> None:
        super().__init__(message)
        self.kind: FaultKind = kind


def size_of(path: StrPath) -> tuple[int, int]:
    """(width, height) of an image file as displayed; ItemError if it is missing or unreadable."""
    try:
        return image_size(path)
    except ImageError as error:
        if not error.missing:
            raise ItemError("unreadable_image", str(error)) from error
        raise ItemError(
            "missing_image",
            f"image {path} does not exist; unpack or copy it there, or give its folder with "
            "--images",
        ) from error


def require_stated_size(
    row: Any, measured: tuple[int, int], where: str, by: str = "the row"
) -> None:
    """Compare an image's size with `width` and `height` of its row; `by` names what holds that.

    ItemError ``size_mismatch`` if they differ: boxes in pixels would be read wrongly.
    """
    stated = row.get("width"), row.get("height")
    if stated != measured:
        raise ItemError(
            "size_mismatch",
            f"{where} is {measured[0]}x{measured[1]} pixels, {by} says {stated[0]!r}x"
            f"{stated[1]!r}; give the images as they are released",
        )


def is_file(path: Path) -> bool:
    """Whether a file of that name is there; ItemError in a folder that cannot be read."""
    try:
        return path.is_file()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise ItemError(
            "unreadable_image",
            f"cannot look for {path}: {error.strerror or error}; make its folder readable",
        ) from error


@dataclass(frozen=True, slots=True)
class Item:
    """One part of a release.

    Attributes:
        key: unique within the release and the same in every run, e.g. ``val/0123``.
        convert: makes its samples, sizes included. Raises `ItemError`.
        inputs: files that the samples depend on, beside the release's hashed files, the samples'
            images, and the folder that ``extra["video"]`` names: if one of them changes, a
            finished item is converted again. May raise `ItemError` as `convert` would.
    """

    key: str
    convert: Callable[[], Sequence[GroundingSample]]
    inputs: Callable[[], Sequence[Path]] = tuple


@dataclass(frozen=True, slots=True)
class Release:
    """A release that was opened and is what it should be.

    Attributes:
        benchmark: name of the benchmark that is made from it.
        items: in the order of the samples.
        links: folder below the benchmark's own folder → folder of the release, e.g.
            ``{"images": Path("/data/ReVOS/JPEGImages")}``. The samples' `images` lie below them.
        source: for the manifest, as JSON values: the release's files with their SHA-256, the
            revision, and every rule that the samples depend on, such as the frame sampling.
    """

    benchmark: str
    items: Sequence[Item]
    links: Mapping[str, Path]
    source: Mapping[str, Any] = field(default_factory=dict)


class ImageFolder:
    """The folder below which a release's image paths are looked up.

    Releases name their images relative to a folder of their authors' machine, or absolutely. The
    longest trailing part of such a path that exists below the folder is the file: with
    ``JPEGImages`` given, ``/nfs/someone/ReVOS/JPEGImages/v1/0001.jpg`` is ``v1/0001.jpg``.

    A bare file name is the weakest evidence: every video has a ``0001.jpg``. It counts where the
    folder has the name of the one that the release puts the file into, or where names are known to
    be unique.
    """

    def __init__(
        self, folder: StrPath, *, unique_names: bool = False, option: str = "--images"
    ) -> None:
        """Look below `folder`; UserError if it is no folder.

        With `unique_names` no two images of the release have one file name, as in COCO. Messages
        name the `option` of the command line.
        """
        self.folder = Path(folder).expanduser().resolve()
        # Many samples show the same few images.
        self._size = lru_cache(maxsize=4096)(size_of)
        self._unique_names = unique_names
        self._option = option
        if not self.folder.is_dir():
            found = "is no folder" if self.folder.exists() else "does not exist"
            raise UserError(
                f"the image folder {self.folder} {found}; give the folder that the release's "
                f"images were unpacked to with {option}"
            )

    def size(self, found: str) -> tuple[int, int]:
        """`size_of` of a file by its path below the folder."""
        return self._size(self.folder / found)

    def find(self, released: str) -> str:
        """The path below the folder (POSIX form) of an image that the release names.

        ItemError ``invalid_row`` if it leads out of the folder, ``missing_image`` or
        ``unreadable_image``.
        """
        parts = [part for part in PurePosixPath(released.replace("\\", "/")).parts if part != "/"]
        if not parts or ".." in parts or "\0" in released:
            raise ItemError(
                "invalid_row",
                f"image path {released!r}: expected a path that stays within its folder",
            )
        for start in range(len(parts)):
            if self._is_evidence(parts, start) and is_file(self.folder.joinpath(*parts[start:])):
                return "/".join(parts[start:])
        raise ItemError(
            "missing_image",
            f"image {released[:200]!r} is not below {self.folder}, under this path or its end; "
            f"unpack the release's images there, or give their folder with {self._option}",
        )

    def _is_evidence(self, parts: Sequence[str], start: int) -> bool:
        bare_name = 0 < start == len(parts) - 1
        return not bare_name or self._unique_names or parts[start - 1] == self.folder.name


def image_instruction(expression: str) -> str:
    """The instruction on one image, worded as in UniVG-R1's zero-shot evaluation.

    Source: AMAP-ML/UniVG-R1, ``eval/zero_shot/{lisa,llmseg}_evaluation/eval.py``; its sentence on
    thinking and the answer's form follows as a prompt suffix.
    """
    return f"Output the bounding box in the image corresponding to the instruction: {expression}."


_OR_NONE = "If there is no such object, answer: none."


def image_instruction_or_none(expression: str) -> str:
    """`image_instruction` of an object that may be absent."""
    return f"{image_instruction(expression)} {_OR_NONE}"


def find_all_instruction(expression: str, n_images: int = 1) -> str:
    """The instruction to find every object that an expression refers to, or none.

    For samples with `GroundingSample.find_all`; this project's own words, since the sets have none.
    """
    where = "the image" if n_images == 1 else "the images"
    texts = [f"Find every object in {where} that this refers to: {expression}."]
    if n_images > 1:
        names = " or ".join(f'"Image {number}:"' for number in range(1, n_images + 1))
        texts.append(f"Write {names} before the boxes on that image.")
    return " ".join([*texts, "Give one bounding box for each object.", _OR_NONE])


def find_all_sample(
    *,
    benchmark: str,
    task: str,
    split: str,
    key: str,
    image: str,
    image_wh: tuple[int, int],
    released: str,
    expression: str,
    targets: Sequence[Target],
    file: str,
    row: int,
    extra: Mapping[str, Any],
) -> GroundingSample:
    """The sample that asks for every object of one image that an expression refers to.

    Its id is ``<benchmark>-<key>``. The `image` lies below the benchmark's folder ``images``, has
    the size `image_wh` as displayed and is the sample's cluster; the release names it `released`.
    It comes from a `row` (from 0) of an official `file`. The expression is added to `extra`.
    """
    return GroundingSample(
        id=f"{benchmark}-{key}",
        benchmark=benchmark,
        task=task,
        split=split,
        images=(f"{benchmark}/images/{image}",),
        widths=(image_wh[0],),
        heights=(image_wh[1],),
        instruction=find_all_instruction(expression),
        targets=tuple(targets),
        image_is_given=True,
        cluster=f"{benchmark}-{image}",
        source={"file": file, "revision": "official", "row": row, "images": [released]},
        extra={"expression": expression, **extra},
        find_all=True,
    )


def sequence_instruction(expression: str, target: int) -> str:
    """The instruction on frames of a video, worded as in UniVG-R1's zero-shot evaluation.

    `target` is the 0-based position of the target's frame among those shown. Source:
    AMAP-ML/UniVG-R1, ``eval/zero_shot/{revos,reasonvos}_evaluation/eval.py``, where it is always
    the third image.
    """
    return (
        "This is a sequence of images from a video. Please understand the entire video content, "
        f"and then output the bounding box in the {ordinal(target)} image according to the "
        f"instruction: {expression}."
    )


_ORDINALS = (
    *("first", "second", "third", "fourth", "fifth"),
    *("sixth", "seventh", "eighth", "ninth", "tenth"),
)


def ordinal(index: int) -> str:
    """The English ordinal of a 0-based position: ``first`` … ``tenth``, ``11th``, ``22nd``."""
    if index < len(_ORDINALS):
        return _ORDINALS[index]
    number = index + 1
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if 11 <= number % 100 <= 13 else ending}"


def shared_image_clusters(image_lists: Sequence[Sequence[str]]) -> list[int]:
    """For each row's images the number of the first row that shares one, through any chain."""
    parent = list(range(len(image_lists)))

    def find(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    first_row: dict[str, int] = {}
    for row, images in enumerate(image_lists):
        for image in images:
            a, b = find(row), find(first_row.setdefault(image, row))
            # The smaller number stays the root, so a cluster is named after its first row.
            parent[max(a, b)] = min(a, b)
    return [find(row) for row in range(len(image_lists))]
