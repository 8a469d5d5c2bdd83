"""LFM2-VL and its successors: JSON with bbox and decimals on [0, 1]."""

from univg_eval.dialects.family import Confidence, Dialect, NormDecimal, four_in, grammar

DIALECTS = (
    Dialect(
        name="lfm2_vl",
        model_types=("lfm2_vl", "lfm3_vl"),
        families=("LFM2-VL", "LFM2.5-VL", "LFM3-VL"),
        form='[{"label": "...", "bbox": [x1, y1, x2, y2]}], decimals',
        space=NormDecimal(3),
        confidence=Confidence("high", "high", "high"),
        template='[{{"bbox": [{:.3f}, {:.3f}, {:.3f}, {:.3f}]}}]',
        labelled_template=('[{{"label": {json_label}, "bbox": [{:.3f}, {:.3f}, {:.3f}, {:.3f}]}}]'),
        several=("[", ", ", "]"),
        prompt_suffix=(
            'Provide result as a valid JSON: [{"label": str, "bbox": [x1,y1,x2,y2]}, ...]. '
            "Coordinates should be normalized to 0-1."
        ),
        grammar=grammar(four_in("[", "]"), keys=("bbox",)),
        sources=("Liquid4All/cookbook examples/satellite-vlm",),
        sources_read="2026-11-29",
        notes=("the prompt is the vendor's, with the range named",),
    ),
)
