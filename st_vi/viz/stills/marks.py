"""What the traces of a figure draw: bars, lines, markers, heat maps and points in space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import cos, isfinite, pi, sin
from typing import Any

import numpy as np
from PIL import Image
from plotly.colors import get_colorscale

from st_vi.viz.stills.axes import Axis, column
from st_vi.viz.stills.canvas import INK, Box, Canvas, Point, colour, size_of

Trace = Mapping[str, Any]
Span = tuple[float, float]

GAP = 0.2
"""Share of a category that its bars leave free."""


def _turn(*degrees: float, radius: float = 1.0) -> list[Point]:
    return [(radius * cos(each * pi / 180), -radius * sin(each * pi / 180)) for each in degrees]


_PLUS = [(-1, -0.35), (-0.35, -0.35), (-0.35, -1), (0.35, -1), (0.35, -0.35), (1, -0.35)]
_PLUS = [*_PLUS, *[(-x, -y) for x, y in _PLUS]]
SYMBOLS: dict[str, list[Point]] = {
    "circle": _turn(*range(0, 360, 15)),
    "square": _turn(45, 135, 225, 315, radius=1.25),
    "diamond": _turn(0, 90, 180, 270, radius=1.3),
    "triangle-up": _turn(90, 210, 330, radius=1.2),
    "triangle-down": _turn(270, 30, 150, radius=1.2),
    "triangle-right": _turn(0, 120, 240, radius=1.2),
    "cross": _PLUS,
    "x": [((x - y) * 0.75, (x + y) * 0.75) for x, y in _PLUS],
    "star": [_turn(90 + 36 * n, radius=1.4 if n % 2 == 0 else 0.6)[0] for n in range(10)],
}


@dataclass(frozen=True)
class Bar:
    """One bar, in numbers of its axes.

    Attributes:
        across: Its two sides.
        along: Where it begins and ends.
        lies: Whether it lies along the horizontal axis.
        error: The ends of its interval, if it has one.
    """

    across: Span
    along: Span
    lies: bool
    fill: str
    opacity: float
    error: Span | None = None


def bars_of(traces: Sequence[Trace], x: Axis, y: Axis, mode: str) -> list[Bar]:
    """The bars of all bar traces of a pair of axes; the mode is plotly's `barmode`."""
    slots = [
        {"group": number, "overlay": 0}.get(mode, trace.get("offsetgroup") or 0) for number, trace in enumerate(traces)
    ]
    order, tops, drawn = list(dict.fromkeys(slots)), dict[tuple[Any, float, bool], float](), []
    for trace, slot in zip(traces, slots, strict=True):
        lies = trace.get("orientation") == "h"
        places, values = (column(trace.get(letter)) for letter in ("yx" if lies else "xy"))
        positions = [(y if lies else x).number(place) for place in places]
        width = (trace.get("width") or 1 - GAP) / len(order)
        for number, (position, value) in enumerate(zip(positions, values, strict=False)):
            if value is None or not isfinite(position):
                continue
            left = position + (order.index(slot) - len(order) / 2) * width
            key = slot, position, value < 0
            base = tops.get(key, 0.0) if mode in ("stack", "relative") else 0.0
            tops[key] = base + value
            error = trace.get("error_x" if lies else "error_y") or {}
            ends = None
            if error.get("array") is not None:
                up, down = (column(error.get(name) or error["array"])[number] for name in ("array", "arrayminus"))
                ends = value - down, value + up
            style = trace.get("marker") or {}
            fill = _each(style.get("color"), number) or trace["fallback"]
            opacity = _opacity(style, number)
            drawn.append(Bar((left, left + width), (base, base + value), lies, fill, opacity, ends))
    return drawn


def draw_bar(canvas: Canvas, bar: Bar, x: Axis, y: Axis) -> None:
    """Draw one bar and its interval."""
    across, along = (y, x) if bar.lies else (x, y)
    (one, other), (base, top) = map(across.pixel, bar.across), map(along.pixel, bar.along)
    canvas.bar((base, one, top, other) if bar.lies else (one, base, other, top), bar.fill, bar.opacity)
    if bar.error:
        middle, (low, high) = (one + other) / 2, map(along.pixel, bar.error)
        for start, end in (((low, middle), (high, middle)), *(((e, middle - 4), (e, middle + 4)) for e in (low, high))):
            ends = [start, end] if bar.lies else [start[::-1], end[::-1]]
            canvas.line(ends, INK, 1.5)


