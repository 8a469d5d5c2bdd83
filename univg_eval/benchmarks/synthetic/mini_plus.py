"""univg_mini_plus: five generated tasks with several objects, or none, in univg_mini's scenes.

They take a whole evaluation of sets with several objects or none through offline, with the wording
that the readers of such sets give; they are none of these sets.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from univg_eval.benchmarks.readers.common.release import (
    find_all_instruction,
    image_instruction_or_none,
)
from univg_eval.benchmarks.synthetic.generated import Progress, Settings, ensure_build
from univg_eval.benchmarks.synthetic.mini.builder import DEFAULT_SIZE, build_settings
from univg_eval.benchmarks.synthetic.mini.generator import (
    DEFAULT_N,
    DEFAULT_SEED,
    first_scene,
    random_stream,
)
from univg_eval.benchmarks.synthetic.mini.layout import ALL_LABELS, Label, Maker
from univg_eval.benchmarks.synthetic.mini.scene import Scene
from univg_eval.errors import UserError
from univg_eval.samples import GroundingSample, Target, write_benchmark

__all__ = ["BENCHMARK", "GENERATOR_VERSION", "TASKS", "ensure", "generate"]

BENCHMARK = "univg_mini_plus"
GENERATOR_VERSION = "1"
"""Part of every seed: a change that alters any sample must change it."""

_LOOK_ALIKE = {"circle": "ring", "ring": "circle", "square": "diamond", "diamond": "square"}
"""Shapes that go by each other's name: a ring is a circle too, a diamond a square on its tip."""
_SAME_IN_BOTH = "object that both images show in the same color and shape"


class _Image(NamedTuple):
    """What an image shows: the labels asked for, and the others."""

    targets: Sequence[Label]
    others: Sequence[Label]


class _Draft(NamedTuple):
    """An expression, the images, and the group of each target where there are two images."""

    expression: str
    images: Sequence[_Image]
    groups: Sequence[int] | None = None


def _look_alike(label: Label) -> Label:
    return label[0], _LOOK_ALIKE.get(label[1], label[1])


def _named(maker: Maker, counts: Iterable[int], by: str = "color and shape") -> _Draft:
    """Images that show so many objects of a color, of a shape, or of both.

    Among the others are, where both are named, one of the color and one of the shape alone.
    """
    color, shape = maker.target_label()
    colors = [color] if "color" in by else None
    shapes = [shape] if "shape" in by else None

    def fits(label: Label) -> bool:
        return (not colors or label[0] in colors) and (not shapes or label[1] in shapes)

    avoid = [label for label in ALL_LABELS if fits(label) or fits(_look_alike(label))]
    images = []
    for n in counts:
        targets = [maker.other_label(colors=colors, shapes=shapes) for _ in range(n)]
        others = []
        if colors and shapes:
            others.append(maker.other_label(colors=colors, avoid=avoid))
            others.append(maker.other_label(shapes=shapes, avoid=avoid))
        n_others = max(maker.rng.randint(6, 8) - n, 2)
        others += [maker.other_label(avoid=avoid) for _ in range(n_others - len(others))]
        images.append(_Image(targets, others))
    words = {"color": f"{color} object", "shape": shape}
    return _Draft(words.get(by, f"{color} {shape}"), images)


def _several(maker: Maker, index: int) -> _Draft:
    """Two to five objects of one image, by color, shape, or both."""
    return _named(maker, [2 + index % 4], maker.kind(("color", "shape", "color and shape")))


def _count_varies(maker: Maker, index: int) -> _Draft:
    """Four to no objects of one image."""
    return _named(maker, [4 - index % 5])


def _absent(maker: Maker, index: int) -> _Draft:
    """One object of one image, or none in every second sample."""
    return _named(maker, [1 - index % 2])


_SHOWN = ((1, 1), (0, 0), (1, 0), (0, 1))
"""Whether the first and the second image show targets, sample by sample."""


def _two_images(maker: Maker, index: int) -> _Draft:
    """Up to three objects in either of two images, in both, or in none."""
    draft = _named(maker, [shown * maker.rng.randint(1, 3) for shown in _SHOWN[index % 4]])
    return draft._replace(groups=[1] * sum(len(image.targets) for image in draft.images))


def _roles(maker: Maker, index: int) -> _Draft:
    """One or two objects that both images show; each pair is a group."""
    n_pairs = 1 + index % 2
    n_others = maker.rng.randint(3, 4)
    labels: list[Label] = []
    for _ in range(n_pairs + 2 * n_others):
        labels.append(maker.other_label(avoid=[*labels, *map(_look_alike, labels)]))
    shared, others = labels[:n_pairs], labels[n_pairs:]
    images = [_Image(shared, others[:n_others]), _Image(shared, others[n_others:])]
    return _Draft(_SAME_IN_BOTH, images, [*range(1, n_pairs + 1)] * 2)


