"""Pictures of any kind, made ready for a model and for a figure."""

from __future__ import annotations

import base64
import io
from functools import lru_cache
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
    return picture.convert("RGBA").getchannel("A").getextrema()[0] < 255  # type: ignore[operator]


def under(picture: Image.Image) -> dict[str, Any]:
    """The picture as a plotly layout image below all traces, in the pixels of the first axes."""
    shown = picture.convert("RGB")
    shown.thumbnail((SHOWN_PIXELS, SHOWN_PIXELS))
    return {
        "source": _encoded(shown.size, shown.tobytes()),
        "x": 0,
        "y": 0,
        "sizex": picture.width,
        "sizey": picture.height,
        "xref": "x",
        "yref": "y",
        "sizing": "stretch",
        "layer": "below",
    }


@lru_cache(maxsize=8)
def _encoded(size: tuple[int, int], pixels: bytes) -> str:
    """An address that is the picture: a PNG, or a JPEG where that is shorter, as it is for photographs.

    Made once, for that takes up to a tenth of a second, and each click draws the picture anew.
    """
    files = {}
    for kind in ("png", "jpeg"):
        file = io.BytesIO()
        Image.frombytes("RGB", size, pixels).save(file, kind, quality=90, subsampling=0)
        files[kind] = file.getvalue()
    kind = min(files, key=lambda kind: len(files[kind]))
    return f"data:image/{kind};base64,{base64.b64encode(files[kind]).decode('ascii')}"
