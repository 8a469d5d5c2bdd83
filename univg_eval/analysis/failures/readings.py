"""The same answers read in other ways: was another dialect, or were other pixel limits, meant?

Each candidate takes the responses as they are. One that hits the true boxes far more often than
the declared reading is reported as a *hint*. It uses the truth, so it is never a score and never
changes one: a reading chosen because it hits more is oracle scoring.

A hint needs evidence on both sides, each at the level of `ALPHA` divided by the number of readings
that differ from the declared one:

* against the declared reading: the exact one-sided McNemar test on the pairs (Biometrika 34, 1947:
  p. 241, the binomial form), and at least `MIN_GAIN` more hits among the answers that the two read
  differently (pixel limits change those on large images only);
* against chance: among these answers, more hits than the same boxes have on the true boxes of
  *other* samples, a binomial with that mean (its tail is no lighter than that of unequal shares,
  Hoeffding 1956). So a reading that merely makes boxes larger or more central is not enough.

Readings that agree on every answer are one group and are named together. Other groups that a
sign test of the IoU does not separate from the best one are named beside it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from univg_eval.analysis.failures.conditions import FAR, observed
from univg_eval.analysis.stats import binomial_tail
from univg_eval.boxes import Box, box_iou
from univg_eval.dialects import Dialect, get_dialect, list_dialects
from univg_eval.dialects._grammar import Found, Grammar
from univg_eval.errors import UserError
from univg_eval.protocols import Protocol
from univg_eval.samples import GroundingSample
from univg_eval.scoring import MATCH_IOU, Response, SampleScore, score_samples

__all__ = [
    "KNOWN_LIMITS",
    "Candidate",
    "Limits",
    "Reading",
    "Suspicion",
    "blind_hits",
    "candidates",
    "dialect_remedy",
    "is_single",
    "read_all",
    "scale_of",
    "short_enough",
    "suspect",
    "suspect_misses",
]

ALPHA = 0.01
MIN_GAIN = 0.1
_SEPARATE = 0.05  # level of the sign test between readings
_AS_GOOD = 0.02  # share of the answers by which a reading may hit fewer than the best
_MIN_INVERTED = 0.1
_LONGEST = 50_000  # characters; a megabyte takes seconds in each of a hundred readings
_PART = 256
_AT_ONCE = 64

_NUMBERS = re.compile(r"[0-9]+(?:\.[0-9]*)?")


@dataclass(frozen=True, slots=True)
class Limits:
    """Pixel limits of a resize rule, and who sets them."""

    min_pixels: int
    max_pixels: int
    source: str


KNOWN_LIMITS = (
    Limits(3136, 12845056, "the checkpoints' files and qwen_vl_utils"),
    Limits(3136, 1003520, "transformers without a file"),
    Limits(200704, 1605632, "lmms-eval's backend qwen2_5_vl"),
    Limits(3136, 602112, "lmms-eval's backend qwen2_vl"),
    Limits(3136, 401408, "UniVG-R1's evaluation of MIG-Bench"),
    Limits(3136, 640000, "UniVG-R1's zero-shot evaluations"),
)
"""Limits that are in use; facts/sources in docs/dialects.md and docs/protocols.md."""

_ORDERS = {"yxyx": "y1, x1, y2, x2", "xywh": "x, y, width, height"}


@dataclass(frozen=True, slots=True)
class _OtherOrder(Grammar):
    """A grammar whose four numbers stand in another order."""

    written: str = "yxyx"

    def scan(self, text: str) -> list[Found]:
        """As `Grammar.scan`, the numbers brought into x1, y1, x2, y2."""
        return [(s, e, self._turn(raw), v, i) for s, e, raw, v, i in Grammar.scan(self, text)]

    def _turn(self, raw: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if raw is None or len(raw) != 4:
            return raw
        a, b, c, d = raw
        return (b, a, d, c) if self.written == "yxyx" else (a, b, a + c, b + d)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to read responses.

    Attributes:
        name: in words; a dialect's name where that says all.
        dialect: reads them.
        scale: order and meaning of the numbers, in words.
        remedy: what to do if it was meant, in sentences.
        keeps_sizes: whether recorded input sizes count (not where the limits are the question).
        inverts: name of the candidate that reads the numbers as x1, y1, x2, y2, where this one
            takes the last two as width and height. If that were meant, many boxes would be
            inverted as x1, y1, x2, y2, whatever the truth.
    """

    name: str
    dialect: Dialect
    scale: str
    remedy: str
    keeps_sizes: bool = True
    inverts: str | None = None


