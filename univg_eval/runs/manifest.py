"""What the files of a run record hold: the manifest, and a line of each other file.

The models here are the one definition. Reading and writing check against them, and the JSON
Schema files beside them are made of them: ``python -m univg_eval.runs.manifest``.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NotRequired

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
    with_config,
)
from typing_extensions import TypedDict

from univg_eval.protocols import PROTOCOLS
from univg_eval.scoring import SampleScore

__all__ = [
    "IDENTITY",
    "SCHEMA",
    "Manifest",
    "ResponseLine",
    "Setting",
    "Size",
    "faults",
    "json_schemas",
    "read_score",
]

SCHEMA = 1
"""Version of the layout of a record; readers refuse another one."""

IDENTITY = ("id", "task", "cluster")
"""Of a score: what it is the score of."""

_CONFIG = ConfigDict(
    strict=True,
    extra="allow",
    frozen=True,
    allow_inf_nan=False,
    use_attribute_docstrings=True,
)


def _not_empty(text: str) -> str:
    if not text:
        raise ValueError("expected at least 1 character")
    return text


# Not by `min_length`, which refuses halves of surrogate pairs: a path may hold them.
Text = Annotated[str, AfterValidator(_not_empty), Field(json_schema_extra={"minLength": 1})]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(min_length=64)]
Size = Annotated[list[Positive], Field(min_length=2, max_length=2)]
"""Width and height in pixels."""


class _Part(BaseModel):
    """Keys of later versions are kept and not read."""

    model_config = _CONFIG


class Setting(NamedTuple):
    """A setting and where it comes from."""

    value: str | int | None
    source: Text


class TextSetting(NamedTuple):
    """A `Setting` that is always known."""

    value: Text
    source: Text


class PixelLimit(NamedTuple):
    """A limit of the model's resize in pixels; None: not known."""

    value: Positive | None
    source: Text


class Settings(_Part):
    """Each [value, where it comes from]; iterating gives (name, setting)."""

    __pydantic_extra__: dict[str, Setting]
    dialect: TextSetting
    """How the model writes boxes."""
    prompt: TextSetting
    """Prompt style: think, direct or official."""
    protocol: TextSetting
    """Scoring rule."""
    min_pixels: PixelLimit
    """Lower limit of the model's resize."""
    max_pixels: PixelLimit
    """Upper limit of the model's resize."""
    control: TextSetting
    """What was taken away from the samples; none: nothing."""
    media: TextSetting
    """Images or video."""


class Model(_Part):
    """What answered."""

    id: Text
    """Folder or hub name of the checkpoint, or another name."""
    backend: Text
    """Class of an lmms-eval backend, or univg-train."""
    args: dict[str, Any] | str | None
    """Arguments of the backend as given."""
    config_sha256: str | None
    """SHA-256 (hex) of the checkpoint's config.json; null: none, or not known."""


class Dataset(_Part):
    """What was evaluated."""

    benchmark: Text
    """What ran: the prepared benchmark, or <benchmark>+<variant> under a control or on videos."""
    prepared_benchmark: Text
    """Name of the set below the data root."""
    control: str
    """As in settings."""
    media: str
    """As in settings."""
    fingerprint: Text
    """SHA-256 (hex) of the whole prepared set."""
    n: Positive
    """Samples of the whole prepared set."""
    left_out: Count
    """Samples that the control cannot be applied to."""
    skipped: Count
    """Faulty items left out when the set was prepared."""
    stand_in_images: bool = False
    """Whether images stood in for those of the set; absent in older records: no."""
    revision: str | None
    """Of the annotations."""


_COUNTS = ("n", "excluded", "n_no_target", "n_several")


def _checked_task(figures: dict[str, Any]) -> dict[str, Any]:
    for name in ("n", "excluded"):
        if name not in figures:
            raise ValueError(f"{name} is missing")
    for name, value in figures.items():
        if name in _COUNTS:
            if not isinstance(value, int):
                raise ValueError(f"{name} is {value!r}; expected an integer")
        elif value > 1:
            raise ValueError(f"{name} is {value!r}; expected 0 to 1")
    return figures


_COUNT = {"type": "integer", "minimum": 0}
TaskResults = Annotated[
    dict[str, Annotated[int | float, Field(ge=0)]],
    AfterValidator(_checked_task),
    Field(
        json_schema_extra={
            "required": ["n", "excluded"],
            "properties": dict.fromkeys(_COUNTS, _COUNT),
            "additionalProperties": {"type": "number", "minimum": 0, "maximum": 1},
        }
    ),
]
"""Metrics of a task as fractions, with their counts; see `univg_eval.scoring.aggregate`."""


class Several(_Part):
    """Boxes of the samples with several targets, over all tasks."""

    n_several: Positive
    """Samples with several targets."""
    boxes_per_answer: NotNegative
    """Mean number of boxes in an answer; an unanswered sample has none."""
    targets_per_sample: NotNegative | None
    """Mean number of targets; null: scores of an older version, which do not say it."""


