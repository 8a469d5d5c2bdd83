"""CogVLM and CogAgent: three-digit integers with leading zeros in double brackets."""

from univg_eval.dialects.family import COMMA, Confidence, Dialect, NormInt, four_in, grammar

DIALECTS = (
    Dialect(
        name="cogvlm_grounding",
        model_types=("cogvlm", "cogagent"),
        families=("CogVLM-grounding", "CogAgent"),
        form="phrase [[x1,y1,x2,y2]], three digits each; several boxes: [[...;...]]",
        space=NormInt(1000, largest=999),
        confidence=Confidence("high", "high", "high"),
        template="[[{:03d},{:03d},{:03d},{:03d}]]",
        labelled_template="{label} [[{:03d},{:03d},{:03d},{:03d}]]",
        several=("[[", ";", "]]"),
        # As published with MIG-Bench.
        prompt_suffix="Coordinates format:[[x0,y0,x1,y1]].",
        grammar=grammar(four_in("[", "]", COMMA, more=";")),
        sources=(
            "THUDM/CogVLM README.md",
            "THUDM/CogVLM utils/utils/grounding_parser.py, composite_demo/conversation.py",
        ),
        notes=(
            "the image is stretched to a square, not padded",
            "CogVLM2: no grounding checkpoint found (low)",
        ),
    ),
)
