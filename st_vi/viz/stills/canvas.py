"""A surface for drawings: smooth shapes, Vietnamese letters, PNG."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from itertools import pairwise
from math import hypot, isfinite
from pathlib import Path

from PIL import Image, ImageColor, ImageDraw, ImageFont

Point = tuple[float, float]
Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels."""
Colour = tuple[int, int, int, int]

INK = "#1a1a1a"
SMOOTH = 3
"""Shapes are drawn so many times as large, and then made smaller."""
COLOURS_OF_A_FILE = 192
LINE = 1.25
"""Height of a line of text, in font sizes."""
SPELT = str.maketrans("▁␣", "__")
"""What the font does not have: signs for a space."""
DASHES = {"dash": (9, 6), "dot": (2, 3), "dashdot": (9, 4, 2, 4), "longdash": (14, 6), "longdashdot": (14, 5, 2, 5)}


class Canvas:
    """A white surface of so many pixels."""

    def __init__(self, width: int, height: int) -> None:
        self.size = width, height
        self._surface = Image.new("RGB", (SMOOTH * width, SMOOTH * height), "white")
        self._pen = ImageDraw.Draw(self._surface, "RGBA")
        self._origin = 0.0, 0.0
        self._texts: list[tuple[Image.Image, tuple[int, int], Colour]] = []

    @contextmanager
    def inside(self, box: Box) -> Iterator[None]:
        """Cut off what the block draws outside the box; letters are not."""
        whole, pen = self._surface, self._pen
        corners = [round(SMOOTH * edge) for edge in box]
        self._surface = whole.crop(tuple(corners))  # type: ignore[arg-type]
        self._pen, self._origin = ImageDraw.Draw(self._surface, "RGBA"), (corners[0] / SMOOTH, corners[1] / SMOOTH)
        yield
        whole.paste(self._surface, (corners[0], corners[1]))
        self._surface, self._pen, self._origin = whole, pen, (0.0, 0.0)

    def area(self, points: Sequence[Point], fill: str, opacity: float = 1, line: str = "", width: float = 0) -> None:
        """A filled polygon, with an outline where it has a width."""
        self._pen.polygon(self._large(points), fill=colour(fill, opacity))
        if line and width:
            self.line([*points, points[0]], line, width, opacity=opacity)

    def bar(self, box: Box, fill: str, opacity: float = 1) -> None:
        """A filled rectangle; its edges may be in any order."""
        left, right = sorted((box[0], box[2]))
        top, bottom = sorted((box[1], box[3]))
        self.area([(left, top), (right, top), (right, bottom), (left, bottom)], fill, opacity)

    def line(self, points: Sequence[Point], fill: str, width: float, dash: str = "solid", opacity: float = 1) -> None:
        """A line through the points, with gaps where one is not finite."""
        piece: list[Point] = []
        for point in [*points, (float("nan"), 0.0)]:
            if isfinite(point[0]) and isfinite(point[1]):
                piece.append(point)
                continue
            for drawn in _dashed(piece, DASHES[dash]) if dash in DASHES else [piece]:
                if len(drawn) > 1:
                    large = round(SMOOTH * width)
                    self._pen.line(self._large(drawn), fill=colour(fill, opacity), width=large, joint="curve")
            piece = []

    def paste(self, picture: Image.Image, box: Box, opacity: float = 1, smooth: bool = True) -> None:
        """A picture, stretched to the box; with `smooth` off its pixels become rectangles."""
        (left, top), (right, bottom) = self._large([(box[0], box[1]), (box[2], box[3])])
        size = max(1, round(right) - round(left)), max(1, round(bottom) - round(top))
        kind = Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
        fitted = picture.convert("RGBA").resize(size, kind)
        mask = fitted.getchannel("A").point(lambda part: round(part * opacity))
        self._surface.paste(fitted.convert("RGB"), (round(left), round(top)), mask)

    def text(
        self,
        place: Point,
        text: str,
        size: int = 13,
        across: str = "left",
        down: str = "middle",
        turned: bool = False,
        fill: str = INK,
    ) -> None:
        """Letters on top of all shapes, from a text as plotly has it, with ``<br>``, tags and entities.

        `across` ("left", "center", "right") and `down` ("top", "middle", "bottom") say which side of the text is at the
        place. A turned text is read from bottom to top.
        """
        drawn = _letters(text, size, across)
        drawn = drawn.transpose(Image.Transpose.ROTATE_90) if turned else drawn
        left = place[0] - {"left": 0, "center": 0.5, "right": 1}[across] * drawn.width
        top = place[1] - {"top": 0, "middle": 0.5, "bottom": 1}[down] * drawn.height
        self._texts.append((drawn, (round(left), round(top)), colour(fill)))

    def png(self) -> bytes:
        """The drawing as a PNG file with a small palette."""
        whole = self._surface.resize(self.size, Image.Resampling.LANCZOS)
        for letters, place, ink in self._texts:
            whole.paste(Image.new("RGB", letters.size, ink[:3]), place, letters)
        file = BytesIO()
        whole.quantize(COLOURS_OF_A_FILE, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
        return file.getvalue()

    def _large(self, points: Sequence[Point]) -> list[Point]:
        left, top = self._origin
        return [(SMOOTH * (x - left), SMOOTH * (y - top)) for x, y in points]


def colour(name: str, opacity: float = 1) -> Colour:
    """A colour as CSS writes it: "#0072b2", "rgba(0, 0, 0, 0.5)" or a name."""
    numbers = re.fullmatch(r"rgba?\((.*)\)", name)
    if not numbers:
        red, green, blue = ImageColor.getrgb(name)[:3]
        return red, green, blue, round(255 * opacity)
    parts = [float(part) for part in numbers[1].split(",")]
    return round(parts[0]), round(parts[1]), round(parts[2]), round(255 * opacity * (parts[3] if parts[3:] else 1))


def lines_of(text: str) -> list[str]:
    """The lines of a text of plotly, without its tags."""
    lines = re.split("<br ?/?>", str(text).translate(SPELT))
    return [html.unescape(re.sub("<[^>]*>", "", line)).strip() for line in lines]


def size_of(text: str, size: int = 13) -> tuple[int, int]:
    """Width and height of a text in pixels."""
    lines = lines_of(text)
    return round(max(_font(size).getlength(line) for line in lines)), round(LINE * size * len(lines))


def _letters(text: str, size: int, across: str) -> Image.Image:
    """A mask of the text."""
    lines, (width, height) = lines_of(text), size_of(text, size)
    mask = Image.new("L", (width + 2, height))
    pen = ImageDraw.Draw(mask)
    for number, line in enumerate(lines):
        indent = {"left": 0, "center": 0.5, "right": 1}[across] * (width - _font(size).getlength(line))
        pen.text((indent, LINE * size * (number + 0.5)), line, font=_font(size), fill=255, anchor="lm")
    return mask


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    found = find_spec("font_source_sans_pro")
    if not found or not found.origin:
        raise ImportError('still pictures need a font: pip install "st-vi[notebooks]"')
    return ImageFont.truetype(str(Path(found.origin).parent / "files" / "SourceSansPro-Regular.ttf"), size + 1)


def _dashed(points: Sequence[Point], pattern: Sequence[float]) -> Iterator[list[Point]]:
    """The drawn pieces of a dashed line."""
    number, left, drawn = 0, float(pattern[0]), list(points[:1])
    for (x0, y0), (x1, y1) in pairwise(points):
        length, done = hypot(x1 - x0, y1 - y0), 0.0
        while length - done > left:
            done += left
            end = (x0 + (x1 - x0) * done / length, y0 + (y1 - y0) * done / length)
            if number % 2 == 0:
                yield [*drawn, end]
            number, drawn = number + 1, [end]
            left = float(pattern[number % len(pattern)])
        left -= length - done
        drawn.append((x1, y1))
    if number % 2 == 0:
        yield drawn
