"""Watching a backend of lmms-eval while it answers, and measuring what that takes.

lmms-eval (0.7.3) sees responses when the last one is there, and counts tokens for some backends
alone: a batch's padding is counted as generated, and words stand for tokens where a server names
no usage. So the calls below are wrapped while ``generate_until`` runs, each where every backend of
its kind passes through:

====================================  ==========================================================
``CacheHook.add_partial``             most backends on transformers hand each response to it
``GenerationMixin.generate``          prompt and answer tokens of every batch on transformers
``Completions.create`` of openai      response, usage and cost of every request to a server
``LLM.chat`` and ``generate`` of vllm  response and tokens of every batch
``tqdm`` of the backend's module      how many requests are done, for all; its bar is not shown
====================================  ==========================================================

What a backend says by none of these stays unknown. Token counts reach lmms-eval as its own
``TokenCounts``, so that its logs have them.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from lmms_eval.api.instance import (
    GenerationResult,
    Instance,
    TokenCounts,
    unwrap_generation_output,
)
from lmms_eval.api.model import CacheHook, lmms
from loguru import logger
from tqdm import tqdm

from univg_eval.images.controls import MARK as CONTROL
from univg_eval.lmms.backends.samples import SampleModel
from univg_eval.lmms.response_journal import ResponseJournal
from univg_eval.lmms.task import GroundingRequest, GroundingTask
from univg_eval.redaction import secret_values, without_secrets, without_values
from univg_eval.runs.failed_requests import failed_request, split_failed_request
from univg_eval.samples import GroundingSample

__all__ = ["READABLE", "Generation", "Listener", "Look", "Measured", "measured_generation"]

READABLE = ("ok", "none")
"""Statuses of an answer that can be read."""


@dataclass(slots=True)
class Generation:
    """How far a generation is.

    Attributes:
        total: requests.
        done: those that are answered, or have failed.
        seen: responses that were seen; 0 with a backend that shows none before the last.
        answered, truncated: of these, those that can be read, and those that were cut off.
        answer_tokens: generated so far, as far as known.
        seconds: since the first request.
    """

    total: int
    done: int = 0
    seen: int = 0
    answered: int = 0
    truncated: int = 0
    answer_tokens: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Measured:
    """What generating took in this process; see `univg_eval.runs.manifest.Usage`.

    Attributes:
        n: requests that went to the model, in all processes; not those answered from a cache.
        seconds: that it took.
        costs: by (task, number of the row), what a service said.
        peak_memory: bytes and how they were measured; None before the generation.
    """

    n: int = 0
    seconds: float = 0.0
    costs: dict[tuple[str, int], float] = field(default_factory=dict)
    peak_memory: tuple[int, str] | None = None


Listener = Callable[[Generation], None]
Look = Callable[[Sequence[GroundingRequest], Sequence[str | None]], None]


@contextlib.contextmanager
def measured_generation(
    backend: type[lmms],
    on_progress: Listener | None = None,
    first: tuple[int, Look] | None = None,
    secrets: Collection[str] = (),
    journal: ResponseJournal | None = None,
) -> Iterator[Measured]:
    """Watch `backend` wherever it generates in the block.

    Args:
        backend: class of the backend, of lmms-eval's registry.
        on_progress: called with what is known, from any thread, one call at a time.
        first: a number, and what looks at that many responses before the others are asked for;
            it may raise. They are then asked for in one go, apart from the others.
        secrets: hidden in responses and in the messages of failed requests, as those of the
            environment are; see `univg_eval.redaction`.
        journal: of the responses; None: they are kept in memory alone.

    Yields:
        Filled in when the block ends.
    """
    measured = Measured()
    original = backend.generate_until
    functions = _own_functions(backend, "generate_until")

    @functools.wraps(original)
    def generate_until(lm: lmms, requests: list[Instance]) -> list[Any]:
        watch = _Watch(requests, on_progress)

        def answer(part: list[Instance]) -> list[Any]:
            outputs = original(lm, part)
            if watch.exceptions and not isinstance(lm, SampleModel):
                outputs = [_not_empty(output, watch.exceptions[0]) for output in outputs]
            known = secret_values().union(secrets)  # a --config file of lmms-eval sets some
            pairs = zip(part, outputs, strict=True)
            return [
                _without_keys(watch.lost_request(request) or output, known)
                for request, output in pairs
            ]

        def ask(part: list[Instance], begin: int) -> list[Any]:
            if journal is None:
                watch.begin_part(begin, len(part))
                return answer(part)
            return journal.ask(part, answer, lambda done, n: watch.begin_part(begin + done, n))

        kept_before = _n_kept(lm, journal)
        _reset_peak_memory()
        started = time.perf_counter()
        with watch.installed(lm, functions):
            head = 0
            outputs: list[Any] = []
            if first is not None and len(requests) > first[0]:
                head = first[0]
                outputs = ask(requests[:head], 0)
                _show(first[1], requests[:head], outputs)
            outputs = [*outputs, *ask(requests[head:], head)]
            watch.finish()
        kept = _n_kept(lm, journal) - kept_before
        n_processes = int(os.environ.get("WORLD_SIZE", "1"))
        # lmms-eval gives each process as many.
        measured.n += (len(requests) - kept) * n_processes
        measured.seconds += time.perf_counter() - started
        measured.peak_memory = _peak_memory()
        if n_processes == 1:  # what the others paid is not known
            for place, cost in watch.costs.items():
                measured.costs[place] = measured.costs.get(place, 0.0) + cost
        return [
            _with_counts(output, counts)
            for output, counts in zip(outputs, watch.counts(outputs, kept), strict=True)
        ]

    with _set(backend, "generate_until", generate_until):
        yield measured


def _n_kept(lm: lmms, journal: ResponseJournal | None) -> int:
    """Responses so far that an earlier start had: of the backend's own journal, and of ours."""
    return int(getattr(lm, "n_kept", 0)) + (journal.n_kept if journal else 0)


