"""What is left when a command is killed, and what the same command makes of it when it is repeated.

    python results/reliability/faults.py [CASE …] [--points 10] [--seed 0] [--work DIR]

Each command runs once uninterrupted. Then, for each point, it starts again in a folder of its own,
and gets SIGKILL, SIGTERM or Ctrl-C (to all processes of its terminal) at a random moment; the
moments are spread over its whole time. None of its processes may live on. The same command is then
repeated to its end: all it leaves must equal what the uninterrupted run left, but for dates and
durations.

Writes faults.json beside this file. Exit status 1 if anything differed or lived on.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
from PIL import Image

from univg_eval.dialects import get_dialect
from univg_eval.files import write_text_atomically
from univg_eval.runs.record import environment
from univg_train.configs import config_path

OUT = Path(__file__).with_name("faults.json")
EVAL = (sys.executable, "-m", "univg_eval")
TRAIN = (sys.executable, "-c", "import sys; from univg_train.cli import main; sys.exit(main())")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
SECONDS_TO_END = 60
SECONDS_OF_A_COMMAND = 900
VOLATILE = re.compile(
    r"date|^created$|_s$|time|seconds|runtime|_per_second|started|memory|checksum|samples_per"
    r"|^train_loss$|^num_tokens$"
)
"""Names of values in JSON that two uninterrupted runs do not share either; and one that
TRL counts since the last start alone, in its log."""


@dataclass(frozen=True)
class Case:
    """A command, run in an empty folder, and the files in it that are its results."""

    program: tuple[str, ...]
    arguments: str
    results: tuple[str, ...]


def _train(command: str) -> Case:
    settings = "trainer.output_dir=run trainer.max_steps=8 trainer.save_steps=2 evaluation.every=4"
    return Case(
        TRAIN,
        f"{command} --config CONFIGS/tiny_{command}.yaml {settings}",
        ("run/model/*.safetensors", "run/model/*.json", "run/*.jsonl"),
    )


_MODEL = "--tasks univg_mini --output_path . --model_args pretrained=univg:tiny"
CASES = {
    "prepare": Case(
        EVAL,
        "prepare custom --source INPUTS/many/rows.jsonl --name many --root data",
        ("data/custom_many/*.json*",),
    ),
    "prepare, generated": Case(
        EVAL, "prepare univg_mini --n 12 --seed 7 --root data", ("data/univg_mini*/**/*",)
    ),
    "eval": Case(EVAL, f"eval --model univg --batch_size 8 {_MODEL}", ("records/**/*.json*",)),
    "eval, stock backend": Case(
        EVAL,
        f"eval --model qwen2_vl --batch_size 16 --gen_kwargs max_new_tokens=24 {_MODEL},device=cpu,"
        "device_map=cpu",
        # Its manifest holds the tokens of the requests since the last start alone.
        ("records/**/responses.jsonl", "records/**/scores.jsonl"),
    ),
    "score": Case(
        EVAL,
        "score --benchmark custom_many --responses INPUTS/responses.jsonl --dialect univg_r1 "
        "-o scores.jsonl --processes 2",
        ("scores.jsonl",),
    ),
    "report": Case(EVAL, "report INPUTS/record -o page.html", ("page.html",)),
    "rescore": Case(EVAL, "rescore INPUTS/record --protocol univg-r1 -o again", ("again/**/*",)),
    "cot": Case(
        TRAIN,
        "cot --benchmark univg_mini --chains 1 --concurrency 2 --model teacher --base-url TEACHER "
        "-o cot",
        ("cot/cotsft.json", "cot/chains.jsonl"),
    ),
    "sft": _train("sft"),
    "grpo": _train("grpo"),
    "tiny": Case(TRAIN, "tiny --steps 8 --threads 2 -o tiny", ("tiny/checkpoint/*",)),
}


class Teacher(BaseHTTPRequestHandler):
    """Explains every box well, and the same way each time it is asked."""

    def do_POST(self) -> None:
        """Answer a chat completion."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        parts = body["messages"][0]["content"]
        prompt = next(part["text"] for part in reversed(parts) if part["type"] == "text")
        box = re.search(r"<answer>(.*?)</answer>", prompt)
        image = re.search(r"the object lies in (Image \d+)", prompt)
        end = f" So the object is in {image[1]}." if image else ""
        thing = hashlib.sha256(prompt.encode()).hexdigest()[:8]
        text = (
            f"<think>The question asks for one thing, as plain as a {thing}. Of the candidates in "
            "the scene only one fits every word of the description, while the others differ in "
            f"colour, in shape or in their place.{end}</think><answer>{box and box[1]}</answer>"
        )
        time.sleep(0.05)
        reply = json.dumps(
            {
                "id": "x",
                "object": "chat.completion",
                "model": "teacher",
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "stop",
                        "message": {"role": "assistant", "content": text},
                    }
                ],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):  # who asked was killed
            self.wfile.write(reply)

    def log_message(self, *_: Any) -> None:
        """Stay silent."""


