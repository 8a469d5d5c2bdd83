"""LocateAnything: a box is four tokens <0> to <1000> between <box> tags, after its <ref>.

One token a number: decoding without special tokens leaves nothing of a box.
"""

from univg_eval.dialects.family import Confidence, Dialect, NormInt, grammar

DIALECTS = (
    Dialect(
        name="locate_anything",
        model_types=("locateanything",),
        families=("LocateAnything-3B",),
        form=(
            "<ref>label</ref><box><x1><y1><x2><y2></box>, several <box> after one <ref>; "
            "<box>none</box>"
        ),
        space=NormInt(1000),
        confidence=Confidence("high", "high", "high"),
        template="<box><{}><{}><{}><{}></box>",
        labelled_template="<ref>{label}</ref><box><{}><{}><{}><{}></box>",
        several=("", "", ""),
        prompt_suffix="Locate a single instance that matches the description.",
        official_prompt=(
            "Locate a single instance that matches the following description: {expression}."
        ),
        prompt_suffix_all="Locate all the instances that match the description.",
        official_prompt_all=(
            "Locate all the instances that match the following description: {expression}."
        ),
        # Two tokens are a point, eight an oriented region.
        grammar=grammar(r"<box>\s*+(?:<[0-9]{1,4}+>\s*+){4}+(?!<[0-9])", number=r"[0-9]+(?=>)"),
        point_form="<box><x><y></box>",
        # With its end: two tokens without one may be a box that breaks off.
        point_grammar=grammar(
            r"<box>\s*+(?:<[0-9]{1,4}+>\s*+){2}+</box>", number=r"[0-9]+(?=>)", points=True
        ),
        needs_special_tokens=True,
        sources=(
            "NVlabs/Eagle Embodied/README.md and document/DATA_PREPARATION.md",
            "NVlabs/Eagle Embodied/locateanything_worker.py",
            "arXiv 2605.27365",
        ),
        sources_read="2026-11-29",
        notes=(
            "<box><x><y></box> is a point and no box",
            "images are named <image-1>, <image-2>",
            "detection prompts join their phrases with </c>",
        ),
    ),
)
