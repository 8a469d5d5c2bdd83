"""SmolDocling and Granite-Docling: Florence-like tokens, on a page of 500 steps (low confidence).

The 0-500 grid is not confirmed in the sources read: example values merely stay below 500. Other
Idefics3 and SmolVLM models have no box form that could be found.
"""

from univg_eval.dialects.family import Confidence, Dialect, NormInt, grammar

DIALECTS = (
    Dialect(
        name="smoldocling",
        model_types=("granite_docling",),
        families=("SmolDocling", "Granite-Docling"),
        form="<loc_x1><loc_y1><loc_x2><loc_y2> inside DocTags",
        space=NormInt(500, largest=500),
        confidence=Confidence("medium", "medium", "low"),
        template="<loc_{}><loc_{}><loc_{}><loc_{}>",
        labelled_template="<text><loc_{}><loc_{}><loc_{}><loc_{}>{label}</text>",
        several=("", "", ""),
        prompt_suffix="",
        grammar=grammar(r"(?:<loc_[0-9]{1,4}+>\s*+){4,}+", number=r"[0-9]+", bare_labels=True),
        needs_special_tokens=True,
        sources=("SmolDocling-256M-preview README.md",),
        notes=("low confidence: the 0-500 scale is not confirmed", "Florence-2's tokens, rescaled"),
    ),
)
