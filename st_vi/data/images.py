"""Open images in whatever form a row holds them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_ASPECT_RATIO = 200  # Qwen2-VL's image processor refuses longer strips


def open_image(value: Any) -> Image:
    """An image as RGB, fully read.

    Args:
        value: A PIL image, a path, the bytes of a file, or what an undecoded `datasets` image column holds, a
            mapping with "bytes" or "path".

    Raises:
        ImportError: Pillow is not installed.
        ValueError: It is none of these, cannot be read to its end, or is longer than 200 times its width (or the
            other way round).

    Example:
        >>> from PIL import Image
        >>> from st_vi.data.images import open_image
        >>> open_image(Image.new("L", (4, 2))).mode
        'RGB'
        >>> open_image("không có.png")
        Traceback (most recent call last):
        ValueError: cannot read the image 'không có.png': ...
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError('images need Pillow and torchvision: pip install "st-vi[vision]"') from error
    source = value
    if isinstance(source, Mapping) and ("bytes" in source or "path" in source):
        source = source.get("bytes") or source.get("path")
    shown = repr(source[:16]) + "…" if isinstance(source, bytes) else repr(source)
    try:
        if isinstance(source, (str, Path, bytes)):
            source = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        if not isinstance(source, Image.Image):
            raise TypeError("expected a PIL image, a path or bytes")
        image = source.convert("RGB")  # reads all of it
    except (OSError, TypeError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read the image {shown}: {error}") from error
    if max(image.size) > MAX_ASPECT_RATIO * min(image.size):
        raise ValueError(f"the image {shown} is {image.width} × {image.height}: beyond the aspect ratio of 200")
    return image


def open_images(value: Any) -> list[Image]:
    """All images of one field: None, one image, or a list of them."""
    if value is None:
        return []
    return [open_image(one) for one in value] if isinstance(value, (list, tuple)) else [open_image(value)]
