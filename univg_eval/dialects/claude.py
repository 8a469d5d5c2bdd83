"""Claude: what the prompt asks for, in pixels of the image after the service's own resize.

The vendor's page gives that resize as code and says that relative scales suit the models less. Two
tiers: the standard one, and a higher resolution from Claude 4.7 on. Which of them a model has
follows from its name (`api_models`).
"""

from dataclasses import replace

from univg_eval.dialects.family import Confidence, Dialect, FittedPixels
from univg_eval.dialects.plain import ANY_BRACKETS

_STANDARD = Dialect(
    name="claude",
    families=("Claude up to 4.6",),
    form='as the prompt asks, by default {"bbox": [x1, y1, x2, y2]}',
    space=FittedPixels(1568, 1568),
    confidence=Confidence("medium", "medium", "high"),
    template='{{"bbox": [{}, {}, {}, {}]}}',
    prompt_suffix=(
        'Answer with JSON {"bbox": [x1, y1, x2, y2]} in pixels of the image, and nothing else.'
    ),
    grammar=ANY_BRACKETS,
    sources=(
        "platform.claude.com, page on vision coordinates, read 2026-11-29",
        "roboflow/vlm-exam src/vlm_exam/providers/anthropic.py (0d6794c)",
    ),
    sources_read="2026-11-29",
    notes=(
        "form and order are what the prompt asks for: medium confidence that it is kept",
        "the service shrinks an image that exceeds its tier and never enlarges one; pixels of the "
        "image as sent are another scale as soon as it does",
        "a client that shrinks the file first changes the size that the rule starts from",
    ),
)

DIALECTS = (
    _STANDARD,
    replace(
        _STANDARD,
        name="claude_high",
        families=("Claude from 4.7 on (Opus 5, Sonnet 5, Fable 5)",),
        space=FittedPixels(2576, 4784),
    ),
)
