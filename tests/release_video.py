"""ReVOS and ReasonVOS in the exact forms of their releases, small, with the truth beside them.

Nothing of the converters is used to write them: masks are painted with numpy, boxes are the extent
of the painted pixels, and the sampled frames are written down by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from release_still import TrueSample, coco_rle, mask_of, write_json

# Position of the centre frame of five equal intervals, for the numbers of frames used here.
EVEN_5: Mapping[int, tuple[int, ...]] = {
    3: (0, 0, 1, 2, 2),  # centres 0.3, 0.9, 1.5, 2.1, 2.7
    7: (0, 2, 3, 4, 6),  # 0.7, 2.1, 3.5, 4.9, 6.3
    9: (0, 2, 4, 6, 8),  # 0.9, 2.7, 4.5, 6.3, 8.1
    10: (1, 3, 5, 7, 9),
}


@dataclass(frozen=True)
class Video:
    """A video as numbered images, with a mask (or None) an object and frame."""

    name: str
    image_wh: tuple[int, int]
    frames: tuple[str, ...]  # names without extension
    extension: str
    objects: Mapping[Any, Sequence[np.ndarray | None]]

    def file(self, index: int) -> str:
        return f"{self.name}/{self.frames[index]}{self.extension}"

    def write(self, folder: Path) -> None:
        """Write the frames below `folder`: noise, the objects in colours of their own."""
        w, h = self.image_wh
        rng = np.random.default_rng(len(self.frames) * 1000 + w)
        for index in range(len(self.frames)):
            image = rng.integers(90, 130, (h, w, 3), dtype=np.uint8)
            for number, masks in enumerate(self.objects.values()):
                mask = masks[index]
                if mask is not None:
                    image[mask] = [(230, 40, 40), (40, 60, 230), (30, 190, 60)][number % 3]
            path = folder / self.file(index)
            path.parent.mkdir(parents=True, exist_ok=True)
            options = {"quality": 95} if self.extension == ".jpg" else {}
            Image.fromarray(image).save(path, **options)

    def sample(
        self,
        name: str,
        expression: str,
        shown: Sequence[int],
        box: tuple[int, int, int, int] | None,
        *,
        folder: str = "images",
        released: Sequence[str] | None = None,
        parts: int | None = None,
        **extra: Any,
    ) -> TrueSample:
        """The truth about a sample that shows these frames; `released` if not its files."""
        files = [self.file(i) for i in shown]
        return TrueSample(
            name,
            expression,
            files=tuple(f"{folder}/{file}" for file in files),
            released=tuple(files if released is None else released),
            image_wh=self.image_wh,
            box=box,
            parts=parts,
            extra={"absent": None, "target_frame": shown[2], "n_frames": len(self.frames), **extra},
        )

    def names(self, shown: Sequence[int]) -> list[str]:
        """Frames as the raw releases name them."""
        return [f"{self.name}/{self.frames[i]}" for i in shown]


def rectangle(image_wh: tuple[int, int], x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    """A mask whose pixels are x1 … x2 - 1 and y1 … y2 - 1."""
    mask: np.ndarray = mask_of(image_wh, [(x1, y1, x2, y2)])
    return mask


def disc(image_wh: tuple[int, int], x: int, y: int, radius: int) -> np.ndarray:
    """A filled circle; with a whole centre it reaches from x - radius to x + radius."""
    rows, columns = np.ogrid[: image_wh[1], : image_wh[0]]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def extent(mask: np.ndarray) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 around the set pixels; the far edges lie after the last pixel."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


BEACH, KITCHEN, STREET = (101, 75), (64, 49), (53, 88)
BEACH_NAMES = tuple(f"{5 * i:05d}" for i in range(9))
KITCHEN_NAMES = tuple(f"img_{i + 1}" for i in range(10))  # in text order img_10 would come second
STREET_NAMES = ("00007", "00008", "00010")


def _two_parts(i: int) -> np.ndarray:
    return rectangle(KITCHEN, 3 + i, 5, 9 + i, 20) | rectangle(KITCHEN, 30, 25 + i, 47, 30 + i)


def revos_videos() -> list[Video]:
    """Three videos of odd sizes. The keys of `objects` are the release's anno_ids."""
    return [
        Video(
            "beach_0001",
            BEACH,
            BEACH_NAMES,
            ".jpg",
            {
                11: [disc(BEACH, 20 + 5 * i, 30, 11) for i in range(9)],
                12: [rectangle(BEACH, 60, 40 + i, 83, 61 + i) if i else None for i in range(9)],
            },
        ),
        Video(
            "kitchen-7",
            KITCHEN,
            KITCHEN_NAMES,
            ".png",
            {
                # Behind something in frames 4 to 6; the target frame is 5.
                21: [
                    None if i in (4, 5, 6) else rectangle(KITCHEN, 40, 2 + i, 55, 12 + i)
                    for i in range(10)
                ],
                22: [_two_parts(i) for i in range(10)],
            },
        ),
        Video(
            "street_12_b",
            STREET,
            STREET_NAMES,
            ".jpg",
            {1031: [rectangle(STREET, 0, 70 - 9 * i, 31, 88) for i in range(3)]},
        ),
    ]


