"""Tests of paired differences, and of several tests at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["MOST_EXACT", "binomial_tail", "holm", "mcnemar_test", "sign_flip_test"]

MOST_EXACT = 20
"""Differences other than zero up to which all patterns of signs are gone through."""
_DRAWS_AT_ONCE = 500


def binomial_tail(k: int, n: int, p: float) -> float:
    """P(X >= k) for a binomial with n draws of probability p."""
    if k <= 0:
        return 1.0
    if p <= 0.0:
        return 0.0
    if p >= 1.0:
        return 1.0
    logs = [
        math.lgamma(n + 1)
        - math.lgamma(i + 1)
        - math.lgamma(n - i + 1)
        + i * math.log(p)
        + (n - i) * math.log1p(-p)
        for i in range(k, n + 1)
    ]
    return min(1.0, math.fsum(map(math.exp, logs)))


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
    n = only_a + only_b
    return min(1.0, 2 * binomial_tail(max(only_a, only_b), n, 0.5)) if n else 1.0


def sign_flip_test(
    differences: Sequence[float], *, draws: int | None = None, seed: int = 0
) -> float:
    """Two-sided p of paired differences, by changes of their signs (Fisher, 1935).

    Without an effect a difference is as likely to be positive as negative, so every pattern of
    signs is as likely as the one observed. p is the share of the 2^n patterns whose sum is at
    least as far from zero; it is never below 2^(1 - n), which is 0.25 for three pairs. Differences
    of zero change nothing and do not count in n.

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
        raise ValueError(
            f"{values.size} differences; expected 1 to {MOST_EXACT}, whose patterns of signs "
            "can all be gone through"
        )
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
    scaled = p[order] * np.arange(p.size, 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return [float(value) for value in adjusted]
