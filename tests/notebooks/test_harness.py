"""The notebook tests see what goes wrong: a dead control, a traceback, a request to the outside, a failing cell."""

from __future__ import annotations

import pytest

SCRIPT = """
# %%
import time

import ipywidgets as w
import plotly.graph_objects as go

from st_vi.stock.figures import LiveFigure

alive, dead = w.Checkbox(description="alive"), w.Checkbox(description="dead")
broken, slow, loud = (w.Button(description=name) for name in ("broken", "slow", "loud"))
said = w.HTML("<b class='said'>nothing</b>")
figure = LiveFigure(go.Scattergl(x=[0, 1], y=[0, 1], mode="markers"))
alive.observe(lambda change: figure.data[0].update(y=[1, 0] if change.new else [0, 1]), "value")
broken.on_click(lambda _: 1 / 0)
slow.on_click(lambda _: (time.sleep(0.6), setattr(said, "value", "<b class='said'>something</b>")))
box = w.VBox([alive, dead, broken, slow, loud, said, figure])
loud.on_click(lambda _: setattr(box, "children", [*box.children, go.FigureWidget(figure)]))  # a stock one
box
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "99_trouble.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return path


def test_code_that_fails_in_the_kernel_fails_the_test(execute, script):
    execute(script, "assert list(figure.data[0].y) == [0, 1]")
    with pytest.raises(pytest.fail.Exception, match="ZeroDivisionError"):
        execute(script, "1 / 0")


def test_the_clock_starts_with_the_last_input_and_stops_with_the_last_change(open_notebook, script, monkeypatch):
    from tests.notebooks import driver

    monkeypatch.setattr(driver, "ANSWERS", script.with_suffix(".md"))
    notebook = open_notebook(script)

    def seconds():
        return float(driver.ANSWERS.read_text(encoding="utf-8").splitlines()[-1].split("|")[1])

    with notebook.changes(figure=0):
        notebook._move(0, 0.2, 0.2)
        notebook.page.wait_for_timeout(3000)  # a hand takes its time
        notebook.toggle("alive")
    assert seconds() < 3
    with notebook.changes(selector=".said"):
        notebook.click_text("slow")
        notebook.page.wait_for_timeout(1000)  # that nobody looks does not make it slower, nor quicker
    assert seconds() > 0.6
    monkeypatch.setattr(driver, "PROMISE", 0.0)
    with pytest.raises(AssertionError, match=r"switch alive: answered after .* s, the limit is 0\.0"):  # noqa: SIM117
        with notebook.changes(figure=0):
            notebook.toggle("alive")
    assert driver.ANSWERS.read_text(encoding="utf-8").count("| 99_trouble | switch alive |") == 2


def test_what_goes_wrong_in_the_browser_is_seen(open_notebook, script):
    notebook = open_notebook(script)
    with pytest.raises(AssertionError, match="no lasting change of figure 0"):  # noqa: SIM117
        with notebook.changes(figure=0, seconds=2):
            notebook.toggle("dead")
    with notebook.changes(figure=0):
        notebook.toggle("alive")
    assert notebook.data(0, 0, "y") == [1, 0]
    notebook.check()
    notebook.click_text("broken")
    notebook.evaluate("fetch('https://example.org/').catch(() => 0)")
    notebook.click_text("loud")
    for _ in range(200):
        if len(notebook.wrong) > 2:
            break
        notebook.page.wait_for_timeout(50)
    notebook._settle()  # the stock figure says more than one thing
    wrong = "\n".join(notebook.wrong)
    assert "ZeroDivisionError" in wrong
    assert "request off localhost: https://example.org/" in wrong
    assert "the page sends what no figure asked for: _js2py_widget_layoutDelta" in wrong
    notebook.wrong.clear()