class Rejection(_Part):
    """Explicit "none" answers, over all tasks."""

    n_no_target: Positive
    """Samples without target."""
    n_said_none: Count
    """Answers that say that there is none."""
    recall: Share
    """Of the samples without target those that are answered so."""
    precision: Share | None
    """Of these answers those that are right; null without any."""


class Results(_Part):
    """Figures of the run."""

    tasks: dict[str, TaskResults]
    """Metrics of each task, shares as fractions."""
    macro: dict[str, Share]
    """Unweighted means over the tasks."""
    several: Several | None = None
    """Absent where no sample has several targets, and in older records."""
    rejection: Rejection | None = None
    """Absent where every sample has a target, and in older records."""
    published: dict[str, dict[str, NotNegative]] = {}
    """Rule of the benchmark's authors → its metrics; absent where there is none."""


class Versions(_Part):
    """Of packages; None: absent or not known."""

    __pydantic_extra__: dict[str, str | None]
    univg: str | None
    lmms_eval: str | None
    transformers: str | None
    torch: str | None
    numpy: str | None
    pillow: str | None
    python: str | None
    commit: str | None
    """Ends in -dirty if the checkout had changes."""


class Hardware(_Part):
    """None: not known."""

    machine: str | None
    system: str | None
    cpu: str | None
    cpu_count: Positive | None
    accelerators: list[str] | None


class Engine(_Part):
    """What generated the responses in the place of transformers."""

    name: Text
    version: str | None
    batch_invariant: bool | None
    """Whether vLLM's VLLM_BATCH_INVARIANT was set; null: an engine without it."""


class Repeat(_Part):
    """One of several runs that differ by their seeds alone."""

    number: Positive
    """Which of them, from 1."""
    of: Positive
    """How many were requested."""
    seed: Annotated[list[int | None], Field(min_length=4, max_length=4)]
    """Of Python's random, numpy, torch and few-shot examples."""


class Usage(_Part):
    """What the answers took; null: not known."""

    prompt_tokens: Count | None
    """Of the counted samples, images included."""
    answer_tokens: Count | None
    """Generated for the counted samples, thinking included."""
    counted: Count
    """Samples whose tokens are known. The others came from a cache, failed, or were answered by a
    backend that does not report it."""
    generation_s: NotNegative | None
    """Seconds in which the backend answered all requests of the evaluation, without loading."""
    samples_per_s: NotNegative | None
    """Requests of the evaluation by these seconds."""
    tokens_per_s: NotNegative | None
    """Answer tokens of the evaluation by these seconds."""
    peak_memory_bytes: Count | None
    """Largest memory of the process that wrote the record."""
    peak_memory: Literal["cuda", "resident"] | None
    """What that is: PyTorch's on all GPUs while it answered, or the process's resident set."""
    cost: NotNegative | None
    """Sum of usage.cost of a service's responses (OpenRouter: in its credits, US dollars)."""


class RescoredFrom(_Part):
    """The older record."""

    folder: str
    """Last part of its path."""
    created: str
    model: str
    """Id of its model."""
    responses_sha256: Sha256
    """Of its responses.jsonl."""
    scores_sha256: Sha256
    """Of its scores.jsonl."""


class Rescoring(_Part):
    """One step by which a record came from an older one."""

    source: RescoredFrom = Field(alias="from")
    changed: dict[str, Annotated[list[str | int | None], Field(min_length=2, max_length=2)]]
    """Setting: [value before, value after]."""
    versions: Versions
    """Of the code that scored again."""


class Manifest(_Part):
    """The manifest of a run record: what ran on what. Made by `read`."""

    schema_version: Positive = Field(alias="schema")
    """Version of the record's layout; readers refuse another one."""
    created: Text
    """When the record was written, ISO 8601; of a folder that lmms-eval wrote, when it did."""
    model: Model
    settings: Settings
    protocol_version: Positive = 1
    """Version of the scoring rule that made the scores; absent in older records: 1."""
    prompt_sha256: Text
    """SHA-256 (hex) of what the prompt style added to the instruction."""
    generation: dict[str, Any]
    """Generation arguments."""
    dataset: Dataset
    tasks: list[str] = []
    """Names of lmms-eval's tasks."""
    lmms_eval: dict[str, Any] = {}
    """Arguments batch_size, limit and gen_kwargs as given to lmms-eval."""
    name: Text | None = None
    """What tables call the run; absent: it was given no name."""
    group: Text | None = None
    """Equal in several runs of one thing: repeats, or checkpoints of one name under one request;
    absent: the run stands alone."""
    repeat: Repeat | None = None
    """Which of several repeats this is; absent: the evaluation ran once."""
    evaluation: dict[str, Any] = {}
    """Settings of an evaluation in a training run."""
    n: Positive
    """Samples in this record."""
    complete: bool
    """Whether these are all samples of the set, and the set lacks no faulty items."""
    excluded: Count
    """Samples left out of the figures, see results."""
    failed_requests: Count | None = None
    """Samples without a response because the request failed: unanswered; absent: not counted."""
    results: Results
    published_errors: dict[str, Text] = {}
    """Rule of the benchmark's authors → why results.published lacks it; absent: it lacks none."""
    versions: Versions
    """Of the evaluation."""
    hardware: Hardware
    """Of the evaluation."""
    engine: Engine | None = None
    """The engine that ran in the evaluation's process; absent: none, or not known."""
    wall_time_s: NotNegative | None
    """Seconds of the evaluation; null: not measured."""
    usage: Usage | None = None
    """What the answers took; absent in older records."""
    rescored: list[Rescoring] = []
    """How this record came from older ones, oldest first; absent in the record of an evaluation."""
    _json: dict[str, Any] = PrivateAttr(default_factory=dict)

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> Manifest:
        """A manifest from its JSON object.

        Raises:
            pydantic.ValidationError: it is none; `faults` has the words.
        """
        manifest = cls.model_validate(value)
        manifest._json = copy.deepcopy(dict(value))
        return manifest

    @property
    def scoring_rule(self) -> str:
        """The protocol, with its version where that is not today's."""
        name = self.settings.protocol.value
        known = PROTOCOLS.get(name)
        if known is not None and known.version == self.protocol_version:
            return name
        return f"{name} (version {self.protocol_version})"

    def to_dict(self) -> dict[str, Any]:
        """A copy of the JSON object that it was read from: same keys in the same order."""
        return copy.deepcopy(self._json)


