"""Run a notebook without a page, and keep the run in ``.cache/notebook-pages`` until its code or st_vi changes."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from notebooks.pair import notebook_of  # noqa: E402

READ = {".py", ".jsonl", ".js", ".json", ".safetensors"}
"""Files of st_vi that a notebook may depend on, those of the included models among them."""


class FailingCell(Exception):
    """A cell of a notebook raised an error."""


def executed(script: Path, say: Callable[[str], object] = lambda text: None) -> nbformat.NotebookNode:
    """The notebook of a script with its outputs. It runs only if there is no run of this code with this st_vi.

    Args:
        script: One of the percent scripts of this folder.
        say: Told when a notebook has run.

    Raises:
        FailingCell: With the name of the notebook, the code of the cell and the traceback.
    """
    if not _place(script).is_file():
        start = time.monotonic()
        keep(_run(script), script)
        say(f"ran notebooks/{script.name} in {time.monotonic() - start:.0f} s")
    notebook = notebook_of(script)  # its text may be newer
    for cell, ran in zip(_code(notebook), _code(nbformat.read(_place(script), as_version=4)), strict=True):
        cell.outputs, cell.execution_count = ran.outputs, ran.execution_count
    return notebook


def keep(notebook: nbformat.NotebookNode, script: Path) -> None:
    """Keep a notebook that has run; what is kept of older states goes."""
    place = _place(script)
    for old in place.parent.glob(f"{script.stem}-*.ipynb"):
        old.unlink(missing_ok=True)
    nbformat.write(notebook, place)


def _run(script: Path) -> nbformat.NotebookNode:
    import nbclient

    notebook = notebook_of(script)
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}
    environment = {**os.environ, **offline, "PYTHONPATH": str(ROOT), "PLOTLY_RENDERER": "plotly_mimetype"}
    with tempfile.TemporaryDirectory() as folder:
        client = nbclient.NotebookClient(
            notebook,
            timeout=600,  # seconds a cell
            kernel_name="python3",
            extra_arguments=["--log-level=ERROR"],
            store_widget_state=False,  # five megabytes of script a figure
            resources={"metadata": {"path": folder}},
        )
        try:
            client.execute(env=environment)
        except nbclient.exceptions.CellExecutionError as error:
            text = re.sub(r"\x1b\[[\d;]*m", "", str(error))
            raise FailingCell(f"notebooks/{script.name}: a cell failed.\n{text}") from None
    return notebook


def _code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _place(script: Path) -> Path:
    """Where the run of this code with this st_vi is kept."""
    folder = Path(os.environ.get("ST_VI_CACHE") or ROOT / ".cache").expanduser() / "notebook-pages"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    return folder / f"{script.stem}-{_state(script)}.ipynb"


def _state(script: Path) -> str:
    """A short text that changes when the outputs might."""
    parts = [cell.source.encode() for cell in _code(notebook_of(script))]
    parts += [path.read_bytes() for path in sorted((ROOT / "st_vi").rglob("*")) if path.suffix in READ]
    parts += [version(name).encode() for name in ("plotly", "sentence-transformers", "torch", "transformers")]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
