"""Base class of the explorers."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import ipywidgets as w
import plotly.graph_objects as go

from st_vi.stock.figures import LiveFigure
from st_vi.viz.stills.picture import bundle

NONE = -1
"""Value of the option of a menu that stands for none of its rows: with None, ipywidgets shows an empty box."""
REDRAWN = {"annotations", "height", "images", "shapes", "title"}
"""Parts of the layout that may differ between figures of one kind, besides the axes."""


def beside(*columns: w.Widget | Sequence[w.Widget], width: int = 360) -> w.Box:
    """Columns that share the cell, or stand below one another where it has no `width` pixels for each.

    Figures have no width of their own; a sequence is one column, from top to bottom.
    """
    layout = {"flex": f"1 1 {width}px", "min_width": "0", "overflow": "hidden"}
    boxes = [w.VBox([column] if isinstance(column, w.Widget) else list(column), layout=layout) for column in columns]
    return w.Box(boxes, layout=w.Layout(flex_flow="row wrap"))


def wrapping(*controls: w.Widget) -> w.HBox:
    """Controls in a row, or in several where the cell is narrow; none is wider than the cell."""
    for control in _with_children(controls):
        control.layout.max_width = "98%"
    return w.HBox(list(controls), layout=w.Layout(flex_flow="row wrap"))


def _with_children(controls: Iterable[w.Widget]) -> Iterator[w.Widget]:
    for control in controls:
        yield control
        yield from _with_children(getattr(control, "children", ()))


class Explorer(w.VBox):
    """A live widget in a notebook, a plotly figure where there is no kernel, a picture where no script runs.

    Args:
        children: Widgets, from top to bottom; notices are shown above them.
        static: Function that creates the static figure, such as one with a plotly slider.
    """

    def __init__(self, children: Sequence[w.Widget], static: Callable[[], go.Figure]) -> None:
        self.notice = w.HTML()
        self._static = static
        super().__init__([self.notice, *children])

    def show_notice(self, text: str = "") -> None:
        """Show a notice above the widgets; an empty text removes it."""
        self.notice.value = (
            '<div class="st-vi-notice" style="background:#fff3cd;color:#4d3800;padding:4px 8px;'
            f'border-left:4px solid #e69f00">{html.escape(text)}</div>'
            if text
            else ""
        )

    def on_change(self, control: w.Widget, update: Callable[[], Any], names: str = "value") -> None:
        """Call `update` when the control changes; an error becomes a notice, and the control keeps working."""
        control.observe(lambda _: self.guarded(update), names)

    def guarded(self, update: Callable[[], Any]) -> None:
        """Call `update`; an error becomes a notice. An earlier notice is removed first."""
        self.show_notice()
        try:
            update()
        except Exception as error:  # a notice is more useful than a traceback
            self.show_notice(str(error) or type(error).__name__)

    @staticmethod
    def redraw(shown: go.Figure | None, fresh: go.Figure) -> go.Figure:
        """Update a live figure to look like another; it keeps its callbacks, and only differences are sent to the page.

        Args:
            shown: Live figure with at least as many traces as `fresh`; extra ones are hidden. None creates a new one.
            fresh: The figure to show; it is not changed.
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
        return {**super()._repr_mimebundle_(**kwargs), **bundle(self._static())}
