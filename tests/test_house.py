"""The map of rooms in `docs/house.md` is what the imports say: no arrow up, no circle.

``ST_VI_ACCEPT_HOUSE=1 pytest tests/test_house.py`` writes the table of the page anew.
"""

from __future__ import annotations

import ast
import os
import re
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "house.md"
BEGIN, END = "<!-- rooms -->\n", "<!-- /rooms -->\n"

# Ground floor first. A room imports rooms of lower floors and no other.
FLOORS = (
    ("checks",),
    ("files", "identity", "stock", "terms", "text", "version", "vocabulary"),
    ("inputs", "model_files", "tasks"),
    ("evaluation", "losses", "modules"),
    ("data", "graphs", "inspection"),
    ("hub", "viz"),
    ("encoding",),
    ("recipes",),
    ("cli",),
    ("__main__",),
)


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted((ROOT / "st_vi").rglob("*.py"))}


@cache
def imports(path: Path) -> set[str]:
    """The modules of this package that a file imports, at its top or in a function; not those for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "st_vi":
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in MODULES else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in MODULES}
    return found


def room_of(module: str) -> str:
    """The folder or file right below `st_vi`."""
    return module.split(".")[1]


@cache
def arrows() -> dict[str, set[str]]:
    """Room → the rooms it imports. The front door, which names what users import, is in no room."""
    rooms: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        if module != "st_vi":
            targets = {room_of(target) for target in imports(path) if target != "st_vi"}
            rooms.setdefault(room_of(module), set()).update(targets - {room_of(module)})
    return rooms


def test_no_room_imports_one_on_its_own_floor_or_above():
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    assert set(arrows()) == set(floor), "every room has a floor"
    up = [
        f"{room} imports {target}"
        for room, targets in arrows().items()
        for target in targets
        if floor[target] >= floor[room]
    ]
    assert not up


def test_no_room_reads_the_front_door():
    assert [module for module, path in MODULES.items() if "st_vi" in imports(path)] == []


def test_no_modules_import_each_other_in_a_circle():
    packages = {module for module, path in MODULES.items() if path.name == "__init__.py"}
    graph = {module: imports(path) - packages - {module} for module, path in MODULES.items() if module not in packages}
    list(TopologicalSorter(graph).static_order())  # raises CycleError, with the circle


def files_of(path: Path) -> str:
    """How many files a room has, and the rooms in it."""
    if path.name != "__init__.py":
        return "1"
    rooms = sorted({file.parent for file in path.parent.rglob("*.py")})
    own, *inner = (f"{len(list(room.glob('*.py')))}" + f" in `{room.name}/`" * (room != path.parent) for room in rooms)
    return ", ".join([own, *inner])


def table() -> str:
    lines = ["| floor | room | what lives there | files | imports |", "|---|---|---|---|---|"]
    for number, rooms in enumerate(FLOORS):
        for room in rooms:
            path = MODULES[f"st_vi.{room}"]
            shown = f"`{room}/`" if path.name == "__init__.py" else f"`{room}.py`"
            what = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
            below = ", ".join(f"`{target}`" for target in sorted(arrows()[room])) or "–"
            what = " ".join(what.split()).replace("|", "\\|")
            lines.append(f"| {number} | {shown} | {what} | {files_of(path)} | {below} |")
    return "\n".join(lines) + "\n"


def test_the_page_shows_the_rooms_as_they_are():
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    expected = f"{before}{BEGIN}\n{table()}\n{END}{after}"
    if os.environ.get("ST_VI_ACCEPT_HOUSE"):
        PAGE.write_text(expected, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == expected, "ST_VI_ACCEPT_HOUSE=1 writes the table anew"


def test_no_test_takes_from_another():
    """What several need is in a conftest or in `tests/helpers`."""
    taken = re.compile(r"(?:from|import) tests(?:\.\w+)*(?:\.| import )test_\w+")
    files = [path for path in sorted((ROOT / "tests").rglob("*.py")) if path != Path(__file__)]
    assert not [str(path) for path in files if taken.search(path.read_text(encoding="utf-8"))]
