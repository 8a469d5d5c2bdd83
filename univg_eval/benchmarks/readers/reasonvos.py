"""ReasonVOS: frames of a video, one instruction that takes reasoning, one box in one of the frames.

Bai et al., "One Token to Seg Them All: Language Instructed Reasoning Segmentation in Videos"
(VideoLISA, NeurIPS 2024). Two benchmarks:

``reasonvos`` is made from the boxes that the UniVG-R1 authors extracted and score
(GD-ML/UniVG-R1-data, ``zero_shot_evaluation/ReasonVOS_eval.json``), and comparable with their
table. A row::

    {"image_list": ["…/JPEGImages/<video>/00012.jpg", …], "question": "…",
     "bbox_list": ["[x1, y1, x2, y2]", …]}

The target is that of the third frame, ``bbox_list[2]``, a text with four whole numbers, in pixels.
So does AMAP-ML/UniVG-R1, ``eval/zero_shot/reasonvos_evaluation/eval.py``, which takes the first
four runs of digits; a text with another number of them, or with decimals or signs, would give it a
wrong box and is a fault here. Boxes are divided by the size of the frame as displayed; upstream
takes the size as stored.

``reasonvos_full`` is made from the release itself (showlab/VideoLISA, BENCHMARK.md)::

    ReasonVOS/JPEGImages/<video>/<frame>.jpg
    ReasonVOS/Annotations/<source>_<video>_<obj_id>/<frame>.png
    ReasonVOS/meta_expressions.json
        {"videos": {"<video>": {"source": "vipseg", "frames": ["00000012", …],
                                "expressions": [{"obj_id": "000000003", "exp_id": 0,
                                                 "exp_text": "…", "is_sent": …}, …]}, …}}

A pixel of a mask belongs to the object if its value is not zero (of a palette: its number). The
mask of the asked frame has to be there; an empty one says that the object is not visible, and the
sample has no target and ``absent`` ``not_visible`` in `extra`. Later expressions of a video that
repeat an ``exp_id``, which the release has, are told apart by a running number: ``…-1``,
``…-1-2``. ``benchmark_check.py`` and ``evaluation/reason_vos`` of VideoLISA read two more forms,
which are taken too: an object of expressions by number instead of a list, ``is_sent`` once a
video, and the folder of masks with its source in small letters.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from univg_eval.benchmarks.readers.common.annotation_files import (
    AnnotationFile,
    chosen_splits,
    default_images,
    describe,
    find_file,
    load_json,
    pixel_box,
    require_rows,
    text_field,
)
from univg_eval.benchmarks.readers.common.entry import ByHand
from univg_eval.benchmarks.readers.common.masks import Mask, mask_from_array, require_image_size
from univg_eval.benchmarks.readers.common.release import ImageFolder, Item, ItemError, Release
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
from univg_eval.images.reading import ImageError, image_header
from univg_eval.samples import GroundingSample, Target

__all__ = ["ENTRIES", "PUBLISHED_EXPRESSIONS", "SPLIT", "open_reasonvos", "open_reasonvos_full"]

SPLIT = "test"
ASKED = 2
"""Position of the asked frame in UniVG-R1's rows: the third."""
PUBLISHED_EXPRESSIONS = 458

EXTRACTED_FILE = "ReasonVOS_eval.json"
_FIELDS = ("image_list", "question", "bbox_list")
_EXTRACTED_ORIGIN = "GD-ML/UniVG-R1-data, folder zero_shot_evaluation"

META_FILE = "meta_expressions.json"
MASKS_FOLDER = "Annotations"
_ORIGIN = "the link in BENCHMARK.md of showlab/VideoLISA"


