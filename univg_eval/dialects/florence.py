"""Florence-2: four location tokens of 1000 bins, read at the bins' centres."""

from univg_eval.dialects.family import BinCenters, Confidence, Dialect, grammar

DIALECTS = (
    Dialect(
        name="florence2",
        model_types=("florence2",),
        families=("Florence-2",),
        form="label<loc_x1><loc_y1><loc_x2><loc_y2>, boxes of one label follow each other",
        space=BinCenters(1000),
        confidence=Confidence("high", "high", "high"),
        template="<loc_{}><loc_{}><loc_{}><loc_{}>",
        labelled_template="{label}<loc_{}><loc_{}><loc_{}><loc_{}>",
        several=("", "", ""),
        # The model's tasks are prefixes (<CAPTION_TO_PHRASE_GROUNDING> …).
        prompt_suffix="",
        official_prompt="<CAPTION_TO_PHRASE_GROUNDING>{expression}",
        official_prompt_all="<OPEN_VOCABULARY_DETECTION>{expression}",
        grammar=grammar(r"(?:<loc_[0-9]{1,4}+>\s*+){4,}+", number=r"[0-9]+", bare_labels=True),
        needs_special_tokens=True,
        sources=("transformers models/florence2/processing_florence2.py",),
        notes=(
            "a run of tokens that is no multiple of four is a polygon and no box",
            "eight tokens of an OCR answer (a quadrilateral) look like two boxes",
        ),
    ),
)
