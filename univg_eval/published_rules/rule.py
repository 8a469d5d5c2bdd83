"""What a published scoring rule of a whole set is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from univg_eval.answers import Answer
from univg_eval.samples import GroundingSample

__all__ = ["Answered", "PublishedRule"]


class Answered(NamedTuple):
    """A sample with what a model said about it.

    Attributes:
        sample: with its true objects.
        answer: the response, read by the protocol ``univg``.
        text: the response itself, for rules that read it their own way; None: there is none.
    """

    sample: GroundingSample
    answer: Answer
    text: str | None


@dataclass(frozen=True, slots=True)
class PublishedRule:
    """The scorer of a benchmark's authors, quirks included.

    Attributes:
        name: as given to ``--protocol``.
        description: one sentence.
        source: repository, commit and files that define the rule.
        benchmarks: the sets that it scores.
        reads_text: whether the rule reads responses its own way; else their boxes are those of the
            protocol ``univg``, as the rule takes boxes and says nothing of how to read them.
        measure: from every sample of a set and its answer to the rule's metrics, by the names that
            the authors give them in lower case, in [0, 1]; what the authors' scorer fails on
            raises a UserError that says so.
        flaws: metric or quirk → what is wrong with it, one line each.
    """

    name: str
    description: str
    source: str
    benchmarks: tuple[str, ...]
    measure: Callable[[Sequence[Answered]], dict[str, float]] = field(repr=False, compare=False)
    reads_text: bool = False
    flaws: Mapping[str, str] = field(default_factory=dict)
