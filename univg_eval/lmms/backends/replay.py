"""``univg_replay``: responses from a file instead of a model.

The file has one JSON object a line: ``{"id": "mig_bench-00017", "response": "…"}``, and may name
in a field ``dialect`` how the responses write boxes (the same in every line).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmms_eval.api.instance import Instance
from loguru import logger

from univg_eval.errors import UserError
from univg_eval.files import iter_json_lines
from univg_eval.lmms.backends.samples import SampleModel
from univg_eval.lmms.stop import user_errors_stop
from univg_eval.samples import lacking, load_samples

__all__ = ["ReplayModel", "declared_dialect", "read_responses"]


def read_responses(path: Path) -> tuple[dict[str, str], str | None]:
    """Responses by id, and the dialect that the lines declare (None if they do not).

    Raises:
        UserError: unreadable, a wrong field, a duplicate id, or two dialects.
    """
    responses: dict[str, str] = {}
    dialects: set[str] = set()
    for number, row in iter_json_lines(path):
        where = f"{path}:{number}"
        if not isinstance(row, dict):
            raise UserError(f"{where}: expected a JSON object, received {type(row).__name__}")
        name, text = row.get("id"), row.get("response")
        if not isinstance(name, str) or not isinstance(text, str):
            raise UserError(
                f'{where}: expected {{"id": "…", "response": "…"}} with two strings; received '
                f"id {name!r} and response {text!r}"
            )
        if name in responses:
            raise UserError(f"{where}: duplicate id {name!r}; give one response an id")
        responses[name] = text
        if row.get("dialect") is not None:
            dialects.add(str(row["dialect"]))
    if len(dialects) > 1:
        raise UserError(
            f"{path}: its lines declare the dialects {', '.join(sorted(dialects))}; expected one "
            "for the whole file"
        )
    return responses, next(iter(dialects), None)


def _file_of(args: Mapping[str, Any]) -> Path:
    if not args.get("responses"):
        raise UserError(
            "univg_replay needs the file of responses: --model_args responses=FILE.jsonl"
        )
    return Path(str(args["responses"])).expanduser()


def declared_dialect(args: Mapping[str, Any]) -> str | None:
    """The dialect that the responses named in model_args declare.

    Raises:
        UserError: see `read_responses`.
    """
    return read_responses(_file_of(args))[1]


class ReplayModel(SampleModel):
    """The backend ``univg_replay``.

    A sample without a response gets the empty one and is counted in a warning. An id that no
    sample of the benchmarks under evaluation has is an error.

    Args:
        responses: path of the JSON Lines file.
        batch_size, device, max_batch_size: taken, since lmms-eval passes them, and not used.
    """

    @user_errors_stop()
    def __init__(
        self,
        responses: str = "",
        batch_size: Any = 1,
        device: Any = None,
        max_batch_size: Any = None,
    ) -> None:
        super().__init__()
        self.path = _file_of({"responses": responses})
        self.responses, _ = read_responses(self.path)

    @user_errors_stop()
    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """The stored response of each request's sample."""
        samples = [self.sample_of(request) for request in requests]
        self._require_known_ids({sample.benchmark for sample in samples})
        missing = [sample.id for sample in samples if sample.id not in self.responses]
        if missing:
            logger.warning(
                "{} of {} samples have no response in {} and count as unanswered, e.g. {}",
                len(missing),
                len(samples),
                self.path,
                missing[0],
            )
        return [self.responses.get(sample.id, "") for sample in samples]

    def _require_known_ids(self, benchmarks: set[str]) -> None:
        known = {sample.id for name in benchmarks for sample in load_samples(name)}
        unknown = sorted(self.responses.keys() - known)
        if unknown:
            lacks = "; ".join(filter(None, map(lacking, sorted(benchmarks))))
            raise UserError(
                f"{self.path}: {len(unknown)} ids belong to no sample of "
                f"{', '.join(sorted(benchmarks))}, e.g. {unknown[0]!r}; "
                + (f"{lacks}; " if lacks else "")
                + "remove them or evaluate their benchmark"
            )
