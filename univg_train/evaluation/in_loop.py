"""A benchmark's questions asked of a model in memory, and scored as everywhere else.

The prompt is the one of the evaluation tasks (`univg_eval.prompts.build_prompt` behind the images),
the chat template is the model's own, answers are greedy, and `univg_eval.scoring` reads them.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from univg_eval.dialects import Dialect
from univg_eval.errors import UserError
from univg_eval.images.reading import open_images
from univg_eval.prompts import build_prompt
from univg_eval.samples import GroundingSample
from univg_eval.scoring import Response, SampleScore, aggregate, score_samples
from univg_train.evaluation.generation import undisturbed
from univg_train.evaluation.settings import MAX_NEW_TOKENS
from univg_train.runs.resizing import require_same_resize

__all__ = ["Asking", "Evaluation", "answer_samples", "evaluate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How a model is asked and read.

    Attributes:
        dialect: how it writes boxes, with the pixel limits that its processor has.
        style: ``think`` or ``direct``, see `univg_eval.prompts`.
        protocol: the scoring rule.
        root: the data root; None: the default of `univg_eval.samples.data_root`.
        batch_size: questions that a process answers at once.
        max_new_tokens: at most so many tokens an answer.
    """

    dialect: Dialect
    style: str
    protocol: str = "univg"
    root: str | os.PathLike[str] | None = None
    batch_size: int = 8
    max_new_tokens: int = MAX_NEW_TOKENS

    def input_sizes(self, sample: GroundingSample) -> list[tuple[int, int]] | None:
        """(width, height) of each image after the model's resize; None where nothing needs it."""
        if not self.dialect.needs_input_size or sample.image_sizes is None:
            return None
        return [self.dialect.input_size(size) for size in sample.image_sizes]

    def prompt(self, sample: GroundingSample) -> str:
        """The text that follows the images."""
        return build_prompt(sample, self.dialect, self.style, input_sizes=self.input_sizes(sample))

    @property
    def generation(self) -> dict[str, Any]:
        """Arguments of ``generate``; whatever else the model's generation_config says holds."""
        return {"max_new_tokens": self.max_new_tokens, "do_sample": False, "num_beams": 1}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Answers and scores, in the order of the samples.

    Attributes:
        samples: the questions.
        responses: what the model said, with the prompt and the sizes it is read with.
        scores: one a sample.
        results: ``{"tasks": …, "macro": …}`` of `univg_eval.scoring.aggregate`.
        wall_time_s: seconds of asking and scoring.
    """

    samples: Sequence[GroundingSample]
    responses: Sequence[Response]
    scores: Sequence[SampleScore]
    results: Mapping[str, Any]
    wall_time_s: float


def evaluate(
    model: Any,
    processor: Any,
    samples: Sequence[GroundingSample],
    asking: Asking,
    *,
    accelerator: Any = None,
    in_step: bool = False,
) -> Evaluation:
    """Ask and score; the model, its mode and all random states are left as they were.

    Args:
        model: of transformers, not wrapped.
        processor: with the pixel limits of the run.
        samples: the questions.
        asking: how they are asked and read.
        accelerator: of several processes, each of which answers its share and gets all results;
            None: this process alone.
        in_step: a forward pass needs all processes, see
            `univg_train.evaluation.generation.weights_are_spread`.

    Raises:
        UserError: see `answer_samples`; what one process has met is raised in all of them.
    """
    started = time.monotonic()
    rank, world = 0, 1
    if accelerator is not None:
        rank, world = accelerator.process_index, accelerator.num_processes
    texts: dict[int, str] = {}
    problems: list[str] = []
    try:
        texts = answer_samples(
            model, processor, samples, asking, process=(rank, world), in_step=in_step
        )
    except UserError as error:
        # In step, the others wait within a pass, where nobody can tell them.
        if world == 1 or in_step:
            raise
        problems = [str(error)]
    if world > 1:
        from accelerate.utils import gather_object

        texts = dict(gather_object(list(texts.items())))
        problems = gather_object(problems)
        if problems:
            raise UserError(problems[0])
    responses = [
        Response(
            texts[position],
            image_sizes=sample.image_sizes,
            input_sizes=asking.input_sizes(sample),
            prompt=asking.prompt(sample),
        )
        for position, sample in enumerate(samples)
    ]
    scores = score_samples(samples, responses, asking.dialect, protocol=asking.protocol)
    return Evaluation(samples, responses, scores, aggregate(scores), time.monotonic() - started)


def answer_samples(
    model: Any,
    processor: Any,
    samples: Sequence[GroundingSample],
    asking: Asking,
    *,
    process: tuple[int, int] = (0, 1),
    in_step: bool = False,
) -> dict[int, str]:
    """Greedy answers of a model in memory.

    Args:
        model, processor, samples, asking, in_step: as for `evaluate`.
        process: index of this process, and how many there are. Each takes every so many-th
            question, those with as many images and about as long prompts together.

    Returns:
        Position in `samples` → the whole answer without special tokens, of this process's share.

    Raises:
        UserError: an image cannot be read or has not the size recorded; or the dialect is in
            pixels of the resized image and the processor resizes otherwise.
    """
    require_same_resize(processor, asking.dialect, model.name_or_path or "the model")
    rank, world = process
    prompts = [asking.prompt(sample) for sample in samples]
    order = sorted(range(len(samples)), key=lambda i: (len(samples[i].images), len(prompts[i]), i))
    share = order[rank::world]
    # As many batches in every process: where weights are spread, none may be missing in a pass.
    batches = math.ceil(math.ceil(len(order) / world) / asking.batch_size)
    answers: dict[int, str] = {}
    with undisturbed(model), torch.no_grad():
        model.eval()
        for batch in range(batches):
            chosen = share[batch * asking.batch_size : (batch + 1) * asking.batch_size]
            if not chosen and not in_step:
                break
            asked = chosen or order[:1]
            texts = _generate(
                model,
                processor,
                [samples[i] for i in asked],
                [prompts[i] for i in asked],
                asking,
                in_step,
            )
            if chosen:
                answers.update(zip(chosen, texts, strict=True))
    return answers


def _generate(
    model: Any,
    processor: Any,
    samples: Sequence[GroundingSample],
    prompts: Sequence[str],
    asking: Asking,
    in_step: bool,
) -> list[str]:
    images = [open_images(sample, asking.root) for sample in samples]
    texts = [
        processor.apply_chat_template(_turn(len(shown), prompt), add_generation_prompt=True)
        for shown, prompt in zip(images, prompts, strict=True)
    ]
    # As in transformers' own apply_chat_template: a beginning that is there is not added again.
    begin = processor.tokenizer.bos_token
    inputs = processor(
        text=texts,
        images=images,
        padding=True,
        padding_side="left",
        add_special_tokens=begin is None or not texts[0].startswith(begin),
        return_tensors="pt",
    )
    inputs = inputs.to(model.device, dtype=model.dtype)
    output = model.generate(**inputs, **asking.generation, use_cache=True, synced_gpus=in_step)
    new = output[:, inputs["input_ids"].shape[1] :]
    decoded: list[str] = processor.batch_decode(
        new, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return decoded


def _turn(n_images: int, prompt: str) -> list[dict[str, Any]]:
    """One turn of the user: the images, then the text."""
    content: list[dict[str, Any]] = [{"type": "image"} for _ in range(n_images)]
    return [{"role": "user", "content": [*content, {"type": "text", "text": prompt}]}]
