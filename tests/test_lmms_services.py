"""Models behind services, through lmms-eval's own backends: what is sent, what is read, what stops.

A server on this machine speaks OpenAI's interface. It takes the sizes from the images that it gets
and answers in the contract of the model named; numbers are written here by hand, not by a dialect.
"""

from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lmms_data
import pytest
from fake_service import Server, Size, serving
from PIL import Image

from univg_eval.errors import UserError
from univg_eval.samples import Target

pytest.importorskip("lmms_eval")
pytest.importorskip("openai")

from univg_eval.lmms.claude_client import require_accepted_requests
from univg_eval.lmms.command import check

BOX = (0.1, 0.2, 0.5, 0.9)
SECOND = (2240, 1680)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as found:
        yield found


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two samples on the second of two images, which is larger than Claude's services keep it."""
    lmms_data.put(
        tmp_path,
        [
            lmms_data.make_sample(
                "custom",
                "group",
                i,
                widths=(64, 2240),
                heights=(48, 1680),
                targets=(Target(1, BOX),),
            )
            for i in range(2)
        ],
    )
    Image.new("RGB", SECOND, "blue").save(tmp_path / "custom" / "b.png")
    lmms_data.set_environment(monkeypatch, tmp_path)
    return tmp_path


def evaluate(backend: str, model_args: str) -> list[dict[str, Any]]:
    from lmms_eval.models import get_model

    model = get_model(backend).create_from_arg_string(model_args)
    results = lmms_data.evaluate(model, lmms_data.arguments(backend, model_args), ["univg_custom"])
    rows: list[dict[str, Any]] = results["samples"]["univg_custom"]
    return rows


def pixels(key: str, of: Size | None = None) -> Callable[[Size], str]:
    def write(size: Size) -> str:
        width, height = of or size
        x1, y1, x2, y2 = BOX
        return json.dumps(
            [{key: [round(x1 * width), round(y1 * height), round(x2 * width), round(y2 * height)]}]
        )

    return write


def constant(text: str | None) -> Callable[[Size], str | None]:
    return lambda _: text


ORIGINAL = "Image 1 is 64 pixels wide and 48 pixels high. Image 2 is 2240 pixels wide and 1680 "
CORNERS = '{"x_min": 0.1, "y_min": 0.2, "x_max": 0.5, "y_max": 0.9}'
# Backend, model, its answer, words of the prompt, size of the second image that the log holds.
CONTRACTS: list[tuple[str, str, Callable[[Size], str | None], str, Size | None]] = [
    ("async_openai", "gpt-5.5", pixels("box_2d"), f"{ORIGINAL}pixels high.", None),
    ("openai", "gpt-5-mini", constant(CORNERS), "x_min", None),
    ("openai", "x-ai/grok-4.5", constant('{"box_2d": [10.0, 20.0, 50.0, 90.0]}'), "to 100", None),
    ("async_openai", "glm-5.3-flash", constant('[{"box_2d": [200, 100, 900, 500]}]'), "[y_", None),
    ("openai", "claude-opus-4-6", pixels("bbox", (1269, 952)), "2 is 1269 pixels", (1269, 952)),
    ("async_openai", "claude-opus-5", pixels("bbox", (2212, 1659)), "2 is 2212", (2212, 1659)),
]


@pytest.mark.parametrize(
    ("backend", "model", "answer", "words", "seen"), CONTRACTS, ids=[row[1] for row in CONTRACTS]
)
def test_an_answer_in_the_models_contract_is_right(
    server: Server,
    backend: str,
    model: str,
    answer: Callable[[Size], str | None],
    words: str,
    seen: Size | None,
) -> None:
    server.answer = answer
    rows = evaluate(backend, f"model={model},base_url={server.url},api_key=none")
    assert len(rows) == 2
    for row in rows:
        assert row["box"] == pytest.approx(BOX, abs=0.002)
        assert row["input_sizes"] == (seen and [(64, 48), seen])
    assert server.sizes == [[(64, 48), SECOND]] * 2
    assert all(words in prompt for prompt in server.prompts)


