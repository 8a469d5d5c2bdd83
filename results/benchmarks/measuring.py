"""What the scripts of this folder share: costs, medians, and the JSON file that each leaves.

    python results/benchmarks/measuring.py

makes the table of docs/speed.md from these files anew.
"""

from __future__ import annotations

import json
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from univg_eval.files import write_text_atomically
from univg_eval.runs.record import environment

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "speed.md"
BEGIN, END = "<!-- begin: measured -->", "<!-- end: measured -->"
FILES = ("engines", "score_million", "mask_conversion", "demo_time", "grpo_weighting", "gpu")
"""Scripts whose files the page shows, in its order."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of CPU, child processes included (None: not known), and of wall time."""

    cpu_s: float | None
    wall_s: float


def cpu_seconds() -> float:
    """Of this process and of its ended children."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def cost_of(call: Callable[[], Any]) -> Cost:
    """What one call takes."""
    cpu, wall = cpu_seconds(), time.perf_counter()
    call()
    return Cost(cpu_seconds() - cpu, time.perf_counter() - wall)


def median(costs: Sequence[Cost]) -> Cost:
    """The medians of both kinds of seconds, to milliseconds."""
    cpu = [cost.cpu_s for cost in costs if cost.cpu_s is not None]
    return Cost(
        round(statistics.median(cpu), 3) if cpu else None,
        round(statistics.median(cost.wall_s for cost in costs), 3),
    )


def alternating(calls: Mapping[str, Callable[[], Cost]], repeats: int) -> dict[str, list[Cost]]:
    """Costs of each call: all of them in each round, every other round in reverse order."""
    costs: dict[str, list[Cost]] = {name: [] for name in calls}
    for number in range(repeats):
        for name in list(calls)[:: -1 if number % 2 else 1]:
            costs[name].append(calls[name]())
    return costs


def ratio(what: str, against: str, ours: Cost, peer: Cost) -> dict[str, Any]:
    """A line of the table: how many times the seconds of `ours` its peer takes."""
    return {
        "what": what,
        "against": against,
        "unit": "times as fast",
        "cpu": None
        if peer.cpu_s is None or ours.cpu_s is None
        else round(peer.cpu_s / ours.cpu_s, 3),
        "wall": round(peer.wall_s / ours.wall_s, 3),
        "seconds": [asdict(ours), asdict(peer)],
    }


def share(what: str, against: str, wall_part: float, whole: Cost) -> dict[str, Any]:
    """A line of the table: the share of a part in the wall time of the whole."""
    return {
        "what": what,
        "against": against,
        "unit": "%",
        "cpu": None,
        "wall": round(100 * wall_part / whole.wall_s, 2),
        "seconds": [{"cpu_s": None, "wall_s": round(wall_part, 3)}, asdict(whole)],
    }


def write_report(
    script: str,
    settings: Mapping[str, Any],
    lines: Sequence[Mapping[str, Any]],
    out: Path | None = None,
    **figures: Any,
) -> Path:
    """Write ``<script>.json`` beside the scripts, and say where.

    Args:
        script: its stem.
        settings: what was run.
        lines: of `ratio` and `share`.
        out: another file.
        figures: whatever else was measured.
    """
    report = {
        "script": script,
        "date": datetime.now(UTC).date().isoformat(),
        **environment(),
        "settings": dict(settings),
        "lines": list(lines),
        **figures,
    }
    path = out or HERE / f"{script}.json"
    write_text_atomically(path, [json.dumps(report, indent=2) + "\n"])
    for line in lines:
        print(f"{line['what']}, {line['against']}: {_value(line, 'cpu')} CPU, ", end="")
        print(f"{_value(line, 'wall')} wall")
    print(f"written: {path}")
    return path


def _value(line: Mapping[str, Any], kind: str) -> str:
    value = line[kind]
    if value is None:
        return "–"
    return f"{value:.2f} ×" if line["unit"] == "times as fast" else f"{value:.1f} %"


def _seconds(line: Mapping[str, Any], kind: str) -> str:
    values = [cost[f"{kind}_s"] for cost in line["seconds"]]
    return " / ".join("–" if value is None else f"{value:.3g}" for value in values)


def _machine(report: Mapping[str, Any]) -> str:
    hardware, versions = report["hardware"], report["versions"]
    chips = ", ".join(hardware["accelerators"]) or f"{hardware['cpu_count']} × {hardware['cpu']}"
    packages = ", ".join(
        f"{name} {versions[name]}" for name in ("torch", "transformers", "lmms_eval")
    )
    return f"{chips}, Python {versions['python']}, {packages}, {report['date']}"


def table(folder: Path = HERE) -> str:
    """The table of all files that are there, and what was not measured."""
    rows = [
        "| what | against | CPU | wall | CPU s | wall s |",
        "|---|---|---|---|---|---|",
    ]
    machines: dict[str, list[str]] = {}
    for name in FILES:
        path = folder / f"{name}.json"
        if not path.is_file():
            missing = "no GPU has run `gpu.sh` yet" if name == "gpu" else f"run `{name}.py`"
            rows.append(f"| `{name}` | not measured: {missing} | | | | |")
            continue
        report = json.loads(path.read_text(encoding="utf-8"))
        machines.setdefault(_machine(report), []).append(f"`{name}.py`")
        for line in report["lines"]:
            cells = [line["what"], line["against"], _value(line, "cpu"), _value(line, "wall")]
            cells += [_seconds(line, "cpu"), _seconds(line, "wall")]
            rows.append(f"| {' | '.join(cells)} |")
    notes = [f"- {', '.join(scripts)}: {machine}" for machine, scripts in machines.items()]
    return "\n".join([*rows, "", *notes])


def page(text: str, folder: Path = HERE) -> str:
    """`text` with the table between its two marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(folder)}\n{END}{after}"


def main() -> None:
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
