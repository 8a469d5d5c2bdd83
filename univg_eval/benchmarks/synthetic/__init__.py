"""Benchmarks that are generated on first use."""

from univg_eval.benchmarks.readers.common.entry import CatalogEntry

ENTRIES = (
    CatalogEntry(
        name="mini",
        folder="univg_mini",
        title="univg_mini, fifteen small generated tasks that mirror the others",
        builder="univg_eval.benchmarks.synthetic.mini:ensure",
        options=("n", "seed"),
        tasks={"univg_mini": None},
        licence="Apache-2.0 (made by this project)",
        comparable_with_published=False,
        published="none: a test of pipelines and basic skills",
    ),
    CatalogEntry(
        name="mini_plus",
        folder="univg_mini_plus",
        title="univg_mini_plus, five small generated tasks with several objects, or none",
        builder="univg_eval.benchmarks.synthetic.mini_plus:ensure",
        options=("n", "seed"),
        tasks={"univg_mini_plus": None},
        licence="Apache-2.0 (made by this project)",
        comparable_with_published=False,
        published="none: a test of pipelines and basic skills",
    ),
    CatalogEntry(
        name="photos",
        title="real photographs from installed packages, and composites with known boxes",
        builder="univg_eval.benchmarks.synthetic.photos:ensure",
        options=("n", "seed"),
        tasks={"univg_photos": None},
        licence="boxes: Apache-2.0 (made by this project); photographs: as in their packages",
        comparable_with_published=False,
        published="none: the samples of `univg check`",
    ),
)
