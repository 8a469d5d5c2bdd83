"""Scoring rules of benchmarks' authors whose metrics belong to a whole set of answers.

Each module has one `PublishedRule`, ``RULE``. They stand beside this project's own metrics and are
never the default: ``univg score --protocol mc-bench``.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any

from univg_eval.dialects import Dialect
from univg_eval.errors import UserError, meant
from univg_eval.protocols import Protocol, get_protocol, list_protocols
from univg_eval.published_rules.rule import Answered, PublishedRule
from univg_eval.samples import GroundingSample
from univg_eval.scoring import Response, read_response

__all__ = [
    "PUBLISHED_RULES",
    "Answered",
    "PublishedRule",
    "answered_by",
    "measure_published",
    "published_results",
    "reading_protocol",
    "require_protocol",
]


_logger = logging.getLogger(__name__)


def _collected() -> Mapping[str, PublishedRule]:
    found = {}
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        if not module.name.endswith(".rule"):
            rule: PublishedRule = importlib.import_module(module.name).RULE
            found[rule.name] = rule
    return found


PUBLISHED_RULES: Mapping[str, PublishedRule] = _collected()
"""The rules by name."""


def require_protocol(name: str) -> Protocol:
    """The protocol of that name; UserError names the known ones, published rules among them."""
    if name not in list_protocols():
        raise UserError(
            f"unknown protocol {name!r}; {meant(name, [*list_protocols(), *PUBLISHED_RULES])}"
        )
    return get_protocol(name)


def reading_protocol(name: str) -> Protocol:
    """The protocol of that name, by which responses are read one at a time.

    Raises:
        UserError: there is none of that name; a published rule is named, which needs a whole set.
    """
    if name in PUBLISHED_RULES:
        raise UserError(
            f"protocol {name!r} scores a whole set beside univg and not in its place: leave "
            "--protocol out. The run record holds it under results.published where the benchmark "
            f"is one of {', '.join(PUBLISHED_RULES[name].benchmarks)}; `univg score --protocol "
            f"{name}` shows it for a file of responses"
        )
    return get_protocol(name)


def measure_published(
    name: str,
    samples: Sequence[GroundingSample],
    responses: Sequence[Response],
    dialect: str | Dialect,
) -> dict[str, float]:
    """The metrics of a published rule.

    Args:
        name: of `PUBLISHED_RULES`.
        samples, responses: of equal length, paired by position; the whole of a set.
        dialect: how the model writes boxes.

    Raises:
        UserError: see `univg_eval.scoring.read_response`, and the rule.
    """
    return PUBLISHED_RULES[name].measure(answered_by(samples, responses, dialect))


def answered_by(
    samples: Sequence[GroundingSample], responses: Sequence[Response], dialect: str | Dialect | None
) -> list[Answered]:
    """Samples with their responses, read by the protocol ``univg``.

    Raises:
        UserError: see `univg_eval.scoring.read_response`.
    """
    return [
        Answered(sample, read_response(sample, response, dialect), response.text)
        for sample, response in zip(samples, responses, strict=True)
    ]


def published_results(
    benchmark: str,
    protocol: str,
    samples: Sequence[GroundingSample],
    responses: Sequence[Response],
    dialect: str | Dialect,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The rules of a benchmark, as a manifest holds them.

    Nothing under a protocol that reads boxes in another way than `univg`. A rule that cannot be
    computed, of a set that lacks what it needs, stands beside the score, and must not cost a
    finished evaluation: it is logged, and the reason kept.

    Returns:
        ``{"published": {rule: its metrics}}`` for the results, and ``{"published_errors": {rule:
        why it has none}}`` for the manifest; each empty where there is none.
    """
    rules = [rule.name for rule in PUBLISHED_RULES.values() if benchmark in rule.benchmarks]
    if protocol != "univg" or not rules:
        return {}, {}
    found: dict[str, dict[str, float]] = {}
    errors: dict[str, str] = {}
    for name in rules:
        try:
            found[name] = measure_published(name, samples, responses, dialect)
        except UserError as error:
            _logger.warning("results.published has no figures of the rule %s: %s", name, error)
            errors[name] = str(error)
    return (
        {"published": found} if found else {},
        {"published_errors": errors} if errors else {},
    )
