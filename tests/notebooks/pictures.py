"""What viewers without scripts show of a notebook: of one that was run, and of the one in the repository."""

from __future__ import annotations

import base64
import re
from copy import deepcopy

from nbconvert import HTMLExporter
from nbformat import NotebookNode

from notebooks import pictures
from notebooks.pictures import FIGURE


def check_pictures(notebook: NotebookNode) -> None:
    """Fail unless every figure has a picture, and the page that nbconvert makes shows each of them without scripts.

    And unless the pictures and sentences that the repository has of the notebook are those of this run.
    """
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    figures = [output.data for cell in code for output in cell.outputs if FIGURE in output.get("data", {})]
    drawn = [kept for data in figures if (kept := _picture(data))]
    assert drawn and len(drawn) == len(figures), "a figure without a picture"
    still = deepcopy(notebook)
    still.metadata.pop("widgets", None)  # store_widget_state=False
    page, _ = HTMLExporter(template_name="basic").from_notebook_node(still)
    shown = re.findall(r'<img[^>]* src="data:image/[^;]*;base64,([^"]*)"', page)
    assert set(drawn) <= {source.strip() for source in shown}
    assert "<script" not in page
    check_what_is_committed(notebook)


def check_what_is_committed(notebook: NotebookNode) -> None:
    """Fail unless pictures and sentences in the text of a notebook are those of its run, within a tolerance."""
    cell, again = pictures.written(notebook), "written by: python notebooks/pictures.py"
    told = pictures.sentences_in(cell)
    assert not list(pictures.differences(told, pictures.sentences_of(notebook))), again
    names = pictures.REFERENCE.findall(cell.source)
    fresh = pictures.pictures_of(notebook, names[0])
    assert [*fresh] == names, again
    for name, picture in fresh.items():
        difference = pictures.difference((pictures.PICTURES / name).read_bytes(), picture)
        assert difference < pictures.DIFFERENCE, f"{name} shows something else ({difference:.3f}); {again}"


def _picture(data: NotebookNode) -> str:
    """The picture of a figure as base64, or nothing."""
    if "image/svg+xml" in data:
        return base64.b64encode(data["image/svg+xml"].encode()).decode()
    return str(data.get("image/png", "")).strip()
