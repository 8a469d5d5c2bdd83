"""Intervals over several runs: components by hand, agreement with one run, coverage, size."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from univg_eval.analysis.stats import compare_pairs, macro_bootstrap, run_spread, widened

TASKS, GROUPS, PER_GROUP = 3, 20, 2
CLUSTERS = {
    str(t): [f"{t}-{g}" for g in range(GROUPS) for _ in range(PER_GROUP)] for t in range(TASKS)
}


def world(
    rng: np.random.Generator, n_runs: int, run_sd: float, shares: dict[str, np.ndarray]
) -> list[dict[str, list[float]]]:
    """Right or wrong answers: each group of images has its own share, each run its own shift."""
    shifts = np.clip(run_sd * rng.standard_normal(n_runs), -0.2, 0.2)
    return [
        {t: (rng.random(len(p)) < p + shift).astype(float).tolist() for t, p in shares.items()}
        for shift in shifts
    ]


def draw_shares(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A mean of 0.5 in each task."""
    return {t: np.repeat(rng.uniform(0.2, 0.8, GROUPS), PER_GROUP) for t in CLUSTERS}


def averaged(runs: list[dict[str, list[float]]]) -> dict[str, list[float]]:
    return {t: np.mean([run[t] for run in runs], axis=0).tolist() for t in runs[0]}


def test_the_parts_of_the_variance_are_those_of_an_analysis_of_variance() -> None:
    rng = np.random.default_rng(1)
    n, r = 30, 4
    y = (rng.random((n, r)) < 0.5 + 0.2 * np.arange(r) / r).astype(float)
    spread = run_spread([{"a": y[:, run].tolist()} for run in range(r)])
    # Mean squares of a two-way table without replicates, from their definition.
    rest = y - y.mean(axis=1, keepdims=True) - y.mean(axis=0) + y.mean()
    ms_runs = n * np.sum((y.mean(axis=0) - y.mean()) ** 2) / (r - 1)
    ms_rest = np.sum(rest**2) / ((n - 1) * (r - 1))
    assert spread.means == pytest.approx(y.mean(axis=0))
    assert spread.sd == pytest.approx(np.std(y.mean(axis=0), ddof=1))
    assert spread.variance == pytest.approx((ms_runs - ms_rest) / n / r)
    assert spread.margin == pytest.approx(
        stats.t.ppf(0.975, r - 1) * math.sqrt(spread.variance), rel=0.01
    )


def test_copies_in_clusters_add_nothing() -> None:
    rng = np.random.default_rng(2)
    runs = [rng.integers(0, 2, 25).astype(float).tolist() for _ in range(3)]
    once = run_spread([{"a": run} for run in runs])
    groups = {"a": [i for i in range(25) for _ in range(4)]}
    copied = run_spread([{"a": [v for v in run for _ in range(4)]} for run in runs], groups)
    assert copied.variance == pytest.approx(once.variance)
    assert copied.sd == pytest.approx(once.sd)


def test_runs_that_do_not_differ_leave_the_interval_as_it_is() -> None:
    rng = np.random.default_rng(3)
    (run,) = world(rng, 1, 0.0, draw_shares(rng))
    plain = macro_bootstrap(run, CLUSTERS)
    assert widened(plain, [run_spread([run, run, run], CLUSTERS)]) == plain
    assert widened(plain, [run_spread([run], CLUSTERS)]) == plain
    other = [1 - value for value in run["0"]]
    names = ["0"] * len(other)
    once = compare_pairs(names, CLUSTERS["0"], run["0"], other)
    again = compare_pairs(names, CLUSTERS["0"], [run["0"]] * 3, [other] * 2)
    assert again.macro.interval == once.macro.interval
    assert (again.macro.p, again.macro.test) == (once.macro.p, once.macro.test)
    assert (once.macro.spread_a, again.macro.spread_a) == (None, 0.0)


@pytest.mark.parametrize("n_runs", [3, 5, 10])
def test_without_run_effects_the_interval_is_close_to_that_by_clusters(n_runs: int) -> None:
    rng = np.random.default_rng(4)
    ratios = []
    for number in range(60):
        runs = world(rng, n_runs, 0.0, draw_shares(rng))
        plain = macro_bootstrap(averaged(runs), CLUSTERS, resamples=300, seed=number)
        wide = widened(plain, [run_spread(runs, CLUSTERS)])
        ratios.append((wide.high - wide.low) / (plain.high - plain.low))
    # In about half of the cases the runs differ by no more than their answers make them.
    assert np.mean(np.array(ratios) == 1.0) > 0.4
    assert np.mean(ratios) < {3: 1.5, 5: 1.2, 10: 1.1}[n_runs]


