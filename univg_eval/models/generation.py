"""Responses of a checkpoint in memory: batches by true length, nothing dropped, nothing re-encoded.

Decoding, padding and the sizes of images are those of the model's own processor. A batch that does
not fit into the memory is halved, and so is the budget of all batches after it. A request whose
images cannot be opened or resized is lost, and no other one.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from univg_eval.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Generator", "Request", "Response", "encode", "plan_batches", "prompt_text"]

_logger = logging.getLogger(__name__)

# Kosmos-2 of transformers 5.23 counts the positions of new tokens from the padded prompt's end: in
# a batch with padding its responses change.
_ALONE = frozenset({"kosmos-2"})

Turns = Sequence[Mapping[str, Any]]
Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Request:
    """One conversation to be continued.

    Attributes:
        turns: in the form of chat templates, with ``{"type": "image"}`` where an image goes.
        open_images: opens them, in this order.
        image_sizes: their (width, height), where known without opening.
        options: arguments of ``generate``.
        stop: texts that end a response, and are not part of it.
        special_tokens: whether the response keeps them (the end of the turn and padding apart).
    """

    turns: Turns
    open_images: Callable[[], Sequence[Image]]
    image_sizes: Sequence[Size] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    stop: Sequence[str] = ()
    special_tokens: bool = False


@dataclass(frozen=True, slots=True)
class Response:
    """What a model said.

    Attributes:
        text: None where the request failed.
        prompt_tokens: of the prompt, images included, without padding.
        new_tokens: that were generated, the end of the turn included.
        input_sizes: (width, height) of each image as the model saw it; None where the processor
            does not report them.
        error: why there is no text.
    """

    text: str | None
    prompt_tokens: int
    new_tokens: int
    input_sizes: list[Size] | None
    error: str | None = None


def prompt_text(processor: Any, turns: Turns, **template: Any) -> str:
    """The prompt as the model reads it, one mark for each image.

    A model without a chat template (PaliGemma, Florence-2, Kosmos-2) has the texts of the turns,
    after the marks of the images where its processor takes marks.

    Args:
        template: variables of the chat template.
    """
    if processor.chat_template is not None:
        text: str = processor.apply_chat_template(
            list(turns), add_generation_prompt=True, tokenize=False, **template
        )
        return text
    contents = [part for turn in turns for part in turn["content"]]
    mark = getattr(processor, "image_token", "")
    n_marks = sum(part["type"] == "image" for part in contents) if _marks_images(processor) else 0
    return mark * n_marks + "".join(part["text"] for part in contents if part["type"] == "text")


def _marks_images(processor: Any) -> bool:
    return type(processor).__name__ == "PaliGemmaProcessor"


def encode(
    processor: Any,
    texts: Sequence[str],
    images: Sequence[Sequence[Image]],
    *,
    padding_side: str = "left",
) -> Any:
    """A batch as the model takes it.

    Args:
        processor: of the model.
        texts: of `prompt_text`.
        images: of each.
        padding_side: left where the response goes on from the prompt's end; right for a model whose
            encoder reads the prompt, and counts positions from its beginning.
    """
    # As in transformers' own apply_chat_template: a beginning that is there is not added again.
    begin = processor.tokenizer.bos_token
    shown: Sequence[Any] | None = images
    if processor.chat_template is None and not _marks_images(processor):
        shown = [only for (only,) in images]
    elif not any(images):
        shown = None
    # Kosmos-2 pads on the side that is the tokenizer's, whatever the call says.
    processor.tokenizer.padding_side = padding_side
    return processor(
        text=list(texts),
        images=shown,
        padding=True,
        padding_side=padding_side,
        add_special_tokens=begin is None or not texts[0].startswith(begin),
        return_tensors="pt",
    )


def plan_batches(lengths: Sequence[int], batch_size: int, token_budget: int) -> list[list[int]]:
    """Batches of requests that are about as long, the longest first.

    Args:
        lengths: tokens of each prompt.
        batch_size: at most so many requests in a batch.
        token_budget: at most so many tokens in a batch, padding included; one request that is
            longer is a batch of its own.

    Returns:
        Positions in `lengths`; each once.
    """
    batches: list[list[int]] = []
    for position in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batches:
            last = batches[-1]
            # The first one is the longest, to which the others are padded.
            if len(last) < batch_size and lengths[last[0]] * (len(last) + 1) <= token_budget:
                last.append(position)
                continue
        batches.append([position])
    return batches


class _Encoded:
    """The batches of a plan, encoded when they are asked for: a dataset of torch."""

    def __init__(self, generator: Generator, batches: Sequence[Sequence[_Prompt]]) -> None:
        self._generator = generator
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> _Inputs:
        return self._generator.encode(self._batches[index])


@dataclass(frozen=True, slots=True)
class _Prompt:
    position: int
    text: str
    request: Request


@dataclass(frozen=True, slots=True)
class _Inputs:
    """A batch as the model takes it; sent between processes, which requests cannot be.

    Attributes:
        places: of the requests that are encoded, in the batch.
        tensors: of the model; None where there are no such requests.
        lost: place in the batch → why it is not encoded.
    """

    places: Sequence[int]
    tensors: Any
    lost: Mapping[int, str]


class Generator:
    """A model and its processor that answer requests.

    Attributes:
        batch_size: at most so many requests in a batch.
        token_budget: of a batch, see `plan_batches`; halves when the memory is exhausted.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        batch_size: int = 1,
        token_budget: int = 32768,
        workers: int = 0,
        template: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep them.

        Args:
            workers: processes that open and encode images ahead of the model; 0: a thread.
            template: variables of the chat template.
        """
        self.model, self.processor = model, processor
        self.token_budget = token_budget
        self.batch_size = 1 if model.config.model_type in _ALONE else batch_size
        self._workers = workers
        self._template = dict(template or {})
        tokenizer = processor.tokenizer
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token

    def run(
        self, requests: Sequence[Request], done: Callable[[int], bool] = lambda _: False
    ) -> Iterator[list[tuple[int, Response]]]:
        """Answer all requests, batch by batch.

        Args:
            requests: in any order; those with other `options` get batches of their own.
            done: whether the response at a position is known. A batch is left out if it is for
                all of them, so that a run that goes on has the batches of one that was never
                stopped.

        Yields:
            (position, response) of each request of a batch; those whose images cannot be shown
            have an `error`.
        """
        batches = [
            batch for batch in self._plan(requests) if not all(done(p.position) for p in batch)
        ]
        for batch, inputs in zip(batches, self._encoded(batches), strict=True):
            answers = self._answer(batch, inputs)
            yield [(prompt.position, answer) for prompt, answer in zip(batch, answers, strict=True)]

    def _encoded(self, batches: Sequence[Sequence[_Prompt]]) -> Iterator[_Inputs]:
        """Each batch, made while the model answers the one before."""
        import torch
        from torch.utils.data import DataLoader

        if self._workers:
            loader: Any = DataLoader(
                _Encoded(self, batches),  # type: ignore[arg-type]
                batch_size=None,
                num_workers=min(self._workers, len(batches)),
                collate_fn=_as_it_is,
            )
            yield from loader
            return
        if len(batches) < 2:
            yield from map(self.encode, batches)
            return
        # A tokenizer cannot pad in one thread and decode in another.
        processor = copy.deepcopy(self.processor)
        with ThreadPoolExecutor(1, "encode", torch.set_num_threads, (1,)) as thread:
            ahead = thread.submit(self.encode, batches[0], processor)
            for batch in batches[1:]:
                inputs, ahead = ahead.result(), thread.submit(self.encode, batch, processor)
                yield inputs
            yield ahead.result()

    def encode(self, batch: Sequence[_Prompt], processor: Any = None) -> _Inputs:
        """Open a batch's images and encode it, without the requests that this fails for.

        Args:
            batch: of `run`.
            processor: another copy of the model's; None: `processor`.
        """
        opened: dict[int, Sequence[Image]] = {}
        lost: dict[int, str] = {}
        for place, prompt in enumerate(batch):
            try:
                opened[place] = prompt.request.open_images()
            except UserError as error:
                lost[place] = str(error)
        processor = processor or self.processor
        try:
            tensors = self._tensors(batch, opened, processor)
        except ValueError:  # as Qwen's resize raises for an image over 200 times as long as wide
            for place, images in list(opened.items()):
                try:
                    self._tensors(batch, {place: images}, processor)
                except ValueError as error:
                    sizes = ", ".join(f"{image.width}x{image.height}" for image in images)
                    lost[place] = f"the processor takes no images of {sizes} pixels: {error}"
                    del opened[place]
            tensors = self._tensors(batch, opened, processor)
        return _Inputs(list(opened), tensors, lost)

    def _tensors(
        self, batch: Sequence[_Prompt], opened: Mapping[int, Sequence[Image]], processor: Any
    ) -> Any:
        if not opened:
            return None
        return encode(
            processor,
            [batch[place].text for place in opened],
            list(opened.values()),
            padding_side="right" if self.model.config.is_encoder_decoder else "left",
        )

    def prompt_length(self, text: str, request: Request) -> int:
        """About how many tokens a prompt has, images included, without opening them.

        Exact for the families with one mark an image; without the tokens that others put around
        and between the parts of an image, and of the text alone where the processor does not count.
        """
        length = len(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"])
        count = getattr(self.processor, "_get_num_multimodal_tokens", None)
        if count is None or not request.image_sizes:
            return length
        sizes = [(height, width) for width, height in request.image_sizes]
        try:
            tokens: list[int] = count(image_sizes=sizes)["num_image_tokens"]
        except ValueError:  # an image that the processor will not take
            return length
        return length + sum(tokens) - len(tokens)

    def _plan(self, requests: Sequence[Request]) -> list[list[_Prompt]]:
        groups: dict[str, list[_Prompt]] = {}
        for position, request in enumerate(requests):
            text = prompt_text(self.processor, request.turns, **self._template)
            options = json.dumps([dict(request.options), list(request.stop)], sort_keys=True)
            groups.setdefault(options, []).append(_Prompt(position, text, request))
        batches = []
        for prompts in groups.values():
            lengths = [self.prompt_length(prompt.text, prompt.request) for prompt in prompts]
            plan = plan_batches(lengths, self.batch_size, self.token_budget)
            batches += [[prompts[i] for i in batch] for batch in plan]
        return batches

    def _answer(self, batch: Sequence[_Prompt], inputs: _Inputs) -> list[Response]:
        answers = {}
        for place, why in inputs.lost.items():
            _logger.warning("a request is lost: %s", why)
            answers[place] = Response(None, 0, 0, None, why)
        if inputs.places:
            encoded = [batch[place] for place in inputs.places]
            found = self._answer_encoded(encoded, inputs.tensors)
            answers.update(zip(inputs.places, found, strict=True))
        return [answers[place] for place in range(len(batch))]

    def _answer_encoded(self, batch: Sequence[_Prompt], tensors: Any) -> list[Response]:
        import torch

        rows, width = tensors["input_ids"].shape
        if rows > 1 and rows * width > self.token_budget:
            return self._halves(batch)
        try:
            return self._generate(batch, tensors)
        except torch.OutOfMemoryError as error:
            message = str(error).splitlines()[0]
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if rows == 1:
            lost = Response(None, width, 0, None, f"out of memory: {message}")
            return [lost]
        self.token_budget = min(self.token_budget, rows * width) // 2
        _logger.warning(
            "out of memory with %d prompts of %d tokens; batches have at most %d tokens from here",
            rows,
            width,
            self.token_budget,
        )
        return self._halves(batch)

    def _halves(self, batch: Sequence[_Prompt]) -> list[Response]:
        middle = len(batch) // 2
        return [
            answer
            for half in (batch[:middle], batch[middle:])
            for answer in self._answer(half, self.encode(half))
        ]

    def _generate(self, batch: Sequence[_Prompt], inputs: Any) -> list[Response]:
        import torch

        model, tokenizer = self.model, self.processor.tokenizer
        inputs = inputs.to(model.device, dtype=model.dtype)
        with torch.inference_mode():
            output = model.generate(
                **{name: value for name, value in inputs.items() if name != "labels"},
                **_options(batch[0].request.options),
                pad_token_id=tokenizer.pad_token_id,
                use_cache=True,
            )
        begin = 1 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
        sizes = _input_sizes(self.processor, inputs, [_n_images(p.request) for p in batch])
        ends = _end_tokens(model, tokenizer)
        answers = []
        for row, prompt in enumerate(batch):
            new = output[row, begin:].tolist()
            end = next((i for i, token in enumerate(new) if token in ends), len(new))
            keeps = prompt.request.special_tokens
            text = tokenizer.decode(
                new[:end], skip_special_tokens=not keeps, clean_up_tokenization_spaces=False
            )
            for mark in prompt.request.stop:
                text = text.split(mark)[0] if mark else text
            answers.append(
                Response(
                    text,
                    int(inputs["attention_mask"][row].sum()),
                    min(end + 1, len(new)),
                    sizes[row],
                )
            )
        return answers


def _as_it_is(batch: Any) -> Any:
    return batch


def _n_images(request: Request) -> int:
    parts = [part for turn in request.turns for part in turn["content"]]
    return sum(part["type"] == "image" for part in parts)


def _options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``generate``: greedy unless there is a temperature."""
    options = {"num_beams": 1, **given}
    temperature = options.pop("temperature", None) or 0.0
    sample = options.pop("do_sample", temperature > 0)
    if sample and temperature > 0:
        return {**options, "do_sample": True, "temperature": temperature}
    for name in ("top_p", "top_k"):
        options.pop(name, None)
    return {**options, "do_sample": False, "temperature": None, "top_p": None, "top_k": None}


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    ends = model.generation_config.eos_token_id
    ends = [ends] if isinstance(ends, int) else list(ends or ())
    return {*ends, tokenizer.pad_token_id, tokenizer.eos_token_id} - {None}


def _input_sizes(
    processor: Any, inputs: Any, n_images: Sequence[int]
) -> Sequence[list[Size] | None]:
    """Sizes of the images after the processor's resize, where it reports them as a grid."""
    patch = getattr(processor.image_processor, "patch_size", None)
    grid = inputs.get("image_grid_thw")
    if grid is None or not isinstance(patch, int):
        return [None] * len(n_images)
    sizes = [(int(width) * patch, int(height) * patch) for _, height, width in grid.tolist()]
    rows, place = [], 0
    for n in n_images:
        rows.append(sizes[place : place + n])
        place += n
    return rows
