"""ReVOS: frames of a video, one instruction that takes reasoning, one box in one of the frames.

Yan et al., "VISA: Reasoning Video Object Segmentation via Large Language Models" (ECCV 2024).

``revos`` has UniVG-R1's boxes (ReVOS_eval.json; see `zero_shot`). A row::

    {"video_id": "…", "frames": [3, 11, 19, 27, 35], "question": "…",
     "bbox_list": [[x1, y1, x2, y2], …]}

``frames`` are places, from 0, in the video's list of frame files, which is sorted by the first
number in their names (order ``first_number`` of `video.FRAME_ORDERS`). The target is that of the
third frame, ``bbox_list[2]``, in pixels; decimals are cut off, and whole numbers may be texts, as
AMAP-ML/UniVG-R1, ``eval/zero_shot/revos_evaluation/eval.py``, has it by ``int()``. Where first
numbers are equal, upstream leaves the order to the file system; here it is the natural one, and
`extra` says ``tied_frames``.

``revos_full`` is made from the validation part of the release itself (cilinyan/ReVOS-api)::

    ReVOS/JPEGImages/<video>/<frame>.jpg
    ReVOS/meta_expressions_valid_.json
        {"videos": {"<video>": {"frames": ["00000", …], "height": …, "width": …, "vid_id": …,
                                "expressions": {"0": {"exp": "…", "obj_id": [0], "anno_id": [17],
                                                      "type_id": 0}, …}}, …}}
    ReVOS/mask_dict.json
        {"17": [{"size": [h, w], "counts": "…"}, null, …], …}     one entry a frame

An expression's mask in a frame is the union of the masks of its ``anno_id``; null says that an
object is not visible there (cilinyan/VISA, ``tools/eval_revos.py``). ``type_id`` is 0 for
referring, 1 for reasoning and 2 for expressions that describe nothing in the video. The box around
the union in the target's frame is the target. There is no target, and ``absent`` in `extra` says
why, where an expression has no object (``no_object``) and where none of its objects is visible in
that frame (``not_visible``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from univg_eval.benchmarks.readers.common.annotation_files import (
    chosen_splits,
    pixel_box,
    unexpected,
)
from univg_eval.benchmarks.readers.common.entry import ByHand, ImageArchive
from univg_eval.benchmarks.readers.common.masks import Mask, read_rle, unite
from univg_eval.benchmarks.readers.common.release import ItemError, Release, Splits, StrPath
from univg_eval.benchmarks.readers.common.sequences import (
    DEFAULT_SAMPLING,
    SPLIT,
    TARGET,
    Shown,
    VideoFolders,
    expressions_release,
    open_videos,
    sequence_sample,
    shown_frames,
)
from univg_eval.benchmarks.readers.common.zero_shot import ExtractedSet, Row, full_entry
from univg_eval.boxes import four_numbers
from univg_eval.errors import UserError
from univg_eval.files import file_sha256
from univg_eval.samples import LARGEST_SIDE, GroundingSample

__all__ = ["ENTRIES", "open_revos_full"]

META_FILE, MASK_FILE = "meta_expressions_valid_.json", "mask_dict.json"
RELEASED_SHA256: Mapping[str, str] = {
    META_FILE: "291d1854eb860ebac5dd3870451bfc9a2bf002765efabf39bf5496bcb8e1f4b6",
    MASK_FILE: "e9b4310661495ddd47dedcac1e289621cf8f5dff89c0bb8b65f7699f748d5cff",
}
"""As the README of cilinyan/ReVOS-api lists them."""
_ORIGIN = "the links in the README of cilinyan/ReVOS-api"


_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,9}", re.ASCII)


def _extracted_sample(folders: VideoFolders, row: Row) -> GroundingSample:
    video, question = row.text("video_id"), row.text("question")
    all_files = folders.frames(video, row.where, order="first_number")
    numbers = row.checked(
        "frames",
        lambda v: (
            isinstance(v, list)
            and len(v) > TARGET
            and all(type(i) is int and 0 <= i < len(all_files) for i in v)
        ),
        f"three or more whole numbers from 0 to {len(all_files) - 1}, as "
        f"{folders.folder / video} has {len(all_files)} frames",
    )
    boxes = row.checked(
        "bbox_list",
        lambda v: isinstance(v, list) and len(v) > TARGET,
        f"a box for each of {len(numbers)} frames",
    )
    files = [all_files[i] for i in numbers]
    box = boxes[TARGET]
    if isinstance(box, list):
        box = [int(v) if isinstance(v, str) and _WHOLE_NUMBER.fullmatch(v) else v for v in box]
        if (numbers := four_numbers(box, LARGEST_SIDE)) is not None:
            box = [int(value) for value in numbers]
    at = f"{row.where}: field 'bbox_list[{TARGET}]'"
    return sequence_sample(
        row,
        folders,
        video=video,
        files=files,
        released=[f"{video}/{name}" for name in files],
        expression=question,
        target=TARGET,
        box=pixel_box(box, folders.size(f"{video}/{files[TARGET]}"), at),
        cluster=video,
        extra={"tied_frames": True} if folders.has_ties(video) else {},
    )


def _find_videos(images: StrPath | None, base: Path, rows: Sequence[Row]) -> VideoFolders:
    """The folder that holds the videos, or has them below it; beside the file if none is given."""
    names = [row.value.get("video_id") for row in rows if isinstance(row.value, Mapping)]
    below = ("ReVOS_eval", "images", "JPEGImages", "ReVOS/JPEGImages")
    return VideoFolders.choose(images, base, below, [v for v in names if isinstance(v, str)])


EXTRACTED = ExtractedSet(
    name="revos",
    files={SPLIT: "ReVOS_eval.json"},
    fields=("video_id", "frames", "question", "bbox_list"),
    find_images=_find_videos,
    convert=_extracted_sample,
    facts={
        "sampling": "given",
        "order": "first_number",
        "box": "bbox_list[2] in pixels, decimals cut off, divided by the frame's size as displayed",
    },
)


# The release itself


def open_revos_full(
    source: StrPath,
    *,
    images: StrPath | None = None,
    splits: Splits = None,
    sampling: str = DEFAULT_SAMPLING,
) -> Release:
    """Open the validation part of ReVOS as benchmark ``revos_full``; one item an expression.

    Args:
        source: the folder that holds meta_expressions_valid_.json and mask_dict.json, directly or
            in ReVOS/; or the former file, with the latter beside it.
        images: the folder that holds the videos, or has them in JPEGImages; None: JPEGImages
            beside the files, else their own folder.
        sampling: which frames are shown, see `shown_frames`.
    """
    chosen_splits("revos_full", (SPLIT,), splits)
    shown_frames(sampling, 1)
    meta, videos = open_videos(
        source, META_FILE, "ReVOS", _ORIGIN, ("frames", "expressions"), ("exp", "anno_id")
    )
    mask_path = meta.path.with_name(MASK_FILE)
    if not mask_path.is_file():
        raise UserError(
            f"{mask_path} does not exist; expected it beside {meta.path.name}. It comes from "
            f"{_ORIGIN}"
        )
    folders = VideoFolders.choose(images, meta.path.parent, ("JPEGImages",), videos)
    masks = _read_masks(mask_path, _wanted_masks(videos, sampling))
    digests = {META_FILE: meta.sha256, MASK_FILE: file_sha256(mask_path)}
    return expressions_release(
        "revos_full",
        meta,
        videos,
        folders,
        sampling,
        text="exp",
        find_mask=partial(_find_mask, masks),
        files=[
            {"name": path.name, "sha256": digest, "as_published": digest == RELEASED_SHA256[name]}
            for path, (name, digest) in zip((meta.path, mask_path), digests.items(), strict=True)
        ],
        box="around the union of the masks of anno_id in the asked frame",
    )


def _find_mask(masks: _Masks, shown: Shown) -> tuple[Mask | None, dict[str, Any]]:
    """The union of the masks of an expression's objects; None if none is visible."""
    objects, type_id = shown.entry.get("anno_id"), shown.entry.get("type_id")
    if not isinstance(objects, list) or not all(
        type(v) is int or (isinstance(v, str) and v) for v in objects
    ):
        raise unexpected(
            f"{shown.where}: field 'anno_id'",
            objects,
            "a list of object numbers, empty where the expression describes nothing",
        )
    frame = shown.numbers[shown.target]
    visible = []
    for name in map(str, objects):
        if name not in masks:
            raise ItemError(
                "invalid_row",
                f"{shown.where}: object {name} of 'anno_id' has no masks in {MASK_FILE}; expected "
                "the two files of one release",
            )
        n_masks, in_frames = masks[name]
        if n_masks != len(shown.frames):
            raise ItemError(
                "invalid_mask",
                f"{shown.where}: object {name} has {n_masks} masks, its video "
                f"{len(shown.frames)} frames; expected one mask (or null) a frame",
            )
        if in_frames[frame]:  # null, and what else says nothing
            at = f"{shown.where} ({MASK_FILE}: object {name}, frame {frame})"
            visible.append(read_rle(in_frames[frame], at))
    return unite(visible, shown.where) if visible else None, {
        **({} if objects else {"absent": "no_object"}),
        **({"type_id": type_id} if type(type_id) is int else {}),
        "anno_id": objects,
    }


