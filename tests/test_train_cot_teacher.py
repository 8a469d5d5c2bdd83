"""Rate limits on a clock of one's own, and replies as servers spell them."""

from __future__ import annotations

import asyncio
import json

import pytest
from fake_teacher import completion

from univg_train.cot.settings import public_url
from univg_train.cot.teacher import RateLimiter, bounded_size, read_reply


class Clock:
    """Seconds that pass only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds
        await asyncio.sleep(0)


def sent_at(
    n: int, tokens: int, actual: int | None = None, pause: float = 0.0, **limits: int
) -> list[float]:
    """Seconds at which each of n requests is let through, with a pause before each further one."""

    async def run() -> list[float]:
        clock = Clock()
        limiter = RateLimiter(**limits, clock=clock, sleep=clock.sleep)
        times = []
        for _ in range(n):
            ticket = await limiter.acquire(tokens)
            if actual is not None:
                ticket.tokens = actual
            times.append(round(clock.now, 6))
            clock.now += pause
        return times

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"tokens": 10**9}, [0, 0, 0, 0]),  # no limit
        ({"requests_per_minute": 3}, [0, 0, 0, 60]),
        ({"requests_per_minute": 1, "pause": 45}, [0, 60, 120, 180]),
        ({"tokens": 40, "tokens_per_minute": 100}, [0, 0, 60, 60]),
        ({"tokens": 40, "tokens_per_minute": 100, "actual": 10}, [0, 0, 0, 0]),
        ({"tokens": 40, "tokens_per_minute": 100, "actual": 90}, [0, 60, 120, 180]),
        ({"tokens": 500, "tokens_per_minute": 100}, [0, 60, 120, 180]),  # each alone
    ],
)
def test_requests_and_tokens_a_minute(changes: dict, expected: list[float]) -> None:
    assert sent_at(4, **{"tokens": 1} | changes) == expected


def test_any_minute_keeps_the_limit_with_many_workers() -> None:
    async def run() -> list[float]:
        clock = Clock()
        limiter = RateLimiter(4, clock=clock, sleep=clock.sleep)
        times: list[float] = []

        async def worker(number: int) -> None:
            for step in range(4):
                await limiter.acquire(1)
                times.append(clock.now)
                clock.now += 3.0 * ((number + step) % 4)
                await asyncio.sleep(0)

        await asyncio.gather(*(worker(n) for n in range(5)))
        return times

    times = asyncio.run(run())
    assert len(times) == 20
    for start in times:
        assert sum(start <= t < start + 60 - 1e-6 for t in times) <= 4


ANSWER = "<answer>x</answer>"
CHAIN = f"<think>chain</think>{ANSWER}"
PARTS = [{"type": "text", "text": "a"}, {"type": "thinking"}, {"type": "text", "text": "b"}]


@pytest.mark.parametrize(
    ("message", "text", "finish_reason"),
    [
        ({"content": PARTS}, "ab", "stop"),
        ({"content": None}, "", "stop"),
        ({"content": None, "refusal": "I cannot."}, "", "content_filter"),
        # A thinking that the server's parser cut out is put back.
        ({"content": ANSWER, "reasoning_content": "why"}, f"<think>why</think>{ANSWER}", "stop"),
        ({"content": ANSWER, "reasoning": "why"}, f"<think>why</think>{ANSWER}", "stop"),
        ({"content": CHAIN, "reasoning_content": "own thoughts"}, CHAIN, "stop"),
        ({"content": "<best>1</best>", "reasoning_content": "hm"}, "<best>1</best>", "stop"),
    ],
)
def test_replies_as_servers_spell_them(message: dict, text: str, finish_reason: str) -> None:
    body = completion("")
    body["choices"][0]["message"] = message
    reply = read_reply(json.dumps(body).encode())
    assert (reply.text, reply.finish_reason) == (text, finish_reason)


def test_addresses_as_they_are_written_down() -> None:
    assert public_url(None) == "https://api.openai.com/v1"
    assert public_url("http://me:secret@h:8000/v1?key=x#y") == "http://h:8000/v1"


@pytest.mark.parametrize(
    ("image_wh", "max_pixels", "expected"),
    [
        ((640, 480), 640 * 480, (640, 480)),
        ((4000, 3000), 120_000, (400, 300)),
        ((10_000, 1), 100, (100, 1)),
        ((1, 1), 1, (1, 1)),
    ],
)
def test_the_size_of_sent_images(
    image_wh: tuple[int, int], max_pixels: int, expected: tuple[int, int]
) -> None:
    assert bounded_size(image_wh, max_pixels) == expected
