"""Charts as inline SVG: curves, bars with intervals, histograms, radars, stacked shares.

Every function returns one ``<svg>`` that names itself to screen readers. They are drawn about 400
units wide, which is their size in a column of a wide window and on a telephone alike, so that text
keeps its size. Text and lines that are no data take their colours from the page's style sheet.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from univg_eval.leaderboard import Estimate
from univg_eval.report.looks import ON_DARK, look_of, marker_path
from univg_eval.report.text import as_html

__all__ = [
    "bars",
    "ceiling",
    "count_ticks",
    "curves",
    "histogram",
    "limits_in_words",
    "radar",
    "stacked",
]

_WIDTH = 400
_CHAR = 6.0  # width of a character at the charts' font size, on average


def ceiling(values: Iterable[float]) -> float:
    """Where an axis of shares ends: the next quarter at or above all values, at least 0.25."""
    return max(0.25, math.ceil(round(4 * max(values, default=0.0), 9)) / 4)


def count_ticks(highest: int) -> list[int]:
    """Round numbers from 0 to the first at or above a count: 1, 2 or 5 times a power of ten apart.

    At most six of them.
    """
    step, factors = 1, itertools.cycle((2, 2.5, 2))
    while 5 * step < highest:
        step = round(step * next(factors))
    return [step * number for number in range(math.ceil(max(1, highest) / step) + 1)]


def curves(
    name: str, xs: Sequence[float], lines: Sequence[tuple[int, str, Sequence[float]]]
) -> str:
    """Lines over a common axis.

    Args:
        name: of the chart, for screen readers.
        xs: ascending, on [0, 1].
        lines: (position of the run, its letter, one share a point); without points: left out.
    """
    left, right, top, bottom = 40, 24, 10, 40
    width, height = _WIDTH - left - right, 240
    highest = ceiling(value for _, _, values in lines for value in values)

    def x(value: float) -> float:
        return left + value * width

    def y(value: float) -> float:
        return top + (1 - value / highest) * height

    parts = [_open(_WIDTH, top + height + bottom, name)]
    for tick in (highest * quarter / 5 for quarter in range(6)):
        parts.append(f'<path class="grid" d="M{left} {y(tick):.1f}H{left + width}" />')
        parts.append(_text(left - 6, y(tick) + 4, f"{100 * tick:.0f}", "end"))
    for tick in (0.1, 0.3, 0.5, 0.7, 0.9):
        parts.append(f'<path class="grid" d="M{x(tick):.1f} {top}V{top + height}" />')
        parts.append(_text(x(tick), top + height + 16, f"{tick:g}", "middle"))
    parts.append(_text(left + width / 2, top + height + 34, "IoU threshold", "middle"))
    ends: list[tuple[float, int, str]] = []
    for position, letter, values in lines:
        if not values:
            continue
        look = look_of(position)
        points = [(x(a), y(b)) for a, b in zip(xs, values, strict=True)]
        path = "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
        dashes = f' stroke-dasharray="{look.line_dashes}"' if look.line_dashes else ""
        parts.append(f'<path class="line" d="M{path}" stroke="{look.colour}"{dashes} />')
        # Markers of several runs shall not hide each other where the lines meet.
        for number in range(position % 3, len(points), 3):
            a, b = points[number]
            tip = f"{letter}: {100 * values[number]:.1f} % at {xs[number]:g}"
            parts.append(f"<g><title>{as_html(tip)}</title>{marker_path(position, a, b, 0.9)}</g>")
        ends.append((points[-1][1], position, letter))
    for at, (_, _, letter) in zip(_apart(sorted(ends), 13), sorted(ends), strict=True):
        parts.append(_text(x(xs[-1]) + 9, at + 4, letter, "start", "letter"))
    parts.append("</svg>")
    return "".join(parts)


def _apart(ends: Sequence[tuple[float, int, str]], least: float) -> list[float]:
    """Heights of labels at line ends, ascending, moved as little as keeps them apart."""
    groups: list[list[float]] = []  # [mean of the heights, how many]: labels that touch
    for at, _, _ in ends:
        groups.append([at, 1])
        while len(groups) > 1:
            (above, m), (below, n) = groups[-2:]
            if below - above >= least * (m + n) / 2:
                break
            groups[-2:] = [[(above * m + below * n) / (m + n), m + n]]
    return [
        middle + least * (number - (n - 1) / 2) for middle, n in groups for number in range(int(n))
    ]


def bars(name: str, rows: Sequence[tuple[int, str, Estimate]], highest: float) -> str:
    """Horizontal bars with 95 % intervals.

    Args:
        name: of the chart, for screen readers.
        rows: (position of the run, its letter, share with its limits).
        highest: share that the axis ends at, the same for all charts that are compared.
    """
    left, right, top, step, bottom, width = 30, 42, 4, 20, 20, 280
    span = width - left - right
    height = top + step * len(rows)

    def x(value: float) -> float:
        return left + min(value / highest, 1.0) * span

    parts = [_open(width, height + bottom, name)]
    for tick in (quarter / 4 for quarter in range(round(4 * highest) + 1)):
        parts.append(f'<path class="grid" d="M{x(tick):.1f} {top}V{height}" />')
        parts.append(_text(x(tick), height + 14, f"{100 * tick:.0f}", "middle"))
    for number, (position, letter, estimate) in enumerate(rows):
        middle = top + step * number + step / 2
        limits = limits_in_words(estimate)
        tip = f"{letter}: {100 * estimate.value:.1f} %, 95 % interval {limits}"
        parts.append(f"<g><title>{as_html(tip)}</title>")
        parts.append(
            f'<rect class="bar" x="{left}" y="{middle - 6:.1f}" height="12" '
            f'width="{max(0.0, x(estimate.value) - left):.1f}" '
            f'fill="{look_of(position).colour}" />'
        )
        if estimate.low is not None and estimate.high is not None:
            low, high = x(estimate.low), x(estimate.high)
            path = (
                f"M{low:.1f} {middle:.1f}H{high:.1f}"
                f"M{low:.1f} {middle - 4:.1f}v8M{high:.1f} {middle - 4:.1f}v8"
            )
            # The rim keeps it visible on the bar, whatever the bar's colour.
            parts.append(f'<path class="whisker-rim" d="{path}" />')
            parts.append(f'<path class="whisker" d="{path}" />')
        parts.append("</g>")
        parts.append(_text(left - 7, middle + 4, letter, "end", "letter"))
        parts.append(_text(width - 2, middle + 4, f"{100 * estimate.value:.1f}", "end", "value"))
    parts.append("</svg>")
    return "".join(parts)


def histogram(
    name: str, position: int, bins: Sequence[str], counts: Sequence[int], highest: int
) -> str:
    """Columns of one run.

    Args:
        name: of the chart, for screen readers.
        position: of the run.
        bins: names, one a column: two of their own (no box, IoU 0), then tenths of IoU.
        counts: samples in each.
        highest: the highest count of all runs that are compared: their axes are the same.
    """
    left, top, width, height, bottom = 40, 16, 290, 120, 34
    gap = 0.6  # of a column, before and after the second of those of their own
    step = (width - left - 10) / (len(counts) + 2 * gap)
    ticks = count_ticks(highest)
    total = sum(counts)
    parts = [_open(width, top + height + bottom, name)]
    for tick in ticks:
        at = top + (1 - tick / ticks[-1]) * height
        parts.append(f'<path class="grid" d="M{left} {at:.1f}H{width}" />')
        parts.append(_text(left - 5, at + 4, f"{tick:,}", "end"))
    for number, (label, count) in enumerate(zip(bins, counts, strict=True)):
        x = left + 3 + step * (number + gap * min(number, 2))
        tall = height * count / ticks[-1]
        share = f", {100 * count / total:.1f} %" if total else ""
        colour = "var(--none)" if number == 0 else look_of(position).colour
        parts.append(
            f"<g><title>{as_html(f'{label}: {count:,}{share}')}</title>"
            f'<rect class="bar" x="{x:.1f}" y="{top + height - tall:.1f}" '
            f'width="{step - 3:.1f}" height="{tall:.1f}" fill="{colour}" /></g>'
        )
        if number < 2:
            words = ("no", "box") if number == 0 else ("IoU", "0")
            parts.append(_text(x + step / 2 - 1.5, top + height + 13, words[0], "middle", "small"))
            parts.append(_text(x + step / 2 - 1.5, top + height + 24, words[1], "middle", "small"))
    for tenth in range(0, 11, 2):
        x = left + 1.5 + step * (2 + 2 * gap + tenth)
        parts.append(_text(x, top + height + 13, f"{tenth / 10:g}", "middle", "small"))
    parts.append(_text(left + step * (7 + 2 * gap), top + height + 28, "IoU", "middle", "small"))
    parts.append("</svg>")
    return "".join(parts)


def radar(
    name: str,
    position: int,
    letter: str,
    values: Mapping[str, float],
    axes: Sequence[str],
    highest: float,
) -> str:
    """A radar of one run: an axis a task, from 0 in the middle.

    Args:
        name: of the chart, for screen readers.
        position, letter: of the run.
        values: share by axis; an axis without one has no point.
        axes: at least three, clockwise from the top.
        highest: share of the outermost ring, the same for all radars that are compared.
    """
    width, radius, middle_x, middle_y = 350, 78.0, 175.0, 110.0
    look = look_of(position)

    def point(number: int, value: float) -> tuple[float, float]:
        angle = 2 * math.pi * number / len(axes) - math.pi / 2
        return (
            middle_x + radius * value * math.cos(angle),
            middle_y + radius * value * math.sin(angle),
        )

    def ring(value: float) -> str:
        return "L".join("{:.1f} {:.1f}".format(*point(i, value)) for i in range(len(axes)))

    def spot(number: int, share: float) -> tuple[float, float]:
        return point(number, share / highest)

    parts = [_open(width, 214, name)]
    for value in (0.25, 0.5, 0.75, 1.0):
        parts.append(f'<path class="grid" d="M{ring(value)}Z" />')
    for number, axis in enumerate(axes):
        end_x, end_y = point(number, 1.0)
        parts.append(
            f'<path class="grid" d="M{middle_x:.1f} {middle_y:.1f}L{end_x:.1f} {end_y:.1f}" />'
        )
        label_x, label_y = point(number, 1.09)
        side = label_x - middle_x
        if number == 0:
            label_y -= 9  # its neighbours stand close beside it
        anchor = "middle" if abs(side) < 8 else "start" if side > 0 else "end"
        room = width / 2 - abs(side) if anchor != "middle" else width / 2
        parts.append(_text(label_x, label_y + 4, _cut(axis, int(room / _CHAR)), anchor, "small"))
    there = [(i, values[axis]) for i, axis in enumerate(axes) if axis in values]
    path = "L".join("{:.1f} {:.1f}".format(*spot(i, value)) for i, value in there)
    dashes = f' stroke-dasharray="{look.line_dashes}"' if look.line_dashes else ""
    if path:
        parts.append(
            f'<path class="area" d="M{path}Z" fill="{look.colour}" stroke="{look.colour}"'
            f"{dashes} />"
        )
    for number, value in there:
        tip = as_html(f"{letter}, {axes[number]}: {100 * value:.1f} %")
        parts.append(
            f"<g><title>{tip}</title>{marker_path(position, *spot(number, value), 0.8)}</g>"
        )
    for share in (0.5, 1.0):
        words = f"{100 * highest * share:.3g}"
        parts.append(_text(middle_x + 3, middle_y - radius * share + 11, words, "start", "small"))
    parts.append("</svg>")
    return "".join(parts)


def stacked(
    name: str,
    rows: Sequence[tuple[str, Sequence[int], int]],
    classes: Sequence[tuple[str, str]],
) -> str:
    """Shares of classes as stacked horizontal bars, one a run.

    Args:
        name: of the chart, for screen readers.
        rows: (letter, count of each class, samples in all): the bars' parts are shares of the
            samples, and what is left of 100 % stays empty.
        classes: (name, colour); parts carry the class's number, counted from 1.
    """
    left, top, step, bottom = 24, 4, 30, 36
    span = _WIDTH - left - 14
    height = top + step * len(rows)
    parts = [_open(_WIDTH, height + bottom, name)]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(f'<path class="grid" d="M{left + tick * span:.1f} {top}V{height}" />')
        parts.append(_text(left + tick * span, height + 15, f"{100 * tick:.0f}", "middle"))
    parts.append(_text(left + span / 2, height + 31, "% of the samples", "middle"))
    for number, (letter, counts, n) in enumerate(rows):
        y = top + step * number + 4
        parts.append(_text(left - 7, y + 15, letter, "end", "letter"))
        parts += _segments(letter, counts, n, classes, left, y, span)
    parts.append("</svg>")
    return "".join(parts)


def _segments(
    letter: str,
    counts: Sequence[int],
    n: int,
    classes: Sequence[tuple[str, str]],
    left: float,
    y: float,
    span: float,
) -> Iterator[str]:
    x = left
    for index, count in enumerate(counts):
        if not count or not n:
            continue
        wide = span * count / n
        name, colour = classes[index]
        tip = as_html(f"{letter}, {name}: {count:,} of {n:,} ({100 * count / n:.1f} %)")
        yield (
            f'<g><title>{tip}</title><rect class="bar" x="{x:.1f}" y="{y}" width="{wide:.1f}" '
            f'height="22" fill="{colour}" />'
        )
        if wide >= 14:
            style = "on-dark" if colour in ON_DARK else "on-colour"
            yield _text(x + wide / 2, y + 15, str(index + 1), "middle", style)
        yield "</g>"
        x += wide


def limits_in_words(estimate: Estimate) -> str:
    """``12.5 to 30.0`` in percent, or that there are none."""
    if estimate.low is None or estimate.high is None:
        return "none"
    return f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}"


def _open(width: float, height: float, name: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" '
        f'role="img" aria-label="{as_html(name)}">'
    )


def _text(x: float, y: float, words: str, anchor: str, style: str = "") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{as_html(words)}</text>'


def _cut(words: str, longest: int) -> str:
    return words if len(words) <= longest else words[: max(1, longest - 1)] + "…"
