"""One look for all figures: colours that colour-blind readers tell apart, on a light card in light and dark pages."""

from __future__ import annotations

import plotly.graph_objects as go

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#f0e442")
"""Okabe and Ito's palette (2008), the most legible on white first."""

SEQUENTIAL = "Cividis"
"""A colour scale from low to high that reads alike with and without red-green vision."""

FONT = '"Noto Sans", "DejaVu Sans", "Liberation Sans", Arial, sans-serif'
"""All of them have the Vietnamese letters."""


def styled(figure: go.Figure, title: str = "", height: int = 380) -> go.Figure:
    """The figure with the project's look, in place.

    Args:
        figure: Any plotly figure or `FigureWidget`.
        title: Above the figure.
        height: In pixels.
    """
    figure.update_layout(
        template="plotly_white",
        colorway=COLOURS,
        title={"text": title, "font": {"size": 15}},
        font={"family": FONT, "size": 13, "color": "#1a1a1a"},
        height=height,
        margin={"l": 56, "r": 16, "t": 48 if title else 16, "b": 44},
        legend={"orientation": "h", "y": -0.18},
    )
    return figure
