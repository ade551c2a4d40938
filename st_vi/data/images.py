"""Open images in whatever form a row holds them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_vi.data.columns import is_missing, shown

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_ASPECT_RATIO = 200  # Qwen2-VL's image processor refuses longer strips


def open_image(value: Any) -> Image:
    """An image as RGB, fully read.

    Args:
        value: A PIL image, a path, the bytes of a file, or what an undecoded `datasets` image column holds, a
            mapping with "bytes" or "path". Turned as its EXIF data say; of 16 bits the upper eight are kept.

    Raises:
        ImportError: Pillow is not installed.
        ValueError: It is none of these, cannot be read to its end, has no pixels, or is longer than 200 times its
            width (or the other way round).

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
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError('images need Pillow and torchvision: pip install "st-vi[vision]"') from error
    source = value
    if isinstance(source, Mapping) and ("bytes" in source or "path" in source):
        source = source.get("bytes") or source.get("path")
    name = repr(source[:16]) + "…" if isinstance(source, bytes) else shown(source)
    try:
        if isinstance(source, (str, Path, bytes)):
            source = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        if not isinstance(source, Image.Image):
            raise TypeError("expected a PIL image, a path or bytes")
        image = _eight_bits(source).convert("RGB")  # reads all of it
    except Exception as error:  # of many kinds: Pillow's decoders raise whatever they stumble over
        raise ValueError(f"cannot read the image {name}: {error or type(error).__name__}") from error
    if 0 in image.size:
        raise ValueError(f"the image {name} is {image.width} × {image.height}: it has no pixels")
    if max(image.size) > MAX_ASPECT_RATIO * min(image.size):
        raise ValueError(f"the image {name} is {image.width} × {image.height}: beyond the aspect ratio of 200")
    with suppress(Exception):  # broken EXIF data: as it is stored
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _eight_bits(image: Image) -> Image:
    """Of 16 bits the upper eight: Pillow's own conversion makes white of all that is above 255."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.getextrema()[1] > 255):  # type: ignore[operator]
        return image.convert("I").point(lambda value: value * (1 / 256))
    return image


def open_images(value: Any) -> list[Image]:
    """All images of one field: none, one, or a list of them."""
    return [open_image(one) for one in images_of(value)]


def images_of(value: Any) -> list[Any]:
    """All images of one field, as they are stored. None, NaN and "" are no image, also in a list.

    Example:
        >>> from st_vi.data.images import images_of
        >>> images_of("a.png"), images_of(["a.png", ""]), images_of({"bytes": None, "path": None})
        (['a.png'], ['a.png'], [])
    """
    if isinstance(value, (list, tuple)):
        return [image for one in value for image in images_of(one)]
    if isinstance(value, Mapping) and ("bytes" in value or "path" in value):
        return [value] if value.get("bytes") is not None or not is_missing(value.get("path")) else []
    return [] if is_missing(value) else [value]
