"""Asking a teacher behind an OpenAI-compatible server, in bounded time and at a bounded rate.

The client is the package ``openai``; retries are made here, so that each of them counts against
the limits, waits as long as the server asks, and is told in the result. A reply is read from the
body itself: servers that call themselves compatible leave out or misspell fields.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from univg_eval.errors import UserError
from univg_train.cot.images import SentImage
from univg_train.cot.limits import RateLimiter

__all__ = [
    "DeclinedError",
    "Reply",
    "Teacher",
    "TeacherSettings",
    "UnansweredError",
    "public_url",
    "read_reply",
]

_CONNECT_S = 20.0
_LONGEST_BACKOFF_S = 60.0
_TIMEOUTS_A_REQUEST = 2  # one that stalled twice will stall again
_SHOWN = 300
_MAX_TOKENS_FIELDS = ("max_tokens", "max_completion_tokens")
_CHARACTERS_A_TOKEN = 4
_SHORTEST_KEY = 8  # "none" and "EMPTY" stand for no key, and are words of messages


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherSettings:
    """Where the teacher is and how it is asked.

    Attributes:
        model: its name on the server.
        base_url: of the server, e.g. ``http://127.0.0.1:8000/v1``; None: that of OpenAI.
        temperature: of the chains.
        max_tokens: limit of one reply, a thinking teacher's own thoughts included.
        max_tokens_field: name of that limit in the request.
        timeout_s: seconds for one whole attempt.
        retries: further attempts after the first.
        backoff_s: seconds before the first retry; doubles each time.
        max_wait_s: longest wait that a server may ask for.
        requests_per_minute, tokens_per_minute: limits; None: none.
    """

    model: str
    base_url: str | None = None
    temperature: float = 1.0
    max_tokens: int = 1024
    max_tokens_field: str = "max_tokens"
    timeout_s: float = 180.0
    retries: int = 5
    backoff_s: float = 1.0
    max_wait_s: float = 120.0
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
                "would be written to the records; give the key in the environment instead"
            )


@dataclass(frozen=True, slots=True)
class Reply:
    """What the teacher said.

    Attributes:
        text: the whole text, empty where it gave none.
        finish_reason: as the server tells; ``content_filter`` also where it tells a refusal.
        model: the model that answered, as the server tells.
        prompt_tokens, completion_tokens: as the server tells; None where it does not.
        attempts: how often the server was asked for it.
        seconds: from the first attempt to the reply, waiting included.
    """

    text: str
    finish_reason: str | None
    model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    attempts: int = 1
    seconds: float = 0.0


class DeclinedError(Exception):
    """The server says that this very request is wrong; the same again would be refused again."""


class UnansweredError(Exception):
    """No reply after all attempts; another time there may be one."""


class _MalformedError(Exception):
    """A body that is no chat completion."""


class _AgainError(Exception):
    """An attempt failed in a way that may pass.

    Attributes:
        wait_s: seconds that the server asks to wait, None if it asks for none.
        stalled: whether time ran out.
    """

    def __init__(self, message: str, wait_s: float | None = None, *, stalled: bool = False) -> None:
        super().__init__(message)
        self.wait_s = wait_s
        self.stalled = stalled


def public_url(base_url: str | None) -> str:
    """A base URL without user, password and query: fit for records and messages."""
    if base_url is None:
        return "https://api.openai.com/v1"
    url = urlsplit(base_url)
    host = url.netloc.rpartition("@")[2]
    return urlunsplit((url.scheme, host, url.path, "", ""))


class Teacher:
    """A client with limits; use it as an asynchronous context."""

    def __init__(self, settings: TeacherSettings, api_key: str) -> None:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Timeout

        self._settings = settings
        self._key = api_key if len(api_key) >= _SHORTEST_KEY else ""
        self._limiter = RateLimiter(settings.requests_per_minute, settings.tokens_per_minute)
        self._client = AsyncOpenAI(
            base_url=public_url(settings.base_url),
            api_key=api_key,
            max_retries=0,
            timeout=Timeout(settings.timeout_s, connect=min(_CONNECT_S, settings.timeout_s)),
            # A redirect would send the images to a host that the user did not name.
            http_client=DefaultAsyncHttpxClient(follow_redirects=False),
        )
        self.n_requests = 0

    async def __aenter__(self) -> Teacher:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def ask(
        self,
        text: str,
        images: Sequence[SentImage],
        headings: Sequence[str | None],
        *,
        temperature: float | None = None,
    ) -> Reply:
        """Ask once, with retries.

        Args:
            text: what follows the images.
            images: in the row's order.
            headings: the line above each image, or None.
            temperature: None leaves it to the server.

        Raises:
            UserError: asking on is pointless: the key, the model or the address is wrong, there
                is no credit, or the server asks for a longer wait than allowed.
            DeclinedError: the server refuses this request.
            UnansweredError: every attempt failed.
        """
        settings = self._settings
        body = self._body(text, images, headings, temperature)
        estimate = (
            math.ceil(len(text) / _CHARACTERS_A_TOKEN)
            + sum(image.tokens for image in images)
            + settings.max_tokens
        )
        started = time.monotonic()
        stalls = 0
        for attempt in range(1, settings.retries + 2):
            ticket = await self._limiter.acquire(estimate)
            self.n_requests += 1
            try:
                reply = await self._attempt(body)
            except _AgainError as failure:
                stalls += failure.stalled
                if attempt > settings.retries or stalls >= _TIMEOUTS_A_REQUEST:
                    raise UnansweredError(f"{failure} (attempt {attempt})") from failure
                await self._wait(attempt, failure)
                continue
            if reply.prompt_tokens is not None and reply.completion_tokens is not None:
                ticket.tokens = reply.prompt_tokens + reply.completion_tokens
            return Reply(
                reply.text,
                reply.finish_reason,
                reply.model,
                reply.prompt_tokens,
                reply.completion_tokens,
                attempts=attempt,
                seconds=round(time.monotonic() - started, 3),
            )
        raise AssertionError("the last attempt returns or raises")

    def _body(
        self,
        text: str,
        images: Sequence[SentImage],
        headings: Sequence[str | None],
        temperature: float | None,
    ) -> dict[str, Any]:
        content: list[dict[str, Any]] = []
        for heading, image in zip(headings, images, strict=True):
            if heading is not None:
                content.append({"type": "text", "text": heading})
            content.append({"type": "image_url", "image_url": {"url": image.uri}})
        content.append({"type": "text", "text": text})
        body: dict[str, Any] = {
            "model": self._settings.model,
            "messages": [{"role": "user", "content": content}],
            self._settings.max_tokens_field: self._settings.max_tokens,
        }
        if temperature is not None:
            body["temperature"] = temperature
        return body

    async def _wait(self, attempt: int, failure: _AgainError) -> None:
        backoff = min(self._settings.backoff_s * 2 ** (attempt - 1), _LONGEST_BACKOFF_S)
        # Workers that failed together must not come back together.
        backoff *= 1 + random.random() / 4
        if failure.wait_s is not None:
            if failure.wait_s > self._settings.max_wait_s:
                raise UserError(
                    f"the teacher's server asks to wait {failure.wait_s:.0f} seconds ({failure}), "
                    f"longer than the {self._settings.max_wait_s:.0f} allowed (--max-wait); start "
                    "the same command again later: replies at hand are kept"
                )
            # It holds for all requests, not for this one alone.
            self._limiter.pause(failure.wait_s)
        await asyncio.sleep(backoff)

    async def _attempt(self, body: dict[str, Any]) -> Reply:
        import openai

        try:
            # The client's own limit is for each read: a server that drips could take for ever.
            async with asyncio.timeout(self._settings.timeout_s):
                raw = await self._client.chat.completions.with_raw_response.create(**body)
                answer = raw.http_response
                content, content_type = answer.content, answer.headers.get("content-type", "")
        except (TimeoutError, openai.APITimeoutError) as error:
            raise _AgainError(
                f"no whole reply within {self._settings.timeout_s:g} seconds", stalled=True
            ) from error
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise _AgainError(
                self._clean(f"the connection failed: {str(cause) or type(cause).__name__}")
            ) from error
        except openai.APIStatusError as error:
            raise self._status(error) from error
        if self._key:  # a gateway that repeats it: replies are written down whole
            content = content.replace(self._key.encode(), b"[key]")
        try:
            return read_reply(content)
        except _MalformedError as error:
            raise _AgainError(
                self._clean(
                    f"the reply is no chat completion: {error} ({content_type or 'no'} "
                    f"content type, begins {content[:60]!r})"
                )
            ) from error

    def _status(self, error: Any) -> Exception:
        status: int = error.status_code
        headers: Mapping[str, str] = error.response.headers
        message = _message(error.response.content).strip()
        told = self._clean(f"HTTP {status}: {message}" if message else f"HTTP {status}")
        where = f"{public_url(self._settings.base_url)}, model {self._settings.model!r}"
        if 300 <= status < 400:
            return UserError(
                f"the server at {where} redirects ({told}), which is not followed; give --base-url "
                "the address that it moved to"
            )
        if status in (401, 403):
            return UserError(
                f"the teacher at {where} refuses the key ({told}); set the environment variable "
                "that holds it"
            )
        if status == 404:
            return UserError(
                f"no such teacher at {where} ({told}); the base URL mostly ends in /v1, and the "
                "model must be one that the server lists"
            )
        if status == 402 or (status == 429 and b"insufficient_quota" in error.response.content):
            return UserError(
                f"the account of the teacher at {where} has no credit ({told}); replies at hand "
                "are kept, start the same command again when it has"
            )
        if status in (408, 409, 425, 429) or status >= 500:
            return _AgainError(told, _retry_after(headers))
        return DeclinedError(told)

    def _clean(self, message: str) -> str:
        """One line of bounded length, in which the key does not stand."""
        if self._key:
            message = message.replace(self._key, "[key]")
        message = " ".join(message.split())
        return message if len(message) <= _SHOWN else message[: _SHOWN - 1] + "…"


def _message(content: bytes) -> str:
    """What an error's body says."""
    text = content.decode("utf-8", "replace")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    error = value.get("error", value.get("detail", value)) if isinstance(value, dict) else value
    message = error.get("message", error) if isinstance(error, dict) else error
    return message if isinstance(message, str) else json.dumps(message)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait: in milliseconds, in seconds, or until a date."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(seconds, 0.0)
    date = email.utils.parsedate_tz(headers.get("retry-after", ""))
    if date is None:
        return None
    return max(email.utils.mktime_tz(date) - time.time(), 0.0)


