"""Write univg_mini below the data root: images, videos, samples and manifest.

The folder ``<root>/univg_mini`` holds exactly one build: one generator version, seed, number of
samples a task and image size, all named by its manifest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import cast

from univg_eval.benchmarks.synthetic.generated import Progress, Settings, ensure_build
from univg_eval.benchmarks.synthetic.mini.generator import (
    DEFAULT_N,
    DEFAULT_SEED,
    GENERATOR_VERSION,
    TASKS,
    generate,
)
from univg_eval.benchmarks.synthetic.mini.item import Clip, MiniItem
from univg_eval.errors import UserError, install_command
from univg_eval.images.reading import split_reference
from univg_eval.samples import GroundingSample, Target, write_benchmark

__all__ = ["BENCHMARK", "DEFAULT_SIZE", "build_settings", "ensure", "video_codec"]

BENCHMARK = "univg_mini"
DEFAULT_SIZE = 448
_FRAMES_PER_SECOND = 5
_CODECS = ("libx264", "libopenh264", "mpeg4")
_MAX_N = 10_000


def ensure(
    root: str | os.PathLike[str] | None = None,
    *,
    n: int = DEFAULT_N,
    seed: int = DEFAULT_SEED,
    size: int = DEFAULT_SIZE,
    progress: Progress | None = None,
) -> Path:
    """The benchmark's folder, generated first if it is absent, incomplete or not this one.

    "This one" means the same settings and the fingerprint of the samples that this generator
    makes. Any other build is replaced.

    Args:
        root: the data root; default as in `samples.data_root`.
        n: samples a task.
        seed: the public default, or another one to rotate the samples.
        size: side of the images in pixels, an even number.
        progress: called with (samples done, samples in all) while they are drawn.

    Raises:
        UserError: n or size out of range; the folder exists and is no build of univg_mini; the
            package av or a video encoder is missing.
    """
    settings = build_settings(BENCHMARK, GENERATOR_VERSION, n=n, seed=seed, size=size)
    return ensure_build(
        BENCHMARK,
        root,
        settings,
        expected=lambda: [sample for task in TASKS for _, sample in _task_items(task, settings)],
        write=partial(_write, settings, progress),
    )


def build_settings(name: str, version: str, *, n: int, seed: int, size: int) -> Settings:
    """The settings of a build of generated scenes; UserError for n or size out of range."""
    if not 1 <= n <= _MAX_N:
        raise UserError(f"n is {n} samples a task; expected 1 to {_MAX_N}")
    if size < 56 or size % 2:
        raise UserError(f"size is {size} px; expected an even number of at least 56")
    return {
        "name": name,
        "version": version,
        "seed": int(seed),
        "n_per_task": int(n),
        "size": int(size),
    }


def _write(settings: Settings, progress: Progress | None, root: Path) -> None:
    codec = video_codec()
    samples: list[GroundingSample] = []
    for task in TASKS:
        for sample in _write_task(task, root, settings, codec):
            samples.append(sample)
            if progress is not None:
                progress(len(samples), len(TASKS) * settings["n_per_task"])
    write_benchmark(
        samples,
        benchmark=BENCHMARK,
        root=root,
        manifest_extra={"generator": settings, "film_codec": codec},
    )


def _task_items(task: str, settings: Settings) -> Iterator[tuple[MiniItem, GroundingSample]]:
    """The items of a task and their samples; nothing is drawn or written."""
    for index in range(settings["n_per_task"]):
        item = generate(task, seed=settings["seed"], index=index)
        images = _references(item)
        sizes = [item.stored_size(k, settings["size"]) for k in range(item.image_count)]
        # The names of the images say what they show, so the fingerprint covers it.
        release = f"v{settings['version']}/seed-{settings['seed']}/{settings['size']}px/"
        yield (
            item,
            GroundingSample(
                id=f"{BENCHMARK}-{task}-{index:05d}",
                benchmark=BENCHMARK,
                task=task,
                split="test",
                images=tuple(f"{BENCHMARK}/{image}" for image in images),
                widths=tuple(width for width, _ in sizes),
                heights=tuple(height for _, height in sizes),
                instruction=item.instruction,
                targets=(Target(image=item.target_image, box=item.box),),
                image_is_given=item.image_is_given,
                given_image=item.target_image if item.image_is_given else None,
                cluster=f"{BENCHMARK}-{task}-g{item.group}",
                source={
                    "generator": BENCHMARK,
                    "version": settings["version"],
                    "seed": settings["seed"],
                    "index": index,
                    "images": [release + image for image in images],
                },
                extra={"label": item.label, **item.knobs},
            ),
        )


def _references(item: MiniItem) -> list[str]:
    """The images of an item, relative to the benchmark's folder."""
    stem = f"{item.task}/{item.group}"
    if item.frames is not None:
        return [f"{stem}.mp4#frame={frame}" for frame in item.frames]
    return [f"{stem}_{k}.png" for k in range(1, item.image_count + 1)]


def _write_task(task: str, root: Path, settings: Settings, codec: str) -> Iterator[GroundingSample]:
    """Write the images of a task below `root`; yields its samples."""
    (root / BENCHMARK / task).mkdir(parents=True)
    written = set()
    for item, sample in _task_items(task, settings):
        if item.group not in written:
            written.add(item.group)
            _write_images(item, sample, root, settings["size"], codec)
        yield sample


def _write_images(
    item: MiniItem, sample: GroundingSample, root: Path, size: int, codec: str
) -> None:
    paths = [root / split_reference(image)[0] for image in sample.images]
    if item.clip is not None:
        _write_video(paths[0], item.clip, size, codec)
        return
    for path, image in zip(paths, item.render(size, stored=True), strict=True):
        image.save(path, compress_level=1)


def video_codec() -> str:
    """The name of the encoder of the videos: H.264 where av has one, else MPEG-4 part 2.

    Raises:
        UserError: av is not installed, or has none of them.
    """
    try:
        import av
    except ImportError as error:
        raise UserError(
            f"the videos of {BENCHMARK} need the package av: {install_command('eval')}"
        ) from error
    for name in _CODECS:
        if name in av.codecs_available:
            return name
    raise UserError(
        f"the installed av has no video encoder of {', '.join(_CODECS)}; install the wheel of av "
        "from PyPI"
    )


def _write_video(path: Path, clip: Clip, size: int, codec: str) -> None:
    import av
    import numpy as np
    from av.video.stream import VideoStream

    with av.open(str(path), mode="w") as container:
        stream = cast(VideoStream, container.add_stream(codec, rate=_FRAMES_PER_SECOND))
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        # One thread and a constant quantiser: the same frames give the same file. (The rate
        # control of x264 was seen to vary from run to run on small images.)
        stream.codec_context.thread_count = 1
        if codec == "libx264":
            stream.options = {"qp": "18", "preset": "veryfast"}
        else:
            stream.bit_rate = 2_000_000
        for number in range(clip.n_frames):
            array = np.asarray(clip.at(number).render(size))
            for packet in stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
