"""Keys and passwords that are kept out of everything that is written and shown."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import pytest
from run_records import RESPONSES, SCORES, manifest

from univg_eval.cli import main
from univg_eval.redaction import (
    first_secret,
    secret_values,
    settings_without_secrets,
    without_secrets,
    without_values,
)
from univg_eval.runs.record import load_run, make_record, write_run
from univg_eval.terminal import safe_streams

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
        ("u=http://me:ab@h/v1,m=a@b", "", "u=http://[hidden]@h/v1,m=a@b"),
        ("http://me:a@b/c=@host/v1", "", "http://[hidden]@host/v1"),
        ("http://host:8000/v1/a@b", "", "http://host:8000/v1/a@b"),
        ("http://h/v1?alt=sse&key=abc", "", "http://h/v1?alt=sse&key=[hidden]"),
        ("authorization: Basic bWU6d29yZA==", "", "authorization: Basic [hidden]"),
        ("x-api-key: abc", "", "x-api-key: [hidden]"),
        ("Bearer abc", "Authorization", "[hidden]"),
        ("/models/hf_llava_onevision_qwen2", "", "/models/hf_llava_onevision_qwen2"),
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
    "form",
    [
        KEY.upper(),
        "swordfish\n  -4711",
        r"swordfish\n-4711",
        "c3dvcmRmaXNoLTQ3MTE=",
        # "me:", "you:" and "user:" before the key, in base64
        *("bWU6c3dvcmRmaXNoLTQ3MTE=", "eW91OnN3b3JkZmlzaC00NzEx", "dXNlcjpzd29yZGZpc2gtNDcxMQ=="),
    ],
)
def test_a_value_is_found_in_the_forms_that_a_server_may_give_it(form: str) -> None:
    shown = without_values(f"who is {form}?", {KEY})
    assert "[hidden]" in shown
    plain = re.sub(r"[^a-z0-9]", "", shown.lower())
    # The first and last signs of base64 belong to the bytes beside the key as well.
    assert not any(part in plain for part in ("sword", "4711", "dvcmrmaxnoltq3", "3b3jkzmlza"))


def test_a_value_is_found_as_an_address_writes_it() -> None:
    assert without_values("?a=x%2By%2Fz%3D%3D-4711", {"x+y/z==-4711"}) == "?a=[hidden]"


@pytest.mark.parametrize(
    "unit", ["w", "s ", "c3dv", "://a:", "://", "token", "api_key = ", "bearer ", "authorization:"]
)
def test_the_time_grows_with_the_length_alone(unit: str) -> None:
    text = unit * (100_000 // len(unit))
    started = time.process_time()
    without_secrets(text, known={KEY})
    assert time.process_time() - started < 5  # seconds; minutes where it grew with the square


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (None, None),
        (
            {"extra_body": {"api_key": "a", "n": [{"Authorization": "b"}, 2]}, "token": {"x": 1}},
            {"extra_body": {"api_key": "[hidden]", "n": [{"Authorization": "[hidden]"}, 2]},
             "token": "[hidden]"},
        ),
        ("base_url=http://h/v1?api_key=1,top_k=2", "base_url=http://h/v1?api_key=[hidden],top_k=2"),
        ({"api_key": 7, "top_k": 2, "url": "a://b:c@d"}, {
            "api_key": "[hidden]", "top_k": 2, "url": "a://[hidden]@d",
        }),
    ],
)  # fmt: skip
def test_settings_keep_their_form(given: object, shown: object) -> None:
    assert settings_without_secrets(given, ()) == shown  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"model": "x", "api_key": "none", "base_url": "http://h:1/v1", "max_tokens": 9}, None),
        ({"model": "x", "api_key": "abcdefgh1"}, "api_key"),
        ({"base_url": "http://h/v1?key=abc"}, "base_url"),
        ({"extra_body": {"headers": [{"authorization": "Bearer abcdefgh1"}]}}, "extra_body"),
        ({"default_headers": "{'Authorization':'Bearer abc+/defgh1=='}"}, "default_headers"),
        ({"model": KEY}, "model"),  # of the environment
    ],
)
def test_the_setting_that_holds_a_key_is_named(settings: dict, name: str | None) -> None:
    assert first_secret(settings) == name


def test_no_stream_shows_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    with safe_streams():
        sys.stdout.write(f"401: {KEY}\n")
        sys.stderr.writelines(["a\n", f"{KEY}\n"])
        assert sys.stdout.isatty() is False
    sys.stdout.write(f"{KEY}\n")
    assert capsys.readouterr() == ("401: [hidden]\n" + f"{KEY}\n", "a\n[hidden]\n")


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
