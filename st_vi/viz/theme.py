"""The style of all figures: colour-blind-safe colours on a light background."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#f0e442")
"""The palette of Okabe and Ito (2008), most legible colours first."""

SEQUENTIAL = "Cividis"
"""A sequential colour scale that is colour-blind safe."""

TITLE = 36
"""Characters in a line of a title."""

FONT = '"Noto Sans", "DejaVu Sans", "Liberation Sans", Arial, sans-serif'
"""Fonts with all Vietnamese letters."""


_LINE = {"gridcolor": "#eef", "linecolor": "#eef", "zerolinecolor": "#eef", "ticks": ""}
_AXIS = {
    **_LINE,
    "zerolinewidth": 2,
    "automargin": True,
    "title": {"standoff": 12, "font": {"size": 13}},
}
_AXIS["ticklabeloverflow"] = "allow"  # none overflow; checking each label takes plotly most of a redraw
_SCALE = {"outlinewidth": 0, "ticks": ""}
TEMPLATE = go.layout.Template(
    layout={
        "autotypenumbers": "strict",
        "colorway": COLOURS,
        "font": {"family": FONT, "size": 13, "color": "#1a1a1a"},
        "title": {"x": 0.03, "font": {"size": 14}},
        "hovermode": "closest",
        "hoverlabel": {"align": "left"},
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},  # below the axes
        "margin": {"l": 56, "r": 16, "b": 44},
        "xaxis": {**_AXIS, "ticklabelstandoff": 6},  # clear of the lowest label of the other axis
        "yaxis": _AXIS,
        "scene": {f"{letter}axis": _LINE for letter in "xyz"},
    },
    data={
        "bar": [{"marker": {"line": {"color": "white", "width": 0.5}}}],
        "heatmap": [{"colorbar": _SCALE}],
        "scattergl": [{"marker": {"colorbar": _SCALE}}],
    },
)
"""Template of all figures; plotly's "plotly_white" is five times as long and is copied into every figure."""


def escaped(text: str) -> str:
    """A text or a name as plotly shows it: it would read tags, formulas between dollar signs, and ``%{`` in a template.

    Plotly knows few entities by name: ``&quot;`` would be shown as it is.
    """
    return html.escape(str(text), quote=False).replace("$", "&#36;").replace("%{", "&#37;{")


def styled(figure: go.Figure, title: str = "", height: int = 380) -> go.Figure:
    """Apply the style of the project, in place. A long title takes two lines, so that it fits a narrow page.

    The title is shown as it is written: tags in it are no tags.
    """
    title = "<br>".join(map(escaped, textwrap.wrap(title, TITLE, break_long_words=False)))
    return figure.update_layout(template=TEMPLATE, title_text=title, height=height, margin_t=48 if title else 16)


def slider(
    prefix: str, states: Mapping[str, Mapping[str, Any]], traces: Sequence[int], active: int, space: int = 20
) -> dict[str, Any]:
    """A plotly slider, which needs no kernel: by label, what it changes in these traces; `space` pixels above it."""
    steps = [{"label": label, "method": "restyle", "args": [change, traces]} for label, change in states.items()]
    return {"steps": steps, "active": active, "currentvalue": {"prefix": prefix}, "pad": {"t": space}}
