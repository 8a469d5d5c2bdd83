"""How long the page about runs takes for many samples, how large it is, and how fast it answers.

Makes a benchmark of photograph-like images in a temporary folder and three runs with long
responses, writes the page, and opens it in Chromium where there is one::

    python results/benchmarks/report_page.py --samples 5000
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from univg_eval.dialects import get_dialect
from univg_eval.report.run_data import collect
from univg_eval.report.run_page import write_run_page
from univg_eval.runs.record import RunRecord, make_record, response_line, unknown_environment
from univg_eval.samples import GroundingSample, Target, fingerprint, write_benchmark
from univg_eval.scoring import Response, aggregate, score_samples

BENCHMARK = "many"
BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")
TASKS = 10
IMAGES_PER_SAMPLE = 2
IMAGE_WH = (640, 480)
SETTINGS = {
    "dialect": "norm1000",
    "prompt": "direct",
    "protocol": "univg",
    "control": "none",
    "media": "images",
}
WORDS = "the red cup on the left of the second image stands behind a book near the window"


def photograph(generator: np.random.Generator) -> Image.Image:
    """Smooth colours, edges and noise: compresses about as a photograph does."""
    small = generator.integers(0, 255, size=(12, 16, 3), dtype=np.uint8)
    smooth = Image.fromarray(small).resize(IMAGE_WH, Image.Resampling.BICUBIC)
    pixels = np.asarray(smooth).astype(np.int16)
    for _ in range(8):
        x, y = generator.integers(0, 500), generator.integers(0, 360)
        w, h = generator.integers(30, 140, size=2)
        pixels[y : y + h, x : x + w] = generator.integers(0, 255, size=3)
    pixels += generator.integers(-12, 12, size=pixels.shape, dtype=np.int16)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def make_benchmark(root: Path, n: int) -> list[GroundingSample]:
    """As many distinct images as samples: each shares one with the next."""
    generator = np.random.default_rng(0)
    folder = root / BENCHMARK / "images"
    folder.mkdir(parents=True)
    for number in range(n):
        photograph(generator).save(folder / f"{number}.jpg", quality=90)
    samples = []
    for number in range(n):
        x, y = generator.uniform(0, 0.6, size=2)
        w, h = generator.uniform(0.1, 0.4, size=2)
        numbers = [(number + step) % n for step in range(IMAGES_PER_SAMPLE)]
        samples.append(
            GroundingSample(
                id=f"{BENCHMARK}-{number:05d}",
                benchmark=BENCHMARK,
                task=f"task_{number % TASKS}",
                split="test",
                images=tuple(f"{BENCHMARK}/images/{i}.jpg" for i in numbers),
                widths=(IMAGE_WH[0],) * IMAGES_PER_SAMPLE,
                heights=(IMAGE_WH[1],) * IMAGES_PER_SAMPLE,
                instruction="Where in the first image is " + WORDS + "?",
                targets=(Target(0, (float(x), float(y), float(x + w), float(y + h))),),
                image_is_given=True,
                cluster=f"{BENCHMARK}-{number:05d}",
            )
        )
    write_benchmark(samples, benchmark=BENCHMARK, root=root)
    return samples


def make_run(name: str, samples: Sequence[GroundingSample], seed: int) -> RunRecord:
    """Right boxes with noise, wrong ones, none; before each 1,500 characters of thinking."""
    generator = np.random.default_rng(seed)
    dialect = get_dialect("norm1000")
    responses = []
    for sample in samples:
        noise = generator.normal(0, generator.choice([5, 60, 400]), size=4)
        x1, y1, x2, y2 = (round(1000 * v + e) for v, e in zip(sample.box, noise, strict=True))
        thinking = " ".join(generator.choice(WORDS.split(), size=320))
        answer = f"({x1},{y1}),({x2},{y2})" if generator.random() > 0.05 else "I cannot find it."
        responses.append(Response(f"<think>{thinking}</think><answer>{answer}</answer>"))
    scores = score_samples(samples, responses, dialect)
    settings: dict[str, object] = {name: [None, "none"] for name in ("min_pixels", "max_pixels")}
    settings |= {name: [value, "given"] for name, value in SETTINGS.items()}
    dataset = {
        "benchmark": BENCHMARK,
        "prepared_benchmark": BENCHMARK,
        "control": "none",
        "media": "images",
        "fingerprint": fingerprint(samples),
        "n": len(samples),
        "left_out": 0,
        "skipped": 0,
        "revision": None,
    }
    return make_record(
        name,
        manifest={
            "model": {"id": name, "backend": "none", "args": None, "config_sha256": None},
            "settings": settings,
            "prompt_sha256": "0" * 64,
            "generation": {},
            "dataset": dataset,
            "n": len(samples),
            "complete": True,
            "excluded": 0,
            "results": aggregate(scores),
            "wall_time_s": None,
            **unknown_environment(),
        },
        responses=[
            response_line(BENCHMARK, sample, response)
            for sample, response in zip(samples, responses, strict=True)
        ],
        scores=scores,
    )


# Time from the change of a field to the next frame that the browser paints.
MEASURE = """async ([field, value]) => {
  const element = document.getElementById(field);
  const start = performance.now();
  element.value = value;
  element.dispatchEvent(new Event('input', { bubbles: true }));
  const before = document.getElementById('count').textContent;
  await new Promise((done) => {
    const seen = new MutationObserver(() => { seen.disconnect(); requestAnimationFrame(done); });
    seen.observe(document.getElementById('cards'), { childList: true });
  });
  return [performance.now() - start, document.getElementById('count').textContent];
}"""


def measure_browser(page: Path) -> None:
    """Print how long the page takes to open, to filter and to search."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        print("no Chromium found: nothing measured in a browser")
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        window = browser.new_page(viewport={"width": 1280, "height": 900})
        start = time.perf_counter()
        window.goto(page.as_uri(), timeout=300_000)
        window.wait_for_selector("#cards li")
        print(f"open: {time.perf_counter() - start:.2f} s")
        for name, field, value in (
            ("one task", "f-task", "task_3"),
            ("all tasks", "f-task", ""),
            ("runs disagree", "f-verdict", "differ"),
            ("order by spread", "f-sort", "spread"),
            ("first search (with 120 ms of waiting for more text)", "f-query", "window"),
            ("second search (the same)", "f-query", "window book"),
        ):
            took, count = window.evaluate(MEASURE, [field, value])
            print(f"{name}: {took:.0f} ms ({count})")
        window.fill("#f-query", "")
        window.wait_for_timeout(500)
        start = time.perf_counter()
        window.click("#next-page")
        print(f"next page: {1000 * (time.perf_counter() - start):.0f} ms")
        browser.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=5000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="univg-report-") as folder:
        root = Path(folder)
        samples = make_benchmark(root, args.samples)
        runs = [make_run(f"run-{seed}", samples, seed) for seed in range(3)]
        start = time.perf_counter()
        data = collect(runs, root=root)
        read = time.perf_counter() - start
        print(f"read and classify {len(runs)} runs of {len(samples):,} samples: {read:.1f} s")
        start = time.perf_counter()
        page = write_run_page(data, root / "report.html", root=root)
        print(f"write the page: {time.perf_counter() - start:.1f} s")
        print(f"{page.n_images:,} images, {page.n_bytes / 2**20:.1f} MiB", flush=True)
        measure_browser(page.path)


if __name__ == "__main__":
    sys.exit(main())
