"""From samples and responses to findings: what the answers look like, and whether they are read.

Most findings are thresholds over shares of answers: without a box, cut off, inverted (the classes
of `analysis.failures` that need no truth), outside the image, with several boxes, in numbers that
do not fit the scale, the same for all images. The hint about another dialect
(`analysis.failures.readings`) comes last and is marked as one.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from univg_eval.analysis.diagnosis import no_box
from univg_eval.analysis.diagnosis.findings import (
    MAX_EXAMPLES,
    SEVERITIES,
    CheckFinding,
    Severity,
    severity_of,
    share_words,
)
from univg_eval.analysis.failures.conditions import class_of_status
from univg_eval.analysis.failures.kinds import FailureKind
from univg_eval.analysis.failures.readings import (
    Candidate,
    Limits,
    Reading,
    Suspicion,
    blind_hits,
    candidates,
    dialect_remedy,
    is_single,
    read_all,
    scale_of,
    short_enough,
    suspect,
)
from univg_eval.analysis.stats import Estimate, binomial_tail, task_estimate
from univg_eval.boxes import Box
from univg_eval.dialects import Dialect
from univg_eval.dialects.sections import split_response
from univg_eval.errors import UserError
from univg_eval.protocols import get_protocol
from univg_eval.samples import GroundingSample
from univg_eval.scoring import Response, SampleScore, score_samples

__all__ = ["Diagnosis", "diagnose"]

_SAME_ANSWER = 0.5  # share of one response text from which it is suspicious
_NO_ANSWER = 0.8  # and from which nothing is answered at all
_FEWEST = 8  # answers below which nothing is said about sameness
_AT_LIMIT = 0.98  # of the limit: backends drop special tokens before they can be counted
_MORE_ROOM = "Give the model room: --gen_kwargs max_new_tokens=4096."


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found, and the figures to put beside it.

    Attributes:
        n: responses.
        with_target: those to samples that have an object; `answered` of them have a readable box.
        hits, single: answers with IoU >= 0.5 among the samples with one valid true box.
        score: the share of hits with its 95 % limits; None without such samples.
        blind: hits expected there if each box belonged to another sample.
        above_blind: whether `hits` is more than that (binomial test at 1 %).
        findings: most severe first.
        scores: parallel to the samples, by the protocol.
    """

    n: int
    with_target: int
    answered: int
    single: int
    hits: int
    score: Estimate | None
    blind: float
    above_blind: bool
    findings: tuple[CheckFinding, ...]
    scores: tuple[SampleScore, ...]


