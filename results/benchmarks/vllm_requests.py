"""vLLM's part of `gpu.py`, for the environment that has vLLM; nothing of this project is needed.

    python results/benchmarks/vllm_requests.py FOLDER

FOLDER has ``requests.json``: model, tokens, min_pixels, max_pixels, images (most in a request) and
requests, each a prompt and paths of images. Prints one JSON object as its last line.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image


def main(folder: Path) -> None:
    from vllm import LLM, SamplingParams, __version__

    work = json.loads((folder / "requests.json").read_text(encoding="utf-8"))

    def inputs(requests: list[dict[str, Any]]) -> list[Any]:
        return [
            {
                "prompt": request["prompt"],
                "multi_modal_data": {
                    "image": [Image.open(path).convert("RGB") for path in request["images"]]
                },
            }
            for request in requests
        ]

    started = time.perf_counter()
    engine = LLM(
        model=work["model"],
        max_model_len=work["max_model_len"],
        limit_mm_per_prompt={"image": work["images"]},
        mm_processor_kwargs={"min_pixels": work["min_pixels"], "max_pixels": work["max_pixels"]},
        enable_prefix_caching=False,
        seed=0,
    )
    # Answers of a random model have no end: all have the same length.
    sampling = SamplingParams(temperature=0.0, max_tokens=work["tokens"], ignore_eos=True)
    load = time.perf_counter() - started
    engine.generate(inputs(work["warm_up"]), sampling, use_tqdm=False)
    started, n_tokens = time.perf_counter(), 0
    for output in engine.generate(inputs(work["requests"]), sampling, use_tqdm=False):
        n_tokens += len(output.outputs[0].token_ids)
    ended = time.perf_counter()
    found = {"vllm": __version__, "load_s": load, "wall_s": ended - started, "tokens": n_tokens}
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
