"""What is seen and measured while a backend answers: progress, tokens, cost, an early stop."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lmms_data
import pytest
from fake_service import Server, serving
from PIL import Image

from univg_eval.runs.failed_requests import split_failed_request
from univg_eval.runs.record import RunRecord, load_run
from univg_eval.samples import load_samples

pytest.importorskip("lmms_eval")
pytest.importorskip("torch")
pytest.importorskip("openai")

import torch
from lmms_eval.api.instance import GenerationResult, TokenCounts
from lmms_eval.api.model import lmms

from univg_eval.lmms.generation import Generation, measured_generation
from univg_eval.lmms.record import write_records
from univg_eval.lmms.run import evaluate
from univg_eval.models import TINY, model_folder

N = 5
SERVICES = ("openai", "async_openai")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Samples with instructions of their own, so that a server can tell them apart."""
    # In multiples of 28 pixels, so that a backend that rounds to them changes nothing.
    sizes: dict[str, Any] = {"widths": (56, 112), "heights": (56, 112)}
    lmms_data.put(
        tmp_path,
        [
            lmms_data.make_sample(
                "custom", "group", i, instruction=f"Find thing number {i}.", **sizes
            )
            for i in range(N)
        ],
    )
    for name, side in (("a", 56), ("b", 112)):
        Image.new("RGB", (side, side), "red").save(tmp_path / "custom" / f"{name}.png")
    lmms_data.set_environment(monkeypatch, tmp_path, UNIVG_DIALECT="norm1")
    return tmp_path


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as found:
        yield found


def recorded(
    root: Path,
    backend: str,
    model_args: str,
    tasks: tuple[str, ...] = ("univg_custom",),
    **options: Any,
) -> RunRecord:
    evaluation = evaluate(backend, model_args, tasks, **options)
    (path,) = write_records(
        evaluation.results, root / "records", model_args=model_args, measured=evaluation.measured
    )
    return load_run(path)


def args_of(server: Server) -> str:
    return f"model=some,base_url={server.url},api_key=none,max_retries=1"


# A server


def number_of(prompt: str) -> int:
    return int(prompt.partition("number ")[2][0])


def usage_of(prompt: str) -> dict[str, Any]:
    """100, 101, … prompt tokens, 1, 4, 9, … answer tokens, and a cost but for the first."""
    number = number_of(prompt)
    cost = {"cost": 0.25 * number} if number else {}
    return {"prompt_tokens": 100 + number, "completion_tokens": (number + 1) ** 2} | cost


@pytest.mark.parametrize("backend", SERVICES)
def test_the_record_sums_what_a_server_names(backend: str, root: Path, server: Server) -> None:
    server.answer = lambda _: "[0.1, 0.2, 0.5, 0.9]"
    server.usage = usage_of
    usage = recorded(root, backend, args_of(server)).manifest.usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.answer_tokens, usage.counted) == (510, 55, N)
    assert usage.cost == pytest.approx(0.25 * (1 + 2 + 3 + 4))
    assert usage.generation_s and usage.samples_per_s and usage.tokens_per_s
    assert usage.samples_per_s * usage.generation_s == pytest.approx(N)
    assert usage.tokens_per_s * usage.generation_s == pytest.approx(55)


@pytest.mark.parametrize("backend", SERVICES)
def test_a_key_that_a_server_repeats_is_written_nowhere(
    backend: str, root: Path, server: Server
) -> None:
    server.refuses_key = True
    model_args = args_of(server).replace("api_key=none", "api_key=swordfish-4711")
    evaluation = evaluate(backend, model_args, ("univg_custom",))
    (path,) = write_records(
        evaluation.results, root / "records", model_args=model_args, measured=evaluation.measured
    )
    record = load_run(path)
    assert record.failed_requests == N
    assert all("provided: [hidden]" in error for error in record.errors.values())
    assert "swordfish" not in (path / "manifest.json").read_text(encoding="utf-8")
    logged = json.dumps(evaluation.results["samples"], default=str)
    assert "provided: [hidden]" in logged and "swordfish" not in logged


def test_a_key_in_an_answer_is_written_nowhere(
    root: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "swordfish-4711")
    server.answer = lambda _: "You are swordfish-4711: [0.1, 0.2, 0.5, 0.9]"
    record = recorded(root, "openai", args_of(server))
    assert {row["response"] for row in record.responses} == {
        "You are [hidden]: [0.1, 0.2, 0.5, 0.9]"
    }
    assert {score.status for score in record.scores} == {"ok"}


@pytest.mark.parametrize("backend", SERVICES)
def test_what_a_server_does_not_name_is_null(backend: str, root: Path, server: Server) -> None:
    server.answer = lambda _: "a box of seven words is not counted"
    server.usage = lambda _: None
    usage = recorded(root, backend, args_of(server)).manifest.usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.answer_tokens, usage.counted) == (None, None, 0)
    assert usage.cost is None and usage.tokens_per_s is None
    assert usage.samples_per_s


