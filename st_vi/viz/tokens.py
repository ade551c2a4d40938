"""The weights of attention pooling on a text: as coloured text, as bars, and beside what deleting does."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import plotly.graph_objects as go
from plotly.colors import get_colorscale, sample_colorscale, unlabel_rgb

from st_vi.inspection.attention import Unit
from st_vi.viz.theme import COLOURS, FONT, SEQUENTIAL, styled

KIND_COLOURS = {"text": COLOURS[0], "prefix": COLOURS[1], "special": COLOURS[3]}
"""Of the bars, by `Unit.kind`."""

_BORDERS = {"text": "transparent", "prefix": COLOURS[1], "special": COLOURS[3]}
_CARD = f"font-family:{html.escape(FONT)};background:#ffffff;color:#1a1a1a;padding:8px"

_TABLE_STYLE = """<style>
#st-vi-drift :is(th, td) {padding: 2px 12px; text-align: right; color: #1a1a1a; background: #ffffff}
#st-vi-drift th {background: #f0f0f0} #st-vi-drift td:first-child {text-align: left}
</style>"""
"""Once for all cells: a long text has hundreds."""


def highlight(units: Sequence[Unit], deleted: Unit | None = None) -> str:
    """The text as HTML, every unit on the colour of its weight; the largest weight of the text has the highest colour.

    The weight is the tooltip. Special tokens and the prefix are framed, and so named. The element's id is
    ``st-vi-tokens``.

    Args:
        units: From `st_vi.inspection.attention.units`.
        deleted: Struck through; None for none.

    Example:
        >>> from st_vi.inspection.attention import Unit
        >>> from st_vi.viz.tokens import highlight
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
    """Looked up once: plotly goes through all of its scales for a name."""
    return get_colorscale(SEQUENTIAL)


def _ink(background: tuple[int, int, int]) -> str:
    """Black or white, whichever has more contrast on the background (WCAG 2.2's relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in background)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if luminance > 0.179 else "#ffffff"  # where both contrasts are equal


def weight_bars(units: Sequence[Unit], title: str = "") -> go.Figure:
    """One bar a unit, from left to right as in the text; the colour tells text, prefix and special tokens apart.

    Args:
        units: From `st_vi.inspection.attention.units`.
        title: Above the figure.

    Returns:
        A figure whose first trace has the weights as ``y``.

    Example:
        >>> from st_vi.inspection.attention import Unit
        >>> from st_vi.viz.tokens import weight_bars
        >>> weight_bars([Unit("mưa", "text", (0,), (0, 3), 1.0)]).data[0].y
        (1.0,)
    """
    bars = go.Bar(
        x=list(range(len(units))),  # not the letters: a syllable may come twice
        y=[unit.weight for unit in units],
        customdata=[[html.escape(unit.text), unit.kind] for unit in units],
        marker={"color": [KIND_COLOURS[unit.kind] for unit in units]},
        hovertemplate="%{customdata[0]} (%{customdata[1]})<br>weight %{y:.4f}<extra></extra>",
        showlegend=False,
    )
    legend = [go.Bar(x=[None], y=[None], name=kind, marker={"color": colour}) for kind, colour in KIND_COLOURS.items()]
    every = 1 + len(units) // 70  # more names would lie on one another
    figure = styled(go.Figure([bars, *legend]), title, height=320)
    figure.update_layout(
        barmode="overlay",
        legend={"y": 1.02, "yanchor": "bottom", "x": 1, "xanchor": "right", "itemclick": False},
        margin={"t": 56},
        xaxis={
            "tickmode": "array",
            "tickvals": list(range(0, len(units), every)),
            "ticktext": [html.escape(unit.text) for unit in units[::every]],
            "tickangle": 90 if len(units) > 40 else None,  # what plotly comes to, after it has tried others
            "range": [-0.6, max(len(units), 1) - 0.4],
            "automargin": True,
        },
        yaxis={"title": {"text": "weight"}, "rangemode": "tozero"},
    )
    return figure


def temperature_bars(states: Mapping[float, Sequence[Unit]], start: float = 1.0, title: str = "") -> go.Figure:
    """`weight_bars` with plotly's own slider over pooling temperatures; needs no kernel.

    Args:
        states: The same units at every temperature, in the order of the slider.
        start: Where the slider begins; a key of `states`.
        title: Above the figure.
    """
    figure = weight_bars(states[start], title)
    steps = [
        {"label": f"{temperature:g}", "method": "restyle", "args": [{"y": [[unit.weight for unit in units]]}, [0]]}
        for temperature, units in states.items()
    ]
    figure.update_layout(
        height=400,
        sliders=[
            {
                "steps": steps,
                "active": list(states).index(start),
                "currentvalue": {"prefix": "pooling temperature "},
                "pad": {"t": 56},
            }
        ],
    )
    return figure


def drift_table(units: Sequence[Unit], deleted: Sequence[float], masked: Sequence[float]) -> str:
    """The weight of each unit beside what happens without it, as HTML, the largest weight first.

    Args:
        units: Of kind "text".
        deleted: 1 − cos to the text encoded again without the unit, one number a unit.
        masked: 1 − cos to the same encoding without the unit in the pool.
    """
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
        f'<div id="st-vi-drift" style="{_CARD};max-height:420px;overflow-y:auto">{_TABLE_STYLE}'
        f'<table style="border-collapse:collapse"><tr>{head}</tr>{body}</table></div>'
    )
