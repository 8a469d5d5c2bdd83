"""Whether paired intervals, tests and power keep their promise.

Worlds are drawn in which both true values are known: two models on the same samples, some of
which share images. Nominal is 95 % coverage, 5 % size and 80 % power. What has no clusters and one
task is enumerated exactly. `docs/compare.md` has the figures.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from univg_eval.analysis.stats import (
    cluster_sums,
    mcnemar_test,
    paired_bootstrap,
    paired_share_interval,
    sign_flip_test,
    smallest_difference,
    smallest_difference_of_pairs,
)

FloatArray = npt.NDArray[np.float64]
Layout = Callable[[int, int], list[str]]
"""(task number, samples) to the cluster of each sample."""


def singles(task: int, n: int) -> list[str]:
    return [f"{task}-{i}" for i in range(n)]


def fives(task: int, n: int) -> list[str]:
    return [f"{task}-{i // 5}" for i in range(n)]


def uneven(task: int, n: int) -> list[str]:
    """Clusters of 1, 2, 3, 6 and 8 samples, again and again."""
    sizes = [1, 2, 3, 6, 8]
    names = [f"{task}-{i}" for i in range(n) for _ in range(sizes[i % 5])]
    return names[:n]


def shared(task: int, n: int) -> list[str]:
    """Sample i of each task is on image i."""
    return [str(i) for i in range(n)]


def lopsided(task: int, n: int) -> list[str]:
    """Half of the samples on one image, each other on its own."""
    return [f"{task}-{max(0, i - n // 2)}" for i in range(n)]


@dataclass(frozen=True)
class World:
    """Two models on the same samples.

    Attributes:
        shares: per task the true shares of A and B.
        n: samples a task.
        layout: which of them share images.
        alike: correlation of the two models on a sample.
        together: part of the difficulty that samples with shared images have in common.
        overlaps: whether the metric is an IoU instead of right or wrong.
    """

    name: str
    shares: tuple[tuple[float, float], ...]
    n: int = 40
    layout: Layout = singles
    alike: float = 0.5
    together: float = 0.5
    overlaps: bool = False

    @cached_property
    def clusters(self) -> dict[str, list[str]]:
        return {str(t): self.layout(t, self.n) for t in range(len(self.shares))}

    @property
    def truth(self) -> float:
        gap = float(np.mean([b - a for a, b in self.shares]))
        return gap * (0.75 - 0.05) if self.overlaps else gap

    def draw(self, rng: np.random.Generator) -> dict[str, FloatArray]:
        """Differences B - A of each task."""
        names = [name for own in self.clusters.values() for name in own]
        rows = {name: row for row, name in enumerate(dict.fromkeys(names))}
        of_cluster = rng.normal(size=(len(rows), 3))[[rows[name] for name in names]]
        latents = math.sqrt(self.together) * of_cluster + math.sqrt(1 - self.together) * rng.normal(
            size=of_cluster.shape
        )
        found = {}
        for at, (task, (share_a, share_b)) in enumerate(
            zip(self.clusters, self.shares, strict=True)
        ):
            latent = latents[at * self.n : (at + 1) * self.n]
            both = math.sqrt(self.alike) * latent[:, 0]
            right = np.column_stack(
                [
                    both + math.sqrt(1 - self.alike) * latent[:, 1] < _threshold(share_a),
                    both + math.sqrt(1 - self.alike) * latent[:, 2] < _threshold(share_b),
                ]
            )
            values = right.astype(float)
            if self.overlaps:
                # A hit overlaps by 0.5 to 1, a fifth of the misses by up to 0.5.
                loose = (rng.random(right.shape) < 0.2) * 0.5 * rng.random(right.shape)
                values = np.where(right, 0.5 + 0.5 * rng.random(right.shape), loose)
            found[task] = values[:, 1] - values[:, 0]
        return found


def _threshold(share: float) -> float:
    return NormalDist().inv_cdf(share) if share > 0 else -math.inf


RARE = ((0.02, 0.02),)
WORLDS = (
    World("10 tasks, both 0.02", RARE * 10, alike=0.0),
    World("15 tasks, both 0.02", RARE * 15, alike=0.0),
    World("10 tasks, 0.02 and 0.06", ((0.02, 0.06),) * 10, alike=0.0),
    World("10 tasks, both 0.02, alike", RARE * 10, alike=0.8),
    World("3 tasks, both 0.02", RARE * 3, alike=0.0),
    World("3 tasks, 0.02 and 0.08", ((0.02, 0.08),) * 3),
    World("10 tasks, both 0.5", ((0.5, 0.5),) * 10),
    World("10 tasks, 0.4 and 0.5", ((0.4, 0.5),) * 10),
    World("2 tasks, 0.2 and 0.4", ((0.2, 0.4),) * 2, n=20),
    World("1 task in fives, 0.3 and 0.5", ((0.3, 0.5),), layout=fives),
    World("1 task in fives, 0.3 and 0.4", ((0.3, 0.4),), n=200, layout=fives),
    World("10 tasks in fives, both 0.02", RARE * 10, layout=fives, alike=0.0),
    World("10 tasks in fives, both 0.4", ((0.4, 0.4),) * 10, layout=fives),
    World("10 tasks in fives, 0.3 and 0.4", ((0.3, 0.4),) * 10, layout=fives),
    World("5 tasks, uneven groups, both 0.4", ((0.4, 0.4),) * 5, layout=uneven),
    World("1 task, half on one image, 0.4 and 0.5", ((0.4, 0.5),), layout=lopsided, together=0.9),
    World("10 tasks, half on one image, both 0.4", ((0.4, 0.4),) * 10, layout=lopsided),
    World("10 tasks, the same, alike", ((0.4, 0.5),) * 10, layout=lopsided, together=0.9),
    World("5 tasks on the same images, 0.3 and 0.4", ((0.3, 0.4),) * 5, layout=shared),
    World("1 task, IoU, 0.3 and 0.5", ((0.3, 0.5),), overlaps=True),
    World("1 task, IoU, both 0.02", RARE, overlaps=True, alike=0.0),
    World("10 tasks in fives, IoU, both 0.3", ((0.3, 0.3),) * 10, layout=fives, overlaps=True),
)


def coverage(world: World, runs: int, seed: int, resamples: int = 1000) -> tuple[float, float]:
    """Share of the intervals of the macro difference that hold the truth, and mean width."""
    rng = np.random.default_rng(seed)
    held, width = 0, 0.0
    clusters = world.clusters
    for run in range(runs):
        interval = paired_bootstrap(
            {task: d.tolist() for task, d in world.draw(rng).items()},
            clusters,
            resamples=resamples,
            seed=run,
        ).macro
        held += interval.low - 1e-12 <= world.truth <= interval.high + 1e-12
        width += interval.high - interval.low
    return held / runs, width / runs


def macro_parts(world: World, differences: dict[str, FloatArray]) -> FloatArray:
    """What each cluster adds to the macro difference."""
    names = [name for own in world.clusters.values() for name in own]
    weighted = np.concatenate(list(differences.values())) / (world.n * len(world.shares))
    return cluster_sums(weighted.tolist(), names)


def rejected(world: World, runs: int, seed: int, draws: int = 999) -> float:
    """Share of the worlds in which the sign-flip test of the macro difference has p < 0.05."""
    rng = np.random.default_rng(seed)
    found = 0
    for run in range(runs):
        parts = macro_parts(world, world.draw(rng))
        found += sign_flip_test(parts.tolist(), draws=draws, seed=run) < 0.05
    return found / runs


# --- one task without clusters: exact ----------------------------------------------------------


def pairs(n: int, only_a: float, only_b: float) -> Iterator[tuple[int, int, float]]:
    """Counts of pairs that only A, and only B, has right, with their probability."""
    neither = 1 - only_a - only_b
    logs = [math.lgamma(i + 1) for i in range(n + 1)]
    for i in range(n + 1):
        for j in range(n + 1 - i):
            terms = ((i, only_a), (j, only_b), (n - i - j, neither))
            if any(k and p <= 0 for k, p in terms):
                continue
            log = logs[n] + sum(k * math.log(p) - logs[k] for k, p in terms if k)
            if log > -30:
                yield i, j, math.exp(log)


def score_coverage(n: int, only_a: float, only_b: float) -> float:
    """Probability that Tango's interval holds the true difference."""
    held = 0.0
    for i, j, probability in pairs(n, only_a, only_b):
        interval = paired_share_interval(i, j, n)
        if interval.low <= only_b - only_a <= interval.high:
            held += probability
    return held


