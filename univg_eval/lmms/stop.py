"""How a run under lmms-eval is stopped for a user's mistake."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from univg_eval.errors import UserError
from univg_eval.terminal import show_message

__all__ = ["user_errors_stop"]


@contextmanager
def user_errors_stop() -> Iterator[None]:
    """Show a `UserError` of the block as one message and leave with status 2; also a decorator.

    lmms-eval catches every `Exception` of an evaluation, prints a traceback and exits 0; only
    SystemExit passes through it.
    """
    try:
        yield
    except UserError as error:
        show_message(f"univg: {error}")
        raise SystemExit(2) from error
