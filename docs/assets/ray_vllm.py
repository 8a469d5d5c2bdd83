"""Responses by Ray Data LLM and vLLM on all machines of a Ray cluster, for ``univg score``.

python ray_vllm.py Qwen/Qwen3-VL-8B-Instruct univg_mini qwen3_vl responses.jsonl --replicas 8
univg score --benchmark univg_mini --dialect qwen3_vl --responses responses.jsonl

Every machine reads the data root (UNIVG_DATA). The same command goes on where it was stopped.
"""

import argparse
import json
from pathlib import Path

import ray
from ray.data.llm import build_processor, vLLMEngineProcessorConfig
from transformers import AutoProcessor

from univg_eval import GroundingSample, get_dialect, load_samples
from univg_eval.files import Journal
from univg_eval.images.reading import open_images
from univg_eval.models.generation import prompt_text
from univg_eval.prompts import build_prompt, default_prompt_style

parser = argparse.ArgumentParser()
for name in ("model", "benchmark", "dialect", "responses"):
    parser.add_argument(name)
parser.add_argument("--replicas", type=int, default=1, help="copies of the model")
parser.add_argument("--tokens", type=int, default=512, help="new tokens of a response")
parser.add_argument("--engine", type=json.loads, default={}, help="vLLM's arguments as JSON")
parser.add_argument("--place", type=json.loads, help='of a copy, such as {"CPU": 1}; else a GPU')
args = parser.parse_args()
chat, dialect = AutoProcessor.from_pretrained(args.model), get_dialect(args.dialect)
style, tokens = default_prompt_style(args.dialect), args.tokens


def ask(row: dict) -> dict:
    """The prompt of --model univg, its images, and greedy generation."""
    sample = GroundingSample.from_dict(json.loads(row["sample"]))
    question = {"type": "text", "text": build_prompt(sample, dialect, style)}
    turn = {"role": "user", "content": [{"type": "image"}] * len(sample.images) + [question]}
    return {
        "prompt": prompt_text(chat, [turn]),
        "multimodal_data": {"image": open_images(sample)},
        "sampling_params": {"temperature": 0.0, "max_tokens": tokens},
    }


config = vLLMEngineProcessorConfig(
    model_source=args.model,
    engine_kwargs=args.engine,
    concurrency=args.replicas,
    batch_size=64,
    chat_template_stage=False,
    log_engine_metrics=False,  # these need ray[serve]
    placement_group_config=args.place and {"bundle_per_worker": args.place},
)
generate = build_processor(
    config, ask, lambda row: {"id": row["id"], "response": row["generated_text"]}
)
with Journal(Path(args.responses)) as journal:
    done = {json.loads(line)["id"] for _, line in journal.lines()}
    rows = [
        {"id": sample.id, "sample": json.dumps(sample.to_dict())}
        for sample in load_samples(args.benchmark)
        if sample.id not in done
    ]
    if rows:
        for row in generate(ray.data.from_items(rows)).iter_rows():
            journal.append({"id": row["id"], "response": row["response"]})