@pytest.mark.parametrize("backend", ["openai", "async_openai"])
def test_a_message_without_content_is_no_response(server: Server, backend: str) -> None:
    server.answer = constant(None)
    rows = evaluate(backend, f"model=gpt-5.5,base_url={server.url},api_key=none")
    assert [(row["status"], row["no_response"]) for row in rows] == [("no_box", True)] * 2


def test_a_model_without_a_contract_gets_no_request(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    with lmms_data.stops(capsys, "no contract is known for the model 'gpt-7'", "pixels_box_2d"):
        evaluate("async_openai", f"model=gpt-7,base_url={server.url},api_key=none")
    assert server.sizes == []


# lmms-eval's backend for Claude


def claude(monkeypatch: pytest.MonkeyPatch, failing: set[int]) -> list[Size]:
    """A client in the place of the package; the numbered calls fail. The sizes that it gets."""
    import lmms_eval.models.simple.claude as module

    sizes: list[Size] = []
    calls = iter(range(100))

    def create(messages: list[dict[str, Any]], **_: Any) -> SimpleNamespace:
        if next(calls) in failing:
            raise RuntimeError("overloaded")
        blocks = [part for part in messages[0]["content"] if part["type"] == "image"]
        file = io.BytesIO(base64.b64decode(blocks[1]["source"]["data"]))
        sizes.append(Image.open(file).size)
        text = pixels("bbox", (1269, 952))(sizes[-1])
        return SimpleNamespace(content=[SimpleNamespace(text=text)], usage=None)

    client = SimpleNamespace(messages=SimpleNamespace(create=create))
    package = SimpleNamespace(Anthropic=lambda: client)
    monkeypatch.setattr(module, "anthropic", package, raising=False)
    monkeypatch.setattr(module, "NUM_SECONDS_TO_SLEEP", 0)
    return sizes


CLAUDE = "model_version=claude-opus-4-20250514"


def test_claudes_backend_is_read_in_pixels_of_the_services_resize(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = claude(monkeypatch, set())
    rows = evaluate("claude", CLAUDE)
    assert sizes == [SECOND] * 2
    for row in rows:
        assert row["box"] == pytest.approx(BOX, abs=0.002)
        assert row["input_sizes"] == [(64, 48), (1269, 952)]


def test_answers_that_a_failed_request_moved_are_not_scored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    claude(monkeypatch, set(range(1, 6)))  # all five attempts of the second request
    with lmms_data.stops(capsys, "a request to Claude was not answered", "nothing is scored"):
        evaluate("claude", CLAUDE)


@pytest.mark.parametrize(
    "model",
    ["claude-opus-4-1", "claude-sonnet-4-5-20250929", "claude-opus-4-6", "claude-opus-5", None],
)
def test_claudes_backend_is_refused_where_each_request_would_fail(
    root: Path, monkeypatch: pytest.MonkeyPatch, model: str | None
) -> None:
    with pytest.raises(UserError, match=r"temperature and top_p.*--model openai.*gateway"):
        require_accepted_requests("claude", model, {})
    require_accepted_requests("openai", model, {})
    if model is not None:
        arguments = lmms_data.arguments("claude", f"model_version={model}", tasks="univg_custom")
        monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)
        with pytest.raises(UserError, match="temperature and top_p"):
            check(arguments, [str(lmms_data.TASKS)])


@pytest.mark.parametrize(
    ("model", "environ"),
    [
        ("claude-3-7-sonnet-20250219", {}),
        ("claude-sonnet-4-20250514", {}),
        ("claude-opus-5", {"ANTHROPIC_BASE_URL": "http://localhost:4000"}),
    ],
)
def test_the_package_that_claudes_backend_needs_is_an_older_one(
    monkeypatch: pytest.MonkeyPatch, model: str, environ: dict[str, str]
) -> None:
    class Older:
        def create(self, *, temperature: float) -> None: ...

    class Newer:
        def create(self) -> None: ...

    def installed(messages: type | None) -> None:
        package = None if messages is None else SimpleNamespace(Messages=messages)
        for name in ("anthropic", "anthropic.resources", "anthropic.resources.messages"):
            monkeypatch.setitem(sys.modules, name, package)

    installed(Older)
    require_accepted_requests("claude", model, environ)
    for messages in (Newer, None):
        installed(messages)
        with pytest.raises(UserError, match="'anthropic<1'"):
            require_accepted_requests("claude", model, environ)
