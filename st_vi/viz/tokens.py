"""Attention weights of a text as coloured text, bars and a table of deletions."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import plotly.graph_objects as go
from plotly.colors import get_colorscale, sample_colorscale, unlabel_rgb

from st_vi.inspection.attention import Unit
from st_vi.viz.theme import COLOURS, FONT, SEQUENTIAL, escaped, slider, styled

KIND_COLOURS = {"text": COLOURS[0], "prefix": COLOURS[1], "special": COLOURS[3]}
"""Colours of the bars by `Unit.kind`."""

_BORDERS = {"text": "transparent", "prefix": COLOURS[1], "special": COLOURS[3]}
_CARD = f"font-family:{html.escape(FONT)};background:#ffffff;color:#1a1a1a;padding:8px"

_TABLE_STYLE = """<style>
#st-vi-drift :is(th, td) {padding: 2px 12px; text-align: right; color: #1a1a1a; background: #ffffff}
#st-vi-drift th {background: #f0f0f0} #st-vi-drift td:first-child {text-align: left}
</style>"""
"""Styles shared by all cells, because a long text has hundreds."""


def highlight(units: Sequence[Unit], deleted: Unit | None = None) -> str:
    """The text as HTML, with the weight of each unit as its background colour, scaled to the largest weight.

    The weight is shown as a tooltip. Special tokens and the prefix are framed. The id of the element is
    ``st-vi-tokens``.

    Args:
        units: Units from `st_vi.inspection.attention.units`.
        deleted: Unit to strike through, if any.

    Example:
        >>> from st_vi.inspection.attention import Unit
        >>> from st_vi.viz import highlight
        >>> "mưa &lt;b&gt;" in highlight([Unit("mưa <b>", "text", (0,), (0, 7), 1.0)])
        True
    """
    largest = max((unit.weight for unit in units), default=0) or 1
    spans = " ".join(_span(unit, unit.weight / largest, unit == deleted) for unit in units)
    legend = " ".join(
        f'<span style="border:2px solid {_BORDERS[kind]};padding:0 4px;border-radius:3px">{kind}</span>'
        for kind in ("prefix", "special")
        if any(unit.kind == kind for unit in units)
    )
    return (
        f'<div id="st-vi-tokens" style="{_CARD};line-height:2.3">{spans}</div>'
        f'<div style="{_CARD};font-size:85%;padding-top:0">bright: most weight (at most {largest:.3f}) {legend}</div>'
    )


def _span(unit: Unit, share: float, deleted: bool) -> str:
    red, green, blue = background = _colour(share)
    style = (
        f"background:rgb({red},{green},{blue});color:{_ink(background)};border:2px solid {_BORDERS[unit.kind]};"
        "padding:2px 4px;border-radius:3px;white-space:nowrap" + (";text-decoration:line-through" if deleted else "")
    )
    title = f"weight {unit.weight:.4f}" + ("" if unit.kind == "text" else f", {unit.kind}")
    return f'<span style="{style}" title="{title}">{html.escape(unit.text)}</span>'


def _colour(share: float) -> tuple[int, int, int]:
    red, green, blue = unlabel_rgb(sample_colorscale(_scale(), [share])[0])
    return round(red), round(green), round(blue)


@cache
def _scale() -> list[list[Any]]:
    """The colour scale, cached because plotly searches all its scales for a name."""
    return get_colorscale(SEQUENTIAL)


def _ink(background: tuple[int, int, int]) -> str:
    """Black or white, whichever contrasts more with the background (relative luminance of WCAG 2.2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in background)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if luminance > 0.179 else "#ffffff"  # where both contrasts are equal


def weight_bars(units: Sequence[Unit], title: str = "") -> go.Figure:
    """One bar per unit, in text order, coloured by kind (text, prefix, special token).

    Args:
        units: Units from `st_vi.inspection.attention.units`.
        title: Title of the figure.

    Returns:
        A figure whose first trace has the weights as ``y``.

    Example:
        >>> from st_vi.inspection.attention import Unit
        >>> from st_vi.viz import weight_bars
        >>> weight_bars([Unit("mưa", "text", (0,), (0, 3), 1.0)]).data[0].y
        (1.0,)
    """
    names = [str(number) for number in range(len(units))]
    bars = go.Bar(
        x=names,  # not the text, because a syllable may be repeated
        y=[unit.weight for unit in units],
        customdata=[[escaped(unit.text), unit.kind] for unit in units],
        marker={"color": [KIND_COLOURS[unit.kind] for unit in units]},
        hovertemplate="%{customdata[0]} (%{customdata[1]})<br>weight %{y:.4f}<extra></extra>",
        showlegend=False,
    )
    legend = [go.Bar(x=[None], y=[None], name=kind, marker={"color": colour}) for kind, colour in KIND_COLOURS.items()]
    figure = styled(go.Figure([bars, *legend]), title, height=320)
    figure.update_layout(
        barmode="overlay",
        legend={"yref": "paper", "y": 1.02, "yanchor": "bottom", "x": 1, "xanchor": "right", "itemclick": False},
        title={"y": 1, "yanchor": "top", "pad": {"t": 12}},
        margin={"t": 84 if title else 48},  # the legend is below the title
        xaxis={
            "type": "category",  # plotly then leaves out the labels for which there is no room
            "labelalias": {name: escaped(unit.text) for name, unit in zip(names, units, strict=True)},
            "tickangle": 90 if len(units) > 12 else None,  # plotly's own choice overlaps on a narrow page
            "range": [-0.6, max(len(units), 1) - 0.4],
            "automargin": True,
        },
        yaxis={"title": {"text": "weight"}, "rangemode": "tozero"},
    )
    return figure


def temperature_bars(states: Mapping[float, Sequence[Unit]], start: float = 1.0, title: str = "") -> go.Figure:
    """`weight_bars` with a slider over the pooling temperatures of `states`, from `start`; it needs no kernel."""
    figure = weight_bars(states[start], title)
    weights = {f"{one:g}": {"y": [[unit.weight for unit in units]]} for one, units in states.items()}
    place = list(states).index(start)
    return figure.update_layout(height=400, sliders=[slider("pooling temperature ", weights, [0], place, space=56)])


def drift_table(units: Sequence[Unit], deleted: Sequence[float], masked: Sequence[float]) -> str:
    """An HTML table of the weight of each unit and its `cosine_drift` without it, the largest weight first."""
    rows = sorted(zip(units, deleted, masked, strict=True), key=lambda row: -row[0].weight)
    body = "".join(
        f"<tr><td>{html.escape(unit.text)}</td>"
        + "".join(f"<td>{value:.3f}</td>" for value in (unit.weight, drift, in_pool))
        + "</tr>"
        for unit, drift, in_pool in rows
    )
    names = ("unit", "weight", "drift, deleted from the text", "drift, left out of the pool")
    head = "".join(f"<th>{name}</th>" for name in names)
    return (
        f'<div id="st-vi-drift" style="{_CARD};max-height:420px;overflow:auto;contain:inline-size">{_TABLE_STYLE}'
        f'<table style="border-collapse:collapse"><tr>{head}</tr>{body}</table></div>'
    )