def diagnose(
    samples: Sequence[GroundingSample],
    responses: Sequence[Response],
    dialect: Dialect,
    *,
    protocol: str = "univg",
    limits: Sequence[Limits] = (),
    output_tokens: Sequence[int | None] | None = None,
    max_new_tokens: int | None = None,
) -> Diagnosis:
    """Look for everything that can be wrong with how a model was prompted and read.

    Args:
        samples, responses: paired by position.
        dialect: as declared, with the pixel limits of the run.
        protocol: the rule that scores; the findings are about the reading of ``univg``.
        limits: pixel limits to try beside those in common use, e.g. the checkpoint's own.
        output_tokens: generated tokens of each response, None where not known.
        max_new_tokens: their limit in the run.

    Raises:
        UserError: no responses, or lengths that differ.
    """
    n = len(samples)
    counts = n if output_tokens is None else len(output_tokens)
    if n == 0 or len(responses) != n or counts != n:
        raise UserError(
            f"{n} samples, {len(responses)} responses and {counts} token counts; expected equally "
            "many, at least one"
        )
    scores = ruled = score_samples(samples, responses, dialect, protocol="univg")
    if protocol != "univg":
        ruled = score_samples(samples, responses, dialect, protocol=protocol)
    case = _Case(samples, [response.text or "" for response in responses], scores, dialect)

    single = [i for i, sample in enumerate(samples) if is_single(sample)]
    kept, given = [samples[i] for i in single], [responses[i] for i in single]
    short = [k for k, response in enumerate(given) if short_enough(response)]
    evidence = [kept[k] for k in short], [given[k] for k in short]
    own = Candidate(dialect.name, dialect, scale_of(dialect), dialect_remedy(dialect.name))
    declared = next(iter(read_all(kept, given, [own])), None) if kept else None
    others = read_all(*evidence, candidates(limits)) if short else []
    suspicion = None
    hits, score, blind = 0, None, 0.0
    if declared is not None:
        hits = int(declared.hits.sum())
        groups = [sample.cluster for sample in kept]
        score = task_estimate(declared.hits.astype(float).tolist(), groups, share=True)
        blind = blind_hits(declared, np.array([s.box for s in kept], dtype=np.float64))
        if short:
            suspicion = suspect(*evidence, declared.part(short), others)

    findings = [
        *_without_box(case, others, [single[k] for k in short]),
        *_unclosed(case),
        *_at_limit(case, output_tokens, max_new_tokens),
        *_geometry(case),
        *_several(case),
        *_image_not_named(case),
        *_sameness(case),
        *_protocol_differs(case, ruled, protocol),
    ]
    if suspicion is not None:
        findings.append(_hint(suspicion, dialect))
    elif declared is not None:
        findings += _limits_not_tested(declared.part(short), others)
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Diagnosis(
        n=n,
        with_target=len(case.with_target),
        answered=sum(scores[i].status == "ok" for i in case.with_target),
        single=len(kept),
        hits=hits,
        score=score,
        blind=blind,
        above_blind=bool(kept) and binomial_tail(hits, len(kept), blind / len(kept)) < 0.01,
        findings=tuple(findings),
        scores=tuple(ruled),
    )


@dataclass(frozen=True, slots=True)
class _Case:
    """The declared run; answers are known by their position."""

    samples: Sequence[GroundingSample]
    texts: Sequence[str]
    scores: Sequence[SampleScore]
    dialect: Dialect

    @property
    def n(self) -> int:
        return len(self.samples)

    @property
    def with_target(self) -> list[int]:
        return self.where(lambda i: bool(self.samples[i].targets))

    def where(self, test: Callable[[int], bool]) -> list[int]:
        """Positions that pass."""
        return [i for i in range(self.n) if test(i)]

    def of_class(self, kind: FailureKind, among: Collection[int]) -> list[int]:
        """Positions `among` these whose answers are of a class."""
        return [i for i in among if class_of_status(self.scores[i], self.samples[i]) == kind]

    def ids(self, positions: Sequence[int]) -> tuple[str, ...]:
        return tuple(self.samples[i].id for i in positions[:MAX_EXAMPLES])

    def share(
        self,
        kind: str,
        shown: Sequence[int],
        n: int,
        title: str,
        remedy: str,
        *,
        count: str,
        severity: Severity | None = None,
        detail: str = "",
        **numbers: Any,
    ) -> Iterator[CheckFinding]:
        """A finding where some of n answers show a fault; by default as severe as their share.

        Args:
            kind, remedy, severity, detail: of the finding.
            shown: positions that show the fault.
            n: the denominator.
            title: a sentence with the place of the share marked {}.
            count: the name of `len(shown)` among the numbers.
            numbers: further ones.
        """
        if shown:
            yield CheckFinding(
                kind=kind,
                severity=severity or severity_of(len(shown), n),
                title=title.format(share_words(len(shown), n)),
                remedy=remedy,
                detail=detail,
                numbers={"n": n, count: len(shown), **numbers},
                examples=self.ids(shown),
            )


# --- no box, and answers cut off -----------------------------------------------------------------


