"""What the page is told first has the data in it."""

from __future__ import annotations

import pytest

pytest.importorskip("anywidget")
comm = pytest.importorskip("comm")

import plotly.graph_objects as go

from st_vi.viz.widgets.live import LiveFigure

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
