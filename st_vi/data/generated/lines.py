"""Lines of text drawn as long thin images, with what is written in every cell of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from st_vi.data.generated.render import FACES, Face, font_of

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

CELL = 28
"""Pixels: the side of what Qwen2-VL makes one visual token of."""
FONT_SIZES = (13, 21)
"""Pixels, from and to."""

TEST_FACES: tuple[Face, ...] = (FACES[3], FACES[5])
"""Faces that are kept for measuring: a slanted one and one with serifs."""
TRAIN_FACES: tuple[Face, ...] = tuple(face for face in FACES if face not in TEST_FACES)


@dataclass(frozen=True)
class DrawnText:
    """An image of text.

    Attributes:
        pixels: (height, width, 3) of 8 bits; both sides are whole cells.
        boxes: (characters, 4), left, top, right and bottom of every character of the text; empty for white space.
    """

    pixels: np.ndarray
    boxes: np.ndarray

    def coverage(self, side: int = CELL) -> np.ndarray:
        """How much of every square every character takes, in pixels: (squares, characters), row by row.

        Args:
            side: Side of a square, a divisor of the sides of the image.
        """
        rows, columns = self.pixels.shape[0] // side, self.pixels.shape[1] // side
        left, top, right, bottom = self.boxes.T
        x, y = side * np.arange(columns)[:, None], side * np.arange(rows)[:, None]
        wide = np.clip(np.minimum(right, x + side) - np.maximum(left, x), 0, None)
        high = np.clip(np.minimum(bottom, y + side) - np.maximum(top, y), 0, None)
        return (high[:, None] * wide[None]).reshape(rows * columns, -1)


def draw_lines(
    text: str,
    random: Random,
    *,
    faces: Sequence[Face] = TRAIN_FACES,
    width: int = 14,
    columns: int | None = None,
    rows: int | None = None,
    noise: float = 0.05,
    plain: bool = False,
) -> DrawnText:
    """Draw text in lines that are about as high as a cell, on an image just large enough.

    Face, size, colours, distance of the lines, margins and grain are drawn from `random`.

    Args:
        text: One paragraph, with single spaces.
        random: Decides.
        faces: To choose from.
        width: Maximum width of the image in cells; longer text is wrapped.
        columns: Exact width of the image in cells; None for as many as needed.
        rows: Exact height of the image in cells; None for as many as needed.
        noise: Deviation of the grain as a share of full brightness, at most.
        plain: Black on white, without grain.

    Raises:
        ValueError: A word is wider than the image, the text is longer than it has room for, or empty.

    Example:
        >>> from random import Random
        >>> from st_vi.data.generated.lines import draw_lines
        >>> drawn = draw_lines("Tiệm bánh Đồng Quê", Random(0))
        >>> drawn.pixels.shape[0], drawn.coverage().shape[1]
        (28, 18)
    """
    from PIL import Image, ImageDraw

    if not text.strip():
        raise ValueError("the text to draw is empty")
    font = font_of(random.choice(list(faces)), random.randint(*FONT_SIZES))
    ascent, descent = font.getmetrics()
    high = ascent + descent
    lines = _lines(text, font, CELL * (columns or width) - 6)
    step = high if len(lines) == 1 else random.randint(min(high, CELL), max(high, CELL))
    used = (
        max(font.getlength(text[start:end]) for start, end in lines),
        step * (len(lines) - 1) + high,
    )
    needed = [max(1, -(-int(size + 2) // CELL)) for size in used]
    if len(lines) == 1:
        needed[1] = 1
    wide, tall = columns or needed[0], rows or needed[1]
    if wide < needed[0] or tall < needed[1]:
        raise ValueError(f"the text does not fit into {tall} x {wide} cells")
    slack = CELL * wide - used[0], CELL * tall - used[1]
    x, y = (random.uniform(0, free) if free > 0 else free / 2 for free in slack)
    mask = Image.new("L", (CELL * wide, CELL * tall))
    pen = ImageDraw.Draw(mask)
    boxes = np.zeros((len(text), 4))
    for number, (start, end) in enumerate(lines):
        top = round(y) + number * step
        pen.text((x, top), text[start:end], fill=255, font=font)
        edges = [x + font.getlength(text[start:i]) for i in range(start, end + 1)]
        for i in range(start, end):
            if not text[i].isspace():
                boxes[i] = edges[i - start], top, edges[i - start + 1], top + high
    shade = np.asarray(mask, dtype=np.float32) / 255
    if plain:
        return DrawnText(np.repeat((255 * (1 - shade)).astype(np.uint8)[..., None], 3, axis=2), boxes)
    return DrawnText(_inked(shade, random, noise), boxes)


def _lines(text: str, font: FreeTypeFont, width: float) -> list[tuple[int, int]]:
    """Where lines start and end in the text."""
    lines: list[tuple[int, int]] = []
    start, end, place = 0, 0, 0
    for word in text.split(" "):
        after = place + len(word)
        if font.getlength(text[start:after]) > width and end > start:
            lines.append((start, end))
            start = place
        if font.getlength(word) > width:
            raise ValueError(f"{word!r} is wider than the image")
        end, place = after, after + 1
    return [*lines, (start, end)]


def _inked(mask: np.ndarray, random: Random, noise: float) -> np.ndarray:
    light = np.array([random.uniform(190, 255) for _ in range(3)], dtype=np.float32)
    dark = np.array([random.uniform(0, 80) for _ in range(3)], dtype=np.float32)
    paper, ink = (dark, light) if random.random() < 0.25 else (light, dark)
    pixels = paper + mask[..., None] * (ink - paper)
    if noise and random.random() < 0.7:
        grain = np.random.default_rng(random.getrandbits(32)).standard_normal(mask.shape, dtype=np.float32)
        pixels = pixels + (255 * noise * random.random() * grain)[..., None]
    return pixels.clip(0, 255).astype(np.uint8)
