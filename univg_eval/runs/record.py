"""Run records: a folder that carries everything needed to believe and to rescore a result.

=================  =====================================================================
manifest.json      what ran on what
responses.jsonl    one line a sample: the whole response, what it has to be read with
scores.jsonl       one line a sample, in the order of the responses: how it was read, its score
changes.jsonl      in a record that was scored again: the samples whose score changed
checksums.json     SHA-256 of the others
=================  =====================================================================

`univg_eval.runs.manifest` defines them, and the JSON Schema files in ``runs/schemas`` are made of
it. A record is checked against it when it is written and read.

A record is written beside its place and renamed, so it is there whole or not at all, and it is
never changed afterwards.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import islice, zip_longest
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import univg_eval
from univg_eval.errors import UserError
from univg_eval.files import (
    CHECKSUMS,
    file_sha256,
    iter_json_lines,
    numbered_lines,
    refuse_nan,
    whole_folder,
)
from univg_eval.protocols import PROTOCOLS
from univg_eval.redaction import secret_values, settings_without_secrets, without_secrets
from univg_eval.runs.failed_requests import split_failed_request
from univg_eval.runs.manifest import SCHEMA, Manifest, ResponseLine, faults, read_score
from univg_eval.samples import GroundingSample, fingerprint, load_samples
from univg_eval.scoring import Response, SampleScore

__all__ = [
    "CHECKSUMS",
    "SCHEMA",
    "RunRecord",
    "environment",
    "lines_sha256",
    "load_run",
    "make_record",
    "model_label",
    "prepared_samples",
    "require_fingerprint",
    "response_line",
    "response_of",
    "unknown_environment",
    "write_run",
]

MANIFEST, RESPONSES, SCORES, CHANGES = (
    "manifest.json",
    "responses.jsonl",
    "scores.jsonl",
    "changes.jsonl",
)
_PACKAGES = ("univg", "lmms_eval", "transformers", "torch", "numpy", "pillow")
_SHOWN_FAULTS = 5


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A record as loaded, or as `make_record` made it.

    Attributes:
        path: its folder, or the file that it was read from.
        manifest: what ran on what.
        responses: one mapping a line, in file order.
        scores: those of the samples, in the same order.
        label: what tables and pages call the run.
        group: equal in several runs of one thing, see `univg_eval.runs.groups`; None: the run
            stands alone.
        score_check: whether the scores are those of the responses, see
            `univg_eval.runs.score_check`; None: nobody has looked.
    """

    path: Path
    manifest: Manifest
    responses: list[ResponseLine]
    scores: list[SampleScore]
    label: str = ""
    group: str | None = None
    score_check: Literal["same", "different", "unknown"] | None = field(default=None, compare=False)

    @property
    def benchmark(self) -> str:
        """What ran: a benchmark, or ``<benchmark>+<variant>`` under a control or on videos."""
        return self.manifest.dataset.benchmark

    @property
    def errors(self) -> dict[str, str]:
        """Sample → the message that came instead of a response, where the request failed.

        Without keys: a record of an older version may hold them.
        """
        read = ((row["id"], response_of(row)[1]) for row in self.responses)
        known = secret_values()
        return {
            name: without_secrets(error, known=known) for name, error in read if error is not None
        }

    @property
    def failed_requests(self) -> int:
        """Number of samples whose request failed."""
        return len(self.errors)

    def write(
        self,
        path: str | os.PathLike[str],
        *,
        changes: Iterable[Mapping[str, Any]] | None = None,
        replace: bool = False,
    ) -> Path:
        """Write the record into a folder, which is there whole or not at all.

        Args:
            path: the folder, which must not exist yet.
            changes: one mapping a changed sample, of a record that was scored again.
            replace: put the record in the place of an older one.

        Returns:
            The folder.

        Raises:
            UserError: the folder exists and `replace` is False, or it is no run record, or it
                cannot be written.
        """
        path = Path(path)
        if os.path.lexists(path):
            if not replace:
                raise UserError(f"{path} exists; choose another folder or remove it")
            path = path.resolve()
            if path.exists() and not (path / CHECKSUMS).is_file():
                raise UserError(f"{path} exists and is no run record; choose another folder")
        files: dict[str, Iterable[str]] = {
            MANIFEST: [_json_text(self.manifest.to_dict(), indent=2) + "\n"],
            RESPONSES: map(_line, self.responses),
            SCORES: map(_line, map(SampleScore.to_dict, self.scores)),
        }
        if changes is not None:
            files[CHANGES] = map(_line, changes)
        try:
            with whole_folder(path, replace=replace) as folder:
                for name, chunks in files.items():
                    with (folder / name).open("w", encoding="utf-8") as file:
                        file.writelines(chunks)
                sums = {name: file_sha256(folder / name) for name in files}
                (folder / CHECKSUMS).write_text(json.dumps(sums, indent=2) + "\n", "utf-8")
        except OSError as error:
            raise UserError(
                f"cannot write a run record into {path.parent}: {error.strerror or error}; make "
                "room or choose another folder"
            ) from error
        return path


