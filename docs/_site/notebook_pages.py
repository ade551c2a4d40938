"""Notebooks as pages."""

from __future__ import annotations

import base64
import html
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINES, CHARACTERS = 40, 200_000  # of a text, and of HTML that is no figure
FIGURE, WIDGET = "application/vnd.plotly.v1+json", "application/vnd.jupyter.widget-view+json"
LIST = re.compile(r"^- .*\n?(?:(?:- |  ).*\n?)*", re.MULTILINE)
PROGRESS = re.compile(r"<div>\s*(<style>.*?</style>)?\s*<progress.*?</div>", re.DOTALL)

sys.path.insert(0, str(ROOT))
from nbformat import NotebookNode  # noqa: E402

from notebooks.pictures import figures_of, is_written  # noqa: E402


@dataclass
class NotebookPage:
    """A notebook on its way to HTML.

    Attributes:
        title: Its first heading.
        summary: The first sentence below that.
        markdown: Its text and its code; each output is a place, ``<div data-output="0"></div>``, still empty.
        outputs: What comes there.
        images: Files beside the page, by name.
        has_figures: Whether the page needs plotly.
        cover: The one that stands for the notebook in a list; nothing where none does.
        phrase: What the page says around the notebook, in its language.
    """

    title: str = ""
    summary: str = ""
    markdown: str = ""
    outputs: list[str] = field(default_factory=list)
    pictures: dict[str, bytes] = field(default_factory=dict)
    has_figures: bool = False
    cover: str = ""
    phrase: Callable[[str], str] = str


def without_pictures(notebook: NotebookNode, was_run: bool = False) -> NotebookNode:
    """A notebook without the cell that stands for its outputs where these are not shown.

    Args:
        notebook: With its outputs, or without.
        was_run: Whether the outputs are there. The figure of which that cell has the first picture is marked.
    """
    if was_run:
        next(iter(figures_of(notebook).values())).metadata["cover"] = True
    return NotebookNode({**notebook, "cells": [cell for cell in notebook.cells if not is_written(cell)]})


def page_of(notebook, script: Path, was_run: bool = True, phrase: Callable[[str], str] = str) -> NotebookPage:
    """The page of a notebook.

    Args:
        notebook: With its outputs, or without.
        script: Where it comes from.
        was_run: Whether the outputs are there; the page says so.
        phrase: Gives a sentence of the page in the language of the notebook's text.
    """
    page, parts = NotebookPage(phrase=phrase), []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        outputs = _joined(cell.get("outputs", []))
        if any(_is_explorer(output) for output in outputs):
            parts[-1] = _without_controls(parts[-1], phrase)
        parts.append(f"````python\n{cell.source}\n````")
        for output in outputs:
            shown = _html(output, page)
            if shown:
                parts.append(f'<div data-output="{len(page.outputs)}"></div>')
                page.outputs.append(shown)
    heading, _, rest = parts[0].partition("\n")
    page.title = heading.removeprefix("# ")
    page.summary = re.split(r"(?<=[.?!])\s", " ".join(rest.strip().split("\n\n")[0].split()))[0]
    command = f"jupyter lab notebooks/{script.stem}.ipynb"
    ran = (
        "The figures on this page work without Python. To run the model, open the notebook:"
        if was_run
        else "**This copy of the site was built without running the notebooks: no output is shown.** Run it yourself:"
    )
    page.markdown = "\n\n".join(
        [heading, rest.strip(), f"{phrase(ran)} `{command}`\n{{ .st-vi-notebook }}", *parts[1:]]
    )
    return page


def _is_explorer(output) -> bool:
    return output.output_type != "stream" and {WIDGET, FIGURE} <= set(output.data)


def _without_controls(text: str, phrase: Callable[[str], str]) -> str:
    """A text whose lists are folded: they describe controls that run the model, and are not on the page."""
    summary = phrase("Controls of the explorer in the notebook, which run the model")
    fold = '<details class="st-vi-controls" markdown="1"><summary>{}</summary>\n\n{}\n\n</details>\n'
    return LIST.sub(lambda found: fold.format(html.escape(summary), found[0].strip()), text)


def _joined(outputs: list) -> list:
    """Outputs without stderr and without widgets that have no static twin, as progress bars; text in one piece."""
    kept: list = []
    for output in outputs:
        if output.output_type != "stream":
            if set(output.data) - {"text/plain"} != {WIDGET}:
                kept.append(output)
        elif output.name == "stdout":
            if kept and kept[-1].output_type == "stream":
                output = NotebookNode({**output, "text": kept.pop().text + output.text})
            kept.append(output)
    return kept


def _html(output, page: NotebookPage) -> str:
    """An output as HTML; empty where nothing is to be shown."""
    if output.output_type == "stream":
        return _text(re.sub(r"\n{2,}", "\n", output.text), page)
    data = output.data
    if FIGURE in data:
        import plotly.io

        from st_vi.viz import still

        figure = dict(data[FIGURE])
        if output.metadata.get("cover"):
            page.cover = f"{len(page.pictures)}.png"
        picture = _picture(still(figure), page)
        config = {**figure.pop("config", {}), "displaylogo": False}
        figure["layout"] = {name: value for name, value in figure["layout"].items() if name != "width"}  # the page's
        return _figure(
            plotly.io.to_html(
                *(figure, config),
                **{"include_plotlyjs": False, "include_mathjax": False, "full_html": False, "auto_play": False},
                validate=False,
            ),
            picture,
            page,
        )
    if "text/html" in data:
        return _markup(data["text/html"], page)
    if "image/png" in data:
        return f'<div class="st-vi-output">{_picture(base64.b64decode(data["image/png"]), page)}</div>'
    return _text(data.get("text/plain", ""), page)


def _picture(content: bytes, page: NotebookPage) -> str:
    name = f"{len(page.pictures)}.png"
    page.pictures[name] = content
    return f'<img src="{name}" alt="{page.phrase("an image that the code above has made")}">'


def _markup(markup: str, page: NotebookPage) -> str:
    markup = PROGRESS.sub("", markup)
    if not re.sub(r"<[^>]*>|\s", "", markup):
        return ""
    if len(markup) > CHARACTERS:
        return _text("This output is too long for a page; it is in the notebook.", page)
    if 'class="dataframe"' in markup:  # a table of pandas takes the look of the page
        markup = re.sub(r"<style.*?</style>", "", markup, flags=re.DOTALL)
        markup = re.sub(r'<table border="1" class="dataframe">', "<table>", markup)
        return f'<div class="st-vi-output">{markup}</div>'
    return f'<div class="st-vi-output st-vi-card">{markup}</div>'


def _figure(markup: str, picture: str, page: NotebookPage) -> str:
    """A figure of plotly, or its picture where no scripts run.

    Its script becomes a module, which waits for plotly, so that the text is there before it.
    """
    page.has_figures = True
    markup = re.sub("<script[^>]*>", "<script type=module>", markup)
    return f'<div class="st-vi-output st-vi-card">{markup}<noscript>{picture}</noscript></div>'


def _text(text: str, page: NotebookPage) -> str:
    lines = [line.rpartition("\r")[2] for line in text.rstrip().split("\n")]
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], f"… and {len(lines) - LINES + 1} more lines in the notebook"]
    joined = html.escape("\n".join(map(page.phrase, lines)))
    return f'<pre class="st-vi-output st-vi-text"><code>{joined}</code></pre>' if joined.strip() else ""
