"""The whole of `univg-train cot` against a real server on this machine."""

from __future__ import annotations

import base64
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from disks import largest_file
from factories import make_sample
from fake_teacher import (
    KEY,
    BadAnswer,
    FakeTeacher,
    Request,
    answer_well,
    completion,
    good_chain,
    running_teacher,
)
from PIL import Image
from training_forms import draw

from univg_eval.answers import read_answer
from univg_eval.dialects import get_dialect
from univg_eval.errors import UserError
from univg_eval.prompts import THINK_SUFFIX
from univg_eval.samples import write_benchmark
from univg_train.cli import build_parser, main
from univg_train.cot.building import CotSettings, build_chains
from univg_train.cot.journal import ReplyJournal
from univg_train.cot.output import CotSummary
from univg_train.cot.rows import CotRow, CotRows, UnusedRow, rows_of_benchmark
from univg_train.cot.rules import REASONS
from univg_train.cot.teacher import RateLimiter, TeacherSettings

BOX = (0.25, 0.5, 0.625, 0.875)
SIZES = [(64, 48), (80, 60)]
NOWHERE = "http://127.0.0.1:9/v1"


@pytest.fixture(autouse=True)
def _no_proxy_and_short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)


def make_row(number: int, **changes) -> CotRow:
    row = CotRow(
        id=f"row-{number}",
        images=("a.png", "b.jpg"),
        question=f"Where is it in the second image? [row {number}]",
        box=BOX,
        target_image=1,
        task="diff",
        source={"file": "toy.json", "row": number},
    )
    return replace(row, **changes)


@dataclass
class Cot:
    """A folder of images, the folder of a run, and the server that it uses."""

    images: Path
    out: Path
    teacher: FakeTeacher

    def build(self, rows: int | Iterable[CotRow | UnusedRow] = 2, **changes) -> CotSummary:
        """Build so many rows, or these, with settings or arguments of `build_chains` changed."""

        def of(names: Iterable[str]) -> dict:
            return {name: changes.pop(name) for name in names if name in changes}

        teacher = {"base_url": self.teacher.url, "timeout_s": 30.0, "retries": 3}
        teacher |= of(TeacherSettings.__dataclass_fields__)
        arguments = {"api_key": KEY} | of(["api_key", "limit", "skip_faulty"])
        settings = CotSettings(teacher=TeacherSettings(model="teacher-1", **teacher), **changes)
        made = [make_row(i) for i in range(rows)] if isinstance(rows, int) else rows
        used = CotRows(made, self.images, {"file": "toy.json"})
        return build_chains(used, self.out, settings, **arguments)

    def lines(self, name: str) -> list[dict]:
        return [json.loads(line) for line in (self.out / name).read_text().splitlines()]

    def examples(self) -> list[dict]:
        return json.loads((self.out / "cotsft.json").read_text())

    def answers(self) -> list[str]:
        """What the student learns to answer."""
        return [example["conversations"][1]["value"] for example in self.examples()]


@pytest.fixture
def cot(tmp_path: Path) -> Iterator[Cot]:
    """The server answers well, until a test sets its `behave`."""
    images = draw(tmp_path / "images", dict(zip(("a.png", "b.jpg"), SIZES, strict=True)))
    with running_teacher() as teacher:
        yield Cot(images, tmp_path / "out", teacher)


# --- what comes out ------------------------------------------------------------------------------


