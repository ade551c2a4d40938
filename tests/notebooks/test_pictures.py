"""Readers who see no outputs find in each notebook what a run has found. (Each notebook's own test compares it.)"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("plotly")
pytest.importorskip("nbformat")

import plotly.graph_objects as go
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from notebooks import pair, pictures
from st_vi.viz import still

SCRIPTS = pair.scripts()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_notebook_has_its_findings_and_pictures_near_its_top(script):
    notebook = pair.notebook_of(script)
    (cell,) = [cell for cell in notebook.cells if pictures.is_written(cell)]
    assert notebook.cells.index(cell) == 1
    assert pictures.sentences_in(cell)
    assert pictures.REFERENCE.findall(cell.source)
    for name in pictures.REFERENCE.findall(cell.source):
        assert (pictures.PICTURES / name).stat().st_size <= pictures.MOST


def test_every_picture_is_shown_and_every_file_that_is_named_exists():
    shown = set()
    for script in SCRIPTS:
        for cell in pair.notebook_of(script).cells:
            if cell.cell_type == "markdown":
                links = re.findall(r"\]\(([^)#]+)\)", cell.source)
                files = [pair.FOLDER / link for link in links if not re.match(r"\w+:", link)]
                assert all(file.is_file() for file in files), script.name
                shown |= {file for file in files if file.parent == pictures.PICTURES}
    assert shown == set(pictures.PICTURES.iterdir())


def figure(*values: float) -> go.Figure:
    return go.Figure(go.Bar(x=["mưa", "nắng"], y=values))


@pytest.fixture
def ran(monkeypatch, tmp_path) -> Path:
    """A script, with a run of it."""
    script = tmp_path / "07_rain.py"
    script.write_text(
        "# %% [markdown]\n# # Rain\n\n# %% [markdown]\n# <!-- found: How much; How far -->\n# Old.\n#\n# - Old.\n\n"
        "# %% [markdown]\n# ## How much\n\n# %%\n1\n\n# %% [markdown]\n# ## How far\n\n# %%\n2\n",
        encoding="utf-8",
    )

    def executed(script, say):
        notebook = pair.notebook_of(script)
        for number, shown in ((3, figure(1, 2)), (5, figure(2, 1))):
            data = {pictures.FIGURE: shown.to_dict()}
            printed = new_output("stream", text=f"Step 1\nIt rains on {number / 10:.1f} of all days.\n")
            notebook.cells[number].outputs = [printed, new_output("display_data", data)]
        return notebook

    monkeypatch.setattr(pictures, "executed", executed)
    monkeypatch.setattr(pictures, "PICTURES", tmp_path / "pictures")
    return script


@pytest.mark.slow
def test_what_is_written(ran):
    for _ in range(2):  # the second time there is something to replace
        (ran.parent / "pictures").mkdir(exist_ok=True)
        (ran.parent / "pictures" / "07-old.png").write_bytes(b"")
        pictures.write(ran)
        cell = pictures.written(pair.notebook_of(ran))
        names = pictures.REFERENCE.findall(cell.source)
        assert names == ["07-how-much.png", "07-how-far.png"]
        assert cell.source.startswith("<!-- found: How much; How far -->\n\n![How much](pictures/07-how-much.png)")
        assert [(ran.parent / "pictures" / name).read_bytes() for name in names] == [
            still(figure(1, 2)),
            still(figure(2, 1)),
        ]
        assert {path.name for path in (ran.parent / "pictures").iterdir()} == {*names}
        assert pictures.sentences_in(cell) == ["It rains on 0.3 of all days.", "It rains on 0.5 of all days."]
        assert "Old." not in ran.read_text() and "# ## How far" in ran.read_text()
        assert ran.with_suffix(".ipynb").read_text(encoding="utf-8") == pair.text_of(ran)


def test_a_long_sentence_takes_lines_and_is_read_as_one():
    sentence = "Mưa to " * 40 + "cả ngày."
    printed = new_output("stream", text=f"{sentence}\n")
    notebook = new_notebook(
        cells=[new_markdown_cell("<!-- found: A -->"), new_code_cell("1", outputs=[printed])],
    )
    source = pictures.source_of(notebook, {"a.png": b""})
    assert max(map(len, source.splitlines())) < 118
    assert pictures.sentences_in(new_markdown_cell(source)) == [sentence]


def test_a_heading_without_a_figure_is_told(ran):
    ran.write_text(ran.read_text().replace("How far -->", "How long -->"))
    with pytest.raises(ValueError, match="How long"):
        pictures.write(ran)


@pytest.mark.parametrize(
    ("told", "computed", "agree"),
    [
        ("0.56 times", "0.60 times", True),
        ("0.56 times", "0.70 times", False),
        ("97 % of 1,200", "93 % of 1,100", True),
        ("10 %", "15 %", True),
        ("10 %", "16 %", False),
        ("BM25 92 %", "TF-IDF 92 %", False),
        ("20 % of 30", "20 %", False),
    ],
)
def test_numbers_may_differ_a_little_and_words_not_at_all(told, computed, agree):
    assert (not list(pictures.differences([told], [computed]))) == agree


def test_another_number_of_sentences_is_told():
    assert list(pictures.differences(["a"], ["a", "b"])) and list(pictures.differences(["a", "b"], ["a"]))


@pytest.mark.slow
def test_pictures_of_other_numbers_differ():
    one = still(figure(10, 20))
    assert pictures.difference(one, still(figure(10.5, 20))) < pictures.DIFFERENCE / 2
    assert pictures.difference(one, still(figure(20, 10))) > 2 * pictures.DIFFERENCE
    assert pictures.difference(one, still(figure(10, 20).update_layout(height=300))) == 1
