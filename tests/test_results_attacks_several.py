"""Attacks on the rewards of several targets: none pays under the default."""

from __future__ import annotations

import pytest
from scripts import load_script

load_script("results/benchmarks/attacks.py")  # which the other one imports by its name
several = load_script("results/benchmarks/attacks_several.py")

N_CASES = 30
# Two guesses where one of two is right: F1 is 2 T / (2 T + T).
PAY_UNDER_F1 = {
    "two guesses for each target",
    "a list of guesses, then another one",
    "the right boxes on both images",
}


@pytest.mark.parametrize("attack", several.ATTACKS, ids=lambda attack: attack.name)
def test_no_attack_pays_under_the_default(attack) -> None:
    attacked, honest = several.measure(attack, "matched_iou", N_CASES)
    assert attacked <= honest
    attacked, honest = several.measure(attack, "f1@0.5", N_CASES)
    assert (attacked > honest) == (attack.name in PAY_UNDER_F1)


def test_the_honest_answer_is_read() -> None:
    """Without this, every comparison would hold for a reward that reads nothing."""
    cases = several.make_cases(N_CASES)
    truth = [several.written(case.targets) for case in cases]
    assert several.rewards(truth, cases, "f1@0.5", finds=False) == 1.0
    assert several.rewards(truth, cases, "matched_iou", finds=False) > 0.98
    named = [f"Image {case.image + 1}: {text}" for case, text in zip(cases, truth, strict=True)]
    assert several.rewards(named, cases, "f1@0.5", finds=True) == 1.0
    absent = several.make_cases(N_CASES, absent=1.0)
    assert several.rewards([several.NONE] * N_CASES, absent, "f1@0.5", finds=False) == 1.0