def test_three_chains_a_choice_and_an_example(cot: Cot) -> None:
    summary = cot.build(price_in=2.0, price_out=10.0)
    requests = {"0 chain": 3, "0 choice": 1, "1 chain": 3, "1 choice": 1}
    assert Counter(cot.teacher.received) == requests
    assert (summary.rows, summary.accepted, summary.rejected, summary.unanswered) == (2, 2, 0, 0)
    assert (summary.chains, summary.replies, summary.requests) == (6, 8, 8)
    assert (summary.prompt_tokens, summary.completion_tokens) == (800, 80)
    assert summary.cost == pytest.approx((800 * 2.0 + 80 * 10.0) / 1e6)

    for number, example in enumerate(cot.examples()):
        human, gpt = example["conversations"]
        assert (example["id"], example["images"]) == (f"row-{number}", ["a.png", "b.jpg"])
        question = f"Where is it in the second image? [row {number}]"
        assert human == {"from": "human", "value": f"<image><image>{question}{THINK_SUFFIX}"}
        assert gpt["from"] == "gpt"
        assert gpt["value"].startswith("<think>The question asks")
        assert gpt["value"].endswith("</think><answer>(250,500),(625,875)</answer>")
        provenance = example["provenance"]
        assert provenance["teacher"] == "teacher-1"
        assert provenance["answered_by"] == "teacher-1-0613"
        assert len(provenance["prompts_sha256"]) == 64
        assert provenance["date"].startswith("20")

    chains = cot.lines("chains.jsonl")
    assert [(c["id"], c["chain"]) for c in chains] == [
        (f"row-{row}", chain) for row in range(2) for chain in range(3)
    ]
    assert Counter(c["verdict"] for c in chains) == {"accepted": 2, "not_chosen": 4}
    assert [c["cost"] for c in chains] == pytest.approx([(100 * 2.0 + 10 * 10.0) / 1e6] * 6)
    rows = cot.lines("rows.jsonl")
    assert [row["status"] for row in rows] == ["accepted", "accepted"]
    assert rows[0]["source"] == {"file": "toy.json", "row": 0}
    assert rows[0]["cost"] == pytest.approx((400 * 2.0 + 40 * 10.0) / 1e6)
    manifest = json.loads((cot.out / "manifest.json").read_text())
    assert manifest["result"]["accepted"] == 2
    assert manifest["versions"]["openai"]


def test_the_choice_decides_and_its_numbers_are_of_the_order_shown(cot: Cot) -> None:
    chosen: list[str] = []

    def behave(request: Request) -> dict:
        if not request.is_choice:
            return answer_well(request)
        chosen.append(request.prompt.split("Reasoning 3:\n")[1].split("\n\nCompare")[0])
        return completion("The third. <best>3</best>")

    cot.teacher.behave = behave
    cot.build(4)
    thinkings = [text.split("</think>")[0].removeprefix("<think>") for text in cot.answers()]
    assert sorted(thinkings) == sorted(chosen)
    numbers = [row["chosen"] for row in cot.lines("rows.jsonl")]
    assert len(set(numbers)) > 1, "the place of a candidate should not follow its number"


def test_only_sound_chains_stand_for_choice_and_one_needs_none(cot: Cot) -> None:
    def behave(request: Request) -> dict:
        if request.is_choice:
            assert "Reasoning 2:" in request.prompt
            assert "Reasoning 3:" not in request.prompt
            return completion("<best>2</best>")
        sound = good_chain(request)
        spoilt = sound.replace("Looking", "The ground truth says so. Looking")
        number = before[request.about]
        before[request.about] += 1
        n_spoilt = {"0": 1, "1": 2, "2": 3}[request.about.split()[0]]
        return completion(spoilt if number < n_spoilt else sound)

    before: Counter[str] = Counter()
    cot.teacher.behave = behave
    summary = cot.build(3, concurrency=1)
    assert [kind for kind in cot.teacher.received if "choice" in kind] == ["0 choice"]
    assert (summary.accepted, summary.rejected) == (2, 1)
    assert summary.chain_reasons == {"given_answer": 6}
    assert summary.row_reasons == {"no_sound_chain": 1}
    chains = cot.lines("chains.jsonl")
    verdicts = {"rejected": 6, "accepted": 2, "not_chosen": 1}
    assert Counter(c["verdict"] for c in chains) == verdicts
    assert all("thinking" in c and "reply" in c for c in chains)


def test_a_choice_that_names_nobody_is_requested_once_more(cot: Cot) -> None:
    cot.teacher.behave = lambda r: completion("I cannot say.") if r.is_choice else answer_well(r)
    summary = cot.build(1)
    assert Counter(cot.teacher.received) == {"0 chain": 3, "0 choice": 2}
    assert summary.row_reasons == {"no_choice": 1}
    assert cot.build(1).requests == 0


def test_the_same_chain_three_times_is_one(cot: Cot) -> None:
    cot.teacher.behave = lambda request: completion(good_chain(replace(request, number=0)))
    summary = cot.build(1)
    assert cot.teacher.received == ["0 chain"] * 3
    assert (summary.accepted, summary.chain_reasons) == (1, {"repeated": 2})