def draw_scatter(canvas: Canvas, trace: Trace, x: Axis, y: Axis) -> None:
    """Draw lines, the area below them and markers."""
    ys = column(trace.get("y"))
    xs = column(trace["x"]) if trace.get("x") is not None else list(range(len(ys)))
    points = [(x.at(one), y.at(other)) for one, other in zip(xs, ys, strict=False)]
    mode, line = trace.get("mode") or "lines+markers", trace.get("line") or {}
    if line.get("shape") == "hvh":
        points = list(_steps(points))
    fill = line.get("color") or _of_marker(trace) or trace["fallback"]
    if trace.get("fill") == "tozeroy" and points:
        floor = y.at(0)
        area = [(points[0][0], floor), *points, (points[-1][0], floor)]
        canvas.area(area, trace.get("fillcolor") or fill, 1 if trace.get("fillcolor") else 0.3)
    opacity = _opacity(trace)
    if "lines" in mode:
        canvas.line(points, fill, line.get("width") or 2, line.get("dash") or "solid", opacity)
    if "markers" in mode:
        draw_markers(canvas, trace, points, opacity)


def draw_markers(canvas: Canvas, trace: Trace, points: Sequence[Point], opacity: float = 1) -> None:
    """Draw a marker at each point of the trace."""
    style = trace.get("marker") or {}
    edge, fills = style.get("line") or {}, _fills(style, len(points))
    opacity *= _opacity(style)
    for number, (across, down) in enumerate(points):
        if not (isfinite(across) and isfinite(down)):
            continue
        size = (_each(style.get("size"), number) or 6) / 2
        symbol = _each(style.get("symbol"), number) or "circle"
        outline = [(across + size * a, down + size * b) for a, b in SYMBOLS.get(symbol, SYMBOLS["circle"])]
        fill = fills[number] or (trace.get("line") or {}).get("color") or trace["fallback"]
        canvas.area(outline, fill, opacity, edge.get("color") or "", edge.get("width") or 0)


def name_markers(canvas: Canvas, trace: Trace, x: Axis, y: Axis) -> None:
    """Write the texts of a trace above its points."""
    if "text" in (trace.get("mode") or ""):
        for one, other, text in zip(*(column(trace.get(key)) for key in ("x", "y", "text")), strict=False):
            canvas.text((x.at(one), y.at(other) - 8), text, 12, across="center", down="bottom")


def cells_of(trace: Trace, x: Axis, y: Axis) -> tuple[Span, Span, np.ndarray]:
    """Edges of a heat map along both axes in their numbers, and its values; NaN is a gap."""
    values = np.array(
        [[float("nan") if value is None else value for value in row] for row in column(trace["z"])], float
    )
    spans = []
    for letter, axis, count in (("x", x, values.shape[1]), ("y", y, values.shape[0])):
        if trace.get(letter) is not None:
            places = [axis.number(place) for place in column(trace[letter])]
            step = (places[-1] - places[0]) / max(1, count - 1) or 1
            spans.append((places[0] - step / 2, places[-1] + step / 2))
        else:
            first, step = trace.get(f"{letter}0") or 0, trace.get(f"d{letter}") or 1
            spans.append((first - step / 2, first + (count - 0.5) * step))
    return spans[0], spans[1], values


def draw_heatmap(canvas: Canvas, trace: Trace, x: Axis, y: Axis) -> None:
    """Draw the cells of a heat map, and their values where the figure writes them."""
    (left, right), (first, last), values = cells_of(trace, x, y)
    picture = Image.fromarray(_painted(trace, values), "RGBA")
    box = [x.pixel(left), y.pixel(first), x.pixel(right), y.pixel(last)]
    if box[3] < box[1]:
        picture, box = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM), [box[0], box[3], box[2], box[1]]
    canvas.paste(picture, tuple(box), _opacity(trace), smooth=False)  # type: ignore[arg-type]


def write_cells(canvas: Canvas, trace: Trace, x: Axis, y: Axis) -> None:
    """Write the values of a heat map into its cells, if the figure does."""
    if not trace.get("texttemplate"):
        return
    (left, right), (first, last), values = cells_of(trace, x, y)
    colours = _painted(trace, values)
    rows, columns = values.shape
    for row in range(rows):
        for number in range(columns):
            place = (
                x.pixel(left + (number + 0.5) * (right - left) / columns),
                y.pixel(first + (row + 0.5) * (last - first) / rows),
            )
            dark = sum(int(part) for part in colours[row, number, :3]) < 380
            canvas.text(place, f"{values[row, number]:.2f}", 11, across="center", fill="#ffffff" if dark else INK)


def limits(trace: Trace) -> Span:
    """Values of the lowest and the highest colour of a heat map or of markers."""
    style = trace if "z" in trace else trace["marker"]
    rows = column(trace["z"]) if "z" in trace else [column(style["color"])]
    values = [value for row in rows for value in row if value is not None and isfinite(value)] or [0.0]
    low, high = (style.get(name) for name in (("zmin", "zmax") if "z" in trace else ("cmin", "cmax")))
    return float(min(values) if low is None else low), float(max(values) if high is None else high)


def scale_of(style: Trace) -> np.ndarray:
    """A colour scale as 256 colours, (256, 3)."""
    scale = style.get("colorscale") or "Cividis"
    stops = get_colorscale(scale) if isinstance(scale, str) else scale
    places, colours = zip(*((place, colour(name)[:3]) for place, name in stops), strict=True)
    steps = np.linspace(0, 1, 256)
    return np.stack([np.interp(steps, places, [each[part] for each in colours]) for part in range(3)], axis=1)


