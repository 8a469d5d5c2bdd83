"""UniVG-R1 and Migician: Qwen2-VL's pairs on 0-1000, of several images.

model_type alone does not tell these models from Qwen2-VL; form and scale are the same, so the
dialect ``qwen2_vl`` reads them alike. What differs is the prompt.
"""

from dataclasses import replace

from univg_eval.dialects.family import Confidence, Dialect, NormInt
from univg_eval.dialects.qwen import QWEN2_VL, QWEN_PAIRS

DIALECTS = (
    Dialect(
        name="univg_r1",
        families=("UniVG-R1",),
        form="<think>...</think> <answer>(x1,y1),(x2,y2)</answer>",
        space=NormInt(1000),
        confidence=Confidence("high", "high", "high"),
        template="({},{}),({},{})",
        prompt_suffix=(
            "Output the bounding box as (x1,y1),(x2,y2) in <answer> </answer> tags, without a "
            "thinking process."
        ),
        grammar=QWEN_PAIRS,
        sources=(
            "AMAP-ML/UniVG-R1 src/open-r1-multimodal/src/open_r1/vlm_modules/qwen_module.py",
            "AMAP-ML/UniVG-R1 eval/zero_shot/lisa_evaluation/eval.py",
        ),
        notes=("boxes inside <think> are no answers",),
    ),
    replace(
        QWEN2_VL,
        name="migician",
        model_types=(),
        families=("Migician",),
        form="It's in the third image. <|box_start|>(x1,y1),(x2,y2)<|box_end|>",
        sources=("thunlp/Migician README.md and issue 7",),
        notes=("which image shows the object stands in words only",),
    ),
)
