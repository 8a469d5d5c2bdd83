"""What the scorers of benchmarks' authors pay for answers that do not answer.

    python results/benchmarks/attacks_published.py                           # print the table
    python results/benchmarks/attacks_published.py --update results/benchmarks/attacks.md

Random pairs of images and single images with several, one or no target, as the sets have them; the
same answers are scored by each published rule (`univg_eval.published_rules`) and by the metric of
this project that stands beside it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from attacks import SEED, SPRAY, print_table
from attacks_several import WHOLE, make_cases

from univg_eval.boxes import Box
from univg_eval.dialects import get_dialect
from univg_eval.published_rules import measure_published
from univg_eval.samples import GroundingSample, Target
from univg_eval.scoring import Response, aggregate, score_samples

DIALECT = get_dialect("qwen3_vl")
NONE = "There are none."
N_CASES = 200
SIZES = ((640, 480), (480, 640))
ABSENT = 0.25
"""Share of samples without a target, in the sets that have such samples."""


@dataclass(frozen=True)
class Column:
    """A metric of a published rule, and that of this project for the same.

    Attributes:
        rule, published, own: names of the rule and of two of its metrics.
        make: (id, targets of a case, whether they are there) → sample.
    """

    rule: str
    published: str
    own: str
    make: Callable[[str, Sequence[Target], bool], GroundingSample]


def _sample(name: str, targets: Sequence[Target], *, task: str = "all", **changes: object):
    n_images = int(changes.pop("n_images", 1))
    extra = {"groups": [1] * len(targets), "ori_category_id": "coco_1"}
    return GroundingSample(
        id=name,
        benchmark="attacks",
        task=task,
        split="test",
        images=tuple(f"{name}-{i}.png" for i in range(n_images)),
        widths=tuple(width for width, _ in SIZES[:n_images]),
        heights=tuple(height for _, height in SIZES[:n_images]),
        instruction="Find it.",
        targets=tuple(targets),
        image_is_given=n_images == 1,
        cluster=name,
        extra=extra,
        **changes,
    )


def _pair(name: str, targets: Sequence[Target], present: bool) -> GroundingSample:
    return _sample(name, targets if present else (), n_images=2, find_all=True)


def _all(name: str, targets: Sequence[Target], present: bool) -> GroundingSample:
    shown = [Target(0, target.box) for target in targets] if present else []
    task = "attribute" if present else "rejection"
    return _sample(name, shown, task=task, find_all=True)


def _any(name: str, targets: Sequence[Target], present: bool) -> GroundingSample:
    return replace(_all(name, targets, present), task="all")


def _one(name: str, targets: Sequence[Target], present: bool) -> GroundingSample:
    shown = [Target(0, targets[0].box)] if present else []
    return _sample(name, shown, task="spatial" if present else "rejection")


COLUMNS = (
    Column("mc-bench", "accuracy", "accuracy_iou50", _pair),
    Column("mc-bench", "weighted_ap50", "weighted_ap50_corrected", _pair),
    Column("groundingme", "acc@0.5", "acc@0.5_corrected", _one),
    Column("humanref", "rejection_score", "rejection_recall_corrected", _all),
    Column("grefcoco", "precision_f1_1", "precision_f1_1_iou", _all),
    Column("grefcoco", "n_acc", "n_acc_explicit", _all),
    Column("rex-omni", "f1_mean", "f1_mean_corrected", _any),
)


def written(sample: GroundingSample, boxes: Sequence[tuple[int, Box]]) -> str:
    """Boxes as the family writes them, those of each of two images after its name."""
    parts = []
    for image in range(len(sample.images)):
        here = [box for shown, box in boxes if shown == image]
        name = f"Image {image + 1}: " if len(sample.images) > 1 else ""
        if here:
            parts.append(name + DIALECT.encode_several(here))
    return "\n".join(parts)


def _placed(sample: GroundingSample) -> list[tuple[int, Box]]:
    return [(target.image, target.box) for target in sample.targets]


def _everywhere(sample: GroundingSample, boxes: Sequence[Box]) -> str:
    return written(sample, [(image, box) for image in range(len(sample.images)) for box in boxes])


def _pixel(box: Box) -> Box:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return (x, y, x + 0.002, y + 0.002)


def _one_dummy(sample: GroundingSample, number: int) -> str:
    return _everywhere(sample, [WHOLE]) if number == 0 else ""


ATTACKS: dict[str, Callable[[GroundingSample, int], str]] = {
    "the right boxes, or that there are none": lambda s, n: written(s, _placed(s)) or NONE,
    "the right boxes, or nothing": lambda s, n: written(s, _placed(s)),
    "nothing": lambda s, n: "",
    "nothing, but one box in the first answer": _one_dummy,
    "that there are none, everywhere": lambda s, n: NONE,
    "the whole image": lambda s, n: _everywhere(s, [WHOLE]),
    "one-pixel boxes inside the targets": lambda s, n: written(
        s, [(image, _pixel(box)) for image, box in _placed(s)]
    ),
    "25 fixed boxes": lambda s, n: _everywhere(s, SPRAY),
    "one right box, five times": lambda s, n: written(s, _placed(s)[:1] * 5),
    "that there are none, then the whole image": lambda s, n: f"{NONE}\n{_everywhere(s, [WHOLE])}",
    "the whole image, then that there are none": lambda s, n: f"{_everywhere(s, [WHOLE])}\n{NONE}",
    "the right boxes, pixels instead of 0-1000": lambda s, n: _in_pixels(s) or NONE,
}
"""Row of the table → (sample, its number) → answer; the first is what an honest one is worth."""


def _in_pixels(sample: GroundingSample) -> str:
    scaled = []
    for image, (x1, y1, x2, y2) in _placed(sample):
        width, height = SIZES[image]
        scaled.append((image, (x1 * width / 1000, y1 * height / 1000, x2 * width / 1000,
                               y2 * height / 1000)))  # fmt: skip
    return written(sample, scaled)


def samples_of(column: Column, n: int = N_CASES, seed: int = SEED) -> list[GroundingSample]:
    """Samples of the kind that a rule scores; equal seeds give equal ones."""
    rng = random.Random(seed)
    made = []
    for number, case in enumerate(make_cases(n, seed, absent=ABSENT)):
        targets = [Target(rng.randrange(2), box) for box in case.targets]
        made.append(column.make(f"case-{number:03d}", targets, case.present))
    return made


def measure(column: Column, attack: str, n: int = N_CASES) -> tuple[float, float]:
    """The published metric and this project's of the answers of an attack."""
    samples = samples_of(column, n)
    texts = [ATTACKS[attack](sample, number) for number, sample in enumerate(samples)]
    found = measure_published(column.rule, samples, [Response(text) for text in texts], DIALECT)
    published = found[column.published]
    if column.published == "rejection_score":  # a count
        published /= sum(not sample.targets for sample in samples)
    return published, found[column.own]


