"""Rewards of GRPO: the evaluation's own reading of a completion, as TRL reward functions.

`make_rewards` gives the functions that go to a TRL trainer as ``reward_funcs``. TRL calls them with
the completions of a batch and every column of the data by name:

=============  =================================================================================
solution       true box, [x1, y1, x2, y2] on [0, 1] of its image (xyxy_norm); None if there is no
               such object, or if there are several
targets        true objects where ``solution`` is None: {"image": 0-based, "box": as above}; none,
               or no such column: there is no such object
dialect        how the model writes boxes, a name of ``univg dialects``
style          ``think`` or ``direct``: the form of answer requested; or, instead of it,
single_image   True for ``direct``, False for ``think``
image_sizes    [[width, height], …] in pixels of the originals; None if unknown
input_sizes    the same as the model sees them; None: by the dialect's resize rule
target_image   0-based image that the instruction names; None where the model has to find it
image_is_given whether the instruction is about a certain image; None: if there is a target_image
find_all       whether it asks for every object that fits; then even one stands in ``targets``
=============  =================================================================================

Only solution, dialect and style are always needed, and sizes where the dialect's boxes depend on
them. Two rules:

* ``univg``: accuracy is what `univg_eval.scoring` gives the same text, by the same call: the IoU
  with one true object, ``matched_iou`` (or ``f1@0.5``) with several, and without one 1 for the
  status ``none`` and 0 for all else. What cannot be read gets 0.
* ``univg-r1``: the functions of the release, see `univg_train.grpo.released_rewards`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from univg_eval.answers import Status
from univg_eval.boxes import Box, is_valid_box
from univg_eval.dialects import Dialect, get_dialect
from univg_eval.errors import UserError
from univg_eval.prompts import TRAINED_STYLES
from univg_eval.protocols import parse_answer
from univg_eval.samples import GroundingSample, Target
from univg_eval.scoring import Response, SampleScore, read_response, sample_metrics, score_samples
from univg_train.grpo.released_rewards import released_accuracy, released_format

__all__ = [
    "REWARD_RULES",
    "SEVERAL_REWARDS",
    "AccuracyReward",
    "FormatReward",
    "Grade",
    "LengthReward",
    "Reward",
    "check_rows",
    "completion_text",
    "make_rewards",
]

REWARD_RULES = ("univg", "univg-r1")
SHAPINGS = ("diou",)
SEVERAL_REWARDS = ("matched_iou", "f1@0.5")
"""Metrics of `univg_eval.scoring` that rows with several true objects can be rewarded by."""

Columns = Mapping[str, Sequence[Any]]
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Grade:
    """How a completion did.

    Attributes:
        metric: ``miou``, ``no_target_acc`` or one of `SEVERAL_REWARDS`, by the number of true
            objects: what the mean of `overlap` is.
        status: how its text was read; None under the rule ``univg-r1``, which has no status.
        overlap: the completion's share in that metric, in [0, 1].
        reward: `overlap`, after threshold or shaping.
        box: the chosen box, xyxy_norm; None where none was read, and under ``univg-r1``.
    """

    metric: str
    status: Status | None
    overlap: float
    reward: float
    box: Box | None = None


def make_rewards(
    *,
    rule: str = "univg",
    style: str | None = None,
    threshold: float | None = None,
    shaping: str | None = None,
    several: str | None = "matched_iou",
    length: tuple[int, int] | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
) -> list[Reward]:
    """The reward functions of a run: accuracy, format and, if wanted, length.

    Args:
        rule: one of `REWARD_RULES`.
        style: ``think`` or ``direct`` for all rows; None: as each row's ``style`` says, or its
            ``single_image``.
        threshold: of rows with one true object: accuracy is 1 from this IoU on and 0 below,
            instead of the IoU itself.
        shaping: of the same, ``diou``: accuracy of a readable box is (1 + DIoU) / 2, so that of
            two boxes that miss, the nearer one gets more.
        several: one of `SEVERAL_REWARDS`; None: rows with several true objects are refused.
        length: (free, limit) in tokens: adds a function that is 0 up to `free` tokens and falls
            linearly to -1 at `limit`.
        min_pixels, max_pixels: limits of the model's resize in this run, for dialects in pixels
            of the resized input; None: the family's own.

    Returns:
        ``accuracy_reward``, ``format_reward`` and perhaps ``length_reward``; TRL adds them up
        (or weighs them by ``reward_weights``).

    Raises:
        UserError: an unknown name, a number out of range, or options that exclude each other.
    """
    if rule not in REWARD_RULES:
        raise UserError(f"unknown reward rule {rule!r}; expected one of: {', '.join(REWARD_RULES)}")
    if style not in (None, *TRAINED_STYLES):
        raise UserError(
            f"unknown style {style!r}; expected {' or '.join(TRAINED_STYLES)}, or None to follow "
            "each row's style or single_image"
        )
    accuracy = AccuracyReward(
        rule=rule,
        style=style,
        threshold=threshold,
        shaping=shaping,
        several=several,
        min_pixels=min_pixels,
        max_pixels=max_pixels,
    )
    rewards: list[Reward] = [accuracy, FormatReward(rule=rule, style=style)]
    return rewards if length is None else [*rewards, LengthReward(*length)]


@dataclass(frozen=True, kw_only=True)
class AccuracyReward:
    """How well the completion's boxes fit the true ones; see `make_rewards`."""

    rule: str = "univg"
    style: str | None = None
    threshold: float | None = None
    shaping: str | None = None
    several: str | None = "matched_iou"
    min_pixels: int | None = None
    max_pixels: int | None = None

    __name__ = "accuracy_reward"

    def __post_init__(self) -> None:
        threshold, shaping = self.threshold, self.shaping
        if threshold is not None and not 0 < threshold <= 1:
            raise UserError(f"threshold is {threshold!r}; expected an IoU above 0 and up to 1")
        if shaping not in (None, *SHAPINGS):
            raise UserError(f"unknown shaping {shaping!r}; expected {', '.join(SHAPINGS)} or None")
        if self.several not in (None, *SEVERAL_REWARDS):
            raise UserError(
                f"several is {self.several!r}; expected one of: {', '.join(SEVERAL_REWARDS)}, or "
                "None for no rows with several true objects"
            )
        if threshold is not None and shaping is not None:
            raise UserError("threshold and shaping exclude each other; give one of them")
        changes = (threshold, shaping, self.min_pixels, self.max_pixels)
        if self.rule == "univg-r1" and changes != (None,) * 4:
            raise UserError(
                "reward rule 'univg-r1' is the released code and has no threshold, shaping or "
                "pixel limits; leave them out or use rule 'univg'"
            )
        self._dialect("qwen2_5_vl")  # checks the limits

    def _dialect(self, name: str) -> Dialect:
        return _dialect(name, self.min_pixels, self.max_pixels)

    def __call__(
        self, *, completions: Sequence[Any], completion_ids: Any = None, **columns: Any
    ) -> list[float]:
        """The reward of each completion."""
        return [grade.reward for grade in self.grade(completions, columns)]

    def grade(self, completions: Sequence[Any], columns: Columns) -> list[Grade]:
        """Read and grade completions.

        Args:
            completions: texts, or lists of messages.
            columns: the data's columns by name, one value a completion.

        Raises:
            UserError: a column is missing, or a row cannot be graded.
        """
        texts = [completion_text(completion) for completion in completions]
        rows = _rows(columns, len(texts), self)
        if self.rule == "univg-r1":
            return [self._released(text, row) for text, row in zip(texts, rows, strict=True)]
        grades: dict[int, Grade] = {}
        for name in dict.fromkeys(row["dialect"] for row in rows):
            members = [i for i, row in enumerate(rows) if row["dialect"] == name]
            scores = score_samples(
                [_sample(rows[i]) for i in members],
                [_response(texts[i], rows[i]) for i in members],
                self._dialect(name),
            )
            for i, score in zip(members, scores, strict=True):
                grades[i] = self._graded(score, rows[i]["solution"])
        return [grades[i] for i in range(len(rows))]

    def _released(self, text: str, row: Row) -> Grade:
        x1, y1, x2, y2 = row["solution"]
        overlap = released_accuracy(text, (x1, y1, x2, y2), direct=_is_direct(row, self.style))
        return Grade("miou", status=None, overlap=overlap, reward=overlap)

    def metric_of(self, n_targets: int) -> str:
        """The metric that a row with this number of true objects is rewarded by."""
        return ("no_target_acc", "miou", self.several or "")[min(n_targets, 2)]

    def describe(self, n_targets: int) -> str:
        """The reward of a row with this number of true objects, in words."""
        if n_targets != 1:
            return self.metric_of(n_targets)
        if self.rule == "univg-r1":
            return "IoU as released"
        if self.threshold is not None:
            return f"1 from IoU {self.threshold:g} on"
        return "IoU" if self.shaping is None else "(1 + DIoU) / 2"

    def _graded(self, score: SampleScore, solution: Sequence[float] | None) -> Grade:
        if solution is None:
            metric = self.metric_of(0 if score.no_target_right is not None else 2)
            value = sample_metrics(score)[metric]
            return Grade(metric, score.status, overlap=value, reward=value, box=score.box)
        overlap = reward = score.iou or 0.0
        if self.threshold is not None:
            reward = float(overlap >= self.threshold)
        elif self.shaping is not None and score.box is not None:
            reward = (1 + overlap - _squared_center_gap(score.box, solution)) / 2
        return Grade(self.metric_of(1), score.status, overlap, reward, score.box)

    def problem(self, row: Row) -> str | None:
        """What is wrong with a row of the data; None: nothing."""
        if "solution" not in row:
            return _missing("solution", row)
        solution = row["solution"]
        if problem := _targets_problem(row):
            return problem
        n_several = len(_several(row))
        if self.rule == "univg-r1":
            if n_several:
                return f"{n_several} targets; rule 'univg-r1' knows no row with several"
            if solution is None:
                return "solution is None; rule 'univg-r1' knows no row without a true object"
            return _style_problem(row, self.style)
        if n_several and self.several is None:
            return f"{n_several} targets, and no reward for several (several=None)"
        return _dialect_problem(row) or _sizes_problem(row, self._dialect(row["dialect"]))


