"""The folder of lmms-eval's ``--use_cache``, freed of requests that failed.

lmms-eval (0.7.3) keeps the message of a failed request as if it were a response, and gives it
again for ever: the server would get no second request. Only what this module drops is sent again.

=========================  ================================================================
cache.db                   SQLite, table ``responses``: what finished evaluations left
runs/*/rank_*.db           the same, of one evaluation; read again where its name comes back
                           (a cluster's job that was requeued)
runs/*/rank_*.audit.jsonl  log of every response, put into the database when that is opened
=========================  ================================================================
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from univg_eval.errors import UserError
from univg_eval.files import write_text_atomically
from univg_eval.runs.failed_requests import split_failed_request

__all__ = ["forget_failed_requests"]


def forget_failed_requests(cache: str | Path) -> int:
    """Drop failed requests from a response cache; what was answered stays.

    Args:
        cache: as given to ``--use_cache``: the folder, or a ``.db`` file in it.

    Returns:
        Number of requests that the next evaluation will send again.

    Raises:
        UserError: a file of the cache cannot be read or changed.
    """
    folder = Path(cache)
    if folder.suffix == ".db":
        folder = folder.absolute().parent
    forgotten: set[str] = set()
    try:
        for database in [folder / "cache.db", *sorted(folder.glob("runs/*/rank_*.db"))]:
            if database.is_file():
                forgotten |= _clean_database(database)
        for log in sorted(folder.glob("runs/*/rank_*.audit.jsonl")):
            _clean_log(log)
    except (OSError, sqlite3.Error) as error:
        raise UserError(
            f"cannot take the failed requests out of the response cache {folder}: {error}; give "
            "--use_cache another folder for the next try, else they are not sent again"
        ) from error
    return len(forgotten)


def _clean_database(path: Path) -> set[str]:
    with closing(sqlite3.connect(path, timeout=30)) as database, database:
        rows = database.execute("SELECT cache_key, response FROM responses").fetchall()
        failed = [key for key, response in rows if _is_failed(response)]
        database.executemany("DELETE FROM responses WHERE cache_key = ?", ((k,) for k in failed))
    return set(failed)


def _clean_log(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if not _logs_a_failure(line)]
    if len(kept) < len(lines):
        write_text_atomically(path, kept)


def _logs_a_failure(line: str) -> bool:
    try:
        row = json.loads(line)
    except ValueError:  # the last line of an evaluation that was killed
        return False
    return isinstance(row, dict) and _is_failed(row.get("response"))


def _is_failed(stored: object) -> bool:
    """Whether a stored response, which is JSON text, is the message of a failed request."""
    try:
        text = json.loads(stored) if isinstance(stored, str) else None
    except ValueError:
        return False
    return isinstance(text, str) and split_failed_request(text)[1] is not None
