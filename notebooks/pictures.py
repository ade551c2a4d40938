"""Put pictures and findings of a run into the notebooks: ``python notebooks/pictures.py``, or ``… 02 04`` for two.

Notebooks in the repository have no outputs, so that a viewer such as GitHub's would show code alone. One text cell of
each notebook is written by this command: it has pictures of figures (`st_vi.viz.still`) and the sentences that the
notebook printed. Its first line names the headings above the figures. A run that is kept (see run.py) is used again.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from nbformat import NotebookNode
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from notebooks.pair import FOLDER, scripts, text_of
from notebooks.run import executed

PICTURES = FOLDER / "pictures"
MOST = 60_000
"""Bytes of a picture."""
SHARE, LAST = 0.15, 5
"""Two runs may differ in a number by this share of it, or by so much in its last digit: training is not the same
everywhere."""
DIFFERENCE = 0.03
"""Two pictures of a figure may differ by this share of black and white, on average over their pixels."""
FIGURE = "application/vnd.plotly.v1+json"
FOUND = re.compile(r"<!-- found: (.+) -->")
REFERENCE = re.compile(r"!\[[^]]*]\(pictures/([^)]+)\)")
SENTENCE = re.compile(r"^- (.+(?:\n  .+)*)", re.MULTILINE)
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


def is_written(cell: NotebookNode) -> bool:
    """Whether this command writes the cell. Where outputs are shown, the cell is left out."""
    return cell.cell_type == "markdown" and bool(FOUND.match(cell.source))


def written(notebook: NotebookNode) -> NotebookNode:
    """The cell of a notebook that this command writes."""
    return next(cell for cell in notebook.cells if is_written(cell))


def pictures_of(notebook: NotebookNode, script: str) -> dict[str, bytes]:
    """Pictures of a notebook that has run, by file name.

    Args:
        notebook: With its outputs.
        script: Name of its source.

    Raises:
        ValueError: A heading that is not in the notebook, or has no figure below it.
    """
    from st_vi.viz import still

    shown = figures_of(notebook)
    return {f"{script[:2]}-{_slug(heading)}.png": still(output.data[FIGURE]) for heading, output in shown.items()}


def _slug(heading: str) -> str:
    return re.sub(r"\W+", "-", heading.lower()).strip("-")


def figures_of(notebook: NotebookNode) -> dict[str, NotebookNode]:
    """The outputs of which there are pictures, by the heading above each.

    Args:
        notebook: With its outputs.

    Raises:
        ValueError: A heading that is not in the notebook, or has no figure below it.
    """
    headings = FOUND.match(written(notebook).source)[1].split("; ")
    return {heading: _figure_below(notebook, heading) for heading in headings}


def _figure_below(notebook: NotebookNode, heading: str) -> NotebookNode:
    below = False
    for cell in notebook.cells:
        below |= cell.cell_type == "markdown" and f"## {heading}" in cell.source.splitlines()
        for output in cell.get("outputs", []) if below else ():
            if FIGURE in output.get("data", {}):
                return output
    raise ValueError(f"no figure below a heading {heading!r}")


def sentences_of(notebook: NotebookNode) -> list[str]:
    """The sentences that a notebook printed when it ran."""
    streams = [output for cell in notebook.cells for output in cell.get("outputs", []) if "text" in output]
    printed = "".join(output.text for output in streams if output.name == "stdout")
    return [line.strip() for line in printed.splitlines() if line.strip().endswith(".")]


def sentences_in(cell: NotebookNode) -> list[str]:
    """The sentences in a cell that this command wrote."""
    return [" ".join(found.split()) for found in SENTENCE.findall(cell.source)]


def source_of(notebook: NotebookNode, pictures: dict[str, bytes]) -> str:
    """The text of the cell, after a run."""
    first = written(notebook).source.splitlines()[0]
    headings = FOUND.match(first)[1].split("; ")
    shown = [f"![{heading}](pictures/{name})" for heading, name in zip(headings, pictures, strict=True)]
    listed = [
        textwrap.fill(sentence, 112, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)
        for sentence in sentences_of(notebook)
    ]
    return "\n\n".join([first, *shown, "What a run has found:", "\n".join(listed)])


def differences(told: list[str], computed: list[str]) -> Iterator[str]:
    """Sentences that say something else than a run, beyond the tolerance of `SHARE` and `LAST`."""
    if len(told) != len(computed):
        yield f"{len(told)} sentences, not {len(computed)}"
    for one, other in zip(told, computed, strict=False):
        pairs = list(zip(NUMBER.findall(one), NUMBER.findall(other), strict=False))
        if NUMBER.sub("#", one) != NUMBER.sub("#", other) or not all(_near(*pair) for pair in pairs):
            yield f"{one!r} is told, the run says {other!r}"


def _near(told: str, computed: str) -> bool:
    one, other = (float(number.replace(",", "")) for number in (told, computed))
    last = 10.0 ** -len(computed.partition(".")[2])
    return abs(one - other) <= max(SHARE * abs(other), LAST * last) + 1e-9


def difference(one: bytes, other: bytes) -> float:
    """Mean difference of two pictures, from 0 to 1; 1 if they differ in size."""
    first, second = (np.asarray(Image.open(BytesIO(each)).convert("L"), dtype=float) / 255 for each in (one, other))
    return float(abs(first - second).mean()) if first.shape == second.shape else 1.0


def write(script: Path) -> None:
    """Write the pictures, the cell and the notebook of a script, from a run."""
    notebook = executed(script, lambda text: sys.stdout.write(f"{text}\n"))
    pictures = pictures_of(notebook, script.stem)
    PICTURES.mkdir(exist_ok=True)
    for old in PICTURES.glob(f"{script.stem[:2]}-*"):
        old.unlink()
    for name, content in pictures.items():
        (PICTURES / name).write_bytes(content)
    comment = "".join(f"# {line}".rstrip() + "\n" for line in source_of(notebook, pictures).splitlines())
    text = script.read_text(encoding="utf-8")
    text = re.sub(r"^# <!-- found: .*?(?=\n# %%)", lambda _: comment, text, flags=re.DOTALL | re.MULTILINE)
    script.write_text(text, encoding="utf-8", newline="\n")
    script.with_suffix(".ipynb").write_text(text_of(script), encoding="utf-8", newline="\n")


def main(names: list[str]) -> None:
    """Write those of all notebooks, or of those that begin with one of the names."""
    for script in scripts():
        if not names or script.stem.startswith(tuple(names)):
            write(script)


if __name__ == "__main__":
    main(sys.argv[1:])
