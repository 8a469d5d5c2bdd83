"""Keys and passwords that are kept out of everything that is written and shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_records import RESPONSES, SCORES, manifest

from univg_eval.cli import main
from univg_eval.redaction import secret_values, settings_without_secrets, without_secrets
from univg_eval.runs.record import load_run, make_record, write_run

KEY = "swordfish-4711"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", KEY)
    monkeypatch.setenv("OTHER_TOKEN", "short")


@pytest.mark.parametrize(
    ("value", "name", "shown"),
    [
        ("abc", "openai_api_key", "[hidden]"),
        ("abc", "HF_TOKEN", "[hidden]"),
        (None, "api_key", "None"),
        (512, "max_new_tokens", "512"),
        ("model=x,api_key=abc,top_k=1", "", "model=x,api_key=[hidden],top_k=1"),
        ("{'api_key': 'abc', 'n': 2}", "", "{'api_key': '[hidden]', 'n': 2}"),
        ("https://me:word@host:1/?token=q&a=1", "", "https://[hidden]@host:1/?token=[hidden]&a=1"),
        ("Authorization: Bearer abcdefgh.ijk-l", "", "Authorization: Bearer [hidden]"),
        ("a hf_abcdefghijklmnopqrst b", "", "a [hidden] b"),
        ("key sk-proj-abcdefghijklmnop is wrong", "", "key [hidden] is wrong"),
        ("max_tokens=5, tokens: 7, a@b", "", "max_tokens=5, tokens: 7, a@b"),
        ("org/model-7B", "", "org/model-7B"),
    ],
)
def test_keys_and_passwords_are_hidden(value, name, shown):
    assert without_secrets(value, name) == shown


def test_values_of_secret_names_are_hidden_wherever_they_stand() -> None:
    known = secret_values("model=x,api_key=abcdefgh1,top_k=20,auth_token=1")
    assert known & {"abcdefgh1", KEY, "1", "short", "20", "x"} == {"abcdefgh1", KEY}
    assert secret_values({"api_key": "abcdefgh1", "n": 123456789}) >= {"abcdefgh1"}
    assert without_secrets(f"no such key: {KEY}!") == "no such key: [hidden]!"
    assert without_secrets("no such key: abcdefgh1", known=known) == "no such key: [hidden]"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (None, None),
        ("base_url=http://h/v1?api_key=1,top_k=2", "base_url=http://h/v1?api_key=[hidden],top_k=2"),
        ({"api_key": 7, "top_k": 2, "url": "a://b:c@d"}, {
            "api_key": "[hidden]", "top_k": 2, "url": "a://[hidden]@d",
        }),
    ],
)  # fmt: skip
def test_settings_keep_their_form(given: object, shown: object) -> None:
    assert settings_without_secrets(given, ()) == shown  # type: ignore[arg-type]


def test_a_record_holds_no_secret(tmp_path: Path) -> None:
    args = {"base_url": f"https://me:{KEY}@host/v1", "api_key": "abcdefgh1", "top_k": 2}
    failed = RESPONSES[0] | {"response": None, "error": f"401: {KEY}, abcdefgh1, xyz-12345"}
    made = make_record(
        tmp_path / "run",
        manifest=manifest() | {"model": manifest()["model"] | {"args": args}, "failed_requests": 1},
        responses=[failed, *RESPONSES[1:]],
        scores=SCORES,
        secrets={"xyz-12345"},
    )
    path = made.write(tmp_path / "run")
    text = "".join(file.read_text(encoding="utf-8") for file in path.iterdir())
    assert not any(secret in text for secret in (KEY, "xyz-12345"))
    assert load_run(path).manifest.model.args == {
        "base_url": "https://[hidden]@host/v1", "api_key": "[hidden]", "top_k": 2,
    }  # fmt: skip
    assert load_run(path).responses[0]["error"].startswith("401: [hidden], ")


def test_an_older_record_with_a_key_shows_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = RESPONSES[0] | {"response": None, "error": f"401: {KEY}"}
    monkeypatch.delenv("SOME_API_KEY")
    path = write_run(
        tmp_path / "run",
        manifest=manifest() | {"failed_requests": 1},
        responses=[failed, *RESPONSES[1:]],
        scores=SCORES,
    )
    assert KEY in json.dumps(load_run(path).responses)
    monkeypatch.setenv("SOME_API_KEY", KEY)
    assert list(load_run(path).errors.values()) == ["401: [hidden]"]


def test_no_message_of_a_command_shows_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leaderboard", f"runs/{KEY}"]) == 2
    printed = capsys.readouterr().err
    assert "[hidden]" in printed and KEY not in printed
