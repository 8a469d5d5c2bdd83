"""Kosmos-2: two cells of a 32 x 32 grid.

A cell is 1/32 of a side, so small objects cannot reach a high IoU.
"""

from univg_eval.dialects.family import Confidence, Dialect, PatchGrid, grammar

_CELL = r"<patch_index_[0-9]{1,4}+>"

DIALECTS = (
    Dialect(
        name="kosmos2",
        model_types=("kosmos-2",),
        families=("Kosmos-2",),
        form=(
            "<phrase>text</phrase><object><patch_index_UUUU><patch_index_LLLL></object>; several "
            "boxes joined by </delimiter_of_multi_objects/>"
        ),
        space=PatchGrid(32),
        confidence=Confidence("high", "high", "high"),
        template="<object><patch_index_{:04d}><patch_index_{:04d}></object>",
        labelled_template=(
            "<phrase>{label}</phrase><object><patch_index_{:04d}><patch_index_{:04d}></object>"
        ),
        several=("<object>", "</delimiter_of_multi_objects/>", "</object>"),
        prompt_suffix="<grounding>",
        grammar=grammar(rf"(?:{_CELL}\s*+){{2,}}+", arity=2, number=r"[0-9]+"),
        sources=("transformers models/kosmos2/processing_kosmos2.py",),
        notes=(
            "cell centres; cell edges for a box of one row, one column or one cell",
            "the image is stretched to a square, not padded",
        ),
    ),
)
