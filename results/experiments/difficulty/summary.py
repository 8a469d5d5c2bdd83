"""From the runs to summary.json and the figure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from experiment import (
    BASELINE,
    BESIDE,
    FEW_SEEDS,
    FINAL_QUESTIONS,
    MAIN_ARMS,
    OTHER_ARMS,
    PRIMARY,
    RATES,
    SEEDS,
    STEPS,
    Job,
    final_accuracy,
    read_result,
    tuning_seeds,
)

from univg_eval.runs import environment
from univg_eval.samples import write_text_atomically
from univg_eval.stats import holm, sign_flip_test

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["paired", "summarise"]

_CURVES = ("miou", "weight", "no_spread", "share_0.8_1.0", "miou_easy", "miou_hard")
_COLORS = {"none": "#4477aa", "exp_normalised": "#cc3311", "constant": "#228833"}


def summarise(work: Path, out: Path) -> dict[str, Any]:
    """Write ``summary.json``, ``runs.json`` (raw figures of every run) and ``figure.png``."""
    chosen = json.loads((work / "rates.json").read_text(encoding="utf-8"))
    results = {
        arm: [
            read_result(
                work,
                Job(
                    "final", arm, seed, chosen["rates"][arm],
                    chosen["mean_weight_of_exp"] if arm == "constant" else None,
                ),
            )
            for seed in _seeds(arm)
        ]
        for arm in (*MAIN_ARMS, *OTHER_ARMS, *BESIDE)
    }  # fmt: skip
    summary = {
        "question": "does weighting prompts by difficulty help GRPO, at a million parameters?",
        "steps": STEPS,
        "seeds": list(SEEDS),
        "hardware": environment(),
        "primary": {
            "contrast": [PRIMARY, BASELINE],
            "outcome": "acc@0.5",
            "questions": 2 * FINAL_QUESTIONS,
            **paired(results, PRIMARY),
        },
        "learning_rates": chosen["rates"],
        "mean_weight_of_exp": chosen["mean_weight_of_exp"],
        "start": results[BASELINE][0]["evaluations"]["0"],
        "start_reasoning": results["reasoning"][0]["evaluations"]["0"],
        "variants": {arm: _figures(runs) for arm, runs in results.items()},
        "paired": _all_paired(results),
    }
    raw = {arm: runs for arm, runs in results.items()}
    tuning = _tuning(work, chosen)
    write_text_atomically(out / "summary.json", [json.dumps(summary, indent=1) + "\n"])
    write_text_atomically(
        out / "runs.json", [json.dumps({"final": raw, "tuning": tuning}, indent=None) + "\n"]
    )
    draw_figure(summary, results, out / "figure.png")
    return summary


def _seeds(arm: str) -> Sequence[int]:
    return SEEDS if arm in MAIN_ARMS else FEW_SEEDS


def _figures(runs: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    values = {}
    for name in ("acc@0.5", "miou", "answered"):
        values[name] = [final_accuracy(run, "all", name) for run in runs]
    for kind in ("easy", "hard"):
        for name in ("acc@0.5", "miou"):
            values[f"{kind} {name}"] = [final_accuracy(run, kind, name) for run in runs]
    return values


def paired(
    results: dict[str, list[dict[str, Any]]], arm: str, name: str = "acc@0.5", kind: str = "all"
) -> dict[str, Any]:
    """An arm against plain GRPO, seed by seed.

    Returns:
        difference: mean; interval95: Student's t over the seeds; p: exact, by sign flips.
    """
    from scipy.stats import t

    base = {run["job"]["seed"]: final_accuracy(run, kind, name) for run in results[BASELINE]}
    differences = np.array(
        [final_accuracy(run, kind, name) - base[run["job"]["seed"]] for run in results[arm]]
    )
    n = len(differences)
    mean = float(differences.mean())
    half = float(t.ppf(0.975, n - 1) * differences.std(ddof=1) / np.sqrt(n))
    return {
        "seeds": n,
        "difference": mean,
        "interval95": [mean - half, mean + half],
        "p": sign_flip_test([float(d) for d in differences]),
    }


def _all_paired(results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """All arms against plain GRPO; Holm's correction over all but the primary contrast."""
    tests = {arm: paired(results, arm) for arm in results if arm != BASELINE}
    for arm in tests:
        tests[arm]["miou"] = paired(results, arm, "miou")
        for kind in ("easy", "hard"):
            tests[arm][kind] = paired(results, arm, "acc@0.5", kind)
    exploratory = [arm for arm in tests if arm != PRIMARY]
    adjusted = holm([tests[arm]["p"] for arm in exploratory])
    for arm, p in zip(exploratory, adjusted, strict=True):
        tests[arm]["p_holm"] = p
    return tests


