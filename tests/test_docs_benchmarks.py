"""docs/benchmarks.md against the catalog, the readers and the command line."""

from __future__ import annotations

import re

import pytest
from doc_pages import page_text

from univg_eval.benchmarks.preparing.catalog import CATALOG, get_entry
from univg_eval.benchmarks.readers.humanref import DOMAINS
from univg_eval.benchmarks.readers.humanref import EXPRESSIONS as HUMANREF_EXPRESSIONS
from univg_eval.benchmarks.readers.lisa import PUBLISHED_IMAGES
from univg_eval.benchmarks.readers.refcoco import EXPRESSIONS
from univg_eval.cli import build_parser
from univg_eval.cli import prepare as command
from univg_eval.published_rules import PUBLISHED_RULES

RELEASES = [name for name, entry in CATALOG.items() if not entry.is_generated]


def table(section: str) -> list[dict[str, str]]:
    """The rows of a section's table by their column titles."""
    part = page_text("benchmarks").split(f"\n## {section}\n")[1].split("\n## ")[0]
    lines = [
        [cell.strip() for cell in line.strip("| ").split(" | ")]
        for line in part.splitlines()
        if line.startswith("|") and not line.startswith("|---")
    ]
    titles, *rows = lines
    return [dict(zip(titles, row, strict=True)) for row in rows]


def names(cell: str) -> list[str]:
    return re.findall(r"`([a-z0-9_]+)`", cell)


SETS = table("Sets")
ROW_OF = {get_entry(name).name: row for row in SETS for name in names(row["set"])}
ENTRIES = pytest.mark.parametrize("entry", CATALOG.values(), ids=list(CATALOG))


def test_every_benchmark_is_listed_once():
    listed = [get_entry(name).name for row in SETS for name in names(row["set"])]
    assert sorted(listed) == sorted(CATALOG)


def test_how_its_boxes_are_made_is_said_of_every_release():
    rows = table("Boxes and faults")
    listed = [name for row in rows for name in names(row["set"])]
    refcoco = ["refcoco", "refcoco_plus", "refcocog"]
    assert [row["set"] for row in rows].count("RefCOCO") == 1
    assert sorted(listed + refcoco) == sorted(set(RELEASES) - {"custom"})
    assert all(row["how the box is derived"] and row["known faults"] for row in rows)


@ENTRIES
def test_the_source_is_that_of_the_catalog(entry):
    source = ROW_OF[entry.name]["source"]
    for repo in re.findall(r"Hub: ([\w./-]+)", source):
        assert repo in [files.repo for files in entry.hub]
    if entry.hub and "same place" not in source:
        assert f"Hub: {entry.hub[0].repo}" in source
    # The first repository holds the annotations.
    for path in entry.hub[0].files if entry.hub else ():
        if path.endswith(".json"):
            assert f"`{path.rpartition('/')[2]}`" in source


LICENCES = (
    *("Apache-2.0", "MIT", "CC BY 4.0", "CC BY-NC 4.0", "CC BY-NC-SA 4.0"),
    *("not stated", "non-commercial"),
)


@pytest.mark.parametrize(
    "entry",
    # The page sends to other rows of its own for these.
    [entry for entry in CATALOG.values() if entry.name not in ("llmseg_full", "reasonvos_full")],
    ids=lambda entry: entry.name,
)
def test_the_licence_is_that_of_the_catalog(entry):
    printed = ROW_OF[entry.name]["licence as stated"]
    row_is_of = [get_entry(name) for name in names(ROW_OF[entry.name]["set"])]
    stated = " ".join(known.licence for known in row_is_of)
    if "as above" in printed:
        stated += " ".join(CATALOG[name].licence for name in names("`mig_bench`"))
        printed += ROW_OF["mig_bench"]["licence as stated"]
    for licence in LICENCES:
        assert (licence in printed) == (licence in stated), (licence, printed, stated)


@ENTRIES
def test_the_command_is_one_that_the_program_takes(entry):
    row = ROW_OF[entry.name]
    commands = re.findall(r"`(univg [^`]*)`", row["command"])
    if entry.is_generated:
        assert (commands, row["command"]) == ([], "on first use")
        return
    (line,) = commands
    args, unknown = build_parser().parse_known_args(line.split()[1:])
    assert not unknown
    named = command._entry(args)
    assert named.name in [get_entry(name).name for name in names(row["set"])]
    command._refuse_foreign_options(args, named)
    assert args.source is not None
    for option in re.findall(r"--([a-z-]+)", line):
        assert option in ("source", "images") or option.replace("-", "_") in named.options


def test_the_numbers_are_those_that_the_readers_compare_with():
    counts = f"val {PUBLISHED_IMAGES['val']}, test {PUBLISHED_IMAGES['test']}"
    assert counts in ROW_OF["lisa_full"]["samples"]
    totals = [sum(EXPRESSIONS[name].values()) for name in ("refcoco", "refcoco+", "refcocog")]
    assert ROW_OF["refcoco"]["samples"] == "{:,}, {:,} and {:,}".format(*totals)
    a_domain = HUMANREF_EXPRESSIONS // len(DOMAINS)
    expected = f"{HUMANREF_EXPRESSIONS:,}, {a_domain:,} in each of six domains"
    assert ROW_OF["humanref"]["samples"].startswith(expected)


def test_the_raw_releases_are_said_not_to_be_comparable():
    page = " ".join(page_text("benchmarks").split())
    assert "**are not comparable with that table**" in page
    for name in RELEASES:
        comparable = CATALOG[name].comparable_with_published
        own = name in ("custom", "refcoco_m")
        assert comparable == (not name.endswith("_full") and not own)


def test_what_is_wrong_with_the_authors_scorers_is_said_of_each_set() -> None:
    part = page_text("benchmarks").split("\n## The second suite\n")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("- `")]
    scored = {name for rule in PUBLISHED_RULES.values() for name in rule.benchmarks}
    assert {names(line)[0] for line in lines} == scored
    for name in scored:
        (commit,) = {rule.source for rule in PUBLISHED_RULES.values() if name in rule.benchmarks}
        line = next(line for line in lines if names(line)[0] == name)
        repository = re.search(r"\((\S+), ([0-9a-f]{7})\)", line)
        assert repository and repository[1] in commit and repository[2] in commit
