"""PaliGemma: four location tokens, y first, 1024 steps from edge to edge."""

from univg_eval.dialects.family import Confidence, Dialect, NormInt, grammar

DIALECTS = (
    Dialect(
        name="paligemma",
        model_types=("paligemma",),
        families=("PaliGemma", "PaliGemma 2 (mix)"),
        form="<locYYYY><locXXXX><locYYYY><locXXXX> label, several separated by ' ; '",
        space=NormInt(1023, "yxyx", largest=1023),
        confidence=Confidence("high", "high", "high"),
        template="<loc{:04d}><loc{:04d}><loc{:04d}><loc{:04d}>",
        labelled_template="<loc{:04d}><loc{:04d}><loc{:04d}><loc{:04d}> {label}",
        several=("", " ; ", ""),
        # The model's tasks are prefixes ("detect cat"), which a question cannot take behind it.
        prompt_suffix="",
        official_prompt="detect {expression}\n",
        official_prompt_all="detect {expression}\n",
        grammar=grammar(r"(?:<loc[0-9]{4}>\s*+){4,}+", number=r"[0-9]+", bare_labels=True),
        sources=(
            "ai.google.dev/gemma/docs/paligemma/prompt-system-instructions",
            "google-research/big_vision big_vision/configs/proj/paligemma/README.md",
            "google-research/big_vision big_vision/pp/proj/paligemma/segmentation.py",
        ),
        sources_read="2026-11-30",
        notes=(
            "y comes first",
            "big_vision writes round(v * 1023); many demos divide by 1024",
            "segmentation answers append <seg...> tokens, which are passed over",
        ),
    ),
)
