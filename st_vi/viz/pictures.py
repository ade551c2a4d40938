"""Images for models and figures."""

from __future__ import annotations

import base64
import io
from functools import lru_cache
from typing import Any

from PIL import Image

from st_vi.inputs.pictures import open_image

SHOWN_PIXELS = 640
"""Maximum longer side of an image in a figure, in pixels; coordinates remain those of the original image."""


def readable(name: str, picture: Image.Image | bytes) -> Image.Image:
    """The image as the model sees it, by `open_image`; an error names it."""
    try:
        return open_image(picture)
    except ValueError as error:
        raise ValueError(f"{name} cannot be read as an image: {error}") from error


def is_transparent(picture: Image.Image) -> bool:
    """Whether any pixel is transparent."""
    if not picture.has_transparency_data:
        return False
    return picture.convert("RGBA").getchannel("A").getextrema()[0] < 255  # type: ignore[operator]


def under(picture: Image.Image) -> dict[str, Any]:
    """The image in RGB as a plotly layout image below all traces, in pixels of the first axes."""
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
    """The image as a data URL: PNG, or JPEG if that is shorter, as for photographs.

    Cached, because encoding takes up to 0.1 s and every click redraws the image.
    """
    files = {}
    for kind in ("png", "jpeg"):
        file = io.BytesIO()
        Image.frombytes("RGB", size, pixels).save(file, kind, quality=90, subsampling=0)
        files[kind] = file.getvalue()
    kind = min(files, key=lambda kind: len(files[kind]))
    return f"data:image/{kind};base64,{base64.b64encode(files[kind]).decode('ascii')}"