@contextmanager
def teacher() -> Iterator[str]:
    """The address of a running teacher."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Teacher)
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()


N_ROWS = 20_000


def write_inputs(folder: Path, names: list[str]) -> None:
    """What the cases of these names read: benchmarks in folder/data, responses, a record.

    Sets the data root of this process and of those that it starts.
    """
    folder.mkdir(parents=True)
    os.environ |= {"UNIVG_DATA": str(folder / "data"), "HF_HUB_OFFLINE": "1"}

    def univg(arguments: str) -> None:
        subprocess.run([*EVAL, *arguments.split()], check=True, capture_output=True, cwd=folder)

    univg("prepare univg_mini --n 12")
    if {"sft", "grpo"} & set(names):
        univg("prepare photos")
    if {"report", "rescore"} & set(names):
        baseline = "--model univg_baseline --model_args kind=noisy,p=0.5"
        univg(f"eval {baseline} --tasks univg_mini --output_path evaluated")
        (record,) = (folder / "evaluated" / "records").glob("*/univg_mini")
        record.rename(folder / "record")
    if {"prepare", "score"} & set(names):
        _write_many(folder)
        univg("prepare custom --source many/rows.jsonl --name many")


def _write_many(folder: Path) -> None:
    """An own set of many rows, and a file of responses to them."""
    (folder / "many").mkdir()
    for number in range(20):
        Image.new("RGB", (640, 480), (number, 90, 60)).save(folder / "many" / f"{number}.jpg")
    dialect, rng = get_dialect("univg_r1"), random.Random(0)
    rows, responses = [json.dumps({"space": "norm1"})], []
    for number in range(N_ROWS):
        x, y = rng.uniform(0, 0.5), rng.uniform(0, 0.5)
        box = [x, y, x + 0.25, y + 0.25]
        row = {"images": f"{number % 20}.jpg", "instruction": f"Find thing {number}.", "box": box}
        rows.append(json.dumps(row))
        text = "thinking of it " * rng.randint(1, 60) + dialect.encode(box, image_wh=(640, 480))
        responses.append(json.dumps({"id": f"custom_many-{number:05d}", "response": text}))
    (folder / "many" / "rows.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "responses.jsonl").write_text("\n".join(responses) + "\n")


@dataclass
class Run:
    """A command that was started in a folder."""

    process: subprocess.Popen[bytes]
    log: Path

    def family(self) -> list[psutil.Process]:
        """The process and what it started, as far as it is alive."""
        try:
            parent = psutil.Process(self.process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def start(command: list[str], folder: Path) -> Run:
    """Run a command in a session of its own; what it prints goes into folder.log."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder.with_suffix(".log")
    with log.open("ab") as file:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    return Run(process, log)


def to_its_end(command: list[str], folder: Path) -> tuple[float, str]:
    """Run a command; returns its seconds, and what it said if it did not succeed."""
    began = time.perf_counter()
    run = start(command, folder)
    status = run.process.wait(SECONDS_OF_A_COMMAND)
    said = run.log.read_text(errors="replace").strip()[-2000:] if status else ""
    return time.perf_counter() - began, said


def killed(command: list[str], folder: Path, how: signal.Signals, after: float) -> dict[str, Any]:
    """Start a command and end it after so many seconds: its status, and which processes live on."""
    run = start(command, folder)
    try:
        status = run.process.wait(after)
        return {"status": status, "alive": [], "ended_before": True}
    except subprocess.TimeoutExpired:
        family = run.family()
    if how is signal.SIGINT:
        os.killpg(run.process.pid, how)
    else:
        run.process.send_signal(how)
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.process.wait(SECONDS_TO_END)
    _, alive = psutil.wait_procs(family[1:], timeout=SECONDS_TO_END)
    names = [" ".join(process.cmdline())[:200] for process in alive]
    with contextlib.suppress(ProcessLookupError):
        os.killpg(run.process.pid, signal.SIGKILL)
    status = run.process.wait()
    said = run.log.read_text(errors="replace")
    return {"status": status, "alive": names, "traceback": "Traceback" in said}


def results(folder: Path, patterns: tuple[str, ...]) -> dict[str, str]:
    """Content of the result files by path, without what every run has of its own."""
    found = {}
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern)}):
        if path.is_file() and "checksums" not in path.name:
            name = re.sub(r"\d{8}_\d{6}(_\d+)?", "TIME", str(path.relative_to(folder)))
            try:
                found[name] = _content(path)
            except ValueError as error:  # cut off
                found[name] = f"{error}: {path.read_text(errors='replace')}"
    return found


