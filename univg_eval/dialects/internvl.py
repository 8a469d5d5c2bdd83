"""InternVL: nested brackets between <box> tags, on 0-1000 of the original image.

The several-box form inside one pair of tags is stated from the data-format page's tradition only
(medium confidence); each inner list is read by itself, so nothing depends on it.
"""

from univg_eval.dialects.family import Confidence, Dialect, NormInt, four_in, grammar

DIALECTS = (
    Dialect(
        name="internvl",
        model_types=("internvl", "internvl_chat"),
        families=("InternVL-Chat-V1.5", "InternVL2", "InternVL2.5", "InternVL3", "InternVL3.5"),
        form="<ref>phrase</ref><box>[[x1, y1, x2, y2]]</box>, several lists in one <box>",
        space=NormInt(1000),
        confidence=Confidence("high", "high", "high"),
        template="<box>[[{}, {}, {}, {}]]</box>",
        labelled_template="<ref>{label}</ref><box>[[{}, {}, {}, {}]]</box>",
        several=("<box>[", ", ", "]</box>"),
        # As published with MIG-Bench, misspelling included.
        prompt_suffix="Format:<box>[[x1,y1,x2,y2]]</box>. Don't generate addtional words.",
        official_prompt=(
            "Please provide the bounding box coordinate of the region this sentence describes: "
            "<ref>{expression}</ref>"
        ),
        grammar=grammar(four_in("[", "]")),
        sources=(
            "OpenGVLab/InternVL internvl_chat/eval/refcoco/evaluate_grounding.py",
            "OpenGVLab/InternVL issues 285 and 844",
        ),
        sources_read="2026-11-30",
        notes=(
            "training boxes were cut with int(x / width * 1000)",
            "V1.2 data had decimals on 0-1: not this dialect",
            "InternVL3 and 3.5: the same template, no statement for the version (medium)",
        ),
    ),
)
