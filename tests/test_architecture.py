"""The rooms of the project and the one direction in which they may import each other."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Each room of univg_eval, and the rooms that it may import besides itself. Intervals and tests are
# a room of their own inside analysis/: whoever needs them needs nothing else of it.
STATS = "analysis/stats"
READING = {"errors", "boxes", "dialects", "answers", "protocols"}
SCORING = READING | {"files", "matching", "samples", "scoring"}
RUNS = SCORING | {"redaction", "published_rules"}
CORE = {
    "errors": set(),
    "progress": set(),
    "redaction": set(),
    "files": {"errors"},
    "models": {"errors", "files", "boxes", "dialects"},
    "terminal": {"redaction"},
    "boxes": set(),
    "matching": set(),
    STATS: set(),
    "dialects": {"errors", "boxes"},
    "answers": {"errors", "boxes", "dialects"},
    "protocols": {"errors", "boxes", "dialects", "answers"},
    "samples": {"errors", "files", "boxes"},
    "prompts": {"errors", "boxes", "dialects", "samples"},
    "scoring": READING | {"matching", "samples"},
    "published_rules": READING | {"matching", "samples", "scoring"},
    "images": {"errors", "files", "samples"},
    "benchmarks": {"errors", "files", "boxes", "samples", "images"},
    "points": READING - {"protocols"} | {"files", "samples", "images", "benchmarks"},
    "audit": {"errors", "files", "boxes", "samples", "images", "benchmarks"},
    "runs": RUNS,
    "analysis": RUNS | {STATS, "images", "benchmarks", "runs"},
    "leaderboard": RUNS | {STATS, "terminal", "benchmarks", "runs"},
    "report": RUNS | {STATS, "images", "audit", "runs", "analysis", "leaderboard"},
}
ON_TOP = {"lmms", "cli"}
TRAINING_MAY_NOT = ON_TOP | {"leaderboard", "report"}
EVAL_ROOMS = set(CORE) | ON_TOP
HEAVY = {"torch", "transformers", "lmms_eval", "trl", "datasets", "accelerate", "decord", "av"}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    """Dotted names of the modules that a file imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    type_checking = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    nodes = ast.iter_child_nodes(tree) if top_level_only else ast.walk(tree)
    for node in nodes:
        if id(node) in type_checking:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; imports here are absolute"
            yield node.module or ""
            if node.module == "univg_eval":
                yield from (f"univg_eval.{alias.name}" for alias in node.names)


def room_of(parts: Sequence[str]) -> str:
    """The room of a module below univg_eval, from the parts of its name."""
    return STATS if tuple(parts[:2]) == ("analysis", "stats") else parts[0]


def room(path: Path) -> str:
    return room_of(path.relative_to(ROOT / "univg_eval").with_suffix("").parts)


def test_every_module_has_a_known_room() -> None:
    rooms = {room(path) for path in modules("univg_eval")} - {"__init__", "__main__"}
    assert rooms <= EVAL_ROOMS, f"say in this test where {rooms - EVAL_ROOMS} belongs"


def test_imports_point_one_way() -> None:
    wrong = []
    for path in modules("univg_eval"):
        here = room(path)
        if here not in CORE:
            continue
        for name in imports(path):
            package, *parts = name.split(".")
            if package != "univg_eval" or not parts or parts[0] not in EVAL_ROOMS:
                continue
            if room_of(parts) not in CORE[here] | {here}:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_the_drawn_direction_has_no_circle() -> None:
    done: set[str] = set()
    while ready := {r for r, needs in CORE.items() if r not in done and needs <= done}:
        done |= ready
    assert done == set(CORE)


def test_evaluation_never_imports_training() -> None:
    for path in modules("univg_eval"):
        assert not [n for n in imports(path) if n.split(".")[0] == "univg_train"], path


def test_training_imports_only_the_core() -> None:
    for path in modules("univg_train"):
        for name in imports(path):
            parts = name.split(".")
            assert not (
                parts[0] == "univg_eval" and len(parts) > 1 and parts[1] in TRAINING_MAY_NOT
            ), f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize(
    ("library", "home"), [("lmms_eval", "univg_eval/lmms"), ("trl", "univg_train")]
)
def test_one_room_knows_each_framework(library: str, home: str) -> None:
    for path in modules("univg_eval") + modules("univg_train"):
        if library in {name.split(".")[0] for name in imports(path)}:
            assert path.is_relative_to(ROOT / home), f"{path} imports {library}"


def test_torch_stays_out_of_the_scoring_core() -> None:
    for path in modules("univg_eval"):
        if room(path) in CORE and room(path) not in {"images", "benchmarks", "models"}:
            found = HEAVY & {name.split(".")[0] for name in imports(path)}
            assert not found, f"{path} imports {found}"


def test_tasks_folder_holds_yaml_and_one_readme() -> None:
    names = [p.name for p in (ROOT / "tasks").rglob("*") if p.is_file()]
    assert [n for n in names if not n.endswith((".yaml", ".yml"))] == ["README.md"]


def test_there_is_one_iou() -> None:
    functions = [
        f"{path.relative_to(ROOT)}:{node.name}"
        for path in modules("univg_eval") + modules("univg_train")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and "iou" in node.name.lower().split("_")
    ]
    computing = [name for name in functions if not name.startswith("univg_eval/protocols")]
    assert computing == ["univg_eval/boxes.py:box_iou"]


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        (
            "univg_eval.cli",
            HEAVY | {"numpy", "PIL", "pandas", "pydantic", "scipy", "rich", "matplotlib"},
        ),
        ("univg_train.cli", HEAVY),
    ],
)
def test_help_loads_nothing_heavy(module: str, heavy: set[str]) -> None:
    code = (
        f"import sys\nfrom {module} import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as stop:\n    assert not stop.code\n"
        f"print('HEAVY', sorted({heavy!r} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "HEAVY []"


def test_core_imports_without_the_extras() -> None:
    """A response can be scored without the extras, and without loading pandas, scipy and yaml."""
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ImportError(f"not installed here: {{name}}")
sys.meta_path.insert(0, Refuse())
import univg_eval
answer = univg_eval.parse_answer("(100,200),(300,400)", "qwen2_vl")
assert answer.box == (0.1, 0.2, 0.3, 0.4), answer
import univg_eval.scoring, univg_eval.samples, univg_eval.analysis.stats, univg_eval.prompts
import univg_eval.runs.record, univg_eval.runs.response_file, univg_eval.leaderboard.published
import univg_eval.images.reading, univg_eval.images.controls
from univg_eval.cli import build_parser
build_parser()
assert not {{"pandas", "scipy", "yaml"}} & set(sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_table_of_rooms_is_true() -> None:
    """CONTRIBUTING.md shows what the tests above enforce."""
    rows = re.findall(
        r"^\| `([\w/]+)` \| .+ \| ?(.*?) ?\|$", (ROOT / "CONTRIBUTING.md").read_text(), re.M
    )
    shown: dict[str, set[str]] = {}
    for name, may in rows:  # `room+`: the room and what it may import, by a row above
        named = set(filter(None, may.split(", ")))
        wide = {room[:-1] for room in named if room.endswith("+")}
        shown[name] = {room.removesuffix("+") for room in named}.union(*map(shown.get, wide))
    assert shown == CORE | {room: {"everything"} for room in ON_TOP}