@dataclass(frozen=True, kw_only=True)
class FormatReward:
    """Whether the completion has the form that was requested: 1 or 0.

    Rule ``univg``: with thinking, the whole text is ``<think>…</think>``, then
    ``<answer>…</answer>``, neither empty; direct, there is no thinking. Either way the answer
    holds one box in the dialect and no second, or says that there is no such object. Where there
    are several true objects, one list of boxes, or one for each image that it names, is as good.
    """

    rule: str = "univg"
    style: str | None = None

    __name__ = "format_reward"

    def __call__(
        self, *, completions: Sequence[Any], completion_ids: Any = None, **columns: Any
    ) -> list[float]:
        """1.0 or 0.0 for each completion."""
        texts = [completion_text(completion) for completion in completions]
        rows = _rows(columns, len(texts), self)
        return [float(self._fits(text, row)) for text, row in zip(texts, rows, strict=True)]

    def _fits(self, text: str, row: Row) -> bool:
        direct = _is_direct(row, self.style)
        if self.rule == "univg-r1":
            return released_format(text, direct=direct)
        dialect = _dialect(row["dialect"], None, None)
        if _several(row):
            answer = read_response(_sample(row), _response(text, row), dialect)
            images = {*answer.box_images}
            one = answer.n_units in (1, 1 if None in images else max(len(images), 1))
        else:
            answer = parse_answer(text, dialect)
            one = answer.n_units == 1 and (answer.n_boxes == 1 or answer.status == "none")
        if direct:
            closed = text.count("<answer>") == text.count("</answer>")
            return one and answer.thinking is None and closed
        match = _REASONED.fullmatch(text)
        return one and match is not None and not match["thinking"].isspace()

    def problem(self, row: Row) -> str | None:
        """What is wrong with a row, or None."""
        problem = _style_problem(row, self.style)
        return problem or (None if self.rule == "univg-r1" else _dialect_problem(row))


