"""The whole of `univg-train cot` against a real server on this machine."""

from __future__ import annotations

import base64
import io
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from fake_teacher import (
    KEY,
    BadAnswer,
    Request,
    answer_well,
    completion,
    good_chain,
    running_teacher,
)
from PIL import Image

from univg_eval.answers import read_answer
from univg_eval.dialects import get_dialect
from univg_eval.errors import UserError
from univg_eval.prompts import THINK_SUFFIX
from univg_train.cli import main
from univg_train.cot.building import CotSettings, build_chains
from univg_train.cot.journal import ReplyJournal
from univg_train.cot.output import CotSummary
from univg_train.cot.rows import CotRow, CotRows, UnusedRow, rows_of_benchmark
from univg_train.cot.teacher import TeacherSettings

BOX = (0.25, 0.5, 0.625, 0.875)


@pytest.fixture(autouse=True)
def _no_proxy_and_short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (64, 48), "red").save(folder / "a.png")
    Image.new("RGB", (80, 60), "blue").save(folder / "b.jpg")
    return folder


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


def make_rows(images: Path, n: int) -> CotRows:
    return CotRows([make_row(i) for i in range(n)], images, {"file": "toy.json"})


def settings_for(url: str, **changes) -> CotSettings:
    teacher = {"timeout_s": 30.0, "retries": 3}
    names = {f for f in TeacherSettings.__dataclass_fields__}
    teacher |= {name: changes.pop(name) for name in list(changes) if name in names}
    return CotSettings(
        teacher=TeacherSettings(model="teacher-1", base_url=url, **teacher), **changes
    )


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def build(images: Path, out: Path, url: str, n: int = 2, **changes) -> CotSummary:
    return build_chains(make_rows(images, n), out, settings_for(url, **changes), api_key=KEY)


# --- what comes out ------------------------------------------------------------------------------