def _target(video: Video, keys: Sequence[Any], frame: int) -> np.ndarray | None:
    """Union of the objects' masks in a frame; None if none is visible."""
    masks = [video.objects[key][frame] for key in keys]
    shown = [mask for mask in masks if mask is not None and mask.any()]
    return np.logical_or.reduce(shown) if shown else None


# video → exp_id → (exp, anno_ids, type_id: 0 referring, 1 reasoning, 2 hallucination, parts)
REVOS_EXPRESSIONS: Mapping[str, Mapping[str, tuple[str, list[int], int, int | None]]] = {
    "beach_0001": {
        "0": ("the ball that rolls along", [11], 0, 1),
        "1": ("Which things would a child play with?", [11, 12], 1, 2),
        "2": ("the elephant behind the dune", [], 2, None),
    },
    "kitchen-7": {
        "0": ("the cup that disappears for a while", [21], 0, None),
        "1": ("the handle seen through the gap", [22], 0, 2),
        "2": ("crème brûlée dishes “in use”", [21, 22], 1, 2),
    },
    "street_12_b": {"10": ("what drives towards us", [1031], 1, 1)},
}


def write_revos_full(folder: Path) -> list[TrueSample]:
    """The release as unpacked: JPEGImages/, meta_expressions_valid_.json, mask_dict.json.

    The mask file also holds an object of the training set (which no expression names), and one mask
    of zeros.
    """
    made = revos_videos()
    videos: dict[str, Any] = {}
    masks: dict[str, list[Any]] = {"500": [None, coco_rle(rectangle((6, 4), 1, 1, 3, 3))]}
    truth = []
    for number, video in enumerate(made):
        video.write(folder / "JPEGImages")
        w, h = video.image_wh
        expressions = REVOS_EXPRESSIONS[video.name]
        videos[video.name] = {
            "vid_id": number,
            "height": h,
            "width": w,
            "frames": list(video.frames),
            "expressions": {
                exp_id: {
                    "exp": exp,
                    "obj_id": list(range(len(anno_ids))),
                    "anno_id": anno_ids,
                    "type_id": type_id,
                }
                for exp_id, (exp, anno_ids, type_id, _) in expressions.items()
            },
        }
        for key, video_masks in video.objects.items():
            masks[str(key)] = [None if m is None else coco_rle(m) for m in video_masks]
        shown = EVEN_5[len(video.frames)]
        for exp_id, (exp, anno_ids, type_id, parts) in expressions.items():
            mask = _target(video, anno_ids, shown[2])
            absent = "not_visible" if anno_ids else "no_object"
            truth.append(
                video.sample(
                    f"revos_full-{video.name}-{exp_id}",
                    exp,
                    shown,
                    None if mask is None else extent(mask),
                    released=video.names(shown),
                    parts=parts,
                    absent=absent if mask is None else None,
                    type_id=type_id,
                    anno_id=anno_ids,
                )
            )
    # The cup is described by an empty mask, not by a null, in one of the frames that hide it.
    masks["21"][5] = coco_rle(np.zeros(KITCHEN[::-1], dtype=bool))
    write_json(folder / "meta_expressions_valid_.json", {"videos": videos})
    write_json(folder / "mask_dict.json", masks)
    return truth


def write_revos_extracted(folder: Path) -> list[TrueSample]:
    """UniVG-R1's ReVOS_eval.json beside its folder of videos; decimals are cut by its scorer."""
    made = {video.name: video for video in revos_videos()}
    for video in made.values():
        video.write(folder / "ReVOS_eval")
    wanted = [
        ("beach_0001", "the ball that rolls along", [11], [0, 2, 4, 6, 8]),
        ("beach_0001", "Which things would a child play with?", [11, 12], [1, 2, 3, 4, 5]),
        ("kitchen-7", "the handle seen through the gap", [22], [0, 4, 9, 9, 9]),
        ("street_12_b", "what drives towards us", [1031], [0, 0, 1, 2, 2]),
    ]
    rows, truth = [], []
    for number, (name, question, keys, frames) in enumerate(wanted):
        video = made[name]
        boxes: list[list[float]] = []
        for i in frames:
            mask = _target(video, keys, i)
            assert mask is not None
            boxes.append([value + 0.75 for value in extent(mask)])
        rows.append({"video_id": name, "frames": frames, "question": question, "bbox_list": boxes})
        x1, y1, x2, y2 = (int(value) for value in boxes[2])
        truth.append(video.sample(f"revos-{number:05d}", question, frames, (x1, y1, x2, y2)))
    write_json(folder / "ReVOS_eval.json", rows)
    return truth


PARK, RINK = (90, 61), (47, 71)


