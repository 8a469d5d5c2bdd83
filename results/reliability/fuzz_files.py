"""Hostile files: valid ones of every kind, made small here, and what reads each of them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from fuzz_releases import RELEASES
from fuzz_replies import SETS
from PIL import Image

from univg_eval import get_dialect, list_dialects
from univg_eval.audit import audit_benchmark
from univg_eval.benchmarks.preparing.archives import unpack
from univg_eval.benchmarks.preparing.catalog import CATALOG
from univg_eval.benchmarks.preparing.preparation import prepare_release
from univg_eval.cli import main as univg
from univg_eval.errors import UserError
from univg_eval.images.reading import image_header, load_image
from univg_eval.images.video import check_video, count_frames, frame_cache, read_frames
from univg_eval.leaderboard.published import load_counts, load_published, load_reproductions
from univg_eval.leaderboard.published_checks import check_table
from univg_eval.lmms.record import read_records
from univg_eval.prompts import build_prompt
from univg_eval.protocols import PROTOCOLS
from univg_eval.published_rules import PUBLISHED_RULES
from univg_eval.runs.record import CHECKSUMS, make_record, response_line, unknown_environment
from univg_eval.runs.response_file import sample_lines, score_file
from univg_eval.samples import GroundingSample, Target, fingerprint, load_samples, write_benchmark
from univg_eval.scoring import Response, aggregate, score_samples
from univg_train.data import check_training_data, make_rendering, open_training_data, recognise_form

__all__ = ["KINDS", "Kind"]

REPO = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Kind:
    """A kind of files.

    Attributes:
        name: as the table calls it.
        make: writes valid files into a folder.
        read: reads the files of a folder; what it raises is held against the promise.
        changed: names of the files that are changed, as globs.
        heavy: whether reading loads torch and TRL, or lmms-eval.
    """

    name: str
    make: Callable[[Path], None]
    read: Callable[[Path, Random], object]
    changed: tuple[str, ...]
    heavy: bool = False


# --- samples, responses, records -----------------------------------------------------------------

TEXTS = ("[100, 200, 500, 900]", "<think>a</think>[100, 200, 300, 900]", "None.", None, "[1, 2, 3")
WH = (200, 100)


def _samples() -> list[GroundingSample]:
    box = (0.1, 0.2, 0.5, 0.9)
    targets = [(Target(0, box),), (Target(1, box),), (), (Target(0, box), Target(0, (0, 0, 1, 1)))]
    return [
        GroundingSample(
            id=f"own-{i}", benchmark="own", task=f"t{i % 2}", split="test",
            images=("own/a.png", "own/b.png"), widths=(200, 200), heights=(100, 100),
            instruction="Where is it?", targets=targets[i % 4], image_is_given=True,
            cluster=f"c{i // 2}", source={"file": "own.json", "row": i, "images": ["a", "b"]},
        )
        for i in range(len(TEXTS))
    ]  # fmt: skip


def _picture(path: Path, wh: tuple[int, int] = WH, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(wh[0]).integers(0, 255, (wh[1], wh[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)


def _prepared(folder: Path) -> None:
    write_benchmark(_samples(), benchmark="own", root=folder / "data")
    for name in ("a", "b"):
        _picture(folder / "data" / "own" / f"{name}.png")


def _read_prepared(folder: Path, rng: Random) -> None:
    """Audit and score it, prompt with it, and train on it."""
    if rng.random() < 0.3:
        _write_lines(folder / "a", _lines())
        return _run(
            folder, "score", "--benchmark", "own", "--dialect", "pixels", "--responses", "a"
        )
    if rng.random() < 0.3:
        how = make_rendering("univg_r1")
        check_training_data("samples", "own", how)
    audit_benchmark("own", open_images=rng.random() < 0.2)
    samples = load_samples("own")
    responses = [Response(rng.choice(TEXTS), prompt="") for _ in samples]
    aggregate(score_samples(samples, responses, "pixels"))
    for sample in samples:
        build_prompt(sample, get_dialect("pixels"), "direct")
    return None


def _lines() -> list[dict[str, Any]]:
    return [
        response_line("own", sample, Response(text, sample.image_sizes, None, "Where is it?"))
        for sample, text in zip(_samples(), TEXTS, strict=True)
    ]


def _responses(folder: Path) -> None:
    _write_lines(folder / "responses.jsonl", _lines())


def _read_responses(folder: Path, rng: Random) -> None:
    score_file(
        sample_lines(_samples()),
        folder / "responses.jsonl",
        dialect=get_dialect(rng.choice(list_dialects())),
        protocol=rng.choice(list(PROTOCOLS.values())),
        out=io.BytesIO(),
        processes=1,
    )


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


_SETTINGS = {
    "dialect": ["norm1000", "given"], "prompt": ["direct", "default of the dialect"],
    "protocol": ["univg", "default"], "min_pixels": [None, "not known"],
    "max_pixels": [None, "not known"], "control": ["none", "default"],
    "media": ["images", "default"],
}  # fmt: skip


def _record(folder: Path) -> None:
    _prepared(folder)
    samples = _samples()
    responses = [Response(text, s.image_sizes) for s, text in zip(samples, TEXTS, strict=True)]
    scores = score_samples(samples, responses, "norm1000")
    manifest = {
        "model": {"id": "org/m", "backend": "b", "args": "pretrained=org/m", "config_sha256": None},
        "settings": _SETTINGS,
        "prompt_sha256": "0" * 64,
        "generation": {"max_new_tokens": 512},
        "dataset": {
            "benchmark": "own", "prepared_benchmark": "own", "control": "none", "media": "images",
            "fingerprint": fingerprint(samples), "n": len(samples), "left_out": 0, "skipped": 0,
            "revision": None,
        },
        "tasks": ["univg_own"],
        "n": len(samples), "complete": True, "excluded": 0, "failed_requests": 0,
        "results": aggregate(scores), "wall_time_s": 1.5, **unknown_environment(),
    }  # fmt: skip
    for name in ("a", "b"):
        record = make_record(folder / name, manifest=manifest, responses=_lines(), scores=scores)
        record.write(folder / name)
    for command in _COMMANDS:
        _run(folder, *command)
        shutil.rmtree(folder / "new", ignore_errors=True)


_COMMANDS = (
    ("leaderboard", "a", "b"),
    ("leaderboard", "a", "b", "--json"),
    ("compare", "a", "b"),
    ("failures", "a"),
    ("failures", "a", "--json"),
    ("export", "a", "-o", "new"),
    ("rescore", "a", "--dialect", "pixels", "-o", "new"),
    ("rescore", "a", "--json", "-o", "new"),
    ("report", "a", "-o", "page.html"),
)


def _read_record(folder: Path, rng: Random) -> None:
    if rng.random() < 0.9:  # else the checksums show that something was changed
        with contextlib.suppress(OSError, TypeError, ValueError, RecursionError):
            sums = json.loads((folder / "a" / CHECKSUMS).read_text())
            for name in sums:
                sums[name] = hashlib.sha256((folder / "a" / name).read_bytes()).hexdigest()
            (folder / "a" / CHECKSUMS).write_text(json.dumps(sums))
    _run(folder, *rng.choice(_COMMANDS))


def _run(folder: Path, *arguments: str) -> None:
    """A command in the folder; a UserError where it ends with the status of one."""
    paths = {"a", "b", "new", "page.html", "report.json"}
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        try:
            status = univg([str(folder / a) if a in paths else a for a in arguments])
        except SystemExit as error:  # of the parser
            raise AssertionError(shown.getvalue()) from error
    if status == 2:
        raise Refused(shown.getvalue())
    assert status in (0, 3), f"{arguments} ended with {status}: {shown.getvalue()[-300:]}"


class Refused(Exception):  # noqa: N818
    """A command ended with the status of a user's mistake."""


