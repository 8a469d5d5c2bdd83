"""Rescoring: same settings, same bytes; other settings, and every change is told."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from run_records import MANIFEST

from univg_eval import published_rules
from univg_eval.cli import main
from univg_eval.errors import UserError
from univg_eval.images.controls import under_control
from univg_eval.protocols import get_protocol, list_protocols
from univg_eval.published_rules import PublishedRule
from univg_eval.runs.manifest import json_schemas
from univg_eval.runs.record import (
    RunRecord,
    environment,
    load_run,
    prepared_samples,
    response_line,
    write_run,
)
from univg_eval.runs.rescoring import rescore
from univg_eval.samples import GroundingSample, Target, fingerprint, write_benchmark
from univg_eval.scoring import Response, aggregate, score_samples

# The true box is x 0.1-0.5, y 0.2-0.9 of a picture of 200 x 100 pixels: 20, 20, 100, 90.
TEXTS = {
    "thousandths": "[100, 200, 500, 900]",
    "pixels": "[20, 20, 100, 90]",
    "thinking": "<think>[100, 200, 500, 900]</think> I see nothing.",
    "two": "[100, 200, 500, 900] and [100, 200, 500, 550]",
    "open": "<think>It is (100,200),(500,900)",
    "inverted": "[500, 200, 100, 900]",
    "words": "the dog on the left",
}
NORM1000 = {
    "thousandths": ("ok", 1.0),
    "pixels": ("ok", 0.0),  # (0.02, 0.02, 0.1, 0.09) does not meet the true box
    "thinking": ("no_box", 0.0),
    "two": ("ok", 0.5),  # the last unit: half of the true box
    "open": ("truncated", 0.0),
    "inverted": ("invalid_box", 0.0),
    "words": ("no_box", 0.0),
}


def sample(sample_id: str, **changes: Any) -> GroundingSample:
    values: dict[str, Any] = {
        "id": sample_id,
        "benchmark": "own",
        "task": "t",
        "split": "test",
        "images": ("own/a.png",),
        "widths": (200,),
        "heights": (100,),
        "instruction": "Where is it?",
        "targets": (Target(0, (0.1, 0.2, 0.5, 0.9)),),
        "image_is_given": True,
        "cluster": sample_id,
    }
    return GroundingSample(**(values | changes))


def settings(**changes: Any) -> dict[str, list[Any]]:
    values = {name: list(value) for name, value in MANIFEST["settings"].items()}
    for name in ("min_pixels", "max_pixels"):
        values[name] = [None, "not known"]
    return values | changes


def make_run(
    root: Path,
    texts: dict[str, str | None] | None = None,
    *,
    samples: list[GroundingSample] | None = None,
    control: str = "none",
    **changes: Any,
) -> Path:
    """A record under dialect norm1000 and protocol univg of the benchmark `own`, prepared here."""
    texts = dict(TEXTS) if texts is None else texts
    rows = [sample(name) for name in texts] if samples is None else samples
    write_benchmark(rows, benchmark="own", root=root)
    shown = under_control(control, rows).samples
    name = "own" if control == "none" else f"own+{control}"
    responses = [Response(texts[s.id], s.image_sizes, None, f"prompt of {s.id}") for s in shown]
    scores = score_samples(shown, responses, "norm1000")
    dataset = {
        "benchmark": name,
        "prepared_benchmark": "own",
        "control": control,
        "fingerprint": fingerprint(rows),
        "n": len(rows),
    }
    manifest = MANIFEST | {
        "created": "2026-01-02T03:04:05+00:00",
        "settings": settings(control=[control, "default"]),
        "dataset": MANIFEST["dataset"] | dataset,
        "n": len(scores),
        "excluded": sum(score.excluded for score in scores),
        "results": aggregate(scores),
    }
    return write_run(
        root / "run",
        manifest=manifest | changes,
        responses=[response_line(name, *pair) for pair in zip(shown, responses, strict=True)],
        scores=scores,
    )


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path))
    return tmp_path


def again(path: Path, out: Path, *arguments: str) -> RunRecord:
    assert main(["rescore", str(path), "-o", str(out), *arguments]) == 0
    return load_run(out)


def changes_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "changes.jsonl").read_text().splitlines()]


def read(record: RunRecord) -> dict[str, tuple[str, float]]:
    return {score.id: (score.status, score.iou or 0.0) for score in record.scores}


def test_the_same_settings_give_the_same_bytes(root: Path, capsys) -> None:
    path = make_run(root)
    assert read(load_run(path)) == NORM1000
    record = again(path, root / "new")
    for name in ("responses.jsonl", "scores.jsonl"):
        assert (root / "new" / name).read_bytes() == (path / name).read_bytes()
    assert changes_of(root / "new") == []
    assert record.manifest.results == load_run(path).manifest.results
    said = capsys.readouterr().out
    assert "the same settings" in said
    assert "Changed: 0 of 7 samples" in said
    assert "acc@0.5 is unchanged in 1 of 1 tasks" in said


def test_a_record_of_an_older_version_of_the_rule(root: Path) -> None:
    path = make_run(root, protocol_version=1)
    assert load_run(path).manifest.scoring_rule == "univg (version 1)"
    record = again(path, root / "new")
    assert record.manifest.scoring_rule == "univg"
    assert record.manifest.protocol_version == get_protocol("univg").version > 1
    assert record.manifest.rescored[0].changed == {
        "protocol_version": [1, get_protocol("univg").version]
    }


def test_why_a_published_rule_has_no_figures_is_in_the_record(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(_: Any) -> dict[str, float]:
        raise UserError("the set has no sizes")

    def rule(measure: Any) -> None:
        found = PublishedRule("its-rule", "", "", ("own",), measure)
        monkeypatch.setattr(published_rules, "PUBLISHED_RULES", {"its-rule": found})

    rule(refuses)
    record = again(make_run(root), root / "without").manifest
    assert record.results.published == {}
    assert record.published_errors == {"its-rule": "the set has no sizes"}
    rule(lambda answers: {"share": 1 / len(answers)})
    record = again(root / "without", root / "with").manifest
    assert record.results.published == {"its-rule": {"share": pytest.approx(1 / 7)}}
    assert record.published_errors == {}


def test_a_record_says_where_it_comes_from(root: Path) -> None:
    path = make_run(root, versions=environment()["versions"] | {"torch": "1.2.3"})
    old = load_run(path).manifest.to_dict()
    new = again(path, root / "new", "--protocol", "univg-r1").manifest.to_dict()
    changed = {"created", "settings", "protocol_version", "excluded", "failed_requests", "results"}
    changed.add("rescored")
    assert {name: value for name, value in new.items() if name not in changed} == {
        name: value for name, value in old.items() if name not in changed
    }
    assert new["created"] > old["created"]
    (step,) = new["rescored"]
    sums = {
        f"{kind}_sha256": hashlib.sha256((path / f"{kind}.jsonl").read_bytes()).hexdigest()
        for kind in ("responses", "scores")
    }
    assert step["from"] == {
        "folder": "run",
        "created": "2026-01-02T03:04:05+00:00",
        "model": "org/m",
        **sums,
    }
    assert step["changed"] == {"protocol": ["univg", "univg-r1"]}
    assert step["versions"] == environment()["versions"]
    assert new["settings"] == old["settings"] | {"protocol": ["univg-r1", "rescore"]}
    jsonschema.validate(new, json_schemas()["run_manifest"])


def test_a_chain_is_kept_and_the_way_back_leads_to_the_same_scores(root: Path) -> None:
    path = make_run(root)
    again(path, root / "b", "--protocol", "migician", "--dialect", "pixels")
    again(root / "b", root / "c", "--protocol", "univg", "--dialect", "norm1000")
    record = load_run(root / "c")
    assert [step.changed for step in record.manifest.rescored] == [
        {"dialect": ["norm1000", "pixels"], "protocol": ["univg", "migician"]},
        {"dialect": ["pixels", "norm1000"], "protocol": ["migician", "univg"]},
    ]
    assert record.manifest.rescored[1].source.folder == "b"
    assert (root / "c" / "scores.jsonl").read_bytes() == (path / "scores.jsonl").read_bytes()


def test_another_dialect_and_what_it_changes(root: Path, capsys) -> None:
    path = make_run(root)
    record = again(path, root / "new", "--dialect", "pixels", "--json")
    # In pixels of 200 x 100: the first box lies from the middle to the right edge, x 0.5-1.
    assert read(record) == NORM1000 | {
        "thousandths": ("invalid_box", 0.0),  # y 2-9: nothing of it is left inside
        "pixels": ("ok", 1.0),
        "two": ("invalid_box", 0.0),
    }
    assert record.responses == load_run(path).responses  # no sizes that nothing needs
    told = json.loads(capsys.readouterr().out)
    assert told["settings"] == {"dialect": ["norm1000", "pixels"]}
    assert told["n"] == 7
    assert told["changed"] == {"score": 3, "status": 2, "box": 3, "iou": 3, "excluded": 0}
    assert (told["gained"], told["lost"]) == (1, 2)
    assert told["statuses"] == [{"before": "ok", "after": "invalid_box", "n": 2}]
    pair = told["tasks"]["t"]
    assert (pair["before"]["acc@0.5"], pair["after"]["acc@0.5"]) == (2 / 7, 1 / 7)
    assert told["macro"]["after"]["miou"] == pytest.approx(1 / 7)
    assert told["from"]["path"] == str(path)
    flips = {row["id"]: row["flip"] for row in told["samples"]}
    assert flips == {"thousandths": "lost", "pixels": "gained", "two": "lost"}
    assert changes_of(root / "new") == told["samples"]
    for row in told["samples"]:
        jsonschema.validate(row, json_schemas()["run_change"])
    gained = told["samples"][1]
    assert gained["before"]["box"] == [0.02, 0.02, 0.1, 0.09]
    assert gained["after"]["box"] == [0.1, 0.2, 0.5, 0.9]


def test_another_protocol_in_the_terminal(root: Path, capsys) -> None:
    record = again(make_run(root), root / "new", "--protocol", "univg-r1", "--show", "1")
    # Four integers anywhere: the thinking counts; of several boxes the first.
    assert read(record) == NORM1000 | {
        "thinking": ("ok", 1.0),
        "open": ("ok", 1.0),
        "two": ("ok", 1.0),
    }
    said = " ".join(capsys.readouterr().out.split())
    assert "protocol univg → univg-r1" in said
    # Where it reads nothing it scores a box of zeros, and an inverted one stays in the record.
    assert "Changed: 5 of 7 samples (status 2, box 5, IoU 3, excluded 0); gained 2, lost 0" in said
    assert re.search(r"mean over tasks 7 28.6 \S+ 57.1 ", said)  # 2 and 4 of 7
    assert "thinking gained no_box → ok" in said
    assert "and 1 more: see changes.jsonl" in said
    assert f"run record: {root / 'new'}" in said


@pytest.mark.parametrize("protocol", list_protocols())
def test_every_protocol_gives_itself_again(root: Path, protocol: str) -> None:
    path = make_run(root)
    again(path, root / "b", "--protocol", protocol)
    again(root / "b", root / "c")
    assert (root / "b" / "scores.jsonl").read_bytes() == (root / "c" / "scores.jsonl").read_bytes()
    assert changes_of(root / "c") == []


def test_a_protocol_that_keeps_invalid_truths_changes_the_denominator(root: Path, capsys) -> None:
    rows = [sample("sound"), sample("faulty", targets=(Target(0, (0.5, 0.2, 0.1, 0.9)),))]
    texts: dict[str, str | None] = dict.fromkeys(("sound", "faulty"), "[100, 200, 500, 900]")
    path = make_run(root, texts, samples=rows)
    assert load_run(path).manifest.excluded == 1
    record = again(path, root / "new", "--protocol", "univg-r1", "--json")
    told = json.loads(capsys.readouterr().out)
    assert record.manifest.excluded == 0
    assert told["changed"]["excluded"] == 1
    assert (told["gained"], told["lost"]) == (0, 0)
    assert [told["tasks"]["t"][side]["n"] for side in ("before", "after")] == [1, 2]
    assert told["tasks"]["t"]["after"]["acc@0.5"] == 0.5
    back = again(root / "new", root / "back", "--protocol", "univg", "--json")
    assert back.manifest.excluded == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["gained"], told["lost"]) == (0, 0)  # what is left out is not lost


def test_a_missing_response_and_other_kinds_of_samples(root: Path, capsys) -> None:
    two = (Target(0, (0.1, 0.2, 0.5, 0.9)), Target(0, (0.6, 0.2, 0.9, 0.9)))
    rows = [sample("absent", targets=()), sample("several", targets=two), sample("silent")]
    texts = {"absent": "There are none.", "several": "[20, 20, 100, 90]", "silent": None}
    path = make_run(root, texts, samples=rows)
    record = again(path, root / "new", "--dialect", "pixels", "--json")
    told = json.loads(capsys.readouterr().out)
    assert record.responses[2]["response"] is None
    (change,) = told["samples"]
    # One of two targets found by one box: F1 is 2 * 1 / (1 + 2).
    assert (change["id"], change["flip"]) == ("several", "gained")
    assert (change["before"]["f1"], change["after"]["f1"]) == (0.0, pytest.approx(2 / 3))
    assert change["after"]["iou"] is None


# Pixels of the resized input


def square(name: str) -> GroundingSample:
    # The true box is the middle quarter of a picture of 56 x 56 pixels.
    return sample(name, widths=(56,), heights=(56,), targets=(Target(0, (0.25, 0.25, 0.75, 0.75)),))


def pixel_run(root: Path, **limits: list[Any]) -> Path:
    texts: dict[str, str | None] = {"small": "[14, 14, 42, 42]", "large": "[28, 28, 84, 84]"}
    return make_run(root, texts, samples=[square(n) for n in texts], settings=settings(**limits))


@pytest.mark.parametrize(
    ("limits", "side", "right"),
    [
        (("3136", "12544"), 56, "small"),  # 56 x 56 is 3136: as it is
        (("12544", "12544"), 112, "large"),  # 112 x 112 is 12544: twice as large
    ],
)
def test_pixel_limits_decide_what_a_pixel_is(
    root: Path, limits: tuple[str, str], side: int, right: str
) -> None:
    path = pixel_run(root)
    record = again(
        *(path, root / "new", "--dialect", "qwen2_5_vl"),
        *("--min-pixels", limits[0], "--max-pixels", limits[1]),
    )
    assert {row["input_sizes"][0][0] for row in record.responses} == {side}
    assert {name for name, (_, iou) in read(record).items() if iou == 1.0} == {right}
    assert record.manifest.settings.min_pixels == (int(limits[0]), "rescore")
    # Sizes of the record are kept as long as dialect and limits are.
    kept = again(root / "new", root / "kept", "--protocol", "univg-r1")
    assert [row["input_sizes"] for row in kept.responses] == [
        row["input_sizes"] for row in record.responses
    ]
    other = again(root / "new", root / "other", "--min-pixels", "784", "--max-pixels", "784")
    assert other.responses[0]["input_sizes"] == [[28, 28]]


@pytest.mark.parametrize(
    ("limit", "value", "side"),
    [
        # Pictures of 56 x 56, limits 784 and 12544 before; sides are multiples of 28.
        ("--max-pixels", "784", 28),
        ("--min-pixels", "12544", 112),
    ],
)
def test_one_limit_alone_changes_the_sizes(root: Path, limit: str, value: str, side: int) -> None:
    path = pixel_run(root, min_pixels=[784, "x"], max_pixels=[12544, "x"])
    first = again(path, root / "a", "--dialect", "qwen2_5_vl")
    assert first.responses[0]["input_sizes"] == [[56, 56]]
    second = again(root / "a", root / "b", limit, value)
    assert second.responses[0]["input_sizes"] == [[side, side]]
    name = limit[2:].replace("-", "_")
    assert getattr(second.manifest.settings, name) == (int(value), "rescore")
    # Another value that is given again changes nothing, the source included.
    third = again(root / "b", root / "c", limit, value)
    assert third.manifest.settings == second.manifest.settings
    assert third.manifest.rescored[-1].changed == {}


def test_stored_input_sizes_go_before_the_rule(root: Path) -> None:
    samples = [square("a")]
    text = "[7, 7, 21, 21]"
    path = make_run(
        root,
        {"a": text},
        samples=samples,
        settings=settings(
            dialect=["qwen2_5_vl", "x"], min_pixels=[784, "x"], max_pixels=[12544, "x"]
        ),
    )
    old = load_run(path)
    old.responses[0]["input_sizes"] = [[28, 28]]  # what a backend recorded; the rule says 56
    seen: list[tuple[int, int]] = []
    new = rescore(old, prepared_samples(old), progress=lambda *done: seen.append(done))
    assert seen == [(len(old.scores), len(old.scores))]
    assert new.record.scores[0].iou == 1.0
    assert new.record.responses[0]["input_sizes"] == [[28, 28]]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # The run's own limits stay under another dialect; the older dialect's default does not.
        ([5000, "max_pixels of model_args"], [5000, "max_pixels of model_args"]),
        ([5000, "default of the dialect"], [12845056, "default of the dialect"]),
        ([None, "not known"], [12845056, "default of the dialect"]),
    ],
)
def test_limits_under_another_dialect(root: Path, before: list[Any], after: list[Any]) -> None:
    path = pixel_run(root, max_pixels=before)
    record = again(path, root / "new", "--dialect", "qwen2_5_vl")
    assert record.manifest.settings.max_pixels == tuple(after)


@pytest.mark.parametrize(
    "limits", [[12845056, "default of the dialect"], [5000, "x"], [None, "not known"]]
)
def test_limits_stay_under_the_same_dialect(root: Path, limits: list[Any]) -> None:
    path = pixel_run(root, dialect=["qwen2_5_vl", "x"], min_pixels=[784, "x"], max_pixels=limits)
    record = again(path, root / "new", "--dialect", "qwen2_5_vl", "--protocol", "univg-r1")
    assert record.manifest.settings.max_pixels == tuple(limits)
    assert record.manifest.settings.dialect == ("qwen2_5_vl", "x")
    assert record.responses == load_run(path).responses


def test_image_sizes_that_a_record_lacks_are_those_of_the_set(root: Path) -> None:
    old = load_run(pixel_run(root))
    old.responses[0]["image_sizes"] = None
    new = rescore(old, prepared_samples(old), dialect="qwen2_5_vl", min_pixels=784)
    assert new.record.responses[0]["image_sizes"] == [[56, 56]]
    assert new.record.responses[0]["input_sizes"] == [[56, 56]]


def test_sizes_that_are_not_known_are_asked_for(root: Path, capsys) -> None:
    rows = [sample("a", widths=(), heights=())]
    path = make_run(root, {"a": "[100, 200, 500, 900]"}, samples=rows)
    assert main(["rescore", str(path), "-o", str(root / "n"), "--dialect", "pixels"]) == 2
    assert "the size of its images is not known" in capsys.readouterr().err
    assert not (root / "n").exists()


def test_another_number_of_sizes_than_of_images_is_told(root: Path) -> None:
    path = make_run(root)
    for name in ("image_sizes", "input_sizes"):
        old = load_run(path)
        old.responses[2][name] = [[200, 100], [200, 100]]
        with pytest.raises(UserError, match=rf"'thinking' has 2 {name} in the record; expected 1"):
            rescore(old, prepared_samples(old))


def test_a_place_that_cannot_be_written_is_told(root: Path, capsys) -> None:
    path = make_run(root)
    (root / "dangling").symlink_to(root / "nowhere")
    for out, words in (
        ("n" * 300, "cannot write a run record into"),
        ("run/scores.jsonl/new", "cannot write a run record into"),
        ("dangling", "dangling exists; choose another folder"),
    ):
        assert main(["rescore", str(path), "-o", str(root / out)]) == 2
        assert words in capsys.readouterr().err


# Controls


@pytest.mark.parametrize("control", ["blank", "permuted", "cut"])
def test_a_record_under_a_control_is_scored_again(root: Path, control: str) -> None:
    pair: dict[str, Any] = {"images": ("own/a.png", "own/b.png"), "given_image": 1}
    rows = [
        sample("a", **pair, widths=(200, 50), heights=(100, 50), targets=(Target(1, BOX),)),
        sample("b", **pair, widths=(50, 200), heights=(50, 100), targets=(Target(1, BOX),)),
    ]
    texts: dict[str, str | None] = {"a": "[20, 20, 100, 90]", "b": "[5, 10, 25, 45]"}
    path = make_run(root, texts, samples=rows, control=control)
    again(path, root / "same")
    assert (root / "same" / "scores.jsonl").read_bytes() == (path / "scores.jsonl").read_bytes()
    record = again(path, root / "new", "--dialect", "pixels")
    assert record.benchmark == f"own+{control}"
    # Permuted, the second image of each is the first one's file, with its size.
    right = {name for name, (_, iou) in read(record).items() if iou == 1.0}
    assert right == ({"a", "b"} if control == "permuted" else set())


BOX = (0.1, 0.2, 0.5, 0.9)

# What cannot be done


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--protocol", "mine"], "unknown protocol 'mine'"),
        (["--dialect", "klingon"], "unknown dialect 'klingon'"),
        (["--min-pixels", "784"], "boxes of dialect 'norm1000' depend on no resize"),
        (["--dialect", "qwen2_5_vl", "--min-pixels", "0"], "min_pixels is 0; expected"),
        (["--dialect", "qwen2_5_vl", "--min-pixels", "99999999"], "expected min_pixels <= max"),
        (["--benchmark", "mig_bench"], "holds no run on 'mig_bench'; it holds: own ("),
        (["--show", "-1"], "--show is -1; expected 0 or more"),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(
    root: Path, capsys, arguments: list[str], words: str
) -> None:
    path = make_run(root)
    assert main(["rescore", str(path), "-o", str(root / "new"), *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not (root / "new").exists()


def test_another_set_or_none_is_told(root: Path, capsys, monkeypatch) -> None:
    path = make_run(root)
    arguments = ["rescore", str(path), "-o", str(root / "new")]
    write_benchmark([sample(n, instruction="?") for n in TEXTS], benchmark="own", root=root)
    assert main(arguments) == 2
    assert "'own' has changed since the evaluation" in capsys.readouterr().err
    monkeypatch.setenv("UNIVG_DATA", str(root / "elsewhere"))
    assert main(arguments) == 2
    assert "benchmark 'own' is not prepared" in capsys.readouterr().err
    monkeypatch.undo()
    (root / "new").mkdir()
    assert main(arguments) == 2
    assert "new exists; choose another folder" in capsys.readouterr().err
    assert list((root / "new").iterdir()) == []


def test_several_runs_are_told_apart(root: Path, capsys) -> None:
    path = make_run(root)
    folder = root / "runs"
    for name in ("a", "b"):
        again(path, folder / name)
    assert main(["rescore", str(folder), "-o", str(root / "new")]) == 2
    said = capsys.readouterr().err
    assert "holds 2 runs, and one is scored again at a time: name its folder" in said
    assert "--benchmark" not in said  # both are of one
    assert f"own ({folder / 'a'}), own ({folder / 'b'})" in said


def test_a_sample_that_is_not_there_is_told(root: Path) -> None:
    record = load_run(make_run(root))
    with pytest.raises(UserError, match=r"sample 'pixels' is not in the prepared.*\(6 missing"):
        rescore(record, [sample("thousandths")])