# --- what is sent --------------------------------------------------------------------------------


def test_images_are_sent_inside_the_request_reduced_and_bare(cot: Cot) -> None:
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    exif[0x0112] = 6  # stored lying on its side
    Image.new("RGB", (400, 200), "red").save(cot.images / "a.jpg", exif=exif, comment=b"secret")
    row = make_row(0, images=("a.jpg",), target_image=0, question="Where? [row 0]")
    cot.build([row], image_pixels=20_000, chains=1)
    (request,) = cot.teacher.requests
    (uri,) = request.images
    head, data = uri.split(",", 1)
    assert head == "data:image/jpeg;base64"
    raw = base64.b64decode(data)
    assert b"home" not in raw and b"secret" not in raw
    sent = Image.open(io.BytesIO(raw))
    assert sent.size == (100, 200)
    assert not sent.getexif()
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert (request.body["model"], request.body["max_tokens"]) == ("teacher-1", 1024)
    assert set(request.body) == {"model", "messages", "max_tokens", "temperature"}


def test_the_prompt_holds_question_truth_steps_and_the_names_of_the_images(cot: Cot) -> None:
    cot.build(1)
    chain, choice = cot.teacher.requests[0], cot.teacher.requests[-1]
    assert chain.texts[:-1] == ["Image 1:", "Image 2:"]
    assert "Where is it in the second image? [row 0]" in chain.prompt
    assert "in Image 2, and its bounding box is [250, 500, 625, 875]" in chain.prompt
    assert "compare them part by part" in chain.prompt
    assert "20 to 180 words" in chain.prompt
    assert len(choice.images) == 2
    assert "temperature" not in choice.body


def test_the_key_is_written_nowhere(cot: Cot, capfd: pytest.CaptureFixture[str]) -> None:
    def behave(request: Request) -> dict | BadAnswer:
        if request.number == 1:
            message = {"error": {"message": f"who is {KEY}?"}}
            return BadAnswer(400, json.dumps(message).encode())
        if request.number == 2:  # as JSON may write it
            text = json.dumps(completion("You sent KEY.")).replace(
                "KEY", KEY.replace("-", r"\u002d")
            )
            return BadAnswer(200, text.encode())
        return answer_well(request)

    cot.teacher.behave = behave
    cot.build(1)
    written = b"".join(p.read_bytes() for p in cot.out.rglob("*") if p.is_file())
    assert b"who is [hidden]?" in written
    assert b"You sent [hidden]." in written
    assert KEY.encode() not in written
    captured = capfd.readouterr()
    assert KEY not in captured.out + captured.err


def test_a_word_in_the_place_of_a_key_is_no_secret(cot: Cot) -> None:
    cot.teacher.behave = lambda _: BadAnswer(400, b'{"error": {"message": "there is none"}}')
    with pytest.raises(UserError, match="is none"):
        cot.build(api_key="none")


def test_boxes_of_the_question_take_the_readers_form(cot: Cot) -> None:
    question = "What is <|box_start|>(100,200),(300,400)<|box_end|> there in the second image?"
    row = make_row(0, question=question)
    cot.build([row], chains=1, dialect="qwen2_5_vl")
    assert "What is [100, 200, 300, 400] there" in cot.teacher.requests[0].prompt
    (example,) = cot.examples()
    human, gpt = (turn["value"] for turn in example["conversations"])
    # By hand: a.png, 64x48, is resized to 56x56 by that family's rule (multiples of 28, at least
    # 3136 pixels), so 0.1 of 56 is 5.6 and so on.
    assert 'What is {"bbox_2d": [6, 11, 17, 22]} there' in human
    read = read_answer(gpt, get_dialect("qwen2_5_vl"), image_sizes=SIZES, target_image=1)
    assert read.box == pytest.approx(BOX, abs=1 / 56)


# --- a server that misbehaves --------------------------------------------------------------------

WHOLE = json.dumps(completion("x")).encode()