def _lmms_output(folder: Path) -> None:
    """What ``lmms-eval --output_path … --log_samples`` leaves."""
    _prepared(folder)
    config = {
        "task": "univg_own", "dataset_path": "own", "output_type": "generate_until",
        "generation_kwargs": {"until": [], "max_new_tokens": 512},
        "metadata": {"version": 1.0, "fingerprint": fingerprint(_samples())},
    }  # fmt: skip
    results = {
        "results": {}, "configs": {"univg_own": config}, "date": "20260102_030405",
        "config": {
            "model": "vllm", "model_args": "model=org/M", "model_backend": "vllm", "limit": None,
            "resolved_cli_args": {"timezone": "Asia/Singapore"},
        },
        "n-samples": {"univg_own": {"original": 5, "effective": 5}},
        "model_name": "org/M", "total_evaluation_time_seconds": "12.5",
    }  # fmt: skip
    stem = folder / "20260102_030405"
    Path(f"{stem}_results.json").write_text(json.dumps(results))
    rows = [
        {
            "doc_id": i, "id": f"own-{i}", "filtered_resps": text, "resps": [[text]],
            "token_counts": [{"input_tokens": 5, "output_tokens": 9}],
            "input_sizes": [[28, 28]] * 2, "univg_settings": _SETTINGS, "input": "Where is it?",
        }
        for i, text in enumerate(TEXTS)
    ]  # fmt: skip
    _write_lines(Path(f"{stem}_samples_univg_own.jsonl"), rows)


