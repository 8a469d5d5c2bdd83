"""Short names of checkpoints that come with the package."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from univg_eval.errors import UserError
from univg_eval.models import model_folder, model_name
from univg_eval.models.pretrained import commit_of


def test_the_short_name_is_the_shipped_folder(repo_root: Path) -> None:
    folder = Path(model_folder("univg:tiny"))
    assert folder.samefile(repo_root / "univg_eval" / "models" / "tiny")
    assert json.loads((folder / "config.json").read_text())["model_type"] == "qwen2_vl"


@pytest.mark.parametrize("name", ["Qwen/Qwen2-VL-7B-Instruct", "tiny", "runs/tiny", "~/tiny", ""])
def test_other_names_are_left_alone(name: str) -> None:
    assert model_folder(name) == name
    assert model_name(name) == name


def test_a_model_of_the_hub_has_the_commit_of_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for name, commit in (("main", "b" * 40), ("old", "a" * 40)):
        for file, text in ((f"snapshots/{commit}/config.json", "{}"), (f"refs/{name}", commit)):
            path = tmp_path / "models--who--tiny" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    assert (commit_of("who/tiny"), commit_of("who/tiny", "old")) == ("b" * 40, "a" * 40)
    assert commit_of("who/tiny", "a" * 40) == "a" * 40
    assert commit_of("who/other") is None and commit_of(str(tmp_path)) is None


@pytest.mark.parametrize("name", ["univg:", "univg:huge", "univg:Tiny", "univg:tiny/..", "univg:."])
def test_a_name_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"comes with univg; .*univg:tiny"):
        model_folder(name)


def test_a_path_to_the_shipped_folder_has_the_short_name(
    repo_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repo_root)
    for path in ("univg_eval/models/tiny", "./univg_eval/models/tiny/", model_folder("univg:tiny")):
        assert model_name(path) == "univg:tiny"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("pretrained=a,device=cpu", "pretrained=A,device=cpu"),
        ("device=cpu, model_version=a=b", "device=cpu, model_version=A=B"),
        ("device=a,pretrained_path=a", "device=a,pretrained_path=a"),
        ('kw={"a":1,"b":2},model=a', 'kw={"a":1,"b":2},model=A'),
        ("", ""),
        (None, None),
        ({"pretrained": "a", "device": "a"}, {"pretrained": "A", "device": "a"}),
    ],
)
def test_only_the_checkpoint_of_model_args_changes(given: object, expected: object) -> None:
    pytest.importorskip("lmms_eval")
    from univg_eval.lmms.settings import change_checkpoint

    assert change_checkpoint(given, str.upper) == expected
