"""Published tables as data, and what their arithmetic allows.

The tables lie in ``results/published`` of a checkout (``share/univg/published`` of an
installation), a YAML file and a CSV file each; see ``docs/published.md``.
"""

from univg_eval.leaderboard.published.checks import (
    Inconsistency,
    average_is_reachable,
    check_reproductions,
    check_table,
    markdown_lines,
    rounded_means,
)
from univg_eval.leaderboard.published.denominators import (
    ROUNDINGS,
    Fit,
    feasible_counts,
    feasible_denominators,
    row_fits,
)
from univg_eval.leaderboard.published.tables import (
    BENCHMARK_TASKS,
    Counts,
    PublishedRow,
    PublishedTable,
    Reproduction,
    Reproductions,
    Role,
    load_counts,
    load_published,
    load_reproductions,
    published_folder,
)

__all__ = [
    "BENCHMARK_TASKS",
    "ROUNDINGS",
    "Counts",
    "Fit",
    "Inconsistency",
    "PublishedRow",
    "PublishedTable",
    "Reproduction",
    "Reproductions",
    "Role",
    "average_is_reachable",
    "check_reproductions",
    "check_table",
    "feasible_counts",
    "feasible_denominators",
    "load_counts",
    "load_published",
    "load_reproductions",
    "markdown_lines",
    "published_folder",
    "rounded_means",
    "row_fits",
]
