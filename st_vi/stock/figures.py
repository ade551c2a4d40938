"""A faster `FigureWidget` for the explorers."""

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
// plotly follows the window; a cell also changes when a sidebar opens
const follow = (el, rendered) => {
  let width = el.clientWidth;
  new ResizeObserver(() => {
    if (el.clientWidth && el.clientWidth !== width) {
      width = el.clientWidth;
      window.dispatchEvent(new Event("resize"));
    }
  }).observe(el);
  return rendered;
};
export default () => {
  let figure, loaded;
  return {
    initialize({ model }) {
      const settings = { plotGlPixelRatio: window.devicePixelRatio, responsive: true };
      model.set("_config", { ...model.get("_config"), ...settings });
      loaded = load(model).then((module) => (figure = module.default()).initialize({ model: quiet(model) }));
      // anywidget never speaks again to what takes longer than two seconds
      return Promise.race([loaded, new Promise((resolve) => setTimeout(resolve, 1500))]);
    },
    render: ({ model, el }) => loaded.then(() => follow(el, figure.render({ model: quiet(model), el }))),
  };
};
"""
"""What a page runs for each figure: plotly's own widget, from a script that it loads once."""


class LiveFigure(go.FigureWidget):
    """A `FigureWidget` that is sent to the page with its data, and receives only clicks.

    The stock widget is sent empty, followed by data and layout, and each figure loads the 5 MB script of plotly. If
    this takes more than two seconds, as with several figures or on a busy machine, the page no longer updates them.

    With the stock widget, the page also reports all values that plotly filled in after each change, and the points in
    each lasso, which are then sent back and drawn again, trace by trace. This takes longer than the update itself.
    Here, the page reports only clicks, and lassos are read from ``layout.selections``. If a trace loses points after a
    lasso, call `unmark`, or the page draws points that no longer exist. WebGL uses the resolution of the screen instead
    of plotly's four pixels for each, which is a third slower without a graphics card. A figure without a
    width of its own follows that of its cell.

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
        if self.layout.width is None:
            self.layout.autosize = True  # or the first change of its height would fix its width
        if _plotly().comm is None:  # it was closed, as by `Widget.close_all`
            _plotly.cache_clear()
        self._script = _plotly().model_id
        self._is_whole = True
        self.open()

    def open(self) -> None:
        """Send the complete figure to the page."""
        if self._is_whole:
            super().open()

    def unmark(self) -> None:
        """Clear the marks that a lasso left on the page."""
        for trace in self.data:
            if "selectedpoints" in trace:
                trace._props["selectedpoints"] = []  # not synchronised by the page; makes None a change that is sent
                trace.selectedpoints = None


@cache
def _plotly() -> w.HTML:
    """A hidden widget with the script of the stock `FigureWidget`."""
    return w.HTML(str(go.FigureWidget._esm))
