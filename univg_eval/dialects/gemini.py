"""Gemini and Gemma 4: JSON with box_2d, y first, on 0-1000.

Only ``box_2d`` and bare lists are read: an answer with another key follows a prompt's convention,
of which nobody knows the order.
"""

from dataclasses import replace

from univg_eval.dialects.family import PAIR, Confidence, Dialect, NormInt, four_in, grammar

_GEMINI = Dialect(
    name="gemini",
    families=("Gemini 2.x", "Gemini 3 to 3.8"),
    form=(
        '```json list of {"box_2d": [ymin, xmin, ymax, xmax], "label": "..."}, also within '
        '{"boxes": [...]}'
    ),
    space=NormInt(1000, "yxyx"),
    confidence=Confidence("high", "high", "high"),
    template='{{"box_2d": [{}, {}, {}, {}]}}',
    labelled_template='{{"box_2d": [{}, {}, {}, {}], "label": {json_label}}}',
    prompt_suffix=(
        "Return the bounding box as JSON with the key box_2d, [ymin, xmin, ymax, xmax] normalized "
        "to 0-1000."
    ),
    grammar=grammar(four_in("[", "]"), keys=("box_2d",)),
    point_form='```json list of {"point": [y, x], "label": "..."}',
    point_grammar=grammar(PAIR, keys=("point",), points=True),
    sources=(
        "cloud.google.com/vertex-ai/generative-ai/docs/bounding-box-detection",
        "supervision 0.31.2 supervision/detection/vlm.py",
        "roboflow/vlm-exam src/vlm_exam/configs/models.yaml (07d4445): 2.5 to 3.8",
        "ai.google.dev/gemini-api/docs/generate-content/robotics-spatial: points",
    ),
    sources_read="2026-11-29",
    notes=(
        "y comes first",
        "under a prompt that dictates another form, choose the plain dialect of that form",
        "the vendor page names no version; structured output of 3.6 and 3.7 wraps the list",
    ),
)

DIALECTS = (
    _GEMINI,
    replace(
        _GEMINI,
        name="gemma4",
        model_types=("gemma4", "gemma4_unified"),
        families=("Gemma 4",),
        form='```json list of {"box_2d": [ymin, xmin, ymax, xmax], "label": "..."}',
        confidence=Confidence("medium", "medium", "medium"),
        point_form="",
        point_grammar=None,
        sources=(
            "ai.google.dev/gemma/docs/capabilities/vision",
            "several independent public users of Gemma 4",
        ),
        sources_read="2026-11-29",
        notes=(
            "medium confidence: no first-party page with the exact order was found",
            "y comes first",
        ),
    ),
)
