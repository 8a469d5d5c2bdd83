"""The runs of one request: its repeats, and the folders where an earlier try left their records.

A run that may have to go on has a folder of its own, named by what was requested. Whatever could
change a response or a score is part of that name; where output goes is not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmms_eval.utils import simple_parse_args_string

from univg_eval.errors import UserError
from univg_eval.lmms.record import model_id
from univg_eval.lmms.settings import ModelUnderTest, change_checkpoint
from univg_eval.lmms.task import GroundingTask
from univg_eval.models import model_name
from univg_eval.protocols import get_protocol
from univg_eval.runs.groups import folder_name
from univg_eval.runs.record import CHECKSUMS, RunRecord, load_run, model_label

__all__ = ["PlannedRun", "complete_records", "plan_runs"]

# Arguments of lmms-eval that say where output goes, or how it is shown.
_OUTPUT = frozenset(
    {
        *("baseline", "cache_requests", "check_integrity", "config", "hf_hub_log_args"),
        *("log_samples", "log_samples_suffix", "output_path", "repeats", "show_config"),
        *("swanlab_args", "swanlab_log_samples", "timezone", "tui", "use_cache", "verbosity"),
        *("wandb_args", "wandb_log_samples", "write_out"),
    }
)
# Backends that set the seed of their sampling themselves, and take another from the request's
# generation arguments alone (lmms-eval 0.7.3: `LLM(seed=1)`). The others sample with torch's
# generator, which --seed sets, or at a server.
_SEED_IN_REQUEST = frozenset(
    f"lmms_eval.models.{name}"
    for name in ("simple.vllm", "chat.vllm", "chat.vllm_generate", "chat.openai")
)


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run.

    Attributes:
        seed: as lmms-eval takes it: of Python, numpy, torch and few-shot examples.
        gen_kwargs: generation arguments as given, with the seed where the backend reads it there.
        folder: name of the folder of its records; None: that of the time.
        manifest: what its records say besides.
    """

    seed: list[int | None]
    gen_kwargs: str | None
    folder: str | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)


def plan_runs(
    args: argparse.Namespace,
    tasks: Sequence[GroundingTask],
    *,
    repeats: int = 1,
    name: str | None = None,
    group: str | None = None,
    resume: bool = False,
) -> list[PlannedRun]:
    """The runs that are requested, in order.

    Args:
        args: lmms-eval's arguments.
        tasks: with their settings.
        repeats: how many, with seeds that count up.
        name: what tables shall call them.
        group: name of a group of checkpoints that this one belongs to.
        resume: whether records of an earlier try count.

    Raises:
        UserError: several repeats, and they would all be the same.
    """
    model = ModelUnderTest.from_arguments(args.model, args.model_args, args.force_simple)
    request = _request(args, tasks, model)
    seeds = _seeds(args.seed)
    label = name or group or model_label(model_id(model))
    stem = f"{folder_name(label)}-{_sha256(request)[:8]}"
    manifest: dict[str, Any] = {}
    if name or group:
        manifest["name"] = name or group
    if group:
        manifest["group"] = _sha256([group, {**request, "model": None, "files": None}])
    if repeats == 1:
        return [PlannedRun(seeds, args.gen_kwargs, stem if resume else None, manifest)]
    _require_sampling(model, tasks, args.gen_kwargs, repeats)
    if group is not None:
        raise UserError(
            f"--repeats {repeats} and --group {group!r} exclude each other: the repeats are a "
            "group of their own"
        )
    runs = []
    for number in range(1, repeats + 1):
        seed = [None if one is None else one + number - 1 for one in seeds]
        gen_kwargs = args.gen_kwargs
        is_read = model.backend_class().__module__ in _SEED_IN_REQUEST
        if is_read and "seed" not in simple_parse_args_string(gen_kwargs or ""):
            gen_kwargs = ",".join(filter(None, [gen_kwargs, f"seed={seed[2]}"]))
        repeat = {"number": number, "of": repeats, "seed": seed}
        more = {"group": _sha256(request), "repeat": repeat}
        runs.append(PlannedRun(seed, gen_kwargs, f"{stem}-{number}", manifest | more))
    return runs


def _seeds(given: Any) -> list[int | None]:
    """The four seeds; a number in a ``--config`` file, which lmms-eval takes no further, is all.

    Raises:
        UserError: they are something else.
    """
    seeds = [given] * 4 if isinstance(given, int) else given
    if not isinstance(seeds, list) or len(seeds) != 4:
        raise UserError(
            f"seed is {given!r}; expected a number, or four in a list: of Python's random, numpy, "
            "torch and few-shot examples"
        )
    return seeds


def _require_sampling(
    model: ModelUnderTest, tasks: Iterable[GroundingTask], gen_kwargs: str | None, repeats: int
) -> None:
    """UserError if no seed changes a response."""
    if model.is_offline:
        raise UserError(
            f"--repeats {repeats}: {model.backend} answers by a rule that no --seed changes, so "
            "every repeat would be the same; evaluate kind=noisy or kind=random with other seed= "
            "in model_args, each a run of one `group` in a --config file"
        )
    given = simple_parse_args_string(gen_kwargs or "")
    for task in tasks:
        generation = {**task.config.generation_kwargs, **given}
        temperature, sample = generation.get("temperature", 0), generation.get("do_sample", True)
        if not (sample and isinstance(temperature, int | float) and temperature > 0):
            raise UserError(
                f"--repeats {repeats}: the generation of {task.config.task} is greedy (temperature "
                f"{temperature}, do_sample {sample}), so every repeat would be the same; "
                "give both, such as --gen_kwargs temperature=0.7,do_sample=True"
            )


def _request(
    args: argparse.Namespace, tasks: Sequence[GroundingTask], model: ModelUnderTest
) -> dict[str, Any]:
    """All that was requested and can change a response or a score."""
    given = {name: value for name, value in vars(args).items() if name not in _OUTPUT}
    return {
        **given,
        "model": [args.model, change_checkpoint(args.model_args, model_name)],
        "model_args": None,
        "files": [_state(value) for value in model.args.values()],
        "settings": {
            str(task.config.task): [
                {name: value for name, (value, _) in task.settings.to_dict().items()},
                get_protocol(task.settings.protocol.value).version,
                task.rows.fingerprint,
                task.config.generation_kwargs,
            ]
            for task in tasks
        },
    }


def _state(argument: Any) -> Any:
    """Sizes and times of a file, or of the files of a checkpoint; None if it is none."""
    if not isinstance(argument, str) or not argument:
        return None
    path = Path(argument).expanduser()
    if not path.exists():
        return None
    files = [file for file in sorted(path.iterdir()) if file.is_file()] if path.is_dir() else [path]
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def _sha256(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def complete_records(folder: Path, benchmarks: Collection[str]) -> list[RunRecord]:
    """The records of an earlier try, if it left one of each benchmark without failed requests.

    Args:
        folder: of the run.
        benchmarks: what it evaluates, e.g. ``mig_bench+blank``.

    Raises:
        UserError: a record cannot be read.
    """
    paths = [folder / name for name in benchmarks]
    if not all((path / CHECKSUMS).is_file() for path in paths):
        return []
    records = [load_run(path) for path in paths]
    return [] if any(record.failed_requests for record in records) else records
