"""A notebook runs once for each state of its code, and an error in it is told with its cell."""

from __future__ import annotations

import pytest

pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

from notebooks.run import FailingCell, executed


@pytest.fixture(autouse=True)
def nothing_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("ST_VI_CACHE", str(tmp_path))


def test_a_failing_cell_is_named(tmp_path):
    script = tmp_path / "07_wrong.py"
    script.write_text("# %% [markdown]\n# # Wrong\n\n# %%\nlength = len(7)\n")
    with pytest.raises(FailingCell, match=r"(?s)07_wrong\.py.*length = len\(7\).*TypeError"):
        executed(script)


def test_a_notebook_runs_again_when_its_code_changes(tmp_path):
    script, count = tmp_path / "07_counts.py", tmp_path / "count"
    script.write_text(f"# %% [markdown]\n# # Counts\n\n# %%\nopen({str(count)!r}, 'a').write('x')\n")
    first, second = executed(script), executed(script)
    assert first.cells[1].outputs == second.cells[1].outputs and count.read_text() == "x"
    script.write_text(script.read_text().replace("# # Counts", "# # Another text"))
    third = executed(script)
    assert third.cells[0].source == "# Another text" and third.cells[1].outputs == first.cells[1].outputs
    assert count.read_text() == "x"
    script.write_text(script.read_text() + "# and a change\n")
    executed(script)
    assert count.read_text() == "xx"
