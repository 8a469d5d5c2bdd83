"""Requests and tokens a minute, and pauses that a server asks for."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

__all__ = ["RateLimiter", "Ticket"]

_MINUTE = 60.0


@dataclass(slots=True)
class Ticket:
    """Leave to send one request.

    Attributes:
        time: when it was given, in seconds of the limiter's clock.
        tokens: what counts for it: an estimate, then what the server tells.
    """

    time: float
    tokens: int


class RateLimiter:
    """No more than so many requests, and tokens, within any 60 seconds.

    Tokens are counted when a request is sent, by an estimate, and corrected when its reply tells
    the true number. A request that alone exceeds the limit is sent when nothing else counts.
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
        self._recent: deque[Ticket] = deque()
        self._paused_until = 0.0
        self._turn = asyncio.Lock()  # first come, first served

    async def acquire(self, tokens: int) -> Ticket:
        """Wait until a request of about so many tokens may be sent."""
        async with self._turn:
            while (wait := self._wait(tokens)) > 0:
                await self._sleep(wait)
            ticket = Ticket(self._clock(), tokens)
            self._recent.append(ticket)
            return ticket

    def pause(self, seconds: float) -> None:
        """Send nothing for some seconds: the server has asked for it."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)

    def _wait(self, tokens: int) -> float:
        now = self._clock()
        if now < self._paused_until:
            return self._paused_until - now
        while self._recent and self._recent[0].time <= now - _MINUTE:
            self._recent.popleft()
        if not self._recent:
            return 0.0
        if self._requests is not None and len(self._recent) >= self._requests:
            return self._recent[0].time + _MINUTE - now
        if self._tokens is not None and (
            sum(ticket.tokens for ticket in self._recent) + tokens > self._tokens
        ):
            return self._recent[0].time + _MINUTE - now
        return 0.0
