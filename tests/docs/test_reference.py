"""Every public name is in the reference, and its docstring says what a user asks first."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

import st_vi
from tests.docs.conftest import DOCS, PAGES, RUN, blocks
from tests.docs.public import PUBLIC, ROOMS

REFERENCE = "\n".join(page.read_text(encoding="utf-8") for page in sorted((DOCS / "reference").glob("*.md")))
SHOWN = set(re.findall(r"^::: (\S+)", REFERENCE, re.MULTILINE))

OBJECTS = {f"{room}.{name}": getattr(importlib.import_module(room), name) for room, name in PUBLIC}
DOCUMENTED = {path: value for path, value in OBJECTS.items() if inspect.isclass(value) or inspect.isfunction(value)}

AS_ANOTHER = re.compile(r"^(?:As|Works like) `(\w+)`", re.MULTILINE)  # arguments are told there

TOLD = re.compile(r"^    \*{0,2}(\w+):", re.MULTILINE)  # an argument

# Records that functions return, and nobody makes.
RETURNED = {"st_vi.terms.View"}

# What they take is in their first sentence.
ONE_ARGUMENT = {f"st_vi.data.{name}" for name in ("combine_rows", "split_by_task", "strip_diacritics", "swap_negation")}
ONE_ARGUMENT |= {f"st_vi.text.{name}" for name in ("is_blank", "is_unicode", "mend", "normalise", "strip_diacritics")}


def used_on_pages() -> set[str]:
    """Names that code which runs on a page of the documentation makes use of."""
    trees = (ast.parse(block.code) for page in PAGES for block in blocks(page, RUN))
    return {node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)}


def imports(text: str) -> list[tuple[str, str]]:
    """Module and name of what an example imports from st_vi."""
    lines = re.findall(r"^[ \t]*(?:>>> )?from (st_vi[\w.]*) import ([^\n#]+)", text, re.MULTILINE)
    return [(module, name) for module, names in lines for name in re.findall(r"\w+", names)]


@pytest.mark.slow
def test_examples_import_a_public_name_from_where_it_is_public():
    """Other paths are not promised."""
    rooms: dict[str, set[str]] = {}
    for room, name in PUBLIC:
        rooms.setdefault(name, set()).add(room)
    texts = {page.name: page.read_text(encoding="utf-8") for page in PAGES if page.name != "benchmarks.md"}
    for file in Path(st_vi.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                texts[f"{file.name}, {getattr(node, 'name', '')}"] = ast.get_docstring(node) or ""
    found = [(where, *pair) for where, text in texts.items() for pair in imports(text)]
    assert len(found) > 200
    assert not [(where, module, name) for where, module, name in found if module not in rooms.get(name, {module})]


def test_every_room_has_its_reference():
    assert {"st_vi.terms", "st_vi.losses", "st_vi.data"} <= set(ROOMS)
    assert not set(ROOMS) - SHOWN


@pytest.mark.parametrize("name", st_vi.__all__)
def test_the_front_page_of_the_reference_names_what_st_vi_names(name):
    table = (DOCS / "reference" / "index.md").read_text(encoding="utf-8")
    assert re.search(rf"`{name}`", table)


@pytest.mark.parametrize("path", DOCUMENTED)
def test_docstring_begins_with_a_sentence(path):
    first = (inspect.getdoc(DOCUMENTED[path]) or "").split("\n\n")[0].strip()
    assert first and first[-1] in ".:", f"{path}: {first!r}"


@pytest.mark.parametrize("path", sorted(set(DOCUMENTED) - RETURNED - ONE_ARGUMENT))
def test_docstring_tells_the_arguments(path):
    value, doc = DOCUMENTED[path], inspect.getdoc(DOCUMENTED[path])
    if inspect.signature(value).parameters:
        assert re.search(r"^(Args|Attributes):$", doc, re.MULTILINE) or AS_ANOTHER.search(doc)


@pytest.mark.slow
def test_no_docstring_tells_an_argument_that_is_not_there():
    wrong = []
    for file in sorted(Path(st_vi.__path__[0]).rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if "Args:" in text else ():
            doc = ast.get_docstring(node) if isinstance(node, ast.FunctionDef | ast.ClassDef) else None
            if not (told := re.search(r"^Args:\n((?:    .*\n?|\n)+)", doc or "", re.MULTILINE)):
                continue
            made = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
            for takes in [node] if isinstance(node, ast.FunctionDef) else made:
                names = {argument.arg for argument in ast.walk(takes.args) if isinstance(argument, ast.arg)}
                wrong += [(file.name, node.name, name) for name in TOLD.findall(told[1]) if name not in names]
    assert not wrong


@pytest.mark.parametrize("path", sorted(set(DOCUMENTED) - RETURNED))
def test_there_is_an_example(path):
    """In the docstring, where pytest runs it, or on a page."""
    example = re.search(r"^Example:\n\s+>>> ", inspect.getdoc(DOCUMENTED[path]), re.MULTILINE)
    assert example or path.rpartition(".")[2] in used_on_pages(), f"{path} has no example"
