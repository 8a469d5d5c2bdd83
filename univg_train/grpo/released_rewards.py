"""The two reward functions of UniVG-R1's training, as released.

Source: AMAP-ML/UniVG-R1 at commit 082313c, ``open_r1/vlm_modules/qwen_module.py``: ``iou_reward``
and ``format_reward_rec``. Boxes are whole numbers on 0-1000. Quirks that are kept:

- Accuracy reads the first ``<answer>…</answer>`` and in it the first pair of points; of a
  single-image row the first pair of the whole text, thinking included.
- Two boxes overlap only if the intersection is more than one unit wide and high: the intersection
  is computed with inclusive corners (minus 1, plus 1), the areas are not. So two equal boxes of
  width 1 get 0; from width 2 on the value is the plain IoU.
- Format looks for the pattern anywhere: words before ``<think>`` do no harm, and ``$`` allows one
  line break at the end. Of a single-image row it only looks for a pair of points.

One thing is not kept: the release decides by the first row of the batch whether all its rows are
single-image ones.
"""

from __future__ import annotations

import re

from univg_eval.boxes import Box, box_iou

__all__ = ["released_accuracy", "released_format"]

_PAIR = re.compile(r"\((\d+),\s*(\d+)\),\s*\((\d+),\s*(\d+)\)")
# The released patterns try every opening tag against the whole text: a completion that repeats tags
# would take them seconds. What follows here finds the same in one pass.
_REASONED_END = re.compile(r"</think>\s*<answer>\((\d+),\s*(\d+)\),\s*\((\d+),\s*(\d+)\)</answer>$")
# A box that was whole thousandths is so again; what is left of a conversion's rounding is not.
_SCALE, _DECIMALS = 1000, 6


def released_accuracy(text: str, solution_xyxy_norm: Box, *, direct: bool) -> float:
    """``iou_reward`` of one completion; 0.0 where nothing is read.

    Args:
        text: the completion.
        solution_xyxy_norm: the true box on [0, 1]; the rule computes on 0-1000.
        direct: a row of one image, answered without thinking.
    """
    if not direct:
        _, opened, rest = text.partition("<answer>")
        text, closed, _ = rest.partition("</answer>")
        if not (opened and closed):
            return 0.0
    pair = _PAIR.search(text)
    if pair is None:
        return 0.0
    try:
        x1, y1, x2, y2 = (float(int(number)) for number in pair.groups())
    except (ValueError, OverflowError):  # more digits than Python converts, or than a float holds
        return 0.0
    a1, b1, a2, b2 = (round(value * _SCALE, _DECIMALS) for value in solution_xyxy_norm)
    if max(x1, a1) < min(x2, a2) - 1 and max(y1, b1) < min(y2, b2) - 1:
        return float(box_iou((x1, y1, x2, y2), (a1, b1, a2, b2)))
    return 0.0


def released_format(text: str, *, direct: bool) -> bool:
    """``format_reward_rec`` of one completion, as True or False."""
    if direct:
        return _PAIR.search(text) is not None
    end = _REASONED_END.search(text)
    return end is not None and "<think>" in text[: end.start()]
