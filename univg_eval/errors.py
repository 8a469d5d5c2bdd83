"""The error a user can mend: shown as one message, without a traceback."""

from __future__ import annotations

__all__ = ["UserError"]


class UserError(ValueError):
    """A mistake in what the user gave: a name, a file, a setting.

    The message names the thing, what was received, what was expected and the remedy.
    The command line prints it to standard error and exits with status 2.
    """