def _read_lmms_output(folder: Path, rng: Random) -> None:
    read_records(folder / "20260102_030405_results.json")


# --- own sets and releases -----------------------------------------------------------------------


def _prepare(name: str, source: str, folder: Path, rng: Random, **options: Any) -> None:
    """`univg prepare`: every item is converted, the faulty ones left out half of the time."""
    release = CATALOG[name].open(folder / source, **options)
    prepare_release(release, skip_faulty=rng.random() < 0.5)
    load_samples(release.benchmark)


def _own_set(folder: Path) -> None:
    _picture(folder / "a.jpg")
    _picture(folder / "b.png", (64, 48))
    find = "Find the cup."
    rows: list[dict[str, Any]] = [
        {"space": "pixels"},
        {"images": "a.jpg", "instruction": find, "box": [10, 20, 50, 60], "group": "one"},
        {"images": ["a.jpg", "b.png"], "instruction": find, "box": [0.1, 0.2, 0.4, 0.5],
         "space": "norm1", "target_image": 2, "extra": {"depth": 3}},
        {"images": ["b.png"], "instruction": find, "box": None},
        {"images": ["a.jpg", "b.png"], "instruction": find, "find_image": True,
         "boxes": [{"image": 1, "box": [1, 2, 30, 40]}, {"image": 2, "box": [1, 2, 30, 40]}]},
    ]  # fmt: skip
    _write_lines(folder / "own.jsonl", rows)


_QUESTION = "<image>\n<image>\nFind the cup of the first image in the second image."
_ANSWER = "It's in the second image. <|box_start|>(100,200),(300,400)<|box_end|>"


def _turns(*texts: Any) -> list[dict[str, Any]]:
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]


_TRAINING: dict[str, list[dict[str, Any]]] = {
    "mgrounding": [{"images": ["a.png", "b.png"], "conversations": _turns(_QUESTION, _ANSWER)}],
    "univg_r1_stage1": [{"images": ["a.png", "b.png"], "conversations": _turns(
        _QUESTION, "<think>It is red.</think>\n<answer>(100,200),(300,400)</answer>")}],
    "univg_r1_stage2": [{"images": ["a.png", "b.png"], "question": _QUESTION,
                         "answer": [100, 200, 300, 400]}],
    "vlm_r1": [{"id": 1, "image": "a.png", "conversations": _turns(
        "<image>Please provide the bounding box coordinate of the region this sentence describes: "
        "the cup.", [10, 20, 30, 40])}],
    "ms_swift": [{"images": ["a.png"], "messages": [
        {"role": "user", "content": "<image>Find the <ref-object>."},
        {"role": "assistant", "content": "<bbox>"}],
        "objects": {"ref": ["cup"], "bbox": [[10, 20, 30, 40]]}}],
}  # fmt: skip


def _training(form: str, folder: Path) -> None:
    for name in ("a", "b"):
        _picture(folder / f"{name}.png", (64, 48))
    _write_lines(folder / "rows.jsonl", _TRAINING[form] * 2)
    (folder / "rows.json").write_text(json.dumps(_TRAINING[form] * 2))


