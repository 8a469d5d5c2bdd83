"""Attacks on the scorers of benchmarks' authors: what they pay, and what stands beside them."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts import load_script

load_script("results/benchmarks/attacks.py")  # which the next ones import by their names
load_script("results/benchmarks/attacks_several.py")
published = load_script("results/benchmarks/attacks_published.py")

N_CASES = 40
HONEST = "the right boxes, or that there are none"
# Attacks under which an own metric may be above zero: they say something that is right.
SAY_SOMETHING_RIGHT = {
    HONEST,
    "the right boxes, or nothing",
    "that there are none, everywhere",
    "one right box, five times",
    "the whole image, then that there are none",
    "the right boxes, pixels instead of 0-1000",
    "25 fixed boxes",
}


def share_absent(column) -> float:
    samples = published.samples_of(column, N_CASES)
    return sum(not sample.targets for sample in samples) / len(samples)


@pytest.mark.parametrize("column", published.COLUMNS, ids=lambda c: f"{c.rule} {c.published}")
def test_an_honest_perfect_answer_is_worth_everything_and_silence_nothing(column) -> None:
    assert 0.1 < share_absent(column) < 0.5
    theirs, own = published.measure(column, HONEST, N_CASES)
    assert own == 1.0 and theirs > 0.9
    theirs, own = published.measure(column, "nothing", N_CASES)
    assert own == 0.0
    # What an author's scorer pays for silence: the share of absent objects, or all of them.
    if column.published in ("rejection_score", "n_acc"):
        assert theirs == 1.0
    elif column.published != "weighted_ap50":
        assert theirs == pytest.approx(share_absent(column))


@pytest.mark.parametrize("attack", [name for name in published.ATTACKS if name != HONEST])
def test_no_attack_earns_an_own_metric_that_it_does_not_deserve(attack: str) -> None:
    for column in published.COLUMNS:
        _, own = published.measure(column, attack, N_CASES)
        assert own <= 1.0
        if attack not in SAY_SOMETHING_RIGHT:
            assert own == 0.0, column
    f1, recall, precision = published.own_metrics(attack, N_CASES)
    if attack not in SAY_SOMETHING_RIGHT:
        assert (f1, recall) == (0.0, 0.0)
    if "that there are none" in attack and recall:
        # Said everywhere it is right as often as objects are absent.
        assert precision == pytest.approx(share_absent(published.COLUMNS[-1]))


def test_the_figures_of_the_page_are_those_of_the_script() -> None:
    theirs, own = published.measure(published.COLUMNS[0], "one-pixel boxes inside the targets")
    assert (theirs, own) == (1.0, 0.0)
    page = (Path(published.__file__).with_name("attacks.md")).read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith("| one-pixel boxes"))
    assert row.split("|")[2].strip() == "**1.00 / 0.00**"
