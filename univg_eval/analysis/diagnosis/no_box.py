"""What responses without a readable box say instead."""

from __future__ import annotations

import re
from collections.abc import Mapping

from univg_eval.dialects.sections import split_response

__all__ = ["REMEDIES", "WORDS", "said_instead"]

WORDS: Mapping[str, str] = {
    "empty": "say nothing at all",
    "missing_image": "say that there is no image",
    "refusal": "refuse or apologise",
    "unread_image": "give a box, but name no image where its size has to be known",
    "other_form": "hold four numbers in a form that this dialect does not read",
    "point": "give a point instead of a box",
    "words": "use words without any number",
    "other": "hold numbers, but no box",
}
"""Each kind in words that continue "of these answers, so many …"."""

REMEDIES: Mapping[str, str] = {
    "empty": "Nothing was generated, or nothing but special tokens that were taken out: look at "
    "the chat template, the stop tokens and the precision of the model, or behind a server at "
    "hidden thinking that took all new tokens (--gen_kwargs max_new_tokens=4096).",
    "missing_image": "Let the images arrive first: see the finding about images.",
    "refusal": "Look at the responses. Often the images do not arrive (--controls shows it), or "
    "the request is not one that the model was trained for: try another --prompt, or --sweep.",
    "point": "If the model can give boxes too, ask for them in the form that it was trained on "
    "(--dialect, --prompt; --sweep tries others). A model that only points is not scored here.",
    "unread_image": "Nothing, if the model was never trained to name images: where several images "
    "differ in size, a box in pixels means nothing without the image's name.",
}
"""What to do where most are of one kind."""

_MISSING_IMAGE = re.compile(
    r"(?i)\b(?:no|any|an|the|your)\s(?:images?|pictures?|photos?)\b[^.\n]{0,40}\b"
    r"(?:provided|attached|uploaded|included|available|visible|given|shared|to\sview)\b"
    r"|\b(?:can(?:no|')?t|cannot|unable\sto|not\sable\sto|don'?t|do\snot)\s"
    r"(?:actually\s|directly\s)?(?:see|view|access|process|open|look\sat|have\saccess\sto)\s"
    r"(?:the\s|any\s|an?\s|your\s)?(?:images?|pictures?|photos?|visual)"
    r"|\b(?:please|could\syou)\s(?:provide|upload|attach|share|send)\b[^.\n]{0,30}"
    r"\b(?:images?|pictures?|photos?)\b|\btext[- ](?:only|based)\s(?:ai|model|language)"
    r"|(?:看不到|看不见|没有?看到|没有?收到|没有(?:提供|上传)|未(?:提供|上传|收到|看到)|"
    r"(?:无法|不能)(?:直接)?(?:查看|看到|访问|打开|读取))(?:任何|您|你|上传|提供|发送|的|这张|该)*"
    r"(?:图片|图像|照片)|请(?:您|你)?(?:先)?(?:重新)?(?:上传|提供|发送)[^。\n]{0,6}(?:图片|图像|照片)"
)
_REFUSAL = re.compile(
    r"(?i)\b(?:sorry|i\s?(?:can(?:no|')?t|am\s(?:unable|not\sable)|'m\s(?:unable|not\sable))"
    r"|cannot\s(?:assist|help|provide|determine|identify|tell|answer)|as\san\sai)\b"
    r"|抱歉|对不起|无法(?:确定|回答|提供|协助)"
)
_POINT = re.compile(
    r"<points?\b|(?<![\d.,])[\[(]\s*\d+(?:\.\d+)?\s*,\s*\d+(?:\.\d+)?\s*[\])](?!\s*,?\s*[\[(]\s*\d)"
)


def said_instead(text: str, *, has_boxes: bool, is_read_by_others: bool) -> str:
    """A key of `WORDS`.

    Args:
        text: the response.
        has_boxes: whether it holds boxes in the declared form, none of which can be read.
        is_read_by_others: whether another dialect reads a box.
    """
    section = split_response(text).section
    if not text.strip():
        return "empty"
    if has_boxes:
        return "unread_image"
    if _MISSING_IMAGE.search(text):
        return "missing_image"
    if is_read_by_others:
        return "other_form"
    if _REFUSAL.search(text):
        return "refusal"
    if _POINT.search(section):
        return "point"
    return "other" if re.search(r"\d", section) else "words"
