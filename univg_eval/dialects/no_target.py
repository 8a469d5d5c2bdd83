"""Sentences by which a model says that there is no such object: "None.", "The cup is absent."

A text is cut into sentences; one counts only as a whole, in English or Chinese, after words that
open or announce it ("Sorry,", "Answer:"). Two kinds are kept apart:

* *general* ones speak of all that was requested: "None.", "No such object is visible.", "没有。";
* *specific* ones name what is absent: "There's no red cup in the picture.", "The image lacks a
  cup.", "I don't see a cup.", "图中没有杯子。". After a box they may as well explain it ("The cup
  is missing from the second image."), so they count only in an answer without any box.

"I cannot find the cup" is specific. "I cannot see the image", "I cannot locate it precisely" and "I
am unable to provide boxes" are refusals and say nothing about an object; "None of the others
match" and "There is no other cup" are about others. What a text inside a JSON object ("label",
"reason") says is not looked at.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from univg_eval.dialects._grammar import LABEL_TEXT

__all__ = ["NoTarget", "find_no_target"]


class NoTarget(NamedTuple):
    """A sentence that says that there is no such object.

    Attributes:
        start, end: its span in the text.
        is_general: it speaks of all that was requested, and takes an earlier box back.
    """

    start: int
    end: int
    is_general: bool


_LONGEST = 240  # characters of a sentence

# --- English -------------------------------------------------------------------------------------

_BE = r"(?:'s|\sis|\sare|\swas|\swere)"
_NOT = r"(?:\snot|n't)"
_CANNOT = r"(?:can(?:not|'t|\snot)|could(?:n't|\snot))"
_DO_NOT = rf"(?:do(?:es)?|did){_NOT}"
_OTHERS = r"(?:others?|rest|remaining)\b"
_AN = r"(?:(?:an?|any|the|this|that|such\san?)\s)?"
_WORD = r"[\w'\"“”()/,-]{1,30}+"
# What is absent: a few words, and none that turn the sentence into another one or into a refusal
# (the images did not arrive, no place is given).
_THING = (
    rf"(?!(?:{_OTHERS}|(?:more|further|additional|else|second|doubt|need|way|clear|obvious|longer"
    r"|reason|question|only|just|sure|possible)(?![\w-])))"
    r"(?!(?:(?:the|an?|any|this|that|exact|precise|bounding|input|your)\s){0,3}(?:images?|pictures?"
    r"|photos?|files?|attachments?|box(?:es)?|coordinates?|locations?|positions?|anything"
    r"|information|context|details?|answers?)\b)"
    rf"{_WORD}(?:\s(?!{_OTHERS}|(?:clearly|fully|entirely|completely|exactly|precisely|accurately)\b)"
    rf"{_WORD}){{0,11}}?"
)
_IMAGES = (
    r"(?:(?:any|all|either|both|each|neither|none|one)(?:\sof)?\s)?"
    r"(?:(?:the|this|that|these|those|your)\s)?"
    r"(?:(?:given|provided|input|current|above|entire|whole|two|three|four|five|six|first|second"
    r"|third|fourth|fifth|sixth|last|left|right|[0-9]{1,2}(?:st|nd|rd|th))\s){0,2}"
    r"(?:image|picture|photo(?:graph)?|frame|scene|video|figure|screenshot|view)s?"
    r"(?:[\s-](?:[0-9]{1,2}|one|two|three|four|five|six|provided|shown|above|given))?"
)
_IN_IMAGES = rf"(?:in|on|within|at|from|inside|of|across|among)\s{_IMAGES}"
_PLACE = (
    rf"(?:\s(?:here|there|at\sall|anywhere(?:\s{_IN_IMAGES})?|{_IN_IMAGES}|(?:in|of)\s(?:it|them)"
    rf"|(?:in|on|within|at|among)(?!(?:\s[\w-]{{1,20}}+){{0,4}}?\s{_OTHERS})"
    r"(?:\s[\w'-]{1,20}+){1,6}?))?"
)
_SEEN = (
    r"(?:present|visible|found|shown|seen|depicted|displayed|pictured|included|contained|detected"
    r"|located|identified|available|featured|observed|there|here)"
)
_SHOW = r"(?:contain|show|include|feature|have|depict|display)"

_GENERAL = (
    r"(?:(?:there|it)(?:\sis|\sare|\swas|\swere|'s)\s|i\s(?:see|find|found)\s)?"
    r"(?:none|no\s(?:such|matching|corresponding|relevant|target|visible)?\s?"
    r"(?:objects?|things?|targets?|instances?|items?|regions?|persons?|match(?:es)?"
    r"|(?:bounding\s)?box(?:es)?))"
    r"(?:\s(?:exists?|is|are|was|were|be|found|visible|present|detected|here|can)){0,4}+"
    rf"{_PLACE}",
    rf"(?:null|n/a|nothing(?:\s(?:found|detected|visible|there)|(?:\s{_IN_IMAGES})?\s"
    r"(?:matches|fits|corresponds\sto)\s(?:the|that|this|your)\s\w{1,20}+)?)",
    rf"there(?:'s|\sis|\swas)\snothing(?:\s{_IN_IMAGES})?\sthat\s(?:matches|fits)\s{_AN}\w{{1,20}}+",
    r"no\s(?:detections?|results?|matches)",
    rf"(?:(?:the\s)?(?:object|target|item)s?:?\s)?(?:not\s{_SEEN}{_PLACE}|absent)",
    r"(?:the\s(?:target\s|described\s|requested\s)?(?:object|target|item)|it)\s"
    rf"(?:(?:is|was){_NOT}\s(?:{_SEEN}{_PLACE}|in\s{_IMAGES})"
    rf"|{_CANNOT}\sbe\s(?:{_SEEN}|spotted){_PLACE}|(?:does|did){_NOT}\s(?:exist|appear){_PLACE}"
    rf"|(?:is|was)\s(?:absent|missing)(?:\s{_IN_IMAGES})?)",
)
_SPECIFIC = (
    rf"it\s{_DO_NOT}\s(?:look|appear|seem)(?:\slike|\sthat)?\sthere(?:'s|\sis|\sare)\s(?:an?|any)\s"
    rf"{_THING}",
    rf"there(?:{_BE}\s(?:no|not\s(?:an?|any|the)|neither)|\s(?:is|are|was|were)n't\s(?:an?|any|the)"
    r"|\s(?:appears?|seems?)\sto\sbe\sno"
    rf"|\s{_DO_NOT}\s(?:appear|seem)\sto\sbe\s(?:an?|any|the))\s{_THING}",
    rf"{_AN}{_THING}(?:(?:\s(?:is|are|was|were){_NOT}|:?\snot)\s(?:actually\s)?(?:{_SEEN}{_PLACE}"
    rf"|(?:in|on|within|part\sof|among)\s{_IMAGES})"
    rf"|\s{_CANNOT}\sbe\s(?:{_SEEN}|spotted){_PLACE}"
    rf"|\s{_DO_NOT}\s(?:exist|(?:appear|show\sup)(?!\sto\b)){_PLACE}"
    rf"|\s{_DO_NOT}\s(?:appear|seem)\sto\s(?:exist|be\s(?:{_SEEN}{_PLACE}|{_IN_IMAGES}))"
    rf"|\s(?:is|are|was|were)\s(?:absent|missing|nowhere(?:\sto\sbe\s{_SEEN})?)"
    rf"(?:\s{_IN_IMAGES})?)",
    rf"{_IMAGES}\s(?:is|are)\smissing\s{_AN}{_THING}",
    rf"(?:{_IMAGES}|it)\s(?:{_DO_NOT}\s(?:actually\s|seem\sto\s|appear\sto\s)?{_SHOW}"
    rf"|(?:{_SHOW}s?|has)\s(?:no|neither)|lacks?)\s{_AN}{_THING}",
    rf"no\s(?:(?:sign|trace|evidence|instance|indication)s?\sof\s{_AN}{_THING}{_PLACE}"
    rf"|{_THING}(?:\s(?:is|are|was|were|can\sbe|could\sbe))?\s(?:{_SEEN}{_PLACE}|{_IN_IMAGES}))",
    rf"(?:(?:none|neither)(?:\sof)?\s(?:them|{_IMAGES})|no\s(?:image|picture|photo|frame)s?)\s(?:{_SHOW}s?|has)\s{_AN}{_THING}",
    rf"(?:i|we)(?:\s(?:{_CANNOT}|{_DO_NOT})"
    r"|(?:\sam|'m|\swas|\swere|\sare|'re)\s(?:unable|not\sable)\sto)\s"
    rf"(?:find|see|detect|locate|spot)\s(?!(?:it|them|this|that)\b(?!\s\w)){_AN}{_THING}{_PLACE}",
    rf"(?:i|we)\s(?:can\s)?(?:see|saw|find|found|detect(?:ed)?)\sno\s{_THING}{_PLACE}",
)
_TAIL = (
    r"(?:(?:,|\s[-–—])?\s(?:so|therefore|thus|hence|but\s(?:there|it|i|we)|only|instead|as|because"
    r"|and\s(?:so|thus|therefore))\b.*+)?"
)
# Words that open a sentence, or announce the answer.
_OPENERS = (
    r"(?:(?:yes|no|but|so|however|therefore|thus|hence|well|wait|actually|sorry|unfortunately"
    r"|i(?:'m|\sam)\ssorry|(?:my\s)?apologies|i\sapologi[sz]e|it\s(?:appears|seems|looks\slike)(?:\sthat)?"
    rf"|(?:based\son|looking\sat|in|after\s(?:examining|inspecting|reviewing))\s{_IMAGES}"
    r"|(?:up)?on\s(?:\w{1,12}\s)?(?:inspection|examination|review)"
    rf"|after\s(?:\w{{1,12}}\s)?(?:inspection|examination|review|analysis)(?:\sof\s{_IMAGES})?"
    r"|the\sanswer\sis|(?:final\s)?answer|bbox(?:_2d)?|box(?:es)?|output|result|target|object"
    r"|location|coordinates|image[ -]?[0-9]{1,2})[*_]{0,2}[,:]?(?:\sbut)?[\s*_]+){0,3}"
)

# --- Chinese -------------------------------------------------------------------------------------

_ZH_THING = (
    r"(?![^，。]{0,3}(?:其他|其它|别的|另外|更多|问题|疑问|办法|必要|关系))"
    r"(?![^，。]{0,3}(?:(?:图像|图片|照片|画面)(?![中里上内])|加载|上传|提供|打开))[^，。,]{1,30}+"
)
_ZH_IMAGE = (
    r"(?:在)?(?:(?:这|该|本|所给|给定|任何|任意|所有|两|第?[一二三四五六七八九十0-9]{1,2})"
    r"(?:张|幅|个)?的?)?(?:图像|图片|照片|画面|图(?![片像])|视频)[0-9]{0,2}(?:之?中|里面?|上|内)?[都均也并]?"
)
_ZH_ABSENT = (
    r"(?:并?(?:没有|不存在|未|没|看不到|找不到|不包含|无)"
    r"(?:任何|找到|看到|发现|检测到|出现|显示|包含){0,2})"
)
_ZH_GENERAL = (
    rf"(?:{_ZH_IMAGE}，?)?{_ZH_ABSENT}(?:这样的|符合[^，。]{{0,16}}的|匹配的|对应的|相关的|该)?"
    r"(?:目标|物体|对象|物品|区域|结果|边界框)?(?:存在)?",
    rf"(?:该|这个|此)?(?:目标|物体|对象)(?:并?不存在|(?:并?不在|没有出现在|未出现在){_ZH_IMAGE})",
)
_ZH_SPECIFIC = (
    rf"{_ZH_IMAGE}，?{_ZH_ABSENT}{_ZH_THING}",
    rf"(?:我们?)?(?:{_ZH_IMAGE})?(?:没有|未能?|没能?|无法|找不到|看不到)(?:{_ZH_IMAGE})?"
    rf"(?:找到|看到|发现|检测到)?{_ZH_THING}",
    r"[^，。,]{1,30}?并?不存在",
    rf"[^，。,]{{1,30}}?(?:并?不在|没有出现在|未出现在|不存在于){_ZH_IMAGE}",
    rf"{_ZH_IMAGE}[^，。,]{{1,30}}?(?:不存在|没有出现|未出现)",
)


def _one_of(sentences: tuple[str, ...], chinese: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(
        rf"(?i)(?:{_OPENERS}(?:{'|'.join(sentences)}){_TAIL}"
        rf"|(?:(?:(?:很|非常)?抱歉|对不起|不好意思|不|答案|答案是)[，,:：]?\s*)?(?:{'|'.join(chinese)})(?:，.*+)?)"
    )


_KINDS = ((True, _one_of(_GENERAL, _ZH_GENERAL)), (False, _one_of(_SPECIFIC, _ZH_SPECIFIC)))

# --- sentences -----------------------------------------------------------------------------------

_MAY_BE_NONE = re.compile(r"(?i)n(?:o|eithe|ul|/a|'t|’t)|unable|lack|absent|missing|[没不未无找看]")
# A sentence ends with its mark, a line, a tag, a fence, the bracket that closes a box, or the comma
# before the next image of a listing ("Image 1: none, Image 2: …").
_END = re.compile(
    r"[.!?](?=[\s\"'*_`<)\]]|\Z)|[。！？；;\n<>`]|(?<=[0-9\"'\])}])\s?[\])}]"
    r"|(?:[,，]|\sand)(?=\s?(?:and\s)?(?i:image|picture|photo|frame|img)[\s-]?[0-9]{1,2}:)|\Z"
)
_TRIMMED = " \t\r*_()\"'“”"
_LABEL_TEXT = re.compile(rf"[\"']{LABEL_TEXT}")
_STRAIGHT = str.maketrans("’‘", "''")


def find_no_target(section: str) -> list[NoTarget]:
    """The sentences of a text that say that there is no such object, in order.

    Linear in the text's length: sentences over 240 characters are passed over.
    """
    found: list[NoTarget] = []
    if _MAY_BE_NONE.search(section) is None:
        return found
    texts = [match.span() for match in _LABEL_TEXT.finditer(section)]
    next_text = 0
    begin = 0
    for end in _END.finditer(section):
        sentence, start, begin = section[begin : end.start()], begin, end.end()
        if len(sentence) > _LONGEST or _MAY_BE_NONE.search(sentence) is None:
            continue
        start += len(sentence) - len(sentence.lstrip(_TRIMMED))
        sentence = sentence.strip(_TRIMMED).translate(_STRAIGHT)
        while next_text < len(texts) and texts[next_text][1] <= start:
            next_text += 1
        if next_text < len(texts) and texts[next_text][0] < start:
            continue
        for is_general, kind in _KINDS:
            if kind.fullmatch(sentence):
                # LocateAnything's <box>none</box> is about the phrase before it alone.
                general = is_general and not section.endswith("<box>", 0, start)
                found.append(NoTarget(start, start + len(sentence), general))
                break
    return found
