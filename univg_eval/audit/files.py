"""The files of a benchmark, opened one by one: several at a time, few of them in memory."""

from __future__ import annotations

import importlib.util
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from univg_eval.audit.findings import Case
from univg_eval.errors import UserError, install_command
from univg_eval.images.reading import ImageError, ImageHeader, image_header, split_reference
from univg_eval.images.video import check_video, read_frames
from univg_eval.samples import GroundingSample

__all__ = ["Progress", "open_files"]

Progress = Callable[[int, int], None]
_Users = Mapping[str, Sequence[GroundingSample]]
_FRAMES_AT_ONCE = 8  # of one video
_MOST_THREADS = 8


def open_files(
    samples: Sequence[GroundingSample],
    locate: Callable[[str], Path],
    *,
    decode: bool,
    progress: Progress | None = None,
) -> tuple[list[Case], dict[str, tuple[int, int]]]:
    """Open every file of the samples once, several at a time.

    Args:
        samples: whose images are opened.
        locate: where a path of `GroundingSample.images`, without its frame, is found.
        decode: read the files to their ends; see `audit_benchmark`.
        progress: called with (files done, files in all).

    Returns:
        What is wrong with them; (width, height) as displayed of the images that could be opened,
        by what the samples call them.
    """
    users: dict[str, list[GroundingSample]] = {}
    for sample in samples:
        for reference in dict.fromkeys(sample.images):
            users.setdefault(reference, []).append(sample)
    cases: list[Case] = []
    files: dict[str, list[tuple[str, int | None]]] = {}
    for reference, showing in users.items():
        try:
            path, frame = split_reference(reference)
        except UserError as error:
            cases.append(Case("unreadable_image", str(error), _ids(showing), reference))
        else:
            files.setdefault(path, []).append((reference, frame))
    if decode and any(frame is not None for uses in files.values() for _, frame in uses):
        _require_video_readers()

    def look(item: tuple[str, list[tuple[str, int | None]]]) -> list[Case | _Opened]:
        return list(_open(locate(item[0]), item[0], item[1], users, decode))

    sizes: dict[str, tuple[int, int]] = {}
    progress = progress or (lambda done, total: None)
    progress(0, len(files))
    pool = ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1))
    try:
        for done, seen in enumerate(pool.map(look, files.items()), start=1):
            for one in seen:
                if isinstance(one, Case):
                    cases.append(one)
                else:
                    reference, header = one
                    sizes[reference] = header.size
                    cases += _compare(reference, header, users[reference])
            progress(done, len(files))
    finally:
        pool.shutdown(cancel_futures=True)
    return cases, sizes


_Opened = tuple[str, ImageHeader]
"""What the samples call an image, and what its file says."""


def _ids(samples: Sequence[GroundingSample]) -> tuple[str, ...]:
    return tuple(sample.id for sample in samples)


def _require_video_readers() -> None:
    if importlib.util.find_spec("av") is None:
        raise UserError(
            f"reading frames of videos needs the package av: {install_command('eval')}; or audit "
            "the benchmark without them (--quick)"
        )


def _open(
    path: Path, name: str, uses: Sequence[tuple[str, int | None]], users: _Users, decode: bool
) -> Iterator[Case | _Opened]:
    """Open the file that the samples call `name`, for the images and frames `uses`."""
    frames = []
    for reference, frame in uses:
        if frame is not None:
            frames.append((reference, frame))
            continue
        try:
            yield reference, image_header(path, decode=decode)
        except ImageError as error:
            kind = "missing_image" if error.missing else "unreadable_image"
            yield Case(kind, str(error), _ids(users[reference]), reference)
    if not frames:
        return
    fault = _fault_of_file(path)
    if fault is not None:
        for reference, _ in frames:
            yield Case(*fault, _ids(users[reference]), reference)
    elif decode:
        seen = [
            one
            for start in range(0, len(frames), _FRAMES_AT_ONCE)
            for one in _open_frames(path, frames[start : start + _FRAMES_AT_ONCE], users)
        ]
        yield from seen
        if not all(isinstance(one, Case) for one in seen):
            try:
                check_video(path)
            except UserError as error:
                showing = {s.id: s for reference, _ in frames for s in users[reference]}
                yield Case("damaged_video", str(error), tuple(showing), name)


def _fault_of_file(path: Path) -> tuple[str, str] | None:
    """Kind and message of what is wrong with a video file before it is opened.

    A path that holds a NUL cannot name a file: it is missing.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return "missing_image", f"video file {path} does not exist"
    except OSError as error:
        return "unreadable_image", f"cannot read video file {path}: {error.strerror or error}"
    if not stat.S_ISREG(mode):
        return "unreadable_image", f"{path} is a folder or a device; expected a video file"
    return None


def _open_frames(
    path: Path, frames: Sequence[tuple[str, int]], users: _Users
) -> Iterator[Case | _Opened]:
    try:
        images = read_frames(path, [frame for _, frame in frames])
    except UserError as error:
        if len(frames) == 1:
            ((reference, _),) = frames
            yield Case("unreadable_image", str(error), _ids(users[reference]), reference)
            return
        for frame in frames:  # which of them is it?
            yield from _open_frames(path, [frame], users)
        return
    for (reference, _), image in zip(frames, images, strict=True):
        yield reference, ImageHeader(image.size, 1)


def _compare(
    reference: str, header: ImageHeader, users: Sequence[GroundingSample]
) -> Iterator[Case]:
    """Compare what a file says with what the rows say of it."""
    width, height = header.size
    if header.orientation != 1:
        yield Case(
            "exif_orientation",
            f"orientation {header.orientation} ({_ORIENTATIONS[header.orientation]}): stored as "
            f"{'{}x{}'.format(*header.stored_size)}, displayed as {width}x{height}",
            _ids(users),
            reference,
        )
    by_size: dict[tuple[int, int], list[GroundingSample]] = {}
    for sample in users:
        recorded = sample.image_sizes
        if recorded is not None:
            size = recorded[sample.images.index(reference)]
            if size != header.size:
                by_size.setdefault(size, []).append(sample)
    for (w, h), showing in by_size.items():
        detail = f"recorded as {w}x{h}, the file is {width}x{height}"
        yield Case("size_mismatch", detail, _ids(showing), reference)


_ORIENTATIONS = {
    2: "mirrored left to right",
    3: "turned by 180 degrees",
    4: "mirrored top to bottom",
    5: "mirrored along the diagonal",
    6: "turned by 90 degrees",
    7: "mirrored along the other diagonal",
    8: "turned by 270 degrees",
}
