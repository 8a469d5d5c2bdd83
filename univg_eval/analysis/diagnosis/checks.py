"""From samples and responses to findings: what the answers look like, and whether they are read.

What needs no truth comes first: responses without a box and what they say instead, thinking and
answers that never close, generations cut at their limit, several boxes, boxes outside the image,
inverted boxes, numbers that do not fit the declared scale, answers that do not change with the
image. The hint about another dialect (`readings`) comes last and is marked as one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from univg_eval.analysis.diagnosis.findings import (
    MAX_EXAMPLES,
    Finding,
    Severity,
    grave,
    share_words,
)
from univg_eval.analysis.diagnosis.readings import (
    Candidate,
    Limits,
    Reading,
    Suspicion,
    blind_hits,
    candidates,
    is_single,
    read_all,
    remedy_of,
    suspect,
)
from univg_eval.analysis.stats import Interval, binomial_tail, wilson_interval
from univg_eval.boxes import Box
from univg_eval.dialects import Dialect
from univg_eval.dialects.sections import split_response
from univg_eval.errors import UserError
from univg_eval.protocols import get_protocol
from univg_eval.samples import GroundingSample
from univg_eval.scoring import Response, SampleScore, score_samples

__all__ = ["Diagnosis", "diagnose"]

_MISSING_IMAGE = re.compile(
    r"(?i)\b(?:no|any|an|the|your)\s(?:images?|pictures?|photos?)\b[^.\n]{0,40}\b"
    r"(?:provided|attached|uploaded|included|available|visible|given|shared|to\sview)\b"
    r"|\b(?:can(?:no|')?t|cannot|unable\sto|not\sable\sto|don'?t|do\snot)\s"
    r"(?:actually\s|directly\s)?(?:see|view|access|process|open|look\sat|have\saccess\sto)\s"
    r"(?:the\s|any\s|an?\s|your\s)?(?:images?|pictures?|photos?|visual)"
    r"|\b(?:please|could\syou)\s(?:provide|upload|attach|share|send)\b[^.\n]{0,30}"
    r"\b(?:images?|pictures?|photos?)\b|\btext[- ](?:only|based)\s(?:ai|model|language)"
    r"|(?:看不到|看不见|没有?看到|没有?收到|没有(?:提供|上传)|未(?:提供|上传|收到|看到)|"
    r"(?:无法|不能)(?:直接)?(?:查看|看到|访问|打开|读取))(?:任何|您|你|上传|提供|发送|的|这张|该)*"
    r"(?:图片|图像|照片)|请(?:您|你)?(?:先)?(?:重新)?(?:上传|提供|发送)[^。\n]{0,6}(?:图片|图像|照片)"
)
_REFUSAL = re.compile(
    r"(?i)\b(?:sorry|i\s?(?:can(?:no|')?t|am\s(?:unable|not\sable)|'m\s(?:unable|not\sable))"
    r"|cannot\s(?:assist|help|provide|determine|identify|tell|answer)|as\san\sai)\b"
    r"|抱歉|对不起|无法(?:确定|回答|提供|协助)"
)
_POINT = re.compile(
    r"<points?\b|(?<![\d.,])[\[(]\s*\d+(?:\.\d+)?\s*,\s*\d+(?:\.\d+)?\s*[\])](?!\s*,?\s*[\[(]\s*\d)"
)
_SAME_ANSWER = 0.5  # share of one response text from which it is suspicious
_NO_ANSWER = 0.8  # and from which nothing is answered at all
_FEWEST = 8  # answers below which nothing is said about sameness
_AT_LIMIT = 0.98  # of the limit: backends drop special tokens before they can be counted


LONGEST_READ = 50_000
"""Characters of a response beyond which it is no evidence for another reading."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found, and the figures to put beside it.

    Attributes:
        n: responses.
        answered: how many have a readable box, of `asked` whose question has an object.
        hits, single: answers with IoU >= 0.5 among the samples with one valid true box.
        blind: hits expected there if each box belonged to another question.
        above_blind: whether `hits` is more than that (binomial test at 1 %).
        findings: gravest first.
        scores: parallel to the samples, by the protocol.
    """

    n: int
    asked: int
    answered: int
    single: int
    hits: int
    blind: float
    above_blind: bool
    findings: tuple[Finding, ...]
    scores: tuple[SampleScore, ...]

    @property
    def score(self) -> Interval:
        """Share of hits with its 95 % interval (Wilson)."""
        return wilson_interval(self.hits, self.single)


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
    """Look for everything that can be wrong with how a model was asked and read.

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
    if n == 0 or len(responses) != n or (output_tokens is not None and len(output_tokens) != n):
        raise UserError(
            f"{n} samples, {len(responses)} responses and "
            f"{n if output_tokens is None else len(output_tokens)} token counts; expected equally "
            "many, at least one"
        )
    scores = score_samples(samples, responses, dialect, protocol="univg")
    ruled = (
        scores
        if protocol == "univg"
        else score_samples(samples, responses, dialect, protocol=protocol)
    )
    texts = [response.text or "" for response in responses]
    case = _Case(samples, responses, texts, scores, dialect)

    single = [i for i, sample in enumerate(samples) if is_single(sample)]
    kept = [samples[i] for i in single]
    given = [responses[i] for i in single]
    ways = candidates(limits)
    own = Candidate(dialect.name, dialect, _scale(dialect), remedy_of(dialect.name))
    declared = next(iter(read_all(kept, given, [own])), None) if kept else None
    # A response of a megabyte takes seconds in each of a hundred readings.
    short = [k for k, i in enumerate(single) if len(texts[i]) <= LONGEST_READ]
    evidence = [kept[k] for k in short], [given[k] for k in short]
    others = read_all(*evidence, ways) if short else []
    suspicion = None
    if declared is not None and short:
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
    hits = int(declared.hits.sum()) if declared is not None else 0
    blind = 0.0
    if declared is not None:
        blind = blind_hits(declared, np.array([s.box for s in kept], dtype=np.float64))
    above = bool(kept) and binomial_tail(hits, len(kept), blind / len(kept)) < 0.01
    asked = [score for sample, score in zip(samples, scores, strict=True) if sample.targets]
    order = {"problem": 0, "hint": 1, "warning": 2, "note": 3}
    return Diagnosis(
        n=n,
        asked=len(asked),
        answered=sum(score.status == "ok" for score in asked),
        single=len(kept),
        hits=hits,
        blind=blind,
        above_blind=above,
        findings=tuple(sorted(findings, key=lambda finding: order[finding.severity])),
        scores=tuple(ruled),
    )


