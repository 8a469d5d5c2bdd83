"""Which dialect a model behind a service has, by the version in its name."""

from __future__ import annotations

import re

import pytest

from univg_eval.dialects import API_MODELS, find_api_model, get_dialect, no_contract

KNOWN = {
    "gpt-5.2": "pixels_box_2d",
    "gpt-5.4-mini": "pixels_box_2d",
    "openai/gpt-5.6-sol": "pixels_box_2d",
    "gpt-6-astra": "pixels_box_2d",
    "gpt-6.1-sol": "pixels_box_2d",
    "gpt-5": "norm1_corners",
    "gpt-5-mini-2025-08-07": "norm1_corners",
    "gpt-5.1": "norm1_corners",
    "gpt-4.1-mini": "pixels_box_2d",
    "gpt-4o": "pixels_box_2d",
    "gpt-5.2-pro-2026-01-01": "pixels_box_2d",
    "ft:gpt-4o-2024-08-06:org::id": "pixels_box_2d",
    "claude-3-opus-20240229": "claude",
    "claude-3-5-sonnet-20241022": "claude",
    "claude-sonnet-4-20250514": "claude",
    "claude-opus-4-6": "claude",
    "claude-haiku-4-5": "claude",
    "claude-sonnet-4@20250514": "claude",
    "global.anthropic.claude-opus-4-6-v1": "claude",
    "claude-sonnet-4-5-20250929-thinking": "claude",
    "claude-opus-4-7": "claude_high",
    "claude-opus-4-7-20260501": "claude_high",
    "us.anthropic.claude-opus-4-8-v1:0": "claude_high",
    "anthropic/claude-sonnet-5": "claude_high",
    "claude-fable-5-1": "claude_high",
    "gemini-2.5-pro": "gemini",
    "gemini-2.5-pro-preview-05-06": "gemini",
    "models/gemini-3-flash-preview": "gemini",
    "google/gemini-3.8-flash": "gemini",
    "Qwen/Qwen3-VL-8B-Instruct": "qwen3_vl",
    "qwen3-vl-235b-a22b-instruct": "qwen3_vl",
    "qwen3.8-max": "qwen3_5",
    "Qwen/Qwen3.5-0.8B": "qwen3_5",
    "qwen/qwen-3.7-plus": "qwen3_5",
    "z-ai/glm-5.3-flash": "norm1000_yxyx",
    "z-ai/glm-5v-turbo": "norm1000",
    "glm-4.5v": "glm_v",
    "glm-4.6v-flash:free": "glm_v",
    "glm-5.3-flash-250414": "norm1000_yxyx",
    "moonshotai/kimi-k2.6": "norm1000_yxyx",
    "kimi-k3": "pixels_box_2d",
    "kimi-vl-a3b-instruct": "kimi_vl",
    "mistralai/mistral-large-4-0": "norm999",
    "meta/muse-spark-1.2": "norm1000_corners",
    "x-ai/grok-4.5": "norm100",
    "grok-4.7": "norm100",
    "thinkingmachines/inkling": "norm100",
    "xiaomi/mimo-v2.6-pro": "norm1000",
    "deepseek/deepseek-v4-flash-vision-exp": "norm1000",
}
# Another version of a known brand says nothing: no entry, and the relatives' contracts.
UNKNOWN = {
    "gpt-6.2": "pixels_box_2d",
    "gpt-7": "norm1_corners",
    "gpt-50": "norm1_corners",
    "gpt-5-2": "pixels_box_2d",
    "gpt-5.10": "pixels_box_2d",
    "gpt-oss-120b": "pixels_box_2d",
    "claude-opus-6": "claude_high",
    "claude-opus-4-10": "claude_high",
    "claude-opus-4_7": "claude_high",
    "us.anthropic.claude-opus-6-v1:0": "claude_high",
    "claude-haiku-5": "claude_high",
    "gemini-1.5-pro": "gemini",
    "gemini-3.9-flash": "gemini",
    "gemini-3-9-flash": "gemini",
    "Qwen/Qwen2.5-VL-7B-Instruct": "qwen3_vl",
    "glm-5": "norm1000_yxyx",
    "glm-5.4-flash": "norm1000_yxyx",
    "kimi-k2.5": "kimi_vl",
    "kimi-k3.5": "pixels_box_2d",
    "kimi-k3-5": "pixels_box_2d",
    "mistral-large-3": "norm999",
    "muse-spark-2": "norm1000_corners",
    "grok-4": "norm100",
    "mimo-v2.5": "norm1000",
    "deepseek-v4": "norm1000",
    "inkling-2": "norm100",
    "muse-glimmer-2": "norm1000_corners",
    "my-gpt-5.5": "norm1000, norm1 or pixels",
    "acme-1": "norm1000, norm1 or pixels",
}


@pytest.mark.parametrize(("name", "dialect"), KNOWN.items())
def test_a_version_has_one_contract(name: str, dialect: str) -> None:
    entry = find_api_model(name)
    assert entry is not None and entry.dialect == dialect
    assert sum(other.matches(name) for other in API_MODELS) == 1


@pytest.mark.parametrize(("name", "near"), UNKNOWN.items())
def test_another_version_has_none(name: str, near: str) -> None:
    assert find_api_model(name) is None
    message = no_contract(name)
    assert repr(name) in message and near in message


def test_entries_say_where_they_come_from() -> None:
    for entry in API_MODELS:
        assert get_dialect(entry.dialect).gives_boxes
        assert entry.contract and re.fullmatch(r"2026-\d\d-\d\d", entry.date)
        # Plain contracts were chosen by a comparison of prompts, and say so.
        is_plain = get_dialect(entry.dialect).name.startswith(("norm", "pixels"))
        assert entry.is_probe == is_plain == ("no statement about training" in entry.source)


def test_order_is_that_of_the_contract() -> None:
    for entry in API_MODELS:
        y_first = get_dialect(entry.dialect).order == "yxyx"
        assert ("y first" in entry.contract) == y_first, entry.models
