"""How fast the reference backend answers, against lmms-eval's own and against a plain loop.

    python results/benchmarks/engines.py [--per-task 10] [--repeats 3]

Three ways to get the responses of one checkpoint to the same samples of univg_mini:

- ``univg``: the reference backend, ``--model univg``;
- ``stock``: lmms-eval's ``qwen2_vl`` with the same limits of images;
- ``loop``: one sample after the other with transformers alone (open the images, processor,
  generate, decode), as released evaluation scripts do it.

Each is first tried once at every batch size (the loop has one), and the one with the fewest CPU
seconds (on a GPU: of wall time) is kept. Then all three take turns, every other round in reverse
order. Counted is what lies between the samples and the responses, ``generate_until``; loading the
model and lmms-eval's work before and after have figures of their own. All are in one process, with
torch's own number of threads. The time outside ``generate`` is wall time: the reference backend
opens images while the model runs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measuring import Cost, alternating, cost_of, cpu_seconds, median, ratio, share, write_report
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.generation.utils import GenerationMixin

from univg_eval.benchmarks.synthetic.mini import DEFAULT_N, DEFAULT_SEED
from univg_eval.dialects import get_dialect
from univg_eval.images.reading import load_reference
from univg_eval.lmms.demo import demo_data
from univg_eval.lmms.run import LoadedModel, evaluate, task_manager
from univg_eval.lmms.watch import quiet as without_logs
from univg_eval.models import TINY, model_folder
from univg_eval.prompts import build_prompt
from univg_eval.samples import GroundingSample, data_root, load_samples

BATCH_SIZES = (1, 4, 8, 16, 32)
TINY_PIXELS = 28224  # of an image of the shipped model: it takes one size alone
NOTHING = Cost(0.0, 0.0)


@dataclass
class Timed:
    """One pass over the samples.

    Attributes:
        responses: by the sample's id.
        generation: from the samples to the responses.
        model_wall_s: of it, within ``generate``.
        around: what lmms-eval does before and after.
        ended: on the clock of ``perf_counter``.
    """

    responses: dict[str, str] = field(default_factory=dict)
    generation: Cost = NOTHING
    model_wall_s: float = 0.0
    around: Cost = NOTHING
    ended: float = 0.0


class ModelClock:
    """Wall time within ``generate`` of transformers."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        original = GenerationMixin.generate

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - started

        GenerationMixin.generate = timed
        try:
            yield
        finally:
            GenerationMixin.generate = original


@dataclass(frozen=True)
class Workload:
    """What is asked of which checkpoint.

    Attributes:
        folder: of the checkpoint.
        task: of lmms-eval.
        samples: that the loop answers: those of the task.
        limit: samples of each task.
        min_pixels, max_pixels: of an image.
        max_new_tokens: of a response.
        device: of torch.
    """

    folder: str
    task: str
    samples: list[GroundingSample]
    limit: int | None
    min_pixels: int
    max_pixels: int
    max_new_tokens: int
    device: str = "cpu"


def backend_args(name: str, work: Workload) -> str:
    """model_args of a backend of lmms-eval."""
    args = f"pretrained={work.folder},device={work.device}"
    args += f",min_pixels={work.min_pixels},max_pixels={work.max_pixels}"
    return args + (f",device_map={work.device}" if name == "qwen2_vl" else "")


