"""Writing what a command makes into the file that its option names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from univg_eval.errors import UserError


def refuse_inputs(out: Path, option: str, inputs: Iterable[tuple[str, Path | None]]) -> None:
    """Refuse to write over what a command reads.

    Args:
        out: that `option` names.
        option: as the user gives it.
        inputs: (option, path that it names, None where it is not given).

    Raises:
        UserError: `out` is one of them.
    """
    for name, path in inputs:
        if path is not None and out.exists() and path.exists() and out.samefile(path):
            raise UserError(f"{option} {out} is the file of {name}; give another path")


@contextmanager
def written_by(option: str, path: Path) -> Iterator[None]:
    """Report that the file which an option names cannot be written.

    Raises:
        UserError: instead of an OSError of the block.
    """
    from univg_eval.files import NO_ROOM

    try:
        yield
    except OSError as error:
        remedy = (
            f"free space, or give {option} a path on another disk"
            if error.errno in NO_ROOM
            else f"give {option} a path in a folder that may be written"
        )
        raise UserError(f"cannot write {path}: {error.strerror or error}; {remedy}") from error


def write_output(path: Path, text: str, option: str) -> None:
    """Write the file whole or not at all.

    Raises:
        UserError: it cannot be written, or a name in the text is no text.
    """
    from univg_eval.files import write_text_atomically

    try:
        with written_by(option, path):
            write_text_atomically(path, [text])
    except UnicodeEncodeError as error:
        raise UserError(
            f"cannot write {path}: a name has {error.object[error.start : error.end]!r}, which is "
            "no text; give the run another label: LABEL=PATH"
        ) from error
