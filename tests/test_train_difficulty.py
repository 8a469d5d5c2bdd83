"""Weights of prompts by difficulty: the published forms, and whose mean m is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from univg_eval.errors import UserError
from univg_train.difficulty import DIFFICULTY_FORMS, DifficultyWeight, group_means

# Worked out with a pocket calculator from e^(1-m), 1.05-m and -ln(0.02+m).
PUBLISHED = {
    "exp": {0.0: 2.718281828, 0.5: 1.648721271, 1.0: 1.0},
    "power": {0.0: 1.05, 0.5: 0.55, 1.0: 0.05},
    "log": {0.0: 3.912023005, 0.5: 0.653926467, 0.98: 0.0, 1.0: -0.0198026273},
    "log_clamped": {0.5: 0.653926467, 1.0: 0.0},
    "none": {0.3: 1.0},
}


@pytest.mark.parametrize("form", PUBLISHED)
def test_forms_as_published(form: str) -> None:
    means, weights = PUBLISHED[form].keys(), PUBLISHED[form].values()
    assert DifficultyWeight(form)(list(means)) == pytest.approx(list(weights), abs=1e-8)


def test_power_and_constant_take_their_number() -> None:
    assert DifficultyWeight("power", exponent=2.0)([0.05, 0.55]) == pytest.approx([1.0, 0.25])
    assert DifficultyWeight("constant", value=1.7)([0.0, 0.9]).tolist() == [1.7, 1.7]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_log_is_negative_above_098_and_nowhere_else(means: list[float]) -> None:
    weights = DifficultyWeight("log")(means)
    for m, weight in zip(means, weights, strict=True):
        assert (weight < 0) == (m + 0.02 > 1)
    assert np.array_equal(DifficultyWeight("log_clamped")(means), np.where(weights < 0, 0, weights))


@given(
    st.sampled_from(["exp", "power", "log_clamped"]),
    st.lists(st.floats(0, 0.95), min_size=1, max_size=16),
)
def test_normalised_weights_have_mean_one_and_keep_their_ratios(
    form: str, means: list[float]
) -> None:
    plain = DifficultyWeight(form)(means)
    normal = DifficultyWeight(form, normalize=True)(means)
    assert normal.mean() == pytest.approx(1.0)
    assert normal * plain[0] == pytest.approx(plain * normal[0])


def test_normalising_leaves_weights_of_zero() -> None:
    assert DifficultyWeight("log_clamped", normalize=True)([1.0, 0.99]).tolist() == [0.0, 0.0]


def test_group_means_are_those_of_the_prompts_own_rollouts() -> None:
    assert group_means([0.0, 1.0, 0.5, 0.7], 2).tolist() == [0.5, 0.6]
    assert group_means([0.0, 1.0, 0.5, 0.7], 4).tolist() == pytest.approx([0.55])
    assert group_means([0.0, 1.0], 1).tolist() == [0.0, 1.0]


def released_means(values: list[float], device_batch: int, group: int) -> list[float]:
    """m as the release takes it: the mean over a device's batch, whatever prompts are in it."""
    return [
        math.fsum(values[i - i % device_batch :][:device_batch]) / device_batch
        for i in range(0, len(values), group)
    ]


def test_the_release_is_right_only_with_one_group_a_device() -> None:
    rollouts = [1.0, 1.0, 0.9, 0.9, 0.0, 0.0, 0.1, 0.1]
    true = group_means(rollouts, 4)
    assert true == pytest.approx([0.95, 0.05])
    # One group a device, as in the published recipe: the same.
    assert released_means(rollouts, 4, 4) == pytest.approx(true)
    # Two groups: the easy and the hard prompt get one weight, e^0.5, not e^0.05 and e^0.95.
    assert released_means(rollouts, 8, 4) == pytest.approx([0.5, 0.5])
    assert DifficultyWeight("exp")(true) == pytest.approx([1.0512711, 2.5857097])
    # Half a group: m is that of a half.
    assert released_means([1.0, 1.0, 0.0, 0.0], 2, 2) == [1.0, 0.0]
    assert group_means([1.0, 1.0, 0.0, 0.0], 4).tolist() == [0.5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "linear"}, r"unknown difficulty form 'linear'; expected one of: exp, power, log"),
        ({"form": "exp", "exponent": 2.0}, "exponent=2.0 belongs to difficulty form 'power'"),
        ({"form": "power", "value": 2.0}, "value=2.0 belongs to difficulty form 'constant'"),
        ({"form": "power", "exponent": -1.0}, "exponent is -1.0; expected a positive number"),
        ({"form": "power", "exponent": 0.0}, "exponent is 0.0; expected a positive number"),
        ({"form": "constant", "value": 0}, "value is 0; expected a positive number"),
        ({"form": "constant"}, "'constant' needs value="),
        ({"form": "constant", "value": math.nan}, "value is nan; expected a positive number"),
        ({"form": "log", "normalize": True}, "'log' cannot be normalised.*'log_clamped'"),
        ({"form": "none", "normalize": True}, "leaves every weight at 1"),
    ],
)
def test_impossible_weights_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DifficultyWeight(**options)  # type: ignore[arg-type]


def test_numbers_below_one_are_positive_too() -> None:
    assert DifficultyWeight("constant", value=0.5)([0.1, 0.9]).tolist() == [0.5, 0.5]
    weights = DifficultyWeight("power", exponent=0.5)([0.05, 0.8])
    assert weights.tolist() == pytest.approx([1.0, 0.5])


@pytest.mark.parametrize(("values", "size"), [([0.1] * 5, 2), ([[0.1, 0.2]], 2), ([0.1], 0)])
def test_no_whole_groups(values: list[float], size: int) -> None:
    with pytest.raises(ValueError, match="do not make whole groups"):
        group_means(values, size)


def test_every_form_says_whether_it_can_be_negative() -> None:
    numbers = {"constant": {"value": 2.0}}
    for form in DIFFICULTY_FORMS:
        weight = DifficultyWeight(form, **numbers.get(form, {}))
        weights = weight([0.0, 0.4, 1.0])
        assert weights.shape == (3,)
        assert weight.signed == bool((weights < 0).any())
