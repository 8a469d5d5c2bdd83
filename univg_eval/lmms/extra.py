"""What to say where the extra ``eval`` is not installed."""

from __future__ import annotations

from importlib.util import find_spec

from univg_eval.errors import UserError, install_command

__all__ = ["require_lmms_eval"]


def require_lmms_eval() -> None:
    """Check that lmms-eval can be imported, without importing it.

    Raises:
        UserError: it is not installed; the message has the command that installs it.
    """
    if find_spec("lmms_eval") is None:
        raise UserError(f"lmms-eval is not installed; {install_command('eval')}")
