"""Two backends on the same samples: where they part, from the prompt to the score.

Each sample is asked alone, and for models on transformers the inputs of ``generate`` are kept:
token ids, the size of each image, and statistics of the pixels; vLLM says its token ids. Of other
backends, and of run records, the prompt's text and the response are known.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from lmms_eval.api.instance import Instance, unwrap_generation_output
from lmms_eval.utils import simple_parse_args_string

from univg_eval.analysis.stats import Difference, compare_pairs
from univg_eval.errors import UserError
from univg_eval.lmms.command import check
from univg_eval.lmms.run import LoadedModel
from univg_eval.lmms.settings import change_checkpoint, given_options
from univg_eval.lmms.task import GroundingTask
from univg_eval.lmms.task_files import tasks_of_run
from univg_eval.models import model_folder
from univg_eval.runs.failed_requests import split_failed_request
from univg_eval.runs.record import RunRecord, load_run
from univg_eval.scoring import SampleScore, headline_metric, sample_metrics

__all__ = ["STAGES", "Parity", "Pixels", "Stage", "Trace", "compare_traces", "run_parity"]

STAGES = {
    "prompt": "text of the prompt",
    "tokens": "token ids of the whole prompt",
    "input_sizes": "sizes of the images as the model sees them",
    "pixels": "pixels of the images as the model sees them",
    "new_tokens": "token ids of the response",
    "response": "response",
    "box": "box that counts",
    "right": "right or wrong",
}
"""What is compared, in the order in which one thing leads to the next."""

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Pixels:
    """The image input of a sample: its shape, mean and standard deviation, and a digest."""

    shape: tuple[int, ...]
    mean: float
    std: float
    digest: str


@dataclass(frozen=True, slots=True)
class Trace:
    """One sample through one backend; None for what was not seen."""

    score: SampleScore
    value: float | None
    prompt: str | None
    tokens: tuple[int, ...] | None
    input_sizes: tuple[Size, ...] | None
    pixels: Pixels | None
    response: str | None
    new_tokens: tuple[int, ...] | None

    def stage(self, name: str) -> Any:
        """What is compared at a stage."""
        if name == "right":
            return self.value
        if name == "box":
            return self.score.box or self.score.status
        return getattr(self, name)


@dataclass(frozen=True, slots=True)
class Stage:
    """How many samples are the same at one stage.

    Attributes:
        name: of `STAGES`.
        n: samples at which both sides were seen.
        same: of these.
        first: id of the first sample that is not, with what each side has.
    """

    name: str
    n: int
    same: int
    first: tuple[str, Any, Any] | None


@dataclass(frozen=True, slots=True)
class Parity:
    """Two backends on the same samples.

    Attributes:
        sides: their names.
        n: samples that both answered.
        stages: in the order of `STAGES`, those that both sides show.
        first_tokens: for responses that differ with equal prompts: position of the first token
            that differs, by sample.
        metric: of the scores.
        difference: of the means, B - A, with its interval; None where no sample counts.
        verdict: in words.
    """

    sides: tuple[str, str]
    n: int
    stages: tuple[Stage, ...]
    first_tokens: Mapping[str, int]
    metric: str
    difference: Difference | None
    verdict: str

    @property
    def is_same(self) -> bool:
        """Whether all responses are the same."""
        return all(stage.same == stage.n for stage in self.stages if stage.name == "response")

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"same": self.is_same}


def run_parity(
    sides: tuple[str, str],
    *,
    tasks: str,
    limit: int | None,
    gen_kwargs: str,
    options: Mapping[str, str | None],
    report: Callable[[str], Callable[[int, int], None]],
) -> Parity:
    """Ask both, one after the other, and compare.

    Args:
        sides: ``BACKEND:model_args``, or the folder of a run record.
        tasks: names, separated by commas; only the samples of a record where a side is one.
        limit: only the first so many samples of each task.
        gen_kwargs: of the generation, as lmms-eval takes them; beside the tasks' own.
        options: ``dialect``, ``prompt`` and ``protocol`` as given, for both sides.
        report: makes what is called with (samples done, of how many), from a title.

    Raises:
        UserError: a side or a task is wrong, or no sample is common.
    """
    records = [load_run(Path(side)) if Path(side).is_dir() else None for side in sides]
    known = [{line["id"] for line in record.responses} for record in records if record is not None]
    wanted = set.intersection(*known) if known else None
    traces = [
        _of_record(record)
        if record is not None
        else _of_backend(
            side, tasks, limit, simple_parse_args_string(gen_kwargs), options, wanted, report(side)
        )
        for side, record in zip(sides, records, strict=True)
    ]
    return compare_traces(sides, traces[0], traces[1])


def compare_traces(
    sides: tuple[str, str], a: Mapping[str, Trace], b: Mapping[str, Trace]
) -> Parity:
    """Compare what two backends made of the same samples.

    Args:
        sides: their names.
        a, b: by sample id.

    Raises:
        UserError: no sample is common.
    """
    ids = [name for name in a if name in b]
    if not ids:
        raise UserError(f"{sides[0]} and {sides[1]} have no sample in common")
    stages = tuple(_stages(ids, a, b))
    first_tokens = {
        name: _first_difference(a[name].new_tokens or (), b[name].new_tokens or ())
        for name in ids
        if a[name].new_tokens != b[name].new_tokens
        and a[name].new_tokens is not None
        and b[name].new_tokens is not None
    }
    metric = headline_metric(a[name].score for name in ids)
    counted = [name for name in ids if None not in (a[name].value, b[name].value)]
    difference = None
    if counted:
        difference = compare_pairs(
            [a[name].score.task for name in counted],
            [a[name].score.cluster for name in counted],
            [float(a[name].value or 0.0) for name in counted],
            [float(b[name].value or 0.0) for name in counted],
        ).macro
    verdict = _verdict(stages, len(ids), difference)
    return Parity(sides, len(ids), stages, first_tokens, metric, difference, verdict)


def _stages(ids: Sequence[str], a: Mapping[str, Trace], b: Mapping[str, Trace]) -> Iterator[Stage]:
    for name in STAGES:
        pairs = [(sample, a[sample].stage(name), b[sample].stage(name)) for sample in ids]
        seen = [pair for pair in pairs if None not in pair[1:]]
        if name == "response":  # a request that failed has none
            seen = pairs
        if not seen:
            continue
        other = [pair for pair in seen if pair[1] != pair[2]]
        yield Stage(name, len(seen), len(seen) - len(other), other[0] if other else None)


def _first_difference(a: Sequence[int], b: Sequence[int]) -> int:
    pairs = zip(a, b, strict=False)
    return next((i for i, (x, y) in enumerate(pairs) if x != y), min(len(a), len(b)))


_CAUSES = {
    "prompt": "the two are asked different questions: set --prompt and --dialect for both",
    "tokens": "their chat templates, system prompts or image marks differ",
    "input_sizes": "they resize images to different sizes: compare min_pixels and max_pixels",
    "pixels": "sizes are equal and pixels are not: one re-encodes images or resizes otherwise",
}


def _verdict(stages: Sequence[Stage], n: int, difference: Difference | None) -> str:
    by_name = {stage.name: stage for stage in stages}
    response = by_name["response"]
    words = (
        f"All {n} responses are the same."
        if response.same == n
        else f"{n - response.same} of {n} responses differ."
    )
    for name, cause in _CAUSES.items():
        stage = by_name.get(name)
        if stage is not None and stage.same < stage.n:
            return f"{words} Not the same in {stage.n - stage.same}, {STAGES[name]}: {cause}."
    if response.same == n:
        return words
    new_tokens = by_name.get("new_tokens")
    if new_tokens is not None and new_tokens.same == n:
        return f"{words} Their token ids are the same: the two decode them into text differently."
    seen = ", ".join(STAGES[name] for name in _CAUSES if name in by_name)
    if {"tokens", "pixels"} <= by_name.keys():
        words += (
            f" The inputs are the same ({seen}), so the arithmetic (precision, attention, kernels) "
            "or the decoding differs."
        )
    else:
        words += f" Of the inputs, what both show is the same: {seen}; the rest was not seen."
    if difference is not None:
        low, high = difference.interval.low, difference.interval.high
        holds = "holds" if low <= 0 <= high else "does not hold"
        words += f" The interval of the score's difference {holds} 0."
    return words


# --- the sides -----------------------------------------------------------------------------------


def _of_record(record: RunRecord) -> dict[str, Trace]:
    metric = headline_metric(record.scores)
    return {
        line["id"]: Trace(
            score,
            sample_metrics(score).get(metric),
            line.get("prompt"),
            None,
            _sizes(line.get("input_sizes")),
            None,
            line.get("response"),
            None,
        )
        for line, score in zip(record.responses, record.scores, strict=True)
    }


def _sizes(value: Any) -> tuple[Size, ...] | None:
    return None if value is None else tuple((int(width), int(height)) for width, height in value)


def _of_backend(
    side: str,
    tasks: str,
    limit: int | None,
    gen_kwargs: Mapping[str, Any],
    options: Mapping[str, str | None],
    wanted: set[str] | None,
    report: Callable[[int, int], None],
) -> dict[str, Trace]:
    backend, _, given = side.partition(":")
    args = change_checkpoint(given, model_folder) or ""
    planned = argparse.Namespace(
        model=backend, model_args=args, tasks=tasks, force_simple=False, process_with_media=False
    )
    with given_options(options), tasks_of_run() as folder:
        found = {str(task.config.task): task for task in check(planned, [folder])}
        requests = [
            (task, request)
            for task in found.values()
            for request in _requests(task, limit, gen_kwargs)
            if wanted is None or request.doc["id"] in wanted
        ]
        traces = {}
        with LoadedModel(backend, args) as loaded:
            loaded.lm.task_dict = {name: task.dataset for name, task in found.items()}
            for number, (task, request) in enumerate(requests):
                report(number, len(requests))
                traces[request.doc["id"]] = _ask(loaded.lm, task, request)
            report(len(requests), len(requests))
    metric = headline_metric(trace.score for trace in traces.values())
    return {
        name: replace(trace, value=sample_metrics(trace.score).get(metric))
        for name, trace in traces.items()
    }


def _requests(
    task: GroundingTask, limit: int | None, gen_kwargs: Mapping[str, Any]
) -> Sequence[Instance]:
    task.config.generation_kwargs.update(gen_kwargs)
    task.build_all_requests(limit=limit, rank=0, world_size=1)
    instances: list[Instance] = task.instances
    return instances


def _ask(lm: Any, task: GroundingTask, request: Instance) -> Trace:
    with _inputs_of_generate() as calls, _outputs_of_vllm(lm, calls):
        (output,) = lm.generate_until([request])
    text, _ = split_failed_request(unwrap_generation_output(output)[0])
    call = calls[0] if len(calls) == 1 else {}
    return Trace(
        task.score_of(request.doc, text),
        None,
        task.doc_to_text(request.doc),
        call.get("tokens"),
        call.get("input_sizes") or _sizes(task.input_sizes(task.sample(request.doc))),
        call.get("pixels"),
        text,
        call.get("new_tokens"),
    )


@contextmanager
def _inputs_of_generate() -> Iterator[list[dict[str, Any]]]:
    """What models on transformers are given while the block runs; one entry a call, of one row."""
    from transformers.generation.utils import GenerationMixin

    original = GenerationMixin.generate
    calls: list[dict[str, Any]] = []

    @functools.wraps(original)
    def generate(model: Any, *args: Any, **inputs: Any) -> Any:
        output = original(model, *args, **inputs)
        ids = inputs.get("input_ids")
        if ids is not None and len(ids) == 1:
            calls.append(_seen(model, inputs, output))
        return output

    with patch.object(GenerationMixin, "generate", generate):
        yield calls


@contextmanager
def _outputs_of_vllm(lm: Any, calls: list[dict[str, Any]]) -> Iterator[None]:
    """Add what a vLLM engine says of the prompts and responses while the block runs."""
    engine: Any = type(getattr(lm, "client", None))
    if engine.__module__.partition(".")[0] != "vllm":
        yield
        return

    def seen(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            n = len(calls)
            outputs = original(*args, **kwargs)
            calls[n:] = [  # in the place of what a call within this one saw
                {
                    "tokens": tuple(output.prompt_token_ids or ()) or None,
                    "new_tokens": tuple(output.outputs[0].token_ids),
                }
                for output in outputs
            ]
            return outputs

        return call

    with (
        patch.object(engine, "chat", seen(engine.chat)),
        patch.object(engine, "generate", seen(engine.generate)),
    ):
        yield


def _seen(model: Any, inputs: Mapping[str, Any], output: Any) -> dict[str, Any]:
    ids = inputs["input_ids"][0].tolist()
    row = getattr(output, "sequences", output)[0].tolist()
    seen: dict[str, Any] = {
        "tokens": tuple(ids),
        "new_tokens": tuple(row if model.config.is_encoder_decoder else row[len(ids) :]),
    }
    pixels = inputs.get("pixel_values")
    if pixels is not None:
        values = pixels.float().cpu()
        seen["pixels"] = Pixels(
            tuple(values.shape),
            round(float(values.mean()), 6),
            round(float(values.std()), 6),
            hashlib.sha256(values.numpy().tobytes()).hexdigest()[:16],
        )
    grid = inputs.get("image_grid_thw")
    patch_size = getattr(getattr(model.config, "vision_config", None), "patch_size", None)
    if grid is not None and isinstance(patch_size, int):
        seen["input_sizes"] = tuple(
            (int(width) * patch_size, int(height) * patch_size)
            for _, height, width in grid.tolist()
        )
    return seen