def own_metrics(attack: str, n: int = N_CASES) -> tuple[float, float, float | None]:
    """``f1@0.5``, and recall and precision of rejection, of sets with several targets or none."""
    samples = samples_of(COLUMNS[-1], n)
    responses = [Response(ATTACKS[attack](sample, i)) for i, sample in enumerate(samples)]
    found = aggregate(score_samples(samples, responses, DIALECT))
    rejection = found["rejection"]
    return found["macro"]["f1@0.5"], rejection["recall"], rejection["precision"]


def table(n: int = N_CASES) -> str:
    """A Markdown table: a row an attack, cells "published / of this project"."""
    head = ["answer", *(f"{c.rule} `{c.published}`" for c in COLUMNS)]
    head += ["ours: `f1@0.5`", "ours: rejection, recall / precision"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for attack in ATTACKS:
        cells = []
        for column in COLUMNS:
            published, own = measure(column, attack, n)
            cell = f"{published:.2f} / {own:.2f}"
            cells.append(f"**{cell}**" if published > own + 0.005 else cell)
        f1, recall, precision = own_metrics(attack, n)
        said = "–" if precision is None else f"{precision:.2f}"
        cells += [f"{f1:.2f}", f"{recall:.2f} / {said}"]
        lines.append(f"| {attack} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print_table(__doc__, "published", table)
