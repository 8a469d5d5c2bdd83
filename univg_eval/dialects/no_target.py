"""Sentences by which a model says that there is no such object: "None.", "The cup is absent."

A text is cut into sentences; one counts only as a whole, in English or Chinese, after words that
open or announce it ("Sorry,", "Answer:"). Two kinds are kept apart:

* *general* ones speak of all that was requested: "None.", "No such object is visible.", "没有。";
* *specific* ones name what is absent, or where: "There's no red cup in the picture.", "The image
  lacks a cup.", "I don't see a cup.", "None on the left.", "图中没有杯子。". After a box they may
  explain it ("The cup is missing from the second image."), so they count only without any box.

"I cannot find the cup" is specific. "I cannot see the image", "I cannot locate it precisely" and "I
am unable to provide boxes" are refusals and say nothing about an object; "None of the others
match" and "There is no other cup" are about others; "Perhaps the cup is absent" and "Is there no
cup?" say nothing yet. What a text inside a JSON object ("label", "reason") says is not looked at.
"""

from __future__ import annotations

import re

from univg_eval.dialects._grammar import STRING
from univg_eval.dialects.image_names import find_image_names

__all__ = ["find_no_target"]


_LONGEST = 240  # characters of a sentence

# Patterns are matched with sentences in lower case, with straight quotes and single spaces.

# --- English: words ------------------------------------------------------------------------------

_IS = "(?:is|are|was|were)"
_BE = "(?:'s| is| are| was| were)"
_NOT = "(?: not|n't)"
_CANNOT = "(?:can(?:not|'t| not)|could(?:n't| not))"
_DO_NOT = f"(?:do(?:es)?|did){_NOT}"
_AN = "(?:(?:an?|any|the|this|that|such an?) )?+"
_WORD = r"[\w'\"“”()/,-]{1,30}+"
# Words that make it an absence of others, a guess, or a complaint about quality.
_TURNING = (
    r"(?:others?|rest|remaining|else|if|whether|when|unless|perhaps|maybe|possibly|clear(?:ly)?"
    r"|fully|entirely|completely|exactly|precisely|accurately)\b"
)
# What is absent: a few words; no abstract ones, none that say that the images did not arrive or
# that no place is given.
_THING = (
    r"(?!(?:more|further|additional|second|doubt|need|way|obvious|longer|reason|question|only|just"
    r"|is|are|i|we|you|sure|possible|problems?|issues?|errors?|enough)(?![\w-]))"
    r"(?!(?:(?:the|an?|any|this|that|exact|precise|bounding|input|your) ){0,3}(?:images?|pictures?"
    r"|photos?|files?|urls?|links?|attachments?|box(?:es)?|coordinates?|locations?|positions?|anything"
    r"|information|context|details?|answers?)\b)"
    rf"(?!{_TURNING}){_WORD}(?: (?!{_TURNING}){_WORD}){{0,11}}?"
)
_FITS = r"(?:match(?:es|ing)?|fit(?:s|ting)?|correspond(?:s|ing)?|satisf(?:y|ies|ying)|meets?|like)"
_ANYTHING_LIKE_IT = rf"any(?:thing|one|body) (?:(?:that|which|who) )?{_FITS}\b.*+"
_NOUN = "(?:image|picture|photo(?:graph)?|frame|scene|video|figure|screenshot|view)s?"
_NTH = r"(?:first|second|third|fourth|fifth|sixth|[0-9]{1,2}(?:st|nd|rd|th))"
_IMAGE = (
    "(?:(?:any|all|either|both|each|neither|none|one)(?: of)? )?"
    "(?:(?:the|this|that|these|those|your) )?"
    rf"(?:(?:given|provided|input|current|above|entire|whole|two|three|four|five|six|{_NTH}"
    r"|last|left|right),?(?: (?:and|or))? ){0,3}"
    rf"{_NOUN}(?:[ -](?:[0-9]{{1,2}}|one|two|three|four|five|six|provided|shown|above|given))?"
)
_IMAGES = rf"{_IMAGE}(?:,?(?: (?:and|or|nor|in)){{0,2}} (?:{_IMAGE}|[0-9]{{1,2}}\b)){{0,5}}?"
_IN_IMAGES = f"(?:in|on|within|at|from|inside|of|across|among) {_IMAGES}"
_OVERALL = f"(?: (?:here|there|at all|anywhere(?: {_IN_IMAGES})?|{_IN_IMAGES}))?"
_PLACE = (
    f"(?:{_OVERALL}| (?:in|of) (?:it|them)"
    rf"| (?:in|on|within|at|among)(?!(?: [\w-]{{1,20}}+){{0,4}}? {_TURNING})"
    r"(?: [\w'-]{1,20}+){1,6}?)"
)
_SEEN = (
    "(?:present|visible|found|shown|seen|depicted|displayed|pictured|included|contained|detected"
    "|located|identified|available|featured|observed|spotted|there|here)"
)
_SHOW = "(?:contain|show|include|feature|have|depict|display)"
_SEE = "(?:find|see|detect|locate|spot)"

