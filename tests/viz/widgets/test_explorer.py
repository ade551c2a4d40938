"""A figure that is drawn anew is the new one, and stays the object that callbacks hang on."""

from __future__ import annotations

import pytest

pytest.importorskip("anywidget")

import plotly.graph_objects as go

from st_vi.stock.figures import LiveFigure
from st_vi.viz.widgets.explorer import Explorer


def bars(heights, title, **traces):
    figure = go.Figure([go.Bar(y=heights, marker_color="red"), go.Scatter(y=[1, 2], **traces)])
    figure.update_layout(title_text=title, height=200 + len(heights), yaxis_range=[0, max(heights)])
    return figure.add_hline(heights[0])


@pytest.fixture
def messages(monkeypatch):
    sent = []
    monkeypatch.setattr(LiveFigure, "_send_update_msg", lambda self, **message: sent.append(message))
    return sent


def test_it_becomes_the_new_one_and_stays_itself():
    shown = Explorer.redraw(None, bars([1, 2], "cũ", opacity=0.5))
    assert isinstance(shown, LiveFigure)
    fresh = bars([4, 3, 5], "mới")
    before = fresh.to_plotly_json()
    assert Explorer.redraw(shown, fresh) is shown
    assert fresh.to_plotly_json() == before
    assert shown.data[0].y == (4, 3, 5) and shown.data[1].opacity is None  # what the new one has not, goes
    assert shown.layout.title.text == "mới" and shown.layout.height == 203
    assert shown.layout.yaxis.range == (0, 5) and shown.layout.shapes[0].y0 == 4


def test_traces_that_the_new_one_has_not_are_hidden():
    shown = Explorer.redraw(None, bars([1, 2], "hai"))
    Explorer.redraw(shown, go.Figure(go.Bar(y=[3])))
    assert [trace.visible for trace in shown.data] == [True, False]
    Explorer.redraw(shown, bars([1, 2], "hai"))
    assert [trace.visible for trace in shown.data] == [True, True]


def test_only_what_differs_goes_to_the_page_and_in_one_message(messages):
    shown = Explorer.redraw(None, bars([1, 2], "cũ"))
    Explorer.redraw(shown, bars([1, 2], "cũ"))
    messages.clear()
    Explorer.redraw(shown, bars([1, 2], "cũ"))
    assert not messages
    Explorer.redraw(shown, bars([1, 3], "cũ"))
    (message,) = messages
    assert set(message["restyle_data"]) == {"y"} and "title" not in message["relayout_data"]
