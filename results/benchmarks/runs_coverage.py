"""Whether intervals over several runs keep their promise, for one model and for two.

Worlds are drawn in which the true mean is known: each group of images has its own share of right
answers, each run its own shift of all of them. Nominal is 95 % coverage and 5 % size.
`docs/compare.md` has the figures.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import numpy.typing as npt

from univg_eval.analysis.stats import compare_pairs, macro_bootstrap, run_spread, widened

TASKS, GROUPS, PER_GROUP = 3, 20, 2
CLUSTERS = {
    str(t): [f"{t}-{g}" for g in range(GROUPS) for _ in range(PER_GROUP)] for t in range(TASKS)
}
SPREADS = (0.0, 0.02, 0.05, 0.1)
Shares = dict[str, npt.NDArray[np.float64]]


def draw_shares(rng: np.random.Generator) -> Shares:
    return {t: np.repeat(rng.uniform(0.2, 0.8, GROUPS), PER_GROUP) for t in CLUSTERS}


def draw_runs(
    rng: np.random.Generator, n_runs: int, spread: float, shares: Shares
) -> list[dict[str, list[float]]]:
    shifts = np.clip(spread * rng.standard_normal(n_runs), -0.2, 0.2)
    return [
        {t: (rng.random(len(p)) < p + shift).astype(float).tolist() for t, p in shares.items()}
        for shift in shifts
    ]


def one_model(n_runs: int, spread: float, worlds: int) -> tuple[float, float]:
    """Coverage by clusters alone, and with the runs."""
    rng = np.random.default_rng(10)
    alone = both = 0
    for number in range(worlds):
        runs = draw_runs(rng, n_runs, spread, draw_shares(rng))
        means = {t: np.mean([run[t] for run in runs], axis=0).tolist() for t in CLUSTERS}
        plain = macro_bootstrap(means, CLUSTERS, resamples=400, seed=number)
        wide = widened(plain, [run_spread(runs, CLUSTERS)])
        alone += plain.low <= 0.5 <= plain.high
        both += wide.low <= 0.5 <= wide.high
    return alone / worlds, both / worlds


def two_models(n_runs: int, spread: float, worlds: int) -> tuple[float, float]:
    """Coverage of a difference of zero in one task, and the size of the test."""
    rng = np.random.default_rng(11)
    names = ["0"] * len(CLUSTERS["0"])
    covered = found = 0
    for number in range(worlds):
        shares = draw_shares(rng)
        a, b = ([run["0"] for run in draw_runs(rng, n_runs, spread, shares)] for _ in range(2))
        macro = compare_pairs(names, CLUSTERS["0"], a, b, resamples=400, seed=number).macro
        covered += macro.interval.low <= 0 <= macro.interval.high
        found += macro.p is not None and macro.p < 0.05
    return covered / worlds, found / worlds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=1000)
    args = parser.parse_args()
    error = 100 * math.sqrt(0.95 * 0.05 / args.worlds)
    print(f"{args.worlds} worlds a line (standard error {error:.1f} points)")
    print("runs  spread  coverage by clusters  with runs   two models: coverage  size")
    for n_runs in (2, 3, 5, 10):
        for spread in SPREADS:
            one = one_model(n_runs, spread, args.worlds)
            two = two_models(n_runs, spread, args.worlds // 2)
            figures = "  ".join(f"{100 * value:10.1f}" for value in (*one, *two))
            print(f"{n_runs:4d}  {100 * spread:6.0f}  {figures}", flush=True)


if __name__ == "__main__":
    main()
