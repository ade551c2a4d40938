"""What viewers without scripts show of a notebook that was run."""

from __future__ import annotations

import base64
import re
from copy import deepcopy

from nbconvert import HTMLExporter
from nbformat import NotebookNode

FIGURE = "application/vnd.plotly.v1+json"


def check_pictures(notebook: NotebookNode) -> None:
    """Fail unless every figure has a picture, and the page that nbconvert makes shows each of them without scripts."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    figures = [output.data for cell in code for output in cell.outputs if FIGURE in output.get("data", {})]
    pictures = [kept for data in figures if (kept := _picture(data))]
    assert pictures and len(pictures) == len(figures), "a figure without a picture"
    still = deepcopy(notebook)
    still.metadata.pop("widgets", None)  # store_widget_state=False
    page, _ = HTMLExporter(template_name="basic").from_notebook_node(still)
    shown = re.findall(r'<img[^>]* src="data:image/[^;]*;base64,([^"]*)"', page)
    assert set(pictures) <= {source.strip() for source in shown}
    assert "<script" not in page


def _picture(data: NotebookNode) -> str:
    """The picture of a figure as base64, or nothing."""
    if "image/svg+xml" in data:
        return base64.b64encode(data["image/svg+xml"].encode()).decode()
    return str(data.get("image/png", "")).strip()
