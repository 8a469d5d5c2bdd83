"""Texts that stand where a request got no response.

The server backends of lmms-eval (0.7.3: openai, async_openai and gemini, simple and chat) go on
when a request has failed for good, or when the budget is spent, and give a text that says so::

    [LMMS_EVAL_REQUEST_FAILED after 5 retries] <the beginning of the server's error message>
    [LMMS_EVAL_BUDGET_EXCEEDED]

No model wrote it, and the numbers of an error message may look like a box. Such a sample is
unanswered: its response is None, and the text is kept as an error.

Where a message has no content, as when thinking took all new tokens, async_openai gives Python's
words for what it then fails at. openai gives None, and so does the reading here.
"""

from __future__ import annotations

import re

__all__ = ["failed_request", "split_failed_request"]

_NO_CONTENT = 'Error: can only concatenate str (not "NoneType") to str'
_START = "[LMMS_EVAL_"
_FAILED = re.compile(r"\[LMMS_EVAL_(?:REQUEST_FAILED after \d+ retries|BUDGET_EXCEEDED)\]")


def split_failed_request(text: str | None) -> tuple[str | None, str | None]:
    """What a model said, and the message in its place where the request failed.

    Args:
        text: as a backend gave it or a file holds it; None: there is none.

    Returns:
        (text, None), (None, text) if the text begins as one of a failed request does, or
        (None, None) if it stands for a message without content.
    """
    if text == _NO_CONTENT:
        return None, None
    if text is not None and text.startswith(_START) and _FAILED.match(text):
        return None, text
    return text, None


def failed_request(reason: str) -> str:
    """The text that stands for a response that could not be generated."""
    return f"{_START}REQUEST_FAILED after 0 retries] {reason}"
