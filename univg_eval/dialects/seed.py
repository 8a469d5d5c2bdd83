"""Seed1.5-VL and Doubao vision: four integers separated by spaces between <bbox> tags."""

from univg_eval.dialects.family import (
    SPACE_OR_COMMA,
    Confidence,
    Dialect,
    NormInt,
    bare_line,
    four_in,
    grammar,
    in_tags,
)

DIALECTS = (
    Dialect(
        name="seed1_5_vl",
        families=("Seed1.5-VL", "Doubao vision"),
        form='<bbox>x1 y1 x2 y2</bbox>; asked for JSON also "bbox": [x1 y1 x2 y2]',
        space=NormInt(1000, largest=999),
        confidence=Confidence("high", "high", "high"),
        template="<bbox>{} {} {} {}</bbox>",
        several=("", "", ""),
        prompt_suffix="Answer with the bounding box as <bbox>x1 y1 x2 y2</bbox>.",
        # Without its tags a box is read only where it stands alone on a line.
        grammar=grammar(
            in_tags("bbox"),
            four_in("[", "]", SPACE_OR_COMMA),
            alone=bare_line(r"\s++"),
            keys=("bbox", "bbox_2d", "box"),
        ),
        sources=(
            "volcengine.com/docs/82379/1616136",
            "ByteDance-Seed/Seed1.5-VL GUI/action_parser.py",
        ),
        notes=("numbers run from 0 to 999 and are divided by 1000",),
    ),
)
