"""From the runs to summary.json and the figure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from held_out import STRATA
from plan import (
    BASELINE,
    MAIN_ARMS,
    POOLS,
    PRIMARY,
    RATES,
    SAMPLES,
    SEEDS,
    STEPS,
    TASKS,
    TUNING_SEED,
    Job,
    arms_of,
    final_accuracy,
    read_json,
    read_result,
)

from univg_eval.analysis.stats import holm, sign_flip_test
from univg_eval.files import write_text_atomically
from univg_eval.runs.record import environment

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["paired", "summarise"]

_COLORS = {"none": "#4477aa", "exp_normalised": "#cc3311"}

_DIRECT_CONTRASTS = ((PRIMARY, "permuted"), ("exp", "constant"))
"""An arm and the control that shares all with it but difficulty."""

_EASY = "0.8_1.0"
_CURVES = ("miou", "no_spread", f"share_{_EASY}", f"pull_{_EASY}", "kl", "grad_norm")
"""Those that runs.json keeps."""
_AT_THE_ENDS = 20  # steps that "first" and "last" stand for

Results = dict[str, list[dict[str, Any]]]
"""The runs of a series, by arm."""


def summarise(work: Path, out: Path) -> dict[str, Any]:
    """Write ``summary.json``, ``runs.json`` (raw figures of every run) and ``figure.png``."""
    start = read_json(work, "start", "start")
    rates = {series: read_json(work, f"rate-{series}", "tune") for series in POOLS}
    results = {series: _results(work, series, rates[series]) for series in POOLS}
    summary = {
        "question": "does weighting prompts by difficulty help GRPO, at two million parameters?",
        "tasks": list(TASKS),
        "steps": STEPS,
        "seeds": list(SEEDS),
        "samples": SAMPLES["final"].count,
        **environment(),
        "start": start["final"]["evaluation"],
        "held_out_shares": _strata(start["final"]["difficulty"]),
        "series": {
            series: {"prompts": POOLS[series], "learning_rate": rates[series], **_summary(runs)}
            for series, runs in results.items()
        },
    }
    raw = {
        "start": start,
        "final": results,
        "tuning": {series: _tuning(work, series) for series in POOLS},
    }
    write_text_atomically(out / "summary.json", [json.dumps(summary, indent=1) + "\n"])
    write_text_atomically(out / "runs.json", [json.dumps(raw) + "\n"])
    draw_figure(summary, results, out / "figure.png")
    return summary


def _results(work: Path, series: str, rate: float) -> Results:
    """The final runs, with the curves that are kept."""
    results: Results = {}
    for arm, seeds in arms_of(series).items():
        runs = [read_result(work, Job("final", series, arm, seed, rate)) for seed in seeds]
        results[arm] = [
            run | {"curve": {name: run["curve"][name] for name in _CURVES}} for run in runs
        ]
    return results


def _summary(results: Results) -> dict[str, Any]:
    """The figures of a series."""
    return {
        "primary": {
            "contrast": [PRIMARY, BASELINE],
            "outcome": "acc@0.5",
            **paired(results, PRIMARY),
        },
        "variants": {arm: _figures(runs) for arm, runs in results.items()},
        "final": {
            arm: {name: _mean(_final(runs, name)) for name in ("acc@0.5", "miou")}
            for arm, runs in results.items()
        },
        "paired": _all_paired(results),
        "direct_contrasts": [
            {"contrast": [arm, control], **_sizes(paired(results, control, against=arm, sign=-1))}
            for arm, control in _DIRECT_CONTRASTS
            if control in results
        ],
        "training": {arm: _training(runs) for arm, runs in results.items()},
    }


def _tuning(work: Path, series: str) -> dict[str, dict[str, float]]:
    """{learning rate: {arm: Acc@0.5 of its tuning run}}."""
    return {
        f"{rate:g}": {
            arm: final_accuracy(read_result(work, Job("tune", series, arm, TUNING_SEED, rate)))
            for arm in MAIN_ARMS
        }
        for rate in RATES[series]
    }


def _strata(difficulty: Sequence[float]) -> dict[str, float]:
    means = np.asarray(difficulty)
    return {name: float(((means >= a) & (means < b)).mean()) for name, (a, b) in STRATA.items()}


def _final(runs: Sequence[dict[str, Any]], name: str, kind: str = "all") -> list[float]:
    return [final_accuracy(run, kind, name) for run in runs]


def _figures(runs: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    values = {name: _final(runs, name) for name in ("acc@0.5", "miou", "answered")}
    return values | {f"{kind} acc@0.5": _final(runs, "acc@0.5", kind) for kind in STRATA}


def _mean(values: Sequence[float]) -> dict[str, Any]:
    """Mean over the seeds and Student's 95 % interval; at least two values."""
    from scipy.stats import t

    table = np.asarray(values)
    mean = float(table.mean())
    half = float(t.ppf(0.975, len(table) - 1) * table.std(ddof=1) / np.sqrt(len(table)))
    return {"mean": mean, "interval95": [mean - half, mean + half]}


