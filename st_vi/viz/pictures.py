"""Pictures of any kind, made ready for a model and for a figure."""

from __future__ import annotations

import base64
import io
from functools import lru_cache
from typing import Any

from PIL import Image

from st_vi.inputs.pictures import open_image

SHOWN_PIXELS = 640
"""The longer side of a picture in a figure is reduced to this; places keep counting in pixels of the picture."""


def readable(name: str, picture: Image.Image | bytes) -> Image.Image:
    """The picture as the model sees it: see `open_image`.

    Args:
        name: For the error.
        picture: Of any mode, perhaps of a file that was not read yet, or such a file's bytes.

    Raises:
        ValueError: The file is cut short, or no picture.

    Example:
        >>> from PIL import Image
        >>> from st_vi.viz.pictures import readable
        >>> readable("glass", Image.new("RGBA", (1, 1), (0, 0, 0, 0))).getpixel((0, 0))
        (255, 255, 255)
    """
    try:
        return open_image(picture)
    except ValueError as error:
        raise ValueError(f"{name} cannot be read as a picture: {error}") from error


def is_transparent(picture: Image.Image) -> bool:
    """Whether any pixel lets something through."""
    if not picture.has_transparency_data:
        return False
    return picture.convert("RGBA").getchannel("A").getextrema()[0] < 255  # type: ignore[operator]


def under(picture: Image.Image) -> dict[str, Any]:
    """The picture, in RGB, as a plotly layout image below all traces, in the pixels of the first axes."""
    shown = picture.copy()
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