def test_what_may_pass_is_requested_again(cot: Cot) -> None:
    bad = {
        0: BadAnswer(429, b'{"error": "slow down"}', {"Retry-After": "1"}),
        1: BadAnswer(500, b"oops", content_type="text/plain"),
        2: BadAnswer(200, WHOLE, cut=30),
        4: BadAnswer(429, b'{"error": "slow down"}'),
        5: BadAnswer(stall=20.0),
    }
    times: list[float] = []

    def behave(request: Request) -> dict | BadAnswer:
        times.append(time.monotonic())
        return bad.get(request.number) or answer_well(request)

    cot.teacher.behave = behave
    # No good reply takes as long, on a busy machine.
    summary = cot.build(1, timeout_s=2.0)
    assert len(cot.teacher.requests) == 4 + len(bad)
    assert (summary.accepted, summary.replies, summary.requests) == (1, 4, 9)
    assert times[1] - times[0] >= 1.0, "the server said how long to wait"


def test_a_retry_counts_for_the_limit_of_requests(
    cot: Cot, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens: list[int] = []
    acquire = RateLimiter.acquire

    async def counted(limiter: RateLimiter, n: int) -> Any:
        tokens.append(n)
        return await acquire(limiter, n)

    monkeypatch.setattr(RateLimiter, "acquire", counted)
    cot.teacher.behave = lambda r: BadAnswer(500) if r.number in (0, 1, 4) else answer_well(r)
    assert cot.build(1).accepted == 1
    assert len(tokens) == len(cot.teacher.requests) == 4 + 3
    assert tokens.count(0) == 3, "tokens are counted once a request"


NO_COMPLETIONS = [
    WHOLE[:-20],
    b"<html>please log in</html>",
    b"",
    b"[]",
    b"\xff\xfe",
    json.dumps(completion("x", choices=[])).encode(),
    json.dumps(completion("x", choices=[{"text": "x"}])).encode(),
    json.dumps(completion("x", choices={"0": "x"})).encode(),
    json.dumps(completion(17)).encode(),
    json.dumps({"error": {"message": "upstream failed"}}).encode(),
    b"[" * 100_000,
]


def test_a_body_that_is_no_completion_leaves_its_row_to_the_next_run(cot: Cot) -> None:
    """The second chain of each row gets such a body."""
    n = len(NO_COMPLETIONS)
    spoilt = {2 * row + 1: BadAnswer(200, body) for row, body in enumerate(NO_COMPLETIONS)}
    cot.teacher.behave = lambda request: spoilt.get(request.number) or answer_well(request)
    assert cot.build(n, concurrency=1).unanswered == n
    assert all("no chat completion" in row["message"] for row in cot.lines("rows.jsonl"))
    assert cot.build(n).accepted == n
    assert len(cot.teacher.requests) == 5 * n


@pytest.mark.parametrize(
    "silent", [BadAnswer(stall=30.0), BadAnswer(body=b" " * 500, drip=0.1)], ids=["stall", "drip"]
)
def test_a_teacher_that_never_answers_is_one_error_in_bounded_time(
    silent: BadAnswer, cot: Cot
) -> None:
    started = time.monotonic()
    cot.teacher.behave = lambda _: silent
    with pytest.raises(UserError, match=r"does not answer: no whole reply in 0\.5") as e:
        cot.build(50, timeout_s=0.5, retries=1, concurrency=8)
    assert time.monotonic() - started < 25  # two of them, and much room for a busy machine
    assert len(cot.teacher.requests) <= 2, "one request, tried twice: not one for each worker"
    assert "\n" not in str(e.value)


def test_a_teacher_that_is_not_there_is_one_error(cot: Cot) -> None:
    with running_teacher() as cot.teacher:
        pass  # the port is free again
    with pytest.raises(UserError, match="does not answer: the connection failed"):
        cot.build(retries=2)


def test_a_teacher_that_falls_silent_ends_the_run_and_keeps_what_there_is(cot: Cot) -> None:
    cot.teacher.behave = lambda r: answer_well(r) if r.number < 5 else BadAnswer(500)
    with pytest.raises(UserError, match="no longer answers: HTTP 500"):
        cot.build(20, concurrency=2, retries=1)
    assert not (cot.out / "cotsft.json").exists()
    assert len(cot.lines("journal.jsonl")) == 5
    cot.teacher.behave = answer_well
    summary = cot.build(20)
    assert (summary.accepted, summary.replies, summary.requests) == (20, 80, 75)


def test_a_reply_under_way_is_kept_when_the_run_ends(cot: Cot) -> None:
    """It is paid, and the teacher may take minutes for it."""
    slow = json.dumps(completion("<think>slow</think>")).encode()

    def behave(request: Request) -> dict[str, Any] | BadAnswer:
        if request.number == 0:
            return answer_well(request)
        return BadAnswer(200, slow, stall=1.5) if request.number == 1 else BadAnswer(500)

    cot.teacher.behave = behave
    with pytest.raises(UserError, match="no longer answers"):
        cot.build(20, concurrency=2, retries=0)
    assert [e["text"] for e in cot.lines("journal.jsonl")][1:] == ["<think>slow</think>"]
    assert len(cot.teacher.requests) == 5, "three that failed, and no new one while it waits"


def test_a_row_that_goes_unanswered_is_reported_and_requested_again(cot: Cot) -> None:
    cot.teacher.behave = lambda r: BadAnswer(502) if r.about.startswith("1 ") else answer_well(r)
    summary = cot.build(3, retries=1, concurrency=1)
    assert (summary.accepted, summary.unanswered) == (2, 1)
    row = cot.lines("rows.jsonl")[1]
    assert (row["status"], row["message"]) == ("unanswered", "HTTP 502")
    cot.teacher.behave = answer_well
    del cot.teacher.requests[:]
    summary = cot.build(3)
    assert Counter(cot.teacher.received) == {"1 chain": 3, "1 choice": 1}
    assert (summary.accepted, summary.unanswered) == (3, 0)


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (401, b'{"error": {"message": "bad key"}}', "refuses the key.*bad key"),
        (404, b'{"error": {"message": "no model"}}', "no such teacher.*teacher-1"),
        (429, b'{"error": {"message": "pay", "code": "insufficient_quota"}}', "has no credit"),
        (307, b"", "redirects"),
        (400, b'{"error": {"message": "no such field"}}', "first request.*no such"),
    ],
)
def test_what_will_not_pass_ends_the_run(status: int, body: bytes, message: str, cot: Cot) -> None:
    cot.teacher.behave = lambda _: BadAnswer(status, body, {"Location": "http://127.0.0.1:9/"})
    with pytest.raises(UserError, match=message):
        cot.build(10)
    # The client retries any 429, that of an empty account too.
    assert len(cot.teacher.requests) == (4 if status == 429 else 1)
    assert not (cot.out / "journal.jsonl").read_bytes()


