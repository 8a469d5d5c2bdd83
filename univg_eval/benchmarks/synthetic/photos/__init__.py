"""photos: a hundred samples on real photographs, for a test of a few minutes.

Six photographs come inside scikit-image, scikit-learn and matplotlib; sixteen boxes on them were
measured by hand, and composites made from them have boxes that are known exactly.
"""

from univg_eval.benchmarks.synthetic.photos.builder import (
    BENCHMARK,
    DEFAULT_N,
    DEFAULT_SEED,
    GENERATOR_VERSION,
    TASKS,
    ensure,
)
from univg_eval.benchmarks.synthetic.photos.sources import (
    Annotation,
    Photo,
    load_photo,
    read_sources,
)

__all__ = [
    "BENCHMARK",
    "DEFAULT_N",
    "DEFAULT_SEED",
    "GENERATOR_VERSION",
    "TASKS",
    "Annotation",
    "Photo",
    "ensure",
    "load_photo",
    "read_sources",
]
