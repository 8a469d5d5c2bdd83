"""``univg``: a checkpoint run as its own processor and chat template say, without detours.

Images reach the processor as they are: upright, RGB, not re-encoded. What each request got is
written to a journal as its batch ends, so that an evaluation that was killed goes on from there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from loguru import logger
from tqdm import tqdm

from univg_eval.dialects import Dialect
from univg_eval.errors import UserError
from univg_eval.images.controls import open_controlled
from univg_eval.lmms.backends.samples import SampleModel
from univg_eval.lmms.response_journal import digest, files_of, open_journal, writing_journal
from univg_eval.lmms.settings import SETTINGS_KEY, RunSettings
from univg_eval.lmms.stop import user_errors_stop
from univg_eval.models import model_folder
from univg_eval.models.generation import Generator, Request, Response
from univg_eval.models.pretrained import commit_of, load_model, load_processor
from univg_eval.models.resizing import require_same_resize
from univg_eval.runs.failed_requests import failed_request

__all__ = ["ReferenceModel"]


class ReferenceModel(SampleModel):
    """The backend ``univg``.

    Args:
        pretrained: folder or name on the Hub; ``univg:tiny`` for the shipped one.
        revision: of the Hub.
        dtype: of the weights; ``auto``: as the checkpoint says.
        attn_implementation: of transformers, such as ``flash_attention_2``.
        device: ``cpu``, ``cuda`` or ``cuda:1``; None: the process's GPU if there is one.
        device_map: ``auto`` spreads a large model over all GPUs of one process.
        min_pixels, max_pixels: limits of an image's area, where the processor has such.
        adapter: a PEFT adapter to put on the model.
        chat_template_kwargs: variables of the chat template, a JSON object.
        batch_size: at most so many samples in a batch.
        token_budget: at most so many tokens of prompts in a batch, images and padding included;
            halved where they do not fit into the memory.
        workers: processes that open and encode images ahead; None: some for a GPU, else a thread.
        journal: folder of the journal; None: nothing is kept.
        trust_remote_code: run the checkpoint's own code.
        max_batch_size: taken, since lmms-eval passes it, and not used.
    """

    @user_errors_stop()
    def __init__(
        self,
        pretrained: str | None = None,
        revision: str | None = None,
        dtype: str = "auto",
        attn_implementation: str | None = None,
        device: str | None = None,
        device_map: str | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        adapter: str | None = None,
        chat_template_kwargs: str | Mapping[str, Any] | None = None,
        batch_size: int | str = 1,
        token_budget: int = 32768,
        workers: int | None = None,
        journal: str | None = None,
        trust_remote_code: bool = False,
        max_batch_size: Any = None,
    ) -> None:
        super().__init__()
        if not pretrained:
            raise UserError("the backend univg needs a checkpoint: --model_args pretrained=DIR")
        source: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
        folder = model_folder(pretrained)
        self.device = _device(device)
        model = load_model(
            folder,
            dtype=dtype,
            attention=attn_implementation,
            device=str(self.device),
            device_map=device_map,
            adapter=adapter,
            **source,
        )
        processor = load_processor(
            folder, min_pixels=min_pixels, max_pixels=max_pixels, needs_template=False, **source
        )
        template = _template(chat_template_kwargs)
        if workers is None:
            free = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            workers = 0 if self.device.type == "cpu" else min(8, max(free - 1, 0))
        self.generator = Generator(
            model,
            processor,
            batch_size=_whole_number("batch_size", batch_size),
            token_budget=_whole_number("token_budget", token_budget),
            workers=workers,
            template=template,
        )
        self.n_kept = 0
        """Responses so far that the journal had."""
        self._journal = None if journal is None else Path(journal)
        self._identity = {
            "model": folder,
            "files": files_of(folder),
            "commit": commit_of(folder, revision),
            "adapter": None if adapter is None else [adapter, files_of(adapter)],
            "config": model.config.to_dict() if hasattr(model, "config") else None,
            "generation": model.generation_config.to_dict(),
            "dtype": str(model.dtype),
            "attention": model.config._attn_implementation,
            "device": self.device.type,
            "limits": [min_pixels, max_pixels],
            "template": template,
            "batch": [batch_size, token_budget],
            "versions": [torch.__version__, transformers.__version__],
        }

    @user_errors_stop()
    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Answer, in the order of the requests."""
        self.require_readable(r.metadata[SETTINGS_KEY].make_dialect() for r in requests)
        made = [self._request(request) for request in requests]
        keys = [_key(request, one) for request, one in zip(requests, made, strict=True)]
        with self._kept() as (known, keep):
            n_kept = sum(key in known for key in keys)
            self.n_kept += n_kept
            if n_kept:
                logger.info("{} of {} responses are in the journal", n_kept, len(keys))
            with tqdm(total=len(keys), initial=n_kept, disable=self.rank != 0) as progress:
                for batch in self.generator.run(made, lambda position: keys[position] in known):
                    for position, response in batch:
                        key = keys[position]
                        if key in known:
                            continue
                        known[key] = response
                        keep(key, response)
                        progress.update(1)
                        self.cache_hook.add_partial(
                            "generate_until", requests[position].args, response.text
                        )
        return [_result(known[key]) for key in keys]

    def _request(self, request: Instance) -> Request:
        context, options, *_ = request.args
        sample = self.sample_of(request)
        options = dict(options)
        stop = options.pop("until", None) or ()
        turn = {
            "role": "user",
            "content": [
                *({"type": "image"} for _ in sample.images),
                {"type": "text", "text": context},
            ],
        }
        settings: RunSettings = request.metadata[SETTINGS_KEY]
        return Request(
            [turn],
            lambda: open_controlled(sample),
            sample.image_sizes,
            options,
            (stop,) if isinstance(stop, str) else tuple(stop),
            settings.make_dialect().needs_special_tokens,
        )

    def require_readable(self, dialects: Iterable[Dialect]) -> None:
        """Boxes in pixels of the resized image are read by a rule: the processor's must be that.

        Raises:
            UserError: see `univg_eval.models.resizing.require_same_resize`.
        """
        name = self.generator.model.config.name_or_path
        for dialect in {repr(dialect): dialect for dialect in dialects}.values():
            require_same_resize(self.generator.processor, dialect, name)

    @contextmanager
    def _kept(self) -> Iterator[tuple[dict[str, Response], Callable[[str, Response], None]]]:
        """Responses of an earlier start by key, and what keeps another one."""
        known: dict[str, Response] = {}
        if self._journal is None:
            yield known, lambda key, response: None
            return
        identity = digest([self._identity, torch.initial_seed()])[:16]
        for path in sorted(self._journal.glob(f"{identity}-*.jsonl")):
            known.update(_journalled(path))
        with open_journal(self._journal / f"{identity}-{self.rank}.jsonl") as journal:

            def keep(key: str, response: Response) -> None:
                if response.error is None:
                    with writing_journal(journal.path):
                        journal.append({"key": key, **asdict(response)})

            yield known, keep


