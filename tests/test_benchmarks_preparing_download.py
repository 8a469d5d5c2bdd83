"""Fetching from the Hub through the real library: what arrives, and what is said if it fails."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fake_hub
import pytest

from univg_eval.benchmarks.preparing.catalog import CATALOG
from univg_eval.benchmarks.preparing.download import by_hand_text, fetch
from univg_eval.benchmarks.readers.common.entry import HubFiles
from univg_eval.errors import UserError

constants = pytest.importorskip("huggingface_hub.constants", reason="needs the extra 'eval'")

COMMIT, OLDER = "a" * 40, "b" * 40
FILES = HubFiles("Owner/Set", COMMIT, ("data.json", "sub/images.zip"))
CONTENT = {"data.json": b"[1]", "sub/images.zip": b"zip" * 1000, "huge.bin": b"never"}


def point_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace("https://huggingface.co", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[fake_hub.FakeHub]:
    with fake_hub.serve() as served:
        served.add("Owner/Set", COMMIT, CONTENT, "main")
        served.add("Owner/Set", OLDER, {"data.json": b"[0]"}, "old")
        point_at(served.url, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        # The suite may run with the variable set.
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield served


def test_only_the_wanted_files_of_the_pinned_commit(hub: fake_hub.FakeHub) -> None:
    fetched = fetch(FILES)
    assert fetched.commit == COMMIT
    assert fetched.to_dict() == {"repo": "Owner/Set", "commit": COMMIT}
    assert (fetched.folder / "data.json").read_bytes() == b"[1]"
    assert (fetched.folder / "sub" / "images.zip").read_bytes() == b"zip" * 1000
    assert not (fetched.folder / "huge.bin").exists()
    assert not [request for request in hub.requests if "huge.bin" in request]


def test_a_name_is_resolved_to_its_commit(hub: fake_hub.FakeHub) -> None:
    files = HubFiles("Owner/Set", COMMIT, ("data.json",))
    assert fetch(files, revision="main").commit == COMMIT
    old = fetch(files, revision="old")
    assert old.commit == OLDER
    assert (old.folder / "data.json").read_bytes() == b"[0]"


def test_a_second_time_comes_from_the_cache_offline_too(
    hub: fake_hub.FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fetch(FILES).folder
    hub.requests.clear()
    hub.broken["/"] = 500
    assert fetch(FILES).folder == folder
    assert not [request for request in hub.requests if "resolve" in request]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch(FILES).folder == folder
    start = time.monotonic()
    with pytest.raises(UserError) as error:
        fetch(HubFiles("Owner/Other", COMMIT, ("data.json",)))
    assert time.monotonic() - start < 5
    text = str(error.value)
    assert "HF_HUB_OFFLINE is set, and the cache of this machine does not hold the files" in text
    assert "fetch data.json by hand from https://huggingface.co/datasets/Owner/Other" in text


@pytest.mark.parametrize(
    ("files", "revision", "message"),
    [
        (HubFiles("Owner/Gone", COMMIT, ("x",)), None, r"does not show the dataset Owner/Gone"),
        (FILES, "v9", r"Owner/Set has no revision 'v9'; expected a branch"),
        (FILES, "c" * 40, r"has no revision 'cccc"),
        (FILES, "old", r"revision old of .* does not hold sub/images.zip; .*--hub-revision"),
        (HubFiles("Owner/Set", COMMIT, ("typo",)), None, r"does not hold typo"),
        (HubFiles("a/b/c", COMMIT, ("x",)), None, r"is no valid name"),
    ],
)
def test_what_is_not_there(
    files: HubFiles, revision: str | None, message: str, hub: fake_hub.FakeHub
) -> None:
    with pytest.raises(UserError, match=message):
        fetch(files, revision=revision)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("gated", r"is gated: accept its terms .* log in"),
        ("resolve", r"the Hub did not give the files .*by hand"),
        ("api", r"the Hub answers .*500"),
        ("network", r"the Hub cannot be reached \(.*refused.*by hand"),
    ],
)
def test_a_hub_that_refuses_fails_or_cannot_be_reached(
    fault: str, message: str, hub: fake_hub.FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "gated":
        hub.gated.add("Owner/Set")
    elif fault == "network":
        point_at("http://127.0.0.1:9", monkeypatch)
    else:
        hub.broken[fault] = 500 if fault == "api" else 418
    start = time.monotonic()
    with pytest.raises(UserError, match=message):
        fetch(FILES)
    assert time.monotonic() - start < 5


def test_a_cache_that_cannot_be_written(
    hub: fake_hub.FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    with pytest.raises(UserError, match=r"cannot store .*HF_HOME"):
        fetch(FILES)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[eval\]'"):
        fetch(FILES)


def test_what_is_fetched_by_hand_is_named_with_its_address() -> None:
    text = by_hand_text("revos", CATALOG["revos"].by_hand)
    assert "To be fetched by hand for revos" in text
    assert "https://github.com/cilinyan/ReVOS-api" in text
    assert by_hand_text("mini", CATALOG["mini"].by_hand) == ""
