"""From files in the exact forms of the releases to scores: prepare, audit, evaluate.

The oracle baseline knows the prepared truth, so that 100 % shows that nothing between the files
and the score loses or moves a box; that the prepared truth is the released one is compared with
the boxes that the generators of the files wrote down.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lmms_data
import pytest
import release_mig
import release_still
import release_video

from univg_eval.cli import main
from univg_eval.runs.record import load_run
from univg_eval.samples import GroundingSample, load_manifest, load_samples

pytest.importorskip("lmms_eval")
pytest.importorskip("pycocotools")

MIG = [f"univg_mig_bench_{key}" for key in lmms_data.MIG_KEYS]
REVISED = [f"univg_mig_bench_revised_{key}" for key in lmms_data.MIG_KEYS]
EXTRACTED = list(lmms_data.ZERO_SHOT)
FULL = list(lmms_data.FULL)
VIDEO = list(lmms_data.VIDEO)


@dataclass(frozen=True)
class Set:
    """A benchmark, the writer of its release, and what `univg prepare` needs besides the folder."""

    benchmark: str
    write: Callable[[Path], Sequence[Any]]
    options: tuple[str, ...] = ()


def write_revised(folder: Path) -> Sequence[Any]:
    return release_mig.write_mig_bench(
        folder, benchmark="mig_bench_revised", file_name="revised_MIG_bench.json", scale=1000
    )


SETS = [
    Set("mig_bench", release_mig.write_mig_bench),
    Set("mig_bench_revised", write_revised, ("--scale", "1000")),
    Set("lisa", release_still.write_lisa_extracted),
    Set("llmseg", release_still.write_llmseg_extracted),
    Set("revos", release_video.write_revos_extracted),
    Set("reasonvos", release_video.write_reasonvos_extracted),
    Set("lisa_full", release_still.write_lisa_full),
    Set("llmseg_full", release_still.write_llmseg_full),
    Set("revos_full", release_video.write_revos_full),
    Set("reasonvos_full", release_video.write_reasonvos_full),
]
NAMES = [each.benchmark for each in SETS]
SET = dict(zip(NAMES, SETS, strict=True))


@dataclass(frozen=True)
class Prepared:
    root: Path
    sources: Path
    truth: dict[str, Sequence[Any]]


def prepare(each: Set, source: Path, root: Path, *more: str) -> int:
    place = ("--source", str(source), "--root", str(root))
    return main(["prepare", each.benchmark, *place, *each.options, *more])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("real")
    truth = {}
    for each in SETS:
        source = folder / "sources" / each.benchmark
        source.mkdir(parents=True)
        truth[each.benchmark] = each.write(source)
        assert prepare(each, source, folder / "data") == 0, each.benchmark
    return Prepared(folder / "data", folder / "sources", truth)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, prepared: Prepared) -> None:
    for name, value in lmms_data.environment(prepared.root).items():
        monkeypatch.setenv(name, value)
    for name in ("DIALECT", "PROMPT", "PROTOCOL", "MIN_PIXELS", "MAX_PIXELS"):
        monkeypatch.delenv(f"UNIVG_{name}", raising=False)


# Prepare


@pytest.mark.parametrize("benchmark", NAMES)
def test_samples_are_what_the_release_says(benchmark, prepared):
    samples = {sample.id: sample for sample in load_samples(benchmark, root=prepared.root)}
    truth = sorted(prepared.truth[benchmark], key=lambda true: true.id)
    assert len(truth) >= 2
    assert load_manifest(benchmark, prepared.root)["n"] == len(truth)
    if not benchmark.startswith("mig_bench"):
        release_still.check_samples([samples[name] for name in sorted(samples)], truth, benchmark)
        return
    assert sorted(samples) == [true.id for true in truth]
    for true in truth:
        sample = samples[true.id]
        assert (sample.task, sample.target_image) == (true.task, true.target_image)
        assert sample.image_is_given is (true.task != "group_grounding")
        assert sample.image_sizes == list(true.sizes)
        assert sample.box == pytest.approx(true.box, abs=1e-9)


@pytest.mark.parametrize("each", SETS, ids=NAMES)
def test_preparing_again_gives_the_same_fingerprint(each, prepared, tmp_path):
    first = load_manifest(each.benchmark, prepared.root)["fingerprint"]
    source = prepared.sources / each.benchmark
    assert prepare(each, source, prepared.root) == 0
    assert load_manifest(each.benchmark, prepared.root)["fingerprint"] == first
    # Another place on another machine.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    each.write(elsewhere)
    assert prepare(each, elsewhere, tmp_path / "data") == 0
    assert load_manifest(each.benchmark, tmp_path / "data")["fingerprint"] == first


# Audit


# What is true of the files made here: an image stored on its side, a sample in other words, an
# object that is hidden in the target's frame.
FINDINGS = {
    "mig_bench": {"text_mismatch": 1},
    "mig_bench_revised": {"text_mismatch": 1},
    "lisa": {"exif_orientation": 1},
    "lisa_full": {"exif_orientation": 1},
    "revos_full": {"no_visible_object": 1},
    "reasonvos_full": {"no_visible_object": 1},
}


@pytest.mark.parametrize("benchmark", NAMES)
def test_the_audit_decodes_every_image_and_finds_what_is_there(benchmark, prepared, capsys):
    capsys.readouterr()
    code = main(["audit", benchmark, "--root", str(prepared.root), "--json"])
    report = json.loads(capsys.readouterr().out)
    found = {finding["kind"]: finding["n"] for finding in report["findings"]}
    assert found == FINDINGS.get(benchmark, {})
    assert code == (3 if found else 0)
    assert report["images_read"] == "decoded"


# Evaluate


def load(names: Sequence[str]) -> dict[str, Any]:
    from lmms_eval.tasks import get_task_dict

    from univg_eval.lmms.run import task_manager

    return get_task_dict(list(names), task_manager())


def oracle(names: Sequence[str]) -> dict[str, dict[str, float]]:
    from univg_eval.lmms.run import evaluate

    results = evaluate("univg_baseline", "kind=oracle", names).results["results"]
    return {
        name: {k.removesuffix(",none"): v for k, v in results[name].items() if k.endswith(",none")}
        for name in names
    }


MEASURES = (
    *("score", "acc@0.3", "acc@0.5", "acc@0.7", "acc@0.75", "acc@0.9", "miou", "macc"),
    *("center_acc", "f1@0.95", "f1_mean", "image_set_acc"),
    *("answered", "image_acc", "joint@0.5", "no_target_acc", "f1@0.5", "ap50", "matched_iou"),
)


def test_the_oracle_is_perfect_on_every_real_task(prepared):
    names = [*MIG, *REVISED, *EXTRACTED, *FULL, *VIDEO]
    assert len(names) == 34
    found = oracle(names)
    for name, metrics in found.items():
        measured = {m: metrics[m] for m in MEASURES if isinstance(metrics.get(m), float)}
        measured = {m: value for m, value in measured.items() if value == value}
        assert measured["score"] == 1.0, name
        assert set(measured.values()) == {1.0}, (name, measured)
    assert found["univg_mig_bench_group_grounding"]["joint@0.5"] == 1.0
    assert found["univg_revos_full"]["no_target_acc"] == 1.0


def test_the_published_zero_shot_rule_gives_the_oracle_every_point(prepared, monkeypatch):
    monkeypatch.setenv("UNIVG_PROTOCOL", "univg-r1-zero-shot")
    monkeypatch.setenv("UNIVG_DIALECT", "univg_r1")
    for name, metrics in oracle(EXTRACTED).items():
        assert metrics["acc@0.5"] == 1.0, name
        assert metrics["answered"] == 1.0, name


def after_first_resize(sample: GroundingSample) -> GroundingSample:
    from qwen_vl_utils import smart_resize

    sizes = [smart_resize(h, w, factor=28) for w, h in sample.image_sizes or ()]
    widths, heights = tuple(w for _, w in sizes), tuple(h for h, _ in sizes)
    return replace(sample, widths=widths, heights=heights)


BACKENDS = [
    ("simple", "qwen2_vl", "univg_r1"),
    ("chat", "qwen2_5_vl", "qwen2_5_vl"),
    ("chat", "qwen2_5_vl", "norm1000"),
]


@pytest.mark.parametrize(("kind", "backend", "dialect"), BACKENDS)
def test_every_request_opens_its_media_and_a_right_answer_is_scored_so(
    kind, backend, dialect, prepared, monkeypatch
):
    """As lmms-eval hands them to a simple or chat backend; a right answer is scored so."""
    from lmms_eval.protocol import ChatMessages

    from univg_eval.lmms.backends.baseline import BaselineModel

    monkeypatch.setenv("UNIVG_DIALECT", dialect)
    tasks = load([*MIG, *REVISED, *EXTRACTED, *FULL, *([] if dialect == "qwen2_5_vl" else VIDEO)])
    model = BaselineModel(kind="oracle")
    n = 0
    for name, task in tasks.items():
        limits = "min_pixels=802816,max_pixels=1003520"
        task.args = argparse.Namespace(
            model=backend, model_args=f"pretrained=/none,{limits}", force_simple=False
        )
        task.build_all_requests(limit=None)
        assert len(task.instances) == len(task.eval_docs)
        for request in task.instances:
            if kind == "simple":
                text, _, to_visual, doc_id, _, split = request.args
                doc = task.dataset[split][doc_id]
                visuals = to_visual(doc)
            else:
                text, to_messages, _, doc_id, _, split = request.args
                doc = task.dataset[split][doc_id]
                messages = ChatMessages(messages=to_messages(doc))
                images, videos, _ = messages.extract_media()
                visuals = [*images, *videos]
                assert messages.messages[0].content[-1].text == text
            sample = task.sample(doc)
            if name in VIDEO:
                assert [Path(path).suffix for path in visuals] == [".mp4"]
                assert f"frame {sample.extra['shown_video']['frame'] + 1} " in text
            else:
                assert [image.size for image in visuals] == sample.image_sizes
                assert {image.mode for image in visuals} == {"RGB"}
            if dialect == "qwen2_5_vl":  # the backend resizes before the processor does
                sample = after_first_resize(sample)
            logged = task.process_results(doc, [model.respond(sample, task.settings)])
            assert logged["score"] == 1.0, (name, sample.id, logged)
            n += 1
    # Every sample of the ten sets; those of the four video sets twice.
    counts = {name: len(truth) for name, truth in prepared.truth.items()}
    twice = sum(counts[name] for name, _ in lmms_data.VIDEO.values())
    assert n == sum(counts.values()) + (0 if dialect == "qwen2_5_vl" else twice)


def test_results_and_record_say_that_faulty_items_were_left_out(prepared, tmp_path, monkeypatch):
    from univg_eval.lmms import task
    from univg_eval.lmms.record import write_records
    from univg_eval.lmms.run import evaluate

    each = SET["reasonvos"]
    source = copy_of(prepared, "reasonvos", tmp_path / "source")
    whole = load_samples("reasonvos", root=prepared.root)
    at = first_image(whole[0], prepared.root).relative_to(prepared.sources / "reasonvos")
    (source / at).unlink()
    assert prepare(each, source, tmp_path / "data", "--skip-faulty") == 0
    lost = len(whole) - len(load_samples("reasonvos", root=tmp_path / "data"))
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path / "data"))
    warned: list[str] = []
    # lmms-eval exchanges the logger's outlets as it likes.
    monkeypatch.setattr(
        task.logger, "warning", lambda text, *values: warned.append(text.format(*values))
    )
    for _ in range(2):
        results = evaluate("univg_baseline", "kind=oracle", ["univg_reasonvos"]).results
    words = f"benchmark 'reasonvos' is not complete: {lost} faulty items were left out"
    assert [line[: len(words)] for line in warned if "not complete" in line] == [words]
    assert results["configs"]["univg_reasonvos"]["metadata"]["skipped"] == lost
    (folder,) = write_records(results, tmp_path / "records")
    manifest = load_run(folder).manifest.to_dict()
    assert (manifest["complete"], manifest["dataset"]["skipped"]) == (False, lost)


# The real rows


def test_rows_of_the_released_file_go_the_whole_way(shared_dir, tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.mkdir()
    file = shared_dir / "data" / "mig_bench" / "MIG_data.json"
    rows = release_mig.write_real_rows(source, file, per_task=3)
    assert len(rows) == 30
    assert prepare(SETS[0], source, tmp_path / "data") == 0
    samples = load_samples("mig_bench", root=tmp_path / "data")
    assert [list(sample.box) for sample in samples] == [row["answer"] for row in rows]
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path / "data"))
    for name, metrics in oracle(MIG).items():
        assert (metrics["acc@0.9"], metrics["miou"]) == (1.0, 1.0), name


def test_a_trial_on_stand_in_images_says_so_to_its_end(tmp_path, monkeypatch, capsys):
    pytest.importorskip("lmms_eval")
    source = tmp_path / "source"
    source.mkdir()
    release_mig.write_mig_bench(source)
    data = tmp_path / "data"
    monkeypatch.setenv("UNIVG_DATA", str(data))
    alone = shutil.copy(source / "MIG_data.json", tmp_path)
    assert main(["prepare", "mig_bench", "--source", alone, "--stand-in-images"]) == 0
    done = lmms_data.run_module(
        *("univg_eval", "eval", "--like", "migician", "--output_path", "out"),
        *("--model", "univg_baseline", "--model_args", "kind=oracle"),
        data=data,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = " ".join(done.stdout.split())
    for words in (
        "prepared with stand-in images: these are no results",
        "On images that stand in for the set's own: no result of the benchmark.",
        "(stand-in images)",
        "stand-in-images (this run)",
    ):
        assert words in said
    (record,) = map(str, (tmp_path / "out").glob("records/*/mig_bench"))
    assert load_run(record).manifest.dataset.stand_in_images
    assert main(["rescore", record, "--protocol", "univg", "-o", str(tmp_path / "again")]) == 0
    assert load_run(tmp_path / "again").manifest.dataset.stand_in_images
    for command in ("leaderboard", "failures", "compare"):
        capsys.readouterr()
        assert main([command, *([record] * (1 + (command == "compare")))]) == 0
        assert "stand in for the set's own" in " ".join(capsys.readouterr().out.split()), command
    page = tmp_path / "page.html"
    assert main(["report", record, "-o", str(page)]) == 0
    assert "stand-in-images" in page.read_text(encoding="utf-8")

    # With the real images it is another set, which the record is not of.
    assert main(["prepare", "mig_bench", "--source", str(source)]) == 0
    capsys.readouterr()
    assert main(["failures", record]) == 2
    assert "fingerprint" in capsys.readouterr().err


# Wrong and half data


def copy_of(prepared: Prepared, benchmark: str, folder: Path) -> Path:
    return Path(shutil.copytree(prepared.sources / benchmark, folder))


def refused(capsys: pytest.CaptureFixture[str], each: Set, source: Path, root: Path) -> str:
    capsys.readouterr()
    assert prepare(each, source, root) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert not (root / each.benchmark / "samples.jsonl").exists()
    assert not (root / each.benchmark / "manifest.json").exists()
    return message


def first_image(sample: GroundingSample, root: Path) -> Path:
    return (root / sample.images[0]).resolve()


@pytest.mark.parametrize("each", SETS, ids=NAMES)
def test_a_missing_or_broken_image_costs_only_its_own_samples(each, prepared, tmp_path, capsys):
    source = copy_of(prepared, each.benchmark, tmp_path / "source")
    whole = load_samples(each.benchmark, root=prepared.root)
    at = first_image(whole[0], prepared.root).relative_to(prepared.sources / each.benchmark)
    (source / at).write_bytes(b"this is no image")
    assert at.name in refused(capsys, each, source, tmp_path / "data")
    (source / at).unlink()
    assert "--skip-faulty" in refused(capsys, each, source, tmp_path / "data")
    assert prepare(each, source, tmp_path / "data", "--skip-faulty") == 0
    sound = load_samples(each.benchmark, root=tmp_path / "data")
    broken = first_image(whole[0], prepared.root)
    kept = [s for s in whole if broken not in {(prepared.root / i).resolve() for i in s.images}]
    assert 0 < len(kept) < len(whole)
    assert [(s.id, s.targets) for s in sound] == [(s.id, s.targets) for s in kept]
    manifest = load_manifest(each.benchmark, tmp_path / "data")
    assert manifest["complete"] is False
    assert manifest["skipped"]


def test_a_truncated_image_stops_audit_and_evaluation(prepared, tmp_path, monkeypatch, capsys):
    each = SET["llmseg"]
    source = copy_of(prepared, "llmseg", tmp_path / "source")
    assert prepare(each, source, tmp_path / "data") == 0
    sample = load_samples("llmseg", root=tmp_path / "data")[0]
    file = first_image(sample, tmp_path / "data")
    file.write_bytes(file.read_bytes()[:-200])
    capsys.readouterr()
    assert main(["audit", "llmseg", "--root", str(tmp_path / "data"), "--json"]) == 3
    assert file.name in capsys.readouterr().out
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path / "data"))
    task = load(["univg_llmseg"])["univg_llmseg"]
    with pytest.raises(SystemExit) as stopped:
        task.doc_to_visual(task.eval_docs[0])
    assert stopped.value.code == 2
    assert file.name in capsys.readouterr().err


def test_a_video_that_cannot_be_decoded_is_reported_when_it_is_prepared(tmp_path, capsys):
    (tmp_path / "clip.mp4").write_bytes(b"this is no video" * 50)
    row = {
        "images": ["clip.mp4#frame=0", "clip.mp4#frame=3"],
        "instruction": "Find the dog in the second image.",
        "box": [10, 20, 30, 40],
        "target_image": 2,
    }
    (tmp_path / "my.jsonl").write_text('{"space": "pixels"}\n' + json.dumps(row) + "\n")
    custom = Set("custom", lambda folder: [])
    message = refused(capsys, custom, tmp_path / "my.jsonl", tmp_path / "data")
    assert "clip.mp4" in message