def _scale(dialect: Dialect) -> str:
    return f"{dialect.order}, {dialect.space.describe()}"


@dataclass(frozen=True, slots=True)
class _Case:
    samples: Sequence[GroundingSample]
    responses: Sequence[Response]
    texts: Sequence[str]
    scores: Sequence[SampleScore]
    dialect: Dialect

    @property
    def n(self) -> int:
        return len(self.samples)

    def where(self, test: Callable[[int], bool]) -> list[int]:
        """Positions that pass."""
        return [i for i in range(self.n) if test(i)]

    def ids(self, positions: Sequence[int]) -> tuple[str, ...]:
        return tuple(self.samples[i].id for i in positions[:MAX_EXAMPLES])


# --- no box --------------------------------------------------------------------------------------

_NO_BOX_WORDS = {
    "empty": "say nothing at all",
    "missing_image": "say that there is no image",
    "refusal": "refuse or apologise",
    "unread_image": "give a box, but name no image where its size has to be known",
    "other_form": "hold four numbers in a form that this dialect does not read",
    "point": "give a point instead of a box",
    "words": "use words without any number",
    "other": "hold numbers, but no box",
}
_NO_BOX_REMEDIES = {
    "empty": "Nothing was generated, or nothing but special tokens that were taken out: look at "
    "the chat template, the stop tokens and the precision of the model.",
    "missing_image": "Let the images arrive first: see the finding about images.",
    "refusal": "Look at the responses. Often the images do not arrive (--controls tells), or the "
    "request is not one that the model was trained for: try another --prompt, or --sweep.",
    "point": "If the model can give boxes too, ask for them in the form that it was trained on "
    "(--dialect, --prompt; --sweep tries others). A model that only points is not scored here.",
    "unread_image": "Nothing, if the model was never trained to name images: where several images "
    "differ in size, a box in pixels means nothing without the image's name.",
}


