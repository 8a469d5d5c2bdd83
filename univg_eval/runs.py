"""Run records: a folder that carries everything needed to believe and to rescore a result.

=================  =====================================================================
manifest.json      what ran on what: see `REQUIRED`
responses.jsonl    one line a sample: id, benchmark, task, the whole response, image_sizes,
                   input_sizes, prompt
scores.jsonl       one line a sample: id, task, status, box, iou, n_boxes and more
checksums.json     SHA-256 of the other three
=================  =====================================================================

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
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any

from univg_eval.errors import UserError
from univg_eval.samples import iter_json_lines
from univg_eval.scoring import SampleScore

__all__ = ["REQUIRED", "SCHEMA", "RunRecord", "environment", "load_run", "write_run"]

SCHEMA = 1
_SCORE_FIELDS = tuple(field.name for field in fields(SampleScore))
MANIFEST, RESPONSES, SCORES, CHECKSUMS = (
    "manifest.json",
    "responses.jsonl",
    "scores.jsonl",
    "checksums.json",
)

REQUIRED = {
    "model": "id, backend, args, config_sha256 (None where there is no configuration file)",
    "settings": "dialect, prompt, protocol, pixel limits, control, media, each [value, source]",
    "prompt_sha256": "of what the prompt style adds to a question",
    "generation": "generation arguments",
    "dataset": "benchmark, fingerprint, n and revision of the whole prepared set; what ran under a "
    "control or on videos has another benchmark name, and the set under prepared_benchmark",
    "n": "samples in this record",
    "complete": "whether these are all samples of the set, and the set lacks no faulty items",
    "excluded": "samples left out for an invalid ground truth",
    "results": "tasks and macro, as `univg_eval.scoring.aggregate` gives them",
    "versions": "see `environment`",
    "hardware": "see `environment`",
    "wall_time_s": "seconds of the evaluation, None where it was not measured",
}
"""Keys that every manifest has; `write_run` adds schema and created."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A record as loaded.

    Attributes:
        path: its folder.
        manifest: see `REQUIRED`.
        responses, scores: the lines of the two files, in file order.
        label: what tables and pages call the run; not stored in the record.
    """

    path: Path
    manifest: dict[str, Any]
    responses: list[dict[str, Any]]
    scores: list[dict[str, Any]]
    label: str = ""

    @property
    def benchmark(self) -> str:
        """What ran: a benchmark, or ``<benchmark>+<variant>`` under a control or on videos."""
        return str(self.manifest["dataset"]["benchmark"])

    def sample_scores(self) -> list[SampleScore]:
        """The lines of scores.jsonl as scores, in file order; keys of later versions are left."""
        return [
            SampleScore(
                **{
                    name: tuple(row[name]) if name == "box" and row[name] else row[name]
                    for name in _SCORE_FIELDS
                }
            )
            for row in self.scores
        ]


def write_run(
    path: str | os.PathLike[str],
    *,
    manifest: Mapping[str, Any],
    responses: Iterable[Mapping[str, Any]],
    scores: Iterable[Mapping[str, Any]],
    replace: bool = False,
) -> Path:
    """Write a record.

    Args:
        path: its folder, which must not exist yet.
        manifest: holds at least `REQUIRED`.
        responses, scores: one mapping a sample, consumed once.
        replace: put the record in the place of an older one.

    Returns:
        The folder.

    Raises:
        UserError: the folder exists and `replace` is False, or it is no run record, or its
            parent cannot be written to.
        ValueError: the manifest lacks a required key, or the two files differ in their ids.
    """
    path = Path(path)
    lacking = [key for key in REQUIRED if key not in manifest]
    if lacking:
        raise ValueError(f"the manifest lacks {', '.join(lacking)}; expected {', '.join(REQUIRED)}")
    if path.exists() and not replace:
        raise UserError(f"{path} exists; choose another folder or remove it")
    if path.exists() and not (path / CHECKSUMS).is_file():
        raise UserError(f"{path} exists and is no run record; choose another folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise UserError(
            f"cannot write a run record into {path.parent}: {error.strerror or error}; choose "
            "another folder"
        ) from error
    try:
        whole = {
            "schema": SCHEMA,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            **manifest,
        }
        (folder / MANIFEST).write_text(
            json.dumps(whole, ensure_ascii=False, indent=2, allow_nan=False) + "\n",
            encoding="utf-8",
        )
        response_ids = _write_lines(folder / RESPONSES, responses)
        score_ids = _write_lines(folder / SCORES, scores)
        if response_ids != score_ids:
            raise ValueError("responses and scores have different ids or orders")
        sums = {name: _sha256(folder / name) for name in (MANIFEST, RESPONSES, SCORES)}
        (folder / CHECKSUMS).write_text(json.dumps(sums, indent=2) + "\n", encoding="utf-8")
        umask = os.umask(0)
        os.umask(umask)
        folder.chmod(0o777 & ~umask)
        if path.exists():
            shutil.rmtree(path)
        folder.rename(path)
    finally:
        if folder.exists():
            shutil.rmtree(folder)
    return path


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> list[str]:
    ids = []
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(_line(row))
            ids.append(row["id"])
    return ids


def _line(row: Mapping[str, Any]) -> str:
    """One JSON line; a row with halves of surrogate pairs, which UTF-8 lacks, has escapes."""
    text = json.dumps(dict(row), ensure_ascii=False, allow_nan=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = json.dumps(dict(row), allow_nan=False)
    return text + "\n"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_run(path: str | os.PathLike[str], label: str | None = None) -> RunRecord:
    """Read a record and verify its checksums.

    Args:
        path: its folder.
        label: what to call the run; None: the last part of its model's id, the one before it
            where that is ``model`` or ``best``, as in the folders that `univg-train` makes.

    Raises:
        UserError: no record, a file missing or changed since it was written, or a schema that
            this version does not know.
    """
    path = Path(path)
    if not (path / CHECKSUMS).is_file():
        raise UserError(f"{path} is no run record: {CHECKSUMS} is missing in it")
    sums = _json_object(path / CHECKSUMS)
    for name in (MANIFEST, RESPONSES, SCORES):
        if not (path / name).is_file():
            raise UserError(f"the run record {path} is not whole: {name} is missing")
        if sums.get(name) != _sha256(path / name):
            raise UserError(
                f"{path / name} was changed after the record was written (its SHA-256 is not the "
                f"one in {CHECKSUMS}); restore it, or write a new record"
            )
    manifest = _json_object(path / MANIFEST)
    if manifest.get("schema") != SCHEMA:
        raise UserError(
            f"{path / MANIFEST} has schema {manifest.get('schema')!r}; this version reads {SCHEMA}"
        )
    return RunRecord(
        path=path,
        manifest=manifest,
        responses=[row for _, row in iter_json_lines(path / RESPONSES)],
        scores=[row for _, row in iter_json_lines(path / SCORES)],
        label=label or _model_name(str(manifest["model"]["id"])),
    )


def _model_name(model_id: str) -> str:
    path = PurePosixPath(model_id)
    return (path.parent.name if path.name in ("model", "best") else path.name) or model_id


def _json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, received {type(value).__name__}")
    return value


def environment() -> dict[str, dict[str, Any]]:
    """``versions`` and ``hardware`` of this process, for a manifest.

    Versions come from the installed packages, None where one is absent; ``commit`` is that of
    the checkout that the code runs from, ending in ``-dirty`` if it has changes. Accelerators
    are asked of torch only if the process has loaded it.
    """
    packages = ("univg", "lmms_eval", "transformers", "torch", "numpy", "pillow")
    versions: dict[str, Any] = {name: _version(name) for name in packages}
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


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    checkout = Path(__file__).resolve().parent.parent
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
