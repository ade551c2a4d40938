"""A figure as a PNG picture, and its display beside the live form."""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from math import nan
from typing import Any

import plotly.graph_objects as go
import plotly.io as pio
from PIL import Image
from plotly.io.base_renderers import MimetypeRenderer

from st_vi.stock.renderers import show_also
from st_vi.viz.stills.axes import Axis, column
from st_vi.viz.stills.canvas import INK, Box, Canvas, size_of
from st_vi.viz.stills.marks import (
    Bar,
    Trace,
    bars_of,
    cells_of,
    draw_bar,
    draw_heatmap,
    draw_scatter,
    draw_space,
    legend_width,
    limits,
    name_markers,
    scale_of,
    swatch,
    write_cells,
)
from st_vi.viz.theme import COLOURS, escaped

WIDTH = 760
"""Pixels of a figure that has no width of its own."""
GRID, PALE = "#e4e4f0", "#666666"
LINES = {"scatter", "scattergl"}
DRAWN = {*LINES, "bar", "heatmap", "scatter3d"}
ROW, SCALE = 21, 84
"""Pixels of a row of a legend, and of a colour scale with its labels."""


def still(figure: go.Figure | Mapping[str, Any]) -> bytes:
    """A figure as a PNG picture, mostly of less than 30 kB, for viewers that run no scripts.

    It is drawn with Pillow, without a browser. It shows what the figures of st_vi are made of: bars, lines, markers,
    heat maps, points in space and images; a note in the picture says so if it leaves a trace out or cannot draw a
    figure, such as one with dates. An animation stands at its last frame.

    Args:
        figure: A plotly figure, or what its `to_dict` returns.

    Example:
        >>> import plotly.graph_objects as go
        >>> from st_vi.viz import still
        >>> still(go.Figure(go.Bar(x=["mưa", "nắng"], y=[2, 1])))[1:4]
        b'PNG'
    """
    given = figure if isinstance(figure, Mapping) else figure.to_dict()
    try:
        return _Still(given).png()
    except ImportError:  # of the font
        raise
    except Exception as error:  # a figure that is not of st_vi; it must not keep the live one from being shown
        return _Still(_only_live(given, error)).png()


def _only_live(figure: Mapping[str, Any], error: Exception) -> dict[str, Any]:
    """The title of a figure, and why there is no more of it."""
    layout = figure.get("layout") or {}
    said = "<br>".join(map(escaped, textwrap.wrap(f"{type(error).__name__}: {error}"[:300], 80)))
    note = {"text": f"Only in the live figure; it could not be drawn here:<br>{said}", "x": 0.5, "y": 0.5}
    return {"layout": {"title": layout.get("title"), "annotations": [note]}}


def use_stills() -> None:
    """Display every figure of this notebook with its picture, for viewers that run no scripts.

    ``jupyter nbconvert`` and viewers without scripts show the picture, JupyterLab and VS Code the live figure.
    The explorers of st_vi always have theirs. This is a setting of plotly: `plotly.io.renderers.default`.

    Example:
        >>> import plotly.io as pio
        >>> from st_vi.viz import use_stills
        >>> before = pio.renderers.default
        >>> use_stills()
        >>> pio.renderers.default.endswith("+still")
        True
        >>> pio.renderers.default = before
    """
    show_also("still", _StillRenderer())


def bundle(figure: go.Figure) -> dict[str, Any]:
    """The figure for live viewers and its picture for all others, by MIME type."""
    data = pio.renderers["plotly_mimetype"].to_mimebundle(figure.to_dict())
    return {**data, "image/png": base64.b64encode(still(figure)).decode("ascii")}


class _StillRenderer(MimetypeRenderer):
    """Adds the picture to what plotly displays.

    As SVG around the PNG file: beside a PNG, plotly's figures in JupyterLab stay dead until the mouse enters them.
    """

    def to_mimebundle(self, fig_dict: Mapping[str, Any]) -> dict[str, str]:
        picture = still(fig_dict)
        width, height = Image.open(BytesIO(picture)).size
        source = f"data:image/png;base64,{base64.b64encode(picture).decode('ascii')}"
        size = f'width="{width}" height="{height}"'
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" {size}><image {size} href="{source}"/></svg>'
        return {"image/svg+xml": svg}


