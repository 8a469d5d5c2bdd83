"""From an evaluation by lmms-eval to run records, one a benchmark.

The scores are computed again from the logged responses, by the same code as ``univg score``, under
the settings that the tasks logged with every response. `write_records` writes the records of an
evaluation that this process ran; `read_records` makes them in memory from a folder that any
``lmms-eval … --log_samples`` left, with whatever backend. Reading imports neither lmms-eval nor
torch, unless the evaluation was under a control or on videos.

What ran under a control, or on videos, is no result of the benchmark: it gets a record of its own,
named ``<benchmark>+<variant>``, e.g. ``mig_bench+blank`` or ``revos+video``.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from univg_eval.errors import UserError
from univg_eval.files import iter_json_lines, read_json
from univg_eval.lmms.engine import engine_of
from univg_eval.lmms.extra import require_lmms_eval
from univg_eval.lmms.settings import (
    BASELINE_MODEL,
    REPLAY_MODEL,
    SETTINGS_KEY,
    ModelUnderTest,
    RunSettings,
    change_checkpoint,
    shown_settings,
    variant_of,
)
from univg_eval.models import model_name
from univg_eval.published_rules import published_results
from univg_eval.redaction import secret_values
from univg_eval.runs.failed_requests import split_failed_request
from univg_eval.runs.manifest import Size, Text, faults
from univg_eval.runs.record import (
    RunRecord,
    environment,
    make_record,
    require_fingerprint,
    response_line,
    unknown_environment,
)
from univg_eval.samples import (
    GroundingSample,
    fingerprint,
    has_stand_ins,
    load_samples,
    n_skipped,
)
from univg_eval.scoring import Response, aggregate, score_samples

if TYPE_CHECKING:
    from univg_eval.lmms.generation import Measured

__all__ = [
    "holds_univg_tasks",
    "model_id",
    "read_output",
    "read_records",
    "response_text",
    "write_records",
]

Results = Mapping[str, Any]
_RESULTS_SUFFIX = "_results.json"
_DATE = "%Y%m%d_%H%M%S"
_TASK_NAME = re.compile(r"[\w.:+-]{1,150}")


@with_config(ConfigDict(strict=True, extra="allow"))
class _LoggedLine(TypedDict):
    """What is read of a logged line besides its settings."""

    id: Text
    doc_id: int
    input_sizes: NotRequired[list[Size] | None]


def read_output(results_file: str | os.PathLike[str]) -> dict[str, Any]:
    """What lmms-eval wrote with ``--output_path`` and ``--log_samples``, as one mapping.

    Args:
        results_file: the ``…_results.json``; the ``…_samples_<task>.jsonl`` lie beside it.

    Returns:
        The results with the logged samples of each univg task under ``samples``.

    Raises:
        UserError: a file is missing or unreadable, or not of the form that lmms-eval writes.
    """
    path = Path(results_file)
    stem = path.name.removesuffix(_RESULTS_SUFFIX)
    results = _json(path)
    if not isinstance(results, dict) or not all(
        isinstance(results.get(key), dict) for key in ("configs", "config")
    ):
        raise UserError(
            f"{path} is no results file of lmms-eval: expected an object with config and configs"
        )
    samples: dict[str, list[Any]] = {}
    for task in _univg_tasks(results):
        lacking = [
            f"{key} ({kind.__name__})"
            for key, kind in (("dataset_path", str), ("generation_kwargs", dict))
            if not isinstance(results["configs"][task].get(key), kind)
        ]
        if not isinstance(results["configs"][task]["metadata"]["fingerprint"], str):
            lacking.append("metadata.fingerprint (str)")
        if lacking:
            raise UserError(
                f"{path}: configs.{task} lacks {' and '.join(lacking)}, which lmms-eval logs; "
                "evaluate again"
            )
        if not _TASK_NAME.fullmatch(task):
            raise UserError(
                f"{path}: configs has a task {task[:50]!r}, which names no file; expected letters, "
                "digits, '_', '-', '.', ':' and '+'"
            )
        file = path.with_name(f"{stem}_samples_{task}.jsonl")
        if not file.is_file():
            raise UserError(
                f"{file} is missing; run lmms-eval with --log_samples, on a disk with room for it"
            )
        samples[task] = []
        for number, row in _lines(file):
            lacking = [
                key for key in ("id", SETTINGS_KEY) if not (isinstance(row, dict) and key in row)
            ]
            if lacking:
                raise UserError(
                    f"{file}:{number} lacks {' and '.join(lacking)}, which the tasks of univg log; "
                    'evaluate again with `--include_path "$(univg tasks)"`'
                )
            wrong = faults(row, _LoggedLine)
            if wrong:
                raise UserError(f"{file}:{number}: {wrong[0]}; evaluate again")
            samples[task].append(row)
        expected = _n_evaluated(results, task)
        if expected not in (None, len(samples[task])):
            raise UserError(
                f"{file} holds {len(samples[task])} samples, and lmms-eval evaluated {expected}; "
                "copy the whole file, or evaluate again"
            )
    return {**results, "samples": samples}


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}; {_CUT_OFF}") from error


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        yield from iter_json_lines(path)
    except UserError as error:
        raise UserError(f"{error}; {_CUT_OFF}") from error


# lmms-eval (0.7.3) logs that it cannot write, and goes on.
_CUT_OFF = "a full disk leaves such files half written: make room, and evaluate again"


def _n_evaluated(results: Results, task: str) -> int | None:
    """How many samples of a task lmms-eval says that it evaluated; None where that is not known.

    Its count (0.7.3) is wrong with ``--offset`` and with a limit that is a share.
    """
    limit, counts = results["config"].get("limit"), results.get("n-samples")
    whole = limit is None or (isinstance(limit, (int, float)) and (limit == -1 or limit >= 1))
    if results["config"].get("offset") or not whole or not isinstance(counts, Mapping):
        return None
    counted = counts.get(task)
    number = counted.get("effective") if isinstance(counted, Mapping) else None
    return number if isinstance(number, int) else None


def _univg_tasks(results: Results) -> list[str]:
    return [
        task
        for task, config in results.get("configs", {}).items()
        if isinstance(config, Mapping)
        and isinstance(config.get("metadata"), Mapping)
        and "fingerprint" in config["metadata"]
    ]


def response_text(logged: Mapping[str, Any]) -> str | None:
    """The whole response of a logged sample, or what a backend gave in its place.

    Where lmms-eval stripped something, the whole text is in ``resps``. None: there is no
    response, as of a service that spent all tokens on hidden thinking.
    """
    value = logged.get("resps", logged.get("filtered_resps"))
    while isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0] if value else None
    if value == "None" and logged.get("no_response"):
        return None
    return value if isinstance(value, str) else None


def write_records(
    results: Results,
    folder: str | os.PathLike[str],
    *,
    model_args: str | Mapping[str, Any] | None = None,
    wall_time_s: float | None = None,
    measured: Measured | None = None,
    more: Mapping[str, Any] | None = None,
    replace: bool = False,
) -> list[Path]:
    """Write one record a benchmark and variant, as ``<folder>/<benchmark>[+<variant>]``.

    Versions and hardware are those of this process.

    Args:
        results: of `lmms_eval.evaluator.simple_evaluate`, or of `read_output`.
        folder: parent of the records.
        model_args: as given; those of `results` if None (lmms-eval hides secrets there).
        wall_time_s: of the evaluation; what lmms-eval measured if None.
        measured: while it ran.
        more: further keys of the manifest.
        replace: see `univg_eval.runs.record.RunRecord.write`.

    Returns:
        The folders of the records, in the order of the tasks.

    Raises:
        UserError: no univg task was evaluated, the tasks ran under different settings, no sample
            was evaluated, or the prepared benchmark is no longer the one that was evaluated.
    """
    model = ModelUnderTest.from_arguments(
        results["config"]["model"],
        results["config"].get("model_args") if model_args is None else model_args,
    )
    described = {
        "model": _model(results, model_id(model), _config_sha256(model)),
        **environment(),
        **(more or {}),
    }
    if engine := engine_of(model.backend):
        described["engine"] = engine
    records = _records(
        results, Path(folder), described, wall_time_s=wall_time_s, measured=measured,
        secrets=secret_values(model.args),
    )  # fmt: skip
    return [record.write(record.path / record.benchmark, replace=replace) for record in records]


def read_records(results_file: str | os.PathLike[str], label: str | None = None) -> list[RunRecord]:
    """The records of an evaluation that lmms-eval wrote, in memory; nothing is written.

    lmms-eval logs neither the versions of the packages nor the hardware, and the checkpoint may
    have changed since, so these are None in the manifest.

    Args:
        results_file: see `read_output`.
        label: see `univg_eval.runs.record.load_run`.

    Returns:
        One record a benchmark and variant, in the order of the tasks.

    Raises:
        UserError: see `read_output` and `write_records`.
    """
    path = Path(results_file)
    results = read_output(path)
    if not isinstance(results["config"].get("model"), str):
        raise UserError(f"{path} names no model: its config lacks the key model")
    given = results["config"].get("model_args")
    if not isinstance(given, str | Mapping | None):
        raise UserError(f"{path}: config.model_args is {given!r}; expected text or an object")
    described = {
        "created": _created(results, path),
        "model": _model(results, _logged_model_id(results), None),
        **unknown_environment(),
    }
    return _records(results, path, described, label=label)


def holds_univg_tasks(results_file: str | os.PathLike[str]) -> bool:
    """Whether a results file of lmms-eval is of tasks of this project, among others or alone.

    Raises:
        UserError: the file cannot be read.
    """
    path = Path(results_file)
    results = _json(path)
    configs = results.get("configs") if isinstance(results, dict) else None
    return isinstance(configs, dict) and bool(_univg_tasks(results))


def _created(results: Results, path: Path) -> str:
    """When lmms-eval wrote the results: its ``date``, which is in the time zone of its argument."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    text = str(results.get("date", path.name.removesuffix(_RESULTS_SUFFIX)))
    try:
        date = datetime.strptime(text, _DATE)
    except ValueError:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
    arguments = results["config"].get("resolved_cli_args")
    zone = arguments.get("timezone") if isinstance(arguments, Mapping) else None
    try:
        return date.replace(tzinfo=ZoneInfo(zone)).isoformat() if zone else date.isoformat()
    except (ZoneInfoNotFoundError, OSError, ValueError, TypeError, RecursionError):
        return date.isoformat()


