"""Prompting a teacher behind an OpenAI-compatible server, in bounded time and at a bounded rate.

The package ``openai`` retries what may pass (time-outs, lost connections, 408, 409, 429, 5xx) and
waits as long as the server says. A reply is read from the body itself: servers that call
themselves compatible leave out or misspell fields.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from univg_eval.errors import UserError
from univg_eval.images.reading import load_reference
from univg_eval.redaction import secret_values, without_secrets, without_values
from univg_train.cot.settings import TeacherSettings, public_url

__all__ = [
    "DeclinedError",
    "RateLimiter",
    "Reply",
    "SentImage",
    "Teacher",
    "TeacherSettings",
    "UnansweredError",
    "bounded_size",
    "encode_images",
    "read_reply",
]

_CONNECT_S = 20.0
_SHOWN = 300
_CHARACTERS_A_TOKEN = 4
_PIXELS_A_TOKEN = 28 * 28  # of Qwen's families; only to estimate before a server has said
_JPEG_QUALITY = 90
_MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What the teacher answered.

    Attributes:
        text: the whole text, empty where it gave none.
        finish_reason: as the server says; ``content_filter`` also for a refusal.
        model: the model that answered, as the server says.
        prompt_tokens, completion_tokens: as the server says; None where it does not.
    """

    text: str
    finish_reason: str | None
    model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None


class DeclinedError(Exception):
    """The server says that this very request is wrong; the same again would be refused again."""


class UnansweredError(Exception):
    """No reply after all attempts; another time there may be one."""


class _MalformedError(Exception):
    """A body that is no chat completion."""


# --- images --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SentImage:
    """An image inside a request.

    Attributes:
        uri: ``data:image/jpeg;base64,…``.
        image_wh: (width, height) in pixels as sent.
    """

    uri: str
    image_wh: tuple[int, int]

    @property
    def tokens(self) -> int:
        """About how many tokens the teacher counts for it."""
        return math.ceil(self.image_wh[0] * self.image_wh[1] / _PIXELS_A_TOKEN)


