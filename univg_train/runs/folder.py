"""The folder of a training run: its record, its checkpoints, and whether it is the same run."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from univg_eval.errors import UserError
from univg_eval.files import path_lock, read_json, write_text_atomically

__all__ = [
    "ADAPTER_FOLDER",
    "MODEL_FOLDER",
    "STATE_FILE",
    "differences",
    "find_checkpoint",
    "read_record",
    "require_same_rows",
    "sole_writer",
    "write_record",
]

MODEL_FOLDER = "model"
"""The whole model that a run ends with."""

ADAPTER_FOLDER = "adapter"
"""What was trained of it, where that is an adapter."""

STATE_FILE = "trainer_state.json"
"""What the trainer logged, and where it stands; in checkpoints and in the model's folder."""

_logger = logging.getLogger(__name__)


def find_checkpoint(folder: Path) -> Path | None:
    """The latest checkpoint that was written to its end; None if there is none.

    ``trainer_state.json`` is written last: a process that dies before leaves none, or a part.
    """
    numbers = (path.name.removeprefix("checkpoint-") for path in folder.glob("checkpoint-*"))
    for step in sorted((int(n) for n in numbers if n.isdecimal()), reverse=True):
        path = folder / f"checkpoint-{step}"
        try:
            state = read_json(path / STATE_FILE)
        except (OSError, ValueError):
            _logger.warning("%s was not written to its end and is passed over", path)
            continue
        if state.get("global_step") == step:
            return path
    return None


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold a run's folder, which is made where it is missing, for this process alone.

    On a file system without locks nobody holds it.

    Raises:
        UserError: another process trains in it, or it cannot be made.
    """
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(path_lock(folder, wait=False))
        except BlockingIOError as error:
            raise UserError(
                f"another process trains in {folder}; wait for it, or name another folder"
            ) from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                reason = error.strerror or error
                raise UserError(f"cannot use {folder}: {reason}; name another folder") from error
        yield


def differences(before: Any, now: Any, free: Collection[str] = (), prefix: str = "") -> list[str]:
    """What changed between two JSON values, a line each, by keys with dots; `free` ones may."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            line
            for name in dict.fromkeys([*before, *now])
            if (key := f"{prefix}.{name}" if prefix else name) not in free
            for line in differences(before.get(name), now.get(name), free, key)
        ]
    return [] if before == now else [f"{prefix} was {before!r} and is {now!r}"]


def require_same_rows(folder: Path, before: dict[str, Any] | None, now: dict[str, Any]) -> None:
    """Refuse to go on with a run on other rows.

    Args:
        before: the run's record; None for a new run.
        now: ``rows``, their number, and ``data_fingerprint``.

    Raises:
        UserError: the rows, or their number, have changed.
    """
    if before is None:
        return
    if before.get("rows") != now["rows"]:
        changed = f"on {before.get('rows')} rows, and the file has {now['rows']} now"
    elif before.get("data_fingerprint") != now["data_fingerprint"]:
        changed = f"on {now['rows']} rows that are others now: a text, box or image has changed"
    else:
        return
    raise UserError(
        f"{folder} holds a run {changed}; put the old file back, or name another trainer.output_dir"
    )


def read_record(path: Path) -> dict[str, Any] | None:
    """A record; None if there is none, a UserError if it cannot be read."""
    try:
        value = read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}; name another trainer.output_dir") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is no record of a run; name another trainer.output_dir")
    return value


def write_record(path: Path, value: dict[str, Any]) -> None:
    """Write a record as a whole or not at all; a UserError if it cannot be written."""
    try:
        write_text_atomically(path, [json.dumps(value, ensure_ascii=False, indent=2), "\n"])
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"cannot write {path}: {reason}; make room or name another folder"
        ) from error
