"""Write the benchmark ``photos`` below the data root: images, samples and manifest."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from univg_eval.benchmarks.synthetic.generated import Progress, Settings, ensure_build
from univg_eval.benchmarks.synthetic.photos import (
    tasks_change,
    tasks_easy,
    tasks_find,
    tasks_large,
    tasks_view,
)
from univg_eval.benchmarks.synthetic.photos.question import Album, Enlarged, Question, load_album
from univg_eval.benchmarks.synthetic.photos.sources import Pixels, read_sources
from univg_eval.errors import UserError
from univg_eval.samples import GroundingSample, Target, load_samples, write_benchmark

__all__ = [
    "BENCHMARK",
    "DEFAULT_N",
    "DEFAULT_SEED",
    "GENERATOR_VERSION",
    "TASKS",
    "ensure",
]

BENCHMARK = "photos"
GENERATOR_VERSION = "1"
"""Part of every seed: a change that alters any sample must change it."""
DEFAULT_SEED = 20250
DEFAULT_N = 14
_MAX_N = 1000

_BUILDERS: dict[str, Callable[[Album, random.Random, int], Iterator[Question]]] = {
    "photos": tasks_find.photos,
    "find_crop": tasks_find.find_crop,
    "difference": tasks_change.difference,
    "second_view": tasks_view.second_view,
    "moving_patch": tasks_change.moving_patch,
    "which_photo": tasks_find.which_photo,
    "large": tasks_large.large,
    "easy": tasks_easy.easy,
}
TASKS: tuple[str, ...] = tuple(_BUILDERS)


def ensure(
    root: str | os.PathLike[str] | None = None,
    *,
    n: int = DEFAULT_N,
    seed: int = DEFAULT_SEED,
    progress: Progress | None = None,
) -> Path:
    """The benchmark's folder, made first if it is absent, incomplete or of other settings.

    A build that is there is used without the packages that the photographs come from.

    Args:
        root: the data root; default as in `samples.data_root`.
        n: samples a task; the tasks ``photos`` and ``large`` always have one for each measured
            box.
        seed: the public default, or another one to rotate the samples.
        progress: called with (tasks done, tasks in all) while they are made.

    Raises:
        UserError: n out of range; the folder exists and is no build of this benchmark; a package
            with photographs is missing, or its photograph is not the one that was measured.
    """
    if not 1 <= n <= _MAX_N:
        raise UserError(f"n is {n} samples a task; expected 1 to {_MAX_N}")
    settings = {
        "name": BENCHMARK,
        "version": GENERATOR_VERSION,
        "seed": int(seed),
        "n_per_task": int(n),
        # Not part of any seed: a task more alters no sample of the others.
        "tasks": list(TASKS),
    }
    return ensure_build(
        BENCHMARK,
        root,
        settings,
        expected=lambda: load_samples(BENCHMARK, root=root),
        write=partial(_write, settings, progress),
    )


def _write(settings: Settings, progress: Progress | None, root: Path) -> None:
    packages = ("numpy", "pillow", "scikit-image")
    write_benchmark(
        list(_write_all(load_album(), root, settings, progress)),
        benchmark=BENCHMARK,
        root=root,
        manifest_extra={
            "generator": settings,
            "made_with": {package: importlib.metadata.version(package) for package in packages},
            "photos": _credits(),
        },
    )


def _credits() -> list[dict[str, str]]:
    """What the manifest says about each photograph."""
    photos, _ = read_sources()
    return [
        {
            "name": photo.name,
            "source": f"{photo.package}: {photo.path_in_package}",
            "sha256": photo.sha256,
            "licence": photo.licence,
            "credit": photo.credit,
        }
        for photo in photos
    ]


def _write_all(
    album: Album, root: Path, settings: Settings, progress: Progress | None
) -> Iterator[GroundingSample]:
    """Write all images below `root`; yields the samples."""
    originals = root / BENCHMARK / "originals"
    originals.mkdir(parents=True)
    for name, pixels in album.pixels.items():
        _save(pixels, originals / f"{name}.png")
    for number, task in enumerate(TASKS, start=1):
        rng = random.Random(_stream(settings, task))
        for index, question in enumerate(_BUILDERS[task](album, rng, settings["n_per_task"])):
            yield _write_question(album, root, settings, task, index, question)
        if progress is not None:
            progress(number, len(TASKS))


def _stream(settings: Settings, task: str) -> int:
    key = "/".join((BENCHMARK, settings["version"], str(settings["seed"]), task))
    return int.from_bytes(hashlib.sha256(key.encode()).digest(), "big")


def _write_question(
    album: Album, root: Path, settings: Settings, task: str, index: int, question: Question
) -> GroundingSample:
    release = f"v{settings['version']}/seed-{settings['seed']}/"
    images, released, sizes = [], [], []
    for position, image in enumerate(question.images, start=1):
        if isinstance(image, str):
            photo = album.photos[image]
            images.append(f"{BENCHMARK}/originals/{image}.png")
            released.append(f"{photo.path_in_package}#sha256={photo.sha256}")
            sizes.append((photo.width, photo.height))
            continue
        if isinstance(image, Enlarged):
            path, wh = f"{task}/{image.name}.png", image.wh
        else:
            path, wh = f"{task}/{index:03d}_{position}.png", (image.shape[1], image.shape[0])
        images.append(f"{BENCHMARK}/{path}")
        # The names of the images say what they show, so the fingerprint covers it.
        released.append(release + path)
        sizes.append(wh)
        if not isinstance(image, Enlarged):
            _save(image, root / BENCHMARK / path)
        elif not (root / BENCHMARK / path).exists():
            _save(tasks_large.enlarged(album.pixels[image.name], wh), root / BENCHMARK / path)
    return GroundingSample(
        id=f"{BENCHMARK}-{task}-{index:03d}",
        benchmark=BENCHMARK,
        task=task,
        split="test",
        images=tuple(images),
        widths=tuple(width for width, _ in sizes),
        heights=tuple(height for _, height in sizes),
        instruction=question.instruction,
        targets=(Target(image=question.target_image, box=question.box),),
        image_is_given=question.image_is_given,
        given_image=question.target_image if question.image_is_given else None,
        cluster=f"{BENCHMARK}-{question.subject}",
        source={
            "generator": BENCHMARK,
            "version": settings["version"],
            "seed": settings["seed"],
            "index": index,
            "images": released,
        },
        extra={"kind": question.kind, **question.extra},
    )


def _save(pixels: Pixels, path: Path) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, compress_level=1)