# --- English: sentences --------------------------------------------------------------------------


def _absent(place: str) -> str:
    """What is said of an object that is absent: "is not visible in the image"."""
    return (
        rf"(?:(?: {_IS}|'s)?(?: not|n't) (?:actually )?(?:{_SEEN}{place}|{_IN_IMAGES})"
        rf"|(?: {_IS}|'s) (?:absent|missing|nowhere(?: to be {_SEEN})?){place}"
        rf"| {_CANNOT} be {_SEEN}{place}"
        rf"| {_DO_NOT} (?:exist|(?:appear|show up)(?! to\b)){place}"
        rf"| {_DO_NOT} (?:appear|seem) to (?:exist|be (?:{_SEEN}{place}|{_IN_IMAGES}))"
        rf"| (?:{_IS}|appears?)(?: {_SEEN})? in neither(?: of)? {_IMAGE})"
    )


def _general(place: str) -> tuple[str, ...]:
    return (
        # None. There are none. I see no such object.
        rf"(?:(?:there{_BE}|it{_BE}|i (?:see|find|found)) )?"
        r"(?:none(?: of (?:them|these|those|the above))?"
        "|no (?:such|matching|corresponding|relevant|target|visible)? ?(?:objects?|things?|targets?"
        "|instances?|items?|regions?|persons?|match(?:es)?|(?:bounding )?box(?:es)?))"
        rf"(?: (?:exists?|{_IS}|be|found|visible|present|detected|here|can)){{0,4}}+{place}",
        rf"null|n/a|nothing(?: {_SEEN})?{place}|no (?:detections?|results?)",
        # Not found. Object absent. The requested object does not exist.
        rf"(?:not {_SEEN}|(?:(?:object|target|item)s? )?absent){place}|not {_IN_IMAGES}"
        "|not applicable",
        r"(?:the )?(?:(?:target|described|requested) )?(?:object|target|item)s?:?" + _absent(place),
    )


