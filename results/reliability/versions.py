"""With which versions do the tests pass?

    .venv-min/bin/python results/reliability/versions.py oldest OUTPUT …

Takes what pytest printed in this environment (`make test-min | tee OUTPUT`; several files where
the tests were run in parts), and puts the row of that name into versions.json beside this file.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from univg_eval.files import write_text_atomically
from univg_eval.runs.record import environment

OUT = Path(__file__).with_name("versions.json")
PACKAGES = (
    *("numpy", "pandas", "pillow", "pydantic", "rich", "scipy", "matplotlib", "jinja2", "torch"),
    *("transformers", "trl", "lmms_eval", "accelerate", "peft", "datasets", "pyarrow"),
    *("huggingface_hub", "opencv-python-headless"),
)
_SUMMARY = re.compile(r"=* ?(\d+ \w+(?:, \d+ \w+)* in ([\d.]+)s)\b.*")
_SKIPPED = re.compile(r"SKIPPED \[(\d+)\] ([^:]+)[:\d]*: (.*)")


def read_output(text: str) -> tuple[Counter[str], float, Counter[str]]:
    """(tests by outcome, seconds, skipped tests by reason) of what pytest printed.

    Raises:
        ValueError: it has no line that sums up, or several.
    """
    summaries = [found for line in text.splitlines() if (found := _SUMMARY.fullmatch(line))]
    if len(summaries) != 1:
        raise ValueError(f"expected pytest's last line once, found it {len(summaries)} times")
    (found,) = summaries
    counts: Counter[str] = Counter()
    for number, outcome in re.findall(r"(\d+) (\w+)", found[1].rpartition(" in ")[0]):
        counts[outcome] += int(number)
    reasons: Counter[str] = Counter()
    for line in text.splitlines():
        if skipped := _SKIPPED.fullmatch(line):
            why = re.sub(r"/\S*/shared\b", "../shared", skipped[3])
            reasons[f"{Path(skipped[2]).name}: {why}"] += int(skipped[1])
    return counts, float(found[2]), reasons


def row(
    name: str, outputs: list[str], again: list[str] | None = None, left_out: list[str] | None = None
) -> dict[str, Any]:
    """The row of an environment, which is that of this process.

    Args:
        outputs: of the tests, each run once.
        again: of those that failed in `outputs`, run again: after a repair, or alone.
        left_out: what was not run.

    Raises:
        ValueError: an output is cut off, or not as many were run again as had failed.
    """
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    seconds = 0.0
    for text in outputs:
        found, took, skipped = read_output(text)
        counts += found
        reasons += skipped
        seconds += took
    if again:
        repeated = sum((read_output(text)[0] for text in again), Counter[str]())
        tests = repeated["passed"] + repeated["failed"] + repeated["skipped"]
        if tests != counts["failed"]:
            raise ValueError(f"{tests} tests were run again of {counts['failed']} that had failed")
        counts["failed"] = 0
        counts += repeated
        for text in again:
            reasons += read_output(text)[2]
    here = environment()
    return {
        "environment": name,
        "python": here["versions"]["python"],
        "versions": {package: version(package) for package in PACKAGES},
        "passed": counts["passed"],
        "failed": counts["failed"] + counts["errors"] + counts["error"],
        "skipped": counts["skipped"],
        "minutes": round(seconds / 60, 1),
        "date": datetime.now(UTC).date().isoformat(),
        "left_out": left_out or [],
        "skipped_because": dict(reasons.most_common()),
        "commit": here["versions"]["commit"],
        "hardware": here["hardware"],
    }


def main() -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("environment", help="name of the row, such as oldest or newest")
    parser.add_argument("outputs", nargs="+", type=Path, metavar="OUTPUT")
    parser.add_argument(
        "--again", nargs="*", default=[], type=Path, metavar="OUTPUT", help="of those that failed"
    )
    parser.add_argument("--left-out", nargs="*", default=[], metavar="WHAT", help="was not run")
    parser.add_argument("--note", help="what else a reader has to know")
    args = parser.parse_args()
    outputs, again = (
        [path.read_text(encoding="utf-8") for path in paths] for paths in (args.outputs, args.again)
    )
    made = row(args.environment, outputs, again, args.left_out)
    if args.note:
        made["note"] = args.note
    known = json.loads(OUT.read_text(encoding="utf-8"))["rows"] if OUT.is_file() else []
    rows = {one["environment"]: one for one in [*known, made]}
    write_text_atomically(OUT, [json.dumps({"rows": list(rows.values())}, indent=1) + "\n"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
