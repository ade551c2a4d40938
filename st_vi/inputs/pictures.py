"""Open images in one way, so that training, evaluation and `encode` see the same pixels."""

from __future__ import annotations

import base64
import io
import os
import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from st_vi.files.lines import on_disk
from st_vi.stock import web

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_ASPECT_RATIO = 200  # Qwen2-VL's image processor refuses longer strips

WEB = ("http://", "https://")
IN_TEXT = re.compile(r"data:(?:image/|[^\s,]*;base64,)", re.IGNORECASE)
"""How an image begins that is a string itself."""
_ADDRESS = re.compile(r"[A-Za-z][\w+.-]*://|file:")  # "C:" is a drive
SECONDS = 60
"""Timeout for a file on the web."""
_WHITE = 1.1
"""Floats up to here count as 0 to 1: rounding and bicubic interpolation exceed 1, and up to 255 this would be black."""
_loading = threading.Lock()
_UNKNOWN = "Pillow knows no such format, or it is damaged; save it as PNG or JPEG (for HEIC there is pillow-heif)"


def open_image(value: Any, *, fetch: bool = False) -> Image:
    """An image as 8-bit RGB, fully read: upright, transparency on white, the first of several frames.

    - **Upright**: rotated as given in its EXIF data.
    - **8 bits**: wider integers and floats count as 8 bits if no value exceeds 255, else as 16 bits, of which the upper
      eight are taken; floats between 0 and 1, or 1.1 where interpolation overshoots, are scaled up.

    Args:
        value: A PIL image; a path; the bytes of a file, or an open file; base64 with or without
            ``data:image/…;base64,``; an array or tensor of shape (H, W), (H, W, C) or (C, H, W) with C from 1 to 4; or
            a value of an undecoded `datasets` image column, a mapping with "bytes" or "path" (bytes first).
        fetch: Whether to fetch ``http://…`` and ``https://…`` addresses.

    Raises:
        ImportError: Pillow is not installed.
        ValueError: The value is none of these, cannot be read completely, has no pixels, has values that are negative,
            above 65535 or not numbers, or one side is over 200 times the other.

    Example:
        >>> from PIL import Image
        >>> from st_vi.inputs.pictures import open_image
        >>> open_image(Image.new("RGBA", (4, 2), (0, 0, 0, 0))).getpixel((0, 0))
        (255, 255, 255)
        >>> open_image("không có.png")
        Traceback (most recent call last):
        ValueError: cannot read the image 'không có.png': ...
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ImportError('images need Pillow and torchvision: pip install "st-vi[vision]"') from error
    source = undecoded(value)
    try:
        if isinstance(source, Image.Image):
            _check_size(source.size)
            if type(source) is Image.Image and source.mode == "RGB" and not source.info and not source.getexif():
                return source  # opened here before
            with _loading:  # a file that was not read yet cannot be read by two threads at a time
                _scale_key(source)
                source.load()
            return _upright(source)
        if _is_array(source):
            return _of_array(source).convert("RGB")
        with Image.open(_file(source, fetch)) as picture:
            _check_size(picture.size)
            _scale_key(picture)
            picture.load()
            return _upright(picture)
    except _SizeError as error:
        raise ValueError(f"the image {_shown(source)} {error}") from None
    except UnidentifiedImageError as error:
        raise ValueError(f"cannot read the image {_shown(source)}: {_UNKNOWN}") from error
    except Exception as error:  # Pillow's decoders raise anything
        raise ValueError(f"cannot read the image {_shown(source)}: {error or type(error).__name__}") from error


def image_size(value: Any) -> tuple[int, int]:
    """(width, height) of an image as it is stored, read from the head of its file; `open_image` may turn it upright.

    Args:
        value: As for `open_image`.

    Raises:
        ValueError: As for `open_image`, as far as the head of the file tells.

    Example:
        >>> from PIL import Image
        >>> from st_vi.inputs.pictures import image_size
        >>> image_size(Image.new("RGB", (4, 2)))
        (4, 2)
    """
    from PIL import Image

    source = undecoded(value)
    try:
        if isinstance(source, Image.Image):
            size = source.size
        else:
            with Image.open(_file(source, fetch=False)) as picture:
                size = picture.size
        _check_size(size)
    except Exception:  # an array, or an error that tells what is wrong
        return open_image(value).size
    return size


def undecoded(value: Any) -> Any:
    """The bytes or the path in a value of an undecoded `datasets` column; any other value as it is.

    Example:
        >>> from st_vi.inputs.pictures import undecoded
        >>> undecoded({"bytes": None, "path": "meo.png"}), undecoded("cho.png")
        ('meo.png', 'cho.png')
    """
    if isinstance(value, Mapping) and ("bytes" in value or "path" in value):
        return value.get("bytes") or value.get("path")
    return value


class _SizeError(ValueError):
    pass


def _check_size(size: tuple[int, int]) -> None:
    shown = f"is {size[0]} × {size[1]}"
    if 0 in size:
        raise _SizeError(f"{shown}: it has no pixels")
    if max(size) > MAX_ASPECT_RATIO * min(size):
        raise _SizeError(f"{shown}: the aspect ratio must be smaller than {MAX_ASPECT_RATIO}; cut it into pieces")


def _file(source: Any, fetch: bool) -> Any:
    """What Pillow opens: a path or an open file."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return io.BytesIO(source)
    if isinstance(source, os.PathLike):
        return on_disk(source)
    if hasattr(source, "read"):
        with _loading:  # threads share its position
            with suppress(AttributeError, io.UnsupportedOperation):  # a stream, as from the web, is read once
                source.seek(0)
            return io.BytesIO(source.read())
    if not isinstance(source, str):
        raise TypeError("expected a PIL image, a path, bytes or an array")
    if source[:8].lower().startswith(WEB):
        if not fetch:
            raise ValueError("images are not fetched from the web here; download it, and give the file")
        return io.BytesIO(web.fetch(source, SECONDS))
    if (data := bytes_in_text(source)) is not None:
        return io.BytesIO(data)
    if (scheme := _ADDRESS.match(source)) and not os.path.exists(source):
        raise ValueError(f"addresses with {scheme[0]!r} are not opened; give the path of a file")
    return on_disk(source)


