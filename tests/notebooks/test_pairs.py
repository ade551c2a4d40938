"""Every notebook is what its script says, and has a test."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("nbformat")

import nbformat

from notebooks import pair

SCRIPTS = pair.scripts()
TESTS = Path(__file__).parent


def test_there_are_no_other_notebooks():
    assert SCRIPTS
    assert sorted(pair.FOLDER.rglob("*.ipynb")) == [script.with_suffix(".ipynb") for script in SCRIPTS]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_notebook_is_what_its_script_says(script):
    path = script.with_suffix(".ipynb")
    assert path.read_text(encoding="utf-8") == pair.text_of(script), "stale: python notebooks/pair.py"
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.cells[0].cell_type == "markdown"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert any(line.startswith("MODEL = None") for line in code[0].source.splitlines())
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


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


@pytest.mark.parametrize(
    ("text", "message"), [("# %% [raw]\n", "begins with"), ("# %% [markdown]\nx = 1\n", "no comment")]
)
def test_a_script_that_is_no_notebook(tmp_path, text, message):
    (tmp_path / "00_odd.py").write_text(text)
    with pytest.raises(ValueError, match=message):
        pair.notebook_of(tmp_path / "00_odd.py")
