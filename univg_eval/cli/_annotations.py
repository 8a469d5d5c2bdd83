"""The arguments that say which annotation file of MIG-Bench is meant; shared by the commands."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from univg_eval.errors import UserError

if TYPE_CHECKING:
    from univg_eval.benchmarks.readers.mig_bench import Revision

__all__ = ["REVISIONS", "add_revision_arguments", "resolve_revision"]

# Those of `readers.mig_bench`, which `--help` does not wait for: it loads numpy.
REVISIONS = ("original", "revised")


def add_revision_arguments(parser: argparse._ActionsContainer) -> None:
    """Add ``--revision`` and ``--scale``."""
    parser.add_argument(
        "--revision",
        choices=REVISIONS,
        help="which of the two published files it is: original (MIG_data.json, the default) or "
        "revised (revised_MIG_bench.json; makes the benchmark mig_bench_revised)",
    )
    parser.add_argument(
        "--scale",
        type=int,
        choices=(1, 1000),
        help="range of the numbers in 'answer': 1 for 0-1 (what the original has) or 1000",
    )


def resolve_revision(benchmark: str, revision: str | None) -> Revision:
    """The revision that a benchmark's name and ``--revision`` agree on.

    Raises:
        UserError: the benchmark is not MIG-Bench, or the two contradict each other.
    """
    from univg_eval.benchmarks.readers.mig_bench import REVISIONS as KNOWN

    named = {known.benchmark: known for known in KNOWN.values()}
    if benchmark not in named:
        raise UserError(
            f"benchmark {benchmark!r} has no annotation file that this command reads; it reads "
            f"those of: {', '.join(named)}"
        )
    if revision is None or revision == named[benchmark].name:
        return named[benchmark]
    if benchmark != "mig_bench":
        raise UserError(
            f"benchmark {benchmark!r} is the revision {named[benchmark].name!r}, but --revision "
            f"says {revision!r}"
        )
    return KNOWN[revision]
