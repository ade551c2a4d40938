"""The image that chats and social networks show beside a link to the site."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

TEAL, WHITE, PALE = "#00796b", "#ffffff", "#b2dfdb"
SIZE = (1200, 630)  # what the networks ask for
VECTORS = {(1064, 318): WHITE, (1086, 372): WHITE, (962, 208): PALE}  # a pair and another one; as in the logo
ORIGIN = (850, 470)


@cache
def social_card(text: str) -> bytes:
    """The card as a PNG file.

    Args:
        text: One or two lines below the name of the project.
    """
    from PIL import Image, ImageDraw

    large = Image.new("RGB", (4 * SIZE[0], 4 * SIZE[1]), TEAL)  # and made smaller, for smooth edges
    pen = ImageDraw.Draw(large)
    for (x, y), colour in VECTORS.items():
        pen.line([4 * value for value in (*ORIGIN, x, y)], fill=colour, width=40)
        pen.circle((4 * x, 4 * y), 96, fill=colour)
    pen.circle((4 * ORIGIN[0], 4 * ORIGIN[1]), 48, fill=WHITE)
    card = large.resize(SIZE, Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(card)
    pen.text((90, 150), "st_vi", font=_font("Bold", 150), fill=WHITE)
    font = _font("Regular", 46)
    pen.text((94, 350), _wrapped(pen, text, font, 660), font=font, fill=WHITE, spacing=14)
    pen.text((94, 530), "tiếng Việt · ViCLSR · viPolyQwen", font=_font("Regular", 32), fill=PALE)
    file = BytesIO()
    card.save(file, "PNG", optimize=True)
    return file.getvalue()


def _font(weight: str, size: int):
    from PIL import ImageFont

    folder = Path(find_spec("font_source_sans_pro").origin).parent / "files"
    return ImageFont.truetype(str(next(folder.rglob(f"SourceSansPro-{weight}.ttf"))), size)


def _wrapped(pen, text: str, font, width: float) -> str:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        lines[-1:] = [longer] if pen.textlength(longer, font) <= width else [lines[-1], word]
    return "\n".join(lines)
