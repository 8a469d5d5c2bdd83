"""ReasonVOS: frames of a video, one instruction that takes reasoning, one box in one of the frames.

Bai et al., "One Token to Seg Them All: Language Instructed Reasoning Segmentation in Videos"
(VideoLISA, NeurIPS 2024).

``reasonvos`` has UniVG-R1's boxes (ReasonVOS_eval.json; see `zero_shot`). A row::

    {"image_list": ["…/JPEGImages/<video>/00012.jpg", …], "question": "…",
     "bbox_list": ["[x1, y1, x2, y2]", …]}

The target is that of the third frame, ``bbox_list[2]``, a text with four whole numbers, in pixels.
So does AMAP-ML/UniVG-R1, ``eval/zero_shot/reasonvos_evaluation/eval.py``, which takes the first
four runs of digits; a text with another number of them, or with decimals or signs, would give it a
wrong box and is a fault here.

``reasonvos_full`` is made from the release itself (showlab/VideoLISA, BENCHMARK.md)::

    ReasonVOS/JPEGImages/<video>/<frame>.jpg
    ReasonVOS/Annotations/<source>_<video>_<obj_id>/<frame>.png
    ReasonVOS/meta_expressions.json
        {"videos": {"<video>": {"source": "vipseg", "frames": ["00000012", …],
                                "expressions": [{"obj_id": "000000003", "exp_id": 0,
                                                 "exp_text": "…", "is_sent": …}, …]}, …}}

A pixel of a mask belongs to the object if its value is not zero (of a palette: its number). The
mask of the target's frame has to be there; an empty one says that the object is not visible, and
the sample has no target and ``absent`` ``not_visible`` in `extra`. Later expressions of a video
that repeat an ``exp_id``, which the release has, get a running number: ``…-1``, ``…-1-2``.
``benchmark_check.py`` and ``evaluation/reason_vos`` of VideoLISA read two more forms, which are
taken too: an object of expressions by number instead of a list, ``is_sent`` once a video, and the
folder of masks with its source in small letters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from univg_eval.benchmarks.readers.common.annotation_files import (
    chosen_splits,
    default_images,
    pixel_box,
    text_field,
    unexpected,
)
from univg_eval.benchmarks.readers.common.entry import ByHand
from univg_eval.benchmarks.readers.common.masks import Mask, mask_from_array
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
from univg_eval.errors import UserError
from univg_eval.images.reading import ImageError, image_header, opened_image
from univg_eval.samples import GroundingSample

__all__ = ["ENTRIES", "open_reasonvos_full"]

META_FILE = "meta_expressions.json"
MASKS_FOLDER = "Annotations"
PUBLISHED_EXPRESSIONS = 458
_ORIGIN = "the link in BENCHMARK.md of showlab/VideoLISA"


_FOUR_NUMBERS = re.compile(r"[^0-9.+-]*[0-9]{1,9}(?:[^0-9.+-]+[0-9]{1,9}){3}[^0-9.+-]*", re.ASCII)


def _extracted_sample(folders: VideoFolders, row: Row) -> GroundingSample:
    question = row.text("question")
    released = row.checked(
        "image_list",
        lambda v: (
            isinstance(v, list)
            and len(v) > TARGET
            and all(isinstance(path, str) and path for path in v)
        ),
        "three or more paths",
    )
    boxes = row.checked(
        "bbox_list",
        lambda v: isinstance(v, list) and len(v) > TARGET,
        f"a box for each of {len(released)} images",
    )
    at, text = f"{row.where}: field 'bbox_list[{TARGET}]'", boxes[TARGET]
    if not isinstance(text, str) or not _FOUR_NUMBERS.fullmatch(text):
        raise unexpected(at, text, "a text with four whole numbers x1, y1, x2, y2")
    found = [folders.find(path).rpartition("/") for path in released]
    videos = sorted({video for video, _, _ in found})
    video, files = videos[0], [name for _, _, name in found]
    if len(videos) > 1:
        raise ItemError(
            "invalid_row",
            f"{row.where}: field 'image_list' names images of {len(videos)} folders, "
            f"{videos[0]!r} and {videos[1]!r}; expected frames of one video",
        )
    if not video:
        raise ItemError(
            "missing_image",
            f"{row.where}: image {released[0]!r} is found in {folders.folder} by its file name "
            "alone, which every video has; give the folder that holds the videos with --images",
        )
    box = [int(value) for value in re.findall("[0-9]+", text)]
    return sequence_sample(
        row,
        folders,
        video=video,
        files=files,
        released=released,
        expression=question,
        target=TARGET,
        box=pixel_box(box, folders.size(f"{video}/{files[TARGET]}"), at),
        cluster=video.rpartition("/")[2],  # the folders above it are those of this machine
        extra={},
    )


EXTRACTED = ExtractedSet(
    name="reasonvos",
    files={SPLIT: "ReasonVOS_eval.json"},
    fields=("image_list", "question", "bbox_list"),
    find_images=lambda images, base, rows: VideoFolders(default_images(images, base).folder),
    convert=_extracted_sample,
    facts={
        "sampling": "given",
        "box": "the four whole numbers of bbox_list[2] in pixels, divided by the frame's size as "
        "displayed",
    },
)


# The release itself


def open_reasonvos_full(
    source: StrPath,
    *,
    images: StrPath | None = None,
    splits: Splits = None,
    sampling: str = DEFAULT_SAMPLING,
) -> Release:
    """Open ReasonVOS as benchmark ``reasonvos_full``; one item an expression.

    Args:
        source: the folder that holds meta_expressions.json and Annotations/, directly or in
            ReasonVOS/; or the former, with the latter beside it.
        images: the folder that holds the videos, or has them in JPEGImages; None: JPEGImages
            beside the file, else the file's folder.
        sampling: which frames are shown, see `shown_frames`.
    """
    chosen_splits("reasonvos_full", (SPLIT,), splits)
    shown_frames(sampling, 1)
    meta, videos = open_videos(
        source,
        META_FILE,
        "ReasonVOS",
        _ORIGIN,
        ("source", "frames", "expressions"),
        ("obj_id", "exp_text"),
    )
    masks = meta.path.with_name(MASKS_FOLDER)
    if not masks.is_dir():
        raise UserError(
            f"{masks} does not exist; expected the folder of masks beside {meta.path.name}. It "
            f"comes from {_ORIGIN}"
        )
    return expressions_release(
        "reasonvos_full",
        meta,
        videos,
        VideoFolders.choose(images, meta.path.parent, ("JPEGImages",), videos),
        sampling,
        text="exp_text",
        find_mask=partial(_find_mask, masks),
        number=_expression_number,
        inputs=lambda shown: [_mask_file(masks, shown)],
        files=[meta.to_dict()],
        published_expressions=PUBLISHED_EXPRESSIONS,
        box="around the non-zero pixels of the object's mask in the asked frame",
    )


def _expression_number(entry: Any, place: str) -> str:
    """``exp_id`` of an expression; its place, or its key, where it has none."""
    number = entry.get("exp_id") if isinstance(entry, Mapping) else None
    return str(number) if type(number) is int or (isinstance(number, str) and number) else place


def _find_mask(masks: Path, shown: Shown) -> tuple[Mask, dict[str, Any]]:
    is_sent = shown.entry.get("is_sent", shown.content.get("is_sent"))
    return _read_mask(_mask_file(masks, shown), shown.where), {
        **({"is_sent": is_sent} if isinstance(is_sent, int | str) else {}),
        "obj_id": shown.entry["obj_id"],
        "video_source": shown.content["source"],
    }


def _mask_file(masks: Path, shown: Shown) -> Path:
    """The file of an expression's mask in the target's frame."""
    where, obj_id = shown.where, shown.entry.get("obj_id")
    if type(obj_id) is not int and not (isinstance(obj_id, str) and obj_id):
        raise unexpected(f"{where}: field 'obj_id'", obj_id, "the number of an object")
    origin = text_field(shown.content, "source", f"{where}: video {shown.video!r}")
    names = dict.fromkeys(f"{form}_{shown.video}_{obj_id}" for form in (origin, origin.lower()))
    for name in names:
        if Path(name).name == name and (masks / name).is_dir():
            return masks / name / f"{Path(shown.files[shown.target]).stem}.png"
    raise ItemError(
        "missing_image",
        f"{where}: the object's folder of masks, {' or '.join(names)}, is not in {masks}; unpack "
        "the release's Annotations again",
    )


def _read_mask(path: Path, where: str) -> Mask:
    """The mask in a PNG file: what is not zero; of colours, what is not black."""
    import numpy as np

    try:
        image_header(path, decode=True)  # refuses damaged files
    except ImageError as error:
        if not error.missing:
            raise ItemError("invalid_mask", f"{where}: {error}") from error
        raise ItemError(
            "missing_image",
            f"{where}: the mask {path} does not exist; expected a mask for every frame of the "
            "video: unpack the release's Annotations again",
        ) from error
    with opened_image(path) as image:
        pixels = np.asarray(image) != 0
        if pixels.ndim == 3:  # colours; how opaque they are says nothing
            colours = len(image.getbands()) - ("A" in image.getbands())
            pixels = np.logical_or.reduce(pixels[..., :colours], axis=2)
    return mask_from_array(pixels)


# Catalogue

_REASONVOS = ByHand(
    "ReasonVOS (Google Drive file named in BENCHMARK.md of showlab/VideoLISA)",
    "https://drive.google.com/file/d/1qruU9QlUhPcHnN-UHG7iri2nhw_xo7gP",
)

ENTRIES = (
    EXTRACTED.entry(
        title="ReasonVOS, the boxes in sampled frames that UniVG-R1 scores",
        tasks={"univg_reasonvos": None, "univg_reasonvos_video": None},
        images=(_REASONVOS,),
        licence="ReasonVOS: non-commercial research only, and the licences of BURST, VIPSeg, MOSE "
        "and MeViS",
    ),
    full_entry(
        name="reasonvos_full",
        title="ReasonVOS itself: masks, all expressions",
        opener=open_reasonvos_full,
        options=("sampling",),
        tasks={"univg_reasonvos_full": None, "univg_reasonvos_full_video": None},
        by_hand=(_REASONVOS,),
        licence="non-commercial research only, and the licences of BURST (MIT), VIPSeg "
        "(non-commercial research), MOSE and MeViS (CC BY-NC-SA 4.0)",
    ),
)