def _without_box(case: _Case, others: Sequence[Reading], single: Sequence[int]) -> list[Finding]:
    """Responses from which no box is read, by what they say instead."""
    asked = case.where(lambda i: bool(case.samples[i].targets))
    lacking = [i for i in asked if case.scores[i].status == "no_box"]
    findings: list[Finding] = []
    if lacking:
        readers = {i: _readers(others, k) for k, i in enumerate(single)}
        kinds = {i: _instead(case, i, readers.get(i, [])) for i in lacking}
        counts = Counter(kinds.values())
        told = "; ".join(f"{count} {_NO_BOX_WORDS[kind]}" for kind, count in counts.most_common())
        read_by = Counter(name for i in lacking for name in readers.get(i, []))
        top = max(read_by.values(), default=0)
        names = [name for name, count in read_by.items() if count == top]
        detail = f"Of these, {told}."
        top_kind, top_count = counts.most_common(1)[0]
        remedy = _NO_BOX_REMEDIES.get(top_kind if top_count >= len(lacking) / 2 else "", "") or (
            f"Look at the responses. If the model ignores the requested form, try another "
            f"--prompt, or --dialect with the form it does use (declared: {case.dialect.name}, "
            f"{case.dialect.form})."
        )
        if counts["other_form"] >= len(lacking) / 2:
            shown = ", ".join(names[:6]) + (" …" if len(names) > 6 else "")
            detail += (
                f" A box would be read from {top} of them by: {shown}. That says nothing yet about "
                "what the numbers mean."
            )
            remedy = (
                "Find out from the model's own documentation how it writes boxes, and name that "
                "dialect: `univg dialects` lists forms and scales."
            )
        findings.append(
            Finding(
                kind="no_box",
                # A model that was never trained to name images is not set up wrongly.
                severity=grave(len(lacking) - counts["unread_image"], len(asked)),
                title=f"No readable box in {share_words(len(lacking), len(asked))} answers.",
                detail=detail,
                remedy=remedy,
                numbers={
                    "n": len(asked),
                    "no_box": len(lacking),
                    "instead": dict(counts),
                    "read_by": names if top else [],
                    "read_by_n": top,
                },
                examples=case.ids(lacking),
            )
        )
        if counts["missing_image"]:
            talk = [i for i in lacking if kinds[i] == "missing_image"]
            findings.append(
                Finding(
                    kind="image_talk",
                    severity=_at_least_warning(len(talk), len(asked)),
                    title=f"In {share_words(len(talk), len(asked))} answers the model says that it "
                    "has no image.",
                    remedy="The images do not reach the model. Look at the messages of lmms-eval "
                    "(lmms-eval.log beside the page; some backends leave out an image that fails), "
                    "at the backend's limits on the number of images, and whether the backend is "
                    "meant for this model.",
                    numbers={"n": len(asked), "image_talk": len(talk)},
                    examples=case.ids(talk),
                )
            )
    nothing = [i for i in asked if case.scores[i].status == "none"]
    if nothing:
        findings.append(
            Finding(
                kind="says_none",
                severity=grave(len(nothing), len(asked)),
                title=f"In {share_words(len(nothing), len(asked))} answers the model says that "
                "there is no such object, though there is one.",
                remedy="If most do, the images may not reach the model: run with --controls.",
                numbers={"n": len(asked), "none": len(nothing)},
                examples=case.ids(nothing),
            )
        )
    return findings


def _at_least_warning(k: int, n: int) -> Severity:
    """As `grave`, but a `warning` from the second on: images may be lost in a few questions."""
    severity = grave(k, n)
    return "warning" if severity == "note" and k > 1 else severity


def _readers(others: Sequence[Reading], position: int) -> list[str]:
    """Dialects that read a box at this position of the single samples."""
    names = []
    for reading in others:
        name = reading.candidate.dialect.name
        if np.isfinite(reading.boxes[position, 0]) and name not in names:
            names.append(name)
    return names


def _instead(case: _Case, i: int, readers: Sequence[str]) -> str:
    text = case.texts[i]
    section = split_response(text).section
    if not text.strip():
        return "empty"
    if case.scores[i].n_boxes:
        return "unread_image"
    if _MISSING_IMAGE.search(text):
        return "missing_image"
    if readers:
        return "other_form"
    if _REFUSAL.search(text):
        return "refusal"
    if _POINT.search(section):
        return "point"
    return "other" if re.search(r"\d", section) else "words"


# --- cut answers ---------------------------------------------------------------------------------


def _unclosed(case: _Case) -> list[Finding]:
    cut = case.where(lambda i: case.scores[i].status == "truncated")
    if not cut:
        return []
    thinking = [i for i in cut if not _ends_in_answer(case.texts[i])]
    lengths = sorted(len(case.texts[i]) for i in cut)
    return [
        Finding(
            kind="unclosed",
            severity=grave(len(cut), case.n),
            title=f"Cut off before there is a box: {share_words(len(cut), case.n)} answers, "
            f"{len(thinking)} inside the thinking, {len(cut) - len(thinking)} inside the answer.",
            detail=f"Length: {lengths[0]} to {lengths[-1]} characters.",
            remedy="Give the model room: --gen_kwargs max_new_tokens=4096. If it never stops "
            "thinking, ask for the box alone: --prompt direct.",
            numbers={"n": case.n, "unclosed": len(cut), "in_thinking": len(thinking)},
            examples=case.ids(cut),
        )
    ]


