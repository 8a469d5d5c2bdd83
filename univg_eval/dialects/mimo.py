"""MiMo-VL: Qwen2.5-VL's JSON in pixels of the resized input, after a <think> block."""

from univg_eval.dialects.family import Confidence, Dialect, InputPixels
from univg_eval.dialects.qwen import BBOX_2D, BBOX_2D_LABELLED, QWEN_JSON

DIALECTS = (
    Dialect(
        name="mimo_vl",
        model_types=("mimo_vl",),
        families=("MiMo-VL-7B", "MiMo-V2"),
        form='```json list of {"bbox_2d": [x1, y1, x2, y2], "label": "..."} after <think>',
        space=InputPixels(28, 3136, 12845056),
        confidence=Confidence("high", "high", "high"),
        template=BBOX_2D,
        labelled_template=BBOX_2D_LABELLED,
        prompt_suffix="Report the bounding box coordinates in JSON format.",
        grammar=QWEN_JSON,
        sources=(
            "XiaomiMiMo/MiMo-VL examples/grounding.ipynb",
            "ms-swift swift/template/templates/mimo.py",
        ),
        notes=("the input size depends on the pixel limits of the run; record it where possible",),
    ),
)