def draw_space(canvas: Canvas, traces: Sequence[Trace], scene: Trace, box: Box) -> None:
    """Draw points and lines in space, as seen from the camera of the scene without perspective."""
    eye = ((scene.get("camera") or {}).get("eye")) or {"x": 1.25, "y": 1.25, "z": 1.25}
    towards = np.array([eye[letter] for letter in "xyz"], float)
    towards /= np.linalg.norm(towards)
    across = np.cross([0.0, 0.0, 1.0], towards)
    across /= np.linalg.norm(across)
    up = np.cross(towards, across)
    middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    scale = min(box[2] - box[0], box[3] - box[1]) / 2.2
    with canvas.inside(box):
        for trace in traces:
            rows = [column(trace.get(letter)) for letter in "xyz"]
            space = np.array([[np.nan if v is None else v for v in row] for row in rows], float)
            xs, ys = middle[0] + scale * (across @ space), middle[1] - scale * (up @ space)
            points = list(zip(xs.tolist(), ys.tolist(), strict=True))
            line, mode = trace.get("line") or {}, trace.get("mode") or "lines+markers"
            if "lines" in mode:
                canvas.line(points, line.get("color") or trace["fallback"], line.get("width") or 2)
            if "markers" in mode:
                larger = {**(trace.get("marker") or {}), "line": {"width": 0.7, "color": "#333333"}}
                larger["size"] = 1.8 * (larger.get("size") or 5)  # plotly's are larger in space, too
                draw_markers(canvas, {**trace, "marker": larger}, points)


def swatch(canvas: Canvas, trace: Trace, place: Point) -> None:
    """The sign of a trace in a legend, 22 pixels wide from the place to the right."""
    left, middle = place
    if trace.get("type") == "bar":
        canvas.bar((left + 5, middle - 6, left + 17, middle + 6), _of_marker(trace) or trace["fallback"])
        return
    mode, line = trace.get("mode") or "lines+markers", trace.get("line") or {}
    style = {key: _each(value, 0) for key, value in (trace.get("marker") or {}).items() if key != "line"}
    if "lines" in mode:
        fill = line.get("color") or style.get("color") or trace["fallback"]
        canvas.line([(left, middle), (left + 22, middle)], fill, 2, line.get("dash") or "solid", _opacity(trace))
    if "markers" in mode:
        draw_markers(
            canvas, {**trace, "marker": {**style, "size": min(9, style.get("size") or 6)}}, [(left + 11, middle)]
        )


def legend_width(name: str) -> int:
    """Pixels that an entry of a legend takes."""
    return 28 + size_of(name, 12)[0] + 16


def _of_marker(trace: Trace) -> Any:
    """The colour of the first marker or bar, if it is one."""
    found = _each((trace.get("marker") or {}).get("color"), 0)
    return found if isinstance(found, str) else None


def _opacity(style: Trace, number: int = 0) -> float:
    """The opacity of a trace, or of one of its marks; 1 unless it says so."""
    found = _each(style.get("opacity"), number)
    return 1.0 if found is None else found


def _each(values: Any, number: int) -> Any:
    """The value of one point of a setting for one or for all."""
    if values is None or isinstance(values, str | int | float):
        return values
    found = column(values)
    return found[number] if number < len(found) else None


def _fills(style: Trace, count: int) -> list[Any]:
    """The colours of markers; numbers are looked up in the scale."""
    colours = style.get("color")
    if colours is None or isinstance(colours, str):
        return [colours] * count
    values = column(colours)
    if not values or isinstance(values[0], str):
        return [*values, *[None] * (count - len(values))]
    low, high = limits({"marker": style})
    found = scale_of(style)[[round(255 * min(1, max(0, (v - low) / ((high - low) or 1)))) for v in values]]
    return [f"rgb({red:.0f}, {green:.0f}, {blue:.0f})" for red, green, blue in found]


def _painted(trace: Trace, values: np.ndarray) -> np.ndarray:
    """The colours of the cells of a heat map, (rows, columns, 4); gaps are transparent."""
    low, high = limits(trace)
    shares = np.nan_to_num(np.clip((values - low) / ((high - low) or 1), 0, 1))
    colours = scale_of(trace)[np.round(255 * shares).astype(int)]
    return np.concatenate([colours, 255.0 * np.isfinite(values)[..., None]], axis=2).round().astype(np.uint8)


def _steps(points: Sequence[Point]) -> Iterator[Point]:
    """A line that steps halfway between its points."""
    for number, (x, y) in enumerate(points):
        if number:
            yield (points[number - 1][0] + x) / 2, y
        yield x, y
        if number + 1 < len(points):
            yield (x + points[number + 1][0]) / 2, y