def open_reasonvos(
    source: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    splits: Sequence[str] | None = None,
) -> Release:
    """Open UniVG-R1's extracted boxes as benchmark ``reasonvos``.

    Args:
        source: ReasonVOS_eval.json, or a folder that holds it, directly or below
            zero_shot_evaluation/.
        images: the folder that the file's image paths, or trailing parts of them, are relative
            to; None: ``images`` beside the file, else its own folder. See `release.ImageFolder`.
        splits: ``["test"]`` or None; there is no other.

    Returns:
        One item a row. The file is held in memory.

    Raises:
        UserError: the file is not there or not that of this set; the image folder does not exist.
    """
    chosen_splits("reasonvos", (SPLIT,), splits)
    path = find_file(source, EXTRACTED_FILE, ["zero_shot_evaluation"], _EXTRACTED_ORIGIN)
    file = load_json(path)
    rows = require_rows(file, _FIELDS)
    folder = default_images(images, path.parent)
    _require_some_image(rows, folder)
    folders = VideoFolders(folder.folder)
    return Release(
        benchmark="reasonvos",
        items=[
            Item(
                key=f"{number:05d}",
                convert=partial(_extracted_row, row, number, file, folder, folders),
            )
            for number, row in enumerate(rows)
        ],
        n_items=len(rows),
        links={IMAGES_LINK: folder.folder},
        source={
            "revision": "univg-r1-extracted",
            "files": [{**file.to_dict(), "split": SPLIT, "rows": len(rows)}],
            "sampling": "given",
            "box": "the four whole numbers of bbox_list[2] in pixels, divided by the frame's size "
            "as displayed",
        },
    )


def _require_some_image(rows: Sequence[Any], folder: ImageFolder) -> None:
    """Refuse a folder that holds no image of the first ones of all rows."""
    problem: ItemError | None = None
    for row in rows:
        paths = row.get("image_list") if isinstance(row, Mapping) else None
        if isinstance(paths, list) and paths and isinstance(paths[0], str):
            try:
                folder.find(paths[0])
            except ItemError as error:
                problem = problem or error
            else:
                return
    if problem is not None:
        raise UserError(f"none of the rows' images is there; the first: {problem}")


_FOUR_NUMBERS = re.compile(r"[^0-9.+-]*([0-9]+)(?:[^0-9.+-]+([0-9]+)){3}[^0-9.+-]*", re.ASCII)


def _extracted_row(
    row: Any, number: int, file: AnnotationFile, folder: ImageFolder, folders: VideoFolders
) -> list[GroundingSample]:
    where = f"{file.path.name} row {number}"
    question = text_field(row, "question", where)
    released, boxes = row.get("image_list"), row.get("bbox_list")
    if (
        not isinstance(released, list)
        or len(released) <= ASKED
        or not all(isinstance(path, str) and path for path in released)
    ):
        raise ItemError(
            "invalid_row",
            f"{where}: field 'image_list' is {describe(released)}; expected three or more paths",
        )
    if not isinstance(boxes, list) or len(boxes) <= ASKED:
        raise ItemError(
            "invalid_row",
            f"{where}: field 'bbox_list' is {describe(boxes)}; expected a box for each of the "
            f"{len(released)} images",
        )
    at = f"{where}: field 'bbox_list[{ASKED}]'"
    text = boxes[ASKED]
    if not isinstance(text, str) or not _FOUR_NUMBERS.fullmatch(text):
        raise ItemError(
            "invalid_row",
            f"{at} is {describe(text)}; expected a text with four whole numbers x1, y1, x2, y2",
        )
    found = [folder.find(path) for path in released]
    videos = sorted({path.rpartition("/")[0] for path in found})
    if len(videos) > 1:
        raise ItemError(
            "invalid_row",
            f"{where}: field 'image_list' names images of {len(videos)} folders, "
            f"{videos[0]!r} and {videos[1]!r}; expected frames of one video",
        )
    video = videos[0]
    if not video:
        raise ItemError(
            "missing_image",
            f"{where}: image {released[0]!r} is found in {folder.folder} by its file name alone, "
            "which every video has; give the folder that holds the videos with --images",
        )
    files = [path.rpartition("/")[2] for path in found]
    image_wh = folders.size(video, files[ASKED])
    box = [int(value) for value in re.findall("[0-9]+", text)]
    return [
        sequence_sample(
            benchmark="reasonvos",
            key=f"{number:05d}",
            split=SPLIT,
            folders=folders,
            video=video,
            # The folders above it are those of this machine.
            cluster=video.rpartition("/")[2],
            files=files,
            asked=ASKED,
            all_files=folders.frames(video, where),
            expression=question,
            targets=(Target(ASKED, pixel_box(box, image_wh, at)),),
            source={
                "file": file.path.name,
                "revision": "univg-r1-extracted",
                "row": number,
                "images": list(released),
            },
            extra={},
        )
    ]


