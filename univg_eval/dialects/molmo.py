"""Molmo and Molmo2: points, not boxes. A reply never yields a box here (status ``no_box``).

"There are none." is still an explicit nothing (status ``none``). Points can be scored against
masks or as "inside the box", which is another metric than IoU.
"""

from univg_eval.dialects.family import Confidence, Dialect, Points, grammar

_NO_BOXES = grammar()
_NOTE = "points only: every reply is no_box, or none where it says so"

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
        sources=("allenai/molmo olmo/data/data_formatter.py and issue 48",),
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
        sources=("allenai/molmo2 olmo/preprocessing/point_formatter.py",),
        notes=(_NOTE, "images count from 1 in the text"),
    ),
)