def _ends_in_answer(text: str) -> bool:
    """Whether what was never closed is the answer, not the thinking."""
    return not all(split_response(text + end).unclosed for end in ("</answer>", "<|end_of_box|>"))


def _at_limit(
    case: _Case, output_tokens: Sequence[int | None] | None, limit: int | None
) -> list[Finding]:
    if output_tokens is None or limit is None:
        return []
    known = [i for i, tokens in enumerate(output_tokens) if tokens is not None]
    full = [i for i in known if (output_tokens[i] or 0) >= _AT_LIMIT * limit]
    if not full:
        return []
    loops = [i for i in full if _repeats(case.texts[i])]
    boxless = [i for i in full if case.scores[i].status != "ok"]
    detail = f"{len(boxless)} of them have no readable box."
    if loops:
        detail += f" {len(loops)} repeat the same words over and over."
    return [
        Finding(
            kind="token_limit",
            severity=grave(len(full), len(known)),
            title=f"Cut at the limit of {limit} new tokens: {share_words(len(full), len(known))} "
            "responses.",
            detail=detail,
            remedy="Give the model room: --gen_kwargs max_new_tokens=4096."
            if len(loops) < len(full)
            else "A model that repeats itself is not helped by more room: look at its chat "
            "template, its stop token and its precision.",
            numbers={
                "n": len(known),
                "at_limit": len(full),
                "repeating": len(loops),
                "without_box": len(boxless),
                "max_new_tokens": limit,
            },
            examples=case.ids(full),
        )
    ]


def _repeats(text: str) -> bool:
    """Whether the end of a text stands in it at least four times."""
    tail = text.rstrip()[-24:]
    return len(tail) == 24 and text.count(tail) + text.count(tail[:12]) // 2 >= 4


# --- boxes ---------------------------------------------------------------------------------------


def _geometry(case: _Case) -> list[Finding]:
    """Boxes outside the image, inverted boxes, and numbers that do not fit the scale."""
    boxed = case.where(lambda i: case.scores[i].n_boxes > 0)
    if not boxed:
        return []
    findings = []
    numbers = _raw_numbers(case, boxed)
    outside = [i for i in boxed if case.scores[i].clipped or _wholly_outside(case, i)]
    if outside:
        largest = max((max(map(abs, raw)) for i in outside for raw in numbers[i]), default=0.0)
        findings.append(
            Finding(
                kind="outside",
                severity=grave(len(outside), len(boxed)),
                title=f"Boxes reach outside the image in {share_words(len(outside), len(boxed))} "
                f"answers with boxes; the largest number is {largest:g}.",
                detail=f"Declared: {_scale(case.dialect)}.",
                remedy="Numbers beyond the scale usually mean another scale: pixels read as "
                "0-1000, or pixels of another size than the one assumed (--dialect, pixel limits).",
                numbers={"n": len(boxed), "outside": len(outside), "largest": largest},
                examples=case.ids(outside),
            )
        )
    invalid = [i for i in boxed if case.scores[i].status == "invalid_box" and i not in set(outside)]
    if invalid:
        findings.append(
            Finding(
                kind="invalid_box",
                severity=grave(len(invalid), len(boxed)),
                title=f"Inverted or empty boxes (x2 <= x1 or y2 <= y1) in "
                f"{share_words(len(invalid), len(boxed))} answers with boxes.",
                remedy="The numbers may be x, y, width, height, or two points in another order: "
                "ask for x1, y1, x2, y2 in the prompt (--dialect norm1000 does).",
                numbers={"n": len(boxed), "invalid": len(invalid)},
                examples=case.ids(invalid),
            )
        )
    small = [i for i in boxed if numbers[i] and all(max(map(abs, r)) <= 1 for r in numbers[i])]
    if small and case.dialect.space.kind not in ("norm1", "norm1_padded_square", "patch_grid"):
        findings.append(
            Finding(
                kind="small_numbers",
                severity=grave(len(small), len(boxed)),
                title=f"No number above 1 in {share_words(len(small), len(boxed))} answers with "
                f"boxes, though the declared scale is {case.dialect.space.describe()}.",
                remedy="These look like fractions of the image: --dialect norm1 or the model's own "
                "dialect.",
                numbers={"n": len(boxed), "small": len(small)},
                examples=case.ids(small),
            )
        )
    return findings