def test_a_declined_request_costs_its_chain_and_is_not_repeated(cot: Cot) -> None:
    declined = BadAnswer(400, b'{"error": "unsafe"}')
    cot.teacher.behave = lambda r: declined if r.about == "1 chain" else answer_well(r)
    summary = cot.build(3, concurrency=1)
    assert (summary.accepted, summary.chain_reasons) == (2, {"refused": 3})
    assert cot.build(3).requests == 0
    assert cot.lines("chains.jsonl")[3]["declined"] == "HTTP 400: unsafe"


def test_a_server_that_declines_everything_from_some_time_on_ends_the_run(cot: Cot) -> None:
    cot.teacher.behave = lambda r: answer_well(r) if r.number < 4 else BadAnswer(422, b"{}")
    with pytest.raises(UserError, match="declined 10 requests in a row"):
        cot.build(20, concurrency=1)
    # What it declined is not held against the rows.
    assert len(cot.lines("journal.jsonl")) == 4


def test_replies_without_usage_are_counted_apart(cot: Cot) -> None:
    usage = [None, {}, {"prompt_tokens": "many", "completion_tokens": -1}, "none"]
    cot.teacher.behave = lambda r: answer_well(r) | {"usage": usage[r.number % 4], "model": None}
    summary = cot.build(1)
    assert (summary.accepted, summary.replies_without_usage, summary.prompt_tokens) == (1, 4, 0)


# --- going on ------------------------------------------------------------------------------------


def test_a_finished_run_requests_nothing_whatever_prices_and_dialect(cot: Cot) -> None:
    cot.build()
    first = cot.examples()
    assert cot.build().requests == 0
    assert cot.examples() == first
    summary = cot.build(dialect="qwen3_vl", price_in=1.0, price_out=1.0)
    assert (summary.requests, summary.cost) == (0, pytest.approx(880 / 1e6))
    assert cot.answers()[0].endswith("[250, 500, 625, 875]}</answer>")


