"""Sets whose samples show frames of a video: their folders, and the samples of expressions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

from univg_eval.benchmarks.readers.common.annotation_files import (
    AnnotationFile,
    describe,
    find_file,
    listing,
    load_json,
    text_field,
    unexpected,
)
from univg_eval.benchmarks.readers.common.masks import Mask, require_image_size
from univg_eval.benchmarks.readers.common.release import (
    ImageFolder,
    Item,
    ItemError,
    Release,
    StrPath,
    sequence_instruction,
)
from univg_eval.benchmarks.readers.common.zero_shot import Origin
from univg_eval.boxes import Box
from univg_eval.errors import UserError
from univg_eval.images.video import FRAME_ORDERS, frame_numbers, list_frames
from univg_eval.samples import GroundingSample, Target

__all__ = [
    "DEFAULT_SAMPLING",
    "SPLIT",
    "TARGET",
    "Shown",
    "VideoFolders",
    "expressions_release",
    "open_videos",
    "sequence_sample",
    "shown_frames",
]

SPLIT = "test"
TARGET = 2
"""Place of the target's frame in UniVG-R1's rows: the third."""
DEFAULT_SAMPLING = "even:5"


def shown_frames(rule: str, n_total: int) -> tuple[list[int], int]:
    """Numbers of the frames that a set made from a raw release shows, and the target's place.

    The rule is ``even:N`` or ``all``, see `video.SAMPLING_RULES`. The target is to be found in the
    frame in the middle, n // 2 of the n shown: the third of five as in the published sets.
    """
    shown = frame_numbers(rule, n_total)
    return shown, len(shown) // 2


class VideoFolders(ImageFolder):
    """The folder below which a release keeps its videos, a folder of frames each."""

    def __init__(self, folder: StrPath) -> None:
        """Look below `folder`; UserError if it is no folder."""
        super().__init__(folder)
        self._listed = lru_cache(maxsize=64)(self._list)

    @classmethod
    def choose(
        cls, images: StrPath | None, base: Path, below: Sequence[str], videos: Iterable[str]
    ) -> VideoFolders:
        """The folder in which one of the videos is found; UserError if there is none.

        It is the given one, or `base`, the folder of the annotation file, or one of the folders
        `below` these, which come first.
        """
        start = base if images is None else ImageFolder(images).folder
        names = [video for video in dict.fromkeys(videos) if _is_inside(video)]
        places = [place for part in below if (place := start / part).is_dir()] + [start]
        for place in places:
            if any((place / name).is_dir() for name in names):
                return cls(place)
        raise UserError(
            f"none of the {len(names)} videos, such as {names[0] if names else 'none'!r}, is a "
            f"folder of {' or '.join(map(str, places))}; {start} has: {listing(start)}. Unpack the "
            "release's JPEGImages, and give its folder with --images"
        )

    def frames(self, video: str, where: str, *, order: str = "natural") -> tuple[str, ...]:
        """File names of a video's frames, in order.

        ItemError ``invalid_row`` if the name leads out of the folder, ``missing_image`` if there is
        no such video, ``unreadable_image`` if its frames have no clear order.
        """
        if not _is_inside(video):
            raise ItemError(
                "invalid_row",
                f"{where}: video {video!r}; expected a name that stays within the folder of videos",
            )
        if not (self.folder / video).is_dir():
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

        ItemError as of `frames`, and ``missing_image`` if a frame is not there.
        """
        names = self.frames(video, where)
        files = {PurePosixPath(name).stem: name for name in names}
        missing = next((frame for frame in frames if frame not in files), None)
        if missing is not None:
            raise ItemError(
                "missing_image",
                f"{where}: frame {missing!r} of video {video!r} is not in {self.folder / video}, "
                f"which has {len(names)} frames, from {names[0]} to {names[-1]}; expected an image "
                "of that name: unpack the video again",
            )
        return [files[frame] for frame in frames]


def _is_inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and ".." not in parts and parts[0] != "/" and "\0" not in name


def sequence_sample(
    origin: Origin,
    folders: VideoFolders,
    *,
    video: str,
    files: Sequence[str],
    released: Sequence[str],
    expression: str,
    target: int,
    box: Box | None,
    cluster: str,
    extra: Mapping[str, Any],
) -> GroundingSample:
    """A sample of frames of a video, in the words of UniVG-R1's zero-shot evaluation.

    Added to `extra` are the expression, ``video`` (the folder of frames below the data root),
    ``target_frame`` (0-based place of the target's frame among all frames of the video in natural
    order) and ``n_frames`` of the video.

    Args:
        video: its folder below that of the videos.
        files, released: the frames shown, by file name and as the release names them.
        target: 0-based place among them of the one in which the expression is to be found.
        box: in that frame, xyxy_norm; None if it is not there.
        cluster: the video's name, the same on every machine.
    """
    folder = f"{origin.benchmark}/images/{video}"
    frames = folders.frames(video, origin.key)
    return origin.sample(
        images=[f"{folder}/{file}" for file in files],
        sizes=[folders.size(f"{video}/{file}") for file in files],
        released=released,
        instruction=sequence_instruction(expression, target),
        targets=() if box is None else (Target(target, box),),
        given_image=target,
        cluster=cluster,
        extra={
            "expression": expression,
            "video": folder,
            "target_frame": frames.index(files[target]),
            "n_frames": len(frames),
            **extra,
        },
    )


# Releases of expressions, with a mask of each object in each frame


