"""What st_vi stands on is declared and told; and the tool that changes code to test the tests does change it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.trust.mutate import compiled, mutants, told

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
NAMED_OTHERWISE = {"PIL": "pillow", "sklearn": "scikit-learn", "umap": "umap-learn", "faiss": "faiss-cpu"}
NAMED_OTHERWISE |= {"font_source_sans_pro": "font-source-sans-pro", "font_source_serif_pro": "font-source-serif-pro"}
# What packages of the extras bring: optimum-intel, which "sentence-transformers[openvino]" takes, and ipywidgets.
BROUGHT_BY_EXTRAS = {"openvino", "traitlets"}


def name_of(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


CORE = {name_of(requirement) for requirement in PROJECT["dependencies"]}
# What these always bring along, and every program that uses them imports.
BROUGHT = {name_of(line) for core in CORE for line in requires(core) or () if "extra ==" not in line}
VIZ = ("st_vi/viz/", "st_vi/stock/figures.py", "st_vi/stock/renderers.py")
EXTRA = {name_of(requirement) for extra in EXTRAS.values() for requirement in extra} - {"st-vi"}


def modules_of(nodes: Iterable[ast.AST]) -> set[str]:
    """What these nodes import from outside, by the first part of the name."""
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return {name.split(".")[0] for name in names} - {*sys.stdlib_module_names, "st_vi", ""}


def package_of(module: str) -> str:
    return NAMED_OTHERWISE.get(module, module.replace("_", "-"))


TREES = {
    str(file.relative_to(ROOT)): ast.parse(file.read_text(encoding="utf-8")) for file in (ROOT / "st_vi").rglob("*.py")
}


def test_what_is_imported_is_declared():
    declared = CORE | BROUGHT | EXTRA | BROUGHT_BY_EXTRAS
    used = {file: {package_of(module) for module in modules_of(list(ast.walk(tree)))} for file, tree in TREES.items()}
    assert not {file: packages - declared for file, packages in used.items() if packages - declared}


def test_the_core_needs_no_extra():
    """Only what the notebooks use imports, outside of functions, what an extra brings."""
    used = {file: {package_of(module) for module in modules_of(tree.body)} for file, tree in TREES.items()}
    extra = {file: packages - CORE - BROUGHT for file, packages in used.items() if not file.startswith(VIZ)}
    assert not {file: packages for file, packages in extra.items() if packages}


def test_every_requirement_has_a_lower_bound_and_no_pin():
    requirements = [*PROJECT["dependencies"], *(r for extra in EXTRAS.values() for r in extra)]
    assert not [r for r in requirements if not r.startswith("st-vi[") and (">=" not in r or "==" in r)]


def test_the_page_says_why_each_package_is_there():
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    assert not [name for name in sorted(CORE | EXTRA) if f"`{name}`" not in page]


def test_the_page_for_beginners_has_every_extra():
    page = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == set(EXTRAS)


def test_the_page_of_clients_has_the_committed_versions():
    if not (ROOT / "constraints.txt").is_file():
        pytest.skip("not in a checkout")
    pins = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line]
    page = (ROOT / "docs" / "use-it-with.md").read_text(encoding="utf-8")
    told = re.findall(r"([a-z-]+) (\d+\.\d+)(?=[, ])", "".join(re.findall(r"^\|.*\n", page, re.MULTILINE)))
    told.remove(("langchain-huggingface", "1.2"))  # conflicts with the others, and was tested apart
    assert len(told) == 8
    assert not [pair for pair in told if not any(pin.startswith("{}=={}.".format(*pair)) for pin in pins)]


@pytest.mark.parametrize("file", ["constraints.txt", ".ci/openvino.txt"])
def test_the_committed_versions_are_exact_and_fit(file):
    """Every requirement of the extras that a file is for has one version that its bounds allow, and no address."""
    if not (ROOT / file).is_file():
        pytest.skip("not in a checkout")
    first, *lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines]
    assert all(re.fullmatch(r"==[\w.!+-]+", str(pin.specifier)) and pin.url is None for pin in pins)
    here = {
        canonicalize_name(pin.name): str(pin.specifier)[2:] for pin in pins if not pin.marker or pin.marker.evaluate()
    }
    extras = re.search(r"the extras: ([\w, ]+)\.", first)[1].replace(",", "").split()
    wanted = [Requirement(line) for line in PROJECT["dependencies"]]
    while extras:  # those that are named by another extra, too
        for requirement in map(Requirement, EXTRAS[extras.pop()]):
            own = canonicalize_name(requirement.name) == "st-vi"
            extras += requirement.extras if own else ()
            wanted += [] if own else [requirement]
    unfit = [str(r) for r in wanted if not r.specifier.contains(here.get(canonicalize_name(r.name), "0"))]
    assert not unfit


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
