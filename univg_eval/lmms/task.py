"""The one task class behind every YAML of the task folder.

A YAML names it with ``class: !function univg_eval.lmms.task.GroundingTask``; its remaining keys
are lmms-eval's own, read as follows: ``dataset_path`` is the benchmark, ``dataset_name`` the task
within it, ``test_split`` the split, ``metadata`` may hold settings (see
`univg_eval.lmms.settings`).

lmms-eval constructs a task before the model is known; it then sets ``task.args`` and
asks for the requests. Assigning `args` is therefore where the settings are resolved.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar

from lmms_eval.api.instance import Instance
from lmms_eval.api.task import ConfigurableMessagesTask
from loguru import logger
from PIL import Image

from univg_eval.answers import Status
from univg_eval.dialects import Dialect
from univg_eval.errors import UserError
from univg_eval.images.controls import GREY, open_controlled
from univg_eval.lmms.backend_resize import require_shapes, sent_sizes
from univg_eval.lmms.claude_client import require_answer
from univg_eval.lmms.docs import OwnedDoc, RowNumber, SampleDocs, TaskRows, load_rows
from univg_eval.lmms.media import video_file
from univg_eval.lmms.metrics import logged_values
from univg_eval.lmms.settings import (
    SETTINGS_KEY,
    ModelUnderTest,
    RunSettings,
    resolve_settings,
    shown_settings,
    variant_of,
)
from univg_eval.lmms.stop import user_errors_stop
from univg_eval.prompts import build_prompt, require_style
from univg_eval.runs.failed_requests import split_failed_request
from univg_eval.samples import GroundingSample
from univg_eval.scoring import Response, SampleScore, read_response, score_sample

__all__ = ["GroundingRequest", "GroundingTask"]

_STAND_IN = (224, 224)  # any size that every processor takes


def _scored_by_the_class(doc: dict[str, Any], results: list[Any]) -> dict[str, Any]:
    """Never called: a callable here keeps lmms-eval from looking up metric names of its own.

    A plain function, since lmms-eval deep-copies the configuration, and a bound method would
    take the task with it.
    """
    raise RuntimeError("GroundingTask.process_results scores, not this function")


class GroundingRequest(Instance):
    """A request that a backend cannot change, with the task that it comes from.

    Several stock backends take ``until`` out of the generation arguments of a batch's first request
    (lmms_eval 0.7.3: simple/qwen2_vl, simple/qwen2_5_vl and more). The response cache
    (``--use_cache``) makes its key of these arguments, before and after the model has answered, and
    would never find that response again.
    """

    task: GroundingTask

    @property
    def args(self) -> tuple[Any, ...]:
        """The arguments, each time with a copy of those of the generation."""
        return tuple(
            copy.deepcopy(value) if isinstance(value, dict) else value for value in self.arguments
        )


@cache
def _warn_of_skipped(benchmark: str, n_skipped: int, fingerprint: str) -> None:
    """Say once that a set is not whole: its tasks are constructed one after another, and twice."""
    logger.warning(
        "benchmark {!r} is not complete: {} faulty items were left out when it was prepared "
        "(--skip-faulty), so these results are not those of the whole benchmark",
        benchmark,
        n_skipped,
    )


@cache
def _warn_of_stand_ins(benchmark: str, fingerprint: str) -> None:
    """Say once that the images are not the benchmark's."""
    logger.warning(
        "benchmark {!r} was prepared with stand-in images: these are no results of the benchmark",
        benchmark,
    )