def _training(runs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """What training saw, mean over the seeds.

    Returns:
        clipped: share of steps whose gradient had a norm above 1; no_spread: share of prompts whose
        rollouts were all rewarded alike; easy_first, easy_last: share of prompts with a mean IoU of
        0.8 and more in the first and last steps; easy_pull_first, easy_pull_last: their share of
        the sum of absolute advantages.
    """

    def values(name: str) -> np.ndarray:
        return np.array([run["curve"][name] for run in runs], dtype=float)

    ends = {"first": slice(None, _AT_THE_ENDS), "last": slice(-_AT_THE_ENDS, None)}
    easy = {
        f"{label}_{end}": float(np.nanmean(values(f"{name}_{_EASY}")[:, steps]))
        for label, name in (("easy", "share"), ("easy_pull", "pull"))
        for end, steps in ends.items()
    }
    return {
        "clipped": float((values("grad_norm") > 1).mean()),
        "no_spread": float(values("no_spread").mean()),
        **easy,
    }


def paired(
    results: Results,
    arm: str,
    name: str = "acc@0.5",
    kind: str = "all",
    against: str = BASELINE,
    sign: int = 1,
) -> dict[str, Any]:
    """An arm against another, plain GRPO by default, seed by seed.

    Returns:
        seeds: those of `arm`, all of which the other has; difference: mean, times `sign`;
        interval95: Student's t over the seeds; p: exact, by sign flips.
    """
    base = {run["job"]["seed"]: final_accuracy(run, kind, name) for run in results[against]}
    differences = [
        sign * (final_accuracy(run, kind, name) - base[run["job"]["seed"]]) for run in results[arm]
    ]
    size = _mean(differences)
    return {
        "seeds": len(differences),
        "difference": size["mean"],
        "interval95": size["interval95"],
        "p": sign_flip_test(differences),
    }


def _sizes(test: dict[str, Any]) -> dict[str, Any]:
    """A comparison without its p, for those outside the families that are tested."""
    return {name: value for name, value in test.items() if name != "p"}


def _all_paired(results: Results) -> dict[str, Any]:
    """All arms against plain GRPO.

    Two families are tested, each with Holm's correction: Acc@0.5 of all arms but the primary
    contrast, and mean IoU of all arms. Strata of samples show sizes alone.
    """
    arms = [arm for arm in results if arm != BASELINE]
    tests = {arm: paired(results, arm) for arm in arms}
    overlaps = {arm: paired(results, arm, "miou") for arm in arms}
    for family in ({arm: tests[arm] for arm in arms if arm != PRIMARY}, overlaps):
        adjusted = holm([test["p"] for test in family.values()])
        for test, p in zip(family.values(), adjusted, strict=True):
            test["p_holm"] = p
    for arm in arms:
        tests[arm]["miou"] = overlaps[arm]
        for kind in STRATA:
            tests[arm][kind] = _sizes(paired(results, arm, kind=kind))
    return tests


def draw_figure(summary: dict[str, Any], results: dict[str, Results], path: Path) -> None:
    """A row a series: the training, and paired differences at its end."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        len(results), 4, figsize=(16, 3.6 * len(results)), layout="constrained", squeeze=False
    )
    for row, (series, runs) in zip(axes, results.items(), strict=True):
        _curves(row[0], runs, "miou", 100.0)
        row[0].set(ylabel=f"{series} prompts\n", title="mean IoU of the rollouts (%)")
        _curves(row[1], runs, f"share_{_EASY}", 100.0)
        _curves(row[1], runs, "no_spread", 100.0, ":")
        row[1].set(title="easy groups, mean IoU from 0.8 (%);\nwithout spread (dotted)")
        _curves(row[2], runs, f"pull_{_EASY}", 100.0)
        row[2].set(title="easy groups' part of the\nabsolute advantages (%)")
        _differences(row[3], summary["series"][series])
    axes[0, 0].legend(frameon=False)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _smooth(values: np.ndarray, width: int = 15) -> np.ndarray:
    kernel = np.ones(width) / width
    return np.convolve(np.pad(values, width // 2, mode="edge"), kernel, mode="valid")


def _curves(axis: Axes, results: Results, name: str, factor: float, line: str = "-") -> None:
    """Mean over the seeds, smoothed, with a band of two standard errors."""
    for arm in MAIN_ARMS:
        table = np.array([run["curve"][name] for run in results[arm]], dtype=float)
        smooth = factor * np.array([_smooth(row) for row in _filled(table)])
        mean, error = smooth.mean(axis=0), smooth.std(axis=0, ddof=1) / np.sqrt(len(smooth))
        steps = np.arange(1, len(mean) + 1)
        axis.plot(steps, mean, line, color=_COLORS[arm], label=arm if line == "-" else None)
        axis.fill_between(
            steps, mean - 2 * error, mean + 2 * error, color=_COLORS[arm], alpha=0.15, lw=0
        )
    axis.set(xlabel="step")


def _filled(table: np.ndarray) -> np.ndarray:
    """Steps without a value, which have no advantages at all, get the mean over the seeds."""
    return np.where(np.isnan(table), np.nanmean(table, axis=0), table)


def _differences(axis: Axes, series: dict[str, Any]) -> None:
    arms = list(series["paired"])
    for place, arm in enumerate(arms):
        test = series["paired"][arm]
        low, high = (100 * v for v in test["interval95"])
        middle = 100 * test["difference"]
        axis.plot([low, high], [place, place], color="black", lw=1)
        axis.plot(middle, place, "o", color=_COLORS.get(arm, "#777777"))
    axis.set_yticks(range(len(arms)), [f"{arm} ({series['paired'][arm]['seeds']})" for arm in arms])
    axis.invert_yaxis()
    axis.axvline(0.0, color="black", lw=0.6)
    axis.set(
        xlabel="points of Acc@0.5",
        title="held-out samples: against none,\n95 % interval (number of seeds)",
    )
