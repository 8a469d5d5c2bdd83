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

from univg_eval.answers import Status

__all__ = [
    "SCHEMA",
    "ChangeLine",
    "Manifest",
    "ResponseLine",
    "ScoreLine",
    "Setting",
    "Size",
    "faults",
    "json_schemas",
]

SCHEMA = 1
"""Version of the layout of a record; readers refuse another one."""

_CONFIG = ConfigDict(strict=True, extra="allow", frozen=True, allow_inf_nan=False)


def _not_empty(text: str) -> str:
    if not text:
        raise ValueError("expected at least 1 character")
    return text


# Not by `min_length`, which refuses halves of surrogate pairs: a path may hold them.
Text = Annotated[str, AfterValidator(_not_empty), Field(json_schema_extra={"minLength": 1})]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
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
    dialect: TextSetting = Field(description="how the model writes boxes")
    prompt: TextSetting = Field(description="prompt style: think or direct")
    protocol: TextSetting = Field(description="scoring rule")
    min_pixels: PixelLimit = Field(description="lower limit of the model's resize")
    max_pixels: PixelLimit = Field(description="upper limit of the model's resize")
    control: TextSetting = Field(description="what was taken away from the samples; none: nothing")
    media: TextSetting = Field(description="images or video")


class Model(_Part):
    """What answered."""

    id: Text = Field(description="folder or hub name of the checkpoint, or another name")
    backend: Text = Field(description="class of an lmms-eval backend, or univg-train")
    args: dict[str, Any] | str | None = Field(description="arguments of the backend as given")
    config_sha256: str | None = Field(
        description="SHA-256 (hex) of the checkpoint's config.json; null: none, or not known"
    )


class Dataset(_Part):
    """What was evaluated."""

    benchmark: Text = Field(
        description="what ran: the prepared benchmark, or <benchmark>+<variant> under a control "
        "or on videos"
    )
    prepared_benchmark: Text = Field(description="name of the set below the data root")
    control: str = Field(description="as in settings")
    media: str = Field(description="as in settings")
    fingerprint: Text = Field(description="SHA-256 (hex) of the whole prepared set")
    n: Positive = Field(description="samples of the whole prepared set")
    left_out: Count = Field(description="samples that the control cannot be applied to")
    skipped: Count = Field(description="faulty items left out when the set was prepared")
    revision: str | None = Field(description="of the annotations")


def _checked_task(figures: dict[str, Any]) -> dict[str, Any]:
    for name in ("n", "excluded"):
        if name not in figures:
            raise ValueError(f"{name} is missing")
    for name, value in figures.items():
        if name in ("n", "excluded", "n_no_target", "n_several"):
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
            "properties": {
                "n": _COUNT
                | {
                    "description": "samples with one target that are not excluded: the denominator "
                    "of acc@t, miou, macc, center_acc and answered"
                },
                "excluded": _COUNT | {"description": "left out for an invalid ground truth"},
                "n_no_target": _COUNT | {"description": "the denominator of no_target_acc"},
                "n_several": _COUNT | {"description": "the denominator of f1@0.5 and ap50"},
            },
            "additionalProperties": {"type": "number", "minimum": 0, "maximum": 1},
        }
    ),
]
"""Metrics of a task as fractions, with their counts; see `univg_eval.scoring.aggregate`."""


class Results(_Part):
    """Figures of the run."""

    tasks: dict[str, TaskResults] = Field(description="metrics of each task, shares as fractions")
    macro: dict[str, Share] = Field(description="unweighted means over the tasks")


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
    commit: str | None = Field(description="ends in -dirty if the checkout had changes")


class Hardware(_Part):
    """None: not known."""

    machine: str | None
    system: str | None
    cpu: str | None
    cpu_count: Positive | None
    accelerators: list[str] | None


class RescoredFrom(_Part):
    """The older record."""

    folder: str = Field(description="last part of its path")
    created: str
    model: str = Field(description="id of its model")
    responses_sha256: Sha256 = Field(description="of its responses.jsonl")
    scores_sha256: Sha256 = Field(description="of its scores.jsonl")


class Rescoring(_Part):
    """One step by which a record came from an older one."""

    source: RescoredFrom = Field(alias="from")
    changed: dict[str, Annotated[list[str | int | None], Field(min_length=2, max_length=2)]] = (
        Field(description="setting: [value before, value after]")
    )
    versions: Versions = Field(description="of the code that scored again")