def test_what_the_replies_depend_on_may_not_change(cot: Cot) -> None:
    cot.build()
    with pytest.raises(UserError, match="max_words was 180 and is 90"):
        cot.build(max_words=90)
    with pytest.raises(UserError, match="row 'row-0' has changed"):
        cot.build([make_row(0, box=(0.1, 0.1, 0.2, 0.2))])
    with (
        ReplyJournal(cot.out / "journal.jsonl"),
        pytest.raises(UserError, match="another process is working on"),
    ):
        cot.build()
    content = (cot.out / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (cot.out / "journal.jsonl").write_bytes(b"".join([content[0], b"{}\n", *content[2:]]))
    with pytest.raises(UserError, match=r"journal.jsonl:2: not a line of the journal"):
        cot.build()
    assert len(cot.teacher.requests) == 8


def test_settings_may_change_while_there_are_no_replies(cot: Cot) -> None:
    def behave(request: Request) -> dict | BadAnswer:
        warm = request.body.get("temperature", 1.0) != 1.0
        return BadAnswer(400, b'{"error": "temperature"}') if warm else answer_well(request)

    cot.teacher.behave = behave
    with pytest.raises(UserError, match=r"declines the first request.*temperature"):
        cot.build(temperature=0.5)
    assert cot.build().accepted == 2
    (cot.out / "settings.json").unlink()
    with pytest.raises(UserError, match=r"a journal without settings\.json"):
        cot.build()


def test_a_torn_line_is_dropped_and_requested_again(cot: Cot) -> None:
    cot.build(concurrency=1)
    journal = (cot.out / "journal.jsonl").read_bytes()
    (cot.out / "journal.jsonl").write_bytes(journal[:-25])
    assert cot.build().accepted == 2
    assert cot.teacher.received[8:] == ["1 choice"]
    assert cot.build().requests == 0
    assert len(cot.lines("journal.jsonl")) == 8


def test_a_full_disk_is_one_error_and_costs_no_more_than_a_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with (
        pytest.raises(UserError, match=r"write .*; make room"),
        ReplyJournal(path) as journal,
        largest_file(1000),
    ):
        for chain in range(5):
            journal.append("r", "d", {"kind": "chain", "chain": chain, "text": "x" * 400})
    with ReplyJournal(path) as journal:
        assert [entry["chain"] for entry in journal.entries("r", "d")] == [0, 1]
        journal.append("r", "d", {"kind": "chain", "chain": 2})
        assert journal.entries("r", "d")[-1]["chain"] == 2


def test_a_limit_takes_the_first_rows_and_the_rest_follows(cot: Cot) -> None:
    assert cot.build(3, limit=1).rows == 1
    assert len(cot.teacher.requests) == 4
    assert cot.build(3).rows == 3
    assert len(cot.teacher.requests) == 12


def test_files_that_cannot_be_finished_leave_the_old_ones(
    cot: Cot, monkeypatch: pytest.MonkeyPatch
) -> None:
    cot.build()
    before = {name: (cot.out / name).read_bytes() for name in ("cotsft.json", "chains.jsonl")}
    monkeypatch.setattr("univg_train.cot.output.student_prompt", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cot.build()
    assert {name: (cot.out / name).read_bytes() for name in before} == before
    # The manifest would vouch for files of another run.
    assert not (cot.out / "manifest.json").exists()
    assert len(list(cot.out.iterdir())) == 5, "nothing half written"


SCRIPT = """
import signal
import sys
from pathlib import Path
# A shell's background jobs ignore it, and hand that on to what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, {tests!r})
from test_train_cot_building import Cot, FakeTeacher
teacher = FakeTeacher(None)
teacher.url = {url!r}
Cot(Path({images!r}), Path({out!r}), teacher).build({n}, concurrency={concurrency}, timeout_s=60.0)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_at_any_moment_it_goes_on_without_requesting_twice(
    how: signal.Signals, cot: Cot
) -> None:
    """After 9 replies the server holds the next ones back; the process ends there."""
    n, concurrency = 6, 3
    reached = threading.Event()

    def behave(request: Request) -> dict | BadAnswer:
        if request.number < 9:
            return answer_well(request)
        reached.set()
        return BadAnswer(stall=60.0)

    cot.teacher.behave = behave
    tests = Path(__file__).parent
    folders = {"tests": str(tests), "images": str(cot.images), "out": str(cot.out)}
    code = SCRIPT.format(**folders, url=cot.teacher.url, n=n, concurrency=concurrency)
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(tests.parent)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert reached.wait(120), process.stderr
    deadline = time.monotonic() + 60
    while len((cot.out / "journal.jsonl").read_bytes().splitlines()) < 9:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    while len(cot.teacher.requests) < 9 + concurrency and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(how)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert not (cot.out / "cotsft.json").exists()
    first = list(cot.teacher.received)
    assert len(first) == 9 + concurrency

    cot.teacher.behave = answer_well
    assert cot.build(n).accepted == n
    # 4 requests a row, and once more the three that were never answered.
    assert len(cot.teacher.requests) == 4 * n + concurrency
    assert Counter(first[:9]) + Counter(cot.teacher.received[len(first) :]) == {
        f"{i} {kind}": times for i in range(n) for kind, times in (("chain", 3), ("choice", 1))
    }
    assert len(cot.examples()) == n


# --- rows ----------------------------------------------------------------------------------------

NO_BOX = "expected x1, y1, x2, y2 on 0-1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": ()}, "has no images"),
        ({"images": ("a.png", "c.png")}, "c.png does not exist"),
        ({"box": (0.5, 0.5, 0.4, 0.6)}, NO_BOX),
        ({"box": (0.5, 0.5, 1.4, 0.6)}, NO_BOX),
        ({"box": (0.5, 0.5, float("nan"), 0.6)}, NO_BOX),
        ({"target_image": 2}, "target image is 2; expected 0 to 1"),
        ({"question": " "}, "question is empty"),
        ({"question": "Where in <image>?"}, "holds <image>"),
        ({"question": "half \ud800"}, "surrogate"),
        ({"id": "row-0"}, "'row-0' is a duplicate"),
    ],
)
def test_faulty_rows_are_refused_before_anything_is_requested(
    changes: dict, message: str, cot: Cot
) -> None:
    rows = [make_row(0), make_row(1, **changes)]
    with pytest.raises(UserError, match=message):
        cot.build(rows)
    assert not cot.teacher.requests
    if "id" not in changes:
        summary = cot.build(rows, skip_faulty=True)
        assert (summary.rows, summary.faulty) == (1, 1)
        assert cot.lines("rows.jsonl")[1]["status"] == "faulty"


def test_an_image_whose_pixels_are_damaged_costs_its_row(cot: Cot) -> None:
    Image.effect_noise((200, 200), 90).convert("RGB").save(cot.images / "c.jpg")
    (cot.images / "c.jpg").write_bytes((cot.images / "c.jpg").read_bytes()[:-4000])
    rows = [make_row(0, images=("a.png", "c.jpg")), make_row(1)]
    summary = cot.build(rows)
    assert (summary.accepted, summary.row_reasons) == (1, {"image_unreadable": 1})
    assert "c.jpg" in cot.lines("rows.jsonl")[0]["message"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": (make_row(i) for i in range(2))}, "generator"),
        ({"rows": []}, "no row has exactly one box"),
        ({"min_words": 50, "max_words": 40}, "min_words is 50 and max_words 40"),
        ({"chains": 0}, "chains is 0"),
        ({"price_in": 1.0}, "price_out is missing"),
        ({"dialect": "molmo"}, "gives points"),
        ({"dialect": "qwen9"}, "qwen9"),
        ({"base_url": "127.0.0.1:8000/v1"}, "expected http://HOST:PORT/v1"),
        ({"base_url": "http://me:secret@127.0.0.1/v1"}, "carries a password"),
        ({"base_url": "http://127.0.0.1/v1?key=secret"}, "carries a password or a query"),
    ],
)
def test_wrong_settings_and_rows_are_refused_and_no_password_is_shown(
    changes: dict, message: str, cot: Cot
) -> None:
    with pytest.raises(UserError, match=message) as error:
        cot.build(**changes)
    assert "secret" not in str(error.value)


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def command(cot: Cot) -> list[str]:
    """The command on a file of one's own: two rows with a box, one without."""
    rows = [
        {"space": "pixels"},
        {
            "images": ["a.png", "b.jpg"],
            "instruction": "Find it in the second image. [row 0]",
            "box": [20, 30, 50, 52.5],
            "target_image": 2,
        },
        {"images": "a.png", "instruction": "Find the elephant.", "box": None},
        {"images": "a.png", "instruction": "Find it. [row 2]", "box": [16, 24, 40, 42]},
    ]
    path = cot.images / "my.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["cot", "--source", str(path), "--out", str(cot.out), "--model", "teacher-1"]


def test_the_command_on_a_file_of_ones_own(
    command: list[str], cot: Cot, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    command += ["--base-url", cot.teacher.url, "--price-in", "1", "--price-out", "2"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "2 rows: 2 accepted, 0 rejected, 0 unanswered" in printed
    assert "left out: 1 with no target" in printed
    with largest_file(500):
        assert main(command) == 2
    message = f"cannot save into {cot.out}: File too large; free space and run the same command"
    assert message in capsys.readouterr().err
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["requests"] == 0
    assert len(cot.teacher.requests) == 8
    assert [example["images"] for example in cot.examples()] == [["a.png", "b.jpg"], ["a.png"]]
    assert all(text.endswith("(250,500),(625,875)</answer>") for text in cot.answers())


def test_the_command_reports_mistakes_in_one_line(
    command: list[str], cot: Cot, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert main(command) == 2
    assert "OPENAI_API_KEY is not set" in capsys.readouterr().err
    assert main([*command, "--split", "x", "--base-url", NOWHERE]) == 2
    assert "--split and --root belong to --benchmark" in capsys.readouterr().err
    cot.teacher.behave = lambda _: BadAnswer(503)
    monkeypatch.setenv("OPENAI_BASE_URL", cot.teacher.url)
    assert main([*command, "--retries", "0"]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("univg-train cot: the teacher") and "not answer: HTTP 503" in error
    assert cot.teacher.url in error and "\n" not in error
    monkeypatch.setitem(sys.modules, "openai", None)
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "the package openai is not" in error and "pip install -e '.[train]'" in error


def test_unanswered_rows_have_an_exit_status_of_their_own(
    command: list[str], cot: Cot, capsys
) -> None:
    cot.teacher.behave = lambda r: BadAnswer(500) if r.about.startswith("2 ") else answer_well(r)
    command += ["--base-url", cot.teacher.url, "--retries", "0", "--concurrency", "1"]
    assert main(command) == 3
    assert "1 unanswered" in capsys.readouterr().out


def test_rows_of_a_prepared_benchmark(cot: Cot, tmp_path: Path, capsys) -> None:
    draw(tmp_path / "toy" / "images", {"a.png": (640, 480), "b.png": (320, 240)})
    samples = [make_sample(0), make_sample(1, targets=())]
    write_benchmark(samples, root=tmp_path, benchmark="toy")
    used, unused = rows_of_benchmark("toy", root=tmp_path).rows
    assert isinstance(used, CotRow) and isinstance(unused, UnusedRow)
    assert (used.target_image, used.box) == (1, (0.1, 0.2, 0.3, 0.4))
    command = ["cot", "--benchmark", "toy", "--root", str(tmp_path), "--out", str(cot.out)]
    command += ["--model", "m", "--base-url", cot.teacher.url, "--chains", "1", "--json"]
    assert main(command) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["rows"], summary["accepted"]) == (1, 1)
    assert summary["unused"] == {"no target": 1}
    manifest = json.loads((cot.out / "manifest.json").read_text())
    assert manifest["input"]["benchmark"] == "toy"
    assert len(manifest["input"]["fingerprint"]) == 64


def test_the_command_describes_itself_as_the_documentation_does(repo_root: Path) -> None:
    text = (repo_root / "docs" / "cot.md").read_text()
    commands = [
        line.removeprefix("univg-train ")
        for line in text.replace("\\\n", " ").splitlines()
        if line.startswith("univg-train cot")
    ]
    assert len(commands) == 2
    for command in commands:
        assert build_parser().parse_args(shlex.split(command, comments=True)).command == "cot"
    for reason in (*REASONS, "no_sound_chain", "no_choice", "image_unreadable"):
        assert f"`{reason}`" in text, reason