def run_backend(loaded: LoadedModel, name: str, work: Workload, manager: Any) -> Timed:
    """One evaluation by a backend that is loaded."""
    timed, clock, kind = Timed(), ModelClock(), type(loaded.lm)
    original = kind.generate_until

    def generate_until(*args: Any) -> Any:
        output: list[Any] = []
        timed.generation = cost_of(lambda: output.extend(original(*args)))
        timed.ended = time.perf_counter()
        return output

    kind.generate_until = generate_until
    try:
        with clock.running(), quiet():
            cpu, wall = cpu_seconds(), time.perf_counter()
            evaluation = evaluate(
                name,
                backend_args(name, work),
                [work.task],
                loaded=loaded,
                limit=work.limit,
                manager=manager,
                gen_kwargs=f"max_new_tokens={work.max_new_tokens}",
            )
            cpu, wall = cpu_seconds() - cpu, time.perf_counter() - wall
    finally:
        kind.generate_until = original
    timed.model_wall_s = clock.seconds
    timed.around = Cost(cpu - timed.generation.cpu_s, wall - timed.generation.wall_s)
    for rows in evaluation.results["samples"].values():
        for row in rows:
            timed.responses[row["doc"]["id"]] = row["resps"][0][0]
    return timed


def run_loop(model: Any, processor: Any, work: Workload) -> Timed:
    """One sample after the other, with transformers alone."""
    timed, clock, dialect = Timed(), ModelClock(), get_dialect("qwen2_vl")

    def loop() -> None:
        for sample in work.samples:
            images = [open_plainly(sample, position) for position in range(len(sample.images))]
            content: list[dict[str, str]] = [{"type": "image"} for _ in images]
            content.append({"type": "text", "text": build_prompt(sample, dialect, "direct")})
            prompt = processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
            )
            inputs = processor(text=[prompt], images=images, return_tensors="pt").to(model.device)
            with torch.no_grad():
                output = model.generate(
                    **inputs, max_new_tokens=work.max_new_tokens, do_sample=False
                )
            new = output[:, inputs["input_ids"].shape[1] :]
            (timed.responses[sample.id],) = processor.batch_decode(new, skip_special_tokens=True)

    with clock.running():
        timed.generation = cost_of(loop)
    timed.ended = time.perf_counter()
    timed.model_wall_s = clock.seconds
    return timed


