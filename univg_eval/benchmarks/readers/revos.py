"""ReVOS: frames of a video, one instruction that takes reasoning, one box in one of the frames.

Yan et al., "VISA: Reasoning Video Object Segmentation via Large Language Models" (ECCV 2024). Two
benchmarks:

``revos`` is made from the boxes that the UniVG-R1 authors extracted and score (GD-ML/UniVG-R1-data,
``zero_shot_evaluation/ReVOS_eval.json``), and comparable with their table. A row::

    {"video_id": "…", "frames": [3, 11, 19, 27, 35], "question": "…",
     "bbox_list": [[x1, y1, x2, y2], …]}

``frames`` are places, from 0, in the video's list of frame files, which is sorted by the first
number in their names (order ``first_number`` of `video.FRAME_ORDERS`). The target is that of the
third frame, ``bbox_list[2]``, in pixels; decimals are cut off, and whole numbers may be texts, as
AMAP-ML/UniVG-R1, ``eval/zero_shot/revos_evaluation/eval.py``, has it by ``int()``. Where first
numbers are equal, upstream leaves the order to the file system; here it is the natural one, and
`extra` says ``tied_frames``. Boxes are divided by the size of the frame as displayed; upstream
takes the size as stored.

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
the union in the asked frame is the target. There is no target, and ``absent`` in `extra` says why,
where an expression has no object (``no_object``) and where none of its objects is visible in the
asked frame (``not_visible``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from univg_eval.benchmarks.readers.common.annotation_files import (
    AnnotationFile,
    chosen_splits,
    describe,
    find_file,
    load_json,
    pixel_box,
    require_rows,
    text_field,
)
from univg_eval.benchmarks.readers.common.entry import ByHand, ImageArchive
from univg_eval.benchmarks.readers.common.mask_dict import MaskDict
from univg_eval.benchmarks.readers.common.masks import Mask, read_rle, require_image_size, unite
from univg_eval.benchmarks.readers.common.release import Item, ItemError, Release
from univg_eval.benchmarks.readers.common.sequences import (
    IMAGES_LINK,
    EvenFrames,
    VideoFolders,
    frame_names,
    mask_target,
    open_videos,
    sequence_sample,
)
from univg_eval.benchmarks.readers.common.zero_shot import extracted_entry, full_entry
from univg_eval.errors import UserError
from univg_eval.samples import GroundingSample, Target

__all__ = ["ENTRIES", "SPLIT", "open_revos", "open_revos_full"]

SPLIT = "test"
ASKED = 2
"""Position of the asked frame in UniVG-R1's rows: the third."""

EXTRACTED_FILE = "ReVOS_eval.json"
_FIELDS = ("video_id", "frames", "question", "bbox_list")
_EXTRACTED_ORIGIN = "GD-ML/UniVG-R1-data, folder zero_shot_evaluation"
_EXTRACTED_VIDEOS = ("ReVOS_eval", "images", "JPEGImages", "ReVOS/JPEGImages")

META_FILE = "meta_expressions_valid_.json"
MASK_FILE = "mask_dict.json"
_ORIGIN = "the links in the README of cilinyan/ReVOS-api"
RELEASED_SHA256: Mapping[str, str] = {
    META_FILE: "291d1854eb860ebac5dd3870451bfc9a2bf002765efabf39bf5496bcb8e1f4b6",
    MASK_FILE: "e9b4310661495ddd47dedcac1e289621cf8f5dff89c0bb8b65f7699f748d5cff",
}
"""As the README of cilinyan/ReVOS-api lists them."""


def open_revos(
    source: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    splits: Sequence[str] | None = None,
) -> Release:
    """Open UniVG-R1's extracted boxes as benchmark ``revos``.

    Args:
        source: ReVOS_eval.json, or a folder that holds it, directly or below
            zero_shot_evaluation/.
        images: the folder that holds the videos, or has them in JPEGImages; None: ReVOS_eval,
            images, JPEGImages or ReVOS/JPEGImages beside the file, else the file's folder: the
            first in which a video is found.
        splits: ``["test"]`` or None; there is no other.

    Returns:
        One item a row. The file is held in memory.

    Raises:
        UserError: the file is not there or not that of this set; no video is found.
    """
    chosen_splits("revos", (SPLIT,), splits)
    path = find_file(source, EXTRACTED_FILE, ["zero_shot_evaluation"], _EXTRACTED_ORIGIN)
    file = load_json(path)
    rows = require_rows(file, _FIELDS)
    names = [row.get("video_id") for row in rows if isinstance(row, Mapping)]
    folders = VideoFolders.choose(
        images, path.parent, _EXTRACTED_VIDEOS, [name for name in names if isinstance(name, str)]
    )
    return Release(
        benchmark="revos",
        items=[
            Item(key=f"{number:05d}", convert=partial(_extracted_row, row, number, file, folders))
            for number, row in enumerate(rows)
        ],
        n_items=len(rows),
        links={IMAGES_LINK: folders.folder},
        source={
            "revision": "univg-r1-extracted",
            "files": [{**file.to_dict(), "split": SPLIT, "rows": len(rows)}],
            "sampling": "given",
            "order": "first_number",
            "box": "bbox_list[2] in pixels, decimals cut off, divided by the frame's size as "
            "displayed",
        },
    )


