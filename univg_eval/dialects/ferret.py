"""Ferret and Ferret-UI: integer lists on 0-1000."""

from univg_eval.dialects.family import Confidence, Dialect, NormInt, four_in, grammar

DIALECTS = (
    Dialect(
        name="ferret",
        model_types=("ferret_llama",),
        families=("Ferret", "Ferret-UI"),
        form="phrase [x1, y1, x2, y2], integers",
        space=NormInt(1000),
        confidence=Confidence("high", "high", "high"),
        template="[{}, {}, {}, {}]",
        labelled_template="{label} [{}, {}, {}, {}]",
        prompt_suffix="Answer with the bounding box as [x1, y1, x2, y2].",
        grammar=grammar(four_in("[", "]")),
        sources=("apple/ml-ferret ferret/eval/model_refcoco.py and eval_refexp.py",),
        notes=("the image is stretched to a square, not padded",),
    ),
)