_SPECIFIC = (
    # There's no cup. There isn't. There is nothing like it. It does not look like there is a cup.
    rf"there(?:{_BE} (?:no|not (?:an?|any|the)|neither)| {_IS}n't (?:an?|any|the)"
    rf"| (?:appears?|seems?) to be no| {_DO_NOT} (?:appear|seem) to be (?:an?|any|the)) {_THING}",
    rf"there {_IS}{_NOT}(?: one)?{_PLACE}",
    rf"there{_BE} nobody{_PLACE}",
    rf"there{_BE} (?:nobody|nothing)(?: {_IN_IMAGES})? (?:that |who )?{_FITS}\b.*+",
    rf"it {_DO_NOT} (?:look|appear|seem)(?: like| that)? there(?:'s| is| are) (?:an?|any) {_THING}",
    # The cup is not visible. It cannot be found. A cup is nowhere to be seen.
    rf"(?:{_AN}{_THING}:?|it){_absent(_PLACE)}",
    rf"{_IMAGES} {_IS} missing {_AN}{_THING}",
    # The image does not show a cup. Neither image has a cup. It contains no cup.
    rf"(?:{_IMAGES}|it) (?:{_DO_NOT} (?:actually |seem to |appear to )?{_SHOW}"
    rf"|(?:{_SHOW}s?|has) (?:no|neither)|lacks?) (?:{_AN}{_THING}|{_ANYTHING_LIKE_IT})",
    rf"(?:(?:none|neither)(?: of)? (?:them|{_IMAGES})|no {_NOUN}) (?:{_SHOW}s?|has) {_AN}{_THING}",
    # No sign of a cup. No cup was found. Nobody in the image is wearing a hat.
    rf"no (?:such|(?:sign|trace|evidence|instance|indication)s? of) {_AN}{_THING}{_PLACE}",
    rf"no {_THING}(?: (?:{_IS}|(?:can|could) be|appears?|exists?))?"
    rf" (?:{_SEEN}{_PLACE}|{_IN_IMAGES})",
    rf"(?:no (?:{_THING}|one|body)|nobody|nothing)(?: {_IN_IMAGES})? (?:{_IS} \w+ing|{_FITS})\b.*+",
    rf"none of the {_THING} (?:{_IS}|{_FITS})\b.*+",
    # I don't see a cup. We were unable to find it in the image. I see no cup.
    rf"(?:i|we)(?: {_CANNOT}| {_DO_NOT}|(?:'m|'re| {_IS}| am) (?:unable|not able) to) {_SEE}"
    rf" (?:(?!(?:it|them|this|that)\b(?! \w)){_AN}{_THING}{_PLACE}|{_ANYTHING_LIKE_IT})",
    rf"(?:i|we)(?:'m|'re| am| are) not (?:seeing|finding|detecting) {_AN}{_THING}{_PLACE}",
    rf"(?:i|we) (?:can )?(?:see|saw|find|found|detect(?:ed)?) no {_THING}{_PLACE}",
    *_general(_PLACE),
)
_TAIL = (
    "(?:(?:,| [-–—])? (?:so|therefore|thus|hence|but (?:there|it|i|we)|only|instead|as|because"
    r"|and (?:so|thus|therefore))\b.*+)?"
)
# After what is named, a remark may follow, unless it takes some of it back.
_REMARK = (
    r"(?:(?:[,:]| [-–—]) (?!(?:but (?!there|it|i|we|only|the|an?)|except|other than|apart|besides"
    rf"|unless|until|if|or)\b).*+|{_TAIL})"
)
# Words that open a sentence, or announce the answer.
_OPENERS = (
    "(?:(?:yes|no(?= there|[,:])|but|so|however|therefore|thus|hence|well|wait|actually|sorry"
    r"|unfortunately|i(?:'m| am) sorry|(?:my )?apologies|i apologi[sz]e(?: for \w+ \w+)?"
    "|it (?:appears|seems|looks like)(?: that)?"
    rf"|(?:based on|looking at|in|after (?:examining|inspecting|reviewing)) {_IMAGES}"
    r"|(?:up)?on (?:\w{1,12} )?(?:inspection|examination|review)"
    rf"|after (?:\w{{1,12}} )?(?:inspection|examination|review|analysis)(?: of {_IMAGES})?"
    "|(?:(?:the|my) )?(?:final )?(?:answer|output|result)(?: is(?! not))?"
    rf"|(?:[-•] |[0-9]\. )?(?:{_NTH} {_NOUN}|{_NOUN}[ -]?[0-9]{{1,2}})"
    r"|\\?boxed\{(?:\\text\{)?)[,:]?(?: but)?[ \"'{]*+(?<!\w)){0,3}"
)
# The same before a named absence: "Since …", "Note:", "The image shows a dog, but …".
_LEAD = (
    r"(?!(?:if|when|whether|unless)\b)"
    r"(?:[-•#]+ )?(?:(?:since|because|as|conclusion|note|explanation|i (?:think|believe))"
    r"(?: that|:)? |step [0-9]+: |(?>.{1,160}?[,;] (?:but|however|yet),? )"
    r"|(?:in|on|upon|after|from|based|looking|as|to|having|according|given)\b[^,]{1,80}+, )?"
)
_BOX_IS_NONE = (
    r"(?:the )?(?:b(?:ounding )?box(?:es)?|bbox(?:_2d)?|box_2d|target|object|location|coordinates)"
    r"(?: (?:is|are))?:?[ \"']+(?:none|null|n/a|not applicable|empty)"
)