def _raw_numbers(case: _Case, positions: Sequence[int]) -> dict[int, list[tuple[float, ...]]]:
    """Finite numbers as written in the answer sections."""
    found = {}
    for i in positions:
        scanned = case.dialect.scan(split_response(case.texts[i]).section)
        rows = [raw for _, _, raw, _, _ in scanned if raw is not None]
        found[i] = [raw for raw in rows if np.isfinite(raw).all()]
    return found


def _wholly_outside(case: _Case, i: int) -> bool:
    """Whether an invalid box is one in order that does not touch its image."""
    if case.scores[i].status != "invalid_box":
        return False
    rows = _raw_numbers(case, [i])[i]
    return bool(rows) and all(len(r) == 4 and r[0] < r[2] and r[1] < r[3] for r in rows)


def _several(case: _Case) -> list[Finding]:
    one = case.where(lambda i: len(case.samples[i].targets) == 1 and case.scores[i].n_boxes > 0)
    many = [i for i in one if case.scores[i].n_boxes > 1]
    if not many:
        return []
    severity = grave(len(many), len(one))
    units = sum(case.scores[i].n_units > 1 for i in many)
    return [
        Finding(
            kind="several_boxes",
            severity="warning" if severity == "problem" else severity,
            title=f"Several boxes where one is asked for in {share_words(len(many), len(one))} "
            "answers with boxes.",
            detail="The first box of the answer's last unit counts (docs/protocols.md); "
            f"{units} of them have several units.",
            remedy="If the model lists candidates, ask for one box in the prompt; if it thinks "
            "aloud, have it close its thinking or put the box into <answer> tags: --prompt think.",
            numbers={"n": len(one), "several": len(many), "several_units": units},
            examples=case.ids(many),
        )
    ]


def _image_not_named(case: _Case) -> list[Finding]:
    search = case.where(lambda i: not case.samples[i].image_is_given and case.scores[i].n_boxes > 0)
    unnamed = [i for i in search if case.scores[i].image_index is None]
    if not unnamed:
        return []
    return [
        Finding(
            kind="image_not_named",
            severity="note",
            title=f"The image is not named in {share_words(len(unnamed), len(search))} answers, "
            "where the model had to find it.",
            detail="image_acc and joint@0.5 count these as not right; Acc@0.5 is about the box "
            "alone."
            + (
                " This dialect needs the image's size, so such boxes can be unreadable."
                if case.dialect.needs_image_size or case.dialect.needs_input_size
                else ""
            ),
            remedy="Nothing, if the model was never trained to name images.",
            numbers={"n": len(search), "not_named": len(unnamed)},
            examples=case.ids(unnamed),
        )
    ]


# --- the images ----------------------------------------------------------------------------------


def _sameness(case: _Case) -> list[Finding]:
    """One answer for many questions, or for the same question about different images."""
    if case.n < _FEWEST:
        return []
    findings = []
    text, count = Counter(text.strip() for text in case.texts).most_common(1)[0]
    if text and count > _SAME_ANSWER * case.n:
        same = case.where(lambda i: case.texts[i].strip() == text)
        shown = text if len(text) <= 80 else text[:77] + "…"
        findings.append(
            Finding(
                kind="constant_answer",
                severity="problem" if count >= _NO_ANSWER * case.n else "warning",
                title=f"Word for word the same: {share_words(count, case.n)} responses are "
                f"{shown!r}.",
                remedy="The questions differ, so their answers should. Check that images and "
                "question reach the model (--controls shows whether answers change with blank "
                "images), and its chat template.",
                numbers={"n": case.n, "same": count, "text": shown},
                examples=case.ids(same),
            )
        )
    groups: dict[str, list[int]] = {}
    for i, sample in enumerate(case.samples):
        groups.setdefault(sample.instruction, []).append(i)
    pairs = equal = 0
    shown_ids: list[int] = []
    for members in groups.values():
        for a, b in pairwise(members):
            # The same place is right where both show one picture, e.g. in two sizes.
            if case.samples[a].cluster != case.samples[b].cluster and case.texts[a].strip():
                pairs += 1
                if case.texts[a].strip() == case.texts[b].strip():
                    equal += 1
                    shown_ids += [a, b]
    if pairs >= _FEWEST and not findings and equal > _SAME_ANSWER * pairs:
        findings.append(
            Finding(
                kind="same_across_images",
                severity="warning",
                title=f"{share_words(equal, pairs)} times the same question about other images got "
                "word for word the same answer.",
                remedy="The images may not reach the model: run with --controls.",
                numbers={"pairs": pairs, "equal": equal},
                examples=case.ids(shown_ids),
            )
        )
    return findings


