"""Pictures of any kind, made ready for a model and for a figure."""

from __future__ import annotations

from typing import Any

from PIL import Image

SHOWN_PIXELS = 640
"""The longer side of a picture in a figure is reduced to this; places keep counting in pixels of the picture."""


def readable(name: str, picture: Image.Image) -> Image.Image:
    """The picture in RGB, on white where it is transparent.

    Args:
        name: For the error.
        picture: Of any mode, perhaps of a file that was not read yet.

    Raises:
        ValueError: The file is cut short, or no picture.

    Example:
        >>> from PIL import Image
        >>> from st_vi.viz.pictures import readable
        >>> readable("glass", Image.new("RGBA", (1, 1), (0, 0, 0, 0))).getpixel((0, 0))
        (255, 255, 255)
    """
    try:
        picture.load()
        if not is_transparent(picture):
            return picture.convert("RGB")
        picture = picture.convert("RGBA")
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{name} cannot be read as a picture: {error}") from error
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def is_transparent(picture: Image.Image) -> bool:
    """Whether any pixel lets something through."""
    if not picture.has_transparency_data:
        return False
    return picture.convert("RGBA").getchannel("A").getextrema()[0] < 255


def under(picture: Image.Image, x: str, y: str) -> dict[str, Any]:
    """The picture as a plotly layout image below all traces, in the pixels of the axes `x` and `y`."""
    shown = picture.convert("RGB")
    shown.thumbnail((SHOWN_PIXELS, SHOWN_PIXELS))
    return {
        "source": shown,
        "x": 0,
        "y": 0,
        "sizex": picture.width,
        "sizey": picture.height,
        "xref": x,
        "yref": y,
        "sizing": "stretch",
        "layer": "below",
    }
