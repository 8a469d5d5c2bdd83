"""VLM-R1 (Qwen2.5-VL, REC and OVD): JSON in pixels of the resized input, inside <answer>.

Its InternVL variant writes bare lists on 0-1000: that is the dialect ``internvl``.
"""

from dataclasses import replace

from univg_eval.dialects.family import Confidence
from univg_eval.dialects.qwen import QWEN2_5_VL

DIALECTS = (
    replace(
        QWEN2_5_VL,
        official_prompt="",
        name="vlm_r1",
        model_types=(),
        families=("VLM-R1 Qwen2.5-VL-3B-REC", "VLM-R1 Qwen2.5-VL-3B-OVD"),
        form='<think>...</think><answer>{"bbox_2d": [x1, y1, x2, y2]}</answer>, or a ```json list',
        confidence=Confidence("high", "high", "medium"),
        prompt_suffix="Output the final answer in JSON format.",
        sources=(
            "om-ai-lab/VLM-R1 src/eval/test_rec_r1.py and qwen_module.py",
            "om-ai-lab/VLM-R1 issue 198",
        ),
        sources_read="2026-11-29",
        notes=(
            "the input size is image_grid_thw * 14, as the processor made it",
            "medium confidence in the scale: the released checkpoints (February and March 2025) "
            "are older than the fix of the resize in the training code (2025-06-26), and a "
            "maintainer says of them 'absolute bbox before resize' (issue 198); try pixels too",
        ),
    ),
)
