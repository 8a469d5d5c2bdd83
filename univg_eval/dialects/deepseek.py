"""DeepSeek-VL2: lists between <|det|> tags, on 0-999 of the unpadded original."""

from univg_eval.dialects.family import Confidence, Dialect, NormInt, four_in, grammar

DIALECTS = (
    Dialect(
        name="deepseek_vl2",
        model_types=("deepseek_vl_v2",),
        families=("DeepSeek-VL2",),
        form="<|ref|>phrase<|/ref|><|det|>[[x1, y1, x2, y2]]<|/det|>, several lists in one <|det|>",
        space=NormInt(999, largest=999),
        confidence=Confidence("high", "high", "high"),
        template="<|det|>[[{}, {}, {}, {}]]<|/det|>",
        labelled_template="<|ref|>{label}<|/ref|><|det|>[[{}, {}, {}, {}]]<|/det|>",
        several=("<|det|>[", ", ", "]<|/det|>"),
        prompt_suffix=(
            "Answer with the bounding box only, format:<|det|>[[x1, y1, x2, y2]]<|/det|>."
        ),
        grammar=grammar(four_in("[", "]")),
        sources=(
            "deepseek-ai/DeepSeek-VL2 README.md",
            "deepseek-ai/DeepSeek-VL2 deepseek_vl2/serve/app_modules/utils.py",
        ),
        notes=(
            "the model pads the image, but the numbers refer to the unpadded original",
            "no form names an image: of several, its own demo draws on the last",
        ),
    ),
)