def _without_box(
    case: _Case, others: Sequence[Reading], single: Sequence[int]
) -> Iterator[CheckFinding]:
    """Responses from which no box is read, by what they say instead.

    Args:
        case: the declared run.
        others: other readings of the answers at the positions `single`.
        single: see `others`.
    """
    n = len(case.with_target)
    lacking = case.of_class("no_box", case.with_target)
    position = {i: k for k, i in enumerate(single)}
    readers = {i: _readers(others, position[i]) if i in position else [] for i in lacking}
    kinds = {
        i: no_box.said_instead(
            case.texts[i],
            has_boxes=case.scores[i].n_boxes > 0,
            is_read_by_others=bool(readers[i]),
        )
        for i in lacking
    }
    counts = Counter(kinds.values())
    if lacking:
        yield from _no_box(case, lacking, counts, Counter(itertools.chain(*readers.values())))
    talk = [i for i in lacking if kinds[i] == "missing_image"]
    severity = severity_of(len(talk), n) if n else "note"
    yield from case.share(
        "image_talk",
        talk,
        n,
        "In {} answers the model says that it has no image.",
        "The images do not reach the model. Look at the messages of lmms-eval (lmms-eval.log "
        "beside the page; some backends leave out an image that fails), at the backend's limits "
        "on the number of images, and whether the backend is meant for this model.",
        count="image_talk",
        # From the second on it is a warning: images may be lost in a few samples.
        severity="warning" if severity == "note" and len(talk) > 1 else severity,
    )
    yield from case.share(
        "says_none",
        case.of_class("said_none", case.with_target),
        n,
        "In {} answers the model says that there is no such object, though there is one.",
        "If most do, the images may not reach the model: run with --controls.",
        count="none",
    )


def _no_box(
    case: _Case, lacking: Sequence[int], kinds: Counter[str], read_by: Counter[str]
) -> Iterator[CheckFinding]:
    n = len(case.with_target)
    half = len(lacking) / 2
    kind, count = kinds.most_common(1)[0]
    detail = "; ".join(f"{k} {no_box.WORDS[name]}" for name, k in kinds.most_common())
    detail = f"Of these, {detail}."
    remedy = no_box.REMEDIES.get(kind if count >= half else "") or (
        "Look at the responses. If the model ignores the requested form, try another --prompt, or "
        f"--dialect with the form it does use (declared: {case.dialect.name}, {case.dialect.form})."
    )
    if case.dialect.needs_special_tokens and kinds["empty"] + kinds["words"] >= half:
        remedy = (
            f"Boxes of {case.dialect.name} are special tokens, and where a backend or server drops "
            "these, a phrase or nothing is left: UNIVG_SPECIAL_TOKENS=kept does not change that. "
            "Generate with skip_special_tokens=False and score the responses (`univg score`)."
        )
    top = max(read_by.values(), default=0)
    names = [name for name, k in read_by.items() if k == top]
    if kinds["other_form"] >= half:
        detail += (
            f" A box would be read from {top} of them by: {_some(names, 6)}. That says nothing yet "
            "about what the numbers mean."
        )
        remedy = (
            "Find out from the model's own documentation how it writes boxes, and name that "
            "dialect: `univg dialects` lists forms and scales."
        )
    yield from case.share(
        "no_box",
        lacking,
        n,
        "No readable box in {} answers.",
        remedy,
        count="no_box",
        # A model that was never trained to name images is not set up wrongly.
        severity=severity_of(len(lacking) - kinds["unread_image"], n),
        detail=detail,
        instead=dict(kinds),
        read_by=names,
        read_by_n=top,
    )


def _some(names: Sequence[str], n: int, more: str = " …") -> str:
    """The first n names."""
    return ", ".join(names[:n]) + (more if len(names) > n else "")


def _readers(others: Sequence[Reading], position: int) -> list[str]:
    """Dialects that read a box at this position."""
    names = [r.candidate.dialect.name for r in others if np.isfinite(r.boxes[position, 0])]
    return list(dict.fromkeys(names))


def _unclosed(case: _Case) -> Iterator[CheckFinding]:
    cut = case.of_class("truncated", range(case.n))
    if not cut:
        return
    thinking = sum(not _ends_in_answer(case.texts[i]) for i in cut)
    lengths = [len(case.texts[i]) for i in cut]
    yield from case.share(
        "unclosed",
        cut,
        case.n,
        f"Cut off before there is a box: {{}} answers, {thinking} inside the thinking, "
        f"{len(cut) - thinking} inside the answer.",
        f"{_MORE_ROOM} If it never stops thinking, ask for the box alone: --prompt direct.",
        count="unclosed",
        detail=f"Length: {min(lengths)} to {max(lengths)} characters.",
        in_thinking=thinking,
    )