def candidates(limits: Iterable[Limits] = ()) -> list[Candidate]:
    """All readings that are tried: every dialect with boxes, its limits, other orders.

    Args:
        limits: further pixel limits to try, e.g. those of the backend; before `KNOWN_LIMITS`.
    """
    pairs: dict[tuple[int, int], Limits] = {}
    for limit in (*limits, *KNOWN_LIMITS):
        pairs.setdefault((limit.min_pixels, limit.max_pixels), limit)
    found = []
    for name in list_dialects():
        dialect = get_dialect(name)
        if not dialect.gives_boxes:
            continue
        if dialect.pixel_limits not in pairs:  # no rule with limits, or one of another processor
            # Recorded sizes are those of the declared dialect's resize.
            keeps = not dialect.needs_input_size
            found.append(Candidate(name, dialect, scale_of(dialect), dialect_remedy(name), keeps))
        else:
            found += [_with_limits(dialect, limit) for limit in pairs.values()]
    for name in ("norm1000", "norm1", "pixels"):
        found += [_in_order(get_dialect(name), order) for order in _ORDERS]
    return found


def scale_of(dialect: Dialect) -> str:
    """Order and meaning of a dialect's numbers, in words."""
    return f"{dialect.order}, {dialect.space.describe()}"


def dialect_remedy(name: str) -> str:
    """What to do if a dialect was meant."""
    return (
        "Find out from the model's documentation or training data what it writes; if it is this: "
        f"--dialect {name}."
    )


def _with_limits(dialect: Dialect, limit: Limits) -> Candidate:
    low, high = limit.min_pixels, limit.max_pixels
    return Candidate(
        f"{dialect.name} with min_pixels={low}, max_pixels={high}",
        dialect.with_pixel_limits(low, high),
        f"{dialect.order}, pixels of the input as resized by {limit.source}",
        "The numbers fit a model that was given images of these sizes. If your backend does so: "
        f"--dialect {dialect.name} and the environment variables UNIVG_MIN_PIXELS={low} "
        f"UNIVG_MAX_PIXELS={high}; they change how answers are read, not what the model sees. If "
        "the model was trained so but the backend does otherwise, give these limits to the "
        "backend in --model_args.",
        keeps_sizes=False,
    )


def _in_order(plain: Dialect, order: str) -> Candidate:
    """A plain dialect whose numbers stand in another order."""
    g = plain.grammar
    ask = "Ask for x1, y1, x2, y2 in the prompt: --dialect norm1000, norm1 and pixels do."
    return Candidate(
        f"{plain.name} written {_ORDERS[order]}",
        replace(plain, grammar=_OtherOrder(g.token, g.number, g.arity, g.keys, g.gap, order)),
        plain.space.describe(),
        "If the model writes y first: --dialect gemini reads that, on 0-1000 under the key "
        f"box_2d. Else: {ask}"
        if order == "yxyx"
        else f"No dialect reads widths and heights. {ask}",
        inverts=plain.name if order == "xywh" else None,
    )


