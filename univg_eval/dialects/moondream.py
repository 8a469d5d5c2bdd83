"""Moondream: detect() returns objects with named edges on [0, 1]; a reply is their JSON."""

from univg_eval.dialects.family import XY_OBJECT, Confidence, Dialect, NormDecimal, grammar

DIALECTS = (
    Dialect(
        name="moondream",
        model_types=("moondream1",),
        families=("Moondream 2",),
        form='{"objects": [{"x_min": .., "y_min": .., "x_max": .., "y_max": ..}]}',
        space=NormDecimal(3),
        confidence=Confidence("high", "high", "high"),
        template=(
            '{{"objects": [{{"x_min": {:.3f}, "y_min": {:.3f}, "x_max": {:.3f}, '
            '"y_max": {:.3f}}}]}}'
        ),
        several=('{"objects": [', ", ", "]}"),
        prompt_suffix="",
        grammar=grammar(keys=("objects",), named_corners=True),
        point_form='{"points": [{"x": .., "y": ..}]}',
        point_grammar=grammar(XY_OBJECT, keys=("points",), points=True),
        sources=("vikhyat/moondream moondream/torch/moondream.py",),
        notes=("edges slightly outside [0, 1] occur (centre plus and minus half a size)",),
    ),
)