def _model(results: Results, model_id: str, config_sha256: str | None) -> dict[str, Any]:
    config = results["config"]
    return {
        "id": model_id,
        "backend": config.get("model_backend") or config["model"],
        "args": _without_journal(change_checkpoint(config.get("model_args"), model_name)),
        "config_sha256": config_sha256,
    }


def _without_journal(args: Any) -> Any:
    """model_args without the place of the journal, which no response depends on."""
    if not isinstance(args, str):
        return args
    return ",".join(pair for pair in args.split(",") if not pair.startswith("journal="))


def _records(
    results: Results,
    path: Path,
    described: Mapping[str, Any],
    *,
    wall_time_s: float | None = None,
    measured: Measured | None = None,
    label: str | None = None,
    secrets: Collection[str] = (),
) -> list[RunRecord]:
    """The records of an evaluation; `described` goes into each manifest."""
    tasks = _univg_tasks(results)
    if not tasks:
        raise UserError("no task of univg was evaluated, so there is nothing to record")
    config = results["config"]
    if wall_time_s is None:
        wall_time_s = _seconds(results.get("total_evaluation_time_seconds"))
    by_benchmark: dict[tuple[str, str, str], list[str]] = {}
    for task in tasks:
        shown = results["configs"][task]
        control, media = (setting.value for setting in shown_settings(shown["metadata"]))
        by_benchmark.setdefault((shown["dataset_path"], control, media), []).append(task)
    common = {
        **described,
        "wall_time_s": wall_time_s,
        "lmms_eval": {name: config.get(name) for name in ("batch_size", "limit", "gen_kwargs")},
    }
    speed = _speed(results, tasks, measured)
    return [
        _record(
            results,
            *shown,
            names,
            path,
            common | {"usage": _usage(results, names, measured) | speed},
            label,
            secrets,
        )
        for shown, names in by_benchmark.items()
    ]


