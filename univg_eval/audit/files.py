"""The files of a benchmark, looked at one by one: several at a time, few of them in memory."""

from __future__ import annotations

import importlib.util
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from univg_eval.audit.kinds import Found, Offence
from univg_eval.errors import UserError
from univg_eval.images.reading import ImageError, image_header, split_reference
from univg_eval.images.video import check_film, read_frames
from univg_eval.samples import GroundingSample

__all__ = ["Progress", "ids_of", "look_at_files", "size_text", "users_of"]

Progress = Callable[[int, int], None]
# Frames of one video that are held at once.
_FRAMES_AT_ONCE = 8
_MOST_THREADS = 8


def ids_of(samples: Sequence[GroundingSample]) -> tuple[str, ...]:
    """The ids of some rows."""
    return tuple(sample.id for sample in samples)


def users_of(samples: Sequence[GroundingSample]) -> dict[str, list[GroundingSample]]:
    """The rows that show each image, by what they call it, in the order of first use."""
    users: dict[str, list[GroundingSample]] = {}
    for sample in samples:
        for reference in dict.fromkeys(sample.images):
            users.setdefault(reference, []).append(sample)
    return users


def users_of_film(
    path: str, users: Mapping[str, Sequence[GroundingSample]]
) -> list[GroundingSample]:
    """The rows that show a frame of the video `path`; `users` as from `users_of`."""
    showing: dict[str, GroundingSample] = {}
    for reference, samples in users.items():
        if reference.startswith(f"{path}#frame="):
            showing.update((sample.id, sample) for sample in samples)
    return list(showing.values())


@dataclass(frozen=True, slots=True)
class _Seen:
    """What looking at one image, or one video, has shown: its size as displayed, or a fault.

    Attributes:
        reference: what the samples call it; of a video, its path without a frame.
    """

    reference: str
    size: tuple[int, int] | None = None
    stored_size: tuple[int, int] | None = None
    orientation: int = 1
    fault: str = ""
    message: str = ""


def look_at_files(
    samples: Sequence[GroundingSample],
    base: Path,
    progress: Progress | None,
    decode: bool,
    found: Found,
) -> dict[str, tuple[int, int]]:
    """Look at every file of the samples once, several at a time; adds to `found`.

    Args:
        samples: whose images are looked at.
        base: the data root.
        progress: called with (files done, files in all).
        decode: read the files to their ends; see `audit_benchmark`.
        found: takes the findings.

    Returns:
        (width, height) as displayed of the images that could be opened, by what the samples call
        them.
    """
    users = users_of(samples)
    files: dict[str, list[tuple[str, int | None]]] = {}
    for reference, showing in users.items():
        try:
            path, frame = split_reference(reference)
        except UserError as error:
            found["unreadable_image"].append(Offence(str(error), ids_of(showing), reference))
        else:
            files.setdefault(path, []).append((reference, frame))
    has_films = any(frame is not None for uses in files.values() for _, frame in uses)
    if decode and has_films:
        _require_film_readers()

    def look(item: tuple[str, list[tuple[str, int | None]]]) -> list[_Seen]:
        return _look(base, item[0], item[1], decode)

    sizes: dict[str, tuple[int, int]] = {}
    pool = ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1))
    try:
        for done, seen in enumerate(pool.map(look, files.items())):
            if progress is not None:
                progress(done, len(files))
            for one in seen:
                showing = users.get(one.reference) or users_of_film(one.reference, users)
                _judge(one, showing, found)
                if one.size is not None:
                    sizes[one.reference] = one.size
    finally:
        pool.shutdown(cancel_futures=True)
    if progress is not None:
        progress(len(files), len(files))
    return sizes


def _require_film_readers() -> None:
    missing = [name for name in ("av", "decord") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"reading frames of videos needs {' and '.join(missing)}: pip install 'univg[eval]'; "
            "or examine the benchmark without its videos' frames (--quick)"
        )


