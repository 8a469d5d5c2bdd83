"""How a run under lmms-eval is stopped for a user's mistake."""

from __future__ import annotations

import sys
from typing import NoReturn

from univg_eval.errors import UserError

__all__ = ["stop_run"]


def stop_run(error: UserError) -> NoReturn:
    """Show one message and leave with status 2.

    lmms-eval catches every `Exception` of an evaluation, prints a traceback and exits 0; only
    SystemExit passes through it.
    """
    sys.stderr.write(f"univg: {error}\n")
    sys.stderr.flush()
    raise SystemExit(2) from error
