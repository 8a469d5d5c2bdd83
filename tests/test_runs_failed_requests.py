"""Requests that a server did not answer: no response, whatever numbers the message holds."""

from __future__ import annotations

import argparse
import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from leaderboard_data import record as run
from run_records import SCORES, manifest, response
from test_leaderboard import one
from test_runs_lmms import SAMPLES, logged, task_config, write_output
from test_runs_rescoring import make_run, read

from univg_eval.analysis.comparison import compare_runs
from univg_eval.cli import main
from univg_eval.cli._runs import read_runs
from univg_eval.errors import UserError
from univg_eval.leaderboard import Mark
from univg_eval.runs.failed_requests import split_failed_request
from univg_eval.runs.record import RunRecord, load_run, write_run
from univg_eval.samples import write_benchmark

# Read as a box of norm1000, the numbers are the true box of the samples.
MESSAGE = "[LMMS_EVAL_REQUEST_FAILED after 5 retries] Error code: 400, [100, 200, 500, 900] tokens"
SPENT = "[LMMS_EVAL_BUDGET_EXCEEDED]"
ANSWER = "[100, 200, 500, 900]"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path / "data"))
    write_benchmark(SAMPLES, benchmark="own", root=tmp_path / "data")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "failed"),
    [
        (MESSAGE, True),
        (SPENT, True),
        ("[LMMS_EVAL_REQUEST_FAILED after 12 retries] ", True),
        (None, False),
        ("", False),
        (ANSWER, False),
        (f"I got {MESSAGE}", False),  # a model that quotes it
        ("[LMMS_EVAL_REQUEST_FAILED]", False),
        ("[SAFETY_BLOCKED:finish_reason=2]", False),  # the service's own answer
    ],
)
def test_messages_are_told_from_responses(text: str | None, failed: bool) -> None:
    assert split_failed_request(text) == ((None, text) if failed else (text, None))


def test_pythons_words_for_a_message_without_content_are_no_response() -> None:
    with pytest.raises(TypeError) as raised:
        _ = "" + None  # type: ignore[operator]
    assert split_failed_request(f"Error: {raised.value}") == (None, None)
    said = f'I read "Error: {raised.value}" in the image.'
    assert split_failed_request(said) == (said, None)


def test_every_message_of_the_installed_backends_is_known() -> None:
    lmms_eval = pytest.importorskip("lmms_eval")
    (folder,) = lmms_eval.__path__
    found = {
        match
        for file in Path(folder, "models").rglob("*.py")
        for match in re.findall(r'"(\[LMMS_EVAL_[^"]*)"', file.read_text(encoding="utf-8"))
    }
    assert len(found) >= 2
    for text in found:
        assert split_failed_request(re.sub(r"\{[^}]*\}", "7", text))[0] is None, text


# Records


