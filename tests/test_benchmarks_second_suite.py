"""The second suite as a user runs it: prepare, audit, evaluate, and the authors' scorers beside.

The releases are the small ones that the tests of their readers write, in the released forms.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import test_benchmarks_grefcoco
import test_benchmarks_groundingme
import test_benchmarks_humanref
import test_benchmarks_mc_bench
import test_benchmarks_ref_l4
import test_benchmarks_refcoco_m
import test_benchmarks_rex_omni
from lmms_data import run_module

from univg_eval.cli import main
from univg_eval.published_rules import PUBLISHED_RULES
from univg_eval.runs.record import RunRecord, load_run

pytest.importorskip("lmms_eval")

TASKS = {
    "mc_bench": "univg_mc_bench",
    "groundingme": "univg_groundingme",
    "ref_l4": "univg_ref_l4",
    "refcoco_m": "univg_refcoco_m",
    "grefcoco": "univg_grefcoco",
    "humanref": "univg_humanref",
    "rex_omni": "univg_rex_omni_visdrone,univg_rex_omni_humanref",
}
RULES = {
    name: rule.name for rule in PUBLISHED_RULES.values() for name in rule.benchmarks
}  # all but refcoco_m


COUNTS = ("n", "excluded", "n_several", "n_no_target")
# MC-Bench's own AP stays below 1 (its annotation 0; no groups in an answer), and a box of the small
# GroundingME leaves its image.
PERFECT = {
    "mc_bench": ("accuracy", "accuracy_iou50", "ap50"),
    "groundingme": ("spatial_acc@0.75", "spatial_acc@0.5_corrected", "rejection_acc@0.5_corrected"),
    "ref_l4": ("ann_level_acc@0.5", "class_level_acc@0.5", "acc@0.9_corrected"),
    "grefcoco": ("precision_f1_1", "precision_f1_1_iou", "n_acc", "n_acc_explicit", "t_acc"),
    "humanref": ("average_recall@0.5", "average_densityf1@0.5", "rejection_recall_corrected"),
    "rex_omni": ("f1@0.5", "f1_mean", "f1_mean_corrected"),
}


def write_releases(folder: Path) -> dict[str, list[str]]:
    """Every release; set → what ``univg prepare`` is given."""
    coco = test_benchmarks_grefcoco.write(folder / "grefcoco")
    return {
        "mc_bench": [test_benchmarks_mc_bench.write_release(folder / "mc")],
        "groundingme": [test_benchmarks_groundingme.write_release(folder / "me")],
        "ref_l4": [test_benchmarks_ref_l4.write(folder / "l4")],
        "refcoco_m": [test_benchmarks_refcoco_m.write_release(folder / "m")],
        "grefcoco": [coco["source"], "--images", coco["images"]],
        "humanref": [test_benchmarks_humanref.write(folder / "humanref")],
        "rex_omni": [test_benchmarks_rex_omni.write(folder / "rex")],
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data root with all seven."""
    folder = tmp_path_factory.mktemp("releases")
    root = tmp_path_factory.mktemp("data")
    for name, arguments in write_releases(folder).items():
        source, *others = map(str, arguments)
        command = ["prepare", name, "--source", source, *others, "--root", str(root), "--json"]
        assert main(command) == 0, name
    return root


@pytest.fixture(scope="module", params=["oracle", "none"])
def records(
    request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, RunRecord]]:
    """Kind of answers, and the record of each set."""
    out = tmp_path_factory.mktemp(request.param)
    done = run_module(
        *("univg_eval", "eval", "--model", "univg_baseline"),
        *("--model_args", f"kind={request.param}", "--tasks", ",".join(TASKS.values())),
        *("--output_path", str(out)),
        data=data,
        cwd=out,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [load_run(path.parent) for path in out.glob("records/*/*/manifest.json")]
    return request.param, {record.benchmark: record for record in found}


def figures(record: RunRecord) -> dict[str, Any]:
    return json.loads(json.dumps(record.manifest.to_dict()["results"]))


def test_every_set_is_evaluated_and_a_perfect_answer_has_everything(records) -> None:
    kind, found = records
    assert found.keys() == TASKS.keys()
    for name, record in found.items():
        results = figures(record)
        published = results.get("published", {})
        assert list(published) == ([RULES[name]] if name in RULES else [])
        if kind == "oracle":
            for task, values in results["tasks"].items():
                shares = {k: v for k, v in values.items() if k not in COUNTS}
                assert set(shares.values()) <= {1.0}, (name, task, values)
            for metric in PERFECT.get(name, ()):
                assert published[RULES[name]][metric] == 1.0, (name, metric)
        rejection = results.get("rejection")
        assert (rejection is None) == (name in ("ref_l4", "refcoco_m"))
        if rejection:
            assert rejection["recall"] == 1.0
            n = sum(not score.excluded for score in record.scores)
            right = rejection["n_no_target"] / n
            assert rejection["precision"] == (1.0 if kind == "oracle" else pytest.approx(right))
