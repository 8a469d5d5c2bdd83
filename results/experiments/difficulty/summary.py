"""From the runs to summary.json and the figure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from plan import (
    BASELINE,
    BESIDE,
    FEW_SEEDS,
    FINAL_SAMPLES,
    MAIN_ARMS,
    OTHER_ARMS,
    PRIMARY,
    RATES,
    SEEDS,
    STEPS,
    Job,
    final_accuracy,
    read_result,
    result_path,
    tuning_seeds,
)
from scenes import KINDS

from univg_eval.analysis.stats import holm, sign_flip_test
from univg_eval.errors import UserError
from univg_eval.files import write_text_atomically
from univg_eval.runs.record import environment

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["paired", "summarise"]

_COLORS = {"none": "#4477aa", "exp_normalised": "#cc3311", "constant": "#228833"}

_DIRECT_CONTRASTS = (("exp", "constant"), ("permuted", PRIMARY))
"""An arm and the control that shares all with it but difficulty; the first has the fewer seeds."""

_MEDIUM = ("share_0.2_0.4", "share_0.4_0.6", "share_0.6_0.8")
_EASY = "share_0.8_1.0"
_AT_THE_ENDS = 10  # steps that "first" and "last" stand for


def summarise(work: Path, out: Path) -> dict[str, Any]:
    """Write ``summary.json``, ``runs.json`` (raw figures of every run) and ``figure.png``."""
    chosen = json.loads((work / "rates.json").read_text(encoding="utf-8"))
    results = {
        arm: [
            _read_final(
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
        **environment(),
        "primary": {
            "contrast": [PRIMARY, BASELINE],
            "outcome": "acc@0.5",
            "questions": 2 * FINAL_SAMPLES,
            **paired(results, PRIMARY),
        },
        "learning_rates": chosen["rates"],
        "mean_weight_of_exp": chosen["mean_weight_of_exp"],
        "start": results[BASELINE][0]["evaluations"]["0"],
        "start_reasoning": results["reasoning"][0]["evaluations"]["0"],
        "variants": {arm: _figures(runs) for arm, runs in results.items()},
        "final": {
            arm: {name: _mean(_final(runs, name)) for name in ("acc@0.5", "miou")}
            for arm, runs in results.items()
        },
        "paired": _all_paired(results),
        "direct_contrasts": [
            {"contrast": [arm, other], **_sizes(paired(results, arm, against=other))}
            for arm, other in _DIRECT_CONTRASTS
        ],
        "training": {arm: _training(runs) for arm, runs in results.items()},
    }
    tuning = _tuning(work, chosen)
    write_text_atomically(out / "summary.json", [json.dumps(summary, indent=1) + "\n"])
    write_text_atomically(
        out / "runs.json", [json.dumps({"final": results, "tuning": tuning}) + "\n"]
    )
    draw_figure(summary, results, out / "figure.png")
    return summary


def _read_final(work: Path, job: Job) -> dict[str, Any]:
    """The result of a run, which has to be of this very job: file names hold no mean weight."""
    result = read_result(work, job)
    if result["job"] != asdict(job):
        path = result_path(work, job)
        raise UserError(
            f"{path} is a run of {result['job']}; expected {asdict(job)}: remove the file and run "
            "the stage 'run' again"
        )
    return result


def _seeds(arm: str) -> Sequence[int]:
    return SEEDS if arm in MAIN_ARMS else FEW_SEEDS


def _final(runs: Sequence[dict[str, Any]], name: str, kind: str = "all") -> list[float]:
    return [final_accuracy(run, kind, name) for run in runs]


def _figures(runs: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    values = {name: _final(runs, name) for name in ("acc@0.5", "miou", "answered")}
    for kind in KINDS:
        for name in ("acc@0.5", "miou"):
            values[f"{kind} {name}"] = _final(runs, name, kind)
    return values


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
        clipped: share of steps whose gradient had a norm above 1. Of arms with rollouts, shares of
        prompts: medium_at_start, 0.2 <= mean IoU < 0.8 in the first step, which the start alone
        made; easy_first and easy_last, a mean IoU of 0.8 and more in the first and last 10 steps;
        no_spread, all rollouts rewarded alike, in all steps.
    """
    norms = np.array([run["curve"]["grad_norm"] for run in runs])
    figures = {"clipped": float((norms > 1).mean())}
    if _EASY in runs[0]["curve"]:
        medium = sum(np.array([run["curve"][name][0] for run in runs]) for name in _MEDIUM)
        easy = np.array([run["curve"][_EASY] for run in runs])
        figures |= {
            "medium_at_start": float(np.mean(medium)),
            "easy_first": float(easy[:, :_AT_THE_ENDS].mean()),
            "easy_last": float(easy[:, -_AT_THE_ENDS:].mean()),
            "no_spread": float(np.mean([run["curve"]["no_spread"] for run in runs])),
        }
    return figures


def paired(
    results: dict[str, list[dict[str, Any]]],
    arm: str,
    name: str = "acc@0.5",
    kind: str = "all",
    against: str = BASELINE,
) -> dict[str, Any]:
    """An arm against another, plain GRPO by default, seed by seed.

    Returns:
        seeds: those of `arm`, all of which the other has; difference: mean; interval95: Student's
        t over the seeds; p: exact, by sign flips.
    """
    base = {run["job"]["seed"]: final_accuracy(run, kind, name) for run in results[against]}
    differences = [
        final_accuracy(run, kind, name) - base[run["job"]["seed"]] for run in results[arm]
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


def _all_paired(results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """All arms against plain GRPO.

    Two families are tested, each with Holm's correction: Acc@0.5 of all arms but the primary
    contrast, and mean IoU of all arms. Easy and hard questions apart show sizes alone.
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
        for kind in KINDS:
            tests[arm][kind] = _sizes(paired(results, arm, kind=kind))
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
            gained = values - values[:, :1]
            mean, error = gained.mean(axis=0), gained.std(axis=0, ddof=1) / np.sqrt(len(gained))
            label = arm if kind == "all" else None
            axis.plot(steps, mean, style, color=_COLORS[arm], label=label)
            axis.fill_between(
                steps, mean - 2 * error, mean + 2 * error, color=_COLORS[arm], alpha=0.15, lw=0
            )
    axis.set(
        xlabel="step", ylabel="points of Acc@0.5 since the start",
        title="Held-out scenes: all (solid), easy (dashed), hard (dotted);\n"
        "mean over the seeds, band of two standard errors",
    )  # fmt: skip
    axis.legend(frameon=False, loc="upper left")


def _smooth(values: np.ndarray, width: int = 9) -> np.ndarray:
    kernel = np.ones(width) / width
    return np.convolve(np.pad(values, width // 2, mode="edge"), kernel, mode="valid")


def _mean_curve(runs: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    table = np.array([run["curve"][name] for run in runs], dtype=float)
    return _smooth(np.nanmean(table, axis=0))


def _easy_groups(axis: Axes, results: dict[str, Any]) -> None:
    for arm in MAIN_ARMS:
        curve = 100 * _mean_curve(results[arm], _EASY)
        axis.plot(np.arange(1, len(curve) + 1), curve, color=_COLORS[arm], label=arm)
        flat = 100 * _mean_curve(results[arm], "no_spread")
        axis.plot(np.arange(1, len(flat) + 1), flat, ":", color=_COLORS[arm])
    axis.set(
        xlabel="step", ylabel="share of prompts (%)",
        title="Training: groups with a mean IoU from 0.8 (solid),\nwithout spread (dotted)",
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
    axis.margins(y=0.25)
    axis.legend(frameon=False, ncols=2, loc="upper center")


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
