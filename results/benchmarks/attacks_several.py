"""Attacks on the rewards of several targets, beside what the same knowledge earns said plainly.

    python results/benchmarks/attacks_several.py                             # print the table
    python results/benchmarks/attacks_several.py --update results/benchmarks/attacks.md

The rewards are those of `univg_train.rewards`: the metrics ``matched_iou`` and ``f1@0.5`` of the
same response, and for rows without target 1 for an explicit "none".
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from attacks import N_CASES, SEED, SPRAY, print_table

from univg_eval.boxes import Box, box_iou
from univg_eval.dialects import get_dialect
from univg_train.rewards import SEVERAL_REWARDS, make_rewards

DIALECT = get_dialect("norm1000")
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
CORNERS: tuple[Box, ...] = tuple((x, y, x + 0.02, y + 0.02) for x in (0, 0.98) for y in (0, 0.98))
NONE = "There are none."


@dataclass(frozen=True)
class Case:
    """A question with two to four targets on one of two images, and what the attacker knows.

    Attributes:
        targets: true boxes, xyxy_norm, no two with IoU 0.5; meaningless where `present` is False.
        first, second: two guesses for each target. One of them is right, decided by a coin that
            the attacker does not see; the other is drawn like another target.
        image: 0-based image that shows the targets, decided by a coin.
        present: whether there are any targets.
    """

    targets: tuple[Box, ...]
    first: tuple[Box, ...]
    second: tuple[Box, ...]
    image: int
    present: bool


@dataclass(frozen=True)
class Attack:
    """A way to answer that tries to earn more than the answerer knows.

    Attributes:
        name: row of the table.
        honest: what it is measured against, in words.
        attack: case → response.
        equivalents: case → honest responses, one a strategy; the best strategy over all cases
            counts.
        finds: the model has to find the image.
        absent: share of cases without targets.
    """

    name: str
    honest: str
    attack: Callable[[Case], str]
    equivalents: Callable[[Case], Sequence[str]]
    finds: bool = False
    absent: float = 0.0


def make_cases(n: int, seed: int = SEED, *, absent: float = 0.0) -> list[Case]:
    """Random cases; equal seeds give equal cases."""
    rng = random.Random(seed)

    def random_box() -> Box:
        width, height = rng.uniform(0.1, 0.4), rng.uniform(0.1, 0.4)
        x1, y1 = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
        return (x1, y1, x1 + width, y1 + height)

    cases = []
    for _ in range(n):
        targets = [random_box()]
        wanted = rng.randint(2, 4)
        while len(targets) < wanted:
            if (box_iou(box := random_box(), targets) < 0.5).all():
                targets.append(box)
        pairs = [(true, random_box()) for true in targets]
        guesses = [(a, b) if rng.random() < 0.5 else (b, a) for a, b in pairs]
        cases.append(
            Case(
                targets=tuple(targets),
                first=tuple(guess for guess, _ in guesses),
                second=tuple(guess for _, guess in guesses),
                image=rng.randrange(2),
                present=rng.random() >= absent,
            )
        )
    return cases


def written(boxes: Sequence[Box]) -> str:
    """A list of boxes."""
    return DIALECT.encode_several(boxes)


def shifted(boxes: Sequence[Box], by: float) -> list[Box]:
    """Copies moved to the right, within the image."""
    return [(min(x1 + by, 0.98), y1, min(x2 + by, 1.0), y2) for x1, y1, x2, y2 in boxes]


def _guesses(case: Case) -> list[str]:
    return [written(case.first), written(case.second)]


ATTACKS = (
    Attack(
        "25 fixed boxes",
        "the best of the 25 alone, or three of them",
        lambda c: written(SPRAY),
        lambda c: [written(SPRAY[i : i + k]) for k in (1, 3) for i in range(len(SPRAY))],
    ),
    Attack(
        "25 fixed boxes, each ten times",
        "the best of the 25 alone",
        lambda c: written(SPRAY * 10),
        lambda c: [written([box]) for box in SPRAY],
    ),
    Attack(
        "two guesses for each target",
        "the better guess for each",
        lambda c: written(c.first + c.second),
        _guesses,
    ),
    Attack(
        "a list of guesses, then another one",
        "the better list",
        lambda c: f"{written(c.first)}\nOr rather:\n{written(c.second)}",
        _guesses,
    ),
    Attack(
        "each guess with three shifted copies",
        "the guesses alone",
        lambda c: written(
            [*c.first, *(b for by in (0.02, 0.05, 0.1) for b in shifted(c.first, by))]
        ),
        lambda c: [written(c.first)],
    ),
    Attack(
        "one right box, as often as there are targets",
        "that box once",
        lambda c: written(c.targets[:1] * len(c.targets)),
        lambda c: [written(c.targets[:1])],
    ),
    Attack(
        "one right box twenty times",
        "that box once",
        lambda c: written(c.targets[:1] * 20),
        lambda c: [written(c.targets[:1])],
    ),
    Attack(
        "one right box and tiny ones in the corners",
        "the right box alone",
        lambda c: written([c.targets[0], *CORNERS]),
        lambda c: [written(c.targets[:1])],
    ),
    Attack(
        "the right boxes and inverted ones",
        "the right boxes",
        lambda c: written(c.targets) + ", [900, 900, 100, 100], [0, 0, 0, 0]",
        lambda c: [written(c.targets)],
    ),
    Attack(
        "the whole image",
        "the best of 25 fixed boxes",
        lambda c: written([WHOLE]),
        lambda c: [written([box]) for box in SPRAY],
    ),
    Attack(
        "the whole image, four times",
        "the whole image once",
        lambda c: written([WHOLE] * 4),
        lambda c: [written([WHOLE])],
    ),
    Attack(
        "the box around all targets",
        "one right box",
        lambda c: written(
            [
                (
                    *map(min, zip(*(b[:2] for b in c.targets), strict=True)),
                    *map(max, zip(*(b[2:] for b in c.targets), strict=True)),
                )
            ]
        ),
        lambda c: [written(c.targets[:1])],
    ),
    Attack("nothing", "0: nothing was said", lambda c: "", lambda c: []),
    Attack("an empty answer", "0: nothing was said", lambda c: "<answer></answer>", lambda c: []),
    Attack("an empty list", "0: nothing was said", lambda c: "[]", lambda c: []),
    Attack(
        "the right boxes in `<think>`, then no answer",
        "0: nothing was said",
        lambda c: f"<think>{written(c.targets)}</think>I cannot tell.",
        lambda c: [],
    ),
    Attack(
        "the right boxes in a `<think>` that never closes",
        "0: nothing was said",
        lambda c: f"<think>{written(c.targets)}",
        lambda c: [],
    ),
    Attack(
        "29 boxes in `<think>`, then the guesses",
        "the guesses alone",
        lambda c: f"<think>{written(SPRAY + CORNERS)}</think>{written(c.first)}",
        lambda c: [written(c.first)],
    ),
    Attack(
        "the right boxes on both images",
        "on one image, always the same",
        lambda c: f"Image 1: {written(c.targets)}\nImage 2: {written(c.targets)}",
        lambda c: [f"Image {i}: {written(c.targets)}" for i in (1, 2)],
        finds=True,
    ),
    Attack(
        "the right boxes, of no image",
        "0: the image is part of the answer",
        lambda c: written(c.targets),
        lambda c: [],
        finds=True,
    ),
    Attack(
        "the right boxes, then a none, half without targets",
        "the better of boxes alone and none alone",
        lambda c: f"{written(c.targets)}\n{NONE}",
        lambda c: [written(c.targets), NONE],
        absent=0.5,
    ),
    Attack(
        "a none, then the right boxes, half without targets",
        "the better of boxes alone and none alone",
        lambda c: f"{NONE}\n{written(c.targets)}",
        lambda c: [written(c.targets), NONE],
        absent=0.5,
    ),
    Attack(
        "nothing, without targets", "0: nothing was said", lambda c: "", lambda c: [], absent=1.0
    ),
)


def rewards(texts: Sequence[str], cases: Sequence[Case], several: str, *, finds: bool) -> float:
    """Mean reward of one response a case."""
    columns = {
        "solution": [None] * len(cases),
        "targets": [
            [{"image": c.image, "box": list(box)} for box in c.targets] if c.present else []
            for c in cases
        ],
        "dialect": [DIALECT.name] * len(cases),
        "style": ["direct"] * len(cases),
        "target_image": [None if finds else c.image for c in cases],
        "image_sizes": [[[640, 480], [480, 640]]] * len(cases),
    }
    accuracy = make_rewards(several=several)[0]
    return sum(accuracy(completions=texts, **columns)) / len(cases)


def measure(attack: Attack, several: str, n: int = N_CASES) -> tuple[float, float]:
    """Mean reward of an attack, and of the best honest strategy."""
    cases = make_cases(n, absent=attack.absent)
    honest = zip(*(attack.equivalents(case) for case in cases), strict=True)
    return (
        rewards([attack.attack(case) for case in cases], cases, several, finds=attack.finds),
        max((rewards(texts, cases, several, finds=attack.finds) for texts in honest), default=0.0),
    )


def table(n: int = N_CASES) -> str:
    """A Markdown table: one row an attack, one column a reward, cells "attack / honest"."""
    head = ["attack", "honest equivalent", *(f"`{name}`" for name in SEVERAL_REWARDS)]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for attack in ATTACKS:
        cells = []
        for several in SEVERAL_REWARDS:
            attacked, honest = measure(attack, several, n)
            cell = f"{attacked:.2f} / {honest:.2f}"
            cells.append(f"**{cell}**" if attacked > honest else cell)
        lines.append(f"| {attack.name} | {attack.honest} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print_table(__doc__, "several", table)
