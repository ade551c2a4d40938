"""Figures of patches: what is where, in pixels of the image."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image

from st_vi.viz.patches import (
    mass_bars,
    patch_map,
    resolutions_side_by_side,
    similarity_bars,
    with_opacity_slider,
    with_value_menu,
)

WIDE = Image.new("RGB", (640, 400), (10, 20, 200))
WEIGHTS = torch.arange(14 * 23, dtype=torch.float32).view(14, 23) / 1000


def test_heat_and_picture_cover_the_same_place():
    figure = patch_map(WIDE, WEIGHTS)
    heat, (under,) = figure.data[0], figure.layout.images
    assert (under.x, under.y, under.sizex, under.sizey, under.layer) == (0, 0, 640, 400, "below")
    assert under.source.startswith("data:image/png;base64,")
    assert figure.layout.xaxis.range == (0, 640) and figure.layout.yaxis.range == (400, 0)  # upright
    assert figure.layout.yaxis.scaleanchor == "x"
    # The outer edges of the outer cells are those of the image.
    assert heat.x0 - heat.dx / 2 == 0 and heat.y0 - heat.dy / 2 == 0
    assert heat.x0 + 22.5 * heat.dx == pytest.approx(640) and heat.y0 + 13.5 * heat.dy == pytest.approx(400)
    np.testing.assert_allclose(np.array(heat.z), WEIGHTS)
    assert list(heat.customdata[3][5]) == [3, 5]
    assert all(word in heat.hovertemplate for word in ("row", "column", "weight"))
    assert (heat.zmin, heat.zmax) == (0, pytest.approx(0.321))


def test_centres_are_in_the_order_of_the_tokens():
    _, _, centres = patch_map(WIDE, WEIGHTS).data
    assert len(centres.x) == 14 * 23 and centres.marker.color == "rgba(0, 0, 0, 0)"
    for place in (0, 22, 23, 14 * 23 - 1):
        row, column = divmod(place, 23)
        assert centres.x[place] == pytest.approx(640 / 23 * (column + 0.5))
        assert centres.y[place] == pytest.approx(400 / 14 * (row + 0.5))


def test_masked_patches_are_covered_in_the_mean_colour():
    covers = patch_map(WIDE, WEIGHTS, masked={(0, 0), (13, 22)}).data[1]
    filled = [(r, c) for r, row in enumerate(covers.z) for c, z in enumerate(row) if z is not None]
    assert filled == [(0, 0), (13, 22)]
    assert covers.colorscale[0][1] == "rgb(10, 20, 200)"


def test_opacity_and_colours():
    heat = patch_map(WIDE, WEIGHTS, opacity=0.3, colour_range=(0.1, 0.2)).data[0]
    assert (heat.opacity, heat.zmin, heat.zmax) == (0.3, 0.1, 0.2)


def test_a_large_picture_is_reduced_but_keeps_its_places():
    large = patch_map(Image.new("RGB", (3000, 2000)), WEIGHTS)
    assert large.layout.images[0].sizex == 3000 and large.layout.xaxis.range == (0, 3000)
    assert len(large.layout.images[0].source) < 20_000


def test_slider_sets_the_opacity_of_the_heat_map_alone():
    figure = with_opacity_slider(patch_map(WIDE, WEIGHTS, opacity=0.55))
    (slider,) = figure.layout.sliders
    assert [list(step.args[0]["opacity"]) for step in slider.steps] == [[step / 10] for step in range(11)]
    assert all(step.method == "restyle" and list(step.args[1]) == [0] for step in slider.steps)
    assert figure.data[0].opacity == slider.active / 10 == pytest.approx(0.55, abs=0.051)


def test_a_menu_of_values():
    maps = {"weight": WEIGHTS, "cosine falls by": WEIGHTS - 0.1}
    (menu,) = with_value_menu(patch_map(WIDE, WEIGHTS - 0.1, name="cosine falls by"), maps).layout.updatemenus
    assert menu.active == 1 and [button.label for button in menu.buttons] == list(maps)
    for button, values in zip(menu.buttons, maps.values(), strict=True):
        change, traces = button.args
        assert change["z"] == [values.tolist()] and list(traces) == [0]
        assert (change["zmin"], change["zmax"]) == pytest.approx((float(values.min()), float(values.max())))
    assert change["colorbar.title.text"] == "cosine<br>falls<br>by" and "cosine falls by %{z" in change["hovertemplate"]


def test_resolutions_have_a_panel_each():
    maps = {"small": WEIGHTS[:2, :3], "large": WEIGHTS}
    figure = resolutions_side_by_side(WIDE, maps, opacity=0.4)
    assert [heat.opacity for heat in figure.data] == [0.4, 0.4]
    assert [image.xref for image in figure.layout.images] == ["x", "x2"]
    assert figure.layout.xaxis2.range == (0, 640) and figure.layout.yaxis2.scaleanchor == "x2"
    assert [note.text for note in figure.layout.annotations] == [
        "small<br>2 × 3<br>6 patches",
        "large<br>14 × 23<br>322 patches",
    ]
    assert figure.data[0].dx == pytest.approx(640 / 3)
    with pytest.raises(ValueError, match="no map"):
        resolutions_side_by_side(WIDE, {})


def test_masses_are_stacked_to_one():
    figure = mass_bars({"a": {"image": 0.5, "text": 0.5}, "b": {"image": 1.0, "text": 0.0}})
    assert figure.layout.barmode == "stack"
    assert [sum(bar.x[i] for bar in figure.data) for i in range(2)] == [1, 1]
    assert not mass_bars({}).data


def test_random_masks_show_mean_and_extremes():
    figure = similarity_bars({"as it is": 0.8, "painted": 0.1}, torch.tensor([0.2, 0.6, 0.7]))
    bars, spread = figure.data
    assert list(bars.y) == ["as it is", "painted", "random patches painted"]
    assert list(bars.x) == pytest.approx([0.8, 0.1, 0.5])
    assert figure.layout.yaxis.ticktext[0] == "as it is<br>0.800"
    assert figure.layout.yaxis.ticktext[2] == "random patches painted<br>0.500 (-0.300)"
    assert (list(spread.x), list(spread.y)) == (pytest.approx([0.5]), ["random patches painted"])
    assert (spread.error_x.array[0], spread.error_x.arrayminus[0]) == pytest.approx((0.2, 0.3))


def test_without_random_masks_there_is_no_spread():
    figure = similarity_bars({"as it is": 0.8})
    assert list(figure.data[0].y) == ["as it is"] and len(figure.data[1].x) == 0
    assert figure.layout.xaxis.range == (0, 1)
    assert similarity_bars({"as it is": -0.1}).layout.xaxis.range == (-1, 1)
    assert similarity_bars({"as it is": 0.8}, [0.5, -0.1]).layout.xaxis.range == (-1, 1)


def test_a_patch_outside_the_map_is_refused():
    for patch in ((2, 0), (0, 3), (-1, 0)):
        with pytest.raises(ValueError, match=re.escape(f"the map has 2 x 3 patches; {patch} is none of them")):
            patch_map(WIDE, torch.ones(2, 3), [(1, 2), patch])
