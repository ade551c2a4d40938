"""Make every notebook from its percent script, which is the source: ``python notebooks/pair.py``.

With ``--check`` nothing is written, and the exit status is 1 where a notebook is not as its script says.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

FOLDER = Path(__file__).parent
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def scripts() -> list[Path]:
    """The percent scripts of this folder, in order."""
    return sorted(FOLDER.glob("[0-9][0-9]_*.py"))


def notebook_of(script: Path) -> nbformat.NotebookNode:
    """The notebook of a percent script, without outputs. What stands above the first ``# %%`` is left out.

    Args:
        script: Cells begin with a line ``# %%`` or ``# %% [markdown]``; the lines of the latter are comments.

    Raises:
        ValueError: Another kind of cell, or a line in a markdown cell that is no comment.
    """
    blocks = re.split(r"^# %%", script.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return new_notebook(cells=[_cell(number, block, script) for number, block in enumerate(blocks)], metadata=METADATA)


def _cell(number: int, block: str, script: Path) -> nbformat.NotebookNode:
    kind, _, body = block.partition("\n")
    name = f"cell-{number:02}"  # the same every time, so that a change to one cell is a change to one cell
    if not kind.strip():
        return new_code_cell(body.strip("\n"), id=name)
    if kind.strip() != "[markdown]":
        raise ValueError(f"{script.name}: a cell begins with `# %%` or `# %% [markdown]`, not `# %%{kind}`")
    lines = body.strip("\n").splitlines()
    for line in lines:
        if not re.match("#( |$)", line):
            raise ValueError(f"{script.name}: a line of a markdown cell is no comment: {line!r}")
    return new_markdown_cell("\n".join(line[2:] for line in lines), id=name)


def text_of(script: Path) -> str:
    """What the file of the notebook holds: the same bytes for the same script."""
    return nbformat.writes(notebook_of(script)) + "\n"


def main(check: bool) -> int:
    """Write the notebooks that are not as their scripts say, or only name them; then 1 if there are any."""
    stale = []
    for script in scripts():
        notebook, text = script.with_suffix(".ipynb"), text_of(script)
        if not notebook.exists() or notebook.read_text(encoding="utf-8") != text:
            stale.append(notebook.name)
            if not check:
                notebook.write_text(text, encoding="utf-8", newline="\n")
    if stale:
        sys.stdout.write(f"{'not as its script says' if check else 'written'}: {', '.join(stale)}\n")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
