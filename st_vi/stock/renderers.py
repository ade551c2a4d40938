"""The renderers that plotly displays a figure with: a setting of the whole process."""

from __future__ import annotations

import plotly.io as pio
from plotly.io.base_renderers import MimetypeRenderer

_WITH_SCRIPT = ("notebook", "browser")  # a script of five megabytes, which viewers would take instead


def show_also(name: str, renderer: MimetypeRenderer) -> None:
    """Display figures with this renderer, too, and no longer with those that bring plotly's script.

    Args:
        name: Its name in ``plotly.io.renderers``.
        renderer: It adds its MIME types to those of the others.
    """
    pio.renderers[name] = renderer
    others = [other for other in pio.renderers.default.split("+") if other not in (name, *_WITH_SCRIPT, "")]
    pio.renderers.default = "+".join([*(others or ["plotly_mimetype"]), name])
