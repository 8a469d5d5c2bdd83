"""What lmms-eval's backend for Claude sends and returns, where that would spoil an evaluation.

Read in simple/claude of lmms-eval 0.7.3:

* Every request has ``temperature`` and ``top_p``. Claude from 4.1 on refuses the two together, from
  4.7 on either, and the package ``anthropic`` from 1.0 on has no such arguments.
* A request that failed for good gets two answers: an empty text, and once more the answer of the
  request before it. From there on each sample is given its predecessor's answer.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping

from univg_eval.errors import UserError

__all__ = ["require_accepted_requests", "require_answer"]

_BACKEND = "claude"
_TAKES_BOTH = re.compile(r"claude-(?:3|(?:opus|sonnet)-4(?![-.][1-9](?!\d)))")
_GATEWAY = "ANTHROPIC_BASE_URL"


def require_accepted_requests(backend: str, model: str | None, environ: Mapping[str, str]) -> None:
    """Check that the service takes what simple/claude sends.

    Args:
        backend: lmms-eval's name.
        model: the service's name of the model.
        environ: with ``ANTHROPIC_BASE_URL`` set, another server decides what it takes.

    Raises:
        UserError: every request would fail.
    """
    if backend != _BACKEND:
        return
    if not environ.get(_GATEWAY) and not _TAKES_BOTH.search(model or ""):
        raise UserError(
            f"the backend claude of lmms-eval 0.7.3 sends temperature and top_p, which {model!r} "
            "refuses together (Claude from 4.1 on; from 4.7 on each of them): every request would "
            "fail. Use --model openai with the base_url of a gateway that drops what a model does "
            f"not take, or set {_GATEWAY} to such a one"
        )
    try:
        from anthropic.resources.messages import Messages
    except ImportError as error:
        raise UserError(
            f"the backend claude needs the package anthropic, which cannot be imported ({error}); "
            "run: pip install 'anthropic<1'"
        ) from error
    if "temperature" not in inspect.signature(Messages.create).parameters:
        raise UserError(
            "the backend claude of lmms-eval 0.7.3 needs an older package anthropic: the installed "
            "one takes no temperature, so every request would fail; run: pip install 'anthropic<1'"
        )


def require_answer(backend: str, text: str | None) -> None:
    """Stop where a request of simple/claude failed, for the answers after it are moved.

    Raises:
        UserError: the text is empty, which is what a failed request leaves.
    """
    if backend == _BACKEND and not text:
        raise UserError(
            "a request to Claude was not answered, and from there on lmms-eval 0.7.3 gives each "
            "sample the answer to another one: nothing is scored. Evaluate again, and with "
            "--use_cache give an empty folder"
        )
