"""Tests of paired differences, of several tests at once, and the smallest difference they find."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np

from univg_eval.analysis.stats._clusters import normal_quantile, typical

MOST_EXACT = 20
"""Differences other than zero up to which all patterns of signs are gone through."""
_DRAWS_AT_ONCE = 500
_HALVINGS = 40
_NEGLIGIBLE = 1e-12
"""Numbers of differing pairs whose probabilities are this small are left out of the power."""


def binomial_tail(k: int, n: int, p: float) -> float:
    """P(X >= k) for a binomial with n draws of probability p."""
    from scipy.stats import binom

    return float(binom.sf(k - 1, n, p))


def mcnemar_test(only_a: int, only_b: int) -> float:
    """Exact two-sided p of McNemar's test: is it by chance which of two is right alone?

    Without a difference each pair with one right answer is as likely to be right in A as in B, so
    the number of either is binomial with probability one half (McNemar, Psychometrika 12, 1947; the
    exact conditional form). Pairs must be independent; where they are not, `sign_flip_test` takes
    sums over clusters.

    Args:
        only_a, only_b: pairs that only A, and only B, has right. Without any, p is 1.

    Raises:
        ValueError: a count is negative.
    """
    if only_a < 0 or only_b < 0:
        raise ValueError(f"counts are {only_a} and {only_b}; expected 0 or more")
    return min(1.0, 2 * binomial_tail(max(only_a, only_b), only_a + only_b, 0.5))


def sign_flip_test(
    differences: Sequence[float], *, draws: int | None = None, seed: int = 0
) -> float:
    """Two-sided p of paired differences, by changes of their signs (Fisher, 1935).

    Without an effect a difference is as likely to be positive as negative, so every pattern of
    signs is as likely as the one observed. p is the share of the 2^n patterns whose sum is at
    least as far from zero; it is never below 2^(1 - n), which is 0.25 for three pairs. Differences
    of zero change nothing and do not count in n. (`scipy.stats.permutation_test` gives the same
    for few differences, at many times the cost: it sums each pattern anew.)

    Args:
        differences: one a pair, or one sum a cluster of pairs that are not independent; finite.
        draws: patterns drawn at random where there are more than `MOST_EXACT` differences other
            than zero; p is then (k + 1) / (draws + 1), k of them being as far from zero, which
            keeps the level (Phipson and Smyth, 2010). None: such a number is an error.
        seed: of the draws.

    Raises:
        ValueError: no differences, too many for `draws` None, or one that is not finite.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.size < 1 or values.ndim != 1 or (draws is None and values.size > MOST_EXACT):
        raise ValueError(f"{values.size} differences; expected 1 to {MOST_EXACT}, or give draws")
    if not np.isfinite(values).all():
        raise ValueError("a difference is not finite; leave out pairs that were not measured")
    # Equal sums that were added up in another order differ in their last digits.
    least = abs(math.fsum(values)) - 1e-12 * math.fsum(np.abs(values))
    # Only sizes matter, so p is that of the turned differences, and in any order.
    values = np.sort(np.abs(values[values != 0]))
    if values.size <= MOST_EXACT:
        sums = np.zeros(1)
        for value in values:
            sums = np.concatenate([sums + value, sums - value])
        return float(np.mean(np.abs(sums) >= least))
    assert draws is not None
    generator = np.random.default_rng(seed)
    as_far = 0
    for start in range(0, draws, _DRAWS_AT_ONCE):
        size = (min(_DRAWS_AT_ONCE, draws - start), values.size)
        signs = 2.0 * generator.integers(0, 2, size=size, dtype=np.int8) - 1.0
        as_far += int(np.count_nonzero(np.abs(signs @ values) >= least))
    return (as_far + 1) / (draws + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values of several tests, adjusted so that the chance of any false alarm keeps its level.

    Holm, "A simple sequentially rejective multiple test procedure" (1979): the i-th smallest of m
    is multiplied by m - i + 1; none becomes smaller than the one before it, nor larger than 1.

    Raises:
        ValueError: a value is not in [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p values are {list(p_values)}; expected numbers from 0 to 1")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    scaled = p[order] * np.arange(p.size, 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return [float(value) for value in adjusted]


def smallest_difference_of_pairs(
    differing: int, n: int, *, level: float = 0.95, power: float = 0.8
) -> float | None:
    """The smallest true difference of two paired shares that McNemar's exact test finds so surely.

    The power is that of the exact test, summed over how many of n independent pairs differ and how
    many of these favour the better run; pairs differ with the probability `differing` / n that was
    observed. A difference needs disagreement itself: where this much does not allow it, all pairs
    that differ favour one run, and as many differ as the difference needs.

    Args:
        differing, n: pairs of which just one is right, and all pairs, at least 1.
        level, power: 1 - size of the two-sided test, and the chance to find the difference.

    Returns:
        The difference, above 0 and up to 1; None where so few pairs cannot show any.

    Raises:
        ValueError: counts that do not fit, or level or power out of range.
    """
    from scipy.stats import binom

    fewest = _fewest(level, power)
    if not 0 <= differing <= n or n < 1:
        raise ValueError(
            f"{differing} pairs differ with n = {n}; expected 0 <= differing <= n, and n >= 1"
        )
    if n < fewest:
        return None
    share = differing / n
    if binomial_tail(fewest, n, share) < power:
        return _first(lambda d: binomial_tail(fewest, n, d) >= power, share)
    chances = binom.pmf(np.arange(n + 1), n, share)
    numbers = np.flatnonzero(chances > _NEGLIGIBLE)
    # Of so many differing pairs, p < 1 - level takes more than this in favour of one run.
    size = (1 - level) / 2
    below = binom.isf(size, numbers, 0.5)
    below += binom.sf(below, numbers, 0.5) >= size
    return _first(
        lambda d: chances[numbers] @ binom.sf(below, numbers, 0.5 + 0.5 * d / share) >= power,
        0.0,
        share,
    )


def smallest_difference(
    contributions: Sequence[float],
    weights: Sequence[float],
    *,
    step: float = 0.0,
    level: float = 0.95,
    power: float = 0.8,
) -> float | None:
    """About the smallest true difference that flipping the signs of clusters finds so surely.

    With the disagreement that was observed: V, the sum of the squared contributions, is the
    variance of the difference under the test's null hypothesis, and V - K d^2 that under a
    difference d, K being the sum of the squared weights. The smallest d that can be seen solves
    d = z(level) sqrt(V) + z(power) sqrt(V - K d^2) + step. For independent pairs that are right or
    wrong V is (share of pairs that differ) / n and K = 1 / n, which is the formula of Connett,
    Smith and McHugh, "Sample size and power for pair-matched case-control studies", Statistics in
    Medicine 6 (1987), 53-59; `smallest_difference_of_pairs` is exact there.

    A difference needs disagreement itself, and the test six clusters that differ even if all favour
    one run (at level 0.95: 2 of 2^6 patterns are 0.031). Where all observed contributions together
    do not make up d, or clusters that differ as often as here would be fewer than six too often, d
    is what the chance of six makes it: six or more of g clusters, each differing by the root mean
    square of the mean differences here (1 where none differ).

    Args:
        contributions: of each cluster to the difference; they add up to it.
        weights: of each cluster; they add up to 1, and the contribution of a cluster in which each
            sample differs by 1 is its weight.
        step: half the distance between two sums that can follow one another as signs change, else
            0: a test on a lattice needs that much more (continuity correction).
        level, power: 1 - size of the two-sided test, and the chance to find the difference.

    Returns:
        The difference, in the unit of the contributions; None where no difference up to 1 can be
        found so surely, as with fewer than six clusters.

    Raises:
        ValueError: unequal lengths, or level or power out of range.
    """
    parts = np.asarray(contributions, dtype=np.float64)
    shares = np.asarray(weights, dtype=np.float64)
    if parts.shape != shares.shape or parts.ndim != 1:
        raise ValueError(
            f"{parts.size} contributions and {shares.size} weights; expected one each a cluster"
        )
    g, fewest = parts.size, _fewest(level, power)
    z_level, z_power = normal_quantile(level), NormalDist().inv_cdf(power)
    if g < fewest:
        return None
    spread = float(np.sum(parts**2))
    k = float(np.sum(shares**2))
    reach = float(np.abs(parts).sum())
    differing = (parts != 0) & (shares > 0)
    size = typical(parts[differing] / shares[differing]) or 1.0
    needed = size * _first(lambda q: binomial_tail(fewest, g, q) >= power, 0.0)

    def enough(d: float) -> bool:
        noise = z_level * math.sqrt(spread) + z_power * math.sqrt(max(0.0, spread - k * d * d))
        return d >= noise + step

    seen = binomial_tail(fewest, g, np.count_nonzero(differing) / g)
    if seen < power or not enough(reach):
        return max(needed, reach)
    return _first(enough, 0.0, reach)


def _fewest(level: float, power: float) -> int:
    """How many differences, all of one sign, make p = 2^(1 - number) smaller than 1 - level.

    Raises:
        ValueError: level or power out of range.
    """
    normal_quantile(level)
    if not 0.0 < power < 1.0:
        raise ValueError(f"power is {power}; expected a number between 0 and 1, e.g. 0.8")
    number = 1
    while 2.0 ** (1 - number) >= 1 - level:
        number += 1
    return number


def _first(enough: Callable[[float], bool], low: float, high: float = 1.0) -> float:
    """Where a monotone condition, false at low and true at high, becomes true."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
