"""The LLaVA families: decimals of a padded square (1.5), of the image (OneVision), integers (2)."""

from univg_eval.dialects.family import (
    Confidence,
    Dialect,
    NormDecimal,
    NormInt,
    PaddedSquare,
    four_in,
    grammar,
)

_GRAMMAR = grammar(four_in("[", "]"))

DIALECTS = (
    Dialect(
        name="llava_1_5",
        model_types=("llava",),
        families=("LLaVA-1.5",),
        form="[x1, y1, x2, y2], decimals, usually two digits",
        space=PaddedSquare(2),
        confidence=Confidence("high", "high", "medium"),
        template="[{:.2f}, {:.2f}, {:.2f}, {:.2f}]",
        prompt_suffix="Provide the bounding box coordinate as [x1, y1, x2, y2].",
        grammar=_GRAMMAR,
        sources=(
            "haotian-liu/LLaVA issues 606, 623 and 822",
            "transformers models/llava/image_processing_llava.py",
        ),
        notes=(
            "medium confidence in the scale: users dispute whether all training data was padded",
            "a checkpoint whose image processor crops instead of padding (do_pad false) does not "
            "fit this dialect",
        ),
    ),
    Dialect(
        name="llava_onevision",
        model_types=("llava_next", "llava_onevision"),
        families=("LLaVA-OneVision", "LLaVA-NeXT"),
        form="[x1, y1, x2, y2] or <box>[x1, y1, x2, y2]</box>, decimals",
        space=NormDecimal(3),
        confidence=Confidence("low", "medium", "low"),
        template="[{:.3f}, {:.3f}, {:.3f}, {:.3f}]",
        # As published with MIG-Bench, misspelling included.
        prompt_suffix="Format:<box>[x1, y1, x2, y2]</box>. Don't generate addtional words.",
        grammar=_GRAMMAR,
        sources=(
            "EvolvingLMMs-Lab/LLaVA-OneVision-2 tools/data_preprocess/quantize_bbox_to_1000.py",
            "thunlp/Migician eval/MIG_bench_eval.py",
        ),
        notes=(
            "low confidence: the frame is taken to be the original image; nothing says whether "
            "it is the padded square of the LLaVA-1.5 data",
        ),
    ),
    Dialect(
        name="llava_onevision_2",
        model_types=("llava_onevision2",),
        families=("LLaVA-OneVision-2",),
        form="[x1,y1,x2,y2], integers without spaces",
        space=NormInt(1000, largest=999),
        confidence=Confidence("medium", "high", "medium"),
        template="[{},{},{},{}]",
        prompt_suffix="Answer with the bounding box as [x1,y1,x2,y2].",
        grammar=_GRAMMAR,
        sources=(
            "EvolvingLMMs-Lab/LLaVA-OneVision-2 tools/data_preprocess/quantize_bbox_to_1000.py",
        ),
        notes=("medium confidence: from the training data's side only",),
    ),
)
