"""The smallest difference between two runs that a test finds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from univg_eval.analysis.stats._clusters import normal_quantile, typical
from univg_eval.analysis.stats._tests import binomial_tail

__all__ = ["smallest_difference", "smallest_difference_of_pairs"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

_HALVINGS = 40
_NEGLIGIBLE = 1e-12
"""Numbers of differing pairs whose probabilities are this small are left out of the power."""


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
    normal_quantile(level)
    _require_power(power)
    if not 0 <= differing <= n or n < 1:
        raise ValueError(
            f"{differing} pairs differ with n = {n}; expected 0 <= differing <= n, and n >= 1"
        )
    size = 1 - level
    fewest = _fewest(size)
    if n < fewest:
        return None
    share = differing / n
    if _at_least(fewest, n, share) < power:
        return _first(lambda d: _at_least(fewest, n, d) >= power, share)
    logs = np.array([math.lgamma(i + 1) for i in range(n + 1)])
    chances = _chances(np.arange(n + 1), n, share, logs) if differing < n else np.eye(n + 1)[n]
    numbers = np.flatnonzero(chances > _NEGLIGIBLE)
    needed = _needed(numbers, size, logs)

    def found(d: float) -> float:
        return float(chances[numbers] @ _tails(numbers, needed, 0.5 + 0.5 * d / share, logs))

    return _first(lambda d: found(d) >= power, 0.0, share)


def _fewest(size: float) -> int:
    """How many differences, all of one sign, make p = 2^(1 - number) smaller than this size."""
    number = 1
    while 2.0 ** (1 - number) >= size:
        number += 1
    return number


def _at_least(k: int, n: int, p: float) -> float:
    """P(X >= k) of a binomial, by the few terms below k."""
    return 1 - binomial_tail(n - k + 1, n, 1 - p)


def _first(enough: Callable[[float], bool], low: float, high: float = 1.0) -> float:
    """Where a monotone condition, false at low and true at high, becomes true."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _chances(k: IntArray, n: IntArray | int, p: float, logs: FloatArray) -> FloatArray:
    """P(X = k) of binomials with 0 < p < 1; 0 where k > n. `logs` are those of the factorials."""
    rest = np.maximum(n - k, 0)
    terms = logs[n] - logs[np.minimum(k, n)] - logs[rest] + k * math.log(p) + rest * math.log1p(-p)
    found: FloatArray = np.where(k <= n, np.exp(terms), 0.0)
    return found


def _needed(numbers: IntArray, size: float, logs: FloatArray) -> IntArray:
    """For each number of differing pairs, how many in favour of one run make p < size.

    One more than the number where not even all do.
    """
    first = int(numbers[0])
    # P(X >= k) for k from `first` + 1 down to 0.
    tails = np.append(0.0, np.cumsum(_chances(np.arange(first + 1), first, 0.5, logs)[::-1]))
    shown = int(np.flatnonzero(2 * tails < size)[-1])
    wins, tail = first + 1 - shown, float(tails[shown])
    found = [wins]
    for m in map(int, numbers[1:]):
        # With one pair more the tail from `wins` grows by half the chance of one win less.
        tail += 0.5 * math.exp(_half(wins - 1, m - 1, logs))
        if 2 * tail >= size:
            tail -= math.exp(_half(wins, m, logs))
            wins += 1
        found.append(wins)
    return np.array(found)


def _half(k: int, n: int, logs: FloatArray) -> float:
    """Logarithm of P(X = k) of a binomial with p = 1/2."""
    if not 0 <= k <= n:
        return -math.inf
    return float(logs[n] - logs[k] - logs[n - k]) - n * math.log(2)


def _tails(numbers: IntArray, needed: IntArray, p: float, logs: FloatArray) -> FloatArray:
    """P(X >= needed) of binomials with 0 < p < 1; each of `numbers` is one above the last."""
    first = np.arange(needed[0], numbers[0] + 1)
    start = _chances(first, int(numbers[0]), p, logs).sum()
    grown = p * _chances(needed[:-1] - 1, numbers[:-1], p, logs)
    lost = np.where(np.diff(needed) > 0, _chances(needed[:-1], numbers[1:], p, logs), 0.0)
    tails: FloatArray = start + np.append(0.0, np.cumsum(grown - lost))
    return tails


def _require_power(power: float) -> None:
    if not 0.0 < power < 1.0:
        raise ValueError(f"power is {power}; expected a number between 0 and 1, e.g. 0.8")


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
    z_level = normal_quantile(level)
    _require_power(power)
    z_power = NormalDist().inv_cdf(power)
    g, fewest = parts.size, _fewest(1 - level)
    if g < fewest:
        return None
    spread = float(np.sum(parts**2))
    k = float(np.sum(shares**2))
    reach = float(np.abs(parts).sum())
    differing = (parts != 0) & (shares > 0)
    size = typical(parts[differing] / shares[differing]) or 1.0
    needed = size * _first(lambda q: _at_least(fewest, g, q) >= power, 0.0)

    def enough(d: float) -> bool:
        noise = z_level * math.sqrt(spread) + z_power * math.sqrt(max(0.0, spread - k * d * d))
        return d >= noise + step

    if _at_least(fewest, g, np.count_nonzero(differing) / g) < power or not enough(reach):
        return max(needed, reach)
    return _first(enough, 0.0, reach)
