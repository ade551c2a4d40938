"""A small image, such as an emoji, as it might meet a reader: on any paper, turned a little, lighter or darker."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image


def look(picture: Image, random: Random, size: int) -> np.ndarray:
    """The image on paper of `size` x `size` pixels, which shows where it is transparent: (size, size, 3) of 8 bits.

    Paper, size (60 to 100 of 100), place, angle (up to 15 degrees to either side) and brightness are drawn from
    `random`.
    """
    from PIL import Image, ImageEnhance

    dark = random.random() < 0.25
    paper = tuple(random.randint(0, 70) if dark else random.randint(180, 255) for _ in range(3))
    side = round(size * random.uniform(0.6, 1.0))
    shown = picture.convert("RGBA").resize((side, side), Image.Resampling.BILINEAR)
    shown = shown.rotate(random.uniform(-15, 15), Image.Resampling.BILINEAR)
    canvas = Image.new("RGB", (size, size), paper)
    place = random.randint(0, size - side), random.randint(0, size - side)
    canvas.paste(shown, place, shown)
    canvas = ImageEnhance.Brightness(canvas).enhance(random.uniform(0.8, 1.15))
    return np.asarray(canvas)


def fitted(picture: Image, size: int) -> np.ndarray:
    """The image stretched to a square of `size` pixels."""
    from PIL import Image

    return np.asarray(picture.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))
