"""MiMo: Qwen2.5-VL's JSON in pixels of the resized input, after a <think> block.

MiMo-VL-7B resizes to multiples of 28. MiMo-V2.5 has patches of 16 and merges two by two, which
makes 32; whether it writes pixels at all is not settled.
"""

from dataclasses import replace

from univg_eval.dialects.family import Confidence, InputPixels
from univg_eval.dialects.qwen import QWEN2_5_VL

_MIMO_VL = replace(
    QWEN2_5_VL,
    official_prompt="",
    official_prompt_all="",
    name="mimo_vl",
    model_types=("mimo_vl",),
    families=("MiMo-VL-7B",),
    form='```json list of {"bbox_2d": [x1, y1, x2, y2], "label": "..."} after <think>',
    sources=(
        "XiaomiMiMo/MiMo-VL examples/grounding.ipynb",
        "ms-swift swift/template/templates/mimo.py",
    ),
    sources_read="2026-11-29",
    notes=("the input size depends on the pixel limits of the run; record it where possible",),
)

DIALECTS = (
    _MIMO_VL,
    replace(
        _MIMO_VL,
        name="mimo_v2_5",
        model_types=(),
        families=("MiMo-V2.5",),
        # As many squares as MiMo-VL's limits allow, each of 32 x 32.
        space=InputPixels(32, 4096, 16777216),
        confidence=Confidence("medium", "medium", "low"),
        sources=(
            "XiaomiMiMo/MiMo-V2.5 preprocessor_config.json (patch 16, merge 2)",
            "ms-swift swift/template/templates/mimo.py",
            "roboflow/vlm-exam src/vlm_exam/configs/models.yaml (07d4445)",
        ),
        sources_read="2026-11-29",
        notes=(
            "low confidence in the scale: ms-swift says pixels of the resized input, a probe of "
            "V2.6 with 50 images preferred 0-1000; try norm1000 too",
            "form and order are MiMo-VL's (medium), and so are the pixel limits in squares",
        ),
    ),
)
