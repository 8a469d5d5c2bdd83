"""Leaderboards: runs and published rows in one table, with marks that say what can be compared.

`build_leaderboards` makes the tables; `make_sheet` turns one into texts that ``terminal``,
``markdown`` and ``latex`` lay out; ``data`` has JSON and CSV.
"""

from univg_eval.leaderboard.building import build_leaderboards
from univg_eval.leaderboard.intervals import Estimate, macro_estimate, task_estimate
from univg_eval.leaderboard.marks import BREAKING, MEANINGS, Mark
from univg_eval.leaderboard.sheet import make_sheet
from univg_eval.leaderboard.table import Leaderboard, Row

__all__ = [
    "BREAKING",
    "MEANINGS",
    "Estimate",
    "Leaderboard",
    "Mark",
    "Row",
    "build_leaderboards",
    "macro_estimate",
    "make_sheet",
    "task_estimate",
]
