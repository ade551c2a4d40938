"""What st_vi stands on is declared and told; and the tool that changes code to test the tests does change it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest

from tests.trust.mutate import compiled, mutants, told

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
NAMED_OTHERWISE = {"PIL": "pillow", "sklearn": "scikit-learn", "umap": "umap-learn"}
NAMED_OTHERWISE |= {"font_source_sans_pro": "font-source-sans-pro", "font_source_serif_pro": "font-source-serif-pro"}
OF_EXTRAS_OF_OTHERS = {"openvino"}  # of optimum-intel, which "sentence-transformers[openvino]" takes


def name_of(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


CORE = {name_of(requirement) for requirement in PROJECT["dependencies"]}
# What these always bring along, and every program that uses them imports.
BROUGHT = {name_of(line) for core in CORE for line in requires(core) or () if "extra ==" not in line}
EXTRA = {name_of(requirement) for extra in EXTRAS.values() for requirement in extra} - {"st-vi"}


def imported() -> dict[str, set[str]]:
    """Every module from outside that st_vi imports, by its first name, and the files that do."""
    found: dict[str, set[str]] = {}
    for file in (ROOT / "st_vi").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            for name in names:
                found.setdefault(name.split(".")[0], set()).add(str(file.relative_to(ROOT)))
    return {name: files for name, files in found.items() if name not in {*sys.stdlib_module_names, "st_vi"}}


def test_what_is_imported_is_declared():
    modules = imported()
    assert {"torch", "sentence_transformers", "plotly"} <= modules.keys()
    known = CORE | BROUGHT | EXTRA | OF_EXTRAS_OF_OTHERS
    missing = {m: files for m, files in modules.items() if NAMED_OTHERWISE.get(m, m.replace("_", "-")) not in known}
    assert not missing, f"imported, and in no list of pyproject.toml: {missing}"


def test_the_core_needs_no_extra():
    """Outside of functions only the viz room, the notebooks' own, imports what an extra brings."""
    for module, files in imported().items():
        if NAMED_OTHERWISE.get(module, module.replace("_", "-")) in CORE | BROUGHT:
            continue
        for file in (file for file in files if not file.startswith("st_vi/viz/")):
            for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert module not in {name.split(".")[0] for name in names}, f"{file} imports {module} for everybody"


@pytest.mark.parametrize("requirement", [*PROJECT["dependencies"], *(r for extra in EXTRAS.values() for r in extra)])
def test_every_requirement_has_a_lower_bound_and_no_pin(requirement):
    assert requirement.startswith("st-vi[") or (">=" in requirement and "==" not in requirement)


@pytest.mark.parametrize("name", sorted(CORE | EXTRA))
def test_the_page_says_why_it_is_there(name):
    assert f"`{name}`" in (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")


def test_types_are_shipped():
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    assert "py.typed" in data["st_vi"] and (ROOT / "st_vi" / "py.typed").is_file()


CODE = '''
def f(x: int = 1, *, y=True) -> int:
    """No 1 of this."""
    if x < 2:
        raise ValueError("below 2 + 2")
    return ~x.clamp(min=0) if y else x
'''


def test_mutants_change_what_they_say():
    changes = [told(mutant) for mutant in mutants(ast.parse(CODE))]
    assert changes == [
        "4: x < 2  →  x <= 2",
        "4: x < 2  →  x >= 2",
        "4: 2  →  3",
        "6: ~x.clamp(min=0) if y else x  →  ~x.clamp(min=0) if not y else x",
        "6: ~x.clamp(min=0)  →  x.clamp(min=0)",
        "6: x.clamp(min=0)  →  x",
        "6: 0  →  1",
    ]
    tree = ast.parse("def f(x):\n    return x + 2 * 3")
    results = set()
    for number in range(len(list(mutants(tree)))):
        tree = ast.parse("def f(x):\n    return x + 2 * 3")
        names: dict = {}
        exec(compiled(tree, list(mutants(tree))[number], "f.py"), names)
        results.add(names["f"](1))
    assert results == {1 - 6, 1 + 2 / 3, 1 + 3 * 3, 1 + 2 * 4}
