"""Open videos in one way: as a list of frames, each opened like any other image."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from st_vi.files.lines import file_at
from st_vi.inputs.pictures import SECONDS, WEB, image_size, open_image, undecoded
from st_vi.stock import web

if TYPE_CHECKING:
    from PIL.Image import Image

MIN_FRAMES, MAX_FRAMES = 2, 768
"""Frames of a video; 768 is also the limit of Qwen2-VL's video processor."""
FRAMES_PER_SECOND = 2
"""Frames taken from a file that needs a video decoder, as Qwen2-VL was trained (arXiv 2409.12191); at least 4."""

_ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")  # and not MPO or TIFF, whose images are views or pages


def open_video(value: Any, *, fetch: bool = False) -> list[Image]:
    """The frames of one video, opened by `st_vi.inputs.pictures.open_image`, all of one size.

    - **Frames** as a list or tuple of images in any form that `open_image` takes, or an array (T, H, W, C) or
      (T, C, H, W).
    - **An animated image** (GIF, WebP, APNG) as path or bytes: all of its frames.
    - **A video file** (mp4 and others) as path or bytes, if torchcodec, PyAV or decord is installed: two frames for
      each second, evenly spaced, and at least four. PyAV reads no mkv and webm here, whose frames it does not count.

    Qwen2-VL reads frames in pairs. If their number is odd, stock repeats the last one.

    Args:
        value: The video; also a value of an undecoded `datasets` column, a mapping with "bytes" or "path".
        fetch: Whether to fetch ``http://…`` and ``https://…`` addresses.

    Raises:
        ImportError: Pillow is not installed, or a video file needs a decoder and none is installed.
        ValueError: The value is none of these or cannot be read, has fewer than 2 or more than 768 frames, or frames of
            different sizes. Names the frame.

    Example:
        >>> from PIL import Image
        >>> from st_vi.inputs.videos import open_video
        >>> red, blue = Image.new("RGB", (4, 2), "red"), Image.new("RGB", (4, 2), "blue")
        >>> len(open_video([red, blue, red]))
        3
        >>> open_video([red])
        Traceback (most recent call last):
        ValueError: a video needs at least 2 frames, got 1: give a single one as an image
    """
    source = undecoded(value)
    if isinstance(source, (list, tuple)) or getattr(source, "ndim", 0) == 4:
        _check_count(len(source))
        return _of_one_size([_frame(one, number, fetch) for number, one in enumerate(source)])
    if not isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview)):
        raise ValueError(f"expected a list of frames, a path or the bytes of a file as a video, got {source!r:.100}")
    return _of_file(source, _shown(source), fetch)


def video_size(value: Any) -> tuple[int, int, int]:
    """(width, height, frames) of a video, as far as possible from the head of its file.

    Raises:
        ValueError: As for `open_video`, as far as the head tells.

    Example:
        >>> from PIL import Image
        >>> from st_vi.inputs.videos import video_size
        >>> video_size([Image.new("RGB", (4, 2))] * 8)
        (4, 2, 8)
    """
    source = undecoded(value)
    if isinstance(source, (list, tuple)) and len(source) >= MIN_FRAMES:
        return (*image_size(source[0]), len(source))
    frames = open_video(value)
    return (*frames[0].size, len(frames))


@dataclass(frozen=True, eq=False)
class StoredVideo:
    """A video of a row as it is stored, to tell it from images.

    Attributes:
        value: Anything that `open_video` opens.
    """

    value: Any


def _check_count(count: int) -> None:
    if count == 0:
        raise ValueError("the video has no frames")
    if count < MIN_FRAMES:
        raise ValueError(f"a video needs at least {MIN_FRAMES} frames, got {count}: give a single one as an image")
    if count > MAX_FRAMES:
        raise ValueError(f"the video has {count} frames, and at most {MAX_FRAMES} are read: leave some out")


def _frame(value: Any, number: int, fetch: bool) -> Image:
    try:
        if _is_animated(value):
            raise ValueError("it has several frames itself: give such a file alone, not in a list")
        return open_image(value, fetch=fetch)
    except ValueError as error:
        raise ValueError(f"frame {number} of the video: {error}") from error


def _is_animated(value: Any) -> bool:
    """Of a file in a list of frames; what cannot be opened is for `open_image` to tell."""
    from PIL import Image

    source = undecoded(value)
    if isinstance(source, Image.Image):
        return _moves(source)
    if not isinstance(source, (str, os.PathLike, bytes, bytearray)):
        return False
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, (bytes, bytearray)) else source) as picture:
            return _moves(picture)
    except Exception:
        return False


def _moves(picture: Any) -> bool:
    return picture.format in _ANIMATED and getattr(picture, "n_frames", 1) > 1


def _of_one_size(frames: list[Image]) -> list[Image]:
    for number, frame in enumerate(frames):
        if frame.size != frames[0].size:
            sizes = ["{} × {}".format(*one.size) for one in (frame, frames[0])]
            raise ValueError(f"frames differ in size: frame {number} is {sizes[0]}, frame 0 is {sizes[1]}")
    return frames


def _of_file(source: Any, name: str, fetch: bool) -> list[Image]:
    if isinstance(source, str) and source.startswith(WEB):
        if not fetch:
            raise ValueError("videos are not fetched from the web here; download it, and give the file")
        source = web.fetch(source, SECONDS)
    in_memory = isinstance(source, (bytes, bytearray, memoryview))
    if not in_memory:
        if (file := file_at(source)) is None:
            raise ValueError(f"there is no video {name}")
        source = str(file)
    from PIL import Image

    try:
        picture = Image.open(io.BytesIO(source) if in_memory else source)
    except Exception as error:
        if in_memory or os.path.splitext(source)[1].lower() not in Image.registered_extensions():
            return _decoded(source, name)  # none of Pillow's
        raise ValueError(f"cannot read the video {name}: {error}") from error
    with picture:
        _check_count(getattr(picture, "n_frames", 1) if _moves(picture) else 1)
        return _of_one_size(_animation(picture, name))


def _animation(picture: Any, name: str) -> list[Image]:
    from PIL import ImageSequence

    try:
        return [open_image(frame.copy()) for frame in ImageSequence.Iterator(picture)]
    except Exception as error:  # Pillow's decoders raise anything
        raise ValueError(f"cannot read the video {name}: {error or type(error).__name__}") from error


def _decoded(source: Any, name: str) -> list[Image]:
    """The frames of a file that needs a video decoder, by stock's readers."""
    from st_vi.stock.videos import read_video

    try:
        frames: Sequence[Any] = read_video(source, _sampled)
    except ImportError as error:
        raise ImportError(f"cannot read the video {name}: {error}") from None
    except Exception as error:  # decoders raise anything
        raise ValueError(f"cannot read the video {name}: {error or type(error).__name__}") from error
    _check_count(len(frames))
    return [open_image(frame) for frame in frames]


def _sampled(metadata: Any, **_: Any) -> list[int]:
    """Which frames of a file to take: two a second, evenly spaced."""
    total = int(metadata.total_num_frames or 0)
    if not total:  # as PyAV finds in mkv and webm
        raise ValueError("the file does not say how many frames it has: convert it to mp4, or install torchcodec")
    wanted = round(total / (metadata.fps or FRAMES_PER_SECOND) * FRAMES_PER_SECOND)
    count = min(max(wanted, 4), total)
    _check_count(count)
    return [round(number * (total - 1) / (count - 1)) for number in range(count)]


def _shown(value: Any) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return repr(bytes(value[:16])) + "…"
    return f"{os.fspath(value)!r:.200}"
