"""Where a text names one of several images: "the third image", "Image-2", "第二张图".

Texts count from 1, the library from 0. The number 0 names no image: a single answer does not show
whether a model counts from 0 throughout. Nor does a bare number as a key (``{"2": …}``), which may
as well count objects.
"""

from __future__ import annotations

import re

__all__ = ["ImageName", "find_image_names", "read_image_value"]

ImageName = tuple[int, int, int]
"""(start, end, image): the span of a name in the text and the 0-based image it names."""

_FIRST_TO_TENTH = "first second third fourth fifth sixth seventh eighth ninth tenth"
_ORDINALS = {word: i for i, word in enumerate(_FIRST_TO_TENTH.split())}
_ONE_TO_TEN = "one two three four five six seven eight nine ten"
_CARDINALS = {word: i for i, word in enumerate(_ONE_TO_TEN.split())}
_LAST = ("last", "final")

# The noun is searched first: it is rare, and its neighbours are read within a bounded distance.
_NOUN = re.compile(
    r"[Ii]mage|IMAGE|[Pp]icture|PICTURE|[Pp]hoto(?:graph)?|PHOTO|[Ff]rame|FRAME|[Ii]mg|IMG"
)
_BEFORE = re.compile(
    rf"(?i:(?<![a-z0-9.,-])(?:(?P<word>{'|'.join((*_ORDINALS, *_LAST))})"
    r"|(?P<number>[0-9]{1,2})(?:st|nd|rd|th))[ \t-]{1,2})\Z"
)
_AFTER = re.compile(
    r"(?:[ \t]?(?:[Nn]o\.?|[Nn]umber|index|idx|id|#|[-_]))?[ \t]?"
    r"(?:(?P<number>[0-9]{1,2})(?![0-9A-Za-z]|\.[0-9])"
    rf"|(?P<word>(?i:{'|'.join(_CARDINALS)}))(?![A-Za-z]))"
)
# Parts of the nouns in all their spellings: most texts hold none, and this is the quickest to see.
_NOUN_PARTS = (
    *("mage", "hoto", "rame", "icture", "img", "Img"),
    *("MAGE", "HOTO", "RAME", "ICTURE", "IMG"),
)
_WORD_CHARACTER = re.compile(r"[A-Za-z]")
_CHINESE_DIGITS = "一二三四五六七八九十"
_CHINESE = re.compile(
    rf"第\s?(?P<nth>[0-9]{{1,2}}|[{_CHINESE_DIGITS}])\s?[张幅个]?(?:图像|图片|图|照片|画面)"
    rf"|(?:图像|图片|图|照片)\s?(?P<number>[0-9]{{1,2}}(?![0-9.])|[{_CHINESE_DIGITS}](?![张幅个]))"
)


def find_image_names(text: str, n_images: int | None = None) -> list[ImageName]:
    """Every place where `text` names an image, in order.

    Args:
        text: any text.
        n_images: how many images there are, if known; "the last image" is read only then.

    Returns:
        Spans with the 0-based image. A name that fits no image names none: "image 0", and
        "image 7" where three are known to be there.
    """
    names = [] if text.isascii() else _chinese_names(text, n_images)
    if not any(map(text.__contains__, _NOUN_PARTS)):
        return names
    n_chinese = len(names)
    limit = n_images or 1000
    for noun in _NOUN.finditer(text):
        start, end = noun.span()
        before = _BEFORE.search(text, max(0, start - 16), start)
        if before is None and start and _WORD_CHARACTER.match(text, start - 1):
            continue  # inside a longer word
        if before is not None:
            word = before["word"]
            if word is None:
                image: int | None = int(before["number"]) - 1
            elif word.lower() in _LAST:
                image = n_images - 1 if n_images else None
            else:
                image = _ORDINALS[word.lower()]
            if text.startswith("s", end):
                end += 1
            if image is not None and 0 <= image < limit:
                names.append((before.start(), end, image))
            continue
        after = _AFTER.match(text, end)
        if after is not None:
            word = after["word"]
            image = int(after["number"]) - 1 if word is None else _CARDINALS[word.lower()]
            if 0 <= image < limit:
                names.append((start, after.end(), image))
    return sorted(names) if n_chinese else names


def _chinese_names(text: str, n_images: int | None) -> list[ImageName]:
    names: list[ImageName] = []
    for match in _CHINESE.finditer(text):
        word = match["nth"] or match["number"]
        image = _CHINESE_DIGITS.index(word) if word in _CHINESE_DIGITS else int(word) - 1
        if 0 <= image < (n_images or 1000):
            names.append((match.start(), match.end(), image))
    return names


def read_image_value(value: str) -> int | None:
    """The 0-based image that the value of a key like "image" names: "2", "Image-2", "second".

    Returns None if it names none (a file name, 0).
    """
    value = value.strip()
    if value.isascii() and value.isdigit() and len(value) <= 3:
        number = int(value)
        return number - 1 if number >= 1 else None
    word = value.lower()
    if word in _ORDINALS:
        return _ORDINALS[word]
    names = find_image_names(value)
    return names[0][2] if len(names) == 1 else None
