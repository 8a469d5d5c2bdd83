"""Keeping lmms-eval quiet while it runs, and reading what it said."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator

from loguru import logger

__all__ = ["quiet"]

SHOWN_ON_FAILURE = 4000
"""Characters of the kept output that are shown where an evaluation fails."""


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """Keep what lmms-eval prints and logs, and show its end only if the evaluation fails.

    Yields:
        What is kept, to be read afterwards.
    """
    kept = io.StringIO()
    logger.remove()
    logger.add(kept, level="WARNING")
    try:
        with contextlib.redirect_stdout(kept), contextlib.redirect_stderr(kept):
            yield kept
    except (Exception, SystemExit):
        sys.stderr.write(kept.getvalue()[-SHOWN_ON_FAILURE:])
        raise
