"""Data files of a wheel: whole folders, which pyproject.toml cannot list without naming each."""

from pathlib import Path

from setuptools import setup


def data_files(top: Path, target: Path) -> list[tuple[str, list[str]]]:
    """The YAML, CSV and Markdown files below a folder, by the folder that they are installed to."""
    files: dict[str, list[str]] = {}
    for path in sorted(top.rglob("*")):
        if path.suffix in {".yaml", ".yml", ".csv", ".md"}:
            folder = target / path.parent.relative_to(top)
            files.setdefault(str(folder), []).append(str(path))
    return list(files.items())


# They are no packages; univg_eval.files.data_folder finds them in an installation.
setup(
    data_files=[
        *data_files(Path("tasks"), Path("share/univg/tasks")),
        *data_files(Path("results/published"), Path("share/univg/published")),
    ]
)
