"""The Qwen families: pairs on 0-1000 (Qwen-VL, Qwen2-VL), JSON in pixels (2.5), JSON on 0-1000 (3).

Nothing in the text separates the JSON of Qwen2.5-VL (pixels of the resized input) from that of
Qwen3-VL (0-1000): the dialect has to be declared.
"""

from dataclasses import replace

from univg_eval.dialects.family import (
    PAIR,
    PAIRS,
    Confidence,
    Dialect,
    InputPixels,
    NormInt,
    four_in,
    grammar,
)

QWEN_PAIRS = grammar(PAIRS, keys=None)
QWEN_JSON = grammar(four_in("[", "]"), PAIRS, keys=("bbox_2d", "bbox", "box", "bounding_box"))
_BBOX_2D = '{{"bbox_2d": [{}, {}, {}, {}]}}'
_BBOX_2D_LABELLED = '{{"bbox_2d": [{}, {}, {}, {}], "label": {json_label}}}'

_JSON = '```json list of {"bbox_2d": [x1, y1, x2, y2], "label": "..."}; a bare object or list'
_LEGACY = "(x1,y1),(x2,y2) of Qwen2-VL, which fine-tuned models keep, is read on the same scale"

QWEN_VL = Dialect(
    name="qwen_vl",
    model_types=("qwen_vl",),
    families=("Qwen-VL", "Qwen-VL-Chat"),
    form="<ref>phrase</ref><box>(x1,y1),(x2,y2)</box>, one <box> an object",
    space=NormInt(1000, largest=999),
    confidence=Confidence("high", "high", "high"),
    template="<box>({},{}),({},{})</box>",
    labelled_template="<ref>{label}</ref><box>({},{}),({},{})</box>",
    several=("", "", ""),
    prompt_suffix="Format:<box>(x1,y1),(x2,y2)</box>. Don't generate additional words.",
    grammar=QWEN_PAIRS,
    sources=(
        "QwenLM/Qwen-VL eval_mm/evaluate_grounding.py",
        "QwenLM/Qwen-VL issue 384",
        "ms-swift swift/template/templates/qwen.py",
    ),
    notes=(
        "the official scorer divides by 999, everything else by 1000: a difference of 0.1 %",
        "with the grounding prompt the opening <box> belongs to the prompt",
    ),
)
QWEN2_VL = Dialect(
    name="qwen2_vl",
    model_types=("qwen2_vl",),
    families=("Qwen2-VL", "QVQ"),
    form="<|object_ref_start|>phrase<|object_ref_end|><|box_start|>(x1,y1),(x2,y2)<|box_end|>",
    space=NormInt(1000),
    confidence=Confidence("high", "high", "high"),
    template="<|box_start|>({},{}),({},{})<|box_end|>",
    labelled_template=(
        "<|object_ref_start|>{label}<|object_ref_end|><|box_start|>({},{}),({},{})<|box_end|>"
    ),
    several=("", "", ""),
    # Word for word as published with MIG-Bench, misspelling included.
    prompt_suffix=(
        "Format:<|box_start|>(x1,y1),(x2,y2)<|box_end|>. Don't generate addtional words."
    ),
    grammar=QWEN_PAIRS,
    sources=(
        "QwenLM/Qwen3-VL issue 9",
        "ms-swift docs/source_en/Customization/Custom-dataset.md",
        "AMAP-ML/UniVG-R1 eval/MIG_bench",
    ),
    notes=(
        "decoding without special tokens leaves the bare (x1,y1),(x2,y2)",
        "another scale than Qwen2.5-VL",
    ),
)
QWEN2_5_VL = Dialect(
    name="qwen2_5_vl",
    model_types=("qwen2_5_vl", "qwen2_5_omni", "qwen2_5_omni_thinker"),
    families=("Qwen2.5-VL", "Qwen2.5-Omni"),
    form=_JSON,
    space=InputPixels(28, 3136, 12845056),
    confidence=Confidence("high", "high", "high"),
    template=_BBOX_2D,
    labelled_template=_BBOX_2D_LABELLED,
    prompt_suffix="Report the bounding box coordinates in JSON format.",
    official_prompt=(
        "Locate {expression} in this image and output the bbox coordinates in JSON format."
    ),
    grammar=QWEN_JSON,
    sources=(
        "QwenLM/Qwen3-VL issues 940 and 1427",
        "QwenLM/Qwen3-VL issue 991: official prompt (RefCOCO)",
        "ms-swift docs/source_en/Customization/Custom-dataset.md",
        "qwen_vl_utils 0.0.14 vision_process.py",
        "roboflow/supervision supervision/detection/vlm.py",
    ),
    sources_read="2026-11-30",
    notes=(
        "the same JSON as Qwen3-VL on another scale",
        "the input size depends on the pixel limits of the run; record it where possible",
        _LEGACY,
        "Qwen2.5-Omni: by ms-swift's template only",
    ),
)
_QWEN3_OFFICIAL = (
    'Locate every object that matches the description "{expression}" in the image. '
    "Report bbox coordinates in JSON format."
)
QWEN3_VL = Dialect(
    name="qwen3_vl",
    model_types=("qwen3_vl", "qwen3_vl_moe", "qwen3_omni_moe", "qwen3_omni_moe_thinker"),
    families=("Qwen3-VL", "Qwen3-Omni"),
    form=_JSON,
    space=NormInt(1000),
    confidence=Confidence("high", "high", "high"),
    template=_BBOX_2D,
    labelled_template=_BBOX_2D_LABELLED,
    prompt_suffix="Report the bounding box coordinates in JSON format.",
    official_prompt=_QWEN3_OFFICIAL,
    official_prompt_all=_QWEN3_OFFICIAL,
    grammar=QWEN_JSON,
    point_form='```json list of {"point_2d": [x, y], "label": "..."}',
    point_grammar=grammar(PAIR, keys=("point_2d",), points=True),
    sources=(
        "QwenLM/Qwen3-VL README.md and issues 1427, 1485, 1741",
        "QwenLM/Qwen3-VL issue 1721: official prompt (RefCOCO)",
        "QwenLM/Qwen3-VL evaluation/ODinW-13/run_odinw.py",
        "QwenLM/Qwen3-VL cookbooks/spatial_understanding.ipynb: points",
        "ms-swift docs/source_en/BestPractices/Qwen3-VL-Best-Practice.md",
    ),
    sources_read="2026-11-30",
    notes=(
        "the same JSON as Qwen2.5-VL on another scale",
        "the thinking may hold pixels while the answer is on 0-1000",
        _LEGACY,
    ),
)
QWEN3_5 = replace(
    QWEN3_VL,
    name="qwen3_5",
    model_types=("qwen3_5", "qwen3_5_moe", "qwen4_exp"),
    families=("Qwen3.5", "Qwen3.6", "Qwen3.7", "Qwen3.8", "Qwen3.8-Flash-Next"),
    official_prompt="",
    official_prompt_all="",
    confidence=Confidence("medium", "medium", "high"),
    sources=(
        "ms-swift docs/source_en/BestPractices/Qwen3_8-Best-Practice.md",
        "QwenLM/Qwen3.8-Flash-Next issue 4",
        "ms-swift 4.6.0 (qwen4_exp has the template of qwen3_5)",
    ),
    sources_read="2026-11-29",
    notes=(
        "form and order are taken over from Qwen3-VL: medium confidence",
        "values above 1000 are reported now and then: read as reaching outside the image",
    ),
)

DIALECTS = (QWEN_VL, QWEN2_VL, QWEN2_5_VL, QWEN3_VL, QWEN3_5)
