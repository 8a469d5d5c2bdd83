"""What a backend of lmms-eval has answered, kept part by part: a kill costs one part.

lmms-eval (0.7.3) writes responses when the last one is there. So its requests are handed to the
backend in parts, and the responses of each whole part go into a journal, which the next start of
the same evaluation reads. `univg` keeps a journal of its own, batch by batch.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from lmms_eval.api.instance import Instance, unwrap_generation_output
from loguru import logger

from univg_eval.errors import UserError
from univg_eval.files import Journal, writing
from univg_eval.lmms.stop import user_errors_stop
from univg_eval.lmms.task import GroundingRequest
from univg_eval.models.pretrained import commit_of
from univg_eval.runs.failed_requests import split_failed_request

__all__ = [
    "ResponseJournal",
    "digest",
    "files_of",
    "open_journal",
    "opened_journal",
    "part_size",
    "weights_of",
    "writing_journal",
]

_PART = 128
_WAVES = 16  # a server that answers n requests at once waits for the last of a part


def part_size(batch_size: Any, num_concurrent: Any) -> int:
    """Requests in a part: at least one batch, and many rounds of a server's requests.

    Args:
        batch_size, num_concurrent: as given; what is no whole number counts as 1.
    """

    def whole(value: Any) -> int:
        return int(value) if str(value).isascii() and str(value).isdigit() else 1

    batch = whole(batch_size)
    return max(-(-_PART // batch) * batch, _WAVES * whole(num_concurrent))


class ResponseJournal:
    """The responses of one evaluation so far.

    Attributes:
        n_kept: those of the requests so far that an earlier start had.
    """

    def __init__(self, journal: Journal, size: int, weights: Callable[[], Any]) -> None:
        """Read what is there.

        Args:
            journal: of this model and these arguments alone.
            size: of a part, see `part_size`.
            weights: which ones the model has; called when it is loaded, which may have brought them
                to this machine.
        """
        self.n_kept = 0
        self._journal = journal
        self._size = size
        self._weights = weights
        self._known: dict[str, str] = {}
        for _, line in journal.lines():
            row = json.loads(line)
            self._known[row["key"]] = row["response"]

    def ask(
        self,
        requests: Sequence[Instance],
        original: Callable[[list[Instance]], list[Any]],
        begin_part: Callable[[int, int], None],
    ) -> list[Any]:
        """The outputs of the requests: those that are known, and the others from the backend.

        Where an answer is drawn at random, or a request is no sample's, nothing is kept.

        Args:
            requests: of one call of ``generate_until``.
            original: asks the backend.
            begin_part: called before each part, with the numbers of requests before it and in it.
        """
        if not all(map(_is_repeatable, requests)):
            return original(list(requests))
        weights = self._weights()
        keys = [_key(request, weights) for request in requests]
        n_kept = sum(key in self._known for key in keys)
        if n_kept:
            logger.info("{} of {} responses are in the journal", n_kept, len(keys))
        self.n_kept += n_kept
        outputs: dict[int, Any] = {
            place: self._known[key] for place, key in enumerate(keys) if key in self._known
        }
        for start in range(0, len(keys), self._size):
            part = range(start, min(start + self._size, len(keys)))
            places = [place for place in part if place not in outputs]
            if not places:
                continue
            begin_part(start, len(places))
            answered = original([requests[place] for place in places])
            for place, output in zip(places, answered, strict=True):
                outputs[place] = output
                text = unwrap_generation_output(output)[0]
                if isinstance(text, str) and split_failed_request(text)[1] is None:
                    with user_errors_stop(), writing_journal(self._journal.path):
                        self._journal.append({"key": keys[place], "response": text})
        return [outputs[place] for place in range(len(keys))]


@contextmanager
def opened_journal(
    folder: Path, identity: Any, size: int, weights: Callable[[], Any] = lambda: None
) -> Iterator[ResponseJournal]:
    """The journal of an evaluation in a folder.

    Args:
        folder: made where it is not there.
        identity: what the responses depend on besides their requests and the weights.
        size, weights: see `ResponseJournal`.

    Raises:
        UserError: another process writes to it, or it cannot be written.
    """
    with open_journal(folder / f"{digest(identity)[:16]}-0.jsonl") as journal:
        yield ResponseJournal(journal, size, weights)


def open_journal(path: Path) -> Journal:
    """A journal of responses; a UserError if another process has it, or it cannot be written."""
    try:
        with writing_journal(path):
            return Journal(path, sync_seconds=5.0)
    except UserError as error:
        if not isinstance(error.__cause__, BlockingIOError):
            raise
        raise UserError(
            f"another evaluation of the same model writes to {path.parent}; wait for it, or give "
            "another --output_path"
        ) from error


def writing_journal(path: Path) -> AbstractContextManager[None]:
    """Report a failure to write a journal of responses; see `univg_eval.files.writing`."""
    return writing(
        path,
        kept="The responses so far are kept: the same command goes on",
        folder="folder",
        options=("--output_path", "--output_path"),
    )


def _is_repeatable(request: Instance) -> bool:
    if not isinstance(request, GroundingRequest):
        return False
    options: Mapping[str, Any] = next(value for value in request.args if isinstance(value, dict))
    return not options.get("temperature") and not options.get("do_sample")


def _key(request: Instance, weights: Any) -> str:
    """What the response depends on besides the model's arguments."""
    return digest([weights, request.doc, *(v for v in request.args if isinstance(v, str | dict))])


def digest(value: Any) -> str:
    """SHA-256 (hex) of a value, as JSON where JSON knows it."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def files_of(folder: str | os.PathLike[str]) -> list[Any]:
    """Names, sizes and times of a checkpoint's files: other weights give other responses."""
    found = sorted(path for path in Path(folder).glob("*") if path.is_file())
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in found]


def weights_of(checkpoint: str | None, revision: str | None) -> Any:
    """What sets the weights behind a name apart: files of a folder, or the Hub's commit.

    Args:
        checkpoint: folder or name; None: there is none.
        revision: of the Hub; None: main.
    """
    return checkpoint and [files_of(checkpoint), commit_of(checkpoint, revision)]
