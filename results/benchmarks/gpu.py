"""How fast univg, lmms-eval's qwen2_vl, vLLM and a plain loop are on a GPU; see ``gpu.sh``.

The checkpoint has the shape of Qwen2-VL-2B and random weights, so nothing is downloaded; every
response has the same number of tokens. Inputs are like MIG-Bench: two to six photograph-like images
of usual sizes a question, at most 401,408 pixels each as the model sees them.

Tokens a second are new tokens over the whole time from the samples to the responses. Beside them
stands what the memory's bandwidth allows: at each step all weights of the language model and the
keys and values of the batch are read once. The bandwidth is measured by copying. The device's busy
share is nvidia-smi's, sampled while each engine answers. At the end `gpu_training.py` trains the
checkpoint for a few steps, and its memory and time stand beside what the dry run states.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from checkpoints import MAX_PIXELS, MIN_PIXELS, write_checkpoint
from engines import Workload, compare, summary
from measuring import Cost, median, ratio, share, write_report
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from univg_eval.dialects import get_dialect
from univg_eval.prompts import build_prompt
from univg_eval.samples import GroundingSample, Target, write_benchmark

SIZES = ((640, 480), (1280, 720), (500, 375), (1024, 1024), (900, 616))
SHAPES: dict[str, dict[str, Any]] = {
    "2b": {
        "vocabulary": 151936,
        "text": {
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
        },
        "vision": {
            "depth": 32,
            "embed_dim": 1280,
            "num_heads": 16,
            "hidden_size": 1536,
            "mlp_ratio": 4,
        },
        "dtype": torch.bfloat16,
    },
    "tiny": {
        "vocabulary": 512,
        "text": {
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
        },
        "vision": {
            "depth": 2,
            "embed_dim": 128,
            "num_heads": 2,
            "hidden_size": 128,
            "mlp_ratio": 4,
        },
        "dtype": torch.float32,
    },
}


def random_checkpoint(folder: Path, shape: str, tokens: int, device: str) -> str:
    """A Qwen2-VL with random weights whose responses all have `tokens` tokens."""
    return write_checkpoint(
        folder, "qwen2_vl", **SHAPES[shape], device=device, min_new_tokens=tokens
    )


def write_samples(root: Path, n: int) -> list[GroundingSample]:
    """A benchmark of `n` questions about photograph-like images."""
    rng, noise = random.Random(0), np.random.default_rng(0)
    (root / "custom" / "images").mkdir(parents=True)
    samples = []
    for number in range(n):
        sizes = [rng.choice(SIZES) for _ in range(rng.randint(2, 6))]
        names = [f"custom/images/{number}_{k}.jpg" for k in range(len(sizes))]
        for name, (width, height) in zip(names, sizes, strict=True):
            small = Image.fromarray(noise.integers(0, 255, (12, 16, 3), dtype=np.uint8))
            small.resize((width, height), Image.Resampling.BICUBIC).save(root / name, quality=90)
        samples.append(
            GroundingSample(
                id=f"custom-{number:05d}",
                benchmark="custom",
                task="custom",
                split="test",
                images=tuple(names),
                widths=tuple(width for width, _ in sizes),
                heights=tuple(height for _, height in sizes),
                instruction="Recognize and locate the red cup on the left of the second image.",
                targets=(Target(1, (0.1, 0.2, 0.4, 0.6)),),
                image_is_given=True,
                cluster=f"custom-{number:05d}",
            )
        )
    write_benchmark(samples, benchmark="custom", root=root)
    return samples


def bandwidth(device: str) -> float:
    """Bytes a second that a copy on the device reads and writes."""
    n = 2**30 if device != "cpu" else 2**28
    source = torch.ones(n, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    wait = torch.cuda.synchronize if device != "cpu" else lambda: None
    target.copy_(source)
    wait()
    started = time.perf_counter()
    for _ in range(10):
        target.copy_(source)
    wait()
    return 20 * n / (time.perf_counter() - started)


def bytes_a_step(folder: str, context: float, batch: int) -> float:
    """What one decoding step of a batch has to read: weights, keys and values."""
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, dtype=config.dtype)
    size = model.dtype.itemsize
    # The output matrix is that of the embeddings, which is read whole.
    weights = sum(p.numel() for n, p in model.named_parameters() if "visual" not in n) * size
    text = config.text_config
    width = text.hidden_size // text.num_attention_heads
    cache = 2 * text.num_hidden_layers * text.num_key_value_heads * width * size
    return float(weights + batch * context * cache)


class BusyShare:
    """nvidia-smi's utilisation of the first GPU, sampled in the background."""

    def __init__(self, device: str) -> None:
        self.reason: str | None = None
        self._seen: list[tuple[float, float]] = []
        self._process: subprocess.Popen[str] | None = None
        if device == "cpu":
            self.reason = "no GPU is used"
            return
        command = ["nvidia-smi", "-i", "0", "--query-gpu=utilization.gpu", "-lms", "200"]
        command += ["--format=csv,noheader,nounits"]
        try:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        except OSError as error:
            self.reason = f"nvidia-smi cannot be started: {error}"
            return
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip().isdigit():
                self._seen.append((time.perf_counter(), float(line)))

    def between(self, spans: Sequence[tuple[float, float]]) -> float | None:
        """Mean in percent over these times of ``perf_counter``."""
        values = [v for at, v in self._seen if any(a <= at <= b for a, b in spans)]
        return round(sum(values) / len(values), 1) if values else None

    def end(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


def prompts(work: Workload, processor: Any, root: Path) -> tuple[list[dict[str, Any]], float]:
    """Text and image files of each request, and the mean number of tokens of a prompt."""
    dialect, requests, tokens = get_dialect("qwen2_vl"), [], 0
    for sample in work.samples:
        content: list[dict[str, str]] = [{"type": "image"} for _ in sample.images]
        content.append({"type": "text", "text": build_prompt(sample, dialect, "direct")})
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        paths = [str(root / name) for name in sample.images]
        images = [Image.open(path) for path in paths]
        tokens += len(processor(text=[text], images=images)["input_ids"][0])
        requests.append({"prompt": text, "images": paths})
    return requests, tokens / len(requests)


def run_vllm(python: str, work: Workload, requests: Sequence[Any], folder: Path) -> dict[str, Any]:
    """`vllm_requests.py` in its environment; ``skipped`` says why there is no figure."""
    if subprocess.run([python, "-c", "import vllm"], capture_output=True, check=False).returncode:
        return {"skipped": f"vLLM is not installed for {Path(python).name} (VLLM_PYTHON)"}
    settings = {
        "model": work.folder,
        "tokens": work.max_new_tokens,
        "max_model_len": 8192,
        "min_pixels": work.min_pixels,
        "max_pixels": work.max_pixels,
        "images": max(len(request["images"]) for request in requests),
        "warm_up": requests[:2],
        "requests": list(requests),
    }
    (folder / "requests.json").write_text(json.dumps(settings), encoding="utf-8")
    script = Path(__file__).with_name("vllm_requests.py")
    done = subprocess.run(
        [python, str(script), str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return {"skipped": f"vLLM ended with status {done.returncode}, see its messages above"}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def run_training(model: str, root: Path, device: str) -> dict[str, Any]:
    """`gpu_training.py` in a process of its own; why it failed, if it did."""
    script = Path(__file__).with_name("gpu_training.py")
    done = subprocess.run(
        [sys.executable, str(script), model, str(root), device], stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        return {"failed": f"exit status {done.returncode}; its messages stand above"}
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=sorted(SHAPES), default="2b")
    parser.add_argument("--device", default="cuda:0", help="cpu: to see whether the script runs")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64, help="of each response")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--vllm-python", default="python", help="Python that has vLLM")
    parser.add_argument("--out", type=Path, help="another file than gpu.json")
    args = parser.parse_args()
    if args.device != "cpu" and not torch.cuda.is_available():
        parser.error(
            "PyTorch finds no GPU; to try the script: --device cpu --shape tiny --out FILE"
        )
    if args.device == "cpu" and args.out is None:
        parser.error("gpu.json holds figures of a GPU; with --device cpu give another file: --out")
    with tempfile.TemporaryDirectory(prefix="univg-gpu-") as temporary:
        root = Path(temporary)
        os.environ["UNIVG_DATA"] = str(root)
        samples = write_samples(root, args.samples)
        folder = random_checkpoint(root / "model", args.shape, args.tokens, args.device)
        work = Workload(
            folder, "univg_custom", samples, None, MIN_PIXELS, MAX_PIXELS, args.tokens, args.device
        )
        requests, prompt_tokens = prompts(work, AutoProcessor.from_pretrained(folder), root)
        busy = BusyShare(args.device)
        found = compare(work, tuple(args.batch_sizes), args.repeats)
        passes = {name: engine["passes"] for name, engine in found.items()}
        lines, figures = summary(found, len(samples))
        torch.cuda.empty_cache()
        started = time.perf_counter()
        vllm = run_vllm(args.vllm_python, work, requests, root)
        vllm_span = (started, time.perf_counter())
        training = run_training(folder, root, args.device)
        speed = bandwidth(args.device)
        n_tokens = args.tokens * len(samples)
        walls = {n: median([one.generation for one in p]).wall_s for n, p in passes.items()}
        batches = {name: engine["batch_size"] for name, engine in found.items()}
        if "skipped" in vllm:
            print(f"vLLM: skipped: {vllm['skipped']}")
        else:
            walls["vllm"], batches["vllm"] = vllm["wall_s"], len(samples)
            ours = Cost(None, walls["univg"])
            lines.append(ratio("`--model univg`", "vLLM", ours, Cost(None, walls["vllm"])))
        limits = {}
        for name, wall in walls.items():
            step = bytes_a_step(folder, prompt_tokens + args.tokens / 2, batches[name])
            least = n_tokens / batches[name] * step / speed
            limits[name] = {
                "tokens_per_s": round(n_tokens / wall, 1),
                "bandwidth_limit_tokens_per_s": round(n_tokens / least, 1),
                "device_busy_percent": busy.between(
                    [vllm_span]
                    if name == "vllm"
                    else [(p.ended - p.generation.wall_s, p.ended) for p in passes[name]]
                ),
            }
            what = f"{name}: {limits[name]['tokens_per_s']:,.0f} tokens a second"
            peer = f"the bandwidth allows {limits[name]['bandwidth_limit_tokens_per_s']:,.0f}"
            lines.append(share(what, peer, least, Cost(None, wall)))
        busy.end()
    settings = {
        "shape": args.shape,
        "device": args.device,
        "samples": len(samples),
        "tokens_a_response": args.tokens,
        "tokens_a_prompt": round(prompt_tokens),
        "repeats": args.repeats,
    }
    write_report(
        "gpu",
        settings,
        lines,
        args.out,
        bandwidth_gb_per_s=round(speed / 1e9, 1),
        speeds=limits,
        busy_not_known=busy.reason,
        vllm=vllm,
        training=training,
        engines=figures,
    )


if __name__ == "__main__":
    main()
