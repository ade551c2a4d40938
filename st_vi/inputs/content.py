"""Comparison of inputs by content: equal texts, images and videos, in any form."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from hashlib import blake2b
from typing import Any

from st_vi.files.lines import file_at
from st_vi.inputs.kinds import is_absent, is_picture, open_images, open_videos, picture_suffixes
from st_vi.inputs.pictures import open_image
from st_vi.text import comparison_key

Size = tuple[int, int] | tuple[int, int, int]
"""Width and height of an image; width, height and number of frames of a video."""


def content_key(value: Any) -> Hashable:
    """A key that is equal for inputs with equal content; a text is its own key, and no other input has a text as key.

    Images are compared by their pixels, whether given as path, bytes, array or PIL image, and videos by their frames in
    their order. A text or an image equals a dict of it alone. Anything that is not made of texts, images, videos and
    arrays equals only itself.

    Args:
        value: A stock input: a text, an image, or a dict or list of these.

    Raises:
        ValueError: An image cannot be read.

    Example:
        >>> from PIL import Image
        >>> from st_vi.inputs.content import content_key
        >>> red, same = Image.new("RGB", (2, 2), "red"), Image.new("RGB", (2, 2), (255, 0, 0))
        >>> content_key({"text": "Màu gì?", "image": red}) == content_key({"image": same, "text": "Màu gì?"})
        True
    """
    if isinstance(value, str) and not is_path_of_picture(value):
        return value
    value = opened(value)
    if isinstance(value, Mapping):
        parts = {kind: _part_key(kind, part) for kind, part in value.items() if not is_absent(kind, part)}
        if len(parts) == 1 and not parts.keys().isdisjoint(("text", "image")):
            return next(iter(parts.values()))
        return ("dict", *sorted(parts.items(), key=lambda part: str(part[0])))
    if isinstance(value, (list, tuple)):
        return ("list", *map(content_key, value))
    if hasattr(value, "tobytes"):  # PIL and numpy
        shape = value.size if hasattr(value, "convert") else (value.shape, str(value.dtype))
        return ("pixels", shape, blake2b(value.tobytes(), digest_size=16).digest())
    return ("itself", id(value))


def _part_key(kind: Any, part: Any) -> Hashable:
    if kind == "text" and isinstance(part, str):  # also if it is the path of an image
        return part
    if kind == "image" and isinstance(part, list) and len(part) == 1:
        return content_key(part[0])
    return content_key(part)


def reader_key(key: Hashable) -> Hashable:
    """A `content_key` with its texts replaced by their comparison keys (`st_vi.text.comparison_key`).

    Example:
        >>> from st_vi.inputs.content import reader_key
        >>> reader_key("Trời  mưa."), reader_key(("dict", ("text", "Uỷ ban")))
        ('Trời mưa.', ('dict', ('text', 'Uỷ ban')))
    """
    if isinstance(key, str):
        return comparison_key(key)
    return tuple(map(reader_key, key)) if isinstance(key, tuple) else key


def picture_sizes(key: Hashable) -> list[Size]:
    """The (width, height) of the images in an input with this `content_key`, and (width, height, frames) of its videos.

    Example:
        >>> from PIL import Image
        >>> from st_vi.inputs.content import content_key, picture_sizes
        >>> picture_sizes(content_key({"text": "Màu gì?", "image": Image.new("RGB", (4, 2))}))
        [(4, 2)]
    """
    match key:
        case ("pixels", (int(width), int(height)), _):
            return [(width, height)]
        case ("video", ("list", *frames)):
            if all(isinstance(frame, tuple) and frame[0] == "pixels" for frame in frames):
                return [(*size, len(frames)) for size in picture_sizes(frames[0])]
            return [size for one in frames for size in picture_sizes(("video", one))]
        case tuple():
            return [size for part in key for size in picture_sizes(part)]
        case _:
            return []


def opened(value: Any) -> Any:
    """An input with its images and the frames of its videos opened as PIL images.

    Raises:
        ValueError: An image or video cannot be read.
    """
    if isinstance(value, Mapping) and not (value and value.keys() <= {"bytes", "path"}):
        read = {"image": open_images, "video": open_videos}
        return {
            kind: read[kind](part) if kind in read and not is_absent(kind, part) else part
            for kind, part in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [opened(part) for part in value]
    is_image = is_path_of_picture(value) if isinstance(value, str) else is_picture(value)
    return open_image(value) if is_image else value


def is_path_of_picture(text: str) -> bool:
    """Whether a text names an image by its extension, and the file exists."""
    return text.lower().endswith(picture_suffixes()) and file_at(text) is not None
