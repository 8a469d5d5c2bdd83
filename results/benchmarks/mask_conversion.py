"""How fast, and in how much memory, masks and polygons become boxes.

    python results/benchmarks/mask_conversion.py [--n 10000] [--json]

Generates two releases of n expressions each, as `univg prepare` gets them: LLM-Seg40K (four
samples an image of 640x480, 500x375 or 1920x1080 pixels, each with a compressed COCO mask) and
ReasonSeg (two texts an image of 1024x768, 1280x853 or 2048x1365 pixels, one to three polygons of
20 to 120 points, one in ten to be ignored). Objects are blobs with bays and a slightly ragged edge;
images are a few flat ones, linked under many names, since only their headers are read.

Each is then converted twice, in a process of its own: once by the reader alone, from opening the
release to the last sample, and once by ``prepare_release``, with its journal and the files that it
writes. The reader's peer is what scripts commonly do, in a process of its own too: paint each mask
(pycocotools' ``decode``, OpenCV's ``fillPoly``) and take the extremes of its pixels. Peak memory is
the process's maximum resident set, Python and its libraries included.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Cost, alternating, median, ratio, write_report

from univg_eval.benchmarks.readers.common.release import Release

PHOTO_SIZES = ((640, 480), (500, 375), (1920, 1080))
REASONSEG_SIZES = ((1024, 768), (1280, 853), (2048, 1365))
PEERS = (
    ("llmseg_full", "LLM-Seg40K's masks to boxes", "`decode` of pycocotools, extremes"),
    ("lisa_full", "ReasonSeg's polygons to boxes", "`fillPoly` of OpenCV, extremes"),
)
QUESTIONS_AN_IMAGE = 4
TEXTS_AN_IMAGE = 2


def blob(rng: random.Random, image_wh: tuple[int, int], n_points: int) -> list[list[float]]:
    """The corners of a roughly round shape within the image: bays, and a slightly ragged edge."""
    width, height = image_wh
    radius = rng.uniform(0.05, 0.3) * min(width, height)
    x = rng.uniform(1.3 * radius, width - 1.3 * radius)
    y = rng.uniform(1.3 * radius, height - 1.3 * radius)
    waves = [(k, rng.uniform(0, 0.06), rng.uniform(0, 2 * math.pi)) for k in range(2, 6)]
    points = []
    for i in range(n_points):
        angle = 2 * math.pi * i / n_points
        swell = sum(size * math.sin(k * angle + phase) for k, size, phase in waves)
        r = radius * (1 + swell + rng.uniform(-0.02, 0.02))
        points.append([round(x + r * math.cos(angle), 2), round(y + r * math.sin(angle), 2)])
    return points


def write_images(folder: Path, names: list[str], sizes: list[tuple[int, int]]) -> None:
    """One real JPEG a size, and links to them under the names."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    originals = {}
    for width, height in sorted(set(sizes)):
        originals[width, height] = folder / f".{width}x{height}.jpg"
        Image.new("RGB", (width, height), (90, 120, 60)).save(originals[width, height])
    for name, size in zip(names, sizes, strict=True):
        (folder / name).symlink_to(originals[size].name)


def write_llmseg(folder: Path, n: int, seed: int) -> float:
    """A split of LLM-Seg40K; returns the mean length of a mask's text."""
    import cv2
    from pycocotools import mask as coco

    rng = random.Random(f"llmseg {seed}")
    names, sizes, split, length = [], [], {}, 0
    for i in range(math.ceil(n / QUESTIONS_AN_IMAGE)):
        name, size = f"{i:012d}.jpg", rng.choice(PHOTO_SIZES)
        pairs: list[dict[str, Any]] = []
        for k in range(min(QUESTIONS_AN_IMAGE, n - i * QUESTIONS_AN_IMAGE)):
            canvas = np.zeros(size[::-1], dtype=np.uint8)
            for _ in range(rng.randint(1, 2)):
                points = np.array(blob(rng, size, rng.randint(100, 600)), dtype=np.int32)
                cv2.fillPoly(canvas, [points], 1)
            counts = coco.encode(np.asfortranarray(canvas))["counts"].decode()
            length += len(counts)
            rle = {"size": list(size[::-1]), "counts": counts}
            pairs.append({"question": f"Which one is it, {k}?", "answer": "This.", "rle_seg": rle})
        split[name] = {"from_dataset": "coco", "qa_pairs": pairs}
        names.append(name)
        sizes.append(size)
    write_images(folder / "images" / "train2017", names, sizes)
    (folder / "test.json").write_text(json.dumps(split))
    return length / n


