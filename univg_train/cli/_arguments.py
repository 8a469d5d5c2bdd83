"""Types of numbers on the command line."""

from __future__ import annotations

import argparse

__all__ = ["count", "number_from_zero", "positive_int", "positive_number"]


def positive_int(text: str) -> int:
    """A whole number from 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return value


def count(text: str) -> int:
    """A whole number from 0."""
    return 0 if text == "0" else positive_int(text)


def positive_number(text: str) -> float:
    """A finite number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def number_from_zero(text: str) -> float:
    """A finite number from 0."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0")
    return value
