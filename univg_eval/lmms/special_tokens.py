"""Which backends hand on the special tokens of an answer.

Some families write their boxes in special tokens alone (`Dialect.needs_special_tokens`). A backend
that decodes without them drops the box, and the answer would score 0 without a word.

Read in lmms-eval 0.7.3: almost every Hugging Face backend decodes with
``skip_special_tokens=True``; vllm and sglang ask their engines for the same by not asking; the
backends for servers send no field for it, so a server's own default holds, which in vLLM and
SGLang is to drop them. No argument of a backend changes that.
"""

from __future__ import annotations

from collections.abc import Mapping

from univg_eval.dialects import Dialect
from univg_eval.errors import UserError

__all__ = ["KEEPING_BACKENDS", "require_special_tokens"]

KEEPING_BACKENDS = frozenset(
    {("simple", name) for name in ("univg", "cogvlm2", "vita", "from_log")}
)
"""(kind, backend) whose answers hold their special tokens."""

VARIABLE = "UNIVG_SPECIAL_TOKENS"
KEPT = "kept"


def require_special_tokens(
    dialect: Dialect, backend: str, *, simple: bool, environ: Mapping[str, str]
) -> None:
    """Check that a dialect's boxes reach the reader.

    Args:
        dialect: of the run.
        backend: lmms-eval's name.
        simple: whether it is the simple backend of that name, or the chat one.
        environ: where ``UNIVG_SPECIAL_TOKENS=kept`` is the user's word that they do.

    Raises:
        UserError: the boxes would be dropped, or the variable has another value.
    """
    given = environ.get(VARIABLE)
    if given not in (None, "", KEPT):
        raise UserError(f"{VARIABLE} is {given!r}; expected {KEPT!r}, or no value")
    kind = "simple" if simple else "chat"
    if not dialect.needs_special_tokens or given or (kind, backend) in KEEPING_BACKENDS:
        return
    raise UserError(
        f"dialect {dialect.name!r} writes its boxes in special tokens, and the backend "
        f"{kind}/{backend} drops these: every answer would be without a box. Generate with "
        "skip_special_tokens=False yourself and score the responses (`univg score`, or --model "
        f"univg_replay); if your backend or server keeps them (llama.cpp: --special), set "
        f"{VARIABLE}={KEPT}"
    )