@dataclass(frozen=True, slots=True)
class Reading:
    """What one way of reading makes of all responses.

    Attributes:
        candidate: the way.
        boxes: shape (n, 4), xyxy_norm, clipped; NaN where no box is read.
        ious: shape (n,), with the true boxes; 0 where no box is read.
    """

    candidate: Candidate
    boxes: npt.NDArray[np.float64]
    ious: npt.NDArray[np.float64]

    @property
    def hits(self) -> npt.NDArray[np.bool_]:
        """Which answers reach IoU 0.5."""
        result: npt.NDArray[np.bool_] = self.ious >= MATCH_IOU
        return result

    @property
    def n_read(self) -> int:
        """How many answers yield a box."""
        return int(np.isfinite(self.boxes[:, 0]).sum())

    def part(self, positions: Sequence[int]) -> Reading:
        """The same reading of some of the answers."""
        return replace(self, boxes=self.boxes[positions], ious=self.ious[positions])

    def reads_differently(self, other: Reading) -> npt.NDArray[np.bool_]:
        """Shape (n,): answers of which the two make different boxes, or only one makes a box."""
        same = np.isclose(self.boxes, other.boxes, rtol=0.0, atol=1e-9, equal_nan=True)
        return np.asarray(~same.all(axis=1), dtype=np.bool_)


def is_single(sample: GroundingSample) -> bool:
    """Whether a sample asks for one object, with a valid box: only such samples are evidence."""
    return sample.kind == "single" and sample.has_valid_targets


def short_enough(response: Response) -> bool:
    """Whether a response is read in all ways; a very long one is no evidence."""
    return len(response.text or "") <= _LONGEST