def reasonvos_videos() -> list[Video]:
    """Two videos. The keys of `objects` are the release's obj_ids."""
    return [
        Video(
            "1007_dJ8rXVkL2ao",
            PARK,
            tuple(f"{i:08d}" for i in range(0, 7 * 12, 12)),
            ".jpg",
            {
                "000000003": [disc(PARK, 12 + 9 * i, 25, 10) for i in range(7)],
                # Out of the image in the target's frame.
                "000000014": [
                    np.zeros(PARK[::-1], dtype=bool)
                    if i in (2, 3)
                    else rectangle(PARK, 50, 30, 66, 44 + i)
                    for i in range(7)
                ],
            },
        ),
        Video(
            "4f6f0ec2",
            RINK,
            tuple(str(i) for i in range(8, 18)),  # "10" comes before "8" in text order
            ".jpg",
            {
                1: [
                    rectangle(RINK, 2, 3 + i, 14, 20 + i) | rectangle(RINK, 20, 33, 47, 71)
                    for i in range(10)
                ]
            },
        ),
    ]


# video → (source, [(obj_id, exp_id, exp_text, is_sent, parts)])
REASONVOS_EXPRESSIONS: Mapping[str, tuple[str, list[tuple[Any, int, str, int, int | None]]]] = {
    "1007_dJ8rXVkL2ao": (
        "vipseg",
        [
            ("000000003", 0, "Which object would roll away on a slope?", 1, 1),
            ("000000014", 1, "the one who walks out of the picture", 0, None),
            # The release numbers some expressions of a video alike.
            ("000000003", 1, "the roundest thing", 0, 1),
        ],
    ),
    "4f6f0ec2": ("MOSE", [(1, 0, "the pair that skates", 0, 2)]),
}


def write_reasonvos_full(folder: Path) -> list[TrueSample]:
    """The release as unpacked: JPEGImages/, Annotations/, meta_expressions.json.

    Masks of the first video have a palette, those of the second are grey with 0 and 255.
    """
    videos: dict[str, Any] = {}
    truth = []
    for video in reasonvos_videos():
        video.write(folder / "JPEGImages")
        source, expressions = REASONVOS_EXPRESSIONS[video.name]
        for obj_id, masks in video.objects.items():
            for index, mask in enumerate(masks):
                assert mask is not None
                path = folder / "Annotations" / f"{source}_{video.name}_{obj_id}"
                path.mkdir(parents=True, exist_ok=True)
                if source == "vipseg":
                    image = Image.fromarray(mask.astype(np.uint8) * 2)
                    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
                else:
                    image = Image.fromarray(mask.astype(np.uint8) * 255)
                image.save(path / f"{video.frames[index]}.png")
        videos[video.name] = {
            "source": source,
            "frames": list(video.frames),
            "expressions": [
                {"obj_id": obj_id, "exp_id": exp_id, "exp_text": text, "is_sent": is_sent}
                for obj_id, exp_id, text, is_sent, _ in expressions
            ],
        }
        shown = EVEN_5[len(video.frames)]
        seen: list[int] = []
        for obj_id, exp_id, text, is_sent, parts in expressions:
            seen.append(exp_id)
            again = f"-{seen.count(exp_id)}" if seen.count(exp_id) > 1 else ""
            mask = _target(video, [obj_id], shown[2])
            truth.append(
                video.sample(
                    f"reasonvos_full-{video.name}-{exp_id}{again}",
                    text,
                    shown,
                    None if mask is None else extent(mask),
                    released=video.names(shown),
                    parts=parts,
                    absent="not_visible" if mask is None else None,
                    is_sent=is_sent,
                    obj_id=obj_id,
                    video_source=source,
                )
            )
    write_json(folder / "meta_expressions.json", {"videos": videos})
    return truth


def write_reasonvos_extracted(folder: Path) -> list[TrueSample]:
    """UniVG-R1's ReasonVOS_eval.json; its paths are those of the authors' machine."""
    made = {video.name: video for video in reasonvos_videos()}
    for video in made.values():
        video.write(folder / "JPEGImages")
    wanted = [
        ("1007_dJ8rXVkL2ao", "Which object would roll away?", "000000003", [0, 2, 3, 4, 6]),
        ("4f6f0ec2", "the pair that skates", 1, [1, 3, 5, 7, 9]),
    ]
    forms = ("[{}, {}, {}, {}]", "({},{}),({},{})")
    rows, truth = [], []
    for number, (name, question, key, frames) in enumerate(wanted):
        video = made[name]
        boxes = []
        for i in frames:
            mask = video.objects[key][i]
            assert mask is not None
            boxes.append(extent(mask))
        released = [f"/data/of/others/ReasonVOS/JPEGImages/{video.file(i)}" for i in frames]
        texts = [forms[number].format(*box) for box in boxes]
        rows.append({"image_list": released, "question": question, "bbox_list": texts})
        truth.append(
            video.sample(
                f"reasonvos-{number:05d}",
                question,
                frames,
                boxes[2],
                folder="images/JPEGImages",
                released=released,
            )
        )
    write_json(folder / "ReasonVOS_eval.json", rows)
    return truth
