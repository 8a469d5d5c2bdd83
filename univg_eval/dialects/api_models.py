"""Models behind services: which dialect a model's name stands for, by version and not by brand.

Contracts differ within a brand: GPT-5 was best asked for named corners on 0-1, GPT-5.2 for pixels;
GLM-5V-Turbo writes x first, GLM-5.3-Flash y first. An entry with `is_probe` is a prompt contract
that won a comparison of some prompts on 50 or 100 images with known boxes: it says what to ask for,
and nothing about the model's training. A name that no entry covers has no dialect.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from univg_eval.dialects.unknown import one_of

__all__ = ["API_MODELS", "ApiModel", "find_api_model", "no_contract"]

_NO_TRAINING = "no statement about training"
_PROBE = (
    f"prompt contract chosen by a 50-image probe, {_NO_TRAINING}: roboflow/vlm-exam "
    "src/vlm_exam/configs/models.yaml (07d4445) and its detection prompts"
)
_PROBE_GPT = (
    f"prompt contract chosen on 100 images among 10 prompts, {_NO_TRAINING}: roboflow/inference "
    "inference/core/workflows/core_steps/models/foundation/openai/v7.py (1075c20)"
)
_VENDOR_END = r"(?:^|[/.:])"
_NAME_END = r"(?:$|[@:]|[-_](?!\d\d?(?![\d.a-z])))"
_FAMILY = "own statement"
_VENDOR = "platform.claude.com, vision coordinates"


@dataclass(frozen=True, slots=True)
class ApiModel:
    """What is known about some models of a service.

    Attributes:
        models: the models in words.
        pattern: regular expression of their names, in lower case, from the vendor's "/", "." or ":"
            to the end or to what may follow: a size, a variant, a date, but no further number of
            a version ("gpt-5-2" is no GPT-5).
        dialect: the dialect to ask for and to read.
        contract: form, order and scale in words.
        source: where that is said.
        date: when the source was read.
    """

    models: str
    pattern: str
    dialect: str
    contract: str
    source: str = _PROBE
    date: str = "2026-11-29"

    @property
    def is_probe(self) -> bool:
        """Whether the contract only won a comparison of prompts."""
        return _NO_TRAINING in self.source

    def matches(self, name: str) -> bool:
        """Whether a model's name, as given to the backend, is one of these."""
        return re.search(rf"{_VENDOR_END}(?:{self.pattern}){_NAME_END}", name.lower()) is not None


_CLAUDE = "JSON, x first, pixels after the service's resize"
_BOX_2D = '"box_2d", x first'

API_MODELS = (
    ApiModel(
        "GPT-5.2 to 6.1",
        r"gpt-5\.[2-9]|gpt-6(?:\.[01])?",
        "pixels_box_2d",
        f"{_BOX_2D}, pixels of the image (probed with long sides up to 2048)",
    ),
    ApiModel(
        "GPT-5, GPT-5.1",
        r"gpt-5(?:\.1)?",
        "norm1_corners",
        "named corners x_min ..., 0-1",
        _PROBE_GPT,
    ),
    ApiModel(
        "GPT-4.x, GPT-4o",
        r"gpt-4(?:\.\d|o)",
        "pixels_box_2d",
        f"a list of {_BOX_2D}, pixels of the image",
        _PROBE_GPT,
    ),
    ApiModel(
        "Claude from 4.7 on: Opus, Sonnet, Fable",
        r"claude-(?:opus|sonnet|fable)-(?:4[-.][7-9]|5(?:[-.]\d)?)",
        "claude_high",
        f"{_CLAUDE} (2576 pixels, 4784 tokens)",
        _VENDOR,
    ),
    ApiModel(
        "Claude 3 to 4.6",
        r"claude-3(?:[-.][57])?-(?:opus|sonnet|haiku)"
        r"|claude-(?:opus|sonnet|haiku)-4(?:[-.][0-6])?",
        "claude",
        f"{_CLAUDE} (1568 pixels, 1568 tokens)",
        _VENDOR,
    ),
    ApiModel(
        "Gemini 2.x, 3 to 3.8",
        r"gemini-(?:2\.[05]|3(?:\.[1-8])?)",
        "gemini",
        '"box_2d", y first, 0-1000',
        _FAMILY,
    ),
    ApiModel("Qwen3-VL", r"qwen-?3-vl", "qwen3_vl", "JSON, x first, 0-1000", _FAMILY),
    ApiModel("Qwen3.5 to 3.8-Max", r"qwen-?3\.[5-8]", "qwen3_5", "JSON, x first, 0-1000", _FAMILY),
    ApiModel("GLM-4.1V, 4.5V, 4.6V", r"glm-4\.[156]v", "glm_v", "x first, 0-1000", _FAMILY),
    ApiModel("GLM-5V-Turbo", r"glm-5v-turbo", "norm1000", f"{_BOX_2D}, 0-1000"),
    ApiModel("GLM-5.3-Flash", r"glm-5\.3-flash", "norm1000_yxyx", '"box_2d", y first, 0-1000'),
    ApiModel("Kimi-VL", r"kimi-vl", "kimi_vl", "JSON, x first, 0-1", _FAMILY),
    ApiModel("Kimi K2.6", r"kimi-k2\.6", "norm1000_yxyx", '"box_2d", y first, 0-1000'),
    ApiModel("Kimi K3", r"kimi-k3", "pixels_box_2d", f"{_BOX_2D}, pixels of the original"),
    ApiModel("Mistral Large 4", r"mistral-large-4(?:-0)?", "norm999", f"{_BOX_2D}, 0-999"),
    ApiModel(
        "Muse Spark 1.1 to 1.3, Muse Glimmer",
        r"muse-spark-1\.[1-3]|muse-glimmer",
        "norm1000_corners",
        "named corners x_min ..., integers, 0-1000",
    ),
    ApiModel("Grok 4.5 to 4.7", r"grok-4\.[5-7]", "norm100", f"{_BOX_2D}, decimals, 0-100"),
    ApiModel("Inkling", r"inkling", "norm100", f"{_BOX_2D}, decimals, 0-100"),
    ApiModel("MiMo V2.6", r"mimo-v2\.6", "norm1000", f"{_BOX_2D}, 0-1000"),
    ApiModel("DeepSeek-V4-Flash", r"deepseek-v4-flash", "norm1000", f"{_BOX_2D}, 0-1000"),
)
"""Known models, no two entries of which match the same name."""


def find_api_model(name: str) -> ApiModel | None:
    """The entry of a model's name as a service knows it, such as ``openai/gpt-5.5``; or None."""
    return next((entry for entry in API_MODELS if entry.matches(name)), None)


def no_contract(name: str) -> str:
    """What to say of a name without an entry: the contracts of its relatives, to choose from."""
    near = [
        entry
        for entry in API_MODELS
        if re.search(_VENDOR_END + entry.pattern.partition("-")[0], name.lower())
    ]
    if near:
        contracts = "; ".join(f"{entry.dialect} ({entry.models})" for entry in near)
        nearest = f"contracts differ within a brand, and the nearest are {contracts}"
    else:
        nearest = f"name a scale in the prompt: {one_of(('norm1000', 'norm1', 'pixels'))}"
    return f"no contract is known for the model {name!r}; {nearest}"