def write_reasonseg(folder: Path, n: int, seed: int) -> float:
    """A split of ReasonSeg; returns the mean number of points an image."""
    rng = random.Random(f"reasonseg {seed}")
    names, sizes, n_points = [], [], 0
    (folder / "test").mkdir(parents=True)
    for i in range(math.ceil(n / TEXTS_AN_IMAGE)):
        size = rng.choice(REASONSEG_SIZES)
        shapes = [
            {
                "label": "ignore" if k and rng.random() < 0.1 else "target",
                "points": blob(rng, size, rng.randint(20, 120)),
            }
            for k in range(rng.randint(1, 3))
        ]
        n_points += sum(len(shape["points"]) for shape in shapes)
        texts = [f"Where is it, {k}?" for k in range(min(TEXTS_AN_IMAGE, n - i * TEXTS_AN_IMAGE))]
        annotation = {"text": texts, "is_sentence": True, "shapes": shapes}
        (folder / "test" / f"{i:05d}.json").write_text(json.dumps(annotation))
        names.append(f"{i:05d}.jpg")
        sizes.append(size)
    write_images(folder / "test", names, sizes)
    return n_points / len(names)


def open_release(name: str, folder: Path) -> Release:
    from univg_eval.benchmarks.readers.lisa import open_lisa_full
    from univg_eval.benchmarks.readers.llmseg import open_llmseg_full

    return open_llmseg_full(folder) if name == "llmseg_full" else open_lisa_full(folder)


def extremes(mask: Any) -> list[float]:
    """The smallest box around the painted pixels, on 0-1."""
    height, width = mask.shape
    ys, xs = np.nonzero(mask)
    if not len(xs):  # all of it lies in a part to be ignored
        return []
    left, top, right, bottom = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
    return [left / width, top / height, right / width, bottom / height]


def paint_llmseg(folder: Path) -> list[list[float]]:
    """Boxes of a split by whole painted masks."""
    from pycocotools import mask as coco

    split = json.loads((folder / "test.json").read_text())
    return [
        extremes(coco.decode(pair["rle_seg"])) for row in split.values() for pair in row["qa_pairs"]
    ]


def paint_reasonseg(folder: Path) -> list[list[float]]:
    """Boxes of a split by whole painted polygons; the parts to be ignored are taken out."""
    import cv2
    from PIL import Image

    boxes = []
    for path in sorted((folder / "test").glob("*.json")):
        annotation = json.loads(path.read_text())
        with Image.open(path.with_suffix(".jpg")) as image:
            width, height = image.size
        mask = np.zeros((height, width), dtype=np.uint8)
        for value, label in ((1, "target"), (0, "ignore")):
            for shape in annotation["shapes"]:
                if shape["label"] == label:
                    cv2.fillPoly(mask, [np.array(shape["points"], dtype=np.int32)], value)
        boxes += [extremes(mask)] * len(annotation["text"])
    return boxes


def convert(name: str, folder: Path, how: str) -> dict[str, Any]:
    """Convert a release in this process; `how` is ``reader``, ``prepare`` or ``painted``."""
    from univg_eval.benchmarks.preparing.preparation import prepare_release

    start = time.perf_counter()
    if how == "painted":
        n = len(paint_llmseg(folder) if name == "llmseg_full" else paint_reasonseg(folder))
        return measured(n, time.perf_counter() - start)
    release = open_release(name, folder)
    if how == "reader":
        n = sum(len(item.convert()) for item in release.items)
    else:
        with tempfile.TemporaryDirectory(prefix="univg-masks-root-") as root:
            n = prepare_release(release, root=root).manifest["n"]
    return measured(n, time.perf_counter() - start)


def measured(n: int, wall: float) -> dict[str, Any]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "n": n,
        "wall_s": round(wall, 2),
        "expressions_per_s": round(n / wall),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_rss_mb": round(peak / 1e6),
    }


def measure(name: str, folder: Path, how: str) -> dict[str, Any]:
    """`convert` in a process of its own."""
    command = [sys.executable, __file__, "--convert", name, str(folder), how]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {"benchmark": name, "how": how, **json.loads(result.stdout)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3, help="of reader and peer")
    parser.add_argument("--out", type=Path, help="another file than mask_conversion.json")
    parser.add_argument("--convert", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.convert:
        name, folder, how = args.convert
        print(json.dumps(convert(name, Path(folder), how)))
        return
    runs: list[dict[str, Any]] = []
    lines = []

    def run(name: str, how: str) -> Cost:
        runs.append(measure(name, root / name, how))
        print(", ".join(f"{key} {value}" for key, value in runs[-1].items()), flush=True)
        return Cost(runs[-1]["cpu_s"], runs[-1]["wall_s"])

    with tempfile.TemporaryDirectory(prefix="univg-masks-") as temporary:
        root = Path(temporary)
        sizes = {
            "characters_a_mask": round(write_llmseg(root / "llmseg_full", args.n, args.seed)),
            "points_an_image": round(write_reasonseg(root / "lisa_full", args.n, args.seed)),
            "llmseg_file_mb": round((root / "llmseg_full/test.json").stat().st_size / 1e6, 1),
        }
        for name, what, peer in PEERS:
            calls = {how: partial(run, name, how) for how in ("reader", "painted")}
            costs = alternating(calls, args.repeats)
            run(name, "prepare")
            ours, painted = median(costs["reader"]), median(costs["painted"])
            lines.append(ratio(f"{what}, {args.n:,} samples", peer, ours, painted))
    settings = {"n": args.n, "seed": args.seed, "repeats": args.repeats}
    write_report("mask_conversion", settings, lines, args.out, sizes=sizes, runs=runs)


if __name__ == "__main__":
    main()
