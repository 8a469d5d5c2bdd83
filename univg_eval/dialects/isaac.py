"""Isaac: point_box tags that hold two corners, alone or in a collection, on 0-1000.

``asset_idx`` of a tag or of the collection around it is the image that a box lies on, counted from
0. ``t`` is a time in seconds, ``mention`` the phrase. Points, polygons and clips are no boxes.
"""

from __future__ import annotations

import re

from univg_eval.dialects.family import Confidence, Dialect, Found, Grammar, NormInt, grammar

# No value holds "<", which is written &lt;: so no search goes past the next tag.
_ATTRIBUTES = r"((?:\"[^\"<]*+\"|'[^'<]*+'|[^<>\"'])*+)"
_NUMBER = r"([0-9]{1,40}+)"
_CORNER = rf"\(\s*+{_NUMBER}\s*+,\s*+{_NUMBER}\s*+\)"
_TOKEN = re.compile(
    rf"(?i)<(?:collection\b{_ATTRIBUTES}>|(/collection>)|point_box\b{_ATTRIBUTES}>"
    rf"\s*+(?:{_CORNER}\s*+,?+\s*+{_CORNER}|{_NUMBER}\s++{_NUMBER}\s++{_NUMBER}\s++{_NUMBER})\s*+"
    r"(?:</point_box>|\Z))"
)
_COLLECTION, _END, _BOX = 1, 2, 3
_ASSET = re.compile(
    r"\b(\w++)\s*+=\s*+(?:\"([^\"]*+)\"|'([^']*+)'|([^\s\"'>]++))|\"[^\"]*+\"|'[^']*+'"
)


def _asset(attributes: str) -> int | None:
    """The 0-based image that the attributes of a tag name; None where they name none."""
    for match in _ASSET.finditer(attributes):
        value = match[2] or match[3] or match[4] or ""
        if match[1] == "asset_idx" and value.isascii() and value.isdigit() and len(value) < 4:
            return int(value)
    return None


class _Tags(Grammar):
    """Boxes of one collection stand together; the rest of the text is prose."""

    __slots__ = ()

    def scan(self, text: str) -> list[Found]:
        """All boxes of `text`, in order; linear in its length."""
        found: list[Found] = []
        collection, image = 0, None
        for match in _TOKEN.finditer(text):
            if match[_COLLECTION] is not None:
                collection, image = match.start() + 1, _asset(match[_COLLECTION])
            elif match[_END] is not None:
                collection, image = 0, None
            else:
                own = _asset(match[_BOX])
                numbers = tuple(float(n) for n in match.groups()[_BOX:] if n is not None)
                place = (collection, image if own is None else own)
                found.append((match.start(), match.end(), numbers, *place))
        return found


_EMPTY = grammar()

DIALECTS = (
    Dialect(
        name="isaac",
        model_types=("isaac",),
        families=("Isaac 0.1 to 0.3",),
        form=(
            '<point_box mention="phrase" asset_idx="0"> (x1,y1) (x2,y2) </point_box>, several in '
            "<collection>"
        ),
        space=NormInt(1000),
        confidence=Confidence("high", "high", "high"),
        template="<point_box> ({},{}) ({},{}) </point_box>",
        labelled_template='<point_box mention="{html_label}"> ({},{}) ({},{}) </point_box>',
        several=("<collection>", " ", "</collection>"),
        prompt_suffix="<hint>BOX</hint>",
        grammar=_Tags(_EMPTY.token, _EMPTY.number, _EMPTY.arity, _EMPTY.keys, _EMPTY.gap),
        sources=("perceptron 0.4.0 pointing/parser.py, pointing/geometry.py and client.py",),
        sources_read="2026-11-29",
        notes=(
            "asset_idx counts images from 0; t is a time in seconds and names no image",
            "the vendor's reader sorts the corners; here corners in the wrong order are invalid, "
            "as in every dialect",
        ),
    ),
)
