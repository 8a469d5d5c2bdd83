"""Rate limits on a clock of one's own, and replies as servers spell them."""

from __future__ import annotations

import asyncio
import json

import pytest
from fake_teacher import completion

from univg_train.cot.teacher import RateLimiter, bounded_size, public_url, read_reply

# --- limits --------------------------------------------------------------------------------------


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds
        await asyncio.sleep(0)


def sent_at(n: int, tokens: int, actual: int | None = None, **limits: int) -> list[float]:
    """Seconds after the start at which each of n requests is let through."""

    async def run() -> list[float]:
        clock = Clock()
        limiter = RateLimiter(**limits, clock=clock, sleep=clock.sleep)
        times = []
        for _ in range(n):
            ticket = await limiter.acquire(tokens)
            if actual is not None:
                ticket.tokens = actual
            times.append(round(clock.now - 1000.0, 6))
        return times

    return asyncio.run(run())


def test_no_limit_lets_everything_through() -> None:
    assert sent_at(5, 10**9) == [0] * 5


def test_requests_a_minute() -> None:
    assert sent_at(7, 1, requests_per_minute=3) == [0, 0, 0, 60, 60, 60, 120]


def test_tokens_a_minute_by_the_estimate_and_then_by_what_was_used() -> None:
    assert sent_at(4, 40, tokens_per_minute=100) == [0, 0, 60, 60]
    assert sent_at(4, 40, actual=10, tokens_per_minute=100) == [0, 0, 0, 0]
    assert sent_at(4, 40, actual=90, tokens_per_minute=100) == [0, 60, 120, 180]


def test_what_was_sent_counts_for_a_whole_minute() -> None:
    async def run() -> float:
        clock = Clock()
        limiter = RateLimiter(1, clock=clock, sleep=clock.sleep)
        await limiter.acquire(1)
        clock.now += 45
        await limiter.acquire(1)
        return clock.now - 1000.0

    assert asyncio.run(run()) == 60


def test_a_request_larger_than_the_limit_is_sent_alone() -> None:
    assert sent_at(3, 500, tokens_per_minute=100) == [0, 60, 120]


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


# --- replies -------------------------------------------------------------------------------------


def read(**message: object):
    body = completion("")
    body["choices"][0]["message"] = message
    return read_reply(json.dumps(body).encode())


def test_texts_in_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "thinking"}, {"type": "text", "text": "b"}]
    assert read(content=parts).text == "ab"


def test_no_text_is_a_reply_and_a_refusal_is_told() -> None:
    assert read(content=None).text == ""
    assert read(content=None).finish_reason == "stop"
    assert read(content=None, refusal="I cannot.").finish_reason == "content_filter"


def test_a_thinking_that_the_servers_parser_cut_out_is_put_back() -> None:
    assert read(content="<answer>x</answer>", reasoning_content="why").text == (
        "<think>why</think><answer>x</answer>"
    )
    assert read(content="<answer>x</answer>", reasoning="why").text.startswith("<think>why")
    whole = "<think>chain</think><answer>x</answer>"
    assert read(content=whole, reasoning_content="own thoughts").text == whole
    assert read(content="<best>1</best>", reasoning_content="hm").text == "<best>1</best>"


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
