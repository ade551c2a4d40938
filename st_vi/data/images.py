"""Open images in whatever form a row holds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from st_vi.data.columns import is_missing
from st_vi.inputs.pictures import MAX_ASPECT_RATIO, open_image

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MAX_ASPECT_RATIO", "images_of", "open_image", "open_images"]


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
