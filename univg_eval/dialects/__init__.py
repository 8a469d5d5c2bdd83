"""How each model family writes boxes: one small module a family, and a registry.

A dialect is chosen by name or from a model's config, never from a response.
"""

from univg_eval.dialects._base import Confidence, Dialect
from univg_eval.dialects._grammar import Grammar
from univg_eval.dialects._models import (
    MODEL_TYPES,
    PixelLimits,
    declared_settings,
    dialect_for_config,
    dialect_for_model,
    pixel_limits,
)
from univg_eval.dialects._registry import get_dialect, list_dialects
from univg_eval.dialects._resize import smart_resize_wh
from univg_eval.dialects.api_models import API_MODELS, ApiModel, find_api_model, no_contract
from univg_eval.dialects.unknown import UNKNOWN_SCALES, UnknownScale
from univg_eval.dialects.without_boxes import WITHOUT_BOXES

__all__ = [
    "API_MODELS",
    "MODEL_TYPES",
    "UNKNOWN_SCALES",
    "WITHOUT_BOXES",
    "ApiModel",
    "Confidence",
    "Dialect",
    "Grammar",
    "PixelLimits",
    "UnknownScale",
    "declared_settings",
    "dialect_for_config",
    "dialect_for_model",
    "find_api_model",
    "get_dialect",
    "list_dialects",
    "no_contract",
    "pixel_limits",
    "smart_resize_wh",
]
