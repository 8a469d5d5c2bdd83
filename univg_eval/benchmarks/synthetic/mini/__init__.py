"""univg_mini: fifteen small generated tasks that mirror MIG-Bench and the zero-shot splits.

They test a whole evaluation pipeline and basic skills offline; they are not MIG-Bench itself.
"""

from univg_eval.benchmarks.synthetic.mini.aids import Referring, listing, referring
from univg_eval.benchmarks.synthetic.mini.builder import BENCHMARK, DEFAULT_SIZE, ensure
from univg_eval.benchmarks.synthetic.mini.generator import (
    DEFAULT_N,
    DEFAULT_SEED,
    GENERATOR_VERSION,
    TASKS,
    generate,
)
from univg_eval.benchmarks.synthetic.mini.item import Clip, MiniItem
from univg_eval.benchmarks.synthetic.mini.layout import HELD_OUT
from univg_eval.benchmarks.synthetic.mini.scene import COLORS, SHAPES, Scene, SceneObject
from univg_eval.benchmarks.synthetic.mini.tasks_tools import HELD_OUT_TOOLS

__all__ = [
    "BENCHMARK",
    "COLORS",
    "DEFAULT_N",
    "DEFAULT_SEED",
    "DEFAULT_SIZE",
    "GENERATOR_VERSION",
    "HELD_OUT",
    "HELD_OUT_TOOLS",
    "SHAPES",
    "TASKS",
    "Clip",
    "MiniItem",
    "Referring",
    "Scene",
    "SceneObject",
    "ensure",
    "generate",
    "listing",
    "referring",
]