_REMEDY = "score the run again: `univg score --responses` takes its responses.jsonl"


def make_record(
    path: str | os.PathLike[str],
    *,
    manifest: Mapping[str, Any],
    responses: Iterable[Mapping[str, Any]],
    scores: Iterable[SampleScore],
    label: str | None = None,
    secrets: Collection[str] = (),
) -> RunRecord:
    """A record in memory, as `load_run` would give it once it is written.

    Args:
        path: where it comes from, or where it shall lie; nothing is read or written.
        manifest: ``schema``, ``created`` and ``protocol_version`` are added where they are
            missing.
        responses, scores: one a sample, in the same order.
        label: see `load_run`.
        secrets: see `univg_eval.redaction`: they and those of the environment are hidden in the
            model's arguments and in the messages of failed requests.

    Raises:
        UserError: something does not fit `univg_eval.runs.manifest`, there is no sample, or
            responses and scores are of different samples.
    """
    stamp = {
        "schema": SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **_rule_version(manifest.get("settings")),
    }
    known = secret_values() | set(secrets)
    try:
        whole = _plain({**stamp, **manifest})
    except ValueError as error:
        raise UserError(
            f"{path}: a figure of the run is infinite or no number, which JSON cannot hold "
            f"({error}); evaluate again"
        ) from error
    match whole:
        case {"model": {"args": str() | dict() as args}}:
            whole["model"]["args"] = settings_without_secrets(args, known)
    lines = [_plain(row) for row in responses]
    for line in lines:
        if isinstance(line.get("error"), str):
            line["error"] = without_secrets(line["error"], known=known)
    return _checked(Path(path), whole, lines, list(scores), label, "evaluate again")


def _rule_version(settings: Any) -> dict[str, int]:
    """The version of the scoring rule that these settings name; nothing where they name none."""
    match settings:
        case {"protocol": [str(name), *_]} if name in PROTOCOLS:
            return {"protocol_version": PROTOCOLS[name].version}
    return {}


def write_run(
    path: str | os.PathLike[str],
    *,
    manifest: Mapping[str, Any],
    responses: Iterable[Mapping[str, Any]],
    scores: Iterable[SampleScore],
    replace: bool = False,
) -> Path:
    """`make_record` and `RunRecord.write` in one."""
    record = make_record(path, manifest=manifest, responses=responses, scores=scores)
    return record.write(path, replace=replace)


def response_line(
    benchmark: str, sample: GroundingSample, response: Response, error: str | None = None
) -> dict[str, Any]:
    """A line of responses.jsonl.

    Args:
        benchmark: what ran, see `RunRecord.benchmark`.
        sample: as it was shown.
        response: with the sizes and the prompt that it is read with.
        error: the message that came instead of a response, where the request failed.
    """
    line = {
        "id": sample.id,
        "benchmark": benchmark,
        "task": sample.task,
        "response": response.text,
        "image_sizes": response.image_sizes,
        "input_sizes": response.input_sizes,
        "prompt": response.prompt,
    }
    return line if error is None else line | {"error": error}


def response_of(line: ResponseLine) -> tuple[Response, str | None]:
    """The response that a line of responses.jsonl holds, and what came instead if there is none.

    A record of an older version has the message of a failed request for a response.
    """
    error = line.get("error")
    text, message = split_failed_request(line["response"])
    image_sizes, input_sizes = (
        None if sizes is None else [(width, height) for width, height in sizes]
        for sizes in (line["image_sizes"], line["input_sizes"])
    )
    return Response(text, image_sizes, input_sizes, line["prompt"]), error or message


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """What JSON makes of it: lists for tuples."""
    plain: dict[str, Any] = json.loads(_line(row))
    return plain


