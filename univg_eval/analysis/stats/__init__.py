"""Confidence intervals for shares and means over tasks, and tests of paired differences.

`task_estimate` and `macro_estimate` say which limits a task's value and the unweighted mean over
tasks get in every table and page: those of `wilson_interval` or of `macro_bootstrap`;
`runs_estimate` does so for several runs of one model, by `run_spread`. `compare_pairs` is for two
models on the same samples; its parts can be called alone. Everything takes clusters, the samples
that share images, where independence matters.

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
from univg_eval.analysis.stats._estimates import (
    METHODS,
    Estimate,
    Method,
    macro_estimate,
    runs_estimate,
    share_estimate,
    task_estimate,
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
    "METHODS",
    "MOST_EXACT",
    "Difference",
    "Estimate",
    "Interval",
    "Method",
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
    "macro_estimate",
    "mcnemar_test",
    "paired_bootstrap",
    "paired_share_interval",
    "run_spread",
    "runs_estimate",
    "share_estimate",
    "sign_flip_test",
    "smallest_difference",
    "smallest_difference_of_pairs",
    "task_estimate",
    "widened",
    "wilson_interval",
]
