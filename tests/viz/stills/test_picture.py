"""What a still picture shows is what the figure holds, measured in its pixels."""

from __future__ import annotations

import base64
from datetime import date
from io import BytesIO
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("anywidget")

import plotly.graph_objects as go
import plotly.io as pio
from PIL import Image
from plotly.subplots import make_subplots

from st_vi.viz.stills.picture import bundle, still, use_stills
from st_vi.viz.theme import COLOURS

pytestmark = pytest.mark.slow

BLUE, ORANGE = (0, 114, 178), (213, 94, 0)


def pixels(figure) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(still(figure))).convert("RGB")).astype(int)


def spots(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Where a picture has a colour, (H, W) bool."""
    return (np.abs(picture - np.array(colour)) <= 6).all(axis=2)


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Beginnings and ends of the stretches in which a mask holds, longer than 3 pixels."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    return [(start, end) for start, end in edges.reshape(-1, 2).tolist() if end - start > 3]


def centre(mask: np.ndarray) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    return float(columns.mean()), float(rows.mean())


def only(figure, **layout):
    return figure.update_layout(showlegend=False, **layout)


@pytest.mark.parametrize("lies", [False, True])
def test_bars_are_as_long_as_their_values(lies):
    names, values = ["mưa", "nắng", "gió"], [1.0, 3.0, 2.0]
    bar = go.Bar(x=values, y=names, orientation="h") if lies else go.Bar(x=names, y=values)
    blue = spots(pixels(go.Figure(bar)), BLUE)
    blue = blue if lies else blue.T
    lengths = [blue[(start + end) // 2].sum() for start, end in runs(blue.any(axis=1))]
    lengths = lengths[::-1] if lies else lengths  # the first name is the lowest
    assert np.array(lengths) / lengths[0] == pytest.approx(np.array(values), rel=0.03)


@pytest.mark.parametrize("mode", ["group", "stack", "overlay"])
def test_bars_of_two_traces(mode):
    figure = only(go.Figure([go.Bar(x=["a"], y=[1]), go.Bar(x=["a"], y=[2])]), barmode=mode, yaxis_range=[0, 4])
    blue, orange = (spots(pixels(figure), colour) for colour in (BLUE, ORANGE))
    if mode == "overlay":
        assert orange.any() and not blue.any()  # the second covers the first
        return
    assert orange.any(axis=1).sum() == pytest.approx(2 * blue.any(axis=1).sum(), abs=3)
    assert (blue.any(axis=0) & orange.any(axis=0)).any() == (mode == "stack")
    assert (blue.any(axis=1) & orange.any(axis=1)).any() == (mode == "group")


@pytest.mark.parametrize("kind", ["linear", "log"])
def test_markers_are_where_their_values_are(kind):
    values = [1.0, 10.0, 100.0]
    marker = {"color": list(COLOURS[:3]), "size": 12}
    figure = only(go.Figure(go.Scatter(x=values, y=values, mode="markers", marker=marker)))
    picture = pixels(figure.update_xaxes(type=kind).update_yaxes(type=kind))
    places = [centre(spots(picture, colour)) for colour in (BLUE, ORANGE, (0, 158, 115))]
    expected = [0.0, 0.5, 1.0] if kind == "log" else [0.0, 9 / 99, 1.0]
    for part in (0, 1):
        found = np.array([place[part] for place in places])
        assert (found - found[0]) / (found[2] - found[0]) == pytest.approx(np.array(expected), abs=0.01)
    assert places[0][0] < places[2][0] and places[0][1] > places[2][1]  # to the right, and up


def test_a_line_has_gaps_and_what_is_not_visible_is_not_drawn():
    line = {"color": COLOURS[0], "width": 5}
    figure = go.Figure(go.Scatter(x=[0, 1, None, 2, 3], y=[1, 1, None, 1, 1], mode="lines", line=line))
    figure.add_scatter(x=[0, 3], y=[0, 0], mode="lines", line={"color": COLOURS[1], "width": 5}, visible="legendonly")
    picture = pixels(only(figure))
    (first, second), blue = runs(spots(picture, BLUE).any(axis=0)), spots(picture, BLUE)
    assert second[0] - first[1] == pytest.approx(first[1] - first[0], abs=3)
    assert blue.any(axis=1).sum() >= 3  # smooth edges have another colour
    assert not spots(picture, ORANGE).any()


def test_heat_map_has_the_colours_of_its_scale_and_gaps():
    heat = go.Heatmap(z=[[0, 1], [None, 0.5]], colorscale=[[0, "#000000"], [1, "#ff0000"]], showscale=False)
    picture = pixels(go.Figure(heat))
    middle = np.array([[picture[300, 250], picture[300, 600]], [picture[100, 250], picture[100, 600]]])
    expected = [[[0, 0, 0], [255, 0, 0]], [[255, 255, 255], [128, 0, 0]]]  # the first row is the lowest
    assert np.abs(middle - np.array(expected)).max() < 12


def test_an_image_lies_upright_below_its_heat_map():
    image = Image.new("RGB", (400, 200), "red")
    image.paste((0, 0, 255), (0, 100, 400, 200))
    file = BytesIO()
    image.save(file, "PNG")
    place = {"x": 0, "y": 0, "sizex": 40, "sizey": 20, "xref": "x", "yref": "y", "layer": "below"}
    source = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    heat = go.Heatmap(x0=20, dx=40, y0=10, dy=20, z=[[1]], opacity=0, showscale=False)
    figure = go.Figure(heat, {"images": [{"source": source, **place}]})
    figure.update_xaxes(range=[0, 40], visible=False, constrain="domain")
    figure.update_yaxes(range=[20, 0], visible=False, scaleanchor="x")
    picture = pixels(figure)
    red, blue = spots(picture, (255, 0, 0)), spots(picture, (0, 0, 255))
    assert centre(red)[1] < centre(blue)[1] and red.sum() == pytest.approx(blue.sum(), rel=0.05)
    both = red | blue
    assert both.any(axis=0).sum() == pytest.approx(2 * both.any(axis=1).sum(), rel=0.02)  # undistorted


def test_points_in_space_turn_with_the_camera():
    points = go.Scatter3d(x=[1, 0], y=[0, 1], z=[0, 0], mode="markers", marker={"color": list(COLOURS[:2]), "size": 9})
    for eye, along in (({"x": 2, "y": 0, "z": 0}, BLUE), ({"x": 0, "y": 2, "z": 0}, ORANGE)):
        picture = pixels(only(go.Figure(points), scene_camera_eye=eye))
        places = {colour: centre(spots(picture, colour))[0] for colour in (BLUE, ORANGE)}
        assert places[BLUE] < places[ORANGE] - 50  # from x, y grows to the right; from y, x grows to the left
        assert places[along] == pytest.approx(picture.shape[1] / 2, abs=12)  # from its own side it is in the middle


def test_numbers_of_numpy_are_numbers():
    x, y = np.linspace(0, 1, 50), np.linspace(0, 1, 50) ** 2
    assert still(go.Figure(go.Scatter(x=x, y=y))) == still(go.Figure(go.Scatter(x=x.tolist(), y=y.tolist())))


def test_panels_keep_their_places():
    figure = make_subplots(1, 2, subplot_titles=["trước", "sau"])
    for number, colour in enumerate(COLOURS[:2]):
        figure.add_bar(x=["a"], y=[1], marker_color=colour, row=1, col=number + 1)
    picture = pixels(only(figure))
    assert np.nonzero(spots(picture, BLUE))[1].max() < 400 < np.nonzero(spots(picture, ORANGE))[1].min()


def test_an_animation_stands_at_its_end():
    first, last = go.Bar(x=["a", "b"], y=[1, 2]), go.Bar(x=["a", "b"], y=[2, 1])
    film = go.Figure(first, {"yaxis": {"range": [0, 2]}}, frames=[go.Frame(data=[first]), go.Frame(data=[last])])
    assert still(film) == still(go.Figure(last, film.layout)) != still(go.Figure(first, film.layout))


def test_what_it_cannot_draw_is_named():
    empty, other = go.Figure(), go.Figure(go.Violin(y=[1, 2, 3]))
    assert still(other) != still(empty)


@pytest.mark.parametrize(
    "figure",
    [
        go.Figure(go.Scatter(x=[date(2026, 11, 29)], y=[1])),
        go.Figure(go.Bar(x=[["a"], ["b"]], y=[1])),
        go.Figure(go.Scatter(y=[1, 2])).add_shape(type="path", path="M0,0L1,1Z"),
        go.Figure([go.Bar(y=[1]), go.Bar(y=[1])], frames=[go.Frame(data=[go.Bar(y=[2])])]),
        go.Figure(go.Bar(y=[1], name="a", showlegend=True), {"width": 10, "height": 10}),
    ],
)
def test_a_figure_that_it_cannot_draw_is_still_shown_live(figure):
    assert bundle(figure).keys() == {"application/vnd.plotly.v1+json", "image/png"}


def test_its_state_is_told():
    """Of a slider or a menu, the step that is shown."""
    steps = [{"label": label, "method": "skip"} for label in ("1", "2")]
    pictures = [still(go.Figure(go.Bar(y=[1]), {"sliders": [{"steps": steps, "active": active}]})) for active in (0, 1)]
    assert pictures[0] != pictures[1]


def test_small_files_with_vietnamese_letters():
    """Each letter is in the font: none of them looks like one that no font has."""
    unknown = still(go.Figure(layout={"title": "\U000f0000"}))
    assert len({still(go.Figure(layout={"title": letter})) for letter in "ạầễộừƠĐ"} | {unknown}) == 8
    rows = np.random.default_rng(0).normal(size=(500, 2))
    assert len(still(go.Figure(go.Scatter(x=rows[:, 0], y=rows[:, 1], mode="markers")))) < 60_000


@pytest.fixture
def renderers():
    before = pio.renderers.default
    yield pio.renderers
    pio.renderers.default = before


@pytest.mark.parametrize("before", ["plotly_mimetype", "plotly_mimetype+notebook", "vscode", "browser"])
def test_figures_are_displayed_with_their_picture(before, renderers):
    renderers.default = before
    use_stills()
    use_stills()
    figure = go.Figure(go.Bar(x=["a"], y=[1]))
    data = figure._repr_mimebundle_()
    assert set(data) == {"application/vnd.plotly.v1+json", "image/svg+xml"}
    svg = ElementTree.fromstring(data["image/svg+xml"])
    assert (svg.get("width"), svg.get("height")) == ("760", "450")
    assert base64.b64decode(svg[0].get("href").partition(",")[2]) == still(figure)


def test_explorers_are_displayed_with_their_picture():
    figure = go.Figure(go.Bar(x=["a"], y=[1]))
    data = bundle(figure)
    assert set(data) == {"application/vnd.plotly.v1+json", "image/png"}
    assert base64.b64decode(data["image/png"]) == still(figure)
