"""The notebook tests see what goes wrong: a dead control, a traceback, a request to the outside, a failing cell."""

from __future__ import annotations

import pytest

from tests.notebooks.held import different

pytestmark = pytest.mark.slow

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


@pytest.fixture(scope="module")
def notebook(open_notebook, tmp_path_factory):
    path = tmp_path_factory.mktemp("trouble") / "99_trouble.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return open_notebook(path)


def test_code_that_fails_in_the_kernel_fails_the_test(notebook):
    notebook.execute("assert list(figure.data[0].y) == [0, 1]")
    with pytest.raises(pytest.fail.Exception, match="ZeroDivisionError"):
        notebook.execute("1 / 0")


def test_what_is_drawn_otherwise_is_seen():
    held = [[{"type": "bar", "name": "a", "x": ["p", "q"], "y": [1.0, 2.0], "marker": {"color": "red"}}]]
    drawn = [[{**held[0][0], "visible": True}]]
    assert not list(different(held, drawn))
    for change in ({"y": [1.0, 2.1]}, {"x": ["p", "r"]}, {"marker": {"color": "blue"}}, {"visible": False}, {"y": [1]}):
        assert list(different(held, [[drawn[0][0] | change]])), change
    assert list(different(held, [])) and list(different(held, [[]]))


def test_a_notebook_without_a_page(kernel_environment, tmp_path):
    from tests.notebooks.headless import headless

    script = tmp_path / "99_small.py"
    script.write_text("# %%\nx = 1\n\n# %%\nx + 1\n", encoding="utf-8")
    with headless(script, tmp_path, kernel_environment) as notebook:
        notebook.execute("assert x == 1")
        with pytest.raises(pytest.fail.Exception, match="ZeroDivisionError"):
            notebook.execute("1 / 0")
    assert [cell.outputs[0].data for cell in notebook.content().cells[1:]] == [{"text/plain": "2"}]
    script.write_text("# %%\nint('x')\n", encoding="utf-8")
    with pytest.raises(pytest.fail.Exception, match="ValueError"), headless(script, tmp_path, kernel_environment):
        pass


def test_the_clock_starts_with_the_last_input_and_stops_with_the_last_change(opened, tmp_path, monkeypatch):
    from tests.notebooks import driver

    monkeypatch.setattr(driver, "ANSWERS", tmp_path / "answers.md")

    def seconds():
        return float(driver.ANSWERS.read_text(encoding="utf-8").splitlines()[-1].split("|")[1])

    with opened.changes(figure=0):
        opened._move(0, 0.2, 0.2)
        opened.page.wait_for_timeout(3000)  # a hand takes its time
        opened.toggle("alive")
    assert seconds() < 3
    with opened.changes(selector=".said"):
        opened.click_text("slow")
        opened.page.wait_for_timeout(1000)  # that nobody looks does not make it slower, nor quicker
    assert seconds() > 0.6
    monkeypatch.setattr(driver, "PROMISE", 0.0)
    with pytest.raises(AssertionError, match=r"switch alive: answered after .* s, the limit is 0\.0"):  # noqa: SIM117
        with opened.changes(figure=0):
            opened.toggle("alive")
    assert driver.ANSWERS.read_text(encoding="utf-8").count("| 99_trouble | switch alive |") == 2


def test_what_goes_wrong_in_the_browser_is_seen(opened):
    with pytest.raises(AssertionError, match="no lasting change of figure 0"):  # noqa: SIM117
        with opened.changes(figure=0, seconds=2):
            opened.toggle("dead")
    with opened.changes(figure=0):
        opened.toggle("alive")
    assert opened.data(0, 0, "y") == [1, 0]
    opened.check()
    opened.evaluate("void stVi.kernel().requestExecute({ code: 'len(7)' })")  # as a cell does
    opened.click_text("broken")
    opened.evaluate("fetch('https://example.org/').catch(() => 0)")
    opened.click_text("loud")
    for _ in range(200):
        if len(opened.wrong) > 3:
            break
        opened.page.wait_for_timeout(50)
    opened._settle()  # the stock figure says more than one thing
    wrong = "\n".join(opened.wrong)
    assert "ZeroDivisionError" in wrong and "TypeError" in wrong
    assert "request off localhost: https://example.org/" in wrong
    assert "the page sends what no figure asked for: _js2py_widget_layoutDelta" in wrong
    opened.wrong.clear()
