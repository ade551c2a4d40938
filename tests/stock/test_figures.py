"""What the page is told first has the data in it."""

from __future__ import annotations

import pytest

pytest.importorskip("anywidget")
comm = pytest.importorskip("comm")

import plotly.graph_objects as go

from st_vi.stock.figures import LiveFigure, _plotly

FIGURE = go.Figure(go.Bar(y=[1, 2], name="thanh"), layout={"title": {"text": "Tựa"}})


@pytest.fixture
def announced(monkeypatch):
    states = []

    def create(**kwargs):
        states.append(kwargs["data"]["state"])
        return comm.base_comm.BaseComm(**kwargs)

    monkeypatch.setattr(comm.base_comm.BaseComm, "publish_msg", lambda *args, **kwargs: None)
    monkeypatch.setattr(comm, "create_comm", create)
    return states


def figures(states):
    return [state for state in states if "_widget_data" in state]


def test_the_figure_is_announced_once_and_whole(announced):
    figure = LiveFigure(FIGURE)
    (state,) = figures(announced)
    assert state["_widget_data"][0]["name"] == "thanh" and list(state["_widget_data"][0]["y"]) == [1, 2]
    assert state["_widget_layout"]["title"]["text"] == "Tựa"
    figure.data[0].update(y=[3, 4])
    assert len(figures(announced)) == 1 and figure.data[0].y == (3, 4)


def test_the_stock_one_still_needs_this(announced):
    go.FigureWidget(FIGURE)
    assert figures(announced)[0]["_widget_data"] == []


def test_all_figures_share_one_script(announced):
    LiveFigure(FIGURE)
    LiveFigure(FIGURE)
    ours = figures(announced)
    assert len({state["_script"] for state in ours}) == 1
    assert all(len(state["_esm"]) < 2000 for state in ours)
    assert len(str(go.FigureWidget._esm)) > 1e6  # the stock one brings all of plotly each time


def click(number, kind="plotly_click"):
    points = {"xs": [number], "ys": [0], "point_indexes": [number], "trace_indexes": [0]}
    return {"event_type": kind, "points": points, "device_state": None, "selector": None}


def test_figures_are_made_after_all_widgets_were_closed(announced):
    _plotly.cache_clear()
    _plotly().close()  # as `Widget.close_all` does
    assert LiveFigure(FIGURE)._script == _plotly().model_id


def test_callbacks_get_clicks_again_and_again():
    figure, clicked = LiveFigure(FIGURE), []
    figure.data[0].on_click(lambda trace, points, state: clicked.append(points.point_inds))
    for event in (click(1), click(1), click(0, "plotly_hover"), click(0)):
        figure.set_state({"_js2py_pointsCallback": event})
    assert clicked == [[1], [1], [0]]


def test_a_lasso_still_reaches_the_layout():
    figure = LiveFigure(FIGURE)
    line = {"type": "rect", "x0": 0, "x1": 1, "y0": 0, "y1": 1}
    figure.set_state({"_js2py_relayout": {"relayout_data": {"selections": [line]}, "source_view_id": "v"}})
    assert figure.layout.to_plotly_json()["selections"] == [line]
