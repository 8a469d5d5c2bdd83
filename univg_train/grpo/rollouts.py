"""What a model answered in training: some prompts of each batch with all their rollouts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from univg_eval.errors import UserError
from univg_eval.files import write_text_atomically

__all__ = ["ROLLOUTS_FILE", "RolloutLog"]

ROLLOUTS_FILE = "rollouts.jsonl"
"""In the folder of a run."""


class RolloutLog:
    """A file of JSON lines, one for each prompt that is kept.

    A line has ``step`` (the one that the rollouts serve first), ``id`` and ``source`` of the row,
    ``truth`` (image and box, xyxy_norm, of each true object; empty: there is none), ``metric`` and
    ``mean`` (of the rollouts: the prompt's difficulty), ``weight``, and ``rollouts``: ``text``,
    ``status``, ``box`` (the chosen one, xyxy_norm), ``value`` in the metric, ``reward`` in all.

    Args:
        path: of the file.
        prompts: how many of each batch are kept; 0: none, and no file.
    """

    def __init__(self, path: Path, prompts: int) -> None:
        self._path = path
        self.prompts = prompts
        self._begun = False

    def write(self, step: int, lines: Sequence[Mapping[str, Any]]) -> None:
        """Add prompts of a step; those of a run that is taken up again replace its lost steps.

        Raises:
            UserError: the file cannot be read or written.
        """
        try:
            if not self._begun:
                write_text_atomically(self._path, self._before(step))
                self._begun = True
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(
                    json.dumps({"step": step, **line}, ensure_ascii=False) + "\n" for line in lines
                )
        except OSError as error:
            raise UserError(
                f"cannot write {self._path}: {error.strerror or error}; make room, or set "
                "log_rollouts: 0"
            ) from error

    def _before(self, step: int) -> Iterator[str]:
        """The whole lines of earlier steps."""
        if not self._path.exists():
            return
        with self._path.open(encoding="utf-8") as file:
            for line in file:
                # A killed process may leave a part of a line, which is the last.
                if line.endswith("\n") and json.loads(line)["step"] < step:
                    yield line