@dataclass(frozen=True)
class LengthReward:
    """0 up to `free` tokens, then falling linearly to -1 at `limit` tokens and beyond."""

    free: int
    limit: int

    __name__ = "length_reward"

    def __post_init__(self) -> None:
        if not 0 <= self.free < self.limit:
            raise UserError(
                f"length is ({self.free}, {self.limit}); expected 0 <= free < limit, in tokens"
            )

    def __call__(
        self, *, completions: Sequence[Any], completion_ids: Any = None, **columns: Any
    ) -> list[float]:
        """From 0.0 to -1.0 for each completion, by its number of tokens."""
        if completion_ids is None:
            raise UserError("length_reward counts tokens and got no completion_ids")
        over = [(len(ids) - self.free) / (self.limit - self.free) for ids in completion_ids]
        return [-min(max(share, 0.0), 1.0) for share in over]


Reward = AccuracyReward | FormatReward | LengthReward
"""A TRL reward function; `problem` says what is wrong with a row, or None."""

_TEXT = r"(?:(?!</?(?:think|answer)>).)+"
_REASONED = re.compile(
    rf"\s*<think>(?P<thinking>{_TEXT})</think>\s*<answer>{_TEXT}</answer>\s*", re.DOTALL
)


def completion_text(completion: Any) -> str:
    """The text of a completion as TRL hands it over: a string, or messages (the last one counts).

    Thinking that the tokenizer's response template has taken out is put back between its tags.
    """
    if isinstance(completion, str):
        return completion
    message = completion[-1] if isinstance(completion, list) and completion else None
    content = message.get("content") if isinstance(message, Mapping) else None
    if isinstance(content, list):
        content = "".join(part.get("text") or "" for part in content if isinstance(part, Mapping))
    if not isinstance(message, Mapping) or not isinstance(content, str):
        raise UserError(
            f"a completion is {type(completion).__name__} {completion!r:.80}; expected a text or a "
            "list of messages with a content"
        )
    thinking = message.get("reasoning_content") or message.get("thinking")
    return f"<think>{thinking}</think>{content}" if thinking else content


