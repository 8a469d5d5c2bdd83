"""How fast, and in how much memory, a file of 1,000,000 responses is scored.

    python results/benchmarks/score_million.py [--n 1000000] [--dialects univg_r1 …] [--json]

Generates a set of n samples and, per dialect, a file of n responses as such models write them
(with a chain of thought for univg_r1, fenced JSON with pixels of the resized input for
qwen2_5_vl; a few unreadable, truncated or out of the image), then runs ``univg score --json
--out …`` as a process of its own and reports wall time, CPU time and memory. The time counts
everything: starting Python, reading the samples, and writing the scores.

The third run is the rule of UniVG-R1 (``--protocol univg-r1``), beside what the released evaluation
does for each sample, written anew here: six patterns over the whole response, one box, one IoU,
four sums a task, in one process. Both start Python, read the same two files, and must agree. The
command also writes each score with its status, and intervals; the released rule does not.

Memory is the peak over time of the sum over the command's processes: as RSS, which counts pages
that forked workers share once a process, and as PSS, which counts them once (Linux only).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from measuring import Cost, alternating, cost_of, median, ratio, write_report

from univg_eval.dialects import get_dialect
from univg_eval.files import write_text_atomically
from univg_eval.samples import MANIFEST_FILE, SAMPLES_FILE, GroundingSample, Target
from univg_eval.scoring import Response, score_samples

BENCHMARK = "score_million"
TASKS = ("common_object", "object_tracking", "region", "group_grounding", "reasoning")
THOUGHT = (
    "the first image shows a person in a red jacket standing near wooden table while second one "
    "contains several similar objects so I compare their shape colour and position to locate it "
    "on left side behind bicycle with background building and trees which matches description"
)
SIZES = ((640, 480), (1280, 720), (500, 375), (1024, 1024), (900, 616))
POLL_SECONDS = 0.25
MEMORY_N = 20_000


def samples(n: int, seed: int) -> Iterator[GroundingSample]:
    """The questions: one target each, two to six images of known size."""
    rng = random.Random(seed)
    for i in range(n):
        task = TASKS[i % len(TASKS)]
        n_images = rng.randint(2, 6)
        image = rng.randrange(n_images)
        sizes = [rng.choice(SIZES) for _ in range(n_images)]
        x1, y1 = rng.randint(0, 600), rng.randint(0, 600)
        box = (x1, y1, x1 + rng.randint(40, 399), y1 + rng.randint(40, 399))
        yield GroundingSample(
            id=f"{BENCHMARK}-{i:07d}",
            benchmark=BENCHMARK,
            task=task,
            split="test",
            images=tuple(f"{BENCHMARK}/images/{i:07d}_{k}.jpg" for k in range(n_images)),
            widths=tuple(width for width, _ in sizes),
            heights=tuple(height for _, height in sizes),
            instruction=f"Recognize and locate this object in the {image + 1}th image.",
            targets=(Target(image, tuple(v / 1000 for v in box)),),
            image_is_given=task != "group_grounding",
            cluster=f"{BENCHMARK}-{i // 4 * 4:07d}",
            source={"row": i},
        )


def response(sample: GroundingSample, dialect_name: str, rng: random.Random) -> str:
    """What a model of that family might say; its box is off by up to 0.08 a side."""
    box = tuple(min(1.0, max(0.0, v + rng.uniform(-0.08, 0.08))) for v in sample.box)
    if not (box[0] < box[2] and box[1] < box[3]):
        box = sample.box
    sizes = list(zip(sample.widths, sample.heights, strict=True))
    written = get_dialect(dialect_name).encode(
        box, image_wh=sizes[sample.target_image], label="object"
    )
    fate = rng.random()
    if dialect_name == "univg_r1":
        thought = " ".join(rng.choices(THOUGHT.split(), k=rng.randint(60, 140)))
        if fate < 0.02:
            return f"<think>{thought}"
        if fate < 0.1:
            thought += f" It may be at ({rng.randint(0, 500)},40),(700,900)."
        answer = written if "<answer>" in written else f"<answer>{written}</answer>"
        return f"<think>{thought}</think> {answer}"
    place = f"It is in image {sample.target_image + 1}.\n" if not sample.image_is_given else ""
    if fate < 0.02:
        return "I am sorry, I cannot see such an object."
    return place + written


def write_set(root: Path, n: int, seed: int) -> None:
    """A prepared benchmark, written row by row: a million samples as objects need gigabytes."""
    folder = root / BENCHMARK
    digest = hashlib.sha256()

    def lines() -> Iterator[str]:
        for sample in samples(n, seed):
            line = json.dumps(sample.to_dict()) + "\n"
            digest.update(line.encode())
            yield line

    write_text_atomically(folder / SAMPLES_FILE, lines())
    # Stands in for the fingerprint, which would need all rows at once; nothing compares it.
    manifest = {"benchmark": BENCHMARK, "n": n, "fingerprint": digest.hexdigest()}
    write_text_atomically(folder / MANIFEST_FILE, [json.dumps(manifest) + "\n"])


def write_responses(path: Path, dialect_name: str, n: int, seed: int) -> None:
    rng = random.Random(f"{seed} {dialect_name}")
    write_text_atomically(
        path,
        (
            json.dumps({"id": sample.id, "response": response(sample, dialect_name, rng)}) + "\n"
            for sample in samples(n, seed)
        ),
    )


def process_tree(pid: int) -> list[int]:
    """`pid` and the processes below it that still run; Linux only."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += [int(child) for child in task.read_text().split()]
            except OSError:
                continue
    return found


