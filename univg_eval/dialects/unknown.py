"""Families whose scale nobody has stated: no dialect, and why.

A guess would give numbers that look right. Instead, name a scale in the prompt and read the
replies with the plain dialect of that scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["NEAREST", "UNKNOWN_SCALES", "UnknownScale", "one_of"]

NEAREST = ("norm1000", "norm1", "pixels")
"""Dialects to try first where nothing hints at one."""


def one_of(names: Sequence[str]) -> str:
    """Names as alternatives: "a, b or c"."""
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


@dataclass(frozen=True, slots=True)
class UnknownScale:
    """A family without a known coordinate scale.

    Attributes:
        name: identifier, in the same name space as the dialects.
        model_types: transformers' ``model_type`` of its checkpoints.
        families: the models.
        reason: what is and is not known.
        sources: public sources that were read.
        nearest: dialects to try first, of relatives or of a prompt that was probed.
    """

    name: str
    model_types: tuple[str, ...]
    families: tuple[str, ...]
    reason: str
    sources: tuple[str, ...]
    nearest: tuple[str, ...] = NEAREST

    def explain(self) -> str:
        """The error's text: what, why, remedy."""
        return (
            f"no coordinate scale is known for {self.name!r} ({', '.join(self.families)}): "
            f"{self.reason}. Name a scale in the prompt and choose its dialect, the nearest "
            f"{'is' if len(self.nearest) == 1 else 'are'} {one_of(self.nearest)}"
        )


_SEARCHED = "no public statement was found (2026-11-29)"
_EXAM = "roboflow/vlm-exam src/vlm_exam/configs/models.yaml (07d4445), read 2026-11-29"

UNKNOWN_SCALES = {
    entry.name: entry
    for entry in (
        UnknownScale(
            "gemma3",
            ("gemma3", "gemma3n"),
            ("Gemma 3", "Gemma 3n"),
            "no documented grounding format; perhaps as Gemini, unconfirmed",
            ("huggingface.co/google/gemma-3-4b-it/discussions/38",),
        ),
        UnknownScale(
            "llava_onevision_1_5",
            ("llavaonevision1_5",),
            ("LLaVA-OneVision-1.5",),
            "its training code shows <box>(x1,y1),(x2,y2)</box>; a question about the scale stayed "
            "unanswered",
            ("EvolvingLMMs-Lab/LLaVA-OneVision-2 issues 39 and 63",),
        ),
        UnknownScale(
            "ovis2_5",
            ("ovis2", "ovis2_5"),
            ("Ovis2.5", "Ovis2"),
            "relative, says a maintainer, without range or form",
            ("AIDC-AI/Ovis issue 119",),
        ),
        UnknownScale(
            "mantis",
            ("mantis",),
            ("Mantis",),
            "no form of its own; MIG-Bench asks it for decimals between <box> tags",
            ("thunlp/Migician eval/MIG_bench_eval.py",),
        ),
        UnknownScale(
            "mplug_owl3",
            ("mplugowl3",),
            ("mPLUG-Owl3",),
            "only mPLUG-Owl2 is said to write 0-1",
            ("X-PLUG/mPLUG-Owl issue 199",),
        ),
        UnknownScale(
            "phi_vision",
            ("phi3_v", "phi4mm", "phi4_multimodal"),
            ("Phi-3.5-vision", "Phi-4-multimodal"),
            "no box form found",
            ("microsoft/PhiCookBook issue 123",),
        ),
        UnknownScale(
            "llama_vision",
            ("mllama", "llama4"),
            ("Llama-3.2-Vision", "Llama 4"),
            "no box form in model cards and prompt formats",
            ("llama.com/docs/model-cards-and-prompt-formats/llama4",),
        ),
        UnknownScale(
            "internvl4",
            ("internvl4",),
            ("InternVL4",),
            "no statement found; InternVL up to 3.5 wrote 0-1000",
            (_SEARCHED,),
            ("norm1000",),
        ),
        UnknownScale(
            "step_vl",
            ("step3_vl", "step3p7"),
            ("Step3-VL", "Step-3.7"),
            "no documented grounding format",
            (_SEARCHED,),
        ),
        UnknownScale(
            "keye_vl",
            ("keye", "keye_vl"),
            ("Keye-VL",),
            "no documented grounding format",
            (_SEARCHED,),
        ),
        UnknownScale(
            "hunyuan_ocr",
            ("hunyuan_vl",),
            ("HunyuanOCR",),
            "said to write 0-1000, without a source for the form",
            (_SEARCHED,),
            ("norm1000",),
        ),
        UnknownScale(
            "cosmos_reason2",
            ("cosmos3_edge", "cosmos3_omni"),
            ("Cosmos-Reason2", "Cosmos 3"),
            "no documented grounding format",
            (_SEARCHED,),
        ),
        UnknownScale(
            "minicpm_v_4_6",
            ("minicpmv4_6", "minicpmv4_7"),
            ("MiniCPM-V 4.6", "MiniCPM-V 4.7"),
            "no statement found; MiniCPM-V up to 4.5 wrote 0-1000 between <box> tags",
            (_SEARCHED,),
            ("minicpm_v", "norm1000"),
        ),
        UnknownScale(
            "kimi_k2_5",
            ("kimi_k25",),
            ("Kimi K2.5",),
            "no statement found; Kimi-VL wrote 0-1, a probe of K2.6 preferred 0-1000 with y first, "
            "one of K3 pixels",
            (_EXAM,),
            ("norm1000_yxyx", "norm1000", "pixels"),
        ),
        UnknownScale(
            "glm5",
            ("glm5_next",),
            ("GLM-5", "GLM-5.3"),
            "no statement found; a probe of GLM-5.3-Flash preferred 0-1000 with y first, one of "
            "GLM-5V-Turbo x first",
            (_EXAM,),
            ("norm1000_yxyx", "norm1000"),
        ),
        UnknownScale(
            "muse",
            ("muse_spark", "muse_glimmer"),
            ("Muse Spark", "Muse Glimmer"),
            "no statement found; a probe of the service preferred named corners on 0-1000",
            (_EXAM,),
            ("norm1000_corners",),
        ),
        UnknownScale(
            "mistral",
            ("mistral3", "mistral4", "mistral_large4", "pixtral"),
            ("Mistral Small 3 and 4", "Mistral Large 4", "Pixtral"),
            "no statement found; a probe of Mistral Large 4 preferred 0-999",
            (_EXAM,),
            ("norm999",),
        ),
        UnknownScale(
            "inkling",
            ("inkling_mm_model", "inkling2", "inkling2_loop"),
            ("Inkling",),
            "no statement found; a probe preferred percentages",
            (_EXAM,),
            ("norm100",),
        ),
        UnknownScale(
            "ernie_vl",
            ("ernie4_5_vl_moe",),
            ("ERNIE-4.5-VL", "ERNIE 5"),
            "no documented grounding format",
            (_SEARCHED,),
        ),
        UnknownScale(
            "sensenova",
            (),
            ("SenseNova",),
            "no documented grounding format",
            (_SEARCHED,),
        ),
        UnknownScale(
            "seed2",
            (),
            ("Seed 2",),
            "no statement found; Seed1.5-VL wrote 0-1000 between <bbox> tags",
            (_SEARCHED,),
            ("seed1_5_vl", "norm1000"),
        ),
    )
}
"""By name; `get_dialect` explains them instead of guessing."""