def _faults(
    manifest: Mapping[str, Any], responses: Sequence[Any], scores: Sequence[SampleScore]
) -> Iterator[str]:
    """Everything that makes this no record, in words."""
    for wrong in faults(manifest, Manifest):
        yield f"{MANIFEST}: {wrong}"
    sound = True
    for number, row in enumerate(responses, start=1):
        for wrong in faults(row, ResponseLine):
            sound = False
            yield f"{RESPONSES}:{number}: {wrong}"
    if not sound:
        return
    ids = [row["id"] for row in responses], [score.id for score in scores]
    for number, (first, second) in enumerate(zip_longest(*ids), start=1):
        if first != second:
            yield (
                f"{RESPONSES} and {SCORES} have different ids at line {number}: {first!r} and "
                f"{second!r}"
            )
            return
    seen: set[str] = set()
    for number, row in enumerate(responses, start=1):
        if row["id"] in seen:
            yield f"{RESPONSES}:{number}: duplicate id {row['id']!r}"
        seen.add(row["id"])
        if row.get("error") is not None and row["response"] is not None:
            yield f"{RESPONSES}:{number}: has a response and an error; expected one of them"
    n = manifest.get("n")
    if n != len(responses):
        yield f"{MANIFEST}: n is {n!r}, and {RESPONSES} has {len(responses)} lines"
    failed = sum(row.get("error") is not None for row in responses)
    if manifest.get("failed_requests", failed) != failed:
        yield (
            f"{MANIFEST}: failed_requests is {manifest['failed_requests']!r}, and {RESPONSES} has "
            f"{failed} lines with an error"
        )


def _checked(
    path: Path,
    manifest: dict[str, Any],
    responses: list[Any],
    scores: list[SampleScore],
    label: str | None,
    remedy: str,
) -> RunRecord:
    if not responses and not scores:
        raise UserError(
            f"{path} holds no sample: the evaluation ended before the first answer; evaluate again"
        )
    wrong = list(islice(_faults(manifest, responses, scores), _SHOWN_FAULTS))
    if wrong:
        raise UserError(f"{path} is no sound run record: {'; '.join(wrong)}. To repair: {remedy}")
    read = Manifest.read(manifest)
    name = label or read.name or model_label(read.model.id)
    return RunRecord(path, read, responses, scores, name, read.group)


def _json_text(row: Mapping[str, Any], indent: int | None = None) -> str:
    """A row as JSON; one with halves of surrogate pairs, which UTF-8 lacks, has escapes."""
    text = json.dumps(dict(row), ensure_ascii=False, allow_nan=False, indent=indent)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = json.dumps(dict(row), allow_nan=False, indent=indent)
    return text


def _line(row: Mapping[str, Any]) -> str:
    return _json_text(row) + "\n"


