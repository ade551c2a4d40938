"""Plotly figures for explorers: they arrive in the page whole, share one script, and say no more than they must."""

from __future__ import annotations

from functools import cache
from typing import Any

import ipywidgets as w
import plotly.graph_objects as go
from plotly.serializers import custom_serializers
from traitlets import Bunch, Dict, Unicode, observe

LOADER = """
const load = async (model) => {
  const script = await model.widget_manager.get_model(model.get("_script"));
  return (script.loaded ??= import(URL.createObjectURL(new Blob([script.get("value")], { type: "text/javascript" }))));
};
export default () => {
  let figure, loaded;
  return {
    initialize({ model }) {
      loaded = load(model).then((module) => (figure = module.default()).initialize({ model }));
      // anywidget never speaks again to what takes longer than two seconds
      return Promise.race([loaded, new Promise((resolve) => setTimeout(resolve, 1500))]);
    },
    render: (context) => loaded.then(() => figure.render(context)),
  };
};
"""
"""What a page runs for each figure: plotly's own widget, from a script that it loads once."""


def _quiet() -> Dict:
    """A message from the page of which the page wants no copy back."""
    return Dict(allow_none=True).tag(sync=True, echo_update=False, **custom_serializers)


class LiveFigure(go.FigureWidget):
    """A `FigureWidget` that is announced to the page with its data, and does not listen to what nobody asks for.

    The stock one announces itself empty, and sends data and layout after it; each brings the whole of plotly, 5 MB. A
    page that needs longer than two seconds for that, as it does for several figures or on a busy machine, draws them
    and does not look at them again.

    After each change, the page reports all values that plotly filled in, and after each lasso the points in it, which
    the stock one sends back to be drawn again, a trace at a time. Both keep kernel and page busy for longer than the
    answer itself. Here, callbacks get clicks; a lasso is read from ``layout.selections``. Where the points of a trace
    become fewer after one, set its ``selectedpoints`` to None: the page would draw what is not there any more.

    Example:
        >>> from st_vi.viz.widgets.live import LiveFigure
        >>> figure = LiveFigure({"data": [{"type": "bar", "y": [1, 2]}]})
        >>> figure.comm is not None, figure.data[0].y
        (True, (1, 2))
    """

    _esm = LOADER
    _script = Unicode().tag(sync=True)
    _js2py_traceDeltas = _quiet()
    _js2py_layoutDelta = _quiet()
    _js2py_pointsCallback = _quiet()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._is_whole = False
        super().__init__(*args, **kwargs)
        self._script = _plotly().model_id
        self._is_whole = True
        self.open()

    def open(self) -> None:
        """Announce the figure to the page, once it is whole."""
        if self._is_whole:
            super().open()

    def _handler_js2py_traceDeltas(self, change: Bunch) -> None:
        """Without ``observe``: not called."""

    def _handler_js2py_layoutDelta(self, change: Bunch) -> None:
        """Likewise."""

    @observe("_js2py_pointsCallback")
    def _handler_js2py_pointsCallback(self, change: Bunch) -> None:
        event = (change["new"] or {}).get("event_type")
        if event == "plotly_click":
            super()._handler_js2py_pointsCallback(change)
        for trace in self.data if event == "plotly_selected" else ():
            if "selectedpoints" in trace:
                trace._props["selectedpoints"] = []  # the page has marked some: None is a change now, and unmarks them


@cache
def _plotly() -> w.HTML:
    """The script of the stock `FigureWidget`, in a widget that is never shown."""
    return w.HTML(str(go.FigureWidget._esm))