@with_config(_CONFIG)
class ResponseLine(TypedDict):
    """A line of responses.jsonl of a run record."""

    id: Text
    """Of the sample."""
    benchmark: str
    """As dataset.benchmark of the manifest."""
    task: str
    """Of the sample."""
    response: str | None
    """The whole response, thinking included; null: there is none."""
    image_sizes: list[Size] | None
    """[width, height] in pixels of each original image; null: not known."""
    input_sizes: list[Size] | None
    """The same after the model's resize; null: the dialect needs none."""
    prompt: str | None
    """The text that the model was given; null: not known."""
    error: NotRequired[Text | None]
    """The message in place of a response where the request failed."""


@with_config(_CONFIG)
class ChangeLine(TypedDict):
    """A line of changes.jsonl of a run record that was scored again."""

    id: Text
    """Of the sample."""
    task: str
    """Of the sample."""
    flip: Literal["gained", "lost"] | None
    """Whether the sample's own metric (acc@0.5, no_target_acc or f1@0.5) rose or fell; null:
    neither, or it counts in one of the two records alone."""
    before: dict[str, Any]
    """Its score in the older record."""
    after: dict[str, Any]
    """Its score in this record."""


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def faults(value: Any, kind: Any) -> list[str]:
    """What is wrong with a JSON value, each fault in words; empty if it is of the kind.

    Args:
        value: as `json.loads` gives it.
        kind: a model of this module, or another type that pydantic knows.
    """
    try:
        _adapter(kind).validate_python(value)
    except ValidationError as error:
        return _words(error)
    return []


def read_score(line: bytes) -> SampleScore:
    """The score that a line of scores.jsonl holds; keys of later versions are left.

    Raises:
        ValueError: it is none; the message names every fault.
    """
    try:
        score: SampleScore = _adapter(SampleScore).validate_json(line)
    except ValidationError as error:
        raise ValueError("; ".join(_words(error))) from error
    return score


def _words(error: ValidationError) -> list[str]:
    return [_in_words(fault["loc"], fault["msg"], fault["input"]) for fault in error.errors()]


def _in_words(place: tuple[int | str, ...], message: str, received: Any) -> str:
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    where = where.removeprefix(".") or "the value"
    if message == "Field required":
        return f"{where} is missing"
    text = repr(received)
    shown = text if len(text) <= 60 else f"{text[:60]}…"
    expected = message.removeprefix("Value error, ").replace("Input should be", "expected")
    return f"{where} is {shown}: {expected}"


def json_schemas() -> dict[str, dict[str, Any]]:
    """The JSON Schema (2020-12) of each file, by the name of its schema file."""
    kinds = {
        "run_manifest": Manifest,
        "run_response": ResponseLine,
        "run_score": SampleScore,
        "run_change": ChangeLine,
    }
    schemas = {name: _untitled(_adapter(kind).json_schema()) for name, kind in kinds.items()}
    score, change = schemas["run_score"], schemas["run_change"]
    reading = [name for name in score["properties"] if name not in IDENTITY]
    change["$defs"] = {
        "reading": {
            "type": "object",
            "properties": {name: score["properties"][name] for name in reading},
            "required": [name for name in reading if name in score["required"]],
        }
    }
    for name in ("before", "after"):
        description = change["properties"][name]["description"]
        change["properties"][name] = {"$ref": "#/$defs/reading", "description": description}
    return {
        name: {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema
        for name, schema in schemas.items()
    }


def _untitled(schema: Any) -> Any:
    """Without the titles that pydantic makes of the names of fields."""
    if isinstance(schema, list):
        return [_untitled(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _untitled(value)
        for key, value in schema.items()
        if key != "title" or not isinstance(value, str)
    }


def _write_schemas() -> None:
    folder = Path(__file__).with_name("schemas")
    for name, schema in json_schemas().items():
        text = json.dumps(schema, indent=2, ensure_ascii=False)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    _write_schemas()