def _usage(results: Results, tasks: Sequence[str], measured: Measured | None) -> dict[str, Any]:
    """What the answers of these tasks took; see `univg_eval.runs.manifest.Usage`."""
    tokens = [pair for task in tasks for row in results["samples"][task] for pair in _tokens(row)]
    costs = (
        [cost for (task, _), cost in measured.costs.items() if task in tasks] if measured else []
    )
    return {
        "prompt_tokens": sum(prompt for prompt, _ in tokens) if tokens else None,
        "answer_tokens": sum(answer for _, answer in tokens) if tokens else None,
        "counted": len(tokens),
        "cost": math.fsum(costs) if costs else None,
    }


def _speed(results: Results, tasks: Sequence[str], measured: Measured | None) -> dict[str, Any]:
    """What is known of the evaluation as a whole."""
    seconds = measured.seconds if measured and measured.n else None
    whole = _usage(results, tasks, None)
    # A journal of an earlier start has the tokens of its responses, not the time.
    fresh = measured is not None and whole["counted"] <= measured.n
    tokens = whole["answer_tokens"] if fresh else None
    memory, kind = measured.peak_memory if measured and measured.peak_memory else (None, None)
    return {
        "generation_s": seconds,
        "samples_per_s": measured.n / seconds if measured and seconds else None,
        "tokens_per_s": tokens / seconds if tokens is not None and seconds else None,
        "peak_memory_bytes": memory,
        "peak_memory": kind,
    }


