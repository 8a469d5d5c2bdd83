"""Thirty mistakes of a newcomer; `python tests/mistakes.py` writes docs/mistakes.md from them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import loguru
import pytest

from univg_eval.benchmarks.synthetic import mini
from univg_eval.cli import main as univg
from univg_eval.samples import load_samples, write_benchmark
from univg_train.cli import main as univg_train

REPO = Path(__file__).resolve().parent.parent
PAGE = REPO / "docs" / "mistakes.md"
HEAD = """\
# Thirty mistakes

What a newcomer types, on a machine without GPU, network or scipy, and the one message. It comes
before a model is loaded, with status 2. `…` stands for the rest of a right call. What goes wrong
without a message: [troubleshooting](troubleshooting.md).

| typed | message |
|---|---|
"""
REST_OF_A_RIGHT_CALL = {
    "eval": "--model univg_baseline --model_args kind=full --tasks univg_mini",
    "score": "--benchmark univg_mini --responses r.jsonl --dialect norm1",
}
"""What `…` stands for; an option behind it wins."""
MISTAKES = (
    "univg evla",
    "univg-train gprp",
    "univg tasks --jsno",
    "univg eval --tasks univg_mini",
    "univg eval … --limt 5",
    "univg eval … --model qwen2vl",
    "univg eval … --model_args DIR",
    "univg eval … --model qwen2_vl --model_args pretrained=/nowhere",
    "univg eval … --model qwen2_vl --model_args pretrained=Qwen/Qwen3",
    "univg eval … --model qwen2_vl --model_args pretrained=univg:tiny",
    "univg eval … --tasks mig_bench",
    "univg eval … --tasks univg_mini_dif",
    "univg eval … --tasks univg_lisa_val",
    "univg eval … --dialect foo",
    "UNIVG_DIALECT=qwen2.5vl univg eval …",
    "univg eval … --prompt thinking",
    "univg eval … --protocol univg_r2",
    "univg eval … --controls blnk",
    "univg audit mig",
    "univg prepare mini --source x",
    "univg score --benchmark univg_mini --responses r.jsonl",
    "univg score … --responses nowhere.jsonl",
    "univg score … --responses text.jsonl",
    "univg score … --responses twice.jsonl",
    "univg score … --responses mig.jsonl",
    "univg score … --responses mig.jsonl --benchmark mig_bench",
    "univg leaderboard out",
    "univg compare runs/tiny runs/tiny_cot",
    "univg failures runs/tiny/scores.jsonl",
    "univg-train grpo --config tiny_grpo",
)


def make_folder(folder: Path) -> Path:
    """The files that the mistakes name, `univg_mini`, and `mig_bench` without its first row."""
    data = folder / "data"
    mini.ensure(data, n=2)
    sample = replace(load_samples("univg_mini", root=data)[0], benchmark="mig_bench")
    write_benchmark(
        [replace(sample, id="mig_bench-00001")],
        benchmark="mig_bench",
        root=data,
        manifest_extra={"skipped": [{"item": "mig_bench-00000"}]},
    )
    line = json.dumps({"id": "univg_mini-diff-00000", "response": ""}) + "\n"
    for name, text in (
        ("r", line),
        ("twice", line * 2),
        ("mig", line.replace("univg_mini-diff", "mig_bench")),
        ("text", "The box is (1,2),(3,4)\n"),
    ):
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    (folder / "runs").symlink_to(REPO / "results" / "runs")
    return folder


def printed(typed: str, folder: Path) -> tuple[object, str, str]:
    """Exit status, standard output and standard error of a command typed in `folder`.

    There is no GPU and no network there; `compare` finds no scipy.
    """
    words = shlex.split(typed)
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("UNIVG_")]:
            patch.delenv(name)
        patch.setenv("UNIVG_DATA", str(folder / "data"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr("torch.cuda.is_available", lambda: False)
        patch.chdir(folder)
        while "=" in words[0]:
            patch.setenv(*words.pop(0).split("=", 1))
        program, command, *arguments = words
        if command == "compare":
            for name in ("scipy.stats", *(n for n in sys.modules if n.split(".")[0] == "scipy")):
                patch.setitem(sys.modules, name, None)
        if arguments and arguments[0] == "…":
            arguments[:1] = REST_OF_A_RIGHT_CALL[command].split()
        elif "…" in arguments:
            raise ValueError(f"{typed}: … stands behind the command")
        main = {"univg": univg, "univg-train": univg_train}[program]
        # That of an evaluation of another test writes to a stream that is closed.
        loguru.logger.remove()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status: object = main([command, *arguments])
            except SystemExit as stopped:
                status = stopped.code
    return status, out.getvalue(), err.getvalue().replace(str(folder / "data"), "~/.cache/univg")


def row(typed: str, said: str) -> str:
    """A row of the page; of what argparse says, without its usage."""
    message = said.splitlines()[-1]
    mark = "``" if "`" in message else "`"
    end = " " if message.endswith("`") else ""  # else the marks would run into one
    return f"| `{typed}` | {mark}{end}{message}{end}{mark} |\n"


def write_page() -> None:
    """Write docs/mistakes.md."""
    with tempfile.TemporaryDirectory() as name:
        folder = make_folder(Path(name).resolve())
        rows = [row(typed, printed(typed, folder)[2]) for typed in MISTAKES]
    PAGE.write_text(HEAD + "".join(rows), encoding="utf-8")


if __name__ == "__main__":
    write_page()
