"""Videos that are folders of pictures: which files are frames, and in which order."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from univg_eval.errors import UserError

__all__ = ["FRAME_ORDERS", "FrameOrder", "list_frames", "natural_key"]

_NUMBER = re.compile(r"([0-9]+)")


def natural_key(name: str) -> tuple[Any, ...]:
    """Sort key that compares the numbers in a name as numbers: frame_2 before frame_10.

    Names that differ only in leading zeros are ordered as text.
    """
    pieces = _NUMBER.split(name)  # text and numbers by turns
    return ([int(piece) if place % 2 else piece for place, piece in enumerate(pieces)], name)


def _first_number(name: str) -> tuple[Any, ...]:
    match = _NUMBER.search(name)
    assert match is not None, name  # list_frames has refused names without a number
    return (int(match[1]), natural_key(name))


@dataclass(frozen=True, slots=True)
class FrameOrder:
    """A way to number the files of a folder.

    Attributes:
        name: how it is asked for.
        meaning: in words.
        is_frame: whether a file of that name counts as a frame.
        key: sort key of a file name.
    """

    name: str
    meaning: str
    is_frame: Callable[[str], bool]
    key: Callable[[str], tuple[Any, ...]]


_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")

FRAME_ORDERS: Mapping[str, FrameOrder] = {
    order.name: order
    for order in (
        FrameOrder(
            "natural",
            "pictures by the numbers in their names, compared as numbers",
            lambda name: name.lower().endswith(_PICTURES),
            natural_key,
        ),
        FrameOrder(
            "first_number",
            "files in .jpg and .png by the first number in their name, as UniVG-R1's evaluation "
            "of ReVOS numbers them; equal first numbers in natural order",
            lambda name: name.endswith((".jpg", ".png")),
            _first_number,
        ),
    )
}


def list_frames(folder: str | os.PathLike[str], *, order: str = "natural") -> list[str]:
    """The names of a folder's frames, in order: frame i of the video is the i-th of them.

    Hidden files (``.…``, which some unpackers leave) and subfolders are no frames. A picture
    without any number in its name is refused: a cover or thumbnail would shift the number of every
    frame after it. So are two pictures that differ only in their extension.

    UniVG-R1's code leaves files with an equal first number (``cam2_1.jpg``, ``cam2_2.jpg``) to the
    order of the file system. Here they are in natural order, which is that of the releases' own
    lists of frames, and so of the masks that the boxes were taken from.

    Args:
        folder: the video.
        order: one of `FRAME_ORDERS`.

    Raises:
        UserError: an unknown order; no folder; no frame in it; an order that cannot be told.
    """
    rule = FRAME_ORDERS.get(order)
    if rule is None:
        raise UserError(
            f"unknown order of frames {order!r}; expected one of: {', '.join(FRAME_ORDERS)}"
        )
    folder = Path(folder)
    try:
        with os.scandir(folder) as entries:
            names = [
                entry.name
                for entry in entries
                if rule.is_frame(entry.name) and not entry.name.startswith(".") and entry.is_file()
            ]
    except OSError as error:
        raise UserError(
            f"cannot list the frames of {folder}: {error.strerror or error}; expected a folder of "
            "pictures, one a frame"
        ) from error
    if not names:
        raise UserError(f"{folder} holds no frames; expected pictures numbered in their names")
    for name in sorted(names):
        if _NUMBER.search(Path(name).stem) is None:
            raise UserError(
                f"{folder}: the name of {name} has no number, so its place among the "
                f"{len(names)} frames is unknown; expected names such as 00001.jpg: move it away"
            )
    names.sort(key=lambda name: (rule.key(Path(name).stem), name))
    for earlier, later in pairwise(names):
        if rule.key(Path(earlier).stem) == rule.key(Path(later).stem):
            raise UserError(
                f"{folder}: {earlier} and {later} have the same place in order {order!r}; "
                "expected one file a frame: move one of them away"
            )
    return names
