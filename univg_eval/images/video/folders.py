"""Videos that are folders of images: which files are frames, and in which order."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from univg_eval.errors import UserError

__all__ = ["FRAME_ORDERS", "list_frames", "natural_key"]

_NUMBER = re.compile(r"([0-9]+)")


def natural_key(name: str) -> tuple[Any, ...]:
    """Sort key that compares the numbers in a name as numbers: frame_2 before frame_10.

    Names that differ only in leading zeros are ordered as text.
    """
    pieces = _NUMBER.split(name)  # text and numbers by turns
    return ([int(piece) if place % 2 else piece for place, piece in enumerate(pieces)], name)


def _first_number_key(name: str) -> tuple[Any, ...]:
    match = _NUMBER.search(name)
    assert match is not None, name  # list_frames has refused names without a number
    return (int(match[1]), natural_key(name))


FRAME_ORDERS: Mapping[str, tuple[tuple[str, ...], Callable[[str], tuple[Any, ...]]]] = {
    "natural": ((".jpg", ".jpeg", ".png", ".bmp", ".webp"), natural_key),
    "first_number": ((".jpg", ".png"), _first_number_key),
}
"""Name → ends of the names of frames, and the sort key of a name.

``natural`` compares the numbers in the names as numbers and takes the ends in any case.
``first_number`` sorts by the first number in the name, as UniVG-R1's evaluation of ReVOS does.
"""


def list_frames(folder: str | os.PathLike[str], *, order: str = "natural") -> list[str]:
    """The names of a folder's frames, in order: frame i of the video is the i-th of them.

    Hidden files (``.…``, which some unpackers leave) and subfolders are no frames. An image without
    any number in its name is refused: a cover or thumbnail would shift the number of every frame
    after it. So are two images that differ only in their extension.

    UniVG-R1's code leaves files with an equal first number (``cam2_1.jpg``, ``cam2_2.jpg``) to the
    order of the file system. Here they are in natural order, which is that of the releases' own
    lists of frames, and so of the masks that the boxes were taken from.

    Args:
        folder: the video.
        order: one of `FRAME_ORDERS`.

    Raises:
        UserError: an unknown order; no folder; no frame in it; frames without a definite order.
    """
    if order not in FRAME_ORDERS:
        raise UserError(
            f"unknown order of frames {order!r}; expected one of: {', '.join(FRAME_ORDERS)}"
        )
    ends, key = FRAME_ORDERS[order]
    folder = Path(folder)
    try:
        with os.scandir(folder) as entries:
            names = [
                entry.name
                for entry in entries
                if (entry.name.lower() if order == "natural" else entry.name).endswith(ends)
                and not entry.name.startswith(".")
                and entry.is_file()
            ]
    except OSError as error:
        raise UserError(
            f"cannot list the frames of {folder}: {error.strerror or error}; expected a folder of "
            "images, one a frame"
        ) from error
    if not names:
        raise UserError(f"{folder} holds no frames; expected images numbered in their names")
    for name in sorted(names):
        if _NUMBER.search(Path(name).stem) is None:
            raise UserError(
                f"{folder}: the name of {name} has no number, so its place among the "
                f"{len(names)} frames is unknown; expected names such as 00001.jpg: move it away"
            )
    names.sort(key=lambda name: (key(Path(name).stem), name))
    for earlier, later in pairwise(names):
        if key(Path(earlier).stem) == key(Path(later).stem):
            raise UserError(
                f"{folder}: {earlier} and {later} have the same place in order {order!r}; "
                "expected one file a frame: move one of them away"
            )
    return names