_Masks = Mapping[str, tuple[int, Mapping[int, Any]]]
"""Object → how many masks it has, and those of the wanted frames, as they are in the file."""


def _wanted_masks(videos: Mapping[str, Mapping[str, Any]], sampling: str) -> dict[str, set[int]]:
    """Object → the frames in which it is to be found."""
    wanted: dict[str, set[int]] = {}
    for content in videos.values():
        frames = content.get("frames")
        if isinstance(frames, list) and frames:
            numbers, target = shown_frames(sampling, len(frames))
            for entry in content["expressions"].values():
                objects = entry.get("anno_id") if isinstance(entry, Mapping) else None
                for name in objects if isinstance(objects, list) else ():
                    wanted.setdefault(str(name), set()).add(numbers[target])
    return wanted


def _read_masks(path: Path, wanted: Mapping[str, set[int]]) -> _Masks:
    """Read mask_dict.json, which has hundreds of megabytes, object by object.

    UserError if it is not the file of this set, breaks off, or names an object twice.
    """
    import ijson

    found: dict[str, tuple[int, dict[int, Any]]] = {}
    names: set[str] = set()
    problem = ""
    try:
        with path.open("rb") as file:
            for name, masks in ijson.kvitems(file, "", use_float=True):
                if name in names or not isinstance(masks, list):
                    problem = f"object {name} is a duplicate or has no list"
                    break
                names.add(name)
                if name in wanted:
                    kept = {frame: masks[frame] for frame in wanted[name] if frame < len(masks)}
                    found[name] = len(masks), kept
    except (OSError, ValueError, ijson.JSONError) as error:  # ValueError: no UTF-8
        problem = " ".join(str(error).split())[:200]
    if problem or not names:
        raise UserError(
            f"{path}: {problem or 'no object in it'}; expected one JSON object "
            '{"1": [mask or null per frame, …], …}, the mask_dict.json of ReVOS. If its download '
            "broke off, fetch it again"
        )
    return found


# Catalogue

_REVOS = ByHand(
    "ReVOS (OneDrive or Baidu; the README lists SHA-256 sums)",
    "https://github.com/cilinyan/ReVOS-api",
)
_ARCHIVES = (ImageArchive("JPEGImages.zip", ("ReVOS/JPEGImages", "JPEGImages")),)
_LICENCE = "CC BY-NC-SA 4.0, non-commercial research only"

ENTRIES = (
    EXTRACTED.entry(
        title="ReVOS, the boxes in sampled frames that UniVG-R1 scores",
        tasks={"univg_revos": None, "univg_revos_video": None},
        images=(_REVOS,),
        image_archives=_ARCHIVES,
        licence=f"ReVOS: {_LICENCE}",
    ),
    full_entry(
        name="revos_full",
        title="the validation part of ReVOS itself: masks, all expressions, absent objects too",
        opener=open_revos_full,
        options=("sampling",),
        tasks={"univg_revos_full": None, "univg_revos_full_video": None},
        by_hand=(_REVOS,),
        image_archives=_ARCHIVES,
        licence=_LICENCE,
    ),
)