def _ends_in_answer(text: str) -> bool:
    """Whether what was never closed is the answer, not the thinking."""
    return not all(split_response(text + end).unclosed for end in ("</answer>", "<|end_of_box|>"))


def _at_limit(
    case: _Case, output_tokens: Sequence[int | None] | None, limit: int | None
) -> Iterator[CheckFinding]:
    if output_tokens is None or limit is None:
        return
    known = {i: tokens for i, tokens in enumerate(output_tokens) if tokens is not None}
    full = [i for i, tokens in known.items() if tokens >= _AT_LIMIT * limit]
    loops = sum(_repeats(case.texts[i]) for i in full)
    boxless = sum(case.scores[i].status != "ok" for i in full)
    detail = f"{boxless} of them have no readable box."
    if loops:
        detail += f" {loops} repeat the same words over and over."
    yield from case.share(
        "token_limit",
        full,
        len(known),
        f"Cut at the limit of {limit} new tokens: {{}} responses.",
        _MORE_ROOM
        if loops < len(full)
        else "A model that repeats itself is not helped by more room: look at its chat template, "
        "its stop token and its precision.",
        count="at_limit",
        detail=detail,
        repeating=loops,
        without_box=boxless,
        max_new_tokens=limit,
    )


def _repeats(text: str) -> bool:
    """Whether the end of a text occurs in it at least four times."""
    tail = text.rstrip()[-24:]
    return len(tail) == 24 and text.count(tail) + text.count(tail[:12]) // 2 >= 4


# --- boxes ---------------------------------------------------------------------------------------


def _geometry(case: _Case) -> Iterator[CheckFinding]:
    """Boxes outside the image, inverted boxes, and numbers that do not fit the scale."""
    boxed = case.where(lambda i: case.scores[i].n_boxes > 0)
    raw = {i: _raw_numbers(case, i) for i in boxed}
    largest = {i: [max(map(abs, row)) for row in raw[i]] for i in boxed}
    invalid = case.of_class("invalid_box", boxed)
    # An invalid box in order is one that does not touch its image.
    away = {i for i in invalid if raw[i] and all(_in_order(row) for row in raw[i])}
    outside = [i for i in boxed if case.scores[i].clipped or i in away]
    top = max((value for i in outside for value in largest[i]), default=0.0)
    answers = "answers with boxes"
    yield from case.share(
        "outside",
        outside,
        len(boxed),
        f"Boxes reach outside the image in {{}} {answers}; the largest number is {top:g}.",
        "Numbers beyond the scale usually mean another scale: pixels read as 0-1000, or pixels of "
        "another size than the one assumed (--dialect, pixel limits).",
        count="outside",
        detail=f"Declared: {scale_of(case.dialect)}.",
        largest=top,
    )
    yield from case.share(
        "invalid_box",
        [i for i in invalid if i not in outside],
        len(boxed),
        f"Inverted or empty boxes (x2 <= x1 or y2 <= y1) in {{}} {answers}.",
        "The numbers may be x, y, width, height, or two points in another order: ask for x1, y1, "
        "x2, y2 in the prompt (--dialect norm1000 does).",
        count="invalid",
    )
    if case.dialect.space.kind not in ("norm1", "norm1_padded_square", "patch_grid"):
        scale = case.dialect.space.describe()
        yield from case.share(
            "small_numbers",
            [i for i in boxed if raw[i] and max(largest[i]) <= 1],
            len(boxed),
            f"No number above 1 in {{}} {answers}, though the declared scale is {scale}.",
            "These look like fractions of the image: --dialect norm1 or the model's own dialect.",
            count="small",
        )


def _raw_numbers(case: _Case, i: int) -> list[tuple[float, ...]]:
    """Finite numbers as written in the answer section."""
    scanned = case.dialect.scan(split_response(case.texts[i]).section)
    return [raw for _, _, raw, _, _ in scanned if raw is not None and np.isfinite(raw).all()]