def bounded_size(image_wh: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    """(width, height) with an area of at most `max_pixels`, about the same shape; never larger."""
    width, height = image_wh
    if width * height <= max_pixels:
        return image_wh
    scale = math.sqrt(max_pixels / (width * height))
    small = (max(1, math.floor(width * scale)), max(1, math.floor(height * scale)))
    # A side that cannot shrink below a pixel leaves the other one the whole area.
    return min(small[0], max_pixels), min(small[1], max_pixels)


def encode_images(references: Sequence[str], image_root: Path, max_pixels: int) -> list[SentImage]:
    """Open, turn upright, reduce and encode; nothing of the files but pixels is sent.

    Raises:
        UserError: an image is missing or unreadable.
    """
    sent = []
    for reference in references:
        image = load_reference(reference, image_root)
        size = bounded_size(image.size, max_pixels)
        # Pillow writes tags and comments that it read from the file; a new image has none.
        bare = image.resize(size) if size != image.size else image.copy()
        bare.info.clear()
        buffer = io.BytesIO()
        bare.save(buffer, format="JPEG", quality=_JPEG_QUALITY)
        text = base64.b64encode(buffer.getvalue()).decode("ascii")
        sent.append(SentImage(f"data:image/jpeg;base64,{text}", size))
    return sent


# --- limits --------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Ticket:
    """Leave to send one request, given at a `time` of the limiter's clock, in seconds.

    `tokens` count for it: an estimate, then what the server says.
    """

    time: float
    tokens: int


class RateLimiter:
    """No more than so many requests, and tokens, within any 60 seconds.

    Tokens are counted by an estimate when a request is sent, and corrected by its reply. A request
    that alone exceeds the limit is sent when nothing else counts.
    """

    def __init__(
        self,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._requests = requests_per_minute
        self._tokens = tokens_per_minute
        self._clock = clock
        self._sleep = sleep
        self._recent: deque[_Ticket] = deque()
        self._turn = asyncio.Lock()  # first come, first served

    async def acquire(self, tokens: int) -> _Ticket:
        """Wait until a request of about so many tokens may be sent."""
        async with self._turn:
            while (wait := self._wait(tokens)) > 0:
                await self._sleep(wait)
            ticket = _Ticket(self._clock(), tokens)
            self._recent.append(ticket)
            return ticket

    def _wait(self, tokens: int) -> float:
        now = self._clock()
        while self._recent and self._recent[0].time <= now - _MINUTE:
            self._recent.popleft()
        spent = sum(ticket.tokens for ticket in self._recent)
        full = self._requests is not None and len(self._recent) >= self._requests
        full |= self._tokens is not None and spent + tokens > self._tokens
        return self._recent[0].time + _MINUTE - now if full and self._recent else 0.0


# --- requests ------------------------------------------------------------------------------------


class Teacher:
    """A client with limits; use it as an asynchronous context.

    Attributes:
        n_requests: sent so far, retries included.
    """

    def __init__(self, settings: TeacherSettings, api_key: str) -> None:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Timeout

        self._settings = settings
        self._known = secret_values({"api_key": api_key})
        self._limiter = RateLimiter(settings.requests_per_minute, settings.tokens_per_minute)
        self._client = AsyncOpenAI(
            base_url=public_url(settings.base_url),
            api_key=api_key,
            max_retries=settings.retries,
            timeout=Timeout(settings.timeout_s, connect=min(_CONNECT_S, settings.timeout_s)),
            http_client=DefaultAsyncHttpxClient(
                # A redirect would send the images to a host that the user did not name.
                follow_redirects=False,
                event_hooks={"request": [self._count]},
            ),
        )
        self.n_requests = 0

    async def _count(self, attempt: Any) -> None:
        self.n_requests += 1
        if attempt.headers.get("x-stainless-retry-count", "0") != "0":
            await self._limiter.acquire(0)  # its tokens count since the first attempt

    async def __aenter__(self) -> Teacher:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def request(
        self,
        text: str,
        images: Sequence[SentImage],
        headings: Sequence[str | None],
        *,
        temperature: float | None = None,
    ) -> Reply:
        """Send one prompt, with retries.

        Args:
            text: what follows the images.
            images: in the row's order.
            headings: the line above each image, or None.
            temperature: None leaves it to the server.

        Raises:
            UserError: going on is pointless: the key, the model or the address is wrong, or there
                is no credit.
            DeclinedError: the server refuses this request.
            UnansweredError: every attempt failed.
        """
        ticket = await self._limiter.acquire(
            math.ceil(len(text) / _CHARACTERS_A_TOKEN)
            + sum(image.tokens for image in images)
            + self._settings.max_tokens
        )
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
        reply = await self._send(body)
        if reply.prompt_tokens is not None and reply.completion_tokens is not None:
            ticket.tokens = reply.prompt_tokens + reply.completion_tokens
        return reply

    async def _send(self, body: dict[str, Any]) -> Reply:
        import openai

        settings = self._settings
        try:
            # The client's time-out is for each read: a server that drips could take for ever.
            async with asyncio.timeout(settings.timeout_s * (settings.retries + 1)):
                raw = await self._client.chat.completions.with_raw_response.create(**body)
                content = raw.http_response.content
        except (TimeoutError, openai.APITimeoutError) as error:
            raise UnansweredError(f"no whole reply in {settings.timeout_s:g} seconds") from error
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise UnansweredError(
                self._clean(f"the connection failed: {str(cause) or type(cause).__name__}")
            ) from error
        except openai.APIStatusError as error:
            raise self._status(error.status_code, error.response.content) from error
        try:
            reply = read_reply(content)
        except _MalformedError as error:
            begins = self._clean(content.decode("utf-8", "replace"))[:60]
            raise UnansweredError(
                self._clean(f"the reply is no chat completion: {error} (begins {begins!r})")
            ) from error
        # A gateway may repeat the key, and replies are written down whole.
        text, model = (
            value and without_values(value, self._known) for value in (reply.text, reply.model)
        )
        return replace(reply, text=text or "", model=model)

    def _status(self, status: int, content: bytes) -> Exception:
        """What an HTTP error means for the run: its end, another attempt later, or this request."""
        message = _message(content).strip()
        reason = self._clean(f"HTTP {status}: {message}" if message else f"HTTP {status}")
        teacher = (
            f"teacher at {public_url(self._settings.base_url)}, model {self._settings.model!r}"
        )
        if 300 <= status < 400:
            return UserError(
                f"the {teacher} redirects ({reason}), which is not followed; give --base-url the "
                "address that it moved to"
            )
        if status in (401, 403):
            return UserError(
                f"the {teacher} refuses the key ({reason}); set the environment variable that "
                "holds it"
            )
        if status == 404:
            return UserError(
                f"no such {teacher} ({reason}); the base URL mostly ends in /v1, and the model "
                "must be one that the server lists"
            )
        if status == 402 or (status == 429 and b"insufficient_quota" in content):
            return UserError(
                f"the account of the {teacher} has no credit ({reason}); replies at hand are "
                "kept, start the same command again when it has"
            )
        if status in (408, 409, 425, 429) or status >= 500:
            return UnansweredError(reason)
        return DeclinedError(reason)

    def _clean(self, message: str) -> str:
        """One line of bounded length, in which no key stands."""
        message = " ".join(without_secrets(message, known=self._known).split())
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


def read_reply(content: bytes) -> Reply:
    """Read the body of a chat completion.

    Raises:
        _MalformedError: it is none: not JSON, no choices, no message, a text of another kind.
    """
    try:
        body = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _MalformedError(f"not JSON in UTF-8: {error}") from error
    if not isinstance(body, dict):
        raise _MalformedError(f"a JSON {type(body).__name__}; expected an object")
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        why = f", but an error: {_message(content)}" if "error" in body else ""
        raise _MalformedError(f"no choices{why}")
    message = choices[0].get("message")
    if not isinstance(message, dict):
        raise _MalformedError("a choice without message")
    text = _with_reasoning(_text(message.get("content")), message)
    refused = isinstance(message.get("refusal"), str) and message["refusal"] and not text
    finish = "content_filter" if refused else choices[0].get("finish_reason")
    usage = body["usage"] if isinstance(body.get("usage"), dict) else {}
    return Reply(
        text=text,
        finish_reason=finish if isinstance(finish, str) else None,
        model=body["model"] if isinstance(body.get("model"), str) else None,
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
    )


def _with_reasoning(text: str, message: Mapping[str, Any]) -> str:
    """Put back what a server's reasoning parser took for the teacher's own thoughts.

    The form that the prompt requests begins with a thinking tag, which such parsers cut out.
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
