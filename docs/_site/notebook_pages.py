"""Notebooks as pages: run once, and again only when a notebook or st_vi has changed."""

from __future__ import annotations

import base64
import hashlib
import html
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINES, CHARACTERS = 40, 200_000  # of a text, and of HTML that is no figure
FIGURE, WIDGET = "application/vnd.plotly.v1+json", "application/vnd.jupyter.widget-view+json"
LIST = re.compile(r"^- .*\n?(?:(?:- |  ).*\n?)*", re.MULTILINE)
PROGRESS = re.compile(r"<div>\s*(<style>.*?</style>)?\s*<progress.*?</div>", re.DOTALL)

sys.path.insert(0, str(ROOT))
from nbformat import NotebookNode  # noqa: E402

from notebooks.pair import notebook_of, scripts  # noqa: E402, F401


class FailingCell(Exception):
    """A cell of a notebook raised an error."""


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
        phrase: What the page says around the notebook, in its language.
    """

    title: str = ""
    summary: str = ""
    markdown: str = ""
    outputs: list[str] = field(default_factory=list)
    pictures: dict[str, bytes] = field(default_factory=dict)
    has_figures: bool = False
    phrase: Callable[[str], str] = str


def plain(script: Path):
    """The notebook of a script, not run."""
    return notebook_of(script)


def executed(script: Path, say: Callable[[str], None] = lambda text: None):
    """The notebook of a script with its outputs, from the cache where neither it nor st_vi has changed since.

    Args:
        script: One of the percent scripts in ``notebooks/``.
        say: Told when a notebook runs.

    Raises:
        FailingCell: With the name of the notebook, the code of the cell and the traceback.
    """
    import nbclient
    import nbformat

    if _place(script).is_file():
        return nbformat.read(_place(script), as_version=4)
    notebook, start = notebook_of(script), time.monotonic()
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
    keep(notebook, script)
    say(f"ran notebooks/{script.name} in {time.monotonic() - start:.0f} s")
    return notebook


def keep(notebook: NotebookNode, script: Path) -> None:
    """Put a notebook that has been run into the cache; what is there of older states goes."""
    import nbformat

    place = _place(script)
    for old in place.parent.glob(f"{script.stem}-*.ipynb"):
        old.unlink(missing_ok=True)
    nbformat.write(notebook, place)


def _place(script: Path) -> Path:
    """Where the cache has the notebook of this state of script and st_vi."""
    folder = Path(os.environ.get("ST_VI_CACHE") or ROOT / ".cache").expanduser() / "notebook-pages"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    return folder / f"{script.stem}-{_state(script)}.ipynb"


def _state(script: Path) -> str:
    """A short text that changes when the outputs might."""
    files = [script, *sorted(path for path in (ROOT / "st_vi").rglob("*") if path.suffix in {".py", ".jsonl", ".js"})]
    parts = [path.read_bytes() for path in files]
    parts += [version(name).encode() for name in ("plotly", "sentence-transformers", "torch", "transformers")]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


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
