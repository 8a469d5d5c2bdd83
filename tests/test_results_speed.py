"""The table of docs/speed.md is what the JSON files of results/benchmarks say."""

from __future__ import annotations

import json

import pytest
from scripts import load_script

from univg_eval.protocols import parse_answer

measuring = load_script("results/benchmarks/measuring.py")
Cost = measuring.Cost
million = load_script("results/benchmarks/score_million.py")


def test_the_page_shows_what_the_files_say():
    page = measuring.PAGE.read_text(encoding="utf-8")
    assert measuring.page(page) == page, "run: python results/benchmarks/measuring.py"


def test_the_table_has_ratios_seconds_and_what_was_not_measured(tmp_path, capsys):
    lines = [
        measuring.ratio("ours", "a peer", Cost(2.0, 1.0), Cost(5.0, 1.5)),
        measuring.share("a part", "its whole", 0.25, Cost(4.0, 2.0)),
        measuring.ratio("on a GPU", "an engine", Cost(None, 2.0), Cost(None, 1.0)),
    ]
    path = measuring.write_report("engines", {"samples": 3}, lines, tmp_path / "engines.json")
    report = json.loads(path.read_text(encoding="utf-8"))
    assert report["settings"] == {"samples": 3}
    assert report["hardware"]["cpu_count"] and report["versions"]["python"] and report["date"]
    assert "ours, a peer: 2.50 × CPU, 1.50 × wall" in capsys.readouterr().out
    table = measuring.table(tmp_path)
    assert "| ours | a peer | 2.50 × | 1.50 × | 2 / 5 | 1 / 1.5 |" in table
    assert "| a part | its whole | – | 12.5 % | – / 4 | 0.25 / 2 |" in table
    assert "| on a GPU | an engine | – | 0.50 × | – / – | 2 / 1 |" in table
    assert "| `gpu` | not measured: no GPU has run `gpu.sh` yet | | | | |" in table
    assert "| `score_million` | not measured: run `score_million.py` | | | | |" in table


def test_turns_alternate_and_medians_are_of_each_kind():
    order: list[str] = []
    costs = {"a": iter([(1, 9), (5, 1), (2, 2)]), "b": iter([(0, 0)] * 3)}

    def call(name):
        order.append(name)
        return Cost(*next(costs[name]))

    found = measuring.alternating({name: lambda n=name: call(n) for name in costs}, 3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert measuring.median(found["a"]) == Cost(2, 2)


@pytest.mark.parametrize(
    "text",
    [
        "(1,2),(300,400)",
        "first (1,2),(3,4) then (5, 6), (700, 800)",
        "a (1,2),(3,4) b (5,6),(7,8) c (9,10),(11,12)",
        "[1, 2, 300, 400]",
        "[0.1, 0.2, 0.3, 0.4]",
        "<box>1 2 300 400</box>",
        "none",
    ],
)
def test_the_released_rule_written_anew_reads_what_the_protocol_reads(text):
    answer = parse_answer(text, None, protocol="univg-r1")
    expected = (0, 0, 0, 0) if answer.box is None else [round(1000 * v) for v in answer.box]
    assert million.released_box(text) == list(expected)
