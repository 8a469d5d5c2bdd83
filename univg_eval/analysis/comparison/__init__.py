"""Two runs on the same samples: is one better, by how much, and what could this many samples show?

Everything is paired: a sample counts where both runs have it, and a difference is always B - A.
"""

from univg_eval.analysis.comparison.comparing import Comparison, Flip, Side, compare_runs
from univg_eval.analysis.comparison.words import Conclusion, p_words, points

__all__ = [
    "Comparison",
    "Conclusion",
    "Flip",
    "Side",
    "compare_runs",
    "p_words",
    "points",
]