def open_videos(
    source: StrPath,
    name: str,
    folder: str,
    origin: str,
    fields: Collection[str],
    expression_fields: Collection[str],
) -> tuple[AnnotationFile, dict[str, dict[str, Any]]]:
    """The file of expressions of a release, and its videos, each with an object of expressions.

    The file ``{"videos": {name: {"expressions": …}}}`` is found by `find_file`. A release that
    lists a video's expressions gets their places as keys. UserError if none of the videos and
    expressions has the fields: it is the file of another set. If only some lack them, these are
    faulty items.
    """
    meta = load_json(find_file(source, name, [folder], origin))
    videos = meta.value.get("videos") if isinstance(meta.value, Mapping) else None
    found: dict[str, dict[str, Any]] = {}
    sound = False
    for video, content in videos.items() if isinstance(videos, Mapping) else ():
        found[video] = content = dict(content) if isinstance(content, Mapping) else {}
        is_sound = set(fields) <= content.keys()
        expressions = content.get("expressions")
        if isinstance(expressions, list):
            expressions = {str(place): entry for place, entry in enumerate(expressions)}
        if not isinstance(expressions, Mapping):
            # One item, whose conversion will say what is wrong.
            expressions = {"?": expressions}
        content["expressions"] = expressions
        sound |= is_sound and any(
            isinstance(entry, Mapping) and set(expression_fields) <= entry.keys()
            for entry in expressions.values()
        )
    if not sound:
        raise UserError(
            f"{meta.path}: holds {describe(meta.value)}; expected "
            f'{{"videos": {{name: {{…}}}}}} with the fields {", ".join(fields)} a video and '
            f"{', '.join(expression_fields)} an expression. Is it the file of another set?"
        )
    return meta, found


@dataclass(frozen=True, slots=True)
class Shown:
    """An expression, and the frames that it is shown with.

    Attributes:
        where: names the expression in an error.
        content, entry: what the release says of the video, and of the expression.
        frames: names of all frames of the video, as released.
        numbers, files: the frames shown, by their places in `frames` and their file names.
        target: 0-based place among them of the frame in which the target is to be found.
    """

    where: str
    video: str
    content: Mapping[str, Any]
    entry: Mapping[str, Any]
    frames: list[str]
    numbers: list[int]
    files: list[str]
    target: int


def expressions_release(
    benchmark: str,
    meta: AnnotationFile,
    videos: Mapping[str, Mapping[str, Any]],
    folders: VideoFolders,
    sampling: str,
    *,
    text: str,
    find_mask: Callable[[Shown], tuple[Mask | None, Mapping[str, Any]]],
    number: Callable[[Any, str], str] = lambda entry, place: place,
    inputs: Callable[[Shown], Sequence[Path]] = lambda shown: (),
    **facts: Any,
) -> Release:
    """A release with one item an expression, in file order.

    The target is the box of the expression's mask in the target's frame. Without a mask, or with
    an empty one, the sample has no target, and ``absent`` in `extra` says ``not_visible``.

    Args:
        meta, videos: from `open_videos`.
        sampling: see `shown_frames`.
        text: the field that holds the expression.
        find_mask: the mask in the target's frame, None if the object is not visible there; and
            what else belongs into `extra`.
        number: makes the name of an expression within its video from its entry and its place;
            later ones of the same name get a running number.
        inputs: files that `find_mask` reads, see `Item`.
        facts: for the manifest.
    """

    def show(video: str, name: str, entry: Any) -> tuple[str, Shown]:
        where = f"{meta.path.name}: video {video!r}, expression {name!r}"
        expression = text_field(entry, text, where)
        frames = _frame_names(videos[video].get("frames"), where)
        numbers, target = shown_frames(sampling, len(frames))
        files = folders.named(video, [frames[i] for i in numbers], where)
        return expression, Shown(where, video, videos[video], entry, frames, numbers, files, target)

    def files_read(video: str, name: str, entry: Any) -> Sequence[Path]:
        return inputs(show(video, name, entry)[1])

    def convert(video: str, name: str, entry: Any, row: int) -> list[GroundingSample]:
        expression, shown = show(video, name, entry)
        mask, extra = find_mask(shown)
        if mask is not None:
            file = f"{video}/{shown.files[shown.target]}"
            require_image_size(mask, folders.size(file), folders.folder / file, shown.where)
        box = mask.box() if mask is not None else None
        sample = sequence_sample(
            Origin(benchmark, SPLIT, f"{video}-{name}", meta.path.name, "official", row),
            folders,
            video=video,
            files=shown.files,
            released=[f"{video}/{shown.frames[i]}" for i in shown.numbers],
            expression=expression,
            target=shown.target,
            box=box,
            cluster=video,
            extra={"absent": "not_visible", **extra}
            if mask is None or box is None
            else {"parts": mask.n_parts(), **extra},
        )
        return [sample]

    items: list[Item] = []
    for video, content in videos.items():
        seen: Counter[str] = Counter()
        for place, entry in content["expressions"].items():
            name = number(entry, place)
            seen[name] += 1
            if seen[name] > 1:
                name += f"-{seen[name]}"
            items.append(
                Item(
                    f"{video}/{name}",
                    convert=partial(convert, video, name, entry, len(items)),
                    inputs=partial(files_read, video, name, entry),
                )
            )
    return Release(
        benchmark=benchmark,
        items=items,
        links={"images": folders.folder},
        source={
            "revision": "official",
            "sampling": sampling,
            "asked_frame": "position n // 2 of the n frames shown",
            **facts,
        },
    )


def _frame_names(value: Any, where: str) -> list[str]:
    """The names of a video's frames; ItemError ``invalid_row`` if it has none."""
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(name, str) and name for name in value)
        or len(set(value)) < len(value)
    ):
        raise unexpected(
            f"{where}: the video's field 'frames'", value, "the names of its frames, each once"
        )
    return value
