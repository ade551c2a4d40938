"""Mutation testing: does a small change of the code make a test fail? A command, not a test.

    python -m tests.trust.mutate st_vi/terms st_vi/losses --sample 20 --seed 0

A mutant is a file with one change: a comparison, an operator, a number, a condition or a mask turned around, or a call
such as ``.clamp(min=0)``, ``.detach()`` or ``.masked_fill(…)`` left out. It lives in a fork, in the place of the file,
and nothing is written. It is killed if a test of the file fails. Messages of errors are left as they are, and so are
defaults of arguments and fields, which `api.txt` guards.
"""

from __future__ import annotations

import argparse
import ast
import gc
import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType

import pytest

ROOT = Path(__file__).parents[2]
LEFT_OUT = {"abs", "bool", "clamp", "clamp_", "detach", "double", "flip", "float", "masked_fill", "maximum", "minimum"}
LEFT_OUT |= {"nan_to_num", "sqrt", "to"}
SWAPS: dict[type[ast.AST], list[type[ast.AST]]] = {
    ast.Lt: [ast.LtE, ast.GtE],
    ast.LtE: [ast.Lt, ast.Gt],
    ast.Gt: [ast.GtE, ast.LtE],
    ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
    ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
    ast.Add: [ast.Sub],
    ast.Sub: [ast.Add],
    ast.Mult: [ast.Div],
    ast.Div: [ast.Mult],
    ast.FloorDiv: [ast.Mult],
    ast.Mod: [ast.FloorDiv],
    ast.Pow: [ast.Mult],
    ast.BitAnd: [ast.BitOr],
    ast.BitOr: [ast.BitAnd],
    ast.BitXor: [ast.BitOr],
    ast.RShift: [ast.LShift],
    ast.And: [ast.Or],
    ast.Or: [ast.And],
}
KEPT = (ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom, ast.arguments)
KEPT_FIELDS = {"annotation", "returns", "decorator_list"}
# Other tests of a file than the one of its name.
TESTS = {
    "contrastive": ["test_contrastive", "test_scored"],
    "content": ["test_supcon_nli"],
    "grad_cache": ["test_cached"],
    "inputs": ["test_embed"],
    "pairs": ["test_pairs", "test_contrastive", "test_scored"],
}

Mutant = tuple[ast.AST, str, int | None, ast.AST]  # a node, its field, the place in a list, and what comes there


def mutants(node: ast.AST) -> Iterator[Mutant]:
    """All of a tree, in the order of the code."""
    for field, value in ast.iter_fields(node):
        for place, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            is_field = isinstance(node, ast.ClassDef) and isinstance(child, ast.AnnAssign)
            if isinstance(child, ast.AST) and not isinstance(child, KEPT) and field not in KEPT_FIELDS and not is_field:
                yield from ((node, field, place, other) for other in changed(child))
                yield from mutants(child)


def changed(node: ast.AST) -> Iterator[ast.AST]:
    """What can stand in the place of a node."""
    match node:
        case ast.Compare():
            for place, operator in enumerate(node.ops):
                for other in SWAPS[type(operator)]:
                    yield _with(node, ops=[*node.ops[:place], other(), *node.ops[place + 1 :]])
        case ast.BinOp() | ast.AugAssign() | ast.BoolOp():
            yield from (_with(node, op=other()) for other in SWAPS.get(type(node.op), []))
        case ast.UnaryOp(op=ast.USub() | ast.Invert() | ast.Not()):
            yield node.operand
        case ast.If() | ast.IfExp() | ast.While() if not isinstance(node.test, ast.Compare | ast.UnaryOp):
            yield _with(node, test=ast.UnaryOp(ast.Not(), node.test))
        case ast.Constant(value=bool()):
            yield _with(node, value=not node.value)
        case ast.Constant(value=int() | float()):
            is_one, step = node.value == 1, 1 if isinstance(node.value, int) else 0.5
            yield _with(node, value=node.value - step if is_one else node.value + step)
        case ast.Call(func=ast.Attribute(attr=name)) if name in LEFT_OUT:
            yield node.func.value


