"""`univg parity`: where two backends part, from the prompt to the score."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import lmms_data
import pytest
from factories import make_sample

from univg_eval.cli import main
from univg_eval.lmms.parity import Pixels, Trace, _outputs_of_vllm, compare_traces
from univg_eval.scoring import score_sample

pytest.importorskip("lmms_eval")

TINY = "pretrained=univg:tiny"
STOCK = f"qwen2_vl:{TINY},device=cpu,device_map=cpu,min_pixels=28224,max_pixels=28224"


def trace(number: int, response: str = "[100, 200, 500, 900]", **changes: object) -> Trace:
    sample = replace(make_sample(), id=f"s-{number}", cluster=str(number))
    score = score_sample(sample, response, "norm1000")
    seen = Trace(
        score=score,
        value=float((score.iou or 0.0) >= 0.5),
        prompt="where?",
        tokens=(1, 2, 3),
        input_sizes=((56, 28),),
        pixels=Pixels((8, 1176), 0.1, 1.0, "abc"),
        response=response,
        new_tokens=tuple(response.encode()),
    )
    return replace(seen, **changes)


def side(n: int = 10, **changes: object) -> dict[str, Trace]:
    return {f"s-{i}": trace(i, **changes) for i in range(n)}


def test_equal_sides_have_nothing_to_report() -> None:
    found = compare_traces(("a", "b"), side(), side())
    assert found.is_same and found.verdict == "All 10 responses are the same."
    assert [stage.name for stage in found.stages] == [
        *("prompt", "tokens", "input_sizes", "pixels", "new_tokens", "response", "box", "right")
    ]
    assert {(stage.n, stage.same, stage.first) for stage in found.stages} == {(10, 10, None)}
    assert found.difference is not None and found.difference.a == found.difference.b
    assert json.dumps(found.to_dict())


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"prompt": "find!"}, "the two are asked different questions"),
        ({"tokens": (1, 2, 4)}, "chat templates"),
        ({"input_sizes": ((28, 28),)}, "compare min_pixels and max_pixels"),
        ({"pixels": Pixels((8, 1176), 0.2, 1.0, "abd")}, "re-encodes images"),
        ({}, "so the arithmetic"),
    ],
)
def test_the_first_thing_that_differs_is_the_cause(changes: dict[str, object], cause: str) -> None:
    other = side() | {"s-3": trace(3, "[100, 200, 501, 900]", **changes)}
    found = compare_traces(("a", "b"), side(), other)
    assert not found.is_same
    assert found.verdict.startswith("1 of 10 responses differ.") and cause in found.verdict
    # A token is a byte here, and "[100, 200, 50" are thirteen.
    assert found.first_tokens == {"s-3": 13}


def test_equal_tokens_with_other_texts_are_decoded_differently() -> None:
    tokens = tuple(b"[100, 200, 500, 900]")
    other = side() | {"s-3": trace(3, "[100, 200, 500, 900", new_tokens=tokens)}
    found = compare_traces(("a", "b"), side(), other)
    assert not found.is_same and not found.first_tokens
    assert found.verdict.startswith("1 of 10 responses differ. Their token ids are the same")


def test_what_one_side_does_not_show_is_no_difference() -> None:
    blind = side(tokens=None, input_sizes=None, pixels=None, new_tokens=None)
    found = compare_traces(("a", "b"), side(), blind)
    assert [stage.name for stage in found.stages] == ["prompt", "response", "box", "right"]
    assert found.is_same


def test_no_cause_is_named_where_the_inputs_were_not_seen() -> None:
    unseen = {"tokens": None, "input_sizes": None, "pixels": None, "new_tokens": None}
    other = side(**unseen) | {"s-3": trace(3, "[1, 2, 3, 4]", **unseen)}
    verdict = compare_traces(("a", "b"), side(), other).verdict
    assert "what both show is the same: text of the prompt; the rest was not seen" in verdict
    assert "arithmetic" not in verdict


def test_a_response_that_failed_differs_from_one_that_did_not() -> None:
    found = compare_traces(("a", "b"), side(2), side(2) | {"s-1": trace(1, response="x")})
    response = next(stage for stage in found.stages if stage.name == "response")
    assert (response.n, response.same) == (2, 1)


class Engine:
    """In the place of vLLM's: one of its two ways goes through the other."""

    __module__ = "vllm.entrypoints.llm"

    def chat(self, messages: list[str]) -> list[SimpleNamespace]:
        return self.generate(messages)

    def generate(self, prompts: list[str]) -> list[SimpleNamespace]:
        answer = SimpleNamespace(token_ids=[4, 5])
        return [SimpleNamespace(prompt_token_ids=[1, 2], outputs=[answer]) for _ in prompts]


@pytest.mark.parametrize("way", ["chat", "generate"])
def test_vllm_says_its_token_ids(way: str) -> None:
    calls: list[dict[str, object]] = []
    backend = SimpleNamespace(client=Engine())
    with _outputs_of_vllm(backend, calls):
        getattr(backend.client, way)(["a"])
    assert calls == [{"tokens": (1, 2), "new_tokens": (4, 5)}]
    backend.client.generate(["a"])
    with _outputs_of_vllm(SimpleNamespace(), calls):
        assert len(calls) == 1


def test_the_stock_backend_reencodes_and_a_record_is_a_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from univg_eval.benchmarks.synthetic.mini import ensure

    ensure(tmp_path / "data", n=3)
    lmms_data.set_environment(monkeypatch, tmp_path / "data", UNIVG_MINI_N="3")
    tasks = ["--tasks", "univg_mini_diff,univg_mini_region"]
    code = main(["parity", f"univg:{TINY}", STOCK, *tasks, "--json"])
    found = json.loads(capsys.readouterr().out)
    stages = {stage["name"]: (stage["n"], stage["same"]) for stage in found["stages"]}
    assert code == (0 if found["same"] else 3)
    for name in ("prompt", "tokens", "input_sizes"):
        assert stages[name] == (6, 6), name
    assert stages["pixels"] == (6, 0)  # JPEG of quality 85
    assert "one re-encodes images" in found["verdict"]

    out = tmp_path / "out"
    model = ["--model", "univg", "--model_args", TINY, "--output_path", str(out)]
    assert main(["eval", *model, *tasks]) == 0
    (manifest,) = out.rglob("manifest.json")
    capsys.readouterr()
    assert main(["parity", str(manifest.parent), f"univg:{TINY}", *tasks]) == 0
    printed = capsys.readouterr().out
    assert "All 6 responses are the same." in printed and "token ids" not in printed

    assert main(["parity", str(manifest.parent), "univg_baseline:kind=oracle", "--limit", "0"]) == 2
    assert "--limit is 0" in capsys.readouterr().err
    assert main(["parity", "univg:", "nonsense:x=1", "--tasks", "univg_mini_none"]) == 2