def _tokens(logged: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Prompt and answer tokens of a logged sample, if both are known; else nothing.

    Without the prompt's, the answer's may be a batch's width or a number of words: see
    `univg_eval.lmms.generation`.
    """
    counts = logged.get("token_counts")
    counts = counts[0] if isinstance(counts, list) and counts else None
    if not isinstance(counts, Mapping):
        return []
    prompt, answer = counts.get("input_tokens"), counts.get("output_tokens")
    if not (isinstance(prompt, int) and isinstance(answer, int)):
        return []
    return [(prompt, answer)] if prompt > 0 and answer >= 0 else []


def _seconds(logged: Any) -> float | None:
    """A duration, which lmms-eval logs as a string; None where it is none."""
    try:
        seconds = float(logged)
    except (OverflowError, TypeError, ValueError):
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None


def _record(
    results: Results,
    benchmark: str,
    control: str,
    media: str,
    tasks: Sequence[str],
    path: Path,
    common: Mapping[str, Any],
    label: str | None,
    secrets: Collection[str],
) -> RunRecord:
    variant = variant_of(control, media)
    name = f"{benchmark}+{variant}" if variant else benchmark
    configs = [results["configs"][task] for task in tasks]
    # Several processes log one after another.
    logged = [
        row for task in tasks for row in sorted(results["samples"][task], key=lambda r: r["doc_id"])
    ]
    if not logged:
        raise UserError(
            f"{path} holds no sample of {name!r}: the evaluation ended before the first answer; "
            "evaluate again"
        )
    everything = load_samples(benchmark)
    identity = fingerprint(everything)
    for config in configs:
        require_fingerprint(benchmark, identity, config["metadata"]["fingerprint"])
    settings = _one("settings", [row[SETTINGS_KEY] for row in logged], benchmark)
    generation = _one("generation_kwargs", [c["generation_kwargs"] for c in configs], benchmark)
    shown, left_out = _shown(everything, control, media) if variant else (everything, {})
    known = {sample.id: sample for sample in shown}
    foreign = [row["id"] for row in logged if row["id"] not in known]
    if foreign:
        raise UserError(
            f"{path}: sample {foreign[0]!r} is none of {name!r} ({len(foreign)} in all); the "
            "samples files are of another evaluation than the results"
        )
    samples = [known[row["id"]] for row in logged]
    texts = [split_failed_request(response_text(row)) for row in logged]
    responses = [
        _response(row, sample, text)
        for row, sample, (text, _) in zip(logged, samples, texts, strict=True)
    ]
    resolved = _settings(settings, path)
    dialect = resolved.make_dialect()
    scores = score_samples(samples, responses, dialect, protocol=resolved.protocol.value)
    published, lacking = published_results(
        name, resolved.protocol.value, samples, responses, dialect
    )
    manifest = {
        **common,
        **lacking,
        "settings": resolved.to_dict(),
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
            "stand_in_images": has_stand_ins(everything),
            "revision": configs[0]["metadata"].get("revision"),
        },
        "tasks": list(tasks),
        "n": len(scores),
        "complete": len(scores) == len(shown) and not n_skipped(benchmark),
        "excluded": sum(score.excluded for score in scores),
        "failed_requests": sum(error is not None for _, error in texts),
        "results": aggregate(scores) | published,
    }
    return make_record(
        path,
        manifest=manifest,
        responses=(
            response_line(name, sample, response, error)
            for sample, response, (_, error) in zip(samples, responses, texts, strict=True)
        ),
        scores=scores,
        label=label,
        secrets=secrets,
    )


def _one(what: str, values: Sequence[Any], benchmark: str) -> Any:
    different = [value for value in values if value != values[0]]
    if different:
        raise UserError(
            f"the tasks of {benchmark!r} ran under different {what}: {values[0]} and "
            f"{different[0]}; a record has one: evaluate them apart"
        )
    return values[0]


def _shown(
    everything: Sequence[GroundingSample], control: str, media: str
) -> tuple[list[GroundingSample], dict[str, str]]:
    """See `univg_eval.lmms.docs.as_shown`, for the samples that the medium can show."""
    require_lmms_eval()
    from univg_eval.lmms.docs import as_shown
    from univg_eval.lmms.media import video_of

    able = [s for s in everything if video_of(s)] if media == "video" else everything
    return as_shown(able, control=control, media=media)


def _settings(logged: Any, path: Path) -> RunSettings:
    try:
        return RunSettings.from_dict(logged)
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: the logged {SETTINGS_KEY} are {logged!r}; expected an object with dialect, "
            "prompt, protocol, min_pixels and max_pixels, each [value, source]; evaluate again"
        ) from error


def _response(logged: Mapping[str, Any], sample: GroundingSample, text: str | None) -> Response:
    arguments = logged.get("arguments")
    prompt = arguments[0] if isinstance(arguments, list) and arguments else logged.get("input")
    sizes = logged.get("input_sizes")
    return Response(
        text=text,
        image_sizes=sample.image_sizes,
        input_sizes=[(int(width), int(height)) for width, height in sizes] if sizes else None,
        prompt=prompt if isinstance(prompt, str) else None,
    )


def model_id(model: ModelUnderTest) -> str:
    """What a record calls the model."""
    if model.backend == BASELINE_MODEL:
        return f"{BASELINE_MODEL}:{model.args.get('kind')}"
    if model.backend == REPLAY_MODEL:
        return f"{REPLAY_MODEL}:{Path(str(model.args.get('responses'))).name}"
    return model_name(model.checkpoint) if model.checkpoint else model.backend


def _logged_model_id(results: Results) -> str:
    """`model_id` without lmms-eval and the backend, which need not be installed here.

    A backend's own default checkpoint is only known to its code; lmms-eval logs a name.
    """
    config = results["config"]
    args = config.get("model_args") or {}
    if isinstance(args, str):
        args = dict(pair.partition("=")[::2] for pair in args.split(","))
    model = ModelUnderTest(config["model"], args)
    named = model.backend in (BASELINE_MODEL, REPLAY_MODEL) or model.named_checkpoint is not None
    return model_id(model) if named else str(results.get("model_name") or model.backend)


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
