"""How often the 95 % intervals hold the true value.

Wilson's interval is enumerated exactly; the macro bootstrap is simulated. Nominal is 95 %.
"""

from __future__ import annotations

import argparse
import math

import numpy as np

from univg_eval.analysis.stats import macro_bootstrap, wilson_interval


def wilson_coverage(n: int, p: float) -> float:
    held = 0.0
    for k in range(n + 1):
        interval = wilson_interval(k, n)
        if interval.low <= p <= interval.high:
            held += math.comb(n, k) * p**k * (1 - p) ** (n - k)
    return held


def macro_coverage(shares: list[float], n: int, runs: int, seed: int) -> float:
    generator = np.random.default_rng(seed)
    true = float(np.mean(shares))
    held = 0
    for run in range(runs):
        values = {str(t): generator.binomial(1, p, n).tolist() for t, p in enumerate(shares)}
        interval = macro_bootstrap(values, resamples=1000, seed=run)
        held += interval.low <= true <= interval.high
    return held / runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000, help="simulations a line")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print("Wilson, exact enumeration")
    for n in (40, 100, 200):
        for p in (0.02, 0.1, 0.3, 0.5, 0.9):
            print(f"  n = {n:3d}  p = {p:.2f}  coverage {100 * wilson_coverage(n, p):.2f} %")
    error = 100 * math.sqrt(0.95 * 0.05 / args.runs)
    print(f"Macro bootstrap, {args.runs} simulations a line (standard error {error:.2f} points)")
    for label, shares, n in (
        ("15 tasks, all p = 0.02", [0.02] * 15, 40),
        ("15 tasks, all p = 0.10", [0.1] * 15, 40),
        ("15 tasks, all p = 0.50", [0.5] * 15, 40),
        ("15 tasks, p from 0.02 to 0.90", list(np.linspace(0.02, 0.9, 15)), 40),
        ("10 tasks, all p = 0.02", [0.02] * 10, 40),
        ("15 tasks, all p = 0.02", [0.02] * 15, 200),
    ):
        coverage = macro_coverage(shares, n, args.runs, args.seed)
        print(f"  n = {n:3d} each, {label}: coverage {100 * coverage:.2f} %")


if __name__ == "__main__":
    main()
