"""Shikra: three decimals without spaces, on [0, 1] of the image padded to a square."""

from univg_eval.dialects.family import COMMA, Confidence, Dialect, PaddedSquare, four_in, grammar

DIALECTS = (
    Dialect(
        name="shikra",
        model_types=("shikra",),
        families=("Shikra",),
        form="phrase [x1,y1,x2,y2], three decimals; several boxes: [...;...]",
        space=PaddedSquare(3),
        confidence=Confidence("high", "high", "high"),
        template="[{:.3f},{:.3f},{:.3f},{:.3f}]",
        labelled_template="{label} [{:.3f},{:.3f},{:.3f},{:.3f}]",
        several=("[", ";", "]"),
        prompt_suffix="Answer with the coordinates [x1,y1,x2,y2] only.",
        grammar=grammar(four_in("[", "]", COMMA, more=";")),
        sources=(
            "shikras/shikra mllm/dataset/process_function/box_process_function.py",
            "shikras/shikra config/_base_/model/shikra.py",
        ),
        notes=("its own metric counts more than one box as a failed extraction",),
    ),
)
