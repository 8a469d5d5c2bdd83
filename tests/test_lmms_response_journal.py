"""A killed evaluation through a backend of lmms-eval goes on from its journal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmms_data
import pytest
from disks import largest_file
from fake_service import Server, serving
from PIL import Image
from preloaded import run_forked, start_forked, wait_for

from univg_eval.errors import UserError
from univg_eval.models import TINY, model_folder
from univg_eval.runs.failed_requests import failed_request
from univg_eval.runs.record import RunRecord, load_run

pytest.importorskip("lmms_eval")
pytest.importorskip("openai")

import huggingface_hub

from univg_eval.lmms.response_journal import opened_journal, part_size, weights_of

N = 300
PART = 128


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rows = [
        lmms_data.make_sample("custom", "group", i, instruction=f"Find thing {i}.", targets=())
        for i in range(N)
    ]
    lmms_data.put(tmp_path, rows)
    for name, size in (("a", (64, 48)), ("b", (128, 96))):
        Image.new("RGB", size, "red").save(tmp_path / "custom" / f"{name}.png")
    lmms_data.set_environment(monkeypatch, tmp_path, UNIVG_DIALECT="norm1")
    return tmp_path


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as found:
        yield found


def command(server: Server, output: str, key: str = "none") -> list[str]:
    args = f"model=some,base_url={server.url},api_key={key},num_concurrent=4"
    asked = ["--model", "async_openai", "--model_args", args, "--tasks", "univg_custom"]
    return ["eval", *asked, "--output_path", output]


def record_in(output: Path) -> RunRecord:
    (manifest,) = output.rglob("manifest.json")
    return load_run(manifest.parent)


def test_a_kill_costs_one_part(root: Path, server: Server, tmp_path: Path) -> None:
    server.answer = lambda _: "[0.1, 0.2, 0.5, 0.9]"
    place: dict[str, Any] = {"cwd": tmp_path, "env": os.environ, "folder": tmp_path}
    done = run_forked("univg_eval", command(server, "whole"), timeout=200, **place)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(server.prompts) == N

    server.prompts.clear()
    in_second_part, released = threading.Event(), threading.Event()

    def hangs(_: Any) -> str:
        if len(server.prompts) > PART + 40:
            in_second_part.set()
            released.wait(60)
        return "[0.1, 0.2, 0.5, 0.9]"

    server.answer = hangs
    pid = start_forked("univg_eval", command(server, "killed"), **place)
    assert in_second_part.wait(100)
    os.kill(pid, signal.SIGKILL)
    assert wait_for(pid, timeout=60) == -signal.SIGKILL
    released.set()
    journal = tmp_path / "killed" / "journal"
    (file,) = journal.iterdir()
    assert file.read_bytes().count(b"\n") == PART

    server.prompts.clear()
    server.answer = lambda _: "[0.1, 0.2, 0.5, 0.9]"
    again = command(server, "killed", key="another")
    done = run_forked("univg_eval", again, timeout=200, **place)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"{PART} of {N} responses are in the journal" in done.stderr + done.stdout
    assert len(server.prompts) == N - PART
    assert not journal.exists()
    found, whole = record_in(tmp_path / "killed"), record_in(tmp_path / "whole")
    assert found.responses == whole.responses
    assert found.scores == whole.scores


def requests_of(root: Path) -> list[Any]:
    task = lmms_data.load_tasks("univg_custom")["univg_custom"]
    return lmms_data.build(task)[:10]


def test_what_failed_and_what_is_drawn_is_not_kept(root: Path, tmp_path: Path) -> None:
    requests = requests_of(root)
    calls: list[list[Any]] = []
    parts: list[tuple[int, int]] = []

    def answer(asked: list[Any]) -> list[Any]:
        calls.append(asked)
        return [
            failed_request("the server is busy") if request is requests[2] else f"{number}"
            for number, request in enumerate(asked)
        ]

    def ask(identity: Any, weights: Any = None) -> list[Any]:
        calls.clear()
        parts.clear()
        with opened_journal(tmp_path / "journal", identity, 4, lambda: weights) as journal:
            return journal.ask(requests, answer, lambda *place: parts.append(place))

    first = ask("model")
    assert [len(call) for call in calls] == [4, 4, 2]
    assert parts == [(0, 4), (4, 4), (8, 2)]
    assert first[:5] == ["0", "1", failed_request("the server is busy"), "3", "0"]
    assert ask("model") == first
    assert calls == [[requests[2]]]
    assert parts == [(0, 1)]
    for changed in (("another model",), ("model", "new weights")):
        ask(*changed)
        assert sum(map(len, calls)) == 10
    for request in requests:
        options = next(v for v in request.arguments if isinstance(v, dict))
        options["temperature"] = 0.7
    ask("model")
    assert calls == [requests]


def test_a_full_disk_ends_the_evaluation_and_what_is_kept_stays(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    requests = requests_of(root)
    asked: list[int] = []

    def answer(part: list[Any]) -> list[Any]:
        asked.append(len(part))
        return ["[0.1, 0.2, 0.5, 0.9]"] * len(part)

    def ask() -> list[Any]:
        asked.clear()
        with opened_journal(tmp_path / "journal", "model", 4) as journal:
            return journal.ask(requests, answer, lambda *place: None)

    line = len(json.dumps({"key": "0" * 64, "response": "[0.1, 0.2, 0.5, 0.9]"})) + 1
    with largest_file(6 * line), pytest.raises(SystemExit) as stopped:
        ask()
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert (
        "File too large; free space or choose another folder with --output_path. The resp" in said
    )
    assert asked == [4, 4]
    assert len(ask()) == 10
    assert asked == [2, 2]
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"cannot write to .*file: .*with --output_path"),
        opened_journal(tmp_path / "file", "model", 4),
    ):
        pass


def test_weights_of_the_hub_are_those_of_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    model = tmp_path / "hub" / "models--who--tiny"
    for commit in ("a" * 40, "b" * 40):
        shutil.copytree(model_folder(TINY), model / "snapshots" / commit)
    (model / "refs").mkdir()

    def main_is(commit: str) -> Any:
        (model / "refs" / "main").write_text(commit * 40)
        return weights_of("who/tiny", None)

    old, new = main_is("a"), main_is("b")
    assert old != new
    assert main_is("a") == old
    assert weights_of("who/tiny", "b" * 40) == new
    folder = model / "snapshots" / ("a" * 40)
    before = weights_of(str(folder), None)
    os.utime(folder / "model.safetensors", (1, 1))
    assert weights_of(str(folder), None) != before


@pytest.mark.parametrize("name", ["who/other", "gpt-5.5", "some:model", "/no/folder", None])
def test_what_has_no_weights_here_is_one_thing(name: str | None) -> None:
    assert weights_of(name, None) in (None, [[], None])


def test_one_evaluation_at_a_time(tmp_path: Path) -> None:
    with (
        opened_journal(tmp_path, "model", 4),
        pytest.raises(UserError, match="another evaluation of the same model writes to"),
        opened_journal(tmp_path, "model", 4),
    ):
        pass
    with opened_journal(tmp_path, "model", 4), opened_journal(tmp_path, "another", 4):
        assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("batch", "concurrent", "expected"),
    [(1, None, 128), (3, None, 129), ("256", None, 256), ("auto", 4, 128), (1, 32, 512)],
)
def test_a_part_is_whole_batches_and_many_rounds(
    batch: Any, concurrent: Any, expected: int
) -> None:
    assert part_size(batch, concurrent) == expected
