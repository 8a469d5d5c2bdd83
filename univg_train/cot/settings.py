"""Who writes the chains, and how they are built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from univg_eval.dialects import Dialect, get_dialect
from univg_eval.errors import UserError
from univg_train.cot.prompts import prompts_sha256

__all__ = ["CotSettings", "TeacherSettings", "public_url"]

_MAX_TOKENS_FIELDS = ("max_tokens", "max_completion_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherSettings:
    """Where the teacher is and how it is prompted.

    Attributes:
        model: its name on the server.
        base_url: of the server, e.g. ``http://127.0.0.1:8000/v1``; None: that of OpenAI.
        temperature: of the chains.
        max_tokens: limit of one reply, a thinking teacher's own thoughts included.
        max_tokens_field: name of that limit in the request.
        timeout_s: seconds of one attempt.
        retries: further attempts after the first.
        requests_per_minute, tokens_per_minute: limits; None: none.
    """

    model: str
    base_url: str | None = None
    temperature: float = 1.0
    max_tokens: int = 1024
    max_tokens_field: str = "max_tokens"
    timeout_s: float = 180.0
    retries: int = 5
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    def __post_init__(self) -> None:
        if not self.model.strip():
            raise UserError("the teacher's model name is empty; give its name on the server")
        if self.max_tokens_field not in _MAX_TOKENS_FIELDS:
            raise UserError(
                f"max_tokens_field is {self.max_tokens_field!r}; expected one of "
                f"{', '.join(_MAX_TOKENS_FIELDS)}"
            )
        url = urlsplit(self.base_url or "")
        if self.base_url is not None and (url.scheme not in ("http", "https") or not url.hostname):
            raise UserError(
                f"the base URL is {public_url(self.base_url)!r}; expected http://HOST:PORT/v1 or "
                "https://HOST/v1"
            )
        if url.username or url.password or url.query:
            raise UserError(
                f"the base URL {public_url(self.base_url)!r} carries a password or a query, which "
                "would be recorded; give the key in the environment instead"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class CotSettings:
    """How chains are built.

    Attributes:
        teacher: who writes them.
        dialect: how the student writes boxes.
        min_pixels, max_pixels: limits of the student's resize, for dialects in those pixels.
        chains: how many are requested for a row.
        min_words, max_words: limits of the thinking, part of the prompt and checked.
        image_pixels: largest area of an image as it is sent.
        concurrency: requests under way at once.
        price_in, price_out: price of a million tokens of prompt and of completion; None: unknown.
    """

    teacher: TeacherSettings
    dialect: str = "univg_r1"
    min_pixels: int | None = None
    max_pixels: int | None = None
    chains: int = 3
    min_words: int = 20
    max_words: int = 180
    image_pixels: int = 1_003_520
    concurrency: int = 8
    price_in: float | None = None
    price_out: float | None = None

    def __post_init__(self) -> None:
        for name in ("chains", "min_words", "image_pixels", "concurrency"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; expected 1 or more")
        if self.min_words > self.max_words:
            raise UserError(
                f"min_words is {self.min_words} and max_words {self.max_words}; expected "
                "min_words <= max_words"
            )
        if (self.price_in is None) != (self.price_out is None):
            raise UserError("one of price_in and price_out is missing; give both, or none")

    def student_dialect(self) -> Dialect:
        """The dialect with its limits; UserError if it is unknown or writes no boxes."""
        dialect = get_dialect(self.dialect, min_pixels=self.min_pixels, max_pixels=self.max_pixels)
        if not dialect.gives_boxes:
            raise UserError(
                f"dialect {dialect.name!r} gives points, no boxes; `univg dialects` lists those "
                "that give boxes"
            )
        return dialect

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """The price of so many tokens; None without prices."""
        if self.price_in is None or self.price_out is None:
            return None
        return round((prompt_tokens * self.price_in + completion_tokens * self.price_out) / 1e6, 8)

    def replies_depend_on(self) -> dict[str, Any]:
        """Everything that a reply depends on beside its row."""
        return {
            "model": self.teacher.model,
            "temperature": self.teacher.temperature,
            "max_tokens": self.teacher.max_tokens,
            "chains": self.chains,
            "min_words": self.min_words,
            "max_words": self.max_words,
            "image_pixels": self.image_pixels,
            "prompts_sha256": prompts_sha256(),
        }

    def files_depend_on(self) -> dict[str, Any]:
        """What may change from run to run: only the files are made from it."""
        limits = self.student_dialect().pixel_limits
        return {
            "base_url": public_url(self.teacher.base_url),
            "dialect": self.dialect,
            "min_pixels": limits[0] if limits else None,
            "max_pixels": limits[1] if limits else None,
            "price_in": self.price_in,
            "price_out": self.price_out,
        }


def public_url(base_url: str | None) -> str:
    """A base URL without user, password and query: fit for records and messages."""
    if base_url is None:
        return "https://api.openai.com/v1"
    url = urlsplit(base_url)
    host = url.netloc.rpartition("@")[2]
    return urlunsplit((url.scheme, host, url.path, "", ""))
