"""Every notebook is what its script says, and has a test."""

from __future__ import annotations

import base64
import re
from io import BytesIO
from pathlib import Path

import pytest

pytest.importorskip("nbformat")

import nbformat
from nbformat.v4 import new_output
from PIL import Image

from notebooks import pair
from st_vi.viz import still

SCRIPTS = pair.scripts()
TESTS = Path(__file__).parent


def test_there_are_no_other_notebooks():
    assert SCRIPTS
    assert sorted(pair.FOLDER.rglob("*.ipynb")) == [script.with_suffix(".ipynb") for script in SCRIPTS]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_notebook_is_what_its_script_says(script):
    path = script.with_suffix(".ipynb")
    assert path.read_text(encoding="utf-8") == pair.paired(script), "stale: python notebooks/pair.py"
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.cells[0].cell_type == "markdown"
    code = pair.code_cells(notebook)
    assert all(cell.execution_count is None for cell in code)
    assert any(line.startswith("MODEL = None") for line in code[0].source.splitlines())
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


def pictures(cell):
    return [output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})]


FIGURE = re.compile(r"^(figure|explorer|components|plane)$|^(styled|scatter|side_by_side|stacked|\w+_(bars|figure))\(")
"""The last line of a cell that ends with a figure."""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_its_outputs_need_no_scripts_and_every_figure_has_a_picture(script):
    path = script.with_suffix(".ipynb")
    again = f"python notebooks/pair.py --run {script.stem[:2]}"
    figures = 0
    for cell in pair.code_cells(nbformat.read(path, as_version=4)):
        assert cell.outputs == pair.light(cell.outputs), f"{cell.id}: {again}"
        if FIGURE.match(cell.source.splitlines()[-1]):
            figures += 1
            (picture,) = pictures(cell)
            assert Image.open(BytesIO(base64.b64decode(picture))).width > 300, f"{cell.id}: {again}"
    assert figures
    assert path.stat().st_size < 200_000  # all six are less than a megabyte
    assert not re.search(r"/tmp/|/home/|/root/| at 0x[0-9a-f]+", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_nbconvert_shows_its_pictures_without_scripts(script):
    nbconvert = pytest.importorskip("nbconvert")
    page, _ = nbconvert.HTMLExporter(template_name="basic").from_filename(str(script.with_suffix(".ipynb")))
    cells = pair.code_cells(nbformat.read(script.with_suffix(".ipynb"), as_version=4))
    there = [picture for cell in cells for picture in pictures(cell)]
    assert there and re.findall(r'<img[^>]*src="data:image/png;base64,([^"]*)"', page) == there
    assert "<script" not in page


def test_which_outputs_are_kept():
    live = {"application/vnd.jupyter.widget-view+json": {"model_id": "a"}, "text/plain": "Explorer()"}
    drawn = {"data": [], "layout": {"title": {"text": "Two<br>lines"}}}
    outputs = [
        new_output("stream", name="stdout", text="one\n"),
        new_output("stream", name="stderr", text="a warning"),
        new_output("stream", name="stdout", text="two\n"),
        new_output("display_data", {"text/html": "<div><progress value='3'></progress> 3/5</div>"}),
        new_output("display_data", live),
        new_output("display_data", {**live, "application/vnd.plotly.v1+json": drawn, "image/png": "aGk="}),
        new_output("display_data", {"image/png": "aGk=\n", "text/plain": "<PIL.Image>"}),
        new_output("execute_result", {"text/html": "<table>", "text/plain": "a table"}, execution_count=3),
    ]
    printed, figure, picture, table = pair.light(outputs)
    assert printed.text == "one\ntwo\n" and picture.data == {"image/png": "aGk="}
    assert base64.b64decode(figure.data["image/png"]) == still(drawn)
    assert figure.metadata == {"image/png": {"alt": "Two lines"}} and "image" in picture.metadata["image/png"]["alt"]
    assert table.output_type == "display_data" and set(table.data) == {"text/html", "text/plain"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_notebook_has_a_test(script):
    tests = (TESTS / f"test_{script.stem}.py").read_text(encoding="utf-8")
    assert all(part in tests for part in ("(notebook", "notebook.execute(", "(opened"))


def test_cells_of_a_script(tmp_path, monkeypatch, capsys):
    script = tmp_path / "00_small.py"
    script.write_text(
        '"""Not part of it."""\n\n# %% [markdown]\n# # Tiêu đề\n#\n# Một câu.\n\n# %%\nx = 1\n\n\n# %%\nx\n'
    )
    notebook = pair.notebook_of(script)
    assert [(cell.id, cell.cell_type, cell.source) for cell in notebook.cells] == [
        ("cell-00", "markdown", "# Tiêu đề\n\nMột câu."),
        ("cell-01", "code", "x = 1"),
        ("cell-02", "code", "x"),
    ]
    monkeypatch.setattr(pair, "FOLDER", tmp_path)
    assert pair.main(check=True) == 1
    assert not script.with_suffix(".ipynb").exists()
    assert pair.main(check=False) == 0
    assert pair.main(check=True) == 0
    assert nbformat.read(script.with_suffix(".ipynb"), as_version=4) == notebook
    assert "00_small.ipynb" in capsys.readouterr().out


def test_outputs_stay_while_the_code_is_the_same(tmp_path, monkeypatch):
    script = tmp_path / "00_small.py"
    script.write_text("# %% [markdown]\n# # A\n\n# %%\n1 + 1\n")
    monkeypatch.setattr(pair, "FOLDER", tmp_path)
    ran = pair.notebook_of(script)
    pair.code_cells(ran)[0].outputs = [new_output("execute_result", {"text/plain": "2"}, execution_count=1)]
    monkeypatch.setattr(pair, "run", lambda script: ran)
    assert pair.main(check=False, names=["01"]) == 0 and '"2"' not in script.with_suffix(".ipynb").read_text()
    assert pair.main(check=False, names=["00"]) == 0 and '"2"' in script.with_suffix(".ipynb").read_text()
    script.write_text(script.read_text().replace("# A", "# B"))
    assert pair.main(check=False) == 0 and '"2"' in script.with_suffix(".ipynb").read_text()
    script.write_text(script.read_text().replace("1 + 1", "1 + 2"))
    assert pair.main(check=True) == 1
    assert pair.main(check=False) == 0 and '"2"' not in script.with_suffix(".ipynb").read_text()


@pytest.mark.parametrize(
    ("text", "message"), [("# %% [raw]\n", "begins with"), ("# %% [markdown]\nx = 1\n", "no comment")]
)
def test_a_script_that_is_no_notebook(tmp_path, text, message):
    (tmp_path / "00_odd.py").write_text(text)
    with pytest.raises(ValueError, match=message):
        pair.notebook_of(tmp_path / "00_odd.py")