def read_reply(content: bytes) -> Reply:
    """Read the body of a chat completion.

    Raises:
        _MalformedError: it is none: not JSON, no choices, no message, a text of another kind.
    """
    try:
        body = json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _MalformedError("not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise _MalformedError(f"not JSON: {error}") from error
    if not isinstance(body, dict):
        raise _MalformedError(f"a JSON {type(body).__name__}; expected an object")
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        told = f", but an error: {_message(content)}" if "error" in body else ""
        raise _MalformedError(f"no choices{told}")
    message = choices[0].get("message")
    if not isinstance(message, dict):
        raise _MalformedError("a choice without message")
    text = _with_reasoning(_text(message.get("content")), message)
    finish = choices[0].get("finish_reason")
    if isinstance(message.get("refusal"), str) and message["refusal"] and not text:
        finish = "content_filter"
    usage = body.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    model = body.get("model")
    return Reply(
        text=text,
        finish_reason=finish if isinstance(finish, str) else None,
        model=model if isinstance(model, str) else None,
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
    )


def _with_reasoning(text: str, message: Mapping[str, Any]) -> str:
    """Put back what a server's reasoning parser took for the teacher's own thoughts.

    The form that the teacher is asked for begins with a thinking tag, which such parsers cut out.
    """
    if "<answer>" not in text or "<think>" in text or "</think>" in text:
        return text
    for name in ("reasoning_content", "reasoning"):
        reasoning = message.get(name)
        if isinstance(reasoning, str) and reasoning.strip():
            return f"<think>{reasoning}</think>{text}"
    return text


def _text(content: Any) -> str:
    if content is None:
        return ""  # a refusal, or a limit reached within the teacher's own thoughts
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        texts = [part.get("text", "") for part in content if part.get("type") == "text"]
        if all(isinstance(text, str) for text in texts):
            return "".join(texts)
    raise _MalformedError(f"content is a {type(content).__name__}; expected a text")


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None