def _not_empty(output: Any, exception: str) -> Any:
    """A failed request in place of the empty response that a swallowed exception left."""
    return failed_request(exception) if unwrap_generation_output(output)[0] == "" else output


def _without_keys(output: Any, known: Collection[str]) -> Any:
    """The output without the keys that a server repeats, in its messages above all."""
    text, counts = unwrap_generation_output(output)
    if not isinstance(text, str):
        return output
    is_message = split_failed_request(text)[1] is not None
    shown = without_secrets(text, known=known) if is_message else without_values(text, known)
    return shown if isinstance(output, str) else GenerationResult(shown, counts)


def _show(look: Look, requests: Sequence[Instance], outputs: Sequence[Any]) -> None:
    pairs = [
        (request, unwrap_generation_output(output)[0])
        for request, output in zip(requests, outputs, strict=True)
        if isinstance(request, GroundingRequest)
    ]
    look([request for request, _ in pairs], [text for _, text in pairs])


def _with_counts(output: Any, counts: TokenCounts | None) -> Any:
    if isinstance(output, GenerationResult) or (counts is not None and isinstance(output, str)):
        return GenerationResult(unwrap_generation_output(output)[0], counts)
    return output


class _Watch:
    """What is seen of the requests of one call of ``generate_until``."""

    def __init__(self, requests: Sequence[Instance], on_progress: Listener | None) -> None:
        self.costs: dict[tuple[str, int], float] = {}
        self.exceptions: list[str] = []
        """What generating on transformers raised; some backends go on with an empty response."""
        self._lost: dict[str, str] = {}
        """Samples whose images could not be shown, by `_shown`, and why."""
        self._requests = requests
        self._report = on_progress or (lambda _: None)
        self._lock = threading.RLock()
        self._started = time.monotonic()
        self._state = Generation(len(requests))
        self._begin, self._n_part = 0, len(requests)
        self._prompts: dict[str, deque[int]] = {}
        self._samples: dict[str, deque[int]] = {}
        self._opened: dict[int, None] = {}
        """Numbers of the requests whose images were opened, in order, and not yet answered."""
        self._to_count: deque[int] = deque()
        """The same, until their tokens are counted."""
        self._tokens: dict[int, TokenCounts] = {}
        self._n_generated = 0
        self._in_generate = False
        for number, request in enumerate(requests):
            self._prompts.setdefault(_prompt(request), deque()).append(number)
            if isinstance(request, GroundingRequest):
                self._samples.setdefault(request.doc["id"], deque()).append(number)

    @contextlib.contextmanager
    def installed(self, lm: lmms, functions: Sequence[Any]) -> Iterator[None]:
        """See the calls that the module's docstring names.

        Args:
            lm: the backend.
            functions: ``generate_until`` of its class and of the parents.
        """
        with contextlib.ExitStack() as stack:
            enter = stack.enter_context
            enter(_set(GroundingTask, "on_images", self._open))
            enter(_set(GroundingTask, "on_lost", self._lose))
            enter(_wrapped(CacheHook, "add_partial", self._on_partial))
            bar = functools.partial(_HiddenBar, self._on_bar)
            for function in functions:
                for name in {"tqdm", "make_progress"} & function.__globals__.keys():
                    enter(_set(sys.modules[function.__module__], name, bar))
            if found := sys.modules.get("transformers.generation.utils"):
                enter(_replaced(found.GenerationMixin, "generate", self._generate))
            client: Any = getattr(lm, "client", None)
            package = type(client).__module__.partition(".")[0]
            if package == "openai":
                owner = type(client.chat.completions)
                if isinstance(client, sys.modules["openai"].AsyncOpenAI):
                    enter(_replaced(owner, "create", self._create_async))
                else:
                    enter(_wrapped(owner, "create", self._on_completion))
            elif package == "vllm":
                for name in ("chat", "generate"):
                    enter(_replaced(type(client), name, self._generate_vllm))
            self._report_state()
            yield

    def begin_part(self, begin: int, n: int) -> None:
        """The backend is handed n requests, when `begin` are done."""
        self._begin, self._n_part = begin, n
        if begin > self._state.done:
            self._state.done = begin
            self._report_state()

    def finish(self) -> None:
        """The last response is there."""
        with self._lock:
            self._state.done = self._state.total
            self._report_state()

    def counts(self, outputs: Sequence[Any], n_kept: int) -> list[TokenCounts | None]:
        """Tokens of each request; None where they are not known.

        Args:
            outputs: of all requests.
            n_kept: those of them that an earlier start had.
        """
        if self._n_generated not in (0, len(self._requests) - n_kept):
            self._tokens.clear()  # more or fewer generations than requests: whose, is not known
        return [
            self._tokens.get(number) or _reported(unwrap_generation_output(output)[1])
            for number, output in enumerate(outputs)
        ]

    # What happens

    def _open(self, sample: GroundingSample) -> None:
        with self._lock:
            numbers = self._samples.get(sample.id)
            if numbers:
                number = numbers.popleft()
                self._opened[number] = None
                self._to_count.append(number)

    def _lose(self, sample: GroundingSample, why: str) -> None:
        with self._lock:
            self._lost[_shown(sample)] = why
        logger.warning("a request is lost: {}", why)

    def lost_request(self, request: Instance) -> str | None:
        """The text of a failed request where the sample's images could not be shown."""
        if not self._lost or not isinstance(request, GroundingRequest):
            return None
        why = self._lost.get(_shown(request.task.sample(request.doc)))
        return None if why is None else failed_request(why)

    def _respond(self, context: str | None, text: Any) -> int | None:
        """Note a response to the request with this context, and return the request's number."""
        with self._lock:
            number = self._claim(context)
            state = self._state
            state.seen += 1
            state.done = max(state.done, state.seen)
            request = None if number is None else self._requests[number]
            if isinstance(request, GroundingRequest) and isinstance(text, str):
                status = request.task.status_of(request.doc, text)
                state.answered += status in READABLE
                state.truncated += status == "truncated"
            self._report_state()
            return number

    def _claim(self, context: str | None) -> int | None:
        """The first unanswered request with this prompt, or whose prompt the context holds.

        Else the first whose images were opened: backends answer in that order.
        """
        numbers = self._prompts.get(context or "")
        while numbers:
            number = numbers.popleft()
            if number in self._opened or not self._opened:
                self._opened.pop(number, None)
                return number
        within = [n for n in self._opened if context and _prompt(self._requests[n]) in context]
        best = max(within, key=lambda n: len(_prompt(self._requests[n])), default=None)
        if best is None:
            best = next(iter(self._opened), None)
        if best is not None:
            del self._opened[best]
        return best

    def _count(self, number: int | None, prompt: int | None, answer: int | None) -> None:
        with self._lock:
            if number is not None:
                self._tokens[number] = TokenCounts(input_tokens=prompt, output_tokens=answer)
            self._state.answer_tokens += answer or 0

    def _on_bar(self, n: float, total: float | None) -> None:
        """The backend's bar is at n of total; some count batches."""
        with self._lock:
            share = min(n / total, 1.0) if total else 0.0
            done = self._begin + round(self._n_part * share)
            if done > self._state.done:
                self._state.done = done
                self._report_state()

    def _report_state(self) -> None:
        self._state.seconds = time.monotonic() - self._started
        self._report(self._state)

    # The calls that are seen

    def _on_partial(self, _: None, arguments: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        _, _, request, text = [*arguments, *kwargs.values()]
        context = request[0] if isinstance(request, tuple | list) and request else None
        self._respond(context if isinstance(context, str) else None, text)

    def _generate(self, original: Callable[..., Any], model: Any, *args: Any, **kwargs: Any) -> Any:
        if self._in_generate:  # a draft model, or a model within one
            return original(model, *args, **kwargs)
        self._in_generate = True
        try:
            output = original(model, *args, **kwargs)
        except Exception as error:
            self.exceptions.append(f"{type(error).__name__}: {error}")
            raise
        finally:
            self._in_generate = False
        try:
            rows = _rows_of_transformers(model, args, kwargs, output)
        except (AttributeError, IndexError, TypeError, ValueError):
            rows = []  # another form of generation than is known here: its tokens are not known
        with self._lock:
            self._n_generated += len(rows)
            for prompt, answer in rows:
                number = self._to_count.popleft() if self._to_count else None
                self._count(number, prompt, answer)
        return output

    def _generate_vllm(
        self, original: Callable[..., Any], engine: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if self._in_generate:  # one of the two calls the other
            return original(engine, *args, **kwargs)
        self._in_generate = True
        try:
            outputs = _ask_vllm(functools.partial(original, engine), args, kwargs)
        finally:
            self._in_generate = False
        asked = _asked(args, kwargs)
        for request, output in zip(asked, outputs, strict=True):
            answer = output.outputs[0]
            number = self._respond(_text_of(request), answer.text)
            self._count(number, len(output.prompt_token_ids or ()) or None, len(answer.token_ids))
        return outputs

    def _on_completion(self, response: Any, _: Any, kwargs: Mapping[str, Any]) -> None:
        if not getattr(response, "choices", None):
            return  # an error in the form of a response, which the backend sends again
        number = self._respond(
            _text_of(kwargs.get("messages")), response.choices[0].message.content
        )
        usage = getattr(response, "usage", None)
        prompt, answer = (
            getattr(usage, name, None) or None for name in ("prompt_tokens", "completion_tokens")
        )
        self._count(number, prompt, answer)
        cost = getattr(usage, "cost", None)  # OpenRouter's, no field of OpenAI
        if number is not None and isinstance(cost, int | float):
            request = self._requests[number]
            place = (str(request.task_name), int(request.doc_id))
            with self._lock:
                self.costs[place] = self.costs.get(place, 0.0) + cost

    async def _create_async(
        self, original: Callable[..., Any], completions: Any, *args: Any, **kwargs: Any
    ) -> Any:
        response = await original(completions, *args, **kwargs)
        self._on_completion(response, args, kwargs)
        return response


def _ask_vllm(
    call: Callable[..., list[Any]], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[Any]:
    """The outputs of a batch; of a request that vLLM refuses, the text of a failed one.

    It refuses the whole batch for one prompt that is longer than the model takes.
    """
    try:
        return call(*args, **kwargs)
    except _refusals() as error:
        n = len(_asked(args, kwargs))
        if n == 1:
            text = failed_request(str(error))
            lost = SimpleNamespace(text=text, token_ids=())
            return [SimpleNamespace(outputs=[lost], prompt_token_ids=())]
    outputs = []
    for part in (slice(n // 2), slice(n // 2, n)):
        # Each request has its own sampling parameters, or all have the same.
        of_part = [value[part] if isinstance(value, list) else value for value in args]
        more = {k: value[part] if isinstance(value, list) else value for k, value in kwargs.items()}
        outputs += _ask_vllm(call, of_part, more)
    return outputs


def _refusals() -> tuple[type[Exception], ...]:
    """What vLLM raises for a request that it does not take; ValueError before version 0.32."""
    own = getattr(sys.modules.get("vllm.exceptions"), "VLLMClientError", None)
    return (ValueError,) if own is None else (ValueError, own)


def _asked(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Sequence[Any]:
    """Messages or prompts of a call of vLLM."""
    asked: Sequence[Any] = (
        args[0] if args else kwargs["messages" if "messages" in kwargs else "prompts"]
    )
    return asked


class _HiddenBar(tqdm):
    """A backend's bar, which shows nothing and says how far it is."""

    def __init__(
        self, on_update: Callable[[float, float | None], None], *args: Any, **kwargs: Any
    ) -> None:
        self._on_update, self._of = on_update, kwargs.get("total")
        self._done = float(kwargs.get("initial", 0))
        super().__init__(*args, **{**kwargs, "disable": True})
        self._on_update(self._done, self._of)

    def update(self, n: float | None = 1) -> None:
        """Count, which a bar that is not shown does not do."""
        self._done += n or 0
        self._on_update(self._done, self._of)


def _shown(sample: GroundingSample) -> str:
    """What is shown of a sample: a control shows other images under the same id."""
    return f"{sample.id} {sample.extra.get(CONTROL)}"


def _prompt(request: Instance) -> str:
    first = request.arguments[0]
    return first if isinstance(first, str) else ""


def _text_of(asked: Any) -> str | None:
    """The text of messages, or of an input that holds a prompt."""
    if isinstance(asked, str):
        return asked
    if isinstance(asked, Mapping):
        return _text_of(asked.get("prompt") or asked.get("content") or asked.get("text"))
    if isinstance(asked, Sequence):
        return "\n".join(filter(None, map(_text_of, asked)))
    return None


def _reported(counts: TokenCounts | None) -> TokenCounts | None:
    """What a backend says of itself; None where it made the numbers up.

    chat/openai counts words, and no prompt, where the server names no usage.
    """
    return counts if counts is not None and counts.input_tokens != 0 else None


def _rows_of_transformers(
    model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any
) -> list[tuple[int, int]]:
    """Prompt and answer tokens of each row of a batch, without padding; with the end mark."""
    sequences = getattr(output, "sequences", output)
    prompt = args[0] if args else kwargs.get("inputs", kwargs.get("input_ids"))
    given = prompt if prompt is not None else kwargs.get("inputs_embeds")
    mask = kwargs.get("attention_mask")
    n = len(sequences)
    if given is None or len(given) != n:
        return []  # several answers a prompt
    prompts = [given.shape[1]] * n if mask is None else mask.sum(dim=-1).tolist()
    if getattr(model.config, "is_encoder_decoder", False):
        new = sequences[:, 1:]
    else:
        new = sequences if prompt is None else sequences[:, prompt.shape[1] :]
    ends = _ids(kwargs.get("eos_token_id"), model, "eos_token_id")
    pads = _ids(kwargs.get("pad_token_id"), model, "pad_token_id")
    return [
        (int(prompt_tokens), _length(row, ends, pads - ends))
        for prompt_tokens, row in zip(prompts, new.tolist(), strict=True)
    ]


def _ids(given: Any, model: Any, name: str) -> set[int]:
    value = given if given is not None else getattr(model.generation_config, name, None)
    return (
        set()
        if value is None
        else {int(one) for one in (value if isinstance(value, list) else [value])}
    )


def _length(row: list[int], ends: set[int], pads: set[int]) -> int:
    """Tokens up to the first end mark, or without the padding."""
    for position, token in enumerate(row):
        if token in ends:
            return position + 1
    while row and row[-1] in pads:
        row = row[:-1]
    return len(row)


def _own_functions(backend: type, name: str) -> list[Any]:
    """The function of a class and those that it may call of its parents."""
    return [
        vars(cls)[name] for cls in backend.__mro__ if hasattr(vars(cls).get(name), "__globals__")
    ]


def _wrapped(owner: type, name: str, see: Callable[..., None]) -> Any:
    """`owner.name` replaced by itself, and `see` called with its result and its arguments."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        see(result, args, kwargs)
        return result

    return _set(owner, name, call)


def _replaced(owner: type, name: str, by: Callable[..., Any]) -> Any:
    """`owner.name` replaced by a function that takes it first."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        return by(original, *args, **kwargs)

    return _set(owner, name, call)


@contextlib.contextmanager
def _set(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute of a class or module while the block runs."""
    is_own, before = name in vars(owner), vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if is_own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


def _reset_peak_memory() -> None:
    import torch

    if torch.cuda.is_available():
        for device in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(device)


def _peak_memory() -> tuple[int, str]:
    """Bytes on the GPUs where this process uses any, else of the process."""
    import resource

    import torch

    if torch.cuda.is_available():
        devices = range(torch.cuda.device_count())
        used = sum(torch.cuda.max_memory_allocated(device) for device in devices)
        if used:
            return used, "cuda"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024, "resident"