_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,9}", re.ASCII)


def _extracted_row(
    row: Any, number: int, file: AnnotationFile, folders: VideoFolders
) -> list[GroundingSample]:
    where = f"{file.path.name} row {number}"
    video = text_field(row, "video_id", where)
    question = text_field(row, "question", where)
    all_files = folders.frames(video, where, order="first_number")
    numbers, boxes = row.get("frames"), row.get("bbox_list")
    if (
        not isinstance(numbers, list)
        or len(numbers) <= ASKED
        or not all(type(v) is int and 0 <= v < len(all_files) for v in numbers)
    ):
        raise ItemError(
            "invalid_row",
            f"{where}: field 'frames' is {describe(numbers)}; expected three or more whole numbers "
            f"from 0 to {len(all_files) - 1}, as {folders.folder / video} has {len(all_files)} "
            "frames",
        )
    if not isinstance(boxes, list) or len(boxes) <= ASKED:
        raise ItemError(
            "invalid_row",
            f"{where}: field 'bbox_list' is {describe(boxes)}; expected a box for each of the "
            f"{len(numbers)} frames",
        )
    files = [all_files[i] for i in numbers]
    image_wh = folders.size(video, files[ASKED])
    at = f"{where}: field 'bbox_list[{ASKED}]'"
    box = boxes[ASKED]
    if isinstance(box, list):
        box = [int(v) if isinstance(v, str) and _WHOLE_NUMBER.fullmatch(v) else v for v in box]
    pixel_box(box, image_wh, at)  # refuses what int() cannot cut
    return [
        sequence_sample(
            benchmark="revos",
            key=f"{number:05d}",
            split=SPLIT,
            folders=folders,
            video=video,
            cluster=video,
            files=files,
            asked=ASKED,
            all_files=folders.frames(video, where),
            expression=question,
            targets=(Target(ASKED, pixel_box([int(v) for v in box], image_wh, at)),),
            source={
                "file": file.path.name,
                "revision": "univg-r1-extracted",
                "row": number,
                "images": [f"{video}/{name}" for name in files],
            },
            extra={"tied_frames": True} if folders.has_ties(video) else {},
        )
    ]


def open_revos_full(
    source: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    splits: Sequence[str] | None = None,
    sampling: str = EvenFrames.DEFAULT,
) -> Release:
    """Open the validation part of ReVOS as benchmark ``revos_full``.

    Args:
        source: the folder that holds meta_expressions_valid_.json and mask_dict.json, directly or
            in ReVOS/; or the former file, with the latter beside it.
        images: the folder that holds the videos, or has them in JPEGImages; None: JPEGImages
            beside the files, else their own folder.
        splits: ``["test"]`` or None; the validation part is what everybody reports.
        sampling: which frames are shown, ``even:N`` or ``all``; see `EvenFrames`.

    Returns:
        One item an expression, in file order. Of the masks only those of the asked frame's
        objects are read (see `mask_dict`).

    Raises:
        UserError: a file is missing, broken off or of another set; no video is found; an unknown
            sampling rule.
    """
    chosen_splits("revos_full", (SPLIT,), splits)
    rule = EvenFrames(sampling)
    path = find_file(source, META_FILE, ["ReVOS"], _ORIGIN)
    meta = load_json(path)
    videos = open_videos(meta, ("frames", "expressions"), ("exp", "anno_id"))
    mask_path = path.with_name(MASK_FILE)
    if not mask_path.is_file():
        raise UserError(
            f"{mask_path} does not exist; expected it beside {path.name}. It comes from {_ORIGIN}"
        )
    folders = VideoFolders.choose(images, path.parent, ("JPEGImages",), videos)
    reader = _FullReader(meta, MaskDict(mask_path), folders, rule)
    expressions = [
        (video, str(exp_id), entry)
        for video, content in videos.items()
        for exp_id, entry in content["expressions"].items()
    ]
    files = [meta.to_dict(), {"name": MASK_FILE, "sha256": reader.masks.sha256}]
    return Release(
        benchmark="revos_full",
        items=[
            Item(
                key=f"{video}/{exp_id}",
                convert=partial(reader.convert, video, videos[video], exp_id, entry, row),
            )
            for row, (video, exp_id, entry) in enumerate(expressions)
        ],
        n_items=len(expressions),
        links={IMAGES_LINK: folders.folder},
        source={
            "revision": "official",
            "files": [
                {**file, "as_published": file["sha256"] == RELEASED_SHA256[name]}
                for name, file in zip((META_FILE, MASK_FILE), files, strict=True)
            ],
            **rule.to_dict(),
            "box": "around the union of the masks of anno_id in the asked frame",
        },
    )