def _content(path: Path) -> str:
    if path.suffix == ".json":
        return json.dumps(_lasting(json.loads(path.read_text())), sort_keys=True)
    if path.suffix == ".jsonl":
        lines = path.read_text().splitlines()
        return "\n".join(json.dumps(_lasting(json.loads(line)), sort_keys=True) for line in lines)
    if path.suffix == ".html":
        return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "TIME", path.read_text())
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _lasting(v) for k, v in value.items() if not VOLATILE.search(k)}
    if isinstance(value, list):
        return [_lasting(item) for item in value if not _is_totals(item)]
    return value


def _is_totals(item: Any) -> bool:
    """The last line of a trainer's log; one that finds all steps taken does not write it."""
    return isinstance(item, dict) and "train_runtime" in item


def difference(one: dict[str, str], other: dict[str, str]) -> str:
    """The first thing that is not the same in two sets of results; empty if all is."""
    for name in sorted({*one, *other}):
        a, b = one.get(name), other.get(name)
        if a is None or b is None:
            return f"{name} is only in the {'repeated' if a is None else 'uninterrupted'} run"
        if a != b:
            at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), -1)
            return (
                f"{name}: {a[max(0, at - 60) : at + 60]!r}, then {b[max(0, at - 60) : at + 60]!r}"
            )
    return ""


def command_of(case: Case, inputs: Path, teacher_url: str) -> list[str]:
    """The words of a command that reads `inputs` (see `write_inputs`)."""
    places = {"INPUTS": inputs, "TEACHER": teacher_url, "CONFIGS": config_path("tiny_sft").parent}
    words = case.arguments
    for name, place in places.items():
        words = words.replace(name, str(place))
    return [*case.program, *words.split()]


def attempt(name: str, folder: Path, command: list[str], args: Any) -> dict[str, Any]:
    """One row of the table: a command at all its points."""
    case, rng = CASES[name], random.Random(f"{args.seed} {name}")
    seconds, error = to_its_end(command, folder / "uninterrupted")
    if error:
        raise SystemExit(f"{shlex.join(command)}: {error}")
    expected = results(folder / "uninterrupted", case.results)
    if not expected:
        raise SystemExit(f"{name}: no results are found by {case.results}")
    points: list[dict[str, Any]] = []
    longest = seconds  # so far: the machine may have become slower
    for number, how in zip(range(args.points), itertools.cycle(SIGNALS), strict=False):
        after = longest * (number + rng.random()) / args.points
        place = folder / f"point-{number}"
        end = killed(command, place, how, after)
        while end.get("ended_before"):  # it was quicker this time
            shutil.rmtree(place)
            after *= 0.8
            end = killed(command, place, how, after)
        left = sorted(path.name for path in place.rglob("*.part"))
        again, error = to_its_end(command, place)
        longest = max(longest, again)
        differs = difference(expected, results(place, case.results)) or (
            "" if "exists; choose another folder" in error else error  # it was whole before
        )
        points.append(
            {"signal": how.name, "after_s": round(after, 2), **end, "parts_left": len(left)}
            | {"again_s": round(again, 2), "differs": differs}
        )
        sys.stderr.write(f"{name}: {json.dumps(points[-1])}\n")
        if not differs:
            shutil.rmtree(place)
    return {
        "command": f"{'univg' if case.program is EVAL else 'univg-train'} {case.arguments}",
        "seconds": round(seconds, 2),
        "files": len(expected),
        "points": points,
    }


def named_cases(parser: argparse.ArgumentParser, names: list[str]) -> list[str]:
    """These names of cases, or all; the parser refuses one that is unknown."""
    if unknown := [name for name in names if name not in CASES]:
        parser.error(f"{unknown[0]!r} is no case; expected one of {', '.join(CASES)}")
    return names or list(CASES)


def main() -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--points", type=int, default=10, help="moments at which each is killed")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--work", type=Path, metavar="DIR", help="an empty folder to keep")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE", help="the results")
    args = parser.parse_args()
    names = named_cases(parser, args.cases)
    # A command that was started in the background ignores Ctrl-C, and so does what it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as temporary, teacher() as address:
        work = (args.work or Path(temporary)).absolute()
        inputs = work / "inputs"
        write_inputs(inputs, names)
        made = {}
        for number, name in enumerate(names):
            command = command_of(CASES[name], inputs, address)
            made[name] = attempt(name, work / str(number), command, args) | {
                "date": datetime.now(UTC).date().isoformat(),
                **environment(),
            }
            # Another process may have measured another command meanwhile.
            known = json.loads(args.out.read_text(encoding="utf-8")) if args.out.is_file() else {}
            text = json.dumps(known | {name: made[name]}, indent=1)
            write_text_atomically(args.out, [text + "\n"])
    points = [point for row in made.values() for point in row["points"]]
    return int(any(point["differs"] or point["alive"] for point in points))


if __name__ == "__main__":
    sys.exit(main())