def _with(node: ast.AST, **fields: object) -> ast.AST:
    return type(node)(**{**dict(ast.iter_fields(node)), **fields})


def told(mutant: Mutant) -> str:
    """The line, and its two versions."""
    node, field, place, other = mutant
    old = getattr(node, field) if place is None else getattr(node, field)[place]
    before, after = (ast.unparse(ast.fix_missing_locations(part)).split("\n")[0] for part in (old, other))
    return f"{old.lineno}: {before}  →  {after}"


def compiled(tree: ast.Module, mutant: Mutant, file: str) -> CodeType:
    node, field, place, other = mutant
    if place is None:
        setattr(node, field, other)
    else:
        getattr(node, field)[place] = other
    return compile(ast.fix_missing_locations(tree), file, "exec")


def outcome(module: str, code: CodeType | None, tests: Sequence[str], limit: float) -> str:
    """What the tests say, in a process of its own, to this code in the place of the module's; None is the module's."""
    child = os.fork()
    if child == 0:
        _run(module, code, tests)
    end = time.monotonic() + limit
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return {0: "survived", 1: "killed", 2: "killed"}.get(os.waitstatus_to_exitcode(status), "killed (crash)")
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "killed (time)"
        time.sleep(0.02)


def _run(module: str, code: CodeType | None, tests: Sequence[str]) -> None:
    stock = SourceFileLoader.get_code
    if code is not None:
        SourceFileLoader.get_code = lambda self, name: code if name == module else stock(self, name)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    # Plain asserts: to rewrite them, pytest would load what it is given, the file among it, by a loader of its own.
    options = ["-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "-o", "addopts=--doctest-modules"]
    os._exit(int(pytest.main([*options, *tests])))


def tests_of(file: Path) -> tuple[str, ...]:
    """Those of the file, and the examples of its docstrings."""
    named = TESTS.get(file.stem, [f"test_{file.stem}"]) + ["test_arguments"] * (file.parent.name == "terms")
    return (*(str(ROOT / "tests" / file.parent.name / f"{name}.py") for name in named), str(file))


def seconds(tests: tuple[str, ...]) -> float:
    """How long they take without any change; they must pass."""
    began = time.monotonic()
    if outcome("", None, tests, 3600) != "survived":
        raise SystemExit(f"these tests fail without any change: {' '.join(tests)}")
    return time.monotonic() - began


def preload() -> None:
    """Import what the tests import, and forget what is ours: a fork then imports little."""
    for room in ("terms", "losses"):
        for test in (ROOT / "tests" / room).glob("test_*.py"):
            __import__(f"tests.{room}.{test.stem}")
    for name in [name for name in sys.modules if name.split(".")[0] in ("st_vi", "tests")]:
        del sys.modules[name]
    gc.freeze()  # else every fork copies what its garbage collector looks at


def try_file(file: Path, sample: int | None, seed: int) -> tuple[int, int, int]:
    """Prints the survivors of a file; returns how many mutants there are, how many were tried, and killed."""
    module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
    count = len(list(mutants(ast.parse(file.read_text(encoding="utf-8")))))
    chosen = sorted(random.Random(f"{seed} {module}").sample(range(count), min(sample or count, count)))
    tests, killed = tests_of(file), 0
    limit = 30 + 5 * seconds(tests)
    for number in chosen:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        mutant = list(mutants(tree))[number]
        text, code = told(mutant), compiled(tree, mutant, str(file))
        if outcome(module, code, tests, limit) != "survived":
            killed += 1
        else:
            print(f"    {module} {number}, line {text}", flush=True)
    return count, len(chosen), killed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, help="files, or folders of files")
    parser.add_argument("--sample", type=int, help="so many mutants of each file; all without")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    arguments = parser.parse_args()
    preload()
    for path in arguments.paths:
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            if file.name != "__init__.py":
                count, tried, killed = try_file(file.resolve(), arguments.sample, arguments.seed)
                print(f"{file}: {count} mutants, {tried} tried, {killed} killed", flush=True)


if __name__ == "__main__":
    main()