def test_three_chains_a_choice_and_an_example(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with running_teacher() as teacher:
        summary = build(images, out, teacher.url, price_in=2.0, price_out=10.0)

    assert Counter(teacher.asked) == {
        "0 chain": 3, "0 choice": 1, "1 chain": 3, "1 choice": 1,
    }  # fmt: skip
    assert (summary.rows, summary.accepted, summary.rejected, summary.unanswered) == (2, 2, 0, 0)
    assert (summary.chains, summary.replies, summary.requests) == (6, 8, 8)
    assert (summary.prompt_tokens, summary.completion_tokens) == (800, 80)
    assert summary.cost == pytest.approx((800 * 2.0 + 80 * 10.0) / 1e6)

    examples = json.loads((out / "cotsft.json").read_text())
    assert [example["id"] for example in examples] == ["row-0", "row-1"]
    for number, example in enumerate(examples):
        human, gpt = example["conversations"]
        assert human == {
            "from": "human",
            "value": f"<image><image>Where is it in the second image? [row {number}]{THINK_SUFFIX}",
        }
        assert example["images"] == ["a.png", "b.jpg"]
        assert gpt["from"] == "gpt"
        assert gpt["value"].startswith("<think>The question asks")
        assert gpt["value"].endswith("</think><answer>(250,500),(625,875)</answer>")
        provenance = example["provenance"]
        assert provenance["teacher"] == "teacher-1"
        assert provenance["answered_by"] == "teacher-1-0613"
        assert len(provenance["prompts_sha256"]) == 64
        assert provenance["date"].startswith("20")

    chains = lines(out / "chains.jsonl")
    assert [(c["id"], c["chain"]) for c in chains] == [
        (f"row-{row}", chain) for row in range(2) for chain in range(3)
    ]
    assert Counter(c["verdict"] for c in chains) == {"accepted": 2, "not_chosen": 4}
    assert [c["cost"] for c in chains] == pytest.approx([(100 * 2.0 + 10 * 10.0) / 1e6] * 6)
    rows = lines(out / "rows.jsonl")
    assert [row["status"] for row in rows] == ["accepted", "accepted"]
    assert rows[0]["source"] == {"file": "toy.json", "row": 0}
    assert rows[0]["cost"] == pytest.approx((400 * 2.0 + 40 * 10.0) / 1e6)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["result"]["accepted"] == 2
    assert manifest["versions"]["openai"]


def test_the_choice_decides_and_its_numbers_are_of_the_order_shown(
    images: Path, tmp_path: Path
) -> None:
    chosen: list[str] = []

    def behave(request: Request) -> dict:
        if not request.is_choice:
            return answer_well(request)
        chosen.append(request.prompt.split("Reasoning 3:\n")[1].split("\n\nCompare")[0])
        return completion("The third. <best>3</best>")

    with running_teacher(behave) as teacher:
        build(images, tmp_path / "out", teacher.url, n=4)
    examples = json.loads((tmp_path / "out" / "cotsft.json").read_text())
    texts = [example["conversations"][1]["value"] for example in examples]
    assert sorted(t.split("</think>")[0].removeprefix("<think>") for t in texts) == sorted(chosen)
    numbers = [row["chosen"] for row in lines(tmp_path / "out" / "rows.jsonl")]
    assert len(set(numbers)) > 1, "the place of a candidate should not follow its number"


def test_only_sound_chains_stand_for_choice_and_one_needs_none(
    images: Path, tmp_path: Path
) -> None:
    def behave(request: Request) -> dict:
        if request.is_choice:
            assert "Reasoning 2:" in request.prompt
            assert "Reasoning 3:" not in request.prompt
            return completion("<best>2</best>")
        sound = good_chain(request)
        spoilt = sound.replace("Looking", "The ground truth says so. Looking")
        row, number = request.about.split()[0], before[request.about]
        before[request.about] += 1
        n_spoilt = {"0": 1, "1": 2, "2": 3}[row]
        return completion(spoilt if number < n_spoilt else sound)

    before: Counter[str] = Counter()
    with running_teacher(behave) as teacher:
        summary = build(images, tmp_path / "out", teacher.url, n=3, concurrency=1)
    assert [a for a in teacher.asked if "choice" in a] == ["0 choice"]
    assert (summary.accepted, summary.rejected) == (2, 1)
    assert summary.chain_reasons == {"given_answer": 6}
    assert summary.row_reasons == {"no_sound_chain": 1}
    chains = lines(tmp_path / "out" / "chains.jsonl")
    assert Counter(c["verdict"] for c in chains) == {
        "rejected": 6, "accepted": 2, "not_chosen": 1,
    }  # fmt: skip
    assert all("thinking" in c and "reply" in c for c in chains)


def test_a_choice_that_names_nobody_is_asked_for_once_more(images: Path, tmp_path: Path) -> None:
    def behave(request: Request) -> dict:
        return completion("I cannot say.") if request.is_choice else answer_well(request)

    with running_teacher(behave) as teacher:
        summary = build(images, tmp_path / "out", teacher.url, n=1)
        assert Counter(teacher.asked) == {"0 chain": 3, "0 choice": 2}
        build(images, tmp_path / "out", teacher.url, n=1)
        assert len(teacher.requests) == 5
    assert summary.row_reasons == {"no_choice": 1}


def test_the_same_chain_three_times_is_one(images: Path, tmp_path: Path) -> None:
    def behave(request: Request) -> dict:
        return completion(good_chain(replace(request, number=0)))

    with running_teacher(behave) as teacher:
        summary = build(images, tmp_path / "out", teacher.url, n=1)
    assert teacher.asked == ["0 chain"] * 3
    assert (summary.accepted, summary.chain_reasons) == (1, {"repeated": 2})


def test_the_examples_are_read_as_training_data_with_the_same_boxes(
    images: Path, tmp_path: Path
) -> None:
    from univg_train.data.forms import open_form

    given, found = make_row(0), make_row(1, image_is_given=False, question="Find it. [row 1]")
    with running_teacher() as teacher:
        settings = settings_for(teacher.url, chains=1)
        build_chains(CotRows([given, found], images), tmp_path / "out", settings, api_key=KEY)
    file = open_form("cot", tmp_path / "out" / "cotsft.json")
    rows = [row for entry in file.entries() for row in entry.read()]
    assert [row.question for row in rows] == [given.question, found.question]
    for row in rows:
        (target,) = row.targets
        assert (target.image, target.box) == (1, pytest.approx(BOX))


# --- what is sent --------------------------------------------------------------------------------


def test_images_are_sent_inside_the_request_reduced_and_bare(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    exif[0x0112] = 6  # stored lying on its side
    Image.new("RGB", (400, 200), "red").save(folder / "a.jpg", exif=exif, comment=b"secret")
    row = make_row(0, images=("a.jpg",), target_image=0, question="Where? [row 0]")
    with running_teacher() as teacher:
        settings = settings_for(teacher.url, image_pixels=20_000, chains=1)
        build_chains(CotRows([row], folder), tmp_path / "out", settings, api_key=KEY)
    (request,) = teacher.requests
    (uri,) = request.images
    head, data = uri.split(",", 1)
    assert head == "data:image/jpeg;base64"
    raw = base64.b64decode(data)
    assert b"home" not in raw and b"secret" not in raw
    sent = Image.open(io.BytesIO(raw))
    assert sent.size == (100, 200)
    assert not sent.getexif()
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.body["model"] == "teacher-1"
    assert request.body["max_tokens"] == 1024
    assert set(request.body) == {"model", "messages", "max_tokens", "temperature"}


def test_the_prompt_holds_question_truth_steps_and_the_names_of_the_images(
    images: Path, tmp_path: Path
) -> None:
    with running_teacher() as teacher:
        build(images, tmp_path / "out", teacher.url, n=1)
    chain, choice = teacher.requests[0], teacher.requests[-1]
    assert chain.texts[:-1] == ["Image 1:", "Image 2:"]
    assert "Where is it in the second image? [row 0]" in chain.prompt
    assert "in Image 2, and its bounding box is [250, 500, 625, 875]" in chain.prompt
    assert "compare them part by part" in chain.prompt
    assert "20 to 180 words" in chain.prompt
    assert len(choice.images) == 2
    assert "temperature" not in choice.body


def test_the_key_is_written_nowhere(
    images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def behave(request: Request) -> dict | BadAnswer:
        told = json.dumps({"error": {"message": f"who is {KEY}?"}}).encode()
        if request.number == 2:
            return completion(f"You sent {KEY}.")
        return BadAnswer(400, told) if request.number == 1 else answer_well(request)

    with running_teacher(behave) as teacher:
        build(images, tmp_path / "out", teacher.url, n=1)
    written = b"".join(p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert b"who is [key]?" in written
    assert b"You sent [key]." in written
    assert KEY.encode() not in written
    captured = capfd.readouterr()
    assert KEY not in captured.out + captured.err


def test_a_word_in_the_place_of_a_key_is_no_secret(images: Path, tmp_path: Path) -> None:
    told = BadAnswer(400, b'{"error": {"message": "there is none"}}')
    with running_teacher(lambda _: told) as teacher, pytest.raises(UserError, match="is none"):
        rows = make_rows(images, 1)
        build_chains(rows, tmp_path / "out", settings_for(teacher.url), api_key="none")


def test_boxes_of_the_question_take_the_readers_form(images: Path, tmp_path: Path) -> None:
    question = "What is <|box_start|>(100,200),(300,400)<|box_end|> there in the second image?"
    row = make_row(0, question=question)
    with running_teacher() as teacher:
        settings = settings_for(teacher.url, chains=1, dialect="qwen2_5_vl")
        build_chains(CotRows([row], images), tmp_path / "out", settings, api_key=KEY)
    assert "What is [100, 200, 300, 400] there" in teacher.requests[0].prompt
    (example,) = json.loads((tmp_path / "out" / "cotsft.json").read_text())
    human, gpt = (turn["value"] for turn in example["conversations"])
    # By hand: a.png, 64x48, is resized to 84x56 by that family's rule (multiples of 28, at least
    # 3136 pixels: 64 → 56 and 48 → 56; 56*56 = 3136), so 0.1 of 56 is 5.6 and so on.
    assert 'What is {"bbox_2d": [6, 11, 17, 22]} there' in human
    dialect = get_dialect("qwen2_5_vl")
    read = read_answer(gpt, dialect, image_sizes=[(64, 48), (80, 60)], target_image=1)
    assert read.box == pytest.approx(BOX, abs=1 / 56)


def test_an_answer_names_the_image_where_it_had_to_be_found(images: Path, tmp_path: Path) -> None:
    row = make_row(0, image_is_given=False)
    with running_teacher() as teacher:
        settings = settings_for(teacher.url, chains=1)
        build_chains(CotRows([row], images), tmp_path / "out", settings, api_key=KEY)
    (example,) = json.loads((tmp_path / "out" / "cotsft.json").read_text())
    answer = example["conversations"][1]["value"]
    assert answer.endswith("<answer>Image-2: (250,500),(625,875)</answer>")
    read = read_answer(answer, get_dialect("univg_r1"), image_sizes=[(64, 48), (80, 60)])
    assert (read.status, read.image_index, read.box) == ("ok", 1, BOX)


# --- a server that misbehaves --------------------------------------------------------------------

_WHOLE = json.dumps(completion("x")).encode()


@pytest.mark.parametrize(
    "bad",
    [
        BadAnswer(500, b"oops", content_type="text/plain"),
        BadAnswer(503, b'{"error": {"message": "overloaded"}}'),
        BadAnswer(429, b'{"error": "slow down"}'),
        BadAnswer(429, b'{"error": "slow down"}', {"Retry-After": "0"}),
        BadAnswer(200, _WHOLE, cut=30),
        BadAnswer(stall=20.0),
    ],
    ids=lambda bad: f"{bad.status}-{bad.body[:12]!r}-{bad.cut or bad.stall or ''}",
)
def test_what_may_pass_is_asked_again(bad: BadAnswer, images: Path, tmp_path: Path) -> None:
    def behave(request: Request) -> dict | BadAnswer:
        return bad if request.number in (0, 2) else answer_well(request)

    with running_teacher(behave) as teacher:
        timeout = 2.0 if bad.stall else 30.0  # no good reply takes as long, on a busy machine
        summary = build(images, tmp_path / "out", teacher.url, n=1, timeout_s=timeout)
        assert len(teacher.requests) == 6
    assert (summary.accepted, summary.replies, summary.requests) == (1, 4, 6)


@pytest.mark.parametrize(
    "body",
    [
        _WHOLE[:-20],
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
    ],
    ids=lambda body: repr(body[:20]),
)
def test_a_body_that_is_no_completion_leaves_its_row_to_the_next_run(
    body: bytes, images: Path, tmp_path: Path
) -> None:
    def behave(request: Request) -> dict | BadAnswer:
        return BadAnswer(200, body) if request.number == 1 else answer_well(request)

    with running_teacher(behave) as teacher:
        assert build(images, tmp_path / "out", teacher.url, n=1).unanswered == 1
        assert "no chat completion" in lines(tmp_path / "out" / "rows.jsonl")[0]["message"]
        assert build(images, tmp_path / "out", teacher.url, n=1).accepted == 1
        assert len(teacher.requests) == 5


def test_the_wait_that_the_server_asks_for_is_kept(images: Path, tmp_path: Path) -> None:
    times: list[float] = []

    def behave(request: Request) -> dict | BadAnswer:
        times.append(time.monotonic())
        if request.number == 0:
            return BadAnswer(429, b"{}", {"Retry-After": "1"})
        return answer_well(request)

    with running_teacher(behave) as teacher:
        build(images, tmp_path / "out", teacher.url, n=1, chains=1)
    assert times[1] - times[0] >= 1.0


@pytest.mark.parametrize(
    "silent", [BadAnswer(stall=30.0), BadAnswer(body=b" " * 500, drip=0.1)], ids=["stall", "drip"]
)
def test_a_teacher_that_never_answers_is_one_error_in_bounded_time(
    silent: BadAnswer, images: Path, tmp_path: Path
) -> None:
    started = time.monotonic()
    with (
        running_teacher(lambda _: silent) as teacher,
        pytest.raises(UserError, match="does not answer: no whole reply in 1") as e,
    ):
        build(images, tmp_path / "out", teacher.url, n=50, timeout_s=1.0, retries=1, concurrency=8)
    assert time.monotonic() - started < 25  # two of them, and much room for a busy machine
    assert len(teacher.requests) <= 2, "one request, tried twice: not one for each worker"
    assert "\n" not in str(e.value)


def test_a_teacher_that_is_not_there_is_one_error(images: Path, tmp_path: Path) -> None:
    with running_teacher() as teacher:
        pass  # the port is free again
    with pytest.raises(UserError, match="does not answer: the connection failed"):
        build(images, tmp_path / "out", teacher.url, retries=2)


def test_a_teacher_that_falls_silent_ends_the_run_and_keeps_what_there_is(
    images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def behave(request: Request) -> dict | BadAnswer:
        return answer_well(request) if request.number < 5 or healed else BadAnswer(500)

    healed = False
    with running_teacher(behave) as teacher:
        with pytest.raises(UserError, match="no longer answers: HTTP 500"):
            build(images, out, teacher.url, n=20, concurrency=2, retries=1)
        assert not (out / "cotsft.json").exists()
        assert len(lines(out / "journal.jsonl")) == 5
        healed = True
        before = len(teacher.requests)
        summary = build(images, out, teacher.url, n=20)
        assert len(teacher.requests) - before == 20 * 4 - 5
    assert (summary.accepted, summary.replies, summary.requests) == (20, 80, 75)


def test_a_row_that_goes_unanswered_is_told_and_asked_again(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def behave(request: Request) -> dict | BadAnswer:
        return BadAnswer(502) if request.about.startswith("1 ") and bad else answer_well(request)

    bad = True
    with running_teacher(behave) as teacher:
        summary = build(images, out, teacher.url, n=3, retries=1, concurrency=1)
        assert (summary.accepted, summary.unanswered) == (2, 1)
        row = lines(out / "rows.jsonl")[1]
        assert (row["status"], row["message"]) == ("unanswered", "HTTP 502")
        bad = False
        del teacher.requests[:]
        summary = build(images, out, teacher.url, n=3)
        assert Counter(teacher.asked) == {"1 chain": 3, "1 choice": 1}
    assert (summary.accepted, summary.unanswered) == (3, 0)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (BadAnswer(401, b'{"error": {"message": "bad key"}}'), "refuses the key.*bad key"),
        (BadAnswer(404, b'{"error": {"message": "no model"}}'), "no such teacher.*teacher-1"),
        (
            BadAnswer(429, b'{"error": {"message": "pay", "code": "insufficient_quota"}}'),
            "has no credit",
        ),
        (BadAnswer(307, b"", {"Location": "http://127.0.0.1:9/"}), "redirects"),
        (BadAnswer(400, b'{"error": {"message": "no such field"}}'), "first request.*no such"),
    ],
    ids=["key", "model", "credit", "redirect", "option"],
)
def test_what_will_not_pass_ends_the_run(
    answer: BadAnswer, message: str, images: Path, tmp_path: Path
) -> None:
    with running_teacher(lambda _: answer) as teacher, pytest.raises(UserError, match=message):
        build(images, tmp_path / "out", teacher.url, n=10)
    # The client retries any 429, that of an empty account too.
    assert len(teacher.requests) == (4 if answer.status == 429 else 1)
    assert not (tmp_path / "out" / "journal.jsonl").read_bytes()


def test_a_declined_request_costs_its_chain_and_is_not_repeated(
    images: Path, tmp_path: Path
) -> None:
    def behave(request: Request) -> dict | BadAnswer:
        declined = request.about == "1 chain"
        return BadAnswer(400, b'{"error": "unsafe"}') if declined else answer_well(request)

    with running_teacher(behave) as teacher:
        summary = build(images, tmp_path / "out", teacher.url, n=3, concurrency=1)
        assert (summary.accepted, summary.chain_reasons) == (2, {"refused": 3})
        n = len(teacher.requests)
        again = build(images, tmp_path / "out", teacher.url, n=3)
        assert len(teacher.requests) == n
    assert again.requests == 0
    assert lines(tmp_path / "out" / "chains.jsonl")[3]["declined"] == "HTTP 400: unsafe"


def test_a_server_that_declines_everything_from_some_time_on_ends_the_run(
    images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def behave(request: Request) -> dict | BadAnswer:
        return answer_well(request) if request.number < 4 else BadAnswer(422, b'{"error": "no"}')

    with (
        running_teacher(behave) as teacher,
        pytest.raises(UserError, match="declined 10 requests in a row"),
    ):
        build(images, out, teacher.url, n=20, concurrency=1)
    # What it declined is not held against the rows.
    assert len(lines(out / "journal.jsonl")) == 4


def test_replies_without_usage_are_counted_apart(images: Path, tmp_path: Path) -> None:
    def behave(request: Request) -> dict:
        usage = [None, {}, {"prompt_tokens": "many", "completion_tokens": -1}, "none"]
        return answer_well(request) | {"usage": usage[request.number % 4], "model": None}

    with running_teacher(behave) as teacher:
        summary = build(images, tmp_path / "out", teacher.url, n=1)
    assert (summary.accepted, summary.replies_without_usage, summary.prompt_tokens) == (1, 4, 0)


# --- going on ------------------------------------------------------------------------------------


def test_a_finished_run_asks_nothing_and_writes_the_same(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with running_teacher() as teacher:
        build(images, out, teacher.url)
        first = (out / "cotsft.json").read_bytes()
        summary = build(images, out, teacher.url)
        assert len(teacher.requests) == 8
    assert summary.requests == 0
    assert (out / "cotsft.json").read_bytes() == first


def test_prices_and_the_students_dialect_change_without_a_request(
    images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with running_teacher() as teacher:
        build(images, out, teacher.url)
        summary = build(images, out, teacher.url, dialect="qwen3_vl", price_in=1.0, price_out=1.0)
        assert len(teacher.requests) == 8
    assert summary.cost == pytest.approx(880 / 1e6)
    (example, _) = json.loads((out / "cotsft.json").read_text())
    assert example["conversations"][1]["value"].endswith("[250, 500, 625, 875]}</answer>")


def test_settings_that_replies_depend_on_may_not_change(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with running_teacher() as teacher:
        build(images, out, teacher.url)
        with pytest.raises(UserError, match="max_words was 180 and is 90"):
            build(images, out, teacher.url, max_words=90)
        assert len(teacher.requests) == 8


def test_settings_may_change_while_there_are_no_replies(images: Path, tmp_path: Path) -> None:
    def behave(request: Request) -> dict | BadAnswer:
        warm = request.body.get("temperature", 1.0) != 1.0
        return BadAnswer(400, b'{"error": "temperature"}') if warm else answer_well(request)

    with running_teacher(behave) as teacher:
        with pytest.raises(UserError, match=r"declines the first request.*temperature"):
            build(images, tmp_path / "out", teacher.url, temperature=0.5)
        assert build(images, tmp_path / "out", teacher.url).accepted == 2
        (tmp_path / "out" / "settings.json").unlink()
        with pytest.raises(UserError, match=r"a journal without settings\.json"):
            build(images, tmp_path / "out", teacher.url)


def test_a_row_that_changed_is_refused(images: Path, tmp_path: Path) -> None:
    with running_teacher() as teacher:
        build(images, tmp_path / "out", teacher.url)
        changed = CotRows([make_row(0, box=(0.1, 0.1, 0.2, 0.2))], images)
        with pytest.raises(UserError, match="row 'row-0' has changed"):
            build_chains(changed, tmp_path / "out", settings_for(teacher.url), api_key=KEY)


def test_a_torn_line_is_dropped_and_asked_again(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with running_teacher() as teacher:
        build(images, out, teacher.url, concurrency=1)
        journal = (out / "journal.jsonl").read_bytes()
        (out / "journal.jsonl").write_bytes(journal[:-25])
        summary = build(images, out, teacher.url)
        assert len(teacher.requests) == 9
        assert teacher.asked[-1] == "1 choice"
        assert summary.accepted == 2
        assert build(images, out, teacher.url).requests == 0
    assert len(lines(out / "journal.jsonl")) == 8


def test_a_full_disk_is_one_error_and_costs_no_more_than_a_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(UserError, match=r"write .*; make room"), ReplyJournal(path) as journal:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
            for chain in range(5):
                journal.append("r", "d", {"kind": "chain", "chain": chain, "text": "x" * 400})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with ReplyJournal(path) as journal:
        assert [entry["chain"] for entry in journal.entries("r", "d")] == [0, 1]
        journal.append("r", "d", {"kind": "chain", "chain": 2})
        assert journal.entries("r", "d")[-1]["chain"] == 2


def test_a_damaged_line_is_an_error_that_names_it(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with running_teacher() as teacher:
        build(images, out, teacher.url)
        content = (out / "journal.jsonl").read_bytes().splitlines(keepends=True)
        (out / "journal.jsonl").write_bytes(b"".join([content[0], b"{}\n", *content[2:]]))
        with pytest.raises(UserError, match=r"journal.jsonl:2: not a line of the journal"):
            build(images, out, teacher.url)


def test_a_limit_takes_the_first_rows_and_the_rest_follows(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with running_teacher() as teacher:
        settings = settings_for(teacher.url)
        rows = make_rows(images, 3)
        assert build_chains(rows, out, settings, api_key=KEY, limit=1).rows == 1
        assert len(teacher.requests) == 4
        assert build_chains(rows, out, settings, api_key=KEY).rows == 3
        assert len(teacher.requests) == 12


def test_files_that_cannot_be_finished_leave_the_old_ones(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from univg_train.cot import output as cot_output

    out = tmp_path / "out"
    with running_teacher() as teacher:
        build(images, out, teacher.url)
        before = {name: (out / name).read_bytes() for name in ("cotsft.json", "chains.jsonl")}
        monkeypatch.setattr(cot_output, "student_prompt", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build(images, out, teacher.url)
    assert {name: (out / name).read_bytes() for name in before} == before
    # The manifest would vouch for files of another run.
    assert sorted(path.name for path in out.iterdir()) == [
        "chains.jsonl", "cotsft.json", "journal.jsonl", "rows.jsonl", "settings.json",
    ]  # fmt: skip


_SCRIPT = """
import signal
import sys
from pathlib import Path
# A shell's background jobs ignore it, and hand that on to what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, {tests!r})
from test_cot import make_rows, settings_for
from univg_train.cot.building import build_chains
rows = make_rows(Path({images!r}), {n})
settings = settings_for({url!r}, concurrency={concurrency}, timeout_s=60.0)
print(build_chains(rows, Path({out!r}), settings, api_key="k").accepted)
"""


def run_script(images: Path, out: Path, url: str, n: int, concurrency: int) -> subprocess.Popen:
    code = _SCRIPT.format(
        tests=str(Path(__file__).parent),
        images=str(images),
        n=n,
        url=url,
        concurrency=concurrency,
        out=str(out),
    )
    environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    root = str(Path(__file__).resolve().parent.parent)
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment | {"PYTHONPATH": root},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_at_any_moment_it_goes_on_without_asking_twice(
    how: signal.Signals, images: Path, tmp_path: Path
) -> None:
    """After 9 replies the server holds the next ones back; the process ends there."""
    out, n, concurrency = tmp_path / "out", 6, 3
    reached, alive = threading.Event(), True

    def behave(request: Request) -> dict | BadAnswer:
        if alive and request.number >= 9:
            reached.set()
            return BadAnswer(stall=60.0)
        return answer_well(request)

    with running_teacher(behave) as teacher:
        process = run_script(images, out, teacher.url, n, concurrency)
        assert reached.wait(120), process.stderr
        deadline = time.monotonic() + 60
        while len((out / "journal.jsonl").read_bytes().splitlines()) < 9:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        while len(teacher.requests) < 9 + concurrency and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(how)
        process.communicate(timeout=60)
        assert process.returncode != 0
        assert not (out / "cotsft.json").exists()
        first = list(teacher.asked)
        assert len(first) == 9 + concurrency

        alive = False
        process = run_script(images, out, teacher.url, n, concurrency)
        told, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert told.strip() == str(n)
    # 4 requests a row, and once more the three that were never answered.
    assert len(teacher.requests) == 4 * n + concurrency
    assert Counter(first[:9]) + Counter(teacher.asked[len(first) :]) == {
        f"{i} {kind}": times for i in range(n) for kind, times in (("chain", 3), ("choice", 1))
    }
    assert len(json.loads((out / "cotsft.json").read_text())) == n


def test_two_processes_do_not_work_on_one_folder(images: Path, tmp_path: Path) -> None:
    with running_teacher() as teacher:
        build(images, tmp_path / "out", teacher.url, n=1)
        with (
            ReplyJournal(tmp_path / "out" / "journal.jsonl"),
            pytest.raises(UserError, match="another process is working on"),
        ):
            build(images, tmp_path / "out", teacher.url, n=1)


# --- rows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": ()}, "has no images"),
        ({"images": ("a.png", "c.png")}, "c.png does not exist"),
        ({"box": (0.5, 0.5, 0.4, 0.6)}, "expected x1, y1, x2, y2 on 0-1"),
        ({"box": (0.5, 0.5, 1.4, 0.6)}, "expected x1, y1, x2, y2 on 0-1"),
        ({"box": (0.5, 0.5, float("nan"), 0.6)}, "expected x1, y1, x2, y2 on 0-1"),
        ({"target_image": 2}, "target image is 2; expected 0 to 1"),
        ({"question": " "}, "question is empty"),
        ({"question": "Where in <image>?"}, "holds <image>"),
        ({"question": "half \ud800"}, "surrogate"),
        ({"id": "row-0"}, "'row-0' is a duplicate"),
    ],
)
def test_faulty_rows_are_refused_before_anything_is_asked(
    changes: dict, message: str, images: Path, tmp_path: Path
) -> None:
    rows = CotRows([make_row(0), make_row(1, **changes)], images)
    with running_teacher() as teacher:
        with pytest.raises(UserError, match=message):
            build_chains(rows, tmp_path / "out", settings_for(teacher.url), api_key=KEY)
        assert not teacher.requests
        if "id" not in changes:
            summary = build_chains(
                rows, tmp_path / "out", settings_for(teacher.url), api_key=KEY, skip_faulty=True
            )
            assert (summary.rows, summary.faulty) == (1, 1)
            assert lines(tmp_path / "out" / "rows.jsonl")[1]["status"] == "faulty"


def test_an_image_whose_pixels_are_damaged_costs_its_row(images: Path, tmp_path: Path) -> None:
    noise = Image.effect_noise((200, 200), 90).convert("RGB")
    noise.save(images / "c.jpg")
    (images / "c.jpg").write_bytes((images / "c.jpg").read_bytes()[:-4000])
    rows = CotRows([make_row(0, images=("a.png", "c.jpg")), make_row(1)], images)
    with running_teacher() as teacher:
        summary = build_chains(rows, tmp_path / "out", settings_for(teacher.url), api_key=KEY)
    assert (summary.accepted, summary.row_reasons) == (1, {"image_unreadable": 1})
    assert "c.jpg" in lines(tmp_path / "out" / "rows.jsonl")[0]["message"]


def test_rows_of_another_kind_are_counted(images: Path, tmp_path: Path) -> None:
    rows = CotRows([UnusedRow("none-1", "no target", faulty=False), make_row(0)], images)
    with running_teacher() as teacher:
        summary = build_chains(rows, tmp_path / "out", settings_for(teacher.url), api_key=KEY)
    assert (summary.rows, summary.unused) == (1, {"no target": 1})


def test_a_generator_and_nothing_at_all_are_refused(images: Path, tmp_path: Path) -> None:
    settings = settings_for("http://127.0.0.1:9/v1")
    with pytest.raises(UserError, match="generator"):
        rows = CotRows((make_row(i) for i in range(2)), images)
        build_chains(rows, tmp_path / "out", settings, api_key=KEY)
    with pytest.raises(UserError, match="no row has exactly one box"):
        build_chains(CotRows([], images), tmp_path / "out", settings, api_key=KEY)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_words": 50, "max_words": 40}, "min_words is 50 and max_words 40"),
        ({"chains": 0}, "chains is 0"),
        ({"price_in": 1.0}, "price_out is missing"),
        ({"dialect": "molmo"}, "gives points"),
        ({"dialect": "qwen9"}, "qwen9"),
    ],
)
def test_wrong_settings_are_refused(
    changes: dict, message: str, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        build(images, tmp_path / "out", "http://127.0.0.1:9/v1", **changes)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("127.0.0.1:8000/v1", "expected http://HOST:PORT/v1"),
        ("http://me:secret@127.0.0.1/v1", "carries a password"),
        ("http://127.0.0.1/v1?key=secret", "carries a password or a query"),
    ],
)
def test_odd_addresses_are_refused_and_their_passwords_not_told(url: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        TeacherSettings(model="m", base_url=url)
    assert "secret" not in str(error.value)


# --- the command ---------------------------------------------------------------------------------


def write_custom(images: Path) -> Path:
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
    path = images / "my.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_command_on_a_file_of_ones_own(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    source, out = write_custom(images), tmp_path / "out"
    with running_teacher() as teacher:
        command = [
            "cot", "--source", str(source), "--out", str(out), "--model", "teacher-1",
            "--base-url", teacher.url, "--price-in", "1", "--price-out", "2",
        ]  # fmt: skip
        assert main(command) == 0
        told = capsys.readouterr().out
        assert "2 rows: 2 accepted, 0 rejected, 0 unanswered" in told
        assert "left out: 1 with no target" in told
        assert main([*command, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["requests"] == 0
        assert len(teacher.requests) == 8
    examples = json.loads((out / "cotsft.json").read_text())
    assert [example["images"] for example in examples] == [["a.png", "b.jpg"], ["a.png"]]
    for example in examples:
        assert example["conversations"][1]["value"].endswith("(250,500),(625,875)</answer>")


def test_the_command_tells_mistakes_in_one_line(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    command = ["cot", "--source", str(write_custom(images)), "--out", str(tmp_path / "out")]
    assert main([*command, "--model", "m"]) == 2
    assert "OPENAI_API_KEY is not set" in capsys.readouterr().err
    assert main([*command, "--model", "m", "--split", "x", "--base-url", "http://h/v1"]) == 2
    assert "--split and --root belong to --benchmark" in capsys.readouterr().err
    with running_teacher(lambda _: BadAnswer(503)) as teacher:
        monkeypatch.setenv("OPENAI_BASE_URL", teacher.url)
        assert main([*command, "--model", "m", "--retries", "0"]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"univg-train cot: the teacher at {teacher.url} does not answer: HTTP")
    assert "\n" not in error


def test_unanswered_rows_have_an_exit_status_of_their_own(
    images: Path, tmp_path: Path, capsys
) -> None:
    def behave(request: Request) -> dict | BadAnswer:
        return BadAnswer(500) if request.about.startswith("2 ") else answer_well(request)

    with running_teacher(behave) as teacher:
        command = [
            "cot", "--source", str(write_custom(images)), "--out", str(tmp_path / "out"),
            "--model", "m", "--base-url", teacher.url, "--retries", "0",
            "--concurrency", "1",
        ]  # fmt: skip
        assert main(command) == 3
    assert "1 unanswered" in capsys.readouterr().out


def test_rows_of_a_prepared_benchmark(tmp_path: Path) -> None:
    from factories import make_sample

    from univg_eval.samples import write_benchmark

    folder = tmp_path / "toy" / "images"
    folder.mkdir(parents=True)
    Image.new("RGB", (640, 480)).save(folder / "a.png")
    Image.new("RGB", (320, 240)).save(folder / "b.png")
    samples = [make_sample(0), make_sample(1, targets=())]
    write_benchmark(samples, root=tmp_path, benchmark="toy")
    rows = rows_of_benchmark("toy", root=tmp_path)
    used, unused = rows.rows
    assert isinstance(used, CotRow) and isinstance(unused, UnusedRow)
    assert (used.target_image, used.box) == (1, (0.1, 0.2, 0.3, 0.4))
    assert unused.reason == "no target"
    with running_teacher() as teacher:
        summary = build_chains(
            rows, tmp_path / "out", settings_for(teacher.url, chains=1), api_key=KEY
        )
    assert (summary.accepted, summary.unused) == (1, {"no target": 1})
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["input"]["benchmark"] == "toy"
    assert len(manifest["input"]["fingerprint"]) == 64


def test_the_command_describes_itself_as_the_documentation_does() -> None:
    import shlex

    from univg_train.cli import build_parser
    from univg_train.cot.rules import REASONS

    text = (Path(__file__).resolve().parent.parent / "docs" / "cot.md").read_text()
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


def test_a_missing_client_is_told_with_its_remedy(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    command = ["cot", "--source", str(write_custom(images)), "--out", str(tmp_path / "out")]
    assert main([*command, "--model", "m", "--base-url", "http://127.0.0.1:9/v1"]) == 2
    error = capsys.readouterr().err
    assert "needs the package 'openai'" in error and "pip install 'univg[train]'" in error
