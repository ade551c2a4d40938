"""The look of a figure: the project's own template, small, and under whatever a figure says itself."""

from __future__ import annotations

import json

import plotly.graph_objects as go
import plotly.io as pio
import pytest
import torch
from PIL import Image

from st_vi import viz
from st_vi.inspection.attention import Unit
from st_vi.inspection.rankings import Estimate
from st_vi.viz.maps import side_by_side
from st_vi.viz.patches import mass_bars, resolutions_side_by_side, similarity_bars, with_value_menu
from st_vi.viz.projection import Projection
from st_vi.viz.ranks import rank_slopes_by_pair
from st_vi.viz.theme import COLOURS, TEMPLATE, escaped, slider, styled

MARKUP = "<img src=x> $a$ %{x} & 🙂"
PICTURE, PATCHES = Image.new("RGB", (56, 28)), torch.rand(1, 2)
POINTS = torch.eye(2)
SHOWN = {
    "bars": lambda text: viz.recall_bars({text: Estimate(0.5, 0.4, 0.6)}, k=1),
    "components": lambda text: viz.loss_components([{"step": 1, f"dle/{text}": 1.0}], title=text),
    "histogram": lambda text: viz.similarity_histogram({text: torch.zeros(2)}, text),
    "map": lambda text: viz.scatter(POINTS, [text, "b"], [text, "b"], text),
    "maps": lambda text: side_by_side(
        {text: {text: Projection(POINTS.numpy())}, "b": {text: Projection(POINTS.numpy())}}
    ),
    "masses": lambda text: mass_bars({text: {text: 1.0}}, text),
    "menu of values": lambda text: with_value_menu(
        viz.patch_map(PICTURE, PATCHES, name=text, title=text), {text: PATCHES, "b": PATCHES}
    ),
    "patches": lambda text: resolutions_side_by_side(PICTURE, {text: PATCHES}),
    "plane": lambda text: viz.alignment_uniformity_plane({text: (1.0, -1.0)}, title=text),
    "ranks": lambda text: rank_slopes_by_pair({text: [1], "b": [2]}, [text], k=1),
    "shares": lambda text: viz.gradient_share_bars({text: (0.5, 0.5)}, text),
    "similarities": lambda text: similarity_bars({text: 0.5}, title=text),
    "spectrum": lambda text: viz.spectrum({text: torch.ones(2)}, text),
    "weights": lambda text: viz.weight_bars([Unit(text, "text", (0,), (0, 1), 1.0)], text),
}


@pytest.mark.parametrize("figure", SHOWN.values(), ids=SHOWN)
def test_names_and_titles_are_shown_as_they_are_written(figure):
    """Plotly takes tags in them for its own, drops others, and sets what is between dollar signs as a formula."""
    text = json.dumps(figure(MARKUP).to_plotly_json(), default=str, ensure_ascii=False)
    assert escaped("🙂") in text
    assert "<img" not in text and "$a" not in text and " %{x} &" not in text


def test_markup_is_escaped():
    assert escaped(MARKUP) == "&lt;img src=x&gt; &#36;a&#36; &#37;{x} &amp; 🙂"


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