def open_plainly(sample: GroundingSample, position: int) -> Image.Image:
    """An image of a sample; frames of videos by this project's reader."""
    reference = sample.images[position]
    if "#" in reference:
        return load_reference(reference)
    return Image.open(data_root() / reference).convert("RGB")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the bars and logs of lmms-eval."""
    with without_logs(), contextlib.redirect_stderr(io.StringIO()):
        yield


def load_loop(work: Workload) -> tuple[Any, Any]:
    """Model and processor for `run_loop`."""
    model = AutoModelForImageTextToText.from_pretrained(work.folder, dtype="auto")
    processor = AutoProcessor.from_pretrained(
        work.folder, min_pixels=work.min_pixels, max_pixels=work.max_pixels
    )
    return model.to(work.device).eval(), processor


def compare(work: Workload, batch_sizes: tuple[int, ...], repeats: int) -> dict[str, Any]:
    """Try the batch sizes, then let the engines take turns.

    Returns:
        By engine: load, batch_size, tried, passes.
    """
    engines = ("univg", "stock", "loop")
    manager = task_manager()
    on_cpu = work.device == "cpu"

    def by_kind(cost: Cost) -> float:
        return cost.cpu_s if on_cpu else cost.wall_s

    calls: dict[str, Callable[[int], Timed]] = {}
    found: dict[str, dict[str, Any]] = {name: {} for name in engines}
    with contextlib.ExitStack() as stack:
        for name in engines:
            if name == "loop":
                parts: list[Any] = []
                load = cost_of(lambda parts=parts: parts.extend(load_loop(work)))
                calls[name] = lambda _, parts=parts: run_loop(*parts, work)
            else:
                backend = {"stock": "qwen2_vl"}.get(name, name)
                models: list[LoadedModel] = []
                args = backend_args(backend, work)
                with quiet():
                    load = cost_of(
                        lambda models=models, backend=backend, args=args: models.append(
                            LoadedModel(backend, args)
                        )
                    )
                stack.enter_context(models[0])
                calls[name] = partial(_at_batch, models[0], backend, work, manager)
            found[name]["load"] = asdict(load)
        for name, call in calls.items():
            sizes = (1,) if name == "loop" else batch_sizes
            call(sizes[-1])  # the first pass of a process reads files and fills caches
            tried = {size: call(size).generation for size in sizes} if len(sizes) > 1 else {}
            best = min(sizes, key=lambda size: by_kind(tried[size]) if tried else size)
            found[name] |= {"batch_size": best, "tried": {k: asdict(v) for k, v in tried.items()}}
            print(f"{name}: batch size {best} of {sizes}", flush=True)
        passes: dict[str, list[Timed]] = {name: [] for name in engines}

        def keep(name: str) -> Cost:
            passes[name].append(calls[name](found[name]["batch_size"]))
            return passes[name][-1].generation

        alternating({name: partial(keep, name) for name in engines}, repeats)
    for name in engines:
        found[name]["passes"] = passes[name]
    return found


def _at_batch(loaded: LoadedModel, backend: str, work: Workload, manager: Any, size: int) -> Timed:
    lm: Any = loaded.lm
    if backend == "univg":
        lm.generator.batch_size = size
    else:
        lm.batch_size_per_gpu = size
    return run_backend(loaded, backend, work, manager)


def summary(found: dict[str, Any], n: int) -> tuple[list[Any], dict[str, Any]]:
    """Lines of the table, and the figures behind them."""
    costs = {name: median([one.generation for one in e["passes"]]) for name, e in found.items()}
    ours = f"`--model univg`, {n} samples, batch {found['univg']['batch_size']}"
    lines = [
        ratio(
            ours,
            f"lmms-eval's `qwen2_vl` at its best batch, {found['stock']['batch_size']}",
            costs["univg"],
            costs["stock"],
        ),
        ratio(ours, "a loop of transformers, batch 1", costs["univg"], costs["loop"]),
    ]
    figures: dict[str, Any] = {}
    responses: dict[str, dict[str, str]] = {}
    for name, engine in found.items():
        passes: list[Timed] = engine.pop("passes")
        outside = sorted(one.generation.wall_s - one.model_wall_s for one in passes)
        middle = outside[len(outside) // 2]
        what = {"univg": "`univg`", "stock": "`qwen2_vl`", "loop": "the loop"}[name]
        lines.append(share(f"{what}: outside `generate`", "its own time", middle, costs[name]))
        figures[name] = {
            **engine,
            "generation": [asdict(one.generation) for one in passes],
            "model_wall_s": [round(one.model_wall_s, 3) for one in passes],
            "lmms_eval_around": asdict(median([one.around for one in passes])),
        }
        responses[name] = passes[0].responses
    for name in responses:
        same = [responses["univg"][key] == text for key, text in responses[name].items()]
        figures[name]["responses_as_univg"] = f"{sum(same)} of {len(same)}"
    return lines, figures


def mini_work(per_task: int) -> Workload:
    """The shipped tiny model and the first samples of each task of univg_mini."""
    counts: dict[str, int] = {}
    samples = []
    for sample in load_samples("univg_mini"):
        counts[sample.task] = counts.get(sample.task, 0) + 1
        if counts[sample.task] <= per_task:
            samples.append(sample)
    folder = str(model_folder(TINY))
    return Workload(folder, "univg_mini", samples, per_task, TINY_PIXELS, TINY_PIXELS, 512)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--per-task", type=int, default=10, help="samples of each of 15 tasks")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=list(BATCH_SIZES))
    parser.add_argument("--out", type=Path, help="another file than engines.json")
    args = parser.parse_args()
    with demo_data(DEFAULT_N, DEFAULT_SEED, lambda *_: None):
        work = mini_work(args.per_task)
        found = compare(work, tuple(args.batch_sizes), args.repeats)
    lines, figures = summary(found, len(work.samples))
    settings = {
        "samples": len(work.samples),
        "repeats": args.repeats,
        "threads": torch.get_num_threads(),
    }
    write_report("engines", settings, lines, args.out, engines=figures)


if __name__ == "__main__":
    main()
