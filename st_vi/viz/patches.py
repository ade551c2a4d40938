"""Figures of the attention weights of image patches."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots
from torch import Tensor

from st_vi.evaluation.geometry.vectors import as_tensor
from st_vi.inputs.pictures import open_image
from st_vi.viz.pictures import under
from st_vi.viz.theme import COLOURS, SEQUENTIAL, escaped, slider, styled

if TYPE_CHECKING:
    from PIL import Image


def patch_map(
    picture: Image.Image,
    weights: Tensor,
    masked: Collection[tuple[int, int]] = (),
    *,
    opacity: float = 0.55,
    colour_range: tuple[float, float] | None = None,
    title: str = "",
    name: str = "weight",
) -> go.Figure:
    """An image with a heat map of its patches: of their weights, or of another value.

    The axes are in pixels of the image. Trace 0 is the heat map, with row, column and value on hover. Trace 1 shows
    the masked patches in the mean colour of the image. Trace 2 has the centres of all patches, row by row; it is
    invisible, and there because plotly's lasso needs points.

    Args:
        picture: The image, as given to the model.
        weights: (rows, columns).
        masked: (row, column) of each masked patch.
        opacity: Opacity of the heat map, in [0, 1].
        colour_range: Weights of the lowest and highest colour; None means 0 and the largest weight.
        title: Title of the figure.
        name: Name of the value, for the scale and the hover.

    Raises:
        ValueError: The weights have another shape, a masked patch is none of theirs, or the image cannot be read.

    Example:
        >>> import torch
        >>> from PIL import Image
        >>> from st_vi.viz import patch_map
        >>> figure = patch_map(Image.new("RGB", (640, 400)), torch.rand(14, 23))
        >>> figure.data[0].dx, figure.layout.xaxis.range
        (27.8260869565..., (0, 640))
    """
    picture, weights = open_image(picture), as_tensor(weights)
    if weights.ndim != 2 or not weights.numel():
        raise ValueError(f"weights must have the shape (rows, columns), got {tuple(weights.shape)}")
    rows, columns = weights.shape
    if outside := [patch for patch in masked if not (0 <= patch[0] < rows and 0 <= patch[1] < columns)]:
        raise ValueError(f"the map has {rows} x {columns} patches; {outside[0]} is none of them")
    heat, covers = _traces(picture, weights, masked, opacity, colour_range, name)
    centres = go.Scatter(
        x=[heat.x0 + heat.dx * column for _ in range(rows) for column in range(columns)],
        y=[heat.y0 + heat.dy * row for row in range(rows) for _ in range(columns)],
        mode="markers",
        marker={"color": "rgba(0, 0, 0, 0)"},  # with an opacity of 0, a lasso would not catch them
        hoverinfo="skip",
        showlegend=False,
    )
    figure = styled(go.Figure([heat, covers, centres]), title, height=430)
    figure.update_layout(
        images=[under(picture)],
        margin={"l": 8, "r": 8, "b": 8},
        dragmode="lasso",
        newselection={"line": {"color": "rgba(0,0,0,0)"}},  # a visible line would remain after patches are unmasked
    )
    _fix_axes(figure, picture)
    return figure


def with_opacity_slider(figure: go.Figure) -> go.Figure:
    """Add a slider for the opacity of a `patch_map`, from 0 to 1 in tenths, in place; it needs no kernel."""
    levels = [tenths / 10 for tenths in range(11)]
    now = min(range(11), key=lambda step: abs(levels[step] - figure.data[0].opacity))
    figure.data[0].opacity = levels[now]
    states = {f"{level:.1f}": {"opacity": [level]} for level in levels}
    height = figure.layout.height + 90
    return figure.update_layout(sliders=[slider("opacity ", states, [0], now)], height=height, margin_b=90)


def with_value_menu(figure: go.Figure, maps: Mapping[str, Tensor]) -> go.Figure:
    """Add a menu of the values (rows, columns) that a `patch_map` can show, in place; it needs no kernel.

    The colours of a "weight" begin at 0, those of other values at the smallest.
    """
    shown, buttons = str(figure.data[0].colorbar.title.text).replace("<br>", " "), []
    for name, values in zip(map(escaped, maps), maps.values(), strict=True):
        low = 0.0 if name == "weight" else float(values.min())
        hover = "row %{customdata[0]}, column %{customdata[1]}<br>" + name + " %{z:.4f}<extra></extra>"
        change = {"z": [values.tolist()], "zmin": low, "zmax": max(float(values.max()), low + 1e-6)}
        change |= {"colorbar.title.text": name.replace(" ", "<br>"), "hovertemplate": hover}
        buttons.append({"label": name, "method": "restyle", "args": [change, [0]]})
    place = {"x": 1, "y": 1.02, "xanchor": "right", "yanchor": "bottom", "active": [*map(escaped, maps)].index(shown)}
    more = 20 * str(figure.layout.title.text or "").count("<br>")  # the menu is below all lines of the title
    figure.update_layout(title={"y": 1, "yanchor": "top", "pad": {"t": 12}}, height=figure.layout.height + more)
    return figure.update_layout(updatemenus=[{"buttons": buttons, **place}], margin_t=84 + more)


def resolutions_side_by_side(picture: Image.Image, maps: Mapping[str, Tensor], *, opacity: float = 0.55) -> go.Figure:
    """The same image with heat maps (rows, columns) at several resolutions, by name, such as the pixel budget.

    Every map has its own colour range, from 0 to its largest weight, because more patches have smaller weights.
    """
    if not maps:
        raise ValueError("there is no map to show: pass at least one")
    picture = open_image(picture)
    image = under(picture)
    names = [f"{escaped(name)}<br>{w.shape[0]} × {w.shape[1]}<br>{w.numel()} patches" for name, w in maps.items()]
    figure = make_subplots(1, len(maps), subplot_titles=names, horizontal_spacing=0.02)
    for number, weights in enumerate(maps.values(), start=1):
        heat, _ = _traces(picture, weights, (), opacity, None)
        heat.showscale = False
        figure.add_trace(heat, row=1, col=number)
        _fix_axes(figure, picture, number)
        suffix = "" if number == 1 else str(number)
        figure.add_layout_image(image | {"xref": f"x{suffix}", "yref": f"y{suffix}"})
    styled(figure, height=300)
    figure.update_annotations(font={"size": 11})  # of four maps on a narrow page
    return figure.update_layout(margin={"l": 8, "r": 8, "t": 52, "b": 8})


def mass_bars(masses: Mapping[str, Mapping[str, float]], title: str = "") -> go.Figure:
    """Stacked bars, one per input, of the share of the weights on each part, such as images, text and special tokens.

    All inputs have the same parts.
    """
    parts = list(next(iter(masses.values()), {}))
    bars = [
        go.Bar(
            name=escaped(part),
            y=[*map(escaped, masses)],
            x=[mass[part] for mass in masses.values()],
            orientation="h",
            marker_color=COLOURS[number],
            hovertemplate="%{y}: " + escaped(part) + " %{x:.3f}<extra></extra>",
        )
        for number, part in enumerate(parts)
    ]
    figure = styled(go.Figure(bars), title, height=150 + 30 * len(masses))
    figure.update_layout(barmode="stack", legend={"traceorder": "normal"}, margin={"b": 64})
    figure.update_xaxes(range=[0, 1], title="")
    figure.update_yaxes(autorange="reversed", automargin=True)
    return figure


def similarity_bars(
    similarities: Mapping[str, float], random: Sequence[float] | Tensor = (), title: str = ""
) -> go.Figure:
    """Bars of cosines with a query, all but the first with their difference to the first.

    If there are cosines of random masks, the last bar is their mean, with minimum and maximum.
    """
    bars = {escaped(name): x for name, x in similarities.items()}
    spread = go.Scatter(x=[], y=[], mode="markers", marker_color="#1a1a1a", hoverinfo="skip")
    if len(random):
        cosines = torch.as_tensor(random)
        mean = bars["random patches painted"] = float(cosines.mean())
        ends = {"array": [float(cosines.max()) - mean], "arrayminus": [mean - float(cosines.min())]}
        spread.update(x=[mean], y=["random patches painted"], error_x={"symmetric": False, **ends})
    values = list(bars.values())
    bar = go.Bar(
        y=list(bars),
        x=values,
        orientation="h",
        marker_color=[COLOURS[0], COLOURS[1], COLOURS[4], "#b0b0b0"][: len(values)],
        hovertemplate="%{y}: %{x:.4f}<extra></extra>",
    )
    figure = styled(go.Figure([bar, spread]), title, height=230)
    figure.update_layout(showlegend=False)
    lowest = min([*values, *torch.as_tensor(random).tolist()], default=0)
    figure.update_xaxes(range=[-1 if lowest < 0 else 0, 1])
    named = [
        f"{name}<br>{x:.3f}" + (f" ({x - values[0]:+.3f})" if i else "") for i, (name, x) in enumerate(bars.items())
    ]
    figure.update_yaxes(autorange="reversed", automargin=True, tickvals=list(bars), ticktext=named)
    return figure


def _traces(
    picture: Image.Image,
    weights: Tensor,
    masked: Collection[tuple[int, int]],
    opacity: float,
    colour_range: tuple[float, float] | None,
    name: str = "weight",
) -> tuple[go.Heatmap, go.Heatmap]:
    """The traces of the weights and of the masked patches."""
    (rows, columns), (width, height) = weights.shape, picture.size
    across, down = width / columns, height / rows
    place = {"x0": across / 2, "dx": across, "y0": down / 2, "dy": down}
    low, high = colour_range or (0.0, float(weights.max()))
    heat = go.Heatmap(
        **place,
        z=weights.tolist(),
        zmin=low,
        zmax=high,
        opacity=opacity,
        colorscale=SEQUENTIAL,
        colorbar={"title": escaped(name).replace(" ", "<br>"), "thickness": 12},
        customdata=[[(row, column) for column in range(columns)] for row in range(rows)],
        hovertemplate="row %{customdata[0]}, column %{customdata[1]}<br>" + escaped(name) + " %{z:.4f}<extra></extra>",
    )
    mean = "rgb({}, {}, {})".format(*picture.resize((1, 1), resample=4).getpixel((0, 0)))  # type: ignore[misc]  # 4: box
    covers = go.Heatmap(
        **place,
        z=[[1.0 if (row, column) in masked else None for column in range(columns)] for row in range(rows)],
        colorscale=[[0, mean], [1, mean]],
        showscale=False,
        hoverinfo="skip",
    )
    return heat, covers


def _fix_axes(figure: go.Figure, picture: Image.Image, column: int = 1) -> None:
    """Set axes that show exactly the image, upright and undistorted."""
    suffix = "" if column == 1 else str(column)
    shared = {"visible": False, "constrain": "domain", "fixedrange": True}
    figure.layout[f"xaxis{suffix}"].update(range=[0, picture.width], **shared)
    figure.layout[f"yaxis{suffix}"].update(range=[picture.height, 0], scaleanchor=f"x{suffix}", scaleratio=1, **shared)