def check_rows(
    rows: Iterable[Row],
    rewards: Iterable[Any],
    *,
    what: str = "the training data",
    shown: int = 5,
) -> int:
    """Check before a run that the rewards can grade every row; returns the number of rows.

    Args:
        rows: the data; images are not needed.
        rewards: those of `make_rewards`; other functions are left alone.
        what: names the data in a message.
        shown: number of bad rows that a message names.

    Raises:
        UserError: bad rows, all of them counted and the first few named; or there are no rows.
    """
    checked = [reward for reward in rewards if hasattr(reward, "problem")]
    n_rows, bad = 0, list[str]()
    for row in rows:
        problem = next(filter(None, (reward.problem(row) for reward in checked)), None)
        if problem is not None:
            bad.append(f"row {n_rows}: {problem}")
        n_rows += 1
    if n_rows == 0:
        raise UserError(f"{what} has no rows; expected at least one")
    if bad:
        more = [f"and {len(bad) - shown} more"] if len(bad) > shown else []
        raise UserError(
            f"{what}: {len(bad)} of {n_rows} rows cannot be rewarded; mend them or leave them "
            "out:\n  " + "\n  ".join(bad[:shown] + more)
        )
    return n_rows


# --- rows ----------------------------------------------------------------------------------------

_KNOWN_COLUMNS = (
    *("solution", "targets", "dialect", "style", "single_image"),
    *("image_sizes", "input_sizes", "target_image", "image_is_given", "find_all"),
)


def _rows(columns: Columns, n: int, reward: AccuracyReward | FormatReward) -> list[Row]:
    """The columns of a batch as one mapping a completion, checked."""
    known = {name: columns[name] for name in _KNOWN_COLUMNS if name in columns}
    rows: list[Row] = [{name: values[i] for name, values in known.items()} for i in range(n)]
    for i, row in enumerate(rows):
        if (problem := reward.problem(row)) is not None:
            raise UserError(f"{reward.__name__}: row {i} of the batch: {problem}")
    return rows


def _missing(name: str, row: Row) -> str:
    return (
        f"column {name!r} is missing (there are {', '.join(sorted(row)) or 'none'}); add it, and "
        "give GRPOConfig remove_unused_columns=False"
    )


def _style_problem(row: Row, style: str | None) -> str | None:
    if style is not None:
        return None
    style, styles = row.get("style"), " or ".join(TRAINED_STYLES)
    if style is not None:
        return None if style in TRAINED_STYLES else f"style is {style!r}; expected {styles}"
    if "single_image" not in row:
        return _missing("single_image", row)
    single = row["single_image"]
    wrong = not isinstance(single, bool)
    return f"single_image is {single!r}; expected True or False" if wrong else None


def _dialect_problem(row: Row) -> str | None:
    if "dialect" not in row:
        return _missing("dialect", row)
    if not isinstance(row["dialect"], str):
        return f"dialect is {row['dialect']!r}; expected a name, see `univg dialects`"
    try:
        gives_boxes = _dialect(row["dialect"], None, None).gives_boxes
    except UserError as error:
        return str(error)
    return None if gives_boxes else f"dialect {row['dialect']!r} gives points, not boxes"


def _several(row: Row) -> Sequence[Mapping[str, Any]]:
    """The true objects of a row that is scored as a set; empty for every other row."""
    targets = row.get("targets") or ()
    as_set = len(targets) > 1 or row.get("find_all")
    return targets if row["solution"] is None and as_set else ()


def _names_image(row: Row) -> bool:
    """Whether the instruction is about a certain image."""
    stated = row.get("image_is_given")
    return row.get("target_image") is not None if stated is None else bool(stated)


