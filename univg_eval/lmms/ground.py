"""One question to a checkpoint: what ``univg ground`` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.utils.logging import disable_progress_bar

from univg_eval.answers import Answer
from univg_eval.errors import UserError
from univg_eval.images.reading import load_reference
from univg_eval.images.video.decoding import count_frames
from univg_eval.images.video.sampling import frame_numbers
from univg_eval.lmms.backends.reference import ReferenceModel
from univg_eval.lmms.settings import (
    REFERENCE_MODEL,
    ModelUnderTest,
    RunSettings,
    given_options,
    resolve_settings,
)
from univg_eval.models import model_folder
from univg_eval.models.generation import Request, Response
from univg_eval.prompts import build_prompt
from univg_eval.protocols import parse_answer
from univg_eval.samples import GroundingSample

__all__ = ["Grounded", "ground", "video_references"]


@dataclass(frozen=True, slots=True)
class Grounded:
    """A question and its answer.

    Attributes:
        images: files, or frames of a video as ``clip.mp4#frame=12``.
        sizes: (width, height) of each in pixels.
        prompt: the text that followed the images.
        response: whole, and what it took.
        answer: as the protocol reads it.
        image_index: 0-based image that the box lies on: the only one, the one that the instruction
            names, or the one that the answer names; None where it names none.
        settings: of dialect, prompt and protocol, with their sources.
    """

    images: Sequence[str]
    sizes: Sequence[tuple[int, int]]
    prompt: str
    response: Response
    answer: Answer
    image_index: int | None
    settings: RunSettings

    @property
    def box_pixels(self) -> tuple[float, float, float, float] | None:
        """The box in pixels of its image; None without a box, or if its image is not known."""
        if self.answer.box is None or self.image_index is None:
            return None
        width, height = self.sizes[self.image_index]
        x1, y1, x2, y2 = self.answer.box
        return x1 * width, y1 * height, x2 * width, y2 * height


def video_references(video: Path, rule: str) -> list[str]:
    """The frames of a video file that a sampling rule chooses, as references to images.

    Raises:
        UserError: the file cannot be read, or the rule is unknown.
    """
    numbers = frame_numbers(rule, count_frames(video))
    return [f"{video.absolute()}#frame={number}" for number in numbers]


def ground(
    images: Sequence[str],
    instruction: str,
    *,
    model_args: Mapping[str, Any],
    options: Mapping[str, str | None],
    max_new_tokens: int,
    target_image: int | None = None,
) -> Grounded:
    """Ask a checkpoint once, as the backend ``univg`` asks it in an evaluation.

    Args:
        images: files or references to frames.
        instruction: the question, as a user writes it.
        model_args: of the backend ``univg``; ``pretrained`` may be a short name.
        options: ``dialect``, ``prompt`` and ``protocol`` as given, None where they are not.
        max_new_tokens: of the response.
        target_image: 0-based image that the instruction names; None: the only one, or the model
            has to find it.

    Raises:
        UserError: an image, the checkpoint or an option is wrong, or the memory does not suffice.
    """
    places = [str(Path(name).absolute()) for name in images]
    opened = [load_reference(place, Path("/")) for place in places]
    sizes = [image.size for image in opened]
    if target_image is None and len(images) == 1:
        target_image = 0
    if target_image is not None and not 0 <= target_image < len(images):
        raise UserError(
            f"--target-image is {target_image + 1}; expected 1 to {len(images)}, the images given"
        )
    sample = GroundingSample(
        id="question",
        benchmark="question",
        task="question",
        split="test",
        images=tuple(places),
        widths=tuple(width for width, _ in sizes),
        heights=tuple(height for _, height in sizes),
        instruction=instruction,
        targets=(),
        image_is_given=target_image is not None,
        cluster="question",
        extra={"expression": instruction},
        given_image=target_image,
    )
    args = {**model_args, "pretrained": model_folder(str(model_args["pretrained"]))}
    with given_options(options):
        try:
            settings = resolve_settings(ModelUnderTest(REFERENCE_MODEL, args), {})
        except UserError as error:  # an evaluation's option has another name here
            raise UserError(str(error).replace("--model_args", "--model")) from error
    dialect = settings.make_dialect()
    stated = [dialect.input_size(size) for size in sizes] if dialect.needs_input_size else None
    prompt = build_prompt(sample, dialect, settings.prompt.value, input_sizes=stated)
    disable_progress_bar()  # type: ignore[no-untyped-call]
    backend = ReferenceModel(**args)
    backend.require_readable([dialect])
    content = [*({"type": "image"} for _ in images), {"type": "text", "text": prompt}]
    request = Request(
        [{"role": "user", "content": content}],
        lambda: opened,
        sizes,
        {"max_new_tokens": max_new_tokens},
        special_tokens=dialect.needs_special_tokens,
    )
    ((_, response),) = next(iter(backend.generator.run([request])))
    if response.text is None:
        raise UserError(
            f"the model did not answer: {response.error}; give smaller images or limits"
        )
    answer = parse_answer(
        response.text,
        dialect,
        image_sizes=sizes,
        input_sizes=response.input_sizes or stated,
        target_image=sample.given_image,
        image_is_given=sample.image_is_given,
        prompt=prompt,
        protocol=settings.protocol.value,
    )
    place = answer.image_index if target_image is None else target_image
    return Grounded(places, sizes, prompt, response, answer, place, settings)
