"""Molmo and Molmo2: points, not boxes. A reply never yields a box here (status ``no_box``).

"There are none." is still an explicit nothing (status ``none``). Points are read by
`univg_eval.points`, which scores them as inside a mask or a box: another metric than IoU.
"""

from __future__ import annotations

import re

from univg_eval.dialects.family import (
    NUMBER,
    Confidence,
    Dialect,
    Found,
    Grammar,
    Points,
    grammar,
)

_NO_BOXES = grammar()
_NOTE = "points only: as a box every reply is no_box, or none where it says so"

# The coordinates come first in the tag; a phrase after them (alt) is not looked at.
_XY = rf"\s++x[0-9]{{0,4}}+=\"\s*+{NUMBER}\"\s++y[0-9]{{0,4}}+=\"\s*+{NUMBER}\""
_MOLMO_POINTS = grammar(rf"<points?(?:{_XY})++", number=rf"(?<=[\"\s]){NUMBER}(?=\")", points=True)

# One image or time and its points; between two of them a tab (html-v1) or ";" (html-v2).
_COORDS = re.compile(r"<(?:points|tracks)\b[^<]*?\scoords=\"([0-9.,:; \t]*+)")
_GROUP = re.compile(r"(?:(?<=\")|[\t,:;]) *+([0-9]{1,9}+(?:\.[0-9]{1,9}+)?+)((?: [0-9]++)*+)")
# With what follows it: a number at the end of the text may have been cut.
_ID_X_Y = re.compile(r" [0-9]++ ([0-9]{3,4}+) ([0-9]{3,4}+)(?=[\"\t,:; ])")


class _Coords(Grammar):
    """Points of one tag stand together; each names its image, a time in seconds names none."""

    __slots__ = ()

    def scan(self, text: str) -> list[Found]:
        """All points of `text`, in order; linear in its length."""
        found: list[Found] = []
        for tag in _COORDS.finditer(text):
            for group in _GROUP.finditer(text, tag.start(1), tag.end(1)):
                number = group[1]
                image = int(number) - 1 if "." not in number and int(number) else None
                for point in _ID_X_Y.finditer(text, group.start(2), group.end(2) + 1):
                    numbers = (float(point[1]), float(point[2]))
                    found.append((*point.span(), numbers, tag.start() + 1, image))
        return found


_EMPTY = grammar(points=True)

DIALECTS = (
    Dialect(
        name="molmo",
        model_types=("molmo",),
        families=("Molmo",),
        form='<point x="52.9" y="43.9" alt="...">...</point>, <points x1=... y1=...>',
        space=Points(100),
        confidence=Confidence("high", "high", "high"),
        template="",
        prompt_suffix="",
        grammar=_NO_BOXES,
        point_form='<point x="52.9" y="43.9" alt="...">...</point>, <points x1=... y1=...>',
        point_grammar=_MOLMO_POINTS,
        sources=("allenai/molmo olmo/data/data_formatter.py, olmo/util.py and issue 48",),
        notes=(_NOTE,),
    ),
    Dialect(
        name="molmo2",
        model_types=("molmo2",),
        families=("Molmo2",),
        form='<points coords="1 1 523 417 2 601 422">label</points>: image, then id x y',
        space=Points(1000),
        confidence=Confidence("high", "high", "high"),
        template="",
        prompt_suffix="",
        grammar=_NO_BOXES,
        point_form='<points coords="1 1 523 417 2 601 422">label</points>: image, then id x y',
        point_grammar=_Coords(_EMPTY.token, _EMPTY.number, _EMPTY.arity, _EMPTY.keys, _EMPTY.gap),
        sources=("allenai/molmo2 olmo/preprocessing/point_formatter.py",),
        notes=(_NOTE, "images count from 1 in the text"),
    ),
)
