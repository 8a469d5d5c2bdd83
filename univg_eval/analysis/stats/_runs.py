"""Several runs on the same samples: what the choice of the runs adds to an interval.

Runs of one model differ by the seed of the sampling, or by the checkpoint of the training. Sample
q has in run r the score

    y(q, r) = mean + sample(q) + run(r) + rest(q, r),

which is a crossed design: R runs answer the same samples (Cornfield and Tukey, "Average values of
mean squares in factorials", Ann. Math. Stat. 27, 1956). The variance of the mean over samples and
runs is then V(samples) + V(runs) - V(rest) (Cameron, Gelbach and Miller, "Robust inference with
multiway clustering", J. Bus. Econ. Stat. 29, 2011), where

* V(samples) is that of the scores averaged over the runs, by clusters of shared images; it holds
  the rest once (Miller, "Adding error bars to evals", arXiv 2411.00640, stops here: its runs
  have no effect of their own);
* V(runs) = s^2 / R, with s the standard deviation of the R means; it holds the rest once more
  (a bootstrap of both would, too: Owen, "The pigeonhole bootstrap", Ann. Appl. Stat. 1, 2007);
* V(rest) is that of what each run's scores differ from their average by, within samples.

So runs add V(runs) - V(rest), or nothing where that is negative. Their part has R - 1 degrees of
freedom and is therefore taken with Student's t. It is put to the interval by clusters as the
squares of distances (Zou and Donner, "Construction of confidence limits about effect measures",
Stat. Med. 27, 2008), which keeps the promise for few runs where Satterthwaite's single number of
degrees of freedom does not (three runs: 92 % of 95). Without such a part the interval is that by
clusters.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from univg_eval.analysis.stats._clusters import cluster_table, normal_quantile, t_over_normal
from univg_eval.analysis.stats._intervals import Interval

_HALVINGS = 60


@dataclass(frozen=True, slots=True)
class RunSpread:
    """How several runs on the same samples differ.

    Attributes:
        means: of each run.
        sd: standard deviation of the means, with R - 1.
        variance: what the choice of the runs adds to the variance of the mean over all.
    """

    means: tuple[float, ...]
    sd: float
    variance: float

    @property
    def freedom(self) -> int:
        """Degrees of freedom of the variance."""
        return len(self.means) - 1

    @property
    def margin(self) -> float:
        """Half-width of the runs' own part of a 95 % interval."""
        if self.variance == 0.0:
            return 0.0
        return normal_quantile(0.95) * t_over_normal(self.freedom) * math.sqrt(self.variance)


def run_spread(
    runs: Sequence[Mapping[str, Sequence[float]]],
    clusters: Mapping[str, Sequence[Hashable]] | None = None,
) -> RunSpread:
    """The spread between runs of the unweighted mean over tasks.

    Args:
        runs: of each run, per task one value in [0, 1] a sample; the same samples in the same
            order. One run has no spread.
        clusters: per task, the cluster of each sample; None: each sample is its own cluster. Equal
            values in different tasks are the same cluster.

    Raises:
        ValueError: no run, runs of other tasks or numbers of samples, or a fault that
            `macro_bootstrap` names.
    """
    if not runs:
        raise ValueError("no runs given; expected the values of at least one")
    tables = [cluster_table(values, clusters) for values in runs]
    if any(list(values) != list(runs[0]) for values in runs) or any(
        not np.array_equal(table.counts, tables[0].counts) for table in tables
    ):
        raise ValueError("the runs have different tasks or samples; expected the same in each")
    means = np.array([table.means.mean() for table in tables])
    n = len(runs)
    if n == 1:
        return RunSpread((float(means[0]),), 0.0, 0.0)
    parts = np.array([table.influence.mean(axis=1) for table in tables])
    squares = np.sum((parts - parts.mean(axis=0)) ** 2, axis=0) / (n * (n - 1))
    # As in `drawn_deviations`: the squares of g clusters are too small by (g - 1) / g.
    rest = sum(
        float(squares[members].sum()) * len(members) / max(1, len(members) - 1)
        for members in tables[0].strata
    )
    # Runs that are all alike leave a trace of rounding.
    sd = float(means.std(ddof=1)) if np.ptp(means) > 1e-12 else 0.0
    return RunSpread(tuple(means.tolist()), sd, max(0.0, sd**2 / n - rest))


def widened(
    interval: Interval, spreads: Sequence[RunSpread], *, low: float = 0.0, high: float = 1.0
) -> Interval:
    """A 95 % interval by clusters, so that it covers other runs too.

    Args:
        interval: of values averaged over the runs.
        spreads: of the runs of one model, or of each of two that are compared.
        low, high: limits of the value.
    """
    margins = [spread.margin for spread in spreads]
    if not any(margins):
        return interval  # to the last digit
    below, above = (
        math.hypot(interval.estimate - limit, *margins) for limit in (interval.low, interval.high)
    )
    return Interval(
        interval.estimate,
        max(low, interval.estimate - below),
        min(high, interval.estimate + above),
    )


def p_with_runs(difference: float, variance: float, spreads: Sequence[RunSpread]) -> float:
    """Two-sided p of a difference: where the limit of its interval meets 0.

    Args:
        difference: of means over samples and runs.
        variance: of it by clusters.
        spreads: of the runs of each side that has several, each with a variance.
    """
    from scipy.stats import t

    def half(p: float) -> float:
        """Half-width of the interval at the level 1 - p."""
        own = [t.isf(p / 2, s.freedom) * math.sqrt(s.variance) for s in spreads]
        return math.hypot(-NormalDist().inv_cdf(p / 2) * math.sqrt(variance), *own)

    low, high = 1e-9, 1.0
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        if half(middle) > abs(difference):
            low = middle
        else:
            high = middle
    return high
