"""MiMo-VL: Qwen2.5-VL's JSON in pixels of the resized input, after a <think> block."""

from dataclasses import replace

from univg_eval.dialects.qwen import QWEN2_5_VL

DIALECTS = (
    replace(
        QWEN2_5_VL,
        official_prompt="",
        name="mimo_vl",
        model_types=("mimo_vl",),
        families=("MiMo-VL-7B", "MiMo-V2"),
        form='```json list of {"bbox_2d": [x1, y1, x2, y2], "label": "..."} after <think>',
        sources=(
            "XiaomiMiMo/MiMo-VL examples/grounding.ipynb",
            "ms-swift swift/template/templates/mimo.py",
        ),
        notes=("the input size depends on the pixel limits of the run; record it where possible",),
    ),
)
