"""Files of a release from the Hugging Face Hub, at a known commit.

They go into the Hub's own cache (``HF_HOME``), which resumes broken downloads, shares files between
projects and serves them again without a network. Nothing is retried here: a Hub that cannot be
reached is reported at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from univg_eval.benchmarks.readers.common.entry import ByHand, HubFiles
from univg_eval.errors import UserError, install_command

__all__ = ["Fetched", "by_hand_text", "fetch"]


@dataclass(frozen=True, slots=True)
class Fetched:
    """Files of one repository that are on this machine.

    Attributes:
        folder: holds the files under their paths in the repository.
        repo: ``owner/name``.
        commit: the full hash of the commit they are from.
    """

    folder: Path
    repo: str
    commit: str

    def to_dict(self) -> dict[str, str]:
        """For a manifest."""
        return {"repo": self.repo, "commit": self.commit}


def fetch(files: HubFiles, *, revision: str | None = None) -> Fetched:
    """Fetch files of a dataset repository, or find them in the Hub's cache.

    Args:
        files: repository, commit and paths.
        revision: a branch, tag or commit instead of the entry's own.

    Raises:
        UserError: huggingface_hub is not installed; there is no network (or ``HF_HUB_OFFLINE`` is
            set) and the cache does not hold the files; the repository, the revision or a file is
            not there; the repository wants a login; the Hub answers with an error; the disk does
            not take the files.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(
            f"--download needs the package huggingface_hub: {install_command('eval')}"
        ) from error
    wanted = revision or files.revision
    with _reported(files, wanted):
        commit, trouble = _resolve(files.repo, wanted)
        try:
            folder = Path(
                huggingface_hub.snapshot_download(
                    files.repo,
                    repo_type="dataset",
                    revision=commit,
                    allow_patterns=list(files.files),
                    local_files_only=trouble is not None,
                )
            )
        except huggingface_hub.errors.LocalEntryNotFoundError as error:
            raise (trouble or error) from error
        missing = [name for name in files.files if not (folder / name).is_file()]
        if missing and trouble is not None:
            raise trouble
    if missing:
        raise UserError(
            f"revision {wanted} of the dataset {files.repo} does not hold {', '.join(missing)}; "
            "name another one with --hub-revision (main is the newest), or get the files by hand "
            f"from {_page(files)}"
        )
    return Fetched(folder=folder, repo=files.repo, commit=folder.name)


def _resolve(repo: str, revision: str) -> tuple[str, Exception | None]:
    """The commit of a revision; or the revision itself and why the Hub gave no answer.

    One request, first: the library would retry for half a minute before it looks at its cache.
    """
    from huggingface_hub import HfApi, errors

    try:
        info = HfApi().repo_info(repo, repo_type="dataset", revision=revision, timeout=10)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        raise
    except (_http_error(), errors.OfflineModeIsEnabled) as error:
        return revision, error
    return info.sha or revision, None


def _http_error() -> type[Exception]:
    """The base of what the library's HTTP client raises; the client differs between versions."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__mro__[1]


def _page(files: HubFiles) -> str:
    return f"https://huggingface.co/datasets/{files.repo}"


@contextmanager
def _reported(files: HubFiles, revision: str) -> Iterator[None]:
    """Turn what the Hub's library raises into one message each."""
    from huggingface_hub import errors

    xet_error: type[Exception] = getattr(errors, "XetDownloadError", RuntimeError)
    where = f"the dataset {files.repo} (revision {revision})"
    by_hand = (
        f"fetch {', '.join(files.files)} by hand from {_page(files)} and give their folder with "
        "--source"
    )
    not_cached = (
        "and the cache of this machine does not hold the files. With a network run the command "
        f"again; without one {by_hand}"
    )
    try:
        yield
    except errors.GatedRepoError as error:
        raise UserError(
            f"{where} is gated: accept its terms at {_page(files)} and log in with `hf auth "
            f"login`; or {by_hand}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(
            f"the dataset {files.repo} has no revision {revision!r}; expected a branch, a tag or a "
            f"commit with --hub-revision (see {_page(files)}/commits/main)"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"the Hub does not show {where}: it was removed, renamed or made private, or the login "
            "of this machine is not valid. If you have its files, give them with --source"
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise UserError(f"cannot download {where}: HF_HUB_OFFLINE is set, {not_cached}") from error
    except errors.HfHubHTTPError as error:
        raise UserError(
            f"cannot download {where}: the Hub answers {error}. Run the command again to go on "
            f"where it stopped; or {by_hand}"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        reason = error.__cause__ or error
        raise UserError(
            f"cannot download {where}: the Hub did not give the files ({reason}), {not_cached}"
        ) from error
    except (_http_error(), xet_error) as error:
        raise UserError(
            f"cannot download {where}: the Hub cannot be reached ({error}), {not_cached}"
        ) from error
    except OSError as error:
        raise UserError(
            f"cannot store {where}: {error}. Free space, or set HF_HOME to a folder that can be "
            "written"
        ) from error
    except errors.HFValidationError as error:
        raise UserError(f"{where} is no valid name: {error}") from error


def by_hand_text(name: str, by_hand: Sequence[ByHand]) -> str:
    """What has to be fetched by hand, a line break before each part; empty if there is nothing."""
    parts = [f"\n  {part.what}\n    {part.url}" for part in by_hand]
    return "".join([f"\nTo be fetched by hand for {name}:", *parts]) if parts else ""