def lines_sha256(rows: Iterable[Mapping[str, Any]]) -> str:
    """SHA-256 (hex) of rows as JSON Lines: that of the file which `write_run` makes of them."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(_line(row).encode("utf-8"))
    return digest.hexdigest()


def load_run(path: str | os.PathLike[str], label: str | None = None) -> RunRecord:
    """Read a record and verify its checksums.

    Args:
        path: its folder.
        label: what to call the run; None: its name in the manifest, else the last part of its
            model's id, the one before it where that is ``model`` or ``best``, as in the folders
            that `univg-train` makes.

    Raises:
        UserError: no record, a file missing or changed since it was written, a schema that this
            version does not know, no sample, or something that does not fit the schema.
    """
    path = Path(path)
    try:
        return _read_run(path, label)
    except OSError as error:
        raise UserError(
            f"cannot read the run record {path}: {error.strerror or error}"
            + (f" ({error.filename})" if error.filename else "")
        ) from error


def _read_run(path: Path, label: str | None) -> RunRecord:
    if not (path / CHECKSUMS).is_file():
        raise UserError(f"{path} is no run record: {CHECKSUMS} is missing in it")
    sums = _json_object(path / CHECKSUMS)
    for name in dict.fromkeys((MANIFEST, RESPONSES, SCORES, *sums)):
        if not (path / name).is_file():
            raise UserError(f"the run record {path} is not whole: {name} is missing")
        if sums.get(name) != file_sha256(path / name):
            raise UserError(
                f"{path / name} was changed after the record was written (its SHA-256 is not the "
                f"one in {CHECKSUMS}); restore it, or write a new record"
            )
    manifest = _json_object(path / MANIFEST)
    _require_known_schema(path, manifest)
    responses = [row for _, row in iter_json_lines(path / RESPONSES, nan=False)]
    return _checked(path, manifest, responses, _read_scores(path / SCORES), label, _REMEDY)


def _read_scores(path: Path) -> list[SampleScore]:
    found = []
    with path.open("rb") as file:
        for number, line in numbered_lines(file, path):
            if line.strip():
                try:
                    found.append(read_score(line))
                except ValueError as error:
                    raise UserError(
                        f"{path.parent} is no sound run record: {path.name}:{number}: {error}. To "
                        f"repair: {_REMEDY}"
                    ) from error
    return found


def _require_known_schema(path: Path, manifest: Mapping[str, Any]) -> None:
    schema = manifest.get("schema")
    if schema == SCHEMA:
        return
    received = f"{path / MANIFEST} has schema {schema!r}; this version reads {SCHEMA}."
    versions = manifest.get("versions")
    by = versions.get("univg") if isinstance(versions, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        writer = f" {by}" if isinstance(by, str) else ""
        raise UserError(
            f"{received} The record is newer: univg{writer} wrote it, and this is univg "
            f"{_version('univg')}; update univg"
        )
    older = "The record is older" if isinstance(schema, int) else "That is no version of a record"
    raise UserError(f"{received} {older}; {_REMEDY}")


def model_label(model_id: str) -> str:
    """What a run is called by default: see `load_run`."""
    path = PurePosixPath(model_id)
    name = path.parent.name if path.name in ("model", "best") else path.name
    return name.removesuffix(".jsonl") or model_id  # of replayed responses


def prepared_samples(record: RunRecord) -> list[GroundingSample]:
    """All samples of the prepared benchmark that a record is about, in file order.

    Under a control or on videos the model was shown something else: the truth is that of these
    samples, see `univg_eval.lmms.docs.as_shown` for the images.

    Raises:
        UserError: the benchmark is not prepared, or it is another set than the one that ran.
    """
    dataset = record.manifest.dataset
    samples = load_samples(dataset.prepared_benchmark)
    require_fingerprint(dataset.prepared_benchmark, fingerprint(samples), dataset.fingerprint)
    return samples


def require_fingerprint(benchmark: str, prepared: str, evaluated: str) -> None:
    """Check that the prepared set is the one that was evaluated.

    Raises:
        UserError: the two fingerprints differ.
    """
    if prepared != evaluated:
        raise UserError(
            f"the prepared benchmark {benchmark!r} has changed since the evaluation: its "
            f"fingerprint is {prepared[:12]}…, that of the evaluated set {evaluated[:12]}…; "
            "prepare the set that was evaluated (UNIVG_DATA names the data root), or evaluate again"
        )


def _json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse_nan)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, received {type(value).__name__}")
    return value


def environment() -> dict[str, dict[str, Any]]:
    """``versions`` and ``hardware`` of this process, for a manifest.

    Versions come from the installed packages, None where one is absent; ``commit`` is that of
    the checkout that the code runs from, ending in ``-dirty`` if it has changes. Accelerators
    are named by torch only if the process has loaded it.
    """
    versions: dict[str, Any] = {name: _version(name) for name in _PACKAGES}
    versions["python"] = platform.python_version()
    versions["commit"] = _commit()
    hardware: dict[str, Any] = {
        "machine": platform.machine(),
        "system": platform.system(),
        "cpu": _cpu_model(),
        "cpu_count": os.cpu_count(),
        "accelerators": [],
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        hardware["accelerators"] = [
            torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())
        ]
    return {"versions": versions, "hardware": hardware}


def unknown_environment() -> dict[str, dict[str, Any]]:
    """`environment` of a run that did not say where it ran: every value None."""
    return {
        "versions": dict.fromkeys((*_PACKAGES, "python", "commit")),
        "hardware": dict.fromkeys(("machine", "system", "cpu", "cpu_count", "accelerators")),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    checkout = Path(univg_eval.__file__).resolve().parent.parent
    git = shutil.which("git")
    if git is None or not (checkout / ".git").exists():
        return None
    found = subprocess.run(
        [git, "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or None


def _cpu_model() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        return platform.processor()
    return platform.processor()