# --- reading -------------------------------------------------------------------------------------


def _protocol_differs(case: _Case, ruled: Sequence[SampleScore], protocol: str) -> list[Finding]:
    if protocol == "univg":
        return []
    lost = case.where(lambda i: case.scores[i].status == "ok" and ruled[i].status != "ok")
    other = case.where(
        lambda i: ruled[i].status == "ok" and _differ(case.scores[i].box, ruled[i].box)
    )
    if not lost and not other:
        return []
    return [
        Finding(
            kind="protocol_differs",
            severity=grave(len(lost) + len(other), case.n),
            title=f"The rule {protocol} reads no box in {len(lost)} and another box in "
            f"{len(other)} of {case.n} answers that the dialect {case.dialect.name} reads.",
            detail=get_protocol(protocol).description,
            remedy="Published rules have quirks (docs/protocols.md); use them to compare with "
            "printed numbers only, and univg for your own.",
            numbers={"n": case.n, "not_read": len(lost), "another_box": len(other)},
            examples=case.ids(lost + other),
        )
    ]


def _limits_not_tested(declared: Reading, others: Sequence[Reading]) -> list[Finding]:
    """Where the images are too small for pixel limits to matter, nothing is known about them."""
    own = declared.candidate.dialect.pixel_limits
    if own is None or not declared.n_read:
        return []
    same = [
        reading.candidate.dialect.pixel_limits
        for reading in others
        if reading.candidate.dialect.name == declared.candidate.dialect.name
        and reading.candidate.dialect.pixel_limits != own
        and np.array_equal(reading.boxes, declared.boxes, equal_nan=True)
    ]
    if not same:
        return []
    shown = ", ".join(f"{low} to {high}" for low, high in filter(None, same))
    return [
        Finding(
            kind="limits_not_tested",
            severity="note",
            title=f"These images do not show whether the pixel limits are right: {own[0]} to "
            f"{own[1]} pixels read every answer like {shown}.",
            detail="On larger images the limits decide what the numbers mean.",
            remedy="Check on images as large as those of your run: --tasks takes any prepared "
            "benchmark.",
            numbers={"declared": list(own), "same": [list(pair) for pair in filter(None, same)]},
        )
    ]


def _differ(a: Box | None, b: Box | None) -> bool:
    """Whether two boxes differ by more than the rounding of a 0-1000 scale."""
    if a is None or b is None:
        return False
    return not np.allclose(a, np.clip(b, 0.0, 1.0), atol=2e-3)


def _hint(suspicion: Suspicion, dialect: Dialect) -> Finding:
    n = suspicion.n
    names = list(suspicion.names)
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    same = f"Readings that agree on every answer: {shown}. " if len(names) > 1 else ""
    close = suspicion.not_told_apart
    apart = (
        " These answers do not tell it from: "
        + ", ".join(close[:6])
        + (f" and {len(close) - 6} more." if len(close) > 6 else ".")
        if close
        else ""
    )
    scale = _scale(dialect)
    if dialect.pixel_limits is not None:
        low, high = dialect.pixel_limits
        scale += f", min_pixels={low}, max_pixels={high}"
    shown_boxes = {name: list(box) for name, box in list(suspicion.boxes.items())[:MAX_EXAMPLES]}
    numbers: dict[str, Any] = {
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
            "boxes": shown_boxes,
        },
        "not_told_apart": list(close),
        "p_against_declared": suspicion.p_declared,
        "p_against_blind": suspicion.p_blind,
    }
    return Finding(
        kind="dialect_hint",
        severity="hint",
        title=f"Read as {names[0]} ({suspicion.scale}), {100 * suspicion.hits / n:.0f} % of the "
        f"answers would be right; as declared ({dialect.name}: {scale}), "
        f"{100 * suspicion.declared_hits / n:.0f} %.",
        detail=f"{same}By chance {100 * suspicion.blind / n:.0f} % would be right.{apart} A hint, "
        "not a score: it looked at the true boxes.",
        remedy=suspicion.remedy,
        numbers=numbers,
        examples=tuple(shown_boxes),
    )
