"""Model types of transformers that have no dialect, and why: nothing to read, or nothing stated.

With the dialects' own ``model_types`` and `unknown.UNKNOWN_SCALES` they cover every image-text type
of transformers. A model type that is missing here is not known at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["WITHOUT_BOXES"]

_DOCUMENTS = "reads documents, formulas or charts; no source on boxes for expressions has been read"
_WORDS = "describes images in words; no documented box form"
_OTHER_OUTPUT = "made for other output: images, labels, actions"
_NOT_READ = "no source on its box form has been read"

_GROUPS = {
    _DOCUMENTS: (
        "deepseek_ocr2 got_ocr2 glm_ocr kosmos-2.5 lighton_ocr minicpm_ocr paddleocr_vl pix2struct "
        "pp_chart2table pp_formulanet qianfan_ocr udop unlimited_ocr vision-encoder-decoder"
    ),
    _WORDS: "blip blip-2 git idefics idefics2 idefics3 instructblip instructblipvideo",
    _OTHER_OUTPUT: "chameleon diffusion_gemma emu3 evolla janus pi0 shieldgemma2",
    _NOT_READ: (
        "apertus1p5 aria aya_vision cohere2_vision cohere_compass deepseek_vl deepseek_vl_hybrid "
        "dots3_note exaone4_5 fast_vlm fuyu glmga granite4_vision hy_v4_vl hyperclovax_vision_v2 "
        "llava_next_video minimax_m3_vl nemotron_h_omni perception_lm smolvlm t5gemma2 "
        "video_llama_3 video_llava vipllava"
    ),
}

WITHOUT_BOXES: Mapping[str, str] = MappingProxyType(
    {model_type: why for why, types in _GROUPS.items() for model_type in types.split()}
)
"""Why a ``model_type`` has no dialect."""