def _read_training(form: str, folder: Path, rng: Random) -> None:
    how = make_rendering("qwen2_vl", style="direct", purpose=rng.choice(("sft", "grpo")))
    for path in (folder / "rows.json", folder / "rows.jsonl"):
        with contextlib.suppress(UserError):
            recognise_form(path)
        open_training_data(form, path, how, decode=rng.random() < 0.1)


def _mig_bench(folder: Path) -> None:
    questions = {
        "common_object": "Recognize and locate this object in the 2th image. ",
        "diff": "Compare these two images carefully and give me their difference.",
        "refer_grounding": "Find where does the object in image-1 locate in the image-2.",
        "group_grounding": "Please find the area described by: it.",
    }
    rows = []
    for task, question in questions.items():
        names = [f"./MIG-Bench/images/{task}/{i}.png" for i in (0, 1)]
        for name in names:
            _picture(folder / name, (64, 48))
        info = "It is in the second image. " if task == "group_grounding" else ""
        rows.append(
            {"task": task, "images": names, "question": question, "answer": [0.1, 0.2, 0.5, 0.9],
             "additional_info": info, "need_format": True}
        )  # fmt: skip
    (folder / "MIG_data.json").write_text(json.dumps(rows))


def _extracted(file: str, rows: list[dict[str, Any]], pictures: str, folder: Path) -> None:
    for number in range(6):
        _picture(folder / pictures / f"{number:05d}.jpg", (64, 48))
    (folder / file).write_text(json.dumps(rows))


_FRAMES = [f"/of/others/JPEGImages/v1/{i:05d}.jpg" for i in range(5)]
_EXTRACTED: dict[str, tuple[str, list[dict[str, Any]], str]] = {
    "lisa": ("lisa_val.json", [
        {"image_path": "/of/others/val/00001.jpg", "instruction": "a", "boxes": [[1, 2, 9, 9]]},
        {"image_path": "val/00002.jpg", "instruction": "a", "boxes": [[1, 2, 9, 9], [3, 3, 5, 6]]},
    ], "images/val"),
    "llmseg": ("LLMSeg_eval.json", [
        {"image_path": "coco/00001.jpg", "question": "What?", "bbox": [[1, 2, 30, 40]]},
        {"image_path": "coco/00002.jpg", "question": "What?", "bbox": [[1, 2, 9, 9], [1, 1, 5, 5]]},
    ], "images/coco"),
    "revos": ("ReVOS_eval.json", [
        {"video_id": "v1", "frames": [0, 1, 2, 3, 4], "question": "it",
         "bbox_list": [[1, 2, 9, 9]] * 5}
    ], "ReVOS_eval/v1"),
    "reasonvos": ("ReasonVOS_eval.json", [
        {"image_list": _FRAMES, "question": "it", "bbox_list": ["[1, 2, 30, 40]"] * 5}
    ], "JPEGImages/v1"),
}  # fmt: skip


def _lisa_full(folder: Path) -> None:
    points = [[5, 5], [40, 5], [40.5, 30.2], [5, 30]]
    shape = {"label": "target", "labels": ["target"], "shape_type": "polygon", "points": points}
    for split in ("val", "test"):
        _picture(folder / split / "0001.jpg", (64, 48))
        value = {
            "text": ["the cup", "Which one?"], "is_sentence": True, "imagePath": "0001.jpg",
            "shapes": [shape, {**shape, "label": "ignore", "points": [[0, 0], [9, 0], [9, 9]]}],
            "imageHeight": 48, "imageWidth": 64,
        }  # fmt: skip
        (folder / split / "0001.json").write_text(json.dumps(value))


# COCO's run lengths of a mask of 64x48 pixels: 10 columns off, then 5 rows on in each of 20.
_RUNS = [48 * 10 + 5, *([5, 43] * 19), 5, 48 * 34 + 38]


def _rle() -> dict[str, Any]:
    return {"size": [48, 64], "counts": list(_RUNS)}


def _llmseg_full(folder: Path) -> None:
    value = {}
    for number in range(2):
        name = f"{number:012d}.jpg"
        _picture(folder / "images/coco/train2017" / name, (64, 48))
        pair = {"question": "What holds tea?", "answer": "The cup.", "rle_seg": _rle()}
        value[name] = {"from_dataset": "coco", "qa_pairs": [pair]}
    (folder / "test.json").write_text(json.dumps(value))