def _targets_problem(row: Row) -> str | None:
    solution, targets = row["solution"], row.get("targets") or ()
    if solution is not None:
        return _box_problem(solution, "solution", ", or None for no true object or several")
    if len(targets) == 1 and not row.get("find_all"):
        return "solution is None and targets has one object; expected its box as the solution"
    for i, target in enumerate(targets):
        if not isinstance(target, Mapping) or "box" not in target:
            return f"targets[{i}] is {target!r}; expected {{'image': …, 'box': …}}"
        image = target.get("image")
        if image is None and not _names_image(row):
            return f"targets[{i}] has no image, and the instruction names none; expected its number"
        if problem := _box_problem(target["box"], f"targets[{i}]"):
            return problem
    return None


def _box_problem(value: Any, name: str, otherwise: str = "") -> str | None:
    try:
        box = [float(number) for number in value]
    except (TypeError, ValueError):
        box = []
    if len(box) != 4:
        return f"{name} is {value!r}; expected [x1, y1, x2, y2]{otherwise}"
    if not is_valid_box(box):
        return f"{name} is {value!r}; expected 0 <= x1 < x2 <= 1, same for y"
    return None


def _sizes_problem(row: Row, dialect: Dialect) -> str | None:
    image_sizes, input_sizes = row.get("image_sizes"), row.get("input_sizes")
    for name, sizes in (("image_sizes", image_sizes), ("input_sizes", input_sizes)):
        if sizes is not None and not all(len(wh) == 2 and min(wh) >= 1 for wh in sizes):
            return f"{name} is {sizes!r}; expected [width, height] in pixels of each image"
    counts = len(image_sizes or ()), len(input_sizes or ())
    if all(counts) and counts[0] != counts[1]:
        return f"{counts[0]} image_sizes but {counts[1]} input_sizes; expected as many"
    needs = "image_sizes" if dialect.needs_image_size else "image_sizes or input_sizes"
    needed = dialect.needs_image_size or (dialect.needs_input_size and not input_sizes)
    if needed and not image_sizes:
        return f"boxes of dialect {dialect.name!r} are in pixels; the row needs {needs}"
    n_images = max(counts)
    images = {"target_image": row.get("target_image")} | {
        f"the image of targets[{i}]": target.get("image") for i, target in enumerate(_several(row))
    }
    for name, image in images.items():
        if image is not None and (
            type(image) is not int or image < 0 or (n_images and image >= n_images)
        ):
            return f"{name} is {image!r}; expected 0 to {n_images - 1}, or None"
    return None


@lru_cache(maxsize=256)
def _dialect(name: str, min_pixels: int | None, max_pixels: int | None) -> Dialect:
    return get_dialect(name, min_pixels=min_pixels, max_pixels=max_pixels)


def _is_direct(row: Row, style: str | None) -> bool:
    style = style or row.get("style")
    return style == "direct" if style else bool(row["single_image"])


_NAMES: Mapping[str, Any] = dict.fromkeys(
    ("id", "benchmark", "task", "split", "instruction", "cluster"), "train"
)


def _sample(row: Row) -> GroundingSample:
    """The row as the evaluation knows it."""
    image, solution = row.get("target_image"), row["solution"]

    def target(box: Sequence[Any], shown_in: int | None) -> Target:
        x1, y1, x2, y2 = (float(value) for value in box)
        return Target((image or 0) if shown_in is None else shown_in, (x1, y1, x2, y2))

    if solution is not None:
        targets = [target(solution, None)]
    else:
        targets = [target(found["box"], found.get("image")) for found in _several(row)]
    return GroundingSample(
        **_NAMES, images=(), widths=(), heights=(), targets=tuple(targets),
        image_is_given=_names_image(row), given_image=image,
        find_all=bool(row.get("find_all")),
    )  # fmt: skip


def _response(text: str, row: Row) -> Response:
    sizes: dict[str, Any] = {
        name: [(w, h) for w, h in row[name]]
        for name in ("image_sizes", "input_sizes")
        if row.get(name)
    }
    return Response(text=text, **sizes)


def _squared_center_gap(a: Box, b: Sequence[float]) -> float:
    """Squared distance of the centres by the squared diagonal of the box around both.

    Zheng et al., "Distance-IoU Loss" (AAAI 2020): what DIoU subtracts from the IoU; below 1.
    """
    gap = math.hypot((a[0] + a[2] - b[0] - b[2]) / 2, (a[1] + a[3] - b[1] - b[3]) / 2)
    around = math.hypot(max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1]))
    return (gap / around) ** 2
