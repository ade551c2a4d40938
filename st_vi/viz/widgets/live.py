"""Plotly figures that arrive in the page whole."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go


class LiveFigure(go.FigureWidget):
    """A `FigureWidget` that is announced to the page with its data, and not before it has any.

    The stock one announces itself empty and sends data and layout after it. A page that is still loading its script
    (5 MB for each figure) draws what it has, which is nothing, and does not look at them again.

    Example:
        >>> from st_vi.viz.widgets.live import LiveFigure
        >>> figure = LiveFigure({"data": [{"type": "bar", "y": [1, 2]}]})
        >>> figure.comm is not None, figure.data[0].y
        (True, (1, 2))
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._is_whole = False
        super().__init__(*args, **kwargs)
        self._is_whole = True
        self.open()

    def open(self) -> None:
        """Announce the figure to the page, once it is whole."""
        if self._is_whole:
            super().open()
