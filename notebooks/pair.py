"""Make every notebook from its percent script, which is the source: ``python notebooks/pair.py``.

Outputs stay in a notebook as long as its code does not change. With ``--run``, all notebooks are run again, or those
that are named (``--run 01 03``), which takes minutes; kept is what a viewer without scripts can show: texts, tables
and pictures. With ``--check`` nothing is written, and the exit status is 1 where a notebook is not as its script says.
"""

from __future__ import annotations

import argparse
import base64
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

FOLDER = Path(__file__).parent
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
FIGURE = "application/vnd.plotly.v1+json"
SHOWN = ("image/png", "text/html", "text/plain")
"""What GitHub and nbconvert show without scripts, the best first."""


def scripts() -> list[Path]:
    """The percent scripts of this folder, in order."""
    return sorted(FOLDER.glob("[0-9][0-9]_*.py"))


def notebook_of(script: Path) -> NotebookNode:
    """The notebook of a percent script, without outputs. What stands above the first ``# %%`` is left out.

    Args:
        script: Cells begin with a line ``# %%`` or ``# %% [markdown]``; the lines of the latter are comments.

    Raises:
        ValueError: Another kind of cell, or a line in a markdown cell that is no comment.
    """
    blocks = re.split(r"^# %%", script.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return new_notebook(cells=[_cell(number, block, script) for number, block in enumerate(blocks)], metadata=METADATA)


def _cell(number: int, block: str, script: Path) -> NotebookNode:
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


def run(script: Path) -> NotebookNode:
    """The notebook of a script with its outputs, run in an empty folder and without the network.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell failed.
    """
    import nbclient

    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}
    own = {"PYTHONPATH": str(FOLDER.parent), "PLOTLY_RENDERER": "plotly_mimetype"}
    with tempfile.TemporaryDirectory() as folder:
        client = nbclient.NotebookClient(
            notebook_of(script),
            timeout=600,  # seconds a cell
            kernel_name="python3",
            extra_arguments=["--log-level=ERROR"],
            store_widget_state=False,  # five megabytes of script a figure
            resources={"metadata": {"path": folder}},
        )
        return client.execute(env={**os.environ, **offline, **own})


def light(outputs: Sequence[NotebookNode]) -> list[NotebookNode]:
    """Of the outputs of a cell, what needs neither scripts nor a kernel: printed text, tables and pictures."""
    kept: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream" and output.name == "stdout":
            before = kept.pop().text if kept and kept[-1].output_type == "stream" else ""
            kept.append(new_output("stream", name="stdout", text=before + output.text))
        elif data := _shown(output.get("data", {})):
            about = {"image/png": {"alt": _about(output)}} if "image/png" in data else {}
            kept.append(new_output("display_data", data, metadata=about))
    return kept


def _shown(data: NotebookNode) -> dict[str, str]:
    """The best form of an output: the picture of a figure, a table with its text. Nothing of progress bars."""
    if FIGURE in data:
        from st_vi.viz import still

        return {"image/png": base64.b64encode(still(data[FIGURE])).decode("ascii")}
    kinds = [kind for kind in SHOWN if kind in data]
    live = "application/vnd.jupyter.widget-view+json" in data or "<progress" in data.get("text/html", "")
    if "image/png" in kinds:
        return {"image/png": data["image/png"].strip()}
    return {} if live else {kind: data[kind] for kind in kinds}


def _about(output: NotebookNode) -> str:
    """What a screen reader says of a picture: the title of the figure, if it has one."""
    title = output.data.get(FIGURE, {}).get("layout", {}).get("title", {}).get("text", "").replace("<br>", " ")
    return title or output.metadata.get("image/png", {}).get("alt") or "an image that the code above has made"


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells that can have outputs."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text_of(script: Path) -> str:
    """The notebook of a script as a file, without outputs."""
    return _written(notebook_of(script))


def paired(script: Path) -> str:
    """What the file of the notebook should hold: the same code has the outputs that are there, other code has none."""
    notebook, path = notebook_of(script), script.with_suffix(".ipynb")
    there = nbformat.read(path, as_version=4) if path.exists() else new_notebook()
    cells = list(zip(code_cells(notebook), code_cells(there), strict=False))
    if [cell.source for cell in code_cells(notebook)] == [cell.source for cell in code_cells(there)]:
        for cell, before in cells:
            cell.outputs = before.outputs
    return _written(notebook)


def _written(notebook: NotebookNode) -> str:
    return nbformat.writes(notebook) + "\n"


def _anew(script: Path) -> str:
    """What the file of the notebook holds after a run."""
    notebook = notebook_of(script)
    for cell, ran in zip(code_cells(notebook), code_cells(run(script)), strict=True):
        cell.outputs = light(ran.outputs)
    return _written(notebook)


def _stale(check: bool, names: Sequence[str] | None) -> Iterator[str]:
    """Write the notebooks that are not as they should be, or only name them."""
    for script in scripts():
        notebook = script.with_suffix(".ipynb")
        wanted = names is not None and (not names or any(script.name.startswith(name) for name in names))
        text = _anew(script) if wanted else paired(script)
        if not notebook.exists() or notebook.read_text(encoding="utf-8") != text:
            yield notebook.name
            if not check:
                notebook.write_text(text, encoding="utf-8", newline="\n")


def main(check: bool, names: Sequence[str] | None = None) -> int:
    """Write the notebooks, or only check them; then 1 if any is not as its script says.

    Args:
        check: Write nothing.
        names: Beginnings of the names of notebooks to run; none runs all, None runs none.
    """
    stale = list(_stale(check, names))
    if stale:
        sys.stdout.write(f"{'not as its script says' if check else 'written'}: {', '.join(stale)}\n")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.path.insert(0, str(FOLDER.parent))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--run", nargs="*", metavar="01", help="run the notebooks, all or those named")
    asked = parser.parse_args()
    sys.exit(main(asked.check, asked.run))
