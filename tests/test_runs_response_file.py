"""Streaming a response file: equal to scoring one by one, whatever the order and the batches."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from univg_eval.dialects import get_dialect
from univg_eval.errors import UserError
from univg_eval.protocols import get_protocol
from univg_eval.runs import response_file
from univg_eval.runs.response_file import FileScores, sample_lines, score_file, score_line
from univg_eval.samples import GroundingSample, Target
from univg_eval.scoring import Response, aggregate, score_sample

TARGET = Target(1, (0.1, 0.2, 0.5, 0.6))


def sample(number: int, **changes: Any) -> GroundingSample:
    return dataclasses.replace(
        GroundingSample(
            id=f"set-{number:03d}",
            benchmark="set",
            task=f"task{number % 3}",
            split="test" if number % 2 else "val",
            images=("a.jpg", "b.jpg"),
            widths=(100, 200),
            heights=(100, 50),
            instruction="Find it in the second image.",
            targets=(TARGET,),
            image_is_given=True,
            cluster=f"c{number}",
        ),
        **changes,
    )


def mixed_set() -> list[GroundingSample]:
    """Every kind of sample: given and searched image, none, several, invalid, without sizes."""
    kinds: list[dict[str, Any]] = [
        {},
        {"image_is_given": False, "task": "search"},
        {"targets": (), "task": "absent"},
        {"targets": (TARGET, Target(1, (0.6, 0.6, 0.9, 0.9))), "task": "several"},
        {"targets": (Target(1, (0.5, 0.2, 0.1, 0.6)),)},
        {"widths": (), "heights": ()},
    ]
    return [sample(i, **kinds[i % len(kinds)]) for i in range(60)]


TEXTS = (
    "(100,200),(500,600)",
    "It is in the second image. (100,200),(500,600)",
    "It is in the first image. (100,200),(500,600)",
    "<think>(1,2),(3,4) perhaps</think><answer>(110,210),(480,620)</answer>",
    "<think>I never stop",
    "(100,200),(500,600) and (600,600),(900,900)",
    "(500,600),(100,200)",
    "(300,-50),(2000,700)",
    "There are none.",
    "no idea",
    "",
    "é ◁think▷ 你好 (100,200),(500,600)",
    None,
)


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run(path: Path, samples: list[GroundingSample], **arguments: Any) -> FileScores:
    arguments.setdefault("dialect", get_dialect("univg_r1"))
    arguments.setdefault("protocol", get_protocol("univg"))
    return score_file(sample_lines(samples), path, **arguments)


@pytest.mark.parametrize("protocol", ["univg", "univg-r1", "migician"])
@pytest.mark.parametrize(("batch", "processes"), [(1000, None), (7, 1), (7, 2), (1, 3)])
def test_streaming_equals_scoring_one_by_one(
    tmp_path: Path,
    protocol: str,
    batch: int,
    processes: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(response_file, "BATCH", batch)
    samples = mixed_set()
    rng = random.Random(5)
    texts = {s.id: rng.choice(TEXTS) for s in samples if rng.random() < 0.9}
    rows = [{"id": name, "response": text} for name, text in texts.items()]
    rng.shuffle(rows)
    expected = [
        score_sample(s, Response(texts.get(s.id), prompt=""), "univg_r1", protocol=protocol)
        for s in samples
    ]
    out = BytesIO()
    seen: list[tuple[int, int]] = []
    result = run(
        write(tmp_path / "r.jsonl", rows),
        samples,
        protocol=get_protocol(protocol),
        out=out,
        processes=processes,
        progress=lambda *done: seen.append(done),
    )
    assert seen == sorted(seen) and len(seen) == -(-len(samples) // batch)
    assert seen[-1] == (len(texts), len(texts))
    assert result.metrics == aggregate(expected)
    assert list(result.metrics["tasks"]) == list(aggregate(expected)["tasks"])
    assert out.getvalue() == b"".join(score_line(score) for score in expected)
    missing = [s.id for s in samples if s.id not in texts]
    assert (result.n_samples, result.n_responses) == (len(samples), len(texts))
    assert result.missing == tuple(missing[:10])
    assert sum(result.statuses.values()) == len(samples)


def test_blank_lines_and_a_missing_newline_are_read(tmp_path: Path) -> None:
    samples = [sample(i) for i in range(20)]
    lines = [json.dumps({"id": s.id, "response": TEXTS[i % 3]}) for i, s in enumerate(samples)]
    path = tmp_path / "r.jsonl"
    path.write_text("\n" + "\n\n".join(lines))
    result = run(path, samples)
    assert (result.n_responses, result.missing) == (20, ())


def test_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"id": "set-000", "response": "(100,200),(500,600)"}\r\n\r\n')
    assert run(path, [sample(0)]).statuses == {"ok": 1}


def test_an_empty_file_leaves_every_sample_unanswered(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"")
    result = run(path, [sample(0), sample(1)])
    assert result.missing == ("set-000", "set-001")
    assert result.metrics["macro"] == pytest.approx({name: 0.0 for name in result.metrics["macro"]})
    assert result.metrics["tasks"]["task0"]["n"] == 1


def test_a_pipe_is_read_as_a_stream(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    samples = [sample(i) for i in range(30)]
    content = "".join(
        json.dumps({"id": s.id, "response": "(100,200),(500,600)"}) + "\n" for s in samples
    )
    writer = threading.Thread(target=pipe.write_text, args=(content,))
    writer.start()
    result = run(pipe, samples)
    writer.join()
    assert result.statuses == {"ok": 30}


# A process that was started in the background ignores Ctrl-C.
SCORING = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_runs_response_file as here

def samples():
    yield from here.sample_lines([here.sample(i) for i in range(20)])
    here.time.sleep(600)

here.response_file.BATCH = 5
here.score_file(
    samples(), sys.argv[1], dialect=here.get_dialect("univg_r1"),
    protocol=here.get_protocol("univg"), processes=2,
)
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_a_scoring_that_is_ended(tmp_path: Path, how: signal.Signals) -> None:
    rows = [{"id": sample(i).id, "response": "(100,200),(500,600)"} for i in range(30)]
    command = [sys.executable, "-c", SCORING, str(write(tmp_path / "responses.jsonl", rows))]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as scoring:
        children = Path(f"/proc/{scoring.pid}/task/{scoring.pid}/children")
        try:
            workers = wait_for(lambda: children.read_text().split(), 2)
            scoring.send_signal(how)
            scoring.wait(30)
        finally:
            scoring.kill()
        wait_for(lambda: [pid for pid in workers if alive(pid)], 0)


def test_ctrl_c_amid_the_start_of_a_worker_counts_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    submit, submitted = response_file.ProcessPoolExecutor.submit, []

    def interrupted(*args: object) -> object:
        signal.raise_signal(signal.SIGINT)
        submitted.append(submit(*args))
        return submitted[-1]

    monkeypatch.setattr(response_file.ProcessPoolExecutor, "submit", interrupted)
    monkeypatch.setattr(response_file, "BATCH", 1)
    samples = [sample(i) for i in range(3)]
    rows = [{"id": one.id, "response": "(100,200),(500,600)"} for one in samples]
    with pytest.raises(KeyboardInterrupt):
        run(write(tmp_path / "r.jsonl", rows), samples, processes=2)
    assert len(submitted) == 1
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


def alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(found: Callable[[], list[str]], count: int) -> list[str]:
    """What there is once it is so much."""
    for _ in range(300):
        if len(values := found()) == count:
            return values
        time.sleep(0.05)
    raise AssertionError(f"expected {count}, found {found()}")


def test_sizes_of_a_line_go_before_those_of_the_sample(tmp_path: Path) -> None:
    # 0.1 to 0.5 of a 400 x 100 image; the sample's own record says 200 x 50.
    row = {
        "id": "set-000",
        "response": "[40, 20, 200, 60]",
        "image_sizes": [[100, 100], [400, 100]],
    }
    path = write(tmp_path / "r.jsonl", [row])
    pixels = get_dialect("pixels")
    assert run(path, [sample(0)], dialect=pixels).metrics["macro"]["miou"] == pytest.approx(1.0)
    del row["image_sizes"]
    # 0.2 to 1.0 by 0.4 to 1.2 (cut at 1): overlap 0.3 x 0.2 of union 0.16 + 0.48 - 0.06.
    path = write(tmp_path / "r.jsonl", [row])
    assert run(path, [sample(0)], dialect=pixels).metrics["macro"]["miou"] == pytest.approx(
        0.06 / 0.58
    )


def test_input_sizes_of_a_line_are_used(tmp_path: Path) -> None:
    row = {
        "id": "set-000",
        "response": '{"bbox_2d": [28, 56, 140, 168]}',
        "input_sizes": [[56, 56], [280, 280]],
    }
    path = write(tmp_path / "r.jsonl", [row])
    result = run(path, [sample(0)], dialect=get_dialect("qwen2_5_vl"))
    assert result.metrics["macro"]["miou"] == pytest.approx(1.0)


def test_fields_that_are_not_read_are_named(tmp_path: Path) -> None:
    row = {"id": "set-000", "response": "x", "input_size": [[1, 1]], "model": "m", "task": "t"}
    result = run(write(tmp_path / "r.jsonl", [row]), [sample(0)])
    assert result.ignored_fields == ("input_size", "model")


GOOD = b'{"id": "set-000", "response": "(1,2),(3,4)"}\n'

BAD_LINES = [
    (b"{", "not JSON"),
    (b"[" * 100_000, "not JSON"),
    (b"9" * 5000, "not JSON"),
    (b'["id"]', r"\['id'\]; expected an object"),
    (b"null", "None; expected an object"),
    (b'{"id": "set-001"}', "no field 'response'; .* the line has: 'id'"),
    (b'{"response": "x"}', "no field 'id'"),
    (b"{}", "no field .id.; .* the line has: no field"),
    (b'{"id": 1, "response": "x"}', "field 'id' is 1; expected a string"),
    (b'{"id": "set-999", "response": "x"}', "the id 'set-999' is not one of the 2 samples"),
    (b'{"id": "\\ud800", "response": "x"}', r"the id '\\ud800' is not one"),
    (b'{"id": "set-001", "response": 5}', "field 'response' is 5; expected the model's whole"),
    (b'{"id": "set-001", "response": ["x"]}', "field 'response'"),
    (b'{"id": "set-001", "response": "x", "prompt": 5}', "field 'prompt' is 5"),
    (b'{"id": "set-001", "response": "\xff"}', "not UTF-8 .*is 0xff"),
    (b'\xef\xbb\xbf{"id": "set-001", "response": "x"}', "not JSON"),
    *(
        (
            b'{"id": "set-001", "response": "x", "image_sizes": ' + value + b"}",
            r"field 'image_sizes' is .*expected \[\[width, height\], …\] in whole pixels",
        )
        for value in (b"[100, 100]", b'"100x100"', b"[[0, 1], [1, 1]]", b"[[1.5, 1], [1, 1]]",
                      b"[[true, 1], [1, 1]]", b"[[1, 1, 1], [1, 1, 1]]", b"[[1e999, 1], [1, 1]]",
                      b"[[" + b"9" * 400 + b", 1], [1, 1]]")
    ),
    (
        b'{"id": "set-001", "response": "x", "input_sizes": [[1, 1]]}',
        "field 'input_sizes' has 1 sizes; expected 2",
    ),
    (
        b'{"id": "set-001", "response": "x", "benchmark": "set+blank"}',
        r".* to 'set\+blank'; expected 'set'",
    ),
    (GOOD.strip(), "the id 'set-000' is a duplicate of line 1"),
    (b"[" * (4 * 2**20 + 1), "the line has more than 4 MiB, .*; leave it out"),
]  # fmt: skip


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(("line", "message"), BAD_LINES, ids=range(len(BAD_LINES)))
def test_a_bad_line_is_named_by_file_and_line(
    tmp_path: Path,
    line: bytes,
    message: str,
    processes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(response_file, "BATCH", 1)
    path = tmp_path / "r.jsonl"
    path.write_bytes(GOOD + b"\n" + line + b"\n")
    with pytest.raises(UserError, match=rf"r\.jsonl:3: {message}"):
        run(path, [sample(0), sample(1)], processes=processes)


def test_a_response_without_the_sizes_that_it_needs_is_named_by_its_line(tmp_path: Path) -> None:
    samples = [sample(0), sample(1, widths=(), heights=())]
    rows = [{"id": s.id, "response": "[1, 2, 3, 4]"} for s in samples]
    with pytest.raises(UserError, match=r"r\.jsonl:2: .*the size of its images is not known"):
        run(write(tmp_path / "r.jsonl", rows), samples, dialect=get_dialect("pixels"))


def test_the_first_of_several_duplicates_is_named_with_both_lines(tmp_path: Path) -> None:
    samples = [sample(i) for i in range(50)]
    rows = [{"id": s.id, "response": "x"} for s in samples]
    rows += [{"id": f"set-{i:03d}", "response": "x"} for i in (7, 3)]
    path = write(tmp_path / "r.jsonl", rows)
    with pytest.raises(UserError, match=r"r\.jsonl:51: the id 'set-007' is a duplicate of line 8"):
        run(path, samples)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the responses .*absent.*No such file"):
        run(tmp_path / "absent.jsonl", [sample(0)])
    with pytest.raises(UserError, match="Is a directory"):
        run(tmp_path, [sample(0)])


@pytest.mark.parametrize("batch", [1, 1000])
def test_a_duplicate_sample_is_refused(
    tmp_path: Path, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(response_file, "BATCH", batch)
    path = write(tmp_path / "r.jsonl", [{"id": "set-000", "response": "x"}])
    with pytest.raises(UserError, match="the sample id 'set-000' is a duplicate"):
        run(path, [sample(0), sample(1), sample(0)])


def test_one_split_is_scored(tmp_path: Path) -> None:
    samples = [sample(i) for i in range(5)]
    path = write(tmp_path / "r.jsonl", [{"id": "set-001", "response": "x"}])
    result = run(path, samples, split="test")
    assert (result.n_samples, result.missing) == (2, ("set-003",))
    with pytest.raises(UserError, match="has no split 'train'; it has: test, val"):
        run(path, samples, split="train")
    with pytest.raises(UserError, match=r"'set-001' is not .* 3 samples .*only the split 'val' is"):
        run(path, samples, split="val")
    with pytest.raises(UserError, match="holds no samples"):
        run(path, [])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"broken", "s:2: not JSON"),
        (b'{"id": 5}', "s:2: .*expected an object with an id"),
        (b'{"id": "x"}', "s:2: field 'images'"),
        (b"\xff", "s:2: not UTF-8"),
    ],
)
def test_a_fault_in_the_samples_is_named_by_its_line(
    tmp_path: Path, line: bytes, message: str
) -> None:
    path = write(tmp_path / "r.jsonl", [])
    with pytest.raises(UserError, match=message):
        score_file(
            [*sample_lines([sample(0)]), line],
            path,
            dialect=get_dialect("univg_r1"),
            protocol=get_protocol("univg"),
            source="s",
        )


@pytest.mark.parametrize(("dialect", "n"), [("pixels", 2), ("qwen2_5_vl", 2), ("qwen2_vl", 0)])
def test_sizes_that_are_not_those_of_the_images_are_counted(
    tmp_path: Path, dialect: str, n: int
) -> None:
    """Where boxes are read by them: in another image's pixels an exact box overlaps nothing."""
    sizes = [[[100, 100], [200, 50]], [[200, 50], [100, 100]], [[1000, 1000], [2000, 500]], None]
    samples = [sample(number) for number in range(len(sizes))]
    rows = [
        {"id": one.id, "response": "[20, 10, 100, 30]"}
        | ({} if given is None else {"image_sizes": given})
        for one, given in zip(samples, sizes, strict=True)
    ]
    found = run(write(tmp_path / "r.jsonl", rows), samples, dialect=get_dialect(dialect))
    assert found.n_other_sizes == n
    if dialect == "pixels":  # samples 0 and 3 are read by the images' own sizes
        assert found.metrics["tasks"]["task0"]["acc@0.5"] == 1.0
        assert found.metrics["tasks"]["task2"]["acc@0.5"] == 0.0