def _revos_full(folder: Path) -> None:
    frames = [f"{i:05d}" for i in range(6)]
    for frame in frames:
        _picture(folder / "JPEGImages" / "v1" / f"{frame}.jpg", (64, 48))
    expressions = {
        "0": {"exp": "the ball", "obj_id": [0], "anno_id": [11], "type_id": 0},
        "1": {"exp": "the elephant", "obj_id": [], "anno_id": [], "type_id": 2},
    }
    video = {"vid_id": 0, "height": 48, "width": 64, "frames": frames, "expressions": expressions}
    meta = {"videos": {"v1": video}}
    (folder / "meta_expressions_valid_.json").write_text(json.dumps(meta))
    (folder / "mask_dict.json").write_text(json.dumps({"11": [_rle()] * 5 + [None]}))


def _reasonvos_full(folder: Path) -> None:
    frames = [f"{i:05d}" for i in range(6)]
    mask = np.zeros((48, 64), dtype=np.uint8)
    mask[5:20, 10:30] = 255
    for frame in frames:
        _picture(folder / "JPEGImages" / "v1" / f"{frame}.jpg", (64, 48))
        path = folder / "Annotations" / "MOSE_v1_1" / f"{frame}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
    expression = {"obj_id": 1, "exp_id": 0, "exp_text": "the pair", "is_sent": 0}
    video = {"source": "MOSE", "frames": frames, "expressions": [expression]}
    (folder / "meta_expressions.json").write_text(json.dumps({"videos": {"v1": video}}))


def _refcoco(form: str, folder: Path) -> None:
    """RefCOCO's boxes in two of its public forms."""
    name = "COCO_train2014_000000000077.jpg"
    _picture(folder / "train2014" / name, (120, 90))
    row: dict[str, Any] = {"height": 90, "width": 120}
    (folder / "source").mkdir()
    if form == "vlm_r1":
        row |= {
            "dataset_name": "refcoco", "bbox_list": [[10, 20, 39, 59]],
            "image": f"train2014/{name}",
            "problem": "Please provide the bounding box coordinate of the region this sentence "
            "describes: the man.", "normal_caption": "the man", "solution": [10, 20, 40, 60],
            "normalized_solution": [83, 222, 333, 666],
        }  # fmt: skip
        (folder / "source/refcoco_testA.json").write_text(json.dumps([row, row]))
        return
    row |= {"img_path": name, "expression": "the man", "bbox": [10, 20, 40, 60]}
    row["dataset_name"] = "refcoco"
    _write_lines(folder / "source/REC_refcoco_unc_testA.jsonl", [row, row])


def _read_refcoco(form: str, folder: Path, rng: Random) -> None:
    _prepare("refcoco", "source", folder, rng, images=folder / "train2014", form=form)


def _read_release(name: str, folder: Path, rng: Random) -> None:
    options = {"images": folder / "images"} if name == "grefcoco" else {}
    if CATALOG[name].needs_workspace:
        options["workspace"] = folder / "data" / name
    _prepare(name, ".", folder, rng, **options)


# --- labels that people reviewed, rules of whole sets --------------------------------------------


def _reviewed(folder: Path) -> None:
    _refcoco("vlm_r1", folder)
    _read_refcoco("vlm_r1", folder, Random(1))
    label = {"image_id": 5, "bbox": [10, 20, 30, 40], "caption_quality": 0}
    image = {"id": 5, "file_name": "COCO_train2014_000000000077.jpg", "caption": "the man"}
    value = {"images": [image], "annotations": [label, {**label, "caption_quality": 1}]}
    (folder / "a").mkdir()
    (folder / "a" / "refcoco_testA_reviewed.json").write_text(json.dumps(value))


def _read_reviewed(folder: Path, rng: Random) -> None:
    _run(folder, "audit", "refcoco", "--quick", "--reviewed", "a", "--json")


