"""photos through the stock command line: made on first use, answered by the known baselines."""

from __future__ import annotations

import lmms_data
import pytest

pytest.importorskip("lmms_eval")
pytest.importorskip("skimage")

from univg_eval.benchmarks.synthetic.photos import TASKS
from univg_eval.samples import load_manifest


def test_the_oracle_scores_one_in_every_task_of_a_set_made_on_first_use(tmp_path):
    run = lmms_data.run_module(
        "lmms_eval",
        *("--model", "univg_baseline", "--model_args", "kind=oracle"),
        *("--tasks", "univg_photos", "--include_path", str(lmms_data.TASKS)),
        *("--output_path", str(tmp_path / "out")),
        data=tmp_path / "data",
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert load_manifest("photos", tmp_path / "data")["n"] == 116
    results = lmms_data.read_results(tmp_path / "out")
    for task in TASKS:
        found = results["results"][f"univg_photos_{task}"]
        wanted = {"acc@0.5,none", "acc@0.9,none", "miou,none", "answered,none"}
        if task == "which_photo":
            wanted |= {"image_acc,none", "joint@0.5,none"}
        assert {name: found[name] for name in wanted} == dict.fromkeys(wanted, 1.0), task
        assert results["n-samples"][f"univg_photos_{task}"]["effective"] == (
            16 if task in ("photos", "large") else 14
        )