def of_base64(text: str) -> bytes:
    """The bytes of base64, with or without ``data:…;base64,`` and line breaks.

    Raises:
        ValueError: The text is no base64.

    Example:
        >>> from st_vi.inputs.pictures import of_base64
        >>> of_base64("data:image/png;base64,iVBO\\nRw==")
        b'\\x89PNG'
    """
    body = text.partition(",")[2] if text.lstrip()[:5].lower() == "data:" else text
    return base64.b64decode("".join(body.split()), validate=True)


def bytes_in_text(text: str) -> bytes | None:
    """The bytes of an image that is a string itself, in base64; None if the string is anything else, such as a path.

    Raises:
        ValueError: It begins with ``data:`` and is no base64.

    Example:
        >>> from st_vi.inputs.pictures import bytes_in_text
        >>> bytes_in_text("data:image/png;base64,iVBORw==")
        b'\\x89PNG'
        >>> bytes_in_text("meo.png") is None
        True
    """
    if text.lstrip()[:5].lower() == "data:":
        return of_base64(text)
    if os.path.exists(text):
        return None
    from PIL import Image

    try:  # stock takes this without "data:", too
        data = of_base64(text)
        with Image.open(io.BytesIO(data)):
            return data
    except Exception:  # a path with no "." in it: that there is no such file says more
        return None


def _scale_key(picture: Image) -> None:
    """Scale the transparent colour of a PNG as Pillow will scale all others: greys of 2 and 4 bits, colours of 16."""
    key = picture.info.get("transparency")
    match [tile[3] for tile in getattr(picture, "tile", None) or ()]:
        case ["L;2" | "L;4" as stored] if isinstance(key, int):
            picture.info["transparency"] = key * {"L;2": 85, "L;4": 17}[stored]
        case ["RGB;16B"] if isinstance(key, tuple):
            picture.info["transparency"] = tuple(part // 256 for part in key)


def _upright(picture: Image) -> Image:
    """As RGB on white, turned as the EXIF data say, without any of these data left."""
    from PIL import ImageOps

    result = _on_white(picture)
    with suppress(Exception):  # broken EXIF data: as it is stored
        result.info["exif"] = picture.getexif().tobytes()  # also those that were set in memory
        ImageOps.exif_transpose(result, in_place=True)
    result.info = {}
    return result


def _on_white(picture: Image) -> Image:
    from PIL import Image

    alpha = None
    key = picture.info.get("transparency")
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture)
        if isinstance(key, int):  # a grey that stands for nothing
            alpha = Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8))
        picture = Image.fromarray(_eight_bits(values))
    elif picture.mode == "La":
        picture = picture.convert("LA")
    if alpha is None:
        if not picture.has_transparency_data:
            return picture.convert("RGB")
        picture = picture.convert("RGBA")
        alpha = picture.getchannel("A")
    ground = Image.new("RGB", picture.size, "white")
    ground.paste(picture.convert("RGB"), mask=alpha)
    return ground


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Values of 0 to 255; Pillow's own conversion makes white of all that is above."""
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind == "b":
        return values.astype(np.uint8) * 255
    if values.dtype.kind not in "iuf":
        raise TypeError(f"expected numbers, got {values.dtype}")
    if values.dtype == np.float16:  # has no 65536
        values = values.astype(np.float32)
    low, high = values.min(), values.max()
    if not (low >= 0 and high < 2**16):  # also of NaN
        raise ValueError(f"its values go from {low} to {high}: scale them to 0 … 255 first")
    if values.dtype.kind == "f" and high <= _WHITE:
        values = np.minimum(values, 1) * 255
    if high > 255:
        values = values // 256
    return np.round(values).astype(np.uint8)


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "__array__")  # numpy, torch, JAX; PIL has no shape


def _of_array(value: Any) -> Image:
    """An array or tensor as an image, on white; whether channels come first is seen as transformers sees it."""
    from PIL import Image

    if hasattr(value, "detach"):  # a tensor; of bfloat16 numpy knows nothing
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value
    values = _channels_last(np.asarray(value))
    _check_size((values.shape[1], values.shape[0]))
    eight = np.ascontiguousarray(_eight_bits(values))
    return _on_white(Image.fromarray(eight[..., 0] if eight.shape[2] == 1 else eight))


def _channels_last(values: np.ndarray) -> np.ndarray:
    if values.ndim == 2:
        return values[..., None]
    if values.ndim == 3:
        for few in ((1, 3), (2, 4)):
            if values.shape[0] in few:
                return values.transpose(1, 2, 0)
            if values.shape[2] in few:
                return values
    raise ValueError("expected (H, W), (H, W, C) or (C, H, W) with 1 to 4 channels")


def _shown(value: Any) -> str:
    """The image in a message."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return repr(bytes(value[:16])) + "…"
    if _is_array(value):
        return f"of an array {tuple(value.shape)}"
    text = repr(str(value) if isinstance(value, os.PathLike) else value)
    return text if len(text) < 200 else text[:200] + "…"


def _after_fork() -> None:
    global _loading
    _loading = threading.Lock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
