"""Responses of a model in memory, also of one in training, scored as everywhere else.

The prompt is the one of the evaluation tasks (`univg_eval.prompts.build_prompt` behind the images),
the chat template is the model's own, decoding is greedy, and `univg_eval.scoring` reads the result.
"""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from univg_eval.dialects import Dialect
from univg_eval.errors import UserError
from univg_eval.images.reading import open_images
from univg_eval.models.generation import encode, prompt_text
from univg_eval.models.resizing import require_same_resize
from univg_eval.prompts import build_prompt
from univg_eval.samples import GroundingSample
from univg_eval.scoring import Response, SampleScore, aggregate, score_samples
from univg_train.evaluation.settings import MAX_NEW_TOKENS

__all__ = [
    "Evaluation",
    "Prompting",
    "evaluate",
    "generate_responses",
    "generating",
    "preserved_state",
]

_CHECKPOINTING = "gradient_checkpointing"
"""The flag that transformers' layers look at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompting:
    """How a model is prompted and read.

    Attributes:
        dialect: how it writes boxes, with the pixel limits that its processor has.
        style: ``think`` or ``direct``, see `univg_eval.prompts`.
        protocol: the scoring rule.
        root: the data root; None: the default of `univg_eval.samples.data_root`.
        batch_size: samples that a process answers at once.
        max_new_tokens: at most so many tokens a response.
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
    """Responses and scores, in the order of the samples.

    Attributes:
        samples: that were evaluated.
        responses: what the model said, with the prompt and the sizes it is read with.
        scores: one a sample.
        results: ``{"tasks": …, "macro": …}`` of `univg_eval.scoring.aggregate`.
        wall_time_s: seconds of generating and scoring.
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
    prompting: Prompting,
    *,
    accelerator: Any = None,
    in_step: bool = False,
) -> Evaluation:
    """Generate and score; the model, its mode and all random states are left as they were.

    Args:
        model: of transformers, not wrapped.
        processor: with the pixel limits of the run.
        accelerator: of several processes, each of which answers its share and gets all results;
            None: this process alone.
        in_step: a forward pass needs all processes, see
            `univg_train.runs.sharding.weights_are_spread`.

    Raises:
        UserError: see `generate_responses`; what one process has met is raised in all of them.
    """
    started = time.monotonic()
    rank, world = 0, 1
    if accelerator is not None:
        rank, world = accelerator.process_index, accelerator.num_processes
    texts: dict[int, str] = {}
    problems: list[str] = []
    try:
        texts = generate_responses(
            model, processor, samples, prompting, process=(rank, world), in_step=in_step
        )
    except UserError as error:
        # In step, the others wait within a pass, where nothing can reach them.
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
            input_sizes=prompting.input_sizes(sample),
            prompt=prompting.prompt(sample),
        )
        for position, sample in enumerate(samples)
    ]
    scores = score_samples(samples, responses, prompting.dialect, protocol=prompting.protocol)
    return Evaluation(samples, responses, scores, aggregate(scores), time.monotonic() - started)


def generate_responses(
    model: Any,
    processor: Any,
    samples: Sequence[GroundingSample],
    prompting: Prompting,
    *,
    process: tuple[int, int] = (0, 1),
    in_step: bool = False,
) -> dict[int, str]:
    """Greedy responses of a model in memory.

    Args:
        model, processor, samples, prompting, in_step: as for `evaluate`.
        process: index of this process, and how many there are. Each takes every so many-th
            sample, those with as many images and about as long prompts together.

    Returns:
        Position in `samples` → the whole response without special tokens, of this process's share.

    Raises:
        UserError: an image cannot be read or has not the size recorded; or the dialect is in
            pixels of the resized image and the processor resizes otherwise.
    """
    require_same_resize(processor, prompting.dialect, model.name_or_path or "the model")
    rank, world = process
    prompts = [prompting.prompt(sample) for sample in samples]
    order = sorted(range(len(samples)), key=lambda i: (len(samples[i].images), len(prompts[i]), i))
    share = order[rank::world]
    # As many batches in every process: where weights are spread, none may be missing in a pass.
    batches = math.ceil(math.ceil(len(order) / world) / prompting.batch_size)
    responses: dict[int, str] = {}
    with preserved_state(model), torch.no_grad():
        model.eval()
        for batch in range(batches):
            chosen = share[batch * prompting.batch_size : (batch + 1) * prompting.batch_size]
            if not chosen and not in_step:
                break
            given = [(samples[i], prompts[i]) for i in chosen or order[:1]]
            texts = _generate(model, processor, given, prompting, in_step)
            if chosen:
                responses.update(zip(chosen, texts, strict=True))
    return responses


def _generate(
    model: Any,
    processor: Any,
    given: Sequence[tuple[GroundingSample, str]],
    prompting: Prompting,
    in_step: bool,
) -> list[str]:
    images = [open_images(sample, prompting.root) for sample, _ in given]
    texts = []
    for sample, prompt in given:
        content = [*({"type": "image"} for _ in sample.images), {"type": "text", "text": prompt}]
        texts.append(prompt_text(processor, [{"role": "user", "content": content}]))
    inputs = encode(processor, texts, images)
    inputs = inputs.to(model.device, dtype=model.dtype)
    output = model.generate(**inputs, **prompting.generation, use_cache=True, synced_gpus=in_step)
    new = output[:, inputs["input_ids"].shape[1] :]
    decoded: list[str] = processor.batch_decode(
        new, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return decoded


# --- a model in training -------------------------------------------------------------------------


@contextmanager
def preserved_state(model: Any) -> Iterator[None]:
    """Put back what work between two steps may change: random states, and each module's mode.

    Dropout, shuffling and sampled rollouts then draw the same numbers as without it.
    """
    modes = [(module, module.training) for module in model.modules()]
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = torch.cuda.get_rng_state_all() if used else None
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if devices is not None:
            torch.cuda.set_rng_state_all(devices)
        for module, training in modes:
            module.training = training


@contextmanager
def generating(trainer: Any) -> Iterator[Any]:
    """The model of a trainer as one that generates, in evaluation mode, as TRL's GRPO does it.

    Weights that ZeRO-3 has spread over the processes are gathered. Gradient checkpointing is off,
    and afterwards exactly as it was. All processes have to enter together.
    """
    from trl.models.utils import unwrap_model_for_generation

    with (
        preserved_state(trainer.model),
        _without_checkpointing(trainer.model),
        unwrap_model_for_generation(
            trainer.model_wrapped,
            trainer.accelerator,
            gather_deepspeed3_params=getattr(trainer.args, "ds3_gather_for_generation", True),
        ) as model,
    ):
        model.eval()
        yield model


@contextmanager
def _without_checkpointing(model: Any) -> Iterator[None]:
    """Turn gradient checkpointing off by the flags of the modules alone.

    To turn it off and on by the model's methods, as TRL does where it finds it on, would lose what
    the trainer has set up: every n-th layer, offloading, selective recomputing.
    """
    layers = [module for module in model.modules() if getattr(module, _CHECKPOINTING, False)]
    for layer in layers:
        setattr(layer, _CHECKPOINTING, False)
    try:
        yield
    finally:
        for layer in layers:
            setattr(layer, _CHECKPOINTING, True)