def _in_order(raw: tuple[float, ...]) -> bool:
    return len(raw) == 4 and raw[0] < raw[2] and raw[1] < raw[3]


def _several(case: _Case) -> Iterator[CheckFinding]:
    one = case.where(lambda i: case.samples[i].kind == "single" and case.scores[i].n_boxes > 0)
    many = [i for i in one if case.scores[i].n_boxes > 1]
    units = sum(case.scores[i].n_units > 1 for i in many)
    severity = severity_of(len(many), len(one)) if one else "note"
    yield from case.share(
        "several_boxes",
        many,
        len(one),
        "Several boxes where one is asked for in {} answers with boxes.",
        "If the model lists candidates, ask for one box in the prompt; if it thinks aloud, have it "
        "close its thinking or put the box into <answer> tags: --prompt think.",
        count="several",
        severity="warning" if severity == "problem" else severity,
        detail="The first box of the answer's last unit counts (docs/protocols.md); "
        f"{units} of them have several units.",
        several_units=units,
    )


def _image_not_named(case: _Case) -> Iterator[CheckFinding]:
    search = case.where(lambda i: not case.samples[i].image_is_given and case.scores[i].n_boxes > 0)
    detail = "image_acc and joint@0.5 count these as not right; Acc@0.5 is about the box alone."
    if case.dialect.needs_image_size or case.dialect.needs_input_size:
        detail += " This dialect needs the image's size, so such boxes can be unreadable."
    yield from case.share(
        "image_not_named",
        [i for i in search if case.scores[i].image_index is None],
        len(search),
        "The image is not named in {} answers, where the model had to find it.",
        "Nothing, if the model was never trained to name images.",
        count="not_named",
        severity="note",
        detail=detail,
    )


# --- the images ----------------------------------------------------------------------------------


def _sameness(case: _Case) -> Iterator[CheckFinding]:
    """One answer for many samples, or for the same instruction about different images."""
    if case.n < _FEWEST:
        return
    texts = [text.strip() for text in case.texts]
    text, count = Counter(texts).most_common(1)[0]
    if text and count > _SAME_ANSWER * case.n:
        shown = text if len(text) <= 80 else text[:77] + "…"
        yield CheckFinding(
            kind="constant_answer",
            severity="problem" if count >= _NO_ANSWER * case.n else "warning",
            title=f"Word for word the same: {share_words(count, case.n)} responses are {shown!r}.",
            remedy="The questions differ, so their answers should. Check that images and question "
            "reach the model (--controls shows whether answers change with blank images), and its "
            "chat template.",
            numbers={"n": case.n, "same": count, "text": shown},
            examples=case.ids(case.where(lambda i: texts[i] == text)),
        )
        return
    by_instruction: dict[str, list[int]] = {}
    for i, sample in enumerate(case.samples):
        by_instruction.setdefault(sample.instruction, []).append(i)
    pairs = [
        (a, b)
        for members in by_instruction.values()
        for a, b in itertools.pairwise(members)
        # The same place is right where both show one image, e.g. in two sizes.
        if texts[a] and case.samples[a].cluster != case.samples[b].cluster
    ]
    equal = [(a, b) for a, b in pairs if texts[a] == texts[b]]
    if len(pairs) >= _FEWEST and len(equal) > _SAME_ANSWER * len(pairs):
        yield CheckFinding(
            kind="same_across_images",
            severity="warning",
            title=f"{share_words(len(equal), len(pairs))} times the same question about other "
            "images got word for word the same answer.",
            remedy="The images may not reach the model: run with --controls.",
            numbers={"pairs": len(pairs), "equal": len(equal)},
            examples=case.ids([i for pair in equal for i in pair]),
        )


# --- reading -------------------------------------------------------------------------------------


