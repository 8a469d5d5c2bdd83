"""Confidence intervals for shares and means over tasks, and tests of paired differences.

`wilson_interval` is for one task's share and `macro_bootstrap` for the unweighted mean over tasks.
For two runs on the same samples there are `paired_bootstrap` and `paired_share_interval`
(differences), `mcnemar_test`, `sign_flip_test` and `holm` (p values), and
`smallest_difference_of_pairs` and `smallest_difference` (power). Everything takes clusters, the
samples that share images, where independence matters.

Coverage and size were checked by simulation, also for n = 40 and p = 0.02 (``tests/test_stats.py``,
``tests/test_paired_stats.py``, ``results/benchmarks/interval_coverage.py``,
``results/benchmarks/paired_coverage.py``; figures in ``docs/compare.md``).
"""

from univg_eval.analysis.stats._clusters import cluster_sums
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
from univg_eval.analysis.stats._power import smallest_difference, smallest_difference_of_pairs
from univg_eval.analysis.stats._tests import (
    MOST_EXACT,
    binomial_tail,
    holm,
    mcnemar_test,
    sign_flip_test,
)

__all__ = [
    "MOST_EXACT",
    "Interval",
    "PairedIntervals",
    "binomial_tail",
    "cluster_sums",
    "holm",
    "macro_bootstrap",
    "macro_draws",
    "mcnemar_test",
    "paired_bootstrap",
    "paired_share_interval",
    "sign_flip_test",
    "smallest_difference",
    "smallest_difference_of_pairs",
    "wilson_interval",
]