class GroundingTask(ConfigurableMessagesTask):
    """Grounding samples of one benchmark task, for simple and chat backends.

    A user's mistake (benchmark not prepared, unknown dialect, unreadable image) shows one
    message and leaves with status 2: see `univg_eval.lmms.stop`.
    """

    VERSION: Any

    on_images: ClassVar[Callable[[GroundingSample], None] | None] = None
    """Called before a sample's images are opened, that is once a request: shows progress."""

    on_lost: ClassVar[Callable[[GroundingSample, str], None] | None] = None
    """Called with the reason where a sample's images cannot be shown: the sample is then lost, and
    not the run. The backend is handed grey images, and what it says of them is dropped."""

    @user_errors_stop()
    def __init__(self, config: dict[str, Any]) -> None:
        config = {key: value for key, value in config.items() if key != "class"}
        config["process_results"] = _scored_by_the_class
        config["metadata"] = dict(config.get("metadata") or {})
        self._args: Any = None
        self._model: ModelUnderTest | None = None
        self._settings: RunSettings | None = None
        self._dialect: Dialect | None = None
        self._sent_sizes: dict[str, list[tuple[int, int]]] = {}
        control, media = (setting.value for setting in shown_settings(config["metadata"]))
        self.rows: TaskRows = load_rows(
            config["dataset_path"],
            config.get("dataset_name"),
            config["test_split"],
            control=control,
            media=media,
        )
        super().__init__(config=config)
        self.config.metadata["fingerprint"] = self.rows.fingerprint
        if self.rows.revision:
            self.config.metadata["revision"] = self.rows.revision
            self.VERSION = f"{self.VERSION}+{self.rows.revision}"
        if self.rows.n_skipped:
            self.config.metadata["skipped"] = self.rows.n_skipped
            _warn_of_skipped(self.config.dataset_path, self.rows.n_skipped, self.rows.fingerprint)
        if self.rows.stand_ins:
            self.config.metadata["stand_in_images"] = True
            self.VERSION = f"{self.VERSION}+stand-in-images"
            _warn_of_stand_ins(self.config.dataset_path, self.rows.fingerprint)
        if variant := variant_of(control, media):
            self.VERSION = f"{self.VERSION}+{variant}"
            self.config.metadata["left_out"] = len(self.rows.left_out)

    # Data

    def download(self, dataset_kwargs: Any = None) -> None:
        """Take the prepared rows; replaces the Hub download and its retries."""
        self.docs = SampleDocs(self.rows.samples)
        self.dataset = {self.config.test_split: self.docs}
        # Rows name their images by path: the two views that lmms-eval keeps are one.
        self.dataset_no_image = self.dataset

    def sample(self, doc: dict[str, Any]) -> GroundingSample:
        """The sample behind a doc of this task."""
        return self.docs.sample(doc)

    # Settings

    @property
    def args(self) -> Any:
        """lmms-eval's command-line arguments; None when it was called from Python without them."""
        return self._args

    @args.setter
    @user_errors_stop()
    def args(self, cli_args: Any) -> None:
        self._args = cli_args
        self._model = None
        self._sent_sizes = {}
        if cli_args is not None:
            self._model = ModelUnderTest.from_arguments(
                cli_args.model,
                cli_args.model_args,
                bool(getattr(cli_args, "force_simple", False)),
            )
        self.use_settings(resolve_settings(self._model, self.config.metadata))

    def use_settings(self, settings: RunSettings) -> None:
        """Ask and score with these settings from now on.

        Raises:
            UserError: some sample cannot be put into the prompt style.
        """
        dialect = settings.make_dialect()
        for sample in self.rows.samples:
            require_style(dialect, settings.prompt.value, sample)
        self._settings, self._dialect = settings, dialect
        logger.info(
            "{}: {}",
            self.config.task,
            ", ".join(f"{name} {s[0]} ({s[1]})" for name, s in settings.to_dict().items()),
        )

    @property
    def settings(self) -> RunSettings:
        """The resolved settings.

        Raises:
            UserError: lmms-eval has not yet set which model runs.
        """
        if self._settings is None:
            raise UserError(
                f"task {self.config.task!r} does not know its settings before `args` is set; "
                "evaluate it through lmms-eval, or assign task.args or call task.use_settings"
            )
        return self._settings

    @property
    def dialect(self) -> Dialect:
        """The dialect of the run, with its pixel limits."""
        _ = self.settings
        assert self._dialect is not None
        return self._dialect

    def input_sizes(self, sample: GroundingSample) -> list[tuple[int, int]] | None:
        """(width, height) of each image after the model's resize.

        None where nothing needs it, and for images that cannot be shown: see `doc_to_visual`.
        """
        try:
            return self._input_sizes(sample)
        except UserError:
            return None

    def _input_sizes(self, sample: GroundingSample) -> list[tuple[int, int]] | None:
        if not self.dialect.needs_input_size or sample.image_sizes is None:
            return None
        if sample.id not in self._sent_sizes:
            sizes = list(sample.image_sizes)
            if self._model is not None:
                sizes = sent_sizes(
                    self._model.backend,
                    self._model.is_simple,
                    sizes,
                    lambda: open_controlled(sample),
                )
            self._sent_sizes[sample.id] = sizes
        return [self.dialect.input_size(size) for size in self._sent_sizes[sample.id]]

    # Requests

    @user_errors_stop()
    def doc_to_text(self, doc: dict[str, Any]) -> str:
        """The prompt; the bare instruction while the model is not known (lmms-eval's self-test)."""
        sample = self.sample(doc)
        if self._settings is None:
            return sample.instruction
        return build_prompt(
            sample,
            self.dialect,
            self.settings.prompt.value,
            input_sizes=self.input_sizes(sample),
        )

    @user_errors_stop()
    def doc_to_visual(self, doc: dict[str, Any]) -> list[Any]:
        """The images, PIL and RGB, in the sample's order; under ``media: video`` the file's path.

        Some backends call the method of one task with the docs of another: `doc` alone counts, and
        the dialect of this task, which those of one evaluation share.
        """
        sample = GroundingSample.from_dict(doc, where=str(doc.get("id")))
        if GroundingTask.on_images is not None:
            GroundingTask.on_images(sample)
        video = video_file(sample)
        if video is not None:
            return [str(video)]
        try:
            if self._dialect is not None:
                self._input_sizes(sample)
            images = open_controlled(sample)
            if self._model is not None:
                require_shapes(self._model.backend_class(), [image.size for image in images])
            return images
        except UserError as error:
            named = sample.id in str(error)
            message = str(error) if named else f"sample {sample.id!r}: {error}"
            if GroundingTask.on_lost is None:
                raise UserError(message) from error
            GroundingTask.on_lost(sample, message)
            return [Image.new("RGB", _STAND_IN, GREY) for _ in sample.images]

    def doc_to_messages(self, doc: dict[str, Any], **round_kwargs: Any) -> list[dict[str, Any]]:
        """One user turn: the images in order, or the video, then the prompt of the doc's task."""
        owner = doc.task if isinstance(doc, OwnedDoc) else self
        turns: list[dict[str, Any]] = self._build_user_turn(
            self.doc_to_visual(doc), owner.doc_to_text(doc)
        )
        return turns

    def doc_to_target(self, doc: dict[str, Any]) -> str:
        """The true objects as JSON, for the log."""
        return json.dumps(doc["targets"])

    def build_all_requests(self, *args: Any, **kwargs: Any) -> None:
        """Build every request anew, whatever ``--cache_requests`` says.

        lmms-eval keeps requests by the task's name alone (0.7.3), so that those of another dialect,
        prompt, control or prepared set would be sent.
        """
        if kwargs.pop("cache_requests", False):
            logger.warning("{}: --cache_requests is passed over", self.config.task)
        super().build_all_requests(*args, **kwargs)

    def construct_requests(self, doc_id: int, ctx: str, **kwargs: Any) -> Instance:
        """A request in the form that the backend under test takes: simple or chat."""
        doc = OwnedDoc(self.docs[doc_id])
        doc.task = self
        generation = copy.deepcopy(self.config.generation_kwargs)
        place = (RowNumber(doc_id, doc), self.config.task, self.config.test_split)
        if self._is_simple():
            arguments: tuple[Any, ...] = (ctx, generation, self.doc_to_visual, *place)
        else:
            arguments = (ctx, self.doc_to_messages, generation, *place)
        metadata = {**kwargs.pop("metadata"), SETTINGS_KEY: self.settings}
        request = GroundingRequest(
            request_type=self.OUTPUT_TYPE,
            arguments=arguments,
            idx=0,
            metadata=metadata,
            doc=doc,
            **kwargs,
        )
        request.task = self
        return request

    @user_errors_stop()
    def _is_simple(self) -> bool:
        if self._model is None:
            raise UserError(
                "a task cannot see which backend runs, and simple and chat backends take "
                "different requests: pass cli_args with model and model_args to "
                "lmms_eval.evaluator.simple_evaluate (univg_eval.lmms.run.evaluate does)"
            )
        return self._model.is_simple

    # Scores

    @user_errors_stop()
    def process_results(
        self, doc: dict[str, Any], results: list[Any], full_docs: Any = None
    ) -> dict[str, Any]:
        """Score one response: metrics as floats, and the columns of the log.

        Replaces a method that retries whatever fails five times, two seconds apart.
        """
        sample = self.sample(doc)
        text = results[0] if results else None
        if isinstance(text, list):
            text = text[0] if text else None
        text, _ = split_failed_request(text)
        if self._model is not None:
            require_answer(self._model.backend, text)
        return logged_values(self.score_of(doc, text)) | {
            "dialect": self.settings.dialect.value,
            "protocol": self.settings.protocol.value,
            "prompt_style": self.settings.prompt.value,
            "input_sizes": self.input_sizes(sample),
            # lmms-eval logs a response of None as the word, which would read as "there is none".
            "no_response": text is None,
            SETTINGS_KEY: self.settings.to_dict(),
        }

    def score_of(self, doc: dict[str, Any], text: str | None) -> SampleScore:
        """The score of a response; None: there is none."""
        response = self._response(doc, text)
        rule = self.settings.protocol.value
        return score_sample(self.sample(doc), response, self.dialect, protocol=rule)

    @user_errors_stop()
    def status_of(self, doc: dict[str, Any], text: str | None) -> Status:
        """How a response is read, by the parser of the score; the truth is not looked at."""
        response = self._response(doc, split_failed_request(text)[0])
        rule = self.settings.protocol.value
        return read_response(self.sample(doc), response, self.dialect, rule).status

    def _response(self, doc: dict[str, Any], text: str | None) -> Response:
        sizes = self.input_sizes(self.sample(doc))
        return Response(text, input_sizes=sizes, prompt=self.doc_to_text(doc))
