"""Intervals: known values, limits, and coverage by exact enumeration or simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from univg_eval.analysis.stats import (
    holm,
    macro_bootstrap,
    macro_draws,
    mcnemar_test,
    paired_bootstrap,
    paired_share_interval,
    sign_flip_test,
    smallest_difference,
    smallest_difference_of_pairs,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        # Values printed in Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_wilson_matches_published_values(k: int, n: int, low: float, high: float) -> None:
    interval = wilson_interval(k, n)
    assert interval.estimate == pytest.approx(k / n)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=6e-5)


def test_no_samples_say_nothing() -> None:
    interval = wilson_interval(0, 0)
    assert math.isnan(interval.estimate)
    assert (interval.low, interval.high) == (0.0, 1.0)


@given(st.integers(0, 5000), st.integers(1, 5000))
def test_wilson_holds_its_estimate_and_mirrors(k: int, rest: int) -> None:
    interval, mirrored = wilson_interval(k, k + rest), wilson_interval(rest, k + rest)
    assert 0.0 <= interval.low <= interval.estimate <= interval.high <= 1.0
    assert interval.low == pytest.approx(1 - mirrored.high, abs=1e-12)


@pytest.mark.parametrize(
    "shares",
    [[0.02] * 15, np.linspace(0.02, 0.9, 15), [0.02] * 5],
    ids=["rare", "mixed", "rare, five tasks"],
)
def test_macro_bootstrap_coverage_at_forty_samples(shares) -> None:
    generator = np.random.default_rng(20)
    covered, runs, true = 0, 300, float(np.mean(shares))
    for run in range(runs):
        values = {str(t): generator.binomial(1, p, 40).tolist() for t, p in enumerate(shares)}
        interval = macro_bootstrap(values, resamples=400, seed=run)
        covered += interval.low <= true <= interval.high
    # 300 runs leave a standard error of 1.3 points around a true coverage of 95.
    assert 0.91 <= covered / runs <= 0.985


def test_macro_coverage_where_clusters_are_of_unequal_size() -> None:
    # As in a task of MIG-Bench with 288 samples on 78 groups of images, here rare answers that
    # go by group. Without the adjustments it was 88 %.
    generator = np.random.default_rng(6)
    sizes = [18, 12, 11, 10, 9, 8, 7, 7, 6, 6, 5, 4] + [3] * 53 + [2] * 13
    group = np.repeat(np.arange(78), sizes)
    covered, runs = 0, 300
    for run in range(runs):
        same, own = generator.random(78) < 0.05, generator.random(len(group)) < 0.05
        right = np.where(generator.random(len(group)) < 0.6, same[group], own)
        interval = macro_bootstrap(
            {"a": right.astype(float).tolist()}, {"a": group.tolist()}, resamples=300, seed=run
        )
        covered += interval.low <= 0.05 <= interval.high
    assert covered / runs >= 0.92


@pytest.mark.parametrize("draw", [macro_bootstrap, lambda *a: paired_bootstrap(*a).macro])
def test_copies_in_clusters_are_worth_the_clusters(draw) -> None:
    # Ten copies of each independent value: as much information as the values once.
    generator = np.random.default_rng(3)
    once = generator.binomial(1, 0.4, 40).tolist()
    copied = [value for value in once for _ in range(10)]
    clusters = [i for i in range(40) for _ in range(10)]
    reference, naive = draw({"a": once}), draw({"a": copied})
    clustered = draw({"a": copied}, {"a": clusters})
    width = reference.high - reference.low
    assert clustered.high - clustered.low == pytest.approx(width, rel=0.12)
    assert naive.high - naive.low < 0.5 * width


def test_rare_answers_get_the_clusters_that_were_not_seen() -> None:
    values = {"a": [1.0] + [0.0] * 39, "b": [0.0] * 40, "c": [0.0] * 10}
    found = macro_bootstrap(values, resamples=50_000)
    # By hand: one right answer drawn again, with Student's t of 3 (sum x^2)^2 / (sum x^4) degrees
    # of freedom, and two unseen answers, right or wrong, a third of each a task.
    parts = np.array([39 / 40] + [-1 / 40] * 39)
    t = stats.t.ppf(0.975, 3 * np.sum(parts**2) ** 2 / np.sum(parts**4)) / 1.96
    rng = np.random.default_rng(1)
    again = (rng.binomial(40, 1 / 40, 200_000) - 1) / 40 * math.sqrt(40 / 39) * t
    right, wrong = rng.poisson(1 / 3, (2, 200_000, 3)) / np.array([40, 40, 10])
    draws = (1 / 40 + again + (right * 39 / 40 - wrong / 40).sum(axis=1)) / 3
    low, high = np.quantile(draws, [0.025, 0.975])
    assert (found.low, found.high) == (max(0, low), pytest.approx(high, rel=0.03))
    # Most answers right: the same from the other side.
    turned = macro_bootstrap({task: [1 - v for v in own] for task, own in values.items()})
    assert 1 - turned.low == pytest.approx(found.high, rel=0.1)


def test_macro_keeps_shared_clusters_together() -> None:
    # Two tasks on the same images, with equal values: one task's information, not two.
    generator = np.random.default_rng(5)
    once = generator.binomial(1, 0.5, 60).tolist()
    ids = list(range(60))
    shared = macro_bootstrap({"a": once, "b": once}, {"a": ids, "b": ids})
    alone = macro_bootstrap({"a": once}, {"a": ids})
    assert shared.high - shared.low == pytest.approx(alone.high - alone.low, rel=0.1)


def test_macro_is_the_unweighted_mean() -> None:
    interval = macro_bootstrap({"small": [1.0, 0.0], "large": [0.0] * 98})
    assert interval.estimate == pytest.approx(0.25)
    # Without spread it is as wide as Wilson's interval.
    interval = macro_bootstrap({"a": [0.0] * 40, "b": [0.0] * 40})
    pooled = wilson_interval(0, 80)
    assert (interval.estimate, interval.low, interval.high) == (0.0, 0.0, pooled.high)


def test_values_of_one_sample_are_drawn_together() -> None:
    values = {"a": [0.0, 0.25, 1.0, 1.0], "b": [0.5, 0.0, 0.0]}
    assert macro_bootstrap(values, seed=1) == macro_bootstrap(values, seed=1)
    rest = {task: [1 - value for value in own] for task, own in values.items()}
    draws = macro_draws([values, rest], resamples=300)
    assert draws.shape == (300, 2)
    assert np.ptp(draws[:, 0]) > 0.1
    assert draws.sum(axis=1) == pytest.approx(1.0)


@pytest.mark.parametrize("clustered", [False, True])
def test_macro_does_not_depend_on_the_order_of_tasks_and_samples(clustered: bool) -> None:
    generator = np.random.default_rng(5)
    values = {f"t{i}": generator.random(30 + i).round(2).tolist() for i in range(4)}
    clusters = {
        task: [f"c{number}" for number in generator.integers(0, 20, size=len(some))]
        for task, some in values.items()
    }
    orders = {task: generator.permutation(len(some)) for task, some in values.items()}
    turned = {task: [values[task][i] for i in orders[task]] for task in reversed(values)}
    names = {task: [clusters[task][i] for i in orders[task]] for task in turned}
    first = macro_bootstrap(values, clusters if clustered else None)
    again = macro_bootstrap(turned, names if clustered else None)
    assert (again.estimate, again.low, again.high) == pytest.approx(
        (first.estimate, first.low, first.high), abs=1e-12
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: wilson_interval(5, 4), "k is 5 with n = 4"),
        (lambda: wilson_interval(1, 4, level=95), "level is 95"),
        (lambda: sign_flip_test([]), "0 differences"),
        (lambda: sign_flip_test([1.0] * 21), "21 differences"),
        (lambda: sign_flip_test([1.0, math.nan]), "not finite"),
        (lambda: holm([0.1, 1.2]), "1.2"),
        (lambda: macro_bootstrap({}), "no tasks given"),
        (lambda: macro_bootstrap({"a": []}), "'a' has no samples"),
        (lambda: macro_bootstrap({"a": [2.0]}), "value 2.0"),
        (lambda: macro_bootstrap({"a": [1.0]}, {"a": []}), "1 values and 0 clusters"),
        (lambda: mcnemar_test(-1, 3), "counts are -1 and 3"),
        (lambda: paired_share_interval(3, 3, 5), "only_a is 3, only_b is 3 with n = 5"),
        (lambda: paired_share_interval(0, 0, 0), "with n = 0"),
        (lambda: paired_bootstrap({}), "no tasks given"),
        (lambda: paired_bootstrap({"a": [1.5]}), r"value 1.5; expected \[-1, 1\]"),
        (lambda: paired_bootstrap({"a": [0.5]}, level=2), "level is 2"),
        (lambda: smallest_difference([0.1], [0.5, 0.5]), "1 contributions and 2 weights"),
        (lambda: smallest_difference([0.1] * 9, [1 / 9] * 9, power=1), "power is 1"),
        (lambda: smallest_difference_of_pairs(9, 8), "9 pairs differ with n = 8"),
        (lambda: smallest_difference_of_pairs(0, 0), "0 pairs differ with n = 0"),
        (lambda: smallest_difference_of_pairs(1, 8, power=0), "power is 0"),
        (lambda: smallest_difference_of_pairs(1, 8, level=5), "level is 5"),
    ],
)
def test_wrong_arguments_are_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# --- paired tests --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([1.0], 1.0),  # both patterns are as far from zero
        ([1.0, 2.0, 3.0], 2 / 8),  # only the two patterns of equal signs
        ([1.0, 2.0, -3.0], 1.0),  # the sum is zero
        ([4.0, 2.0, -1.0], 4 / 8),  # |5|: +4+2+1, +4+2-1 and their opposites
        ([0.0, 0.0], 1.0),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0], 2 / 1024),
    ],
)
def test_sign_flip_test_counts_the_patterns_as_far_from_zero(
    differences: list[float], expected: float
) -> None:
    assert sign_flip_test(differences) == pytest.approx(expected, abs=1e-15)


def test_sums_that_are_equal_but_for_rounding_are_as_far_from_zero() -> None:
    rng = np.random.default_rng(3)
    for _ in range(100):
        assert sign_flip_test((rng.random(9) / 7).tolist()) == 2 / 512


def test_sign_flip_test_agrees_with_scipy_permutation_test() -> None:
    rng = np.random.default_rng(4)
    for n in (4, 7, 10):
        differences = rng.normal(0.3, 1.0, n)
        expected = stats.permutation_test(
            (differences,), np.mean, permutation_type="samples", n_resamples=np.inf
        )
        assert sign_flip_test(differences) == pytest.approx(expected.pvalue, abs=1e-12)


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),  # 3 x 0.01; 2 x 0.03; 0.04, raised to 0.06
        ([0.5, 0.6], [1.0, 1.0]),
        ([0.2], [0.2]),
        ([], []),
    ],
)
def test_holm_by_hand(p_values: list[float], expected: list[float]) -> None:
    assert holm(p_values) == pytest.approx(expected)
