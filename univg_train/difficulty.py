"""How much a prompt counts in GRPO, by how well its own rollouts solve it.

m is the mean IoU of the rollouts of one prompt (without one true object: of the metric in its
place, `univg_train.rewards.Grade`). The forms of UniVG-R1 (AMAP-ML/UniVG-R1 at commit
082313c, ``trainer/grpo_trainer.py``: ``miou_adjust_math``):

===========  ====================  ============================================================
exp          e^(1 - m)             1 to 2.72; set by the released run script
power        (1.05 - m)^w          0.05^w to 1.05^w; w = 1 is the released default
log          -ln(0.02 + m)         -0.0198 to 3.91: negative above m = 0.98
log_clamped  max(0, -ln(0.02 + m)) log without its negative part (not published)
none         1                     plain GRPO
constant     c                     as large a step without looking at difficulty
===========  ====================  ============================================================

The released code takes m over the batch of one device. That is the prompt's mean only because its
recipe puts exactly one group on each device; `group_means` takes it over the group.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from univg_eval.errors import UserError

__all__ = ["DIFFICULTY_FORMS", "DifficultyWeight", "group_means"]

FloatArray = npt.NDArray[np.float64]

DIFFICULTY_FORMS = ("exp", "power", "log", "log_clamped", "none", "constant")


@dataclass(frozen=True, slots=True)
class DifficultyWeight:
    """Weights of prompts by their mean IoU.

    Attributes:
        form: one of `DIFFICULTY_FORMS`.
        exponent: w of ``power``, positive; None elsewhere, and for the released default of 1.
        value: c of ``constant``, positive; None elsewhere.
        normalize: divide by the mean weight of the prompts that are generated together, so that
            their mean is 1 and only the differences are left: the step is then as large as
            without weights. For ``exp``, ``power`` and ``log_clamped``.
    """

    form: str = "exp"
    exponent: float | None = None
    value: float | None = None
    normalize: bool = False

    def __post_init__(self) -> None:
        if self.form not in DIFFICULTY_FORMS:
            raise UserError(
                f"unknown difficulty form {self.form!r}; expected one of: "
                f"{', '.join(DIFFICULTY_FORMS)}"
            )
        for name, number, form in (
            ("exponent", self.exponent, "power"),
            ("value", self.value, "constant"),
        ):
            if number is not None and self.form != form:
                raise UserError(
                    f"{name}={number!r} belongs to difficulty form {form!r}, not to {self.form!r}; "
                    "leave it out"
                )
            if number is not None and not (math.isfinite(number) and number > 0):
                raise UserError(f"{name} is {number!r}; expected a positive number")
        if self.form == "constant" and self.value is None:
            raise UserError("difficulty form 'constant' needs value=, the weight of every prompt")
        if self.normalize and self.form == "log":
            raise UserError(
                "difficulty form 'log' cannot be normalised: its mean can be zero or negative; "
                "use 'log_clamped'"
            )
        if self.normalize and self.form in ("none", "constant"):
            raise UserError(
                f"normalising difficulty form {self.form!r} leaves every weight at 1; use form "
                "'none' without normalize"
            )

    @property
    def signed(self) -> bool:
        """Whether a weight can be negative."""
        return self.form == "log"

    def __call__(self, means: npt.ArrayLike) -> FloatArray:
        """Weights of prompts.

        Args:
            means: mean IoU of each prompt's rollouts on [0, 1], shape (P,): all prompts that are
                generated together, on all processes.

        Returns:
            Shape (P,). With `normalize` the mean is 1; if all weights are 0 they stay 0.
        """
        m = np.asarray(means, dtype=np.float64)
        weights = self._forms()[self.form](m)
        if self.normalize:
            mean = float(weights.mean()) if weights.size else 0.0
            weights = weights / mean if mean > 0 else weights
        return weights

    def _forms(self) -> dict[str, Callable[[FloatArray], FloatArray]]:
        return {
            "exp": lambda m: np.exp(1.0 - m),
            "power": lambda m: (1.05 - m) ** (1.0 if self.exponent is None else self.exponent),
            "log": lambda m: -np.log(0.02 + m),
            "log_clamped": lambda m: np.maximum(-np.log(0.02 + m), 0.0),
            "none": np.ones_like,
            "constant": lambda m: np.full_like(m, self.value),
        }


def group_means(values: npt.ArrayLike, group_size: int) -> FloatArray:
    """Mean of each prompt's own rollouts.

    Args:
        values: one number a rollout, shape (N,), gathered from all processes in their order, so
            that the `group_size` rollouts of a prompt follow each other.
        group_size: rollouts a prompt.

    Returns:
        Shape (N / group_size,).

    Raises:
        ValueError: the rollouts do not make whole groups.
    """
    array = np.asarray(values, dtype=np.float64)
    if group_size < 1 or array.ndim != 1 or array.size % group_size:
        raise ValueError(
            f"{array.shape} rollouts do not make whole groups of {group_size}; expected one number "
            "a rollout, a multiple of the group's size"
        )
    means: FloatArray = array.reshape(-1, group_size).mean(axis=1)
    return means
