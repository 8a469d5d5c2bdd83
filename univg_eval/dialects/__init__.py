"""How each model family writes boxes: one small module a family, and a registry.

A dialect is chosen by name or from a model's config, never from a response.
"""

from univg_eval.dialects._base import Confidence, Dialect
from univg_eval.dialects._registry import get_dialect, list_dialects

__all__ = ["Confidence", "Dialect", "get_dialect", "list_dialects"]
