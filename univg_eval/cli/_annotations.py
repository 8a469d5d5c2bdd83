"""The arguments that say which annotation file of MIG-Bench is meant; shared by the commands."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from univg_eval.errors import UserError

if TYPE_CHECKING:
    from univg_eval.benchmarks.readers import mig_bench
    from univg_eval.samples import GroundingSample

__all__ = ["REVISIONS", "add_revision_arguments", "read", "resolve_revision", "revision_names"]

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


def revision_names() -> dict[str, str]:
    """Benchmark → its revision, for the benchmarks that such a file makes."""
    from univg_eval.benchmarks.readers.mig_bench import REVISIONS as KNOWN

    return {revision.benchmark: revision.name for revision in KNOWN.values()}


def resolve_revision(benchmark: str, revision: str | None) -> str:
    """The revision that a benchmark's name and ``--revision`` agree on.

    Raises:
        UserError: the benchmark is not MIG-Bench, or the two contradict each other.
    """
    names = revision_names()
    if benchmark not in names:
        raise UserError(
            f"benchmark {benchmark!r} has no annotation file that this command reads; it reads "
            f"those of: {', '.join(names)}"
        )
    named = names[benchmark]
    if benchmark == "mig_bench":
        return revision or named
    if revision not in (None, named):
        raise UserError(
            f"benchmark {benchmark!r} is the revision {named!r}, but --revision says {revision!r}"
        )
    return named


def read(
    benchmark: str, annotations: Path, revision: str | None, scale: int | None
) -> tuple[mig_bench.Revision, list[GroundingSample]]:
    """Read an annotation file of MIG-Bench as the arguments say.

    Returns:
        The revision, and the samples in file order.
    """
    from univg_eval.benchmarks.readers import mig_bench

    known = mig_bench.get_revision(resolve_revision(benchmark, revision))
    return known, mig_bench.read_annotations(annotations, revision=known.name, scale=scale)