def open_reasonvos_full(
    source: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    splits: Sequence[str] | None = None,
    sampling: str = EvenFrames.DEFAULT,
) -> Release:
    """Open ReasonVOS as benchmark ``reasonvos_full``.

    Args:
        source: the folder that holds meta_expressions.json and Annotations/, directly or in
            ReasonVOS/; or the former, with the latter beside it.
        images: the folder that holds the videos, or has them in JPEGImages; None: JPEGImages
            beside the file, else the file's folder.
        splits: ``["test"]`` or None; there is no other.
        sampling: which frames are shown, ``even:N`` or ``all``; see `EvenFrames`.

    Returns:
        One item an expression, in file order. Of the masks only that of the asked frame is read.

    Raises:
        UserError: a file or folder is missing or of another set; no video is found; an unknown
            sampling rule.
    """
    chosen_splits("reasonvos_full", (SPLIT,), splits)
    rule = EvenFrames(sampling)
    path = find_file(source, META_FILE, ["ReasonVOS"], _ORIGIN)
    meta = load_json(path)
    videos = open_videos(meta, ("source", "frames", "expressions"), ("obj_id", "exp_text"))
    masks = path.with_name(MASKS_FOLDER)
    if not masks.is_dir():
        raise UserError(
            f"{masks} does not exist; expected the folder of masks beside {path.name}. It comes "
            f"from {_ORIGIN}"
        )
    folders = VideoFolders.choose(images, path.parent, ("JPEGImages",), videos)
    reader = _FullReader(meta, masks, folders, rule)
    items: list[Item] = []
    for video, content in videos.items():
        seen: Counter[str] = Counter()
        for place, entry in content["expressions"].items():
            exp_id = _expression_number(entry, place)
            seen[exp_id] += 1
            key = f"{video}-{exp_id}" + (f"-{seen[exp_id]}" if seen[exp_id] > 1 else "")
            items.append(
                Item(
                    key=f"{video}/{key.removeprefix(video)[1:]}",
                    convert=partial(reader.convert, video, content, key, entry, len(items)),
                    inputs=partial(reader.inputs, video, content, key, entry),
                )
            )
    return Release(
        benchmark="reasonvos_full",
        items=items,
        n_items=len(items),
        links={IMAGES_LINK: folders.folder},
        source={
            "revision": "official",
            "files": [meta.to_dict()],
            "published_expressions": PUBLISHED_EXPRESSIONS,
            **rule.to_dict(),
            "box": "around the non-zero pixels of the object's mask in the asked frame",
        },
    )


def _expression_number(entry: Any, place: str) -> str:
    """``exp_id`` of an expression; its place, or its key, where it has none."""
    number = entry.get("exp_id") if isinstance(entry, Mapping) else None
    return str(number) if type(number) is int or (isinstance(number, str) and number) else place