@pytest.mark.parametrize("n_runs", [3, 5, 10])
@pytest.mark.parametrize("run_sd", [0.0, 0.03, 0.08])
def test_coverage_of_other_samples_and_other_runs(n_runs: int, run_sd: float) -> None:
    rng = np.random.default_rng(5)
    covered, by_clusters, worlds = 0, 0, 300
    for number in range(worlds):
        runs = world(rng, n_runs, run_sd, draw_shares(rng))
        plain = macro_bootstrap(averaged(runs), CLUSTERS, resamples=300, seed=number)
        wide = widened(plain, [run_spread(runs, CLUSTERS)])
        covered += wide.low <= 0.5 <= wide.high
        by_clusters += plain.low <= 0.5 <= plain.high
    # 300 worlds leave a standard error of 1.3 points around a true coverage of 95.
    assert 0.915 <= covered / worlds <= 0.99
    if run_sd == 0.08 and n_runs < 10:
        assert by_clusters / worlds < 0.88


@pytest.mark.parametrize(("runs_a", "runs_b"), [(3, 3), (5, 3), (10, 10)])
@pytest.mark.parametrize("run_sd", [0.0, 0.05])
def test_two_models_over_several_runs(runs_a: int, runs_b: int, run_sd: float) -> None:
    rng = np.random.default_rng(6)
    names, groups = ["0"] * len(CLUSTERS["0"]), CLUSTERS["0"]
    covered, found, worlds = 0, 0, 150
    for number in range(worlds):
        shares = draw_shares(rng)
        a, b = ([run["0"] for run in world(rng, n, run_sd, shares)] for n in (runs_a, runs_b))
        macro = compare_pairs(names, groups, a, b, resamples=300, seed=number).macro
        covered += macro.interval.low <= 0 <= macro.interval.high
        assert macro.p is not None
        found += macro.p < 0.05
    assert covered / worlds >= 0.91
    assert found / worlds <= 0.09


def test_a_comparison_of_runs_mirrors_and_says_what_made_it() -> None:
    a = [[1.0] * 10 + [0.0] * 10, [1.0] * 14 + [0.0] * 6, [1.0] * 6 + [0.0] * 14]
    b = [[0.0] * 20, [1.0] * 4 + [0.0] * 16]
    names, groups = ["t"] * 20, list(range(20))
    there, back = compare_pairs(names, groups, a, b), compare_pairs(names, groups, b, a)
    macro = there.macro
    assert (macro.a, macro.b, macro.test) == (pytest.approx(0.5), pytest.approx(0.1), "runs")
    assert macro.interval.low == pytest.approx(-back.macro.interval.high)
    assert macro.p == pytest.approx(back.macro.p)
    assert macro.spread_a == pytest.approx(0.2)
    assert macro.spread_b == pytest.approx(0.2 / math.sqrt(2))
    # Of the averages alone p would be far smaller.
    alone = compare_pairs(names, groups, np.mean(a, axis=0).tolist(), np.mean(b, axis=0).tolist())
    assert alone.macro.p is not None
    assert macro.p is not None
    assert macro.p > 5 * alone.macro.p
    assert macro.detectable is None or macro.detectable > (alone.macro.detectable or 0)


def test_p_meets_the_interval() -> None:
    from univg_eval.analysis.stats._runs import RunSpread, p_with_runs

    spreads = [RunSpread((0.4, 0.5, 0.6), 0.1, 0.003), RunSpread((0.5, 0.52), 0.01, 0.0001)]
    variance = 0.0004
    limit = math.hypot(
        stats.norm.ppf(0.975) * math.sqrt(variance),
        stats.t.ppf(0.975, 2) * math.sqrt(0.003),
        stats.t.ppf(0.975, 1) * math.sqrt(0.0001),
    )
    assert p_with_runs(limit, variance, spreads) == pytest.approx(0.05)
    assert p_with_runs(-2 * limit, variance, spreads) < 0.05
    assert p_with_runs(0.0, variance, spreads) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([], "no runs given"),
        ([{"a": [0.0]}, {"b": [0.0]}], "different tasks or samples"),
        ([{"a": [0.0, 1.0]}, {"a": [0.0]}], "different tasks or samples"),
        ([{"a": [0.0]}, {"a": [2.0]}], "has the value 2.0"),
    ],
)
def test_what_are_no_runs(runs: list[dict[str, list[float]]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_spread(runs)
