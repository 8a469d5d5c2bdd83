"""Leaderboards: runs and published rows in one table, with marks that say what can be compared.

`build_leaderboards` makes the tables; `formats` prints them, `published` reads what was printed.
"""

from univg_eval.analysis.stats import Estimate, macro_estimate, task_estimate
from univg_eval.leaderboard.marks import BREAKING, MEANINGS, Mark
from univg_eval.leaderboard.table import Leaderboard, Published, Row, build_leaderboards

__all__ = [
    "BREAKING",
    "MEANINGS",
    "Estimate",
    "Leaderboard",
    "Mark",
    "Published",
    "Row",
    "build_leaderboards",
    "macro_estimate",
    "task_estimate",
]
