"""Families whose scale nobody has stated: no dialect, and why.

A guess would give numbers that look right. Instead, name a scale in the prompt and read the
replies with the plain dialect of that scale.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["UNKNOWN_SCALES", "UnknownScale"]


@dataclass(frozen=True, slots=True)
class UnknownScale:
    """A family without a known coordinate scale.

    Attributes:
        name: identifier, in the same name space as the dialects.
        model_types: transformers' ``model_type`` of its checkpoints.
        families: the models.
        reason: what is and is not known.
        sources: public sources that were read.
    """

    name: str
    model_types: tuple[str, ...]
    families: tuple[str, ...]
    reason: str
    sources: tuple[str, ...]

    def explain(self) -> str:
        """The error's text: what, why, remedy."""
        return (
            f"no coordinate scale is known for {self.name!r} ({', '.join(self.families)}): "
            f"{self.reason}. Name a scale in the prompt and choose its dialect: "
            "norm1000, norm1 or pixels"
        )


UNKNOWN_SCALES = {
    entry.name: entry
    for entry in (
        UnknownScale(
            "gemma3",
            ("gemma3", "gemma3n"),
            ("Gemma 3", "Gemma 3n"),
            "no grounding format is documented; it may follow Gemini, which nobody confirms",
            ("huggingface.co/google/gemma-3-4b-it/discussions/38",),
        ),
        UnknownScale(
            "llava_onevision_1_5",
            ("llavaonevision1_5",),
            ("LLaVA-OneVision-1.5",),
            "the training code shows <box>(x1,y1),(x2,y2)</box>, but the question of its scale "
            "was never answered",
            ("EvolvingLMMs-Lab/LLaVA-OneVision-2 issues 39 and 63",),
        ),
        UnknownScale(
            "ovis2_5",
            ("ovis2", "ovis2_5"),
            ("Ovis2.5", "Ovis2"),
            "a maintainer says that coordinates are relative, without a range or a form",
            ("AIDC-AI/Ovis issue 119",),
        ),
        UnknownScale(
            "mantis",
            ("mantis",),
            ("Mantis",),
            "MIG-Bench asks it for decimals between <box> tags, which is no form of its own",
            ("thunlp/Migician eval/MIG_bench_eval.py",),
        ),
        UnknownScale(
            "mplug_owl3",
            ("mplugowl3",),
            ("mPLUG-Owl3",),
            "only mPLUG-Owl2's values are said to be ratios from 0 to 1",
            ("X-PLUG/mPLUG-Owl issue 199",),
        ),
        UnknownScale(
            "phi_vision",
            ("phi3_v", "phi4mm", "phi4_multimodal"),
            ("Phi-3.5-vision", "Phi-4-multimodal"),
            "no box form was found",
            ("microsoft/PhiCookBook issue 123",),
        ),
        UnknownScale(
            "llama_vision",
            ("mllama", "llama4"),
            ("Llama-3.2-Vision", "Llama 4"),
            "model cards and prompt formats show no box form",
            ("llama.com/docs/model-cards-and-prompt-formats/llama4",),
        ),
    )
}
"""By name; `get_dialect` explains them instead of guessing."""
