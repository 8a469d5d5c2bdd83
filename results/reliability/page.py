"""The tables of docs/reliability.md, from the JSON files beside this script.

python results/reliability/page.py
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "reliability.md"
Rows = Iterator[Sequence[object]]


def machine(figures: Mapping[str, Any]) -> str:
    """Hardware and date of a measurement."""
    hardware = figures["hardware"]
    return f"{hardware['cpu_count']} × {hardware['cpu']}, {figures['date']}"


def faults(found: Mapping[str, Any]) -> Rows:
    """One row a command that was killed."""
    yield (
        "command",
        "uninterrupted",
        "killed",
        "same results",
        "processes left",
        "time of the second run",
    )
    for name, row in found.items():
        points = row["points"]
        signals = Counter(point["signal"] for point in points)
        equal = sum(not point["differs"] for point in points)
        again = sorted(point["again_s"] / row["seconds"] for point in points)
        yield (
            f"`{name}`",
            f"{row['seconds']:.0f} s, {row['files']} file{'s' * (row['files'] != 1)}",
            ", ".join(f"{n} {signal}" for signal, n in signals.items()),
            f"{equal} of {len(points)}",
            sum(len(point["alive"]) for point in points),
            f"{100 * again[0]:.0f} to {100 * again[-1]:.0f} % of its time",
        )


def conditions(found: Mapping[str, Any]) -> Rows:
    """One row a command; exit status and whether what was there is kept."""
    names = list(dict.fromkeys(name for row in found.values() for name in row["conditions"]))
    yield "command", *names
    for command, row in found.items():
        yield f"`{command}`", *(_condition(row["conditions"].get(name)) for name in names)


def _condition(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "not tried"
    if row["broken"]:
        return "**broken**"
    return "works" if row["status"] == 0 else "one message"


def fuzz(found: Mapping[str, Any]) -> Rows:
    """One row a kind of input."""
    yield "input", "tried", "read", "refused by a message", "failed", "slowest", "peak memory"
    for row in found["rows"]:
        counts = (f"{row[name]:,}" for name in ("tried", "read", "refused", "failed"))
        yield row["input"], *counts, f"{row['slowest_ms']:,.0f} ms", f"{row['peak_mb']:,.0f} MB"


def large(found: Mapping[str, Any]) -> Rows:
    """One row a command at its size."""
    yield "what", "time", "peak memory", ""
    for row in found.values():
        more = ""
        if "page_mb" in row:
            opens = row["opens_s"]
            more = f"page of {row['page_mb']} MB"
            more += "" if opens is None else f", opens in {opens} s"
        yield row["what"], f"{row['seconds']:.0f} s", f"{row['peak_mb']:,} MB", more


def soak(found: Mapping[str, Any]) -> Rows:
    """First and last part of the rounds."""
    yield "rounds of eight commands", "memory", "growth", "open files", "threads"
    memory, files, threads = (found[name] for name in ("rss_mb", "files", "threads"))
    yield (
        f"{found['rounds']} in {found['each'][-1]['minutes']:.0f} minutes",
        f"{memory[0]:,.0f}, then {memory[1]:,.0f} MB",
        f"{100 * found['growth']:+.1f} %",
        f"{files[0]:.0f}, then {files[1]:.0f}",
        f"{threads[0]:.0f}, then {threads[1]:.0f}",
    )


def versions(found: Mapping[str, Any]) -> Rows:
    """One row an environment."""
    names = ("numpy", "pandas", "torch", "transformers", "trl", "lmms_eval")
    yield "environment", "Python", *names, "passed", "failed", "skipped"
    for row in found["rows"]:
        packages = (row["versions"].get(name, "–") for name in names)
        counts = (row[name] for name in ("passed", "failed", "skipped"))
        yield row["environment"], row["python"], *packages, *counts


def mutation(found: Mapping[str, Any]) -> Rows:
    """One row a module."""
    yield "module", "mutants", "survived"
    for module, row in found.items():
        yield f"`{module}`", row["mutants"], row["survived"]
    tried, survived = (sum(row[name] for row in found.values()) for name in ("mutants", "survived"))
    yield "all", tried, f"{survived}, {survived / tried:.1%}"


TABLES: dict[str, Callable[[Any], Rows]] = {
    "faults": faults,
    "conditions": conditions,
    "fuzz": fuzz,
    "large": large,
    "soak": soak,
    "versions": versions,
    "mutation": mutation,
}


def table(name: str, folder: Path = HERE) -> str:
    """The table of ``NAME.json``, and where it was measured."""
    path = folder / f"{name}.json"
    if not path.is_file():
        return f"Not measured: run `{name}.py`."
    found = json.loads(path.read_text(encoding="utf-8"))
    head, *rows = [[str(cell) for cell in row] for row in TABLES[name](found)]
    lines = [head, ["---"] * len(head), *rows]
    measured = [found] if "date" in found else [*found.get("rows", ()), *found.values()]
    places = dict.fromkeys(machine(one) for one in measured if "hardware" in one)
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join([text, f"Measured on {'; '.join(places)}.", *_notes(found)])


def _notes(found: Mapping[str, Any]) -> Iterator[str]:
    """What was not run, and what else a reader has to know, as a list of Markdown."""
    rows = [row for row in found.get("rows", ()) if "left_out" in row]
    lines = [
        f"- {row['environment']}: {'. '.join(said)}"
        for row in rows
        if (said := [f"not run: {what}" for what in row["left_out"]] + [row.get("note", "")])[0]
    ]
    if lines:
        yield "\n".join(line.rstrip(". ") + "." for line in lines)


def page(text: str, folder: Path = HERE) -> str:
    """`text` with each table between its two marks."""

    def filled(match: re.Match[str]) -> str:
        return f"{match[1]}\n{table(match[2], folder)}\n{match[3]}"

    marks = r"(<!-- begin: (\w+) -->)\n.*?(<!-- end: \2 -->)"
    return re.sub(marks, filled, text, flags=re.DOTALL)


def main() -> None:
    """Write the page anew."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
