"""Differences between two runs: tests, intervals, power, against other sources and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from univg_eval.analysis.stats import (
    cluster_sums,
    macro_bootstrap,
    macro_draws,
    mcnemar_test,
    paired_bootstrap,
    paired_share_interval,
    sign_flip_test,
    smallest_difference,
    smallest_difference_of_pairs,
)
from univg_eval.analysis.stats._clusters import linear_parts

# --- McNemar, sign flips -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("only_a", "only_b", "expected"),
    [
        (0, 0, 1.0),  # no pair differs
        (1, 0, 1.0),
        (0, 5, 2 / 32),
        (0, 6, 2 / 64),
        (1, 7, 2 * 9 / 256),  # Bentur et al. 2009, in Fagerland, Lydersen and Laake (2017), ch. 8
        (6, 16, 0.052479),  # Cavo et al. 2012, printed ibid.
    ],
)
def test_mcnemar_by_hand_and_against_printed_values(
    only_a: int, only_b: int, expected: float
) -> None:
    assert mcnemar_test(only_a, only_b) == pytest.approx(expected, abs=5e-7)
    assert mcnemar_test(only_b, only_a) == mcnemar_test(only_a, only_b)


def test_flipping_the_signs_of_single_pairs_is_mcnemars_test() -> None:
    differences = [1.0] * 9 + [-1.0] * 3 + [0.0] * 8
    assert sign_flip_test(differences) == pytest.approx(mcnemar_test(3, 9), abs=1e-12)


def test_drawn_signs_come_close_to_all_signs_and_never_reach_zero() -> None:
    # 30 equal differences of one sign: exactly 2 of 2^30 patterns are as far from zero.
    assert sign_flip_test([0.1] * 30, draws=999) == 1 / 1000
    # Zeros leave the test exact.
    assert sign_flip_test([*([0.0] * 500), 1.0, 2.0, 3.0], draws=99) == 2 / 8
    differences = [1.0] * 20 + [-1.0] * 10
    assert sign_flip_test(differences, draws=9999) == pytest.approx(
        mcnemar_test(10, 20), abs=4 * math.sqrt(0.1 * 0.9 / 9999)
    )
    first, again = (sign_flip_test(differences, draws=99, seed=3) for _ in range(2))
    assert first == again


def test_drawn_signs_do_not_depend_on_order_or_direction() -> None:
    differences = np.random.default_rng(2).normal(0.2, 1.0, 50)
    expected = sign_flip_test(differences.tolist(), draws=499)
    assert sign_flip_test((-differences).tolist(), draws=499) == expected
    assert sign_flip_test(np.sort(differences).tolist(), draws=499) == expected


# --- Tango's interval ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("only_a", "only_b", "n", "low", "high"),
    [
        # Printed by R's contingencytables 3.0.0 for Cavo et al. 2012 and Bentur et al. 2009.
        (16, 6, 161, -0.1240, -0.0054),
        (7, 1, 21, -0.5172, -0.0260),
        # Where no pair differs the limits are z^2 / (n + z^2).
        *((0, 0, n, -3.841459 / (n + 3.841459), 3.841459 / (n + 3.841459)) for n in (1, 40, 1000)),
    ],
)
def test_score_interval_matches_known_values(
    only_a: int, only_b: int, n: int, low: float, high: float
) -> None:
    interval = paired_share_interval(only_a, only_b, n)
    assert interval.estimate == pytest.approx((only_b - only_a) / n)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=6e-5)


@pytest.mark.parametrize(("only_a", "only_b", "n"), [(3, 9, 40), (0, 4, 30), (12, 0, 12)])
def test_limits_of_the_score_interval_solve_the_score_equation(
    only_a: int, only_b: int, n: int
) -> None:
    def statistic(delta: float) -> float:
        """With the constrained likelihood maximised by search, not by formula."""
        lowest, highest = max(0.0, -delta), (1 - delta) / 2

        def loss(q: float) -> float:
            cells = ((only_a, q), (only_b, q + delta), (n - only_a - only_b, 1 - 2 * q - delta))
            return -sum(k * math.log(max(p, 1e-300)) for k, p in cells if k)

        q = optimize.minimize_scalar(
            loss, bounds=(lowest, highest), method="bounded", options={"xatol": 1e-12}
        ).x
        return (only_b - only_a - n * delta) / math.sqrt(n * (2 * q + delta * (1 - delta)))

    interval = paired_share_interval(only_a, only_b, n)
    if interval.low > -1:
        assert statistic(interval.low) == pytest.approx(1.959964, abs=2e-3)
    if interval.high < 1:
        assert statistic(interval.high) == pytest.approx(-1.959964, abs=2e-3)


@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 100))
@settings(max_examples=60)
def test_score_interval_holds_its_estimate_and_mirrors(only_a: int, only_b: int, same: int) -> None:
    n = only_a + only_b + same or 1
    interval = paired_share_interval(only_a, only_b, n)
    mirrored = paired_share_interval(only_b, only_a, n)
    assert -1 <= interval.low <= interval.estimate <= interval.high <= 1
    assert interval.low < interval.high
    assert interval.low == pytest.approx(-mirrored.high, abs=1e-9)


# --- paired bootstrap ----------------------------------------------------------------------------


def test_bootstrap_estimates_by_hand() -> None:
    drawn = paired_bootstrap({"a": [1.0, 0.0, -1.0, 1.0], "b": [0.0, 0.5]})
    assert drawn.tasks["a"].estimate == pytest.approx(0.25)
    assert drawn.tasks["b"].estimate == pytest.approx(0.25)
    assert drawn.macro.estimate == pytest.approx(0.25)
    assert drawn.micro.estimate == pytest.approx(1.5 / 6)


def test_bootstrap_of_many_pairs_is_the_normal_interval() -> None:
    rng = np.random.default_rng(1)
    values = {name: rng.uniform(-0.6, 0.8, 400).tolist() for name in "ab"}
    drawn = paired_bootstrap(values, resamples=8000).macro
    error = math.sqrt(sum(np.var(v, ddof=1) / 400 for v in values.values())) / 2
    assert drawn.low == pytest.approx(drawn.estimate - 1.96 * error, abs=0.06 * error)
    assert drawn.high == pytest.approx(drawn.estimate + 1.96 * error, abs=0.06 * error)


def test_unseen_pairs_are_two_however_many_tasks_there_are() -> None:
    # Nothing differs, and no interval has width 0: what happens in 7.5 % of 40 pairs stays unseen.
    drawn = paired_bootstrap({str(t): [0.0] * 40 for t in range(10)})
    limit = stats.skellam.ppf(0.975, 1, 1)
    assert (drawn.macro.low, drawn.macro.high) == pytest.approx((-limit / 400, limit / 400))
    assert drawn.micro.high == pytest.approx(limit / 400)
    assert drawn.tasks["3"].high == pytest.approx(limit / 40)


def test_where_nothing_differs_whole_clusters_may_have_been_missed() -> None:
    names = [i // 4 for i in range(40)]
    drawn = paired_bootstrap({"a": [0.0] * 40, "b": [1.0, 0.0] * 20}, {"a": names, "b": range(40)})
    # 10 groups: what happens in a quarter of them stays unseen in 0.75^10 = 5.6 % of draws.
    assert drawn.tasks["a"].high >= 0.25


def test_in_the_mean_a_task_without_differences_has_those_of_the_others() -> None:
    values = {"a": [1.0, 0.0] * 20, "b": [0.0] * 40}
    fours = {"a": list(range(40)), "b": [f"b{i // 4}" for i in range(40)]}
    clustered, single = paired_bootstrap(values, fours), paired_bootstrap(values)
    width = single.macro.high - single.macro.low
    assert clustered.macro.high - clustered.macro.low == pytest.approx(width, rel=0.05)
    assert clustered.tasks["b"].high > 2 * single.tasks["b"].high


def test_shared_clusters_are_drawn_together() -> None:
    # What one task gains on an image, the other loses: the macro difference hardly varies.
    rng = np.random.default_rng(5)
    gain = rng.choice([-1.0, 1.0], 80).tolist()
    loss = [-value for value in gain]
    images = list(range(80))
    shared = paired_bootstrap({"a": gain, "b": loss}, {"a": images, "b": images}).macro
    apart = paired_bootstrap({"a": gain, "b": loss}).macro
    assert shared.high - shared.low < 0.3 * (apart.high - apart.low)


@pytest.mark.parametrize("draw", [macro_bootstrap, lambda *a: paired_bootstrap(*a).macro])
def test_clusters_that_span_tasks_each_in_its_own_way_still_vary(draw) -> None:
    # Every cluster appears in other tasks than all the others do.
    values = {"a": [0.0, 1.0, 1.0, 0.0], "b": [1.0, 0.0, 1.0, 1.0], "c": [0.0, 0.0, 1.0, 0.0]}
    clusters = {"a": [0, 1, 2, 3], "b": [0, 1, 4, 6], "c": [0, 2, 4, 5]}
    interval = draw(values, clusters)
    assert interval.high - interval.low > 0.2


@pytest.mark.parametrize("g", [6, 12, 40])
def test_few_pairs_get_students_interval(g: int) -> None:
    values = stats.norm.ppf((np.arange(g) + 0.5) / g) / 10
    drawn = paired_bootstrap({"a": values.tolist()}, resamples=20000).macro
    # The pairs that were not seen add two like those that were seen: g + 2 in place of g.
    spread = (
        stats.t.ppf(0.975, g - 1) ** 2 * values.var(ddof=1) + 1.96**2 * 2 * np.mean(values**2) / g
    )
    assert drawn.high - drawn.low == pytest.approx(2 * math.sqrt(spread / g), rel=0.04)


def test_one_cluster_says_nothing_of_its_spread() -> None:
    drawn = paired_bootstrap({"a": [1.0] * 50, "b": [0.0, 1.0]}, {"a": ["x"] * 50, "b": ["y", "z"]})
    assert (drawn.tasks["a"].low, drawn.tasks["a"].high) == (-1.0, 1.0)


@pytest.mark.parametrize("kind", ["skewed", "mirrored", "zero"])
def test_bootstrap_of_turned_differences_in_another_order_is_the_mirror(kind: str) -> None:
    rng = np.random.default_rng(9)
    values = {name: rng.exponential(0.2, n).clip(0, 1) - 0.1 for name, n in (("b", 30), ("a", 12))}
    if kind != "skewed":
        half = values["b"][:6] * (kind == "mirrored")
        values = {"b": np.concatenate([half, -half]), "a": np.concatenate([-half, half])}
    names = {name: rng.integers(0, 9, len(own)) for name, own in values.items()}
    clusters = names if kind == "skewed" else None
    drawn = paired_bootstrap({name: own.tolist() for name, own in values.items()}, clusters)
    orders = {name: rng.permutation(len(own)) for name, own in reversed(values.items())}
    turned = paired_bootstrap(
        {name: (-values[name][order]).tolist() for name, order in orders.items()},
        {name: names[name][order] for name, order in orders.items()} if clusters else None,
    )
    assert list(turned.tasks) == ["a", "b"]
    for one, other in (
        (drawn.macro, turned.macro),
        (drawn.micro, turned.micro),
        *((drawn.tasks[name], turned.tasks[name]) for name in values),
    ):
        assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-12)


def test_parts_of_unequal_clusters_give_the_jackknife_variance() -> None:
    rng = np.random.default_rng(12)
    counts = np.array([20.0, 7.0, 3.0, 1.0, 1.0, 1.0])
    sums = counts * rng.uniform(-1, 1, 6)
    g = len(counts)
    left_out = np.array([np.delete(sums, i).sum() / np.delete(counts, i).sum() for i in range(g)])
    jackknife = (g - 1) / g * np.sum((left_out - sums.sum() / counts.sum()) ** 2)
    parts = linear_parts(sums, counts)
    assert np.sum(parts**2) * g / (g - 1) == pytest.approx(jackknife)
    # Equal clusters: the plain linear form.
    equal = linear_parts(sums, np.full(g, 4.0))
    assert equal == pytest.approx((sums - sums.mean()) / (4 * g))
    assert linear_parts(np.array([3.0]), np.array([5.0])).tolist() == [0.0]


@pytest.mark.parametrize("g", [2, 3, 5])
def test_the_clusters_of_other_tasks_do_not_help_a_task(g: int) -> None:
    values = np.linspace(-0.02, 0.02, g)
    other = np.resize([0.001, -0.001], 400)
    drawn = paired_bootstrap({"a": values.tolist(), "b": other.tolist()}, resamples=20000)
    t, size = stats.t.ppf(0.975, g - 1) / 1.96, math.sqrt(np.mean(values[values != 0] ** 2))
    rng = np.random.default_rng(0)
    means = rng.choice(values, (100_000, g)).mean(axis=1) * math.sqrt(g / (g - 1)) * t
    unseen = (rng.poisson(1, 100_000) - rng.poisson(1, 100_000)) * size / g
    low, high = np.quantile(means + unseen, [0.025, 0.975])
    width = drawn.tasks["a"].high - drawn.tasks["a"].low
    assert width == pytest.approx(high - low, rel=0.06)
    # What the mean over the tasks does not know is what the small task does not know.
    assert drawn.macro.high - drawn.macro.low > 0.4 * (high - low)


def test_few_clusters_with_the_spread_of_many_get_their_own_students_interval() -> None:
    # Two of 400 differ: 3 (2 x^2)^2 / (2 x^4) = 6 degrees of freedom, by kurtosis.
    values = [0.5, -0.5] + [0.0] * 398
    rng = np.random.default_rng(0)
    sums = (rng.poisson(1, (200_000, 4)) * 0.5) @ np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
    t = stats.t.ppf(0.975, 6) / 1.96
    for draws, factor in ((sums @ [t, 1.0], t), (sums @ [1.0, 1.0], 1.0)):
        low, high = np.quantile(draws, [0.025, 0.975]) / 400
        found = paired_bootstrap({"a": values}, resamples=50_000).macro
        same = found.high - found.low == pytest.approx(high - low, rel=0.03)
        assert same == (factor > 1)


def test_values_of_one_sample_keep_together_with_few_clusters() -> None:
    # The two columns and their sum; alone, each would get degrees of freedom of its own.
    rare, even = [1.0] + [0.0] * 11, [0.25, 0.5] * 6
    both = [(a + b) / 2 for a, b in zip(rare, even, strict=True)]
    draws = macro_draws([{"a": rare}, {"a": even}, {"a": both}], resamples=200)
    assert draws[:, :2].mean(axis=1) == pytest.approx(draws[:, 2])


@pytest.mark.parametrize(
    ("shares", "per_cluster", "alike"),
    [
        ((0.02, 0.02), 1, False),
        ((0.02, 0.06), 1, False),
        ((0.4, 0.5), 1, True),
        ((0.3, 0.4), 4, True),
    ],
    ids=["rare", "rare, unequal", "even", "in clusters"],
)
def test_macro_coverage_and_size_at_forty_samples(
    shares: tuple[float, float], per_cluster: int, alike: bool
) -> None:
    rng = np.random.default_rng(8)
    runs, tasks, n = 200, 10, 40
    covered = found = 0
    clusters = {str(t): [(t, i // per_cluster) for i in range(n)] for t in range(tasks)}
    for run in range(runs):
        # Samples of a cluster share a draw with probability one half, and so do the two models.
        own = rng.random((2, tasks, n))
        group = np.repeat(rng.random((2, tasks, n // per_cluster)), per_cluster, axis=2)
        if per_cluster > 1:
            own = np.where(rng.random((2, tasks, n)) < 0.5, group, own)
        if alike:
            own[1] = np.where(rng.random((tasks, n)) < 0.5, own[0], own[1])
        change = (own[1] < shares[1]).astype(float) - (own[0] < shares[0])
        values = {str(t): change[t].tolist() for t in range(tasks)}
        interval = paired_bootstrap(values, clusters, resamples=400, seed=run).macro
        covered += interval.low <= shares[1] - shares[0] + 1e-12 <= interval.high + 2e-12
        if shares[0] == shares[1]:
            sums = cluster_sums(
                change.ravel().tolist(), [name for names in clusters.values() for name in names]
            )
            found += sign_flip_test(sums.tolist(), draws=199, seed=run) < 0.05
    # 200 runs leave a standard error of 1.5 points around 95 %.
    assert 0.93 - 0.02 <= covered / runs <= 0.97 + 0.02
    assert found / runs <= 0.05 + 0.03


# --- power ---------------------------------------------------------------------------------------


def test_smallest_difference_is_connetts_formula_for_single_pairs() -> None:
    n, differing = 300, 0.2
    parts = [1 / n] * 30 + [-1 / n] * 30 + [0.0] * 240
    smallest = smallest_difference(parts, [1 / n] * n)
    # Connett, Smith and McHugh (1987): pairs needed for a difference and a share that differs.
    needed = (
        (1.959964 * math.sqrt(differing) + 0.841621 * math.sqrt(differing - smallest**2)) / smallest
    ) ** 2
    assert needed == pytest.approx(n, rel=1e-5)


@pytest.mark.parametrize(
    ("n", "differing"),
    [(40, 0), (40, 2), (40, 8), (40, 10), (40, 40), (100, 20), (7, 3), (6, 6), (300, 50)],
)
def test_mcnemar_finds_the_smallest_difference_four_times_in_five(n: int, differing: int) -> None:
    smallest = smallest_difference_of_pairs(differing, n)
    share = max(differing / n, smallest)
    favours = 0.5 + 0.5 * smallest / share
    power = 0.0
    for m in range(n + 1):
        wins = np.arange(m // 2 + 1, m + 1)
        shown = wins[2 * stats.binom.sf(wins - 1, m, 0.5) < 0.05]
        if shown.size:
            power += stats.binom.pmf(m, n, share) * stats.binom.sf(shown[0] - 1, m, favours)
    assert power == pytest.approx(0.8, abs=1e-8)


def test_smallest_difference_of_pairs_by_hand() -> None:
    # Six pairs: all must differ and favour one run. d = 0.8^(1 / 6) where none was seen to differ.
    assert smallest_difference_of_pairs(0, 6) == pytest.approx(0.8 ** (1 / 6))
    # Where all differ, each must favour it: (1 + d) / 2 = 0.8^(1 / 6).
    assert smallest_difference_of_pairs(6, 6) == pytest.approx(2 * 0.8 ** (1 / 6) - 1)
    # p < 0.01 takes eight of eight.
    assert smallest_difference_of_pairs(0, 7, level=0.99) is None
    assert smallest_difference_of_pairs(0, 8, level=0.99, power=0.5) == pytest.approx(0.5**0.125)


def test_with_many_pairs_the_smallest_difference_is_connetts() -> None:
    n = 5000
    parts = [1 / n] * 500 + [-1 / n] * 500 + [0.0] * 4000
    expected = smallest_difference(parts, [1 / n] * n, step=1 / n)
    assert smallest_difference_of_pairs(1000, n) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    ("g", "differing", "size"), [(120, 2, 1.0), (40, 2, 0.5), (6, 2, 0.25), (8, 6, 1.0)]
)
def test_where_hardly_any_cluster_differs_six_must(g: int, differing: int, size: float) -> None:
    parts = [size / g, -size / g] * (differing // 2) + [0.0] * (g - differing)
    smallest = smallest_difference(parts, [1 / g] * g)
    # So many clusters differ by this size, all for one run, that it makes up the difference.
    assert stats.binom.sf(5, g, smallest / size) == pytest.approx(0.8, abs=1e-6)


def test_smallest_difference_of_clusters_is_found_four_times_in_five() -> None:
    rng = np.random.default_rng(6)
    g, per = 60, 5
    sizes = rng.choice([0.0, 1.0, 2.0, 5.0], g) / (g * per)
    signs = np.resize([1.0, -1.0], g)
    smallest = smallest_difference((sizes * signs).tolist(), [1 / g] * g)
    up = 0.5 + 0.5 * smallest / sizes.sum()
    found = [
        sign_flip_test(
            (sizes * np.where(rng.random(g) < up, 1.0, -1.0)).tolist(), draws=399, seed=run
        )
        < 0.05
        for run in range(400)
    ]
    assert 0.80 - 0.06 <= np.mean(found) <= 0.80 + 0.08


def test_where_few_clusters_hold_the_spread_the_smallest_difference_is_a_bound() -> None:
    # Two large ones make too much noise for all together: six or more of that size are needed.
    sizes = np.array([0.1] * 2 + [0.001] * 18)
    smallest = smallest_difference(sizes.tolist(), [1 / 20] * 20)
    typical = math.sqrt(np.mean((sizes * 20) ** 2))
    assert stats.binom.sf(5, 20, smallest / typical) == pytest.approx(0.8, abs=1e-6)
    # It is never below what they make up together where that is not enough.
    sizes = np.array([0.01] + [0.001] * 15 + [0.0] * 84)
    assert smallest_difference(sizes.tolist(), [1 / 100] * 100) == pytest.approx(sizes.sum())


@pytest.mark.parametrize("n", [1, 5])
def test_too_few_pairs_can_show_nothing(n: int) -> None:
    assert smallest_difference_of_pairs(n, n) is None
    assert smallest_difference([1 / n] * n, [1 / n] * n, step=1 / n) is None