def _journalled(path: Path) -> Iterator[tuple[str, Response]]:
    """Key and response of each whole line of a journal; a kill may have torn the last one."""
    for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
            value = json.loads(line)
            key, sizes = value.pop("key"), value.pop("input_sizes")
            sizes = None if sizes is None else [(width, height) for width, height in sizes]
            yield key, Response(**value, input_sizes=sizes)


def _key(request: Instance, made: Request) -> str:
    """What the response depends on besides the model."""
    context, options, _, doc_id, *_ = request.args
    return digest([doc_id.doc, context, options, made.special_tokens])


def _result(response: Response) -> GenerationResult:
    text = failed_request(str(response.error)) if response.text is None else response.text
    counts = TokenCounts(input_tokens=response.prompt_tokens, output_tokens=response.new_tokens)
    return GenerationResult(text, counts)


def _device(name: str | None) -> torch.device:
    """The device asked for, else this process's GPU, else the CPU."""
    if name in (None, "", "auto", "cuda"):
        if torch.cuda.is_available():
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        if name == "cuda":
            raise UserError(
                "device=cuda: PyTorch finds no GPU here; take device=cpu, which is slow"
            )
        return torch.device("cpu")
    try:
        return torch.device(str(name))
    except RuntimeError as error:
        raise UserError(f"device={name}: {error}") from error


def _template(given: str | Mapping[str, Any] | None) -> dict[str, Any]:
    try:
        value = json.loads(given) if isinstance(given, str) else given or {}
    except (ValueError, RecursionError) as error:
        raise UserError(f"chat_template_kwargs={given}: not JSON ({error})") from error
    if not isinstance(value, Mapping):
        raise UserError(
            f"chat_template_kwargs={given}: expected a JSON object such as "
            '{"enable_thinking":false}'
        )
    return dict(value)


def _whole_number(name: str, value: Any) -> int:
    text = str(value)
    if not (text.isascii() and text.isdigit() and int(text) >= 1):
        raise UserError(f"{name} is {value!r}; expected a whole number, at least 1")
    return int(text)
