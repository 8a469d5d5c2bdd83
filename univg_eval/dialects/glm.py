"""GLM-V: brackets of several styles between <|begin_of_box|> and <|end_of_box|>.

Those marks enclose any final answer, a number or a choice too.
"""

from univg_eval.dialects.family import Confidence, Dialect, NormInt, four_in, grammar, in_tags

DIALECTS = (
    Dialect(
        name="glm_v",
        model_types=("glm4v", "glm4v_moe", "glm46v"),
        families=("GLM-4.5V", "GLM-4.1V-Thinking", "GLM-4.6V"),
        form=(
            "<|begin_of_box|>[[x1,y1,x2,y2]]<|end_of_box|>; also [], {}, (), <>, <bbox> or JSON "
            "with bbox_2d or box_2d"
        ),
        space=NormInt(1000),
        confidence=Confidence("high", "high", "high"),
        template="<|begin_of_box|>[[{},{},{},{}]]<|end_of_box|>",
        several=("<|begin_of_box|>[", ",", "]<|end_of_box|>"),
        prompt_suffix="Answer with the bounding box as [[x1,y1,x2,y2]].",
        grammar=grammar(
            four_in("[({<", "])}>"),
            in_tags("bbox"),
            keys=("bbox_2d", "box_2d", "bbox", "box", "bounding_box"),
        ),
        sources=("zai-org/GLM-V README.md", "zai-org/GLM-V glmv_reward/tests"),
        sources_read="2026-11-29",
        notes=(
            "the thinking may hold other boxes",
            "box_2d is x first here, unlike Gemini's",
            "GLM-4.1V-Thinking and GLM-4.6V: by the family-wide pages (medium)",
        ),
    ),
)
