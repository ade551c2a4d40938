"""Plotly figures for explorers: they arrive in the page whole, share one script, and say no more than they must."""

from __future__ import annotations

from functools import cache
from typing import Any

import ipywidgets as w
import plotly.graph_objects as go
from traitlets import Unicode

LOADER = """
const load = async (model) => {
  const script = await model.widget_manager.get_model(model.get("_script"));
  return (script.loaded ??= import(URL.createObjectURL(new Blob([script.get("value")], { type: "text/javascript" }))));
};
const unheard = (key, value) =>
  /^_js2py_.*Deltas?$/.test(key) || (key === "_js2py_pointsCallback" && value?.event_type !== "plotly_click");
const quiet = (model) => ({ ...model, set: (key, value) => unheard(key, value) || model.set(key, value) });
export default () => {
  let figure, loaded;
  return {
    initialize({ model }) {
      model.set("_config", { ...model.get("_config"), plotGlPixelRatio: window.devicePixelRatio });
      loaded = load(model).then((module) => (figure = module.default()).initialize({ model: quiet(model) }));
      // anywidget never speaks again to what takes longer than two seconds
      return Promise.race([loaded, new Promise((resolve) => setTimeout(resolve, 1500))]);
    },
    render: ({ model, el }) => loaded.then(() => figure.render({ model: quiet(model), el })),
  };
};
"""
"""What a page runs for each figure: plotly's own widget, from a script that it loads once."""


class LiveFigure(go.FigureWidget):
    """A `FigureWidget` that is announced to the page with its data, and does not listen to what nobody asks for.

    The stock one announces itself empty, and sends data and layout after it; each brings the whole of plotly, 5 MB. A
    page that needs longer than two seconds for that, as it does for several figures or on a busy machine, draws them
    and does not look at them again.

    After each change, the page reports all values that plotly filled in, and after each lasso the points in it, which
    the stock one sends back to be drawn again, a trace at a time. Both keep kernel and page busy for longer than the
    answer itself. Here, the page tells of clicks only; a lasso is read from ``layout.selections``. Where the points of
    a trace become fewer after one, call `unmark`: the page would draw what is not there any more. WebGL draws as many
    pixels as the screen has; plotly's four for each of them take a page without a graphics card a third longer.

    Example:
        >>> from st_vi.stock.figures import LiveFigure
        >>> figure = LiveFigure({"data": [{"type": "bar", "y": [1, 2]}]})
        >>> figure.comm is not None, figure.data[0].y
        (True, (1, 2))
    """

    _esm = LOADER
    _script = Unicode().tag(sync=True)

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

    def unmark(self) -> None:
        """Draw all points alike again, whatever the page has marked after a lasso."""
        for trace in self.data:
            if "selectedpoints" in trace:
                trace._props["selectedpoints"] = []  # the page told nobody: now None is a change, and is sent
                trace.selectedpoints = None


@cache
def _plotly() -> w.HTML:
    """The script of the stock `FigureWidget`, in a widget that is never shown."""
    return w.HTML(str(go.FigureWidget._esm))
