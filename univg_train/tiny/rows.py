"""Generated samples on disk, in forms that everything else reads.

Training samples are a ShareGPT file with chains of thought, as UniVG-R1's stage 1 is: in the
direct style a trainer takes the answers alone; for GRPO it takes questions and true boxes.
Held-out samples are a prepared benchmark.

Training draws from the generator's subset ``train``, whatever its seed; held-out samples are of
the subset ``eval`` (a quarter of which asks for combinations of colour and shape that no training
scene shows) with a seed other than univg_mini's public one. The trainers also compare the two by
the images' bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from univg_eval.benchmarks.synthetic.mini import MiniItem, generate
from univg_eval.files import write_text_atomically
from univg_eval.samples import (
    MANIFEST_FILE,
    GroundingSample,
    Target,
    benchmark_dir,
    write_benchmark,
)
from univg_train.data.rows import IMAGE_MARK
from univg_train.tiny.chains import chain_reply
from univg_train.tiny.data import draw_images, training_item
from univg_train.tiny.model import IMAGE_SIDE

__all__ = ["HELDOUT", "HELDOUT_SEED", "write_heldout", "write_training_rows"]

HELDOUT = "tiny_heldout"
"""Name of the benchmark of held-out samples."""
HELDOUT_SEED = 900_000_007
"""Of the held-out samples; univg_mini's public seed is another."""


def write_training_rows(
    folder: Path, name: str, tasks: Sequence[str], n: int, *, seed: int
) -> Path:
    """Write `n` questions, the tasks taking turns, with their images; nothing if they are there.

    Args:
        folder: gets ``<name>.jsonl`` and the images, ``<name>/…``.
        name: of the file.
        tasks: of `univg_eval.benchmarks.synthetic.mini.TASKS`.
        n: questions.
        seed: of the training stream.

    Returns:
        The file.
    """
    file = folder / f"{name}.jsonl"
    if file.is_file():  # it is written last
        return file
    lines = []
    for number in range(n):
        round_, place = divmod(number, len(tasks))
        # Neighbouring questions of some tasks share their images; one of each pair is used.
        item = training_item(tasks[place], seed, 2 * round_)
        images = _save_images(item, folder, f"{name}/{number:06d}")
        question = IMAGE_MARK * len(images) + item.instruction
        row = {
            "images": images,
            "conversations": [
                {"from": "human", "value": question},
                {"from": "gpt", "value": chain_reply(item)},
            ],
            "type": item.task,
        }
        lines.append(json.dumps(row) + "\n")
    write_text_atomically(file, lines)
    return file


def write_heldout(root: Path, tasks: Sequence[str], per_task: int) -> None:
    """Write the benchmark `HELDOUT` below a data root; nothing if it is there.

    Args:
        root: the data root.
        tasks: of `univg_eval.benchmarks.synthetic.mini.TASKS`.
        per_task: questions a task.
    """
    folder = benchmark_dir(HELDOUT, root)
    if (folder / MANIFEST_FILE).is_file():  # it is written last
        return
    samples = list(_heldout_samples(root, tasks, per_task))
    extra = {"generator": {"seed": HELDOUT_SEED, "n_per_task": per_task, "size": IMAGE_SIDE}}
    write_benchmark(samples, benchmark=HELDOUT, root=root, manifest_extra=extra)


def _heldout_samples(root: Path, tasks: Sequence[str], per_task: int) -> Iterator[GroundingSample]:
    for task in tasks:
        for index in range(per_task):
            item = generate(task, seed=HELDOUT_SEED, index=index)
            images = _save_images(item, root, f"{HELDOUT}/{task}/{index:06d}")
            yield GroundingSample(
                id=f"{HELDOUT}-{task}-{index:05d}",
                benchmark=HELDOUT,
                task=task,
                split="test",
                images=tuple(images),
                widths=(IMAGE_SIDE,) * len(images),
                heights=(IMAGE_SIDE,) * len(images),
                instruction=item.instruction,
                targets=(Target(image=item.target_image, box=item.box),),
                image_is_given=item.image_is_given,
                given_image=item.target_image if item.image_is_given else None,
                cluster=f"{HELDOUT}-{task}-g{item.group}",
                source={"generator": "univg_mini", "seed": HELDOUT_SEED, "index": index},
                extra={"label": item.label, **item.knobs},
            )


def _save_images(item: MiniItem, folder: Path, stem: str) -> list[str]:
    """Draw the images at the size that the model reads; returns their paths below `folder`."""
    from PIL import Image

    names = []
    for k, pixels in enumerate(draw_images(item.scenes, IMAGE_SIDE)):
        name = f"{stem}_{k + 1}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name, compress_level=1)
        names.append(name)
    return names
