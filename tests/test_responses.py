"""Streaming a response file: equal to scoring one by one, whatever the order and the cutting."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from univg_eval.dialects import get_dialect
from univg_eval.errors import UserError
from univg_eval.protocols import get_protocol
from univg_eval.runs.response_file import FileScores, SampleTable, score_file, score_line
from univg_eval.samples import GroundingSample, Target, write_benchmark
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
    return score_file(SampleTable.from_samples(samples), path, **arguments)


def approximately(metrics: dict[str, Any]) -> dict[str, Any]:
    """Sums of floats depend on their order in the last bit."""
    return {
        "tasks": {task: pytest.approx(row, abs=1e-12) for task, row in metrics["tasks"].items()},
        "macro": pytest.approx(metrics["macro"], abs=1e-12),
    }


@pytest.mark.parametrize("protocol", ["univg", "univg-r1", "migician"])
@pytest.mark.parametrize(("range_bytes", "processes"), [(1 << 20, 1), (150, 1), (1000, 2), (7, 2)])
def test_streaming_equals_scoring_one_by_one(
    tmp_path: Path, protocol: str, range_bytes: int, processes: int
) -> None:
    samples = mixed_set()
    rng = random.Random(5)
    texts = {s.id: rng.choice(TEXTS) for s in samples if rng.random() < 0.9}
    rows = [{"id": name, "response": text} for name, text in texts.items()]
    rng.shuffle(rows)
    expected = [
        score_sample(s, Response(texts.get(s.id), prompt=""), "univg_r1", protocol=protocol)
        for s in samples
    ]
    result = run(
        write(tmp_path / "r.jsonl", rows),
        samples,
        protocol=get_protocol(protocol),
        keep_lines=True,
        range_bytes=range_bytes,
        processes=processes,
    )
    assert result.metrics == approximately(aggregate(expected))
    assert list(result.metrics["tasks"]) == list(aggregate(expected)["tasks"])
    assert result.lines == [score_line(score) for score in expected]
    assert result.missing == tuple(s.id for s in samples if s.id not in texts)
    assert result.n_responses == len(texts)
    assert sum(result.statuses.values()) == len(samples)


@settings(max_examples=40, deadline=None)
@given(
    cut=st.integers(1, 400),
    ends_with_newline=st.booleans(),
    blank_lines=st.lists(st.integers(0, 20), max_size=4),
)
def test_every_line_is_read_once_wherever_the_ranges_are_cut(
    tmp_path_factory: pytest.TempPathFactory,
    cut: int,
    ends_with_newline: bool,
    blank_lines: list[int],
) -> None:
    samples = [sample(i) for i in range(20)]
    lines = [json.dumps({"id": s.id, "response": TEXTS[i % 3]}) for i, s in enumerate(samples)]
    for position in blank_lines:
        lines.insert(position, "")
    path = tmp_path_factory.mktemp("cut") / "r.jsonl"
    path.write_text("\n".join(lines) + "\n" * ends_with_newline)
    result = run(path, samples, range_bytes=cut, processes=1)
    assert result.n_responses == 20
    assert result.missing == ()


def test_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"id": "set-000", "response": "(100,200),(500,600)"}\r\n\r\n')
    assert run(path, [sample(0)]).statuses == {"ok": 1}


def test_a_line_longer_than_a_range_is_read_whole(tmp_path: Path) -> None:
    rows = [
        {"id": "set-000", "response": "x" * 5000 + " (100,200),(500,600)"},
        {"id": "set-001", "response": "(100,200),(500,600)"},
    ]
    result = run(write(tmp_path / "r.jsonl", rows), [sample(0), sample(1)], range_bytes=64)
    assert result.metrics["macro"]["acc@0.9"] == 1.0


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
    result = run(pipe, samples, range_bytes=100)
    writer.join()
    assert result.statuses == {"ok": 30}


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


def test_fields_that_are_not_read_are_told(tmp_path: Path) -> None:
    row = {"id": "set-000", "response": "x", "input_size": [[1, 1]], "model": "m", "task": "t"}
    result = run(write(tmp_path / "r.jsonl", [row]), [sample(0)])
    assert result.ignored_fields == ("input_size", "model")


GOOD = b'{"id": "set-000", "response": "(1,2),(3,4)"}\n'

BAD_LINES = [
    (b"{", r"not JSON \(.*\); expected one object a line"),
    (b"[" * 100_000, "not JSON"),
    (b"9" * 5000, "not JSON"),
    (b'["id"]', r"is \['id'\]; expected an object"),
    (b"null", "is None; expected an object"),
    (b'{"id": "set-001"}', "has no field 'response'; expected .*; the line has: 'id'"),
    (b'{"response": "x"}', "has no field 'id'"),
    (b"{}", "has no field .id.; expected .*; the line has: no field"),
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
        r"says that it answers 'set\+blank'; expected 'set': what was asked under a control",
    ),
    (GOOD.strip(), "the id 'set-000' stands at line 1 already"),
]  # fmt: skip


@pytest.mark.parametrize(("range_bytes", "processes"), [(1 << 20, 1), (40, 2)])
@pytest.mark.parametrize(("line", "message"), BAD_LINES, ids=range(len(BAD_LINES)))
def test_a_bad_line_is_named_by_file_and_line(
    tmp_path: Path, line: bytes, message: str, range_bytes: int, processes: int
) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(GOOD + b"\n" + line + b"\n" + b"also broken\n")
    with pytest.raises(UserError, match=rf"r\.jsonl:3: {message}"):
        run(path, [sample(0), sample(1)], range_bytes=range_bytes, processes=processes)


def test_the_first_mistake_of_the_file_is_told(tmp_path: Path) -> None:
    # Line 1 is readable JSON whose box lacks sizes, line 2 is broken: both stand in one batch.
    samples = [sample(i, widths=(), heights=()) for i in range(2)]
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"id": "set-000", "response": "[1, 2, 3, 4]"}\nbroken\n')
    with pytest.raises(UserError, match=r"r\.jsonl:1: .*the size of its images is not known"):
        run(path, samples, dialect=get_dialect("pixels"))


def test_a_mistake_in_an_early_batch_is_told_before_a_broken_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("univg_eval.runs.response_file.BATCH_LINES", 2)
    samples = [sample(i, widths=(), heights=()) for i in range(4)]
    rows = [{"id": s.id, "response": "[1, 2, 3, 4]"} for s in samples]
    path = write(tmp_path / "r.jsonl", rows)
    with path.open("a") as file:
        file.write("broken\n")
    with pytest.raises(UserError, match=r"r\.jsonl:1: .*the size of its images is not known"):
        run(path, samples, dialect=get_dialect("pixels"))


def test_a_doubled_id_is_found_across_ranges_with_both_lines(tmp_path: Path) -> None:
    samples = [sample(i) for i in range(50)]
    rows = [{"id": s.id, "response": "x"} for s in samples]
    rows.append({"id": "set-007", "response": "x"})
    path = write(tmp_path / "r.jsonl", rows)
    with pytest.raises(UserError, match=r"r\.jsonl:51: the id 'set-007' stands at line 8 already"):
        run(path, samples, range_bytes=100, processes=2)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the responses .*absent.*No such file"):
        run(tmp_path / "absent.jsonl", [sample(0)])
    with pytest.raises(UserError, match="Is a directory"):
        run(tmp_path, [sample(0)])


def test_the_table_refuses_a_doubled_sample() -> None:
    with pytest.raises(UserError, match="the sample id 'set-000' stands twice"):
        SampleTable.from_samples([sample(0), sample(0)])


def test_a_prepared_benchmark_is_read_by_split(tmp_path: Path) -> None:
    samples = [sample(i) for i in range(5)]
    write_benchmark(samples, benchmark="set", root=tmp_path)
    whole, fingerprint = SampleTable.load("set", root=tmp_path)
    test_split, same = SampleTable.load("set", split="test", root=tmp_path)
    assert list(whole.index_of) == [s.id for s in samples]
    assert list(test_split.index_of) == ["set-001", "set-003"]
    assert fingerprint == same
    with pytest.raises(UserError, match="has no split 'train'; it has: test, val"):
        SampleTable.load("set", split="train", root=tmp_path)
    (tmp_path / "set" / "samples.jsonl").write_text("\n")
    with pytest.raises(UserError, match="holds no samples; prepare 'set' again"):
        SampleTable.load("set", root=tmp_path)
    with pytest.raises(UserError, match="'other' is not prepared"):
        SampleTable.load("other", root=tmp_path)


@pytest.mark.parametrize(("range_bytes", "processes"), [(300, 1), (2000, 2), (1 << 20, 1)])
def test_a_table_loaded_in_parts_is_that_of_the_samples(
    tmp_path: Path, range_bytes: int, processes: int
) -> None:
    samples = mixed_set()
    write_benchmark(samples, benchmark="set", root=tmp_path)
    expected = SampleTable.from_samples(samples)
    loaded, _ = SampleTable.load("set", root=tmp_path, range_bytes=range_bytes, processes=processes)
    assert list(loaded.index_of.items()) == list(expected.index_of.items())
    assert loaded.tasks == expected.tasks
    for index, s in enumerate(samples):
        assert loaded.sample(index, s.id) == expected.sample(index, s.id)
        assert loaded.n_images(index) == len(s.images)
        kept = loaded.sample(index, s.id)
        assert (kept.id, kept.task, kept.benchmark) == (s.id, s.task, s.benchmark)
        assert (kept.targets, kept.image_is_given) == (s.targets, s.image_is_given)
        assert kept.image_sizes == s.image_sizes


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"broken", r"samples\.jsonl:41: not a JSON value"),
        (b'{"id": 5}', r"samples\.jsonl:41: field 'images'"),
        (b"\xff", r"samples\.jsonl:41: not UTF-8"),
        (None, "the sample id 'set-000' stands twice"),
    ],
)
def test_a_fault_in_a_prepared_benchmark_is_named_by_its_line(
    tmp_path: Path, line: bytes | None, message: str
) -> None:
    write_benchmark([sample(i) for i in range(40)], benchmark="set", root=tmp_path)
    path = tmp_path / "set" / "samples.jsonl"
    first = path.read_bytes().split(b"\n")[0]
    with path.open("ab") as file:
        file.write((line or first) + b"\n")
    with pytest.raises(UserError, match=message):
        SampleTable.load("set", root=tmp_path, range_bytes=1000, processes=2)