_BUILDERS: dict[str, Callable[[Maker, int], _Draft]] = {
    "several": _several,
    "count_varies": _count_varies,
    "absent": _absent,
    "two_images": _two_images,
    "roles": _roles,
}
TASKS: tuple[str, ...] = tuple(_BUILDERS)


def generate(
    task: str, *, seed: int, index: int, size: int = DEFAULT_SIZE
) -> tuple[GroundingSample, tuple[Scene, ...]]:
    """One sample and the scene of each of its images, a pure function of the arguments.

    Args:
        task: one of `TASKS`.
        seed: any whole number.
        index: 0-based number of the sample within its task.
        size: side of the images in pixels.

    Raises:
        UserError: an unknown task.
    """
    if task not in _BUILDERS:
        raise UserError(f"unknown task {task!r} of {BENCHMARK}; known: {', '.join(TASKS)}")
    rng = random_stream(BENCHMARK, GENERATOR_VERSION, seed, task, index)
    maker = Maker(rng=rng, held_out=False, words=rng, fate=rng.random())

    def build() -> tuple[_Draft, list[Scene], list[Target]]:
        draft = _BUILDERS[task](maker, index)
        scenes, targets = [], []
        for number, image in enumerate(draft.images):
            labels = [*image.targets, *image.others]
            objects = maker.objects(labels, maker.spread([maker.size(4, 6) for _ in labels]))
            scenes.append(maker.scene(objects))
            targets += [Target(number, obj.box) for obj in objects[: len(image.targets)]]
        return draft, scenes, targets

    draft, scenes, targets = first_scene(build, f"{task} seed={seed} index={index}")
    files = [f"{task}/{index:05d}_{number}.png" for number in range(1, len(scenes) + 1)]
    release = f"v{GENERATOR_VERSION}/seed-{seed}/{size}px/"
    sample = GroundingSample(
        id=f"{BENCHMARK}-{task}-{index:05d}",
        benchmark=BENCHMARK,
        task=task,
        split="test",
        images=tuple(f"{BENCHMARK}/{file}" for file in files),
        widths=(size,) * len(files),
        heights=(size,) * len(files),
        instruction=image_instruction_or_none(draft.expression)
        if task == "absent"
        else find_all_instruction(draft.expression, len(files)),
        targets=tuple(targets),
        image_is_given=len(files) == 1,
        given_image=0 if len(files) == 1 else None,
        find_all=task != "absent",
        cluster=f"{BENCHMARK}-{task}-{index:05d}",
        source={
            "generator": BENCHMARK,
            "version": GENERATOR_VERSION,
            "seed": seed,
            "index": index,
            # The names of the images say what they show, so the fingerprint covers it.
            "images": [release + file for file in files],
        },
        extra={"expression": draft.expression}
        | ({} if draft.groups is None else {"groups": list(draft.groups)}),
    )
    return sample, tuple(scenes)


def ensure(
    root: str | os.PathLike[str] | None = None,
    *,
    n: int = DEFAULT_N,
    seed: int = DEFAULT_SEED,
    size: int = DEFAULT_SIZE,
    progress: Progress | None = None,
) -> Path:
    """The benchmark's folder, generated first as that of univg_mini: see `mini.ensure`."""
    settings = build_settings(BENCHMARK, GENERATOR_VERSION, n=n, seed=seed, size=size)
    return ensure_build(
        BENCHMARK,
        root,
        settings,
        expected=lambda: [sample for sample, _ in _generate_all(settings)],
        write=partial(_write, settings, progress),
    )


def _generate_all(settings: Settings) -> list[tuple[GroundingSample, tuple[Scene, ...]]]:
    seed, size = settings["seed"], settings["size"]
    numbers = range(settings["n_per_task"])
    return [generate(task, seed=seed, index=i, size=size) for task in TASKS for i in numbers]


def _write(settings: Settings, progress: Progress | None, root: Path) -> None:
    made = _generate_all(settings)
    for done, (sample, scenes) in enumerate(made, start=1):
        for file, scene in zip(sample.images, scenes, strict=True):
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            scene.render(settings["size"]).save(root / file, compress_level=1)
        if progress is not None:
            progress(done, len(made))
    write_benchmark(
        [sample for sample, _ in made],
        benchmark=BENCHMARK,
        root=root,
        manifest_extra={"generator": settings},
    )
