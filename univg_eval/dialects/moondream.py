"""Moondream: detect() returns objects with named edges on [0, 1]; a reply is their JSON."""

from __future__ import annotations

from univg_eval.dialects._base import Confidence, Dialect
from univg_eval.dialects._grammar import grammar
from univg_eval.dialects._spaces import NormDecimal

__all__ = ["DIALECTS"]

DIALECTS = (
    Dialect(
        name="moondream",
        families=("Moondream 2",),
        form='{"objects": [{"x_min": .., "y_min": .., "x_max": .., "y_max": ..}]}',
        space=NormDecimal(3),
        confidence=Confidence("high", "high", "high"),
        template=(
            '{{"objects": [{{"x_min": {:.3f}, "y_min": {:.3f}, "x_max": {:.3f}, '
            '"y_max": {:.3f}}}]}}'
        ),
        prompt_suffix="",
        grammar=grammar(keys=("objects",), named_corners=True),
        sources=("vikhyat/moondream moondream/torch/moondream.py",),
        notes=("edges slightly outside [0, 1] occur (centre plus and minus half a size)",),
    ),
)
