"""Kimi-VL: Qwen's key with decimals on [0, 1] (medium confidence: seen by users, not stated)."""

from univg_eval.dialects.family import Confidence, Dialect, NormDecimal, four_in, grammar

DIALECTS = (
    Dialect(
        name="kimi_vl",
        model_types=("kimi_vl",),
        families=("Kimi-VL",),
        form='{"bbox_2d": [x1, y1, x2, y2]}, decimals',
        space=NormDecimal(3),
        confidence=Confidence("medium", "high", "medium"),
        template='{{"bbox_2d": [{:.3f}, {:.3f}, {:.3f}, {:.3f}]}}',
        labelled_template=(
            '{{"bbox_2d": [{:.3f}, {:.3f}, {:.3f}, {:.3f}], "label": {json_label}}}'
        ),
        prompt_suffix='Answer with the bounding box as JSON: {"bbox_2d": [x1, y1, x2, y2]}.',
        grammar=grammar(four_in("[", "]"), keys=("bbox_2d", "bbox", "box", "bounding_box")),
        sources=(
            "MoonshotAI/Kimi-VL issues 52 and 56",
            "likaixin2000/ScreenSpot-Pro-GUI-Grounding models/kimivl.py",
        ),
        notes=(
            "medium confidence: no maintainer's statement",
            "click(x=..., y=...) is a point and no box",
            "the same key as Qwen's, on another scale",
        ),
    ),
)
