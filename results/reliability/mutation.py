"""Which small faults in the scoring core would no test find?

    python results/reliability/mutation.py [MODULE …] [--jobs 2] [--again]

Each mutant is a module with one operator or number changed. The tests of the module are run on it
until one fails; a mutant that fails none has survived. Writes mutation.json beside this file.
With ``--again`` only mutants like those that survived are tried: after tests were added, or code
was moved.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from univg_eval.files import write_text_atomically
from univg_eval.runs.record import environment

REPO = Path(__file__).resolve().parents[2]
OUT = Path(__file__).with_name("mutation.json")
TESTS = {
    "univg_eval/boxes.py": ("boxes",),
    "univg_eval/matching.py": ("scoring_several", "scoring"),
    "univg_eval/scoring.py": ("scoring", "scoring_several", "runs_record"),
    "univg_eval/protocols.py": ("protocols", "answers"),
    "univg_eval/answers.py": ("answers", "protocols", "dialects_replies"),
    "univg_train/rewards.py": ("train_rewards", "train_several"),
    "univg_train/difficulty.py": ("train_difficulty",),
}
"""The tests that are run on the mutants of each module: tests/test_NAME.py."""
SECONDS = 240
"""A mutant whose tests take longer does not end, which is found; counted as ``timed_out``."""
Outcome = Literal["killed", "survived", "timed_out"]
OTHERS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.And: ast.Or,
    ast.Or: ast.And, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


def mutants(source: str) -> Iterator[tuple[int, str, str]]:
    """(line, what is changed, the changed module) of each mutant."""
    tree = ast.parse(source)
    typing = {
        id(part)
        for node in ast.walk(tree)
        for name in ("annotation", "returns")
        if isinstance(getattr(node, name, None), ast.AST)
        for part in ast.walk(getattr(node, name))
    }
    for number, node in enumerate(ast.walk(tree)):
        if id(node) in typing:
            continue
        for place, what in enumerate(_changes(node)):
            twin = copy.deepcopy(tree)
            changed = next(n for i, n in enumerate(ast.walk(twin)) if i == number)
            _change(changed, place)
            yield node.lineno, f"{what}: {ast.unparse(changed)}", ast.unparse(twin)


def _changes(node: Any) -> list[str]:
    """What can be changed in a node, one word or two each."""
    match node:
        case ast.Compare(ops=ops):
            return [f"{type(op).__name__} {OTHERS[type(op)].__name__}" for op in ops]
        case ast.BinOp(op=op) | ast.BoolOp(op=op) if type(op) in OTHERS:
            return [f"{type(op).__name__} {OTHERS[type(op)].__name__}"]
        case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
            return [f"{node.value} + 1"]
        case ast.UnaryOp(op=ast.Not()):
            return ["without not"]
    return []


def _change(node: Any, place: int) -> None:
    match node:
        case ast.Compare():
            node.ops[place] = OTHERS[type(node.ops[place])]()
        case ast.Constant():
            node.value += 1
        case ast.UnaryOp():
            node.op = ast.UAdd()
            node.operand = ast.Call(ast.Name("bool", ast.Load()), [node.operand], [])
        case _:
            node.op = OTHERS[type(node.op)]()


def outcome(checkout: Path, module: str, source: str) -> Outcome:
    """What the tests of a module make of a changed source of it, in a copy of the project."""
    whole = (checkout / module).read_text(encoding="utf-8")
    (checkout / module).write_text(source, encoding="utf-8")
    files = [f"tests/test_{name}.py" for name in TESTS[module]]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files]
    environment = os.environ | {"PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=checkout,
            env=environment,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "timed_out"
    finally:
        (checkout / module).write_text(whole, encoding="utf-8")
    return "survived" if done.returncode == 0 else "killed"


def main() -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(TESTS)}")
    parser.add_argument("--jobs", type=int, default=2, help="mutants side by side")
    parser.add_argument("--again", action="store_true", help="only mutants like the survivors")
    args = parser.parse_args()
    unknown = [module for module in args.modules if module not in TESTS]
    if unknown:
        parser.error(f"{unknown[0]} has no tests named here; expected one of {', '.join(TESTS)}")
    known = json.loads(OUT.read_text(encoding="utf-8")) if OUT.is_file() else {}
    with tempfile.TemporaryDirectory() as work:
        copies = [Path(work) / str(number) for number in range(args.jobs)]
        for folder in copies:
            ignored = shutil.ignore_patterns(".*", "site")
            shutil.copytree(REPO, folder, ignore=ignored)
        for module in args.modules or TESTS:
            earlier = known[module]["survivors"] if args.again else None
            known[module] = _try_all(module, copies, earlier) | {
                "date": datetime.now(UTC).date().isoformat(),
                **environment(),
            }
            write_text_atomically(OUT, [json.dumps(known, indent=1) + "\n"])
    return 0


def _try_all(
    module: str, copies: list[Path], earlier: list[dict[str, Any]] | None
) -> dict[str, Any]:
    source = (REPO / module).read_text(encoding="utf-8")
    if outcome(copies[0], module, source) != "survived":
        raise SystemExit(f"the tests of {module} fail before it is changed")
    started, free = time.perf_counter(), list(copies)

    def attempt(mutant: tuple[int, str, str]) -> tuple[Outcome, dict[str, Any]]:
        line, what, changed = mutant
        folder = free.pop()
        try:
            return outcome(folder, module, changed), {"line": line, "change": what}
        finally:
            free.append(folder)

    listed = list(mutants(source))
    n_mutants = len(listed)
    if earlier is not None:
        changes = {mutant["change"] for mutant in earlier}
        listed = [mutant for mutant in listed if mutant[1] in changes]
    with ThreadPoolExecutor(len(copies)) as pool:
        attempts = list(pool.map(attempt, listed))
    survivors = [mutant for result, mutant in attempts if result == "survived"]
    figures = {
        "mutants": n_mutants,
        "survived": len(survivors),
        "timed_out": sum(result == "timed_out" for result, _ in attempts),
    }
    sys.stderr.write(f"{module}: {len(survivors)} of {n_mutants} survived\n")
    return figures | {"survivors": survivors, "seconds": round(time.perf_counter() - started)}


if __name__ == "__main__":
    sys.exit(main())
