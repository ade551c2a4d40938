"""The look of a figure: the project's own template, small, and under whatever a figure says itself."""

from __future__ import annotations

import json

import plotly.graph_objects as go
import plotly.io as pio

from st_vi.viz.theme import COLOURS, TEMPLATE, slider, styled


def test_the_template_has_the_look():
    figure = styled(go.Figure(), "Tựa", height=200)
    assert figure.layout.title.text == "Tựa" and figure.layout.height == 200
    assert figure.layout.template.layout.colorway == COLOURS
    assert "Noto Sans" in figure.layout.template.layout.font.family
    assert styled(go.Figure()).layout.margin.t < figure.layout.margin.t  # no room for a title that is not there


def test_it_is_small_for_it_travels_with_every_figure():
    ours, stock = (len(json.dumps(t.to_plotly_json())) for t in (TEMPLATE, pio.templates["plotly_white"]))
    assert ours < 1500 < stock / 4


def test_what_a_figure_says_itself_comes_first():
    figure = styled(go.Figure()).update_layout(legend={"y": 1}, margin_l=8)
    assert figure.layout.legend.y == 1 and figure.layout.margin.l == 8


def test_a_slider_says_what_it_moves_and_has_room():
    states = {"low": {"opacity": [0]}, "high": {"opacity": [1]}}
    figure = go.Figure(layout={"sliders": [slider("level ", states, [0], active=1, space=30)]})
    (made,) = figure.layout.sliders
    assert made.currentvalue.prefix == "level " and made.pad.t == 30 and made.active == 1
    assert [(step.label, step.method) for step in made.steps] == [("low", "restyle"), ("high", "restyle")]
    assert made.steps[1].args == ({"opacity": [1]}, (0,))
