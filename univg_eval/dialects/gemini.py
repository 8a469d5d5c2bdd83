"""Gemini and Gemma 4: JSON with box_2d, y first, on 0-1000.

Only ``box_2d`` and bare lists are read: an answer with another key follows a prompt's convention,
of which nobody knows the order.
"""

from __future__ import annotations

from univg_eval.dialects._base import Confidence, Dialect
from univg_eval.dialects._grammar import four_in, grammar
from univg_eval.dialects._spaces import NormInt

__all__ = ["DIALECTS"]

_GRAMMAR = grammar(four_in("[", "]"), keys=("box_2d",))
_SUFFIX = (
    "Return the bounding box as JSON with the key box_2d, [ymin, xmin, ymax, xmax] normalized to "
    "0-1000."
)
_FORM = '```json list of {"box_2d": [ymin, xmin, ymax, xmax], "label": "..."}'
_TEMPLATE = '{{"box_2d": [{}, {}, {}, {}]}}'
_LABELLED = '{{"box_2d": [{}, {}, {}, {}], "label": {json_label}}}'

DIALECTS = (
    Dialect(
        name="gemini",
        families=("Gemini 2.x",),
        form=_FORM,
        space=NormInt(1000, "yxyx"),
        confidence=Confidence("high", "high", "high"),
        template=_TEMPLATE,
        labelled_template=_LABELLED,
        prompt_suffix=_SUFFIX,
        grammar=_GRAMMAR,
        sources=(
            "cloud.google.com/vertex-ai/generative-ai/docs/bounding-box-detection",
            "roboflow/supervision supervision/detection/vlm.py",
        ),
        notes=(
            "y comes first",
            "under a prompt that dictates another form, choose the plain dialect of that form",
            "the vendor page names no version",
        ),
    ),
    Dialect(
        name="gemma4",
        families=("Gemma 4",),
        form=_FORM,
        space=NormInt(1000, "yxyx"),
        confidence=Confidence("medium", "medium", "medium"),
        template=_TEMPLATE,
        labelled_template=_LABELLED,
        prompt_suffix=_SUFFIX,
        grammar=_GRAMMAR,
        sources=(
            "ai.google.dev/gemma/docs/capabilities/vision",
            "several independent public users of Gemma 4",
        ),
        notes=(
            "medium confidence: no first-party page with the exact order was found",
            "y comes first",
        ),
    ),
)