def test_a_folder_of_lmms_eval(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [logged(0, MESSAGE), logged(1, ANSWER), logged(2, "x", resps=[[SPENT]])]
    write_output(root / "out", tasks={"t": rows})
    (record,) = read_runs([str(root / "out")])
    assert record.failed_requests == record.manifest.failed_requests == 2
    scores = record.scores
    assert [(s.status, s.box, s.n_boxes) for s in scores[::2]] == [("no_box", None, 0)] * 2
    assert scores[1].iou == 1.0
    kept = [(row["response"], row.get("error")) for row in record.responses]
    assert kept == [(None, MESSAGE), (ANSWER, None), (None, SPENT)]
    assert "error" not in record.responses[1]
    # Published rules read four numbers anywhere; here there is nothing to read.
    new = root / "new"
    assert main(["rescore", str(root / "out"), "--protocol", "univg-r1", "-o", str(new)]) == 0
    assert [s.iou for s in load_run(new).scores] == [0.0, 1.0, 0.0]
    assert load_run(new).responses == record.responses
    assert load_run(new).manifest.failed_requests == 2
    capsys.readouterr()
    # The responses of a record are a file for `univg score`, and mean the same there.
    arguments = ["--benchmark", "own", "--dialect", "norm1000", "--json"]
    assert main(["score", *arguments, "--responses", str(new / "responses.jsonl")]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["tasks"]["t"]["acc@0.5"] == 1 / 3
    assert "fields that are not read" not in told.err


def test_a_file_of_responses_with_messages(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = root / "r.jsonl"
    file.write_text(json.dumps({"id": "own-t-0", "response": MESSAGE}) + "\n")
    arguments = ["--benchmark", "own", "--dialect", "norm1000", "--json"]
    assert main(["score", *arguments, "--responses", str(file)]) == 0
    assert json.loads(capsys.readouterr().out)["tasks"]["t"]["answered"] == 0


def test_an_older_record_with_a_message_as_response(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path))
    path = make_run(tmp_path, {"a": MESSAGE, "b": ANSWER})
    old = load_run(path)
    assert read(old)["a"] == ("ok", 1.0)  # what the older version made of it
    assert old.manifest.failed_requests is None
    assert old.failed_requests == 1
    assert main(["rescore", str(path), "-o", str(tmp_path / "new")]) == 0
    new = load_run(tmp_path / "new")
    assert read(new) == {"a": ("no_box", 0.0), "b": ("ok", 1.0)}
    assert (new.responses[0]["response"], new.responses[0]["error"]) == (None, MESSAGE)
    assert new.failed_requests == new.manifest.failed_requests == 1
    assert main(["rescore", str(tmp_path / "new"), "-o", str(tmp_path / "third")]) == 0
    for name in ("responses.jsonl", "scores.jsonl"):
        first, second = (tmp_path / folder / name for folder in ("new", "third"))
        assert first.read_bytes() == second.read_bytes()


FAILED = response("a", None) | {"error": MESSAGE}


@pytest.mark.parametrize(
    ("first", "changes", "words"),
    [
        (FAILED, {"failed_requests": 1}, None),
        (FAILED, {}, None),
        (FAILED, {"failed_requests": 0}, "failed_requests is 0, and .* has 1 lines with an error"),
        (response("a", "x"), {"failed_requests": 1}, "failed_requests is 1, and .* has 0 lines"),
        (response("a", "x") | {"error": "e"}, {}, "jsonl:1: has a response and an error"),
        (response("a", "x") | {"error": None}, {}, None),
        (FAILED | {"error": ""}, {}, "error is ''"),
    ],
)
def test_a_record_agrees_with_itself(
    tmp_path: Path, first: dict[str, Any], changes: dict[str, Any], words: str | None
) -> None:
    def write() -> Path:
        return write_run(
            tmp_path / "run",
            manifest=manifest(**changes),
            responses=[first, response("b", "y")],
            scores=SCORES,
        )

    if words is None:
        assert load_run(write()).failed_requests == (first is FAILED)
    else:
        with pytest.raises(ValueError, match=words):
            write()


def test_a_comparison_names_them() -> None:
    a, b = (run(label, {"t": [0.6] * 30}) for label in "ab")
    assert not any("Requests" in note for note in compare_runs(a, b).notes)
    for row in b.responses[:2]:
        row.update(response=None, error=MESSAGE)
    (note,) = [note for note in compare_runs(a, b).notes if "Requests" in note]
    assert note.startswith("Requests that failed count as unanswered: 2 of b;")


def test_a_leaderboard_marks_them() -> None:
    a, b = (run(label, {"t": [0.6] * 30}) for label in "ab")
    b.responses[0].update(response=None, error=MESSAGE)
    marks = {row.entry.label: row.marks for row in one([a, b]).rows}
    assert Mark.FAILED_REQUESTS not in marks["a"]
    assert marks["b"][Mark.FAILED_REQUESTS] == "1 of 30 requests"


def test_a_check_names_them() -> None:
    pytest.importorskip("lmms_eval")
    from univg_eval.lmms.check import _failed_requests

    record = run("m", {"t": [0.6] * 3})
    assert _failed_requests([record]) == []
    record.responses[1].update(response=None, error=MESSAGE)
    (finding,) = _failed_requests([record, record])
    assert (finding.severity, finding.numbers) == ("problem", {"failed": 2, "requests": 6})
    assert "[100, 200, 500, 900] tokens" in finding.detail


# lmms-eval's own parts


def test_a_task_scores_no_message(root: Path) -> None:
    pytest.importorskip("lmms_eval")
    from univg_eval.lmms.task import GroundingTask

    config = task_config("t") | {"metric_list": [], "metadata": {"dialect": "norm1000"}}
    task = GroundingTask(config)
    task.args = argparse.Namespace(
        model="univg_baseline", model_args="kind=oracle", force_simple=False
    )
    doc = task.docs[0]
    assert task.process_results(doc, [ANSWER])["iou"] == 1.0
    for results in ([MESSAGE], [[MESSAGE]]):
        told = task.process_results(doc, results)
        assert (told["status"], told["box"], told["score"]) == ("no_box", None, 0.0)


class Server:
    """A backend that lmms-eval asks through its cache; `answers` by question, in order."""

    def __init__(self, answers: list[str]) -> None:
        self.answers, self.asked = answers, 0

    def generate_until(self, requests: list[Any]) -> list[str]:
        self.asked += len(requests)
        return [self.answers[request.doc_id] for request in requests]


def ask(cache: Path, server: Server) -> list[str]:
    """One evaluation of three requests with ``--use_cache``, as lmms-eval does it."""
    from lmms_eval.api.instance import Instance
    from lmms_eval.caching.response_cache import ResponseCache

    requests = [
        Instance(
            request_type="generate_until",
            arguments=(f"question {i}", {"max_new_tokens": 8}),
            idx=0,
            metadata={"task": "t", "doc_id": i, "repeats": 1},
        )
        for i in range(3)
    ]
    kept = ResponseCache.create(str(cache), model="m")
    found = kept.execute(server, "generate_until", requests)
    kept.finalize(success=True)
    return [str(text) for text in found]


@pytest.mark.parametrize("job", [None, "4711"])  # a requeued job comes back to its own files
def test_a_cache_forgets_failed_requests_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str | None
) -> None:
    pytest.importorskip("lmms_eval")
    from univg_eval.lmms.response_cache import forget_failed_requests

    for name in ("LMMS_CACHE_RUN_ID", "SLURM_JOB_ID", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    if job is not None:
        monkeypatch.setenv("SLURM_JOB_ID", job)
    cache = tmp_path / "cache"
    assert ask(cache, Server([ANSWER, MESSAGE, SPENT])) == [ANSWER, MESSAGE, SPENT]
    deaf = Server([])
    assert ask(cache, deaf) == [ANSWER, MESSAGE, SPENT]  # lmms-eval keeps the messages for ever
    assert deaf.asked == 0
    logs = sorted(cache.rglob("runs/*/*.audit.jsonl"))
    assert logs
    with logs[0].open("a") as file:
        file.write('{"cut off')
    assert forget_failed_requests(cache) == 2
    assert forget_failed_requests(cache / "cache.db") == 0
    later = Server([ANSWER, "now", "then"])
    assert ask(cache, later) == [ANSWER, "now", "then"]
    assert later.asked == 2
    with closing(sqlite3.connect(cache / "cache.db")) as database:
        assert len(database.execute("SELECT * FROM responses").fetchall()) == 3
    assert any('{"cut off' in log.read_text() for log in logs)


def test_a_cache_that_is_none_is_told(tmp_path: Path) -> None:
    pytest.importorskip("lmms_eval")
    from univg_eval.lmms.response_cache import forget_failed_requests

    assert forget_failed_requests(tmp_path / "nowhere") == 0
    (tmp_path / "cache.db").write_text("no database " * 100)
    with pytest.raises(UserError, match=r"cannot take the failed requests out of .*another folder"):
        forget_failed_requests(tmp_path)


@pytest.mark.parametrize(
    ("texts", "cache", "good", "words"),
    [
        ([ANSWER, "no"], False, True, ""),
        ([ANSWER, MESSAGE], False, True, r"1 of 2 requests failed.*With --use_cache DIR"),
        ([ANSWER, MESSAGE], True, True, r"1 of 2 requests failed.*Run the same command again"),
        ([MESSAGE, SPENT], False, False, r"2 of 2 requests failed.*The first: \[LMMS_EVAL_REQ"),
    ],
)
def test_univg_eval_tells_their_number(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    texts: list[str],
    cache: bool,
    good: bool,
    words: str,
) -> None:
    pytest.importorskip("lmms_eval")
    from univg_eval.lmms import command
    from univg_eval.lmms.planned_runs import PlannedRun
    from univg_eval.lmms.task_files import task_folder

    rows = [logged(i, text) for i, text in enumerate(texts)]
    kept = root / "cache"
    if cache:
        monkeypatch.delenv("SLURM_JOB_ID", raising=False)
        ask(kept, Server([ANSWER, MESSAGE, ANSWER]))
    monkeypatch.setattr(
        command, "cli_evaluate", lambda args: write_output(root / "out", tasks={"t": rows})
    )
    args = argparse.Namespace(
        output_path=str(root / "out"),
        tasks="univg_mini",
        include_path=[str(task_folder())],
        model_args="model=org/Model-7B",
        batch_size=1,
        seed=None,
    )
    planned = argparse.Namespace(
        model="openai",
        force_simple=False,
        model_args="model=org/Model-7B",
        use_cache=str(kept) if cache else None,
    )
    plan = command.Plan(args, planned, root / "records", [], [])
    run = PlannedRun([None], None)
    made: list[RunRecord] = []
    evaluated = command._evaluate(args, plan, run, made, with_tables=True, on_progress=None)
    assert evaluated is good
    assert len(made) == 1
    told = capsys.readouterr().err
    assert re.search(words, told, re.DOTALL) if words else told == ""
    (record,) = read_runs([str(root / "records")])
    assert record.manifest.failed_requests == sum(text.startswith("[L") for text in texts)
    if cache:
        later = Server([ANSWER, "now", ANSWER])
        assert ask(kept, later) == [ANSWER, "now", ANSWER]
        assert later.asked == 1


def test_no_response_is_not_the_word_none(root: Path) -> None:
    """lmms-eval writes None as "None", which as an answer says that there is no object."""
    utils = pytest.importorskip("lmms_eval.utils")
    from univg_eval.lmms.task import GroundingTask

    config = task_config("t") | {"metric_list": [], "metadata": {"dialect": "norm1000"}}
    task = GroundingTask(config)
    task.args = argparse.Namespace(
        model="univg_baseline", model_args="kind=oracle", force_simple=False
    )
    rows = []
    for i, text in enumerate((None, "None")):
        told = task.process_results(task.docs[i], [text])
        (word,) = utils.sanitize_list([text])
        rows.append(logged(i, word, no_response=told["no_response"]))
    write_output(root / "out", tasks={"t": rows})
    (record,) = read_runs([str(root / "out")])
    assert [row["response"] for row in record.responses] == [None, "None"]
    assert [score.status for score in record.scores] == ["no_box", "none"]