def read_all(
    samples: Sequence[GroundingSample],
    responses: Sequence[Response],
    ways: Iterable[Candidate],
    progress: Callable[[int, int], None] | None = None,
) -> list[Reading]:
    """Read all responses in every way.

    Args:
        samples: each with a single valid target, see `is_single`.
        responses: of the samples, in order.
        ways: candidates; those that need image sizes are left out where a sample has none. A
            sample whose images a candidate's resize rule refuses has no box in it.
        progress: called with (responses read, responses in all).
    """
    sized = all(
        response.image_sizes or sample.widths
        for sample, response in zip(samples, responses, strict=True)
    )
    without = [replace(response, input_sizes=None) for response in responses]
    used = [
        way
        for way in ways
        if sized or not (way.dialect.needs_image_size or way.dialect.needs_input_size)
    ]
    scores: list[list[SampleScore | None]] = [[] for _ in used]
    # A few responses at a time in all ways: how one is taken apart is then still known.
    for start in range(0, len(samples), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        if progress is not None:
            progress(start, len(samples))
        for way, found in zip(used, scores, strict=True):
            given = responses if way.keeps_sizes else without
            found += _scored(samples[part], given[part], way.dialect)
    return [_reading(way, found) for way, found in zip(used, scores, strict=True)]


def _scored(
    samples: Sequence[GroundingSample], responses: Sequence[Response], dialect: Dialect
) -> Sequence[SampleScore | None]:
    """Scores; None where the dialect cannot take the sample's images, e.g. far too long ones."""
    try:
        return score_samples(samples, responses, dialect)
    except UserError:
        if len(samples) == 1:
            return [None]
    pairs = zip(samples, responses, strict=True)
    return [_scored([sample], [response], dialect)[0] for sample, response in pairs]


def _reading(way: Candidate, scores: Sequence[SampleScore | None]) -> Reading:
    boxes = np.array(
        [(math.nan,) * 4 if score is None or score.box is None else score.box for score in scores],
        dtype=np.float64,
    ).reshape(-1, 4)
    ious = [0.0 if score is None else score.iou or 0.0 for score in scores]
    return Reading(way, boxes, np.array(ious, dtype=np.float64))


def blind_hits(
    reading: Reading,
    true_boxes: npt.NDArray[np.float64],
    among: npt.NDArray[np.bool_] | None = None,
    *,
    declared: Reading | None = None,
    below: float = 1.0,
) -> float:
    """Expected hits of the same boxes on the true boxes of other samples.

    Args:
        reading: of n answers.
        true_boxes: shape (n, 4), xyxy_norm, in the same order.
        among: shape (n,), the answers that count; default all.
        declared: where the answers were chosen for having IoU < `below` in this reading, the true
            boxes of other questions are chosen likewise: only those count that the declared box
            misses so. Else another reading would seem better than chance wherever boxes stand on
            few places: a box that is not on the one is the more often on the others.
        below: see `declared`.
    """
    n = len(true_boxes)
    positions = np.arange(n) if among is None else np.flatnonzero(among)
    total = 0.0
    # In parts: all pairs of ten thousand answers at once take gigabytes.
    for start in range(0, len(positions), _PART):
        part = positions[start : start + _PART]
        hits = box_iou(reading.boxes[part, None, :], true_boxes[None]) >= MATCH_IOU
        others = np.ones_like(hits)
        if declared is not None:
            others = box_iou(declared.boxes[part, None, :], true_boxes[None]) < below
        others[np.arange(len(part)), part] = False
        total += float(((hits & others).sum(axis=1) / np.maximum(others.sum(axis=1), 1)).sum())
    return total


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Evidence that another reading was meant; see the top of this module.

    Attributes:
        n: answers compared.
        declared_hits, declared_read: of the declared reading.
        hits, n_read: of the other one.
        blind: hits expected of it by chance.
        names: the readings that agree on every answer; those in whose own form the answers are
            written first.
        scale, remedy: of the first.
        indistinguishable: readings that differ but explain the answers about as well.
        p_declared, p_blind: of the two tests, multiplied by the number of readings.
        boxes: by sample id, what the first reads where it hits and the declared reading does not.
    """

    n: int
    declared_hits: int
    declared_read: int
    hits: int
    n_read: int
    blind: float
    names: tuple[str, ...]
    scale: str
    remedy: str
    indistinguishable: tuple[str, ...]
    p_declared: float
    p_blind: float
    boxes: Mapping[str, Box]


def suspect(
    samples: Sequence[GroundingSample],
    responses: Sequence[Response],
    declared: Reading,
    readings: Sequence[Reading],
    *,
    chosen_below: float | None = None,
) -> Suspicion | None:
    """The reading that explains the answers much better than the declared one, if there is one.

    Args:
        samples, responses: as for `read_all`.
        declared: the reading as declared.
        readings: of the candidates, on the same samples.
        chosen_below: where the samples were chosen for a declared IoU below this; chance is then
            measured on true boxes that were chosen likewise, see `blind_hits`.
    """
    groups: dict[bytes, list[Reading]] = {}
    own = _key(declared)
    for reading in readings:
        if reading.n_read and (key := _key(reading)) != own:
            groups.setdefault(key, []).append(reading)
    if not groups or not samples:
        return None
    tests = len(groups)
    true_boxes = np.array([sample.box for sample in samples], dtype=np.float64)
    by_name = {reading.candidate.name: reading for reading in readings}

    def expected(reading: Reading, among: npt.NDArray[np.bool_] | None = None) -> float:
        if chosen_below is None:
            return blind_hits(reading, true_boxes, among)
        return blind_hits(reading, true_boxes, among, declared=declared, below=chosen_below)

    passed = []
    for members in groups.values():
        reading = members[0]
        plain = by_name.get(reading.candidate.inverts or "")
        if plain is not None and _inverted(plain, reading) < _MIN_INVERTED * reading.n_read:
            continue
        gained = int((reading.hits & ~declared.hits).sum())
        lost = int((declared.hits & ~reading.hits).sum())
        among = reading.reads_differently(declared)
        m = int(among.sum())
        p_declared = tests * binomial_tail(gained, gained + lost, 0.5)
        if gained - lost < MIN_GAIN * m or p_declared >= ALPHA:
            continue
        hits_among = int(reading.hits[among].sum())
        p_blind = tests * binomial_tail(hits_among, m, expected(reading, among) / m)
        if p_blind < ALPHA:
            passed.append(_Passed(members, p_declared, p_blind))
    if not passed:
        return None
    best = max(passed, key=lambda group: group.rank)
    close = [g for g in passed if g is best or not _are_separate(best.first, g.first, tests)]
    # Of readings as good as the best, the one in whose own form the answers are written.
    form = _form_of(responses, declared)
    enough = int(best.first.hits.sum()) - _AS_GOOD * len(samples)
    top = max(
        (group for group in close if group.first.hits.sum() >= enough),
        key=lambda group: (max(map(form, group.members)), *group.rank),
    )
    first = top.first
    named = sorted(top.members, key=form, reverse=True)
    return Suspicion(
        n=len(samples),
        declared_hits=int(declared.hits.sum()),
        declared_read=declared.n_read,
        hits=int(first.hits.sum()),
        n_read=first.n_read,
        blind=expected(first),
        names=tuple(reading.candidate.name for reading in named),
        scale=named[0].candidate.scale,
        remedy=named[0].candidate.remedy,
        indistinguishable=tuple(
            reading.candidate.name
            for group in close
            if group is not top
            for reading in sorted(group.members, key=form, reverse=True)
        ),
        p_declared=min(1.0, top.p_declared),
        p_blind=min(1.0, top.p_blind),
        boxes={
            samples[i].id: tuple(first.boxes[i].tolist())
            for i in np.flatnonzero(first.hits & ~declared.hits).tolist()
        },
    )


@dataclass(frozen=True, slots=True)
class _Passed:
    """Readings that agree on every answer and passed both tests."""

    members: list[Reading]
    p_declared: float
    p_blind: float

    @property
    def first(self) -> Reading:
        return self.members[0]

    @property
    def rank(self) -> tuple[int, float]:
        return int(self.first.hits.sum()), float(self.first.ious.mean())


def _key(reading: Reading) -> bytes:
    """Equal for readings with the same boxes."""
    return np.round(reading.boxes, 9).tobytes()


def _inverted(plain: Reading, other: Reading) -> int:
    """Answers that are a box for `other` and, inverted or empty, none for `plain`."""
    return int((np.isnan(plain.boxes[:, 0]) & np.isfinite(other.boxes[:, 0])).sum())


def _are_separate(best: Reading, other: Reading, tests: int) -> bool:
    """Whether a sign test of the IoU prefers `best`."""
    more = int((best.ious > other.ious + 1e-9).sum())
    less = int((other.ious > best.ious + 1e-9).sum())
    return tests * binomial_tail(more, more + less, 0.5) < _SEPARATE


def _form_of(
    responses: Sequence[Response], declared: Reading
) -> Callable[[Reading], tuple[bool, int, int]]:
    """How well a reading fits the form of the answers.

    Best is the declared dialect (with other limits), then the one in whose form most are written.
    """
    own = declared.candidate.dialect.name
    texts = [_NUMBERS.sub("#", response.text or "") for response in responses]

    def written(reading: Reading) -> tuple[bool, int, int]:
        # The template with plain marks for its numbers, up to the last of them.
        dialect = reading.candidate.dialect
        form = re.sub(r"\{[^{}]*\}", "#", dialect.template)
        form = _NUMBERS.sub("#", form.replace("{{", "{")).rpartition("#")[0]
        # A plain form is part of many others: the longest says most.
        is_own = dialect.name == own and not reading.candidate.inverts
        return is_own, sum(form in text for text in texts), len(form)

    return written


def suspect_misses(
    misses: Sequence[SampleScore],
    by_id: Mapping[str, GroundingSample],
    responses: Mapping[str, Response],
    dialect: Dialect | None,
    rule: Protocol,
    progress: Callable[[int, int], None] | None = None,
) -> Suspicion | None:
    """The reading that explains the misses far off (IoU below `FAR`), if there is one.

    See `read_all` for `progress`.
    """
    kept = [
        score
        for score in misses
        if score.iou is not None
        and score.iou < FAR
        and observed(score, by_id[score.id], rule)
        not in ("invalid_truth", "wrong_image", "false_alarm")
        and by_id[score.id].has_valid_targets
        and score.id in responses
        and short_enough(responses[score.id])
    ]
    if not kept:
        return None
    samples = [by_id[score.id] for score in kept]
    given = [responses[score.id] for score in kept]
    # The published rules read integers on 0-1000 in any of their brackets.
    own = dialect if dialect is not None else get_dialect("norm1000")
    boxed = [score if score.status == "ok" else replace(score, box=None) for score in kept]
    declared = _reading(Candidate(rule.name, own, own.space.describe(), ""), boxed)
    readings = read_all(samples, given, candidates(), progress)
    return suspect(samples, given, declared, readings, chosen_below=FAR)
