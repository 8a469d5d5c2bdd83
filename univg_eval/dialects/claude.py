"""Claude: whatever the prompt asks for; pixels of the image as sent work best.

Medium confidence throughout: a vendor statement read in a quotation.
"""

from univg_eval.dialects.family import Confidence, Dialect, ImagePixels
from univg_eval.dialects.plain import ANY_BRACKETS

DIALECTS = (
    Dialect(
        name="claude",
        families=("Claude",),
        form='as the prompt asks, by default {"bbox": [x1, y1, x2, y2]}',
        space=ImagePixels(of_sent_image=True),
        confidence=Confidence("medium", "medium", "medium"),
        template='{{"bbox": [{}, {}, {}, {}]}}',
        prompt_suffix=(
            'Answer with JSON {"bbox": [x1, y1, x2, y2]} in pixels of the image, and nothing else.'
        ),
        grammar=ANY_BRACKETS,
        sources=("run-llama/ParseBench pull request 91, quoting platform.claude.com",),
        notes=(
            "medium confidence",
            "input_sizes, where given, are the sizes of the images as sent after a client's resize",
        ),
    ),
)