class _FullReader:
    """Makes the samples of a release that was opened."""

    def __init__(
        self, meta: AnnotationFile, masks: Path, folders: VideoFolders, rule: EvenFrames
    ) -> None:
        self._meta = meta
        self._masks = masks
        self._folders = folders
        self._rule = rule

    def convert(
        self, video: str, content: Mapping[str, Any], key: str, entry: Any, row: int
    ) -> list[GroundingSample]:
        where = self._where(key)
        expression = text_field(entry, "exp_text", where)
        obj_id = _object_id(entry, where)
        shown, files, asked = self._shown(video, content, where)
        path = self._mask_file(video, content, obj_id, files[asked], where)
        mask = _read_mask(path, where)
        require_image_size(
            mask,
            self._folders.size(video, files[asked]),
            self._folders.path(video, files[asked]),
            f"{where}, mask {path.parent.name}/{path.name}",
        )
        targets, facts = mask_target(mask, asked)
        is_sent = entry.get("is_sent", content.get("is_sent"))
        return [
            sequence_sample(
                benchmark="reasonvos_full",
                key=key,
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
                extra={
                    **facts,
                    **({"is_sent": is_sent} if isinstance(is_sent, int | str) else {}),
                    "obj_id": obj_id,
                    "video_source": content["source"],
                },
            )
        ]

    def inputs(
        self, video: str, content: Mapping[str, Any], key: str, entry: Any
    ) -> Sequence[Path]:
        """The mask's file; ItemError as `convert` raises it."""
        where = self._where(key)
        _, files, asked = self._shown(video, content, where)
        return (self._mask_file(video, content, _object_id(entry, where), files[asked], where),)

    def _where(self, key: str) -> str:
        return f"{self._meta.path.name}: expression {key!r}"

    def _shown(
        self, video: str, content: Mapping[str, Any], where: str
    ) -> tuple[list[str], list[str], int]:
        """Names and files of the frames that are shown, and the place of the asked one."""
        frames = frame_names(content.get("frames"), where)
        numbers, asked = self._rule.of(len(frames))
        shown = [frames[i] for i in numbers]
        return shown, self._folders.named(video, shown, where), asked

    def _mask_file(
        self, video: str, content: Mapping[str, Any], obj_id: str | int, frame: str, where: str
    ) -> Path:
        origin = text_field(content, "source", f"{where}: video {video!r}")
        folder = self._folder_of_masks(origin, video, obj_id, where)
        return folder / f"{Path(frame).stem}.png"

    def _folder_of_masks(self, origin: str, video: str, obj_id: str | int, where: str) -> Path:
        names = dict.fromkeys(f"{written}_{video}_{obj_id}" for written in (origin, origin.lower()))
        for name in names:
            if Path(name).name == name and (self._masks / name).is_dir():
                return self._masks / name
        raise ItemError(
            "missing_image",
            f"{where}: the object's folder of masks, {' or '.join(names)}, is not in "
            f"{self._masks}; unpack the release's Annotations again",
        )


def _object_id(entry: Any, where: str) -> str | int:
    obj_id = entry.get("obj_id") if isinstance(entry, Mapping) else None
    if type(obj_id) is int or (isinstance(obj_id, str) and obj_id):
        return obj_id
    raise ItemError(
        "invalid_row",
        f"{where}: field 'obj_id' is {describe(obj_id)}; expected the number of an object",
    )


def _read_mask(path: Path, where: str) -> Mask:
    """The mask in a PNG file: what is not zero; of colours, what is not black."""
    import numpy as np
    from PIL import Image

    try:
        image_header(path, decode=True)  # refuses damaged files
    except ImageError as error:
        if error.missing:
            raise ItemError(
                "missing_image",
                f"{where}: the mask {path} does not exist; expected a mask for every frame of the "
                "video: unpack the release's Annotations again",
            ) from error
        raise ItemError("invalid_mask", f"{where}: {error}") from error
    with Image.open(path) as image:
        pixels = np.asarray(image) != 0
        if pixels.ndim == 3:  # colours; how opaque they are says nothing
            colours = len(image.getbands()) - ("A" in image.getbands())
            pixels = np.logical_or.reduce(pixels[..., :colours], axis=2)
    return mask_from_array(pixels)


_REASONVOS = ByHand(
    "ReasonVOS (Google Drive file named in BENCHMARK.md of showlab/VideoLISA)",
    "https://drive.google.com/file/d/1qruU9QlUhPcHnN-UHG7iri2nhw_xo7gP",
)

ENTRIES = (
    extracted_entry(
        name="reasonvos",
        title="ReasonVOS, the boxes in sampled frames that UniVG-R1 scores",
        opener=open_reasonvos,
        tasks={"univg_reasonvos": None, "univg_reasonvos_video": None},
        files=("ReasonVOS_eval.json",),
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