def _leave_out(folder: Path) -> None:
    _prepared(folder)
    _write_lines(folder / "a", _lines())
    rows = [{"id": f"own-{number}", "detail": "by people"} for number in (1, 3)]
    finding = {"kind": "wrong_label", "n": 2, "rows": rows}
    report = {"fingerprint": fingerprint(_samples()), "findings": [finding]}
    (folder / "report.json").write_text(json.dumps(report))


def _read_leave_out(folder: Path, rng: Random) -> None:
    scoring = ("score", "--benchmark", "own", "--dialect", "pixels", "--responses", "a")
    _run(folder, *scoring, "--leave-out", "report.json")


def _sets(folder: Path) -> None:
    for name, samples in SETS.items():
        (benchmark,) = PUBLISHED_RULES[name].benchmarks
        write_benchmark(samples, benchmark=benchmark, root=folder / "data")


def _read_sets(folder: Path, rng: Random) -> None:
    """Score the set that was changed, or all, by its authors' rule."""
    files = {
        name: folder / "data" / rule.benchmarks[0] / "samples.jsonl"
        for name, rule in PUBLISHED_RULES.items()
    }
    changed = [
        name
        for name, path in files.items()
        if not path.is_file() or path.stat(follow_symlinks=False).st_nlink == 1
    ]
    for name in changed or files:
        rows = [{"id": sample.id, "response": rng.choice(TEXTS)} for sample in SETS[name]]
        _write_lines(folder / "a", rows)
        scoring = ("score", "--benchmark", PUBLISHED_RULES[name].benchmarks[0])
        _run(folder, *scoring, "--dialect", "pixels", "--responses", "a", "--protocol", name)


# --- tables and settings -------------------------------------------------------------------------


def _published(folder: Path) -> None:
    for path in (REPO / "results" / "published").glob("*.[cy]*"):
        shutil.copy(path, folder)


def _read_published(folder: Path, rng: Random) -> None:
    load_reproductions(folder=folder)
    for table in load_published(folder=folder):
        check_table(table, load_counts(table.benchmark, folder=folder))


def _configs(method: str, folder: Path) -> None:
    for path in (REPO / "univg_train" / "configs").glob("*.yaml"):
        is_grpo = "\n  num_generations:" in path.read_text(encoding="utf-8")
        if is_grpo == (method == "grpo"):
            shutil.copy(path, folder)


def _read_configs(method: str, with_trl: bool, folder: Path, rng: Random) -> None:
    import importlib

    settings = importlib.import_module(f"univg_train.{method}.settings")
    load = partial(settings.load_settings, with_trl=with_trl) if method == "sft" else None
    for path in sorted(folder.glob("*.yaml")):
        (load or settings.load_grpo_settings)(path)


def _evaluation_config(folder: Path) -> None:
    text = """
- {name: first, group: tiny, model: univg_baseline, model_args: kind=oracle, tasks: univg_mini}
- {name: second, model: univg, model_args: "pretrained=tiny,dtype=float32", tasks: univg_mini,
   batch_size: 4, limit: 8, env: {UNIVG_PROMPT: direct}}
"""
    (folder / "runs.yaml").write_text(text)


def _read_evaluation_config(folder: Path, rng: Random) -> None:
    from univg_eval.cli._several import read_entries

    for entry in read_entries(str(folder / "runs.yaml")) or ():
        assert isinstance(entry.title, str)


# --- images, videos, archives --------------------------------------------------------------------

_ORIENTED = Image.Exif()
_ORIENTED[0x0112] = 6


