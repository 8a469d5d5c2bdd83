"""Rex-Omni: boxes of four coordinate tokens <0> to <999> in Qwen2-VL's span.

The checkpoint calls itself qwen2_5_vl, whose boxes are pixels; its tokenizer's coordinate tokens
and its name tell them apart (`dialect_for_model`).
"""

from univg_eval.dialects.family import Confidence, Dialect, NormInt, grammar

_BIN = r"<[0-9]{1,3}+>"

_DETECT = "Detect {expression}. Output the bounding box coordinates in [x0, y0, x1, y1] format."

DIALECTS = (
    Dialect(
        name="rex_omni",
        families=("Rex-Omni",),
        form=(
            "<|object_ref_start|>phrase<|object_ref_end|><|box_start|><x0><y0><x1><y1>, ..."
            "<|box_end|>"
        ),
        space=NormInt(999, largest=999),
        confidence=Confidence("high", "high", "high"),
        template="<|box_start|><{}><{}><{}><{}><|box_end|>",
        labelled_template=(
            "<|object_ref_start|>{label}<|object_ref_end|><|box_start|><{}><{}><{}><{}><|box_end|>"
        ),
        several=("<|box_start|>", ", ", "<|box_end|>"),
        prompt_suffix="Output the bounding box coordinates in [x0, y0, x1, y1] format.",
        official_prompt=_DETECT,
        official_prompt_all=_DETECT,
        # Exactly four bins: two are a point, more are a polygon.
        grammar=grammar(
            rf"(?<![0-9]>)(?<![0-9]> )(?:{_BIN}\s*+){{4}}+(?!<[0-9])", number=r"[0-9]+"
        ),
        point_form="<|box_start|><x><y>, ...<|box_end|>",
        # With what stands around it: two bins without an end may be a box that breaks off.
        point_grammar=grammar(
            rf"(?:(?<=<\|box_start\|>)|(?<=,)|(?<=, )){_BIN}\s*+{_BIN}(?=\s*+(?:,|<\|box_end))",
            number=r"[0-9]+",
            points=True,
        ),
        needs_special_tokens=True,
        sources=(
            "IDEA-Research/Rex-Omni rex_omni/parser.py, tasks.py and wrapper.py",
            "arXiv 2510.12798",
        ),
        sources_read="2026-11-29",
        notes=("bins run from 0 to 999 and are divided by 999",),
    ),
)
