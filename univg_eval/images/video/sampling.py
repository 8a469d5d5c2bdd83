"""Which frames of a video are shown: named rules, so that a result can say which one it used."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from univg_eval.errors import UserError

__all__ = ["SAMPLING_RULES", "frame_numbers", "sample_frames_even"]

SAMPLING_RULES: Mapping[str, str] = {
    "even:N": "N frames, each the centre of one of N equal intervals; a shorter video repeats some",
    "all": "every frame, in order",
    "given": "the frame numbers that the annotation file lists",
}
"""How a rule is written → what it chooses."""

_EVEN = re.compile(r"even:([1-9][0-9]{0,8})", re.ASCII)


def frame_numbers(rule: str, n_total: int, *, given: Sequence[int] | None = None) -> list[int]:
    """The frames that a rule chooses, as 0-based numbers in the order of showing.

    Args:
        rule: one of the forms in `SAMPLING_RULES`.
        n_total: frames of the video.
        given: for rule ``given`` alone: the numbers, in any order; repeats are kept.

    Raises:
        UserError: an unknown rule; `given` missing, unused or outside the video; an empty video.
    """
    if n_total < 1:
        raise UserError(
            f"cannot sample frames of a video with {n_total} frames; expected at least 1"
        )
    if (given is not None) != (rule == "given"):
        raise UserError(
            f"sampling rule {rule!r} {'needs a' if given is None else 'takes no'} list of frame "
            "numbers; only 'given' has one"
        )
    if given is not None:
        if not given:
            raise UserError("sampling rule 'given': the list of frame numbers is empty")
        for number in given:
            if type(number) is not int or not 0 <= number < n_total:
                raise UserError(
                    f"sampling rule 'given': received frame {number!r}; expected whole numbers "
                    f"from 0 to {n_total - 1}, as the video has {n_total} frames"
                )
        return list(given)
    if rule == "all":
        return list(range(n_total))
    if match := _EVEN.fullmatch(rule):
        return sample_frames_even(n_total, int(match[1]))
    raise UserError(
        f"unknown sampling rule {rule!r}; expected one of: {', '.join(map(repr, SAMPLING_RULES))}, "
        "with N a whole number from 1, for example 'even:5'"
    )


def sample_frames_even(n_total: int, n: int) -> list[int]:
    """0-based numbers of `n` frames: the centre frame of each of `n` equal intervals.

    Frame i is floor((i + 0.5) * n_total / n); 25 frames and n = 5 give 2, 7, 12, 17, 22. With
    n > n_total frames repeat, so that there are always `n`.

    Raises:
        UserError: n_total or n is below 1.
    """
    if n_total < 1 or n < 1:
        raise UserError(f"cannot sample {n} of {n_total} frames: both must be at least 1")
    return [(2 * i + 1) * n_total // (2 * n) for i in range(n)]