def _tuning(work: Path, chosen: dict[str, Any]) -> dict[str, dict[str, list[float]]]:
    """{arm: {learning rate: Acc@0.5 of each tuning seed}}."""
    return {
        arm: {
            f"{rate:g}": [
                final_accuracy(read_result(work, Job("tune", arm, seed, rate)))
                for seed in tuning_seeds(arm)
            ]
            for rate in RATES
        }
        for arm in chosen["rates"]
    }


def draw_figure(summary: dict[str, Any], results: dict[str, Any], path: Path) -> None:
    """Learning curves, easy groups over time, weights, and paired differences."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    _learning_curves(axes[0, 0], results)
    _easy_groups(axes[0, 1], results)
    _weights(axes[1, 0], results)
    _differences(axes[1, 1], summary)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _learning_curves(axis: Axes, results: dict[str, Any]) -> None:
    for arm in MAIN_ARMS:
        steps = sorted(int(step) for step in results[arm][0]["evaluations"])
        for kind, style in (("easy", "--"), ("hard", ":"), ("all", "-")):
            values = np.array(
                [
                    [100 * run["evaluations"][str(s)][kind]["acc@0.5"] for s in steps]
                    for run in results[arm]
                ]
            )
            mean, error = values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values))
            label = arm if kind == "all" else None
            axis.plot(steps, mean, style, color=_COLORS[arm], label=label)
            axis.fill_between(
                steps, mean - 2 * error, mean + 2 * error, color=_COLORS[arm], alpha=0.15, lw=0
            )
    axis.set(
        xlabel="step", ylabel="Acc@0.5 (%)",
        title="Held-out scenes: all (solid), easy (dashed), hard (dotted)",
    )  # fmt: skip
    axis.legend(frameon=False)


def _smooth(values: np.ndarray, width: int = 9) -> np.ndarray:
    kernel = np.ones(width) / width
    return np.convolve(np.pad(values, width // 2, mode="edge"), kernel, mode="valid")


def _mean_curve(runs: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    table = np.array([run["curve"][name] for run in runs], dtype=float)
    return _smooth(np.nanmean(table, axis=0))


def _easy_groups(axis: Axes, results: dict[str, Any]) -> None:
    for arm in MAIN_ARMS:
        curve = 100 * _mean_curve(results[arm], "share_0.8_1.0")
        axis.plot(np.arange(1, len(curve) + 1), curve, color=_COLORS[arm], label=arm)
        flat = 100 * _mean_curve(results[arm], "no_spread")
        axis.plot(np.arange(1, len(flat) + 1), flat, ":", color=_COLORS[arm])
    axis.set(
        xlabel="step", ylabel="share of prompts (%)",
        title="Training: groups with mIoU of 0.8 and more (dotted: without spread)",
    )  # fmt: skip
    axis.legend(frameon=False)


def _weights(axis: Axes, results: dict[str, Any]) -> None:
    for arm, color in ((PRIMARY, _COLORS[PRIMARY]), ("permuted", "#999999")):
        for kind, style in (("easy", "--"), ("hard", ":")):
            curve = _mean_curve(results[arm], f"weight_{kind}")
            axis.plot(
                np.arange(1, len(curve) + 1), curve, style, color=color, label=f"{arm}, {kind}"
            )
    axis.axhline(1.0, color="black", lw=0.6)
    axis.set(xlabel="step", ylabel="mean weight of a prompt", title="Training: weights")
    axis.legend(frameon=False)


def _differences(axis: Axes, summary: dict[str, Any]) -> None:
    arms = list(summary["paired"])
    for place, arm in enumerate(arms):
        test = summary["paired"][arm]
        low, high = (100 * v for v in test["interval95"])
        middle = 100 * test["difference"]
        axis.plot([low, high], [place, place], color="black", lw=1)
        axis.plot(middle, place, "o", color=_COLORS.get(arm, "#777777"))
    axis.set_yticks(
        range(len(arms)), [f"{arm} ({summary['paired'][arm]['seeds']})" for arm in arms]
    )
    axis.invert_yaxis()
    axis.axvline(0.0, color="black", lw=0.6)
    axis.set(
        xlabel="points of Acc@0.5 against none, 95 % interval",
        title="Final difference (number of seeds)",
    )