@pytest.mark.parametrize("backend", SERVICES)
def test_a_response_is_seen_when_it_comes(backend: str, root: Path, server: Server) -> None:
    answers = iter(
        ["[0.1, 0.2, 0.5, 0.9]", "I cannot tell.", "<think>hmm", None, "There are none."]
    )
    server.answer = lambda _: next(answers)
    server.usage = usage_of
    states: list[Generation] = []
    evaluate(
        backend,
        args_of(server) + (",num_concurrent=1" if backend == "openai" else ",num_cpus=1"),
        ["univg_custom"],
        on_progress=lambda state: states.append(dataclasses.replace(state)),
    )
    seen = {state.seen: (state.answered, state.truncated) for state in states}
    assert seen == {0: (0, 0), 1: (1, 0), 2: (1, 0), 3: (1, 1), 4: (1, 1), 5: (2, 1)}
    assert (states[0].done, states[-1].done, states[-1].total) == (0, N, N)
    assert states[-1].answer_tokens == 55


# Models on transformers


@pytest.mark.parametrize("batch_size", [1, 4])
def test_tokens_of_the_shipped_model_are_those_that_it_generates(
    batch_size: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UNIVG_DIALECT")
    folder, states = model_folder(TINY), []
    record = recorded(
        root,
        "qwen2_vl",
        f"pretrained={folder},device=cpu,device_map=cpu,min_pixels=784,max_pixels=50176",
        batch_size=batch_size,
        on_progress=lambda state: states.append(dataclasses.replace(state)),
    )
    images = [Image.open(root / "custom" / name) for name in ("a.png", "b.png")]
    tokens = [alone(folder, images, str(line["prompt"])) for line in record.responses]
    usage = record.manifest.usage
    assert usage is not None and usage.counted == N
    assert usage.prompt_tokens == sum(prompt for prompt, _ in tokens)
    assert usage.answer_tokens == sum(answer for _, answer in tokens)
    assert usage.peak_memory in ("cuda", "resident") and usage.peak_memory_bytes
    assert usage.cost is None
    assert (states[-1].seen, states[-1].answer_tokens) == (N, usage.answer_tokens)


def alone(folder: str, images: list[Image.Image], prompt: str) -> tuple[int, int]:
    """Prompt and answer tokens of one request to the checkpoint, without lmms-eval."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder, min_pixels=784, max_pixels=50176)
    content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": prompt}]
    turns = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": content},
    ]
    text = processor.apply_chat_template(turns, add_generation_prompt=True)
    inputs = processor(text=[text], images=images, return_tensors="pt")
    model = AutoModelForImageTextToText.from_pretrained(folder)
    (row,) = model.generate(**inputs, do_sample=False, max_new_tokens=512)
    n = inputs["input_ids"].shape[1]
    assert row[-1] == processor.tokenizer.eos_token_id
    return n, len(row) - n


class Backend(lmms):
    """Generates by a given function, a batch of two requests at a time."""

    def __init__(self, generate: Callable[[Any], None], outputs: list[Any]) -> None:
        super().__init__()
        self.run, self.outputs = generate, outputs

    def generate_until(self, requests: Any) -> list[Any]:
        self.run(requests)
        return self.outputs

    def generate_until_multi_round(self, requests: Any) -> list[Any]:
        raise AssertionError

    def loglikelihood(self, requests: Any) -> list[Any]:
        raise AssertionError


def requests_of(root: Path) -> list[Any]:
    task = lmms_data.load_tasks("univg_custom")["univg_custom"]
    return lmms_data.build(task)


END, PAD = 2, 0
LEFT = [[0, 0, 5, 6], [7, 8, 9, 5]]  # a prompt of two tokens, padded, and one of four
MASK = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
# Name, arguments, what the model returns beyond or in place of them, (prompt, answer) of each.
BATCHES: list[tuple[str, dict[str, Any], list[list[int]], Any, list[tuple[int, int] | None]]] = [
    ("padded after the end", {}, [[3, END, PAD, PAD], [3, 3, 3, END]], {}, [(2, 2), (4, 4)]),
    ("the pad is the end", {"pad_token_id": END}, [[3, END, END], [3, 3, END]], {},
     [(2, 2), (4, 3)]),
    ("cut before the end", {}, [[3, 3, 3], [3, 3, 3]], {}, [(2, 3), (4, 3)]),
    ("stopped by a rule", {}, [[3, PAD, PAD], [3, 3, 3]], {}, [(2, 1), (4, 3)]),
    ("several end marks", {"eos_token_id": [END, 9]}, [[3, 9, PAD], [3, 3, END]], {},
     [(2, 2), (4, 3)]),
    ("embeddings", {"input_ids": None, "inputs_embeds": torch.zeros(2, 4, 8)},
     [[3, END], [END, PAD]], {}, [(2, 2), (4, 1)]),
    ("encoder and decoder", {}, [[1, 3, END], [1, END, PAD]], {"is_encoder_decoder": True},
     [(2, 2), (4, 1)]),
    ("several answers a prompt", {}, [[3, END]] * 4, {}, [None, None]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "new", "config", "expected"),
    [row[1:] for row in BATCHES],
    ids=[row[0] for row in BATCHES],
)
def test_tokens_of_a_batch_are_counted_without_padding(
    changes: dict[str, Any],
    new: list[list[int]],
    config: dict[str, Any],
    expected: list[tuple[int, int] | None],
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers import GenerationMixin

    given = {
        "input_ids": torch.tensor(LEFT),
        "attention_mask": MASK,
        "eos_token_id": END,
        "pad_token_id": PAD,
    } | changes
    in_front = given["input_ids"] is not None and not config and len(new) == len(LEFT)
    rows = [[*before, *row] for before, row in zip(LEFT, new, strict=True)] if in_front else new

    class Model(GenerationMixin):
        pass

    monkeypatch.setattr(GenerationMixin, "generate", lambda self, **_: torch.tensor(rows))
    model = Model()
    model.config = SimpleNamespace(**config)
    model.generation_config = SimpleNamespace()

    def run(requests: list[Any]) -> None:
        for request in requests:
            request.args[2](request.doc)  # the images
        model.generate(**given)

    requests = requests_of(root)[:2]
    with measured_generation(Backend):
        results = Backend(run, ["one", "two"]).generate_until(requests)
    counts = [
        (r.token_counts.input_tokens, r.token_counts.output_tokens)
        if isinstance(r, GenerationResult)
        else None
        for r in results
    ]
    assert counts == expected


def test_generations_that_belong_to_no_single_request_are_not_counted(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import GenerationMixin

    monkeypatch.setattr(GenerationMixin, "generate", lambda self, ids: torch.tensor([[5, 3, END]]))
    model = type("Model", (GenerationMixin,), {})()
    model.config = model.generation_config = SimpleNamespace()

    def thrice(requests: list[Any]) -> None:
        for _ in range(3):
            model.generate(torch.tensor([[5]]))

    told = GenerationResult("two", TokenCounts(input_tokens=7, output_tokens=2))
    with measured_generation(Backend):
        first, second = Backend(thrice, ["one", told]).generate_until(requests_of(root)[:2])
    assert first == "one"
    assert second.token_counts == told.token_counts  # what the backend itself says


class Engine:
    """In the place of vLLM's: asked in two ways, of which one goes through the other."""

    __module__ = "vllm.entrypoints.llm"

    def chat(self, messages: list[Any], **_: Any) -> list[Any]:
        return self.generate([{"prompt": turn[0]["content"][-1]["text"]} for turn in messages])

    def generate(self, prompts: list[Any], *_: Any) -> list[Any]:
        numbers = [number_of(one["prompt"]) for one in prompts]
        return [
            SimpleNamespace(
                prompt_token_ids=[7] * (10 + number),
                outputs=[SimpleNamespace(text=TEXTS[number], token_ids=[3] * (number + 1))],
            )
            for number in numbers
        ]


TEXTS = ("[0.1, 0.2, 0.5, 0.9]", "I cannot tell.", "<think>hmm", "no idea", "There are none.")


@pytest.mark.parametrize("way", ["chat", "generate"])
def test_vllm_says_its_tokens_and_its_responses_batch_by_batch(way: str, root: Path) -> None:
    backend = Backend(lambda _: None, [])
    backend.client = Engine()

    def run(requests: list[Any]) -> None:
        for start in range(0, len(requests), 2):
            batch = requests[start : start + 2]
            for request in reversed(batch):  # images are opened by several threads
                request.args[2](request.doc)
            if way == "chat":
                texts = [[{"content": [{"type": "text", "text": r.args[0]}]}] for r in batch]
                found = backend.client.chat(messages=texts)
            else:
                found = backend.client.generate(
                    [{"prompt": f"<|im_start|>{r.args[0]}"} for r in batch]
                )
            backend.outputs += [one.outputs[0].text for one in found]

    backend.run = run
    states: list[Generation] = []
    with measured_generation(Backend, lambda s: states.append(dataclasses.replace(s))):
        results = backend.generate_until(requests_of(root))
    counts = [(r.token_counts.input_tokens, r.token_counts.output_tokens) for r in results]
    assert counts == [(10 + i, i + 1) for i in range(N)]
    assert tuple(r.text for r in results) == TEXTS
    last = states[-1]
    assert (last.seen, last.answered, last.truncated, last.answer_tokens) == (N, 2, 1, 15)


@pytest.mark.parametrize("way", ["chat", "generate"])
def test_a_prompt_that_vllm_refuses_is_one_failed_request(way: str, root: Path) -> None:
    class Strict(Engine):
        def generate(self, prompts: list[Any], parameters: list[int]) -> list[Any]:
            assert [number_of(one["prompt"]) for one in prompts] == parameters
            if 3 in parameters:
                raise ValueError("the prompt (length 9) is longer than 5")
            return super().generate(prompts)

        def chat(self, messages: list[Any], parameters: list[int]) -> list[Any]:
            prompts = [{"prompt": turn[0]["content"][-1]["text"]} for turn in messages]
            return self.generate(prompts, parameters)

    Strict.__module__ = Engine.__module__
    backend = Backend(lambda _: None, [])
    backend.client = Strict()

    def run(requests: list[Any]) -> None:
        numbers = list(range(N))
        if way == "chat":
            texts = [[{"content": [{"type": "text", "text": r.args[0]}]}] for r in requests]
            found = backend.client.chat(messages=texts, parameters=numbers)
        else:
            found = backend.client.generate([{"prompt": r.args[0]} for r in requests], numbers)
        backend.outputs += [one.outputs[0].text for one in found]

    backend.run = run
    with measured_generation(Backend):
        results = backend.generate_until(requests_of(root))
    texts = [split_failed_request(result.text) for result in results]
    assert [text for text, _ in texts] == [*TEXTS[:3], None, TEXTS[4]]
    assert "the prompt (length 9) is longer than 5" in str(texts[3][1])


def test_the_backend_is_as_before_afterwards(root: Path) -> None:
    from lmms_eval.api.model import CacheHook
    from lmms_eval.models import get_model

    backend = get_model("async_openai")
    before = backend.generate_until, CacheHook.add_partial, Backend.generate_until
    with pytest.raises(RuntimeError, match="out of memory"), measured_generation(Backend):
        Backend(lambda _: (_ for _ in ()).throw(RuntimeError("out of memory")), []).generate_until(
            []
        )
    assert (backend.generate_until, CacheHook.add_partial, Backend.generate_until) == before


# Stopping early


def eval_mini(folder: Path, *arguments: str, **changes: str) -> Any:
    return lmms_data.run_module(
        *("univg_eval", "eval", "--tasks", "univg_mini", "--output_path", str(folder / "out")),
        *arguments,
        data=folder / "data",
        cwd=folder,
        UNIVG_MINI_N="4",
        **changes,
    )


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty samples, and responses of which so many can be read."""
    from univg_eval.benchmarks.synthetic.mini import ensure

    folder = tmp_path_factory.mktemp("mini")
    ensure(folder / "data", n=4)
    ids = [sample.id for sample in load_samples("univg_mini", root=folder / "data")]
    assert len(ids) == 60
    for readable in (2, 3):
        lines = [
            {"id": name, "response": "[1, 2, 500, 600]" if i < readable else "I see 3 <cats>."}
            for i, name in enumerate(ids)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{readable}.jsonl").write_text(text)
    return folder


def lines_of(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def replay(readable: int) -> tuple[str, ...]:
    args = f"responses={readable}.jsonl"
    return "--model", "univg_replay", "--model_args", args, "--dialect", "norm1000"


def test_unreadable_answers_end_the_run_on_request(mini: Path) -> None:
    done = eval_mini(mini, *replay(2), "--stop-early")
    assert done.returncode == 3, done.stderr[-3000:]
    said = " ".join(done.stderr.split())
    assert "48 of the first 50 answers cannot be read in the dialect norm1000 (48 no_box)" in said
    assert '48 x "I see 3 <cats>."' in said and "univg check" in said
    assert "Traceback" not in said
    assert not list((mini / "out").rglob("*_results.json"))
    kept, asked = lines_of(mini / "out" / "stopped_early.jsonl"), lines_of(mini / "2.jsonl")
    assert len(kept) == 50 and all(line in asked for line in kept)


@pytest.mark.parametrize("arguments", [replay(2), (*replay(3), "--stop-early")], ids=str)
def test_a_run_goes_on_without_the_request_or_with_answers(
    arguments: tuple[str, ...], mini: Path
) -> None:
    done = eval_mini(mini, *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    path = sorted((mini / "out" / "records").iterdir())[-1] / "univg_mini"
    record = load_run(path)
    asked = {row["id"]: row["response"] for row in lines_of(mini / arguments[3][10:])}
    assert {line["id"]: line["response"] for line in record.responses} == asked
