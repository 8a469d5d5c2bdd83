"""Two runs on the same samples: is one better, by how much, and what could this many samples show?

Everything is paired: a sample counts where both runs have it, and a difference is always B - A.
"""

from univg_eval.analysis.comparison._comparing import compare_runs
from univg_eval.analysis.comparison._result import (
    Comparison,
    Counts,
    Difference,
    Flip,
    Side,
    TaskComparison,
    Verdict,
)
from univg_eval.analysis.comparison._words import p_words, points

__all__ = [
    "Comparison",
    "Counts",
    "Difference",
    "Flip",
    "Side",
    "TaskComparison",
    "Verdict",
    "compare_runs",
    "p_words",
    "points",
]