# --- Chinese -------------------------------------------------------------------------------------

_ZH_THING = (
    r"(?![^，。]{0,3}(?:其他|其它|别的|另外|更多|问题|疑问|办法|必要|关系|足够|把握|能力|权限))"
    r"(?![^，。]{0,3}(?:(?:图像|图片|照片|画面)(?![中里上内])|加载|上传|提供|打开))[^，。,]{1,30}+"
)
_ZH_IMAGE = (
    r"在?(?:(?:这些?|该|本|所给|给定|所?提供|[上以][述上]|任何|任意|所有|两|第?[一二三四五六七八九十0-9]{1,2})"
    r"(?:张|幅|个)?的?){0,2}(?:图像|图片|照片|画面|图(?![片像])|视频)[0-9]{0,2}"
)
_ZH_IN_IMAGES = rf"(?:{_ZH_IMAGE}[、和与及]){{0,5}}{_ZH_IMAGE}(?:之?中|里面?|上|内)?[都均也并]?"
_ZH_ABSENT = (
    r"(?:并?(?:没有|不存在|未|没|看不到|找不到|不包含|无)"
    r"(?:任何|找到|看到|发现|检测到|出现|显示|包含){0,2})"
)
_ZH_GENERAL = (
    rf"(?:{_ZH_IN_IMAGES}[，:]?)?{_ZH_ABSENT}(?:这样的|此|符合[^，。]{{0,16}}的|匹配的|对应的|相关的|该)?"
    r"(?:目标|物体|对象|物品|区域|结果|边界框)?(?:存在)?",
    rf"(?:该|这个|此)?(?:目标|物体|对象)(?:并?不存在|(?:并?不在|没有出现在|未出现在){_ZH_IN_IMAGES})",
)
_ZH_SPECIFIC = (
    rf"{_ZH_IN_IMAGES}[，:]?{_ZH_ABSENT}{_ZH_THING}",
    rf"(?:我们?)?(?:{_ZH_IN_IMAGES})?(?:没有|(?:未能?|没能?|无法|不能)(?:{_ZH_IN_IMAGES})?"
    rf"(?:找到|看到|发现|检测到)|找不到|看不到)(?:{_ZH_IN_IMAGES})?(?:找到|看到|发现|检测到)?{_ZH_THING}",
    r"[^，。,]{1,30}?并?不存在",
    rf"[^，。,]{{1,30}}?(?:并?不在|没有出现在|未出现在|不存在于|(?:未|没有)在){_ZH_IN_IMAGES}(?:出现)?",
    rf"{_ZH_IN_IMAGES}[^，。,]{{1,30}}?(?:不存在|没有出现|未出现)",
    r"[^，。,:]{1,30}: ?(?:未找到|没有找到|未检测到|未发现|不存在)",
    r"(?:边界框|坐标|位置): ?(?:无|没有)",
)
_ZH_OPENERS = (
    r"(?:(?:(?:很|非常)?抱歉|对不起|不好意思|不|没有|因此|所以|综上(?:所述)?|总之|结论"
    r"|答|(?:最终)?(?:答案|结果)(?:是|为)?)[，,:]? ?){0,3}"
)
_ZH_LEAD = (
    r"(?!.{0,60}(?:可能|或许|也许|是否|如果|假如|要是|不确定|吗\Z))"
    r"(?:(?:经过?|仔细|根据|在|从|通过)[^，。]{1,20}，|[^，。]{0,10}只有[^，。]{1,30}，(?:但是?)?)?"
)

# General and specific sentences.
_ENGLISH = (
    re.compile(rf"{_OPENERS}(?:{'|'.join(_general(_OVERALL))}){_TAIL}"),
    re.compile(rf"{_LEAD}{_OPENERS}(?:{'|'.join((*_SPECIFIC, _BOX_IS_NONE))}){_REMARK}"),
)
_CHINESE = (
    re.compile(rf"{_ZH_OPENERS}(?:{'|'.join(_ZH_GENERAL)})(?:，.*+)?"),
    re.compile(rf"{_ZH_LEAD}{_ZH_OPENERS}(?:{'|'.join((*_ZH_GENERAL, *_ZH_SPECIFIC))})(?:，.*+)?"),
)

