"""Confidence intervals for shares and means over tasks, and tests of paired differences.

`wilson_interval` is for one task's share, `macro_bootstrap` for the unweighted mean over tasks,
`compare_pairs` for two models on the same samples; its parts can be called alone. Everything takes
clusters, the samples that share images, where independence matters. `run_spread` is for several
runs of one model.

Coverage and size were checked by simulation, also for n = 40 and p = 0.02
(``results/benchmarks/interval_coverage.py`` and ``paired_coverage.py``; ``docs/compare.md``).
"""

from univg_eval.analysis.stats._clusters import cluster_sums
from univg_eval.analysis.stats._compare import (
    LEVEL,
    Difference,
    PairCounts,
    PairedComparison,
    TaskComparison,
    compare_pairs,
)
from univg_eval.analysis.stats._intervals import (
    Interval,
    macro_bootstrap,
    macro_draws,
    wilson_interval,
)
from univg_eval.analysis.stats._paired import (
    PairedIntervals,
    paired_bootstrap,
    paired_share_interval,
)
from univg_eval.analysis.stats._runs import RunSpread, run_spread, widened
from univg_eval.analysis.stats._tests import (
    MOST_EXACT,
    binomial_tail,
    holm,
    mcnemar_test,
    sign_flip_test,
    smallest_difference,
    smallest_difference_of_pairs,
)

__all__ = [
    "LEVEL",
    "MOST_EXACT",
    "Difference",
    "Interval",
    "PairCounts",
    "PairedComparison",
    "PairedIntervals",
    "RunSpread",
    "TaskComparison",
    "binomial_tail",
    "cluster_sums",
    "compare_pairs",
    "holm",
    "macro_bootstrap",
    "macro_draws",
    "mcnemar_test",
    "paired_bootstrap",
    "paired_share_interval",
    "run_spread",
    "sign_flip_test",
    "smallest_difference",
    "smallest_difference_of_pairs",
    "widened",
    "wilson_interval",
]
