"""From an evaluation by lmms-eval to run records, one a benchmark.

The scores are computed again from the logged responses, by the same code as ``univg score``.

What ran under a control, or on videos, is no result of the benchmark: it gets a record of its own,
named ``<benchmark>+<variant>``, e.g. ``mig_bench+blank`` or ``revos+video``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from univg_eval.errors import UserError
from univg_eval.lmms.docs import as_shown
from univg_eval.lmms.media import video_of
from univg_eval.lmms.settings import (
    BASELINE_MODEL,
    REPLAY_MODEL,
    ModelUnderTest,
    RunSettings,
    shown_settings,
    variant_of,
)
from univg_eval.lmms.task import SETTINGS_KEY
from univg_eval.runs import environment, write_run
from univg_eval.samples import (
    GroundingSample,
    fingerprint,
    iter_json_lines,
    load_samples,
    n_skipped,
)
from univg_eval.scoring import Response, aggregate, score_samples

__all__ = ["read_output", "response_text", "write_records"]

Results = Mapping[str, Any]


def read_output(results_file: str | os.PathLike[str]) -> dict[str, Any]:
    """What lmms-eval wrote with ``--output_path`` and ``--log_samples``, as one mapping.

    Args:
        results_file: the ``…_results.json``; the ``…_samples_<task>.jsonl`` lie beside it.

    Returns:
        The results with the logged samples of each univg task under ``samples``.

    Raises:
        UserError: a file is missing or unreadable.
    """
    path = Path(results_file)
    stem = path.name.removesuffix("_results.json")
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    samples: dict[str, list[Any]] = {}
    for task in _univg_tasks(results):
        file = path.with_name(f"{stem}_samples_{task}.jsonl")
        if not file.is_file():
            raise UserError(f"{file} is missing; run lmms-eval with --log_samples")
        samples[task] = [row for _, row in iter_json_lines(file)]
    return {**results, "samples": samples}


def _univg_tasks(results: Results) -> list[str]:
    return [
        task
        for task, config in results.get("configs", {}).items()
        if isinstance(config.get("metadata"), Mapping) and "fingerprint" in config["metadata"]
    ]


def response_text(logged: Mapping[str, Any]) -> str:
    """The whole response of a logged sample.

    Where lmms-eval stripped something, the whole text stands in ``resps``.
    """
    value = logged.get("resps", logged.get("filtered_resps"))
    while isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0] if value else ""
    return value if isinstance(value, str) else ""


def write_records(
    results: Results,
    folder: str | os.PathLike[str],
    *,
    model_args: str | Mapping[str, Any] | None = None,
    wall_time_s: float | None = None,
    replace: bool = False,
) -> list[Path]:
    """Write one record a benchmark and variant, as ``<folder>/<benchmark>[+<variant>]``.

    Args:
        results: of `lmms_eval.evaluator.simple_evaluate`, or of `read_output`.
        folder: parent of the records.
        model_args: as given; those of `results` if None (lmms-eval hides secrets there).
        wall_time_s: of the evaluation; what lmms-eval measured if None.
        replace: see `univg_eval.runs.write_run`.

    Returns:
        The folders of the records, in the order of the tasks.

    Raises:
        UserError: no univg task was evaluated, the tasks ran under different settings, or the
            prepared benchmark is no longer the one that was evaluated.
    """
    tasks = _univg_tasks(results)
    if not tasks:
        raise UserError("no task of univg was evaluated, so there is nothing to record")
    config = results["config"]
    model = ModelUnderTest.from_arguments(
        config["model"], config.get("model_args") if model_args is None else model_args
    )
    if wall_time_s is None and results.get("total_evaluation_time_seconds"):
        wall_time_s = float(results["total_evaluation_time_seconds"])
    by_benchmark: dict[tuple[str, str, str], list[str]] = {}
    for task in tasks:
        shown = results["configs"][task]
        control, media = (setting.value for setting in shown_settings(shown["metadata"]))
        by_benchmark.setdefault((shown["dataset_path"], control, media), []).append(task)
    common = {
        "model": {
            "id": _model_id(model),
            "backend": config.get("model_backend", model.backend),
            "args": config.get("model_args"),
            "config_sha256": _config_sha256(model),
        },
        "wall_time_s": wall_time_s,
        "lmms_eval": {name: config.get(name) for name in ("batch_size", "limit", "gen_kwargs")},
        **environment(),
    }
    return [
        _write_record(results, *shown, names, Path(folder), common, replace)
        for shown, names in by_benchmark.items()
    ]


def _write_record(
    results: Results,
    benchmark: str,
    control: str,
    media: str,
    tasks: Sequence[str],
    folder: Path,
    common: Mapping[str, Any],
    replace: bool,
) -> Path:
    variant = variant_of(control, media)
    name = f"{benchmark}+{variant}" if variant else benchmark
    configs = [results["configs"][task] for task in tasks]
    logged = [row for task in tasks for row in results["samples"][task]]
    everything = load_samples(benchmark)
    identity = fingerprint(everything)
    if any(config["metadata"]["fingerprint"] != identity for config in configs):
        raise UserError(
            f"the prepared benchmark {benchmark!r} has changed since the evaluation: its "
            "fingerprint is another one; prepare the set that was evaluated, or evaluate again"
        )
    settings = _one("settings", [row[SETTINGS_KEY] for row in logged], benchmark)
    generation = _one("generation_kwargs", [c["generation_kwargs"] for c in configs], benchmark)
    asked = [s for s in everything if video_of(s)] if media == "video" else everything
    shown, left_out = as_shown(asked, control=control, media=media)
    known = {sample.id: sample for sample in shown}
    samples = [known[row["id"]] for row in logged]
    responses = [_response(row, sample) for row, sample in zip(logged, samples, strict=True)]
    resolved = RunSettings.from_dict(settings)
    dialect = resolved.make_dialect()
    scores = score_samples(samples, responses, dialect, protocol=resolved.protocol.value)
    manifest = {
        **common,
        "settings": settings,
        "prompt_sha256": resolved.prompt_hash(),
        "generation": generation,
        "dataset": {
            "benchmark": name,
            "prepared_benchmark": benchmark,
            "control": control,
            "media": media,
            "fingerprint": identity,
            "n": len(everything),
            "left_out": len(left_out),
            "skipped": n_skipped(benchmark),
            "revision": configs[0]["metadata"].get("revision"),
        },
        "tasks": list(tasks),
        "n": len(scores),
        "complete": len(scores) == len(shown) and not n_skipped(benchmark),
        "excluded": sum(score.excluded for score in scores),
        "results": aggregate(scores),
    }
    return write_run(
        folder / name,
        manifest=manifest,
        responses=(
            {
                "id": sample.id,
                "benchmark": name,
                "task": sample.task,
                "response": response.text,
                "image_sizes": response.image_sizes,
                "input_sizes": response.input_sizes,
                "prompt": response.prompt,
            }
            for sample, response in zip(samples, responses, strict=True)
        ),
        scores=(asdict(score) for score in scores),
        replace=replace,
    )


def _one(what: str, values: Sequence[Any], benchmark: str) -> Any:
    different = [value for value in values if value != values[0]]
    if different:
        raise UserError(
            f"the tasks of {benchmark!r} ran under different {what}: {values[0]} and "
            f"{different[0]}; a record has one: evaluate them apart"
        )
    return values[0]


def _response(logged: Mapping[str, Any], sample: GroundingSample) -> Response:
    prompt = logged["arguments"][0] if "arguments" in logged else logged.get("input")
    sizes = logged.get("input_sizes")
    return Response(
        text=response_text(logged),
        image_sizes=sample.image_sizes,
        input_sizes=[(int(width), int(height)) for width, height in sizes] if sizes else None,
        prompt=prompt,
    )


def _model_id(model: ModelUnderTest) -> str:
    if model.backend == BASELINE_MODEL:
        return f"{BASELINE_MODEL}:{model.args.get('kind')}"
    if model.backend == REPLAY_MODEL:
        return f"{REPLAY_MODEL}:{Path(str(model.args.get('responses'))).name}"
    return model.checkpoint or model.backend


def _config_sha256(model: ModelUnderTest) -> str | None:
    if model.backend in (BASELINE_MODEL, REPLAY_MODEL) or model.checkpoint is None:
        return None
    file = Path(model.checkpoint).expanduser() / "config.json"
    if not file.is_file():
        from transformers.utils.hub import cached_file

        try:
            found = cached_file(model.checkpoint, "config.json", local_files_only=True)
        except OSError:
            return None
        if found is None:
            return None
        file = Path(found)
    return hashlib.sha256(file.read_bytes()).hexdigest()