def _protocol_differs(
    case: _Case, ruled: Sequence[SampleScore], protocol: str
) -> Iterator[CheckFinding]:
    if protocol == "univg":
        return
    lost = case.where(lambda i: case.scores[i].status == "ok" and ruled[i].status != "ok")
    other = case.where(
        lambda i: ruled[i].status == "ok" and _differ(case.scores[i].box, ruled[i].box)
    )
    if not lost and not other:
        return
    yield CheckFinding(
        kind="protocol_differs",
        severity=severity_of(len(lost) + len(other), case.n),
        title=f"The rule {protocol} reads no box in {len(lost)} and another box in {len(other)} of "
        f"{case.n} answers that the dialect {case.dialect.name} reads.",
        detail=get_protocol(protocol).description,
        remedy="Published rules have quirks (docs/protocols.md); use them to compare with printed "
        "numbers only, and univg for your own.",
        numbers={"n": case.n, "not_read": len(lost), "another_box": len(other)},
        examples=case.ids(lost + other),
    )


def _differ(a: Box | None, b: Box | None) -> bool:
    """Whether two boxes differ by more than the rounding of a 0-1000 scale."""
    return a is not None and b is not None and not np.allclose(a, np.clip(b, 0.0, 1.0), atol=2e-3)


def _limits_not_tested(declared: Reading, others: Sequence[Reading]) -> Iterator[CheckFinding]:
    """Where the images are too small for pixel limits to matter, nothing is known about them."""
    dialect = declared.candidate.dialect
    own = dialect.pixel_limits
    if own is None or not declared.n_read:
        return
    same = [
        limits
        for other in others
        if other.candidate.dialect.name == dialect.name
        and (limits := other.candidate.dialect.pixel_limits) not in (None, own)
        and np.array_equal(other.boxes, declared.boxes, equal_nan=True)
    ]
    if not same:
        return
    shown = ", ".join(f"{low} to {high}" for low, high in same)
    yield CheckFinding(
        kind="limits_not_tested",
        severity="note",
        title=f"These images do not show whether the pixel limits are right: {own[0]} to {own[1]} "
        f"pixels read every answer like {shown}.",
        detail="On larger images the limits decide what the numbers mean.",
        remedy="Check on images as large as those of your run: --tasks takes any prepared "
        "benchmark.",
        numbers={"declared": list(own), "same": [list(pair) for pair in same]},
    )


def _hint(suspicion: Suspicion, dialect: Dialect) -> CheckFinding:
    n = suspicion.n
    names, close = list(suspicion.names), suspicion.indistinguishable
    detail = ""
    if len(names) > 1:
        more = f" and {len(names) - 4} more"
        detail = f"Readings that agree on every answer: {_some(names, 4, more)}. "
    detail += f"By chance {100 * suspicion.blind / n:.0f} % would be right."
    if close:
        more = f" and {len(close) - 6} more"
        detail += f" These answers do not separate it from: {_some(close, 6, more)}."
    scale = scale_of(dialect)
    if dialect.pixel_limits is not None:
        low, high = dialect.pixel_limits
        scale += f", min_pixels={low}, max_pixels={high}"
    boxes = {name: list(box) for name, box in list(suspicion.boxes.items())[:MAX_EXAMPLES]}
    numbers: Mapping[str, Any] = {
        "n": n,
        "declared": {
            "name": dialect.name,
            "scale": scale,
            "hits": suspicion.declared_hits,
            "read": suspicion.declared_read,
            "share": suspicion.declared_hits / n,
        },
        "read_as": {
            "names": names,
            "scale": suspicion.scale,
            "hits": suspicion.hits,
            "read": suspicion.n_read,
            "share": suspicion.hits / n,
            "blind_share": suspicion.blind / n,
            "boxes": boxes,
        },
        "not_told_apart": list(close),
        "p_against_declared": suspicion.p_declared,
        "p_against_blind": suspicion.p_blind,
    }
    return CheckFinding(
        kind="dialect_hint",
        severity="hint",
        title=f"Read as {names[0]} ({suspicion.scale}), {100 * suspicion.hits / n:.0f} % of the "
        f"answers would be right; as declared ({dialect.name}: {scale}), "
        f"{100 * suspicion.declared_hits / n:.0f} %.",
        detail=f"{detail} A hint, not a score: it looked at the true boxes.",
        remedy=suspicion.remedy,
        numbers=numbers,
        examples=tuple(boxes),
    )