def _png(wh: tuple[int, int], depth: int = 8, colour: int = 2, data: bytes = b"\0" * 99) -> bytes:
    """A PNG file whose header may promise any size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", *wh, depth, colour, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(data))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def _images(folder: Path) -> None:
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
    rgb.save(folder / "plain.png")
    rgb.save(folder / "oriented.jpg", exif=_ORIENTED)
    rgb.save(folder / "progressive.jpeg", progressive=True)
    rgb.save(folder / "wrong.png", "JPEG")
    rgb.save(folder / "a.webp", exif=_ORIENTED)
    rgb.save(folder / "a.bmp")
    rgb.save(folder / "a.tiff", compression="tiff_lzw", exif=_ORIENTED)
    rgb.save(folder / "tags.png", exif=_ORIENTED)
    rgb.save(folder / "a.ppm")
    rgb.convert("CMYK").save(folder / "cmyk.jpg")
    rgb.convert("P").save(folder / "palette.gif", transparency=3)
    rgb.convert("RGBA").save(folder / "alpha.png")
    rgb.convert("1").save(folder / "bits.png")
    frames = [rgb.rotate(10 * k) for k in range(4)]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "animated.webp", save_all=True, append_images=frames[1:])
    Image.fromarray(rng.integers(0, 65_535, (48, 64), dtype=np.uint16)).save(folder / "deep.png")
    Image.fromarray(rng.random((48, 64), dtype=np.float32)).save(folder / "float.tiff")
    rgb.resize((1, 1)).save(folder / "one.png")
    rgb.resize((20_000, 2)).save(folder / "wide.png")
    for name, wh in (("bomb", (60_000, 60_000)), ("huge", (2**31 - 1, 2**31 - 1))):
        (folder / f"{name}.png").write_bytes(_png(wh))


_BROKEN = ("bomb.png", "huge.png")


def _read_image(folder: Path, rng: Random) -> None:
    """One image, as it was changed; each is read first where none is."""
    changed = [path for path in folder.iterdir() if path.stat(follow_symlinks=False).st_nlink == 1]
    refused = None
    for path in changed or [p for p in sorted(folder.iterdir()) if p.name not in _BROKEN]:
        for read in (
            image_header,
            partial(image_header, decode=True),
            load_image,
            partial(load_image, upright=False),
        ):
            try:
                read(path)
            except ValueError as error:
                refused = error
                if not isinstance(error, UserError):
                    raise
    if refused is not None:
        raise refused


def _videos(folder: Path) -> None:
    import av

    forms = (("a.mp4", "mpeg4"), ("a.mkv", "mpeg4"), ("a.avi", "mjpeg"), ("b.mp4", "libx264"))
    for name, codec in forms:
        if codec not in av.codecs_available:
            continue
        with av.open(str(folder / name), "w") as file:
            stream = file.add_stream(codec, rate=10)
            stream.width, stream.height = 64, 48
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for level in range(0, 200, 20):
                pixels = np.full((48, 64, 3), level, np.uint8)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            file.mux(stream.encode())


def _read_video(folder: Path, rng: Random) -> None:
    changed = [p for p in folder.iterdir() if p.stat(follow_symlinks=False).st_nlink == 1]
    for path in changed or sorted(folder.iterdir()):
        frame_cache().clear()
        n = count_frames(path)
        read_frames(path, [0, n // 2, n - 1])
        check_video(path)


_NAMES = ("a.txt", "b/c.txt", "b/", "../out", "/abs", "b/../../out", "C:\\x", "é", "a" * 300, "b")
_NAMES += ("x/" * 150 + "y", "b\\d", "__MACOSX/a", ".", "", ".unpacked", "a.txt/z", "\udc80")


def _archives(folder: Path) -> None:
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name in ("a.txt", "b/c.txt", "b/d.bin"):
            file.writestr(name, name * 500)
    for name in ("a.tar", "a.tar.gz", "a.tgz"):
        with tarfile.open(folder / name, "w:" if name == "a.tar" else "w:gz") as packed:
            for entry in ("a.txt", "b/c.txt"):
                info = tarfile.TarInfo(entry)
                info.size = 3000
                packed.addfile(info, io.BytesIO(b"x" * 3000))


def _hostile_archive(rng: Random, folder: Path) -> Path:
    """An archive whose entries leave the folder, are links or devices, or promise too much."""
    names = rng.choices(_NAMES, k=rng.choice((1, 2, 5)))
    if rng.random() < 0.4:
        path = folder / "hostile.zip"
        with zipfile.ZipFile(path, "w", rng.choice((0, 8, 12, 14))) as file:
            for name in names:
                info = zipfile.ZipInfo(name.encode("utf-8", "replace").decode())
                info.external_attr = rng.choice((0, 0, 0o120777 << 16, 0o20666 << 16, 0x10))
                with contextlib.suppress(ValueError):
                    file.writestr(info, bytes(rng.choice((0, 9, 2**22))))
        return path
    path = folder / "hostile.tar.gz"
    with tarfile.open(path, "w:gz", format=rng.choice((0, 1, 2)), errors="surrogateescape") as file:
        for name in names:
            info = tarfile.TarInfo(name)
            info.type = rng.choice(b"0000012345678LKxg").to_bytes()
            info.linkname = rng.choice(("", "../..", "/etc/passwd", "a.txt"))
            info.size = size = rng.choice((0, 9, 2**22))
            info.pax_headers = rng.choice(({}, {"size": "9" * 30}, {"path": "../out"}))
            with contextlib.suppress(ValueError, UnicodeError):
                file.addfile(info, io.BytesIO(bytes(size)) if info.isreg() else None)
    return path


def _read_archive(folder: Path, rng: Random) -> None:
    changed = [p for p in folder.iterdir() if p.stat(follow_symlinks=False).st_nlink == 1]
    if changed and rng.random() < 0.5:
        changed = [_hostile_archive(rng, folder)]
    for path in changed or sorted(folder.iterdir()):
        place = folder / f"{path.name}.in"
        place.mkdir()
        before = sorted(folder.iterdir())
        try:
            unpack(path, place / "target")
            assert not any(p.is_symlink() for p in place.rglob("*")), "a link was unpacked"
        finally:
            beside = [p for p in place.iterdir() if p.name != "target"]
            assert not beside and sorted(folder.iterdir()) == before, "something is left outside"


KINDS = (
    Kind("responses.jsonl", _responses, _read_responses, ("*.jsonl",)),
    Kind("samples of a prepared benchmark", _prepared, _read_prepared, ("data/own/*",)),
    Kind("run records, by the commands that read them", _record, _read_record, ("a/*",)),
    Kind("folders of lmms-eval", _lmms_output, _read_lmms_output, ("*.json*",)),
    Kind("own sets", _own_set, partial(_prepare, "custom", "own.jsonl"), ("*.*",)),
    *(
        Kind(f"training data, form {form}", partial(_training, form), partial(_read_training, form),
             ("rows.*",))
        for form in _TRAINING
    ),
    Kind("MIG-Bench", _mig_bench, partial(_prepare, "mig_bench", "."),
         ("*.json", "MIG-Bench/*/*/*")),
    *(
        Kind(f"{name}, extracted", partial(_extracted, *form), partial(_prepare, name, "."),
             ("*.json",))
        for name, form in _EXTRACTED.items()
    ),
    Kind("lisa_full", _lisa_full, partial(_prepare, "lisa_full", "."), ("*/*.json",)),
    Kind("llmseg_full", _llmseg_full, partial(_prepare, "llmseg_full", "."), ("*.json",)),
    Kind("revos_full", _revos_full, partial(_prepare, "revos_full", "."), ("*.json",)),
    Kind("reasonvos_full", _reasonvos_full, partial(_prepare, "reasonvos_full", "."),
         ("*.json", "Annotations/*/*")),
    *(
        Kind(f"RefCOCO, form {form}", partial(_refcoco, form), partial(_read_refcoco, form),
             ("source/*",))
        for form in ("shikra", "vlm_r1")
    ),
    *(
        Kind(name, make, partial(_read_release, name), changed)
        for name, (make, changed) in RELEASES.items()
    ),
    Kind("reviewed labels of RefCOCO", _reviewed, _read_reviewed, ("a/*",)),
    Kind("--leave-out of univg score", _leave_out, _read_leave_out, ("*.json",)),
    Kind("sets scored by their authors' rules", _sets, _read_sets, ("data/*/samples.jsonl",)),
    Kind("published tables", _published, _read_published, ("*",)),
    *(
        Kind(f"settings of {method}" + (", with TRL's arguments" if with_trl else ""),
             partial(_configs, method), partial(_read_configs, method, with_trl), ("*",), with_trl)
        for method, with_trl in (("sft", False), ("sft", True), ("grpo", True))
    ),
    Kind("--config of univg eval", _evaluation_config, _read_evaluation_config, ("*",), True),
    Kind("images", _images, _read_image, ("*",)),
    Kind("videos", _videos, _read_video, ("*",)),
    Kind("archives", _archives, _read_archive, ("*",)),
)  # fmt: skip