class Manifest(_Part):
    """What ran on what. Made by `read`."""

    model_config = ConfigDict(title="manifest.json of a run record")

    schema_version: Positive = Field(
        alias="schema", description="version of the record's layout; readers refuse another one"
    )
    created: Text = Field(
        description="when the record was written, ISO 8601; of a folder that lmms-eval wrote, "
        "when it did"
    )
    model: Model
    settings: Settings
    prompt_sha256: Text = Field(
        description="SHA-256 (hex) of what the prompt style added to the instruction"
    )
    generation: dict[str, Any] = Field(description="generation arguments")
    dataset: Dataset
    tasks: list[str] = Field(default=[], description="names of lmms-eval's tasks")
    lmms_eval: dict[str, Any] = Field(
        default={}, description="batch_size, limit and gen_kwargs as given to lmms-eval"
    )
    evaluation: dict[str, Any] = Field(
        default={}, description="settings of an evaluation in a training run"
    )
    n: Positive = Field(description="samples in this record")
    complete: bool = Field(
        description="whether these are all samples of the set, and the set lacks no faulty items"
    )
    excluded: Count = Field(description="samples left out of the figures, see results")
    failed_requests: Count | None = Field(
        default=None,
        description="samples without a response because the request failed; they count as "
        "unanswered; absent: not counted",
    )
    results: Results
    versions: Versions = Field(description="of the evaluation")
    hardware: Hardware = Field(description="of the evaluation")
    wall_time_s: Annotated[float, Field(ge=0)] | None = Field(
        description="seconds of the evaluation; null: not measured"
    )
    rescored: list[Rescoring] = Field(
        default=[],
        description="how this record came from older ones, oldest first; absent in the record of "
        "an evaluation",
    )
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

    def to_dict(self) -> dict[str, Any]:
        """A copy of the JSON object that it was read from: same keys in the same order."""
        return copy.deepcopy(self._json)


@with_config(_CONFIG | {"title": "a line of responses.jsonl of a run record"})
class ResponseLine(TypedDict):
    """A line of responses.jsonl."""

    id: Annotated[Text, Field(description="of the sample")]
    benchmark: Annotated[str, Field(description="as dataset.benchmark of the manifest")]
    task: Annotated[str, Field(description="of the sample")]
    response: Annotated[
        str | None, Field(description="the whole response, thinking included; null: there is none")
    ]
    image_sizes: Annotated[
        list[Size] | None,
        Field(description="[width, height] in pixels of each original image; null: not known"),
    ]
    input_sizes: Annotated[
        list[Size] | None,
        Field(description="the same after the model's resize; null: the dialect needs none"),
    ]
    prompt: Annotated[
        str | None, Field(description="the text that the model was given; null: not known")
    ]
    error: NotRequired[
        Annotated[
            Text | None,
            Field(description="the message in place of a response where the request failed"),
        ]
    ]


@with_config(_CONFIG)
class _Reading(TypedDict):
    """How a response was read, and its score."""

    status: Annotated[Status, Field(description="how the response was read")]
    box: Annotated[
        Annotated[list[float], Field(min_length=4, max_length=4)] | None,
        Field(
            description="the chosen box: x1, y1, x2, y2 on 0-1 of its image; published protocols "
            "do not clip it"
        ),
    ]
    iou: Annotated[
        Share | None,
        Field(
            description="with the single target, 0 for every status but ok; null: no target, or "
            "several"
        ),
    ]
    center: Annotated[
        bool | None,
        Field(description="whether the box's centre lies in the single target; null as for iou"),
    ]
    image_index: Annotated[int | None, Field(description="0-based image that the response names")]
    image_right: Annotated[
        bool | None,
        Field(
            description="whether that is the target's image; null: the image was given, or the "
            "protocol does not read it"
        ),
    ]
    no_target_right: Annotated[
        bool | None, Field(description="of a sample without target: whether the status is none")
    ]
    f1: Annotated[Share | None, Field(description="of a sample with several targets")]
    ap50: Annotated[Share | None, Field(description="of a sample with several targets")]
    n_boxes: Annotated[Count, Field(description="boxes in the answer section")]
    n_units: Annotated[Count, Field(description="units in the answer section")]
    clipped: Annotated[bool, Field(description="whether the chosen box reached outside the image")]
    excluded: Annotated[
        bool,
        Field(description="the ground truth is invalid and the protocol leaves such rows out"),
    ]


@with_config(_CONFIG | {"title": "a line of scores.jsonl of a run record"})
class ScoreLine(_Reading):
    """A line of scores.jsonl: the fields of `univg_eval.scoring.SampleScore`."""

    id: Annotated[Text, Field(description="of the sample")]
    task: Annotated[str, Field(description="of the sample")]
    cluster: Annotated[str, Field(description="of the sample: rows that share images")]


@with_config(_CONFIG | {"title": "a line of changes.jsonl of a run record that was scored again"})
class ChangeLine(TypedDict):
    """A line of changes.jsonl."""

    id: Annotated[Text, Field(description="of the sample")]
    task: Annotated[str, Field(description="of the sample")]
    flip: Annotated[
        Literal["gained", "lost"] | None,
        Field(
            description="whether the sample's own metric (acc@0.5, no_target_acc or f1@0.5) rose "
            "or fell; null: neither, or it counts in one of the two records alone"
        ),
    ]
    before: Annotated[_Reading, Field(description="its score in the older record")]
    after: Annotated[_Reading, Field(description="its score in this record")]


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
        return [_in_words(fault["loc"], fault["msg"], fault["input"]) for fault in error.errors()]
    return []


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
        "run_score": ScoreLine,
        "run_change": ChangeLine,
    }
    return {
        name: {"$schema": "https://json-schema.org/draft/2020-12/schema"}
        | _adapter(kind).json_schema()
        for name, kind in kinds.items()
    }


def _write_schemas() -> None:
    folder = Path(__file__).with_name("schemas")
    for name, schema in json_schemas().items():
        text = json.dumps(schema, indent=2, ensure_ascii=False)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    _write_schemas()
