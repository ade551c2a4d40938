"""Private names of other libraries, and patches of them, are in `st_vi/stock/` and nowhere else."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STOCK = ROOT / "st_vi" / "stock"
FILES = [path for path in sorted((ROOT / "st_vi").rglob("*.py")) if STOCK not in path.parents]
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
BY_NAME = {"delattr", "getattr", "hasattr", "setattr"}


def is_private(name: str) -> bool:
    """One underscore in front; documented as public are ``_repr_html_`` and its kin, and what named tuples have."""
    if name in ("_asdict", "_fields", "_make", "_replace"):
        return False
    return name.startswith("_") and not name.startswith("__") and not (name.startswith("_repr_") and name[-1] == "_")


def defined(tree: ast.AST) -> set[str]:
    """Names that a file makes: functions, classes, parameters, and what it assigns to (``x = …``, ``self.x = …``)."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            names.add(node.attr)
    return names


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def foreign_names(tree: ast.AST) -> set[str]:
    """What a file imports from elsewhere, by the names under which it uses it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] not in ("st_vi", "__future__"):
            names |= {alias.asname or alias.name for alias in node.names}
    return names - {"st_vi"}


def faults(tree: ast.AST, ours: set[str]) -> Iterator[str]:
    """Uses of private names that are not ours, and assignments to what is imported.

    Args:
        tree: A file.
        ours: Names that the package defines; a subclass may use what its base in another file has.
    """
    here, foreign = defined(tree), foreign_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module = getattr(node, "module", None) or ""
            paths = [f"{module}.{alias.name}" if module else alias.name for alias in node.names]
            for path in paths:
                if path.split(".")[0] != "__future__" and any(map(is_private, path.split("."))):
                    yield f"line {node.lineno}: imports {path}"
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            of_self = is_self(node.value) or ast.unparse(node.value) == "super()"
            if node.attr not in (here | ours if of_self else here):
                yield f"line {node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in BY_NAME:
            target, name = node.args[0], node.args[1]
            if isinstance(name, ast.Constant) and is_private(str(name.value)) and name.value not in here:
                yield f"line {node.lineno}: {ast.unparse(node)}"
            if node.func.id in ("delattr", "setattr") and root(target) in foreign:
                yield f"line {node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load) and root(node) in foreign:
            yield f"line {node.lineno}: sets {ast.unparse(node)}"


def root(node: ast.expr) -> str:
    """The name at the beginning of ``a.b[c].d``."""
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


OURS = set().union(*map(defined, TREES.values()))


def test_no_other_room_uses_a_private_name_or_patches():
    found = {str(path.relative_to(ROOT)): list(faults(tree, OURS)) for path, tree in TREES.items()}
    assert not {path: lines for path, lines in found.items() if lines}


def overridden(tree: ast.Module, module: str) -> Iterator[str]:
    """Private names in a class body that a base class from another library has, too."""
    for node in tree.body:
        private = {name for name in defined(node) if is_private(name)} if isinstance(node, ast.ClassDef) else set()
        if private:
            cls = getattr(importlib.import_module(module), node.name)
            bases = [base for base in cls.__mro__[1:] if base.__module__.split(".")[0] != "st_vi"]
            yield from (f"{node.name}.{name}" for name in private for base in bases if name in vars(base))


def test_no_other_room_overrides_a_private_name():
    for extra in ("plotly", "anywidget", "umap"):
        pytest.importorskip(extra)
    found = {}
    for path, tree in TREES.items():
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found[module] = list(overridden(tree, module))
    assert not {module: names for module, names in found.items() if names}


@pytest.mark.parametrize(
    "code",
    [
        "from torch import _C",
        "import torch._dynamo",
        "from torch._dynamo import config",
        "def f(model): return model._resolve_prompt(None, None)",
        "from plotly import graph_objects as go\ngo.FigureWidget._esm",
        "class A(B):\n    def f(self): return self._message_skeleton()",
        "class A(B):\n    def f(self): return super()._load_config()",
        'def f(model): return getattr(model, "_orig_mod", model)',
        "import json\njson.dumps = print",
        "from transformers import AutoModel\nAutoModel.from_pretrained = None",
        'import json\nsetattr(json, "dumps", print)',
        "import json\ndel json.dumps",
    ],
)
def test_the_search_finds(code):
    assert list(faults(ast.parse(code), set()))


@pytest.mark.parametrize(
    "code",
    [
        "from __future__ import annotations",
        "def _f(): ...\n_f()",
        "class A:\n    def f(self, other):\n        self._x = 1\n        return other._x",
        "class A(B):\n    def f(self): return self._of_our_base",
        "class A(B):\n    def _repr_html_(self): return super()._repr_html_()",
        'import torch\nx = torch.ones(1)\nx.name = "a"\nsetattr(x, "name", "b")',
    ],
)
def test_the_search_leaves_alone(code):
    assert not list(faults(ast.parse(code), {"_of_our_base"}))


def test_the_search_finds_an_override(tmp_path, monkeypatch):
    (tmp_path / "sample.py").write_text("import json\nclass A(json.JSONEncoder):\n    _one = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("json.JSONEncoder._one", 0, raising=False)
    assert list(overridden(ast.parse((tmp_path / "sample.py").read_text()), "sample")) == ["A._one"]