def memory_kib(pid: int) -> tuple[int, int]:
    """(RSS, PSS) of a process in KiB, the kernel's "kB"; zeros if it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0, 0
    values = {
        line.split(":")[0]: int(line.split()[1])
        for line in text.splitlines()
        if line.startswith(("Rss:", "Pss:"))
    }
    return values.get("Rss", 0), values.get("Pss", 0)


def measure(
    root: Path, responses: Path, dialect_name: str, n: int, protocol: str = "univg"
) -> dict[str, Any]:
    """Run ``univg score`` on the file and watch it."""
    command = [sys.executable, "-m", "univg_eval", "score", "--benchmark", BENCHMARK]
    command += ["--root", str(root), "--responses", str(responses)]
    command += ["--dialect", dialect_name] if protocol == "univg" else []
    command += ["--protocol", protocol, "--json", "--out", str(root / "scores.jsonl")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak_rss = peak_pss = 0
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak_rss, peak_pss
        while not ended.wait(POLL_SECONDS):
            sums = [memory_kib(pid) for pid in process_tree(process.pid)]
            peak_rss = max(peak_rss, sum(rss for rss, _ in sums))
            peak_pss = max(peak_pss, sum(pss for _, pss in sums))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    output, _ = process.communicate()
    wall = time.perf_counter() - start
    ended.set()
    watcher.join()
    if process.returncode != 0:
        raise SystemExit(f"univg score ended with status {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    result = json.loads(output)
    return {
        "dialect": dialect_name,
        "protocol": protocol,
        "n": n,
        "file_mb": round(responses.stat().st_size / 1e6, 1),
        "wall_s": round(wall, 2),
        "responses_per_s": round(n / wall),
        "cpu_s": round(cpu, 2),
        "cpu_s_per_100k": round(cpu / n * 1e5, 3),
        "peak_rss_sum_mb": round(peak_rss * 1024 / 1e6),
        "peak_pss_sum_mb": round(peak_pss * 1024 / 1e6),
        "statuses": result["statuses"],
        "acc@0.5": round(result["macro"]["acc@0.5"], 4),
    }


INT, DEC = r"(\d+)", r"(\d+\.\d+)"
RELEASED = [
    re.compile(pattern)
    for pattern in (
        rf"\({INT},\s*{INT}\),\s*\({INT},\s*{INT}\)",
        rf"\[{DEC},\s*{DEC},\s*{DEC},\s*{DEC}\]",
        rf"\({DEC},{DEC}\),\({DEC},{DEC}\)",
        rf"\({DEC},\s*{DEC},\s*{DEC},\s*{DEC}\)",
        rf"\[{INT},\s*{INT},\s*{INT},\s*{INT}\]",
        rf"<box>{INT}\s+{INT}\s+{INT}\s+{INT}</box>",
    )
]


def released_box(text: str) -> list[int]:
    """The box that the released MIG-Bench evaluation of UniVG-R1 reads, on 0-1000."""
    for pattern in RELEASED:
        if matches := pattern.findall(text):
            used = matches if len(matches) == 1 else matches[:-1]
            try:
                boxes = [[int(number) for number in match] for match in used]
                return boxes[0]
            except ValueError:
                break
    return [0, 0, 0, 0]


def released_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Of two boxes, as released: no clipping, no check of their order."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    inside = width * height
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return inside / (areas - inside)


def released_scores(samples_file: Path, responses_file: Path) -> float:
    """Mean over the tasks of Acc@0.5, sample by sample."""
    with responses_file.open(encoding="utf-8") as file:
        texts = {row["id"]: row["response"] for row in map(json.loads, file)}
    tasks: dict[str, list[list[float]]] = {}
    with samples_file.open(encoding="utf-8") as file:
        for row in map(json.loads, file):
            true = [1000 * value for value in row["targets"][0]["box"]]
            iou = released_iou(released_box(texts[row["id"]]), true)
            tasks.setdefault(row["task"], []).append([iou >= t for t in (0.3, 0.5, 0.7)] + [iou])
    means = [
        [sum(column) / len(rows) for column in zip(*rows, strict=True)] for rows in tasks.values()
    ]
    return sum(mean[1] for mean in means) / len(means)


def run_released(root: Path, responses: Path) -> tuple[Cost, float]:
    """`released_scores` as a process of its own."""
    files = [str(root / BENCHMARK / SAMPLES_FILE), str(responses)]
    printed: list[str] = []
    cost = cost_of(
        lambda: printed.append(
            subprocess.run(
                [sys.executable, __file__, "--released", *files],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            ).stdout
        )
    )
    return cost, float(printed[0])


def scoring_alone(n: int, seed: int, repeats: int) -> dict[str, Any]:
    """The same two rules in this process, on samples and responses in memory."""
    rows = list(samples(n, seed))
    rng = random.Random(f"{seed} univg_r1")
    texts = [response(row, "univg_r1", rng) for row in rows]
    responses = [Response(text) for text in texts]
    ious: dict[str, list[float]] = {}

    def ours() -> None:
        scores = score_samples(rows, responses, None, protocol="univg-r1")
        ious["univg"] = [score.iou for score in scores]

    def released() -> None:
        ious["released"] = [
            released_iou(released_box(text), [1000 * value for value in row.box])
            for row, text in zip(rows, texts, strict=True)
        ]

    calls = {"univg": partial(cost_of, ours), "released": partial(cost_of, released)}
    costs = alternating(calls, repeats)
    worst = max(abs(a - b) for a, b in zip(ious["univg"], ious["released"], strict=True))
    if worst > 1e-9:
        raise SystemExit(f"the two do not agree: an IoU differs by {worst}")
    return ratio(
        f"`score_samples`, `univg-r1`, {n:,} chains of thought in memory",
        "the released rule, written anew",
        median(costs["univg"]),
        median(costs["released"]),
    )


def against_released(root: Path, responses: Path, n: int, repeats: int) -> dict[str, Any]:
    """Both by turns; their medians as a line of the table."""
    accuracies: dict[str, float] = {}

    def ours() -> Cost:
        run = measure(root, responses, "univg_r1", n, "univg-r1")
        accuracies["univg"] = run["acc@0.5"]
        return Cost(run["cpu_s"], run["wall_s"])

    def released() -> Cost:
        cost, accuracy = run_released(root, responses)
        accuracies["released"] = round(accuracy, 4)
        return cost

    costs = alternating({"univg": ours, "released": released}, repeats)
    if accuracies["univg"] != accuracies["released"]:
        raise SystemExit(f"the two do not agree: Acc@0.5 is {accuracies}")
    return ratio(
        f"`univg score --protocol univg-r1`, {n:,} chains of thought",
        "the released rule as a script",
        median(costs["univg"]),
        median(costs["released"]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dialects", nargs="+", default=["univg_r1", "qwen2_5_vl"])
    parser.add_argument("--repeats", type=int, default=3, help="of the comparison")
    parser.add_argument("--out", type=Path, help="another file than score_million.json")
    parser.add_argument("--released", nargs=2, type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.released:
        print(released_scores(*args.released))
        return
    runs = []
    with tempfile.TemporaryDirectory(prefix="univg-score-") as folder:
        root = Path(folder)
        responses = root / "responses.jsonl"
        write_set(root, args.n, args.seed)
        for name in args.dialects:
            write_responses(responses, name, args.n, args.seed)
            runs.append(measure(root, responses, name, args.n))
            print(", ".join(f"{key} {value}" for key, value in runs[-1].items()), flush=True)
        write_responses(responses, "univg_r1", args.n, args.seed)
        lines = [
            scoring_alone(min(args.n, MEMORY_N), args.seed, args.repeats),
            against_released(root, responses, args.n, args.repeats),
        ]
    settings = {"n": args.n, "seed": args.seed, "repeats": args.repeats}
    write_report("score_million", settings, lines, args.out, runs=runs)


if __name__ == "__main__":
    main()