def mcnemar_power(n: int, only_a: float, only_b: float) -> float:
    """Probability of p < 0.05 in the exact McNemar test."""
    return sum(
        probability for i, j, probability in pairs(n, only_a, only_b) if mcnemar_test(i, j) < 0.05
    )


def power_at_smallest(n: int, differing: float) -> tuple[float | None, float]:
    """The smallest difference, and the power of the exact test against it.

    Where the difference needs more disagreement than was given, all pairs that differ favour B.
    """
    smallest = smallest_difference_of_pairs(round(differing * n), n)
    if smallest is None:
        return None, math.nan
    share = max(differing, smallest)
    return smallest, mcnemar_power(n, (share - smallest) / 2, (share + smallest) / 2)


def power_in_clusters(world: World, runs: int, seed: int) -> tuple[float, float] | None:
    """Smallest macro difference of a world without one, and the power against it.

    Both are means over draws. Against the difference each cluster keeps the size of its own and
    points to B with a probability above one half. None where even all clusters together could not
    make up the difference twice over.
    """
    rng = np.random.default_rng(seed)
    drawn = [macro_parts(world, world.draw(rng)) for _ in range(200)]
    names = [name for own in world.clusters.values() for name in own]
    weights = cluster_sums([1 / len(names)] * len(names), names)
    step = 0.0 if world.overlaps else 1 / len(names)
    if world.layout is singles and not world.overlaps:
        shown = [smallest_difference_of_pairs(int(np.count_nonzero(d)), d.size) for d in drawn]
    else:
        shown = [smallest_difference(d.tolist(), weights.tolist(), step=step) for d in drawn]
    smallest = float(np.mean([value for value in shown if value is not None]))
    reach = float(np.mean([np.abs(parts).sum() for parts in drawn]))
    if reach < 2 * smallest:
        return None
    found = 0
    for run in range(runs):
        parts = np.abs(macro_parts(world, world.draw(rng)))
        signs = np.where(rng.random(parts.size) < 0.5 + 0.5 * smallest / reach, 1.0, -1.0)
        found += sign_flip_test((parts * signs).tolist(), draws=999, seed=run) < 0.05
    return smallest, found / runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="simulations a line")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    error = 100 * math.sqrt(0.95 * 0.05 / args.runs)
    print("One task of independent pairs: Tango's interval and the exact McNemar test, enumerated")
    for n in (40, 100):
        for only_a, only_b in (
            *((0.0196, 0.0196), (0.0, 0.02), (0.02, 0.08), (0.05, 0.05)),
            *((0.1, 0.1), (0.1, 0.3), (0.2, 0.2)),
        ):
            line = f"  n = {n:3d}  only A {only_a:.3f}, only B {only_b:.3f}"
            line += f"  coverage {100 * score_coverage(n, only_a, only_b):.1f} %"
            if only_a == only_b:
                line += f"  size {100 * mcnemar_power(n, only_a, only_b):.1f} %"
            print(line, flush=True)
    print(f"Paired bootstrap of the macro difference, {args.runs} worlds (s.e. {error:.1f} points)")
    for world in WORLDS:
        held, width = coverage(world, args.runs, args.seed)
        line = f"  n = {world.n:3d} each, {world.name}: coverage {100 * held:.1f} %"
        line += f", mean width {100 * width:.1f} points"
        if world.truth == 0:
            line += f", size of the test {100 * rejected(world, args.runs, args.seed):.1f} %"
        print(line, flush=True)
    print(
        "Power of the exact McNemar test against the smallest difference that is given, enumerated"
    )
    for n in (40, 100, 200):
        for differing in (0.0, 0.05, 0.1, 0.2, 0.4):
            smallest, power = power_at_smallest(n, differing)
            shown = "none" if smallest is None else f"{100 * smallest:.1f} points"
            print(
                f"  n = {n:3d}, {100 * differing:.0f} % differ: {shown}, power {100 * power:.1f} %"
            )
    print(f"The same for macro differences, {args.runs} simulations")
    for world in WORLDS:
        if world.truth == 0 and (seen := power_in_clusters(world, args.runs, args.seed)):
            print(
                f"  n = {world.n:3d} each, {world.name}: {100 * seen[0]:.1f} points, "
                f"power {100 * seen[1]:.1f} %",
                flush=True,
            )


if __name__ == "__main__":
    main()
