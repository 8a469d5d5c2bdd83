"""MiniCPM-V and MiniCPM-o: four integers separated by spaces between <box> tags."""

from univg_eval.dialects.family import Confidence, Dialect, NormInt, bare_line, grammar, in_tags

DIALECTS = (
    Dialect(
        name="minicpm_v",
        model_types=("minicpmv", "minicpmo"),
        families=("MiniCPM-V 4.5", "MiniCPM-o 2.6", "MiniCPM-V 2.6"),
        form="<ref>phrase</ref><box>x1 y1 x2 y2</box>",
        space=NormInt(1000),
        confidence=Confidence("high", "high", "high"),
        template="<box>{} {} {} {}</box>",
        labelled_template="<ref>{label}</ref><box>{} {} {} {}</box>",
        several=("", "", ""),
        # As published with MIG-Bench, misspelling included.
        prompt_suffix="Format:<box>x1 y1 x2 y2</box>. Don't generate addtional words.",
        # Without its tags a box is read only where it stands alone on a line.
        grammar=grammar(in_tags("box"), alone=bare_line(r"\s++")),
        sources=(
            "OpenBMB/MiniCPM-V issues 982 and 772",
            "likaixin2000/ScreenSpot-Pro-GUI-Grounding models/minicpmv.py",
        ),
        notes=("MiniCPM-V 2.6 is not advertised for grounding (medium)",),
    ),
)