def _look(
    base: Path, name: str, uses: Sequence[tuple[str, int | None]], decode: bool
) -> list[_Seen]:
    """Open the file `name` below `base`; `uses` are the references to it with their frames."""
    path = base / name
    seen = []
    frames = []
    for reference, frame in uses:
        if frame is None:
            seen.append(_look_at_image(path, reference, decode))
        else:
            frames.append((reference, frame))
    kind, message = _fault_of_film(path) if frames else ("", "")
    if kind:
        seen += [_Seen(name, fault=kind, message=message) for name, _ in frames]
    elif decode:
        for start in range(0, len(frames), _FRAMES_AT_ONCE):
            seen += _look_at_frames(path, frames[start : start + _FRAMES_AT_ONCE])
        if frames and not all(one.fault for one in seen):
            seen += _look_at_film(path, name)
    return seen


def _look_at_film(path: Path, name: str) -> list[_Seen]:
    """Damage anywhere in a video whose frames can be decoded."""
    try:
        check_film(path)
    except UserError as error:
        return [_Seen(name, fault="damaged_video", message=str(error))]
    return []


def _fault_of_film(path: Path) -> tuple[str, str]:
    """What is wrong with a video file before it is opened: (kind, message), both empty if nothing.

    A path that holds a NUL cannot name a file: it is missing.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return "missing_image", f"video file {path} does not exist"
    except OSError as error:
        return "unreadable_image", f"cannot read video file {path}: {error.strerror or error}"
    if not stat.S_ISREG(mode):
        return (
            "unreadable_image",
            f"{path} is no file but a folder or a device; expected a video file",
        )
    return "", ""


def _look_at_image(path: Path, reference: str, decode: bool) -> _Seen:
    try:
        header = image_header(path, decode=decode)
    except ImageError as error:
        kind = "missing_image" if error.missing else "unreadable_image"
        return _Seen(reference, fault=kind, message=str(error))
    return _Seen(reference, header.size, header.stored_size, header.orientation)


def _look_at_frames(path: Path, frames: Sequence[tuple[str, int]]) -> list[_Seen]:
    try:
        images = read_frames(path, [frame for _, frame in frames])
    except UserError as error:
        if len(frames) == 1:
            return [_Seen(frames[0][0], fault="unreadable_image", message=str(error))]
        # Which of them is it?
        return [seen for frame in frames for seen in _look_at_frames(path, [frame])]
    return [
        _Seen(name, image.size, image.size) for (name, _), image in zip(frames, images, strict=True)
    ]


def _judge(seen: _Seen, users: Sequence[GroundingSample], found: Found) -> None:
    """Turn what was seen of an image into findings."""
    if seen.fault:
        found[seen.fault].append(Offence(seen.message, ids_of(users), seen.reference))
        return
    if seen.size is None or seen.stored_size is None:
        return
    if seen.orientation != 1:
        found["exif_orientation"].append(
            Offence(
                f"orientation {seen.orientation} ({_ORIENTATIONS[seen.orientation]}): stored as "
                f"{size_text(seen.stored_size)}, displayed as {size_text(seen.size)}",
                ids_of(users),
                seen.reference,
            )
        )
    by_size: dict[tuple[int, int], list[GroundingSample]] = {}
    for sample in users:
        for reference, recorded in zip(sample.images, sample.image_sizes or (), strict=False):
            if reference == seen.reference and recorded != seen.size:
                by_size.setdefault(recorded, []).append(sample)
                break
    for recorded, showing in by_size.items():
        found["size_mismatch"].append(
            Offence(
                f"recorded as {size_text(recorded)}, the file is {size_text(seen.size)}",
                ids_of(showing),
                seen.reference,
            )
        )


_ORIENTATIONS = {
    2: "mirrored left to right",
    3: "turned by 180 degrees",
    4: "mirrored top to bottom",
    5: "mirrored along the diagonal",
    6: "turned by 90 degrees",
    7: "mirrored along the other diagonal",
    8: "turned by 270 degrees",
}


def size_text(size: tuple[int, int]) -> str:
    """``640x480``."""
    return f"{size[0]}x{size[1]}"
