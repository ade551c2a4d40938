"""What all explorers share: controls, a place for notices, and a figure for pages without a kernel."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as w
import plotly.graph_objects as go
import plotly.io as pio

from st_vi.stock.figures import LiveFigure

REDRAWN = {"annotations", "height", "images", "shapes", "title"}
"""Of the layout, beside the axes; all else is the same in figures of one kind."""


class Explorer(w.VBox):
    """A live widget in a notebook, and a plotly figure where there is no kernel (`_repr_mimebundle_`).

    Args:
        children: Widgets, from top to bottom; the place for notices comes first.
        static: Makes the figure of the static twin, such as one with plotly's own slider.
    """

    def __init__(self, children: Sequence[w.Widget], static: Callable[[], go.Figure]) -> None:
        self.notice = w.HTML()
        self._static = static
        super().__init__([self.notice, *children])

    def show_notice(self, text: str = "") -> None:
        """Say something in place; nothing takes the notice away."""
        self.notice.value = (
            '<div class="st-vi-notice" style="background:#fff3cd;color:#4d3800;padding:4px 8px;'
            f'border-left:4px solid #e69f00">{html.escape(text)}</div>'
            if text
            else ""
        )

    def on_change(self, control: w.Widget, update: Callable[[], Any], names: str = "value") -> None:
        """Call `update` when the control changes; what goes wrong is said in place, and the control stays alive."""
        control.observe(lambda _: self.guarded(update), names)

    def guarded(self, update: Callable[[], Any]) -> None:
        """Call `update`; an error becomes a notice. A notice of an earlier call goes away first."""
        self.show_notice()
        try:
            update()
        except Exception as error:  # a traceback under a slider helps nobody
            self.show_notice(str(error) or type(error).__name__)

    @staticmethod
    def redraw(shown: go.Figure | None, fresh: go.Figure) -> go.Figure:
        """Make a figure look like another of its kind; its callbacks stay, and only what differs goes to the page.

        Args:
            shown: With as many traces as `fresh`, or more; those are hidden then. None is a new live figure.
            fresh: Not changed.
        """
        if shown is None:
            return LiveFigure(fresh)
        layout = fresh.layout.to_plotly_json()
        layout = {key: value for key, value in layout.items() if key in REDRAWN or "axis" in key}
        with shown.batch_update():
            for old, trace in zip(shown.data, fresh.data, strict=False):
                new = trace.to_plotly_json()
                gone = dict.fromkeys(old.to_plotly_json().keys() - new.keys() - {"type", "uid"})
                old.update({**gone, **new, "visible": True}, overwrite=True)
            for old in shown.data[len(fresh.data) :]:
                old.visible = False
            shown.layout.update(layout, overwrite=True)
        return shown

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        data = super()._repr_mimebundle_(**kwargs)
        data["text/html"] = pio.to_html(
            self._static(), include_plotlyjs=False, include_mathjax=False, full_html=False, auto_play=False
        )
        return data
