"""What the notebooks in the repository show to those who do not run them."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbformat import NotebookNode

from notebooks import pair


def check_outputs(notebook: NotebookNode, test: str) -> None:
    """Fail unless the file of the notebook has outputs of the same kinds as the notebook that was run, cell by cell.

    Args:
        notebook: With its outputs.
        test: The file of its tests.
    """
    path = pair.FOLDER / f"{Path(test).stem.removeprefix('test_')}.ipynb"
    cells = zip(pair.code_cells(nbformat.read(path, as_version=4)), pair.code_cells(notebook), strict=True)
    stale = [there.id for there, ran in cells if kinds(there.outputs) != kinds(pair.light(ran.outputs))]
    assert not stale, f"{', '.join(stale)}: python notebooks/pair.py --run {path.stem[:2]}"


def kinds(outputs: list[NotebookNode]) -> list[list[str]]:
    return [sorted(output.get("data", {"text": ""})) for output in outputs]