# --- sentences -----------------------------------------------------------------------------------

# One of these is in every such sentence; most texts hold none.
_PARTS = (
    *("no", "n't", "n’t", "null", "n/a", "neither", "unable", "lack", "absent", "missing", "empty"),
    *("没", "不", "未", "无"),
)
_ZH_NOT = re.compile("[没不未无]")
# A sentence ends with its mark, a line, a tag, a fence, the bracket that closes a box, or the comma
# before the next image of a listing ("Image 1: none, Image 2: …", "图1没有，图2也没有").
_END = re.compile(
    r"[.!?](?=[\s\"'*_`<)\]]|\Z)|[。！？；;\n<>]|```"
    r"|(?<=[0-9\"'\])}])\s?[\])}]"
    r"|(?:[,，]|\sand)(?=\s?(?:and\s)?(?i:image|picture|photo|frame|img)[\s-]?[0-9]{1,2}:)"
    r"|[,，](?=第?[一二三四五六七八九十0-9]{0,2}[张幅]?图[0-9]?)|\Z"
)
_TRIMMED = " \t\r*_`()\"'“”{}\\$"
_TEXT = re.compile(rf"[\"'][\w -]{{1,40}}[\"']\s*+:\s*+{STRING}")
_PLAIN = str.maketrans("’‘：", "'':", "*`")
# The tag or the mark of a list right before a "none", or the line above, if it is a heading:
# "<reason>", "2.", "Occlusion:", "**Other objects**", "### Notes".
_BEFORE = re.compile(
    r"(?:<((?!(?:br?|bos|s|p)>)[A-Za-z_ ]{1,30})>"
    r"|(?:\A|\n)[ (]*([-•]|\*(?= )|[0-9a-z]{1,2}[.)])|([-=]>|→)"
    r"|(?:\A|\n)[\s*_-]*(?:#+ ([^\n]{1,60})|([^\n:：]{1,60})[:：]\**|\*\*([^\n]{1,60})\*\*"
    r"|(\(?[0-9]{1,2}[.)] [^\n]{1,60}))\s*\n[\s-]*)[\s*_]*\Z"
)
_OF_THE_ANSWER = re.compile(r"(?i)answer|output|result|response|conclusion|final")


def find_no_target(section: str, *, has_boxes: bool) -> list[tuple[int, int]]:
    """The sentences of a text that say that there is no such object, in order.

    Linear in the text's length: sentences over 240 characters are passed over.

    Args:
        section: the text.
        has_boxes: it holds boxes, so that only general sentences count.

    Returns:
        Their spans.
    """
    found: list[tuple[int, int]] = []
    if not _may_hold_one(section):
        return found
    texts = [match.span() for match in _TEXT.finditer(section)]
    next_text = 0
    begin = 0
    for end in _END.finditer(section):
        sentence, start, begin = section[begin : end.start()], begin, end.end()
        if len(sentence) > _LONGEST or end[0] in ("?", "？") or not _may_hold_one(sentence):
            continue
        start += len(sentence) - len(sentence.lstrip(_TRIMMED))
        sentence = sentence.strip(_TRIMMED)
        while next_text < len(texts) and texts[next_text][1] <= start:
            next_text += 1
        if next_text < len(texts) and texts[next_text][0] < start:
            continue
        words = " ".join(sentence.translate(_PLAIN).lower().split())
        general, specific = _CHINESE if _ZH_NOT.search(words) else _ENGLISH
        if not general.fullmatch(words):
            counts = not has_boxes and specific.fullmatch(words) is not None
        else:
            counts = not (has_boxes and _is_of_something_else(section, start, sentence))
        if counts:
            found.append((start, start + len(sentence)))
    return found


def _may_hold_one(text: str) -> bool:
    return any(map(text.lower().__contains__, _PARTS))


def _is_of_something_else(section: str, start: int, sentence: str) -> bool:
    """Whether a "none" is about what stands right before it alone: a tag, a heading, a number."""
    before = _BEFORE.search(section, max(0, start - 80), start)
    if before is None or find_image_names(sentence):
        return False
    name = before[before.lastindex or 0]
    return not (_OF_THE_ANSWER.search(name) or find_image_names(name))