class _Still:
    """One figure on its way to a picture."""

    def __init__(self, figure: Mapping[str, Any]) -> None:
        self.layout, frames = figure.get("layout") or {}, figure.get("frames") or ()
        given = [{"type": "scatter", **trace} for trace in figure.get("data") or ()]
        if frames:
            given = [{**trace, **new} for trace, new in zip(given, frames[-1]["data"], strict=True)]
        self.state = "   ".join(_states(self.layout, frames))
        traces = [{**trace, "fallback": COLOURS[number % len(COLOURS)]} for number, trace in enumerate(given)]
        self.traces: list[Trace] = [trace for trace in traces if trace.get("visible", True) is True]
        self.width, self.height = int(self.layout.get("width") or WIDTH), int(self.layout.get("height") or 450)
        self.flat = [trace for trace in self.traces if trace["type"] in DRAWN - {"scatter3d"}]
        self.pairs: dict[tuple[str, str], list[Trace]] = {}
        for trace in self.flat:
            self.pairs.setdefault((trace.get("xaxis") or "x", trace.get("yaxis") or "y"), []).append(trace)
        self.axes: dict[str, Axis] = {}
        self.bars: dict[tuple[str, str], list[Bar]] = {}
        self._fit_axes()
        self._place()
        self.canvas = Canvas(self.width, self.height)

    def png(self) -> bytes:
        for names, traces in self.pairs.items():
            self._draw_pair(names, traces)
        self._draw_space()
        self._draw_axes()
        self._draw_notes()
        self._draw_legends()
        self._draw_scale()
        self.canvas.text((0.03 * self.width, 12), self._title(), 15, down="top")
        self.canvas.text((self.width - 12, 14), self.state, 12, "right", "top", fill=PALE)
        return self.canvas.png()

    def _title(self) -> str:
        """The title, in lines as long as the picture has room for."""
        title, letters = _text(self.layout.get("title")).replace("<br>", " "), max(1, self.width // 12)
        return "<br>".join(textwrap.wrap(title, letters))

    # Places

    def _settings(self, name: str) -> Mapping[str, Any]:
        return self.layout.get(f"{name[0]}axis{name[1:]}") or {}

    def _fit_axes(self) -> None:
        for pair, traces in self.pairs.items():
            for name in pair:
                axis = self.axes.setdefault(name, Axis(self._settings(name)))
                words = [v for trace in traces for v in column(trace.get(name[0])) if isinstance(v, str)]
                if words:
                    axis.names = list(dict.fromkeys([*(axis.names or []), *words]))
        for pair, traces in self.pairs.items():
            x, y = (self.axes[name] for name in pair)
            bars = [trace for trace in traces if trace["type"] == "bar"]
            self.bars[pair] = bars_of(bars, x, y, self.layout.get("barmode") or "group")
        matched = {name: axis.settings.get("matches") or name for name, axis in self.axes.items()}
        for name, axis in self.axes.items():
            alike = [other for other in self.axes if matched[other] == matched[name]]
            spans = [span for other in alike for span in self._spans(other)]
            drawn = [trace for pair, traces in self.pairs.items() if name in pair for trace in traces]
            of_values = name[0] == "y"
            heats = any(trace["type"] == "heatmap" for trace in drawn)
            fills = of_values and any(trace.get("fill") == "tozeroy" for trace in drawn)
            lines = [trace for trace in drawn if trace["type"] in LINES]
            points = any("markers" in (trace.get("mode") or "lines+markers") for trace in lines)
            of_bars = any(self.bars[pair] for pair in self.pairs if name in pair)
            room = 0.05 if points or of_bars or (of_values and not heats) else 0.0
            axis.fit(spans, room, stands=of_bars or fills or axis.settings.get("rangemode") == "tozero")

    def _spans(self, name: str) -> Iterator[tuple[float, float]]:
        """Lowest and highest number of everything that is drawn along an axis."""
        axis, letter = self.axes[name], name[0]
        for pair, traces in self.pairs.items():
            if name not in pair:
                continue
            for bar in self.bars[pair]:
                yield bar.along if bar.lies is (letter == "x") else bar.across
                if bar.error and bar.lies is (letter == "x"):
                    yield bar.error
            for trace in traces:
                if trace["type"] == "heatmap":
                    across, down, _ = cells_of(trace, self.axes[pair[0]], self.axes[pair[1]])
                    yield across if letter == "x" else down
                elif trace["type"] in LINES:
                    values = column(trace.get(letter))
                    numbers = [number for value in values if (number := axis.number(value)) == number]
                    if numbers:
                        yield min(numbers), max(numbers)
        for shape in self.layout.get("shapes") or ():
            if shape.get(f"{letter}ref") == name:
                yield axis.number(shape[f"{letter}0"]), axis.number(shape[f"{letter}1"])

    def _place(self) -> None:
        """Leave room around the axes for titles, labels, legends and a colour scale, and give them their pixels."""
        self.legends: dict[str, list[Trace]] = {}
        for trace in self.traces:
            alone = sum(other.get("showlegend") is not False for other in self.traces) == 1
            shown = trace.get("showlegend")
            if (self.layout.get(trace.get("legend") or "legend") or {}).get("visible") is False:
                continue
            if shown or (shown is None and trace.get("name") and not alone and trace["type"] != "heatmap"):
                self.legends.setdefault(trace.get("legend") or "legend", []).append(trace)
        if self.layout.get("showlegend") is False:
            self.legends = {}
        self.scaled = [trace for trace in self.traces if _has_scale(trace)]
        left = max([16, *(self._room(name) for name in self.axes if name[0] == "y" and self._start(name, "x") < 0.01)])
        right = 16 + SCALE * bool(self.scaled)
        right += max([0, *(size_of(n["text"])[0] for n in self._notes() if n.get("xref") == "paper" and n["x"] >= 1)])
        self.left, self.right = left, self.width - right
        for name, axis in self.axes.items():
            if name[0] == "x":
                axis.start, axis.end = (self.left + share * (self.right - self.left) for share in self._domain(name))
        top = 16 + (size_of(self._title(), 15)[1] + 8) * bool(self._title() or self.state)
        above = [size_of(note["text"])[1] for note in self._notes() if note.get("yref") == "paper" and note["y"] > 0.99]
        above += [self._room(name) for name in self.axes if self._settings(name).get("side") == "top"]
        below = [
            self._room(name)
            for name in self.axes
            if name[0] == "x" and self._start(name, "y") < 0.01 and self._settings(name).get("side") != "top"
        ]
        self.rows = list(self._rows()) if len(self.legends) == 1 else []
        self.top = top + max([0, *above])
        self.bottom = self.height - max([12, *below]) - ROW * len(self.rows) - 4
        for name, axis in self.axes.items():
            if name[0] == "y":
                axis.start, axis.end = (self._down(share) for share in self._domain(name))
        self._keep_shapes()

    def _domain(self, name: str) -> tuple[float, float]:
        return tuple(self._settings(name).get("domain") or (0.0, 1.0))

    def _start(self, name: str, letter: str) -> float:
        """Where the axes on the other side of a pair begin, as a share of the whole."""
        others = [other for pair in self.pairs if name in pair for other in pair if other[0] == letter]
        return min(self._domain(other)[0] for other in others)

    def _down(self, share: float) -> float:
        return self.bottom - share * (self.bottom - self.top)

    def _room(self, name: str) -> int:
        """Pixels of the labels and the title of an axis."""
        axis = self.axes[name]
        if axis.settings.get("visible") is False:
            return 8
        title = 22 * bool(_text(axis.settings.get("title")))
        if name[0] == "y":
            return 20 + title + max([0, *(size_of(label, 12)[0] for _, label in axis.ticks())])
        labels, turned = self._labels(name)
        return 12 + title + max([0, *(size_of(label, 12)[0 if turned else 1] for _, label in labels)])

    def _labels(self, name: str) -> tuple[list[tuple[float, str]], bool]:
        """Numbers and labels of the ticks of a horizontal axis, and whether the labels stand upright."""
        axis, ticks = self.axes[name], self.axes[name].ticks()
        if axis.settings.get("tickangle"):
            return ticks, True
        room = abs(axis.end - axis.start) / max(1, len(ticks))
        if axis.names is None and not axis.settings.get("tickvals"):
            return [tick for number, tick in enumerate(ticks) if room > 34 or number % 2 == 0], False
        wrapped = [
            (number, "<br>".join(textwrap.wrap(label, max(6, int(room / 7)), break_long_words=False) or [""]))
            for number, label in ticks
        ]
        labels = [new if "<br>" not in old[1] else old for old, new in zip(ticks, wrapped, strict=True)]
        return labels, any(size_of(label, 12)[0] > room for _, label in labels)

    def _rows(self) -> Iterator[list[Trace]]:
        """The entries of the legend, as many in a row as there is room for."""
        (entries,), row, used = self.legends.values(), list[Trace](), 0
        for trace in entries:
            wide = legend_width(trace["name"])
            if row and used + wide > self.width - self.left - 8:
                yield row
                row, used = [], 0
            row, used = [*row, trace], used + wide
        yield row

    def _keep_shapes(self) -> None:
        """One unit of both axes has the same length where the figure wants it so."""
        for pair in self.pairs:
            x, y = (self.axes[name] for name in pair)
            if not (x.settings.get("scaleanchor") or y.settings.get("scaleanchor")):
                continue
            scale = min(abs((axis.end - axis.start) / (axis.high - axis.low)) for axis in (x, y))
            for axis in (x, y):
                middle, half = (axis.start + axis.end) / 2, (axis.end - axis.start) / 2
                if "domain" in (x.settings.get("constrain"), y.settings.get("constrain")):
                    half *= scale * abs((axis.high - axis.low) / (axis.end - axis.start))
                    axis.start, axis.end = middle - half, middle + half
                else:
                    middle, half = (axis.low + axis.high) / 2, (axis.high - axis.low) / 2
                    half *= abs((axis.end - axis.start) / (axis.high - axis.low)) / scale
                    axis.low, axis.high = middle - half, middle + half

    # Drawing

    def _draw_pair(self, names: tuple[str, str], traces: Sequence[Trace]) -> None:
        x, y = (self.axes[name] for name in names)
        box = min(x.start, x.end), min(y.start, y.end), max(x.start, x.end), max(y.start, y.end)
        self._draw_grid(x, y, box)
        with self.canvas.inside(box):
            self._draw_images(names, x, y)
            for bar in self.bars[names]:
                draw_bar(self.canvas, bar, x, y)
            for trace in traces:
                if trace["type"] == "heatmap":
                    draw_heatmap(self.canvas, trace, x, y)
                elif trace["type"] in LINES:
                    draw_scatter(self.canvas, trace, x, y)
        for trace in traces:
            if trace["type"] == "heatmap":
                write_cells(self.canvas, trace, x, y)
            elif trace["type"] in LINES:
                name_markers(self.canvas, trace, x, y)

    def _draw_grid(self, x: Axis, y: Axis, box: Box) -> None:
        for axis in (x, y):
            if axis.names is not None:
                continue
            for number, _ in axis.ticks():
                at, width = axis.pixel(number), 2 if number == 0 and not axis.is_log else 1
                ends = [(at, box[1]), (at, box[3])] if axis is x else [(box[0], at), (box[2], at)]
                self.canvas.line(ends, GRID, width)

    def _draw_images(self, names: tuple[str, str], x: Axis, y: Axis) -> None:
        for image in self.layout.get("images") or ():
            if (image.get("xref"), image.get("yref")) == names and image["source"].startswith("data:"):
                picture = Image.open(BytesIO(base64.b64decode(image["source"].partition(",")[2])))
                left, top = image["x"], image["y"]
                right, bottom = left + image["sizex"], top + image["sizey"] * (1 if y.low > y.high else -1)
                self.canvas.paste(picture, (x.at(left), y.at(top), x.at(right), y.at(bottom)))

    def _draw_space(self) -> None:
        scenes: dict[str, list[Trace]] = {}
        for trace in self.traces:
            if trace["type"] == "scatter3d":
                scenes.setdefault(trace.get("scene") or "scene", []).append(trace)
        for name, traces in scenes.items():
            scene = self.layout.get(name) or {}
            domain = scene.get("domain") or {}
            left, right = (self.left + share * (self.right - self.left) for share in domain.get("x") or (0, 1))
            bottom, top = (self._down(share) for share in domain.get("y") or (0, 1))
            draw_space(self.canvas, traces, scene, (left, top, right, bottom))

    def _draw_axes(self) -> None:
        for pair in self.pairs:
            x, y = (self.axes[name] for name in pair)
            left, bottom, top = min(x.start, x.end), max(y.start, y.end), min(y.start, y.end)
            for number, label in y.ticks():
                self.canvas.text((left - 7, y.pixel(number)), label, 12, across="right")
            self.canvas.text(
                (left - self._room(pair[1]) + 12, (top + bottom) / 2),
                *(_text(y.settings.get("title")), 13, "center", "middle", True),
            )
            above = x.settings.get("side") == "top"
            labels, turned = self._labels(pair[0])
            for number, label in labels:
                place = x.pixel(number), top - 5 if above else bottom + 5
                self.canvas.text(place, label, 12, "center", "bottom" if above else "top", turned)
            title = _text(x.settings.get("title"))
            self.canvas.text(((x.start + x.end) / 2, bottom + self._room(pair[0]) - 22), title, 13, "center", "top")

    def _notes(self) -> list[Mapping[str, Any]]:
        return [note for note in self.layout.get("annotations") or () if note.get("text") and "x" in note]

    def _draw_notes(self) -> None:
        """Draw lines across the axes, and the texts of the figure."""
        for shape in self.layout.get("shapes") or ():
            (x0, y0), (x1, y1) = (self._spot(shape, end) for end in "01")
            line = shape.get("line") or {}
            look = line.get("color") or INK, line.get("width") or 2, line.get("dash") or "solid"
            self.canvas.line([(x0, y0), (x1, y1)], *look)
        for note in self._notes():
            x, y = self._spot(note, "")
            across, down = note.get("xanchor") or "auto", note.get("yanchor") or "auto"
            across, down = "center" if across == "auto" else across, "middle" if down == "auto" else down
            size = int((note.get("font") or {}).get("size") or 13)
            place = x + (note.get("xshift") or 0), y - (note.get("yshift") or 0)
            self._write(place, note["text"], size, across, down)
        unseen = sorted({trace["type"] for trace in self.traces} - DRAWN)
        if unseen:
            words = f"Only in the live figure: {', '.join(unseen)}"
            self.canvas.text((self.width - 8, self.height - 4), words, 12, "right", "bottom")

    def _write(self, place: tuple[float, float], text: str, size: int, across: str, down: str) -> None:
        """Write a text that can be read over marks."""
        width, height = size_of(text, size)
        left = place[0] - {"left": 0, "center": 0.5, "right": 1}[across] * width
        top = place[1] - {"top": 0, "middle": 0.5, "bottom": 1}[down] * height
        self.canvas.bar((left, top + 2, left + width, top + height - 2), "#ffffff", 0.7)
        self.canvas.text(place, text, size, across, down)

    def _spot(self, item: Mapping[str, Any], end: str) -> tuple[float, float]:
        """The pixel of a corner of a shape, or of a text."""
        found = []
        for letter in "xy":
            name, _, domain = str(item.get(f"{letter}ref") or "paper").partition(" ")
            axis, value = self.axes.get(name), item[f"{letter}{end}"]
            if axis and domain:
                found.append(axis.start + value * (axis.end - axis.start))
            elif axis:
                # the texts of a logarithmic axis are placed by logarithms, its shapes by values
                found.append(axis.pixel(value) if axis.is_log and not end else axis.at(value))
            else:
                whole = self.left + value * (self.right - self.left)
                found.append(self._down(value) if letter == "y" else whole if name == "paper" else nan)
        return found[0], found[1]

    def _draw_legends(self) -> None:
        top = self.height - ROW * len(self.rows) - 4
        for number, row in enumerate(self.rows):
            left = self.left
            for trace in row:
                self._entry(trace, left, top + ROW * (number + 0.5))
                left += legend_width(trace["name"])
        if self.rows:
            return
        for name, traces in self.legends.items():
            settings = self.layout.get(name) or {}
            head = _text(settings.get("title"))
            down = self._down(settings.get("y", 1)) + ROW / 2
            if head:
                self.canvas.text((self.left, down), head, 13)
                down += ROW
            for number, trace in enumerate(traces):
                self._entry(trace, self.left, down + ROW * number)

    def _entry(self, trace: Trace, left: float, middle: float) -> None:
        swatch(self.canvas, trace, (left, middle))
        self.canvas.text((left + 28, middle), trace["name"], 12)

    def _draw_scale(self) -> None:
        if not self.scaled:
            return
        trace = self.scaled[0]
        style = trace if "z" in trace else trace["marker"]
        low, high = limits(trace)
        bar = style.get("colorbar") or {}
        title = _text(bar.get("title"))
        left, top, bottom = self.right + 14, self.top + size_of(title, 12)[1] + 4, self.bottom
        picture = Image.fromarray(scale_of(style)[::-1].round().astype("uint8")[:, None], "RGB")
        self.canvas.paste(picture, (left, top, left + 12, bottom))
        self.canvas.text((left, self.top), title, 12, down="top")
        axis = Axis({}, low, high if high > low else low + 1, start=bottom, end=top)
        for number, label in axis.ticks():
            self.canvas.text((left + 17, axis.pixel(number)), label, 12)


def _states(layout: Mapping[str, Any], frames: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What the sliders and menus of a figure are set to; a film stands at its end."""
    for slider in layout.get("sliders") or ():
        step = slider["steps"][-1 if frames else slider.get("active") or 0]
        yield (slider.get("currentvalue") or {}).get("prefix", "") + str(step.get("label"))
    for menu in layout.get("updatemenus") or ():
        if menu.get("visible") is not False and menu.get("buttons"):
            yield str(menu["buttons"][menu.get("active") or 0].get("label"))


def _has_scale(trace: Trace) -> bool:
    if trace["type"] == "heatmap":
        return trace.get("showscale") is not False
    return bool((trace.get("marker") or {}).get("showscale"))


def _text(title: Any) -> str:
    return str(title.get("text") or "") if isinstance(title, Mapping) else str(title or "")