class _FullReader:
    """Makes the samples of a release that was opened."""

    def __init__(
        self, meta: AnnotationFile, masks: MaskDict, folders: VideoFolders, rule: EvenFrames
    ) -> None:
        self.masks = masks
        self._meta = meta
        self._folders = folders
        self._rule = rule

    def convert(
        self, video: str, content: Mapping[str, Any], exp_id: str, entry: Any, row: int
    ) -> list[GroundingSample]:
        where = f"{self._meta.path.name}: video {video!r}, expression {exp_id!r}"
        expression = text_field(entry, "exp", where)
        objects = _object_names(entry.get("anno_id"), where)
        frames = frame_names(content.get("frames"), where)
        numbers, asked = self._rule.of(len(frames))
        shown = [frames[i] for i in numbers]
        files = self._folders.named(video, shown, where)
        targets: tuple[Target, ...] = ()
        facts: dict[str, Any] = {"absent": "no_object"}
        if objects:
            mask = self._mask(objects, numbers[asked], len(frames), where)
            if mask is not None:
                require_image_size(
                    mask,
                    self._folders.size(video, files[asked]),
                    self._folders.path(video, files[asked]),
                    f"{where}, frame {shown[asked]!r}",
                )
            targets, facts = mask_target(mask, asked)
        kind = {"type_id": entry["type_id"]} if type(entry.get("type_id")) is int else {}
        return [
            sequence_sample(
                benchmark="revos_full",
                key=f"{video}-{exp_id}",
                split=SPLIT,
                folders=self._folders,
                video=video,
                cluster=video,
                files=files,
                asked=asked,
                all_files=self._folders.frames(video, where),
                expression=expression,
                targets=targets,
                source={
                    "file": self._meta.path.name,
                    "revision": "official",
                    "row": row,
                    "images": [f"{video}/{name}" for name in shown],
                },
                extra={**facts, **kind, "anno_id": entry["anno_id"]},
            )
        ]

    def _mask(self, objects: list[str], frame: int, n_frames: int, where: str) -> Mask | None:
        """Union of the objects' masks in a frame; None if none is visible there."""
        shown = []
        for name in objects:
            if name not in self.masks:
                raise ItemError(
                    "invalid_row",
                    f"{where}: object {name} of 'anno_id' has no masks in {self.masks.path}; "
                    "expected the two files of one release",
                )
            try:
                masks = self.masks.get(name)
            except UserError as error:
                raise ItemError("invalid_mask", f"{where}: {error}") from error
            if len(masks) != n_frames:
                raise ItemError(
                    "invalid_mask",
                    f"{where}: object {name} has {len(masks)} masks, its video {n_frames} frames; "
                    "expected one mask (or null) a frame",
                )
            if masks[frame]:  # null, and what else says nothing
                at = f"{self.masks.path.name}: object {name}, frame {frame}"
                shown.append(read_rle(masks[frame], f"{where} ({at})"))
        return unite(shown, where) if shown else None


def _object_names(value: Any, where: str) -> list[str]:
    """The keys in mask_dict.json of an expression's objects; none is allowed."""
    if not isinstance(value, list) or not all(
        type(v) is int or (isinstance(v, str) and v) for v in value
    ):
        raise ItemError(
            "invalid_row",
            f"{where}: field 'anno_id' is {describe(value)}; expected a list of object numbers, "
            "empty where the expression describes nothing",
        )
    return [str(v) for v in value]


_REVOS = ByHand(
    "ReVOS (OneDrive or Baidu; the README lists SHA-256 sums)",
    "https://github.com/cilinyan/ReVOS-api",
)
_ARCHIVES = (ImageArchive("JPEGImages.zip", ("ReVOS/JPEGImages", "JPEGImages")),)
_LICENCE = "CC BY-NC-SA 4.0, non-commercial research only"

ENTRIES = (
    extracted_entry(
        name="revos",
        title="ReVOS, the boxes in sampled frames that UniVG-R1 scores",
        opener=open_revos,
        tasks={"univg_revos": None, "univg_revos_video": None},
        files=("ReVOS_eval.json",),
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
